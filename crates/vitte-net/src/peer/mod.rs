//! A peer: the handle that an application holds, and the owner of one session and its links.

mod core;
mod driver;
mod flush;
mod receipts;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use vitte_net_proto::{Counters, DeliveryClass, OpenInfo, PeerId, Priority, StreamKind};

use crate::address::Transport;
use crate::call::{Call, Request};
use crate::channel::bytes::PeerStream;
use crate::channel::datagrams::{Datagrams, RawDatagrams};
use crate::channel::payload::Fingerprint;
use crate::channel::raw::RawChannel;
use crate::channel::typed::{Channel, Message};
use crate::channel::{OpenError, Stream};

pub(crate) use self::core::{Observer, PeerEvent, Shared};

/// A session with another node: cheap to clone, and over when the session is. After a loss, ask the mesh
/// for the peer again: what was under way has ended as unknown, and a new session begins with nothing.
#[derive(Clone)]
pub struct Peer {
    shared: Arc<Shared>,
}

impl Peer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Whose key it is.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.shared.id()
    }

    /// How the link travels that carries the session now; `None` while there is none.
    #[must_use]
    pub fn transport(&self) -> Option<Transport> {
        self.shared.transport()
    }

    /// A link carries the session now.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        self.transport().is_some()
    }

    /// How many links the session has now: one carries it, others stand by.
    #[must_use]
    pub fn links(&self) -> usize {
        self.shared.links()
    }

    /// The session is over.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.shared.is_lost()
    }

    /// The smoothed round trip of keep-alive questions, once there was one.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.shared.round_trip()
    }

    /// What became of every message of this side in this session. They add up at every moment.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.counters()
    }

    /// Calls the peer's handler for this request.
    pub fn call<R: Request>(&self, request: R) -> Call<R> {
        Call::new(self.shared.clone(), request)
    }

    /// A channel of values of one type, both ways; see [`OpenChannel::receiving`] for two types.
    pub fn channel<T: Message>(&self, name: &str) -> OpenChannel<T, T> {
        OpenChannel { opening: self.opening(name, StreamKind::Channel), types: std::marker::PhantomData }
    }

    /// A channel of messages that are bytes.
    pub fn raw_channel(&self, name: &str) -> OpenRaw {
        OpenRaw { opening: self.opening(name, StreamKind::Channel) }
    }

    /// A channel of datagrams that are values, both ways: they may be lost, and are counted instead of receipted.
    /// The peer must accept the name with [`Mesh::accept_datagrams`](crate::Mesh::accept_datagrams).
    pub fn datagrams<T: Message>(&self, name: &str) -> OpenDatagrams<T, T> {
        OpenDatagrams { opening: self.datagram_opening(name), types: std::marker::PhantomData }
    }

    /// A channel of datagrams that are bytes.
    pub fn raw_datagrams(&self, name: &str) -> OpenRawDatagrams {
        OpenRawDatagrams { opening: self.datagram_opening(name) }
    }

    fn datagram_opening(&self, name: &str) -> Opening {
        let mut opening = self.opening(name, StreamKind::Channel);
        opening.info.class = DeliveryClass::Datagram;
        opening
    }

    /// A byte stream of any length, both ways.
    pub fn byte_stream(&self, name: &str) -> OpenBytes {
        OpenBytes { opening: self.opening(name, StreamKind::Bytes) }
    }

    fn opening(&self, name: &str, kind: StreamKind) -> Opening {
        let info = OpenInfo {
            kind,
            priority: if kind == StreamKind::Bytes { Priority::Bulk } else { Priority::Normal },
            class: DeliveryClass::Reliable,
            deadline: None,
            schema_out: 0,
            schema_in: 0,
            name: name.into(),
        };
        Opening { peer: self.clone(), info }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("id", &self.id()).field("transport", &self.transport()).finish()
    }
}

#[derive(Debug)]
struct Opening {
    peer: Peer,
    info: OpenInfo,
}

impl Opening {
    async fn open(self) -> Result<Stream, OpenError> {
        Stream::open(self.peer.shared, self.info).await
    }
}

/// A typed channel that is about to be opened.
#[derive(Debug)]
#[must_use = "a channel is opened by `open`"]
pub struct OpenChannel<Out, In> {
    opening: Opening,
    types: std::marker::PhantomData<fn(Out) -> In>,
}

