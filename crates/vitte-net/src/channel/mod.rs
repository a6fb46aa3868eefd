//! Streams of a session as an application sees them: typed channels, raw channels, byte streams, receipts.
//!
//! Nothing here knows of links or of the task that drives a session: it talks to a `Carrier`.

pub(crate) mod bytes;
pub(crate) mod datagrams;
pub(crate) mod payload;
pub(crate) mod raw;
pub(crate) mod receipt;
pub(crate) mod typed;
pub(crate) mod waiting;

use std::fmt::Debug;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::bytes::Bytes;
use vitte_net_proto::{
    Counters, Moment, OpenError as Unopened, OpenInfo, Outcome, PeerId, SendError as Unsent, StreamCode,
    StreamId, Taken,
};

use waiting::{Place, Waiter, wait};

/// Whoever owns the session: the only way from here to the wire.
pub(crate) trait Carrier: Send + Sync + Debug {
    fn peer(&self) -> PeerId;
    fn now(&self) -> Moment;
    /// Opens a stream; with `only`, sends that one message (its token comes back) and finishes.
    fn poll_open(
        &self,
        cx: &mut Context<'_>,
        waiter: &mut Waiter,
        info: &OpenInfo,
        only: Option<&Bytes>,
    ) -> Poll<Result<(StreamId, u64), Unopened>>;
    fn poll_accepted(&self, cx: &mut Context<'_>, id: StreamId) -> Poll<Result<(), (StreamCode, String)>>;
    /// Queues a message and answers its token, 0 without `receipt`. Without a context a full queue is an
    /// error; with one it is waited for.
    fn poll_send(
        &self,
        cx: Option<(&mut Context<'_>, &mut Waiter)>,
        id: StreamId,
        payload: &Bytes,
        deadline: Option<Moment>,
        receipt: bool,
    ) -> Poll<Result<u64, Unsent>>;
    /// Queues the only message of a direction, and its end behind it, so that both leave together.
    fn send_only(&self, id: StreamId, payload: &Bytes) -> Result<(), Unsent>;
    fn poll_take(&self, cx: &mut Context<'_>, id: StreamId, max: usize) -> Poll<Taken>;
    /// Waits until the peer wants nothing more of the sending direction (it was stopped, or all was taken).
    fn poll_stopped(
        &self,
        cx: &mut Context<'_>,
        waiter: &mut Waiter,
        id: StreamId,
    ) -> Poll<(StreamCode, String)>;
    /// A waiter waits no more.
    fn leave(&self, place: Place, waiter: &Waiter);
    fn poll_receipt(&self, cx: &mut Context<'_>, token: u64) -> Poll<Outcome>;
    fn drop_receipt(&self, token: u64);
    fn accept(&self, id: StreamId);
    fn refuse(&self, id: StreamId, code: StreamCode, reason: &str);
    fn finish(&self, id: StreamId);
    fn reset(&self, id: StreamId, code: StreamCode, reason: &str);
    fn stop(&self, id: StreamId, code: StreamCode, reason: &str);
    fn release(&self, id: StreamId);
    fn counters(&self, id: StreamId) -> Option<Counters>;
    /// The session is over.
    fn is_over(&self) -> bool;
}

/// One stream. The session forgets it when the last handle is dropped and both directions are over.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) carrier: Arc<dyn Carrier>,
    pub(crate) id: StreamId,
}

impl Stream {
    pub(crate) fn new(carrier: Arc<dyn Carrier>, id: StreamId) -> Self {
        Self { carrier, id }
    }

    /// Opens a stream and waits until the peer has accepted it.
    pub(crate) async fn open(carrier: Arc<dyn Carrier>, info: OpenInfo) -> Result<Self, OpenError> {
        let opened = wait(&*carrier, Place::Open, |cx, waiter| carrier.poll_open(cx, waiter, &info, None));
        let (id, _) = opened.await?;
        let stream = Self::new(carrier, id);
        match poll_fn(|cx| stream.carrier.poll_accepted(cx, id)).await {
            Ok(()) => Ok(stream),
            Err((code, reason)) => Err(OpenError::refused(code, reason)),
        }
    }

    pub(crate) async fn take(&self, max: usize) -> Taken {
        poll_fn(|cx| self.carrier.poll_take(cx, self.id, max)).await
    }

    /// Waits until the peer wants nothing more of the sending direction, and says why.
    pub(crate) async fn stopped(&self) -> (StreamCode, String) {
        let Self { carrier, id } = self;
        wait(&**carrier, Place::Stop(*id), |cx, waiter| carrier.poll_stopped(cx, waiter, *id)).await
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.carrier.release(self.id);
    }
}

/// Why a channel or byte stream was not opened. Nothing was sent on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The name is longer than 255 bytes: the caller's mistake.
    #[error("the name is longer than 255 bytes")]
    NameTooLong,
    /// The peer accepts no channel of this name.
    #[error("the peer accepts nothing of this name")]
    NoSuchName,
    /// The peer reads the name as other types. Both schemas are named.
    #[error("the schemas differ: {theirs}")]
    SchemaMismatch {
        /// What the peer said of its side. From the peer: escape it before it reaches a terminal.
        theirs: String,
    },
    /// The peer accepts the name with another delivery class.
    #[error("the delivery classes differ: {theirs}")]
    WrongClass {
        /// What the peer said of its side. From the peer: escape it before it reaches a terminal.
        theirs: String,
    },
    /// As many channels as the peer allows wait to be accepted. Try again later.
    #[error("the peer is busy")]
    Busy,
    /// This node or the peer is draining.
    #[error("the session is draining")]
    Draining,
    /// The session was lost. Ask the mesh for the peer again.
    #[error("the session is over")]
    Lost,
    /// The peer refused for another reason.
    #[error("the peer refused: {code}")]
    Refused {
        /// The code of its STOP frame.
        code: StreamCode,
        /// Its words. Escape them before they reach a terminal.
        reason: String,
    },
}

impl From<Unopened> for OpenError {
    fn from(error: Unopened) -> Self {
        match error {
            Unopened::NameTooLong => Self::NameTooLong,
            Unopened::Draining => Self::Draining,
            _ => Self::Lost,
        }
    }
}

impl OpenError {
    fn refused(code: StreamCode, reason: String) -> Self {
        match code {
            StreamCode::NO_SUCH_NAME | StreamCode::WRONG_KIND => Self::NoSuchName,
            StreamCode::SCHEMA_MISMATCH => Self::SchemaMismatch { theirs: reason },
            StreamCode::WRONG_CLASS => Self::WrongClass { theirs: reason },
            StreamCode::BUSY => Self::Busy,
            StreamCode::SHUTDOWN => Self::Lost,
            _ => Self::Refused { code, reason },
        }
    }
}

/// Why a message was not accepted. Nothing of it was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The queue is full (`try_send` only).
    #[error("the queue is full")]
    Full,
    /// Longer than the peer accepts: use a byte stream.
    #[error("the message is longer than the {max} bytes that the peer accepts")]
    TooLarge {
        /// The peer's limit, in bytes.
        max: u64,
    },
    /// The channel was finished here, stopped by the peer, or lost with its session.
    #[error("the channel is closed")]
    Closed,
    /// The value could not be written as postcard: the caller's type is at fault.
    #[error("the value cannot be encoded: {0}")]
    Encode(String),
}

impl From<Unsent> for SendError {
    fn from(error: Unsent) -> Self {
        match error {
            Unsent::Full => Self::Full,
            Unsent::TooLarge { max } => Self::TooLarge { max },
            _ => Self::Closed,
        }
    }
}

/// Why nothing more comes from a channel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The peer gave the channel up, or the session was lost; what was not taken is gone, and its sender
    /// learns so.
    #[error("the channel was given up: {code}")]
    Reset {
        /// The code of the peer's RESET frame, or of the loss.
        code: StreamCode,
        /// In words; perhaps the peer's: escape them before they reach a terminal.
        reason: String,
    },
    /// The bytes are no value of the type. The next message may be.
    #[error("the peer sent a message that is no value of the type: {0}")]
    Decode(String),
}
