//! Deterministic simulation of programs that use vitte-net.
//!
//! A [`Cluster`] runs the production code of any number of nodes under one seed: virtual time, simulated
//! sockets behind the same [`Network`](vitte_net::network::Network) that the operating system stands behind
//! in production, seeded cryptography, and faults as data. The same seed gives the same run, in every
//! process; the [digest](Report::digest) proves it.
//!
//! ```
//! use std::time::Duration;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use vitte_net::network::TcpOptions;
//! use vitte_net_sim::{Cluster, Fault};
//!
//! let mut cluster = Cluster::new(7)
//!     .node("server", |node| async move {
//!         let options = TcpOptions::default();
//!         let network = node.network();
//!         let listener = network.listen_tcp(([0, 0, 0, 0], 80).into(), &options).await?;
//!         let (mut stream, _) = listener.accept().await?;
//!         stream.write_all(b"hello").await?;
//!         Ok(())
//!     })
//!     .client("client", |node| async move {
//!         let server = node.network().lookup("server").await?[0];
//!         let options = TcpOptions::default();
//!         let mut stream = node.network().connect_tcp((server, 80).into(), &options).await?;
//!         let mut text = String::new();
//!         stream.read_to_string(&mut text).await?;
//!         node.event(format!("heard {text}"));
//!         Ok(())
//!     })
//!     .fault(Duration::ZERO, Fault::Partition { a: "server".into(), b: "client".into() })
//!     .fault(Duration::from_secs(5), Fault::Heal { a: "server".into(), b: "client".into() });
//! let report = cluster.run()?;
//! assert!(report.elapsed > Duration::from_secs(5));
//! # Ok::<(), Box<vitte_net_sim::Failure>>(())
//! ```
//!
//! # Layout
//!
//! - `cluster`: [`Cluster`], its builder and its run, on turmoil's hosts and virtual time. Start here.
//! - `node`: [`Node`], what a program is given.
//! - `fault`: [`Fault`] and [`Scenario`], which are JSON.
//! - `world`: [`World`], the state that all nodes share, in ticks.
//! - `link`: the model of one direction between two nodes.
//! - `tcp`, `udp`: sockets as their users see them; [`limits`] has their numbers.
//! - `network`: [`SimNetwork`], the seam.
//! - `crypto`: [`seeded_provider()`].
//! - [`invariants`]: what must hold in every run, as checks for programs under test.
//! - `shrink`: [`shrink()`], from a scenario that fails to a small one.
//! - `story`: faults with what undoes them.
//! - `trace`, `report`: the digest, the lines, the end of a run.
//! - `timeline`: the picture of a run.
//!
//! # What is real and what is not
//!
//! TCP stalls under a partition and is retransmitted afterwards with a growing interval, pushes back when
//! its buffers are full, closes in order, and is reset by a [`Fault::Reset`], by a listener that is not there
//! and by a machine that has forgotten the connection. After a [`Fault::Crash`] the peer hears nothing, as
//! when a machine loses power; once the node runs again, what the peer sends is answered with a reset. A
//! peer that only reads never learns of a crash: that is TCP without keep-alive. Congestion control,
//! IPv6, multicast, broadcast and path MTU are not modelled.

#![warn(missing_docs)]

mod cluster;
mod crypto;
mod fault;
pub mod invariants;
mod link;
mod network;
mod node;
mod report;
mod seed;
mod shrink;
mod story;
mod timeline;
mod trace;
mod world;

pub use cluster::{Cluster, NodeResult};
pub use crypto::seeded_provider;
pub use fault::{Fault, Scenario, TimedFault};
pub use link::LinkSettings;
pub use network::SimNetwork;
pub use node::Node;
pub use report::{Failure, FailureKind, Report};
pub use seed::seeds;
pub use shrink::{Shrunk, shrink};
pub use timeline::Timeline;
pub use trace::{Fate, Line, Protocol};
pub use world::{FaultError, World};

/// The numbers of the socket model.
pub mod limits {
    pub use crate::world::tcp::{
        GIVE_UP, MAX_SEGMENT, RECEIVE_BUFFER, RETRY_FIRST, RETRY_MAX, SEND_BUFFER, SYN_GIVE_UP,
        SYN_RETRY_FIRST,
    };
    pub use crate::world::udp::{MAX_DATAGRAM, UDP_RECEIVE_BUFFER};
}
