use std::future::poll_fn;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::network::Keepalive;
use socket2::Socket;

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
    let mut buf = vec![0; 65_535];
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
    let options = UdpOptions {
        receive_buffer: Some(65_536),
        send_buffer: Some(65_536),
        broadcast: true,
        ..UdpOptions::default()
    };
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

#[tokio::test]
async fn every_option_of_tcp_is_on_the_socket() {
    let options = TcpOptions {
        keepalive: Some(Keepalive { idle: Duration::from_millis(59_001), ..Keepalive::default() }),
        linger: Some(Duration::from_millis(1)),
        receive_buffer: Some(40_000),
        send_buffer: Some(40_000),
        ttl: Some(9),
        dscp: Some(10),
        reuse_port: cfg!(unix),
        from: Some(ANY_V4),
        ..TcpOptions::default()
    };
    let socket = new_socket(ANY_V4, Type::STREAM, Protocol::TCP, false).unwrap();
    options::before(SockRef::from(&socket), &options, Family::V4).unwrap();
    configure(SockRef::from(&socket), &options).unwrap();
    assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
    assert_eq!(socket.linger().unwrap(), Some(Duration::from_secs(1)), "never none by rounding");
    assert!(socket.recv_buffer_size().unwrap() >= 40_000 && socket.send_buffer_size().unwrap() >= 40_000);
    assert_eq!(socket.ttl_v4().unwrap(), 9);
    #[cfg(target_os = "linux")]
    {
        let keepalive = (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap());
        assert_eq!(keepalive, (Duration::from_secs(60), Duration::from_secs(10)));
        assert_eq!((socket.tos_v4().unwrap(), socket.tcp_keepalive_retries().unwrap()), (40, 6));
    }
    let listener = OsNetwork.listen_tcp(ANY_V4, &options).await.unwrap();
    let at = listener.local_addr().unwrap();
    #[cfg(unix)]
    drop(OsNetwork.listen_tcp(at, &options).await.expect("a second listener shares the port"));
    tokio::try_join!(OsNetwork.connect_tcp(at, &options), listener.accept()).unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn options_hold_for_both_families_of_a_dual_stack_socket_and_for_what_it_accepts() {
    if !has_ipv6() {
        return;
    }
    let options = TcpOptions { ttl: Some(9), dscp: Some(10), ..TcpOptions::default() };
    let socket = new_socket(DUAL, Type::STREAM, Protocol::TCP, false).unwrap();
    options::before(SockRef::from(&socket), &options, Family::bound(DUAL, false)).unwrap();
    socket.bind(&DUAL.into()).unwrap();
    socket.listen(1).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    let accepting = |socket: Socket| tokio::task::spawn_blocking(move || socket.accept().unwrap().0);
    socket.set_nonblocking(false).unwrap();
    let _client = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let accepted = accepting(socket).await.unwrap();
    assert_eq!((accepted.tos_v4().unwrap(), accepted.ttl_v4().unwrap()), (40, 9));
    assert_eq!((accepted.tclass_v6().unwrap(), accepted.unicast_hops_v6().unwrap()), (40, 9));
    // IPv6 alone leaves the port of IPv4 to others.
    let alone = TcpOptions { only_ipv6: true, ..TcpOptions::default() };
    let listener = OsNetwork.listen_tcp(DUAL, &alone).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let error = OsNetwork.connect_tcp(to, &options).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn options_out_of_their_range_are_named() {
    let default = TcpOptions::default;
    let never = Keepalive { probes: 0, ..Keepalive::default() };
    let mut wrong = vec![
        ("dscp", TcpOptions { dscp: Some(64), ..default() }),
        ("ttl", TcpOptions { ttl: Some(0), ..default() }),
        ("keepalive", TcpOptions { keepalive: Some(never), ..default() }),
        ("from [::1]:0", TcpOptions { from: Some("[::1]:0".parse().unwrap()), ..default() }),
    ];
    let nowhere = TcpOptions { interface: Some("nowhere9".into()), ..default() };
    let listener = OsNetwork.listen_tcp(ANY_V4, &default()).await.unwrap();
    let at = listener.local_addr().unwrap();
    wrong.push(("interface", nowhere));
    for (name, options) in wrong {
        let error = OsNetwork.connect_tcp(at, &options).await.unwrap_err();
        assert!(error.to_string().contains(name), "{name}: {error}");
        if name != "interface" {
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}");
        }
    }
    let options = UdpOptions { multicast_interface: Interface::Index(1), ..UdpOptions::default() };
    let error = OsNetwork.bind_udp(ANY_V4, &options).await.unwrap_err();
    assert!(error.to_string().contains("multicast_interface"), "{error}");
}

/// Two sockets of `any` that are members of `group` hear what a third sends there, until they leave.
async fn members_hear(any: SocketAddr, group: IpAddr, interface: Interface, out: Interface) {
    let options = UdpOptions {
        share_address: true,
        multicast_ttl: Some(0),
        multicast_loop: Some(true),
        multicast_interface: out,
        ..UdpOptions::default()
    };
    let member = OsNetwork.bind_udp(any, &options).await.unwrap();
    let to = SocketAddr::new(group, member.local_addr().unwrap().port());
    let other = OsNetwork.bind_udp(SocketAddr::new(any.ip(), to.port()), &options).await.unwrap();
    let sender = OsNetwork.bind_udp(any, &options).await.unwrap();
    member.join_group(group, interface).unwrap();
    other.join_group(group, interface).unwrap();
    send(&*sender, b"all", to).await.unwrap();
    let mut buf = [0; 8];
    for socket in [&member, &other] {
        let received = receive(&**socket, &mut buf).await.unwrap();
        assert_eq!(&buf[..received.len], b"all");
        assert_eq!(received.from.port(), sender.local_addr().unwrap().port());
    }
    member.leave_group(group, interface).unwrap();
    assert!(member.leave_group(group, interface).is_err(), "it left before");
    // The second goes to the other alone: to whom it came when the third, to both again, is there.
    send(&*sender, b"one", to).await.unwrap();
    member.join_group(group, interface).unwrap();
    send(&*sender, b"both", to).await.unwrap();
    let received = receive(&*member, &mut buf).await.unwrap();
    assert_eq!(&buf[..received.len], b"both");
}

/// An address for documentation (RFC 6676).
const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(233, 252, 0, 77));

