//! The plain tools, as a person or a script runs them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

fn vnet(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vnet"));
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end with this on stdin.
fn run(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = vnet(arguments).spawn().unwrap();
    // It may end without reading all of it.
    child.stdin.take().unwrap().write_all(input).ok();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A server that says where it listens.
struct Server {
    child: Child,
    at: String,
    output: BufReader<std::process::ChildStdout>,
}

impl Server {
    fn start(arguments: &[&str], input: &[u8]) -> Self {
        let mut child = vnet(arguments).arg("--json").spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let event: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(event["event"], "listening");
        Self { child, at: event["at"].as_str().unwrap().to_owned(), output }
    }

    /// What it told until its end, which must be a good one.
    fn end(mut self) -> Vec<Value> {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success());
        rest.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn received(events: &[Value]) -> String {
    events.iter().filter_map(|event| event["text"].as_str()).collect()
}

#[test]
fn tcp_carries_both_ways() {
    let server = Server::start(&["tcp", "--listen", "127.0.0.1:0"], b"from the server\n");
    let output = run(&["tcp", &server.at], b"from the client\n");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stdout), "from the server\n");
    let events = server.end();
    assert_eq!(received(&events), "from the client\n");
    assert_eq!(events.last().unwrap(), &json!({ "event": "ended", "sent": 16, "received": 16 }));
}

#[test]
fn tcp_has_limits_and_says_what_is_wrong() {
    let server = Server::start(&["tcp", "--listen", "127.0.0.1:0"], b"twelve bytes");
    let output = run(&["tcp", &server.at, "--max-size", "11"], b"");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("more than 11 bytes"), "{output:?}");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let output = run(&["tcp", &silent.local_addr().unwrap().to_string(), "--idle", "0.05"], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("not a byte went either way"), "{output:?}");
    let at = silent.local_addr().unwrap().to_string();
    drop(silent);
    let output = run(&["tcp", &at], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(&at) && text(&output.stderr).contains("try:"), "{output:?}");
    assert_eq!(run(&["tcp", "no-port"], b"").status.code(), Some(2));
}

#[test]
fn where_nobody_can_listen_is_told_apart_from_what_is_no_address() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let folder = env!("CARGO_MANIFEST_DIR");
    let listening = |at: &str| {
        let tools = [
            vec!["tcp", "-l", at],
            vec!["ws", "--listen", at, "--echo"],
            vec!["http", "serve", folder, "--listen", at],
        ];
        tools.map(|tool| run(&tool, b""))
    };
    for output in listening(&at) {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).contains(&at) && text(&output.stderr).contains("try: another port"));
    }
    for output in listening("127.0.0.1").into_iter().chain([run(&["udp", "-l", "::1:7"], b"")]) {
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).contains("try: HOST:PORT"), "{output:?}");
    }
}

/// A peer that first says all that it has to say, and only then listens.
#[test]
fn tcp_reads_while_it_cannot_write() {
    const LEN: usize = 32 << 20;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&vec![b'a'; LEN]).unwrap();
        let mut heard = 0;
        let mut buffer = vec![0; 1 << 20];
        while let Ok(len @ 1..) = stream.read(&mut buffer) {
            heard += len;
        }
        heard
    });
    let mut child = vnet(&["tcp", &at, "--idle", "20"]).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let feeding = std::thread::spawn(move || input.write_all(&vec![b'b'; LEN]).unwrap());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!((output.stdout.len(), peer.join().unwrap()), (LEN, LEN));
    feeding.join().unwrap();
}

/// A folder with an authority and a certificate for `localhost`: their files.
fn certificates(test: &str) -> (PathBuf, String) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plain").join(test);
    fs::create_dir_all(&folder).unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
    fs::write(&chain, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let pair = format!("{},{}", chain.display(), key.display());
    (chain, pair)
}

#[test]
fn tls_checks_who_is_there() {
    let (ca, pair) = certificates("tls");
    let start =
        || Server::start(&["tls", "--listen", "127.0.0.1:0", "--cert", &pair, "--alpn", "x"], b"secret\n");
    let ca = ca.to_str().unwrap();
    for arguments in [&["--ca", ca, "--name", "localhost", "--alpn", "x"][..], &["--insecure"]] {
        let server = start();
        let output = run(&[&["tls", &server.at], arguments].concat(), b"hello\n");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(text(&output.stdout), "secret\n");
        assert_eq!(received(&server.end()), "hello\n");
    }
    // The system trusts nobody of this name, the name is another, there is no TLS.
    for arguments in [&["--name", "localhost"][..], &["--ca", ca, "--name", "other"]] {
        let server = start();
        let output = run(&[&["tls", &server.at], arguments].concat(), b"hello\n");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).contains("certificate"), "{output:?}");
        assert!(output.stdout.is_empty());
    }
    assert_eq!(run(&["tls", "--listen", "127.0.0.1:0"], b"").status.code(), Some(2));
    assert_eq!(run(&["tls", "127.0.0.1:1", "--ca", "/nowhere"], b"").status.code(), Some(2));
}

