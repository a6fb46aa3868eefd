//! Who a node is ([`Identity`]), whom it lets in ([`Trust`]), and the [`Secret`] that members of a mesh may
//! share. No other file names `ring`.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use vitte_net_proto::PeerId;
use zeroize::Zeroizing;

/// Bytes that are read of a key or secret file at most.
const MAX_FILE: u64 = 4096;

/// The Ed25519 key of a node (RFC 8032). Its public half is the node's [`PeerId`].
///
/// Clones share the key, which is overwritten with zeros when the last one is dropped.
#[derive(Clone)]
pub struct Identity {
    seed: Arc<Zeroizing<[u8; 32]>>,
    peer: PeerId,
}

impl Identity {
    /// A new key from the operating system's randomness.
    ///
    /// # Panics
    /// If the operating system has none.
    #[must_use]
    pub fn generate() -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        random(seed.as_mut_slice());
        Self::from_seed(seed)
    }

    /// The key with this secret half: the 32-byte seed of RFC 8032, section 5.1.5.
    #[must_use]
    pub fn from_secret_key(secret_key: [u8; 32]) -> Self {
        Self::from_seed(Zeroizing::new(secret_key))
    }

    /// Reads the key file at `path`, or creates it with a new key: 64 hexadecimal digits and a line feed,
    /// readable by its owner alone (mode 0600). The file appears whole or not at all; of two processes that
    /// create it at the same time one wins and both use its key. It blocks the thread for as long as the
    /// file system takes.
    ///
    /// # Errors
    /// The file cannot be read or written, others may read it (on Unix), or it is no key file.
    pub fn load_or_create(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        match read_private(path) {
            Err(FileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.at(path)),
            Ok(text) => return Self::from_text(&text, path),
        }
        let identity = Self::generate();
        let text = Zeroizing::new(HEXLOWER.encode(identity.seed.as_slice()) + "\n");
        match create_private(path, text.as_bytes()) {
            Ok(()) => Ok(identity),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Self::from_text(&read_private(path).map_err(|error| error.at(path))?, path)
            }
            Err(source) => Err(IdentityError::Io { path: path.to_owned(), source }),
        }
    }

    /// The public half.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.peer
    }

    /// The key in the form that TLS libraries read: PKCS #8 version 1 (RFC 8410, section 7).
    pub(crate) fn pkcs8(&self) -> Zeroizing<Vec<u8>> {
        let prefix = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
        Zeroizing::new([prefix.as_slice(), self.seed.as_slice()].concat())
    }

    fn from_text(text: &str, path: &Path) -> Result<Self, IdentityError> {
        let bad = || IdentityError::BadFile(path.to_owned());
        let bytes = Zeroizing::new(HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).map_err(|_| bad())?);
        Ok(Self::from_secret_key(bytes.as_slice().try_into().map_err(|_| bad())?))
    }

    fn from_seed(seed: Zeroizing<[u8; 32]>) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).expect("any 32 bytes are a seed");
        let public = pair.public_key().as_ref().try_into().expect("a public key has 32 bytes");
        Self { seed: Arc::new(seed), peer: PeerId(public) }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Why there is no [`Identity`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The key file cannot be read or written.
    #[error("the key file {path:?}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Others may read the key file. `chmod 600` it, if nobody has read it yet; otherwise make a new key.
    #[error("the key file {0:?} may be read by others; its mode must be 600")]
    NotPrivate(PathBuf),
    /// The file is not 64 hexadecimal digits.
    #[error("{0:?} is no key file: a key is 64 hexadecimal digits")]
    BadFile(PathBuf),
}

/// A secret that the members of a mesh share: 16 to 128 random bytes. It is generated, never thought of:
/// texts that look like a password are refused.
///
/// There is no `Display`, and `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

impl Secret {
    /// Fewest bytes of a secret: 128 bits.
    pub const MIN_LEN: usize = 16;
    /// Most bytes of a secret.
    pub const MAX_LEN: usize = 128;

