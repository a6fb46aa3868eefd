//! TCP.

use std::future::Future;
use std::io::{ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use vitte_net::network::TcpOptions;

use super::Ends;

/// More than both kernels' buffers together ever hold.
const MORE_THAN_BUFFERS: usize = 64 << 20;

fn pattern(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|index| u8::try_from(index % 251).unwrap()).collect()
}

pub(crate) async fn echo(ends: Ends) {
    let (listener, address) = ends.listen().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buf = [0; 64];
        loop {
            let count = stream.read(&mut buf).await.unwrap();
            if count == 0 {
                break;
            }
            stream.write_all(&buf[..count]).await.unwrap();
        }
    });
    let mut stream = ends.connect(address).await;
    for round in 0..10_u8 {
        stream.write_all(&[round; 32]).await.unwrap();
        let mut answer = [0; 32];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [round; 32]);
    }
}

pub(crate) async fn a_large_transfer_arrives_whole(ends: Ends) {
    const LEN: usize = 8 << 20;
    let (mut client, mut server) = ends.pair().await;
    let writer = tokio::spawn(async move {
        for at in (0..LEN).step_by(100_000) {
            client.write_all(&pattern(at, 100_000.min(LEN - at))).await.unwrap();
        }
    });
    let mut at = 0;
    let mut buf = vec![0; 70_000];
    loop {
        let count = server.read(&mut buf).await.unwrap();
        if count == 0 {
            break;
        }
        assert!(buf[..count] == pattern(at, count), "other bytes than were sent, after {at}");
        at += count;
    }
    assert_eq!(at, LEN);
    writer.await.unwrap();
}

pub(crate) async fn a_writer_waits_for_its_reader(ends: Ends) {
    let (mut client, mut server) = ends.pair().await;
    let chunk = vec![7; 64 << 10];
    let mut written = 0;
    while let Ok(count) = timeout(Duration::from_millis(300), client.write(&chunk)).await {
        written += count.unwrap();
        assert!(written < MORE_THAN_BUFFERS, "nothing holds the writer back");
    }
    let reader = tokio::spawn(async move {
        let mut all = Vec::new();
        server.read_to_end(&mut all).await.unwrap();
        all.len()
    });
    client.write_all(&chunk).await.unwrap();
    drop(client);
    assert_eq!(reader.await.unwrap(), written + chunk.len());
}

pub(crate) async fn a_half_closed_stream_still_answers(ends: Ends) {
    let (mut client, mut server) = ends.pair().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = String::new();
    server.read_to_string(&mut question).await.unwrap();
    assert_eq!(question, "question");
    server.write_all(b"answer").await.unwrap();
    server.shutdown().await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "answer");
}

pub(crate) async fn a_dropped_stream_ends_after_its_bytes(ends: Ends) {
    let (mut client, mut server) = ends.pair().await;
    let bytes = pattern(0, 100_000);
    client.write_all(&bytes).await.unwrap();
    drop(client);
    let mut all = Vec::new();
    server.read_to_end(&mut all).await.unwrap();
    assert!(all == bytes);
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0, "the end stays the end");
}

