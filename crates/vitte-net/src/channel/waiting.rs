//! Waiting for what may never come: who gives up leaves nothing behind.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use vitte_net_proto::StreamId;

use super::Carrier;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// That the peer allows one more stream.
    Open,
    /// Room in the queue of a stream.
    Room(StreamId),
    /// That the peer wants nothing more of a stream.
    Stop(StreamId),
}

/// One that waits. It gets a number when it has to.
#[derive(Debug, Default)]
pub(crate) struct Waiter(Option<NonZeroU64>);

/// The wakers of all that wait for one thing, those first that have waited longest.
#[derive(Debug, Default)]
pub(crate) struct Waiters(BTreeMap<NonZeroU64, Waker>);

impl Waiters {
    /// Wakes it with the others, by the waker that it had last.
    pub(crate) fn keep(&mut self, waiter: &mut Waiter, cx: &Context<'_>) {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = waiter
            .0
            .get_or_insert_with(|| NonZeroU64::MIN.saturating_add(LAST.fetch_add(1, Ordering::Relaxed)));
        match self.0.get_mut(number) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => {
                self.0.insert(*number, cx.waker().clone());
            }
        }
    }

    /// It waits no more.
    pub(crate) fn leave(&mut self, waiter: &Waiter) {
        if let Some(number) = waiter.0 {
            self.0.remove(&number);
        }
    }

    /// All of them are to be woken, and wait no more.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Waker> + use<> {
        std::mem::take(&mut self.0).into_values()
    }
}

/// Takes the waiter out of its place, however its wait ends.
struct Leaving<'a> {
    carrier: &'a dyn Carrier,
    place: Place,
    waiter: Waiter,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if self.waiter.0.is_some() {
            self.carrier.leave(self.place, &self.waiter);
        }
    }
}

/// Polls until there is an answer. A wait that is dropped takes its waker with it: others may wait on in its place.
pub(crate) async fn wait<T>(
    carrier: &dyn Carrier,
    place: Place,
    mut poll: impl FnMut(&mut Context<'_>, &mut Waiter) -> Poll<T>,
) -> T {
    let mut leaving = Leaving { carrier, place, waiter: Waiter::default() };
    poll_fn(|cx| poll(cx, &mut leaving.waiter)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiter_has_one_place_and_leaves_it_to_the_others() {
        let cx = Context::from_waker(Waker::noop());
        let mut waiters = Waiters::default();
        let [mut first, mut second] = [Waiter::default(), Waiter::default()];
        for _ in 0..3 {
            // Of one task: each counts.
            waiters.keep(&mut first, &cx);
            waiters.keep(&mut second, &cx);
        }
        assert_eq!(waiters.0.len(), 2);
        waiters.leave(&first);
        waiters.leave(&first);
        assert_eq!(waiters.take().count(), 1);
        waiters.leave(&second);
        assert!(waiters.0.is_empty());
    }
}
