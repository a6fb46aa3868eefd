//! Sessions that move: to another transport, over a partition, to a new life of the peer, or not at all.

mod simulated;

use std::error::Error;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;
use vitte_net::{
    Address, CloseCode, Config, DialError, Events, Identity, Mesh, MeshEvent, Peer, Receipt, StreamCode,
    Transport, Undelivered,
};
use vitte_net_sim::{Cluster, LinkSettings, Node, seeds};

use simulated::builder;

const MESSAGES: u32 = 1000;
const WAYS: [(Transport, u16); 3] = [(Transport::Quic, 7000), (Transport::Tls, 7000), (Transport::Ws, 7001)];

#[test]
fn a_blocked_udp_moves_the_session_to_tls() {
    moves(&WAYS, Transport::Tls);
}

#[test]
fn a_blocked_udp_moves_the_session_to_websocket() {
    moves(&[WAYS[0], WAYS[2]], Transport::Ws);
}

/// UDP is blocked for good in the middle of a transfer both ways.
fn moves(ways: &'static [(Transport, u16)], to: Transport) {
    run(cluster(ways, echo).client("client", move |node| async move {
        let (mesh, peer, mut events) = meet(&node, ways, Config::lan()).await?;
        assert_eq!(peer.transport(), Some(Transport::Quic));
        let (sender, mut receiver) = peer.raw_channel("echo").open().await?.split();
        let fault = node.clone();
        let sending = async move {
            let mut receipts = Vec::new();
            for number in 0..MESSAGES {
                if number == MESSAGES / 2 {
                    fault.world().block_udp("client", "server").expect("the nodes are there");
                }
                sleep(Duration::from_millis(u64::from(number % 3))).await;
                receipts.push(sender.send(message(number)).await.expect("the channel is open"));
            }
            for receipt in receipts {
                assert_eq!(receipt.await, Ok(()));
            }
            let counters = sender.counters().expect("the channel lives");
            assert!(counters.balanced());
            assert_eq!((counters.offered, counters.delivered), (MESSAGES.into(), MESSAGES.into()));
            sender.finish().await.expect("all was taken");
        };
        let receiving = async {
            for number in 0..MESSAGES {
                let received = receiver.recv().await.expect("the channel lives");
                assert_eq!(received.as_deref(), Some(&message(number)[..]));
            }
            assert_eq!(receiver.recv().await, Ok(None));
        };
        let ((), (), told) = tokio::join!(sending, receiving, events.next());
        // It moves before the old link counts as dead.
        assert_eq!(told, Some(MeshEvent::Resumed { peer: peer.id(), transport: to }));
        assert_eq!(peer.transport(), Some(to));
        assert_eq!(mesh.peers().len(), 1);
        assert!(peer.counters().balanced());
        Ok(())
    }));
}

#[test]
fn a_partition_within_the_resume_window_loses_nothing() {
    for way in &WAYS {
        let ways = std::slice::from_ref(way);
        run(cluster(ways, echo).client("client", move |node| async move {
            let (_mesh, peer, mut events) = meet(&node, ways, Config::lan()).await?;
            let mut channel = peer.raw_channel("echo").open().await?;
            node.world().partition("client", "server")?;
            let receipt = channel.send(message(1)).await?;
            assert_eq!(events.next().await, Some(MeshEvent::Unreachable { peer: peer.id() }));
            assert!(!peer.is_reachable() && !peer.is_lost());
            // Longer than several rounds of dialling, shorter than the window of 60 s.
            sleep(Duration::from_secs(20)).await;
            let late = channel.send(message(2)).await?;
            node.world().heal("client", "server")?;
            let resumed = MeshEvent::Resumed { peer: peer.id(), transport: way.0 };
            assert_eq!(events.next().await, Some(resumed));
            assert_eq!((receipt.await, late.await), (Ok(()), Ok(())));
            for number in [1, 2] {
                assert_eq!(channel.recv().await?.as_deref(), Some(&message(number)[..]));
            }
            Ok(())
        }));
    }
}

#[test]
fn a_crash_makes_unknown_what_was_not_taken() {
    for way in &WAYS {
        let ways = std::slice::from_ref(way);
        run(cluster(ways, take_two).client("client", move |node| async move {
            let (mesh, peer, mut events) = meet(&node, ways, Config::lan()).await?;
            let receipts = half_taken(&peer).await;
            node.world().crash("server")?;
            assert_eq!(events.next().await, Some(MeshEvent::Unreachable { peer: peer.id() }));
            sleep(Duration::from_secs(3)).await;
            node.world().restart("server")?;
            is_down(events.next().await, &peer);
            assert_eq!(outcomes(receipts).await, [UNKNOWN, UNKNOWN]);
            let counters = peer.counters();
            assert!(counters.balanced());
            assert_eq!((counters.offered, counters.unknown), (4, 2));
            // The dial that found the new life has begun a session with it.
            assert_eq!(events.next().await, Some(MeshEvent::Up { peer: peer.id(), transport: way.0 }));
            fresh(&mesh, &peer).await;
            Ok(())
        }));
    }
}

