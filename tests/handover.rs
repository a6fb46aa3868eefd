//! Links that change under a living session: away from a way that is blocked, back to the better one, and
//! what is urgent under bulk. Times are virtual, so they are the same on every machine.

mod simulated;

use std::error::Error;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, interval, sleep, timeout};
use vitte_net::{
    Address, Config, Identity, Mesh, MeshEvent, Peer, Priority, RawReceiver, RawSender, Request, Schema,
    Transport,
};
use vitte_net_sim::{Cluster, LinkSettings, Node, seeds};

use simulated::builder;

const SERVER: [u8; 32] = [1; 32];
const WAYS: [(Transport, u16); 3] = [(Transport::Quic, 7000), (Transport::Tls, 7000), (Transport::Ws, 7001)];
const ONE_WAY: Duration = Duration::from_millis(10);
const EVERY: Duration = Duration::from_millis(10);

/// Without a link that stands by, another one is dialled first.
#[test]
fn a_blocked_udp_silences_the_application_for_a_second_and_a_half_at_most() {
    blocked_and_back(Config::lan(), Duration::from_millis(1500));
}

#[test]
fn a_link_that_stands_by_takes_over_within_300_ms() {
    blocked_and_back(Config::lan().standby(true), Duration::from_millis(300));
}

/// UDP is blocked for ten seconds and comes back, while both sides send all the time.
fn blocked_and_back(config: Config, most: Duration) {
    for seed in seeds(1..4) {
        let quiet = Arc::new(Mutex::new(Vec::new()));
        let mut cluster = cluster(seed, ONE_WAY, None, config.clone(), ticking(&quiet, "server"));
        let (config, silent) = (config.clone(), quiet.clone());
        cluster = cluster.client("client", move |node| {
            let (config, silent) = (config.clone(), silent.clone());
            async move {
                let (mesh, peer) = meet(&node, &WAYS, config).await?;
                assert_eq!(peer.transport(), Some(Transport::Quic));
                let mut events = mesh.events();
                let (sender, receiver) = peer.raw_channel("ticks").open().await?.split();
                let ticking = tokio::spawn(tick(sender));
                let hearing = tokio::spawn(hear(receiver, silent.clone(), "client"));
                sleep(Duration::from_secs(5)).await;
                silent.lock().expect("no panic").clear();
                node.world().block_udp("client", "server")?;
                sleep(Duration::from_secs(10)).await;
                assert_ne!(peer.transport(), Some(Transport::Quic));
                let away = longest(&silent);
                assert!(away <= most, "{away:?} of silence, seed {seed}");
                silent.lock().expect("no panic").clear();
                node.world().unblock_udp("client", "server")?;
                while peer.transport() != Some(Transport::Quic) {
                    assert!(events.next().await.is_some());
                }
                sleep(Duration::from_secs(7)).await;
                let back = longest(&silent);
                // A tick of the simulation may round up, at either end.
                let bound = EVERY + 2 * ONE_WAY + Duration::from_millis(2);
                assert!(back <= bound, "{back:?} of silence on the way back, seed {seed}");
                ticking.abort();
                hearing.abort();
                let counters = peer.counters();
                assert!(
                    counters.balanced() && counters.unknown == 0 && counters.refused == 0,
                    "{counters:?}"
                );
                Ok(())
            }
        });
        if let Err(failure) = cluster.run() {
            panic!("{failure}");
        }
    }
}

/// A way that comes and goes all the time is left alone for longer and longer.
#[test]
fn a_way_that_comes_and_goes_is_not_followed_each_time() {
    let quiet = Arc::new(Mutex::new(Vec::new()));
    let cluster = cluster(seeds([3])[0], ONE_WAY, None, Config::lan(), ticking(&quiet, "server"));
    let cluster = cluster.client("client", move |node| async move {
        let (mesh, peer) = meet(&node, &WAYS, Config::lan()).await?;
        let mut events = mesh.events();
        let (sender, receiver) = peer.raw_channel("ticks").open().await?.split();
        tokio::spawn(tick(sender));
        tokio::spawn(hear(receiver, Arc::default(), "client"));
        let counting = tokio::spawn(async move {
            let mut moves = 0;
            while let Some(event) = events.next().await {
                moves += usize::from(matches!(event, MeshEvent::Resumed { .. }));
                if let MeshEvent::Down { .. } = event {
                    break;
                }
            }
            moves
        });
        for _ in 0..30 {
            node.world().block_udp("client", "server")?;
            sleep(Duration::from_secs(2)).await;
            node.world().unblock_udp("client", "server")?;
            sleep(Duration::from_secs(2)).await;
        }
        assert!(peer.counters().balanced() && !peer.is_lost());
        drop(mesh);
        let moves = counting.await?;
        assert!((1..=12).contains(&moves), "moved {moves} times in 30 blocks of UDP");
        Ok(())
    });
    run(cluster);
}

#[derive(Serialize, Deserialize, Schema)]
struct Urgent([u8; 32], [u8; 32]);

impl Request for Urgent {
    const NAME: &'static str = "urgent/v1";
    type Response = [u8; 32];
    type Error = ();
}

#[test]
fn what_is_urgent_passes_bulk() {
    for way in &WAYS {
        for one_way in [Duration::from_millis(5), Duration::from_millis(10)] {
            urgent(std::slice::from_ref(way), one_way);
        }
    }
}