    /// A new secret of 256 bits from the operating system's randomness.
    ///
    /// # Panics
    /// If the operating system has none.
    #[must_use]
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new(vec![0; 32]);
        random(&mut bytes);
        Self(Arc::new(bytes))
    }

    /// Reads a secret from hexadecimal digits or from base64url (RFC 4648, section 5) without padding.
    /// White space around it is skipped.
    ///
    /// # Errors
    /// It is neither, too short, too long, or looks thought of: base64url without both cases of letters, or
    /// fewer than six different bytes.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let text = text.trim().as_bytes();
        if text.len() > 2 * Self::MAX_LEN {
            return Err(SecretError::TooLong);
        }
        let hex = text.iter().all(u8::is_ascii_hexdigit);
        let encoding = if hex { &HEXLOWER_PERMISSIVE } else { &BASE64URL_NOPAD };
        let bytes = Zeroizing::new(encoding.decode(text).map_err(|_| SecretError::Encoding)?);
        match bytes.len() {
            ..Self::MIN_LEN => return Err(SecretError::TooShort { bytes: bytes.len() }),
            Self::MIN_LEN..=Self::MAX_LEN => {}
            _ => return Err(SecretError::TooLong),
        }
        // Of random secrets these tests refuse about one in fifty thousand.
        let one_case = !text.iter().any(u8::is_ascii_lowercase) || !text.iter().any(u8::is_ascii_uppercase);
        if (!hex && one_case) || bytes.iter().collect::<BTreeSet<_>>().len() < 6 {
            return Err(SecretError::Weak);
        }
        Ok(Self(Arc::new(bytes)))
    }

    /// Reads a secret from a file that only its owner may read (mode 0600, on Unix). It blocks the thread
    /// for as long as the file system takes.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, or see [`parse`](Self::parse).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, SecretError> {
        let path = path.as_ref();
        let text = read_private(path).map_err(|error| match error {
            FileError::Io(source) => SecretError::Io { path: path.to_owned(), source },
            FileError::NotPrivate => SecretError::NotPrivate(path.to_owned()),
        })?;
        Self::parse(&text)
    }

    /// Reads a secret from an environment variable.
    ///
    /// # Errors
    /// There is no such variable, or see [`parse`](Self::parse).
    pub fn from_env(name: &str) -> Result<Self, SecretError> {
        let text = std::env::var(name).map_err(|_| SecretError::NoVariable(name.to_owned()))?;
        Self::parse(&Zeroizing::new(text))
    }

    /// The secret as hexadecimal digits, to be written where the other members read it. Mind where it goes.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        Zeroizing::new(HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a text is no [`Secret`]. Nothing of the text is shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Neither hexadecimal digits nor base64url.
    #[error("a secret is hexadecimal digits or base64url, generated and not thought of")]
    Encoding,
    /// Fewer than 128 bits.
    #[error("a secret has at least {min} random bytes, this has {bytes}", min = Secret::MIN_LEN)]
    TooShort {
        /// How many it has.
        bytes: usize,
    },
    /// More than 128 bytes.
    #[error("a secret has at most {max} bytes", max = Secret::MAX_LEN)]
    TooLong,
    /// It looks like a password or a pattern.
    #[error("this looks like a password or a pattern; generate a secret instead")]
    Weak,
    /// The file cannot be read.
    #[error("the secret file {path:?}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Others may read the file.
    #[error("the secret file {0:?} may be read by others; its mode must be 600")]
    NotPrivate(PathBuf),
    /// The environment variable is not set, or no Unicode.
    #[error("the environment variable {0} is not set, or no Unicode")]
    NoVariable(String),
}

/// Whom a node lets in. There is no default: without one a mesh does not start.
#[derive(Clone, Debug)]
pub struct Trust(Rule);

#[derive(Clone, Debug)]
enum Rule {
    Keys(BTreeSet<PeerId>),
    Secret(Secret),
}

impl Trust {
    /// Exactly these peers.
    #[must_use]
    pub fn keys(peers: impl IntoIterator<Item = PeerId>) -> Self {
        Self(Rule::Keys(peers.into_iter().collect()))
    }

    /// Everybody who knows this secret. Neither it nor anything to guess it from is ever sent.
    #[must_use]
    pub fn secret(secret: Secret) -> Self {
        Self(Rule::Secret(secret))
    }

    /// `peer` may go on to the proof. It has proven its key before.
    pub(crate) fn allows(&self, peer: &PeerId) -> bool {
        match &self.0 {
            Rule::Keys(peers) => peers.contains(peer),
            Rule::Secret(_) => true,
        }
    }

