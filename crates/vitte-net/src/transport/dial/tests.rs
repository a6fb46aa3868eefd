use std::io;
use std::net::IpAddr;
use std::time::SystemTime;

use vitte_net_proto::Lane;

use super::*;
use crate::identity::Identity;
use crate::network::{BoxStream, Datagrams, OsNetwork, TcpListen, UdpOptions};
use crate::tls::default_provider;
use crate::transport::{Incoming, LinkReader, LinkWriter};

fn transports_over(number: u8, network: Arc<dyn Network>) -> Transports {
    let identity = Identity::from_secret_key([number; 32]);
    let tls = MeshTls::new(&identity, default_provider(), &network).unwrap();
    Transports::new(network, tls)
}

fn transports(number: u8) -> Transports {
    transports_over(number, Arc::new(OsNetwork))
}

fn id(number: u8) -> PeerId {
    Identity::from_secret_key([number; 32]).peer_id()
}

async fn say(writer: &mut LinkWriter, bytes: &[u8]) {
    assert!(writer.capacity(Lane::CONTROL) >= bytes.len());
    writer.write(Lane::CONTROL, bytes).unwrap();
    std::future::poll_fn(|cx| writer.poll_flush(cx)).await.unwrap();
}

async fn hear(reader: &mut LinkReader, len: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < len {
        reader.read(&mut |_, bytes| all.extend_from_slice(bytes)).await.unwrap();
    }
    all
}

async fn link_over(address: &str) {
    let (client, server) = (transports(1), transports(2));
    let listener = server.listen(&address.parse().unwrap()).await.unwrap();
    let address = listener.address().clone();
    assert_ne!(address.port(), 0);
    let accept = async { listener.accept().await.unwrap().handshake().await };
    let (dialled, accepted) = tokio::join!(client.dial(&address, Some(id(2))), accept);
    let (mut dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap());
    assert_eq!((dialled.info.peer, accepted.info.peer), (id(2), id(1)));
    assert_eq!(dialled.info.transport, address.transport());
    assert_eq!(accepted.info.transport, address.transport());
    assert_eq!(dialled.info.remote.port(), address.port());
    assert_eq!(dialled.info.local.port(), accepted.info.remote.port());
    assert!(dialled.info.dialled && !accepted.info.dialled);

    say(&mut dialled.writer, b"question").await;
    assert_eq!(hear(&mut accepted.reader, 8).await, b"question");
    say(&mut accepted.writer, &[5; 16_384]).await;
    assert_eq!(hear(&mut dialled.reader, 16_384).await, [5; 16_384]);
    dialled.writer.close();
    let error = accepted.reader.read(&mut |_, _| ()).await.unwrap_err();
    assert!(matches!(error, LinkError::Closed), "{error}");

    let accept = async { listener.accept().await.unwrap().handshake().await };
    let (dialled, accepted) = tokio::join!(client.dial(&address, Some(id(3))), accept);
    let error = dialled.unwrap_err();
    assert!(
        matches!(error, LinkError::WrongPeer { expected, found } if expected == id(3) && found == id(2)),
        "{error}"
    );
    drop(accepted);
}

#[tokio::test]
async fn tls_links() {
    link_over("tls://127.0.0.1:0").await;
}

#[cfg(feature = "ws")]
#[tokio::test]
async fn websocket_links() {
    link_over("ws://127.0.0.1:0/mesh").await;
}

#[cfg(feature = "ws")]
#[tokio::test]
async fn websocket_links_inside_tls() {
    link_over("wss://localhost:0/mesh").await;
    link_over("wss://127.0.0.1:0").await;
}

#[cfg(feature = "quic")]
#[tokio::test]
async fn quic_links() {
    link_over("quic://127.0.0.1:0").await;
}

#[cfg(not(feature = "quic"))]
#[tokio::test]
async fn a_transport_that_was_left_out_says_so() {
    let address = "quic://127.0.0.1:1".parse().unwrap();
    assert!(matches!(transports(1).dial(&address, None).await, Err(LinkError::Unsupported(Transport::Quic))));
    assert!(matches!(transports(1).listen(&address).await, Err(LinkError::Unsupported(Transport::Quic))));
}

#[cfg(feature = "ws")]
#[tokio::test]
async fn another_path_is_a_broken_rule_not_a_broken_network() {
    let (client, server) = (transports(1), transports(2));
    let listener = server.listen(&"ws://127.0.0.1:0/mesh".parse().unwrap()).await.unwrap();
    let other = format!("ws://127.0.0.1:{}/other", listener.address().port()).parse().unwrap();
    let accept = async { listener.accept().await.unwrap().handshake().await };
    let (dialled, accepted) = tokio::join!(client.dial(&other, None), accept);
    for error in [dialled.unwrap_err(), accepted.unwrap_err()] {
        assert!(matches!(error, LinkError::Protocol { protocol: "WebSocket", .. }), "{error}");
    }
}

