//! From a URL to a connection that speaks HTTP.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::pool::{Permit, Pool};
use super::received::FromHyper;
use super::request::Plan;
use super::settings::{Protocol, Proxy, Settings};
use crate::http::body::Body;
use crate::http::error::{HttpError, HttpErrorKind, Stage};
use crate::http::guard::head::{self, Scan};
use crate::http::guard::{Guard, HYPER_FIELDS, Line};
use crate::http::h3;
use crate::http::url::Url;
use crate::network::BoxStream;
use crate::tcp::TcpConnector;

/// Bytes of a proxy's answer to CONNECT, at most: 16 KiB.
const TUNNEL_HEAD_MAX: usize = 16 * 1024;
/// Bytes on their way on one stream, and on one connection, of HTTP/2: 1 MiB and 4 MiB.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// A silent HTTP/2 connection with requests on it is asked for a sign of life after so long, and given up
/// after so long without one.
const PING_AFTER: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Connections with the same key can stand for one another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    https: bool,
    host: String,
    port: u16,
    protocol: Protocol,
    /// The UDP port that speaks HTTP/3 for this origin (Alt-Svc, RFC 7838), where it is another one.
    alternative: Option<u16>,
}

impl Key {
    /// The same origin by HTTP/3 at another port.
    pub(super) fn by_h3(&self, port: u16) -> Self {
        Self { protocol: Protocol::Http3, alternative: Some(port), ..self.clone() }
    }

    pub(super) fn of(url: &Url, protocol: Protocol) -> Self {
        Self {
            https: url.is_https(),
            host: url.host().to_owned(),
            port: url.port(),
            protocol,
            alternative: None,
        }
    }
}

/// A connection, as hyper gives it.
#[derive(Debug)]
pub(super) enum Channel {
    H1 {
        sender: Http1,
        line: Arc<Line>,
        /// A proxy is asked: for whole URLs.
        absolute: bool,
    },
    H2 {
        sender: http2::SendRequest<Body>,
    },
    H3 {
        sender: h3::Sender,
    },
}

/// An HTTP/1.1 connection. Dropped between two exchanges it ends in good order, dropped within one it is cut: what
/// hyper still sends, a peer that does not read would keep for ever.
#[derive(Debug)]
pub(super) struct Http1 {
    sender: http1::SendRequest<Body>,
    task: AbortHandle,
}

impl Drop for Http1 {
    fn drop(&mut self) {
        if !self.sender.is_ready() {
            self.task.abort();
        }
    }
}

type Unsent = (HttpError, Option<Box<Request<Body>>>);

impl Channel {
    /// Sends a request and waits for the head of the response. A request of which nothing was sent comes back
    /// with the error.
    pub(super) async fn send(&mut self, request: Request<Body>) -> Result<Response<Body>, Unsent> {
        let sent = match self {
            Self::H1 { sender, .. } => sender.sender.try_send_request(request).await,
            Self::H2 { sender } => sender.try_send_request(request).await,
            Self::H3 { sender } => return sender.send(request).await,
        };
        match sent {
            Ok(response) => {
                let version = response.version();
                Ok(response.map(|incoming| FromHyper::body(incoming, version)))
            }
            Err(mut error) => {
                let unsent = error.take_message().map(Box::new);
                Err((HttpError::of_hyper(Stage::Exchange, &error.into_error()), unsent))
            }
        }
    }

    /// Another handle of a connection that many may use at one time.
    pub(super) fn share(&self) -> Option<Self> {
        match self {
            Self::H1 { .. } => None,
            Self::H2 { sender } => Some(Self::H2 { sender: sender.clone() }),
            Self::H3 { sender } => Some(Self::H3 { sender: sender.clone() }),
        }
    }

    /// Waits until it takes a request. False: it never will.
    pub(super) async fn ready(&mut self) -> bool {
        match self {
            Self::H1 { sender, .. } => sender.sender.ready().await.is_ok(),
            Self::H2 { sender } => sender.ready().await.is_ok(),
            Self::H3 { sender } => !sender.is_closed(),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::H1 { sender, .. } => sender.sender.is_closed(),
            Self::H2 { sender } => sender.is_closed(),
            Self::H3 { sender } => sender.is_closed(),
        }
    }
}

/// Makes a connection for `plan`.
pub(super) async fn dial(
    settings: &Settings,
    pool: &Arc<Pool>,
    key: &Key,
    plan: &Plan,
) -> Result<Channel, HttpError> {
    let mut until = Instant::now() + settings.connect_timeout;
    let mut after = settings.connect_timeout;
    if let Some((deadline, timeout)) = plan.rest.patience.total
        && deadline < until
    {
        (until, after) = (deadline, timeout);
    }
    let late = |stage, what| HttpError::new(stage, HttpErrorKind::TimedOut { what, after });
    let permit = timeout_at(until, pool.permit())
        .await
        .map_err(|_| late(Stage::Prepare, "waiting for one of the other connections to end"))?;
    let mut stage = Stage::Connect;
    match timeout_at(until, steps(settings, pool, key, plan, permit, &mut stage)).await {
        Ok(made) => made,
        Err(_) => Err(late(
            stage,
            match stage {
                Stage::Proxy => "the proxy's answer",
                Stage::Tls => "the TLS handshake",
                _ => "connecting",
            },
        )),
    }
}

