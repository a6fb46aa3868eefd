use proptest::prelude::*;
use rustls::crypto::CryptoProvider;

use super::*;
use crate::identity::Identity;
use crate::network::{Network, OsNetwork};
use crate::tls::{MeshTls, default_provider};

fn node(number: u8) -> MeshTls {
    node_with(number, default_provider())
}

fn node_with(number: u8, provider: CryptoProvider) -> MeshTls {
    let network: Arc<dyn Network> = Arc::new(OsNetwork);
    MeshTls::new(&Identity::from_secret_key([number; 32]), provider, &network).unwrap()
}

/// One side with its buffers: `incoming` is what came from the wire, `out` what goes there.
struct Side {
    records: Records,
    incoming: Buffer,
    out: Buffer,
    peer: Option<PeerId>,
}

impl Side {
    fn new(records: Records) -> Self {
        Self { records, incoming: Buffer::default(), out: Buffer::default(), peer: None }
    }

    fn client(tls: &MeshTls, expected: Option<PeerId>) -> Self {
        Self::new(Records::client(tls.client_config(expected)).unwrap())
    }

    fn server(tls: &MeshTls) -> Self {
        Self::new(Records::server(tls.server_config()).unwrap())
    }

    fn step(&mut self) -> Result<(), TlsError> {
        if self.peer.is_none() {
            self.peer = self.records.handshake(&mut self.incoming, &mut self.out)?;
        }
        Ok(())
    }

    /// Everything that can be opened now, and whether the peer closed.
    fn open(&mut self) -> Result<(Vec<u8>, bool), TlsError> {
        let mut all = Vec::new();
        loop {
            let mut plain = Vec::new();
            let opened = self.records.open(&mut self.incoming, &mut plain)?;
            all.extend(plain);
            if opened != Opened::Some {
                return Ok((all, opened == Opened::Closed));
            }
        }
    }

    fn seal(&mut self, plaintext: &[u8]) {
        self.records.seal(plaintext, &mut self.out).unwrap();
    }
}

fn carry(from: &mut Side, to: &mut Side, most: usize) {
    let len = from.out.len().min(most);
    to.incoming.extend(&from.out.filled()[..len]);
    from.out.consume(len);
}

/// The handshake, carried in pieces of `piece` bytes. The first error of either side.
fn shake(client: &mut Side, server: &mut Side, piece: usize) -> Result<(), TlsError> {
    for _ in 0..10_000 {
        client.step()?;
        server.step()?;
        if client.peer.is_some() && server.peer.is_some() && client.out.is_empty() && server.out.is_empty() {
            return Ok(());
        }
        carry(client, server, piece);
        carry(server, client, piece);
    }
    panic!("the handshake does not end");
}

fn pair() -> (Side, Side) {
    let (a, b) = (node(1), node(2));
    let (mut client, mut server) = (Side::client(&a, Some(b.peer_id())), Side::server(&b));
    shake(&mut client, &mut server, usize::MAX).unwrap();
    assert_eq!((client.peer, server.peer), (Some(b.peer_id()), Some(a.peer_id())));
    (client, server)
}

#[test]
fn both_sides_learn_the_other_key_however_the_bytes_come() {
    for piece in [1, 7, 100, 4096] {
        let (a, b) = (node(1), node(2));
        let (mut client, mut server) = (Side::client(&a, None), Side::server(&b));
        shake(&mut client, &mut server, piece).unwrap();
        assert_eq!((client.peer, server.peer), (Some(b.peer_id()), Some(a.peer_id())));
    }
}

#[test]
fn an_unexpected_key_is_refused_and_the_server_is_told() {
    let (a, b) = (node(1), node(2));
    let expected = node(3).peer_id();
    let (mut client, mut server) = (Side::client(&a, Some(expected)), Side::server(&b));
    let error = shake(&mut client, &mut server, usize::MAX).unwrap_err();
    assert_eq!(error, TlsError::WrongPeer { expected, found: b.peer_id() });
    assert!(!client.out.is_empty(), "an alert for the server");
    carry(&mut client, &mut server, usize::MAX);
    assert!(matches!(server.step(), Err(TlsError::Alert(_))));
    assert_eq!(server.peer, None);
}

#[test]
fn another_application_protocol_is_refused() {
    let (a, b) = (node(1), node(2));
    for alpn in [vec![], vec![b"h2".to_vec()]] {
        let mut config = ClientConfig::clone(&a.client_config(None));
        config.alpn_protocols = alpn;
        let mut client = Side::new(Records::client(Arc::new(config)).unwrap());
        let mut server = Side::server(&b);
        assert_eq!(shake(&mut client, &mut server, usize::MAX), Err(TlsError::NotVitte));
    }
}

