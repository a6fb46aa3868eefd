//! The same seed gives the same run: in one process, in two, with TLS on top; and the check can fail.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::rand_core::RngCore;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use vitte_net::network::{Network, OsNetwork, TcpOptions, UdpOptions};
use vitte_net_sim::{Cluster, Failure, LinkSettings, Node, NodeResult, Report, Scenario};

const NODES: [&str; 3] = ["a", "b", "c"];
const SPAN: Duration = Duration::from_secs(3);
/// Set in a child process: the seed it runs, and whether one source of randomness is not seeded.
const CHILD: &str = "VITTE_SIM_TEST_CHILD";

#[derive(Clone, Copy, PartialEq)]
enum Source {
    Seeded,
    OperatingSystem,
}

/// Answers on TCP with as many bytes as the first byte asks for, and sends datagrams around.
async fn serve(node: Node) -> NodeResult {
    let network = node.network();
    let listener = network.listen_tcp(([0, 0, 0, 0], 1).into(), &TcpOptions::default()).await?;
    let socket = network.bind_udp(([0, 0, 0, 0], 2).into(), &UdpOptions::default()).await?;
    let mut rng = node.rng("datagrams");
    let sender = node.clone();
    tokio::spawn(async move {
        loop {
            let to = NODES[rng.next_u32() as usize % 3];
            let ip = sender.network().lookup(to).await.unwrap()[0];
            let len = rng.next_u32() as usize % 1200;
            // A crashed life has no network any more.
            if socket.try_send(&vec![0; len], (ip, 2).into()).is_err() {
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
    });
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            while let Ok(count) = stream.read_u8().await {
                if stream.write_all(&vec![0; usize::from(count) * 100]).await.is_err() {
                    break;
                }
            }
        });
    }
}

/// Asks the others until the faults are over.
async fn ask(node: Node, source: Source) -> NodeResult {
    let network = node.network();
    let mut rng = node.rng("questions");
    while node.world().now() < SPAN + Duration::from_secs(1) {
        let ip = network.lookup(NODES[rng.next_u32() as usize % 3]).await?[0];
        let options = TcpOptions::default();
        let question = async {
            let mut stream = network.connect_tcp((ip, 1).into(), &options).await?;
            for _ in 0..20 {
                let count = match source {
                    Source::Seeded => rng.next_u32().to_le_bytes()[0],
                    Source::OperatingSystem => {
                        let mut byte = [0];
                        OsNetwork::new().fill_random(&mut byte);
                        byte[0]
                    }
                };
                stream.write_u8(count).await?;
                stream.read_exact(&mut vec![0; usize::from(count) * 100]).await?;
            }
            Ok::<(), std::io::Error>(())
        };
        let outcome = match timeout(Duration::from_millis(700), question).await {
            Ok(Ok(())) => "answered".to_owned(),
            Ok(Err(error)) => format!("failed: {}", error.kind()),
            Err(_) => "timed out".to_owned(),
        };
        node.event(outcome);
        sleep(Duration::from_millis(3)).await;
    }
    Ok(())
}

fn chaos(seed: u64, source: Source) -> Result<Report, Box<Failure>> {
    let mut link = LinkSettings::default();
    link.latency = Duration::from_millis(2);
    link.jitter = Duration::from_millis(6);
    link.loss = 0.05;
    let mut cluster = Cluster::new(seed).link(link);
    for name in NODES {
        cluster = cluster.node(name, serve);
    }
    cluster
        .client("asker", move |node| ask(node, source))
        .scenario(Scenario::random(seed, &NODES, SPAN))
        .run()
}

