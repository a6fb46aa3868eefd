//! The bodies of HTTP/3, in both roles.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::{ConnectionError, StreamError};
use http_body::Frame;
use tokio::task::JoinHandle;

use crate::http::error::{HttpError, HttpErrorKind, Stage};
use crate::quic::Use;

/// The receiving half of a request, in either role.
pub(super) trait Half: Send + Unpin + 'static {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>>;
    /// Ready when the stream is at its end, perhaps behind trailers.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>>;
}

macro_rules! half {
    ($($stream:ty),*) => {$(
        impl Half for $stream {
            fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
                let piece = ready!(self.poll_recv_data(cx))?;
                Poll::Ready(Ok(piece.map(|mut piece| piece.copy_to_bytes(piece.remaining()))))
            }

            fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
                self.poll_recv_trailers(cx).map_ok(|_| ())
            }
        }
    )*};
}

half!(
    h3::client::RequestStream<h3_quinn::RecvStream, Bytes>,
    h3::server::RequestStream<h3_quinn::RecvStream, Bytes>
);

/// A body that comes in.
pub(super) struct Incoming<S> {
    half: S,
    /// What `Content-Length` still promises.
    left: Option<u64>,
    at_end: bool,
    /// The task that sends the other direction; it ends with this.
    upload: Option<JoinHandle<()>>,
    /// Of the connection: quinn lets go of it only when its driver or the last stream does so.
    _used: Arc<Use>,
}

impl<S> Incoming<S> {
    pub(super) fn new(half: S, upload: Option<JoinHandle<()>>, used: Arc<Use>) -> Self {
        Self { half, left: None, at_end: false, upload, _used: used }
    }

    /// A body that must have this length, if there is one (RFC 9114, section 4.1.2).
    pub(super) fn with_length(mut self, length: Option<u64>) -> Self {
        self.left = length;
        self
    }

    pub(super) fn half_mut(&mut self) -> &mut S {
        &mut self.half
    }
}

impl<S> Drop for Incoming<S> {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.abort();
        }
    }
}

impl<S: Half> http_body::Body for Incoming<S> {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = self.get_mut();
        let failed = |error| Poll::Ready(Some(Err(of_stream(Stage::Body, &error))));
        if !this.at_end {
            match ready!(this.half.poll_data(cx)) {
                Ok(Some(bytes)) => {
                    let Some(left) = &mut this.left else {
                        return Poll::Ready(Some(Ok(Frame::data(bytes))));
                    };
                    let Some(rest) = left.checked_sub(bytes.len() as u64) else {
                        let error = HttpError::rules(Stage::Body, "more bytes than Content-Length says");
                        return Poll::Ready(Some(Err(error)));
                    };
                    *left = rest;
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Ok(None) => this.at_end = true,
                Err(error) => return failed(error),
            }
        }
        match ready!(this.half.poll_end(cx)) {
            Ok(()) if this.left.is_some_and(|left| left > 0) => {
                let error = HttpError::rules(Stage::Body, "fewer bytes than Content-Length says");
                Poll::Ready(Some(Err(error)))
            }
            Ok(()) => Poll::Ready(None),
            Err(error) => failed(error),
        }
    }
}

/// What h3 says, in our words.
pub(super) fn of_stream(stage: Stage, error: &StreamError) -> HttpError {
    let kind = match error {
        StreamError::ConnectionError { 0: error, .. } => return of_connection(stage, error),
        StreamError::RemoteTerminate { code, .. } if *code == h3::error::Code::H3_REQUEST_REJECTED => {
            HttpErrorKind::Closed
        }
        StreamError::RemoteTerminate { .. } => HttpErrorKind::CutOff,
        StreamError::RemoteClosing { .. } => HttpErrorKind::Closed,
        StreamError::HeaderTooBig { max_size, .. } => {
            HttpErrorKind::TooLarge { what: "a head", limit: *max_size }
        }
        error => HttpErrorKind::Rules(error.to_string()),
    };
    HttpError::new(stage, kind)
}

pub(super) fn of_connection(stage: Stage, error: &ConnectionError) -> HttpError {
    let kind = match error {
        ConnectionError::Timeout { .. } => {
            HttpErrorKind::TimedOut { what: "a sign of life of the other side", after: super::SILENCE }
        }
        error if error.is_h3_no_error() => HttpErrorKind::Closed,
        ConnectionError::Remote { .. } => HttpErrorKind::Closed,
        error => HttpErrorKind::Rules(error.to_string()),
    };
    HttpError::new(stage, kind)
}
