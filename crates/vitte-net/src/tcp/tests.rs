use std::future::Future;
use std::net::Ipv4Addr;
use std::pin::pin;

use tokio::io::DuplexStream;
use tokio::sync::oneshot;

use super::*;

/// A stream in memory that shows `peer` as the other side's address.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) stream: DuplexStream,
    pub(super) peer: SocketAddr,
}

impl ByteStream for Pipe {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok((Ipv4Addr::LOCALHOST, 1).into())
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

read_through!(Pipe, stream);
write_through!(Pipe, stream);

fn pipe(size: usize) -> (TcpStream, DuplexStream) {
    let (near, stream) = tokio::io::duplex(size);
    let pipe: BoxStream = Box::new(Pipe { stream, peer: (Ipv4Addr::LOCALHOST, 2).into() });
    (pipe.into(), near)
}

async fn connected() -> (TcpStream, TcpStream) {
    let mut server = TcpServer::bind("127.0.0.1:0").await.unwrap();
    let at = server.local_addr().unwrap();
    let (client, (accepted, _)) = tokio::try_join!(TcpClient::connect(at), server.accept()).unwrap();
    (client, accepted)
}

#[tokio::test]
async fn megabytes_arrive_in_order_in_pieces_of_bounded_size() {
    let (mut client, mut server) = connected().await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|i| i.to_le_bytes()[1]).collect();
    let expected = sent.clone();
    let sending = tokio::spawn(async move {
        client.send(&sent).await.unwrap();
        client.finish().await.unwrap();
        client
    });
    server.set_recv_limit(10_000);
    let mut arrived = Vec::new();
    loop {
        let piece = server.recv().await.unwrap();
        assert!(piece.len() <= 10_000);
        if piece.is_empty() {
            break;
        }
        arrived.extend_from_slice(&piece);
    }
    assert!(arrived == expected);
    assert!(server.recv().await.unwrap().is_empty(), "the end stays the end");
    // The other direction is still open.
    let mut client = sending.await.unwrap();
    server.send(b"thanks").await.unwrap();
    assert_eq!(client.recv().await.unwrap(), "thanks");
}

#[tokio::test]
async fn recv_returns_at_most_the_default_limit() {
    let (mut stream, mut near) = pipe(1 << 20);
    near.write_all(&vec![1; RECV_LIMIT + 5]).await.unwrap();
    assert_eq!(stream.recv().await.unwrap().len(), RECV_LIMIT);
    assert_eq!(stream.recv().await.unwrap().len(), 5);
}

#[tokio::test]
async fn a_limit_of_zero_is_taken_as_one() {
    let (mut stream, mut near) = pipe(64);
    stream.set_recv_limit(0);
    near.write_all(b"ab").await.unwrap();
    assert_eq!(stream.recv().await.unwrap(), "a");
    assert_eq!(stream.recv().await.unwrap(), "b");
}

#[tokio::test]
async fn a_recv_that_is_dropped_loses_nothing() {
    let (mut stream, mut near) = pipe(64);
    {
        let mut waiting = pin!(stream.recv());
        let first = poll_once(waiting.as_mut()).await;
        assert!(first.is_pending());
        near.write_all(b"kept").await.unwrap();
    }
    assert_eq!(stream.recv().await.unwrap(), "kept");
}

async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

#[tokio::test]
async fn what_recv_returned_stays_when_more_arrives() {
    let (mut stream, mut near) = pipe(64);
    let mut kept = Vec::new();
    for i in 0..20_000_u32 {
        near.write_all(&i.to_le_bytes()).await.unwrap();
        kept.push(stream.recv().await.unwrap());
    }
    for (i, piece) in kept.iter().enumerate() {
        assert_eq!(piece[..], u32::try_from(i).unwrap().to_le_bytes());
    }
}

#[tokio::test]
async fn halves_work_from_two_tasks() {
    let (client, mut server) = connected().await;
    let (mut receiver, mut sender) = client.into_split();
    let echo = tokio::spawn(async move {
        loop {
            let piece = server.recv().await.unwrap();
            if piece.is_empty() {
                return server.finish().await.unwrap();
            }
            server.send(&piece).await.unwrap();
        }
    });
    let sending = tokio::spawn(async move {
        for _ in 0..100 {
            sender.send(&[9; 10_000]).await.unwrap();
        }
        sender.finish().await.unwrap();
    });
    let mut arrived = 0;
    loop {
        let piece = receiver.recv().await.unwrap();
        if piece.is_empty() {
            break;
        }
        arrived += piece.len();
    }
    assert_eq!(arrived, 1_000_000);
    sending.await.unwrap();
    echo.await.unwrap();
}

