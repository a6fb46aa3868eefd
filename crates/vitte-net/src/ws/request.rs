//! The request for a WebSocket as a server sees it (RFC 6455, section 4.2): pure functions of a head.

use std::fmt;

use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::Request;
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue, Method, Uri, Version, header};

use super::deflate::{self, Agreed, Deflate};

/// Which pages of the web may open WebSockets here. A browser says in `Origin` which page asks, and sends that
/// server's cookies with it: a server that goes by cookies must look (RFC 6455, section 10.2). A request without
/// `Origin` is from no browser and passes: who writes his own requests could write any origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origins {
    /// Pages of this server alone: the origin's host and port are those of the request's `Host`, which a proxy
    /// between must pass on. The default.
    #[default]
    SameHost,
    /// These origins alone, as a browser writes them: `https://example.org`, `http://localhost:8080`.
    Only(Vec<String>),
    /// All of them.
    Any,
}

impl Origins {
    fn allow(&self, origin: &str, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(list) => list.iter().any(|listed| normal(listed) == normal(origin)),
            Self::SameHost => match normal(origin).split_once("://") {
                Some((scheme, authority)) => {
                    without_default_port(scheme, &host.to_ascii_lowercase()) == authority
                }
                None => false,
            },
        }
    }
}

/// Scheme and host are the same in any case, and a port that goes without saying is not said.
fn normal(origin: &str) -> String {
    let origin = origin.trim().to_ascii_lowercase();
    match origin.split_once("://") {
        Some((scheme, authority)) => format!("{scheme}://{}", without_default_port(scheme, authority)),
        None => origin,
    }
}

fn without_default_port<'a>(scheme: &str, authority: &'a str) -> &'a str {
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return authority,
    };
    authority.strip_suffix(port).unwrap_or(authority)
}

/// A client's request, for who decides by it.
#[derive(Clone, Debug)]
pub struct WsRequest {
    uri: Uri,
    headers: HeaderMap,
}

impl WsRequest {
    /// The path that is asked for, which begins with a slash.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// What follows the question mark.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.uri.query()
    }

    /// The first value of a header field, if it is visible ASCII.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The page that asks, in a browser.
    #[must_use]
    pub fn origin(&self) -> Option<&str> {
        self.header("origin")
    }

    /// The client offers this subprotocol.
    #[must_use]
    pub fn offers(&self, protocol: &str) -> bool {
        tokens(&self.headers, header::SEC_WEBSOCKET_PROTOCOL).any(|offered| offered == protocol)
    }
}

/// Why a request gets another answer than a WebSocket, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub(super) status: u16,
    pub(super) why: &'static str,
    header: Option<(&'static str, &'static str)>,
}

impl Refusal {
    /// An answer with this status (RFC 9110, section 15), 400 to 599, and the reason for the log.
    #[must_use]
    pub fn new(status: u16, why: &'static str) -> Self {
        Self { status: status.clamp(400, 599), why, header: None }
    }

    fn with(status: u16, why: &'static str, name: &'static str, value: &'static str) -> Self {
        Self { status, why, header: Some((name, value)) }
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// What was wrong with the request.
    #[must_use]
    pub fn why(&self) -> &'static str {
        self.why
    }

    /// The header field that the answer must have beside the usual ones, with its value.
    #[must_use]
    pub fn header(&self) -> Option<(&'static str, &'static str)> {
        self.header
    }

    /// The whole answer, after which the connection ends.
    pub(super) fn answer(&self) -> String {
        let reason = match self.status {
            400 => "Bad Request",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            426 => "Upgrade Required",
            431 => "Request Header Fields Too Large",
            503 => "Service Unavailable",
            505 => "HTTP Version Not Supported",
            _ => "Refused",
        };
        let field = self.header.map(|(name, value)| format!("{name}: {value}\r\n")).unwrap_or_default();
        format!("HTTP/1.1 {} {reason}\r\n{field}Content-Length: 0\r\nConnection: close\r\n\r\n", self.status)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.why)
    }
}

/// What a server agrees to: the answer 101, and how the WebSocket behind it works. See
/// [`WsAcceptor::check`](super::WsAcceptor::check).
#[derive(Clone, Debug)]
pub struct Agreement {
    headers: HeaderMap,
    pub(super) protocol: Option<String>,
    pub(super) agreed: Option<Agreed>,
}

impl Agreement {
    /// The header fields of the answer 101, all that are needed: `Connection`, `Upgrade`,
    /// `Sec-WebSocket-Accept`, and what was agreed on. (The type is that of the crate `http`, version 1.)
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The subprotocol, if there is one.
    #[must_use]
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// The whole answer.
    pub(super) fn answer(&self) -> Vec<u8> {
        let mut answer = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
        for (name, value) in &self.headers {
            answer.extend_from_slice(name.as_str().as_bytes());
            answer.extend_from_slice(b": ");
            answer.extend_from_slice(value.as_bytes());
            answer.extend_from_slice(b"\r\n");
        }
        answer.extend_from_slice(b"\r\n");
        answer
    }
}

