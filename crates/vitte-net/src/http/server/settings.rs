//! How a [`Server`] is set up.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use http::HeaderValue;

use super::Server;
use crate::http::guard::Limits;
use crate::http::h3;
use crate::network::{Network, OsNetwork, Target, TcpOptions};
use crate::tls::ServerTls;

/// What a [`Server`] goes by.
#[derive(Debug)]
pub(in crate::http) struct Settings {
    pub(super) tls: Option<ServerTls>,
    pub(in crate::http) limits: Limits,
    pub(super) max_body: u64,
    pub(super) max_connections: usize,
    pub(super) hosts: Vec<String>,
    pub(super) http2: bool,
    /// Where else the same is served, by HTTP/3.
    pub(super) alt_svc: Option<HeaderValue>,
    pub(super) clock: Clock,
}

/// How much of the time for a head is kept for the answer to who is late, at most.
const LAST_WORD: Duration = Duration::from_millis(100);

/// The date in responses, from the network's clock, written once a second.
#[derive(Debug)]
pub(super) struct Clock {
    network: Arc<dyn Network>,
    /// It is the system's: hyper's HTTP/1 writes the same date for less.
    pub(super) is_systems: bool,
    written: Mutex<(u64, HeaderValue)>,
}

impl Clock {
    pub(super) fn date(&self) -> HeaderValue {
        let now = self.network.wall_clock();
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.0 != second {
            // A date is text.
            let text = HeaderValue::try_from(httpdate::fmt_http_date(now));
            *written = (second, text.unwrap_or(HeaderValue::from_static("")));
        }
        written.1.clone()
    }
}

/// How a [`Server`] is set up.
#[derive(Clone, Debug)]
#[must_use]
pub struct ServerBuilder {
    network: Arc<dyn Network>,
    systems_clock: bool,
    tcp: TcpOptions,
    tls: Option<ServerTls>,
    header_timeout: Duration,
    idle_timeout: Duration,
    body_timeout: Duration,
    min_body_rate: u64,
    max_head: usize,
    max_body: u64,
    max_connections: usize,
    hosts: Vec<String>,
    http2: bool,
    http3: bool,
}

impl Default for ServerBuilder {
    fn default() -> Self {
        Self {
            network: Arc::new(OsNetwork),
            systems_clock: true,
            tcp: TcpOptions::default(),
            tls: None,
            header_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            min_body_rate: 256,
            max_head: 16 * 1024,
            max_body: 64 << 20,
            max_connections: 4096,
            hosts: Vec::new(),
            http2: true,
            http3: false,
        }
    }
}

