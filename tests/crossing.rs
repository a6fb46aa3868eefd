//! Two nodes that dial each other at once: one session, and in the end one link.

mod simulated;

use std::error::Error;
use std::time::Duration;

use tokio::time::sleep;
use vitte_net::{Address, Mesh, MeshEvent, Transport};
use vitte_net_sim::{Cluster, Node, seeds};

use simulated::builder;

/// How many times each side says something while links come and go.
const ROUNDS: u64 = 400;

async fn listening(node: &Node, transport: Transport) -> Result<Mesh, Box<dyn Error>> {
    Ok(builder(node).listen(format!("{transport}://0.0.0.0:7000")).start().await?)
}

/// Dials the other, sends it numbered messages on a channel of its own, and checks those that come back.
async fn cross(node: Node, transport: Transport, other: &str) -> Result<(), Box<dyn Error>> {
    let mesh = listening(&node, transport).await?;
    let mut incoming = mesh.accept::<u64>("count/v1")?;
    let mut events = mesh.events();
    let echo = tokio::spawn(async move {
        let (_, mut channel) = incoming.next().await.expect("the other side opens a channel");
        let mut count = 0;
        while let Ok(Some(number)) = channel.recv().await {
            assert_eq!(number, count, "in order, once");
            count += 1;
            channel.send(number).await.expect("the other side reads").await.expect("it is taken");
        }
        assert_eq!(count, ROUNDS);
    });
    let peer = mesh.connect(&Address::new(transport, other, 7000)).await?;
    let mut channel = peer.channel::<u64>("count/v1").open().await?;
    for number in 0..ROUNDS {
        channel.send(number).await?.await?;
        assert_eq!(channel.recv().await?, Some(number));
        sleep(Duration::from_millis(5)).await;
    }
    drop(channel);
    echo.await?;
    assert_eq!(peer.links(), 1, "one link is enough");
    assert!(peer.counters().balanced());
    assert_eq!(mesh.peers().len(), 1);
    let up = MeshEvent::Up { peer: peer.id(), transport };
    assert_eq!(events.next().await, Some(up), "one session");
    // The other side is done only when it has said so.
    mesh.drain(Duration::from_secs(5), Duration::from_secs(6)).await;
    while let Some(event) = events.next().await {
        match event {
            MeshEvent::Resumed { .. } | MeshEvent::Draining { .. } => {}
            MeshEvent::Down { .. } => return Ok(()),
            other => panic!("{other:?}"),
        }
    }
    Ok(())
}

fn crossing(transport: Transport) {
    for seed in seeds(1..=10) {
        let cluster = Cluster::new(seed)
            .client("a", move |node| cross(node, transport, "b"))
            .client("b", move |node| cross(node, transport, "a"));
        let mut cluster = cluster;
        if let Err(failure) = cluster.run() {
            panic!("{transport}: {failure}");
        }
    }
}

#[test]
fn over_quic() {
    crossing(Transport::Quic);
}

#[test]
fn over_tls() {
    crossing(Transport::Tls);
}

#[test]
fn over_websocket() {
    crossing(Transport::Ws);
}
