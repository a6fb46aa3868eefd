//! Answers that are remembered, on tokio's time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::error::ResolveError;
use super::record::{Record, RecordType};

/// What a question came to.
pub(super) type Outcome = Result<Vec<Record>, ResolveError>;
/// A name in lower case, and what was asked of it.
pub(super) type Key = (String, RecordType);

/// A bounded number of answers. When it is full the one that came first goes first.
#[derive(Debug)]
pub(super) struct Cache {
    entries_max: usize,
    entries: BTreeMap<Key, Entry>,
    /// In the order of their coming, with the number of each: an entry that was replaced has another number.
    order: VecDeque<(u64, Key)>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    since: Instant,
    until: Instant,
    outcome: Outcome,
}

impl Cache {
    pub(super) fn new(entries_max: usize) -> Self {
        Self { entries_max, entries: BTreeMap::new(), order: VecDeque::new(), next: 0 }
    }

    /// What is known, with the time that is left of each record.
    pub(super) fn find(&self, key: &Key, now: Instant) -> Option<Outcome> {
        let entry = self.entries.get(key).filter(|entry| now < entry.until)?;
        let mut outcome = entry.outcome.clone();
        if let Ok(records) = &mut outcome {
            for record in records {
                record.ttl = record.ttl.saturating_sub(now - entry.since);
            }
        }
        Some(outcome)
    }

    pub(super) fn insert(&mut self, key: Key, outcome: Outcome, ttl: Duration, now: Instant) {
        if self.entries_max == 0 || ttl.is_zero() {
            return;
        }
        let number = self.next;
        self.next += 1;
        self.order.push_back((number, key.clone()));
        self.entries.insert(key, Entry { number, since: now, until: now + ttl, outcome });
        while self.order.len() > self.entries_max {
            let Some((number, key)) = self.order.pop_front() else { break };
            if self.entries.get(&key).is_some_and(|entry| entry.number == number) {
                self.entries.remove(&key);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_forgets_in_time_and_keeps_its_bound() {
        let mut cache = Cache::new(3);
        let key = |n: u32| (format!("name{n}"), RecordType::A);
        let nothing = || Err(ResolveError::NotFound("x".to_owned()));
        let begin = Instant::now();
        for n in 0..10 {
            cache.insert(key(n), nothing(), Duration::from_secs(10), begin);
            cache.insert(key(9), nothing(), Duration::from_secs(20), begin);
        }
        assert!(cache.entries.len() <= 3 && cache.order.len() <= 3);
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert!(cache.find(&key(9), at(19)).is_some());
        assert!(cache.find(&key(9), at(20)).is_none());
        assert!(cache.find(&key(0), begin).is_none());
        cache.clear();
        assert!(cache.find(&key(9), begin).is_none());
    }
}
