//! A flood of QUIC's first packets from thousands of addresses that prove nothing (RFC 9000, section 8.1).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::time::{Instant, sleep, timeout};
use vitte_net::Config;
use vitte_net::network::{
    BoxFuture, BoxStream, Datagrams, Network, OsNetwork, Received, TcpListen, TcpOptions, UdpOptions,
};

use crate::peer::{HONEST, VICTIM, echo, mesh, mesh_on};
use crate::{alone, form, growth, mib, report};

/// Initials that are made once, each with a connection id of its own, and sent again and again.
const POOL: usize = 2_000;
/// Datagrams of one address in a row.
const BURST: usize = 8;
/// Datagrams that are kept of those that are sent.
const FIRST: usize = 256;

/// The operating system's network, which counts datagrams and their bytes, and keeps the first that are sent.
#[derive(Debug, Default)]
pub(super) struct Counting {
    received: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    /// Datagrams that came in, and that went out.
    pub(super) datagrams: (Arc<AtomicU64>, Arc<AtomicU64>),
    pub(super) first: Arc<Mutex<Vec<Vec<u8>>>>,
}

#[derive(Debug)]
struct CountingSocket {
    inner: Arc<dyn Datagrams>,
    received: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    datagrams: (Arc<AtomicU64>, Arc<AtomicU64>),
    first: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Network for Counting {
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
        Box::pin(async move {
            let inner = OsNetwork::new().bind_udp(at, options).await?;
            Ok(Arc::new(CountingSocket {
                inner,
                received: self.received.clone(),
                sent: self.sent.clone(),
                datagrams: self.datagrams.clone(),
                first: self.first.clone(),
            }) as Arc<dyn Datagrams>)
        })
    }

    fn lookup<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move { OsNetwork::new().lookup(host).await })
    }

    fn wall_clock(&self) -> SystemTime {
        OsNetwork::new().wall_clock()
    }

    fn fill_random(&self, out: &mut [u8]) {
        OsNetwork::new().fill_random(out);
    }
}

impl Datagrams for CountingSocket {
    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<Received>> {
        let received = self.inner.poll_recv(cx, buf);
        if let Poll::Ready(Ok(Received { len, .. })) = &received {
            self.received.fetch_add(*len as u64, Ordering::Relaxed);
            self.datagrams.0.fetch_add(1, Ordering::Relaxed);
        }
        received
    }

    fn try_send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        self.inner.try_send(datagram, to)?;
        self.sent.fetch_add(datagram.len() as u64, Ordering::Relaxed);
        self.datagrams.1.fetch_add(1, Ordering::Relaxed);
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.len() < FIRST {
            first.push(datagram.to_vec());
        }
        Ok(())
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_writable(cx)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// What quinn sends by itself could not be counted.
    fn os_socket(&self) -> Option<io::Result<std::net::UdpSocket>> {
        None
    }
}

/// Believes everything: no handshake of this test comes so far as to ask.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// First packets as a QUIC client makes them.
pub(super) fn initials(count: usize, to: SocketAddr) -> Vec<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring knows TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"vitte/1".to_vec()];
    let tls = QuicClientConfig::try_from(tls).expect("a suite for QUIC");
    let client = quinn_proto::ClientConfig::new(Arc::new(tls));
    let config = Arc::new(quinn_proto::EndpointConfig::default());
    let mut endpoint = quinn_proto::Endpoint::new(config, None, true, None);
    let now = Instant::now().into_std();
    (0..count)
        .map(|_| {
            let (_, mut connection) =
                endpoint.connect(now, client.clone(), to, "vitte").expect("a connection");
            let mut packet = Vec::new();
            assert!(connection.poll_transmit(now, 1, &mut packet).is_some(), "an Initial");
            assert_eq!(packet.len(), 1200, "padded, as a server asks for it (RFC 9000, section 14.1)");
            packet
        })
        .collect()
}

