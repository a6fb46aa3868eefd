//! Connections that were not let in are told of one by one, and in a flood by their number.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use vitte_net_proto::Moment;
use vitte_net_proto::bucket::Bucket;

use super::establish::HandshakeError;
use super::{Inner, MeshEvent};

/// Told one by one in a row, and each second after that.
const EACH: (u32, u32) = (64, 16);
/// After this time the number of all others is told.
const PERIOD: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Counts {
    bucket: Bucket,
    /// Not told yet. A task tells when it is not zero.
    untold: u64,
}

/// How many were turned away, and what was said of it.
#[derive(Debug)]
pub(super) struct TurnedAway {
    since: Instant,
    counts: Mutex<Counts>,
}

impl TurnedAway {
    pub(super) fn new() -> Self {
        let counts = Counts { bucket: Bucket::new(EACH.0, EACH.1), untold: 0 };
        Self { since: Instant::now(), counts: Mutex::new(counts) }
    }
}

impl Inner {
    /// Tells that a connection was not let in.
    pub(super) fn turn_away(self: &Arc<Self>, remote: SocketAddr, error: &HandshakeError) {
        let first = {
            let mut counts = self.turned_away.counts.lock().unwrap_or_else(PoisonError::into_inner);
            if counts.bucket.take(Moment::ZERO + self.turned_away.since.elapsed()) {
                None
            } else {
                counts.untold += 1;
                Some(counts.untold == 1)
            }
        };
        match first {
            None => {
                tracing::warn!(%remote, %error, "a connection was not admitted");
                self.tell(MeshEvent::Rejected { remote, code: error.code(), reason: error.to_string() });
            }
            Some(false) => {}
            Some(true) => {
                let mesh = Arc::downgrade(self);
                self.spawn(async move {
                    sleep(PERIOD).await;
                    let Some(mesh) = mesh.upgrade() else { return };
                    let mut counts = mesh.turned_away.counts.lock().unwrap_or_else(PoisonError::into_inner);
                    let count = std::mem::take(&mut counts.untold);
                    drop(counts);
                    tracing::warn!(count, "more connections were not admitted");
                    mesh.tell(MeshEvent::RejectedMore { count });
                });
            }
        }
    }
}
