//! Channels of datagrams: messages that may be lost, and are counted instead of receipted.

use std::marker::PhantomData;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use vitte_net_proto::{Counters, PeerId, StreamCode};

use super::payload::encode;
use super::raw::RawReceiver;
use super::typed::{Message, Receiver};
use super::{ReceiveError, SendError, Stream};

/// A channel of datagrams that are bytes, both ways.
#[derive(Debug)]
pub struct RawDatagrams {
    sender: RawDatagramSender,
    receiver: RawReceiver,
}

impl RawDatagrams {
    pub(crate) fn new(stream: Stream) -> Self {
        let stream = Arc::new(stream);
        let sender = RawDatagramSender { stream: stream.clone() };
        Self { sender, receiver: RawReceiver::new(stream) }
    }

    /// Takes the two directions apart. Each can be dropped for itself.
    #[must_use]
    pub fn split(self) -> (RawDatagramSender, RawReceiver) {
        (self.sender, self.receiver)
    }
}

/// The sending direction of a channel of datagrams. Dropping it sends what was accepted, then finishes.
///
/// A datagram may be lost on its way, and is never sent again; of those that arrive the peer gets each once and
/// in order. **There are no receipts**: [`counters`](Self::counters) says how many were delivered, from what the
/// peer reports; the rest ends as refused (it fell out of the queue here), expired or unknown.
#[derive(Debug)]
pub struct RawDatagramSender {
    stream: Arc<Stream>,
}

impl RawDatagramSender {
    /// Accepts a datagram for sending; it never waits. When the queue is full
    /// ([`Config::datagram_queue`](crate::Config::datagram_queue)) the oldest in it is dropped, and counts as
    /// refused.
    ///
    /// On QUIC links it travels as a QUIC datagram, if it is not too long for one; on other links it arrives
    /// unless the link dies.
    ///
    /// # Errors
    /// [`SendError::TooLarge`] above 15,000 bytes, [`SendError::Closed`].
    pub fn send(&self, message: impl Into<Bytes>) -> Result<(), SendError> {
        self.send_within(message, None)
    }

    /// As [`send`](Self::send), with a time after which the datagram expires if it was not transmitted.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_within(
        &self,
        message: impl Into<Bytes>,
        lifetime: impl Into<Option<Duration>>,
    ) -> Result<(), SendError> {
        let Stream { carrier, id } = &*self.stream;
        let deadline = lifetime.into().map(|lifetime| carrier.now() + lifetime);
        match carrier.poll_send(None, *id, &message.into(), deadline, false) {
            Poll::Ready(sent) => Ok(sent.map(|_| ())?),
            Poll::Pending => Err(SendError::Full),
        }
    }

    /// Ends the direction behind everything that was accepted, and waits for the peer's last count: then
    /// nothing is in flight any more.
    ///
    /// # Errors
    /// The peer wanted no more, or the session was lost.
    ///
    /// # Cancel safety
    /// The direction is finished whether or not the wait is.
    pub async fn finish(&self) -> Result<(), ReceiveError> {
        let Stream { carrier, id } = &*self.stream;
        carrier.finish(*id);
        match self.stream.stopped().await {
            (StreamCode::FINISHED, _) => Ok(()),
            (code, reason) => Err(ReceiveError::Reset { code, reason }),
        }
    }

    /// What became of the datagrams that were sent here. They add up at every moment. Those that are under way
    /// may stay in flight until later ones arrive or the channel ends. Nothing once the session has forgotten
    /// the channel.
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

impl Drop for RawDatagramSender {
    fn drop(&mut self) {
        self.stream.carrier.finish(self.stream.id);
    }
}

/// A channel of datagrams that are values: `Out` to the peer, `In` from it.
#[derive(Debug)]
pub struct Datagrams<Out, In = Out> {
    sender: DatagramSender<Out>,
    receiver: Receiver<In>,
}

impl<Out: Message, In: Message> Datagrams<Out, In> {
    pub(crate) fn new(raw: RawDatagrams) -> Self {
        let (sender, receiver) = raw.split();
        Self {
            sender: DatagramSender { raw: sender, values: PhantomData },
            receiver: Receiver::new(receiver),
        }
    }

    /// Takes the two directions apart. Each can be dropped for itself.
    #[must_use]
    pub fn split(self) -> (DatagramSender<Out>, Receiver<In>) {
        (self.sender, self.receiver)
    }
}

/// The sending direction of [`Datagrams`]; see [`RawDatagramSender`].
#[derive(Debug)]
pub struct DatagramSender<T> {
    raw: RawDatagramSender,
    values: PhantomData<fn(T)>,
}

impl<T: Message> DatagramSender<T> {
    /// See [`RawDatagramSender::send`].
    ///
    /// # Errors
    /// As there; [`SendError::Encode`] if the value cannot be written.
    pub fn send(&self, value: &T) -> Result<(), SendError> {
        self.raw.send(encode(value).map_err(SendError::Encode)?)
    }

    /// See [`RawDatagramSender::send_within`].
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_within(&self, value: &T, lifetime: Duration) -> Result<(), SendError> {
        self.raw.send_within(encode(value).map_err(SendError::Encode)?, lifetime)
    }

    /// See [`RawDatagramSender::finish`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn finish(&self) -> Result<(), ReceiveError> {
        self.raw.finish().await
    }

    /// See [`RawDatagramSender::counters`].
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
