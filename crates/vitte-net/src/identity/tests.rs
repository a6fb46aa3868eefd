use super::*;

fn hellos() -> Hellos {
    Hellos {
        dialler: PeerId([1; 32]),
        acceptor: PeerId([2; 32]),
        dialler_nonce: [3; 32],
        acceptor_nonce: [4; 32],
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let mut name = [0; 8];
        random(&mut name);
        let path = std::env::temp_dir().join(format!("vitte-net-{}", HEXLOWER.encode(&name)));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// RFC 8032, section 7.1, test 1.
#[test]
fn the_public_key_is_that_of_the_rfc() {
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let identity = Identity::from_text(seed, Path::new("")).unwrap();
    assert_eq!(
        identity.peer_id().to_string(),
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    );
    assert!(!format!("{identity:?}").contains("9d61"));
}

#[test]
fn a_key_file_is_made_once() {
    let folder = Folder::new();
    let path = folder.0.join("node.key");
    let first = Identity::load_or_create(&path).unwrap();
    let second = Identity::load_or_create(&path).unwrap();
    assert_eq!(first.peer_id(), second.peer_id());
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "no draft stays behind");
    assert_eq!(
        create_private(&path, b"other").map_err(|error| error.kind()),
        Err(io::ErrorKind::AlreadyExists),
        "a file that exists is not replaced"
    );
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
    fs::write(&path, "hello").unwrap();
    assert!(matches!(Identity::load_or_create(&path), Err(IdentityError::BadFile(_))));
    let nowhere = folder.0.join("no/such/folder.key");
    assert!(matches!(Identity::load_or_create(nowhere), Err(IdentityError::Io { .. })));
}

#[cfg(unix)]
#[test]
fn a_file_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let path = folder.0.join("node.key");
    Identity::load_or_create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(Identity::load_or_create(&path), Err(IdentityError::NotPrivate(_))));
    assert!(matches!(Secret::from_file(&path), Err(SecretError::NotPrivate(_))));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(Secret::from_file(&path).is_ok());
}

#[test]
fn a_secret_is_random_and_long() {
    let secret = Secret::generate();
    let again = Secret::parse(&secret.expose()).unwrap();
    assert_eq!(secret.0, again.0);
    assert_eq!(format!("{secret:?}"), "Secret(..)");
    assert!(Secret::parse("  Zm9vYmFyIGJheiBxdXV4IDEyMw\n").is_ok());
    let error = |text: &str| Secret::parse(text).expect_err(text);
    assert!(matches!(error(""), SecretError::TooShort { bytes: 0 }));
    assert!(matches!(error("0123456789abcdef"), SecretError::TooShort { bytes: 8 }));
    assert!(matches!(error("hunter2"), SecretError::Encoding | SecretError::TooShort { .. }));
    assert!(matches!(error("correct horse battery staple"), SecretError::Encoding));
    assert!(matches!(error("correcthorsebatterystapl"), SecretError::Weak));
    assert!(matches!(error(&"00".repeat(16)), SecretError::Weak));
    assert!(matches!(error(&"ab".repeat(200)), SecretError::TooLong));
    assert!(matches!(Secret::from_env("VITTE_NET_NO_SUCH_VARIABLE"), Err(SecretError::NoVariable(_))));
}

#[test]
fn a_proof_holds_for_one_secret_side_pair_and_hello() {
    let (secret, other) = (Secret::generate(), Secret::generate());
    let hellos = hellos();
    let proof = prove(&secret, Role::Dialler, &hellos);
    assert!(verify(&secret, Role::Dialler, &hellos, &proof));
    assert!(!verify(&other, Role::Dialler, &hellos, &proof), "another secret");
    assert!(!verify(&secret, Role::Acceptor, &hellos, &proof), "reflected");
    let changes: [fn(&mut Hellos); 6] = [
        |h| std::mem::swap(&mut h.dialler, &mut h.acceptor),
        |h| std::mem::swap(&mut h.dialler_nonce, &mut h.acceptor_nonce),
        |h| h.dialler.0[31] ^= 1,
        |h| h.acceptor.0[0] ^= 128,
        |h| h.dialler_nonce[0] ^= 1,
        |h| h.acceptor_nonce[31] ^= 1,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut changed = hellos.clone();
        change(&mut changed);
        assert!(!verify(&secret, Role::Dialler, &changed, &proof), "change {number}");
    }
    for at in 0..32 {
        let mut changed = proof;
        changed[at] ^= 1;
        assert!(!verify(&secret, Role::Dialler, &hellos, &changed), "byte {at}");
    }
}

/// `docs/vectors/proofs.json`, which was made with Python's `hmac`.
#[test]
fn a_proof_is_what_the_wire_says() {
    let vectors: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("../../../../docs/vectors/proofs.json")).unwrap();
    assert_eq!(vectors.len(), 3);
    for vector in vectors {
        let bytes = |key: &str| -> [u8; 32] {
            HEXLOWER.decode(vector[key].as_str().unwrap().as_bytes()).unwrap().try_into().unwrap()
        };
        let hellos = Hellos {
            dialler: PeerId(bytes("dialler")),
            acceptor: PeerId(bytes("acceptor")),
            dialler_nonce: bytes("dialler_nonce"),
            acceptor_nonce: bytes("acceptor_nonce"),
        };
        let secret = Secret::parse(vector["secret"].as_str().unwrap()).unwrap();
        let role = if vector["role"] == 1 { Role::Dialler } else { Role::Acceptor };
        assert_eq!(prove(&secret, role, &hellos), bytes("proof"), "{}", vector["name"]);
        assert!(verify(&secret, role, &hellos, &bytes("proof")));
    }
}

#[test]
fn keys_let_in_whom_they_name() {
    let hellos = hellos();
    let trust = Trust::keys([hellos.dialler]);
    assert!(trust.allows(&hellos.dialler) && !trust.allows(&hellos.acceptor));
    let proof = trust.prove(Role::Dialler, &hellos);
    assert_eq!(proof, [0; 32]);
    assert!(trust.verify(Role::Dialler, &hellos, &proof));
    assert!(!trust.verify(Role::Acceptor, &hellos, &proof));

    let trust = Trust::secret(Secret::generate());
    assert!(!trust.verify(Role::Dialler, &hellos, &[0; 32]));
    assert!(trust.verify(Role::Dialler, &hellos, &trust.prove(Role::Dialler, &hellos)));
}