/// Runs this test's own file once more and returns the digest it prints.
fn digest_of_a_child(seed: u64, source: Source) -> String {
    let source = if source == Source::Seeded { "seeded" } else { "unseeded" };
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, format!("{seed} {source}"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let digest = text.split("digest=").nth(1).unwrap_or_else(|| panic!("no digest in {text}"));
    digest[..64].to_owned()
}

/// What a child process runs; in the parent there is nothing to do.
#[test]
fn child() {
    let Ok(text) = std::env::var(CHILD) else { return };
    let (seed, source) = text.split_once(' ').unwrap();
    let source = if source == "seeded" { Source::Seeded } else { Source::OperatingSystem };
    println!("digest={}", chaos(seed.parse().unwrap(), source).unwrap().digest);
}

#[test]
fn two_processes_agree_on_every_seed() {
    for seed in 1..=5 {
        let here = chaos(seed, Source::Seeded).unwrap();
        assert!(here.events > 1_000, "{}", here.events);
        assert_eq!(here.digest, digest_of_a_child(seed, Source::Seeded), "seed {seed}");
    }
}

#[test]
fn another_seed_is_another_run() {
    let digests: std::collections::BTreeSet<String> =
        (1..=5).map(|seed| chaos(seed, Source::Seeded).unwrap().digest).collect();
    assert_eq!(digests.len(), 5);
}

#[test]
fn one_unseeded_source_breaks_the_agreement() {
    let first = digest_of_a_child(1, Source::OperatingSystem);
    assert_ne!(first, digest_of_a_child(1, Source::OperatingSystem));
}

/// A TLS 1.3 handshake over a simulated stream, with raw public keys: the bytes on the wire are events.
fn handshake(seed: u64, provider: fn(&Node) -> rustls::crypto::CryptoProvider) -> Report {
    let mut cluster = Cluster::new(seed)
        .node("server", move |node| async move {
            let network = node.network();
            let listener = network.listen_tcp(([0, 0, 0, 0], 1).into(), &TcpOptions::default()).await?;
            let (mut stream, _) = listener.accept().await?;
            let resolver = raw_key(&node)?;
            let config = rustls::ServerConfig::builder_with_provider(Arc::new(provider(&node)))
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(resolver));
            let mut tls = rustls::Connection::from(rustls::ServerConnection::new(Arc::new(config))?);
            drive(&node, &mut tls, &mut stream).await?;
            std::future::pending().await
        })
        .client("client", move |node| async move {
            let ip = node.network().lookup("server").await?[0];
            let options = TcpOptions::default();
            let mut stream = node.network().connect_tcp((ip, 1).into(), &options).await?;
            let provider = Arc::new(provider(&node));
            let verifier = Arc::new(AnyKey(Arc::clone(&provider)));
            let config = rustls::ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth();
            let name = ServerName::try_from("server")?;
            let mut tls = rustls::Connection::from(rustls::ClientConnection::new(Arc::new(config), name)?);
            drive(&node, &mut tls, &mut stream).await
        });
    cluster.run().unwrap()
}

/// Handshakes, and reports a hash of every byte that it sends.
async fn drive(
    node: &Node,
    tls: &mut rustls::Connection,
    stream: &mut vitte_net::network::BoxStream,
) -> NodeResult {
    while tls.is_handshaking() || tls.wants_write() {
        let mut out = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut out)?;
        }
        node.event(format!("sends {:?}", ring::digest::digest(&ring::digest::SHA256, &out)));
        stream.write_all(&out).await?;
        if tls.is_handshaking() {
            let mut buf = [0; 4096];
            let count = stream.read(&mut buf).await?;
            let mut rest = &buf[..count];
            while !rest.is_empty() {
                tls.read_tls(&mut rest)?;
                tls.process_new_packets()?;
            }
        }
    }
    Ok(())
}

fn raw_key(node: &Node) -> Result<rustls::server::AlwaysResolvesServerRawPublicKeys, rustls::Error> {
    use ring::signature::KeyPair;
    let secret = node.secret_key();
    let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&secret)
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    // RFC 8410: the fixed beginnings of a private key and of a public key.
    let pkcs8 = [
        &b"\x30\x51\x02\x01\x01\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20"[..],
        &secret,
        b"\x81\x21\x00",
        pair.public_key().as_ref(),
    ]
    .concat();
    let spki =
        [&b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"[..], pair.public_key().as_ref()].concat();
    let key = rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8))?;
    let key = rustls::sign::CertifiedKey::new(vec![spki.into()], key);
    Ok(rustls::server::AlwaysResolvesServerRawPublicKeys::new(Arc::new(key)))
}

/// Takes any key, as long as the handshake is signed with it.
#[derive(Debug)]
struct AnyKey(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(certificate.as_ref());
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[test]
fn a_tls_handshake_replays_to_the_byte() {
    let seeded = |seed| handshake(seed, Node::crypto_provider).digest;
    assert_eq!(seeded(1), seeded(1));
    assert_ne!(seeded(1), seeded(2));
}

#[test]
fn a_tls_handshake_with_real_randomness_does_not() {
    let unseeded = || handshake(1, |_| rustls::crypto::ring::default_provider()).digest;
    assert_ne!(unseeded(), unseeded());
}
