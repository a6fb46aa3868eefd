//! Addresses of nodes: `quic://host:port`, `tls://host:port`, `ws://host:port/path`, `wss://host:port/path`.

use std::fmt;
use std::str::FromStr;

/// How a link travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// QUIC over UDP.
    Quic,
    /// TLS over TCP.
    Tls,
    /// The mesh's TLS inside a WebSocket.
    Ws,
    /// The mesh's TLS inside a WebSocket inside another TLS, whose certificate proves nothing here.
    Wss,
}

impl Transport {
    /// The scheme of its addresses.
    #[must_use]
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scheme())
    }
}

/// Where a node may be reached: a hint, which may be wrong. The host is a name or an IP address (IPv6 in
/// brackets in text form); the port is always given; the path is used by WebSocket alone and is `/` unless
/// given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    transport: Transport,
    host: String,
    port: u16,
    path: String,
}

impl Address {
    /// An address from its parts; `host` without brackets.
    #[must_use]
    pub fn new(transport: Transport, host: impl Into<String>, port: u16) -> Self {
        Self { transport, host: host.into(), port, path: String::from("/") }
    }

    /// The same address with another port: a listener asked for port 0 tells what it got.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// How to travel.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// A host name or an IP address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as a URL has them: an IPv6 address in brackets.
    #[must_use]
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// The path of a WebSocket; `/` unless given.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.transport, self.authority())?;
        if self.path == "/" { Ok(()) } else { f.write_str(&self.path) }
    }
}

/// Why a text is no [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It does not begin with a scheme of ours.
    #[error("an address begins with quic://, tls://, ws:// or wss://, not {0:?}")]
    Scheme(String),
    /// There is no port, or it is no number up to 65535.
    #[error("an address ends with a port: {0:?} has none")]
    Port(String),
    /// The host is empty, longer than 255 bytes, or has characters that no host has.
    #[error("{0:?} is no host")]
    Host(String),
    /// A path on a transport that has none, longer than 1024 bytes, or with white space or control characters.
    #[error("{0:?} is no path for this transport")]
    Path(String),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let excerpt = || text.chars().take(64).collect::<String>();
        let (scheme, rest) = text.split_once("://").ok_or_else(|| AddressError::Scheme(excerpt()))?;
        let transport = [Transport::Quic, Transport::Tls, Transport::Ws, Transport::Wss]
            .into_iter()
            .find(|transport| transport.scheme() == scheme)
            .ok_or_else(|| AddressError::Scheme(excerpt()))?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if path.is_empty() { "/" } else { path };
        let websocket = matches!(transport, Transport::Ws | Transport::Wss);
        if path.len() > 1024 || !path.bytes().all(|b| b.is_ascii_graphic()) || (path != "/" && !websocket) {
            return Err(AddressError::Path(path.chars().take(64).collect()));
        }
        let (host, port) = authority.rsplit_once(':').ok_or_else(|| AddressError::Port(excerpt()))?;
        let port = port.parse().map_err(|_| AddressError::Port(excerpt()))?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let valid = match bare {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                (1..=255).contains(&host.len())
                    && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
            }
        };
        if !valid {
            return Err(AddressError::Host(host.chars().take(64).collect()));
        }
        Ok(Self { transport, host: bare.unwrap_or(host).to_owned(), port, path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_prints_it_reads() {
        for text in ["quic://10.0.0.1:7000", "tls://[::1]:0", "ws://build.example:80/mesh", "wss://h:443"] {
            assert_eq!(text.parse::<Address>().map(|a| a.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_is_wrong_has_a_name() {
        let error = |text: &str| text.parse::<Address>().expect_err(text);
        assert!(matches!(error("tcp://h:1"), AddressError::Scheme(_)));
        assert!(matches!(error("h:1"), AddressError::Scheme(_)));
        assert!(matches!(error("tls://h"), AddressError::Port(_)));
        assert!(matches!(error("tls://h:70000"), AddressError::Port(_)));
        assert!(matches!(error("tls://:1"), AddressError::Host(_)));
        assert!(matches!(error("tls://a b:1"), AddressError::Host(_)));
        assert!(matches!(error("tls://[::g]:1"), AddressError::Host(_)));
        assert!(matches!(error("tls://h:1/path"), AddressError::Path(_)));
        assert!(matches!(error("ws://h:1/a b"), AddressError::Path(_)));
    }
}
