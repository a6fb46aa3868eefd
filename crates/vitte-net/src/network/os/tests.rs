use std::future::poll_fn;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const ANY_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const DUAL: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// Machines without IPv6 exist (containers, mostly): there the dual-stack tests have nothing to say.
fn has_ipv6() -> bool {
    std::net::UdpSocket::bind("[::1]:0").is_ok()
}

/// On loopback a datagram that was sent is there; the time-out is for code that is broken.
async fn receive(socket: &dyn Datagrams, buf: &mut [u8]) -> io::Result<Received> {
    tokio::time::timeout(Duration::from_secs(20), poll_fn(|cx| socket.poll_recv(cx, buf))).await?
}

async fn send(socket: &dyn Datagrams, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
    loop {
        match socket.try_send(datagram, to) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|cx| socket.poll_writable(cx)).await?;
            }
            sent => return sent,
        }
    }
}

#[tokio::test]
async fn bytes_travel_both_ways_and_options_are_set_on_both_ends() {
    let options = TcpOptions { notsent_low_water: Some(16_384), ..TcpOptions::default() };
    let listener = OsNetwork.listen_tcp(ANY_V4, &options).await.unwrap();
    let at = listener.local_addr().unwrap();
    let (mut client, (mut server, from)) =
        tokio::try_join!(OsNetwork.connect_tcp(at, &options), listener.accept()).unwrap();
    assert_eq!(from, client.local_addr().unwrap());
    assert_eq!(client.peer_addr().unwrap(), at);

    client.write_all(b"ping").await.unwrap();
    let mut four = [0; 4];
    server.read_exact(&mut four).await.unwrap();
    assert_eq!(&four, b"ping");
    server.shutdown().await.unwrap();
    assert_eq!(client.read(&mut four).await.unwrap(), 0);
}

#[tokio::test]
async fn configured_sockets_have_what_was_asked() {
    let options = TcpOptions { nodelay: true, notsent_low_water: Some(16_384), ..TcpOptions::default() };
    let socket = TcpSocket::new_v4().unwrap();
    configure(SockRef::from(&socket), &options).unwrap();
    assert!(socket.nodelay().unwrap());
    #[cfg(target_os = "linux")]
    assert_eq!(SockRef::from(&socket).tcp_notsent_lowat().unwrap(), 16_384);
}

#[tokio::test]
async fn a_dual_stack_listener_takes_ipv4_and_shows_it_plainly() {
    if !has_ipv6() {
        return;
    }
    let options = TcpOptions::default();
    let listener = OsNetwork.listen_tcp(DUAL, &options).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for host in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let to = SocketAddr::new(host, port);
        let (client, (server, from)) =
            tokio::try_join!(OsNetwork.connect_tcp(to, &options), listener.accept()).unwrap();
        assert_eq!(from.ip(), host);
        assert_eq!(from, client.local_addr().unwrap());
        assert_eq!(server.peer_addr().unwrap(), from);
        assert_eq!(server.local_addr().unwrap(), to);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_socket_that_meets_itself_is_refused() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(ANY_V4).unwrap();
    let own = socket.local_addr().unwrap();
    let stream = socket.connect(own).await.unwrap();
    assert_eq!(refuse_self(stream).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn datagrams_say_when_they_were_cut() {
    let receiver = OsNetwork.bind_udp(ANY_V4, &UdpOptions::default()).await.unwrap();
    let to = receiver.local_addr().unwrap();
    let sender = std::net::UdpSocket::bind(ANY_V4).unwrap();
    let from = sender.local_addr().unwrap();
    for (sent, room, len, truncated) in [
        (3, 4, 3, false),
        (4, 4, 4, false),
        (5, 4, 4, true),
        (9000, 4, 4, true),
        (0, 4, 0, false),
        (1, 0, 0, true),
    ] {
        let datagram: Vec<u8> = (0..sent).map(|i: u16| i.to_le_bytes()[0]).collect();
        sender.send_to(&datagram, to).unwrap();
        let mut buf = vec![0xFF; room];
        let received = receive(&*receiver, &mut buf).await.unwrap();
        assert_eq!(received, Received { len, from, truncated }, "{sent} bytes into {room}");
        assert_eq!(buf[..len], datagram[..len]);
    }
    let longest = vec![7; 65_507];
    sender.send_to(&longest, to).unwrap();
    let mut buf = vec![0; LONGEST_DATAGRAM];
    let received = receive(&*receiver, &mut buf).await.unwrap();
    assert_eq!(received, Received { len: longest.len(), from, truncated: false });
}

#[tokio::test]
async fn a_dual_stack_udp_socket_speaks_ipv4() {
    if !has_ipv6() {
        return;
    }
    let dual = OsNetwork.bind_udp(DUAL, &UdpOptions::default()).await.unwrap();
    let plain = OsNetwork.bind_udp(ANY_V4, &UdpOptions::default()).await.unwrap();
    let to_dual = SocketAddr::from((Ipv4Addr::LOCALHOST, dual.local_addr().unwrap().port()));
    let mut buf = [0; 8];
    send(&*plain, b"there", to_dual).await.unwrap();
    let received = receive(&*dual, &mut buf).await.unwrap();
    assert_eq!(received.from, plain.local_addr().unwrap());
    send(&*dual, b"back", received.from).await.unwrap();
    let received = receive(&*plain, &mut buf).await.unwrap();
    assert_eq!((&buf[..received.len], received.from), (&b"back"[..], to_dual));
}

#[tokio::test]
async fn udp_options_reach_the_socket_and_os_socket_is_a_second_handle() {
    let options = UdpOptions { receive_buffer: Some(65_536), send_buffer: Some(65_536), broadcast: true };
    let socket = OsNetwork.bind_udp(ANY_V4, &options).await.unwrap();
    let handle = socket.os_socket().unwrap().unwrap();
    assert_eq!(handle.local_addr().unwrap(), socket.local_addr().unwrap());
    assert!(handle.broadcast().unwrap());
    // Linux doubles what was asked (socket(7)); no system gives less while it is under the limit.
    assert!(SockRef::from(&handle).recv_buffer_size().unwrap() >= 65_536);
    assert!(SockRef::from(&handle).send_buffer_size().unwrap() >= 65_536);
    let would_block = handle.recv_from(&mut [0; 1]).unwrap_err();
    assert_eq!(would_block.kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn names_are_looked_up_and_addresses_are_their_own_answer() {
    assert_eq!(OsNetwork.lookup("192.0.2.7").await.unwrap(), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
    assert_eq!(OsNetwork.lookup("::1").await.unwrap(), [IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    let local = OsNetwork.lookup("localhost").await.unwrap();
    assert!(!local.is_empty() && local.iter().all(IpAddr::is_loopback), "{local:?}");
}

#[test]
fn randomness_differs_from_call_to_call() {
    let (mut one, mut two) = ([0; 32], [0; 32]);
    OsNetwork.fill_random(&mut one);
    OsNetwork.fill_random(&mut two);
    assert_ne!(one, two);
}
