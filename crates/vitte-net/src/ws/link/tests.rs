use std::sync::Arc;

use futures_util::{Sink, Stream};
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as TheirCode;

use super::*;
use crate::network::{Network, OsNetwork, TcpOptions};

fn network() -> Arc<dyn Network> {
    Arc::new(OsNetwork)
}

async fn sockets() -> (BoxStream, BoxStream) {
    let network = OsNetwork;
    let options = TcpOptions::default();
    let listener = network.listen_tcp("127.0.0.1:0".parse().unwrap(), &options).await.unwrap();
    let at = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(network.connect_tcp(at, &options), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

async fn pair() -> (BoxStream, BoxStream) {
    let (client, server) = sockets().await;
    let (client, server) =
        tokio::join!(connect(client, "mesh.example:80", "/mesh", network()), accept(server, "/mesh"));
    (client.unwrap(), server.unwrap())
}

/// The frames of a client that speaks WebSocket without this file.
async fn raw_client(stream: BoxStream) -> WebSocketStream<BoxStream> {
    WebSocketStream::from_raw_socket(stream, Role::Client, None).await
}

fn request(path: &str, protocol: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: mesh.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
    )
}

async fn read_answer(stream: &mut BoxStream) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "no answer");
    }
    String::from_utf8(answer).unwrap()
}

async fn read(stream: &mut BoxStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test]
async fn bytes_go_both_ways_whatever_the_messages() {
    let (mut client, mut server) = pair().await;
    let content: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
    let sent = content.clone();
    let sender = tokio::spawn(async move {
        for chunk in sent.chunks(100_001) {
            client.write_all(chunk).await.unwrap();
        }
        client.flush().await.unwrap();
        let back = read(&mut client, 3).await;
        client.shutdown().await.unwrap();
        back
    });
    assert!(read(&mut server, content.len()).await == content);
    server.write_all(b"abc").await.unwrap();
    server.flush().await.unwrap();
    assert_eq!(sender.await.unwrap(), b"abc");
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0, "a close is the end");
}

/// The request and the first frame in one packet, as a client may send them that does not wait.
#[tokio::test]
async fn a_frame_that_comes_with_the_request_is_not_lost() {
    let (mut client, server) = sockets().await;
    let masked_frame = [0x82, 0x85, 0, 0, 0, 0, b'f', b'i', b'r', b's', b't'];
    let packet = [request("/mesh", SUBPROTOCOL).as_bytes(), &masked_frame].concat();
    client.write_all(&packet).await.unwrap();
    let mut server = accept(server, "/mesh").await.unwrap();
    assert_eq!(read(&mut server, 5).await, b"first");
    let answer = read_answer(&mut client).await.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 101"), "{answer}");
    assert!(answer.contains("sec-websocket-protocol: vitte.1"), "{answer}");
}

#[tokio::test]
async fn another_path_or_protocol_is_refused() {
    for (path, protocol, status) in
        [("/other", "vitte.1", 404), ("/mesh2", "vitte.1", 404), ("/mesh", "chat", 400), ("/mesh", "", 400)]
    {
        let (mut client, server) = sockets().await;
        client.write_all(request(path, protocol).as_bytes()).await.unwrap();
        let error = accept(server, "/mesh").await.unwrap_err();
        assert!(matches!(&error, AcceptError::Refused(refusal) if refusal.status() == status), "{error}");
        let answer = read_answer(&mut client).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    let (client, server) = sockets().await;
    let (client, _) = tokio::join!(connect(client, "h:80", "/mesh", network()), accept(server, "/"));
    assert!(matches!(client.unwrap_err(), ConnectError::Refused { status: 404, .. }));
}

#[tokio::test]
async fn a_request_without_end_is_cut_off() {
    let (mut client, server) = sockets().await;
    let flood = tokio::spawn(async move {
        let line = [b'x'; 1000];
        while client.write_all(&line).await.is_ok() {}
    });
    assert!(
        matches!(accept(server, "/").await, Err(AcceptError::Refused(refusal)) if refusal.status() == 431)
    );
    flood.await.unwrap();

    let (mut client, server) = sockets().await;
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    drop(client);
    assert!(matches!(accept(server, "/").await, Err(AcceptError::Unfinished)));
}

#[tokio::test]
async fn text_and_messages_too_large_break_the_rules_and_pings_are_answered() {
    let big = Message::Binary(vec![0; MESSAGE_IN + 1].into());
    for (message, code) in [(Message::Text("hello".into()), TheirCode::Unsupported), (big, TheirCode::Size)] {
        let (mut client, server) = sockets().await;
        client.write_all(request("/", SUBPROTOCOL).as_bytes()).await.unwrap();
        let mut server = accept(server, "/").await.unwrap();
        read_answer(&mut client).await;
        let mut client = raw_client(client).await;
        let sending = tokio::spawn(async move {
            for message in [Message::Ping("are you there".into()), message] {
                std::future::poll_fn(|cx| Pin::new(&mut client).poll_ready(cx)).await.unwrap();
                Pin::new(&mut client).start_send(message).unwrap();
                // The server may be gone before all of it is sent.
                let _ = std::future::poll_fn(|cx| Pin::new(&mut client).poll_flush(cx)).await;
            }
            let pong = std::future::poll_fn(|cx| Pin::new(&mut client).poll_next(cx)).await;
            (pong, std::future::poll_fn(|cx| Pin::new(&mut client).poll_next(cx)).await)
        });
        let error = server.read(&mut [0; 8]).await.unwrap_err();
        assert!(error.get_ref().is_some_and(|inner| inner.is::<WsError>()), "{error:?}");
        let (pong, close) = sending.await.unwrap();
        assert!(
            matches!(&close, Some(Ok(Message::Close(Some(frame)))) if frame.code == code),
            "it is told why: {close:?}"
        );
        assert!(matches!(&pong, Some(Ok(Message::Pong(bytes))) if bytes == "are you there"), "{pong:?}");
    }
}