async fn steps(
    settings: &Settings,
    pool: &Pool,
    key: &Key,
    plan: &Plan,
    permit: Permit,
    stage: &mut Stage,
) -> Result<Channel, HttpError> {
    if key.protocol == Protocol::Http3 {
        return speak_h3(settings, pool, key, permit).await;
    }
    let through = settings.proxy.as_ref();
    let (host, port) = through.map_or((&*key.host, key.port), |proxy| (proxy.url.host(), proxy.url.port()));
    let connector = TcpConnector::new()
        .network(Arc::clone(&settings.network))
        .options(settings.tcp.clone())
        .timeout(settings.connect_timeout);
    let stream = connector.connect((host, port)).await.map_err(|error| HttpError::new(*stage, error))?;
    let mut stream = stream.into_inner();
    if let Some(proxy) = through.filter(|_| key.https) {
        *stage = Stage::Proxy;
        tunnel(&mut stream, proxy, &plan.url).await?;
    }
    let mut h2 = key.protocol == Protocol::Http2;
    if key.https {
        *stage = Stage::Tls;
        let tls = settings.tls.of(key.protocol, &settings.network)?;
        let secured = tls.connect(&key.host, stream).await.map_err(|error| HttpError::new(*stage, error))?;
        let agreed = secured.alpn() == Some(b"h2");
        if h2 && !agreed {
            return Err(HttpError::rules(*stage, "the server does not speak HTTP/2"));
        }
        h2 = agreed;
        stream = Box::new(secured);
    }
    *stage = Stage::Exchange;
    if h2 { speak_h2(settings, stream, permit).await } else { speak_h1(settings, key, stream, permit).await }
}

async fn speak_h1(
    settings: &Settings,
    key: &Key,
    stream: BoxStream,
    permit: Permit,
) -> Result<Channel, HttpError> {
    let guard = Guard::client(stream, settings.limits());
    let line = guard.line();
    let mut builder = http1::Builder::new();
    // The guard has counted already.
    builder.max_buf_size(2 * settings.max_head);
    if settings.max_fields > HYPER_FIELDS {
        builder.max_headers(settings.max_fields);
    }
    let (sender, connection) = builder
        .handshake(TokioIo::new(guard))
        .await
        .map_err(|error| HttpError::of_hyper(Stage::Exchange, &error))?;
    let driving = tokio::spawn(async move {
        let _permit = permit;
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an HTTP/1 connection ended");
        }
    });
    let sender = Http1 { sender, task: driving.abort_handle() };
    Ok(Channel::H1 { sender, line, absolute: settings.proxy.is_some() && !key.https })
}

async fn speak_h2(settings: &Settings, stream: BoxStream, permit: Permit) -> Result<Channel, HttpError> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(settings.max_head).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| HttpError::of_hyper(Stage::Exchange, &error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an HTTP/2 connection ended");
        }
        drop(permit);
    });
    Ok(Channel::H2 { sender })
}

async fn speak_h3(settings: &Settings, pool: &Pool, key: &Key, permit: Permit) -> Result<Channel, HttpError> {
    let unusable = |why: &str| Err(HttpError::new(Stage::Prepare, HttpErrorKind::Unusable(why.to_owned())));
    if !key.https {
        return unusable("HTTP/3 is for https alone");
    }
    if settings.proxy.is_some() {
        return unusable("HTTP/3 does not go through a proxy");
    }
    let tls = settings.tls.of(Protocol::Http3, &settings.network)?;
    let port = key.alternative.unwrap_or(key.port);
    let dialled =
        h3::Sender::connect(&pool.endpoints, &settings.network, tls, &key.host, port, settings.max_head)
            .await?;
    tokio::spawn(async move {
        dialled.driver.await;
        drop(permit);
    });
    Ok(Channel::H3 { sender: dialled.sender })
}

/// Asks the proxy for a tunnel (RFC 9110, section 9.3.6).
async fn tunnel(stream: &mut BoxStream, proxy: &Proxy, url: &Url) -> Result<(), HttpError> {
    let broken = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => HttpError::new(Stage::Proxy, HttpErrorKind::Closed),
        _ => HttpError::new(Stage::Proxy, error),
    };
    let host = if url.host().contains(':') { format!("[{}]", url.host()) } else { url.host().to_owned() };
    let authority = format!("{host}:{}", url.port());
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some(value) = &proxy.authorization {
        // Base64 and a word: it is text. Writing to a string does not fail.
        let _ = write!(request, "Proxy-Authorization: {}\r\n", value.to_str().unwrap_or_default());
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let (mut answer, mut scan) = (Vec::with_capacity(512), Scan::default());
    let end = loop {
        let room = (TUNNEL_HEAD_MAX - answer.len()) as u64;
        if (&mut *stream).take(room).read_buf(&mut answer).await.map_err(broken)? == 0 {
            let long = answer.len() == TUNNEL_HEAD_MAX;
            let limit = TUNNEL_HEAD_MAX as u64;
            let long = long.then_some(HttpErrorKind::TooLarge { what: "an answer of the proxy", limit });
            return Err(HttpError::new(Stage::Proxy, long.unwrap_or(HttpErrorKind::Closed)));
        }
        match scan.end(&answer) {
            Ok(Some(end)) => break end,
            Ok(None) => {}
            Err(fault) => return Err(HttpError::rules(Stage::Proxy, fault.what)),
        }
    };
    let head =
        head::response(&answer[..end], 100).map_err(|fault| HttpError::rules(Stage::Proxy, fault.what))?;
    if !(200..300).contains(&head.status) {
        return Err(HttpError::new(Stage::Proxy, HttpErrorKind::ProxyRefused { status: head.status }));
    }
    // TLS begins with us: nobody has said anything yet.
    if answer.len() > end {
        return Err(HttpError::rules(Stage::Proxy, "bytes from the server before it was spoken to"));
    }
    Ok(())
}
