//! haproxy in front of our server, for HTTP and for WebSockets, in the clear and with TLS.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use vitte_net::http::{Client, HttpError, Protocol, Reply, Request, Router, Version};
use vitte_net::ws::{CloseCode, Message, WsAcceptor, WsConnector};

use crate::port::free_port;
use crate::secure::{authority, trusting};
use crate::{pieces, plain, soon};

/// Says by which version it was asked, and echoes bodies and messages.
fn router() -> Router {
    Router::new()
        .get("/", |request: Request| async move { format!("{:?}", request.version()) })
        .post("/echo", |request: Request| async move {
            Ok::<_, HttpError>(Reply::new(request.bytes(1 << 20).await?))
        })
        .get("/socket", |request: Request| async {
            let (reply, socket) = request.websocket(&WsAcceptor::new().protocols(["echo"]))?;
            tokio::spawn(async move {
                let mut socket = socket.await.expect("a WebSocket");
                while let Some(message) = socket.recv().await.expect("messages") {
                    socket.send(message).await.expect("it takes messages");
                }
            });
            Ok::<_, Box<Reply>>(reply)
        })
}

#[tokio::test]
async fn haproxy_may_stand_between() {
    if std::process::Command::new("haproxy").arg("-v").stdout(Stdio::null()).status().is_err() {
        println!("skipped: haproxy is not installed");
        return;
    }
    let server = plain(router()).await;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("http").join("haproxy");
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    let (root, chain, key) = authority("localhost");
    std::fs::write(folder.join("server.pem"), chain + &key).expect("a file can be written");
    let [first, second, secure] = std::array::from_fn(|_| free_port());
    let (at, to) = (folder.display(), server.local_addr());
    let configuration = format!(
        "global
  maxconn 64
defaults
  mode http
  timeout connect 5s
  timeout client 20s
  timeout server 20s
  timeout tunnel 20s
frontend first
  bind 127.0.0.1:{first}
  default_backend by_http1
frontend second
  bind 127.0.0.1:{second}
  default_backend by_http2
frontend secure
  bind 127.0.0.1:{secure} ssl crt {at}/server.pem alpn h2,http/1.1
  default_backend by_http1
backend by_http1
  http-reuse always
  server ours {to}
backend by_http2
  server ours {to} proto h2
"
    );
    std::fs::write(folder.join("haproxy.cfg"), configuration).expect("a file can be written");
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(folder.join("haproxy.cfg")).kill_on_drop(true);
    let mut haproxy = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");

    let client = Client::builder().tls(trusting(&root)).build();
    let front = format!("http://127.0.0.1:{first}/");
    let listening = async {
        while client.get(&front).send().await.is_err() {
            assert!(
                haproxy.try_wait().expect("a child").is_none(),
                "haproxy ended: haproxy -c -f {at}/haproxy.cfg"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(listening).await;
    for (front, protocol, before, behind) in [
        (front.clone(), Protocol::Http1, Version::HTTP_11, "HTTP/1.1"),
        (front, Protocol::Http2, Version::HTTP_2, "HTTP/1.1"),
        (format!("http://127.0.0.1:{second}/"), Protocol::Http1, Version::HTTP_11, "HTTP/2.0"),
        (format!("https://localhost:{secure}/"), Protocol::Auto, Version::HTTP_2, "HTTP/1.1"),
    ] {
        for _ in 0..3 {
            let hello = soon(client.get(&front).protocol(protocol).send()).await.expect("an answer");
            assert_eq!(hello.version(), before, "{front}");
            assert_eq!(hello.text().await.expect("a body"), behind, "{front}");
            let post = client.post(format!("{front}echo")).protocol(protocol).body(pieces(&[7; 1000], 900));
            let response = soon(post.send()).await.expect("an answer");
            assert!(soon(response.bytes()).await.expect("a body") == vec![7; 900_000], "{front}");
        }
        let missing = soon(client.get(format!("{front}nowhere")).protocol(protocol).send()).await;
        assert_eq!(missing.expect("an answer").status(), 404, "{front}");
    }

    for url in [format!("ws://127.0.0.1:{first}/socket"), format!("wss://localhost:{secure}/socket")] {
        let connector = WsConnector::new().tls(trusting(&root)).protocols(["echo"]);
        let mut socket = soon(connector.connect(&url)).await.expect(&url);
        assert_eq!(socket.protocol(), Some("echo"));
        for message in [Message::text("through haproxy ".repeat(10_000)), Message::binary(vec![7; 100_000])] {
            socket.send(message.clone()).await.expect("it takes messages");
            assert!(soon(socket.recv()).await.expect("a message") == Some(message), "{url}");
        }
        soon(socket.close(CloseCode::NORMAL, "")).await.expect("an end");
    }
    haproxy.kill().await.expect("it ends");
}
