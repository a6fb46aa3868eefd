//! Which stream speaks next.

use alloc::collections::VecDeque;

use crate::id::{Priority, StreamId};

/// A waiting class gets a frame after this many of more urgent classes.
const PATIENCE: u8 = 15;

/// Streams that have something to transmit: one queue for each class, served in turn within a class.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    queues: [VecDeque<StreamId>; Priority::ALL.len()],
    passed_over: [u8; Priority::ALL.len()],
}

impl Schedule {
    pub(crate) fn push(&mut self, priority: Priority, stream: StreamId) {
        self.queues[priority as usize].push_back(stream);
    }

    /// Takes a stream out. The one that came last is found first.
    pub(crate) fn remove(&mut self, priority: Priority, stream: StreamId) {
        let queue = &mut self.queues[priority as usize];
        if let Some(at) = queue.iter().rposition(|waiting| *waiting == stream) {
            queue.remove(at);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    /// Takes the stream whose turn it is, among the classes that `allowed` lets speak: the most urgent,
    /// unless a lower class was passed over fifteen times.
    pub(crate) fn pop(
        &mut self,
        mut allowed: impl FnMut(Priority, StreamId) -> bool,
    ) -> Option<(Priority, StreamId)> {
        let mut may = |priority: Priority| {
            self.queues[priority as usize].front().is_some_and(|&stream| allowed(priority, stream))
        };
        let open = Priority::ALL.map(&mut may);
        let starved = Priority::ALL
            .into_iter()
            .rev()
            .find(|&priority| open[priority as usize] && self.passed_over[priority as usize] >= PATIENCE);
        let chosen =
            starved.or_else(|| Priority::ALL.into_iter().find(|&priority| open[priority as usize]))?;
        for priority in Priority::ALL {
            let waits = priority > chosen && open[priority as usize];
            let count = &mut self.passed_over[priority as usize];
            *count = if priority == chosen { 0 } else { count.saturating_add(u8::from(waits)) };
        }
        self.queues[chosen as usize].pop_front().map(|stream| (chosen, stream))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lower_classes_are_never_starved() {
        let mut schedule = Schedule::default();
        for priority in Priority::ALL {
            schedule.push(priority, StreamId(priority as u64));
        }
        let mut last_bulk = 0;
        for turn in 1..=1000 {
            let Some((priority, stream)) = schedule.pop(|_, _| true) else { panic!("all are ready") };
            schedule.push(priority, stream);
            if priority == Priority::Bulk {
                assert!(turn - last_bulk <= 18, "bulk waited from {last_bulk} to {turn}");
                last_bulk = turn;
            }
        }
        assert!(last_bulk > 900);
    }

    #[test]
    fn a_class_is_served_in_turn() {
        let mut schedule = Schedule::default();
        for stream in 0..3 {
            schedule.push(Priority::Normal, StreamId(stream));
        }
        let order: [u64; 6] = core::array::from_fn(|_| {
            let Some((priority, stream)) = schedule.pop(|_, _| true) else { panic!("all are ready") };
            schedule.push(priority, stream);
            stream.0
        });
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    }

    proptest::proptest! {
        #![proptest_config(ProptestConfig { cases: crate::cases(300), failure_persistence: None, ..ProptestConfig::default() })]

        /// Against one list in the order of arrival: the eldest of its class speaks, the most urgent class that may,
        /// and none that may is passed over more often than its patience and the classes above it.
        #[test]
        fn whose_turn_it_is(steps in prop::collection::vec((0..3_usize, any::<bool>(), 0..8_u8), 1..300)) {
            let mut schedule = Schedule::default();
            let mut waiting: Vec<(Priority, StreamId)> = Vec::new();
            let mut passed_over = [0; 3];
            for (number, (class, push, closed)) in steps.into_iter().enumerate() {
                if closed == 7 && let Some((class, stream)) = waiting.pop() {
                    schedule.remove(class, stream);
                    continue;
                }
                if push {
                    let stream = (Priority::ALL[class], StreamId(number as u64));
                    schedule.push(stream.0, stream.1);
                    waiting.push(stream);
                    continue;
                }
                let may = |priority: Priority| closed & (1 << priority as u8) == 0;
                let open: Vec<Priority> = Priority::ALL
                    .into_iter()
                    .filter(|class| may(*class) && waiting.iter().any(|(of, _)| of == class))
                    .collect();
                let chosen = schedule.pop(|priority, _| may(priority));
                prop_assert_eq!(chosen.is_some(), !open.is_empty());
                let Some((class, stream)) = chosen else { continue };
                let eldest = waiting.iter().position(|(of, _)| *of == class);
                prop_assert_eq!(eldest.map(|at| waiting.remove(at)), Some((class, stream)));
                let patient = open.iter().all(|other| passed_over[*other as usize] < PATIENCE);
                prop_assert!(!patient || open.first() == Some(&class), "{class:?} is not the most urgent of {open:?}");
                for other in open {
                    let count = &mut passed_over[other as usize];
                    *count = if other > class { *count + 1 } else { 0 };
                    prop_assert!(*count <= PATIENCE + 2, "{other:?} was passed over {count} times");
                }
            }
            prop_assert_eq!(schedule.is_empty(), waiting.is_empty());
        }
    }
}
