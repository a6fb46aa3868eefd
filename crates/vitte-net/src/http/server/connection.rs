//! One connection of the server, from its first byte to its last.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::{Method, StatusCode, header, request};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, timeout_at};

use super::request::{Inner, host_of};
use super::settings::Settings;
use super::{Handler, Reply, Request, told};
use crate::http::body::Body;
use crate::http::client::{FromHyper, Received};
use crate::http::error::{HttpError, HttpErrorKind, Stage};
use crate::http::guard::{Fault, Guard, HYPER_FIELDS, Line, head};
use crate::network::{BoxFuture, BoxStream};

/// The first bytes of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Requests at one time on one HTTP/2 connection, at most.
const STREAMS_MAX: u32 = 128;
/// Bytes on their way on one stream, and on one connection, of HTTP/2: 1 MiB each.
const WINDOW: u32 = 1 << 20;

/// What requests on one connection have in common.
#[derive(Clone)]
pub(in crate::http) struct Connection {
    pub(in crate::http) settings: Arc<Settings>,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) local: SocketAddr,
    pub(in crate::http) peer: SocketAddr,
    pub(in crate::http) tls: bool,
}

impl Connection {
    /// Speaks with a client until it or we have had enough.
    pub(super) async fn run(mut self, stream: BoxStream, stopped: watch::Receiver<bool>) {
        let peer = self.peer;
        let mut stream = stream;
        let mut h2 = false;
        let begun = Instant::now();
        let latest = begun + self.settings.limits.head_time;
        if let Some(tls) = self.settings.tls.clone() {
            let Ok(accepted) = timeout_at(latest, tls.accept(stream)).await else { return };
            match accepted {
                Ok(secured) => {
                    h2 = secured.alpn() == Some(b"h2");
                    stream = Box::new(secured);
                    self.tls = true;
                }
                Err(error) => {
                    tracing::debug!(%peer, %error, "no TLS with a client");
                    return;
                }
            }
        }
        let mut early = BytesMut::new();
        if !self.tls && self.settings.http2 {
            let sniffed = timeout_at(latest, sniff(&mut stream, &mut early)).await;
            let Ok(Ok(is_h2)) = sniffed else { return };
            h2 = is_h2;
        }
        if h2 {
            self.run_h2(stream, early, latest, stopped).await
        } else {
            self.run_h1(stream, early, begun, stopped).await
        }
    }

