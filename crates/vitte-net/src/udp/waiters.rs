//! Several tasks waiting at one socket. A [`Datagrams`](crate::network::Datagrams) wakes only the task that
//! asked last; a waker that wakes everybody who waits makes it serve them all.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Those who wait for one direction of a socket.
#[derive(Debug)]
pub(super) struct Waiters {
    list: Arc<List>,
    /// Wakes the whole list.
    everybody: Waker,
}

#[derive(Debug, Default)]
struct List(Mutex<Entries>);

/// One entry for each future that is pending: as many as the application has, and gone when they are.
#[derive(Debug, Default)]
struct Entries {
    next_number: u64,
    /// One of those who wait. Most often there is no other: then nothing is allocated.
    first: Option<(u64, Waker)>,
    others: Vec<(u64, Waker)>,
}

impl Default for Waiters {
    fn default() -> Self {
        let list = Arc::new(List::default());
        let everybody = Waker::from(Arc::clone(&list));
        Self { list, everybody }
    }
}

impl Waiters {
    /// A place in the list, taken when it first has to wait and given back when it is dropped.
    #[inline]
    pub(super) fn join(&self) -> Waiting<'_> {
        Waiting { waiters: self, number: None }
    }

    /// How many wait now.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        let entries = self.list.entries();
        usize::from(entries.first.is_some()) + entries.others.len()
    }
}

/// A place among the [`Waiters`].
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    waiters: &'a Waiters,
    number: Option<u64>,
}

impl Waiting<'_> {
    /// Polls `socket` in such a way that the task of `cx` is woken, whoever asks after it.
    pub(super) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        socket: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        // First into the list, then to the socket: a wake-up between the two must find this task.
        self.enlist(cx.waker());
        socket(&mut Context::from_waker(&self.waiters.everybody))
    }

    fn enlist(&mut self, waker: &Waker) {
        let mut guard = self.waiters.list.entries();
        let entries = &mut *guard;
        let number = *self.number.get_or_insert_with(|| {
            entries.next_number += 1;
            entries.next_number
        });
        let mut known = entries.first.iter_mut().chain(&mut entries.others);
        let mut former = None;
        if let Some((_, known)) = known.find(|(other, _)| *other == number) {
            if !known.will_wake(waker) {
                former = Some(std::mem::replace(known, waker.clone()));
            }
        } else if entries.first.is_none() {
            entries.first = Some((number, waker.clone()));
        } else {
            entries.others.push((number, waker.clone()));
        }
        drop(guard);
        drop(former);
    }
}

impl Drop for Waiting<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.waiters.list.leave(number);
        }
    }
}

impl List {
    fn leave(&self, number: u64) {
        let mut entries = self.entries();
        let is_mine = |(other, _): &(u64, Waker)| *other == number;
        let mine = entries.first.take_if(|first| is_mine(first)).or_else(|| {
            let place = entries.others.iter().position(is_mine)?;
            Some(entries.others.swap_remove(place))
        });
        // Not while the list is locked: what else a waker holds is its own affair.
        drop(entries);
        drop(mine);
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for List {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut entries = self.entries();
        let (first, others) = (entries.first.take(), std::mem::take(&mut entries.others));
        drop(entries);
        for (_, waker) in first.into_iter().chain(others) {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn enlist(waiting: &mut Waiting<'_>, counter: &Arc<Counter>) {
        let waker = Waker::from(Arc::clone(counter));
        assert!(waiting.poll(&mut Context::from_waker(&waker), |_| Poll::<()>::Pending).is_pending());
    }

    #[test]
    fn one_who_waits_alone_allocates_nothing_and_all_are_woken_once() {
        let waiters = Waiters::default();
        let counters: [Arc<Counter>; 4] = std::array::from_fn(|_| Arc::default());
        let woken = || counters.each_ref().map(|counter| counter.0.load(Ordering::Relaxed));
        let mut places: Vec<_> = counters.iter().map(|_| waiters.join()).collect();
        for _ in 0..3 {
            enlist(&mut places[0], &counters[0]);
            enlist(&mut places[0], &counters[0]);
            waiters.everybody.wake_by_ref();
        }
        assert_eq!((woken(), waiters.list.entries().others.capacity()), ([3, 0, 0, 0], 0));
        for (place, counter) in places.iter_mut().zip(&counters) {
            enlist(place, counter);
        }
        assert_eq!(waiters.waiting(), 4);
        // The first leaves, another one takes its place; one moves to another task.
        places.remove(0);
        enlist(&mut places[0], &counters[1]);
        enlist(&mut places[1], &counters[0]);
        assert_eq!(waiters.waiting(), 3);
        waiters.everybody.wake_by_ref();
        assert_eq!((woken(), waiters.waiting()), ([4, 1, 0, 1], 0));
        waiters.everybody.wake_by_ref();
        assert_eq!(woken(), [4, 1, 0, 1]);
    }

    /// Looks at the list when it is dropped, as the last waker of a task with another place in the list does.
    struct Dropped(Arc<List>, Arc<AtomicUsize>);

    impl Wake for Dropped {
        fn wake(self: Arc<Self>) {}
    }

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.1.fetch_add(usize::from(self.0.0.try_lock().is_ok()), Ordering::Relaxed);
        }
    }

    #[test]
    fn no_waker_is_dropped_while_the_list_is_locked() {
        let waiters = Waiters::default();
        let free = Arc::new(AtomicUsize::new(0));
        let fresh = || Waker::from(Arc::new(Dropped(Arc::clone(&waiters.list), Arc::clone(&free))));
        let mut places = [waiters.join(), waiters.join()];
        for place in &mut places {
            place.enlist(&fresh());
            place.enlist(&fresh());
        }
        assert_eq!(free.load(Ordering::Relaxed), 2, "replaced");
        drop(places);
        assert_eq!(free.load(Ordering::Relaxed), 4, "left");
    }
}
