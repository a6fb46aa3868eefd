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
