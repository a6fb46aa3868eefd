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

/// Peers beyond the limit that may be shaking hands while all others are known.
const STRANGERS: usize = 64;

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

impl Entry {
    /// Nothing needs it now.
    fn idle(&self) -> bool {
        self.session.is_none() && !self.kept && !self.keeping && self.improving.is_none()
    }
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
        if !self.peers.contains_key(&peer) && self.peers.len() >= most && !self.drop_idle(true) {
            return None;
        }
        Some(self.make(peer))
    }

    /// The same for a peer that has proven nothing yet. It does not take the place of one whose addresses are known:
    /// while one of those could go, a few strangers have places beyond `most`.
    pub(super) fn stranger(&mut self, peer: PeerId, most: usize) -> Option<&mut Entry> {
        if !self.peers.contains_key(&peer) && self.peers.len() >= most && !self.drop_idle(false) {
            let none_could_go = !self.peers.values().any(Entry::idle);
            if none_could_go || self.peers.len() >= most + STRANGERS {
                return None;
            }
        }
        Some(self.make(peer))
    }

    /// A stranger has proven itself and has a session. It takes a place from one that nothing needs, if there are more
    /// than `most`; false if all are needed.
    pub(super) fn seat(&mut self, most: usize) -> bool {
        self.peers.len() <= most || self.drop_idle(true)
    }

    fn make(&mut self, peer: PeerId) -> &mut Entry {
        let generations = &mut self.generations;
        self.peers.entry(peer).or_insert_with(|| {
            *generations += 1;
            Entry { generation: *generations, ..Entry::default() }
        })
    }

    /// Forgets a peer that nothing needs: a stranger that never proved anything, or else, if it may be so, one whose
    /// addresses are known.
    fn drop_idle(&mut self, known: bool) -> bool {
        let unneeded = self.peers.iter().filter(|(_, entry)| entry.idle());
        let unneeded = unneeded.filter(|(_, entry)| known || entry.addresses.is_empty());
        let unneeded = unneeded.min_by_key(|(_, entry)| !entry.addresses.is_empty()).map(|(id, _)| *id);
        unneeded.is_some_and(|id| self.peers.remove(&id).is_some())
    }

    pub(super) fn next_generation(&mut self) -> u64 {
        self.generations += 1;
        self.generations
    }
}
