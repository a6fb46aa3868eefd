//! What the nodes say to each other: channels, calls and byte streams of every kind, each written down in the
//! ledger by both ends.

mod calls;
mod channels;
mod classes;
mod streams;

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use vitte_net::{Peer, Priority, Receipt, Undelivered};
use vitte_net_sim::invariants::Verdict;

use crate::node::Site;
use crate::plan::Dice;

pub(crate) use calls::Ask;

/// Serves everything that others ask for.
pub(crate) fn serve(site: &Site, services: &mut JoinSet<()>) {
    calls::serve(site);
    channels::serve(site, services);
    classes::serve(site, services);
    streams::serve(site, services);
}

/// Talks to one other node until everything has healed.
pub(crate) async fn work(site: Site, to: &'static str, number: u64) {
    let mut dice = site.dice(&format!("work for {to}, {number}"));
    sleep(dice.millis(0, 200)).await;
    while !site.healed() {
        let Some(peer) = reach(&site, to).await else { continue };
        let mut job = Job { site: site.clone(), to, peer, dice };
        match job.dice.within(0, 12) {
            0..=3 => channels::raw(&mut job).await,
            4 | 5 => channels::typed(&mut job).await,
            6..=8 => calls::some(&mut job).await,
            9 | 10 => classes::latest(&mut job).await,
            11 => classes::datagrams(&mut job).await,
            _ => streams::one(&mut job).await,
        }
        dice = job.dice;
        sleep(dice.millis(0, 50)).await;
    }
}

async fn reach(site: &Site, to: &'static str) -> Option<Peer> {
    match site.mesh.peer(site.peers[to]).await {
        Ok(peer) => Some(peer),
        Err(_) => {
            sleep(Duration::from_millis(200)).await;
            None
        }
    }
}

/// One piece of work for one other node.
pub(crate) struct Job {
    pub(crate) site: Site,
    pub(crate) to: &'static str,
    pub(crate) peer: Peer,
    pub(crate) dice: Dice,
}

impl Job {
    pub(crate) fn label(&self, what: &str) -> String {
        format!("{} > {} {what} at {:?}", self.site.name, self.to, self.site.now())
    }

    pub(crate) fn note(&self, what: &'static str) {
        self.site.run.note(what);
    }

    pub(crate) fn priority(&mut self) -> Priority {
        let (priority, note) = self.dice.of(&[
            (Priority::Urgent, "streams and calls that are urgent"),
            (Priority::Normal, "streams and calls of normal priority"),
            (Priority::Bulk, "streams and calls of bulk priority"),
        ]);
        self.note(note);
        priority
    }

    /// Mostly short, at times longer than a window.
    pub(crate) fn len(&mut self) -> usize {
        let most = self.dice.of(&[50, 50, 200, 200, 200, 200, 2_000, 2_000, 10_000, 60_000]);
        usize::try_from(self.dice.within(0, most)).expect("a length")
    }

    /// Waits for what must come by the time at which everything has its outcome.
    pub(crate) async fn in_time<T>(&self, what: &str, wait: impl Future<Output = T>) -> Option<T> {
        in_time(&self.site, &self.label(what), wait).await
    }
}

/// Waits for what must come by the time at which everything has its outcome.
pub(crate) async fn in_time<T>(site: &Site, what: &str, wait: impl Future<Output = T>) -> Option<T> {
    // A little earlier than the workers themselves are given up, so that the ledger says which it was.
    let by = site.run.plan.settled_by().saturating_sub(Duration::from_millis(100));
    let ended = timeout(by.saturating_sub(site.now()), wait).await.ok();
    site.run.ledger.expect(ended.is_some(), || format!("{what}: it waits for ever"));
    ended
}

pub(crate) async fn verdict(receipt: Receipt) -> Verdict {
    match receipt.await {
        Ok(()) => Verdict::Delivered,
        Err(Undelivered::Refused(_)) => Verdict::Refused,
        Err(Undelivered::Expired) => Verdict::Expired,
        Err(Undelivered::Superseded) => Verdict::Superseded,
        Err(_) => Verdict::Unknown,
    }
}
