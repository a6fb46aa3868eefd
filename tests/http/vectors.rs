//! What a server must answer to raw bytes: one meaning for everybody, or a refusal and the end of the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vitte_net::http::Server;

use crate::{echo, plain, raw, serve, soon, status};

const SMUGGLED: &str = "GET / HTTP/1.1\r\nHost: smuggled\r\n\r\n";

/// Requests that are refused: what is wrong with them, the bytes, the status.
const REFUSED: &[(&str, &str, u16)] = &[
    ("bare LF everywhere", "GET / HTTP/1.1\nHost: a\n\n", 400),
    ("bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    ("bare LF after a field", "GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
    ("bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    ("bare CR in a field", "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
    ("bare CR as a line end", "GET / HTTP/1.1\rHost: a\r\r", 400),
    ("NUL in a field", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
    ("NUL in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\0: a\r\n\r\n", 400),
    ("another control character", "GET / HTTP/1.1\r\nHost: a\r\nX: \x08\r\n\r\n", 400),
    ("DEL in a field", "GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", 400),
    ("a folded line", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
    ("a folded line by tab", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n", 400),
    ("a folded first line", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    (
        "a folded Transfer-Encoding",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("a blank before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    (
        "a blank before Content-Length's colon",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length : 1\r\n\r\na",
        400,
    ),
    (
        "a tab before the colon",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("a field without a colon", "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", 400),
    ("a field without a name", "GET / HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n", 400),
    ("a name with a separator", "GET / HTTP/1.1\r\nHost: a\r\nX(y): a\r\n\r\n", 400),
    ("a name beyond ASCII", "GET / HTTP/1.1\r\nHost: a\r\nX\u{e9}: a\r\n\r\n", 400),
    (
        "chunked twice",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "chunked in two fields",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "chunked and identity",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "chunked not last",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "another coding before chunked",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    ("identity", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 400),
    ("nearly chunked", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    (
        "chunked in quotes",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "chunked with a parameter",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "chunked after a vertical tab",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "a comma behind chunked",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("an empty Transfer-Encoding", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", 400),
    (
        "both framings",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "both framings, turned round",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "two lengths",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        400,
    ),
    (
        "the same length twice",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        400,
    ),
    ("a list of lengths", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na", 400),
    ("a signed length", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", 400),
    ("a negative length", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\na", 400),
    ("a hexadecimal length", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\na", 400),
    ("an empty length", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400),
    ("a length with a blank in it", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\na", 400),
    (
        "a length beyond 64 bits",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\na",
        400,
    ),
    ("chunked in HTTP/1.0", "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("no Host", "GET / HTTP/1.1\r\n\r\n", 400),
    ("an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("the same Host twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("a list of Hosts", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    ("a Host with a user", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
    ("a Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("a Host with a blank", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("a Host with a wild port", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
    ("a Host with a port too large", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400),
    ("a Host with half a bracket", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    ("a Host beyond ASCII", "GET / HTTP/1.1\r\nHost: \u{e9}\r\n\r\n", 400),
    ("a Host that is not the target's", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a target with a user", "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a target of another scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a target that is no path", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a target with a fragment", "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a target beyond ASCII", "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a star without OPTIONS", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 405),
    ("two blanks in the request line", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a tab in the request line", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a blank behind the version", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    ("a blank before the method", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a blank in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a method with a separator", "GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("no version", "GET /\r\nHost: a\r\n\r\n", 400),
    ("HTTP/0.9", "GET /\r\n\r\n", 400),
    ("HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    ("HTTP/2.0 in clothes of 1", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ("HTTP/3.0", "GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    ("a version in small letters", "GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    ("a version with a leading zero", "GET / HTTP/01.1\r\nHost: a\r\n\r\n", 400),
    (
        "an unknown expectation",
        "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: wonders\r\nContent-Length: 0\r\n\r\n",
        417,
    ),
    ("TLS", "\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
    ("a broken chunk size", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
    ("an empty chunk size", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", 400),
    (
        "a chunk size in C's words",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
        400,
    ),
    (
        "a signed chunk size",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n",
        400,
    ),
    (
        "a negative chunk size",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\na\r\n0\r\n\r\n",
        400,
    ),
    (
        "a blank before the chunk size",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n 1\r\na\r\n0\r\n\r\n",
        400,
    ),
    (
        "a blank behind the chunk size",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n",
        400,
    ),
    (
        "garbage behind the chunk size",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1 a\r\na\r\n0\r\n\r\n",
        400,
    ),
    (
        "a chunk size beyond 64 bits",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000001\r\na\r\n0\r\n\r\n",
        400,
    ),
    (
        "bare LF behind a chunk size",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
        400,
    ),
    (
        "bare LF behind a chunk",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\n0\r\n\r\n",
        400,
    ),
    (
        "a chunk longer than its size",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        400,
    ),
    (
        "bare LF in a chunk extension",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a\nb\r\na\r\n0\r\n\r\n",
        400,
    ),
    (
        "bare CR in a chunk extension",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a\rb\r\na\r\n0\r\n\r\n",
        400,
    ),
    (
        "NUL in a chunk extension",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a\0\r\na\r\n0\r\n\r\n",
        400,
    ),
    (
        "bare LF at the end of chunks",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\n",
        400,
    ),
    (
        "bare LF behind the last chunk",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\n\r\n",
        400,
    ),
    (
        "a trailer that changes the length",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n",
        400,
    ),
    (
        "a folded trailer",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: a\r\n b\r\n\r\n",
        400,
    ),
    (
        "a broken chunk nobody reads",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        400,
    ),
    (
        "a broken chunk to nowhere",
        "POST /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        400,
    ),
];

/// Each is refused with its status, once, and the connection ends although the client's side stays open. A
/// request behind it is never seen.
#[tokio::test]
async fn what_has_two_meanings_is_refused_and_the_connection_ends() {
    let seen = Arc::new(AtomicU64::new(0));
    let server = plain(echo(&seen)).await;
    for (what, bytes, expected) in REFUSED {
        let before = seen.load(Ordering::Relaxed);
        let answer = raw(server.local_addr(), format!("{bytes}{SMUGGLED}").as_bytes()).await;
        assert_eq!(status(&answer), Some(*expected), "{what}: {answer}");
        let answers = answer.lines().filter(|line| line.starts_with("HTTP/1.")).count();
        assert_eq!(answers, 1, "{what}: {answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{what}: {answer}");
        let handled = seen.load(Ordering::Relaxed) - before;
        let body_is_broken = bytes.contains("Transfer-Encoding: chunked\r\n\r\n");
        assert_eq!(handled, u64::from(body_is_broken && handled == 1), "{what}");
    }
}

/// Byte by byte, it is the same.
#[tokio::test]
async fn it_does_not_matter_how_the_bytes_come() {
    let server = plain(echo(&Arc::default())).await;
    for (what, bytes, expected) in REFUSED.iter().step_by(5) {
        let mut stream = TcpStream::connect(server.local_addr()).await.expect("it listens");
        stream.set_nodelay(true).expect("an option");
        let (mut read, mut write) = stream.split();
        let sending = async {
            for byte in bytes.as_bytes() {
                if write.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let mut answer = Vec::new();
        let ((), _) = tokio::join!(sending, soon(read.read_to_end(&mut answer)));
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(status(&answer), Some(*expected), "{what}: {answer}");
    }
}

/// What is allowed has exactly one meaning: how many answers come, and what is in them.
#[tokio::test]
async fn what_has_one_meaning_is_answered() {
    let accepted: &[(&str, &str, &[&str])] = &[
        ("a plain GET", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &["hello"]),
        ("an empty line before it", "\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &["hello"]),
        ("HTTP/1.0 without a Host", "GET / HTTP/1.0\r\n\r\n", &["hello"]),
        ("a Host with a port", "GET / HTTP/1.1\r\nHost: a:80\r\nConnection: close\r\n\r\n", &["hello"]),
        ("an IPv6 Host", "GET / HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n", &["hello"]),
        ("a whole URL", "GET http://a/ HTTP/1.1\r\nHost: A\r\nConnection: close\r\n\r\n", &["hello"]),
        ("no blank behind a colon", "GET / HTTP/1.1\r\nHost:a\r\nConnection:close\r\n\r\n", &["hello"]),
        (
            "names in any case",
            "POST /echo HTTP/1.1\r\nhOST: a\r\ncONTENT-lENGTH: 2\r\nConnection: close\r\n\r\nab",
            &["ab"],
        ),
        (
            "chunks",
            "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nConnection: close\r\n\r\n1;x=\"y\"\r\na\r\n002\r\nbc\r\n0\r\nX: y\r\n\r\n",
            &["abc"],
        ),
        (
            "two in a row",
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nabGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            &["ab", "hello"],
        ),
        (
            "chunks and another",
            "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            &["ab", "hello"],
        ),
        (
            "GET with a body",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nabGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            &["hello", "hello"],
        ),
    ];
    let server = plain(echo(&Arc::default())).await;
    for (what, bytes, bodies) in accepted {
        let answer = raw(server.local_addr(), bytes.as_bytes()).await;
        let answer = answer.replace("HTTP/1.0 ", "HTTP/1.1 ");
        let answers: Vec<&str> = answer.split("HTTP/1.1 200 OK\r\n").skip(1).collect();
        assert_eq!(answers.len(), bodies.len(), "{what}: {answer}");
        for (answer, body) in answers.iter().zip(*bodies) {
            assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{what}: {answer}");
        }
    }
}

/// A refusal keeps its place behind the answers to earlier requests.
#[tokio::test]
async fn a_refusal_comes_after_the_answers_before_it() {
    let server = plain(echo(&Arc::default())).await;
    let good = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab";
    let answer =
        raw(server.local_addr(), format!("{good}{good}GET / HTTP/1.1\r\n\r\n{good}").as_bytes()).await;
    let order: Vec<_> = answer.match_indices("HTTP/1.1 ").map(|(at, _)| &answer[at + 9..at + 12]).collect();
    assert_eq!(order, ["200", "200", "400"], "{answer}");
}

#[tokio::test]
async fn what_is_too_long_is_refused_and_holds_no_memory() {
    let server = plain(echo(&Arc::default())).await;
    let fill = |len| "a".repeat(len);
    let many: String = (0..200).map(|i| format!("X{i}: y\r\n")).collect();
    let extension = fill(8192);
    for (what, bytes, expected) in [
        ("a field", format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", fill(1 << 20)), 431),
        ("a name", format!("GET / HTTP/1.1\r\nHost: a\r\n{}: a\r\n\r\n", fill(1 << 20)), 431),
        ("many fields", format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        ("a target", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", fill(9000)), 414),
        ("a method", fill(1 << 20), 431),
        (
            "chunk extensions",
            format!(
                "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;{extension}\r\na\r\n0\r\n\r\n"
            ),
            400,
        ),
        (
            "trailers",
            format!(
                "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: {}\r\n\r\n",
                fill(1 << 16)
            ),
            400,
        ),
        ("a body", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n".to_owned(), 413),
    ] {
        let answer = raw(server.local_addr(), bytes.as_bytes()).await;
        assert_eq!(status(&answer), Some(expected), "{what}: {answer}");
    }
}

/// Slow clients are let go in their time: a silent one, one that stops in its head or in its body, and one that
/// waits too long for its next request.
#[tokio::test]
async fn slow_clients_are_let_go() {
    let short = Duration::from_millis(200);
    let builder = Server::builder().header_timeout(short).idle_timeout(short).body_timeout(short);
    let server = serve(builder, echo(&Arc::default())).await;
    for (what, bytes, expected) in [
        ("silence", "", None),
        ("half a head", "GET / HTTP/1.1\r\nHost: a\r\n", Some(408)),
        ("half a body", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab", Some(408)),
        (
            "half a chunk",
            "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nab",
            Some(408),
        ),
        ("no second request", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", Some(200)),
        ("half a second request", "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET", Some(200)),
        ("half a preface of HTTP/2", "PRI * HTTP/2.0\r\n", None),
    ] {
        let answer = raw(server.local_addr(), bytes.as_bytes()).await;
        assert_eq!(status(&answer), expected, "{what}: {answer}");
    }
}

/// A head that comes drop by drop takes no longer than one that does not come.
#[tokio::test]
async fn a_dripping_head_is_cut_at_its_time() {
    let builder = Server::builder().header_timeout(Duration::from_millis(300));
    let server = serve(builder, echo(&Arc::default())).await;
    let mut stream = TcpStream::connect(server.local_addr()).await.expect("it listens");
    let (mut read, mut write) = stream.split();
    let dripping = async {
        write.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX: ").await.expect("it takes bytes");
        while write.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        biased;
        _ = soon(read.read_to_end(&mut answer)) => {}
        () = dripping => {}
    }
    assert_eq!(status(&String::from_utf8_lossy(&answer)), Some(408));
}
