//! Calls: one request, one answer, with a deadline, real cancellation and errors that say what is safe.

use std::future::{Future, IntoFuture, poll_fn};
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use vitte_net_proto::{
    DeliveryClass, Moment, OpenError as Unopened, OpenInfo, Outcome, PeerId, Priority, StreamCode,
    StreamKind, Taken,
};

use crate::channel::payload::{Fingerprint, decode, describe, encode};
use crate::channel::typed::Message;
use crate::channel::waiting::{Place, Waiter, wait};
use crate::channel::{Carrier, Stream};

/// A request that a peer can answer.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use vitte_net::{Request, Schema};
///
/// #[derive(Serialize, Deserialize, Schema)]
/// struct Add { a: u32, b: u32 }
///
/// impl Request for Add {
///     const NAME: &'static str = "add/v1";
///     type Response = u32;
///     type Error = String;
/// }
/// ```
pub trait Request: Message {
    /// What the handler is registered under: at most 255 bytes. Change it when the meaning changes.
    const NAME: &'static str;
    /// The answer.
    type Response: Message;
    /// What the handler may answer instead.
    type Error: Message;
}

/// What the wire answers: an order of variants that the first byte tells.
type Answer<R> = Result<<R as Request>::Response, <R as Request>::Error>;

fn opening<R: Request>(priority: Priority, deadline: Option<Moment>) -> OpenInfo {
    OpenInfo {
        class: DeliveryClass::Reliable,
        kind: StreamKind::Call,
        priority,
        deadline,
        schema_out: Fingerprint::<R>::VALUE,
        schema_in: Fingerprint::<Answer<R>>::VALUE,
        name: R::NAME.into(),
    }
}

/// How a call ended without an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError<E> {
    /// The handler ran and answered its own error.
    #[error("the handler answered an error")]
    Failed(E),
    /// Nothing of the request was transmitted: safe to retry.
    #[error("the request was not sent: {0}")]
    NotSent(NotSent),
    /// The peer refused the request without running a handler: safe to retry, elsewhere.
    #[error("the peer refused the call: {0}")]
    Refused(Refusal),
    /// The deadline passed after the request was transmitted. The handler was told to stop; whether it had
    /// finished is unknown.
    #[error("the deadline passed")]
    DeadlineExceeded,
    /// The handler panicked. What it had done by then is unknown.
    #[error("the handler panicked")]
    Panicked,
    /// The session was lost after the request was transmitted: the handler may have run, or not.
    #[error("unknown: the session was lost after the request was sent")]
    Unknown,
    /// The peer gave the call up for a reason of its own; the handler may have run.
    #[error("the peer gave the call up: {0}")]
    Reset(StreamCode),
    /// The answer is no value of its type, although the schemas agree: the peer's fault.
    #[error("the answer is no value of its type: {0}")]
    Decode(String),
}

/// Why a request was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotSent {
    /// The session is over: ask the mesh for the peer again.
    #[error("the session is over")]
    Lost,
    /// This node or the peer is draining.
    #[error("the session is draining")]
    Draining,
    /// The deadline passed while the request waited for its turn.
    #[error("the deadline passed before its turn came")]
    Expired,
    /// Longer than the peer accepts: the caller's mistake. Use a byte stream.
    #[error("the request is longer than the peer accepts")]
    TooLarge,
    /// The request cannot be written as postcard, or its name is too long: the caller's mistake.
    #[error("the request cannot be encoded: {0}")]
    Encode(String),
}

/// Why a peer refused a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// As many calls of this name run as the peer allows.
    #[error("busy")]
    Busy,
    /// The peer serves no call of this name.
    #[error("no handler of this name")]
    NoHandler,
    /// The peer reads the request or the answer as another type.
    #[error("the schemas differ: ours is {ours}; {theirs}")]
    SchemaMismatch {
        /// The request's schema here.
        ours: String,
        /// What the peer said of its own. Escape it before it reaches a terminal.
        theirs: String,
    },
    /// The peer is shutting down.
    #[error("the peer shuts down")]
    ShuttingDown,
}

/// A call that is about to be made: set what differs from the defaults, then `.await` it.
///
/// # Cancel safety
/// Dropping the future cancels the call: the request is withdrawn if nothing of it was transmitted, and
/// otherwise the peer drops the handler's future.
#[derive(Debug)]
#[must_use = "a call is made when it is awaited"]
pub struct Call<R> {
    carrier: Arc<dyn Carrier>,
    request: R,
    deadline: Option<Duration>,
    priority: Priority,
}

