//! When to dial whom, by which address: pure decisions, with time and chance handed in.

use core::time::Duration;

use crate::id::PeerId;
use crate::time::Moment;

/// Waits between attempts to reach a peer: doubling from `first` to `max`, each a random part between half
/// and all of it, so that nodes that lost each other together do not come back together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// A fresh row of waits.
    #[must_use]
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, next: first.min(max) }
    }

    /// The next wait. `chance` is a random number, all of its range alike.
    pub fn wait(&mut self, chance: u32) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.max);
        whole / 2 + (whole / 2).mul_f64(f64::from(chance) / f64::from(u32::MAX))
    }

    /// The peer was reached: begin again at the first wait.
    pub fn reset(&mut self) {
        self.next = self.first.min(self.max);
    }
}

/// What a [`Race`] wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RaceStep {
    /// Begin the attempt with this number.
    Start(usize),
    /// Nothing before this moment, or the end of an attempt.
    WaitUntil(Moment),
    /// All attempts are under way: wait for their ends.
    WaitForEnds,
    /// All attempts have failed.
    Lost,
}

/// A staggered race over the addresses of a peer, in the order of preference: the next one starts when the
/// last has had its head start, or has failed (after RFC 8305, section 5).
#[derive(Clone, Debug)]
pub struct Race {
    count: usize,
    started: usize,
    failed: usize,
    stagger: Duration,
    next_at: Option<Moment>,
}

impl Race {
    /// A race of `count` attempts.
    #[must_use]
    pub fn new(count: usize, stagger: Duration) -> Self {
        Self { count, started: 0, failed: 0, stagger, next_at: None }
    }

    /// What to do at `now`. Call it again after every answer but the waits.
    pub fn step(&mut self, now: Moment) -> RaceStep {
        if self.failed == self.count {
            return RaceStep::Lost;
        }
        if self.started == self.count {
            return RaceStep::WaitForEnds;
        }
        match self.next_at {
            Some(at) if at > now => RaceStep::WaitUntil(at),
            _ => {
                self.next_at = Some(now + self.stagger);
                self.started += 1;
                RaceStep::Start(self.started - 1)
            }
        }
    }

    /// An attempt failed: the next need not wait.
    pub fn failed(&mut self) {
        self.failed += 1;
        self.next_at = None;
    }
}

/// Whether of two links of the same transport between the same peers, dialled by both sides at once, the one
/// that `local` dialled stays: the greater key's does.
#[must_use]
pub fn keeps_own(local: &PeerId, remote: &PeerId) -> bool {
    local > remote
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_begin_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: [u128; 5] = core::array::from_fn(|_| backoff.wait(u32::MAX).as_millis());
        assert_eq!(waits, [100, 200, 400, 800, 1000]);
        backoff.reset();
        assert_eq!(backoff.wait(0), Duration::from_millis(50));
    }

    #[test]
    fn a_race_is_staggered_and_a_failure_brings_the_next_forward() {
        let stagger = Duration::from_millis(250);
        let mut race = Race::new(3, stagger);
        let start = Moment::from_micros(7);
        assert_eq!(race.step(start), RaceStep::Start(0));
        assert_eq!(race.step(start), RaceStep::WaitUntil(start + stagger));
        assert_eq!(race.step(start + stagger), RaceStep::Start(1));
        race.failed();
        assert_eq!(race.step(start + stagger), RaceStep::Start(2));
        assert_eq!(race.step(start + stagger), RaceStep::WaitForEnds);
        race.failed();
        race.failed();
        assert_eq!(race.step(start + stagger), RaceStep::Lost);
    }
}
