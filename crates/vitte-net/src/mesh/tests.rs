use std::net::SocketAddr;
use std::sync::Weak;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;
use vitte_net_proto::{Handshake, Hello, Lane, Limits, Proof, Step, StreamCode};

use super::*;
use crate::call::{CallError, NotSent};
use crate::channel::receipt::Undelivered;
use crate::channel::{OpenError, ReceiveError};
use crate::discovery::Fixed;
use crate::identity::Identity;
use crate::network::{
    BoxFuture, BoxStream, ByteStream, Datagrams, OsNetwork, TcpListen, TcpOptions, UdpOptions,
};
use crate::tls::{MeshTls, default_provider};
use crate::transport::{Link, LinkError};

fn identity(key: u8) -> Identity {
    Identity::from_secret_key([key; 32])
}

fn id(key: u8) -> PeerId {
    identity(key).peer_id()
}

fn builder(key: u8) -> MeshBuilder {
    Mesh::builder().identity(identity(key)).trust(Trust::keys([id(1), id(2), id(3)]))
}

fn hello(life: u8, generation: u64) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        features: 0,
        incarnation: Incarnation([life; 16]),
        generation,
        nonce: [life; 32],
        proof: Proof::Keys,
        limits: Limits { max_message: 1 << 20, stream_window: 1 << 16, max_streams: 16 },
    }
}

async fn gone(mesh: &Weak<Inner>) {
    let freed = async {
        while mesh.strong_count() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), freed).await.expect("nothing keeps it");
}

#[tokio::test]
async fn a_mesh_that_is_dropped_leaves_nothing_behind() {
    for address in ["quic://127.0.0.1:0", "tls://127.0.0.1:0", "ws://127.0.0.1:0", "wss://127.0.0.1:0"] {
        let server = builder(1).listen(address).start().await.unwrap();
        let client = builder(2).start().await.unwrap();
        let mut incoming = server.accept_raw("log").unwrap();
        let peer = client.connect(&server.addresses()[0]).await.unwrap();
        let channel = peer.raw_channel("log").open().await.unwrap();
        let receipt = channel.send("never taken").await.unwrap();
        let (back, accepted) = incoming.next().await.unwrap();
        let weak = [Arc::downgrade(&server.inner), Arc::downgrade(&client.inner)];
        drop(server);
        assert!(receipt.await.is_err());
        drop((client, channel, peer, back, accepted, incoming));
        gone(&weak[0]).await;
        gone(&weak[1]).await;
    }
}

/// An application that stops with the code of an end has not taken everything for that.
#[tokio::test]
async fn who_stops_as_if_it_were_finished_has_refused_the_rest() {
    let server = builder(1).listen("tls://127.0.0.1:0").start().await.unwrap();
    let client = builder(2).start().await.unwrap();
    let mut incoming = server.accept_raw("log").unwrap();
    let peer = client.connect(&server.addresses()[0]).await.unwrap();
    let (sender, _receiver) = peer.raw_channel("log").open().await.unwrap().split();
    let receipt = sender.send("never taken").await.unwrap();
    let (_, accepted) = incoming.next().await.unwrap();
    let (_back, receiver) = accepted.split();
    receiver.stop(StreamCode::FINISHED, "enough");
    assert!(matches!(receipt.await, Err(Undelivered::Refused(_))));
    let finished = sender.finish().await;
    assert!(matches!(finished, Err(ReceiveError::Reset { code: StreamCode::DROPPED, .. })), "{finished:?}");
}

