//! The task that reads, and lets the service work.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::client::{Client, Outgoing, Shared};
use super::message::{Id, Message, Params, RpcError, answer, parse};
use super::service::{Context, Service};
use crate::stream::{Codec, ContentLength, StreamError};

/// Bytes of one read, at least: 8 KiB.
const READ: usize = 8 * 1024;

/// Runs a connection to its end.
pub(super) async fn run(
    input: impl AsyncRead + Unpin,
    service: Service,
    shared: Arc<Shared>,
    mut writer: JoinHandle<Result<(), StreamError>>,
) {
    let mut driver = Driver {
        codec: ContentLength::with_message_max(shared.limits.message_max),
        input,
        buffer: BytesMut::new(),
        service,
        shared: shared.clone(),
        queue: VecDeque::new(),
        running: JoinSet::new(),
        cancels: BTreeMap::new(),
        notification: false,
    };
    let served = tokio::select! {
        biased;
        written = &mut writer => {
            shared.ended(joined(written));
            return;
        }
        served = driver.serve() => served,
    };
    // Handlers that are left are dropped here.
    drop(driver);
    shared.no_more_answers();
    // If the queue is full and stays so, the writer gives up in its time.
    shared.outgoing.send(Outgoing::End).await.ok();
    let written = joined(writer.await);
    shared.ended(served.and(written));
}

fn joined(written: Result<Result<(), StreamError>, tokio::task::JoinError>) -> Result<(), StreamError> {
    written.unwrap_or_else(|error| Err(std::io::Error::other(error).into()))
}

/// What waits for its turn.
enum Job {
    Request { id: Id, method: String, params: Params },
    Notification { method: String, params: Params },
}

/// What a handler came to.
enum Done {
    Request(Id, Result<Box<RawValue>, RpcError>),
    Notification,
}

struct Driver<R> {
    input: R,
    codec: ContentLength,
    buffer: BytesMut,
    service: Service,
    shared: Arc<Shared>,
    queue: VecDeque<Job>,
    running: JoinSet<Done>,
    /// Requests that run, and how to stop each.
    cancels: BTreeMap<Id, oneshot::Sender<()>>,
    /// One is being handled: all else waits.
    notification: bool,
}

impl<R: AsyncRead + Unpin> Driver<R> {
    /// Ok when the peer has sent everything, or the connection was closed, and what could be answered was.
    async fn serve(&mut self) -> Result<(), StreamError> {
        let mut ends_at = None;
        loop {
            self.begin_work();
            if ends_at.is_some() && self.running.is_empty() {
                return Ok(());
            }
            let room = self.queue.len() < self.shared.limits.queue_max.max(1) || self.shared.waits();
            tokio::select! {
                biased;
                () = self.shared.closing.notified(), if ends_at.is_none() => {
                    // What has not begun will not.
                    for job in std::mem::take(&mut self.queue) {
                        if let Job::Request { id, .. } = job {
                            self.answer(Some(&id), &Err(busy("the connection is being closed"))).await;
                        }
                    }
                    ends_at = Some(Instant::now() + self.shared.limits.drain);
                }
                () = tokio::time::sleep_until(ends_at.unwrap_or_else(Instant::now)), if ends_at.is_some() => {
                    return Ok(());
                }
                Some(done) = self.running.join_next() => self.finish(done).await,
                message = next_message(&mut self.input, &mut self.codec, &mut self.buffer),
                    if room && ends_at.is_none() =>
                {
                    match message? {
                        Some(message) => self.handle(&message).await?,
                        None => {
                            self.shared.no_more_answers();
                            ends_at = Some(Instant::now() + self.shared.limits.drain);
                        }
                    }
                }
            }
        }
    }

    async fn handle(&mut self, message: &[u8]) -> Result<(), StreamError> {
        let full = self.queue.len() >= self.shared.limits.queue_max.max(1);
        match parse(message) {
            Err(error) => self.answer(None, &Err(error)).await,
            Ok(Message::Response { id, result }) => self.shared.settle(id.as_ref(), result),
            Ok(Message::Notification { method, params }) if method == "$/cancelRequest" => {
                self.cancel(&params).await;
            }
            Ok(Message::Notification { .. }) if full => {
                return Err(StreamError::Framing(format!(
                    "more than {} messages wait while an answer is due",
                    self.shared.limits.queue_max
                )));
            }
            Ok(Message::Notification { method, params }) => {
                self.queue.push_back(Job::Notification { method, params });
            }
            Ok(Message::Request { id, .. }) if self.knows(&id) => {
                let error =
                    RpcError::new(RpcError::INVALID_REQUEST, "a request with this id is not done yet");
                self.answer(Some(&id), &Err(error)).await;
            }
            Ok(Message::Request { id, .. }) if full => {
                self.answer(Some(&id), &Err(busy("too many requests"))).await;
            }
            Ok(Message::Request { id, method, params }) => {
                self.queue.push_back(Job::Request { id, method, params });
            }
        }
        Ok(())
    }