impl<R: Request> Call<R> {
    pub(crate) fn new(carrier: Arc<dyn Carrier>, request: R) -> Self {
        Self { carrier, request, deadline: None, priority: Priority::default() }
    }

    /// Gives up after this time, counted from the start of the call. Default: never, but with the session.
    pub fn deadline(mut self, within: Duration) -> Self {
        self.deadline = Some(within);
        self
    }

    /// The class of request and answer. Default: [`Priority::Normal`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    async fn run(self) -> Result<R::Response, CallError<R::Error>> {
        let payload = encode(&self.request).map_err(|why| CallError::NotSent(NotSent::Encode(why)))?;
        drop(self.request);
        let deadline = self.deadline.map(|within| self.carrier.now() + within);
        let info = opening::<R>(self.priority, deadline);
        let mut under_way = None;
        let ended = {
            let exchange = exchange::<R>(&self.carrier, &info, &payload, &mut under_way);
            let Some(within) = self.deadline else { return exchange.await };
            let mut exchange = pin!(exchange);
            let mut alarm = pin!(sleep(within));
            poll_fn(|cx| match exchange.as_mut().poll(cx) {
                Poll::Ready(ended) => Poll::Ready(Some(ended)),
                Poll::Pending => alarm.as_mut().poll(cx).map(|()| None),
            })
            .await
        };
        match (ended, under_way) {
            (Some(ended), _) => ended,
            (None, Some(call)) => Err(too_late(call).await),
            // There was never room for a stream.
            (None, None) => Err(CallError::NotSent(NotSent::Expired)),
        }
    }
}

impl<R: Request> IntoFuture for Call<R> {
    type Output = Result<R::Response, CallError<R::Error>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// A call under way: dropped before its end, it is cancelled at both sides.
struct UnderWay {
    stream: Stream,
    token: u64,
    ended: bool,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Stream { carrier, id } = &self.stream;
        if !self.ended {
            carrier.reset(*id, StreamCode::DROPPED, "the caller gave up");
            carrier.stop(*id, StreamCode::DROPPED, "the caller gave up");
        }
        carrier.drop_receipt(self.token);
    }
}

async fn exchange<R: Request>(
    carrier: &Arc<dyn Carrier>,
    info: &OpenInfo,
    payload: &Bytes,
    slot: &mut Option<UnderWay>,
) -> Result<R::Response, CallError<R::Error>> {
    let opened =
        wait(&**carrier, Place::Open, |cx, waiter| carrier.poll_open(cx, waiter, info, Some(payload)));
    let (id, token) = opened.await.map_err(|why| {
        CallError::NotSent(match why {
            Unopened::NameTooLong => NotSent::Encode(String::from("the name is longer than 255 bytes")),
            Unopened::Draining => NotSent::Draining,
            _ => NotSent::Lost,
        })
    })?;
    let call = slot.insert(UnderWay { stream: Stream::new(carrier.clone(), id), token, ended: false });
    if token == 0 {
        return Err(CallError::NotSent(NotSent::TooLarge));
    }
    let taken = answer_or_expiry(call).await;
    call.ended = true;
    match taken {
        Some(Taken::Payload(answer)) => {
            decode::<Answer<R>>(&answer).map_err(CallError::Decode)?.map_err(CallError::Failed)
        }
        Some(Taken::Reset(code, reason)) => Err(verdict::<R>(call, code, reason).await),
        Some(Taken::End | Taken::Empty) => Err(CallError::Decode(String::from("there is no answer"))),
        None => Err(CallError::NotSent(NotSent::Expired)),
    }
}

/// Waits for the answer, or for the request to expire in its queue. A peer that saw a stream end without a request
/// ends its side too: what became of the request says more than such an end.
async fn answer_or_expiry(call: &UnderWay) -> Option<Taken> {
    let Stream { carrier, id } = &call.stream;
    let mut settled = false;
    poll_fn(|cx| {
        let taken = match carrier.poll_take(cx, *id, usize::MAX) {
            Poll::Ready(end @ (Taken::End | Taken::Empty)) => Some(end),
            Poll::Ready(taken) => return Poll::Ready(Some(taken)),
            Poll::Pending => None,
        };
        if !settled && let Poll::Ready(outcome) = carrier.poll_receipt(cx, call.token) {
            settled = true;
            if outcome == Outcome::Expired {
                return Poll::Ready(None);
            }
        }
        taken.map_or(Poll::Pending, |taken| Poll::Ready(Some(taken)))
    })
    .await
}