impl ServerBuilder {
    /// The network to listen on. Default: [`OsNetwork`].
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.network = network;
        self.systems_clock = false;
        self
    }

    /// Options of the sockets. Default: [`TcpOptions::default`].
    pub fn tcp_options(mut self, options: TcpOptions) -> Self {
        self.tcp = options;
        self
    }

    /// Serves `https`. The application protocols are chosen by [`http2`](Self::http2). Default: `http`.
    pub fn tls(mut self, tls: ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// How long the head of a request may take from its first byte, and the first head of a connection from
    /// the connection's beginning, TLS included. A client that is slower is told 408, a hundredth of it or 100 ms
    /// earlier, so that the answer and our end of the connection are sent within the time. Default: 15 seconds.
    pub fn header_timeout(mut self, timeout: Duration) -> Self {
        self.header_timeout = timeout;
        self
    }

    /// How long a connection may wait for its next request. Default: 60 seconds.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// How long a client may let the body of a request stand still, or not take bytes of a response. Default:
    /// 30 seconds.
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.body_timeout = timeout;
        self
    }

    /// Bytes a second in which the body of a request must come at least, beyond a first
    /// [`body_timeout`](Self::body_timeout) that every client is granted. Only the time counts that passes
    /// from when the server asks for a piece until it has one. A client that drips is told 408, or its stream is reset. 0 is no
    /// minimum, as endless bodies with pauses need it. Default: 256.
    pub fn min_body_rate(mut self, bytes: u64) -> Self {
        self.min_body_rate = bytes;
        self
    }

    /// Bytes of the head of a request, at most; 8 KiB at least are taken. Longer ones are told 431. Default:
    /// 16 KiB, and 100 fields.
    pub fn max_head(mut self, bytes: usize) -> Self {
        self.max_head = bytes.max(8 * 1024);
        self
    }

    /// Bytes of the body of a request, at most. Longer ones are told 413. Default: 64 MiB.
    pub fn max_body(mut self, bytes: u64) -> Self {
        self.max_body = bytes;
        self
    }

    /// Connections at one time, at most; at least 1. Others wait to be accepted. Default: 4096.
    pub fn max_connections(mut self, most: usize) -> Self {
        self.max_connections = most.clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
        self
    }

    /// The hosts that this server is, without port. A request for another one is told 421. Default: any.
    pub fn hosts<H: Into<String>>(mut self, hosts: impl IntoIterator<Item = H>) -> Self {
        self.hosts = hosts.into_iter().map(|host| host.into().to_ascii_lowercase()).collect();
        self
    }

    /// Whether HTTP/2 is spoken: in TLS by agreement (ALPN), without TLS by prior knowledge (RFC 9113,
    /// section 3.3). Default: yes.
    pub fn http2(mut self, speak: bool) -> Self {
        self.http2 = speak;
        self
    }

    /// Whether HTTP/3 is spoken at the same port, by UDP, and offered by `Alt-Svc` to those who come by TCP.
    /// It needs [`tls`](Self::tls). Default: no.
    pub fn http3(mut self, speak: bool) -> Self {
        self.http3 = speak;
        self
    }

    /// Listens at the first address of `at` that can be taken.
    ///
    /// # Errors
    /// What [`Target::resolve`] says, or the last address's error, naming that address. HTTP/3 without TLS.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no listener behind.
    pub async fn bind(self, at: impl Into<Target>) -> io::Result<Server> {
        let at = at.into();
        let mut bound = Err(io::Error::new(io::ErrorKind::NotFound, format!("no address for {at}")));
        for address in at.resolve(&*self.network).await? {
            bound = self.network.listen_tcp(address, &self.tcp).await.map_err(|error| {
                io::Error::new(error.kind(), format!("cannot listen at {address}: {error}"))
            });
            if bound.is_ok() {
                break;
            }
        }
        let listener = bound?;
        let address = listener.local_addr()?;
        let h3 = match (&self.tls, self.http3) {
            (_, false) => None,
            (Some(tls), true) => Some(h3::Listening::bind(address, &self.network, tls).await?),
            (None, true) => return Err(io::Error::new(io::ErrorKind::InvalidInput, "HTTP/3 needs TLS")),
        };
        let alt_svc = h3.as_ref().map(|_| format!("h3=\":{}\"; ma=3600", address.port()));
        let protocols: &[&str] = if self.http2 { &["h2", "http/1.1"] } else { &["http/1.1"] };
        let settings = Settings {
            tls: self.tls.map(|tls| tls.with_alpn(protocols.iter().copied())),
            limits: Limits {
                head: self.max_head,
                fields: 100,
                // Whoever is late is told so, and gone, within the time.
                head_time: self.header_timeout - (self.header_timeout / 100).min(LAST_WORD),
                idle_time: self.idle_timeout,
                body_time: self.body_timeout,
                body_rate: self.min_body_rate,
            },
            max_body: self.max_body,
            max_connections: self.max_connections,
            hosts: self.hosts,
            http2: self.http2,
            // A port is text.
            alt_svc: alt_svc.and_then(|text| HeaderValue::try_from(text).ok()),
            clock: Clock {
                network: self.network,
                is_systems: self.systems_clock,
                written: Mutex::new((0, HeaderValue::from_static(""))),
            },
        };
        Ok(Server { listener, h3, address, settings: Arc::new(settings) })
    }
}