    fn knows(&self, id: &Id) -> bool {
        let waits = |job: &Job| matches!(job, Job::Request { id: other, .. } if other == id);
        self.cancels.contains_key(id) || self.queue.iter().any(waits)
    }

    /// Begins what may begin, in its order.
    fn begin_work(&mut self) {
        while !self.notification && self.cancels.len() < self.shared.limits.running_max.max(1) {
            let Some(job) = self.queue.pop_front() else { return };
            let client = Client { shared: self.shared.clone() };
            match job {
                Job::Notification { method, params } => {
                    let context = Context { method, id: None, client };
                    if let Some(work) = self.service.notification(context, params) {
                        self.notification = true;
                        self.running.spawn(async move {
                            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                                tracing::error!("the handler of a notification panicked");
                            }
                            Done::Notification
                        });
                    }
                }
                Job::Request { id, method, params } => {
                    let context = Context { method, id: Some(id.clone()), client };
                    let work = self.service.request(context, params);
                    let (cancel, cancelled) = oneshot::channel();
                    self.cancels.insert(id.clone(), cancel);
                    self.running.spawn(async move {
                        let result = tokio::select! {
                            biased;
                            Ok(()) = cancelled => Err(was_cancelled()),
                            result = AssertUnwindSafe(work).catch_unwind() => result.unwrap_or_else(|_| {
                                Err(RpcError::new(RpcError::INTERNAL_ERROR, "the handler panicked"))
                            }),
                        };
                        Done::Request(id, result)
                    });
                }
            }
        }
    }

    async fn finish(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Request(id, result)) => {
                self.cancels.remove(&id);
                self.answer(Some(&id), &result).await;
            }
            Ok(Done::Notification) => self.notification = false,
            // Panics are caught and nothing is aborted, save by the end of the runtime.
            Err(error) => tracing::error!(%error, "a handler was lost"),
        }
    }

    async fn cancel(&mut self, params: &Params) {
        #[derive(Deserialize)]
        struct Cancel {
            id: Id,
        }
        let read = |params: &RawValue| serde_json::from_str::<Cancel>(params.get()).ok();
        let Some(Cancel { id }) = params.as_deref().and_then(read) else { return };
        if let Some(cancel) = self.cancels.get_mut(&id) {
            // The entry stays until the handler is gone: its id may not be used again before.
            let (gone, _) = oneshot::channel();
            std::mem::replace(cancel, gone).send(()).ok();
            return;
        }
        let waits = |job: &Job| matches!(job, Job::Request { id: other, .. } if *other == id);
        if let Some(at) = self.queue.iter().position(waits) {
            self.queue.remove(at);
            self.answer(Some(&id), &Err(was_cancelled())).await;
        }
    }

    /// Queues a response. If the writer is gone, its end is the connection's.
    async fn answer(&mut self, id: Option<&Id>, result: &Result<Box<RawValue>, RpcError>) {
        let limit = self.shared.limits.message_max;
        let message = answer(id, result).ok().filter(|message| message.len() <= limit).or_else(|| {
            let error = RpcError::new(RpcError::INTERNAL_ERROR, "the result is too large to be sent");
            answer(id, &Err(error)).ok()
        });
        if let Some(message) = message {
            self.shared.outgoing.send(Outgoing::Message(message)).await.ok();
        }
    }
}

fn was_cancelled() -> RpcError {
    RpcError::new(RpcError::REQUEST_CANCELLED, "cancelled")
}

fn busy(why: &str) -> RpcError {
    RpcError::new(RpcError::BUSY, why)
}

/// The next message; none at the end. Cancel safe: what was read stays in the buffer.
async fn next_message(
    input: &mut (impl AsyncRead + Unpin),
    codec: &mut ContentLength,
    buffer: &mut BytesMut,
) -> Result<Option<Bytes>, StreamError> {
    loop {
        if let Some(message) = codec.decode(buffer)? {
            return Ok(Some(message));
        }
        buffer.reserve(READ);
        if input.read_buf(buffer).await? == 0 {
            return codec.decode_end(buffer);
        }
    }
}
