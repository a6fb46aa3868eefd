//! Bodies of requests and responses.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http_body::{Body as _, Frame, SizeHint};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use super::error::{HttpError, HttpErrorKind, Stage};

/// Bytes of one piece that [`Body::reader`] reads: 64 KiB.
const PIECE: usize = 64 * 1024;

/// A body: nothing, bytes that are there, or bytes that come one after another.
///
/// A body that was received ends with `None` only when it is complete: one that was cut off, by whatever
/// means, ends with an error.
#[derive(Default)]
pub struct Body(Inner);

#[derive(Default)]
enum Inner {
    #[default]
    Empty,
    Whole(Bytes),
    /// Nobody but its owner polls it: the lock only lets a body be shared by reference.
    Stream(Mutex<Boxed>),
}

type Boxed = Pin<Box<dyn http_body::Body<Data = Bytes, Error = HttpError> + Send>>;

impl Body {
    /// No bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self(Inner::Empty)
    }

    pub(super) fn boxed(
        body: impl http_body::Body<Data = Bytes, Error = HttpError> + Send + 'static,
    ) -> Self {
        Self(Inner::Stream(Mutex::new(Box::pin(body))))
    }

    /// The bytes that `stream` gives. `length` is how many it will be, where that is known: it is announced,
    /// and another number of bytes is an error.
    pub fn stream<S>(stream: S, length: Option<u64>) -> Self
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        Self::boxed(Measured { stream: Box::pin(stream), length, so_far: 0 })
    }

    /// The bytes that `reader` gives, in pieces of up to 64 KiB. `length` as for [`stream`](Self::stream).
    pub fn reader(reader: impl AsyncRead + Send + 'static, length: Option<u64>) -> Self {
        Self::stream(Pieces { reader: Box::pin(reader), buffer: BytesMut::new() }, length)
    }

    /// How many bytes it has, where that is known.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        match &self.0 {
            Inner::Empty => Some(0),
            Inner::Whole(bytes) => Some(bytes.len() as u64),
            Inner::Stream(_) => self.size_hint().exact(),
        }
    }

    /// The next bytes, or `None` at the end of a complete body. Trailers are skipped.
    ///
    /// # Errors
    /// The body is not complete; [`HttpError::kind`] says why. Nothing more comes.
    ///
    /// # Cancel safety
    /// Cancel safe: no bytes are lost.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        loop {
            match poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await {
                None => return Ok(None),
                Some(Err(error)) => return Err(error),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if bytes.is_empty() => {}
                    Ok(bytes) => return Ok(Some(bytes)),
                    Err(_) => {}
                },
            }
        }
    }

    /// All bytes, which are at most `limit`.
    ///
    /// # Errors
    /// There are more, or the body is not complete.
    ///
    /// # Cancel safety
    /// The body is lost.
    pub async fn bytes(mut self, limit: usize) -> Result<Bytes, HttpError> {
        if let Inner::Whole(bytes) = &mut self.0 {
            let bytes = std::mem::take(bytes);
            return if bytes.len() > limit { Err(too_large(limit)) } else { Ok(bytes) };
        }
        let Some(first) = self.chunk().await? else { return Ok(Bytes::new()) };
        let mut all = BytesMut::from(first);
        while all.len() <= limit {
            match self.chunk().await? {
                None => return Ok(all.freeze()),
                Some(bytes) if all.len() + bytes.len() <= limit => all.extend_from_slice(&bytes),
                Some(_) => break,
            }
        }
        Err(too_large(limit))
    }

    /// Reads and drops what there is.
    ///
    /// # Errors
    /// There are more than `limit` bytes, or the body is not complete.
    ///
    /// # Cancel safety
    /// The body is lost.
    pub async fn discard(mut self, limit: usize) -> Result<(), HttpError> {
        let mut so_far = 0;
        while let Some(bytes) = self.chunk().await? {
            so_far += bytes.len();
            if so_far > limit {
                return Err(too_large(limit));
            }
        }
        Ok(())
    }

    /// The same body again, if it is no stream.
    pub(super) fn again(&self) -> Option<Self> {
        match &self.0 {
            Inner::Empty => Some(Self::empty()),
            Inner::Whole(bytes) => Some(bytes.clone().into()),
            Inner::Stream(_) => None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self.0, Inner::Empty)
    }
}

fn too_large(limit: usize) -> HttpError {
    HttpError::new(Stage::Body, HttpErrorKind::TooLarge { what: "a body", limit: limit as u64 })
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Empty => f.write_str("Body(empty)"),
            Inner::Whole(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Inner::Stream(_) => f.write_str("Body(a stream)"),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(if bytes.is_empty() { Inner::Empty } else { Inner::Whole(bytes) })
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = self.get_mut();
        match &mut this.0 {
            Inner::Empty => Poll::Ready(None),
            Inner::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                this.0 = Inner::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Inner::Stream(body) => {
                body.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut().poll_frame(cx)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Whole(_) => false,
            Inner::Stream(body) => body.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Stream(body) => body.lock().unwrap_or_else(PoisonError::into_inner).size_hint(),
        }
    }
}

/// A stream that has as many bytes as it said.
struct Measured {
    stream: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
    length: Option<u64>,
    so_far: u64,
}

impl http_body::Body for Measured {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = self.get_mut();
        let mismatch = |so_far| {
            let what = format!("{so_far} bytes of a body that was announced with another length");
            Poll::Ready(Some(Err(HttpError::new(Stage::Body, HttpErrorKind::Unusable(what)))))
        };
        match ready!(this.stream.as_mut().poll_next(cx)) {
            Some(Ok(bytes)) => {
                this.so_far += bytes.len() as u64;
                if this.length.is_some_and(|length| this.so_far > length) {
                    return mismatch(this.so_far);
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(HttpError::new(Stage::Body, error)))),
            None if this.length.is_some_and(|length| this.so_far < length) => mismatch(this.so_far),
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, |length| SizeHint::with_exact(length - self.so_far.min(length)))
    }
}

struct Pieces {
    reader: Pin<Box<dyn AsyncRead + Send>>,
    buffer: BytesMut,
}

impl Stream for Pieces {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.buffer.reserve(PIECE);
        match ready!(poll_read_buf(this.reader.as_mut(), cx, &mut this.buffer)) {
            Ok(0) => Poll::Ready(None),
            Ok(_) => Poll::Ready(Some(Ok(this.buffer.split().freeze()))),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }
}
