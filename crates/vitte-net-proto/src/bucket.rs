//! How often something may happen.

use crate::time::Moment;

/// A bucket of tokens: `burst` of them at the start, `per_second` new ones, never more than `burst`.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// The time that one token takes to come back, in microseconds.
    each: u64,
    /// The time that all of them take.
    whole: u64,
    /// When the bucket is full again.
    full_at: u64,
}

impl Bucket {
    /// A full bucket. Zero counts as one.
    #[must_use]
    pub fn new(burst: u32, per_second: u32) -> Self {
        let each = (1_000_000 / u64::from(per_second.max(1))).max(1);
        Self { each, whole: each * u64::from(burst.max(1)), full_at: 0 }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Moment) -> bool {
        let full_at = self.full_at.max(now.as_micros()).saturating_add(self.each);
        let there = full_at - now.as_micros() <= self.whole;
        if there {
            self.full_at = full_at;
        }
        there
    }

    /// When there are (perhaps it was long ago) `count` tokens, or as many as the bucket holds.
    #[must_use]
    pub fn ready_at(&self, count: u64) -> Moment {
        let need = self.each.saturating_mul(count).min(self.whole);
        Moment::from_micros(self.full_at.saturating_add(need).saturating_sub(self.whole))
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn a_burst_then_a_rate() {
        let mut bucket = Bucket::new(10, 100);
        let mut now = Moment::from_micros(77);
        let takes = |bucket: &mut Bucket, now| (0..1000).filter(|_| bucket.take(now)).count();
        assert_eq!(takes(&mut bucket, now), 10);
        assert_eq!(bucket.ready_at(1), now + Duration::from_millis(10));
        assert_eq!(bucket.ready_at(3), now + Duration::from_millis(30));
        assert_eq!(bucket.ready_at(1000), now + Duration::from_millis(100));
        now = now + Duration::from_micros(9_999);
        assert_eq!(takes(&mut bucket, now), 0);
        now = now + Duration::from_micros(1);
        assert_eq!(takes(&mut bucket, now), 1);
        // A long silence saves no more than a burst.
        now = now + Duration::from_secs(3600);
        assert!(bucket.ready_at(10) <= now);
        assert_eq!(takes(&mut bucket, now), 10);
    }

    #[test]
    fn the_least_and_the_most_that_can_be_set() {
        for (burst, rate) in [(0, 0), (1, 1), (u32::MAX, 1), (u32::MAX, u32::MAX)] {
            let mut bucket = Bucket::new(burst, rate);
            assert!(bucket.take(Moment::ZERO), "{burst} {rate}");
            assert!(bucket.ready_at(u64::MAX) >= Moment::ZERO);
        }
    }
}