#[tokio::test]
async fn one_place_for_handshakes_serves_many_listeners() {
    let listen = ["tls://127.0.0.1:0", "quic://127.0.0.1:0", "ws://127.0.0.1:0"];
    let mut server = builder(1).config(Config::wan().handshakes_max(1));
    for address in listen {
        server = server.listen(address);
    }
    let server = server.start().await.unwrap();
    // The last first: a place that one listener keeps is not passed on.
    for address in server.addresses().into_iter().rev() {
        let client = builder(2).start().await.unwrap();
        let dialled = timeout(Duration::from_secs(5), client.connect(&address)).await;
        assert!(matches!(dialled, Ok(Ok(_))), "{address}: {dialled:?}");
        client.drain(Duration::from_secs(1), Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn no_more_addresses_of_a_peer_are_kept_than_allowed() {
    let mesh = builder(1).config(Config::wan().addresses_max(2)).start().await.unwrap();
    let addresses: Vec<Address> =
        (1..=3).map(|port| format!("tls://127.0.0.1:{port}").parse().unwrap()).collect();
    for address in addresses.iter().chain(&addresses) {
        mesh.add_address(id(2), address.clone());
    }
    let Err(DialError::Failed(failures)) = mesh.peer(id(2)).await else { panic!("nobody is there") };
    let mut dialled: Vec<_> = failures.into_iter().map(|(address, _)| address).collect();
    dialled.sort_by_key(Address::port);
    assert_eq!(dialled, addresses[..2]);
}

#[tokio::test]
async fn who_reads_events_too_slowly_is_told_how_many_are_missing() {
    let mesh = builder(1).config(Config::wan().events_max(4)).start().await.unwrap();
    let mut events = mesh.events();
    let told = |count: u64| (0..count).for_each(|count| mesh.inner.tell(MeshEvent::RejectedMore { count }));
    told(4);
    assert_eq!(events.next().await, Some(MeshEvent::RejectedMore { count: 0 }), "four of them wait");
    told(10);
    assert_eq!(events.next().await, Some(MeshEvent::Lagged { missed: 9 }));
    for count in 6..10 {
        assert_eq!(events.next().await, Some(MeshEvent::RejectedMore { count }));
    }
}

#[tokio::test]
async fn channels_that_nobody_accepts_are_refused_when_the_queue_is_full() {
    let server = builder(1).listen("tls://127.0.0.1:0").config(Config::wan().accept_queue(1));
    let server = server.start().await.unwrap();
    let client = builder(2).start().await.unwrap();
    let mut incoming = server.accept_raw("log").unwrap();
    let peer = client.connect(&server.addresses()[0]).await.unwrap();
    let _first = peer.raw_channel("log").open().await.unwrap();
    assert!(matches!(peer.raw_channel("log").open().await, Err(OpenError::Busy)));
    incoming.next().await.unwrap();
    peer.raw_channel("log").open().await.unwrap();
}

#[tokio::test]
async fn a_dial_of_one_address_ends_in_its_time() {
    // It is there, and says nothing.
    let silent =
        OsNetwork::new().listen_tcp("127.0.0.1:0".parse().unwrap(), &TcpOptions::default()).await.unwrap();
    let mesh = builder(1).config(Config::wan().dial_timeout(Duration::from_millis(50)));
    let mesh = mesh.start().await.unwrap();
    let address: Address = format!("tls://{}", silent.local_addr().unwrap()).parse().unwrap();
    let start = Instant::now();
    assert!(matches!(mesh.connect(&address).await, Err(DialError::TimedOut)));
    mesh.add_address(id(2), address);
    assert!(matches!(mesh.peer(id(2)).await, Err(DialError::TimedOut)));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_node_does_not_speak_with_itself() {
    let mesh = builder(1).listen("tls://127.0.0.1:0").start().await.unwrap();
    let mut events = mesh.events();
    match mesh.connect(&mesh.addresses()[0]).await {
        Err(DialError::Failed(failures)) => {
            assert_eq!(failures[0].1.code(), Some(CloseCode::DUPLICATE_IDENTITY));
        }
        other => panic!("{other:?}"),
    }
    match events.next().await {
        Some(MeshEvent::Rejected { code, .. }) => assert_eq!(code, Some(CloseCode::DUPLICATE_IDENTITY)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_second_life_that_came_in_beside_the_first_does_not_replace_it() {
    let mesh = builder(1).start().await.unwrap();
    let generation = mesh.inner.pin(id(2)).unwrap();
    // Both were admitted while there was no session.
    let first = mesh.inner.join(id(2), &hello(7, 1), generation, None).unwrap();
    let second = mesh.inner.join(id(2), &hello(8, 1), generation, None).err();
    assert_eq!(second, Some(CloseCode::STALE_GENERATION));
    assert!(!first.is_lost());
    // Of one that was asked and said nothing, it is the successor.
    let second = mesh.inner.join(id(2), &hello(8, 1), generation, Some(&first)).unwrap();
    assert!(first.is_lost() && !second.is_lost());
}

#[tokio::test]
async fn a_stranger_does_not_take_the_place_of_a_known_address() {
    let mut state = State::default();
    state.entry(id(1), 2).unwrap().addresses.push("tls://127.0.0.1:1".parse().unwrap());
    for stranger in 2..20 {
        assert!(state.entry(id(stranger), 2).is_some());
    }
    assert!(!state.peers[&id(1)].addresses.is_empty());
    // Nor does one that has proven nothing, where all places are those of known addresses.
    state.entry(id(2), 2).unwrap().addresses.push("tls://127.0.0.1:2".parse().unwrap());
    for stranger in 3..200 {
        assert!(state.stranger(id(stranger), 2).is_some());
    }
    assert_eq!(state.peers.len(), 3, "one stranger at a time has a place beyond");
    assert!([1, 2].iter().all(|known| !state.peers[&id(*known)].addresses.is_empty()));
}

/// Its driver may look at it before it has its first link.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_without_a_resume_window_begin() {
    let config = || Config::wan().resume_window(Duration::ZERO);
    let listening = builder(2).config(config()).listen("tls://127.0.0.1:0").start().await.unwrap();
    for round in 0..30 {
        let mesh = builder(1).config(config()).start().await.unwrap();
        let peer = mesh.connect(&listening.addresses()[0]).await.unwrap();
        assert!(peer.transport().is_some(), "round {round}");
        mesh.drain(Duration::ZERO, Duration::from_secs(1)).await;
    }
}

/// A listener with the key 2 and no mesh behind it.
async fn stranger(address: &str) -> Listener {
    let network: Arc<dyn Network> = Arc::new(OsNetwork::new());
    let tls = MeshTls::new(&identity(2), default_provider(), &network).unwrap();
    Transports::new(network, tls).listen(&address.parse().unwrap()).await.unwrap()
}

/// Lets a link in.
async fn greet(link: &mut Link) {
    let mut out = Vec::new();
    let mut handshake = Handshake::new(&hello(9, 1), &mut out);
    let mut heard = Vec::new();
    loop {
        if !out.is_empty() {
            link.writer.write(Lane::CONTROL, &out).unwrap();
            out.clear();
            let _ = std::future::poll_fn(|cx| link.writer.poll_flush(cx)).await;
        }
        match handshake.handle(&std::mem::take(&mut heard)) {
            Ok(Step::Hello(_)) => handshake.welcome([0; 32], &mut out),
            Ok(Step::NeedBytes) => {
                let read = link.reader.read(&mut |_, bytes| heard.extend_from_slice(bytes)).await;
                if read.is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
}

#[tokio::test]
async fn a_peer_that_lets_in_and_leaves_is_not_dialled_without_a_pause() {
    let network: Arc<dyn Network> = Arc::new(OsNetwork::new());
    let tls = MeshTls::new(&identity(2), default_provider(), &network).unwrap();
    let listener = Transports::new(network, tls).listen(&"tls://127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.address().clone();
    let links = Arc::new(AtomicUsize::new(0));
    let count = links.clone();
    let flighty = tokio::spawn(async move {
        loop {
            let mut link = listener.accept().await.unwrap().handshake().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            greet(&mut link).await;
            link.writer.close();
        }
    });
    let _mesh = builder(1).discover(Fixed::new([(id(2), address)])).start().await.unwrap();
    let start = Instant::now();
    while links.load(Ordering::SeqCst) < 4 {
        sleep(Duration::from_millis(1)).await;
    }
    // At least half of 200, 400 and 800 ms between them.
    assert!(start.elapsed() >= Duration::from_millis(700), "{:?}", start.elapsed());
    flighty.abort();
}

#[derive(Clone, Debug, serde::Serialize, serde::Deserialize, postcard_schema::Schema)]
struct Load(Vec<u8>);

impl Request for Load {
    const NAME: &'static str = "load/v1";
    type Response = ();
    type Error = ();
}

#[tokio::test]
async fn draining_is_bounded_also_against_a_peer_that_stopped_reading() {
    for address in ["quic://127.0.0.1:0", "tls://127.0.0.1:0", "ws://127.0.0.1:0"] {
        let listener = stranger(address).await;
        let at = listener.address().clone();
        let stuck = tokio::spawn(async move {
            let mut link = listener.accept().await.unwrap().handshake().await.unwrap();
            greet(&mut link).await;
            std::future::pending::<()>().await;
        });
        let mesh = builder(1).start().await.unwrap();
        let peer = mesh.connect(&at).await.unwrap();
        let calls: Vec<_> = (0..16)
            .map(|_| {
                let peer = peer.clone();
                tokio::spawn(async move { peer.call(Load(vec![1; 200_000])).await })
            })
            .collect();
        while peer.counters().in_flight < 16 {
            sleep(Duration::from_millis(1)).await;
        }
        let start = Instant::now();
        mesh.drain(Duration::from_millis(100), Duration::from_millis(300)).await;
        assert!(start.elapsed() < Duration::from_secs(1), "{address}: {:?}", start.elapsed());
        for call in calls {
            // What the window of a byte link kept back was never sent.
            let lost = [CallError::Unknown, CallError::NotSent(NotSent::Lost)].map(Err);
            assert!(lost.contains(&call.await.unwrap()), "{address}");
        }
        stuck.abort();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn a_runtime_that_is_dropped_settles_what_its_meshes_sent() {
    for address in ["quic://127.0.0.1:0", "tls://127.0.0.1:0"] {
        let (servers, clients) = (runtime(), runtime());
        let server = servers.block_on(builder(2).listen(address).start()).unwrap();
        let mut incoming = server.accept_raw("log").unwrap();
        let at = server.addresses()[0].clone();
        let (mesh, sender, receipt) = clients.block_on(async {
            // It would be dialled again.
            let known = Fixed::new([(id(2), at.clone())]);
            let mesh = builder(1).discover(known).start().await.unwrap();
            let peer = mesh.connect(&at).await.unwrap();
            let channel = peer.raw_channel("log").open().await.unwrap();
            let receipt = channel.send("never taken").await.unwrap();
            (mesh, channel, receipt)
        });
        let (_, accepted) = servers.block_on(incoming.next()).unwrap();
        clients.shutdown_timeout(Duration::from_secs(5));
        let settled = servers.block_on(async { timeout(Duration::from_secs(5), receipt).await });
        assert_eq!(settled, Ok(Err(crate::Undelivered::Unknown)), "{address}");
        assert!(servers.block_on(sender.send("more")).is_err());
        let weak = Arc::downgrade(&mesh.inner);
        // On a thread of no runtime.
        drop((mesh, sender, accepted));
        drop((server, incoming));
        servers.block_on(gone(&weak));
    }
}

/// The next connection that was not admitted.
async fn rejected(events: &mut Events) -> Option<CloseCode> {
    let told = async {
        loop {
            match events.next().await {
                Some(MeshEvent::Rejected { code, .. }) => return code,
                Some(_) => {}
                None => panic!("the mesh is gone"),
            }
        }
    };
    timeout(Duration::from_secs(5), told).await.expect("the acceptor is told")
}

#[tokio::test]
async fn a_wrong_key_is_told_to_both_sides() {
    for address in ["quic://127.0.0.1:0", "tls://127.0.0.1:0", "ws://127.0.0.1:0", "wss://127.0.0.1:0"] {
        let server = builder(1).listen(address).start().await.unwrap();
        let mut events = server.events();
        let at = &server.addresses()[0];

        let unlisted = builder(4).start().await.unwrap();
        match unlisted.connect(at).await {
            Err(DialError::Failed(failures)) => {
                assert_eq!(failures[0].1.code(), Some(CloseCode::NOT_TRUSTED), "{address}");
            }
            other => panic!("{address}: {other:?}"),
        }
        assert_eq!(rejected(&mut events).await, Some(CloseCode::NOT_TRUSTED), "{address}");

        let client = builder(2).start().await.unwrap();
        client.add_address(id(3), at.clone());
        match client.peer(id(3)).await {
            Err(DialError::Failed(failures)) => match &failures[0].1 {
                HandshakeError::Link(LinkError::WrongPeer { expected, found }) => {
                    assert_eq!((*expected, *found), (id(3), id(1)), "{address}");
                }
                other => panic!("{address}: {other:?}"),
            },
            other => panic!("{address}: {other:?}"),
        }
        // TLS or QUIC tells it: there is no frame yet.
        assert_eq!(rejected(&mut events).await, None, "{address}");
        assert!(server.peers().is_empty() && client.peers().is_empty());
    }
}

#[tokio::test]
async fn a_peer_too_many_is_refused() {
    let server =
        builder(1).config(Config::wan().peers_max(1)).listen("tls://127.0.0.1:0").start().await.unwrap();
    let at = &server.addresses()[0];
    let first = builder(2).start().await.unwrap();
    let peer = first.connect(at).await.unwrap();
    let second = builder(3).start().await.unwrap();
    match second.connect(at).await {
        Err(DialError::Failed(failures)) => assert_eq!(failures[0].1.code(), Some(CloseCode::TOO_MANY)),
        other => panic!("{other:?}"),
    }
    assert!(!peer.is_lost());
}

/// A machine whose process may have one connection that came in, as the limit of open files would say.
#[derive(Debug)]
struct OneFile(Arc<AtomicUsize>);

#[derive(Debug)]
struct OneFileListener(Box<dyn TcpListen>, Arc<AtomicUsize>);

#[derive(Debug)]
struct Counted(BoxStream, Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

impl tokio::io::AsyncRead for Counted {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl tokio::io::AsyncWrite for Counted {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl ByteStream for Counted {
    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn peer_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.peer_addr()
    }
}

impl TcpListen for OneFileListener {
    fn accept(&self) -> BoxFuture<'_, std::io::Result<(BoxStream, SocketAddr)>> {
        Box::pin(async {
            let (stream, from) = self.0.accept().await?;
            if self.1.load(Ordering::SeqCst) > 0 {
                // The kernel would keep it in the queue; here the dialler is told, and dials again.
                drop(stream);
                return Err(std::io::Error::from_raw_os_error(libc::EMFILE));
            }
            self.1.fetch_add(1, Ordering::SeqCst);
            let counted: BoxStream = Box::new(Counted(stream, self.1.clone()));
            Ok((counted, from))
        })
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Network for OneFile {
    fn connect_tcp<'a>(
        &'a self,
        to: SocketAddr,
        options: &'a TcpOptions,
    ) -> BoxFuture<'a, std::io::Result<BoxStream>> {
        Box::pin(async move { OsNetwork.connect_tcp(to, options).await })
    }

    fn listen_tcp<'a>(
        &'a self,
        at: SocketAddr,
        options: &'a TcpOptions,
    ) -> BoxFuture<'a, std::io::Result<Box<dyn TcpListen>>> {
        Box::pin(async move {
            let listener = OsNetwork.listen_tcp(at, options).await?;
            let listener: Box<dyn TcpListen> = Box::new(OneFileListener(listener, self.0.clone()));
            Ok(listener)
        })
    }

    fn bind_udp<'a>(
        &'a self,
        at: SocketAddr,
        options: &'a UdpOptions,
    ) -> BoxFuture<'a, std::io::Result<Arc<dyn Datagrams>>> {
        Box::pin(async move { OsNetwork.bind_udp(at, options).await })
    }

    fn lookup<'a>(&'a self, host: &'a str) -> BoxFuture<'a, std::io::Result<Vec<std::net::IpAddr>>> {
        Box::pin(async move { OsNetwork.lookup(host).await })
    }

    fn wall_clock(&self) -> std::time::SystemTime {
        OsNetwork.wall_clock()
    }

    fn fill_random(&self, out: &mut [u8]) {
        OsNetwork.fill_random(out);
    }
}

#[tokio::test]
async fn a_process_out_of_files_turns_the_oldest_stranger_out() {
    let open = Arc::new(AtomicUsize::new(0));
    let network = Arc::new(OneFile(open.clone()));
    let server = builder(1).network(network).listen("tls://127.0.0.1:0").start().await.unwrap();
    let mut events = server.events();
    let at = SocketAddr::from(([127, 0, 0, 1], server.addresses()[0].port()));
    let _stranger = OsNetwork.connect_tcp(at, &TcpOptions::default()).await.unwrap();
    while open.load(Ordering::SeqCst) == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    let client = builder(2).start().await.unwrap();
    let connected = timeout(Duration::from_secs(5), async {
        while client.connect(&server.addresses()[0]).await.is_err() {
            sleep(Duration::from_millis(1)).await;
        }
    });
    connected.await.expect("the stranger has made room");
    match events.next().await {
        Some(MeshEvent::Rejected { reason, .. }) => assert!(reason.contains("gave its place"), "{reason}"),
        other => panic!("{other:?}"),
    }
}
