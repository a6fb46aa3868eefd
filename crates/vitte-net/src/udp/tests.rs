use std::future::Future;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::Mutex;
use std::task::Waker;
use std::time::Duration;

use super::*;

/// A task that is never woken fails its test instead of hanging it.
async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.unwrap()
}

async fn pair() -> (UdpSocket, UdpSocket) {
    let one = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let two = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    (one, two)
}

#[tokio::test]
async fn datagrams_go_there_and_back() {
    let (one, two) = pair().await;
    one.send_to(b"ping", two.local_addr().unwrap()).await.unwrap();
    let mut buf = [0; 16];
    let received = two.recv_from(&mut buf).await.unwrap();
    assert_eq!(received, Received { len: 4, from: one.local_addr().unwrap(), truncated: false });
    assert_eq!(&buf[..4], b"ping");
    two.send_to(b"", received.from.to_string()).await.unwrap();
    assert_eq!(one.recv_from(&mut buf).await.unwrap().len, 0);
}

#[tokio::test]
async fn a_datagram_that_does_not_fit_says_so() {
    let (one, two) = pair().await;
    one.send_to(b"0123456789", two.local_addr().unwrap()).await.unwrap();
    let mut buf = [0; 4];
    let received = two.recv_from(&mut buf).await.unwrap();
    assert_eq!((received.len, received.truncated, &buf), (4, true, b"0123"));
}

#[tokio::test]
async fn the_longest_datagram_travels_and_a_longer_one_is_refused() {
    let (one, two) = pair().await;
    let to = two.local_addr().unwrap();
    one.send_to(&vec![1; MAX_DATAGRAM_IPV4], to).await.unwrap();
    let mut buf = vec![0; 65_535];
    assert_eq!(two.recv_from(&mut buf).await.unwrap().len, MAX_DATAGRAM_IPV4);
    let error = one.send_to(&vec![1; MAX_DATAGRAM_IPV4 + 1], to).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("at most 65507"), "{error}");
}

#[tokio::test]
async fn a_connected_socket_hears_its_peer_only() {
    let (mut one, two) = pair().await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = one.local_addr().unwrap();
    assert_eq!(one.send(b"x").await.unwrap_err().kind(), io::ErrorKind::NotConnected);
    assert_eq!(one.recv(&mut [0; 4]).await.unwrap_err().kind(), io::ErrorKind::NotConnected);
    // What waits already when it connects, and what comes afterwards.
    for _ in 0..STRANGERS_AT_ONCE + 10 {
        stranger.send_to(b"psst", to).await.unwrap();
    }
    one.connect(two.local_addr().unwrap()).await.unwrap();
    for _ in 0..STRANGERS_AT_ONCE + 10 {
        stranger.send_to(b"psst", to).await.unwrap();
    }
    two.send_to(b"hello", to).await.unwrap();
    let mut buf = [0; 16];
    let received = one.recv(&mut buf).await.unwrap();
    assert_eq!(&buf[..received.len], b"hello");
    one.send(b"back").await.unwrap();
    assert_eq!(two.recv_from(&mut buf).await.unwrap().from, to);
    // Others can be sent to, and are not heard; another peer takes the place of the first.
    one.send_to(b"you", stranger.local_addr().unwrap()).await.unwrap();
    assert_eq!(stranger.recv_from(&mut buf).await.unwrap().from, to);
    stranger.send_to(b"psst", to).await.unwrap();
    two.send_to(b"again", to).await.unwrap();
    let received = one.recv_from(&mut buf).await.unwrap();
    assert_eq!(&buf[..received.len], b"again");
    two.send_to(b"once more", to).await.unwrap();
    one.connect(stranger.local_addr().unwrap()).await.unwrap();
    stranger.send_to(b"peer", to).await.unwrap();
    let received = one.recv(&mut buf).await.unwrap();
    assert_eq!(&buf[..received.len], b"peer");
}

/// The label of a flow is said on the way there, and not heard on the way back.
#[tokio::test]
async fn a_peer_with_a_flow_label_is_heard() {
    let (mut one, two) =
        (UdpSocket::bind("[::1]:0").await.unwrap(), UdpSocket::bind("[::1]:0").await.unwrap());
    let SocketAddr::V6(mut peer) = two.local_addr().unwrap() else { unreachable!("it is bound to ::1") };
    peer.set_flowinfo(5);
    one.connect(SocketAddr::V6(peer)).await.unwrap();
    one.send(b"hello").await.unwrap();
    let mut buf = [0; 16];
    let from = in_time(two.recv_from(&mut buf)).await.unwrap().from;
    two.send_to(b"back", from).await.unwrap();
    let received = in_time(one.recv(&mut buf)).await.unwrap();
    assert_eq!(&buf[..received.len], b"back");
}

