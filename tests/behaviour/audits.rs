//! Every send, call and byte stream of every class ends in exactly one way, and in a true one, whatever happens
//! to those who wait for it. Both programs write in one [`Ledger`], which compares what was told with what was
//! taken: above all, a call that is said not to have been sent has not run.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use vitte_net::{
    Blob, CallError, CloseCode, Config, DialError, Mesh, NotSent, OpenError, Peer, PeerStream,
    RawDatagramSender, RawReceiver, RawSender, Receipt, Request, Schema, Trust, Undelivered,
};
use vitte_net_sim::Fault;
use vitte_net_sim::invariants::{Counts, Flow, Ledger, Promise, Verdict};

use crate::arena::{Case, Play, Stage, play, secret};
use crate::suite::{case, meet};

const SERVER: &str = "server";
/// Longer than any of this takes, the waiting for a dead link and for the end of a session included.
const PATIENCE: Duration = Duration::from_secs(20);
/// Messages that one run offers on each channel, and how many of them are taken before the reader waits.
const MESSAGES: u64 = 40;
const TAKEN: u64 = 3;
const LEN: usize = 300;
/// Calls that come to a handler before anything happens.
const RUNNING: u64 = 8;

#[derive(Serialize, Deserialize, Schema)]
struct Probe {
    message: Blob,
    hangs: bool,
}

impl Request for Probe {
    const NAME: &'static str = "probe/v1";
    type Response = ();
    type Error = ();
}

/// What both programs share.
#[derive(Clone)]
struct Audit {
    ledger: Ledger,
    /// Readers and handlers wait for it.
    go: Arc<watch::Sender<bool>>,
    leave: Arc<Notify>,
}

impl Audit {
    fn new() -> Self {
        Self { ledger: Ledger::default(), go: Arc::new(watch::channel(false).0), leave: Arc::default() }
    }

    async fn gone(&self) {
        // The sender is here.
        let _ = self.go.subscribe().wait_for(|go| *go).await;
    }

    /// Takes a little of everything, and waits before it takes the rest.
    fn serve(&self, mesh: &Mesh) {
        let mut every = mesh.accept_raw("every").expect("the name is free");
        let mut newest = mesh.accept_latest_raw("newest").expect("the name is free");
        let mut ticks = mesh.accept_datagrams_raw("ticks").expect("the name is free");
        let mut bytes = mesh.accept_bytes("bytes").expect("the name is free");
        let audit = self.clone();
        tokio::spawn(async move {
            while let Some((_, channel)) = every.next().await {
                tokio::spawn(audit.clone().read(channel.split().1));
            }
        });
        let audit = self.clone();
        tokio::spawn(async move {
            while let Some((_, channel)) = newest.next().await {
                tokio::spawn(audit.clone().read(channel.split().1));
            }
        });
        let audit = self.clone();
        tokio::spawn(async move {
            while let Some((_, channel)) = ticks.next().await {
                tokio::spawn(audit.clone().read(channel.split().1));
            }
        });
        let audit = self.clone();
        tokio::spawn(async move {
            while let Some((_, stream)) = bytes.next().await {
                tokio::spawn(audit.clone().read_bytes(stream));
            }
        });
        let audit = self.clone();
        let handler = move |_, probe: Probe| {
            let audit = audit.clone();
            audit.ledger.saw(SERVER, &probe.message);
            async move {
                if probe.hangs {
                    audit.gone().await;
                }
                Ok(())
            }
        };
        mesh.serve(handler).expect("the name is free");
    }

    async fn read(self, mut receiver: RawReceiver) {
        let mut count = 0;
        while let Ok(Some(message)) = receiver.recv().await {
            self.ledger.saw(SERVER, &message);
            count += 1;
            if count == TAKEN {
                self.gone().await;
            }
        }
    }

    async fn read_bytes(self, mut stream: PeerStream) {
        let mut reader = self.ledger.reader(SERVER);
        let mut buf = vec![0; 1000];
        while let Ok(count) = stream.read(&mut buf).await {
            if count == 0 {
                return reader.ended();
            }
            reader.saw(&buf[..count]);
            self.gone().await;
        }
    }

