//! Channels: readers that are fast, slow, or leave; senders that finish, give up, or are dropped.

use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use vitte_net::{
    Blob, Counters, OpenError, RawChannel, RawReceiver, RawSender, Receipt, Receiver, SendError, Sender,
    StreamCode,
};
use vitte_net_sim::invariants::{Flow, Promise, Verdict};

use super::{Job, in_time, verdict};
use crate::node::{Outside, Site};
use crate::plan::Dice;
use crate::run::Run;

const RAW: &str = "raw";
const TYPED: &str = "typed";

pub(super) fn serve(site: &Site, services: &mut JoinSet<()>) {
    let mut raw = site.mesh.accept_raw(RAW).expect("the name is free");
    let outside = site.clone().without_mesh();
    let mut dice = site.dice("raw channels");
    services.spawn(async move {
        let mut readers = JoinSet::new();
        while let Some((peer, channel)) = raw.next().await {
            let (sender, receiver) = channel.split();
            let to = outside.name_of(peer.id());
            let answers = answer(&outside, to, dice.within(0, 3), sender);
            let reader = read(outside.again(), Ends::Raw(receiver), Habit::of(&outside.run, &mut dice));
            readers.spawn(async move {
                tokio::join!(answers, reader);
            });
            while readers.try_join_next().is_some_and(|ended| ended.is_ok()) {}
        }
        readers.join_all().await;
    });
    let mut typed = site.mesh.accept::<Blob>(TYPED).expect("the name is free");
    let outside = site.clone().without_mesh();
    let mut dice = site.dice("typed channels");
    services.spawn(async move {
        let mut readers = JoinSet::new();
        while let Some((_, channel)) = typed.next().await {
            let (sender, receiver) = channel.split();
            drop(sender);
            readers.spawn(read(outside.again(), Ends::Typed(receiver), Habit::of(&outside.run, &mut dice)));
            while readers.try_join_next().is_some_and(|ended| ended.is_ok()) {}
        }
        readers.join_all().await;
    });
}

/// How a reader reads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Habit {
    Eager,
    /// Takes nothing until everything has healed.
    Asleep,
    /// Waits as long before each message, until everything has healed.
    Slow(Duration),
    /// Takes so many and goes, with a word or without.
    Leaves(u64, bool),
}

impl Habit {
    pub(super) fn of(run: &Run, dice: &mut Dice) -> Self {
        let (habit, note) = match dice.within(0, 12) {
            0..=5 => (Self::Eager, "readers that keep up"),
            6..=9 => (Self::Slow(dice.millis(1, 150)), "slow readers"),
            10 => (Self::Asleep, "readers that sleep until all has healed"),
            _ => (Self::Leaves(dice.within(0, 20), dice.one_in(2)), "readers that leave"),
        };
        run.note(note);
        habit
    }
}

/// The receiving end of a channel.
pub(super) enum Ends {
    Raw(RawReceiver),
    Typed(Receiver<Blob>),
}

impl Ends {
    async fn next(&mut self, site: &Outside) -> Option<Bytes> {
        match self {
            Self::Raw(receiver) => receiver.recv().await.ok().flatten(),
            Self::Typed(receiver) => match receiver.recv().await {
                Ok(value) => value.map(|blob| Bytes::from(blob.to_vec())),
                Err(vitte_net::ReceiveError::Decode(why)) => {
                    site.run.ledger.accuse(format!("{}: a message is no value: {why}", site.name));
                    None
                }
                Err(_) => None,
            },
        }
    }
}

pub(super) async fn read(site: Outside, mut receiver: Ends, habit: Habit) {
    let mut count = 0;
    loop {
        match habit {
            Habit::Eager => {}
            Habit::Slow(wait) if !site.healed() => sleep(wait).await,
            Habit::Slow(_) => {}
            Habit::Asleep => {
                while !site.healed() {
                    sleep(Duration::from_millis(20)).await;
                }
            }
            Habit::Leaves(after, word) if count == after => {
                if let (Ends::Raw(receiver), true) = (receiver, word) {
                    receiver.stop(StreamCode(300), "enough");
                }
                return;
            }
            Habit::Leaves(..) => {}
        }
        let Some(message) = receiver.next(&site).await else { return };
        site.run.ledger.saw(site.name, &message);
        count += 1;
    }
}

