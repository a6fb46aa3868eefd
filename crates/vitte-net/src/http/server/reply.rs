//! What a handler answers.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::http::body::Body;
use crate::http::error::{HttpError, HttpErrorKind};

/// A response of the server.
#[derive(Debug, Default)]
pub struct Reply(pub(super) http::Response<Body>);

impl Reply {
    /// A reply with this body, 200.
    #[must_use]
    pub fn new(body: impl Into<Body>) -> Self {
        Self(http::Response::new(body.into()))
    }

    /// A reply of text, 200.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::plain(text.into())
    }

    fn plain(text: impl Into<Body>) -> Self {
        let mut response = http::Response::new(text.into());
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        Self(response)
    }

    /// A reply of a status and its name as text.
    #[must_use]
    pub fn status(status: StatusCode) -> Self {
        let reason = status.canonical_reason().unwrap_or("Unknown");
        Self::text(format!("{} {reason}\n", status.as_u16())).with_status(status)
    }

    /// The answer to a request for another protocol: 101, with its name in `Upgrade` (RFC 9110, section 7.8).
    #[must_use]
    pub fn upgrade(protocol: &'static str) -> Self {
        Self::new(Body::empty())
            .with_status(StatusCode::SWITCHING_PROTOCOLS)
            .header(header::CONNECTION, HeaderValue::from_static("upgrade"))
            .header(header::UPGRADE, HeaderValue::from_static(protocol))
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        *self.0.status_mut() = status;
        self
    }

    /// The same with a field in place of others of that name.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers_mut().insert(name, value);
        self
    }

    /// The fields, to change them.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        self.0.headers_mut()
    }

    /// An answer after which the connection ends.
    pub(super) fn closing(self) -> Self {
        self.header(header::CONNECTION, HeaderValue::from_static("close"))
    }
}

/// What a handler may give back.
pub trait IntoReply {
    /// The reply.
    fn into_reply(self) -> Reply;
}

impl IntoReply for Reply {
    fn into_reply(self) -> Reply {
        self
    }
}

impl IntoReply for Box<Reply> {
    fn into_reply(self) -> Reply {
        *self
    }
}

impl IntoReply for String {
    fn into_reply(self) -> Reply {
        Reply::text(self)
    }
}

impl IntoReply for &'static str {
    fn into_reply(self) -> Reply {
        Reply::plain(self)
    }
}

impl IntoReply for StatusCode {
    fn into_reply(self) -> Reply {
        Reply::status(self)
    }
}

/// A body that was not complete is the client's fault, and the connection ends.
impl IntoReply for HttpError {
    fn into_reply(self) -> Reply {
        let status = match self.kind() {
            HttpErrorKind::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            _ if self.is_timeout() => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::BAD_REQUEST,
        };
        Reply::text(format!("{self}\n")).with_status(status).closing()
    }
}

impl<T: IntoReply, E: IntoReply> IntoReply for Result<T, E> {
    fn into_reply(self) -> Reply {
        match self {
            Ok(reply) => reply.into_reply(),
            Err(error) => error.into_reply(),
        }
    }
}
