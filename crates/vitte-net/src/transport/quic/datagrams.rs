//! QUIC datagrams (RFC 9221) out: frames that travel alone.
//!
//! quinn puts datagrams before streams into every packet: a sender that always has one would starve all lanes.
//! So in each round trip, while lanes are used too, datagrams get at most half of the congestion window.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ::bytes::Bytes;
use quinn::{Connection, SendDatagramError};
use tokio::time::{Sleep, sleep};

use super::lanes::Waiting;

/// The shortest time that an allowance is for: timers are no finer.
const ROUND_LEAST: Duration = Duration::from_millis(1);
/// The longest.
const ROUND_MOST: Duration = Duration::from_millis(100);
/// The smallest allowance, in bytes: two packets.
const ALLOWANCE_LEAST: u64 = 2400;

/// The datagrams of one link on their way to quinn.
#[derive(Default)]
pub(super) struct Datagrams {
    /// One that quinn has no room for yet.
    blocked: Option<Waiting<(), SendDatagramError>>,
    /// Bytes that may still go in this round; none is set before the first.
    allowance: Option<u64>,
    round: Option<Pin<Box<Sleep>>>,
    /// Lanes were used in this round.
    shared: bool,
}

impl fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagrams").field("blocked", &self.blocked).finish_non_exhaustive()
    }
}

impl Datagrams {
    /// The longest frame that may go now; 0 while none may. To a peer that takes none everything is too long.
    pub(super) fn capacity(&self, connection: &Connection) -> usize {
        if self.blocked.is_some() || self.allowance == Some(0) {
            return 0;
        }
        connection.max_datagram_size().unwrap_or(1).max(1)
    }

    pub(super) fn write(&mut self, connection: &Connection, frame: &[u8]) {
        let allowance = self.allowance.unwrap_or_else(|| allowance(connection, self.shared).1);
        self.allowance = Some(allowance.saturating_sub(frame.len() as u64));
        let (connection, frame) = (connection.clone(), Bytes::copy_from_slice(frame));
        if connection.datagram_send_buffer_space() >= frame.len() {
            // What fails is lost: the path has become narrower, or the link is, as its lanes will say.
            let _ = connection.send_datagram(frame);
            return;
        }
        self.blocked = Some(Waiting(Box::pin(async move { connection.send_datagram_wait(frame).await })));
    }

    /// Hands over what waits. False when it registered the task to be woken, because none may go now.
    pub(super) fn poll(&mut self, connection: &Connection, cx: &mut Context<'_>) -> bool {
        if let Some(blocked) = &mut self.blocked {
            // Here, too, what fails is lost.
            if blocked.0.as_mut().poll(cx).is_pending() {
                return false;
            }
            self.blocked = None;
        }
        if self.allowance != Some(0) {
            return true;
        }
        let (time, next) = allowance(connection, self.shared);
        let round = self.round.get_or_insert_with(|| Box::pin(sleep(time)));
        if round.as_mut().poll(cx) == Poll::Pending {
            return false;
        }
        self.round = None;
        self.shared = false;
        self.allowance = Some(next);
        true
    }

    /// A lane has something to send: it gets its half from now on.
    pub(super) fn share(&mut self, connection: &Connection) {
        if !std::mem::replace(&mut self.shared, true)
            && let Some(left) = self.allowance
        {
            self.allowance = Some(left.min(allowance(connection, true).1));
        }
    }
}

/// How long a round is, and the bytes of datagrams that may go in it: half of what the congestion window lets
/// pass, or, while nobody else wants it, more than all.
fn allowance(connection: &Connection, shared: bool) -> (Duration, u64) {
    let round_trip = connection.rtt().max(Duration::from_micros(10));
    let time = round_trip.clamp(ROUND_LEAST, ROUND_MOST);
    let window = connection.stats().path.cwnd;
    let rounds = u64::try_from(time.as_micros() / round_trip.as_micros()).unwrap_or(1).max(1);
    let passes = window.saturating_mul(rounds);
    (time, if shared { passes / 2 } else { passes.saturating_mul(2) }.max(ALLOWANCE_LEAST))
}
