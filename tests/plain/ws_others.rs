//! WebSockets against other people's: Python's websockets, Node's ws, websocat, Chromium, nginx between.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use vitte_net::tcp::TcpServer;
use vitte_net::ws::{CloseCode, Message, Origins, WsAcceptor, WsConnector, WsServer};

use crate::port::free_port;
use crate::programs::{run, there};
use crate::ws::{LIMIT, compressing, echo};

/// Whether a script of this interpreter can use this; if not, a line says what is skipped.
fn has(interpreter: &str, script: &str, what: &str) -> bool {
    let mut command = Command::new(interpreter);
    command.args([if interpreter == "node" { "-e" } else { "-c" }, script]).env("NODE_PATH", node_path());
    let found = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        println!("skipped: {what} is not installed");
    }
    found
}

/// Where packages are that npm installed for everybody, unless NODE_PATH says otherwise.
fn node_path() -> String {
    std::env::var("NODE_PATH").unwrap_or_else(|_| {
        let root = Command::new("npm").args(["root", "-g"]).output();
        root.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    })
}

/// A server that echoes, compressing and not minding where a page is from, and how many it has served well.
async fn echo_server(acceptor: WsAcceptor) -> (SocketAddr, JoinHandle<()>) {
    let builder = WsServer::builder().acceptor(acceptor.options(compressing()).protocols(["echo.1"]));
    let mut server = builder.bind("127.0.0.1:0").await.unwrap();
    let at = server.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (mut socket, _) = server.accept().await.unwrap().handshake().await.unwrap();
        echo(&mut socket).await.unwrap();
    });
    (at, serving)
}

async fn script(interpreter: &str, text: &str, argument: String) {
    let mut command = tokio::process::Command::new(interpreter);
    command.arg(if interpreter == "node" { "-e" } else { "-c" }).arg(text).arg(argument);
    let output = run(command.env("NODE_PATH", node_path()), b"").await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Talks to the server of a script, which says its port in its first line.
async fn talk_to(interpreter: &str, text: &str) {
    let mut command = tokio::process::Command::new(interpreter);
    command.arg(if interpreter == "node" { "-e" } else { "-c" }).arg(text).env("NODE_PATH", node_path());
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut port = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    timeout(LIMIT, output.read_line(&mut port)).await.expect("it says its port").unwrap();
    let connector = WsConnector::new().options(compressing()).protocols(["echo.1"]);
    let mut socket = connector.connect(&format!("ws://127.0.0.1:{}/", port.trim())).await.unwrap();
    assert_eq!((socket.protocol(), socket.is_compressed()), (Some("echo.1"), true));
    for message in [
        Message::text("κόσμε"),
        Message::binary(vec![7; 300_000]),
        Message::text("compress me ".repeat(10_000)),
        Message::text(""),
    ] {
        socket.send(message.clone()).await.unwrap();
        assert!(timeout(LIMIT, socket.recv()).await.unwrap().unwrap() == Some(message));
    }
    timeout(LIMIT, socket.close(CloseCode::NORMAL, "bye")).await.unwrap().unwrap();
    child.kill().await.unwrap();
}

const PYTHON_CLIENT: &str = r#"
import asyncio, sys, websockets
async def main(port):
    url = f"ws://127.0.0.1:{port}/"
    async with websockets.connect(url, subprotocols=["echo.1"], max_size=None) as ws:
        assert ws.subprotocol == "echo.1"
        await ws.send(b"x" * 200_000)
        assert await ws.recv() == b"x" * 200_000
        await ws.send(["in ", "pie", "ces"])
        assert await ws.recv() == "in pieces"
        await (await ws.ping(b"hi"))
        for _ in range(3):
            await ws.send("compress me " * 1000)
            assert await ws.recv() == "compress me " * 1000
    assert ws.close_code == 1000, ws.close_code
asyncio.run(main(sys.argv[1]))
"#;

const PYTHON_SERVER: &str = r#"
import asyncio, websockets
async def echo(ws):
    async for message in ws:
        await ws.send(message)
async def main():
    async with websockets.serve(echo, "127.0.0.1", 0, subprotocols=["echo.1"], max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()
asyncio.run(main())
"#;

#[tokio::test]
async fn the_websockets_of_python_get_along() {
    if !has("python3", "import websockets", "python3 with the package websockets") {
        return;
    }
    let (at, serving) = echo_server(WsAcceptor::new()).await;
    script("python3", PYTHON_CLIENT, at.port().to_string()).await;
    timeout(LIMIT, serving).await.unwrap().unwrap();
    talk_to("python3", PYTHON_SERVER).await;
}

const NODE_CLIENT: &str = r#"
const WebSocket = require("ws");
const ws = new WebSocket(`ws://127.0.0.1:${process.argv[1]}/`, ["echo.1"], { perMessageDeflate: { threshold: 0 } });
const messages = ["hello", "compress me ".repeat(10000), "x".repeat(100), ""];
let at = 0;
ws.on("open", () => ws.send(messages[0]));
ws.on("message", (data, binary) => {
    if (binary || data.toString() !== messages[at]) throw new Error(`message ${at}`);
    at += 1;
    if (at === messages.length) ws.close(4000, "bye"); else ws.send(messages[at]);
});
ws.on("close", (code) => process.exit(code === 4000 && ws.protocol === "echo.1" ? 0 : 1));
"#;

const NODE_SERVER: &str = r#"
const { WebSocketServer } = require("ws");
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: { threshold: 0 } });
server.on("connection", (ws) => ws.on("message", (data, binary) => ws.send(data, { binary })));
server.on("listening", () => console.log(server.address().port));
"#;