/// What a call has come to whose deadline has passed: it is withdrawn if nothing of it had its turn.
async fn too_late<E>(mut call: UnderWay) -> CallError<E> {
    let Stream { carrier, id } = &call.stream;
    carrier.reset(*id, StreamCode::DEADLINE, "the deadline passed");
    carrier.stop(*id, StreamCode::DEADLINE, "the deadline passed");
    let outcome = poll_fn(|cx| Poll::Ready(carrier.poll_receipt(cx, call.token))).await;
    call.ended = true;
    match outcome {
        Poll::Ready(Outcome::Expired | Outcome::Refused(StreamCode::DEADLINE)) => {
            CallError::NotSent(NotSent::Expired)
        }
        _ => CallError::DeadlineExceeded,
    }
}

/// What a call that was reset has come to: nothing that left is called not sent.
async fn verdict<R: Request>(call: &UnderWay, code: StreamCode, reason: String) -> CallError<R::Error> {
    let refused = |refusal| CallError::Refused(refusal);
    match code {
        StreamCode::BUSY => refused(Refusal::Busy),
        StreamCode::NO_SUCH_NAME | StreamCode::WRONG_KIND => refused(Refusal::NoHandler),
        StreamCode::SCHEMA_MISMATCH => {
            refused(Refusal::SchemaMismatch { ours: describe::<R>(), theirs: reason })
        }
        StreamCode::PANICKED => CallError::Panicked,
        StreamCode::DEADLINE => CallError::DeadlineExceeded,
        // The peer's own word, while the session lives: no handler ran.
        StreamCode::SHUTDOWN if !call.stream.carrier.is_over() => refused(Refusal::ShuttingDown),
        StreamCode::SHUTDOWN => {
            let Stream { carrier, .. } = &call.stream;
            // The session is over, so that the request has its outcome; delivered and unanswered is unknown.
            match poll_fn(|cx| Poll::Ready(carrier.poll_receipt(cx, call.token))).await {
                Poll::Ready(Outcome::Refused(_)) => CallError::NotSent(NotSent::Lost),
                _ => CallError::Unknown,
            }
        }
        other => CallError::Reset(other),
    }
}

/// What a handler knows of the call it serves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CallContext {
    /// Who calls: the key that TLS has proven.
    pub peer: PeerId,
    /// What is left of the caller's deadline, when the handler was started. The handler's future is dropped
    /// when it is over, or when the caller gives up.
    pub deadline: Option<Duration>,
}

/// Serves the calls of one name.
pub(crate) trait Serve: Send + Sync {
    /// Checks the schemas of an OPEN; the error is the reason of the refusal.
    fn check(&self, info: &OpenInfo) -> Result<(), String>;
    /// Runs the handler in a task of its own, unless too many run.
    fn start(&self, stream: Stream, info: &OpenInfo);
}

/// Why a call is refused as busy.
const BUSY: &str = "too many calls of this name run";

/// A handler, with the bound on how many run at once.
pub(crate) struct Handler<R, H> {
    run: Arc<H>,
    running: Arc<Semaphore>,
    requests: PhantomData<fn(R)>,
}

impl<R, H> Handler<R, H> {
    pub(crate) fn new(run: H, most: usize) -> Self {
        Self { run: Arc::new(run), running: Arc::new(Semaphore::new(most)), requests: PhantomData }
    }
}

impl<R, H, F> Serve for Handler<R, H>
where
    R: Request,
    H: Fn(CallContext, R) -> F + Send + Sync + 'static,
    F: Future<Output = Answer<R>> + Send + 'static,
{
    fn check(&self, info: &OpenInfo) -> Result<(), String> {
        if info.schema_out != Fingerprint::<R>::VALUE {
            return Err(format!("the request is {} here", describe::<R>()));
        }
        if info.schema_in != Fingerprint::<Answer<R>>::VALUE {
            return Err(format!("the answer is {} here", describe::<Answer<R>>()));
        }
        Ok(())
    }

    fn start(&self, stream: Stream, info: &OpenInfo) {
        if self.running.available_permits() == 0 {
            return stream.carrier.refuse(stream.id, StreamCode::BUSY, BUSY);
        }
        stream.carrier.accept(stream.id);
        let deadline = info.deadline;
        let run = self.run.clone();
        let turn = Turn { running: self.running.clone(), permit: None };
        tokio::spawn(async move { serve::<R, H, F>(&*run, turn, stream, deadline).await });
    }
}