#[test]
fn a_partition_beyond_the_resume_window_ends_the_session() {
    for way in &WAYS {
        let ways = std::slice::from_ref(way);
        run(cluster(ways, take_two).client("client", move |node| async move {
            let (mesh, peer, mut events) = meet(&node, ways, brief()).await?;
            let receipts = half_taken(&peer).await;
            node.world().partition("client", "server")?;
            assert_eq!(events.next().await, Some(MeshEvent::Unreachable { peer: peer.id() }));
            is_down(events.next().await, &peer);
            assert_eq!(outcomes(receipts).await, [UNKNOWN, UNKNOWN]);
            assert!(peer.counters().balanced());
            assert!(peer.raw_channel("take two").open().await.is_err());
            assert!(matches!(mesh.peer(peer.id()).await, Err(DialError::TimedOut | DialError::Failed(_))));
            node.world().heal("client", "server")?;
            mesh.peer(peer.id()).await?;
            assert_eq!(events.next().await, Some(MeshEvent::Up { peer: peer.id(), transport: way.0 }));
            fresh(&mesh, &peer).await;
            Ok(())
        }));
    }
}

/// What was never transmitted cannot have been taken: it is refused, not unknown.
#[test]
fn a_message_that_never_left_is_refused() {
    for way in &WAYS {
        let ways = std::slice::from_ref(way);
        run(cluster(ways, take_two).client("client", move |node| async move {
            let (_mesh, peer, mut events) = meet(&node, ways, brief()).await?;
            let (sender, _receiver) = peer.raw_channel("take two").open().await?.split();
            node.world().partition("client", "server")?;
            assert_eq!(events.next().await, Some(MeshEvent::Unreachable { peer: peer.id() }));
            let receipt = sender.send(message(0)).await?;
            is_down(events.next().await, &peer);
            assert_eq!(receipt.await, Err(Undelivered::Refused(StreamCode::SHUTDOWN)));
            assert!(sender.send(message(1)).await.is_err());
            let counters = peer.counters();
            assert!(counters.balanced());
            assert_eq!((counters.delivered, counters.unknown), (0, 0));
            Ok(())
        }));
    }
}

#[test]
fn a_second_life_of_a_living_peer_is_refused() {
    for way in &WAYS {
        let ways = std::slice::from_ref(way);
        let cluster = cluster(ways, echo).client("client", move |node| async move {
            let (_mesh, peer, mut events) = meet(&node, ways, Config::lan()).await?;
            let mut channel = peer.raw_channel("echo").open().await?;
            for number in 0..50 {
                let _receipt = channel.send(message(number)).await?;
                assert_eq!(channel.recv().await?.as_deref(), Some(&message(number)[..]));
                sleep(Duration::from_millis(100)).await;
            }
            let news = tokio::time::timeout(Duration::from_millis(1), events.next()).await;
            assert!(news.is_err(), "{news:?}");
            Ok(())
        });
        run(cluster.client("twin", move |node| async move {
            sleep(Duration::from_secs(1)).await;
            let mesh = builder(&node).identity(Identity::from_secret_key(CLIENT)).start().await?;
            match mesh.connect(&Address::new(way.0, "server", way.1)).await {
                Err(DialError::Failed(failures)) => {
                    assert_eq!(failures[0].1.code(), Some(CloseCode::DUPLICATE_IDENTITY), "{failures:?}");
                }
                other => panic!("{other:?}"),
            }
            assert!(mesh.peers().is_empty());
            Ok(())
        }));
    }
}

const SERVER: [u8; 32] = [1; 32];
const CLIENT: [u8; 32] = [2; 32];
const UNKNOWN: Result<(), Undelivered> = Err(Undelivered::Unknown);

/// Sessions that do not wait long for their next link.
#[test]
fn a_node_that_leaves_over_full_links_is_not_waited_for() {
    for (transport, port) in WAYS {
        leaves(transport, port);
    }
}