/// Reads a head that ends with its empty line.
pub(super) fn parse(head: &[u8]) -> Result<WsRequest, Refusal> {
    let (len, request) = match Request::try_parse(head) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return Err(Refusal::new(400, "a request without end")),
        Err(Error::Protocol(ProtocolError::WrongHttpMethod)) => return Err(wrong_method()),
        Err(Error::Protocol(ProtocolError::WrongHttpVersion)) => return Err(wrong_version()),
        Err(_) => return Err(Refusal::new(400, "no HTTP request")),
    };
    if len != head.len() {
        return Err(Refusal::new(400, "a line of the request ends without a carriage return"));
    }
    let (parts, ()) = request.into_parts();
    Ok(WsRequest { uri: parts.uri, headers: parts.headers })
}

fn wrong_method() -> Refusal {
    Refusal::with(405, "another method than GET", "Allow", "GET")
}

fn wrong_version() -> Refusal {
    Refusal::new(505, "another version than HTTP/1.1")
}

/// What a server lets in.
#[derive(Debug)]
pub(super) struct Terms<'a> {
    pub(super) origins: &'a Origins,
    pub(super) protocols: &'a [String],
    pub(super) deflate: Option<&'a Deflate>,
}

impl Terms<'_> {
    pub(super) fn check_request(&self, request: &WsRequest) -> Result<Agreement, Refusal> {
        self.check(&Method::GET, Version::HTTP_11, &request.headers)
    }

    /// RFC 6455, section 4.2.1, and section 4.2.2 for the answer.
    pub(super) fn check(
        &self,
        method: &Method,
        version: Version,
        headers: &HeaderMap,
    ) -> Result<Agreement, Refusal> {
        if method != Method::GET {
            return Err(wrong_method());
        }
        if version != Version::HTTP_11 {
            return Err(wrong_version());
        }
        let is_upgrade = tokens(headers, header::UPGRADE)
            .any(|token| token.eq_ignore_ascii_case("websocket"))
            && tokens(headers, header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
        if !is_upgrade {
            return Err(Refusal::with(426, "no request for a WebSocket", "Upgrade", "websocket"));
        }
        let host = only(headers, header::HOST).ok_or(Refusal::new(400, "no host, or several"))?;
        if only(headers, header::SEC_WEBSOCKET_VERSION) != Some("13") {
            let why = "another version of WebSocket than 13";
            return Err(Refusal::with(426, why, "Sec-WebSocket-Version", "13"));
        }
        let key = only(headers, header::SEC_WEBSOCKET_KEY).filter(|key| is_key(key));
        let key = key.ok_or(Refusal::new(400, "no key of 16 bytes"))?;
        let has_body = headers.contains_key(header::TRANSFER_ENCODING)
            || headers.get_all(header::CONTENT_LENGTH).iter().any(|len| len != "0");
        if has_body {
            return Err(Refusal::new(400, "a request with a body"));
        }
        if headers.contains_key(header::ORIGIN) {
            let origin = only(headers, header::ORIGIN);
            if !origin.is_some_and(|origin| self.origins.allow(origin, host)) {
                return Err(Refusal::new(403, "an origin that is not let in"));
            }
        }
        Ok(self.agree(headers, key))
    }

    fn agree(&self, headers: &HeaderMap, key: &str) -> Agreement {
        let mut answer = HeaderMap::new();
        answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(accept) = HeaderValue::try_from(derive_accept_key(key.as_bytes())) {
            answer.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        let offered = |known: &&String| {
            tokens(headers, header::SEC_WEBSOCKET_PROTOCOL).any(|token| token == known.as_str())
        };
        let protocol = self.protocols.iter().find(offered).cloned();
        if let Some(value) = protocol.as_deref().and_then(|protocol| HeaderValue::from_str(protocol).ok()) {
            answer.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
        let offers = headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS).iter();
        let offers = offers.filter_map(|value| value.to_str().ok());
        let agreed = self.deflate.and_then(|deflate| deflate::agree(deflate, offers));
        let agreed = agreed.and_then(|(agreed, text)| {
            answer.insert(header::SEC_WEBSOCKET_EXTENSIONS, HeaderValue::try_from(text).ok()?);
            Some(agreed)
        });
        Agreement { headers: answer, protocol, agreed }
    }
}

/// The 16 bytes of a key in base64: 22 characters, of which the last carries two bits, and `==`.
fn is_key(key: &str) -> bool {
    data_encoding::BASE64.decode(key.as_bytes()).is_ok_and(|key| key.len() == 16)
}

/// The value of a field that must be there once.
pub(super) fn only(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let only = values.next()?;
    if values.next().is_some() { None } else { only.to_str().ok() }
}

/// The tokens of a field that is a list.
pub(super) fn tokens(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|token| token.trim_matches([' ', '\t']))
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests;
