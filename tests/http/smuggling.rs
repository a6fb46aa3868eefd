//! More of what proxies and servers were seen to read in two ways: fields that hide a framing, numbers that C or
//! Python would take, chunk extensions that swallow a line (TERM.EXT), bodies that spill, trailers, targets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use vitte_net::http::{Body, Client, Protocol, Server};
use vitte_net::tls::ServerTls;

use crate::secure::{authority, trusting};
use crate::{echo, plain, raw, scripted, serve, soon, status};

const SMUGGLED: &[u8] = b"GET / HTTP/1.1\r\nHost: smuggled\r\n\r\n";

/// A POST with these further lines, and a body of which some of them would have a meaning.
fn fields(lines: &[u8]) -> Vec<u8> {
    [b"POST /echo HTTP/1.1\r\nHost: a\r\n", lines, b"\r\n\r\n0\r\n\r\n"].concat()
}

/// A POST with this chunked body.
fn chunks(body: &[u8]) -> Vec<u8> {
    [b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", body].concat()
}

/// A GET that begins so.
fn line(start: &[u8]) -> Vec<u8> {
    [start, b"\r\nHost: a\r\n\r\n"].concat()
}

fn host(host: &[u8]) -> Vec<u8> {
    [b"GET / HTTP/1.1\r\nHost: ", host, b"\r\n\r\n"].concat()
}

fn refused() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let framings: [&[u8]; 26] = [
        b"Transfer-Encoding: chunked\0",
        b"Transfer-Encoding: chunked\xa0",
        b"Transfer-Encoding: \x85chunked",
        b"Transfer-Encoding: chunked\x0c",
        b"Transfer-Encoding: chunked\r",
        b"Transfer-Encoding: ,chunked",
        b"Transfer-Encoding: chun\xe2\x84\xaaed",
        b"Transfer-Encoding: chun ked",
        b"Transfer-Encoding: 'chunked'",
        b"Transfer-Encoding: identity, chunked",
        b"Transfer-Encoding:\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding\xa0: chunked",
        b"\x01Transfer-Encoding: chunked",
        b"Content-Length: 1,",
        b"Content-Length: ,1",
        b"Content-Length: 1_0",
        b"Content-Length: 1e1",
        b"Content-Length: 1.0",
        b"Content-Length: \xd9\xa1",
        b"Content-Length: \"1\"",
        b"Content-Length: 1\0",
        b"Content-Length: 1\x0b",
        b"Content-Length: 1;a",
        b"Content-Length: -0",
        b"Content-Length: 0\r\nTransfer-Encoding: chunked",
        b"Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 1",
    ];
    all.extend(framings.map(fields));
    let bodies: [&[u8]; 21] = [
        b"2;\nxx\r\n47\r\n0\r\n\r\n",
        b"1;a=\"\r\n\"\r\na\r\n0\r\n\r\n",
        b"2\r\nab;\n0\r\n\r\n",
        b"5\r\nabcdeXX0\r\n\r\n",
        b"1\r\na0\r\n\r\n",
        b"1\r\r\na\r\n0\r\n\r\n",
        b"1\t;a\r\na\r\n0\r\n\r\n",
        b"1_0\r\naaaaaaaaaaaaaaaa\r\n0\r\n\r\n",
        b"ffffffffffffffff\r\na\r\n0\r\n\r\n",
        b"00000000000000001\r\na\r\n0\r\n\r\n",
        b"\xef\xbc\x91\r\na\r\n0\r\n\r\n",
        b"-0\r\n\r\n",
        b"0\r\nX: y\n\r\n",
        b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"0\r\nHost: b\r\n\r\n",
        b"0\r\nGET / HTTP/1.1\r\n\r\n",
        b"0\r\nX : y\r\n\r\n",
        b"0\r\nX: \0\r\n\r\n",
        b"0\r\nX: a\rb\r\n\r\n",
        b"0\r\n X: a\r\n\r\n",
        b"0;a\nb\r\n\r\n",
    ];
    all.extend(bodies.map(chunks));
    let lines: [&[u8]; 18] = [
        b"\nGET / HTTP/1.1",
        b"\xef\xbb\xbfGET / HTTP/1.1",
        b"\0GET / HTTP/1.1",
        b"GET\x0b/ HTTP/1.1",
        b"GET / \x0cHTTP/1.1",
        b"GET /\r HTTP/1.1",
        b"GET / HTTP/1.1 x",
        b"GET / HTTP/1.10",
        b"GET / HTTP/1,1",
        b"GET / HTTP/1.",
        b"GET / HTTPS/1.1",
        b"GET / HTTP/+1.1",
        b"GET http:///x HTTP/1.1",
        b"GET http://a\\@b/ HTTP/1.1",
        b"GET \\ HTTP/1.1",
        b"OPTIONS *x HTTP/1.1",
        b"PRI * HTTP/1.1",
        b"GET / HTTP/1.1\r\n\t",
    ];
    all.extend(lines.map(line));
    let hosts: [&[u8]; 10] = [
        b"a#b",
        b"a\\b",
        b"a%2eb",
        b"\"a\"",
        b"[fe80::1%25eth0]",
        b"[::1]a",
        b"a:80:80",
        b":80",
        b"[127.0.0.1]",
        b"a\r\nX: y\r\nhOsT: a",
    ];
    all.extend(hosts.map(host));
    all
}

