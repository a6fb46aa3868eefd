//! Bytes of strangers on a terminal: a real one, made by `script` of util-linux.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Stdio};

/// Clears the screen, sets the title, says the same by C1 in UTF-8 and as a bare byte, goes back to the begin of the
/// line, rings, and turns the direction of the text. Characters of several bytes are none of that.
const HOSTILE: &[u8] =
    b"\x1b[2J\x1b]0;owned\x07\xc2\x9b31m\x9b31m\rgone\xe2\x80\xae\x08\x7f \xe4\xbd\xa0\xe5\xa5\xbd";
/// The same in a message that must be UTF-8 and one line.
const HOSTILE_TEXT: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m gone\u{202e}\u{8}\u{7f} 你好";

/// What `vnet` shows on a terminal, or `None`, with a line that says so, where none can be made.
fn shown(arguments: &str) -> Option<String> {
    let question = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("question");
    std::fs::write(&question, "hello").unwrap();
    let line = format!("{} {arguments} < '{}'", env!("CARGO_BIN_EXE_vnet"), question.display());
    let mut command = Command::new("script");
    command.args(["-q", "-e", "-f", "-c", &line, "/dev/null"]).env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let Ok(output) = command.output() else {
        println!("skipped: bytes of strangers on a terminal: the program script is not installed");
        return None;
    };
    Some(String::from_utf8(output.stdout).unwrap())
}

/// Nothing of it does anything to a terminal. The terminal itself ends lines with a carriage return.
fn harmless(shown: &str) {
    let text = shown.replace("\r\n", "\n");
    assert!(!text.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}'), "{shown:?}");
    assert!(text.contains("owned"), "{shown:?}");
}

/// Says these bytes to the first who comes, once that one has said something if it must.
fn canned(answer: Vec<u8>, waits: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        if waits {
            let _ = stream.read(&mut [0; 4096]).unwrap();
        }
        stream.write_all(&answer).unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    at
}

#[test]
fn bytes_of_tcp() {
    let at = canned(HOSTILE.to_vec(), false);
    let Some(shown) = shown(&format!("tcp {at}")) else { return };
    harmless(&shown);
    assert!(shown.ends_with("你好"), "{shown:?}");
}

/// Characters come in pieces, lines as the network ends them.
#[test]
fn a_character_may_come_in_two_pieces() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        // It shows what came before it asks for more.
        let mut sink = stream.try_clone().unwrap();
        for piece in [&b"a\tb\r"[..], b"\n\xe4\xbd", b"\xa0\xe5\xa5\xbd\xe4"] {
            stream.write_all(piece).unwrap();
            let _ = stream.flush();
            std::thread::yield_now();
        }
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = sink.read_to_end(&mut Vec::new());
    });
    let Some(shown) = shown(&format!("tcp {at}")) else { return };
    assert_eq!(shown, "a\tb\r\n你好\u{fffd}");
}

#[test]
fn bodies_heads_and_complaints_of_http() {
    let answer = |head: &[u8], body: &[u8]| {
        let length = format!("Content-Length: {}\r\n\r\n", body.len());
        [b"HTTP/1.1 200 OK\r\n", head, length.as_bytes(), body].concat()
    };
    let at = canned(answer(b"", HOSTILE), true);
    let Some(body) = shown(&format!("http get http://{at}/")) else { return };
    harmless(&body);
    let at = canned(answer("X: owned \u{9b}31m\u{202e}\r\n".as_bytes(), b""), true);
    harmless(&shown(&format!("http head http://{at}/")).unwrap());
    let at = canned(answer(b"Location: \x1b[2Jowned\r\n", b""), true);
    let refused = shown(&format!("http get http://{at}/owned")).unwrap();
    harmless(&refused);
    // What it tells on stderr of where it is led to.
    let at = canned(
        b"HTTP/1.1 302 Found\r\nLocation: owned\xc2\x9b31m\r\nContent-Length: 0\r\n\r\n".to_vec(),
        true,
    );
    harmless(&shown(&format!("http get --follow 1 http://{at}/owned")).unwrap());
}

#[test]
fn messages_of_a_websocket() {
    let mut server = Command::new(env!("CARGO_BIN_EXE_vnet"));
    server.args(["ws", "--listen", "127.0.0.1:0", "--json"]).env_remove("RUST_LOG");
    let mut server = server.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url: serde_json::Value = serde_json::from_str(&line).unwrap();
    writeln!(server.stdin.take().unwrap(), "{HOSTILE_TEXT}").unwrap();
    let shown = shown(&format!("ws {}", url["url"].as_str().unwrap()));
    let _ = server.kill();
    let _ = server.wait();
    if let Some(shown) = shown {
        harmless(&shown);
    }
}

#[test]
fn records_of_dns_and_datagrams() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut query = [0; 1500];
        let (len, from) = socket.recv_from(&mut query).unwrap();
        let end = 12 + query[12..len].iter().position(|byte| *byte == 0).unwrap() + 5;
        let mut answer = [&query[..2], &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0], &query[12..end]].concat();
        let text = u8::try_from(HOSTILE.len()).unwrap();
        answer.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60, 0, text + 1, text]);
        answer.extend(HOSTILE);
        socket.send_to(&answer, from).unwrap();
    });
    let Some(record) = shown(&format!("dns example.org TXT --server {at}")) else { return };
    harmless(&record);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (_, from) = socket.recv_from(&mut [0; 9]).unwrap();
        socket.send_to(HOSTILE, from).unwrap();
    });
    harmless(&shown(&format!("udp {at} --count 1 --timeout 20s")).unwrap());
}
