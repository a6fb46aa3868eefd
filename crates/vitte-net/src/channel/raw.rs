//! Channels of messages that are bytes: for people with a codec of their own, and the ground of the typed
//! ones.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use vitte_net_proto::{Counters, PeerId, StreamCode, Taken};

use super::receipt::Receipt;
use super::waiting::{Place, wait};
use super::{ReceiveError, SendError, Stream};

/// Bytes of a message that count as one step of a task: others get the thread after 128 of them, or 2 MiB.
const BUDGET: usize = 16 << 10;

/// A channel of messages that are bytes, both ways.
#[derive(Debug)]
pub struct RawChannel {
    sender: RawSender,
    receiver: RawReceiver,
}

impl RawChannel {
    pub(crate) fn new(stream: Stream) -> Self {
        let stream = Arc::new(stream);
        let sender = RawSender { stream: stream.clone() };
        Self { sender, receiver: RawReceiver::new(stream) }
    }

    /// Takes the two directions apart. Each can be dropped for itself.
    #[must_use]
    pub fn split(self) -> (RawSender, RawReceiver) {
        (self.sender, self.receiver)
    }

    /// See [`RawSender::send`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn send(&self, message: impl Into<Bytes>) -> Result<Receipt, SendError> {
        self.sender.send(message).await
    }

    /// See [`RawSender::try_send`].
    ///
    /// # Errors
    /// As there.
    pub fn try_send(&self, message: impl Into<Bytes>) -> Result<Receipt, SendError> {
        self.sender.try_send(message)
    }

    /// See [`RawReceiver::recv`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, ReceiveError> {
        self.receiver.recv().await
    }
}

/// The sending direction of a channel. Dropping it flushes what was accepted, then finishes.
#[derive(Debug)]
pub struct RawSender {
    stream: Arc<Stream>,
}

impl RawSender {
    /// Queues a message, as soon as the queue has room ([`Config::send_queue`](crate::Config::send_queue)).
    /// It never drops one.
    ///
    /// On a channel of class [`Latest`](crate::DeliveryClass::Latest) it never waits for room: it takes the place of
    /// the message that waits to be transmitted, whose receipt says
    /// [`Superseded`](crate::Undelivered::Superseded).
    ///
    /// # Errors
    /// See [`SendError`]; nothing of the message was sent.
    ///
    /// # Cancel safety
    /// A dropped future has queued the whole message, or none of it.
    pub async fn send(&self, message: impl Into<Bytes>) -> Result<Receipt, SendError> {
        self.send_within(message, None).await
    }

    /// As [`send`](Self::send), with a time after which the message expires if nothing of it was transmitted.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn send_within(
        &self,
        message: impl Into<Bytes>,
        lifetime: impl Into<Option<Duration>>,
    ) -> Result<Receipt, SendError> {
        let Stream { carrier, id } = &*self.stream;
        let message = message.into();
        let len = message.len();
        let deadline = lifetime.into().map(|lifetime| carrier.now() + lifetime);
        let queued = wait(&**carrier, Place::Room(*id), |cx, waiter| {
            carrier.poll_send(Some((cx, waiter)), *id, &message, deadline, true)
        });
        let token = queued.await?;
        let receipt = Receipt::new(carrier.clone(), token);
        // A sender that always finds room would otherwise never let the driver run, nor anybody else.
        for _ in 0..=len / BUDGET {
            tokio::task::coop::consume_budget().await;
        }
        Ok(receipt)
    }

    /// Queues a message if there is room now.
    ///
    /// # Errors
    /// See [`SendError`]; nothing of the message was sent.
    pub fn try_send(&self, message: impl Into<Bytes>) -> Result<Receipt, SendError> {
        let Stream { carrier, id } = &*self.stream;
        match carrier.poll_send(None, *id, &message.into(), None, true) {
            Poll::Ready(sent) => Ok(Receipt::new(carrier.clone(), sent?)),
            Poll::Pending => Err(SendError::Full),
        }
    }

    /// Ends the direction behind everything that was accepted, and waits until the peer has taken it all.
    ///
    /// # Errors
    /// The peer did not take it all: its receipts say what became of each message.
    ///
    /// # Cancel safety
    /// The direction is finished whether or not the wait is.
    pub async fn finish(self) -> Result<(), ReceiveError> {
        let Stream { carrier, id } = &*self.stream;
        carrier.finish(*id);
        match self.stream.stopped().await {
            (StreamCode::FINISHED, _) => Ok(()),
            (code, reason) => Err(ReceiveError::Reset { code, reason }),
        }
    }

    /// Gives up: what was not transmitted is refused, what was is the peer's word. [`StreamCode::FINISHED`] is said as
    /// [`StreamCode::DROPPED`]: nothing that is given up is finished.
    pub fn reset(self, code: StreamCode, reason: &str) {
        self.stream.carrier.reset(self.stream.id, code, reason);
    }

    /// Waits until the peer wants no more, and says why.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn stopped(&self) -> (StreamCode, String) {
        self.stream.stopped().await
    }

    /// What became of the messages that were sent here. They add up at every moment. Nothing once the
    /// session has forgotten the channel.
    #[must_use]
    pub fn counters(&self) -> Option<Counters> {
        self.stream.carrier.counters(self.stream.id)
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.stream.carrier.peer()
    }
}

impl Drop for RawSender {
    fn drop(&mut self) {
        self.stream.carrier.finish(self.stream.id);
    }
}

/// The receiving direction of a channel. Dropping it tells the peer, whose messages that were not taken
/// count as refused.
#[derive(Debug)]
pub struct RawReceiver {
    stream: Arc<Stream>,
    over: bool,
}

impl RawReceiver {
    pub(super) fn new(stream: Arc<Stream>) -> Self {
        Self { stream, over: false }
    }

    /// Waits for the next message; `None` when the peer has finished. Taking a message is what makes it
    /// delivered. On a channel of class [`Latest`](crate::DeliveryClass::Latest) it is the newest that has arrived.
    ///
    /// # Errors
    /// See [`ReceiveError`].
    ///
    /// # Cancel safety
    /// A message is either answered or still to be taken.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, ReceiveError> {
        match self.stream.take(usize::MAX).await {
            Taken::Payload(message) => Ok(Some(message)),
            Taken::End | Taken::Empty => {
                self.over = true;
                Ok(None)
            }
            Taken::Reset(code, reason) => {
                self.over = true;
                Err(ReceiveError::Reset { code, reason })
            }
        }
    }

    /// Wants no more, for this reason. [`StreamCode::FINISHED`] is said as [`StreamCode::DROPPED`]: the sender would take
    /// it for all that it has sent.
    pub fn stop(self, code: StreamCode, reason: &str) {
        self.stream.carrier.stop(self.stream.id, code, reason);
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.stream.carrier.peer()
    }
}

impl Drop for RawReceiver {
    fn drop(&mut self) {
        if !self.over {
            self.stream.carrier.stop(self.stream.id, StreamCode::DROPPED, "");
        }
    }
}
