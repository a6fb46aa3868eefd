//! What a mesh tells of its peers.

use std::collections::VecDeque;
use std::net::SocketAddr;

use tokio::sync::broadcast::{self, error::RecvError};
use vitte_net_proto::{CloseCode, PeerId};

use crate::address::Transport;

/// Something happened to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MeshEvent {
    /// A new session.
    Up {
        /// With whom.
        peer: PeerId,
        /// How its first link travels.
        transport: Transport,
    },
    /// The last link of a session died. The session waits for the next one; nothing is lost yet.
    Unreachable {
        /// Whose.
        peer: PeerId,
    },
    /// A link carries the session again, or another one than before. Nothing was lost.
    Resumed {
        /// Whose.
        peer: PeerId,
        /// How the link travels.
        transport: Transport,
    },
    /// The peer asks for nothing new: it is going away.
    Draining {
        /// Who.
        peer: PeerId,
    },
    /// The peer gives up streams faster than [`Config::abandoned_per_second`](crate::Config::abandoned_per_second)
    /// allows: until it has slowed down it opens new ones no faster than that. Told once each time.
    Throttled {
        /// Who.
        peer: PeerId,
    },
    /// A link was cut because a rule of the protocol was broken on it. Both sides are told; the session lives and
    /// goes on over the next link.
    Violation {
        /// With whom.
        peer: PeerId,
        /// How the link travelled.
        transport: Transport,
        /// Which rule (docs/WIRE.md, "Close codes").
        code: CloseCode,
        /// Which, in words; the peer's if `ours`: escape them before they reach a terminal.
        reason: String,
        /// The peer says that this side broke it; otherwise the peer did.
        ours: bool,
    },
    /// The session is over: what was under way has ended as unknown.
    Down {
        /// With whom.
        peer: PeerId,
        /// Why, in words; perhaps the peer's: escape them before they reach a terminal.
        reason: String,
    },
    /// A connection that came in did not become part of a session: a wrong key, a wrong secret, a peer that
    /// broke the protocol, too many peers. It delivered nothing.
    Rejected {
        /// Where it came from.
        remote: SocketAddr,
        /// What both sides were told, if it came as far as that.
        code: Option<CloseCode>,
        /// In words; perhaps the peer's: escape them before they reach a terminal.
        reason: String,
    },
    /// More connections were not admitted than are told one by one (64, then 16 a second): so many in the last
    /// second.
    RejectedMore {
        /// How many.
        count: u64,
    },
    /// The reader was too slow: so many events are missing before the next one.
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// The events of a mesh, from a point in time on. The first ones tell of the peers of that time.
#[derive(Debug)]
pub struct Events {
    first: VecDeque<MeshEvent>,
    rest: broadcast::Receiver<MeshEvent>,
}

impl Events {
    pub(super) fn new(first: VecDeque<MeshEvent>, rest: broadcast::Receiver<MeshEvent>) -> Self {
        Self { first, rest }
    }

    /// Waits for the next event; `None` when the mesh is gone.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Option<MeshEvent> {
        if let Some(event) = self.first.pop_front() {
            return Some(event);
        }
        match self.rest.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(missed)) => Some(MeshEvent::Lagged { missed }),
            Err(RecvError::Closed) => None,
        }
    }
}
