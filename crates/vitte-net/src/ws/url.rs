//! Where a WebSocket is (RFC 6455, section 3).

use tokio_tungstenite::tungstenite::http::Uri;

use super::ConnectError;

/// Bytes of a URL, at most: 8 KiB.
const LONGEST: usize = 8 * 1024;

/// A parsed URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WsUrl {
    secure: bool,
    host: String,
    port: u16,
    path: String,
}

impl WsUrl {
    pub(super) fn parse(text: &str) -> Result<Self, ConnectError> {
        let (uri, host) = parts(text).map_err(|why| ConnectError::Request(no_url(text, why)))?;
        let secure = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => {
                let why = "it begins with neither ws:// nor wss://";
                return Err(ConnectError::Request(no_url(text, why)));
            }
        };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { secure, host, port, path })
    }

    pub(super) fn is_secure(&self) -> bool {
        self.secure
    }

    /// Without brackets around an IPv6 address.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// With the query.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Host and port as `Host` has them: the usual port is not said.
    pub(super) fn authority(&self) -> String {
        let usual = if self.secure { 443 } else { 80 };
        if self.port == usual { bracketed(&self.host) } else { self.authority_with_port() }
    }

    /// Host and port as CONNECT wants them.
    pub(super) fn authority_with_port(&self) -> String {
        format!("{}:{}", bracketed(&self.host), self.port)
    }
}

pub(super) fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// Takes a URL apart that has a scheme and a host, and nothing that does not belong here.
pub(super) fn parts(text: &str) -> Result<(Uri, String), &'static str> {
    if text.len() > LONGEST {
        return Err("it has more than 8 KiB");
    }
    if text.contains('#') {
        return Err("a fragment has no meaning there");
    }
    let uri: Uri = text.parse().map_err(|_| "it cannot be read")?;
    let authority = uri.authority().ok_or("there is no host")?;
    if authority.as_str().contains('@') {
        return Err("credentials are not given in it");
    }
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let rest = authority.as_str()[authority.host().len()..].strip_prefix(':');
    if host.is_empty() || rest.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port == 0)) {
        return Err("there is no host, or no port");
    }
    if rest.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err("the port is no number from 1 to 65535");
    }
    let host = host.to_owned();
    Ok((uri, host))
}

pub(super) fn no_url(text: &str, why: &str) -> String {
    let shown: String = text.chars().take(200).collect();
    format!("\"{}\" is no URL of a WebSocket: {why}", shown.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_a_websocket_is() {
        for (text, secure, host, port, path, authority) in [
            ("ws://example.org", false, "example.org", 80, "/", "example.org"),
            ("wss://example.org:443/a?b=c", true, "example.org", 443, "/a?b=c", "example.org"),
            ("ws://127.0.0.1:9000/", false, "127.0.0.1", 9000, "/", "127.0.0.1:9000"),
            ("wss://[::1]:80?q", true, "::1", 80, "/?q", "[::1]:80"),
        ] {
            let url = WsUrl::parse(text).unwrap();
            assert_eq!((url.is_secure(), url.host(), url.port()), (secure, host, port), "{text}");
            assert_eq!((url.path(), url.authority().as_str()), (path, authority), "{text}");
        }
    }

    #[test]
    fn what_is_no_url_says_why() {
        let long = format!("ws://h/{}", "a".repeat(9000));
        for (text, why) in [
            ("http://example.org/", "neither ws:// nor wss://"),
            ("example.org", "no URL"),
            ("ws:///path", "no URL"),
            ("ws://h/#top", "a fragment"),
            ("ws://user:secret@h/", "credentials"),
            ("ws://h:0/", "no port"),
            ("ws://h:99999/", "no URL"),
            ("ws://h/\u{1b}[2J", "\\u{1b}"),
            (&long, "8 KiB"),
        ] {
            let error = WsUrl::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
