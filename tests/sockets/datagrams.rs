//! UDP.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use vitte_net::network::{Datagrams, Network, Outgoing, Received, UdpOptions};
use vitte_net::udp::{Batch, UdpSocket};

use super::Ends;

async fn bind(network: &Arc<dyn Network>, ip: IpAddr) -> (Arc<dyn Datagrams>, SocketAddr) {
    let socket = network.bind_udp(SocketAddr::new(ip, 0), &UdpOptions::default()).await.unwrap();
    let address = socket.local_addr().unwrap();
    assert_ne!(address.port(), 0);
    (socket, address)
}

async fn send(socket: &Arc<dyn Datagrams>, bytes: &[u8], to: SocketAddr) {
    loop {
        match socket.try_send(bytes, to) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll_fn(|cx| socket.poll_writable(cx)).await.unwrap();
            }
            other => return other.unwrap(),
        }
    }
}

async fn receive(socket: &Arc<dyn Datagrams>, buf: &mut [u8]) -> Received {
    poll_fn(|cx| socket.poll_recv(cx, buf)).await.unwrap()
}

pub(crate) async fn datagrams_come_back(ends: Ends) {
    let (server, to) = bind(&ends.server, ends.server_ip).await;
    let (client, from) = bind(&ends.client, ends.client_ip).await;
    let mut buf = [0; 100];
    for round in 0..10_u8 {
        send(&client, &[round; 20], to).await;
        let got = receive(&server, &mut buf).await;
        assert_eq!(got, Received { len: 20, from, truncated: false });
        send(&server, &buf[..20], got.from).await;
        let got = receive(&client, &mut buf).await;
        assert_eq!(got, Received { len: 20, from: to, truncated: false });
        assert_eq!(buf[..20], [round; 20]);
    }
}

pub(crate) async fn datagrams_keep_their_boundaries(ends: Ends) {
    let (server, to) = bind(&ends.server, ends.server_ip).await;
    let (client, _) = bind(&ends.client, ends.client_ip).await;
    let sizes = [1, 1400, 3, 60_000, 5];
    for size in sizes {
        send(&client, &vec![9; size], to).await;
    }
    let mut buf = vec![0; 65_536];
    for size in sizes {
        assert_eq!(receive(&server, &mut buf).await.len, size);
    }
}

pub(crate) async fn a_short_buffer_truncates(ends: Ends) {
    let (server, to) = bind(&ends.server, ends.server_ip).await;
    let (client, from) = bind(&ends.client, ends.client_ip).await;
    send(&client, b"0123456789", to).await;
    send(&client, b"next", to).await;
    let mut buf = [0; 4];
    assert_eq!(receive(&server, &mut buf).await, Received { len: 4, from, truncated: true });
    assert_eq!(&buf, b"0123");
    assert_eq!(receive(&server, &mut buf).await, Received { len: 4, from, truncated: false });
    assert_eq!(&buf, b"next");
}

pub(crate) async fn an_empty_datagram_arrives(ends: Ends) {
    let (server, to) = bind(&ends.server, ends.server_ip).await;
    let (client, from) = bind(&ends.client, ends.client_ip).await;
    send(&client, b"", to).await;
    assert_eq!(receive(&server, &mut [0; 4]).await, Received { len: 0, from, truncated: false });
}

pub(crate) async fn a_datagram_can_be_too_long(ends: Ends) {
    let (server, to) = bind(&ends.server, ends.server_ip).await;
    let (client, _) = bind(&ends.client, ends.client_ip).await;
    assert!(client.try_send(&vec![0; 65_508], to).is_err());
    send(&client, &vec![1; 65_507], to).await;
    assert_eq!(receive(&server, &mut vec![0; 65_536]).await.len, 65_507);
}

pub(crate) async fn an_unspecified_socket_has_a_source(ends: Ends) {
    let (server, to) = bind(&ends.server, IpAddr::from([0, 0, 0, 0])).await;
    let (client, from) = bind(&ends.client, IpAddr::from([0, 0, 0, 0])).await;
    send(&client, b"hello", SocketAddr::new(ends.server_ip, to.port())).await;
    let got = receive(&server, &mut [0; 8]).await;
    assert_eq!(got.from, SocketAddr::new(ends.client_ip, from.port()));
}

pub(crate) async fn a_udp_port_is_taken_once(ends: Ends) {
    let (_socket, address) = bind(&ends.server, ends.server_ip).await;
    let error = ends.server.bind_udp(address, &UdpOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

pub(crate) async fn a_receiver_is_woken(ends: Ends) {
    let (server, to) = bind(&ends.server, ends.server_ip).await;
    let (client, _) = bind(&ends.client, ends.client_ip).await;
    let receiver = tokio::spawn(async move { receive(&server, &mut [0; 8]).await.len });
    tokio::task::yield_now().await;
    assert!(!receiver.is_finished());
    send(&client, b"wake", to).await;
    assert_eq!(receiver.await.unwrap(), 4);
}

pub(crate) async fn batches_keep_order_and_boundaries(ends: Ends) {
    let bind = async |network: &Arc<dyn Network>, ip| {
        let builder = UdpSocket::builder().network(Arc::clone(network)).batches(true);
        builder.bind(SocketAddr::new(ip, 0)).await.unwrap()
    };
    let receiver = bind(&ends.server, ends.server_ip).await;
    let sender = bind(&ends.client, ends.client_ip).await;
    let to = receiver.local_addr().unwrap();
    let sizes = [[1200; 20], [0; 20], [1; 20]].concat();
    let bytes = [7; 1200];
    let datagrams: Vec<_> = sizes.iter().map(|len| Outgoing { bytes: &bytes[..*len], to }).collect();
    sender.send_batch(&datagrams).await.unwrap();
    let (mut batch, mut arrived) = (Batch::new(16, 1200), Vec::new());
    while arrived.len() < sizes.len() {
        receiver.recv_batch(&mut batch).await.unwrap();
        arrived.extend(batch.iter().map(|(bytes, received)| {
            assert_eq!((received.from, received.truncated), (sender.local_addr().unwrap(), false));
            bytes.len()
        }));
    }
    assert_eq!(arrived, sizes);
}
