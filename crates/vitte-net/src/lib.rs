//! vitte-net: the asynchronous network library of the Vitte language.
//!
//! A mesh-oriented, multi-transport messaging layer: peers that multiplex typed channels, calls and byte
//! streams over QUIC, TCP+TLS and WebSocket. Every send ends as delivered, refused, expired, superseded or
//! unknown, and its sender can learn which. Beside it stand the plain primitives, which know of no mesh.
//!
//! # Layout
//!
//! In reading order, the lowest floor first:
//!
//! - [`stream`]: what goes over any stream of bytes: values, remote calls, another stream.
//! - [`network`]: the seam. Everything asked of the operating system, and its simulated twin's place.
//! - [`tcp`], [`udp`]: plain sockets. [`tls`]: its client and server over any stream.
//!   [`resolver`]: names.
//! - [`address`], [`identity`], [`ws`]: where a node is, who it is, how it proves that.
//! - [`http`]: client, server and download, HTTP/1.1 and HTTP/2.
//! - [`transport`]: links, which carry frames and do not know what is in them.
//! - [`vitte_net_proto`]: the session, as a value without IO.
//! - [`channel`], [`call`]: what an application says on a session.
//! - [`peer`]: the owner of one session and its links. [`discovery`]: where peers may be. [`mesh`]: all
//!   of it together.
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod network;
pub mod stream;
pub mod tcp;
pub mod udp;

#[cfg(feature = "mesh")]
pub mod address;
#[cfg(feature = "mesh")]
pub mod call;
#[cfg(feature = "mesh")]
pub mod channel;
#[cfg(feature = "mesh")]
pub mod config;
#[cfg(feature = "mesh")]
pub mod discovery;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "mesh")]
pub mod identity;
#[cfg(feature = "mesh")]
pub mod mesh;
#[cfg(feature = "mesh")]
pub mod peer;
#[cfg(any(feature = "quic", feature = "http3"))]
mod quic;
#[cfg(feature = "dns")]
pub mod resolver;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "mesh")]
pub mod transport;
#[cfg(feature = "ws")]
pub mod ws;

#[cfg(feature = "mesh")]
pub use self::{
    address::{Address, Transport},
    call::{Call, CallContext, CallError, NotSent, Refusal, Request},
    channel::bytes::PeerStream,
    channel::datagrams::{DatagramSender, Datagrams, RawDatagramSender, RawDatagrams},
    channel::payload::Blob,
    channel::raw::{RawChannel, RawReceiver, RawSender},
    channel::receipt::{Receipt, Undelivered},
    channel::typed::{Channel, Message, Receiver, Sender},
    channel::{OpenError, ReceiveError, SendError},
    config::Config,
    identity::{Identity, Secret, Trust},
    mesh::{
        DialError, Events, HandshakeError, Incoming, Mesh, MeshBuilder, MeshEvent, ServeError, StartError,
    },
    peer::Peer,
};
/// The crate behind [`Schema`]. What its derive writes names the crate `postcard_schema`, as serde's names `serde`:
/// either your manifest has it too (`postcard-schema = { version = "0.2", features = ["derive"] }`), or the type says
/// `#[postcard(crate = vitte_net::postcard_schema)]`.
#[cfg(feature = "mesh")]
pub use postcard_schema;
#[cfg(feature = "mesh")]
pub use postcard_schema::Schema;
#[cfg(feature = "mesh")]
pub use vitte_net_proto::{CloseCode, Counters, DeliveryClass, PeerId, Priority, StreamCode};
