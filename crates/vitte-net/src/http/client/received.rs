//! Bodies that come in: complete or an error, within their time.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Version, header, response};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::pool::Lease;
use crate::http::alarm::{Alarm, Pace};
use crate::http::body::Body;
use crate::http::error::{HttpError, HttpErrorKind, Stage};
use crate::http::guard::Limits;

/// How long one waits for the other side.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Patience {
    /// For the head, after the last sign of life.
    pub(in crate::http) head: Duration,
    /// For the next piece of a body.
    pub(in crate::http) idle: Duration,
    /// For all of it: when it must be over, and how long that was at first.
    pub(in crate::http) total: Option<(Instant, Duration)>,
}

impl Patience {
    /// The outcome of `exchange`, which may take as long as `progress` is made and the total allows.
    pub(super) async fn during<F: Future>(
        &self,
        progress: &AtomicU64,
        exchange: F,
    ) -> Result<F::Output, HttpError> {
        tokio::pin!(exchange);
        loop {
            let before = progress.load(Ordering::Relaxed);
            let (until, after) = self.until(self.head);
            match timeout_at(until, &mut exchange).await {
                Ok(output) => return Ok(output),
                Err(_) if progress.load(Ordering::Relaxed) != before && !self.is_over() => {}
                Err(_) => {
                    let kind = HttpErrorKind::TimedOut { what: "the answer", after };
                    return Err(HttpError::new(Stage::Exchange, kind));
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        self.total.is_some_and(|(deadline, _)| Instant::now() >= deadline)
    }

    /// When `wait` from now, or all the time, is over; and which of both it was.
    fn until(&self, wait: Duration) -> (Instant, Duration) {
        let until = Instant::now() + wait;
        match self.total {
            Some((deadline, total)) if deadline < until => (deadline, total),
            _ => (until, wait),
        }
    }
}

/// A body as hyper receives it, with our errors.
#[derive(Debug)]
pub(in crate::http) struct FromHyper {
    incoming: Incoming,
    /// HTTP/2 can end a stream without its end.
    h2: bool,
}

impl FromHyper {
    pub(in crate::http) fn body(incoming: Incoming, version: Version) -> Body {
        if incoming.is_end_stream() {
            return Body::empty();
        }
        Body::boxed(Self { incoming, h2: version == Version::HTTP_2 })
    }
}

impl http_body::Body for FromHyper {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = self.get_mut();
        Poll::Ready(match ready!(Pin::new(&mut this.incoming).poll_frame(cx)) {
            Some(Ok(frame)) => Some(Ok(frame)),
            Some(Err(error)) => Some(Err(HttpError::of_hyper(Stage::Body, &error))),
            // hyper takes a reset without an error for an end; a stream that ended says so.
            None if this.h2 && !this.incoming.is_end_stream() => {
                Some(Err(HttpError::new(Stage::Body, HttpErrorKind::CutOff)))
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// The body of a message that is received: within its time, and as long as it says.
#[derive(Debug)]
pub(in crate::http) struct Received {
    incoming: Body,
    /// What `Content-Length` still promises.
    left: Option<u64>,
    patience: Option<Patience>,
    alarm: Alarm,
    pace: Pace,
    lease: Option<Lease>,
    over: bool,
}

impl Received {
    pub(super) fn response(
        incoming: Body,
        head: &response::Parts,
        method: &Method,
        patience: &Patience,
        lease: Option<Lease>,
    ) -> Self {
        let no_body = *method == Method::HEAD || matches!(head.status.as_u16(), 204 | 304);
        let length = head.headers.get(header::CONTENT_LENGTH).filter(|_| !no_body);
        let left = length.and_then(|length| length.to_str().ok()).and_then(|text| text.parse().ok());
        let mut body = Self {
            incoming,
            left,
            patience: Some(*patience),
            alarm: Alarm::default(),
            pace: Pace::new(0),
            lease,
            over: false,
        };
        if no_body || (body.incoming.is_empty() && body.left.is_none_or(|left| left == 0)) {
            body.finish();
        }
        body
    }

    /// The body of a request. The guard keeps its time in HTTP/1, this does in the others.
    pub(in crate::http) fn request(incoming: Body, version: Version, limits: &Limits) -> Self {
        let timed = version > Version::HTTP_11;
        let idle = limits.body_time;
        let patience = timed.then_some(Patience { head: idle, idle, total: None });
        let pace = Pace::new(limits.body_rate);
        Self { incoming, left: None, patience, alarm: Alarm::default(), pace, lease: None, over: false }
    }

    fn finish(&mut self) {
        self.over = true;
        if let Some(lease) = self.lease.take() {
            lease.end();
        }
    }

    /// Nothing more comes: was it all?
    fn end(&mut self) -> Result<(), HttpError> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(HttpError::new(Stage::Body, HttpErrorKind::CutOff));
        }
        self.finish();
        Ok(())
    }
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut this.incoming).poll_frame(cx);
        let outcome = match (polled, &this.patience) {
            (Poll::Pending, None) => return Poll::Pending,
            (Poll::Pending, Some(patience)) => {
                let idle = this.alarm.since() + this.pace.patience(patience.idle);
                let (deadline, after) = match patience.total {
                    Some((total, after)) if total < idle => (total, after),
                    _ => (idle, patience.idle),
                };
                ready!(this.alarm.poll(cx, deadline));
                Err(HttpError::new(Stage::Body, HttpErrorKind::TimedOut { what: "the next piece", after }))
            }
            (Poll::Ready(Some(Ok(frame))), patience) => {
                let len = frame.data_ref().map_or(0, Bytes::len);
                this.pace.came(this.alarm.calm(), len);
                // A peer that always has a little more comes to its end, too.
                let late = patience.and_then(|patience| patience.total.filter(|_| patience.is_over()));
                let len = len as u64;
                match (late, &mut this.left) {
                    (Some((_, after)), _) => {
                        let kind = HttpErrorKind::TimedOut { what: "the whole body", after };
                        Err(HttpError::new(Stage::Body, kind))
                    }
                    (None, Some(left)) if *left < len => {
                        Err(HttpError::rules(Stage::Body, "more bytes than Content-Length says"))
                    }
                    (None, left) => {
                        if let Some(left) = left {
                            *left -= len;
                        }
                        Ok(frame)
                    }
                }
            }
            (Poll::Ready(Some(Err(error))), _) => Err(error),
            (Poll::Ready(None), _) => match this.end() {
                Ok(()) => return Poll::Ready(None),
                Err(error) => Err(error),
            },
        };
        if outcome.is_err() {
            // The connection is good for nothing.
            (this.over, this.lease) = (true, None);
        }
        Poll::Ready(Some(outcome))
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }

    fn size_hint(&self) -> SizeHint {
        match (self.over, self.left) {
            (true, _) => SizeHint::with_exact(0),
            (false, Some(left)) => SizeHint::with_exact(left),
            (false, None) => self.incoming.size_hint(),
        }
    }
}

/// A body whose progress is seen.
pub(super) fn watch(body: Body, progress: Arc<AtomicU64>) -> Body {
    Body::boxed(Watched { body, progress })
}

struct Watched {
    body: Body,
    progress: Arc<AtomicU64>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        this.progress.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