    /// Offers something of every class, and waits until a part of it was taken.
    async fn offer(&self, peer: &Peer) -> Offered {
        let before = self.ledger.tally().seen;
        let (every, _) = peer.raw_channel("every").open().await.expect("accepted").split();
        let (newest, _) = peer.raw_channel("newest").latest().open().await.expect("accepted").split();
        let (ticks, _) = peer.raw_datagrams("ticks").open().await.expect("accepted").split();
        let mut receipts = Vec::new();
        for (sender, promise) in [(&every, Promise::InOrder), (&newest, Promise::Newest)] {
            let flow = self.ledger.flow(format!("{promise:?}"), SERVER, promise);
            for count in 0..MESSAGES {
                let (number, message) = flow.offer(LEN);
                let lifetime = (count % 4 == 2).then_some(Duration::from_millis(30));
                let receipt = sender.send_within(message, lifetime).await.expect("there is room");
                receipts.push((flow.clone(), number, receipt));
            }
        }
        let flow = self.ledger.flow("datagrams", SERVER, Promise::BestEffort);
        for _ in 0..MESSAGES {
            ticks.send(flow.offer(LEN).1).expect("there is room");
        }
        let stream = peer.byte_stream("bytes").open().await.expect("accepted");
        let quit = Arc::new(Notify::new());
        let bytes = tokio::spawn(self.clone().write(stream, quit.clone()));
        let calls = self.call(peer);
        let running = async {
            while self.ledger.tally().seen < before + TAKEN + RUNNING {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, running).await.expect("a part of it is taken");
        Offered { receipts, ticks: (flow, ticks), bytes, quit, calls, senders: vec![every, newest] }
    }

    /// More than the windows hold. True if all of it was read.
    async fn write(self, mut stream: PeerStream, quit: Arc<Notify>) -> bool {
        let mut flow = self.ledger.bytes("bytes", SERVER);
        let writing = async {
            for _ in 0..50 {
                let part = flow.next(10_000);
                flow.wrote(part.len());
                if stream.write_all(&part).await.is_err() {
                    return false;
                }
            }
            let finished = stream.shutdown().await.is_ok();
            if finished {
                flow.finished();
            }
            finished
        };
        tokio::select! {
            biased;
            read = writing => read,
            () = quit.notified() => {
                flow.withdraw();
                false
            }
        }
    }

    /// Calls that are answered, that hang, that have a deadline, and that are given up.
    fn call(&self, peer: &Peer) -> JoinSet<()> {
        let flow = self.ledger.flow("calls", SERVER, Promise::Once);
        let mut calls = JoinSet::new();
        for count in 0..16 {
            let (number, message) = flow.offer(LEN);
            let mut call = peer.call(Probe { message: Blob::from(message), hangs: count >= 4 });
            if (8..12).contains(&count) {
                call = call.deadline(Duration::from_millis(60));
            }
            let flow = flow.clone();
            calls.spawn(async move {
                let patience = if count >= 12 { Duration::from_millis(20) } else { PATIENCE * 2 };
                match timeout(patience, call).await {
                    Ok(ended) => flow.settle(number, of_call(ended)),
                    Err(_) => flow.withdraw(number),
                }
            });
        }
        calls
    }

    fn holds(&self) {
        assert_eq!(self.ledger.violations(), [""; 0]);
    }
}

fn of_call(ended: Result<(), CallError<()>>) -> Verdict {
    match ended {
        Ok(()) => Verdict::Delivered,
        Err(CallError::NotSent(NotSent::Expired)) => Verdict::Expired,
        Err(CallError::NotSent(_) | CallError::Refused(_)) => Verdict::Refused,
        Err(CallError::Unknown | CallError::DeadlineExceeded) => Verdict::Unknown,
        Err(other) => panic!("{other}"),
    }
}

async fn of_message(receipt: Receipt) -> Verdict {
    match receipt.await {
        Ok(()) => Verdict::Delivered,
        Err(Undelivered::Refused(_)) => Verdict::Refused,
        Err(Undelivered::Expired) => Verdict::Expired,
        Err(Undelivered::Superseded) => Verdict::Superseded,
        Err(Undelivered::Unknown) => Verdict::Unknown,
        Err(other) => panic!("{other}"),
    }
}

/// What one side waits for.
pub(crate) struct Offered {
    receipts: Vec<(Flow, u64, Receipt)>,
    ticks: (Flow, RawDatagramSender),
    bytes: JoinHandle<bool>,
    quit: Arc<Notify>,
    calls: JoinSet<()>,
    senders: Vec<RawSender>,
}

impl Offered {
    /// Waits for all outcomes. True if the byte stream was read to its end.
    async fn settled(self, peer: &Peer) -> bool {
        let Self { receipts, ticks: (flow, ticks), bytes, mut calls, senders, .. } = self;
        let all = async {
            for (flow, number, receipt) in receipts {
                flow.settle(number, of_message(receipt).await);
            }
            while let Some(ended) = calls.join_next().await {
                ended.expect("no call panics");
            }
            let read = bytes.await.expect("the writer does not panic");
            let _ = ticks.finish().await;
            // Nothing once the session has forgotten the channel.
            if let Some(counters) = ticks.counters() {
                let vitte_net::Counters { offered, delivered, refused, expired, unknown, in_flight, .. } =
                    counters;
                flow.counted(&Counts { offered, delivered, refused, expired, unknown, in_flight });
                assert_eq!(in_flight, 0, "{counters:?}");
            }
            drop(senders);
            quiet(peer).await;
            read
        };
        timeout(PATIENCE, all).await.expect("everything has its outcome")
    }

