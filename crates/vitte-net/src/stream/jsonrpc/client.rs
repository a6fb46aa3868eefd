//! Calling the peer, and what all parts of a connection share.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};

use super::Limits;
use super::message::{Id, RpcError, ask};
use crate::stream::StreamError;

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The peer answered with an error.
    #[error(transparent)]
    Answered(#[from] RpcError),
    /// The peer answered with something that is no such value. It did what it was asked for.
    #[error("the result is no such value: {0}")]
    Result(String),
    /// Ours: it cannot be sent in this form. The peer knows nothing of it.
    #[error(transparent)]
    NotSent(StreamError),
    /// The connection had ended before: the peer knows nothing of it.
    #[error("the connection has ended")]
    Closed,
    /// The connection ended before the answer: the peer may have done it or not.
    #[error("the connection ended before the answer")]
    Lost,
}

/// A handle to call the peer of a connection.
#[derive(Clone, Debug)]
pub struct Client {
    pub(super) shared: Arc<Shared>,
}

impl Client {
    /// Calls a method of the peer: `params` is written as a list or an object, or left out if it is `()`. It waits
    /// for the answer, however long that takes; `tokio::time::timeout` around it cancels in time.
    ///
    /// # Errors
    /// See [`CallError`].
    ///
    /// # Cancel safety
    /// When the future is dropped, the request was sent whole or not at all. If it was, the peer is told that its
    /// answer is not wanted any more.
    pub async fn call<P: Serialize, R: DeserializeOwned>(
        &self,
        method: &str,
        params: P,
    ) -> Result<R, CallError> {
        let shared = &*self.shared;
        let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
        let message = shared.message(Some(id), method, params).map_err(CallError::NotSent)?;
        let _slot = shared.calls.acquire().await.map_err(|_| CallError::Closed)?;
        let place = shared.outgoing.reserve().await.map_err(|_| CallError::Closed)?;
        let (answer, answered) = oneshot::channel();
        shared.pending().as_mut().ok_or(CallError::Closed)?.insert(id, answer);
        place.send(Outgoing::Message(message));
        let mut cancel = CancelOnDrop { shared, id, done: false };
        let answer = answered.await;
        cancel.done = true;
        let result = answer.map_err(|_| CallError::Lost)??;
        serde_json::from_str(result.get()).map_err(|error| CallError::Result(error.to_string()))
    }

    /// Sends a notification. Ok means that it is queued, in order with everything else that is sent.
    ///
    /// # Errors
    /// [`CallError::NotSent`] or [`CallError::Closed`].
    ///
    /// # Cancel safety
    /// When the future is dropped, it was either queued whole or not at all.
    pub async fn notify<P: Serialize>(&self, method: &str, params: P) -> Result<(), CallError> {
        let message = self.shared.message(None, method, params).map_err(CallError::NotSent)?;
        self.shared.outgoing.send(Outgoing::Message(message)).await.map_err(|_| CallError::Closed)
    }
}

/// Tells the peer that its answer is not wanted any more.
struct CancelOnDrop<'a> {
    shared: &'a Shared,
    id: i64,
    done: bool,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if !self.done && self.shared.take_pending(self.id).is_some() {
            lock(&self.shared.unwanted).push(self.id);
            self.shared.cancel.notify_one();
        }
    }
}

/// What the writer writes.
pub(super) enum Outgoing {
    Message(Bytes),
    /// All before it was the last.
    End,
}

type Pending = BTreeMap<i64, oneshot::Sender<Result<Box<RawValue>, RpcError>>>;

/// What handles, driver and writer share.
pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) outgoing: mpsc::Sender<Outgoing>,
    next_id: AtomicI64,
    calls: Semaphore,
    /// Calls that wait for their answer; none when no answer can come any more.
    pending: Mutex<Option<Pending>>,
    /// Calls that were dropped; the peer is yet to be told. As many as there are calls, at most, in the time that
    /// one write takes.
    unwanted: Mutex<Vec<i64>>,
    pub(super) cancel: Notify,
    pub(super) closing: Notify,
    end: watch::Sender<Option<Result<(), Arc<StreamError>>>>,
}

impl Shared {
    pub(super) fn new(limits: Limits) -> (Arc<Self>, mpsc::Receiver<Outgoing>) {
        let (outgoing, receiver) = mpsc::channel(limits.outgoing_max.max(1));
        let shared = Self {
            limits,
            outgoing,
            next_id: AtomicI64::new(1),
            calls: Semaphore::new(limits.calls_max.clamp(1, Semaphore::MAX_PERMITS)),
            pending: Mutex::new(Some(Pending::new())),
            unwanted: Mutex::default(),
            cancel: Notify::new(),
            closing: Notify::new(),
            end: watch::Sender::new(None),
        };
        (Arc::new(shared), receiver)
    }

    fn message<P: Serialize>(&self, id: Option<i64>, method: &str, params: P) -> Result<Bytes, StreamError> {
        let message = ask(id, method, params).map_err(|error| StreamError::Unencodable(error.to_string()))?;
        let (len, limit) = (message.len(), self.limits.message_max);
        if len > limit { Err(StreamError::TooLarge { len, limit }) } else { Ok(message) }
    }

    fn pending(&self) -> MutexGuard<'_, Option<Pending>> {
        lock(&self.pending)
    }

    fn take_pending(&self, id: i64) -> Option<oneshot::Sender<Result<Box<RawValue>, RpcError>>> {
        self.pending().as_mut()?.remove(&id)
    }

    /// Whether a call of ours waits for an answer.
    pub(super) fn waits(&self) -> bool {
        self.pending().as_ref().is_some_and(|pending| !pending.is_empty())
    }

    pub(super) fn settle(&self, id: Option<&Id>, result: Result<Box<RawValue>, RpcError>) {
        let waiting = match id {
            Some(Id::Number(number)) => self.take_pending(*number),
            Some(Id::Text(_)) | None => None,
        };
        match (waiting, result) {
            // Whoever dropped the call a moment ago wants no answer.
            (Some(waiting), result) => drop(waiting.send(result)),
            (None, Err(error)) if id.is_none() => tracing::warn!(%error, "the peer could not read a message"),
            (None, _) => tracing::debug!("an answer that nobody waits for"),
        }
    }

    /// No answer can come any more.
    pub(super) fn no_more_answers(&self) {
        self.pending().take();
    }

    pub(super) fn take_unwanted(&self) -> Vec<i64> {
        std::mem::take(&mut *lock(&self.unwanted))
    }

    pub(super) fn close(&self) {
        self.closing.notify_one();
    }

    pub(super) fn ended(&self, result: Result<(), StreamError>) {
        self.no_more_answers();
        self.calls.close();
        self.end.send_replace(Some(result.map_err(Arc::new)));
    }

    pub(super) async fn closed(&self) -> Result<(), Arc<StreamError>> {
        let mut end = self.end.subscribe();
        // The sender lives as long as this does.
        let ended = end.wait_for(Option::is_some).await;
        ended.ok().and_then(|end| end.clone()).unwrap_or(Ok(()))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("limits", &self.limits).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
