//! A peer that was cut for a broken rule comes again no faster than it is worth.

use tokio::time::{Instant, sleep_until};
use vitte_net_proto::bucket::Bucket;
use vitte_net_proto::{Moment, PeerId};

use super::Inner;
use crate::config::Config;

/// The links that a peer may still have after it was cut.
#[derive(Debug)]
pub(super) struct Readmission {
    cut_at: Instant,
    links: Bucket,
    burst: u64,
}

impl Readmission {
    fn new(config: &Config) -> Self {
        let links = Bucket::new(config.readmit_burst, config.readmit_per_second);
        Self { cut_at: Instant::now(), links, burst: config.readmit_burst.into() }
    }

    fn now(&self) -> Moment {
        Moment::ZERO + self.cut_at.elapsed()
    }

    fn after(&self, links: u64) -> Instant {
        self.cut_at + self.links.ready_at(links).since(Moment::ZERO)
    }
}

impl Inner {
    /// A link of the peer was cut, because the peer broke a rule.
    pub(super) fn has_cut(&self, peer: PeerId) {
        if let Some(entry) = self.state().peers.get_mut(&peer) {
            let readmission = entry.readmission.get_or_insert_with(|| Readmission::new(&self.config));
            // It costs a place as well: one who is cut each time has half as many in a row.
            let _ = readmission.links.take(readmission.now());
        }
    }

    /// Waits until the peer may have another link: not at all, unless it was cut of late.
    pub(super) async fn readmit(&self, peer: PeerId) {
        loop {
            let at = {
                let mut state = self.state();
                let Some(entry) = state.peers.get_mut(&peer) else { return };
                let Some(readmission) = &mut entry.readmission else { return };
                if readmission.after(readmission.burst) <= Instant::now() {
                    // All of it has come back.
                    entry.readmission = None;
                    return;
                }
                if readmission.links.take(readmission.now()) {
                    return;
                }
                readmission.after(1)
            };
            sleep_until(at).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_places_come_back() {
        let config = Config::wan().readmit_burst(3).readmit_per_second(2);
        let mut readmission = Readmission::new(&config);
        sleep(Duration::from_secs(5)).await;
        let mut take = || readmission.links.take(readmission.now());
        assert_eq!([take(), take(), take(), take()], [true, true, true, false]);
        let (next, all) = (readmission.after(1), readmission.after(readmission.burst));
        assert_eq!(next, Instant::now() + Duration::from_millis(500));
        assert_eq!(all, Instant::now() + Duration::from_millis(1500));
    }
}