/// One answer, which refuses, and the end; the request behind it is never seen.
#[tokio::test]
async fn nothing_is_smuggled() {
    let seen = Arc::new(AtomicU64::new(0));
    let server = plain(echo(&seen)).await;
    for bytes in refused() {
        let what = bytes.escape_ascii().to_string();
        let before = seen.load(Ordering::Relaxed);
        let answer = raw(server.local_addr(), &[&bytes, SMUGGLED].concat()).await;
        let answers = answer.matches("HTTP/1.1 ").count();
        assert!(answers == 1 && status(&answer).is_some_and(|status| status >= 400), "{what}: {answer}");
        // A handler may have begun before its body broke.
        let begun = u64::from(bytes.starts_with(b"POST /echo"));
        assert!(seen.load(Ordering::Relaxed) - before <= begun, "{what}: {answer}");
    }
}

/// Drops of a body, each in its time, take no longer than their number allows.
#[tokio::test]
async fn a_dripping_body_is_cut_at_its_time() {
    let builder = Server::builder().body_timeout(Duration::from_millis(500)).min_body_rate(1 << 20);
    let server = serve(builder, echo(&Arc::default())).await;
    for (head, drop) in
        [("Content-Length: 1000000", &b"a"[..]), ("Transfer-Encoding: chunked", b"1\r\na\r\n")]
    {
        let mut stream = TcpStream::connect(server.local_addr()).await.expect("it listens");
        let (mut read, mut write) = stream.split();
        let dripping = async {
            let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n");
            write.write_all(head.as_bytes()).await.expect("it takes bytes");
            while write.write_all(drop).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            std::future::pending::<()>().await;
        };
        let mut answer = Vec::new();
        let reading = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut answer);
        tokio::select! {
            biased;
            _ = soon(reading) => {}
            () = dripping => {}
        }
        assert_eq!(status(&String::from_utf8_lossy(&answer)), Some(408), "{head}");
    }
}

/// Drops of a body, each in its time, take no longer than their number allows.
#[tokio::test]
async fn a_dripping_body_is_cut_in_every_version() {
    let (root, chain, key) = authority("localhost");
    let tls = ServerTls::builder().certificate_pem(chain, key).build().expect("a server");
    let builder = Server::builder().tls(tls).http3(true);
    let builder = builder.body_timeout(Duration::from_millis(500)).min_body_rate(1 << 20);
    let server = serve(builder, echo(&Arc::default())).await;
    let client = Client::builder().tls(trusting(&root)).build();
    let url = format!("https://localhost:{}/echo", server.local_addr().port());
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Http3] {
        let drops = futures_util::stream::repeat(()).then(|()| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok("a".into())
        });
        let post = client.post(&url).protocol(protocol).body(Body::stream(drops, None));
        match soon(post.send()).await {
            Ok(response) => assert_eq!(response.status(), 408, "{protocol:?}"),
            Err(error) => assert!(!error.is_timeout(), "{protocol:?}: {error}"),
        }
    }
}

