//! The receiving half of a datagram channel: a bounded inbox in the order of numbers, and the counts that the
//! peer lives by.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;

use bytes::Bytes;

use super::{Progress, ReceiveHalf, Terminal};
use crate::error::{CloseCode, StreamCode, Violation};
use crate::frame::Offsets;
use crate::stream::Content;

/// News of so many datagrams does not wait for company.
const URGENT_AT: u64 = 256;

pub(super) fn urgent(told: Offsets, now: Offsets) -> bool {
    now.limit.saturating_sub(told.limit) >= URGENT_AT
        || now.received.saturating_sub(told.received) >= URGENT_AT
}

/// Datagrams that wait to be taken.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// In the order of their numbers.
    queue: VecDeque<(u64, Bytes)>,
    bytes: usize,
    /// All below are decided: taken, dropped, or too late.
    through: u64,
    /// All below have arrived, or are too late if they do.
    seen: u64,
    taken: u64,
}

impl Inbox {
    pub(super) fn offsets(&self) -> Offsets {
        Offsets { taken: self.taken, received: self.through, limit: self.seen }
    }

    pub(super) fn holds(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    pub(super) fn clear(&mut self) {
        self.queue = VecDeque::new();
        self.bytes = 0;
    }

    pub(super) fn take(&mut self) -> Option<Bytes> {
        let payload = self.pop()?;
        self.taken += 1;
        Some(payload)
    }

    fn pop(&mut self) -> Option<Bytes> {
        let (number, payload) = self.queue.pop_front()?;
        self.bytes -= payload.len();
        self.through = number + 1;
        Some(payload)
    }

    /// Whether it is new: neither too late nor here already.
    fn put(&mut self, number: u64, payload: &[u8], messages: usize, bytes: usize) -> bool {
        self.seen = self.seen.max(number + 1);
        let at = self.queue.partition_point(|(known, _)| *known < number);
        if number < self.through || self.queue.get(at).is_some_and(|(known, _)| *known == number) {
            return false;
        }
        self.queue.insert(at, (number, Bytes::copy_from_slice(payload)));
        self.bytes += payload.len();
        while self.queue.len() > 1 && (self.queue.len() > messages || self.bytes > bytes) {
            self.pop();
        }
        true
    }
}

impl ReceiveHalf {
    /// Takes a datagram; of more than fit, the oldest are dropped. `opened` is false while the OPEN trails.
    pub(crate) fn handle_datagram(
        &mut self,
        number: u64,
        payload: &[u8],
        opened: bool,
        (messages, bytes): (usize, usize),
    ) -> Result<Progress, Violation> {
        if opened && self.content != Content::Datagrams {
            return Err(Violation::malformed("a datagram on a channel of another class"));
        }
        if !self.open() {
            return Ok(Progress::default());
        }
        if self.end.is_some_and(|end| number >= end) {
            return Err(Violation::new(CloseCode::FLOW_CONTROL, "a datagram beyond the end of its channel"));
        }
        let inbox = self.datagrams.get_or_insert_with(Box::default);
        Ok(Progress { readable: inbox.put(number, payload, messages, bytes) })
    }

    /// The class is known: what came before must be of it.
    pub(super) fn check_class(&mut self) -> Result<(), Violation> {
        let streamed = self.received > 0 || !self.gaps.is_empty();
        match (self.content == Content::Datagrams, self.datagrams.is_some()) {
            (true, _) if streamed => Err(Violation::malformed("bytes with offsets on a datagram channel")),
            (false, true) => Err(Violation::malformed("a datagram on a channel of another class")),
            (true, _) => {
                self.told = Offsets::default();
                self.end.map_or(Ok(()), |end| self.check_end(end))
            }
            (false, false) => Ok(()),
        }
    }

    fn check_end(&self, end: u64) -> Result<(), Violation> {
        let seen = self.offsets().limit;
        if end < seen || self.end.is_some_and(|known| known != end) {
            return Err(Violation::malformed(
                "a datagram channel with two ends, or one before its datagrams",
            ));
        }
        Ok(())
    }

    pub(super) fn finish_datagrams(&mut self, end: u64) -> Result<Progress, Violation> {
        self.check_end(end)?;
        self.end = Some(end);
        self.end_datagrams();
        Ok(Progress { readable: true })
    }

    /// After the last number, what is still under way is not waited for.
    pub(super) fn end_datagrams(&mut self) {
        let holds = self.datagrams.as_ref().is_some_and(|inbox| inbox.holds());
        if self.end.is_some() && self.terminal.is_none() && !holds {
            self.terminal = Some(Terminal { code: StreamCode::FINISHED, reason: String::new() });
        }
    }
}