/// Messages of the accepting side: those whose outcome nobody asks for are the ledger's all the same.
fn answer(
    site: &Outside,
    to: &'static str,
    count: u64,
    sender: RawSender,
) -> impl Future<Output = ()> + Send + use<> {
    let flow = site.run.ledger.flow(format!("{} > {to} answers", site.name), to, Promise::InOrder);
    async move {
        let mut receipts = Vec::new();
        for _ in 0..count {
            let (number, message) = flow.offer(100);
            match sender.send(message).await {
                Ok(receipt) => receipts.push((number, receipt)),
                Err(_) => {
                    flow.settle(number, Verdict::Refused);
                    break;
                }
            }
        }
        drop(sender);
        for (number, receipt) in receipts {
            flow.settle(number, verdict(receipt).await);
        }
    }
}

/// The sending end of a channel.
pub(super) enum Starts {
    Raw(RawSender),
    Typed(Sender<Blob>),
}

impl Starts {
    async fn send(&self, message: Vec<u8>, lifetime: Option<Duration>) -> Result<Receipt, SendError> {
        match (self, lifetime) {
            (Self::Raw(sender), lifetime) => sender.send_within(message, lifetime).await,
            (Self::Typed(sender), Some(lifetime)) => sender.send_within(Blob::from(message), lifetime).await,
            (Self::Typed(sender), None) => sender.send(Blob::from(message)).await,
        }
    }

    fn try_send(&self, message: Vec<u8>) -> Result<Receipt, SendError> {
        match self {
            Self::Raw(sender) => sender.try_send(message),
            Self::Typed(sender) => sender.try_send(&Blob::from(message)),
        }
    }

    fn counters(&self) -> Option<Counters> {
        match self {
            Self::Raw(sender) => sender.counters(),
            Self::Typed(sender) => sender.counters(),
        }
    }
}

pub(super) async fn raw(job: &mut Job) {
    job.note("channels of bytes");
    let open = job.peer.raw_channel(RAW).priority(job.priority());
    let Some(channel) = opened(job, open.open()).await else { return };
    let (sender, receiver) = RawChannel::split(channel);
    if job.dice.one_in(4) {
        drop(receiver);
        send(job, Starts::Raw(sender)).await;
    } else {
        let site = job.site.clone();
        let habit = Habit::of(&job.site.run, &mut job.dice);
        let reading = read(site.clone().without_mesh(), Ends::Raw(receiver), habit);
        let reading = in_time(&site, "the answers of a channel", reading);
        tokio::join!(reading, send(job, Starts::Raw(sender)));
    }
}

pub(super) async fn typed(job: &mut Job) {
    job.note("channels of values");
    let open = job.peer.channel::<Blob>(TYPED).priority(job.priority());
    let Some(channel) = opened(job, open.open()).await else { return };
    let (sender, receiver) = channel.split();
    drop(receiver);
    send(job, Starts::Typed(sender)).await;
}

/// At times the opening is given up in the middle.
pub(super) async fn opened<C>(
    job: &mut Job,
    opening: impl Future<Output = Result<C, OpenError>>,
) -> Option<C> {
    if job.dice.one_in(8) {
        return timeout(job.dice.millis(0, 30), opening).await.ok()?.ok();
    }
    let opened = job.in_time("opening", opening).await?;
    if let Err(
        error @ (OpenError::NoSuchName | OpenError::SchemaMismatch { .. } | OpenError::WrongClass { .. }),
    ) = &opened
    {
        job.site.run.ledger.accuse(job.label(&format!("was not opened: {error}")));
    }
    opened.ok()
}

