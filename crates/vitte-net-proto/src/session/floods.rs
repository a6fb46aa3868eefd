//! What a peer may not do too often, because it costs this side more than the peer.

use super::{Event, Session};
use crate::bucket::Bucket;
use crate::config::Config;
use crate::error::{CloseCode, Violation};
use crate::time::Moment;

/// Lists of offsets that a peer may state in a row, and each second. A link begins with one when it takes over; what this
/// side says to it may be thousands of times as long.
const RESUMES: (u32, u32) = (64, 8);

/// Parts of a second in which a throttled peer gets places back. All of a larger part at once would be opened and given
/// up at once, and whatever else comes meanwhile would wait for that.
const SPREAD: u64 = 500;

/// The counts of one session.
#[derive(Debug)]
pub(super) struct Floods {
    abandoned: Bucket,
    /// Places of abandoned streams that the peer gets back later.
    withheld: u64,
    /// So many of them at a time.
    portion: u64,
    resumes: Bucket,
}

impl Floods {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            abandoned: Bucket::new(config.abandoned_burst, config.abandoned_per_second),
            withheld: 0,
            portion: (u64::from(config.abandoned_per_second) / SPREAD).clamp(1, eighth(config)),
            resumes: Bucket::new(RESUMES.0, RESUMES.1),
        }
    }

    /// When some places are due to be given back.
    pub(super) fn next_timeout(&self) -> Option<Moment> {
        let portion = self.withheld.min(self.portion);
        (portion > 0).then(|| self.abandoned.ready_at(portion))
    }
}

impl Session {
    /// A stream of the peer is forgotten. Its place is free at once, unless the peer gives up more streams
    /// than it may: then the place comes back as the bucket fills, and the peer opens no faster than that.
    pub(super) fn give_back(&mut self, abandoned: bool, now: Moment) {
        if !abandoned || self.floods.abandoned.take(now) {
            self.peer_forgotten += 1;
            self.grant(now);
            return;
        }
        if self.floods.withheld == 0 {
            self.events.push_back(Event::Throttled);
        }
        self.floods.withheld += 1;
    }

    /// Gives back what the bucket has room for.
    pub(super) fn check_floods(&mut self, now: Moment) {
        let due = self.floods.next_timeout().is_some_and(|at| at <= now);
        if !due {
            return;
        }
        while self.floods.withheld > 0 && self.floods.abandoned.take(now) {
            self.floods.withheld -= 1;
            self.peer_forgotten += 1;
        }
        self.grant(now);
    }

    /// The peer hears of its new room with the next statement, or at once if it has little left.
    fn grant(&mut self, now: Moment) {
        if let Some(granted) = self.grant_due() {
            let left = self.places_left();
            let throttled = self.floods.withheld > 0;
            let much = throttled || granted - self.peer_told >= eighth(&self.config);
            self.state_now |= left == 0 || (much && left < self.config.max_streams / 2);
            self.state_at.get_or_insert(now + self.config.ack_delay);
        }
    }

    /// The count of streams that the peer is to hear of, if it has grown enough: by an eighth of all, or at all while
    /// the peer is throttled or has less than an eighth left. Others of its streams may stay open for good.
    pub(super) fn grant_due(&self) -> Option<u64> {
        let granted = self.peer_forgotten + self.config.max_streams;
        let eighth = eighth(&self.config);
        let least = if self.floods.withheld > 0 || self.places_left() < eighth { 1 } else { eighth };
        (granted - self.peer_told >= least).then_some(granted)
    }

    /// Streams that the peer may still open, as it was told. After a change of links it may have been told less than it
    /// knew before.
    fn places_left(&self) -> u64 {
        self.peer_told.saturating_sub(self.peer_opened)
    }

    /// The peer has stated a list of offsets.
    pub(super) fn count_resume(&mut self, now: Moment) -> Result<(), Violation> {
        if self.floods.resumes.take(now) {
            Ok(())
        } else {
            Err(Violation::new(CloseCode::FLOW_CONTROL, "a flood of RESUME"))
        }
    }
}

fn eighth(config: &Config) -> u64 {
    (config.max_streams / 8).max(1)
}

#[cfg(test)]
mod tests;
