//! The sending half of a datagram channel: numbers instead of offsets, and nothing is kept for a replay.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;

use super::{SendHalf, Settled};
use crate::error::{CloseCode, StreamCode, Violation};
use crate::frame::{Offsets, datagram_len};
use crate::id::StreamId;
use crate::stream::{Content, Outcome};
use crate::time::Moment;

/// Datagrams under way on a byte link, of which the peer has not said that they arrived.
const UNSEEN_MAX: usize = 1024;

/// How many datagrams ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fates {
    pub(crate) delivered: u64,
    pub(crate) unknown: u64,
}

/// What was transmitted, and what the peer has said of it.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// Datagrams that were transmitted: the number of the next.
    sent: u64,
    /// All below this number are decided at the peer...
    through: u64,
    /// ...and its application took so many of them.
    taken: u64,
    /// Number and length of those that stand in the buffers of a byte link, perhaps.
    unseen: VecDeque<(u64, u32)>,
    unseen_bytes: u64,
    /// What has ended since it was last counted.
    fates: Fates,
    /// The next one is longer than a packet of the link: it goes by its lane.
    too_long: bool,
}

impl Numbers {
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn unseen_bytes(&self) -> u64 {
        self.unseen_bytes
    }

    pub(super) fn forget_unseen(&mut self) {
        self.unseen.clear();
        self.unseen_bytes = 0;
    }

    /// Takes the peer's counts: `received` is the number below which all are decided, `limit` the one below which
    /// all have arrived or never will.
    pub(super) fn handle_offsets(&mut self, offsets: &Offsets) -> Result<(), Violation> {
        let Offsets { taken, received: through, limit: seen } = *offsets;
        if seen > self.sent {
            return Err(Violation::new(CloseCode::FLOW_CONTROL, "a count of datagrams that were never sent"));
        }
        if through > self.through || taken > self.taken {
            self.count(through, taken)?;
        }
        while let Some(&(_, len)) = self.unseen.front().filter(|(number, _)| *number < seen) {
            self.unseen.pop_front();
            self.unseen_bytes -= u64::from(len);
        }
        Ok(())
    }

    fn count(&mut self, through: u64, taken: u64) -> Result<(), Violation> {
        let (missed, known) = (through.checked_sub(taken), self.through - self.taken);
        let missed = missed.filter(|missed| *missed >= known && taken >= self.taken);
        let Some(missed) = missed else {
            return Err(Violation::new(CloseCode::FLOW_CONTROL, "counts of datagrams that shrink"));
        };
        self.fates.delivered += taken - self.taken;
        self.fates.unknown += missed - known;
        (self.through, self.taken) = (through, taken);
        Ok(())
    }

    /// Nothing more is told: what the peer's application has not taken is unknown.
    pub(super) fn end(&mut self, taken: Option<u64>) -> Result<(), Violation> {
        self.count(self.sent, taken.unwrap_or(self.taken))?;
        self.forget_unseen();
        Ok(())
    }
}

impl SendHalf {
    /// Drops the oldest datagrams until one of `len` bytes finds room.
    pub(crate) fn make_room(
        &mut self,
        len: usize,
        messages: usize,
        bytes: usize,
        settled: &mut Vec<Settled>,
    ) {
        while !self.queue.is_empty()
            && (self.queue.len() >= messages || self.queued_bytes + len > bytes)
            && let Some(oldest) = self.queue.pop_front()
        {
            self.queued_bytes -= oldest.payload.len();
            settled.push((oldest.token, Outcome::Refused(StreamCode::BUSY)));
        }
    }

    /// A datagram waits, and may go.
    pub(super) fn may_fly(&self) -> bool {
        !self.queue.is_empty() && self.numbers.unseen.len() < UNSEEN_MAX
    }

    /// The length of the next DATAGRAM frame.
    pub(crate) fn next_datagram(&self, id: StreamId) -> Option<usize> {
        let next = self.queue.front().filter(|_| self.content == Content::Datagrams && self.may_fly())?;
        Some(datagram_len(id, self.numbers.sent, next.payload.len()))
    }

    /// The next datagram is known to be longer than a packet of the link.
    pub(crate) fn set_too_long(&mut self, too_long: bool) {
        self.numbers.too_long = too_long;
    }

    pub(crate) fn too_long(&self) -> bool {
        self.numbers.too_long
    }

    /// Takes the next datagram to transmit it; one whose deadline has passed expires.
    pub(crate) fn pop_datagram(&mut self, now: Moment, settled: &mut Vec<Settled>) -> Option<(u64, Bytes)> {
        let next = self.queue.pop_front()?;
        self.numbers.too_long = false;
        self.queued_bytes -= next.payload.len();
        if next.deadline.is_some_and(|at| at <= now) {
            settled.push((next.token, Outcome::Expired));
            return None;
        }
        self.numbers.sent += 1;
        Some((self.numbers.sent - 1, next.payload))
    }

    /// The last one went out on a byte link, in a frame of `len` bytes: it arrives, and until then it stands in
    /// the way of what follows.
    pub(crate) fn keep_unseen(&mut self, len: usize) {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.numbers.unseen.push_back((self.numbers.sent - 1, len));
        self.numbers.unseen_bytes += u64::from(len);
    }

    /// What has ended since this was last asked.
    pub(crate) fn take_fates(&mut self) -> Fates {
        core::mem::take(&mut self.numbers.fates)
    }
}
