//! The client's side of the handshake (RFC 6455, section 4.1).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::http::header::{self, HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::http::{HeaderMap, StatusCode};

use super::deflate::{self, Agreed};
use super::head::{self, NoHead};
use super::proxy::Proxy;
use super::request::{only, tokens};
use super::url::WsUrl;
use super::{ConnectError, WebSocket, WsOptions};
use crate::network::{BoxStream, Network, OsNetwork, TcpOptions};
use crate::tcp::TcpConnector;
use crate::tls::ClientTls;

/// Header fields that the handshake writes itself.
const OWN: &[&str] = &[
    "host",
    "connection",
    "upgrade",
    "content-length",
    "transfer-encoding",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
    "sec-websocket-accept",
];

/// How a client makes a WebSocket.
#[derive(Clone, Debug)]
pub struct WsConnector {
    network: Arc<dyn Network>,
    tcp: TcpOptions,
    options: WsOptions,
    protocols: Vec<String>,
    headers: Vec<(String, String)>,
    tls: Option<ClientTls>,
    proxy: Option<String>,
}

impl Default for WsConnector {
    fn default() -> Self {
        Self {
            network: Arc::new(OsNetwork),
            tcp: TcpOptions::default(),
            options: WsOptions::default(),
            protocols: Vec::new(),
            headers: Vec::new(),
            tls: None,
            proxy: None,
        }
    }
}

impl WsConnector {
    /// A connector with the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The network to connect through, and the source of masks. Default: [`OsNetwork`].
    #[must_use]
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.network = network;
        self
    }

    /// Options of the socket below. Default: [`TcpOptions::default`].
    #[must_use]
    pub fn tcp(mut self, options: TcpOptions) -> Self {
        self.tcp = options;
        self
    }

    /// Limits and times. Default: [`WsOptions::default`].
    #[must_use]
    pub fn options(mut self, options: WsOptions) -> Self {
        self.options = options;
        self
    }

    /// The subprotocols to offer, the best first. The server takes one of them or none, see
    /// [`WebSocket::protocol`]. Default: none.
    #[must_use]
    pub fn protocols<T: Into<String>>(mut self, protocols: impl IntoIterator<Item = T>) -> Self {
        self.protocols = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a field to the request: `Authorization`, `Cookie`. Those that the handshake itself needs are not to
    /// be given.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The origin to state, as a browser would. Default: none.
    #[must_use]
    pub fn origin(self, origin: impl Into<String>) -> Self {
        self.header("Origin", origin)
    }

    /// The TLS of `wss://`. It is asked for `http/1.1`. Default: [`ClientTls::new`], the system's roots.
    #[must_use]
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The HTTP proxy to go through, by CONNECT (RFC 9110, section 9.3.6): `http://proxy.example:3128`, or with
    /// `user:password@` before the host. Default: none.
    #[must_use]
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.proxy = Some(url.into());
        self
    }

    /// Connects to `url`, such as `ws://example.org/chat` or `wss://example.org:8443/?room=1`, within
    /// `WsOptions::handshake_timeout` all of it: lookup, TCP, proxy, TLS and the WebSocket.
    ///
    /// # Errors
    /// Why there is no WebSocket. Nothing is tried twice, no redirection is followed.
    ///
    /// # Cancel safety
    /// Dropping the future gives all attempts up.
    pub async fn connect(&self, url: &str) -> Result<WebSocket, ConnectError> {
        let url = WsUrl::parse(url)?;
        let proxy = self.proxy.as_deref().map(Proxy::parse).transpose()?;
        let attempt = async {
            let stream = self.reach(&url, proxy.as_ref()).await?;
            self.shake(stream, &url.authority(), url.path()).await
        };
        // A future of its own in the heap: it is large.
        timeout(self.limit(), Box::pin(attempt)).await.unwrap_or(Err(ConnectError::TimedOut))
    }

    /// Makes a WebSocket of `stream`, which already leads to the server (and has its TLS), within
    /// `WsOptions::handshake_timeout`. `authority` is the server's host, with its port if that is not the usual
    /// one; `path` begins with a slash.
    ///
    /// # Errors
    /// Why there is no WebSocket.
    ///
    /// # Cancel safety
    /// The stream is gone when the future is dropped.
    pub async fn connect_over<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        authority: &str,
        path: &str,
    ) -> Result<WebSocket<S>, ConnectError> {
        timeout(self.limit(), self.shake(stream, authority, path))
            .await
            .unwrap_or(Err(ConnectError::TimedOut))
    }

    fn limit(&self) -> Duration {
        self.options.handshake_timeout
    }

    async fn reach(&self, url: &WsUrl, proxy: Option<&Proxy>) -> Result<BoxStream, ConnectError> {
        let tcp = TcpConnector::new().network(self.network.clone()).options(self.tcp.clone());
        let tcp = tcp.timeout(self.limit());
        let stream = match proxy {
            None => tcp.connect((url.host(), url.port())).await?.into_inner(),
            Some(proxy) => {
                let mut stream = tcp.connect(proxy.target()).await?.into_inner();
                proxy.tunnel(&mut stream, url, self.options.max_handshake).await?;
                stream
            }
        };
        if !url.is_secure() {
            return Ok(stream);
        }
        let tls = match &self.tls {
            Some(tls) => tls.clone(),
            None => ClientTls::new().map_err(|error| ConnectError::Request(error.to_string()))?,
        };
        Ok(Box::new(tls.with_alpn(["http/1.1"]).connect(url.host(), stream).await?))
    }

    async fn shake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        authority: &str,
        path: &str,
    ) -> Result<WebSocket<S>, ConnectError> {
        let Self { protocols, headers, options, network, .. } = self;
        shake(stream, authority, path, protocols, headers, options, network.clone()).await
    }
}

