//! Channels of values.

use std::marker::PhantomData;
use std::time::Duration;

use postcard_schema::Schema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use vitte_net_proto::{Counters, PeerId};

use super::payload::{decode, encode};
use super::raw::{RawChannel, RawReceiver, RawSender};
use super::receipt::Receipt;
use super::{ReceiveError, SendError};

/// What a channel carries: anything that serde and postcard-schema can write and describe.
pub trait Message: Serialize + DeserializeOwned + Schema + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Schema + Send + 'static> Message for T {}

/// A channel of values: `Out` to the peer, `In` from it. Both sides compared the types when it was opened.
#[derive(Debug)]
pub struct Channel<Out, In = Out> {
    sender: Sender<Out>,
    receiver: Receiver<In>,
}

impl<Out: Message, In: Message> Channel<Out, In> {
    pub(crate) fn new(raw: RawChannel) -> Self {
        let (sender, receiver) = raw.split();
        Self { sender: Sender { raw: sender, values: PhantomData }, receiver: Receiver::new(receiver) }
    }

    /// Takes the two directions apart. Each can be dropped for itself.
    #[must_use]
    pub fn split(self) -> (Sender<Out>, Receiver<In>) {
        (self.sender, self.receiver)
    }

    /// See [`Sender::send`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn send(&self, value: Out) -> Result<Receipt, SendError> {
        self.sender.send(value).await
    }

    /// See [`Sender::try_send`].
    ///
    /// # Errors
    /// As there.
    pub fn try_send(&self, value: &Out) -> Result<Receipt, SendError> {
        self.sender.try_send(value)
    }

    /// See [`Receiver::recv`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn recv(&mut self) -> Result<Option<In>, ReceiveError> {
        self.receiver.recv().await
    }
}

/// The sending direction of a [`Channel`]. Dropping it flushes what was accepted, then finishes.
#[derive(Debug)]
pub struct Sender<T> {
    raw: RawSender,
    values: PhantomData<fn(T)>,
}

impl<T: Message> Sender<T> {
    /// Queues a value, as soon as the queue has room. It never drops one. On a channel of class
    /// [`Latest`](crate::DeliveryClass::Latest) it takes the place of one that waits: see [`RawSender::send`].
    ///
    /// # Errors
    /// See [`SendError`]; nothing of the value was sent.
    ///
    /// # Cancel safety
    /// A dropped future has queued the whole value, or none of it.
    pub async fn send(&self, value: T) -> Result<Receipt, SendError> {
        self.raw.send(encode(&value).map_err(SendError::Encode)?).await
    }

    /// As [`send`](Self::send), with a time after which the value expires if nothing of it was transmitted.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn send_within(&self, value: T, lifetime: Duration) -> Result<Receipt, SendError> {
        self.raw.send_within(encode(&value).map_err(SendError::Encode)?, lifetime).await
    }

    /// Queues a value if there is room now.
    ///
    /// # Errors
    /// See [`SendError`]; nothing of the value was sent.
    pub fn try_send(&self, value: &T) -> Result<Receipt, SendError> {
        self.raw.try_send(encode(value).map_err(SendError::Encode)?)
    }

    /// See [`RawSender::finish`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn finish(self) -> Result<(), ReceiveError> {
        self.raw.finish().await
    }

    /// See [`RawSender::counters`].
    #[must_use]
    pub fn counters(&self) -> Option<Counters> {
        self.raw.counters()
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.raw.peer()
    }
}

/// The receiving direction of a [`Channel`]. Dropping it tells the peer.
#[derive(Debug)]
pub struct Receiver<T> {
    raw: RawReceiver,
    values: PhantomData<fn() -> T>,
}

impl<T: Message> Receiver<T> {
    pub(super) fn new(raw: RawReceiver) -> Self {
        Self { raw, values: PhantomData }
    }

    /// Waits for the next value; `None` when the peer has finished. Taking a value is what makes it
    /// delivered. On a channel of class [`Latest`](crate::DeliveryClass::Latest) it is the newest that has arrived; long
    /// ones are an exception, of which `latest` of [`Peer::channel`](crate::Peer::channel) tells.
    ///
    /// # Errors
    /// See [`ReceiveError`].
    ///
    /// # Cancel safety
    /// A value is either answered or still to be taken.
    pub async fn recv(&mut self) -> Result<Option<T>, ReceiveError> {
        match self.raw.recv().await? {
            Some(message) => decode(&message).map(Some).map_err(ReceiveError::Decode),
            None => Ok(None),
        }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.raw.peer()
    }
}
