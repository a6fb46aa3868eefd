//! Two runs with the same seeds put the same packets on the wire at the same moments.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;

use super::*;

/// When a datagram was sent, its length, and what anybody can read of it: connection ids and retry tokens.
type Sent = (Duration, usize, Vec<u8>);

/// Datagrams within one process, without latency or loss, and all randomness from one seed.
#[derive(Debug)]
struct Memory(Arc<Mutex<Wires>>);

#[derive(Debug)]
struct Wires {
    dice: u64,
    start: Instant,
    queues: BTreeMap<u16, Queue>,
    sent: Vec<Sent>,
}

#[derive(Debug, Default)]
struct Queue {
    datagrams: VecDeque<(u16, Vec<u8>)>,
    waiting: Option<Waker>,
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
}

impl Network for Memory {
    fn connect_tcp<'a>(&'a self, _: SocketAddr, _: &'a TcpOptions) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
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
        let mut wires = self.0.lock().unwrap();
        let port = 7000 + u16::try_from(wires.queues.len()).unwrap();
        wires.queues.insert(port, Queue::default());
        let socket = MemorySocket { port, wires: Arc::clone(&self.0) };
        Box::pin(async move { Ok(Arc::new(socket) as Arc<dyn Datagrams>) })
    }

    fn lookup<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    fn fill_random(&self, out: &mut [u8]) {
        let mut wires = self.0.lock().unwrap();
        for byte in out {
            wires.dice =
                wires.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = wires.dice.to_be_bytes()[0];
        }
    }
}

#[derive(Debug)]
struct MemorySocket {
    port: u16,
    wires: Arc<Mutex<Wires>>,
}

impl Datagrams for MemorySocket {
    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<Received>> {
        let mut wires = self.wires.lock().unwrap();
        let queue = wires.queues.get_mut(&self.port).unwrap();
        let Some((from, datagram)) = queue.datagrams.pop_front() else {
            queue.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let len = datagram.len().min(buf.len());
        buf[..len].copy_from_slice(&datagram[..len]);
        Poll::Ready(Ok(Received { len, from: at(from), truncated: len < datagram.len() }))
    }

    fn try_send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        let mut wires = self.wires.lock().unwrap();
        let when = wires.start.elapsed();
        wires.sent.push((when, datagram.len(), readable(datagram)));
        let queue = wires.queues.get_mut(&to.port()).unwrap();
        queue.datagrams.push_back((self.port, datagram.to_vec()));
        if let Some(waiting) = queue.waiting.take() {
            waiting.wake();
        }
        Ok(())
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(at(self.port))
    }

    fn os_socket(&self) -> Option<io::Result<std::net::UdpSocket>> {
        None
    }
}

/// RFC 8999 for the ids; of a retry packet (RFC 9000, section 17.2.5) everything.
fn readable(datagram: &[u8]) -> Vec<u8> {
    let long = datagram[0] & 0x80 != 0;
    if !long {
        return datagram[1..9].to_vec();
    }
    if datagram[0] & 0x30 == 0x30 {
        return datagram.to_vec();
    }
    let to = 6 + usize::from(datagram[5]);
    let from = to + 1 + usize::from(datagram[to]);
    datagram[1..from].to_vec()
}

async fn run(dice: u64) -> Vec<Sent> {
    let wires = Wires { dice, start: Instant::now(), queues: BTreeMap::new(), sent: Vec::new() };
    let wires = Arc::new(Mutex::new(wires));
    let (a, b) =
        (node(1, Arc::new(Memory(Arc::clone(&wires)))), node(2, Arc::new(Memory(Arc::clone(&wires)))));
    let listener = b.endpoints.listen(LOCAL).await.unwrap();
    // Busy enough for a retry.
    let tickets: Vec<_> = (0..RETRY_ABOVE).map(|_| Ticket::take(&listener.in_flight)).collect();
    let accepted = async { listener.accept().await?.handshake(LIMIT).await };
    let to = listener.local_addr().unwrap();
    let (dialled, accepted) = tokio::join!(a.endpoints.dial(to, "peer", Some(b.id)), accepted);
    drop(tickets);
    let (mut at_a, mut at_b) = (dialled.unwrap(), accepted.unwrap());
    let mut drain = Drain::default();
    tokio::join!(pump(&mut at_a.writer, &[0, 1, 2, 3, 8], 60_000), drain.until(&mut at_b.reader, 300_000));
    at_a.writer.close();
    let end = at_b.reader.read(&mut |_, _| ()).await;
    assert!(matches!(end, Err(LinkError::Closed)), "{end:?}");
    let sent = std::mem::take(&mut wires.lock().unwrap().sent);
    assert!(sent.len() > 200, "{} datagrams", sent.len());
    sent
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_sends_the_same_packets() {
    let first = run(1).await;
    for _ in 0..3 {
        let again = run(1).await;
        let differs = first.iter().zip(&again).position(|(one, other)| one != other);
        assert_eq!((differs, first.len()), (None, again.len()));
    }
    let other = run(2).await;
    assert_ne!(first, other);
}
