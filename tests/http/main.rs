//! HTTP on real sockets: the client and the server with each other, each with raw and with hostile peers, and with
//! other people's programs.

#![allow(clippy::disallowed_methods, reason = "raw counterparts use tokio's sockets directly")]

mod chromium;
mod codings;
mod exchange;
mod files;
mod haproxy;
mod hostile;
mod limits;
mod nginx;
#[path = "../plain/port.rs"]
mod port;
mod secure;
mod simulated;
mod slow;
mod smuggling;
mod third;
mod third_rules;
mod vectors;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use vitte_net::http::{Body, Handler, HttpError, Reply, Request, Router, Server, ServerBuilder, Serving};

/// Long enough for anything that is not stuck.
const PATIENCE: Duration = Duration::from_secs(20);

/// The outcome of something that must not hang.
async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(PATIENCE, what).await.expect("it hangs")
}

/// Answers POST with its body and GET with a word, and counts the requests.
fn echo(seen: &Arc<AtomicU64>) -> Router {
    let (posts, gets) = (Arc::clone(seen), Arc::clone(seen));
    Router::new()
        .post("/echo", move |request: Request| {
            posts.fetch_add(1, Ordering::Relaxed);
            async move { Ok::<_, HttpError>(Reply::new(request.bytes(1 << 20).await?)) }
        })
        .get("/", move |request: Request| {
            gets.fetch_add(1, Ordering::Relaxed);
            async move {
                request.into_body().discard(1 << 16).await?;
                Ok::<_, HttpError>("hello")
            }
        })
}

async fn serve(builder: ServerBuilder, handler: impl Handler) -> Serving {
    builder.bind("127.0.0.1:0").await.expect("a port is free").serve(handler)
}

async fn plain(handler: impl Handler) -> Serving {
    serve(Server::builder(), handler).await
}

/// Sends bytes, and reads what comes back until the server ends the connection. Our side stays open.
async fn raw(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.expect("it listens");
    stream.write_all(bytes).await.expect("it takes bytes");
    let mut answer = Vec::new();
    // A reset at the end is an end.
    let _ = soon(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// A server that reads one request's head, says `answer`, and ends the connection.
async fn canned(answer: impl Into<Vec<u8>>) -> SocketAddr {
    scripted(answer, true).await
}

/// As [`canned`]; without `end` the connection stays open and silent afterwards.
async fn scripted(answer: impl Into<Vec<u8>>, end: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it has an address");
    let answer: Arc<Vec<u8>> = Arc::new(answer.into());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let _ = stream.write_all(&answer).await;
                if end {
                    let _ = stream.shutdown().await;
                }
                // Until the client has gone.
                while stream.read_buf(&mut head).await.unwrap_or(0) > 0 {
                    head.clear();
                }
            });
        }
    });
    address
}

/// A body that is a stream, in pieces.
fn pieces(piece: &'static [u8], count: usize) -> Body {
    let pieces = (0..count).map(move |_| Ok(piece.into()));
    Body::stream(futures_util::stream::iter(pieces), None)
}

/// The status of a raw answer.
fn status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}