    async fn run_h1(
        self,
        stream: BoxStream,
        early: BytesMut,
        begun: Instant,
        mut stopped: watch::Receiver<bool>,
    ) {
        let peer = self.peer;
        let limits = self.settings.limits;
        let guard = Guard::server(stream, early, limits, begun);
        let line = guard.line();
        let service = service_fn(|request| self.answer_h1(request, &line));
        let mut builder = http1::Builder::new();
        builder
            .half_close(true)
            .auto_date_header(self.settings.clock.is_systems)
            .max_buf_size(2 * limits.head)
            // The guard keeps the time.
            .header_read_timeout(None);
        if limits.fields > HYPER_FIELDS {
            builder.max_headers(limits.fields);
        }
        let connection = builder.serve_connection(TokioIo::new(guard), service).with_upgrades();
        tokio::pin!(connection);
        let seen = stopped.clone();
        let mut told = pin!(unconstrained(told(&mut stopped)));
        // It is enough to be woken by it once: to ask it again for each request takes longer than the look whether it
        // would say anything.
        let mut asked = false;
        let mut stopping = false;
        let ended = poll_fn(|cx| {
            let news = !std::mem::replace(&mut asked, true) || !matches!(seen.has_changed(), Ok(false));
            if news && !stopping && told.as_mut().poll(cx).is_ready() {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(cx)
        })
        .await;
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "a connection ended");
        }
    }

    async fn run_h2(
        self,
        stream: BoxStream,
        early: BytesMut,
        latest: Instant,
        mut stopped: watch::Receiver<bool>,
    ) {
        let peer = self.peer;
        let limits = self.settings.limits;
        let activity = Arc::new(Activity::new(latest));
        let guard = Guard::raw(stream, early, limits);
        let service = {
            let activity = Arc::clone(&activity);
            service_fn(move |request: http::Request<Incoming>| {
                let (connection, activity) = (self.clone(), Arc::clone(&activity));
                async move {
                    let (head, incoming) = http::Request::into_parts(request);
                    let body = FromHyper::body(incoming, head.version);
                    Ok::<_, Infallible>(connection.answer_many(head, body, activity).await)
                }
            })
        };
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
            .serve_connection(TokioIo::new(guard), service);
        tokio::pin!(connection);
        let mut stopping = false;
        let ended = loop {
            tokio::select! {
                biased;
                () = told(&mut stopped), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                ended = connection.as_mut() => break ended,
                verdict = activity.watch(limits.idle_time, limits.body_time) => match verdict {
                    Verdict::Idle if !stopping => {
                        stopping = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    Verdict::Idle | Verdict::Stalled => break Ok(()),
                },
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "a connection ended");
        }
    }

    /// Everything that needs no waiting happens at once: hyper moves the future, so it is small.
    fn answer_h1<'a>(
        &'a self,
        mut request: http::Request<Incoming>,
        line: &'a Arc<Line>,
    ) -> impl Future<Output = Result<http::Response<Ending<Over>>, Infallible>> + Send + use<'a> {
        let over = Over(Arc::clone(line));
        let handed = line.take();
        let (method, handling) = match handed.refused {
            Some(fault) => (Method::GET, Err(Box::new(refusal(fault)))),
            None => {
                let upgrade = handed.upgrade.then(|| hyper::upgrade::on(&mut request));
                let (head, incoming) = request.into_parts();
                let method = head.method.clone();
                let version = head.version;
                let mut request = self.request(head, FromHyper::body(incoming, version));
                request.0.upgrade = upgrade;
                (method, self.handle(request))
            }
        };
        async move {
            let Reply(mut response) = match handling {
                Ok(handling) => {
                    AssertUnwindSafe(handling).catch_unwind().await.unwrap_or_else(|_| panicked())
                }
                Err(reply) => *reply,
            };
            if handed.upgrade {
                line.decide(response.status() == StatusCode::SWITCHING_PROTOCOLS);
            }
            self.finish(&mut response, &method, true);
            Ok(response.map(|body| Ending { body, with: over }))
        }
    }

    /// One request of HTTP/2 or HTTP/3.
    pub(in crate::http) async fn answer_many(
        &self,
        head: request::Parts,
        incoming: Body,
        activity: Arc<Activity>,
    ) -> http::Response<Body> {
        let mut handling = Handling::new(activity);
        let method = head.method.clone();
        let handler = match one_meaning(&head) {
            Ok(()) => self.handle(self.request(head, incoming)),
            Err(fault) => Err(Box::new(refusal(fault))),
        };
        let Reply(mut response) = match handler {
            Ok(handler) => AssertUnwindSafe(handler).catch_unwind().await.unwrap_or_else(|_| panicked()),
            Err(reply) => *reply,
        };
        self.finish(&mut response, &method, false);
        response.headers_mut().remove(header::CONNECTION);
        handling.answered();
        let body = std::mem::take(response.body_mut());
        if !body.is_end_stream() {
            *response.body_mut() = Body::boxed(Ending { body, with: handling });
        }
        response
    }

    #[inline]
    fn request(&self, head: request::Parts, incoming: Body) -> Request {
        let limit = self.settings.max_body;
        let body = if incoming.is_empty() {
            incoming
        } else {
            let received = Received::request(incoming, head.version, &self.settings.limits);
            Body::boxed(Bounded { received, left: limit, limit })
        };
        Request(Box::new(Inner {
            head,
            body,
            peer: self.peer,
            local: self.local,
            tls: self.tls,
            upgrade: None,
            params: Vec::new(),
            rest: 0,
        }))
    }

    /// Asks the handler, or says what is answered without it.
    fn handle(&self, request: Request) -> Result<BoxFuture<'_, Reply>, Box<Reply>> {
        match self.refused(&request) {
            Some(reply) => Err(Box::new(reply)),
            // One that panics before there is a future to await.
            None => catch_unwind(AssertUnwindSafe(|| self.handler.handle(request)))
                .map_err(|_| Box::new(panicked())),
        }
    }

    /// What is answered without asking the handler.
    fn refused(&self, request: &Request) -> Option<Reply> {
        let limit = self.settings.max_body;
        if request.0.body.length().is_some_and(|length| length > limit) {
            return Some(Reply::status(StatusCode::PAYLOAD_TOO_LARGE).closing());
        }
        if !self.settings.hosts.is_empty() {
            let host = request.host().map(str::to_ascii_lowercase);
            if host.is_none_or(|host| !self.settings.hosts.contains(&host)) {
                return Some(Reply::status(StatusCode::MISDIRECTED_REQUEST));
            }
        }
        None
    }

    /// The response, with the date and the framing in its fields where nobody else puts them: hyper's `h1` does, for a
    /// body whose length is known.
    fn finish(&self, response: &mut http::Response<Body>, method: &Method, h1: bool) {
        let status = response.status();
        let length = response.body().length();
        let fields = response.headers_mut();
        let (mut dated, mut framed) = (false, false);
        for name in fields.keys() {
            dated |= name == header::DATE;
            framed |= name == header::TRANSFER_ENCODING || name == header::CONTENT_LENGTH;
        }
        if !(dated || h1 && self.settings.clock.is_systems) {
            fields.insert(header::DATE, self.settings.clock.date());
        }
        if let Some(elsewhere) = &self.settings.alt_svc {
            fields.entry(header::ALT_SVC).or_insert_with(|| elsewhere.clone());
        }
        let no_body = status.is_informational() || matches!(status.as_u16(), 204 | 304);
        // The framing is ours and hyper's. Where it gave no body to
        // measure, what it says to HEAD is the handler's word.
        let head = *method == Method::HEAD;
        let told = head && !no_body && length.is_none_or(|length| length == 0);
        if framed {
            fields.remove(header::TRANSFER_ENCODING);
            if !told {
                fields.remove(header::CONTENT_LENGTH);
            }
        }
        if let Some(length) = length.filter(|length| !no_body && !told && (!h1 || head || *length == 0)) {
            fields.insert(header::CONTENT_LENGTH, length.into());
        }
        if no_body || head || length == Some(0) {
            *response.body_mut() = Body::empty();
        }
    }
}

