//! HTTP: a [`Client`] and a [`Server`] of HTTP/1.1 (RFC 9112), HTTP/2 (RFC 9113) and, with the feature `http3`, HTTP/3
//! (RFC 9114), and [`Download`]. They stand without the mesh, and every connection goes through a [`Network`](crate::network::Network).
//!
//! ```no_run
//! use vitte_net::http::{Client, Files, Request, Router, Server};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let hello = |_: Request| async { "hello\n" };
//! let router = Router::new().get("/hello", hello).nest("/docs", Files::new("target/doc"));
//! let serving = Server::bind("127.0.0.1:0").await?.serve(router);
//! let url = format!("http://{}/hello", serving.local_addr());
//! assert_eq!(Client::new().get(url).send().await?.success()?.text().await?, "hello\n");
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! **No false success.** A body ends without an error only when all of it is here: not after a cut, a reset, a
//! stream that ended without its end, a content coding that stops early or goes on too long. A `206` that nobody
//! asked for, a coding that nobody knows, bytes behind the end of a response are errors.
//!
//! **One meaning.** What two readers could read differently is refused, in requests and in responses alike: bare
//! LF and CR, folded lines, blanks before a colon, `Transfer-Encoding` that is not exactly `chunked` or stands
//! beside `Content-Length` or in HTTP/1.0, more than one or an unclear `Content-Length`, more than one or no
//! `Host`, a `Host` that is not the target's, NUL and other control characters, chunk sizes with anything but
//! digits. A server answers 400 (or 405, 408, 413, 414, 417, 431, 501, 505 where that says more) in its turn and ends the
//! connection; a client fails.
//!
//! **No hang, no flood.** Everything has a time-out or a bound:
//!
//! | what | client | server |
//! |---|---|---|
//! | connecting, TLS included | 30 s | 10 s for TLS |
//! | a head | 30 s, 64 KiB | 15 s, 16 KiB |
//! | fields of a head, and of trailers | 100 | 100 |
//! | trailers, chunk extensions | 8 KiB, 4 KiB | 8 KiB, 4 KiB |
//! | interim responses | 16 | - |
//! | a pause in a body, or in taking one | 30 s | 30 s |
//! | between requests | 60 s | 60 s |
//! | all of it | as asked | - |
//! | a body | as asked; 64 MiB in memory | 64 MiB |
//! | a coding | beyond 32 MiB at most 200 times what came; a window of 8 MiB | - |
//! | connections | 256, 32 of them idle | 4096 |
//! | streams of one connection of HTTP/2 or 3 | - | 128 |
//! | redirects | 0, as asked | - |
//!
//! # What it leaves to others
//!
//! Cookies, caches, HTML forms, HTTP/2 push, pipelining by the client, `Range` with several parts (the whole is
//! answered), content codings by the server. Other protocols on the same port begin with [`Request::upgrade`], WebSocket
//! with `Request::websocket` where the feature `ws` is on.
//!
//! # Layout
//!
//! - `url`, `body`, `error`: the vocabulary.
//! - `guard`: what stands before hyper's HTTP/1, and why.
//! - `client`: pool, proxy, redirects, codings, time-outs.
//! - `download`: files, resumed and checked.
//! - `server`: connections, routes, files.
//! - `h3`: HTTP/3, in both roles.

mod alarm;
mod body;
mod client;
mod download;
mod error;
mod guard;
#[cfg(feature = "http3")]
mod h3;
#[cfg(not(feature = "http3"))]
#[path = "h3_absent.rs"]
mod h3;
mod server;
mod url;

pub use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};

pub use self::body::Body;
pub use self::client::{Client, ClientBuilder, Protocol, Proxy, RequestBuilder, Response};
pub use self::download::{Checksum, Download, Downloaded, Progress};
pub use self::error::{Blame, HttpError, HttpErrorKind, Retry, Stage};
pub use self::server::{
    Files, Handler, IntoReply, Reply, Request, Router, Server, ServerBuilder, Serving, Symlinks, Upgrade,
};
pub use self::url::{IntoUrl, Url};
