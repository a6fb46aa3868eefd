//! Responses.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Version, header, response};
use http_body::Body as _;

use super::decode::{Coding, decoded};
use super::received::Received;
use super::request::Rest;
use super::settings::Settings;
use crate::http::body::Body;
use crate::http::error::{HttpError, HttpErrorKind, Stage};
use crate::http::url::Url;

/// Bytes that [`Response::bytes`] takes, unless told otherwise: 64 MiB.
const BYTES_MAX: u64 = 64 << 20;

/// A response: its head is here, its body comes.
#[derive(Debug)]
pub struct Response {
    head: response::Parts,
    url: Url,
    body: Body,
    max_body: u64,
}

impl Response {
    /// The status (RFC 9110, section 15).
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// The fields. Where a content coding is undone, `Content-Encoding` and `Content-Length` are gone.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The version of HTTP in which it came.
    #[must_use]
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// Whose response it is: the last URL, where redirects were followed.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// How many bytes the body has, where that is known.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.body.length()
    }

    /// This response, if its status is a success (2xx).
    ///
    /// # Errors
    /// [`HttpErrorKind::Status`].
    pub fn success(self) -> Result<Self, HttpError> {
        if self.head.status.is_success() {
            return Ok(self);
        }
        let status = self.head.status.as_u16();
        Err(HttpError::new(Stage::Exchange, HttpErrorKind::Status { status }).at(&self.url))
    }

    /// The next bytes of the body, or `None` at the end of a complete body.
    ///
    /// # Errors
    /// The body is not complete, too long, or not in the coding it says.
    ///
    /// # Cancel safety
    /// Cancel safe: no bytes are lost.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        self.body.chunk().await.map_err(|error| error.at(&self.url))
    }

    /// All of the body, up to 64 MiB or to [`ClientBuilder::max_body`](super::ClientBuilder::max_body) if
    /// that is less.
    ///
    /// # Errors
    /// As [`chunk`](Self::chunk) says.
    ///
    /// # Cancel safety
    /// The rest of the response is lost.
    pub async fn bytes(self) -> Result<Bytes, HttpError> {
        let limit = usize::try_from(self.max_body.min(BYTES_MAX)).unwrap_or(usize::MAX);
        self.body.bytes(limit).await.map_err(|error| error.at(&self.url))
    }

    /// All of the body as text. What is no UTF-8 becomes U+FFFD.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes) says.
    ///
    /// # Cancel safety
    /// The rest of the response is lost.
    pub async fn text(self) -> Result<String, HttpError> {
        Ok(String::from_utf8_lossy(&self.bytes().await?).into_owned())
    }

    /// The body alone.
    #[must_use]
    pub fn into_body(self) -> Body {
        self.body
    }
}

/// Puts the layers around a body: content coding, limit.
pub(super) fn finish(
    mut head: response::Parts,
    received: Received,
    method: &Method,
    url: Url,
    rest: &Rest,
    settings: &Settings,
) -> Result<Response, HttpError> {
    let no_body = *method == Method::HEAD || matches!(head.status.as_u16(), 204 | 304);
    let coding = if rest.decode && !no_body { Coding::of(&head.headers)? } else { None };
    let limit = settings.max_body;
    let too_large = || HttpError::new(Stage::Body, HttpErrorKind::TooLarge { what: "a body", limit });
    let body = match coding {
        None => {
            if received.size_hint().exact().is_some_and(|length| length > limit) {
                return Err(too_large());
            }
            if limit == u64::MAX { Body::boxed(received) } else { limited(Body::boxed(received), limit) }
        }
        Some(coding) => {
            head.headers.remove(header::CONTENT_ENCODING);
            head.headers.remove(header::CONTENT_LENGTH);
            decoded(received, coding, limit)
        }
    };
    Ok(Response { head, url, body, max_body: limit })
}

/// At most `limit` bytes, then an error.
fn limited(mut body: Body, limit: u64) -> Body {
    if body.length().is_some() {
        return body;
    }
    let mut so_far = 0;
    let mut over = false;
    let stream = futures_util::stream::poll_fn(move |cx| {
        if over {
            return std::task::Poll::Ready(None);
        }
        let frame = std::task::ready!(std::pin::Pin::new(&mut body).poll_frame(cx));
        std::task::Poll::Ready(match frame {
            None => None,
            Some(Err(error)) => Some(Err(std::io::Error::from(error))),
            Some(Ok(frame)) => {
                let bytes = frame.into_data().unwrap_or_default();
                so_far += bytes.len() as u64;
                over = so_far > limit;
                let error = HttpError::new(Stage::Body, HttpErrorKind::TooLarge { what: "a body", limit });
                Some(if over { Err(error.into()) } else { Ok(bytes) })
            }
        })
    });
    Body::stream(stream, None)
}
