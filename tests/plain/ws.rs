//! WebSockets between our own two sides over TLS, proxies and a simulated network, and against bare sockets
//! that do not play by the rules.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use vitte_net::tcp::{TcpClient, TcpServer, TcpStream};
use vitte_net::ws::{
    AcceptError, CloseCode, ConnectError, Deflate, Message, Origins, Violation, WebSocket, WsAcceptor,
    WsConnector, WsError, WsOptions, WsServer,
};
use vitte_net_sim::Cluster;

use crate::tls::Authority;

/// No test waits longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn compressing() -> WsOptions {
    let mut options = WsOptions::default();
    options.deflate = Some(Deflate::default());
    options
}

/// Sends every message back until the end, which is returned.
pub(crate) async fn echo(socket: &mut WebSocket) -> Result<(), WsError> {
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

/// Serves `connections` WebSockets one after another, and returns how each ended.
fn serve(mut server: WsServer, connections: usize) -> JoinHandle<Vec<Result<(), WsError>>> {
    tokio::spawn(async move {
        let mut ends = Vec::new();
        while ends.len() < connections {
            let incoming = server.accept().await.unwrap();
            if let Ok((mut socket, _)) = incoming.handshake().await {
                ends.push(echo(&mut socket).await);
            }
        }
        ends
    })
}

async fn say_and_close(mut socket: WebSocket) {
    for text in ["hello".to_owned(), "x".repeat(100_000)] {
        socket.send(text.clone()).await.unwrap();
        assert_eq!(socket.recv().await.unwrap(), Some(Message::text(text)));
    }
    socket.close(CloseCode::NORMAL, "").await.unwrap();
}

/// A proxy that makes one tunnel, if the request has this line.
async fn proxy(line: &'static str, answer: &'static str) -> (SocketAddr, JoinHandle<String>) {
    let mut listener = TcpServer::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let running = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        if !head.contains(line) {
            let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(refusal).await.unwrap();
            return head;
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        let to = head.split(' ').nth(1).unwrap().to_owned();
        let Ok(mut onward) = TcpClient::connect(to).await else { return head };
        // How it ends is the affair of those who talk.
        let _ = copy_bidirectional(&mut stream, &mut onward).await;
        head
    });
    (at, running)
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_websocket_goes_through_tls_and_a_proxy() {
    let authority = Authority::new("for WebSockets");
    let acceptor = WsAcceptor::new().options(compressing()).protocols(["v2", "v1"]);
    let builder = WsServer::builder().acceptor(acceptor).tls(&authority.server(&["localhost"]));
    let server = builder.bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let url = format!("wss://localhost:{port}/chat?room=1");
    let serving = serve(server, 2);

    let connector = WsConnector::new().options(compressing()).tls(authority.client()).protocols(["v1", "v0"]);
    let socket = timeout(LIMIT, connector.connect(&url)).await.unwrap().unwrap();
    assert_eq!((socket.protocol(), socket.is_compressed()), (Some("v1"), true));
    timeout(LIMIT, say_and_close(socket)).await.unwrap();

    let line = "Proxy-Authorization: Basic bWU6c2VjcmV0\r\n";
    let (at, running) = proxy(line, "HTTP/1.1 200 Connected\r\nX: y\r\n\r\n").await;
    let through = connector.clone().proxy(format!("http://me:secret@{at}"));
    timeout(LIMIT, say_and_close(through.connect(&url).await.unwrap())).await.unwrap();
    let head = running.await.unwrap();
    assert!(
        head.starts_with(&format!("CONNECT localhost:{port} HTTP/1.1\r\nHost: localhost:{port}\r\n")),
        "{head}"
    );

    let (at, _running) = proxy(line, "").await;
    let error = connector.clone().proxy(format!("http://{at}")).connect(&url).await.unwrap_err();
    assert!(matches!(error, ConnectError::ProxyRefused { status: 407 }), "{error}");
    // Whoever answers before he was asked is not the server.
    let (at, _running) = proxy(line, "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n").await;
    let error = connector.proxy(format!("http://me:secret@{at}")).connect(&url).await.unwrap_err();
    assert!(matches!(error, ConnectError::Answer(_)), "{error}");

    assert!(serving.await.unwrap().iter().all(Result::is_ok));
    let stranger = WsConnector::new().tls(Authority::new("another").client());
    let (alone, _serving) = {
        let builder = WsServer::builder().tls(&authority.server(&["localhost"]));
        let server = builder.bind("127.0.0.1:0").await.unwrap();
        (server.local_addr().unwrap().port(), serve(server, 1))
    };
    let error = stranger.connect(&format!("wss://localhost:{alone}/")).await.unwrap_err();
    assert!(matches!(error, ConnectError::Io(_)), "{error}");
}

/// A request whose key the RFC's own example answers.
fn request(extra: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
    )
}

