//! Our client and servers that lie, break off, or never end.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;
use vitte_net::http::{Client, HttpError, HttpErrorKind};

use crate::{canned, scripted, soon};

/// All of one response, or why not.
async fn get(at: std::net::SocketAddr) -> Result<Vec<u8>, HttpError> {
    let client = Client::builder().timeout(Duration::from_secs(5)).build();
    let response = soon(client.get(format!("http://{at}/")).send()).await?;
    Ok(soon(response.bytes()).await?.to_vec())
}

/// Responses that are never a success, whether the server ends the connection or leaves it open.
const LIES: &[(&str, &str)] = &[
    ("nothing", ""),
    ("no HTTP", "hello\r\n\r\n"),
    ("half a head", "HTTP/1.1 200 OK\r\nContent-Le"),
    ("a body cut off", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"),
    ("no body", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
    ("more body than said", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabcde"),
    ("a body where none is due", "HTTP/1.1 204 No Content\r\n\r\nabcde"),
    ("chunks cut off", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc"),
    ("chunks without the last", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
    ("chunks without their end", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"),
    ("half an end of chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r"),
    ("a broken chunk size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n"),
    (
        "a chunk size beyond all",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc",
    ),
    (
        "bytes behind the chunks",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nmore",
    ),
    ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    ("a wild length", "HTTP/1.1 200 OK\r\nContent-Length: 3x\r\n\r\nabc"),
    ("a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc"),
    ("a length beyond all", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nabc"),
    (
        "both framings",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    ("chunked twice", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("another transfer coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc"),
    ("chunked in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("bare LF", "HTTP/1.1 200 OK\nContent-Length: 3\n\nabc"),
    ("a folded line", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: a\r\n b\r\n\r\nabc"),
    ("NUL in a field", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: \0\r\n\r\nabc"),
    ("a blank before a colon", "HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabc"),
    ("a status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 3\r\n\r\nabc"),
    ("a status beyond all", "HTTP/1.1 999 OK\r\nContent-Length: 3\r\n\r\nabc"),
    ("another protocol", "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc"),
    ("another version", "HTTP/2.0 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
    ("radio", "ICY 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
    (
        "a part nobody asked for",
        "HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-2/9\r\nContent-Length: 3\r\n\r\nabc",
    ),
    (
        "an interim response with a body",
        "HTTP/1.1 100 Continue\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "an unknown content coding",
        "HTTP/1.1 200 OK\r\nContent-Encoding: pigeon\r\nContent-Length: 3\r\n\r\nabc",
    ),
    ("no gzip", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"),
    ("empty gzip", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n"),
    ("empty br", "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 0\r\n\r\n"),
    ("empty zstd", "HTTP/1.1 200 OK\r\nContent-Encoding: zstd\r\nContent-Length: 0\r\n\r\n"),
    (
        "a coding in a coding",
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\nContent-Length: 3\r\n\r\nabc",
    ),
    (
        "a trailer that lies",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n",
    ),
];

#[tokio::test]
async fn no_lie_is_a_success() {
    for (what, answer) in LIES {
        let outcome = get(canned(*answer).await).await;
        assert!(outcome.is_err(), "{what}: {outcome:?}");
    }
}

/// The same with a server that leaves the connection open: nothing lasts beyond the time-out.
#[tokio::test]
async fn no_lie_lasts() {
    let mut asking = Vec::new();
    for (what, answer) in LIES {
        let at = scripted(*answer, false).await;
        asking.push(tokio::spawn(async move {
            let client = Client::builder().timeout(Duration::from_millis(700)).build();
            let begin = Instant::now();
            let outcome = async { client.get(format!("http://{at}/")).send().await?.bytes().await };
            let outcome = soon(outcome).await;
            assert!(outcome.is_err(), "{what}: {outcome:?}");
            assert!(begin.elapsed() < Duration::from_secs(5), "{what}");
        }));
    }
    for task in asking {
        task.await.expect("no panic");
    }
}

/// What is right stays right.
#[tokio::test]
async fn honest_answers_are_successes() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.0 200 OK\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2;x\r\nbc\r\n0\r\nX: y\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        assert_eq!(get(canned(answer).await).await.expect(answer), b"abc");
    }
}

/// A server that repeats `piece` behind `start` for ever.
async fn endless(start: &'static [u8], piece: &'static [u8]) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it has an address");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).await;
        let block = piece.repeat(16 * 1024 / piece.len() + 1);
        let _ = stream.write_all(start).await;
        while stream.write_all(&block).await.is_ok() {}
    });
    address
}

#[tokio::test]
async fn what_never_ends_is_ended() {
    for (what, start, piece) in [
        ("a head", &b"HTTP/1.1 200 OK\r\nX: "[..], &b"a"[..]),
        ("fields", b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        ("interim responses", b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        ("trailers", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
        ("a trailer", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"a"),
        ("a chunk extension", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a"),
        ("a chunk size", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
    ] {
        let begin = Instant::now();
        let error = get(endless(start, piece).await).await.expect_err(what);
        assert!(matches!(error.kind(), HttpErrorKind::Rules(_)), "{what}: {error:?}");
        assert!(begin.elapsed() < Duration::from_secs(4), "{what} is found by its length, not by its time");
    }
    let error = get(endless(b"HTTP/1.1 200 OK\r\n\r\n", b"abc").await).await.expect_err("a body");
    assert!(
        matches!(error.kind(), HttpErrorKind::TooLarge { .. } | HttpErrorKind::TimedOut { .. }),
        "{error:?}"
    );
}