/// A place among the handlers that run. Whoever waits for the rest of a request leaves it to others, so that a
/// peer that never finishes its requests takes no places away: those are bounded by its streams.
struct Turn {
    running: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// Takes the request if all of it is here, and a place with it: what was taken counts as delivered, so that there
    /// must be a place first, if only for as long as it takes to look.
    fn poll_take(&mut self, cx: &mut Context<'_>, stream: &Stream) -> Poll<Arrived> {
        let Ok(permit) = self.running.clone().try_acquire_owned() else {
            return Poll::Ready(Arrived::Busy);
        };
        let taken = stream.carrier.poll_take(cx, stream.id, usize::MAX);
        if taken.is_ready() {
            self.permit = Some(permit);
        }
        taken.map(Arrived::Taken)
    }
}

async fn serve<R, H, F>(run: &H, mut turn: Turn, stream: Stream, deadline: Option<Moment>)
where
    R: Request,
    H: Fn(CallContext, R) -> F,
    F: Future<Output = Answer<R>>,
{
    let Stream { carrier, id } = &stream;
    let left = || deadline.map(|at| at.since(carrier.now()));
    // It runs while the request is still coming in.
    let mut alarm = pin!(async {
        match left() {
            Some(left) => sleep(left).await,
            None => std::future::pending().await,
        }
    });
    let arrived = poll_fn(|cx| match turn.poll_take(cx, &stream) {
        Poll::Ready(arrived) => Poll::Ready(arrived),
        Poll::Pending => alarm.as_mut().poll(cx).map(|()| Arrived::TooLate),
    });
    let payload = match arrived.await {
        Arrived::Taken(Taken::Payload(payload)) => payload,
        Arrived::Taken(_) => return,
        Arrived::Busy => return carrier.refuse(*id, StreamCode::BUSY, BUSY),
        Arrived::TooLate => return carrier.reset(*id, StreamCode::DEADLINE, "the deadline passed"),
    };
    let request = match std::panic::catch_unwind(|| decode::<R>(&payload)) {
        Ok(Ok(request)) => request,
        Ok(Err(why)) => return carrier.reset(*id, StreamCode::BAD_PAYLOAD, &why),
        Err(_) => return carrier.reset(*id, StreamCode::PANICKED, "the request's reader panicked"),
    };
    let context = CallContext { peer: carrier.peer(), deadline: left() };
    let Ok(handler) = std::panic::catch_unwind(AssertUnwindSafe(|| run(context, request))) else {
        return carrier.reset(*id, StreamCode::PANICKED, "the handler panicked");
    };
    let mut handler = pin!(handler);
    // It leaves with the stream.
    let mut waiter = Waiter::default();
    let ended = poll_fn(|cx| {
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(cx)));
        match polled {
            Ok(Poll::Ready(answer)) => return Poll::Ready(Ended::Answer(answer)),
            Err(_) => return Poll::Ready(Ended::Panic),
            Ok(Poll::Pending) => {}
        }
        if carrier.poll_stopped(cx, &mut waiter, *id).is_ready() {
            return Poll::Ready(Ended::Cancelled);
        }
        alarm.as_mut().poll(cx).map(|()| Ended::TooLate)
    })
    .await;
    match ended {
        Ended::Answer(answer) => match std::panic::catch_unwind(AssertUnwindSafe(|| encode(&answer))) {
            Ok(answer) => reply(&stream, &answer),
            Err(_) => carrier.reset(*id, StreamCode::PANICKED, "the answer's writer panicked"),
        },
        Ended::Panic => carrier.reset(*id, StreamCode::PANICKED, "the handler panicked"),
        Ended::Cancelled => {}
        Ended::TooLate => carrier.reset(*id, StreamCode::DEADLINE, "the deadline passed"),
    }
}

/// How the wait for a request ended.
enum Arrived {
    Taken(Taken),
    Busy,
    TooLate,
}

enum Ended<A> {
    Answer(A),
    Panic,
    Cancelled,
    TooLate,
}

fn reply(stream: &Stream, answer: &Result<Bytes, String>) {
    let Stream { carrier, id } = stream;
    match answer {
        Ok(answer) => {
            if let Err(why) = carrier.send_only(*id, answer) {
                carrier.reset(*id, StreamCode::TOO_LARGE, &why.to_string());
            }
        }
        Err(why) => carrier.reset(*id, StreamCode::BAD_PAYLOAD, why),
    }
}