/// A node is dropped while more waits for its slow link than the link takes at once.
fn leaves(transport: Transport, port: u16) {
    let mut settings = LinkSettings::default();
    settings.bandwidth = NonZeroU64::new(1_500_000);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let tell = seen.clone();
    let cluster = Cluster::new(7).link(settings).node("server", move |node| {
        let tell = tell.clone();
        async move {
            let mesh = builder(&node).listen(format!("{transport}://0.0.0.0:{port}")).start().await?;
            let mut events = mesh.events();
            let mut incoming = mesh.accept_raw("bulk")?;
            tokio::spawn(async move {
                while let Some(event) = events.next().await {
                    tell.lock().expect("no panic").push(event);
                }
            });
            while let Some((_, mut channel)) = incoming.next().await {
                tokio::spawn(async move { while let Ok(Some(_)) = channel.recv().await {} });
            }
            std::future::pending().await
        }
    });
    run(cluster.client("client", move |node| {
        let seen = seen.clone();
        async move {
            let mesh = builder(&node).start().await?;
            let server = loop {
                match mesh.connect(&Address::new(transport, "server", port)).await {
                    Ok(server) => break server,
                    Err(_) => sleep(Duration::from_millis(10)).await,
                }
            };
            let mut channels = Vec::new();
            for _ in 0..16 {
                let channel = server.raw_channel("bulk").open().await?;
                for _ in 0..4 {
                    let _receipt = channel.send(vec![7; 200_000]).await?;
                }
                channels.push(channel);
            }
            drop(mesh);
            sleep(Duration::from_secs(2)).await;
            let seen = seen.lock().expect("no panic");
            let unreachable = |event: &MeshEvent| matches!(event, MeshEvent::Unreachable { .. });
            assert!(!seen.iter().any(unreachable), "{transport}: {seen:?}");
            assert!(matches!(seen.last(), Some(MeshEvent::Down { .. })), "{transport}: {seen:?}");
            Ok(())
        }
    }));
}

fn brief() -> Config {
    Config::lan().resume_window(Duration::from_secs(5)).dial_timeout(Duration::from_secs(1))
}

fn run(mut cluster: Cluster) {
    if let Err(failure) = cluster.run() {
        panic!("{failure}");
    }
}

/// A server that listens in these ways and runs this program.
fn cluster<F: Future<Output = ()> + 'static>(
    ways: &'static [(Transport, u16)],
    program: impl Fn(Mesh) -> F + Copy + 'static,
) -> Cluster {
    let seed = seeds([11])[0];
    Cluster::new(seed).node("server", move |node| async move {
        let mut builder = builder(&node).identity(Identity::from_secret_key(SERVER)).config(Config::lan());
        for (transport, port) in ways {
            builder = builder.listen(format!("{transport}://0.0.0.0:{port}"));
        }
        program(builder.start().await?).await;
        Ok(())
    })
}

/// A mesh that knows all ways to the server, and a session with it.
async fn meet(
    node: &Node,
    ways: &[(Transport, u16)],
    config: Config,
) -> Result<(Mesh, Peer, Events), Box<dyn Error>> {
    let mesh = builder(node).identity(Identity::from_secret_key(CLIENT)).config(config).start().await?;
    let server = Identity::from_secret_key(SERVER).peer_id();
    for (transport, port) in ways {
        mesh.add_address(server, Address::new(*transport, "server", *port));
    }
    let mut events = mesh.events();
    let peer = mesh.peer(server).await?;
    assert_eq!(events.next().await, Some(MeshEvent::Up { peer: server, transport: ways[0].0 }));
    Ok((mesh, peer, events))
}

async fn echo(mesh: Mesh) {
    let mut incoming = mesh.accept_raw("echo").expect("the name is free");
    while let Some((_, channel)) = incoming.next().await {
        let (sender, mut receiver) = channel.split();
        while let Ok(Some(message)) = receiver.recv().await {
            let _receipt = sender.send(message).await;
        }
    }
}

/// Takes two messages of each channel and keeps the channel.
async fn take_two(mesh: Mesh) {
    let mut incoming = mesh.accept_raw("take two").expect("the name is free");
    let mut kept = Vec::new();
    while let Some((_, mut channel)) = incoming.next().await {
        for _ in 0..2 {
            let _message = channel.recv().await;
        }
        kept.push(channel);
    }
}

/// Sends four messages, of which the server takes two. The receipts of the others, which were transmitted.
async fn half_taken(peer: &Peer) -> Vec<Receipt> {
    let (sender, _receiver) = peer.raw_channel("take two").open().await.expect("accepted").split();
    let mut receipts = Vec::new();
    for number in 0..4 {
        receipts.push(sender.send(message(number)).await.expect("the channel is open"));
    }
    for receipt in receipts.drain(..2) {
        assert_eq!(receipt.await, Ok(()));
    }
    let counters = sender.counters().expect("the channel lives");
    assert!(counters.balanced());
    assert_eq!((counters.delivered, counters.in_flight), (2, 2));
    receipts
}

async fn outcomes(receipts: Vec<Receipt>) -> Vec<Result<(), Undelivered>> {
    let mut outcomes = Vec::new();
    for receipt in receipts {
        outcomes.push(receipt.await);
    }
    outcomes
}

fn is_down(event: Option<MeshEvent>, lost: &Peer) {
    assert!(matches!(event, Some(MeshEvent::Down { peer, .. }) if peer == lost.id()), "{event:?}");
    assert!(lost.is_lost());
}

/// A session of its own has taken the place of the lost one, and works.
async fn fresh(mesh: &Mesh, lost: &Peer) {
    let peer = mesh.peer(lost.id()).await.expect("the server is there");
    assert!(lost.is_lost() && !peer.is_lost());
    assert_eq!(peer.counters().offered, 0);
    drop(half_taken(&peer).await);
}

fn message(number: u32) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(500, number.to_le_bytes()[0]);
    bytes
}
