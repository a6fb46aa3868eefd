//! A timer for things that mostly move.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep};

/// A timer that costs nothing while things move: it is set when it rings, not when they move.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whom the timer wakes.
    waker: Option<Waker>,
    since: Option<Instant>,
}

impl Alarm {
    /// Ready at `deadline`.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        // It is set, and has not rung.
        if sleep.deadline() <= deadline
            && !sleep.is_elapsed()
            && self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            return Poll::Pending;
        }
        self.waker = None;
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            // A budget that is used up must not keep it from being set.
            if Pin::new(&mut unconstrained(sleep.as_mut())).poll(cx).is_pending() {
                self.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }

    /// Ready when it was asked for so long without being calmed.
    pub(super) fn poll_for(&mut self, cx: &mut Context<'_>, time: Duration) -> Poll<()> {
        let deadline = self.since() + time;
        self.poll(cx, deadline)
    }

    /// When somebody began to wait.
    pub(super) fn since(&mut self) -> Instant {
        *self.since.get_or_insert_with(Instant::now)
    }

    /// Something moved. Returned is since when somebody has waited for it, if anybody has.
    pub(super) fn calm(&mut self) -> Option<Instant> {
        self.since.take()
    }
}

/// How fast a body comes, judged by the time for which its reader has waited: a reader that is slow itself
/// blames nobody.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes a second, at least; 0 is no minimum.
    rate: u64,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    pub(super) fn new(rate: u64) -> Self {
        Self { rate, waited: Duration::ZERO, bytes: 0 }
    }

    /// So many bytes came, waited for since `since`, or not at all.
    pub(super) fn came(&mut self, since: Option<Instant>, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.waited += since.map_or(Duration::ZERO, |since| since.elapsed());
    }

    /// How long one waits for the next piece: `idle`, but for all of them no longer than `idle` and what
    /// their bytes may take.
    pub(super) fn patience(&self, idle: Duration) -> Duration {
        match self.bytes.checked_div(self.rate) {
            Some(earned) => {
                idle.saturating_add(Duration::from_secs(earned)).saturating_sub(self.waited).min(idle)
            }
            None => idle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_earn_time_and_only_waiting_costs_it() {
        let (idle, second) = (Duration::from_secs(10), Duration::from_secs(1));
        let mut pace = Pace::new(100);
        let wait = async |pace: &mut Pace, time: Duration, bytes| {
            let since = Instant::now();
            tokio::time::advance(time).await;
            pace.came(Some(since), bytes);
        };
        assert_eq!(pace.patience(idle), idle);
        wait(&mut pace, 4 * second, 1).await;
        assert_eq!(pace.patience(idle), 6 * second);
        // Three seconds more are earned; a reader that is slow itself takes nothing away.
        tokio::time::advance(60 * second).await;
        pace.came(None, 300);
        assert_eq!(pace.patience(idle), 9 * second);
        wait(&mut pace, 9 * second, 1).await;
        assert_eq!(pace.patience(idle), Duration::ZERO);
        // One who was fast waits no longer for the next piece, either.
        pace.came(None, 1 << 20);
        assert_eq!(pace.patience(idle), idle);
        let mut free = Pace::new(0);
        wait(&mut free, 60 * second, 1).await;
        assert_eq!(free.patience(idle), idle, "no minimum");
        assert_eq!(pace.patience(Duration::MAX), Duration::MAX - 13 * second);
    }
}
