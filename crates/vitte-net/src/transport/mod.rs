//! Links: authenticated connections that carry frames between two nodes and do not know what is in them.
//!
//! The set is closed ([`LinkReader`] and [`LinkWriter`] are enums) and the differences show: a QUIC link
//! has [`Lane::COUNT`] lanes, a byte link (TLS over TCP, or over WebSocket) has one. A link is made by
//! [`Transports::dial`] or by accepting from a [`Listener`]; both ends have proven their keys by then, and
//! nothing else: whether the peer is *trusted* is asked one floor up.

pub mod bytes;
mod dial;
mod listen;
#[cfg(feature = "quic")]
pub mod quic;

use std::net::SocketAddr;
use std::task::{Context, Poll};

use vitte_net_proto::{Lane, PeerId};

pub use crate::address::{Address, AddressError, Transport};
pub use dial::Transports;
pub use listen::{Incoming, Listener};

/// An authenticated connection, before it is taken apart.
#[derive(Debug)]
pub struct Link {
    /// What is known of it.
    pub info: LinkInfo,
    /// The half that receives.
    pub reader: LinkReader,
    /// The half that sends.
    pub writer: LinkWriter,
}

/// What is known of a link. It does not change while the link lives.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LinkInfo {
    /// Whose key the other side proved.
    pub peer: PeerId,
    /// How the link travels.
    pub transport: Transport,
    /// This side dialled.
    pub dialled: bool,
    /// The address of this side.
    pub local: SocketAddr,
    /// The address of the other side (of the proxy, if there is one).
    pub remote: SocketAddr,
}

/// The receiving half of a [`Link`].
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one per link; a box would cost a hop in every call")]
pub enum LinkReader {
    /// One lane: TLS records over a byte stream.
    Bytes(bytes::Reader),
    /// Several lanes: QUIC streams.
    #[cfg(feature = "quic")]
    Quic(quic::Reader),
}

impl LinkReader {
    /// Runs what `work` makes of the reader, in a task: of its own, or where the link's own work is done.
    pub(crate) fn spawn<F>(self, work: impl FnOnce(Self) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match self {
            Self::Bytes(_) => drop(tokio::spawn(work(self))),
            #[cfg(feature = "quic")]
            Self::Quic(ref reader) => reader.seat().spawn(work(self)),
        }
    }

    /// Waits until bytes have arrived and hands every run of them to `deliver` with its lane, in order
    /// within a lane. It returns as soon as something was delivered. A run may end inside a frame.
    ///
    /// # Errors
    /// [`LinkError::Closed`] when the peer closed the link in order, otherwise what broke it. The link is
    /// useless after either.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped: bytes are either delivered or still to be read.
    pub async fn read(&mut self, deliver: &mut (dyn FnMut(Lane, &[u8]) + Send)) -> Result<(), LinkError> {
        match self {
            Self::Bytes(reader) => reader.read(deliver).await,
            #[cfg(feature = "quic")]
            Self::Quic(reader) => reader.read(deliver).await,
        }
    }
}

/// The sending half of a [`Link`]. All of its calls return at once.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one per link; a box would cost a hop in every call")]
pub enum LinkWriter {
    /// One lane: TLS records over a byte stream.
    Bytes(bytes::Writer),
    /// Several lanes: QUIC streams.
    #[cfg(feature = "quic")]
    Quic(quic::Writer),
}

impl LinkWriter {
    /// How many bytes [`write`](Self::write) takes for `lane` in one call now: 0 while enough waits to be
    /// flushed, never more than 16 KiB on a byte link (one TLS record) and 64 KiB on a QUIC link. For
    /// [`Lane::DATAGRAM`], which a QUIC link has alone, it is the length of the longest frame that may travel
    /// alone, or 0 while none may.
    #[must_use]
    #[cfg_attr(not(feature = "quic"), allow(unused_variables, reason = "a byte link has one lane"))]
    pub fn capacity(&self, lane: Lane) -> usize {
        match self {
            Self::Bytes(writer) => writer.capacity(),
            #[cfg(feature = "quic")]
            Self::Quic(writer) => writer.capacity(lane),
        }
    }

    /// Takes whole frames, at most [`capacity`](Self::capacity) bytes of them. On a byte link every call
    /// makes one TLS record, so that a frame never straddles two.
    ///
    /// # Errors
    /// The link is broken.
    #[cfg_attr(not(feature = "quic"), allow(unused_variables, reason = "a byte link has one lane"))]
    pub fn write(&mut self, lane: Lane, frames: &[u8]) -> Result<(), LinkError> {
        match self {
            Self::Bytes(writer) => writer.write(frames),
            #[cfg(feature = "quic")]
            Self::Quic(writer) => writer.write(lane, frames),
        }
    }

    /// Hands what was written to the operating system. Ready when nothing waits here any more; pending
    /// when it registered the task to be woken, once at least one lane has room again.
    ///
    /// # Errors
    /// The link is broken.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        match self {
            Self::Bytes(writer) => writer.poll_flush(cx),
            #[cfg(feature = "quic")]
            Self::Quic(writer) => writer.poll_flush(cx),
        }
    }

    /// Sends the transport's own goodbye as far as it goes without waiting, and cuts the link. The reason
    /// travels in frames, before; this is only the end of the bytes.
    pub fn close(&mut self) {
        match self {
            Self::Bytes(writer) => writer.close(),
            #[cfg(feature = "quic")]
            Self::Quic(writer) => writer.close(),
        }
    }
}

/// Why a link ended or could not be made. `Display` says whose fault it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The peer ended the link in order.
    #[error("the peer closed the link")]
    Closed,
    /// The network failed: refused, reset, unreachable, cut inside a record.
    #[error("the network failed: {0}")]
    Io(#[from] std::io::Error),
    /// The peer broke the rules of TLS, QUIC or WebSocket, or none of our versions and ciphers suit it.
    #[error("the peer broke the rules of {protocol}: {reason}")]
    Protocol {
        /// Which rules.
        protocol: &'static str,
        /// What the library below said.
        reason: String,
    },
    /// The peer proved another key than the one that was asked for.
    #[error("wrong peer: asked for {expected}, found {found}")]
    WrongPeer {
        /// Whom the caller wanted.
        expected: PeerId,
        /// Who answered.
        found: PeerId,
    },
    /// The handshake did not end in time (see `Config::handshake_timeout`).
    #[error("the handshake did not end in time")]
    HandshakeTimeout,
    /// The host name has no address.
    #[error("no address for {0}")]
    NoAddress(String),
    /// This build has no such transport (a cargo feature is off).
    #[error("this build has no {0} transport")]
    Unsupported(Transport),
}
