//! What the sweep has found, each as small as it can be told.

mod simulated;

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use vitte_net::{Address, Config, MeshEvent, Transport};
use vitte_net_sim::{Cluster, Node};

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
