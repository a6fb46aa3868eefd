//! Where a request goes.

use std::fmt;

use data_encoding::BASE64;
use http::Uri;

use super::error::{HttpError, HttpErrorKind, Stage};

/// Bytes of a URL, at most: 8 KiB.
const URL_MAX: usize = 8 * 1024;

/// A URL of http or https (WHATWG URL, RFC 3986), without its fragment.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(url::Url);

impl Url {
    /// Reads a URL such as `https://example.org/a?b`. Text that a person would write (blanks in the path,
    /// letters outside of ASCII in the host) is escaped.
    ///
    /// # Errors
    /// It is no URL, not of http or https, has no host, or more than 8 KiB.
    pub fn parse(text: &str) -> Result<Self, HttpError> {
        let wrong = |why: &str| {
            let text: String = text.chars().take(200).collect();
            let what = format!("\"{}\" is no URL of http or https: {why}", text.escape_debug());
            HttpError::new(Stage::Prepare, HttpErrorKind::Url(what))
        };
        if text.len() > URL_MAX {
            return Err(wrong("it has more than 8 KiB"));
        }
        let url = url::Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
        Self::check(url).map_err(wrong)
    }

    fn check(mut url: url::Url) -> Result<Self, &'static str> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err("the scheme is another");
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err("there is no host");
        }
        if url.port() == Some(0) {
            return Err("nothing listens on port 0");
        }
        url.set_fragment(None);
        Ok(Self(url))
    }

    /// The URL that `reference` names, read at this one (RFC 3986, section 5).
    ///
    /// # Errors
    /// As [`parse`](Self::parse) says.
    pub fn join(&self, reference: &str) -> Result<Self, HttpError> {
        let wrong = |why: &str| {
            let text: String = reference.chars().take(200).collect();
            let what = format!("\"{}\" leads nowhere: {why}", text.escape_debug());
            HttpError::new(Stage::Redirect, HttpErrorKind::Redirect(what))
        };
        if reference.len() > URL_MAX {
            return Err(wrong("it has more than 8 KiB"));
        }
        let url = self.0.join(reference).map_err(|error| wrong(&error.to_string()))?;
        Self::check(url).map_err(wrong)
    }

    /// Whether it is https.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The host, with no brackets around an IPv6 address.
    #[must_use]
    pub fn host(&self) -> &str {
        let host = self.0.host_str().unwrap_or_default();
        host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
    }

    /// The port: 80 for http and 443 for https unless it is given.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or_default()
    }

    /// The path, which begins with a slash.
    #[must_use]
    pub fn path(&self) -> &str {
        self.0.path()
    }

    /// Host and port as `Host` has them: without the port that goes without saying.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = self.0.host_str().unwrap_or_default();
        match self.0.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// Scheme, host and port are the same: credentials for one are good for the other.
    #[must_use]
    pub fn same_origin(&self, other: &Self) -> bool {
        self.0.scheme() == other.0.scheme() && self.host() == other.host() && self.port() == other.port()
    }

    /// User and password as `Authorization` has them, if the URL names any; the URL loses them.
    pub(super) fn take_credentials(&mut self) -> Option<String> {
        if self.0.username().is_empty() && self.0.password().is_none() {
            return None;
        }
        let user = decode(self.0.username());
        let password = decode(self.0.password().unwrap_or_default());
        // A URL with a host takes both away.
        let _ = self.0.set_username("");
        let _ = self.0.set_password(None);
        let both = [user, vec![b':'], password].concat();
        Some(format!("Basic {}", BASE64.encode(&both)))
    }

    /// Path and query, as an origin is asked (RFC 9112, section 3.2.1).
    pub(super) fn origin_form(&self) -> Result<Uri, HttpError> {
        let text = match self.0.query() {
            Some(query) => format!("{}?{query}", self.0.path()),
            None => self.0.path().to_owned(),
        };
        self.uri(&text)
    }

    /// The whole URL, as a proxy is asked (RFC 9112, section 3.2.2), and as HTTP/2 and 3 are.
    pub(super) fn absolute_form(&self) -> Result<Uri, HttpError> {
        let path = self.origin_form()?;
        self.uri(&format!("{}://{}{path}", self.0.scheme(), self.authority()))
    }

    fn uri(&self, text: &str) -> Result<Uri, HttpError> {
        text.parse().map_err(|error: http::uri::InvalidUri| {
            HttpError::new(Stage::Prepare, HttpErrorKind::Url(format!("{self} cannot be sent: {error}")))
        })
    }
}

/// The URL without user and password: they are for the server alone.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.0.scheme(), self.authority(), self.0.path())?;
        if let Some(query) = self.0.query() {
            write!(f, "?{query}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What [`super::Client`] takes for a URL.
pub trait IntoUrl {
    /// The URL.
    ///
    /// # Errors
    /// As [`Url::parse`] says.
    fn into_url(self) -> Result<Url, HttpError>;
}

impl IntoUrl for Url {
    fn into_url(self) -> Result<Url, HttpError> {
        Ok(self)
    }
}

impl IntoUrl for &Url {
    fn into_url(self) -> Result<Url, HttpError> {
        Ok(self.clone())
    }
}

impl IntoUrl for &str {
    fn into_url(self) -> Result<Url, HttpError> {
        Url::parse(self)
    }
}

impl IntoUrl for String {
    fn into_url(self) -> Result<Url, HttpError> {
        Url::parse(&self)
    }
}

impl IntoUrl for &String {
    fn into_url(self) -> Result<Url, HttpError> {
        Url::parse(self)
    }
}

/// `%41` is `A`. What is no escape stands for itself.
pub(super) fn decode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let digit = |byte: &u8| (*byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (first, behind) {
            (b'%', [high, low, after @ ..]) if digit(high).is_some() && digit(low).is_some() => {
                out.push(digit(high).unwrap_or_default() * 16 + digit(low).unwrap_or_default());
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = behind;
            }
        }
    }
    out
}