#[test]
fn udp_sends_and_shows_datagrams() {
    let server = Server::start(&["udp", "--listen", "127.0.0.1:0", "--count", "1"], b"thanks");
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let output = run(&["udp", &server.at, "--timeout", "0.01"], b"hello");
    assert!(output.status.success(), "{output:?}");
    let events = server.end();
    assert_eq!((&events[0]["text"], &events[0]["truncated"]), (&json!("hello"), &json!(false)));
    // Whoever waits for an answer that does not come has not succeeded.
    let at = peer.local_addr().unwrap().to_string();
    let output = run(&["udp", &at, "--count", "1", "--timeout", "0.01"], b"hello");
    assert_eq!(output.status.code(), Some(1));
    let mut buffer = [0; 9];
    assert_eq!(peer.recv_from(&mut buffer).unwrap().0, 5);
}

/// Answers every question for an address with one, and with a name that wants to command a terminal.
fn name_server() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut query = [0; 1500];
        while let Ok((len, from)) = socket.recv_from(&mut query) {
            let end = 12 + query[12..len].iter().position(|byte| *byte == 0).unwrap() + 5;
            let kind = u16::from_be_bytes([query[end - 4], query[end - 3]]);
            let data: &[u8] = match kind {
                1 => &[192, 0, 2, 1],
                16 => b"\x05\x1b[2Jx",
                _ => &[],
            };
            let count = u8::from(!data.is_empty());
            let mut answer =
                [&query[..2], &[0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0], &query[12..end]].concat();
            if count == 1 {
                let head = [0xc0, 12, 0, u8::try_from(kind).unwrap(), 0, 1, 0, 0, 0, 60, 0];
                answer.extend(head);
                answer.push(u8::try_from(data.len()).unwrap());
                answer.extend(data);
            }
            socket.send_to(&answer, from).unwrap();
        }
    });
    at
}

#[test]
fn dns_asks_the_server_that_was_named() {
    let server = name_server();
    let output = run(&["dns", "example.org", "A", "--server", &server], b"");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stdout), "example.org 60 A 192.0.2.1\n");
    let output = run(&["dns", "example.org", "--json", "--server", &server], b"");
    let record: Value = serde_json::from_str(text(&output.stdout)).unwrap();
    assert_eq!(record, json!({ "name": "example.org", "ttl": 60, "type": "A", "data": "192.0.2.1" }));
    let output = run(&["dns", "example.org", "txt", "--server", &server], b"");
    assert!(output.status.success() && !output.stdout.contains(&0x1b), "{output:?}");

    let output = run(&["dns", "example.org", "MX", "--server", &server], b"");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("no MX record"), "{output:?}");
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let output = run(&["dns", "example.org", "A", "--server", &silent, "--timeout", "0.1"], b"");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("try:"), "{output:?}");
    assert_eq!(run(&["dns", "a..b", "--server", &server], b"").status.code(), Some(2));
    assert_eq!(run(&["dns", "a", "NONE", "--server", &server], b"").status.code(), Some(2));
}

#[test]
fn jsonrpc_calls_a_program() {
    let program = env!("CARGO_BIN_EXE_vnet");
    let call = |arguments: &[&str]| {
        run(&[&["jsonrpc"], arguments, &["--", program, "jsonrpc", "--echo"]].concat(), b"")
    };
    let output = call(&["any/method", r#"{"a": [1, "x"]}"#, "--json"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        serde_json::from_slice::<Value>(&output.stdout).unwrap(),
        json!({ "result": { "a": [1, "x"] } })
    );
    assert!(call(&["any", "[1]", "--notify"]).status.success());
    assert_eq!(call(&["any", "5"]).status.code(), Some(2));
    assert_eq!(call(&["any", "nonsense"]).status.code(), Some(2));
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", silent.local_addr().unwrap());
    let output = run(&["jsonrpc", "any", "--connect", &address, "--timeout", "0.05"], b"");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(run(&["jsonrpc", "any", "--", "/nowhere"], b"").status.code(), Some(2));
    assert_eq!(run(&["jsonrpc", "any"], b"").status.code(), Some(2));
}

/// A proxy that makes one tunnel after the other, to wherever it is asked, for `me:secret` alone: its URL without a
/// user, and what it was asked.
fn proxy() -> (String, std::sync::mpsc::Receiver<String>) {
    use std::net::{TcpListener, TcpStream};

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let (asked, asks) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let to = head.split(' ').nth(1).unwrap().to_owned();
            asked.send(to.clone()).ok();
            if !head.contains("\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n") {
                client.write_all(b"HTTP/1.1 407 Who \x1b[2J are you\r\n\r\n").unwrap();
                continue;
            }
            let mut server = TcpStream::connect(&to).unwrap();
            client.write_all(b"HTTP/1.1 200 OK\r\nVia: me\r\n\r\n").unwrap();
            let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let upwards = std::thread::spawn(move || {
                std::io::copy(&mut up, &mut server).ok();
                server.shutdown(std::net::Shutdown::Write).ok();
            });
            std::io::copy(&mut down, &mut client).ok();
            client.shutdown(std::net::Shutdown::Write).ok();
            upwards.join().unwrap();
        }
    });
    (at, asks)
}