    /// The hello asks for the proof of a secret.
    pub(crate) fn needs_secret(&self) -> bool {
        matches!(self.0, Rule::Secret(_))
    }

    /// What this side says in its hello: 32 zeros where keys alone decide.
    pub(crate) fn prove(&self, role: Role, hellos: &Hellos) -> [u8; 32] {
        match &self.0 {
            Rule::Keys(_) => [0; 32],
            Rule::Secret(secret) => prove(secret, role, hellos),
        }
    }

    /// The side in `role` said `proof`, and is let in.
    pub(crate) fn verify(&self, role: Role, hellos: &Hellos, proof: &[u8; 32]) -> bool {
        let peer = match role {
            Role::Dialler => &hellos.dialler,
            Role::Acceptor => &hellos.acceptor,
        };
        match &self.0 {
            Rule::Keys(peers) => peers.contains(peer),
            Rule::Secret(secret) => verify(secret, role, hellos, proof),
        }
    }
}

/// Which side of a link speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Dialler = 1,
    Acceptor = 2,
}

/// What both sides of a link know once both have said hello. The keys are those that TLS has proven, so
/// that a proof cannot be carried to another pair; the nonces are fresh, so that it cannot be said again.
#[derive(Clone, Debug)]
pub(crate) struct Hellos {
    pub(crate) dialler: PeerId,
    pub(crate) acceptor: PeerId,
    pub(crate) dialler_nonce: [u8; 32],
    pub(crate) acceptor_nonce: [u8; 32],
}

impl Hellos {
    fn message(&self, role: Role) -> [u8; 142] {
        let mut message = [0; 142];
        message[..13].copy_from_slice(b"vitte/1 proof");
        message[13] = role as u8;
        let fields = [&self.dialler.0, &self.acceptor.0, &self.dialler_nonce, &self.acceptor_nonce];
        for (to, from) in message[14..].chunks_exact_mut(32).zip(fields) {
            to.copy_from_slice(from);
        }
        message
    }
}

/// HMAC-SHA256(secret, label || role || both keys || both nonces).
pub(crate) fn prove(secret: &Secret, role: Role, hellos: &Hellos) -> [u8; 32] {
    let tag = hmac::sign(&secret.mac_key(), &hellos.message(role));
    let mut proof = [0; 32];
    proof.copy_from_slice(tag.as_ref());
    proof
}

/// Whether the side in `role` knows `secret`, in constant time.
pub(crate) fn verify(secret: &Secret, role: Role, hellos: &Hellos, proof: &[u8; 32]) -> bool {
    hmac::verify(&secret.mac_key(), &hellos.message(role), proof).is_ok()
}

impl Secret {
    fn mac_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

/// Keys and secrets alone come from here. A simulated node is handed its key, so that no simulated run asks
/// the operating system.
fn random(out: &mut [u8]) {
    SystemRandom::new().fill(out).expect("the operating system has random bytes");
}

enum FileError {
    Io(io::Error),
    NotPrivate,
}

impl FileError {
    fn at(self, path: &Path) -> IdentityError {
        match self {
            Self::Io(source) => IdentityError::Io { path: path.to_owned(), source },
            Self::NotPrivate => IdentityError::NotPrivate(path.to_owned()),
        }
    }
}

fn read_private(path: &Path) -> Result<Zeroizing<String>, FileError> {
    let file = File::open(path).map_err(FileError::Io)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        if file.metadata().map_err(FileError::Io)?.mode() & 0o077 != 0 {
            return Err(FileError::NotPrivate);
        }
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_FILE).read_to_string(&mut text).map_err(FileError::Io)?;
    Ok(text)
}

/// Creates a file that is there whole or not at all, for its owner alone; one that exists stays.
fn create_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut suffix = [0; 8];
    random(&mut suffix);
    let mut draft = path.to_owned().into_os_string();
    draft.push(format!(".{}", HEXLOWER.encode(&suffix)));
    let draft = PathBuf::from(draft);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&draft)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    // A link, unlike a rename, never replaces what another process has put there meanwhile.
    let linked = written.and_then(|()| fs::hard_link(&draft, path));
    let removed = fs::remove_file(&draft);
    linked.and(removed)
}

#[cfg(test)]
mod tests;
