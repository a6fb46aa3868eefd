use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use quinn::{Connection, VarInt};
use tokio::sync::oneshot;
use vitte_net_proto::Lane;

use super::*;
use crate::identity::Identity;
use crate::network::{
    BoxFuture, BoxStream, Datagrams, OsNetwork, Received, TcpListen, TcpOptions, UdpOptions,
};
use crate::quic::LINGER;
use crate::tls::default_provider;

mod replay;

const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Longer than any handshake here takes.
const LIMIT: Duration = Duration::from_secs(10);
const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The operating system's network, whose datagram sockets claim to be none of the system's.
#[derive(Debug)]
struct Foreign(OsNetwork);

impl Network for Foreign {
    fn connect_tcp<'a>(
        &'a self,
        to: SocketAddr,
        options: &'a TcpOptions,
    ) -> BoxFuture<'a, io::Result<BoxStream>> {
        self.0.connect_tcp(to, options)
    }

    fn listen_tcp<'a>(
        &'a self,
        at: SocketAddr,
        options: &'a TcpOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn TcpListen>>> {
        self.0.listen_tcp(at, options)
    }

    fn bind_udp<'a>(
        &'a self,
        at: SocketAddr,
        options: &'a UdpOptions,
    ) -> BoxFuture<'a, io::Result<Arc<dyn Datagrams>>> {
        Box::pin(async move {
            let socket = self.0.bind_udp(at, options).await?;
            Ok(Arc::new(ForeignSocket(socket)) as Arc<dyn Datagrams>)
        })
    }

    fn lookup<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        self.0.lookup(host)
    }

    fn wall_clock(&self) -> SystemTime {
        self.0.wall_clock()
    }

    fn fill_random(&self, out: &mut [u8]) {
        self.0.fill_random(out);
    }
}

#[derive(Debug)]
struct ForeignSocket(Arc<dyn Datagrams>);

impl Datagrams for ForeignSocket {
    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<Received>> {
        self.0.poll_recv(cx, buf)
    }

    fn try_send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        self.0.try_send(datagram, to)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_writable(cx)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn os_socket(&self) -> Option<io::Result<std::net::UdpSocket>> {
        None
    }
}

fn os() -> Arc<dyn Network> {
    Arc::new(OsNetwork::new())
}

fn foreign() -> Arc<dyn Network> {
    Arc::new(Foreign(OsNetwork::new()))
}

struct Node {
    endpoints: Endpoints,
    id: PeerId,
}

fn node(key: u8, network: Arc<dyn Network>) -> Node {
    let identity = Identity::from_secret_key([key; 32]);
    let tls = MeshTls::new(&identity, default_provider(), &network).unwrap();
    Node { id: tls.peer_id(), endpoints: Endpoints::new(network, tls) }
}

async fn meet(a: &Node, b: &Node) -> (Link, Link) {
    let listener = b.endpoints.listen(LOCAL).await.unwrap();
    let at = listener.local_addr().unwrap();
    let accepted = async { listener.accept().await?.handshake(LIMIT).await };
    let (dialled, accepted) = tokio::join!(a.endpoints.dial(at, "peer", Some(b.id)), accepted);
    (dialled.unwrap(), accepted.unwrap())
}

/// A connection without lanes on one side, a link on the other.
async fn meet_raw(a: &Node, b: &Node) -> (Connection, Link) {
    let listener = b.endpoints.listen(LOCAL).await.unwrap();
    let at = listener.local_addr().unwrap();
    let (_, connecting, _seat) = a.endpoints.connect(at, "peer").await.unwrap();
    let accepted = async { listener.accept().await?.handshake(LIMIT).await };
    let (raw, accepted) = tokio::join!(connecting, accepted);
    (raw.unwrap(), accepted.unwrap())
}

/// What stands at `offset` of a lane in these tests.
fn byte(lane: usize, offset: usize) -> u8 {
    (offset.wrapping_mul(31) ^ (offset >> 8) ^ (lane << 4)).to_le_bytes()[0]
}

fn lane(index: usize) -> Lane {
    Lane(u8::try_from(index).unwrap())
}

