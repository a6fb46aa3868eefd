//! Delivery classes under faults: links are cut, packets lost, and every message has one outcome that is true.
//!
//! Each transport runs with 8 seeds. For 500: `VITTE_SIM_SEEDS=500 cargo test --release --test classes`.
//! A failure names its seed; `VITTE_SIM_SEED` runs that one alone.

mod simulated;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand_chacha::rand_core::RngCore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use tokio::time::sleep;
use vitte_net::{Address, Config, Mesh, Peer, Priority, Transport, Undelivered};
use vitte_net_sim::{Cluster, Failure, Fault, LinkSettings, Node, seeds};

const SEEDS: u64 = 8;
const PORT: u16 = 7000;
/// Values that one run sends, one every 3 ms or so.
const VALUES: u64 = 700;
/// A fault begins every so often, and heals half as long after.
const FAULT_EVERY: Duration = Duration::from_millis(600);
const FAULTS: u32 = 4;

/// What the server's application took.
type Taken = Arc<Mutex<Vec<u64>>>;

#[test]
fn latest_over_quic() {
    sweep(Transport::Quic, latest);
}

#[test]
fn latest_over_tls() {
    sweep(Transport::Tls, latest);
}

#[test]
fn latest_over_websocket() {
    sweep(Transport::Ws, latest);
}

#[test]
fn datagrams_over_quic() {
    sweep(Transport::Quic, datagrams);
}

#[test]
fn datagrams_over_tls() {
    sweep(Transport::Tls, datagrams);
}

#[test]
fn datagrams_over_websocket() {
    sweep(Transport::Ws, datagrams);
}

#[test]
fn a_flood_of_datagrams_leaves_room_over_quic() {
    flood(Transport::Quic);
}

#[test]
fn a_flood_of_datagrams_leaves_room_over_tls() {
    flood(Transport::Tls);
}

#[test]
fn a_flood_of_datagrams_leaves_room_over_websocket() {
    flood(Transport::Ws);
}

fn sweep(transport: Transport, run: fn(u64, Transport) -> Result<(), Box<Failure>>) {
    let count = match std::env::var("VITTE_SIM_SEEDS") {
        Ok(text) => text.parse().expect("VITTE_SIM_SEEDS is a number"),
        Err(_) => SEEDS,
    };
    let mut failures = Vec::new();
    for seed in seeds(0..count) {
        if let Err(failure) = run(seed, transport) {
            println!("{failure}");
            failures.push(seed);
        }
    }
    assert!(failures.is_empty(), "{transport}: seeds {failures:?} failed");
}

fn config() -> Config {
    Config::lan()
        .keep_alive(Duration::from_millis(200))
        .link_timeout(Duration::from_millis(400))
        .dial_timeout(Duration::from_millis(250))
}

/// Two nodes and faults between them that follow from the seed.
fn troubled(seed: u64, transport: Transport) -> Cluster {
    let mut settings = LinkSettings::default();
    settings.jitter = Duration::from_millis(seed % 5);
    settings.loss = f64::from(u32::try_from(seed % 4).unwrap_or(0)) * 0.05;
    settings.duplicate = 0.02;
    settings.reorder = 0.05;
    let mut cluster = Cluster::new(seed).limit(Duration::from_secs(120)).link(settings);
    for number in 0..FAULTS {
        let at = FAULT_EVERY * (number + 1);
        let (begin, end) = fault(seed + u64::from(number), transport);
        cluster = cluster.fault(at, begin);
        if let Some(end) = end {
            cluster = cluster.fault(at + FAULT_EVERY / 2 + Duration::from_millis(seed % 100), end);
        }
    }
    cluster
}

/// A fault that kills the link, and its end if it does not end by itself.
fn fault(dice: u64, transport: Transport) -> (Fault, Option<Fault>) {
    let (a, b) = (String::from("client"), String::from("server"));
    let heal = Fault::Heal { a: a.clone(), b: b.clone() };
    match (dice % 4, transport) {
        (0, Transport::Quic) => {
            (Fault::BlockUdp { a: a.clone(), b: b.clone() }, Some(Fault::UnblockUdp { a, b }))
        }
        (0, _) => (Fault::Reset { a, b }, None),
        (1, _) => (Fault::PartitionOneWay { from: a, to: b }, Some(heal)),
        (2, _) => (Fault::PartitionOneWay { from: b, to: a }, Some(heal)),
        _ => (Fault::Partition { a, b }, Some(heal)),
    }
}

