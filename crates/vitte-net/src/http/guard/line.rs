//! What a guard and the side above hyper tell each other.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::time::Instant;

use super::Fault;

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Expected {
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
#[derive(Debug)]
pub(in crate::http) struct Line(Mutex<LineState>);

#[derive(Debug)]
pub(super) struct LineState {
    /// Requests handed to hyper.
    pub(super) handed: u64,
    /// Requests that came out of hyper.
    taken: u64,
    /// Exchanges that are not over.
    pub(super) open: u64,
    /// When the last exchange was over.
    pub(super) over_at: Option<Instant>,
    /// The request of this number stands for one that was refused.
    pub(super) refused: Option<(u64, Fault)>,
    /// The request of this number asks for another protocol.
    pub(super) asking: Option<u64>,
    /// The answer to a request for another protocol, once it is known.
    pub(super) upgraded: Option<bool>,
    pub(super) expected: Expected,
    pub(super) waker: Option<Waker>,
}

impl Line {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LineState {
            handed: 0,
            taken: 0,
            open: 0,
            over_at: None,
            refused: None,
            asking: None,
            upgraded: None,
            expected: Expected::Nothing,
            waker: None,
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, LineState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request came out of hyper.
    pub(in crate::http) fn take(&self) -> Handed {
        let mut state = self.lock();
        state.taken += 1;
        let taken = state.taken;
        let refused = state.refused.filter(|(number, _)| *number == taken).map(|(_, fault)| fault);
        Handed { refused, upgrade: state.asking == Some(taken) }
    }

    /// An exchange is over: its response has been handed to hyper.
    pub(in crate::http) fn over(&self) {
        let mut state = self.lock();
        state.open = state.open.saturating_sub(1);
        if state.open == 0 {
            state.over_at = Some(Instant::now());
            wake(state);
        }
    }

    /// The request for another protocol was granted or not.
    pub(in crate::http) fn decide(&self, upgraded: bool) {
        let mut state = self.lock();
        state.upgraded = Some(upgraded);
        wake(state);
    }

    /// A client is about to send a request.
    pub(in crate::http) fn expect(&self, expected: Expected) {
        self.lock().expected = expected;
    }
}

fn wake(mut state: MutexGuard<'_, LineState>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
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