#[test]
fn a_client_without_a_key_is_refused() {
    let (a, b) = (node(1), node(2));
    let mut config = ClientConfig::clone(&a.client_config(None));
    config.client_auth_cert_resolver = Arc::new(NoKey);
    let mut client = Side::new(Records::client(Arc::new(config)).unwrap());
    let mut server = Side::server(&b);
    assert!(matches!(shake(&mut client, &mut server, usize::MAX), Err(TlsError::Peer(_))));
    assert_eq!(server.peer, None);
}

#[derive(Debug)]
struct NoKey;

impl rustls::client::ResolvesClientCert for NoKey {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _sigschemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }
}

#[test]
fn a_full_record_goes_both_ways() {
    let (mut client, mut server) = pair();
    let plaintext: Vec<u8> = (0..MAX_PLAINTEXT).map(|at| at.to_le_bytes()[0]).collect();
    client.seal(&plaintext);
    assert!(client.out.len() <= MAX_PLAINTEXT + OVERHEAD, "one record");
    server.seal(&plaintext[..1]);
    carry(&mut client, &mut server, usize::MAX);
    carry(&mut server, &mut client, usize::MAX);
    assert_eq!(server.open().unwrap(), (plaintext.clone(), false));
    assert_eq!(client.open().unwrap(), (plaintext[..1].to_vec(), false));
    assert!(server.incoming.is_empty() && client.incoming.is_empty());
}

#[test]
fn plaintext_that_comes_with_the_handshake_is_kept() {
    let (a, b) = (node(1), node(2));
    let (mut client, mut server) = (Side::client(&a, None), Side::server(&b));
    client.step().unwrap();
    carry(&mut client, &mut server, usize::MAX);
    server.step().unwrap();
    carry(&mut server, &mut client, usize::MAX);
    client.step().unwrap();
    assert!(client.peer.is_some());
    client.seal(b"early");
    carry(&mut client, &mut server, usize::MAX);
    server.step().unwrap();
    assert!(server.peer.is_some());
    assert_eq!(server.open().unwrap(), (b"early".to_vec(), false));
}

#[test]
fn a_record_that_was_tampered_with_ends_the_connection_and_the_peer_hears_why() {
    let (mut client, mut server) = pair();
    client.seal(b"one");
    carry(&mut client, &mut server, usize::MAX);
    client.seal(b"two");
    let last = client.out.len() - 1;
    client.out.filled_mut()[last] ^= 1;
    carry(&mut client, &mut server, usize::MAX);
    let mut plain = Vec::new();
    let error = server.records.open(&mut server.incoming, &mut plain).unwrap_err();
    assert!(matches!(error, TlsError::Peer(_)), "{error:?}");
    assert_eq!(plain, b"one", "what came before it counts");
    assert_eq!(server.records.seal(b"x", &mut server.out), Err(error.clone()));
    assert_eq!(server.open().unwrap_err(), error, "it stays broken");
    server.records.close(&mut server.out);
    carry(&mut server, &mut client, usize::MAX);
    assert_eq!(client.open(), Err(TlsError::Alert("BadRecordMac".into())));
}

#[test]
fn an_oversized_record_is_refused_before_it_is_there() {
    let (_, mut server) = pair();
    server.incoming.extend(&[23, 3, 3, 0xff, 0xff]);
    assert!(matches!(server.open(), Err(TlsError::Peer(_))));
}

#[test]
fn a_goodbye_is_no_truncation() {
    let (mut client, mut server) = pair();
    client.seal(b"last");
    carry(&mut client, &mut server, usize::MAX);
    assert_eq!(server.open().unwrap(), (b"last".to_vec(), false));
    client.records.close(&mut client.out);
    assert_eq!(client.records.seal(b"more", &mut client.out), Err(TlsError::Ended));
    carry(&mut client, &mut server, usize::MAX);
    assert_eq!(server.open().unwrap(), (Vec::new(), true));
    server.seal(b"still heard");
    server.records.close(&mut server.out);
    carry(&mut server, &mut client, usize::MAX);
    assert_eq!(client.open().unwrap(), (b"still heard".to_vec(), true));
}

#[test]
fn keys_change_in_both_directions() {
    let (mut client, mut server) = pair();
    for round in 0..5_u8 {
        client.seal(&[round]);
        client.records.refresh_keys(&mut client.out).unwrap();
        client.seal(&[round, 1]);
        carry(&mut client, &mut server, usize::MAX);
        assert_eq!(server.open().unwrap(), (vec![round, round, 1], false));
        // The answer, the server's own change of keys, goes before its next record.
        server.seal(&[round, 2]);
        let plain_record = 5 + 2 + 1 + 16;
        assert!(server.out.len() > plain_record, "a key update and a record");
        carry(&mut server, &mut client, usize::MAX);
        assert_eq!(client.open().unwrap(), (vec![round, 2], false));
    }
}

