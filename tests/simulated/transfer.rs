//! A thousand messages each way, while the link is cut one to ten times.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand_chacha::rand_core::RngCore;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use vitte_net::{Address, Blob, Config, Events, Mesh, MeshBuilder, MeshEvent, Receiver, Sender, Transport};
use vitte_net_sim::{Cluster, Failure, Fault, Node, Report};

/// Messages in each direction.
pub(crate) const MESSAGES: u32 = 1000;
const PORT: u16 = 7000;

/// What a run came to.
pub(crate) struct Done {
    pub(crate) report: Report,
    /// Cuts that killed the link; the session went on after each.
    pub(crate) cuts: usize,
}

/// Runs one seed. Both programs panic if a message is missing, comes twice or out of order, if a receipt
/// says anything but delivered, or if the outcomes do not add up.
pub(crate) fn run(
    seed: u64,
    transport: Transport,
    builder: fn(&Node) -> MeshBuilder,
) -> Result<Done, Box<Failure>> {
    let count = Arc::new(Mutex::new(0));
    let told = count.clone();
    let mut cluster = Cluster::new(seed)
        .limit(Duration::from_secs(180))
        .node("server", move |node| async move {
            let listen = format!("{transport}://0.0.0.0:{PORT}");
            let mesh = builder(&node).config(config()).listen(listen).start().await?;
            serve(&node, &mesh).await;
            std::future::pending().await
        })
        .client("client", move |node| {
            let told = told.clone();
            async move {
                let mesh = builder(&node).config(config()).start().await?;
                let cuts = ask(&node, &mesh, transport).await;
                *told.lock().unwrap_or_else(PoisonError::into_inner) = cuts;
                Ok(())
            }
        });
    let report = cluster.run()?;
    let cuts = *count.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Done { report, cuts })
}

fn config() -> Config {
    // An outage outlasts rounds of dialling: the back-off between them is part of what is tested.
    Config::lan()
        .keep_alive(Duration::from_millis(200))
        .link_timeout(Duration::from_millis(500))
        .dial_timeout(Duration::from_millis(250))
}

async fn serve(node: &Node, mesh: &Mesh) {
    let mut incoming = mesh.accept::<Blob>("both/v1").expect("the name is free");
    let (peer, channel) = incoming.next().await.expect("a channel comes");
    let (sender, receiver) = channel.split();
    tokio::join!(send(node, sender, None), receive(node, receiver));
    assert!(peer.counters().balanced());
    node.event("the server has all");
    // The other end waits for this: its end is the run's.
    peer.raw_channel("verified").open().await.expect("accepted");
}

