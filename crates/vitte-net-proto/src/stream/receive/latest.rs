//! The receiving half of a channel of class latest: what was taken, and what was skipped for something newer.

use super::ReceiveHalf;
use crate::stream::Content;

/// What became of the messages of a direction of class latest: all were taken or skipped, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Consumed {
    pub(crate) count: u64,
    /// Bit i: the one i before the last was taken.
    pub(crate) delivered: u64,
    /// The count that the peer was told on this link.
    told: u64,
}

impl ReceiveHalf {
    /// The message that ends at `end` was taken, or skipped for a newer one.
    pub(super) fn consume(&mut self, end: u64, taken: bool) {
        self.taken = end;
        self.consumed.count += 1;
        self.consumed.delivered = self.consumed.delivered << 1 | u64::from(taken);
    }

    /// What the peer of a direction of class latest must hear before these offsets, and again before STOP.
    pub(crate) fn take_consumed(&mut self, stop: bool) -> Option<Consumed> {
        let news = self.content == Content::Latest && self.consumed.count > 0;
        let news = news && (stop || self.consumed.count > self.consumed.told);
        self.consumed.told = self.consumed.count;
        news.then_some(self.consumed)
    }

    /// The link changed: what was told on the old one may be lost.
    pub(crate) fn restate(&mut self) {
        self.consumed.told = 0;
    }

    /// Where the credit runs from: of class latest, what waits untaken does not hold up what is newer.
    pub(super) fn credit_base(&self) -> u64 {
        if self.content == Content::Latest { self.completed } else { self.taken }
    }

    /// A newer message may have made an older one make room: the credit is to be looked at.
    pub(crate) fn credit_due(&self) -> bool {
        self.content == Content::Latest && self.open() && self.limit < self.completed + self.window
    }
}
