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
    waiting: Vec<(u64, Waker)>,
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
    pub(super) fn join(&self) -> Waiting<'_> {
        Waiting { waiters: self, number: None }
    }

    /// How many wait now.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.list.entries().waiting.len()
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
        let mut entries = self.waiters.list.entries();
        let number = *self.number.get_or_insert_with(|| {
            entries.next_number += 1;
            entries.next_number
        });
        match entries.waiting.iter_mut().find(|(other, _)| *other == number) {
            Some((_, known)) => known.clone_from(waker),
            None => entries.waiting.push((number, waker.clone())),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.waiters.list.entries().waiting.retain(|(other, _)| *other != number);
        }
    }
}

impl List {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for List {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let woken = std::mem::take(&mut self.entries().waiting);
        for (_, waker) in woken {
            waker.wake();
        }
    }
}
