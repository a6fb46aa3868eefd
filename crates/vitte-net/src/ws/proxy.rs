//! A tunnel through an HTTP proxy (RFC 9110, section 9.3.6).

use std::fmt;

use data_encoding::BASE64;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;

use super::ConnectError;
use super::head::{self, NoHead};
use super::url::{WsUrl, parts};

/// A proxy, with what it wants to know of its user.
pub(super) struct Proxy {
    host: String,
    port: u16,
    credentials: Option<String>,
}

impl Proxy {
    /// Reads `http://host:port`, with `user:password@` before the host or not. The port is 80 if there is none.
    pub(super) fn parse(text: &str) -> Result<Self, ConnectError> {
        // The text is not repeated: there may be a password in it.
        let mistake = |why: &str| ConnectError::Request(format!("no URL of an HTTP proxy: {why}"));
        let rest = text.strip_prefix("http://").ok_or_else(|| mistake("it does not begin with http://"))?;
        let (credentials, place) = match rest.rsplit_once('@') {
            Some((credentials, place)) => (Some(decoded(credentials)), place),
            None => (None, rest),
        };
        let (uri, host) = parts(&format!("http://{place}")).map_err(mistake)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(mistake("a proxy has no path"));
        }
        Ok(Self { host, port: uri.port_u16().unwrap_or(80), credentials })
    }

    pub(super) fn target(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// Asks for a tunnel to where `url` points.
    pub(super) async fn tunnel(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        url: &WsUrl,
        max: usize,
    ) -> Result<(), ConnectError> {
        let to = url.authority_with_port();
        let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
        if let Some(credentials) = &self.credentials {
            let basic = BASE64.encode(credentials.as_bytes());
            request.push_str(&format!("Proxy-Authorization: Basic {basic}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let (head, early) = head::read(stream, max).await.map_err(|error| match error {
            NoHead::TooLong => ConnectError::HeadTooLong(max),
            NoHead::Unfinished => ConnectError::Answer("the proxy ended it before it was complete"),
            NoHead::BareLf => ConnectError::Answer("a line of the proxy's ends in LF without CR"),
            NoHead::Io(error) => error.into(),
        })?;
        let status = match Response::try_parse(&head) {
            Ok(Some((_, response))) => response.status(),
            _ => return Err(ConnectError::Answer("the proxy does not speak HTTP/1.1")),
        };
        if !status.is_success() {
            return Err(ConnectError::ProxyRefused { status: status.as_u16() });
        }
        // The client speaks first, with or without TLS: what is here already is from nobody else but the proxy.
        if !early.is_empty() {
            return Err(ConnectError::Answer("the proxy says more than that there is a tunnel"));
        }
        Ok(())
    }
}

/// Undoes percent-encoding. What is none stays.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| *first == b'%').and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_place_with_or_without_a_user() {
        let proxy = Proxy::parse("http://me:p%40ss%3A@[::1]:3128/").unwrap();
        assert_eq!((proxy.target(), proxy.credentials.as_deref()), (("::1", 3128), Some("me:p@ss:")));
        assert_eq!(Proxy::parse("http://proxy.example").unwrap().target(), ("proxy.example", 80));
        for wrong in ["https://proxy", "proxy:3128", "http://", "http://p/path", "http://u:secret@p:x"] {
            let error = Proxy::parse(wrong).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
