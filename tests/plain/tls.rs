//! TLS between our own two sides: who is let in, who is not, and how a connection ends.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vitte_net::network::{
    BoxFuture, BoxStream, Datagrams, Network, OsNetwork, TcpListen, TcpOptions, UdpOptions,
};
use vitte_net::tcp::{TcpClient, TcpServer};
use vitte_net::tls::{ClientTls, ServerTls, TlsFailure, TlsSetupError, TlsStream};
use vitte_net_sim::Cluster;

/// An authority that issues certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for `names` and its key, in PEM.
    pub(crate) fn issue(&self, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    pub(crate) fn server(&self, names: &[&str]) -> ServerTls {
        let (chain, key) = self.issue(names);
        ServerTls::builder().certificate_pem(chain, key).build().unwrap()
    }

    pub(crate) fn client(&self) -> ClientTls {
        ClientTls::builder().roots_pem(&self.pem).unwrap().build().unwrap()
    }
}

/// A TCP connection: the client's end, the server's end.
pub(crate) async fn pair() -> (BoxStream, BoxStream) {
    let mut server = TcpServer::bind("127.0.0.1:0").await.unwrap();
    let client = TcpClient::connect(server.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = server.accept().await.unwrap();
    (client.into_inner(), accepted.into_inner())
}

async fn both(
    client: &ClientTls,
    name: &str,
    server: &ServerTls,
) -> (io::Result<TlsStream>, io::Result<TlsStream>) {
    let (near, far) = pair().await;
    tokio::join!(client.connect(name, near), server.accept(far))
}

async fn established(client: &ClientTls, name: &str, server: &ServerTls) -> (TlsStream, TlsStream) {
    let (near, far) = both(client, name, server).await;
    (near.unwrap(), far.unwrap())
}

fn failure(result: io::Result<TlsStream>) -> TlsFailure {
    let error = result.unwrap_err();
    TlsFailure::of(&error).unwrap_or_else(|| panic!("no failure of TLS: {error:?}")).clone()
}

/// Reads one message, which lets the tickets that stand before it arrive.
async fn exchange(from: &mut TlsStream, to: &mut TlsStream) {
    from.write_all(b"ping").await.unwrap();
    from.flush().await.unwrap();
    to.read_exact(&mut [0; 4]).await.unwrap();
}

#[tokio::test]
async fn both_sides_know_what_was_agreed() {
    let authority = Authority::new("ours");
    let client = authority.client().with_alpn(["h2", "http/1.1"]);
    let server = authority.server(&["localhost"]).with_alpn(["http/1.1"]);
    let (mut near, mut far) = established(&client, "localhost", &server).await;
    assert_eq!((near.alpn(), far.alpn()), (Some(&b"http/1.1"[..]), Some(&b"http/1.1"[..])));
    assert_eq!((near.server_name(), far.server_name()), (None, Some("localhost")));
    assert_eq!((near.version(), far.version()), ("TLS 1.3", "TLS 1.3"));
    assert!(near.cipher_suite().starts_with("TLS13_"), "{}", near.cipher_suite());
    assert_eq!((near.peer_certificates().len(), far.peer_certificates().len()), (1, 0));
    exchange(&mut near, &mut far).await;
    exchange(&mut far, &mut near).await;
}

#[tokio::test]
async fn a_large_transfer_arrives_whole() {
    let authority = Authority::new("ours");
    let (near, far) = established(&authority.client(), "localhost", &authority.server(&["localhost"])).await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let (mut near, mut far) = (near.into_box(), far.into_box());
    let (_, received) = tokio::join!(
        async {
            near.write_all(&sent).await.unwrap();
            near.shutdown().await.unwrap();
        },
        async {
            let mut received = Vec::new();
            far.read_to_end(&mut received).await.unwrap();
            received
        }
    );
    assert!(received == sent, "the bytes differ");
    // The other direction still works: TLS 1.3 closes each alone.
    far.write_all(b"and back").await.unwrap();
    far.shutdown().await.unwrap();
    let mut back = Vec::new();
    near.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, b"and back");
}

