use std::net::Ipv4Addr;

use super::*;

/// What both ways of receiving say of `sent` bytes that go into a buffer of `room`.
async fn cut(sent: usize, room: usize) {
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (to, from) = (receiver.local_addr().unwrap(), sender.local_addr().unwrap());
    let datagram: Vec<u8> = (0..sent).map(|i| i.to_le_bytes()[0]).collect();
    let expected = Received { len: sent.min(room), from, truncated: sent > room };
    let (system, portable) = (system::Receiver::default(), portable::Receiver::default());
    for (way, take) in [
        ("system", &(|buf: &mut [u8]| system.take(&receiver, buf)) as &dyn Fn(&mut [u8]) -> _),
        ("portable", &|buf: &mut [u8]| portable.take(&receiver, buf)),
    ] {
        sender.writable().await.unwrap();
        portable::send_to(&sender, &datagram, &to).unwrap();
        receiver.readable().await.unwrap();
        let mut buf = vec![0xFF; room];
        assert_eq!(take(&mut buf).unwrap(), expected, "{way}: {sent} bytes into {room}");
        assert_eq!(buf[..expected.len], datagram[..expected.len], "{way}: {sent} bytes into {room}");
        assert_eq!(take(&mut buf).unwrap_err().kind(), io::ErrorKind::WouldBlock, "{way}: one came");
    }
    sender.connect(to).await.unwrap();
    portable::send(&sender, &datagram).unwrap();
    receiver.readable().await.unwrap();
    assert_eq!(system.take(&receiver, &mut vec![0; room]).unwrap(), expected);
}

#[tokio::test]
async fn both_ways_of_receiving_say_what_was_cut() {
    for (sent, room) in [
        (3, 4),
        (4, 4),
        (5, 4),
        (9000, 4),
        (0, 4),
        (1, 0),
        (0, 0),
        (65_507, 65_507),
        (65_507, 65_506),
        (9, 65_535),
    ] {
        cut(sent, room).await;
    }
}

/// A machine says at once that nobody listens there. It says so with the next call on the connected socket, which may
/// well be about somebody else.
#[tokio::test]
async fn the_echo_of_a_dead_peer_hinders_nobody() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = socket.local_addr().unwrap();
    let gone = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let other = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (dead, to) = (gone.local_addr().unwrap(), other.local_addr().unwrap());
    drop(gone);
    let socket = OsDatagrams::new(socket, false);
    socket.connect(dead).unwrap();
    let mut buf = [0; 8];
    for i in 0..3 {
        socket.try_send_peer(b"anybody?", dead).unwrap();
        socket.try_send(&[i], to).unwrap();
        assert_eq!(other.recv_from(&mut buf).unwrap(), (1, at));
        assert_eq!(buf[0], i);
    }
}