fn urgent(ways: &'static [(Transport, u16)], one_way: Duration) {
    // 100 Mbit/s.
    let cluster = cluster(
        seeds([5])[0],
        one_way,
        NonZeroU64::new(12_500_000),
        Config::wan(),
        |mesh: Mesh| async move {
            mesh.serve(|_, Urgent(payload, _): Urgent| async move { Ok(payload) }).expect("the name is free");
            let mut incoming = mesh.accept_bytes("bulk").expect("the name is free");
            while let Some((_, mut stream)) = incoming.next().await {
                tokio::spawn(async move {
                    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.expect("the stream lives");
                });
            }
        },
    );
    let cluster = cluster.client("client", move |node| async move {
        let (_mesh, peer) = meet(&node, ways, Config::wan()).await?;
        let idle = percentile(calls(&peer, 300).await);
        let mut stream = peer.byte_stream("bulk").open().await?;
        let bulk = tokio::spawn(async move {
            let block = vec![7; 64 << 10];
            let start = Instant::now();
            let mut bytes = 0_u64;
            while start.elapsed() < Duration::from_secs(15) {
                tokio::io::AsyncWriteExt::write_all(&mut stream, &block).await.expect("the stream lives");
                bytes += block.len() as u64;
            }
            bytes as f64 / start.elapsed().as_secs_f64()
        });
        // The link is measured, and full.
        sleep(Duration::from_secs(2)).await;
        let mut all = calls(&peer, 300).await;
        all.sort();
        eprintln!("{:?} {:?} {:?} {:?} {:?}", all[30], all[150], all[270], all[290], all[299]);
        let busy = percentile(all);
        assert!(!bulk.is_finished(), "the bulk was over before the calls");
        let rate = bulk.await?;
        let transport = ways[0].0;
        println!(
            "{transport}, {one_way:?} each way: p99 {idle:?} idle, {busy:?} under {:.1} MB/s",
            rate / 1e6
        );
        assert!(
            busy <= idle + Duration::from_millis(5),
            "{transport}, {one_way:?}: {idle:?} idle, {busy:?} under bulk"
        );
        assert!(rate > 12_500_000.0 * 0.6, "{transport}, {one_way:?}: bulk at {rate} bytes a second");
        Ok(())
    });
    run(cluster);
}

async fn calls(peer: &Peer, count: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for number in 0..count {
        let start = Instant::now();
        peer.call(Urgent([1; 32], [2; 32])).priority(Priority::Urgent).await.expect("it is answered");
        times.push(start.elapsed());
        sleep(Duration::from_micros(3_000 + (number as u64 % 7) * 1_300)).await;
    }
    times
}

fn percentile(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() * 99 / 100]
}

fn run(mut cluster: Cluster) {
    if let Err(failure) = cluster.run() {
        panic!("{failure}");
    }
}

fn cluster<F: Future<Output = ()> + 'static>(
    seed: u64,
    one_way: Duration,
    bandwidth: Option<NonZeroU64>,
    config: Config,
    program: impl Fn(Mesh) -> F + Clone + 'static,
) -> Cluster {
    let mut settings = LinkSettings::default();
    settings.latency = one_way;
    settings.bandwidth = bandwidth;
    Cluster::new(seed).link(settings).node("server", move |node| {
        let (config, program) = (config.clone(), program.clone());
        async move {
            let mut builder = builder(&node).identity(Identity::from_secret_key(SERVER)).config(config);
            for (transport, port) in WAYS {
                builder = builder.listen(format!("{transport}://0.0.0.0:{port}"));
            }
            program(builder.start().await?).await;
            Ok(())
        }
    })
}

async fn meet(
    node: &Node,
    ways: &[(Transport, u16)],
    config: Config,
) -> Result<(Mesh, Peer), Box<dyn Error>> {
    let mesh = builder(node).config(config).start().await?;
    let server = Identity::from_secret_key(SERVER).peer_id();
    for (transport, port) in ways {
        mesh.add_address(server, Address::new(*transport, "server", *port));
    }
    let peer = loop {
        // The server may not listen yet.
        match mesh.peer(server).await {
            Ok(peer) => break peer,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    };
    Ok((mesh, peer))
}

type Silences = Arc<Mutex<Vec<(&'static str, Duration)>>>;

fn longest(silences: &Silences) -> Duration {
    silences.lock().expect("no panic").iter().map(|(_, time)| *time).max().unwrap_or_default()
}

/// The server of a channel on which both sides tick.
fn ticking(
    silences: &Silences,
    who: &'static str,
) -> impl Fn(Mesh) -> std::pin::Pin<Box<dyn Future<Output = ()>>> + Clone + 'static {
    let silences = silences.clone();
    move |mesh| {
        let silences = silences.clone();
        Box::pin(async move {
            let mut incoming = mesh.accept_raw("ticks").expect("the name is free");
            while let Some((_, channel)) = incoming.next().await {
                let (sender, receiver) = channel.split();
                tokio::spawn(tick(sender));
                tokio::spawn(hear(receiver, silences.clone(), who));
            }
        })
    }
}

async fn tick(sender: RawSender) {
    let mut ticks = interval(EVERY);
    for number in 0_u64.. {
        ticks.tick().await;
        if sender.send(number.to_le_bytes().to_vec()).await.is_err() {
            return;
        }
    }
}

/// Hears every tick once and in order, and notes the time between them.
async fn hear(mut receiver: RawReceiver, silences: Silences, who: &'static str) {
    let mut last = Instant::now();
    let mut expected = 0_u64;
    while let Ok(Ok(Some(message))) = timeout(Duration::from_secs(60), receiver.recv()).await {
        assert_eq!(message.as_ref(), expected.to_le_bytes());
        expected += 1;
        silences.lock().expect("no panic").push((who, last.elapsed()));
        last = Instant::now();
    }
}
