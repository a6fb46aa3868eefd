//! A timer for things that mostly move.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A timer that costs nothing while things move: it is set when it rings, not when they move.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    since: Option<Instant>,
}

impl Alarm {
    /// Ready at `deadline`.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
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

    pub(super) fn calm(&mut self) {
        self.since = None;
    }
}
