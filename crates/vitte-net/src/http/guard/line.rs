//! What a guard and the side above hyper tell each other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::Fault;

/// What a client waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::http) enum Expected {
    #[default]
    Nothing,
    Response,
    /// The response to HEAD has no body, whatever it says.
    NoBody,
}

/// What the guard knows of a request that it handed to hyper.
#[derive(Debug)]
pub(in crate::http) struct Handed {
    /// It stands for one that was refused, and why.
    pub(in crate::http) refused: Option<Fault>,
    /// It asks for another protocol: the guard waits for [`Line::decide`].
    pub(in crate::http) upgrade: bool,
}

/// What the guard and the side above hyper tell each other.
#[derive(Debug, Default)]
pub(in crate::http) struct Line {
    /// Requests that came out of hyper.
    taken: AtomicU64,
    /// Exchanges that are over.
    over: AtomicU64,
    /// There is something to say of a request.
    notable: AtomicBool,
    /// Somebody is to be woken.
    awaited: AtomicBool,
    state: Mutex<LineState>,
}

#[derive(Debug, Default)]
pub(super) struct LineState {
    /// The request of this number stands for one that was refused.
    refused: Option<(u64, Fault)>,
    /// The request of this number asks for another protocol.
    asking: Option<u64>,
    /// The answer to a request for another protocol, once it is known.
    upgraded: Option<bool>,
    pub(super) expected: Expected,
    waker: Option<Waker>,
}

impl Line {
    pub(super) fn lock(&self) -> MutexGuard<'_, LineState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request of this number, the first is 1, is one of the guard's own.
    pub(super) fn refuse(&self, number: u64, fault: Fault) {
        self.lock().refused = Some((number, fault));
        self.notable.store(true, Ordering::Release);
    }

    /// The request of this number asks for another protocol.
    pub(super) fn ask(&self, number: u64) {
        let mut state = self.lock();
        (state.asking, state.upgraded) = (Some(number), None);
        self.notable.store(true, Ordering::Release);
    }

    /// A request came out of hyper.
    pub(in crate::http) fn take(&self) -> Handed {
        // The service is called by one task, after one request the next.
        let taken = self.taken.load(Ordering::Relaxed) + 1;
        self.taken.store(taken, Ordering::Relaxed);
        if !self.notable.load(Ordering::Acquire) {
            return Handed { refused: None, upgrade: false };
        }
        let state = self.lock();
        let refused = state.refused.filter(|(number, _)| *number == taken).map(|(_, fault)| fault);
        Handed { refused, upgrade: state.asking == Some(taken) }
    }

    /// Whether one of the first `handed` exchanges is not over. Who asks is woken when the next one is.
    pub(super) fn is_open(&self, handed: u64, cx: &Context<'_>) -> bool {
        if self.over.load(Ordering::SeqCst) >= handed {
            return false;
        }
        self.wait(&mut self.lock(), cx);
        // It may have ended before it was known that somebody waits.
        self.over.load(Ordering::SeqCst) < handed
    }

    /// An exchange is over: its response has been handed to hyper.
    pub(in crate::http) fn over(&self) {
        self.over.fetch_add(1, Ordering::SeqCst);
        if self.awaited.load(Ordering::SeqCst) {
            self.wake(self.lock());
        }
    }

    /// The request for another protocol was granted or not.
    pub(in crate::http) fn decide(&self, upgraded: bool) {
        let mut state = self.lock();
        state.upgraded = Some(upgraded);
        self.wake(state);
    }

    /// Whether the request for another protocol was granted.
    pub(super) fn poll_decision(&self, cx: &Context<'_>) -> Poll<bool> {
        let mut state = self.lock();
        match state.upgraded.take() {
            Some(upgraded) => Poll::Ready(upgraded),
            None => {
                self.wait(&mut state, cx);
                Poll::Pending
            }
        }
    }

    /// A client is about to send a request.
    pub(in crate::http) fn expect(&self, expected: Expected) {
        self.lock().expected = expected;
    }

    fn wait(&self, state: &mut LineState, cx: &Context<'_>) {
        state.waker = Some(cx.waker().clone());
        self.awaited.store(true, Ordering::SeqCst);
    }

    fn wake(&self, mut state: MutexGuard<'_, LineState>) {
        self.awaited.store(false, Ordering::SeqCst);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl LineState {
    pub(super) fn must_expect(&self) -> Result<(), Fault> {
        match self.expected {
            Expected::Nothing => Err(Fault { status: 400, what: "bytes that nobody asked for" }),
            Expected::Response | Expected::NoBody => Ok(()),
        }
    }
}