/// A machine says at once that nobody listens there, and to a connected socket alone. Nothing depends on it.
#[tokio::test]
async fn a_peer_that_is_not_there_yet_is_heard_when_it_comes() {
    let (mut one, two) = pair().await;
    let at = two.local_addr().unwrap();
    drop(two);
    one.connect(at).await.unwrap();
    for _ in 0..5 {
        one.send(b"anybody?").await.unwrap();
    }
    let two = UdpSocket::bind(at).await.unwrap();
    two.send_to(b"me", one.local_addr().unwrap()).await.unwrap();
    assert_eq!(one.recv(&mut [0; 8]).await.unwrap().len, 2);
    one.send(b"good").await.unwrap();
    assert_eq!(two.recv_from(&mut [0; 8]).await.unwrap().len, 4);
}

#[tokio::test]
async fn several_tasks_receive_at_one_socket_and_each_is_woken() {
    let (one, two) = pair().await;
    let to = two.local_addr().unwrap();
    let two = Arc::new(two);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let two = Arc::clone(&two);
            tokio::spawn(async move {
                let mut buf = [0; 1];
                two.recv_from(&mut buf).await.unwrap();
                buf[0]
            })
        })
        .collect();
    // Let all of them wait before the first datagram comes.
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
    for i in 0..8 {
        one.send_to(&[i], to).await.unwrap();
    }
    let mut seen = Vec::new();
    for task in tasks {
        seen.push(in_time(task).await.unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn a_dropped_receiver_leaves_nothing_behind_and_takes_nothing() {
    let (one, two) = pair().await;
    for _ in 0..100 {
        let mut buf = [0; 4];
        let mut waiting = pin!(two.recv_from(&mut buf));
        assert!(poll_once(waiting.as_mut()).await.is_pending());
    }
    assert_eq!(two.readers.waiting(), 0);
    one.send_to(b"kept", two.local_addr().unwrap()).await.unwrap();
    assert_eq!(two.recv_from(&mut [0; 4]).await.unwrap().len, 4);
}

async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

#[tokio::test]
async fn the_other_family_is_refused_with_a_reason() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let error = socket.send_to(b"x", "[::1]:9").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("no address of its family"), "{error}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn broadcasts_need_permission() {
    let deaf = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    let error = deaf.send_to(b"all", "255.255.255.255:9").await.unwrap_err();
    // A machine without a route says so instead.
    let expected = [io::ErrorKind::PermissionDenied, io::ErrorKind::NetworkUnreachable];
    assert!(expected.contains(&error.kind()), "{error}");
    // Loopback has a broadcast address of its own, so this needs no network.
    let refused = deaf.send_to(b"all", "127.255.255.255:9").await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    let loud = UdpSocket::builder().broadcast(true).bind("0.0.0.0:0").await.unwrap();
    loud.send_to(b"all", "127.255.255.255:9").await.unwrap();
}

/// Takes no datagram while it is full.
#[derive(Debug, Default)]
struct Full {
    full: Mutex<bool>,
    waker: Mutex<Option<Waker>>,
    sent: Mutex<Vec<Vec<u8>>>,
}

impl Datagrams for Full {
    fn poll_recv(&self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<Received>> {
        Poll::Pending
    }

    fn try_send(&self, datagram: &[u8], _: SocketAddr) -> io::Result<()> {
        if *self.full.lock().unwrap() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.sent.lock().unwrap().push(datagram.to_vec());
        Ok(())
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !*self.full.lock().unwrap() {
            return Poll::Ready(Ok(()));
        }
        *self.waker.lock().unwrap() = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok((Ipv4Addr::LOCALHOST, 1).into())
    }

    fn os_socket(&self) -> Option<io::Result<std::net::UdpSocket>> {
        None
    }
}

#[tokio::test]
async fn all_senders_wait_while_the_socket_is_full_and_all_go_on() {
    let full = Arc::new(Full { full: Mutex::new(true), ..Full::default() });
    let socket = Arc::new(UdpSocket {
        socket: Arc::clone(&full) as Arc<dyn Datagrams>,
        network: Arc::new(OsNetwork),
        local: (Ipv4Addr::LOCALHOST, 1).into(),
        peer: None,
        readers: Waiters::default(),
        writers: Waiters::default(),
    });
    let senders: Vec<_> = (0..3_u8)
        .map(|i| {
            let socket = Arc::clone(&socket);
            tokio::spawn(async move { socket.send_to(&[i], (Ipv4Addr::LOCALHOST, 2)).await })
        })
        .collect();
    while socket.writers.waiting() < 3 {
        tokio::task::yield_now().await;
    }
    assert!(full.sent.lock().unwrap().is_empty());
    *full.full.lock().unwrap() = false;
    full.waker.lock().unwrap().take().unwrap().wake();
    for sender in senders {
        in_time(sender).await.unwrap().unwrap();
    }
    assert_eq!(full.sent.lock().unwrap().len(), 3);
}
