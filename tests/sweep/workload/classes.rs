//! Channels on which not every message counts: the newest, and datagrams.

use tokio::task::JoinSet;
use tokio::time::sleep;
use vitte_net::{Counters, RawDatagramSender, RawSender, SendError};
use vitte_net_sim::invariants::{Counts, Flow, Promise, Verdict};

use super::channels::{self, Ends, Habit, Starts};
use super::{Job, verdict};
use crate::node::Site;

const LATEST: &str = "latest";
const DATAGRAMS: &str = "datagrams";

pub(super) fn serve(site: &Site, services: &mut JoinSet<()>) {
    let mut latest = site.mesh.accept_latest_raw(LATEST).expect("the name is free");
    let outside = site.clone().without_mesh();
    let mut dice = site.dice("latest channels");
    services.spawn(async move {
        let mut readers = JoinSet::new();
        while let Some((_, channel)) = latest.next().await {
            let (sender, receiver) = channel.split();
            drop(sender);
            let habit = Habit::of(&outside.run, &mut dice);
            readers.spawn(channels::read(outside.again(), Ends::Raw(receiver), habit));
            while readers.try_join_next().is_some_and(|ended| ended.is_ok()) {}
        }
        readers.join_all().await;
    });
    let mut datagrams = site.mesh.accept_datagrams_raw(DATAGRAMS).expect("the name is free");
    let outside = site.clone().without_mesh();
    let mut dice = site.dice("datagram channels");
    services.spawn(async move {
        let mut readers = JoinSet::new();
        while let Some((_, channel)) = datagrams.next().await {
            let (sender, receiver) = channel.split();
            drop(sender);
            let habit = Habit::of(&outside.run, &mut dice);
            readers.spawn(channels::read(outside.again(), Ends::Raw(receiver), habit));
            while readers.try_join_next().is_some_and(|ended| ended.is_ok()) {}
        }
        readers.join_all().await;
    });
}

/// Values that follow each other fast. At times the channel lives until everything has healed: then its newest
/// value arrives.
pub(super) async fn latest(job: &mut Job) {
    job.note("channels of the newest value");
    let open = job.peer.raw_channel(LATEST).latest().priority(job.priority());
    let Some(channel) = channels::opened(job, open.open()).await else { return };
    let (sender, receiver) = channel.split();
    drop(receiver);
    let flow = job.site.run.ledger.flow(job.label("latest"), job.to, Promise::Newest);
    let lasts = job.dice.one_in(3);
    let (mut receipts, mut left) = (Vec::new(), job.dice.within(1, 80));
    while (left > 0 || lasts) && !job.site.healed() {
        left = left.saturating_sub(1);
        let (number, message) = flow.offer(job.len());
        let lifetime = job.dice.one_in(6).then(|| job.dice.millis(0, 200));
        match job.in_time("send of the newest", sender.send_within(message, lifetime)).await {
            None => return,
            Some(Ok(receipt)) => receipts.push((number, receipt)),
            Some(Err(error)) => {
                flow.settle(number, Verdict::Refused);
                let closed = error == SendError::Closed;
                job.site.run.ledger.expect(closed, || job.label(&format!("latest: {error}")));
                break;
            }
        }
        channels::balanced(job, sender.counters());
        let most = if lasts { 80 } else { 15 };
        sleep(job.dice.millis(0, most)).await;
    }
    if lasts && job.site.healed() && !newest_arrives(job, &flow, &sender).await {
        return;
    }
    channels::end(job, Starts::Raw(sender), flow, receipts, false).await;
}

/// One more value, without a lifetime. False if nothing is known of it after all that time.
async fn newest_arrives(job: &Job, flow: &Flow, sender: &RawSender) -> bool {
    let (number, message) = flow.offer(100);
    match sender.send(message).await {
        Err(_) => flow.settle(number, Verdict::Refused),
        Ok(receipt) => {
            let told = job.in_time("the newest value", verdict(receipt)).await;
            let Some(told) = told else { return false };
            flow.settle(number, told);
            let holds = match told {
                Verdict::Delivered => true,
                // The reader may have left; the session may have been lost. Nothing is newer.
                Verdict::Refused => true,
                Verdict::Unknown => job.peer.is_lost(),
                Verdict::Expired | Verdict::Superseded => false,
            };
            job.site.run.ledger.expect(holds, || job.label(&format!("the newest value is {told:?}")));
            if told == Verdict::Delivered {
                job.note("newest values that arrived after healing");
            }
        }
    }
    true
}

/// Datagrams, mostly of one packet. Their sums hold at every moment, and at the end they are what was seen.
pub(super) async fn datagrams(job: &mut Job) {
    job.note("channels of datagrams");
    let open = job.peer.raw_datagrams(DATAGRAMS).priority(job.priority());
    let Some(channel) = channels::opened(job, open.open()).await else { return };
    let (sender, receiver) = channel.split();
    drop(receiver);
    let flow = job.site.run.ledger.flow(job.label("datagrams"), job.to, Promise::BestEffort);
    for _ in 0..job.dice.within(1, 120) {
        if job.site.healed() {
            break;
        }
        let len = job.len().min(15_000);
        let lifetime = job.dice.one_in(4).then(|| job.dice.millis(0, 100));
        let (_, message) = flow.offer(len);
        let sent = sender.send_within(message, lifetime);
        count(job, &flow, &sender);
        match sent {
            Ok(()) => {}
            Err(SendError::Closed) => break,
            Err(error) => job.site.run.ledger.accuse(job.label(&format!("datagrams: {error}"))),
        }
        if !job.dice.one_in(3) {
            sleep(job.dice.millis(0, 15)).await;
        }
        count(job, &flow, &sender);
    }
    // Otherwise it is dropped, and what was accepted is sent.
    if job.dice.one_in(4) {
        return;
    }
    let finished = job.in_time("finish of datagrams", sender.finish()).await;
    let Some(counters) = count(job, &flow, &sender) else { return };
    let (lost, ledger) = (job.peer.is_lost(), &job.site.run.ledger);
    ledger
        .expect(counters.in_flight == 0 || lost, || job.label(&format!("all is decided, but {counters:?}")));
    if let Some(Ok(())) = finished {
        let tally = flow.tally();
        ledger.expect(tally.seen == counters.delivered, || {
            job.label(&format!("{} datagrams were seen, and {counters:?} counted", tally.seen))
        });
    }
}

/// Writes down what the sender counts.
fn count(job: &Job, flow: &Flow, sender: &RawDatagramSender) -> Option<Counters> {
    let counters = sender.counters()?;
    job.site.run.ledger.expect(counters.superseded == 0, || job.label(&format!("{counters:?}")));
    let Counters { offered, delivered, refused, expired, unknown, in_flight, .. } = counters;
    flow.counted(&Counts { offered, delivered, refused, expired, unknown, in_flight });
    Some(counters)
}
