//! The session protocol of vitte-net as a value.
//!
//! Bytes, commands and the time go in; frames, deadlines and events come out. There is no socket, no
//! clock, no task and no source of randomness in here: a session replays from its inputs.
#![no_std]
#![warn(missing_docs)]

extern crate alloc;

pub mod bucket;
pub mod codec;
pub mod config;
pub mod dial;
pub mod error;
pub mod frame;
pub mod handshake;
pub mod hello;
pub mod id;
mod schedule;
pub mod session;
mod stream;
pub mod time;

pub use config::Config;
pub use error::{CloseCode, StreamCode, Violation};
pub use frame::StreamKind;
pub use handshake::Handshake;
pub use hello::{Hello, Incarnation, Limits, Proof, Step};
pub use id::{DeliveryClass, Lane, LinkId, PeerId, Priority, StreamId};
pub use session::{Event, LinkKind, OpenError, SendError, Session};
pub use stream::receive::Taken;
pub use stream::{Counters, OpenInfo, Outcome};
pub use time::Moment;

/// Cases of a property; fewer under Miri, which is slow.
#[cfg(test)]
pub(crate) const fn cases(count: u32) -> u32 {
    if cfg!(miri) { 2 } else { count }
}
