//! How a run ended.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::fault::Scenario;
use crate::timeline::Timeline;
use crate::trace::Line;
use crate::world::FaultError;

/// What a run was.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The seed of the cluster.
    pub seed: u64,
    /// The digest over every packet and every application event, as hexadecimal text. The same seed and the
    /// same program give the same digest, in every process.
    pub digest: String,
    /// How many packets and events the digest covers.
    pub events: u64,
    /// Virtual time since the start.
    pub elapsed: Duration,
    /// The last lines of the trace.
    pub trace: Vec<Line>,
    /// The nodes and their addresses, in the order in which the cluster was given them.
    pub nodes: Vec<(String, IpAddr)>,
}

impl Report {
    /// A picture of what the trace still holds. For the whole run, let the cluster keep
    /// [all lines](crate::Cluster::trace_lines).
    pub fn timeline(&self) -> Timeline<'_> {
        let title = format!("seed {}, {} events, digest {:.16}…", self.seed, self.events, self.digest);
        Timeline::new(title, &self.nodes, &self.trace)
    }
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FailureKind {
    /// A node ended with an error.
    #[error("node {node:?} failed: {error}")]
    Node {
        /// Which one.
        node: String,
        /// Its error, with its causes.
        error: String,
    },
    /// The main task of a node panicked.
    #[error("node {node:?} panicked: {message}")]
    Panic {
        /// Which one.
        node: String,
        /// What the panic said.
        message: String,
    },
    /// The run did not end within the virtual time it may take.
    #[error("the run is not over after {limit:?} of virtual time")]
    LimitReached {
        /// The limit of the cluster.
        limit: Duration,
    },
    /// Two nodes share a name, or a name looks like an address.
    #[error("{0:?} cannot be the name of another node")]
    NodeName(String),
    /// A run to the end of all clients, without a client.
    #[error("the cluster has no client whose end could end the run")]
    NoClient,
    /// A fault of the script cannot be applied.
    #[error("the script holds a fault that cannot be applied: {0}")]
    Fault(#[from] FaultError),
    /// The simulator itself failed.
    #[error("the simulator failed: {0}")]
    Simulator(String),
}

/// A run that failed: everything that is needed to see why, and to see it again.
pub struct Failure {
    /// Why.
    pub kind: FailureKind,
    /// The faults of the script.
    pub scenario: Scenario,
    /// The run up to the failure.
    pub report: Report,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { seed, digest, events, elapsed, trace, .. } = &self.report;
        writeln!(f, "{}", self.kind)?;
        writeln!(f, "seed {seed}, {events} events, {elapsed:?} of virtual time, digest {digest}")?;
        writeln!(f, "faults: {}", self.scenario.to_json())?;
        writeln!(f, "the last {} lines of the trace:", trace.len())?;
        for line in trace {
            writeln!(f, "{line}")?;
        }
        write!(f, "replay: {}", replay_line(*seed))
    }
}

/// The test harness names a test's thread after the test, cargo says which package it runs.
fn replay_line(seed: u64) -> String {
    let package = std::env::var("CARGO_PKG_NAME").map(|name| format!(" -p {name}")).unwrap_or_default();
    let thread = std::thread::current();
    let test = thread.name().filter(|name| *name != "main").unwrap_or("NAME_OF_THE_TEST");
    format!("VITTE_SIM_SEED={seed} cargo test{package} -- --exact {test}")
}

// A test that unwraps a result shows the story, not a struct.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for Failure {}