#[tokio::test]
async fn the_ws_of_node_gets_along() {
    if !has("node", "require('ws')", "node with the package ws") {
        return;
    }
    let (at, serving) = echo_server(WsAcceptor::new()).await;
    script("node", NODE_CLIENT, at.port().to_string()).await;
    timeout(LIMIT, serving).await.unwrap().unwrap();
    talk_to("node", NODE_SERVER).await;
}

#[tokio::test]
async fn nginx_may_stand_between() {
    if !there("nginx", "-v", "a WebSocket through nginx") {
        return;
    }
    let (behind, serving) = echo_server(WsAcceptor::new()).await;
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("nginx-ws");
    std::fs::create_dir_all(&folder).unwrap();
    let port = free_port();
    let here = folder.display();
    let configuration = format!(
        "daemon off; master_process off; pid {here}/pid; error_log {here}/error.log;
         events {{ worker_connections 64; }}
         http {{
             access_log off;
             client_body_temp_path {here}; proxy_temp_path {here}; fastcgi_temp_path {here};
             uwsgi_temp_path {here}; scgi_temp_path {here};
             server {{
                 listen 127.0.0.1:{port};
                 location / {{
                     proxy_pass http://{behind};
                     proxy_http_version 1.1;
                     proxy_set_header Upgrade $http_upgrade;
                     proxy_set_header Connection \"upgrade\";
                     proxy_set_header Host $http_host;
                 }}
             }}
         }}"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, configuration).unwrap();
    let mut nginx = tokio::process::Command::new("nginx");
    let mut nginx = nginx.arg("-c").arg(&file).kill_on_drop(true).spawn().unwrap();

    let url = format!("ws://127.0.0.1:{port}/");
    let origin = format!("http://127.0.0.1:{port}");
    let connector = WsConnector::new().options(compressing()).origin(origin);
    let mut socket = timeout(LIMIT, async {
        loop {
            // Until it listens.
            match connector.connect(&url).await {
                Ok(socket) => break socket,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await
    .expect("nginx answers");
    assert!(socket.is_compressed());
    let message = Message::text("through nginx ".repeat(20_000));
    socket.send(message.clone()).await.unwrap();
    assert!(timeout(LIMIT, socket.recv()).await.unwrap().unwrap() == Some(message));
    timeout(LIMIT, socket.close(CloseCode::NORMAL, "")).await.unwrap().unwrap();
    timeout(LIMIT, serving).await.unwrap().unwrap();
    nginx.kill().await.unwrap();
}

const PAGE: &str = r#"<!DOCTYPE html><script>
const ws = new WebSocket("ws://127.0.0.1:PORT/browser", ["echo.1"]);
ws.binaryType = "arraybuffer";
const text = "from a browser ".repeat(5000), bytes = new Uint8Array(100000).fill(7);
let at = 0;
ws.onopen = () => { ws.send(text); ws.send(bytes); };
ws.onmessage = ({ data }) => {
    at += 1;
    const good = at === 1 ? data === text : new Uint8Array(data).every((byte) => byte === 7) && data.byteLength === 100000;
    if (!good) ws.close(4001, "message " + at);
    else if (at === 2) ws.close(4000, ws.protocol + " " + ws.extensions);
};
</script>"#;

#[tokio::test]
async fn chromium_gets_along_and_keeps_to_its_origin() {
    if !there("chromium", "--version", "a WebSocket of a browser") {
        return;
    }
    let mut pages = TcpServer::bind("127.0.0.1:0").await.unwrap();
    let site = pages.local_addr().unwrap();
    let origins = Origins::Only(vec![format!("http://{site}")]);
    let acceptor = WsAcceptor::new().options(compressing()).origins(origins).protocols(["echo.1"]);
    let mut server = WsServer::builder().acceptor(acceptor).bind("127.0.0.1:0").await.unwrap();
    let page = PAGE.replace("PORT", &server.local_addr().unwrap().port().to_string());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = pages.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.unwrap_or(0) > 0 {}
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
                page.len()
            );
            // A browser opens connections that it does not use.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let profile = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("chromium-ws");
    let mut browser = tokio::process::Command::new("chromium");
    browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
    browser.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    browser.arg(format!("--user-data-dir={}", profile.display())).arg("--remote-debugging-port=0");
    browser.arg(format!("http://{site}/")).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let mut browser = browser.spawn().unwrap();
    let served = async {
        let (mut socket, request) = server.accept().await.unwrap().handshake().await.unwrap();
        assert_eq!((request.path(), request.origin()), ("/browser", Some(&*format!("http://{site}"))));
        echo(&mut socket).await.unwrap();
        socket.peer_close().flatten().cloned().unwrap()
    };
    let close = timeout(Duration::from_secs(60), served).await.expect("the browser comes");
    assert_eq!(u16::from(close.code), 4000, "{close}");
    assert!(close.reason.starts_with("echo.1 permessage-deflate"), "{close}");
    browser.kill().await.unwrap();
}

#[tokio::test]
async fn websocat_gets_along() {
    if !there("websocat", "--version", "a WebSocket of websocat") {
        return;
    }
    let (at, serving) = echo_server(WsAcceptor::new()).await;
    let mut command = tokio::process::Command::new("websocat");
    command.args(["-t", "--protocol", "echo.1"]).arg(format!("ws://{at}/"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    for line in ["κόσμε\n".to_owned(), "x".repeat(50_000) + "\n", "\n".to_owned()] {
        stdin.write_all(line.as_bytes()).await.unwrap();
        let mut back = String::new();
        timeout(LIMIT, output.read_line(&mut back)).await.expect("an echo").unwrap();
        assert!(back == line, "{} bytes came back", back.len());
    }
    drop(stdin);
    timeout(LIMIT, serving).await.unwrap().unwrap();
    assert!(timeout(LIMIT, child.wait()).await.unwrap().unwrap().success());

    let port = free_port();
    let mut command = tokio::process::Command::new("websocat");
    command.arg("-b").arg(format!("ws-l:127.0.0.1:{port}")).arg("mirror:");
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let connector = WsConnector::new().options(compressing());
    let connecting = async {
        loop {
            // Until it listens.
            match connector.connect(&format!("ws://127.0.0.1:{port}/")).await {
                Ok(socket) => break socket,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let mut socket = timeout(LIMIT, connecting).await.expect("websocat answers");
    for message in [Message::binary(vec![7; 60_000]), Message::binary(vec![0])] {
        socket.send(message.clone()).await.unwrap();
        assert!(timeout(LIMIT, socket.recv()).await.unwrap().unwrap() == Some(message));
    }
    timeout(LIMIT, socket.close(CloseCode::NORMAL, "")).await.unwrap().unwrap();
    child.kill().await.unwrap();
}