/// Asks for a WebSocket and reads the answer. The caller bounds the time.
pub(super) async fn shake<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    authority: &str,
    path: &str,
    protocols: &[String],
    headers: &[(String, String)],
    options: &WsOptions,
    network: Arc<dyn Network>,
) -> Result<WebSocket<S>, ConnectError> {
    let mut key = [0; 16];
    network.fill_random(&mut key);
    let key = BASE64.encode(&key);
    let request = Request { authority, path, protocols, headers, options, key: &key }.write()?;
    stream.write_all(&request).await?;
    stream.flush().await?;
    let (head, early) =
        head::read(&mut stream, options.max_handshake).await.map_err(|error| match error {
            NoHead::TooLong => ConnectError::HeadTooLong(options.max_handshake),
            NoHead::Unfinished => ConnectError::Answer("it ended before it was complete"),
            NoHead::BareLf => ConnectError::Answer("a line of it ends in LF without CR"),
            NoHead::Io(error) => error.into(),
        })?;
    let (protocol, agreed) = check_answer(&head, &key, protocols, options)?;
    Ok(WebSocket::new(stream, Some(network), options, agreed.as_ref(), protocol, early))
}

struct Request<'a> {
    authority: &'a str,
    path: &'a str,
    protocols: &'a [String],
    headers: &'a [(String, String)],
    options: &'a WsOptions,
    key: &'a str,
}

impl Request<'_> {
    fn write(&self) -> Result<Vec<u8>, ConnectError> {
        let mistake = |text: String| Err(ConnectError::Request(text));
        let Self { authority, path, protocols, headers, options, key } = self;
        let visible = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !visible(authority) || !visible(path) || !path.starts_with('/') {
            let place = format!("{authority}{path}");
            return mistake(format!("no place for a WebSocket: {}", place.escape_debug()));
        }
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        );
        if let Some(wrong) = protocols.iter().find(|name| HeaderName::try_from(name.as_str()).is_err()) {
            return mistake(format!("no name of a subprotocol: {}", wrong.escape_debug()));
        }
        if !protocols.is_empty() {
            request.push_str(&format!("Sec-WebSocket-Protocol: {}\r\n", protocols.join(", ")));
        }
        if let Some(deflate) = &options.deflate {
            request.push_str(&format!("Sec-WebSocket-Extensions: {}\r\n", deflate::offer(deflate)));
        }
        for (name, value) in *headers {
            let known = HeaderName::try_from(name.as_str());
            if known.is_err() || HeaderValue::try_from(value.as_str()).is_err() {
                return mistake(format!("no header field: {}: …", name.escape_debug()));
            }
            if OWN.iter().any(|own| own.eq_ignore_ascii_case(name)) {
                return mistake(format!("the header field {name} is the handshake's own"));
            }
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        Ok(request.into_bytes())
    }
}

/// RFC 6455, section 4.1, second list.
fn check_answer(
    head: &Bytes,
    key: &str,
    offered: &[String],
    options: &WsOptions,
) -> Result<(Option<String>, Option<Agreed>), ConnectError> {
    let response = match Response::try_parse(head) {
        Ok(Some((len, response))) if len == head.len() => response,
        _ => return Err(ConnectError::Answer("it is no HTTP/1.1")),
    };
    let headers = response.headers();
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        let status = response.status().as_u16();
        return Err(ConnectError::Refused { status, location: location.map(str::to_owned) });
    }
    let has = |name: HeaderName, wanted: &str| {
        tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
    };
    if !has(header::UPGRADE, "websocket") || !has(header::CONNECTION, "upgrade") {
        return Err(ConnectError::Answer("it switches to something else than a WebSocket"));
    }
    if only(headers, header::SEC_WEBSOCKET_ACCEPT) != Some(&derive_accept_key(key.as_bytes())) {
        return Err(ConnectError::Answer("it does not belong to this request"));
    }
    let extensions = headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS).iter();
    let extensions = extensions.map(|value| value.to_str().unwrap_or("?"));
    let agreed = deflate::check_answer(options.deflate.as_ref(), extensions).map_err(ConnectError::Answer)?;
    Ok((chosen(headers, offered)?, agreed))
}

/// The subprotocol that the server took: one that was offered, or none.
fn chosen(headers: &HeaderMap, offered: &[String]) -> Result<Option<String>, ConnectError> {
    if !headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL) {
        return Ok(None);
    }
    let named = only(headers, header::SEC_WEBSOCKET_PROTOCOL);
    match named.and_then(|named| offered.iter().find(|offered| *offered == named)) {
        Some(protocol) => Ok(Some(protocol.clone())),
        None => Err(ConnectError::Answer("a subprotocol that nobody asked for")),
    }
}

#[cfg(test)]
mod tests;
