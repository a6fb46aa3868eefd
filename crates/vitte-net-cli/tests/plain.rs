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