    /// Drops whatever waits.
    fn given_up(self) {
        let Self { receipts, ticks, quit, mut calls, senders, .. } = self;
        drop(receipts);
        calls.abort_all();
        quit.notify_one();
        drop((ticks, senders));
    }
}

/// The sum holds, and nothing is in flight any more.
async fn quiet(peer: &Peer) {
    loop {
        let counters = peer.counters();
        assert!(counters.balanced(), "{counters:?}");
        if counters.in_flight == 0 {
            return;
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// What is asked for after the end is not sent, and says so.
async fn nothing_more(peer: &Peer, audit: &Audit) {
    assert!(peer.is_lost());
    let flow = audit.ledger.flow("too late", SERVER, Promise::Once);
    let (number, message) = flow.offer(LEN);
    let ended = peer.call(Probe { message: Blob::from(message), hangs: false }).await;
    assert_eq!(ended, Err(CallError::NotSent(NotSent::Lost)));
    flow.settle(number, Verdict::Refused);
    assert!(matches!(peer.raw_channel("every").open().await, Err(OpenError::Lost)));
    audit.holds();
}

/// Small windows, so that a part of everything waits here, a part is under way, and a part is taken.
fn audited(audit: &Audit, client: Play) -> Case {
    let audit = audit.clone();
    let server = play(move |stage: Stage| {
        let audit = audit.clone();
        async move {
            audit.serve(&stage.mesh);
            audit.leave.notified().await;
            drop(stage);
            std::future::pending::<()>().await;
        }
    });
    let mut case = case(server, client);
    case.config = Config::lan().stream_window(4 << 10).stream_window_max(4 << 10).send_queue(64 << 10);
    case
}

fn trusted() -> Trust {
    Trust::secret(secret())
}

pub(crate) fn everything_ends_when_the_peer_leaves() -> Case {
    let audit = Audit::new();
    let client = {
        let audit = audit.clone();
        play(move |stage: Stage| {
            let audit = audit.clone();
            async move {
                let peer = meet(&stage).await;
                let offered = audit.offer(&peer).await;
                audit.leave.notify_one();
                assert!(!offered.settled(&peer).await, "the rest was never read");
                nothing_more(&peer, &audit).await;
            }
        })
    };
    audited(&audit, client)
}

pub(crate) fn everything_ends_when_this_mesh_is_dropped() -> Case {
    let audit = Audit::new();
    let client = {
        let audit = audit.clone();
        play(move |stage: Stage| {
            let audit = audit.clone();
            async move {
                let peer = meet(&stage).await;
                let offered = audit.offer(&peer).await;
                drop(stage);
                assert!(!offered.settled(&peer).await, "the rest was never read");
                nothing_more(&peer, &audit).await;
            }
        })
    };
    audited(&audit, client)
}

pub(crate) fn the_next_process_with_a_key_begins_with_nothing() -> Case {
    let audit = Audit::new();
    let client = {
        let audit = audit.clone();
        play(move |stage: Stage| {
            let audit = audit.clone();
            async move {
                let first = (stage.another)(9, trusted()).await;
                let peer = first.connect(&stage.server).await.expect("the server is there");
                let offered = audit.offer(&peer).await;
                drop(first);
                let next = (stage.another)(9, trusted()).await;
                let again = next.connect(&stage.server).await.expect("the last one is gone");
                assert!(!offered.settled(&peer).await, "the rest was never read");
                nothing_more(&peer, &audit).await;
                let offered = audit.offer(&again).await;
                audit.go.send_replace(true);
                assert!(offered.settled(&again).await, "all was read");
                audit.holds();
            }
        })
    };
    audited(&audit, client)
}

pub(crate) fn a_second_process_with_a_key_takes_nothing_from_the_first() -> Case {
    let audit = Audit::new();
    let client = {
        let audit = audit.clone();
        play(move |stage: Stage| {
            let audit = audit.clone();
            async move {
                let first = (stage.another)(9, trusted()).await;
                let peer = first.connect(&stage.server).await.expect("the server is there");
                let offered = audit.offer(&peer).await;
                let second = (stage.another)(9, trusted()).await;
                match second.connect(&stage.server).await {
                    Err(DialError::Failed(failures)) => {
                        assert_eq!(failures[0].1.code(), Some(CloseCode::DUPLICATE_IDENTITY), "{failures:?}");
                    }
                    other => panic!("{other:?}"),
                }
                audit.go.send_replace(true);
                let flows: Vec<Flow> = offered.receipts.iter().map(|(flow, ..)| flow.clone()).collect();
                assert!(offered.settled(&peer).await, "all was read");
                assert!(!peer.is_lost());
                let unknown: u64 = flows.iter().map(|flow| flow.tally().unknown).sum();
                assert_eq!(unknown, 0, "the session lives: nothing is unknown");
                audit.holds();
            }
        })
    };
    audited(&audit, client)
}

pub(crate) fn who_gives_up_waiting_changes_no_sum() -> Case {
    let audit = Audit::new();
    let client = {
        let audit = audit.clone();
        play(move |stage: Stage| {
            let audit = audit.clone();
            async move {
                let peer = meet(&stage).await;
                audit.offer(&peer).await.given_up();
                assert!(peer.counters().balanced());
                audit.go.send_replace(true);
                timeout(PATIENCE, quiet(&peer)).await.expect("everything ends all the same");
                // Nobody was told anything, and the next ones are served as ever.
                let offered = audit.offer(&peer).await;
                assert!(offered.settled(&peer).await, "all was read");
                audit.holds();
            }
        })
    };
    audited(&audit, client)
}

/// Offers everything, waits for what a fault makes of it, and offers all once more to whoever is there then.
fn through(audit: &Audit, fault: [(u64, Fault); 2]) -> Case {
    let client = {
        let audit = audit.clone();
        play(move |stage: Stage| {
            let audit = audit.clone();
            async move {
                let peer = meet(&stage).await;
                let offered = audit.offer(&peer).await;
                assert!(!offered.settled(&peer).await, "the rest was never read");
                nothing_more(&peer, &audit).await;
                audit.go.send_replace(true);
                let again = loop {
                    match stage.mesh.connect(&stage.server).await {
                        Ok(peer) => break peer,
                        Err(_) => sleep(Duration::from_millis(50)).await,
                    }
                };
                let offered = audit.offer(&again).await;
                assert!(offered.settled(&again).await, "all was read");
                audit.holds();
            }
        })
    };
    let mut case = audited(audit, client);
    case.config = case.config.resume_window(Duration::from_secs(1));
    for (at, fault) in fault {
        case.faults = case.faults.at(Duration::from_millis(at), fault);
    }
    case
}

/// Only in the simulation: nobody says goodbye, and the session expires.
pub(crate) fn everything_ends_when_the_session_expires() -> Case {
    let (a, b) = (String::from("client"), String::from(SERVER));
    let cut = Fault::Partition { a: a.clone(), b: b.clone() };
    through(&Audit::new(), [(1000, cut), (8000, Fault::Heal { a, b })])
}

/// Only in the simulation: the machine of the peer loses power, and comes back with the same key.
pub(crate) fn everything_ends_when_the_peer_crashes() -> Case {
    let node = String::from(SERVER);
    through(&Audit::new(), [(1000, Fault::Crash { node: node.clone() }), (1500, Fault::Restart { node })])
}

/// Only on real sockets: the runtime of the mesh ends, and those who wait are in another.
pub(crate) fn everything_ends_with_the_runtime(transport: vitte_net::Transport) {
    let audit = Audit::new();
    let here = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let there = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let (here, there) = (here.expect("a runtime starts"), there.expect("a runtime starts"));
    here.block_on(async {
        let mesh = |key| {
            let identity = vitte_net::Identity::from_secret_key([key; 32]);
            Mesh::builder().identity(identity).trust(trusted()).config(Config::lan().stream_window(4 << 10))
        };
        let server = mesh(1).listen(format!("{transport}://127.0.0.1:0")).start().await.expect("it starts");
        audit.serve(&server);
        let address = server.addresses()[0].clone();
        let client = mesh(2);
        let (client, peer) = there
            .spawn(async move {
                let client = client.start().await.expect("it starts");
                let peer = client.connect(&address).await.expect("the server is there");
                (client, peer)
            })
            .await
            .expect("no panic");
        let offered = audit.offer(&peer).await;
        there.shutdown_background();
        assert!(!offered.settled(&peer).await, "the rest was never read");
        nothing_more(&peer, &audit).await;
        drop(client);
    });
}