/// gzip of six times `hello `, with its sum and its length in the last eight bytes.
const GZIP: [u8; 29] = *b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xcb\x48\xcd\xc9\xc9\x57\xc8\xc0\x4b\x02\
    \x00\x25\x69\xe6\x1c\x24\x00\x00\x00";

fn response(head: &str, body: &[u8]) -> Vec<u8> {
    [b"HTTP/1.1 200 OK\r\n", head.as_bytes(), b"\r\n\r\n", body].concat()
}

fn coded(body: &[u8]) -> Vec<u8> {
    response(&format!("Content-Encoding: gzip\r\nContent-Length: {}", body.len()), body)
}

/// What is no success for a client: wrong sums, wrong lengths, numbers of other languages, heads of other protocols.
fn lies() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (21..29)
        .map(|at| {
            let mut wrong = GZIP;
            wrong[at] ^= 1;
            coded(&wrong)
        })
        .collect();
    all.push(coded(&[&GZIP[..], &GZIP[..20]].concat()));
    all.push(coded(&[&GZIP[..], b"garbage"].concat()));
    let short = format!("Content-Encoding: gzip\r\nContent-Length: {}", GZIP.len() - 4);
    all.push(response(&short, &GZIP));
    let chunked = format!("Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n{:x}", 20);
    all.push(response(&chunked, &[]));
    all.push(
        ["HTTP/1.1 199 x\r\n\r\n".repeat(100).as_bytes(), &response("Content-Length: 3", b"abc")].concat(),
    );
    for line in [
        "HTTP/1.1 099 x",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 -20 OK",
        "HTTP/1.1 +200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/1.10 200 OK",
        "HTTP/0.9 200 OK",
        "http/1.1 200 OK",
        "\u{feff}HTTP/1.1 200 OK",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1 200 OK\rX",
        "HTTP/1.1\t200 OK",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip",
        "HTTP/1.1 200 OK\r\nContent-Encoding: deflate",
    ] {
        all.push(format!("{line}\r\nContent-Length: 3\r\n\r\nabc").into_bytes());
    }
    for length in ["+3", "0x3", "3, 3", "3;a", "3_0", "", "\"3\"", "-0", "3\r\nContent-Length: 3"] {
        all.push(response(&format!("Content-Length: {length}"), b"abc"));
    }
    for coding in ["\x0bchunked", "gzip, chunked", "identity", "chunked\r\nTransfer-Encoding: chunked"] {
        all.push(response(&format!("Transfer-Encoding: {coding}"), b"3\r\nabc\r\n0\r\n\r\n"));
    }
    for body in [
        "+3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "3;\nx\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nnonsense\r\n\r\n",
        "3\r\nabc\r\n-0\r\n\r\n",
    ] {
        all.push(response("Transfer-Encoding: chunked", body.as_bytes()));
    }
    all
}

/// Whether the server ends the connection or leaves it open and silent.
#[tokio::test]
async fn no_such_answer_is_a_success() {
    let whole = async |answer: Vec<u8>, end: bool| {
        let at = scripted(answer, end).await;
        let client = Client::builder().timeout(Duration::from_secs(1)).build();
        let getting = async { client.get(format!("http://{at}/")).send().await?.bytes().await };
        soon(getting).await
    };
    assert_eq!(whole(coded(&GZIP), true).await.expect("nothing is wrong"), "hello ".repeat(6));
    let (ended, open) = (lies(), lies());
    for lie in ended {
        let outcome = whole(lie.clone(), true).await;
        assert!(outcome.is_err(), "{}: {outcome:?}", lie.escape_ascii());
    }
    let open = open.into_iter().map(async |lie| {
        let outcome = whole(lie.clone(), false).await;
        assert!(outcome.is_err(), "{}: {outcome:?}", lie.escape_ascii());
    });
    futures_util::future::join_all(open).await;
}