/// Whether a client without TLS begins with HTTP/2. What was read is in `early`.
async fn sniff(stream: &mut BoxStream, early: &mut BytesMut) -> std::io::Result<bool> {
    early.reserve(4096);
    while early.len() < PREFACE.len() {
        if stream.read_buf(early).await? == 0 {
            return Ok(false);
        }
        let len = early.len().min(PREFACE.len());
        if early[..len] != PREFACE[..len] {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The handler is broken.
fn panicked() -> Reply {
    Reply::status(StatusCode::INTERNAL_SERVER_ERROR).closing()
}

/// What the guard would not let through is answered in plain words, and the connection ends.
fn refusal(fault: Fault) -> Reply {
    let status = StatusCode::from_u16(fault.status).unwrap_or(StatusCode::BAD_REQUEST);
    Reply::text(format!("{} {}: {}\n", status.as_u16(), status.canonical_reason().unwrap_or(""), fault.what))
        .with_status(status)
        .closing()
}

/// The head of a request of HTTP/2 or HTTP/3 has no second meaning: one host (RFC 9113, section 8.3.1), one length.
fn one_meaning(head: &request::Parts) -> Result<(), Fault> {
    head::length(&head.headers)?;
    let bad = |what| Err(Fault { status: 400, what });
    let named = head.headers.get_all(header::HOST);
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    for host in &named {
        if authority.is_some_and(|authority| !authority.eq_ignore_ascii_case(host.as_bytes())) {
            return bad("a Host that is not the :authority");
        }
    }
    match authority.or_else(|| head.headers.get(header::HOST).map(|host| host.as_bytes())) {
        Some(host) if head::is_authority(host) && named.iter().count() <= 1 && host_of(head).is_some() => {
            Ok(())
        }
        Some(_) => bad("a host that is no host"),
        None => bad("no host"),
    }
}

/// Tells the guard that an exchange is over, when it is dropped.
struct Over(Arc<Line>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.over();
    }
}

/// A body with something that ends with it.
struct Ending<T> {
    body: Body,
    with: T,
}

/// Somebody who sees a body move.
trait Seeing {
    fn seen(&self) {}
}

impl Seeing for Over {}

impl<T: Seeing + Unpin> http_body::Body for Ending<T> {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = self.get_mut();
        this.with.seen();
        Pin::new(&mut this.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body of at most `limit` bytes.
struct Bounded {
    received: Received,
    left: u64,
    limit: u64,
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.received).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let len = frame.data_ref().map_or(0, |data| data.len() as u64);
            let Some(left) = this.left.checked_sub(len) else {
                let kind = HttpErrorKind::TooLarge { what: "a body", limit: this.limit };
                return Poll::Ready(Some(Err(HttpError::new(Stage::Body, kind))));
            };
            this.left = left;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.received.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.received.size_hint()
    }
}

/// What happens on an HTTP/2 connection, whose streams have no time-outs of their own.
pub(in crate::http) struct Activity {
    /// When the first request must be there.
    latest: Instant,
    /// Whether it is.
    begun: AtomicBool,
    /// Requests that a handler has.
    handling: AtomicU64,
    /// Responses whose body is not done.
    sending: AtomicU64,
    last: Mutex<Instant>,
}

pub(in crate::http) enum Verdict {
    /// Nobody asks for anything.
    Idle,
    /// The client takes nothing of what it asked for.
    Stalled,
}

impl Activity {
    pub(in crate::http) fn new(latest: Instant) -> Self {
        let (handling, sending) = (AtomicU64::new(0), AtomicU64::new(0));
        let (begun, last) = (AtomicBool::new(false), Mutex::new(Instant::now()));
        Self { latest, begun, handling, sending, last }
    }

    fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits until nothing has happened for too long.
    pub(in crate::http) async fn watch(&self, idle: Duration, stalled: Duration) -> Verdict {
        loop {
            let busy = self.handling.load(Ordering::Relaxed) > 0;
            let sending = self.sending.load(Ordering::Relaxed) > 0;
            let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
            let (wait, verdict) = if sending { (stalled, Verdict::Stalled) } else { (idle, Verdict::Idle) };
            let fresh = !self.begun.load(Ordering::Relaxed);
            // The first request has the time of its head.
            let deadline = if fresh { self.latest } else { last + wait };
            if !busy && Instant::now() >= deadline {
                return verdict;
            }
            // While a handler works there is nothing to be late with.
            let until = if busy { Instant::now() + wait } else { deadline };
            tokio::time::sleep_until(until).await;
        }
    }
}

/// One request on an HTTP/2 connection.
struct Handling {
    activity: Arc<Activity>,
    answered: bool,
}

impl Handling {
    fn new(activity: Arc<Activity>) -> Self {
        activity.handling.fetch_add(1, Ordering::Relaxed);
        activity.begun.store(true, Ordering::Relaxed);
        activity.touch();
        Self { activity, answered: false }
    }

    fn answered(&mut self) {
        self.answered = true;
        self.activity.sending.fetch_add(1, Ordering::Relaxed);
        self.activity.handling.fetch_sub(1, Ordering::Relaxed);
        self.activity.touch();
    }
}

impl Seeing for Handling {
    fn seen(&self) {
        self.activity.touch();
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        let count = if self.answered { &self.activity.sending } else { &self.activity.handling };
        count.fetch_sub(1, Ordering::Relaxed);
        self.activity.touch();
    }
}
