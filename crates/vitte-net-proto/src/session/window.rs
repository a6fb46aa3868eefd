//! How many bytes may be under way on the link that carries the session.
//!
//! Whatever is under way beyond what the path needs stands in a queue somewhere, in the kernel, in a router, in
//! quinn, and everything urgent stands behind it. The path needs its rate times its round trip; both are
//! measured from what the peer says it has received (as BBR does, in spirit), and some slack is added so that a faster path is
//! noticed: 32 KiB, or 2 ms at the measured rate, whichever is more.

use alloc::collections::VecDeque;
use core::time::Duration;

use crate::time::Moment;

/// Bytes between two measurements.
const MARK_EVERY: u64 = 16 << 10;
/// Measurements under way; with more, they lie further apart.
const MARKS_MAX: usize = 64;
/// Room above what the path needs, in bytes and in time at the measured rate.
const SLACK: u64 = 32 << 10;
const SLACK_TIME: Duration = Duration::from_millis(2);
/// At the start the window doubles every round trip, until the rate has not grown by a quarter for so many, or
/// a round trip has become longer by a quarter and this much: then there is a queue.
const FLAT_ROUNDS: u8 = 3;
const QUEUE_AFTER: Duration = Duration::from_millis(4);
/// The least window: a few frames, so that a slow start measures something.
const LEAST: u64 = 64 << 10;
/// How long a least round trip is believed without being seen again.
const ROUND_TRIP_LIFE: Duration = Duration::from_secs(10);
/// How much of a measured rate counts, as a divisor: of a greater one, and of a smaller one, which may be
/// chance.
const FASTER: u64 = 4;
const SLOWER: u64 = 32;
/// A full path has a queue that this side has made, and hides its round trip: so often the queue is let run
/// dry, for a round trip and a little more.
const DRY_EVERY: Duration = Duration::from_secs(2);
const DRY_MORE: Duration = Duration::from_millis(5);
/// Measurements with a full window after which the rate counts as that of the path.
const FULL_ENOUGH: u32 = 32;
/// Rates over less time than this say nothing: the clock has microseconds.
const SHORTEST: Duration = Duration::from_micros(20);

/// The least of the recent past: of the running period, and of the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Least {
    current: Option<u64>,
    previous: Option<u64>,
    since: Moment,
}

impl Least {
    fn add(&mut self, value: u64, now: Moment, life: Duration) {
        if now.since(self.since) >= life / 2 {
            self.previous = self.current.take();
            self.since = now;
        }
        self.current = Some(self.current.map_or(value, |known| known.min(value)));
    }

    fn get(&self) -> Option<u64> {
        self.current.into_iter().chain(self.previous).min()
    }
}

/// A point in what was transmitted, to see when it is acknowledged.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Bytes transmitted up to here.
    sent: u64,
    at: Moment,
    /// Bytes acknowledged then, and when they were.
    acked: u64,
    acked_at: Moment,
    /// The window was open: the rate is the application's, not the path's.
    idle: bool,
}

/// The search for the rate of a path that is not known yet.
#[derive(Clone, Copy, Debug, Default)]
struct Start {
    /// The round ends when so many bytes are acknowledged.
    round: u64,
    /// The end of the first round.
    first: u64,
    rate: u64,
    flat: u8,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct LinkWindow {
    initial: u64,
    max: u64,
    sent: u64,
    acked: u64,
    acked_at: Moment,
    marks: VecDeque<Mark>,
    /// In microseconds.
    round_trip: Least,
    /// In bytes a second.
    rate: Option<u64>,
    window: u64,
    /// Measurements with a full window.
    full: u32,
    start: Option<Start>,
    /// When the queue of the path was last let run dry.
    dry_at: Moment,
}

impl LinkWindow {
    /// The window of a link that begins to carry a session of which `in_flight` bytes are under way.
    pub(super) fn new(initial: u64, max: u64, in_flight: u64) -> Self {
        Self {
            initial,
            max: max.max(initial),
            full: 0,
            start: Some(Start::default()),
            dry_at: Moment::ZERO,
            sent: in_flight,
            acked: 0,
            acked_at: Moment::ZERO,
            marks: VecDeque::new(),
            round_trip: Least::default(),
            rate: None,
            window: initial,
        }
    }

    /// How many bytes may be under way.
    pub(super) fn size(&self) -> u64 {
        self.window
    }

    /// The rate of the path in bytes a second, once it was full for long enough to tell.
    pub(super) fn path_rate(&self) -> Option<u64> {
        if self.full >= FULL_ENOUGH { self.rate } else { None }
    }

    /// The least round trip of the recent past, with the peer's delay in acknowledging.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip.get().map(Duration::from_micros)
    }

    /// `len` bytes were transmitted, which makes `in_flight` of them.
    pub(super) fn transmitted(&mut self, len: u64, in_flight: u64, now: Moment) {
        self.sent += len;
        let far = self.marks.back().is_none_or(|mark| self.sent - mark.sent >= MARK_EVERY);
        if far && self.marks.len() < MARKS_MAX {
            let idle = in_flight < self.window / 2;
            // After a pause the clock starts anew.
            let acked_at = if in_flight == len { now } else { self.acked_at };
            self.marks.push_back(Mark { sent: self.sent, at: now, acked: self.acked, acked_at, idle });
        }
    }