#[tokio::test]
async fn members_of_a_group_hear_it_until_they_leave() {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let loopback = Interface::Address(Ipv4Addr::LOCALHOST);
    members_hear(any, GROUP, loopback, loopback).await;
    if cfg!(target_os = "linux") && has_ipv6() {
        members_hear(DUAL, GROUP, loopback, loopback).await;
    }
    let socket = OsNetwork.bind_udp(any, &UdpOptions::default()).await.unwrap();
    for (group, interface) in [("ff02::1:77", loopback), ("127.0.0.1", loopback), ("::1", Interface::Any)] {
        let error = socket.join_group(group.parse().unwrap(), interface).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{group}");
    }
}

/// On the first interface that carries such a group; where there is none, nobody can be heard.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn members_of_an_ipv6_group_hear_it_until_they_leave() {
    let group: IpAddr = "ff02::1:77".parse().unwrap();
    for interface in (1..=32).map(Interface::Index).filter(|_| has_ipv6()) {
        let options =
            UdpOptions { multicast_ttl: Some(0), multicast_interface: interface, ..UdpOptions::default() };
        let Ok(probe) = OsNetwork.bind_udp(DUAL, &options).await else { continue };
        if probe.join_group(group, interface).is_ok()
            && send(&*probe, b"?", SocketAddr::new(group, 9)).await.is_ok()
        {
            return members_hear(DUAL, group, interface, interface).await;
        }
    }
}