impl<Out: Message, In: Message> OpenChannel<Out, In> {
    /// The class of everything on it, both ways. Default: [`Priority::Normal`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.opening.info.priority = priority;
        self
    }

    /// Only the newest value matters, both ways: one that waits is superseded by a newer one, here or at the
    /// peer, and its receipt says so. The peer must accept the name with
    /// [`Mesh::accept_latest`](crate::Mesh::accept_latest). A value longer than the credit of the stream
    /// ([`Config::stream_window`](crate::Config::stream_window), 64 KiB at first) has room that the next one needs: once
    /// begun it is delivered, before newer ones.
    pub fn latest(mut self) -> Self {
        self.opening.info.class = DeliveryClass::Latest;
        self
    }

    /// Another type for what comes back.
    pub fn receiving<Other: Message>(self) -> OpenChannel<Out, Other> {
        OpenChannel { opening: self.opening, types: std::marker::PhantomData }
    }

    /// Opens the channel and waits until the peer has accepted it, its name and its types.
    ///
    /// # Errors
    /// See [`OpenError`].
    ///
    /// # Cancel safety
    /// A dropped future gives the channel up.
    pub async fn open(mut self) -> Result<Channel<Out, In>, OpenError> {
        self.opening.info.schema_out = Fingerprint::<Out>::VALUE;
        self.opening.info.schema_in = Fingerprint::<In>::VALUE;
        self.opening.open().await.map(|stream| Channel::new(RawChannel::new(stream)))
    }
}

/// A raw channel that is about to be opened.
#[derive(Debug)]
#[must_use = "a channel is opened by `open`"]
pub struct OpenRaw {
    opening: Opening,
}

impl OpenRaw {
    /// The class of everything on it, both ways. Default: [`Priority::Normal`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.opening.info.priority = priority;
        self
    }

    /// Only the newest message matters, both ways; see [`OpenChannel::latest`].
    pub fn latest(mut self) -> Self {
        self.opening.info.class = DeliveryClass::Latest;
        self
    }

    /// Opens the channel and waits until the peer has accepted it.
    ///
    /// # Errors
    /// See [`OpenError`].
    ///
    /// # Cancel safety
    /// A dropped future gives the channel up.
    pub async fn open(self) -> Result<RawChannel, OpenError> {
        self.opening.open().await.map(RawChannel::new)
    }
}

/// A channel of datagrams that is about to be opened.
#[derive(Debug)]
#[must_use = "a channel is opened by `open`"]
pub struct OpenDatagrams<Out, In> {
    opening: Opening,
    types: std::marker::PhantomData<fn(Out) -> In>,
}

impl<Out: Message, In: Message> OpenDatagrams<Out, In> {
    /// The class of everything on it, both ways. Default: [`Priority::Normal`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.opening.info.priority = priority;
        self
    }

    /// Another type for what comes back.
    pub fn receiving<Other: Message>(self) -> OpenDatagrams<Out, Other> {
        OpenDatagrams { opening: self.opening, types: std::marker::PhantomData }
    }

    /// Opens the channel and waits until the peer has accepted it, its name and its types.
    ///
    /// # Errors
    /// See [`OpenError`].
    ///
    /// # Cancel safety
    /// A dropped future gives the channel up.
    pub async fn open(mut self) -> Result<Datagrams<Out, In>, OpenError> {
        self.opening.info.schema_out = Fingerprint::<Out>::VALUE;
        self.opening.info.schema_in = Fingerprint::<In>::VALUE;
        self.opening.open().await.map(|stream| Datagrams::new(RawDatagrams::new(stream)))
    }
}

/// A raw channel of datagrams that is about to be opened.
#[derive(Debug)]
#[must_use = "a channel is opened by `open`"]
pub struct OpenRawDatagrams {
    opening: Opening,
}

impl OpenRawDatagrams {
    /// The class of everything on it, both ways. Default: [`Priority::Normal`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.opening.info.priority = priority;
        self
    }

    /// Opens the channel and waits until the peer has accepted it.
    ///
    /// # Errors
    /// See [`OpenError`].
    ///
    /// # Cancel safety
    /// A dropped future gives the channel up.
    pub async fn open(self) -> Result<RawDatagrams, OpenError> {
        self.opening.open().await.map(RawDatagrams::new)
    }
}

/// A byte stream that is about to be opened.
#[derive(Debug)]
#[must_use = "a byte stream is opened by `open`"]
pub struct OpenBytes {
    opening: Opening,
}

impl OpenBytes {
    /// The class of everything on it, both ways. Default: [`Priority::Bulk`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.opening.info.priority = priority;
        self
    }

    /// Opens the stream and waits until the peer has accepted it.
    ///
    /// # Errors
    /// See [`OpenError`].
    ///
    /// # Cancel safety
    /// A dropped future gives the stream up.
    pub async fn open(self) -> Result<PeerStream, OpenError> {
        self.opening.open().await.map(PeerStream::new)
    }
}