    /// The peer has received so much that `in_flight` bytes are left.
    pub(super) fn acknowledged(&mut self, in_flight: u64, now: Moment) {
        let before = self.acked;
        self.acked = self.sent.saturating_sub(in_flight).max(before);
        let (mut measured, mut full, mut longest) = (false, false, Duration::ZERO);
        while let Some(mark) = self.marks.front().copied().filter(|mark| mark.sent <= self.acked) {
            self.marks.pop_front();
            let took = now.since(mark.at);
            if took < SHORTEST {
                continue;
            }
            measured = true;
            full |= !mark.idle;
            longest = longest.max(if mark.idle { Duration::ZERO } else { took });
            self.full = self.full.saturating_add(u32::from(!mark.idle));
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            self.round_trip.add(micros, now, ROUND_TRIP_LIFE);
            // Acknowledgements come in bunches: over the time between two of them no rate is too high.
            let during = now.since(mark.acked_at.min(mark.at));
            let during = u64::try_from(during.as_micros()).unwrap_or(u64::MAX);
            let rate = (self.acked - mark.acked).saturating_mul(1_000_000) / during;
            // What the application alone held back is no measure of the path, unless it beats all others.
            if !mark.idle || self.rate.is_none_or(|known| rate > known) {
                self.rate = Some(match self.rate {
                    None => rate,
                    Some(known) if rate > known => {
                        known + (rate - known) / if self.start.is_some() { 1 } else { FASTER }
                    }
                    Some(known) => known - (known - rate) / SLOWER,
                });
            }
        }
        self.acked_at = now;
        if full {
            self.search(longest);
        }
        if measured {
            self.measure(full, self.acked - before, now);
        }
    }

    fn search(&mut self, took: Duration) {
        let (Some(rate), Some(least)) = (self.rate, self.round_trip()) else { return };
        let Some(start) = &mut self.start else { return };
        // The first window leaves as one burst, which makes a queue of its own.
        if start.round > 0 && took > least + least / 4 + QUEUE_AFTER && self.acked >= start.first {
            self.start = None;
        } else if self.acked >= start.round {
            if start.round == 0 {
                start.first = self.sent;
            }
            start.round = self.sent;
            if rate > start.rate + start.rate / 4 {
                (start.rate, start.flat) = (rate, 0);
            } else {
                start.flat += 1;
            }
            if start.flat >= FLAT_ROUNDS {
                self.start = None;
            }
        }
    }

    fn measure(&mut self, full: bool, acked: u64, now: Moment) {
        let (Some(rate), Some(round_trip)) = (self.rate, self.round_trip()) else { return };
        let during = |time: Duration| {
            u64::try_from(u128::from(rate) * time.as_micros() / 1_000_000).unwrap_or(u64::MAX)
        };
        let path = during(round_trip);
        let needed = path.saturating_add(during(SLACK_TIME).max(SLACK));
        // A path that is not full says little about how much it takes.
        if !full {
            return;
        }
        if self.start.is_some() {
            self.window = (self.window + acked).min(self.max);
            self.dry_at = now;
            return;
        }
        if now >= self.dry_at + DRY_EVERY {
            self.dry_at = now;
        }
        let dry = full && now < self.dry_at + round_trip + DRY_MORE;
        // It grows by a quarter in a round trip at most: what it gains would otherwise leave as one burst.
        let wanted = if dry { path / 4 * 3 } else { needed.min(self.window + acked / 4) };
        self.window = wanted.clamp(LEAST.min(self.initial), self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path with a rate and a delay, and a queue without an end; everything arrives in order, and is
    /// acknowledged every 3 ms. The greatest delay in the queue over the last second of three.
    fn run(rate: u64, delay: Duration) -> (LinkWindow, Duration, u64) {
        let mut window = LinkWindow::new(512 << 10, 16 << 20, 0);
        let mut path: VecDeque<(Moment, u64)> = VecDeque::new();
        let (mut free, mut in_flight, mut worst, mut done) = (Moment::ZERO, 0_u64, Duration::ZERO, 0);
        for step in 0..30_000_u64 {
            let now = Moment::from_micros(step * 100);
            while in_flight < window.size() {
                let len = 16 << 10;
                let start = free.max(now);
                if step > 20_000 {
                    worst = worst.max(start.since(now));
                }
                free = start + Duration::from_micros(len * 1_000_000 / rate);
                path.push_back((free + delay, len));
                in_flight += len;
                window.transmitted(len, in_flight, now);
            }
            if step % 30 == 0 {
                let before = in_flight;
                while path.front().is_some_and(|(at, _)| *at <= now) {
                    let (_, len) = path.pop_front().expect("looked at");
                    in_flight -= len;
                    done += if step > 20_000 { len } else { 0 };
                }
                if in_flight < before {
                    window.acknowledged(in_flight, now);
                }
            }
        }
        (window, worst, done)
    }

    #[test]
    fn the_queue_stays_short_and_the_path_full() {
        for (rate, delay_ms) in [(12_500_000, 10), (12_500_000, 100), (1_250_000, 20), (125_000_000, 5)] {
            let (window, worst, done) = run(rate, Duration::from_millis(delay_ms));
            let share = done as f64 / rate as f64;
            assert!(share > 0.8, "{rate} B/s, {delay_ms} ms: only {share} of the path, {window:?}");
            let most = Duration::from_millis(6) + Duration::from_micros((64 << 10) * 1_000_000 / rate);
            assert!(worst <= most, "{rate} B/s, {delay_ms} ms: {worst:?} in the queue");
        }
    }

    #[test]
    fn little_traffic_leaves_the_first_window() {
        let mut window = LinkWindow::new(512 << 10, 16 << 20, 0);
        for step in 0..1000 {
            let now = Moment::from_micros(step * 10_000);
            window.transmitted(100, 100, now);
            window.acknowledged(0, now + Duration::from_millis(5));
        }
        assert_eq!(window.size(), 512 << 10);
        assert!(window.round_trip().is_some_and(|time| time == Duration::from_millis(5)));
    }
}