#[tokio::test]
async fn a_wrong_certificate_is_refused() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (near, far) = both(&ours.client(), "localhost", &theirs.server(&["localhost"])).await;
    assert!(matches!(failure(near), TlsFailure::Certificate(why) if why.contains("UnknownIssuer")));
    assert!(matches!(failure(far), TlsFailure::Alert(_)));
    let (near, _) = both(&ours.client(), "localhost", &ours.server(&["example.org"])).await;
    assert!(matches!(failure(near), TlsFailure::Certificate(why) if why.contains("localhost")));
    let (near, _) = both(&ours.client(), "127.0.0.1", &ours.server(&["localhost"])).await;
    assert!(matches!(failure(near), TlsFailure::Certificate(_)));
    established(&ours.client(), "127.0.0.1", &ours.server(&["127.0.0.1"])).await;
    let (near, _) = both(&ours.client(), "no name\x1b", &ours.server(&["localhost"])).await;
    assert_eq!(failure(near), TlsFailure::Name("no name\\u{1b}".to_owned()));
}

#[tokio::test]
async fn any_certificate_does_only_where_that_was_said() {
    let theirs = Authority::new("theirs");
    let client = ClientTls::builder().dangerous_accept_any_certificate().build().unwrap();
    established(&client, "localhost", &theirs.server(&["elsewhere"])).await;
}

/// The system's sockets with a clock of its own.
#[derive(Debug)]
struct At(SystemTime);

impl Network for At {
    fn connect_tcp<'a>(
        &'a self,
        to: SocketAddr,
        options: &'a TcpOptions,
    ) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move { OsNetwork::new().connect_tcp(to, options).await })
    }

    fn listen_tcp<'a>(
        &'a self,
        at: SocketAddr,
        options: &'a TcpOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn TcpListen>>> {
        Box::pin(async move { OsNetwork::new().listen_tcp(at, options).await })
    }

    fn bind_udp<'a>(
        &'a self,
        at: SocketAddr,
        options: &'a UdpOptions,
    ) -> BoxFuture<'a, io::Result<Arc<dyn Datagrams>>> {
        Box::pin(async move { OsNetwork::new().bind_udp(at, options).await })
    }

    fn lookup<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move { OsNetwork::new().lookup(host).await })
    }

    fn wall_clock(&self) -> SystemTime {
        self.0
    }

    fn fill_random(&self, out: &mut [u8]) {
        OsNetwork::new().fill_random(out);
    }
}

#[tokio::test]
async fn the_network_says_what_time_it_is() {
    let authority = Authority::new("ours");
    let far_future = SystemTime::UNIX_EPOCH + Duration::from_secs(100_000_000_000);
    let builder = ClientTls::builder().roots_pem(&authority.pem).unwrap();
    let client = builder.network(Arc::new(At(far_future))).build().unwrap();
    let (near, _) = both(&client, "localhost", &authority.server(&["localhost"])).await;
    assert!(matches!(failure(near), TlsFailure::Certificate(why) if why.contains("expired")));
}

#[tokio::test]
async fn a_cut_is_not_an_end() {
    let authority = Authority::new("ours");
    let (client, server) = (authority.client(), authority.server(&["localhost"]));
    let (mut near, mut far) = established(&client, "localhost", &server).await;
    exchange(&mut far, &mut near).await;
    drop(far);
    let error = near.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(TlsFailure::of(&error), Some(&TlsFailure::Truncated));
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);

    let (mut near, mut far) = established(&client, "localhost", &server).await;
    far.write_all(b"all of it").await.unwrap();
    let patience = Duration::from_secs(10);
    let (ended, read) = tokio::join!(far.shutdown(patience), async {
        let mut all = Vec::new();
        near.read_to_end(&mut all).await.unwrap();
        near.shutdown(patience).await.unwrap();
        all
    });
    ended.unwrap();
    assert_eq!(read, b"all of it");
}

