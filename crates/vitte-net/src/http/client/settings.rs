//! How a [`Client`] is set up.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderValue;

use super::Client;
use crate::http::error::{HttpError, HttpErrorKind, Stage};
use crate::http::guard::Limits;
use crate::http::url::{IntoUrl, Url};
use crate::network::{Network, OsNetwork, TcpOptions};
use crate::tls::{ClientTls, TlsSetupError};

/// Which version of HTTP is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Protocol {
    /// HTTP/2 where TLS agrees on it (ALPN), otherwise HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2 alone; without TLS by prior knowledge (RFC 9113, section 3.3).
    Http2,
    /// HTTP/3 alone, over QUIC (RFC 9114); for `https` without a proxy.
    Http3,
}

/// A proxy of HTTP: `https` goes through a tunnel (CONNECT, RFC 9110, section 9.3.6), `http` by asking for the
/// whole URL (RFC 9112, section 3.2.2).
#[derive(Clone, Debug)]
pub struct Proxy {
    pub(super) url: Url,
    pub(super) authorization: Option<HeaderValue>,
}

impl Proxy {
    /// A proxy at an `http` URL such as `http://user:password@proxy.example:3128`.
    ///
    /// # Errors
    /// It is no URL of http.
    pub fn new(url: impl IntoUrl) -> Result<Self, HttpError> {
        let mut url = url.into_url()?;
        let credentials = url.take_credentials();
        let wrong = |why: String| HttpError::new(Stage::Prepare, HttpErrorKind::Unusable(why));
        if url.is_https() {
            return Err(wrong(format!("{url}: a proxy is reached by http")));
        }
        let authorization = match credentials {
            None => None,
            Some(text) => {
                let mut value = HeaderValue::try_from(text).map_err(|error| wrong(error.to_string()))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Self { url, authorization })
    }
}

/// The TLS of a client, made when it is first needed: a client of `http` needs no root certificates.
#[derive(Debug)]
pub(super) struct Tls {
    chosen: Option<ClientTls>,
    /// By what is asked for: HTTP/2 or HTTP/1.1, HTTP/1.1, HTTP/2.
    made: OnceLock<[ClientTls; 3]>,
}

impl Tls {
    pub(super) fn of(&self, protocol: Protocol, network: &Arc<dyn Network>) -> Result<&ClientTls, HttpError> {
        if self.made.get().is_none() {
            let tls = match &self.chosen {
                Some(tls) => tls.clone(),
                None => ClientTls::builder().network(Arc::clone(network)).build().map_err(setup)?,
            };
            // Whoever was first is as good.
            let _ = self.made.set([
                tls.with_alpn(["h2", "http/1.1"]),
                tls.with_alpn(["http/1.1"]),
                tls.with_alpn(["h2"]),
            ]);
        }
        let which = match protocol {
            Protocol::Auto => 0,
            Protocol::Http1 => 1,
            Protocol::Http2 => 2,
            // QUIC asks for its own.
            Protocol::Http3 => 0,
        };
        let missing = || HttpError::new(Stage::Tls, HttpErrorKind::Unusable("no TLS".to_owned()));
        self.made.get().and_then(|made| made.get(which)).ok_or_else(missing)
    }
}

/// What a [`Client`] goes by.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) network: Arc<dyn Network>,
    pub(super) tcp: TcpOptions,
    pub(super) tls: Tls,
    pub(super) proxy: Option<Proxy>,
    pub(super) connect_timeout: Duration,
    pub(super) head_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) timeout: Option<Duration>,
    pub(super) redirects: u32,
    pub(super) max_body: u64,
    pub(super) max_head: usize,
    pub(super) max_fields: usize,
    pub(super) decode: bool,
    pub(super) protocol: Protocol,
    pub(super) alt_svc: bool,
    pub(super) user_agent: Option<HeaderValue>,
    pub(super) pool_idle: usize,
    pub(super) pool_idle_time: Duration,
    pub(super) connections: usize,
}

impl Settings {
    pub(super) fn limits(&self) -> Limits {
        Limits {
            head: self.max_head,
            fields: self.max_fields,
            head_time: self.head_timeout,
            idle_time: self.pool_idle_time,
            body_time: self.idle_timeout,
            body_rate: 0,
        }
    }
}

