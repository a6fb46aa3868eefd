//! How often a peer is dialled that is not there: once a second, however many ask for it.

mod simulated;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use vitte_net::discovery::Fixed;
use vitte_net::tcp::TcpServer;
use vitte_net::{Address, Config, Identity, PeerId, Transport};
use vitte_net_sim::{Cluster, seeds};

use simulated::builder;

const SECOND: Duration = Duration::from_secs(1);
const KEY: [u8; 32] = [9; 32];

fn wanted() -> PeerId {
    Identity::from_secret_key(KEY).peer_id()
}

/// It is kept by a list, and four others ask for it again and again.
#[test]
fn a_peer_is_dialled_once_a_second_however_many_ask_for_it() {
    for seed in seeds(0..5) {
        let came = Arc::new(Mutex::new(Vec::new()));
        let counted = Arc::clone(&came);
        let mut cluster = Cluster::new(seed)
            .node("deaf", move |node| {
                let came = Arc::clone(&counted);
                async move {
                    let mut server =
                        TcpServer::builder().network(node.network()).bind("0.0.0.0:7000").await?;
                    loop {
                        // Hung up at once: whoever dials may try again at once.
                        drop(server.accept().await?);
                        came.lock().expect("no panic").push(node.world().now());
                    }
                }
            })
            .client("caller", |node| async move {
                let address = Address::new(Transport::Tls, "deaf", 7000);
                let mesh = builder(&node)
                    .config(Config::lan())
                    .discover(Fixed::new([(wanted(), address)]))
                    .start()
                    .await?;
                for _ in 0..4 {
                    let mesh = mesh.clone();
                    tokio::spawn(async move {
                        loop {
                            let answer = mesh.peer(wanted()).await;
                            assert!(answer.is_err(), "nobody is there");
                            sleep(Duration::from_millis(10)).await;
                        }
                    });
                }
                sleep(Duration::from_secs(20)).await;
                Ok(())
            });
        if let Err(failure) = cluster.run() {
            panic!("seed {seed}: {failure}");
        }
        let came = came.lock().expect("no panic");
        assert!((15..=20).contains(&came.len()), "seed {seed}: {} dials in 20 s", came.len());
        // Packets may be as much faster than others as the jitter is.
        let apart = came.windows(2).map(|pair| pair[1] - pair[0]).min();
        let least = SECOND - Duration::from_millis(10);
        assert!(apart >= Some(least), "seed {seed}: {apart:?} between two dials");
    }
}

/// Who waits for a turn to dial has the peer as soon as it comes by itself.
#[test]
fn a_peer_that_comes_by_itself_is_not_waited_for() {
    for seed in seeds(0..5) {
        let mut cluster = Cluster::new(seed)
            .client("caller", |node| async move {
                let mesh = builder(&node).config(Config::lan()).listen("tls://0.0.0.0:7000").start().await?;
                mesh.add_address(wanted(), Address::new(Transport::Tls, "late", 7000));
                let start = Instant::now();
                assert!(mesh.peer(wanted()).await.is_err(), "nobody is there yet");
                let peer = mesh.peer(wanted()).await.expect("it comes by itself");
                assert_eq!(peer.id(), wanted());
                assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
                Ok(())
            })
            .node("late", |node| async move {
                sleep(Duration::from_millis(300)).await;
                let identity = Identity::from_secret_key(KEY);
                let mesh = builder(&node).identity(identity).config(Config::lan()).start().await?;
                let address = Address::new(Transport::Tls, "caller", 7000);
                let _peer = mesh.connect(&address).await?;
                sleep(Duration::from_secs(10)).await;
                Ok(())
            });
        if let Err(failure) = cluster.run() {
            panic!("seed {seed}: {failure}");
        }
    }
}