/// Writes `each` bytes to every lane of `lanes`, in pieces of pseudo-random size, as fast as they go.
async fn pump(writer: &mut LinkWriter, lanes: &[usize], each: usize) {
    let mut sent = [0; Lane::COUNT as usize];
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    poll_fn(|cx| {
        for _ in 0..64 {
            for &index in lanes {
                dice ^= dice << 13;
                dice ^= dice >> 7;
                dice ^= dice << 17;
                let size =
                    1 + usize::try_from(dice % 3000).unwrap() * if dice & 0x100_0000 == 0 { 1 } else { 10 };
                let size = size.min(each - sent[index]).min(writer.capacity(lane(index)));
                let piece: Vec<u8> = (sent[index]..sent[index] + size).map(|at| byte(index, at)).collect();
                if size > 0 {
                    writer.write(lane(index), &piece).unwrap();
                }
                sent[index] += size;
            }
        }
        let flushed = writer.poll_flush(cx).map(Result::unwrap);
        if lanes.iter().all(|&index| sent[index] == each) {
            return flushed;
        }
        if flushed.is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
}

#[derive(Default)]
struct Drain {
    read: [usize; Lane::COUNT as usize],
}

impl Drain {
    fn take(&mut self, lane: Lane, run: &[u8]) {
        let index = usize::from(lane.0);
        for (at, &found) in (self.read[index]..).zip(run) {
            assert_eq!(found, byte(index, at), "lane {index} at {at}");
        }
        self.read[index] += run.len();
    }

    fn total(&self) -> usize {
        self.read.iter().sum()
    }

    async fn until(&mut self, reader: &mut LinkReader, total: usize) {
        while self.total() < total {
            reader.read(&mut |lane, run| self.take(lane, run)).await.unwrap();
        }
        assert_eq!(self.total(), total);
    }
}

async fn exchange(network: fn() -> Arc<dyn Network>) {
    const EACH: usize = 150_000;
    let (a, b) = (node(1, network()), node(2, network()));
    let (mut at_a, mut at_b) = meet(&a, &b).await;
    assert_eq!((at_a.info.peer, at_b.info.peer), (b.id, a.id));
    assert!(at_a.info.dialled && !at_b.info.dialled);
    assert_eq!(at_a.info.local.port(), at_b.info.remote.port());
    assert_eq!(at_a.info.remote, at_b.info.local);
    let every: Vec<usize> = (0..usize::from(Lane::COUNT)).collect();
    let (mut from_a, mut from_b) = (Drain::default(), Drain::default());
    tokio::join!(
        pump(&mut at_a.writer, &every, EACH),
        pump(&mut at_b.writer, &every, EACH),
        from_a.until(&mut at_b.reader, EACH * every.len()),
        from_b.until(&mut at_a.reader, EACH * every.len()),
    );
    assert_eq!(from_a.read, [EACH; Lane::COUNT as usize]);
    assert_eq!(from_b.read, [EACH; Lane::COUNT as usize]);
}

#[tokio::test]
async fn every_lane_keeps_its_order() {
    exchange(os).await;
}

#[tokio::test]
async fn every_lane_keeps_its_order_on_a_foreign_socket() {
    exchange(foreign).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_of_one_foreign_socket_do_not_starve_each_other() {
    const EACH: usize = 400_000;
    let (a, b) = (Arc::new(node(1, foreign())), node(2, foreign()));
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let (mut at_a, mut at_b) = meet(&a, &b).await;
        tasks.push(tokio::spawn(async move {
            let mut drain = Drain::default();
            tokio::join!(pump(&mut at_a.writer, &[2, 5], EACH), drain.until(&mut at_b.reader, 2 * EACH));
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_reader_that_stops_holds_up_the_writer() {
    /// The lane's window at the peer, what quinn keeps, what waits in the lane.
    const BOUND: usize = (2 << 20) + (1 << 20) + (128 << 10);
    let (a, b) = (node(1, os()), node(2, os()));
    let (mut at_a, mut at_b) = meet(&a, &b).await;
    let bulk = Lane(3);
    let mut written = 0;
    loop {
        let size = at_a.writer.capacity(bulk).min(50_000);
        let piece: Vec<u8> = (written..written + size).map(|at| byte(3, at)).collect();
        if size > 0 {
            at_a.writer.write(bulk, &piece).unwrap();
        }
        written += size;
        assert!(written <= BOUND, "{written} bytes taken that nobody reads");
        let room = poll_fn(|cx| match at_a.writer.poll_flush(cx) {
            Poll::Pending if at_a.writer.capacity(bulk) == 0 => Poll::Pending,
            _ => Poll::Ready(()),
        });
        if tokio::time::timeout(Duration::from_millis(300), room).await.is_err() {
            break;
        }
    }
    assert_eq!(at_a.writer.capacity(bulk), 0);
    // Other lanes go on, and so does this one as soon as somebody reads.
    let mut drain = Drain::default();
    let urgent = async {
        pump(&mut at_a.writer, &[1], 10_000).await;
    };
    tokio::join!(urgent, drain.until(&mut at_b.reader, written + 10_000));
    assert_eq!((drain.read[1], drain.read[3]), (10_000, written));
}

#[tokio::test]
async fn urgent_frames_need_not_wait_for_a_window_full_of_bulk() {
    let (a, b) = (node(1, os()), node(2, os()));
    let (mut at_a, _at_b) = meet(&a, &b).await;
    // Nothing else runs while this task does not wait: quinn sends nothing and is acknowledged nothing.
    let mut cx = Context::from_waker(Waker::noop());
    let block = vec![0; 64 << 10];
    for _ in 0..64 {
        if at_a.writer.capacity(Lane(3)) > 0 {
            at_a.writer.write(Lane(3), &block).unwrap();
        }
        let _ = at_a.writer.poll_flush(&mut cx).map(Result::unwrap);
    }
    assert_eq!(at_a.writer.capacity(Lane(3)), 0, "bulk has filled the window");
    for lane in [Lane::CONTROL, Lane(1)] {
        at_a.writer.write(lane, &block[..40_000]).unwrap();
        let _ = at_a.writer.poll_flush(&mut cx).map(Result::unwrap);
        let LinkWriter::Quic(writer) = &at_a.writer else { unreachable!("a QUIC link") };
        assert_eq!(writer.waiting(lane), 0, "lane {lane:?} waits behind bulk");
    }
}

#[tokio::test]
async fn frames_that_travel_alone_come_whole_and_outside_of_the_lanes() {
    const COUNT: u8 = 200;
    let (a, b) = (node(1, os()), node(2, os()));
    let (mut a, mut b) = meet(&a, &b).await;
    let sending = async {
        let mut next = 0;
        poll_fn(|cx| {
            loop {
                let room = a.writer.capacity(Lane::DATAGRAM);
                let ended = next == COUNT;
                if room > 0 && !ended {
                    assert!(room > 1000, "{room} bytes in a packet");
                    a.writer.write(Lane::DATAGRAM, &[next; 1000]).unwrap();
                    next += 1;
                }
                match a.writer.poll_flush(cx).map(Result::unwrap) {
                    Poll::Ready(()) if ended => return Poll::Ready(()),
                    Poll::Ready(()) => {}
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
        // On its lane this one is not lost: it ends the test.
        a.writer.write(Lane::CONTROL, b"end").unwrap();
        poll_fn(|cx| a.writer.poll_flush(cx)).await.unwrap();
    };
    let receiving = async {
        let (mut seen, mut end) = (Vec::new(), false);
        while !end || seen.is_empty() {
            let mut deliver = |lane: Lane, run: &[u8]| {
                if lane == Lane::DATAGRAM {
                    assert!(run.len() == 1000 && run.iter().all(|byte| *byte == run[0]), "torn");
                    seen.push(run[0]);
                } else {
                    assert_eq!((lane, run), (Lane::CONTROL, &b"end"[..]));
                    end = true;
                }
            };
            b.reader.read(&mut deliver).await.unwrap();
        }
        seen
    };
    let ((), seen) = tokio::join!(sending, receiving);
    assert!(seen.len() <= usize::from(COUNT));
}

/// They go before all lanes: whatever waits in them stands before what is urgent.
#[tokio::test]
async fn few_datagrams_wait_to_be_transmitted() {
    let (a, b) = (node(1, os()), node(2, os()));
    let (mut a, _b) = meet(&a, &b).await;
    let mut waiting = 0;
    // Nothing goes out meanwhile: the connection's task has no turn.
    while a.writer.capacity(Lane::DATAGRAM) > 0 {
        a.writer.write(Lane::DATAGRAM, &[7; 1000]).unwrap();
        waiting += 1000;
        assert!(waiting < 100_000, "they have no bound");
    }
    assert!((7000..=9192).contains(&waiting), "{waiting} bytes: 8 KiB, and one that has no room");
}

#[tokio::test]
async fn what_was_flushed_arrives_before_the_end() {
    let (a, b) = (node(1, os()), node(2, os()));
    let (mut at_a, mut at_b) = meet(&a, &b).await;
    pump(&mut at_a.writer, &[0, 1, 4], 30_000).await;
    at_a.writer.close();
    assert!(at_a.writer.write(Lane(1), b"too late").is_err());
    drop(at_a);
    let mut drain = Drain::default();
    drain.until(&mut at_b.reader, 90_000).await;
    for _ in 0..2 {
        let end = at_b.reader.read(&mut |_, _| panic!("nothing more was sent")).await;
        assert!(matches!(end, Err(LinkError::Closed)), "{end:?}");
    }
    at_b.writer.write(Lane(1), b"anybody there?").unwrap();
    let end = poll_fn(|cx| at_b.writer.poll_flush(cx)).await;
    assert!(matches!(end, Err(LinkError::Closed)), "{end:?}");
}

#[tokio::test]
async fn a_dropped_link_is_closed() {
    let (a, b) = (node(1, os()), node(2, os()));
    let (at_a, mut at_b) = meet(&a, &b).await;
    drop(at_a);
    let end = at_b.reader.read(&mut |_, _| ()).await;
    assert!(matches!(end, Err(LinkError::Closed)), "{end:?}");
}

#[tokio::test]
async fn another_key_than_the_expected_one_is_told_to_both() {
    let (a, b) = (node(1, os()), node(2, os()));
    let listener = b.endpoints.listen(LOCAL).await.unwrap();
    let at = listener.local_addr().unwrap();
    let accepted = async { listener.accept().await?.handshake(LIMIT).await };
    let (dialled, accepted) = tokio::join!(a.endpoints.dial(at, "peer", Some(a.id)), accepted);
    let error = dialled.unwrap_err();
    assert!(matches!(error, LinkError::WrongPeer { expected, found } if (expected, found) == (a.id, b.id)));
    let told = match accepted {
        Ok(mut link) => link.reader.read(&mut |_, _| ()).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(told.to_string().contains("not the key that was dialled"), "{told}");
}

#[tokio::test]
async fn a_read_that_is_given_up_loses_nothing() {
    const EACH: usize = 100_000;
    let (a, b) = (node(1, os()), node(2, os()));
    let (mut at_a, mut at_b) = meet(&a, &b).await;
    let mut drain = Drain::default();
    let mut given_up = 0;
    let reading = async {
        while drain.total() < 3 * EACH {
            let polled = poll_fn(|cx| {
                let mut take = |lane, run: &[u8]| drain.take(lane, run);
                Poll::Ready(pin!(at_b.reader.read(&mut take)).poll(cx))
            });
            if polled.await.map(Result::unwrap).is_pending() {
                given_up += 1;
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::join!(pump(&mut at_a.writer, &[0, 2, 7], EACH), reading);
    assert_eq!(drain.total(), 3 * EACH);
    assert!(given_up > 0);
}

/// Sends `streams`, each whole and ended, and returns what the reader says in the end.
async fn what_the_reader_says(streams: &[&[u8]]) -> (LinkError, usize, quinn::ConnectionError) {
    let (a, b) = (node(1, os()), node(2, os()));
    let (raw, mut at_b) = meet_raw(&a, &b).await;
    for bytes in streams {
        let mut stream = raw.open_uni().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.finish().unwrap();
    }
    let mut delivered = 0;
    let error = loop {
        if let Err(error) = at_b.reader.read(&mut |_, run| delivered += run.len()).await {
            break error;
        }
    };
    (error, delivered, raw.closed().await)
}

fn assert_broken(error: &LinkError, closed: &quinn::ConnectionError, reason: &str) {
    assert!(matches!(error, LinkError::Protocol { protocol: "QUIC", .. }), "{error:?}");
    assert!(error.to_string().contains(reason), "{error}");
    let quinn::ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed:?}") };
    assert_eq!(close.error_code, failure::CLOSE_BROKEN);
    assert_eq!(close.reason, reason.as_bytes());
}

#[tokio::test]
async fn a_lane_that_does_not_exist_is_refused() {
    let (error, delivered, closed) = what_the_reader_says(&[&[Lane::COUNT, 1, 2, 3]]).await;
    assert_broken(&error, &closed, "a stream named a lane that does not exist");
    assert_eq!(delivered, 0);
}

#[tokio::test]
async fn a_lane_that_is_named_twice_is_refused() {
    let (error, delivered, closed) = what_the_reader_says(&[&[2, 1, 1], &[2, 1, 1]]).await;
    assert_broken(&error, &closed, "two streams named the same lane");
    assert!(delivered <= 2);
}

#[tokio::test]
async fn a_stream_without_a_lane_is_refused() {
    let (error, _, closed) = what_the_reader_says(&[&[]]).await;
    assert_broken(&error, &closed, "a stream ended before it named its lane");
}

#[tokio::test]
async fn a_lane_that_is_cut_off_is_refused() {
    let (a, b) = (node(1, os()), node(2, os()));
    let (raw, mut at_b) = meet_raw(&a, &b).await;
    let mut stream = raw.open_uni().await.unwrap();
    stream.write_all(&[2, 1, 1]).await.unwrap();
    let mut delivered = 0;
    while delivered < 2 {
        at_b.reader.read(&mut |_, run| delivered += run.len()).await.unwrap();
    }
    stream.reset(VarInt::from_u32(7)).unwrap();
    let error = at_b.reader.read(&mut |_, _| ()).await.unwrap_err();
    assert_broken(&error, &raw.closed().await, "a lane was reset");
}

#[tokio::test]
async fn a_peer_cannot_open_more_streams_than_there_are_lanes() {
    let (a, b) = (node(1, os()), node(2, os()));
    let (raw, _at_b) = meet_raw(&a, &b).await;
    let mut streams = Vec::new();
    for _ in 0..Lane::COUNT {
        streams.push(raw.open_uni().await.unwrap());
    }
    let mut cx = Context::from_waker(Waker::noop());
    assert!(pin!(raw.open_uni()).poll(&mut cx).is_pending());
    assert!(pin!(raw.open_bi()).poll(&mut cx).is_pending());
}

#[tokio::test]
async fn under_load_an_address_proves_itself() {
    let (a, b) = (node(1, os()), node(2, os()));
    let listener = b.endpoints.listen(LOCAL).await.unwrap();
    let at = listener.local_addr().unwrap();
    let _tickets: Vec<_> = (0..RETRY_ABOVE).map(|_| Ticket::take(&listener.in_flight)).collect();
    let accepted = async {
        let incoming = listener.accept().await?;
        assert!(incoming.incoming.remote_address_validated());
        incoming.handshake(LIMIT).await
    };
    let (dialled, accepted) = tokio::join!(a.endpoints.dial(at, "peer", Some(b.id)), accepted);
    dialled.unwrap();
    accepted.unwrap();
    assert_eq!(listener.in_flight.load(Ordering::Relaxed), RETRY_ABOVE);
}

#[tokio::test]
async fn a_connection_that_is_silent_for_a_minute_is_given_up() {
    let (a, b) = (node(1, os()), node(2, os()));
    let (at_a, mut at_b) = meet(&a, &b).await;
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    let error = at_b.reader.read(&mut |_, _| ()).await.unwrap_err();
    assert!(matches!(&error, LinkError::Io(error) if error.kind() == io::ErrorKind::TimedOut), "{error:?}");
    let after = start.elapsed();
    assert!((Duration::from_secs(59)..Duration::from_secs(62)).contains(&after), "{after:?}");
    drop(at_a);
}

/// Waits until nothing is left of any connection: earlier than quinn alone would see to it.
async fn all_are_gone(endpoint: &Endpoint) {
    let start = tokio::time::Instant::now();
    while endpoint.open_connections() > 0 {
        assert!(start.elapsed() < 4 * LINGER, "{} connections are left", endpoint.open_connections());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Its first packet closes what it opens: quinn sets no timer for its end.
#[tokio::test]
async fn a_connection_that_is_closed_as_it_begins_is_gone_soon() {
    let (a, b) = (node(1, os()), node(2, os()));
    let listener = b.endpoints.listen(LOCAL).await.unwrap();
    let (endpoint, connecting, _seat) =
        a.endpoints.connect(listener.local_addr().unwrap(), "peer").await.unwrap();
    // Before its driver has run once.
    drop(connecting);
    let error = listener.accept().await.unwrap().handshake(LIMIT).await.unwrap_err();
    assert!(matches!(error, LinkError::Closed | LinkError::Protocol { .. }), "{error:?}");
    all_are_gone(&listener.endpoint).await;
    all_are_gone(&endpoint).await;
}

/// It says nothing more behind its first packet, and this side gives it up.
#[tokio::test]
async fn a_handshake_that_took_too_long_is_gone_soon() {
    let b = node(2, os());
    let listener = b.endpoints.listen(LOCAL).await.unwrap();
    let at = listener.local_addr().unwrap();
    let (stop, stopping) = oneshot::channel::<()>();
    let (silent, fell_silent) = oneshot::channel::<()>();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    // On a runtime that runs no more once the first packet is there.
    let dialler = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let held = runtime.block_on(async {
            let a = node(1, os());
            let dialled = a.endpoints.connect(at, "peer").await.unwrap();
            stopping.await.unwrap();
            (a, dialled)
        });
        silent.send(()).unwrap();
        let _ = ended.recv();
        drop(held);
    });
    let incoming = listener.accept().await.unwrap();
    stop.send(()).unwrap();
    fell_silent.await.unwrap();
    let error = incoming.handshake(Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, LinkError::HandshakeTimeout), "{error:?}");
    all_are_gone(&listener.endpoint).await;
    drop(end);
    dialler.join().unwrap();
}

#[tokio::test]
async fn a_listener_everywhere_dials_too_and_its_links_outlive_it() {
    let (a, b) = (node(1, os()), node(2, os()));
    let of_a = a.endpoints.listen(ANYWHERE).await.unwrap();
    let port = of_a.local_addr().unwrap().port();
    let (mut at_a, mut at_b) = meet(&a, &b).await;
    assert_eq!(at_b.info.remote.port(), port);
    drop(of_a);
    let mut drain = Drain::default();
    tokio::join!(pump(&mut at_a.writer, &[2], 10_000), drain.until(&mut at_b.reader, 10_000));
    let (_again, at_b) = meet(&a, &b).await;
    assert_ne!(at_b.info.remote.port(), port, "a socket without its listener takes no new links");
}

#[tokio::test]
async fn a_closed_link_ends_by_its_last_word_and_not_lane_by_lane() {
    let (a, b) = (node(1, os()), node(2, os()));
    let (raw, mut at_b) = meet_raw(&a, &b).await;
    let mut stream = raw.open_uni().await.unwrap();
    stream.write_all(&[2, 1]).await.unwrap();
    at_b.reader.read(&mut |_, run| assert_eq!(run, [1])).await.unwrap();
    at_b.writer.write(Lane(2), b"goodbye").unwrap();
    at_b.writer.close();
    drop(at_b);
    let end = stream.stopped().await;
    let lost = quinn::StoppedError::ConnectionLost(raw.closed().await);
    assert_eq!(end, Err(lost.clone()));
    let quinn::StoppedError::ConnectionLost(quinn::ConnectionError::ApplicationClosed(close)) = lost else {
        panic!("{lost:?}")
    };
    assert_eq!(close.error_code, failure::CLOSE_ORDERLY);
    let mut last = raw.accept_uni().await.unwrap();
    assert_eq!(last.read_to_end(100).await.unwrap(), b"\x02goodbye");
}
