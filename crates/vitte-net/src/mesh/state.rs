//! What a mesh remembers of each peer.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;
use vitte_net_proto::dial::Backoff;
use vitte_net_proto::{Incarnation, PeerId};

use super::readmission::Readmission;
use crate::address::Address;
use crate::peer::Shared;

/// One life of a peer's side of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) incarnation: Incarnation,
    pub(super) generation: u64,
}

/// A peer that was dialled, seen or heard of.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// What hellos to this peer say; a fresh one after each loss of the session.
    pub(super) generation: u64,
    pub(super) session: Option<(Arc<Shared>, Life)>,
    /// The session was told of as up.
    pub(super) announced: bool,
    pub(super) addresses: Vec<Address>,
    /// Discovery wants the peer kept: it is dialled again and again.
    pub(super) kept: bool,
    /// A task dials.
    pub(super) keeping: bool,
    /// A task looks for better links; this makes it look again.
    pub(super) improving: Option<Arc<Notify>>,
    /// The row of waits between its dials, and when the last one led to the peer.
    pub(super) waits: Option<(Backoff, Instant)>,
    /// When the last round of dialling began.
    pub(super) dialled: Option<Instant>,
    /// The peer was cut, and is let in again with care.
    pub(super) readmission: Option<Readmission>,
    /// One round of dialling at a time.
    pub(super) gate: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) peers: BTreeMap<PeerId, Entry>,
    /// The greatest generation that was ever used: numbers never come back, so that a forgotten entry
    /// can be made again.
    generations: u64,
    pub(super) draining: bool,
}

impl State {
    /// The entry of a peer, made if there is room for `most`; entries that nothing needs make room.
    pub(super) fn entry(&mut self, peer: PeerId, most: usize) -> Option<&mut Entry> {
        if !self.peers.contains_key(&peer) {
            if self.peers.len() >= most {
                let idle = |entry: &Entry| {
                    entry.session.is_none() && !entry.kept && !entry.keeping && entry.improving.is_none()
                };
                let unneeded = self.peers.iter().filter(|(_, entry)| idle(entry));
                // Strangers that never proved anything, before those whose addresses are known.
                let unneeded = unneeded.min_by_key(|(_, entry)| !entry.addresses.is_empty());
                let unneeded = unneeded.map(|(id, _)| *id)?;
                self.peers.remove(&unneeded);
            }
            let generation = self.next_generation();
            self.peers.insert(peer, Entry { generation, ..Entry::default() });
        }
        self.peers.get_mut(&peer)
    }

    pub(super) fn next_generation(&mut self) -> u64 {
        self.generations += 1;
        self.generations
    }
}