#[tokio::test]
async fn a_shutdown_ends_also_when_the_peer_does_not() {
    let authority = Authority::new("ours");
    let (near, _far) = established(&authority.client(), "localhost", &authority.server(&["localhost"])).await;
    let within = Duration::from_millis(20);
    let error = near.shutdown(within).await.unwrap_err();
    assert_eq!(TlsFailure::of(&error), Some(&TlsFailure::NoGoodbye(within)));
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_silent_peer_is_given_up() {
    let authority = Authority::new("ours");
    let within = Duration::from_millis(20);
    let builder = ClientTls::builder().roots_pem(&authority.pem).unwrap();
    let client = builder.handshake_timeout(within).build().unwrap();
    let (near, far) = pair().await;
    assert_eq!(failure(client.connect("localhost", near).await), TlsFailure::Timeout(within));
    drop(far);
    let (chain, key) = authority.issue(&["localhost"]);
    let server = ServerTls::builder().certificate_pem(chain, key).handshake_timeout(within).build().unwrap();
    let (_near, far) = pair().await;
    assert_eq!(failure(server.accept(far).await), TlsFailure::Timeout(within));
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls_is_named_so() {
    let authority = Authority::new("ours");
    let (mut near, far) = pair().await;
    near.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert!(matches!(failure(authority.server(&["localhost"]).accept(far).await), TlsFailure::Peer(_)));
    let (near, mut far) = pair().await;
    far.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n").await.unwrap();
    assert!(matches!(failure(authority.client().connect("localhost", near).await), TlsFailure::Peer(_)));
    let (near, far) = pair().await;
    drop(far);
    let error = authority.client().connect("localhost", near).await.unwrap_err();
    let kinds = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    assert!(kinds.contains(&error.kind()), "{error:?}");
}

#[tokio::test]
async fn no_protocol_in_common_is_named_so() {
    let authority = Authority::new("ours");
    let client = authority.client().with_alpn(["h2"]);
    let server = authority.server(&["localhost"]).with_alpn(["http/1.1"]);
    let (near, far) = both(&client, "localhost", &server).await;
    assert_eq!((failure(near), failure(far)), (TlsFailure::Protocol, TlsFailure::Protocol));
    assert_eq!(client.alpn().collect::<Vec<_>>(), [b"h2"]);
    assert_eq!(server.alpn().collect::<Vec<_>>(), [b"http/1.1"]);
}

#[tokio::test]
async fn a_client_shows_its_certificate() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (chain, key) = ours.issue(&["localhost"]);
    let builder = ServerTls::builder().certificate_pem(chain, key).client_roots_pem(&ours.pem).unwrap();
    let (server, lenient) =
        (builder.clone().build().unwrap(), builder.client_certificate_optional().build().unwrap());
    let showing = |authority: &Authority| {
        let (chain, key) = authority.issue(&["somebody"]);
        let builder = ClientTls::builder().roots_pem(&ours.pem).unwrap();
        builder.certificate_pem(chain, key).build().unwrap()
    };
    let (_, far) = established(&showing(&ours), "localhost", &server).await;
    assert_eq!(far.peer_certificates().len(), 1);

    // In TLS 1.3 the client learns of its refusal when it reads.
    let (near, far) = both(&ours.client(), "localhost", &server).await;
    assert_eq!(failure(far), TlsFailure::Certificate("it showed none".to_owned()));
    let error = near.unwrap().read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(TlsFailure::of(&error), Some(&TlsFailure::Alert("CertificateRequired".to_owned())));
    let (_, far) = both(&showing(&theirs), "localhost", &server).await;
    assert!(matches!(failure(far), TlsFailure::Certificate(_)));

    let (_, far) = established(&ours.client(), "localhost", &lenient).await;
    assert_eq!(far.peer_certificates().len(), 0);
    let (_, far) = both(&showing(&theirs), "localhost", &lenient).await;
    assert!(matches!(failure(far), TlsFailure::Certificate(_)));
}

#[tokio::test]
async fn sessions_are_resumed_unless_certificates_would_go_unseen() {
    let authority = Authority::new("ours");
    let (client, server) = (authority.client(), authority.server(&["localhost"]));
    let resumed = async |client: &ClientTls, server: &ServerTls| {
        let (mut near, mut far) = established(client, "localhost", server).await;
        exchange(&mut far, &mut near).await;
        assert_eq!(near.resumed(), far.resumed());
        near.resumed()
    };
    assert!(!resumed(&client, &server).await);
    assert!(resumed(&client, &server).await);
    assert!(resumed(&client.with_alpn(["x"]), &server.with_alpn(["x"])).await, "they share their sessions");
    let builder = ClientTls::builder().roots_pem(&authority.pem).unwrap().resumption(false);
    let forgetful = builder.build().unwrap();
    assert!(!resumed(&forgetful, &server).await);
    assert!(!resumed(&forgetful, &server).await);

    let (chain, key) = authority.issue(&["localhost"]);
    let strict = ServerTls::builder().certificate_pem(chain, key).client_roots_pem(&authority.pem).unwrap();
    let strict = strict.build().unwrap();
    let (chain, key) = authority.issue(&["somebody"]);
    let builder = ClientTls::builder().roots_pem(&authority.pem).unwrap();
    let client = builder.certificate_pem(chain, key).build().unwrap();
    assert!(!resumed(&client, &strict).await);
    assert!(!resumed(&client, &strict).await);
}

#[tokio::test]
async fn certificates_are_chosen_by_name() {
    let authority = Authority::new("ours");
    let [one, two] = [authority.issue(&["one.example"]), authority.issue(&["*.two.example"])];
    let builder = ServerTls::builder().certificate_pem(one.0, one.1).certificate_pem(two.0, two.1);
    let server = builder.build().unwrap();
    let client = authority.client();
    established(&client, "one.example", &server).await;
    established(&client, "a.two.example", &server).await;
    let (near, _) = both(&client, "three.example", &server).await;
    assert!(matches!(failure(near), TlsFailure::Certificate(why) if why.contains("one.example")));
    let builder = ClientTls::builder().roots_pem(&authority.pem).unwrap();
    let silent = builder.send_server_name(false).build().unwrap();
    let (_, far) = established(&silent, "one.example", &server).await;
    assert_eq!(far.server_name(), None);
}

#[tokio::test]
async fn certificates_are_reloaded_while_connections_stand() {
    let folder = std::env::temp_dir().join(format!("vitte-net-reload-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
    let write = |(pem, secret): (String, String)| {
        std::fs::write(&chain, pem).unwrap();
        std::fs::write(&key, secret).unwrap();
    };
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    write(old.issue(&["localhost"]));
    let server = ServerTls::builder().certificate_files(&chain, &key).build().unwrap();
    let (mut near, mut far) = established(&old.client(), "localhost", &server).await;

    write(new.issue(&["localhost"]));
    established(&old.client(), "localhost", &server).await;
    server.with_alpn(["x"]).reload().unwrap();
    established(&new.client(), "localhost", &server).await;
    assert!(both(&old.client(), "localhost", &server).await.0.is_err());
    exchange(&mut near, &mut far).await;

    // A broken file, a key of somebody else, no file: what was there stays.
    std::fs::write(&chain, "nonsense").unwrap();
    assert!(matches!(server.reload(), Err(TlsSetupError::Missing(_))));
    std::fs::write(&chain, old.issue(&["localhost"]).0).unwrap();
    assert!(matches!(server.reload(), Err(TlsSetupError::Certificate(_))));
    std::fs::remove_file(&key).unwrap();
    assert!(matches!(server.reload(), Err(TlsSetupError::File { .. })));
    established(&new.client(), "localhost", &server).await;

    let (chain, key) = old.issue(&["localhost"]);
    server.replace_pem(chain, key).unwrap();
    established(&old.client(), "localhost", &server).await;
    assert!(matches!(server.reload(), Err(TlsSetupError::NotFromFiles)));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_wrong_set_up_says_what_is_wrong() {
    let authority = Authority::new("ours");
    let ((chain, key), (_, other)) = (authority.issue(&["localhost"]), authority.issue(&["localhost"]));
    let server =
        |chain: &str, key: &str| ServerTls::builder().certificate_pem(chain, key).build().unwrap_err();
    assert!(matches!(server("", &key), TlsSetupError::Missing("certificate (PEM)")));
    assert!(matches!(server(&chain, &chain), TlsSetupError::Missing("private key (PEM)")));
    assert!(matches!(server(&chain, &other), TlsSetupError::Certificate(_)));
    let cut = &chain[..chain.len() - 30];
    assert!(matches!(server(cut, &key), TlsSetupError::Pem { .. }));
    assert!(matches!(ServerTls::builder().build().unwrap_err(), TlsSetupError::Missing(_)));
    assert!(ClientTls::builder().root_der(*b"no root").build().is_err());
    let builder = ServerTls::builder().certificate_pem(chain, key.clone());
    assert!(!format!("{builder:?}").contains(&key[30..60]), "a key in the log");
}

#[test]
fn it_runs_and_replays_in_a_simulation() {
    let run = || {
        // Ed25519: its signatures and its certificate need no randomness.
        let pkcs8 = ed25519([7; 32]);
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8.as_slice().into(), &rcgen::PKCS_ED25519);
        let key = key.unwrap();
        let certificate = CertificateParams::new(["server".to_owned()]).unwrap().self_signed(&key).unwrap();
        let (chain, secret, root) = (certificate.pem(), key.serialize_pem(), certificate.pem());
        let mut cluster = Cluster::new(3)
            .node("server", move |node| {
                let (chain, secret) = (chain.clone(), secret.clone());
                async move {
                    let builder = ServerTls::builder().network(node.network());
                    let builder = builder.crypto_provider(node.crypto_provider());
                    let tls = builder.certificate_pem(chain, secret).build()?;
                    let any = SocketAddr::new(node.ip(), 443);
                    let listener = node.network().listen_tcp(any, &TcpOptions::default()).await?;
                    loop {
                        let (stream, _) = listener.accept().await?;
                        let mut stream = tls.accept(stream).await?;
                        let mut buffer = [0; 5];
                        stream.read_exact(&mut buffer).await?;
                        stream.write_all(&buffer).await?;
                        stream.shutdown(Duration::from_secs(5)).await?;
                    }
                }
            })
            .client("client", move |node| {
                let root = root.clone();
                async move {
                    let builder = ClientTls::builder().network(node.network()).roots_pem(root)?;
                    let tls = builder.crypto_provider(node.crypto_provider()).build()?;
                    let ip = node.network().lookup("server").await?[0];
                    let to = SocketAddr::new(ip, 443);
                    let tcp = node.network().connect_tcp(to, &TcpOptions::default()).await?;
                    let mut stream = tls.connect("server", tcp).await?;
                    stream.write_all(b"hello").await?;
                    stream.flush().await?;
                    let mut all = Vec::new();
                    stream.read_to_end(&mut all).await?;
                    assert_eq!(all, b"hello");
                    stream.shutdown(Duration::from_secs(5)).await?;
                    Ok(())
                }
            });
        cluster.run().unwrap().digest
    };
    assert_eq!(run(), run());
}

/// An Ed25519 key in PKCS #8 (RFC 8410, section 7).
fn ed25519(seed: [u8; 32]) -> Vec<u8> {
    [b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".as_slice(), &seed].concat()
}
