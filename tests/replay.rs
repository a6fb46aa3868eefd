//! The same seed gives the same run in every process, and one unseeded source of randomness is noticed.

mod simulated;
#[path = "simulated/transfer.rs"]
mod transfer;

use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::SystemTime;
use std::{env, io};

use vitte_net::network::{
    BoxFuture, BoxStream, Datagrams, Network, OsNetwork, TcpListen, TcpOptions, UdpOptions,
};
use vitte_net::{MeshBuilder, Transport};
use vitte_net_sim::{Node, seeds};

const SEEDS: u64 = 20;
/// Set in the other process: it prints its digests behind this word.
const OTHER: &str = "VITTE_REPLAY_OTHER";

#[test]
fn quic_replays() {
    replays(Transport::Quic, "quic_replays");
}

#[test]
fn tls_replays() {
    replays(Transport::Tls, "tls_replays");
}

#[test]
fn websocket_replays() {
    replays(Transport::Ws, "websocket_replays");
}

fn replays(transport: Transport, test: &str) {
    let digests = || seeds(0..SEEDS).into_iter().map(|seed| digest(seed, transport, simulated::builder));
    if env::var_os(OTHER).is_some() {
        digests().for_each(|digest| println!("\n{OTHER} {digest}"));
        return;
    }
    let other = Command::new(env::current_exe().expect("the test has a file"))
        .args(["--exact", test, "--nocapture"])
        .env(OTHER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test starts again");
    let here: Vec<String> = digests().collect();
    let output = other.wait_with_output().expect("the other process ends");
    assert!(output.status.success(), "the other process failed");
    let text = String::from_utf8(output.stdout).expect("digests are text");
    let there: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix(OTHER)?.strip_prefix(' ')).collect();
    assert_eq!(here, there, "the digests of {transport}, seed by seed");
    let mut different = here.clone();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), here.len(), "two seeds made the same run");
}

/// The check sees a single source of randomness that does not follow from the seed.
#[test]
fn one_unseeded_source_is_noticed() {
    for transport in [Transport::Quic, Transport::Tls, Transport::Ws] {
        let equal = |builder| digest(1, transport, builder) == digest(1, transport, builder);
        assert!(equal(simulated::builder), "{transport}");
        assert!(!equal(unseeded), "{transport}: random bytes of the system went unnoticed");
    }
}

fn digest(seed: u64, transport: Transport, builder: fn(&Node) -> MeshBuilder) -> String {
    match transfer::run(seed, transport, builder) {
        Ok(done) => {
            assert!(done.report.events > 1000, "seed {seed}: only {} events", done.report.events);
            assert!(done.cuts > 0, "seed {seed}: no link was cut");
            done.report.digest
        }
        Err(failure) => panic!("{failure}"),
    }
}

fn unseeded(node: &Node) -> MeshBuilder {
    simulated::builder(node).network(Arc::new(Unseeded(node.network())))
}

/// The simulated network, except for its random bytes: those are the system's.
#[derive(Debug)]
struct Unseeded(Arc<dyn Network>);

impl Network for Unseeded {
    fn connect_tcp<'a>(
        &'a self,
        to: SocketAddr,
        options: &'a TcpOptions,
    ) -> BoxFuture<'a, io::Result<BoxStream>> {
        self.0.connect_tcp(to, options)
    }

    fn listen_tcp<'a>(
        &'a self,
        at: SocketAddr,
        options: &'a TcpOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn TcpListen>>> {
        self.0.listen_tcp(at, options)
    }

    fn bind_udp<'a>(
        &'a self,
        at: SocketAddr,
        options: &'a UdpOptions,
    ) -> BoxFuture<'a, io::Result<Arc<dyn Datagrams>>> {
        self.0.bind_udp(at, options)
    }

    fn lookup<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        self.0.lookup(host)
    }

    fn wall_clock(&self) -> SystemTime {
        self.0.wall_clock()
    }

    fn fill_random(&self, out: &mut [u8]) {
        OsNetwork::new().fill_random(out);
    }
}