/// What a server says to these bytes, all of it.
async fn answer(acceptor: WsAcceptor, bytes: &[u8]) -> (Vec<u8>, Result<(), String>) {
    let mut server = WsServer::builder().acceptor(acceptor).bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpClient::connect(server.local_addr().unwrap()).await.unwrap();
    let serving = tokio::spawn(async move {
        let accepted = server.accept().await.unwrap().handshake().await;
        let (mut socket, _) = accepted.map_err(|error| error.to_string())?;
        echo(&mut socket).await.map_err(|error| error.to_string())
    });
    client.write_all(bytes).await.unwrap();
    client.finish().await.unwrap();
    let mut answer = Vec::new();
    // A reset would lose the end of it.
    timeout(LIMIT, client.read_to_end(&mut answer)).await.expect("an end").expect("no reset");
    drop(client);
    (answer, timeout(LIMIT, serving).await.expect("it ends").unwrap())
}

#[tokio::test]
async fn a_hostile_client_is_answered_and_let_go() {
    let options = || {
        let mut options = compressing();
        (options.max_message, options.max_handshake) = (100_000, 4096);
        options
    };
    let acceptor = || WsAcceptor::new().options(options());
    let masked = |first: u8, content: &[u8]| {
        let len = u8::try_from(content.len()).unwrap();
        [&[first, 0x80 | len, 0, 0, 0, 0], content].concat()
    };
    let long = format!("X: {}\r\n", "a".repeat(5000));
    let rows: Vec<(&str, Vec<u8>, &str, Option<u16>)> = vec![
        ("not masked", vec![0x81, 1, b'x'], "", Some(1002)),
        ("a reserved opcode", masked(0x83, b""), "", Some(1002)),
        ("reserved bits", masked(0xb1, b"x"), "", Some(1002)),
        ("a ping in pieces", masked(0x09, b"x"), "", Some(1002)),
        ("a long ping", vec![0x89, 0xfe, 0, 126, 0, 0, 0, 0], "", Some(1002)),
        ("a continuation of nothing", masked(0x80, b"x"), "", Some(1002)),
        ("the code 1005", masked(0x88, &1005_u16.to_be_bytes()), "", Some(1002)),
        ("half a code", masked(0x88, &[3]), "", Some(1002)),
        ("no text", masked(0x81, &[0xc0, 0x80]), "", Some(1007)),
        ("no reason", masked(0x88, &[3, 0xe8, 0xff]), "", Some(1007)),
        ("a large frame", vec![0x82, 0xff, 0, 0, 0, 0, 0, 1, 0x86, 0xa1, 0, 0, 0, 0, 1], "", Some(1009)),
        (
            "an endless frame",
            vec![0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0],
            "",
            Some(1009),
        ),
        (
            "broken deflate",
            masked(0xc1, &[0xff; 8]),
            "Sec-WebSocket-Extensions: permessage-deflate\r\n",
            Some(1002),
        ),
        ("deflate that was not agreed on", masked(0xc1, &[0xff; 8]), "", Some(1002)),
        ("a close with nothing", masked(0x88, b""), "", None),
    ];
    for (what, frames, extra, code) in rows {
        let bytes = [request(extra).as_bytes(), &frames].concat();
        let (answer, ended) = answer(acceptor(), &bytes).await;
        let end = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{what}");
        let told = answer[end..].to_vec();
        match code {
            Some(code) => assert_eq!((told[0], &told[2..4]), (0x88, &code.to_be_bytes()[..]), "{what}"),
            None => assert_eq!(told, [0x88, 0], "{what}"),
        }
        assert_eq!(ended.is_err(), code.is_some(), "{what}: {ended:?}");
    }
    for (what, bytes, status) in [
        ("another protocol", "SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned(), "400"),
        ("no upgrade", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), "426"),
        ("a header bomb", request(&long), "431"),
        ("many fields", request(&"A: b\r\n".repeat(200)), "400"),
        ("a page of others", request("Origin: http://evil.example\r\n"), "403"),
        ("a body", request("Content-Length: 7\r\n"), "400"),
        ("bare LF", request("").replace("\r\n", "\n"), "400"),
        ("one bare LF", request("A: b\nC: d\r\n"), "400"),
    ] {
        let (answer, ended) = answer(acceptor(), bytes.as_bytes()).await;
        let text = String::from_utf8(answer).unwrap();
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {text}");
        assert!(ended.is_err(), "{what}");
    }
    // A frame that is cut off is no message.
    let cut = [request("").as_bytes(), &[0x82, 0x85, 0, 0, 0, 0, b'x']].concat();
    let (answer, ended) = answer(acceptor(), &cut).await;
    assert!(answer.ends_with(b"\r\n\r\n"), "nothing is sent back");
    assert_eq!(ended, Err(WsError::Aborted.to_string()));
}

