//! A node that drains and ends: its peers learn why, however far they are.

mod simulated;

use std::time::Duration;

use tokio::time::{Instant, sleep};
use vitte_net::{Address, MeshEvent, Transport};
use vitte_net_sim::{Cluster, LinkSettings, seeds};

use simulated::builder;

fn leaving(transport: Transport, latency: Duration, loss: f64) {
    for seed in seeds(1..=10) {
        let mut link = LinkSettings::default();
        (link.latency, link.loss) = (latency, loss);
        let mut cluster = Cluster::new(seed)
            .link(link)
            .client("leaver", move |node| async move {
                let mesh = builder(&node).listen(format!("{transport}://0.0.0.0:7000")).start().await?;
                let mut events = mesh.events();
                while !matches!(events.next().await, Some(MeshEvent::Up { .. })) {}
                sleep(Duration::from_secs(1)).await;
                mesh.drain(Duration::from_secs(5), Duration::from_secs(6)).await;
                // The program returns: its process ends, and its system closes what is open.
                Ok(())
            })
            .client("stayer", move |node| async move {
                let mesh = builder(&node).start().await?;
                let mut events = mesh.events();
                mesh.connect(&Address::new(transport, "leaver", 7000)).await?;
                let start = Instant::now();
                loop {
                    match events.next().await {
                        Some(MeshEvent::Down { reason, .. }) => {
                            assert!(reason.contains("shuts down"), "{reason}");
                            break;
                        }
                        Some(_) => {}
                        None => panic!("the events ended"),
                    }
                }
                assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
                Ok(())
            });
        if let Err(failure) = cluster.run() {
            panic!("{transport}, {latency:?}, {loss}: {failure}");
        }
    }
}

#[test]
fn are_heard_over_quic() {
    leaving(Transport::Quic, Duration::from_millis(300), 0.0);
    // What says goodbye is lost as well, and sent again.
    leaving(Transport::Quic, Duration::from_millis(20), 0.3);
}

#[test]
fn are_heard_over_tls() {
    leaving(Transport::Tls, Duration::from_millis(300), 0.0);
}

#[test]
fn are_heard_over_websocket() {
    leaving(Transport::Ws, Duration::from_millis(300), 0.0);
}

/// A peer that reads nothing any more, with a link full of what it does not read: draining ends all the same.
#[test]
fn a_peer_that_has_stopped_reading_does_not_hold_up_who_leaves() {
    for transport in [Transport::Quic, Transport::Tls, Transport::Ws] {
        let mut cluster = Cluster::new(seeds([1])[0])
            .node("stuck", move |node| async move {
                let mesh = builder(&node).listen(format!("{transport}://0.0.0.0:7000")).start().await?;
                let mut incoming = mesh.accept_raw("unread").expect("the name is free");
                let mut kept = Vec::new();
                while let Some((_, channel)) = incoming.next().await {
                    // From now on nothing of this machine is heard.
                    node.world().partition_one_way("stuck", "leaver")?;
                    kept.push(channel);
                }
                Ok(())
            })
            .client("leaver", move |node| async move {
                let mesh = builder(&node).start().await?;
                let peer = loop {
                    match mesh.connect(&Address::new(transport, "stuck", 7000)).await {
                        Ok(peer) => break peer,
                        Err(_) => sleep(Duration::from_millis(10)).await,
                    }
                };
                let opened = tokio::time::timeout(Duration::from_secs(1), peer.raw_channel("unread").open());
                // Whether the answer still came does not matter here.
                let channel = opened.await;
                let mut receipts = Vec::new();
                if let Ok(Ok(channel)) = &channel {
                    while let Ok(receipt) = channel.try_send(vec![7; 100_000]) {
                        receipts.push(receipt);
                    }
                }
                let start = Instant::now();
                let (soft, hard) = (Duration::from_secs(1), Duration::from_secs(2));
                mesh.drain(soft, hard).await;
                assert!(start.elapsed() <= hard + Duration::from_millis(2), "{:?}", start.elapsed());
                // Nobody knows what became of what had left.
                for receipt in receipts {
                    assert!(receipt.await.is_err(), "{transport}");
                }
                let counters = peer.counters();
                assert!(counters.balanced() && counters.in_flight == 0, "{counters:?}");
                Ok(())
            });
        if let Err(failure) = cluster.run() {
            panic!("{transport}: {failure}");
        }
    }
}
