//! What the sweep has found, each as small as it can be told.

mod simulated;

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use vitte_net::{Address, Config, MeshEvent, Transport};
use vitte_net_sim::{Cluster, Fault, Node};

use simulated::builder;

/// The session is over, and so is the task that drove it: nobody wakes it any more, so it must not wait.
#[test]
fn a_session_that_waited_in_vain_leaves_no_task() {
    let config = || Config::lan().resume_window(Duration::from_secs(2));
    let server = move |node: Node| async move {
        let _mesh = builder(&node).config(config()).listen("tls://0.0.0.0:7000").start().await?;
        std::future::pending().await
    };
    let client = move |node: Node| async move {
        let mesh = builder(&node).config(config()).start().await?;
        let mut events = mesh.events();
        let server = Address::new(Transport::Tls, "server", 7000);
        while mesh.connect(&server).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
        node.world().partition("client", "server")?;
        while !matches!(events.next().await, Some(MeshEvent::Down { .. })) {}
        drop(mesh);
        let start = Instant::now();
        // The program itself is one.
        while Handle::current().metrics().num_alive_tasks() > 1 {
            assert!(start.elapsed() < Duration::from_secs(10), "a task of the session is left");
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    };
    if let Err(failure) = Cluster::new(1).node("server", server).client("client", client).run() {
        panic!("{failure}");
    }
}

/// quinn takes what passes until the first acknowledgement for the round trip, and would drive a connection that is
/// closed for nine times as long.
#[test]
fn a_link_whose_first_round_trip_was_long_leaves_no_task_for_long() {
    let server = |node: Node| async move {
        let mesh = builder(&node).listen("quic://0.0.0.0:7000").start().await?;
        sleep(Duration::from_millis(900)).await;
        drop(mesh);
        let start = Instant::now();
        while node.world().open_sockets("server")? > 0 || Handle::current().metrics().num_alive_tasks() > 1 {
            assert!(start.elapsed() < Duration::from_secs(4), "a task of the link is left");
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    };
    let client = |node: Node| async move {
        // It gives up as soon as its first word is through.
        let config = Config::lan().dial_timeout(Duration::from_millis(860));
        let mesh = builder(&node).config(config).start().await?;
        let (a, b) = (String::from("client"), String::from("server"));
        node.world().fault(&Fault::Latency { a, b, latency_ms: 10, jitter_ms: 0 })?;
        let server = Address::new(Transport::Quic, "server", 7000);
        let cut = async {
            // The first packets are there, the next are not.
            sleep(Duration::from_millis(15)).await;
            node.world().partition_one_way("client", "server")?;
            sleep(Duration::from_millis(700)).await;
            node.world().heal("client", "server")
        };
        let (connected, cut) = tokio::join!(mesh.connect(&server), cut);
        cut?;
        connected.unwrap_err();
        sleep(Duration::from_secs(10)).await;
        Ok(())
    };
    if let Err(failure) = Cluster::new(1).client("server", server).client("client", client).run() {
        panic!("{failure}");
    }
}