#[tokio::test]
async fn a_slow_handshake_is_told_and_cut() {
    let mut options = WsOptions::default();
    options.handshake_timeout = Duration::from_millis(50);
    let acceptor = WsAcceptor::new().options(options);
    let mut server = WsServer::builder().acceptor(acceptor).bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpClient::connect(server.local_addr().unwrap()).await.unwrap();
    let accepted = tokio::spawn(async move { server.accept().await.unwrap().handshake().await.map(drop) });
    client.send(b"GET / HTTP/1.1\r\nHost: ").await.unwrap();
    let mut answer = Vec::new();
    timeout(LIMIT, client.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 408 "));
    drop(client);
    assert!(matches!(accepted.await.unwrap(), Err(AcceptError::TimedOut)));
}

/// A bare server that answers the handshake, with `after` in the same packet.
async fn bare_server(after: Vec<u8>) -> (String, JoinHandle<Vec<u8>>) {
    let mut listener = TcpServer::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        // Our own server knows the answer.
        let (mut near, far) = tokio::io::duplex(4096);
        let asking = tokio::spawn(async move { WsAcceptor::new().accept(far).await.map(drop) });
        let ask = request("").replace("dGhlIHNhbXBsZSBub25jZQ==", key);
        near.write_all(ask.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        asking.await.unwrap().unwrap();
        answer.extend_from_slice(&after);
        stream.write_all(&answer).await.unwrap();
        let mut told = Vec::new();
        stream.read_to_end(&mut told).await.unwrap();
        told
    });
    (url, serving)
}

/// The code of the close frame of a client, which is all that it says.
fn close_code(told: &[u8]) -> u16 {
    assert_eq!((told[0], told[1] & 0x80), (0x88, 0x80), "a close frame, masked: {told:x?}");
    u16::from_be_bytes([told[6] ^ told[2], told[7] ^ told[3]])
}

