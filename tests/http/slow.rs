//! Clients that are slow, and many of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::Instant;
use vitte_net::http::{Client, Server};
use vitte_net::network::{Network, OsNetwork, TcpOptions};
use vitte_net::tls::ServerTls;

use crate::secure::{authority, trusting};
use crate::{echo, serve, soon};

/// The beginning of a ClientHello.
const HALF_A_HELLO: &[u8] = b"\x16\x03\x01\x01\x00\x01\x00\x00\xfc\x03\x03";

/// How far a client goes before it falls silent.
#[derive(Clone, Copy)]
enum Phase {
    /// Not a byte.
    Connected,
    HalfAHello,
    /// TLS stands, for HTTP/2, and nothing is said.
    Secured,
    /// TLS stands, and half a request is there.
    HalfAHead,
}

/// 40 clients that stop half-way and 100 that say nothing do not hold up others, and are gone in their time. With
/// `VITTE_BOUNDS=long` 400 and 1,000, and the time is that of the defaults.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_slow_handshakes_are_in_nobodys_way() {
    let long = std::env::var("VITTE_BOUNDS").is_ok_and(|form| form == "long");
    let (halves, idle, limit) = if long { (400, 1000, 15) } else { (40, 100, 2) };
    let limit = Duration::from_secs(limit);
    let (root, chain, key) = authority("localhost");
    let tls = ServerTls::builder().certificate_pem(chain, key).build().expect("a server");
    let server = serve(Server::builder().tls(tls).header_timeout(limit), echo(&Arc::default())).await;
    let at = server.local_addr();
    let phases = [Phase::HalfAHello, Phase::Secured, Phase::HalfAHead, Phase::HalfAHello];
    let mut standing = JoinSet::new();
    for number in 0..halves + idle {
        let phase = if number < halves { phases[number % phases.len()] } else { Phase::Connected };
        let begun = Instant::now();
        let mut stream =
            soon(OsNetwork::new().connect_tcp(at, &TcpOptions::default())).await.expect("it listens");
        match phase {
            Phase::Connected => {}
            Phase::HalfAHello => stream.write_all(HALF_A_HELLO).await.expect("it takes bytes"),
            Phase::Secured | Phase::HalfAHead => {
                let (protocol, said) = match phase {
                    Phase::Secured => ("h2", ""),
                    _ => ("http/1.1", "GET / HTTP/1.1\r\nHost: localhost\r\n"),
                };
                let secured = trusting(&root).with_alpn([protocol]).connect("localhost", stream).await;
                stream = secured.expect("TLS").into_box();
                stream.write_all(said.as_bytes()).await.expect("it takes bytes");
                stream.flush().await.expect("it takes bytes");
            }
        }
        standing.spawn(async move {
            while stream.read(&mut [0; 256]).await.is_ok_and(|read| read > 0) {}
            begun.elapsed()
        });
    }
    let mut times = Vec::new();
    let tls = trusting(&root);
    for _ in 0..if long { 200 } else { 10 } {
        let begun = Instant::now();
        let client = Client::builder().tls(tls.clone()).build();
        let hello = soon(client.get(format!("https://localhost:{}/", at.port())).send()).await;
        assert_eq!(hello.expect("an answer").text().await.expect("a body"), "hello");
        times.push(begun.elapsed());
    }
    times.sort();
    let (middle, worst) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    let mut last = Duration::ZERO;
    while let Some(ended) = standing.join_next().await {
        last = last.max(ended.expect("no panic"));
    }
    println!(
        "{halves} half-open and {idle} idle: a new client is answered in {middle:?} (p50), {worst:?} (p99); the \
         last was let go after {last:?}"
    );
    // On a busy machine a timer rings late.
    assert!(last < limit + Duration::from_secs(2), "{last:?}");
    assert!(!long || cfg!(debug_assertions) || worst < Duration::from_millis(50), "{worst:?}");
}
