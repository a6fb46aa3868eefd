//! What a sweep came to, and how often what went wrong in it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use vitte_net_sim::invariants::Tally;
use vitte_net_sim::{Fault, Scenario};

use crate::plan::Plan;
use crate::run::{Done, Notes};

/// What the seeds of a sweep came to.
#[derive(Default)]
pub(crate) struct Sum {
    pub(crate) runs: u64,
    pub(crate) replayed: u64,
    pub(crate) failed: Vec<u64>,
    faults: usize,
    events: u64,
    virtual_time: Duration,
    slowest_talk: Duration,
    most_rounds: usize,
    tally: Tally,
    /// How often each kind of fault was drawn.
    kinds: BTreeMap<String, u64>,
    notes: Notes,
}

/// Whatever a long sweep must have drawn at least once, beside the faults.
const DRAWN: [&str; 30] = [
    "loss on all links",
    "a rate on all links",
    "links that stand by",
    "sessions that began over quic",
    "sessions that began over tls",
    "sessions that began over ws",
    "sessions that ended",
    "sessions that resumed over another transport",
    "sessions that resumed over the same transport",
    "handovers to a better transport",
    "handovers to the next best transport",
    "readers that keep up",
    "readers that leave",
    "readers that sleep until all has healed",
    "slow readers",
    "slow readers of byte streams",
    "byte streams",
    "channels of bytes",
    "channels of values",
    "channels of the newest value",
    "channels of datagrams",
    "newest values that arrived after healing",
    "calls",
    "calls with a deadline",
    "calls that their caller gives up",
    "calls whose handler never ends by itself",
    "streams and calls that are urgent",
    "streams and calls of normal priority",
    "streams and calls of bulk priority",
    "runs that were replayed",
];

/// The same of faults. What undoes them is drawn with them.
const FAULTS: [&str; 15] = [
    "latency",
    "bandwidth",
    "loss",
    "duplicate",
    "reorder",
    "corrupt",
    "block_udp",
    "block_tcp",
    "block_tcp_one_way",
    "black_hole",
    "partition",
    "partition_one_way",
    "reset",
    "crash",
    "kill",
];

impl Sum {
    pub(crate) fn drew(&mut self, seed: u64, scenario: &Scenario) {
        self.runs += 1;
        self.faults += scenario.faults.len();
        for kind in kinds(seed, scenario) {
            *self.kinds.entry(kind).or_default() += 1;
        }
    }

    pub(crate) fn add(&mut self, done: Done) {
        self.events += done.report.events;
        self.virtual_time += done.report.elapsed;
        self.slowest_talk = self.slowest_talk.max(done.slowest_talk);
        self.most_rounds = self.most_rounds.max(done.most_rounds);
        self.tally.add(&done.tally);
        for (what, count) in done.notes {
            *self.notes.entry(what).or_default() += count;
        }
    }

    /// What a long sweep should have drawn and has not.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let drawn = |what: &&str| self.kinds.contains_key(*what) || self.notes.contains_key(*what);
        let all = DRAWN.iter().chain(&FAULTS).copied();
        all.filter(|what| !drawn(what) && (*what != "runs that were replayed" || self.replayed == 0))
            .collect()
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} seeds, {} faults, {:.0} s of virtual time, {} events; {} seeds run twice with the same digest",
            self.runs,
            self.faults,
            self.virtual_time.as_secs_f64(),
            self.events,
            self.replayed
        )?;
        writeln!(f, "{}", self.tally)?;
        writeln!(
            f,
            "after healing: all pairs talked within {:?}, a peer was dialled at most {} times in 5 s",
            self.slowest_talk, self.most_rounds
        )?;
        for (title, counts) in [("faults", &self.kinds), ("what happened", &self.notes)] {
            writeln!(f, "{title}:")?;
            for (what, count) in counts {
                writeln!(f, "{count:>10}  {what}")?;
            }
        }
        Ok(())
    }
}

/// What goes wrong in a run, a word each.
fn kinds(seed: u64, scenario: &Scenario) -> Vec<String> {
    let plan = Plan::of(seed);
    let weather = [
        (plan.link.loss > 0.0, "loss on all links"),
        (plan.link.bandwidth.is_some(), "a rate on all links"),
        (plan.standby, "links that stand by"),
    ];
    let weather = weather.iter().filter(|(holds, _)| *holds).map(|(_, kind)| String::from(*kind));
    let faults = scenario.faults.iter().map(|timed| &timed.fault);
    weather.chain(faults.filter(|fault| !calms(fault)).map(Fault::kind)).collect()
}

/// The end of a fault that has no word of its own for it.
fn calms(fault: &Fault) -> bool {
    match fault {
        Fault::Loss { rate, .. }
        | Fault::Duplicate { rate, .. }
        | Fault::Reorder { rate, .. }
        | Fault::Corrupt { rate, .. } => *rate == 0.0,
        Fault::Bandwidth { bytes_per_second, .. } => *bytes_per_second == 0,
        Fault::Latency { latency_ms, jitter_ms, .. } => (*latency_ms, *jitter_ms) == (1, 0),
        _ => false,
    }
}