async fn mesh(node: &Node, listen: Option<String>) -> Mesh {
    let mut builder = simulated::builder(node).config(config());
    if let Some(address) = listen {
        builder = builder.listen(address);
    }
    builder.start().await.expect("the mesh starts")
}

async fn meet(mesh: &Mesh, transport: Transport) -> Peer {
    loop {
        // The server may not listen yet.
        match mesh.connect(&Address::new(transport, "server", PORT)).await {
            Ok(peer) => return peer,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn pause(most_ms: u32, rng: &mut impl RngCore) {
    sleep(Duration::from_millis(u64::from(rng.next_u32() % (most_ms + 1)))).await;
}

/// What was delivered is what was taken, in order; the rest was superseded; the newest arrived.
fn latest(seed: u64, transport: Transport) -> Result<(), Box<Failure>> {
    let taken = Taken::default();
    let of_server = taken.clone();
    let mut cluster = troubled(seed, transport)
        .node("server", move |node| {
            let taken = of_server.clone();
            async move {
                let mesh = mesh(&node, Some(format!("{transport}://0.0.0.0:{PORT}"))).await;
                let mut incoming = mesh.accept_latest::<u64>("pos/v1").expect("the name is free");
                let (_, mut channel) = incoming.next().await.expect("a channel comes");
                let mut rng = node.rng("reading");
                while let Some(value) = channel.recv().await.expect("the session lives") {
                    taken.lock().expect("no panic").push(value);
                    pause(30, &mut rng).await;
                }
                std::future::pending().await
            }
        })
        .client("client", move |node| {
            let taken = taken.clone();
            async move {
                let mesh = mesh(&node, None).await;
                let peer = meet(&mesh, transport).await;
                let channel = peer.channel::<u64>("pos/v1").latest().open().await.expect("accepted");
                let (sender, _receiver) = channel.split();
                let mut rng = node.rng("sending");
                let mut receipts = Vec::new();
                for value in 1..=VALUES {
                    pause(6, &mut rng).await;
                    receipts.push(sender.send(value).await.expect("there is always room"));
                    assert!(sender.counters().expect("it lives").balanced());
                }
                let mut delivered = Vec::new();
                for (receipt, value) in receipts.into_iter().zip(1..) {
                    match receipt.await {
                        Ok(()) => delivered.push(value),
                        Err(Undelivered::Superseded) => {}
                        Err(other) => panic!("value {value}: {other}"),
                    }
                }
                assert_eq!(*taken.lock().expect("no panic"), delivered);
                assert!(delivered.is_sorted() && delivered.last() == Some(&VALUES));
                let counters = peer.counters();
                assert_eq!(counters.superseded, VALUES - delivered.len() as u64);
                assert!(counters.balanced() && counters.in_flight == 0, "{counters:?}");
                Ok(())
            }
        });
    cluster.run().map(|_| ())
}

/// What was counted as delivered is what was taken, in order and once; nothing is left in flight.
fn datagrams(seed: u64, transport: Transport) -> Result<(), Box<Failure>> {
    let taken = Taken::default();
    let of_server = taken.clone();
    let mut cluster = troubled(seed, transport)
        .node("server", move |node| {
            let taken = of_server.clone();
            async move {
                let mesh = mesh(&node, Some(format!("{transport}://0.0.0.0:{PORT}"))).await;
                let mut incoming = mesh.accept_datagrams::<u64>("ticks/v1").expect("the name is free");
                let (_, channel) = incoming.next().await.expect("a channel comes");
                let (_sender, mut receiver) = channel.split();
                let mut rng = node.rng("reading");
                while let Some(value) = receiver.recv().await.expect("the session lives") {
                    taken.lock().expect("no panic").push(value);
                    pause(8, &mut rng).await;
                }
                std::future::pending().await
            }
        })
        .client("client", move |node| {
            let taken = taken.clone();
            async move {
                let mesh = mesh(&node, None).await;
                let peer = meet(&mesh, transport).await;
                let channel = peer.datagrams::<u64>("ticks/v1").open().await.expect("accepted");
                let (sender, _receiver) = channel.split();
                let mut rng = node.rng("sending");
                for value in 1..=VALUES {
                    pause(6, &mut rng).await;
                    let lifetime = if value % 3 == 0 { 50 } else { 5000 };
                    sender
                        .send_within(&value, Duration::from_millis(lifetime))
                        .expect("there is always room");
                    let counters = sender.counters().expect("it lives");
                    assert!(counters.balanced(), "{counters:?}");
                    assert!(counters.delivered <= taken.lock().expect("no panic").len() as u64);
                }
                sender.finish().await.expect("the session lives");
                let counters = sender.counters().expect("it lives");
                let taken = taken.lock().expect("no panic");
                assert!(taken.is_sorted_by(|one, next| one < next), "out of order, or twice");
                assert_eq!((counters.offered, counters.delivered), (VALUES, taken.len() as u64));
                assert!(counters.balanced() && counters.in_flight == 0, "{counters:?}");
                assert!(counters.delivered > VALUES / 4, "{counters:?}");
                Ok(())
            }
        });
    cluster.run().map(|_| ())
}

/// A link of 1 MB/s, a sender of datagrams that always has one, and a byte stream of the same class beside it.
fn flood(transport: Transport) {
    const RATE: u64 = 1_000_000;
    const BYTES: usize = 600_000;
    const TIME: Duration = Duration::from_millis(2500);
    let mut settings = LinkSettings::default();
    settings.latency = Duration::from_millis(10);
    settings.bandwidth = std::num::NonZeroU64::new(RATE);
    let mut cluster = Cluster::new(1)
        .limit(Duration::from_secs(60))
        .link(settings)
        .node("server", move |node| async move {
            let mesh = mesh(&node, Some(format!("{transport}://0.0.0.0:{PORT}"))).await;
            let mut ticks = mesh.accept_datagrams_raw("ticks").expect("the name is free");
            let mut blobs = mesh.accept_bytes("blob").expect("the name is free");
            tokio::spawn(async move {
                let (_, channel) = ticks.next().await.expect("a channel comes");
                let (_sender, mut receiver) = channel.split();
                while let Ok(Some(_)) = receiver.recv().await {}
            });
            let (_, mut stream) = blobs.next().await.expect("a stream comes");
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.expect("the session lives");
            std::future::pending().await
        })
        .client("client", move |node| async move {
            let mesh = mesh(&node, None).await;
            let peer = meet(&mesh, transport).await;
            let (ticks, _receiver) = peer.raw_datagrams("ticks").open().await.expect("accepted").split();
            let flood = async {
                loop {
                    // Eight times what the link takes.
                    for _ in 0..8 {
                        ticks.send(vec![1; 1000]).expect("there is always room");
                    }
                    sleep(Duration::from_millis(1)).await;
                }
            };
            let mut stream =
                peer.byte_stream("blob").priority(Priority::Normal).open().await.expect("accepted");
            let begun = Instant::now();
            let transfer = async {
                sleep(Duration::from_millis(500)).await;
                stream.write_all(&vec![2; BYTES]).await.expect("the session lives");
                stream.shutdown().await.expect("all is read");
            };
            tokio::select! {
                biased;
                () = transfer => {}
                () = flood => {}
            }
            let took = begun.elapsed();
            let counters = ticks.counters().expect("it lives");
            let rate = counters.delivered * 1000 / u64::try_from(took.as_millis()).unwrap_or(1);
            println!("{transport}: {BYTES} bytes in {took:?}, {rate} datagrams a second beside them");
            assert!(took < TIME, "the byte stream was starved: {took:?}");
            assert!(rate > 200, "the datagrams were starved: {rate} a second");
            Ok(())
        });
    if let Err(failure) = cluster.run() {
        panic!("{failure}");
    }
}