#[test]
fn tcp_and_tls_go_through_a_proxy() {
    let (at, asks) = proxy();
    let (with, without) = (format!("http://me:secret@{at}"), format!("http://{at}"));
    let server = Server::start(&["tcp", "--listen", "127.0.0.1:0"], b"from the server\n");
    // The proxy is told the name, and looks it up itself.
    let name = server.at.replace("127.0.0.1", "localhost");
    let output = run(&["tcp", &name, "--proxy", &with], b"from the client\n");
    assert!(output.status.success(), "{output:?}");
    assert_eq!((text(&output.stdout), asks.recv().unwrap()), ("from the server\n", name));
    assert_eq!(received(&server.end()), "from the client\n");

    let (ca, pair) = certificates("proxied");
    let server = Server::start(&["tls", "--listen", "127.0.0.1:0", "--cert", &pair], b"secret\n");
    let arguments =
        ["tls", &server.at, "--name", "localhost", "--ca", ca.to_str().unwrap(), "--proxy", &with];
    let output = run(&arguments, b"hello\n");
    assert!(output.status.success(), "{output:?}");
    assert_eq!((text(&output.stdout), received(&server.end()).as_str()), ("secret\n", "hello\n"));

    let output = run(&["tcp", "127.0.0.1:9", "--proxy", &without], b"");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = text(&output.stderr);
    assert!(told.contains("407") && told.contains("try:") && !told.contains('\x1b'), "{output:?}");
    let wrong = [["tcp", "127.0.0.1:9"], ["tcp", "no port"], ["udp", "127.0.0.1:9"], ["dns", "example.org"]];
    for (arguments, url) in wrong.iter().zip(["ftp://x", &with, &with, &with]) {
        let output = run(&[&arguments[..], &["--proxy", url]].concat(), b"");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(!text(&output.stderr).contains("secret"), "{output:?}");
    }
    assert_eq!(run(&["tcp", "-l", "127.0.0.1:0", "--proxy", &with], b"").status.code(), Some(2));
}

#[test]
fn dns_and_jsonrpc_go_through_a_proxy() {
    let (at, asks) = proxy();
    let with = format!("http://me:secret@{at}");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap().to_string();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query).unwrap();
        let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
        let mut answer = [&query[..2], &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0], &query[12..end]].concat();
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
        stream.write_all(&u16::try_from(answer.len()).unwrap().to_be_bytes()).unwrap();
        stream.write_all(&answer).unwrap();
    });
    let url = format!("tcp://{server}");
    let output = run(&["dns", "example.org", "A", "--server", &url, "--proxy", &with], b"");
    assert!(output.status.success(), "{output:?}");
    assert_eq!((text(&output.stdout), asks.recv().unwrap()), ("example.org 60 A 192.0.2.1\n", server));
    answering.join().unwrap();

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap().to_string();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"}") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let request: Value =
            serde_json::from_slice(&head[head.iter().position(|b| *b == b'{').unwrap()..]).unwrap();
        let answer = json!({ "jsonrpc": "2.0", "id": request["id"], "result": 7 }).to_string();
        stream.write_all(format!("Content-Length: {}\r\n\r\n{answer}", answer.len()).as_bytes()).unwrap();
        stream.read_to_end(&mut Vec::new()).ok();
    });
    let url = format!("tcp://{server}");
    let output = run(&["jsonrpc", "any", "--connect", &url, "--proxy", &with], b"");
    assert!(output.status.success(), "{output:?}");
    assert_eq!((text(&output.stdout), asks.recv().unwrap()), ("7\n", server));
    answering.join().unwrap();
}

#[test]
fn what_is_longer_than_allowed_is_an_error() {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = peer.local_addr().unwrap().to_string();
    let answering = std::thread::spawn(move || {
        let (_, from) = peer.recv_from(&mut [0; 9]).unwrap();
        // A stranger's is no answer.
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"a stranger says this", from).unwrap();
        peer.send_to(b"123", from).unwrap();
    });
    let output = run(&["udp", &at, "--count", "1", "--timeout", "20", "--max-size", "3"], b"x");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stdout), "123");
    answering.join().unwrap();
    let server = Server::start(&["udp", "--listen", "127.0.0.1:0", "--max-size", "2"], b"");
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"123", &server.at).unwrap();
    let mut server = server;
    assert_eq!(server.child.wait().unwrap().code(), Some(1));
    let program = env!("CARGO_BIN_EXE_vnet");
    let output =
        run(&["jsonrpc", "any", "[\"long\"]", "--max-size", "20", "--", program, "jsonrpc", "--echo"], b"");
    assert!(!output.status.success(), "{output:?}");
}
