//! What became of a message.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use vitte_net_proto::{Outcome, StreamCode};

use super::Carrier;

/// Tells what became of a message that was accepted for sending. Dropping it changes nothing for the
/// message.
///
/// # Cancel safety
/// The answer is kept until it was given once.
#[derive(Debug)]
#[must_use = "a receipt tells whether the message arrived; drop it on purpose if nobody asks"]
pub struct Receipt {
    carrier: Arc<dyn Carrier>,
    token: u64,
}

/// Why a message was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Undelivered {
    /// The peer did not take it, and will not.
    #[error("refused: {0}")]
    Refused(StreamCode),
    /// Its deadline passed before anything of it was transmitted.
    #[error("the deadline passed before it was transmitted")]
    Expired,
    /// A newer one took its place: the channel is of class latest, and the peer's application never saw this one.
    #[error("superseded by a newer value")]
    Superseded,
    /// The session was lost after it was transmitted: the peer may have taken it, or not.
    #[error("unknown: the session was lost on the way")]
    Unknown,
}

impl Receipt {
    pub(crate) fn new(carrier: Arc<dyn Carrier>, token: u64) -> Self {
        Self { carrier, token }
    }
}

impl Future for Receipt {
    type Output = Result<(), Undelivered>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(self.carrier.poll_receipt(cx, self.token)) {
            Outcome::Delivered => Ok(()),
            Outcome::Refused(code) => Err(Undelivered::Refused(code)),
            Outcome::Expired => Err(Undelivered::Expired),
            Outcome::Superseded => Err(Undelivered::Superseded),
            Outcome::Unknown => Err(Undelivered::Unknown),
        })
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.carrier.drop_receipt(self.token);
    }
}