async fn send(job: &mut Job, sender: Starts) {
    let flow = job.site.run.ledger.flow(job.label("channel"), job.to, Promise::InOrder);
    let mut receipts = Vec::new();
    let mut gave_up = false;
    for _ in 0..job.dice.within(1, 40) {
        if job.site.healed() {
            break;
        }
        let len = job.len();
        let (number, message) = flow.offer(len);
        let sent = match job.dice.within(0, 11) {
            0 => sender.try_send(message),
            1 => {
                let patience = job.dice.millis(0, 3);
                match timeout(patience, sender.send(message, None)).await {
                    Ok(sent) => sent,
                    Err(_) => {
                        gave_up = true;
                        flow.withdraw(number);
                        continue;
                    }
                }
            }
            2 | 3 => {
                let lifetime = job.dice.millis(0, 300);
                match job.in_time("send with a lifetime", sender.send(message, Some(lifetime))).await {
                    Some(sent) => sent,
                    None => return,
                }
            }
            _ => match job.in_time("send", sender.send(message, None)).await {
                Some(sent) => sent,
                None => return,
            },
        };
        match sent {
            Ok(receipt) => receipts.push((number, receipt)),
            Err(error) => {
                flow.settle(number, Verdict::Refused);
                if let SendError::TooLarge { .. } | SendError::Encode(_) = error {
                    job.site.run.ledger.accuse(job.label(&format!("send: {error}")));
                }
                if error == SendError::Closed {
                    break;
                }
            }
        }
        balanced(job, sender.counters());
        sleep(job.dice.millis(0, 20)).await;
    }
    end(job, sender, flow, receipts, gave_up).await;
}

pub(super) fn balanced(job: &Job, counters: Option<Counters>) {
    if let Some(counters) = counters {
        job.site.run.ledger.expect(counters.balanced(), || job.label(&format!("{counters:?}")));
    }
}

/// Ends a channel in one of several ways, and waits for every outcome.
pub(super) async fn end(
    job: &mut Job,
    sender: Starts,
    flow: Flow,
    receipts: Vec<(u64, Receipt)>,
    gave_up: bool,
) {
    let way = job.dice.within(0, 5);
    let mut sender = Some(sender);
    let mut finished = false;
    match way {
        // Dropped at once: what was accepted is flushed.
        0 => drop(sender.take()),
        1 => {
            if let Some(Starts::Raw(raw)) = sender.take() {
                raw.reset(StreamCode(301), "changed its mind");
            }
        }
        2 | 3 => {
            let finishing = async {
                match sender.take() {
                    Some(Starts::Raw(raw)) => raw.finish().await.is_ok(),
                    Some(Starts::Typed(typed)) => typed.finish().await.is_ok(),
                    None => false,
                }
            };
            finished = job.in_time("finish", finishing).await == Some(true);
        }
        // All outcomes come while the channel is open.
        _ => {}
    }
    let settled = async {
        for (number, receipt) in receipts {
            let told = verdict(receipt).await;
            flow.settle(number, told);
            let excused = told != Verdict::Unknown || job.peer.is_lost();
            job.site.run.ledger.expect(excused, || {
                job.label(&format!("message {number} is unknown, and the session lives"))
            });
        }
    };
    if job.in_time("receipts", settled).await.is_none() {
        return;
    }
    let tally = flow.tally();
    let ledger = &job.site.run.ledger;
    if finished {
        ledger.expect(tally.unknown == 0, || job.label(&format!("finished, but {tally:?}")));
    }
    if let Some(counters) = sender.as_ref().and_then(Starts::counters).filter(|_| !gave_up) {
        let same = [
            (counters.offered, tally.offered),
            (counters.delivered, tally.delivered),
            (counters.refused, tally.refused),
            (counters.expired, tally.expired),
            (counters.superseded, tally.superseded),
            (counters.unknown, tally.unknown),
        ];
        ledger.expect(same.iter().all(|(counted, told)| counted == told), || {
            job.label(&format!("counts {counters:?}, but was told {tally:?}"))
        });
    }
}