#[tokio::test]
async fn a_hostile_server_is_told_and_left() {
    for (what, frames, violation) in [
        ("masked", vec![0x81, 0x81, 0, 0, 0, 0, b'x'], Violation::Masked),
        ("a reserved opcode", vec![0x8b, 0], Violation::ReservedOpcode(11)),
        ("compressed, and nobody asked", vec![0xc1, 1, 0], Violation::ReservedBits),
        ("no text", vec![0x81, 2, 0xc3, 0x28], Violation::NotUtf8),
        ("a wrong code", vec![0x88, 2, 0x03, 0xee], Violation::CloseCode(1006)),
    ] {
        let (url, serving) = bare_server([&[0x81, 5][..], b"early", &frames].concat()).await;
        let mut socket = WsConnector::new().connect(&url).await.unwrap();
        assert_eq!(socket.recv().await.unwrap(), Some(Message::text("early")), "{what}");
        let (code, (outcome, told)) = (violation.code(), tokio::join!(socket.recv(), serving));
        assert!(matches!(outcome, Err(WsError::Violation(found)) if found == violation), "{what}");
        assert_eq!(close_code(&told.unwrap()), u16::from(code), "{what}");
    }
    let (url, serving) = bare_server(vec![0x81, 5, b'x']).await;
    let mut socket = WsConnector::new().connect(&url).await.unwrap();
    serving.abort();
    assert!(matches!(socket.recv().await, Err(WsError::Aborted | WsError::Io(_))));
}

#[tokio::test]
async fn what_is_no_websocket_server_is_noticed() {
    for (answer, expected) in [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno!", Some(404)),
        ("HTTP/1.1 301 Moved\r\nLocation: ws://elsewhere/\r\n\r\n", Some(301)),
        ("HTTP/1.1 200 OK\r\n\r\n", Some(200)),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", None),
        ("\r\n\r\n", None),
        ("HTTP/1.1 101 Swit", None),
    ] {
        let mut listener = TcpServer::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await;
            stream.send(answer.as_bytes()).await.unwrap();
        });
        match timeout(LIMIT, WsConnector::new().connect(&url)).await.unwrap() {
            Err(ConnectError::Refused { status, .. }) => assert_eq!(Some(status), expected, "{answer}"),
            Err(ConnectError::Answer(_)) => assert_eq!(expected, None, "{answer}"),
            outcome => panic!("{answer}: {outcome:?}"),
        }
        serving.await.unwrap();
    }
    // An answer without end.
    let mut listener = TcpServer::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let flood = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.send(b"HTTP/1.1 101 x\r\n").await.unwrap();
        while stream.send(&[b'a'; 1000]).await.is_ok() {}
    });
    let error = WsConnector::new().connect(&url).await.unwrap_err();
    assert!(matches!(error, ConnectError::HeadTooLong(16_384)), "{error}");
    timeout(LIMIT, flood).await.unwrap().unwrap();
}

/// On a simulated network the same program runs the same way, masks included.
#[test]
fn websockets_replay() {
    let run = |seed: u64| {
        let mut cluster = Cluster::new(seed)
            .node("server", |node| async move {
                let acceptor = WsAcceptor::new().options(compressing()).origins(Origins::Any);
                let builder = WsServer::builder().network(node.network()).acceptor(acceptor);
                let mut server = builder.bind(SocketAddr::new(node.ip(), 80)).await?;
                loop {
                    let (mut socket, request) = server.accept().await?.handshake().await?;
                    // Random, as the masks are.
                    node.event(format!("key {}", request.header("sec-websocket-key").unwrap_or_default()));
                    echo(&mut socket).await?;
                }
            })
            .client("client", |node| async move {
                let connector = WsConnector::new().network(node.network()).options(compressing());
                let mut socket = connector.connect("ws://server/simulated").await?;
                for len in [1, 1000, 100_000] {
                    let message = Message::text("simulated ".repeat(len / 10 + 1));
                    socket.send(message.clone()).await?;
                    assert_eq!(socket.recv().await?, Some(message));
                }
                socket.close(CloseCode::NORMAL, "").await?;
                node.event("closed");
                Ok(())
            });
        cluster.run().unwrap_or_else(|failure| panic!("{failure}")).digest
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
