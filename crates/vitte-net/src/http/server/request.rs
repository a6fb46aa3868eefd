//! Requests as a handler sees them.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Uri, Version, request};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::http::body::Body;
use crate::http::error::HttpError;
use crate::http::guard::Guard;
use crate::http::url::decode;
use crate::network::BoxStream;

/// A request: its head is here, its body comes.
#[derive(Debug)]
pub struct Request(pub(super) Box<Inner>);

/// It is handed on from one to the next by value, so that it is small.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) head: request::Parts,
    pub(super) body: Body,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) tls: bool,
    pub(super) upgrade: Option<OnUpgrade>,
    /// What a [`Router`](super::Router) found in the path.
    pub(super) params: Vec<(String, String)>,
    /// Where what a router has not looked at begins.
    pub(super) rest: usize,
}

impl Request {
    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.0.head.method
    }

    /// The path as it was sent, with its escapes; it begins with a slash, or is `*` (RFC 9112, section 3.2.4).
    #[must_use]
    pub fn path(&self) -> &str {
        self.0.head.uri.path()
    }

    /// What is behind the prefix that [`Router::nest`](super::Router::nest) took, with its slash; else all
    /// of the path.
    #[must_use]
    pub fn rest(&self) -> &str {
        match self.path().get(self.0.rest..) {
            None | Some("") => "/",
            Some(rest) => rest,
        }
    }

    /// The query as it was sent, without its question mark.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.0.head.uri.query()
    }

    /// The value of a parameter of the query, its escapes undone; the first of that name.
    #[must_use]
    pub fn query_param(&self, name: &str) -> Option<Cow<'_, str>> {
        let pairs = url::form_urlencoded::parse(self.query()?.as_bytes());
        pairs.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// What stands in the place of `{name}` in the route, its escapes undone.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.0.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The fields.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.0.head.headers
    }

    /// The target as it was sent.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.0.head.uri
    }

    /// The version of HTTP in which it came.
    #[must_use]
    pub fn version(&self) -> Version {
        self.0.head.version
    }

    /// The host that is meant, without its port. An HTTP/1.0 client may name none.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        host_of(&self.0.head)
    }

    /// Who asks.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.0.peer
    }

    /// The address at which the request came in.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.0.local
    }

    /// Whether it came through TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.0.tls
    }

    /// The body.
    pub fn body(&mut self) -> &mut Body {
        &mut self.0.body
    }

    /// The body alone.
    #[must_use]
    pub fn into_body(self) -> Body {
        self.0.body
    }

    /// All of the body, which is at most `limit` bytes.
    ///
    /// # Errors
    /// There are more, or the body is not complete. As a [`Reply`](super::Reply) the error says so to the
    /// client.
    ///
    /// # Cancel safety
    /// The body is lost.
    pub async fn bytes(self, limit: usize) -> Result<Bytes, HttpError> {
        self.0.body.bytes(limit).await
    }

    /// The way to another protocol, if the client asks for one (RFC 9110, section 7.8): keep it, answer with
    /// [`Reply::upgrade`](super::Reply::upgrade), and await [`Upgrade::stream`] in a task of its own.
    /// HTTP/1.1 alone, for requests without a body.
    pub fn upgrade(&mut self) -> Option<Upgrade> {
        self.0.upgrade.take().map(Upgrade)
    }
}

/// The host of a request, without its port.
pub(super) fn host_of(head: &request::Parts) -> Option<&str> {
    let named = || head.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    let authority = head.uri.authority().map(http::uri::Authority::as_str).or_else(named)?;
    let end = match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => colon,
        _ => authority.len(),
    };
    Some(&authority[..end])
}

/// A connection that becomes another protocol.
#[derive(Debug)]
pub struct Upgrade(OnUpgrade);

impl Upgrade {
    /// The connection once the answer 101 has been sent, and what the client has sent on it already.
    ///
    /// # Errors
    /// The answer was another one, or the connection ended.
    ///
    /// # Cancel safety
    /// The connection ends when the future is dropped.
    pub async fn stream(self) -> io::Result<(BoxStream, Bytes)> {
        let upgraded = self.0.await.map_err(io::Error::other)?;
        let parts = upgraded
            .downcast::<TokioIo<Guard>>()
            .map_err(|_| io::Error::other("a connection that is not ours"))?;
        let (stream, behind) = parts.io.into_inner().into_parts();
        if parts.read_buf.is_empty() {
            return Ok((stream, behind));
        }
        let mut early = BytesMut::from(&parts.read_buf[..]);
        early.extend_from_slice(&behind);
        Ok((stream, early.freeze()))
    }
}

/// A path without its escapes, if it is text then.
pub(super) fn unescaped(path: &str) -> Option<Cow<'_, str>> {
    if !path.contains('%') {
        return Some(path.into());
    }
    String::from_utf8(decode(path)).ok().map(Cow::Owned)
}