pub(crate) async fn unread_bytes_make_a_reset(ends: Ends) {
    let (mut client, mut server) = ends.pair().await;
    client.write_all(b"two").await.unwrap();
    server.read_exact(&mut [0]).await.unwrap();
    drop(server);
    let error = client.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

pub(crate) async fn writing_to_a_closed_peer_fails(ends: Ends) {
    let (mut client, server) = ends.pair().await;
    drop(server);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    let error = loop {
        match client.write(&[1; 100]).await {
            Ok(_) => sleep(Duration::from_millis(1)).await,
            Err(error) => break error,
        }
    };
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
}

pub(crate) async fn writing_after_a_shutdown_fails(ends: Ends) {
    let (mut client, _server) = ends.pair().await;
    client.shutdown().await.unwrap();
    let error = client.write(b"more").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

pub(crate) async fn nobody_listens_is_refused(ends: Ends) {
    let (listener, address) = ends.listen().await;
    drop(listener);
    let error = ends.client.connect_tcp(address, &TcpOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

pub(crate) async fn port_zero_gives_a_port(ends: Ends) {
    let (_first, first) = ends.listen().await;
    let (_second, second) = ends.listen().await;
    assert_ne!(first.port(), 0);
    assert_ne!(first.port(), second.port());
    assert_eq!(first.ip(), ends.server_ip);
}

pub(crate) async fn a_port_is_taken_once(ends: Ends) {
    let (_listener, address) = ends.listen().await;
    let error = ends.server.listen_tcp(address, &TcpOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

pub(crate) async fn connections_are_accepted_in_order(ends: Ends) {
    let (listener, address) = ends.listen().await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(ends.connect(address).await);
    }
    for stream in &streams {
        let (_, from) = listener.accept().await.unwrap();
        assert_eq!(from, stream.local_addr().unwrap());
    }
}

pub(crate) async fn a_cancelled_accept_loses_nothing(ends: Ends) {
    let (listener, address) = ends.listen().await;
    for _ in 0..3 {
        // Once polled before there is a connection, once dropped when there is one.
        {
            let mut accept = pin!(listener.accept());
            let mut cx = Context::from_waker(Waker::noop());
            assert!(matches!(accept.as_mut().poll(&mut cx), Poll::Pending));
        }
        let stream = ends.connect(address).await;
        drop(listener.accept());
        let (_, from) = listener.accept().await.unwrap();
        assert_eq!(from, stream.local_addr().unwrap());
    }
}

pub(crate) async fn both_ends_agree_on_addresses(ends: Ends) {
    let at = SocketAddr::from(([0, 0, 0, 0], 0));
    let listener = ends.server.listen_tcp(at, &TcpOptions::default()).await.unwrap();
    assert!(listener.local_addr().unwrap().ip().is_unspecified());
    let address = SocketAddr::new(ends.server_ip, listener.local_addr().unwrap().port());
    let client = ends.connect(address).await;
    let (server, from) = listener.accept().await.unwrap();
    assert_eq!(client.peer_addr().unwrap(), address);
    assert_eq!(server.local_addr().unwrap(), address);
    assert_eq!(server.peer_addr().unwrap(), from);
    assert_eq!(client.local_addr().unwrap(), from);
    assert_eq!(from.ip(), ends.client_ip);
}

pub(crate) async fn vectored_writes_keep_their_order(ends: Ends) {
    let (mut client, mut server) = ends.pair().await;
    let count = client.write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cd")]).await;
    assert_eq!(count.unwrap(), 4);
    let mut all = [0; 4];
    server.read_exact(&mut all).await.unwrap();
    assert_eq!(&all, b"abcd");
}

pub(crate) async fn a_writing_half_that_is_dropped_says_nothing(ends: Ends) {
    let (client, mut server) = ends.pair().await;
    let (mut reader, mut writer) = client.into_split();
    writer.write_all(b"said").await.unwrap();
    drop(writer);
    let mut word = [0; 4];
    server.read_exact(&mut word).await.unwrap();
    assert!(
        timeout(Duration::from_millis(50), server.read(&mut word)).await.is_err(),
        "an end that nobody said"
    );
    server.write_all(b"back").await.unwrap();
    reader.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"back");
    drop(reader);
    assert_eq!(server.read(&mut word).await.unwrap(), 0);
}

pub(crate) async fn a_connection_comes_from_where_it_was_told(ends: Ends) {
    let (listener, address) = ends.listen().await;
    let mut options = TcpOptions::default();
    options.from = Some(SocketAddr::new(ends.client_ip, 0));
    let stream = ends.client.connect_tcp(address, &options).await.unwrap();
    let (_accepted, from) = listener.accept().await.unwrap();
    assert_eq!((from.ip(), from), (ends.client_ip, stream.local_addr().unwrap()));
    // An address of documentation (RFC 5737): of nobody.
    options.from = Some("198.51.100.9:0".parse().unwrap());
    let error = ends.client.connect_tcp(address, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
}