#[tokio::test]
async fn nobody_there_is_a_broken_network() {
    let server = transports(2);
    let listener = server.listen(&"tls://127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.address().clone();
    drop(listener);
    let error = transports(1).dial(&address, None).await.unwrap_err();
    assert!(matches!(&error, LinkError::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused), "{error}");
}

#[tokio::test]
async fn a_silent_client_is_cut_off_while_others_come_in() {
    let (client, server) = (transports(1), transports(2).handshake_timeout(Duration::from_millis(200)));
    let listener = server.listen(&"tls://127.0.0.1:0".parse().unwrap()).await.unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], listener.address().port()));
    let silent = OsNetwork.connect_tcp(at, &TcpOptions::default()).await.unwrap();
    let first = tokio::spawn(listener.accept().await.unwrap().handshake());
    let accept = async { listener.accept().await.unwrap().handshake().await };
    let (dialled, accepted) = tokio::join!(client.dial(listener.address(), None), accept);
    assert!(dialled.is_ok() && accepted.is_ok());
    assert!(matches!(first.await.unwrap(), Err(LinkError::HandshakeTimeout)));
    drop(silent);
}

/// A way to a QUIC listener that lets nothing back.
#[cfg(feature = "quic")]
async fn one_way_to(listener: SocketAddr) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let inside = OsNetwork.bind_udp(any, &UdpOptions::default()).await.unwrap();
    let outside = OsNetwork.bind_udp(any, &UdpOptions::default()).await.unwrap();
    let at = inside.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut datagram = [0; 2048];
        loop {
            let received = std::future::poll_fn(|cx| inside.poll_recv(cx, &mut datagram)).await.unwrap();
            // What does not fit now is lost, as on any way.
            outside.try_send(&datagram[..received.len], listener).ok();
        }
    });
    (at, task)
}

#[cfg(feature = "quic")]
#[tokio::test]
async fn a_silent_quic_client_is_cut_off_in_the_time_that_is_set() {
    let (client, server) = (transports(1), transports(2).handshake_timeout(Duration::from_millis(200)));
    let listener = server.listen(&"quic://127.0.0.1:0".parse().unwrap()).await.unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], listener.address().port()));
    let (relay, task) = one_way_to(at).await;
    let silent = Address::new(Transport::Quic, "127.0.0.1", relay.port());
    let start = Instant::now();
    let accepted = async { listener.accept().await.unwrap().handshake().await };
    let error = tokio::select! {
        biased;
        accepted = accepted => accepted.unwrap_err(),
        dialled = client.dial(&silent, None) => panic!("{dialled:?}"),
    };
    task.abort();
    assert!(matches!(error, LinkError::HandshakeTimeout), "{error}");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

/// A network whose names have many addresses: the first one swallows everything, the second one refuses.
#[derive(Debug)]
struct Maze;

impl Network for Maze {
    fn connect_tcp<'a>(
        &'a self,
        to: SocketAddr,
        options: &'a TcpOptions,
    ) -> BoxFuture<'a, io::Result<BoxStream>> {
        match to.ip() {
            ip if ip == IpAddr::from([10, 0, 0, 1]) => Box::pin(std::future::pending()),
            ip if ip == IpAddr::from([10, 0, 0, 2]) => {
                Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
            }
            _ => OsNetwork.connect_tcp(to, options).boxed(),
        }
    }

    fn listen_tcp<'a>(
        &'a self,
        _: SocketAddr,
        _: &'a TcpOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn TcpListen>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn bind_udp<'a>(
        &'a self,
        _: SocketAddr,
        _: &'a UdpOptions,
    ) -> BoxFuture<'a, io::Result<Arc<dyn Datagrams>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn lookup<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        let last = match host {
            "good" => vec![IpAddr::from([127, 0, 0, 1])],
            "nowhere" => return Box::pin(async { Ok(Vec::new()) }),
            _ => Vec::new(),
        };
        let first = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
        Box::pin(async move { Ok(first.into_iter().chain(last).collect()) })
    }

    fn wall_clock(&self) -> SystemTime {
        OsNetwork.wall_clock()
    }

    fn fill_random(&self, out: &mut [u8]) {
        OsNetwork.fill_random(out);
    }
}

trait Boxed<'a>: Future + Send + Sized + 'a {
    fn boxed(self) -> BoxFuture<'a, Self::Output> {
        Box::pin(self)
    }
}

impl<'a, F: Future + Send + 'a> Boxed<'a> for F {}

#[tokio::test]
async fn all_addresses_of_a_name_are_tried_and_none_waits_for_a_dead_one() {
    let server = transports(2);
    let listener = server.listen(&"tls://127.0.0.1:0".parse().unwrap()).await.unwrap();
    let client = transports_over(1, Arc::new(Maze));
    let address = Address::new(Transport::Tls, "good", listener.address().port());
    let started = Instant::now();
    let accept = async { listener.accept().await.map(Incoming::handshake).unwrap().await };
    let (dialled, accepted) = tokio::join!(client.dial(&address, Some(id(2))), accept);
    assert!(dialled.is_ok() && accepted.is_ok());
    assert!(started.elapsed() >= STAGGER && started.elapsed() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_race_is_bounded_and_tells_why() {
    let client = transports_over(1, Arc::new(Maze));
    let started = Instant::now();
    let error = client.dial(&"tls://bad:1".parse().unwrap(), None).await.unwrap_err();
    assert!(matches!(error, LinkError::HandshakeTimeout), "more telling than a refusal: {error}");
    assert_eq!(started.elapsed(), HANDSHAKE_TIMEOUT);
    let error = client.dial(&"tls://nowhere:1".parse().unwrap(), None).await.unwrap_err();
    assert!(matches!(error, LinkError::NoAddress(host) if host == "nowhere"));
}
