use std::net::SocketAddr;
use std::time::Duration;

use super::*;

async fn socket(batches: bool) -> (UdpSocket, SocketAddr) {
    let socket =
        UdpSocket::builder().batches(batches).receive_buffer(1 << 20).bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    (socket, at)
}

/// Receives until there are so many: their sizes, and all was as it was sent.
async fn sizes(socket: &UdpSocket, batch: &mut Batch, count: usize) -> Vec<usize> {
    let mut sizes = Vec::new();
    while sizes.len() < count {
        let receiving = tokio::time::timeout(Duration::from_secs(20), socket.recv_batch(batch));
        assert_eq!(receiving.await.unwrap().unwrap(), batch.len());
        assert!(!batch.is_empty());
        for (bytes, received) in batch.iter() {
            assert!(!received.truncated);
            let expected = u8::try_from(sizes.len() % 256).unwrap();
            assert!(bytes.iter().all(|byte| *byte == expected), "in the order in which they were sent");
            sizes.push(bytes.len());
        }
    }
    sizes
}

/// Whatever of the two ends uses the system's means, the datagrams are the same.
#[tokio::test]
async fn batches_arrive_in_order_with_their_boundaries() {
    // Runs of one length, a shorter one at the end of a run, empty ones, single ones, long ones.
    let wanted: Vec<usize> =
        [vec![1200; 70], vec![7], vec![0, 0], vec![9; 3], vec![20_000; 5], vec![8, 9, 10]].concat();
    let contents: Vec<Vec<u8>> =
        wanted.iter().enumerate().map(|(i, len)| vec![u8::try_from(i).unwrap(); *len]).collect();
    for (from_batches, to_batches) in [(false, false), (false, true), (true, false), (true, true)] {
        let ((sender, _), (receiver, to)) = (socket(from_batches).await, socket(to_batches).await);
        let datagrams: Vec<_> = contents.iter().map(|bytes| Outgoing { bytes, to }).collect();
        sender.send_batch(&datagrams).await.unwrap();
        let mut batch = Batch::new(50, 65_507);
        let arrived = sizes(&receiver, &mut batch, wanted.len()).await;
        assert_eq!(arrived, wanted, "{from_batches} {to_batches}");
    }
}

#[tokio::test]
async fn a_batch_goes_to_many_and_says_who_sent() {
    let ((sender, from), (one, to_one), (two, to_two)) =
        (socket(true).await, socket(true).await, socket(false).await);
    let datagrams = [(b"a", to_one), (b"b", to_one), (b"c", to_two), (b"d", to_one)];
    let datagrams = datagrams.map(|(bytes, to)| Outgoing { bytes, to });
    sender.send_batch(&datagrams).await.unwrap();
    sender.send_batch(&[]).await.unwrap();
    for (receiver, expected) in [(one, &[b"a", b"b", b"d"][..]), (two, &[b"c"])] {
        let mut batch = Batch::new(1, 100);
        for word in expected {
            assert_eq!(receiver.recv_batch(&mut batch).await.unwrap(), 1);
            let (bytes, received) = batch.iter().next().unwrap();
            assert_eq!((bytes, received.from), (&word[..], from));
        }
    }
}

#[tokio::test]
async fn what_is_cut_says_so_also_when_the_system_joined_it_with_others() {
    for batches in [false, true] {
        let ((sender, _), (receiver, to)) = (socket(batches).await, socket(batches).await);
        let datagrams = [&b"123456"[..], b"123456", b"12"].map(|bytes| Outgoing { bytes, to });
        sender.send_batch(&datagrams).await.unwrap();
        let mut batch = Batch::new(3, 5);
        let mut seen = Vec::new();
        while seen.len() < 3 {
            receiver.recv_batch(&mut batch).await.unwrap();
            seen.extend(batch.iter().map(|(bytes, received)| (bytes.to_vec(), received.truncated)));
        }
        assert_eq!(seen, [(b"12345".to_vec(), true), (b"12345".to_vec(), true), (b"12".to_vec(), false)]);
        // Single calls see the same.
        sender.send_batch(&datagrams).await.unwrap();
        let mut buf = [0; 6];
        for expected in [(5, true), (6, false), (2, false)] {
            let room = if expected.1 { 5 } else { 6 };
            let received = receiver.recv_from(&mut buf[..room]).await.unwrap();
            assert_eq!((received.len, received.truncated), expected);
        }
    }
}

#[tokio::test]
async fn a_datagram_that_cannot_be_sent_is_named_and_those_before_it_were_sent() {
    let ((sender, _), (receiver, to)) = (socket(true).await, socket(true).await);
    let long = vec![0; 65_508];
    let wrong = [(&b"\0"[..], to), (b"\x01", to), (&long, to), (b"x", to)];
    let failed = sender.send_batch(&wrong.map(|(bytes, to)| Outgoing { bytes, to })).await.unwrap_err();
    assert_eq!((failed.sent, failed.error.kind()), (2, io::ErrorKind::InvalidInput));
    assert!(failed.to_string().contains("after 2 others"), "{failed}");
    assert_eq!(sizes(&receiver, &mut Batch::new(8, 100), 2).await, [1, 1]);
    // Of the other family.
    let other = "[::1]:9".parse().unwrap();
    let failed = sender.send_batch(&[Outgoing { bytes: b"x", to: other }]).await.unwrap_err();
    assert_eq!(failed.sent, 0);
}