#[tokio::test]
async fn borrowed_halves_work_at_once_and_give_the_stream_back() {
    const LENGTH: usize = 3_000_000;
    let (mut client, mut server) = connected().await;
    let echo = tokio::spawn(async move {
        let (mut receiver, mut sender) = server.split();
        tokio::io::copy(&mut receiver, &mut sender).await.unwrap();
        sender.finish().await.unwrap();
        server
    });
    let (mut receiver, mut sender) = client.split();
    let sending = async {
        sender.send(&vec![9; LENGTH]).await.unwrap();
        sender.finish().await.unwrap();
    };
    let receiving = async {
        let mut arrived = 0;
        loop {
            match receiver.recv().await.unwrap().len() {
                0 => return arrived,
                len => arrived += len,
            }
        }
    };
    // More than both kernels hold: each needs the other to go on.
    let ((), arrived) = tokio::join!(sending, receiving);
    assert_eq!(arrived, LENGTH);
    let server = echo.await.unwrap();
    assert_ne!(client.local_addr().unwrap(), server.local_addr().unwrap());
}

#[tokio::test]
async fn what_recv_left_is_there_for_a_half() {
    let (mut stream, mut near) = pipe(64);
    stream.set_recv_limit(2);
    near.write_all(b"abcdef").await.unwrap();
    assert_eq!(stream.recv().await.unwrap(), "ab");
    assert_eq!(stream.split().0.recv().await.unwrap(), "cd");
    assert_eq!(stream.into_split().0.recv().await.unwrap(), "ef");
}

#[tokio::test]
async fn pieces_arrive_as_one_whatever_the_stream_takes_at_a_time() {
    let pieces: Vec<Vec<u8>> = (0..500).map(|i| vec![u8::try_from(i % 256).unwrap(); i % 7]).collect();
    let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    let expected = pieces.concat();
    // Takes five bytes at a time, and vectored writes not at all.
    let (mut stream, mut near) = pipe(5);
    let sending = async {
        stream.send_vectored(&pieces).await.unwrap();
        stream.send_vectored(&[]).await.unwrap();
        stream.send_vectored(&[b"", b""]).await.unwrap();
        stream.finish().await.unwrap();
    };
    let mut arrived = Vec::new();
    let ((), read) = tokio::join!(sending, near.read_to_end(&mut arrived));
    read.unwrap();
    assert!(arrived == expected);

    let (client, mut server) = connected().await;
    let (_receiver, mut sender) = client.into_split();
    let large = vec![3; 700_000];
    let sending = async {
        sender.send_vectored(&[b"head", &large, b"", b"tail", &large]).await.unwrap();
        sender.finish().await.unwrap();
    };
    let mut arrived = Vec::new();
    let ((), read) = tokio::join!(sending, server.read_to_end(&mut arrived));
    read.unwrap();
    assert!(arrived == [b"head", &large[..], b"tail", &large].concat());
}

/// Without `shutdown` unread bytes turn the close into a reset, and what the kernel still had to send is
/// lost.
#[tokio::test]
async fn shutdown_delivers_the_answer_although_unread_bytes_wait() {
    const LENGTH: usize = 2_000_000;
    let (mut client, mut server) = connected().await;
    client.send(&[0; 100_000]).await.unwrap();
    let ending = tokio::spawn(async move {
        server.send(&vec![1; LENGTH]).await.unwrap();
        server.shutdown(Duration::from_secs(20)).await
    });
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.len(), LENGTH);
    drop(client);
    ending.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn shutdown_gives_a_silent_peer_its_time_and_no_more() {
    let (stream, mut near) = pipe(64);
    let begun = tokio::time::Instant::now();
    let error = stream.shutdown(Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0, "the connection is closed");
}

#[tokio::test(start_paused = true)]
async fn shutdown_is_bounded_against_a_peer_that_never_stops_sending() {
    let (stream, near) = pipe(64);
    let (stop, mut stopped) = oneshot::channel::<()>();
    let flood = tokio::spawn(async move {
        let (_reader, mut near) = tokio::io::split(near);
        while stopped.try_recv().is_err() && near.write_all(b"more").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let error = stream.shutdown(Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    drop(stop);
    flood.await.unwrap();
}