/// Sends so many, as fast as it can, each burst from the next of the addresses.
fn flood(pool: &[Vec<u8>], to: SocketAddr, count: usize, addresses: usize, stop: &AtomicBool) -> usize {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.set_nonblocking(false).expect("it blocks");
    let state = UdpSocketState::new(UdpSockRef::from(&socket)).expect("a socket that sends from any address");
    let bursts: Vec<Vec<u8>> = pool.chunks_exact(BURST).map(<[Vec<u8>]>::concat).collect();
    let mut sent = 0;
    for (round, burst) in bursts.iter().cycle().enumerate() {
        if sent >= count || stop.load(Ordering::Relaxed) {
            break;
        }
        let number = round % addresses;
        let [.., high, low] = number.to_be_bytes();
        let from = Ipv4Addr::new(127, 1, high, low);
        let (size, src_ip) = (Some(1200), Some(from.into()));
        let segments = state.max_gso_segments();
        for contents in burst.chunks(1200 * BURST.min(segments)) {
            let transmit = Transmit { destination: to, ecn: None, contents, segment_size: size, src_ip };
            if state.try_send(UdpSockRef::from(&socket), &transmit).is_ok() {
                sent += contents.len() / 1200;
            }
        }
    }
    sent
}

/// What a flood came to.
struct Felt {
    flooded: usize,
    took: Duration,
    connected: Duration,
    grown: usize,
}

/// Floods a node on this network, and connects to it meanwhile. `felt` says when the flood has arrived.
async fn under_flood(
    network: Arc<dyn Network>,
    count: usize,
    addresses: usize,
    felt: impl Fn() -> bool,
) -> Felt {
    let victim = mesh_on(network, VICTIM, &["quic"], Config::wan()).await;
    let address = victim.addresses().remove(0);
    let at = SocketAddr::from(([127, 0, 0, 1], address.port()));
    let pool = initials(form(400, POOL), at);
    let stop = Arc::new(AtomicBool::new(false));
    let honest = mesh(HONEST, &[], Config::wan()).await;
    let ((flooded, took, connected), grown) = growth(async {
        let begun = Instant::now();
        let generator = {
            let stop = stop.clone();
            std::thread::spawn(move || flood(&pool, at, count, addresses, &stop))
        };
        let arrived = async {
            while !felt() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(20), arrived).await.expect("the flood arrives");
        let start = Instant::now();
        let peer = loop {
            match honest.connect(&address).await {
                Ok(peer) => break peer,
                Err(error) => assert!(start.elapsed() < Duration::from_secs(60), "{error}"),
            }
        };
        echo(&peer).await;
        let connected = start.elapsed();
        let flooded = tokio::task::block_in_place(|| generator.join().expect("the generator"));
        (flooded, begun.elapsed(), connected)
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    victim.drain(Duration::ZERO, Duration::from_secs(1)).await;
    Felt { flooded, took, connected, grown }
}

fn flood_size() -> (usize, usize) {
    form((10_000, 1_000), (1_000_000, 10_000))
}

/// On the socket that a node has: quinn's own way of reading.
#[test]
fn a_flood_of_initials_costs_bounded_memory_and_keeps_nobody_out() {
    alone(async |_| {
        let (count, addresses) = flood_size();
        let felt = under_flood(Arc::new(OsNetwork::new()), count, addresses, || true).await;
        report(
            "initials",
            &format!(
                "{} from {addresses} addresses in {:?}; {:.1} MiB; a real peer connects in {:?}",
                felt.flooded,
                felt.took,
                mib(felt.grown),
                felt.connected,
            ),
        );
        assert!(felt.grown < 64 << 20, "{} bytes", felt.grown);
    });
}

/// On a socket that counts, and is read one datagram at a time.
#[test]
fn a_flood_of_initials_is_not_amplified() {
    alone(async |_| {
        let (count, addresses) = flood_size();
        let network = Arc::new(Counting::default());
        let (received, sent) = (network.received.clone(), network.sent.clone());
        let seen = received.clone();
        // By then an address must prove itself.
        let felt = under_flood(network, count, addresses, || seen.load(Ordering::Relaxed) > 1200 * 200).await;
        let (received, sent) = (received.load(Ordering::Relaxed), sent.load(Ordering::Relaxed));
        report(
            "amplification",
            &format!("{} Initials in {:?}; {received} bytes in, {sent} bytes out", felt.flooded, felt.took),
        );
        assert!(sent <= 3 * received, "{sent} bytes out for {received} in");
    });
}