async fn ask(node: &Node, mesh: &Mesh, transport: Transport) -> usize {
    let mut verified = mesh.accept_raw("verified").expect("the name is free");
    let events = mesh.events();
    let peer = loop {
        // The server may not listen yet.
        match mesh.connect(&Address::new(transport, "server", PORT)).await {
            Ok(peer) => break peer,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    };
    let (sender, receiver) = peer.channel::<Blob>("both/v1").open().await.expect("accepted").split();
    let (orders, wanted) = mpsc::channel(1);
    let cutting = cut(node, transport, wanted, events);
    let ((), (), cuts) = tokio::join!(send(node, sender, Some(orders)), receive(node, receiver), cutting);
    let _verified = verified.next().await.expect("the server has all");
    assert!(peer.counters().balanced());
    assert_eq!(peer.counters().in_flight, 0);
    cuts
}

/// Sends all messages one by one or in small bursts, and asks for the cuts on the way. It goes on when the link
/// is cut; the next cut waits until this one has healed.
async fn send(node: &Node, sender: Sender<Blob>, mut orders: Option<mpsc::Sender<oneshot::Sender<()>>>) {
    let mut rng = node.rng("messages");
    let cuts: Vec<u32> = (0..=rng.next_u32() % 10).map(|_| rng.next_u32() % MESSAGES).collect();
    let mut receipts = Vec::new();
    for number in 0..MESSAGES {
        if let Some(orders) = &orders {
            for _ in cuts.iter().filter(|at| **at == number) {
                let (done, cut) = oneshot::channel();
                orders.send(done).await.expect("the cutter waits");
                cut.await.expect("the link is cut");
            }
        }
        sleep(Duration::from_millis(u64::from(rng.next_u32() % 6))).await;
        receipts.push(sender.send(message(number)).await.expect("the channel is open"));
    }
    orders.take();
    for (number, receipt) in receipts.into_iter().enumerate() {
        assert_eq!(receipt.await, Ok(()), "message {number}");
    }
    let counters = sender.counters().expect("the channel lives");
    assert!(counters.balanced());
    assert_eq!((counters.offered, counters.delivered), (MESSAGES.into(), MESSAGES.into()));
    sender.finish().await.expect("all was taken");
}

async fn receive(node: &Node, mut receiver: Receiver<Blob>) {
    for number in 0..MESSAGES {
        let received = receiver.recv().await.expect("the channel lives");
        assert!(received == Some(message(number)), "message {number} is missing, twice or changed");
        node.event(format!("received {number}"));
    }
    assert_eq!(receiver.recv().await, Ok(None));
}

/// A number and as many bytes as follow from it: mostly few, at times more than a packet or a window.
fn message(number: u32) -> Blob {
    let more = match number % 100 {
        7 => 100_000,
        31 | 77 => 5_000,
        rest => rest as usize * 3,
    };
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(4 + more, number.to_le_bytes()[0]);
    Blob::from(bytes)
}

/// Cuts the link once for each order, and lets it heal. Counts the cuts.
async fn cut(
    node: &Node,
    transport: Transport,
    mut orders: mpsc::Receiver<oneshot::Sender<()>>,
    mut events: Events,
) -> usize {
    let mut rng = node.rng("cuts");
    let mut cuts = 0;
    assert!(matches!(events.next().await, Some(MeshEvent::Up { .. })));
    while let Some(done) = orders.recv().await {
        let (begin, end) = kind(rng.next_u32(), transport);
        node.event(format!("cut {begin:?}"));
        apply(node, begin);
        done.send(()).expect("the sender waits");
        await_event(&mut events, |event| matches!(event, MeshEvent::Unreachable { .. })).await;
        sleep(Duration::from_millis(u64::from(rng.next_u32() % 800))).await;
        if let Some(end) = end {
            apply(node, end);
        } else if rng.next_u32().is_multiple_of(2) {
            // In the middle of a handshake, or soon after it.
            apply(node, kind(0, Transport::Tls).0);
        }
        await_event(&mut events, |event| matches!(event, MeshEvent::Resumed { .. })).await;
        cuts += 1;
    }
    cuts
}

/// A fault that kills the link, and its end if it does not end by itself.
fn kind(dice: u32, transport: Transport) -> (Fault, Option<Fault>) {
    let (a, b) = (String::from("client"), String::from("server"));
    let heal = Fault::Heal { a: a.clone(), b: b.clone() };
    match (dice % 6, transport) {
        (0..=2, _) if transport != Transport::Quic => (Fault::Reset { a, b }, None),
        (0..=2, _) => (Fault::BlockUdp { a: a.clone(), b: b.clone() }, Some(Fault::UnblockUdp { a, b })),
        (3, _) => (Fault::PartitionOneWay { from: a, to: b }, Some(heal)),
        (4, _) => (Fault::PartitionOneWay { from: b, to: a }, Some(heal)),
        _ => (Fault::Partition { a, b }, Some(heal)),
    }
}

fn apply(node: &Node, fault: Fault) {
    node.world().fault(&fault).expect("the nodes are there");
}

async fn await_event(events: &mut Events, mut wanted: impl FnMut(&MeshEvent) -> bool) {
    loop {
        let event = events.next().await.expect("the mesh lives");
        assert!(!matches!(event, MeshEvent::Down { .. } | MeshEvent::Lagged { .. }), "{event:?}");
        if wanted(&event) {
            return;
        }
    }
}