/// A key update is five bytes; split over two records it would leave rustls with a position in a buffer that
/// a later `seal` does not hand in.
#[test]
fn a_handshake_message_in_pieces_is_refused() {
    let (a, b) = (node(1), node(2));
    let extract = |mut config: ClientConfig| {
        config.enable_secret_extraction = true;
        config
    };
    let config = extract(ClientConfig::clone(&a.client_config(None)));
    let mut client = Side::new(Records::client(Arc::new(config)).unwrap());
    let mut server = Side::server(&b);
    shake(&mut client, &mut server, usize::MAX).unwrap();
    let piece = hostile::seal_as_client(client.records, 22, &[24, 0, 0]);
    server.incoming.extend(&piece);
    assert!(matches!(server.open(), Err(TlsError::Peer(_))));
    assert!(server.records.seal(b"x", &mut server.out).is_err());
}

/// A client that seals what rustls never would.
mod hostile {
    use super::*;
    use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    use rustls::ConnectionTrafficSecrets;

    pub(super) fn seal_as_client(records: Records, content_type: u8, content: &[u8]) -> Vec<u8> {
        let Session::Client(session) = records.session else { panic!("a client") };
        let (secrets, _) = session.dangerous_into_kernel_connection().unwrap();
        let (sequence, ConnectionTrafficSecrets::Aes128Gcm { key, iv }) = secrets.tx else {
            panic!("AES-128-GCM goes first");
        };
        let mut nonce: [u8; 12] = iv.as_ref().try_into().unwrap();
        for (byte, mask) in nonce[4..].iter_mut().zip(sequence.to_be_bytes()) {
            *byte ^= mask;
        }
        let len = u16::try_from(content.len() + 1 + 16).unwrap().to_be_bytes();
        let header = [23, 3, 3, len[0], len[1]];
        let mut sealed = [content, &[content_type]].concat();
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_ref()).unwrap());
        let nonce = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(nonce, Aad::from(header), &mut sealed).unwrap();
        [header.as_slice(), &sealed].concat()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is sealed comes out, in order and nothing else, however the wire cuts it.
    #[test]
    fn records_survive_any_cut(
        sizes in proptest::collection::vec(1_usize..=MAX_PLAINTEXT, 1..8),
        pieces in proptest::collection::vec(1_usize..20_000, 1..8),
        refresh in 0_usize..8,
    ) {
        let (mut client, mut server) = pair();
        let mut expected = Vec::new();
        for (number, size) in sizes.iter().enumerate() {
            if number == refresh {
                client.records.refresh_keys(&mut client.out).unwrap();
            }
            let plaintext = vec![u8::try_from(number).unwrap(); *size];
            client.seal(&plaintext);
            expected.extend(plaintext);
        }
        let mut opened = Vec::new();
        for piece in pieces.iter().cycle() {
            if client.out.is_empty() {
                break;
            }
            carry(&mut client, &mut server, *piece);
            opened.extend(server.open().unwrap().0);
            prop_assert!(server.incoming.len() <= MAX_PLAINTEXT + OVERHEAD, "only a part of a record stays");
        }
        prop_assert!(opened == expected);
    }

    /// No bytes from the wire, before or after the handshake, do more harm than an error.
    #[test]
    fn noise_is_an_error(noise in proptest::collection::vec(any::<u8>(), 5..200), shaken: bool) {
        let (_, mut server) = if shaken { pair() } else {
            (Side::client(&node(1), None), Side::server(&node(2)))
        };
        server.incoming.extend(&noise);
        let result = if shaken { server.open().map(|_| ()) } else { server.step() };
        let whole = noise.len() - 5 >= usize::from(u16::from_be_bytes([noise[3], noise[4]]));
        prop_assert!(result.is_err() || !whole, "{result:?}");
    }

    /// The buffer is a queue of bytes.
    #[test]
    fn a_buffer_is_a_queue(steps in proptest::collection::vec((0_usize..300, 0_usize..300), 1..50)) {
        let (mut buffer, mut model) = (Buffer::default(), std::collections::VecDeque::new());
        let (mut next, mut most) = (0_u8, 0);
        for (add, take) in steps {
            let added: Vec<u8> = (0..add).map(|_| { next = next.wrapping_add(1); next }).collect();
            buffer.extend(&added);
            model.extend(added);
            most = most.max(model.len());
            let take = take.min(model.len());
            buffer.consume(take);
            model.drain(..take);
            buffer.shrink(64);
            prop_assert_eq!(buffer.filled(), &*model.make_contiguous());
            most = if model.is_empty() { 0 } else { most };
            prop_assert!(buffer.footprint() <= 64 || buffer.footprint() <= 4 * most);
        }
    }
}