/// How a [`Client`] is set up.
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    network: Arc<dyn Network>,
    tcp: TcpOptions,
    tls: Option<ClientTls>,
    proxy: Option<Proxy>,
    connect_timeout: Duration,
    head_timeout: Duration,
    idle_timeout: Duration,
    timeout: Option<Duration>,
    redirects: u32,
    max_body: u64,
    max_head: usize,
    decode: bool,
    protocol: Protocol,
    alt_svc: bool,
    user_agent: Option<HeaderValue>,
    pool_idle: usize,
    pool_idle_time: Duration,
    connections: usize,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            network: Arc::new(OsNetwork),
            tcp: TcpOptions::default(),
            tls: None,
            proxy: None,
            connect_timeout: Duration::from_secs(30),
            head_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
            timeout: None,
            redirects: 0,
            max_body: u64::MAX,
            max_head: 64 * 1024,
            decode: true,
            protocol: Protocol::Auto,
            alt_svc: false,
            user_agent: Some(HeaderValue::from_static(concat!("vitte-net/", env!("CARGO_PKG_VERSION")))),
            pool_idle: 32,
            pool_idle_time: Duration::from_secs(60),
            connections: 256,
        }
    }
}

impl ClientBuilder {
    /// The network to connect through. Default: [`OsNetwork`].
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.network = network;
        self
    }

    /// Options of the sockets. Default: [`TcpOptions::default`].
    pub fn tcp_options(mut self, options: TcpOptions) -> Self {
        self.tcp = options;
        self
    }

    /// Whom to trust in https, and what to show. Its application protocols are chosen by
    /// [`protocol`](Self::protocol). Default: the system's root certificates.
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The proxy to go through. Default: none; the environment is not asked.
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// How long lookup, TCP, proxy and TLS together may take. Default: 30 seconds.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long the server may take to answer, counted from when the last byte of the request was taken.
    /// Default: 30 seconds.
    pub fn head_timeout(mut self, timeout: Duration) -> Self {
        self.head_timeout = timeout;
        self
    }

    /// How long a body may stand still. Default: 30 seconds.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// How long one request may take in all, redirects and the body of the response included. Default: none,
    /// the other time-outs hold.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How many redirects are followed, where a request does not say otherwise. Never from https to http, and
    /// to another origin without credentials. Default: 0, redirects are responses like others.
    pub fn redirects(mut self, most: u32) -> Self {
        self.redirects = most;
        self
    }

    /// Bytes of the body of a response, after its content coding is undone, at most. Default: no limit for
    /// bodies that are read in pieces, 64 MiB for [`Response::bytes`](super::Response::bytes).
    pub fn max_body(mut self, bytes: u64) -> Self {
        self.max_body = bytes;
        self
    }

    /// Bytes of the head of a response, at most; at least 8 KiB are taken. Default: 64 KiB.
    pub fn max_head(mut self, bytes: usize) -> Self {
        self.max_head = bytes.max(8 * 1024);
        self
    }

    /// Whether gzip, br and zstd are asked for and undone. Default: yes.
    pub fn decode(mut self, decode: bool) -> Self {
        self.decode = decode;
        self
    }

    /// Which version of HTTP is spoken. Default: [`Protocol::Auto`].
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Whether a server that says it speaks HTTP/3 as well (Alt-Svc, RFC 7838; on the same host) is asked by it from
    /// then on, where [`Protocol::Auto`] is asked for. If it cannot be reached so, TCP is used again. Default: no.
    pub fn alt_svc(mut self, follow: bool) -> Self {
        self.alt_svc = follow;
        self
    }

    /// What the client calls itself (RFC 9110, section 10.1.5). Default: `vitte-net/` and the version.
    pub fn user_agent(mut self, name: Option<HeaderValue>) -> Self {
        self.user_agent = name;
        self
    }

    /// Connections that are kept for later requests, at most, and how long they may wait for one. Default: 32
    /// and 60 seconds.
    pub fn pool(mut self, idle: usize, time: Duration) -> Self {
        (self.pool_idle, self.pool_idle_time) = (idle, time);
        self
    }

    /// Connections at one time, those in the pool included; at least 1. A request beyond waits, for as long as
    /// connecting may take. Default: 256.
    pub fn max_connections(mut self, most: usize) -> Self {
        self.connections = most.max(1);
        self
    }

    /// The client. Root certificates are read when the first `https` URL is asked for.
    #[must_use]
    pub fn build(self) -> Client {
        Client::of(Settings {
            tls: Tls { chosen: self.tls, made: OnceLock::new() },
            network: self.network,
            tcp: self.tcp,
            proxy: self.proxy,
            connect_timeout: self.connect_timeout,
            head_timeout: self.head_timeout,
            idle_timeout: self.idle_timeout,
            timeout: self.timeout,
            redirects: self.redirects,
            max_body: self.max_body,
            max_head: self.max_head,
            max_fields: 100,
            decode: self.decode,
            protocol: self.protocol,
            alt_svc: self.alt_svc,
            user_agent: self.user_agent,
            pool_idle: self.pool_idle,
            pool_idle_time: self.pool_idle_time,
            connections: self.connections,
        })
    }
}

fn setup(error: TlsSetupError) -> HttpError {
    HttpError::new(Stage::Tls, HttpErrorKind::Unusable(error.to_string()))
}
