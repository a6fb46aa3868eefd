//! Faults are data: a list of timed ones is a scenario, and a scenario is JSON.

use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::RngCore;
use serde::{Deserialize, Serialize};

use crate::seed::generator;

/// Something that goes wrong, or right again.
///
/// Nodes are named as they were given to the cluster. Faults between `a` and `b` work in both directions
/// unless they say otherwise. Times are in milliseconds of virtual time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fault {
    /// Sets latency and jitter.
    Latency {
        /// One node.
        a: String,
        /// The other.
        b: String,
        /// The time every packet takes.
        latency_ms: u64,
        /// Up to this much more.
        jitter_ms: u64,
    },
    /// Limits the rate of each direction; 0 lifts the limit.
    Bandwidth {
        /// One node.
        a: String,
        /// The other.
        b: String,
        /// Bytes of payload per second.
        bytes_per_second: u64,
    },
    /// Loses datagrams. TCP is not concerned.
    Loss {
        /// One node.
        a: String,
        /// The other.
        b: String,
        /// Share that is lost, `0.0..=1.0`.
        rate: f64,
    },
    /// Delivers datagrams twice.
    Duplicate {
        /// One node.
        a: String,
        /// The other.
        b: String,
        /// Share that arrives twice, `0.0..=1.0`.
        rate: f64,
    },
    /// Holds datagrams back, so that later ones overtake them.
    Reorder {
        /// One node.
        a: String,
        /// The other.
        b: String,
        /// Share that is held back, `0.0..=1.0`.
        rate: f64,
        /// For how long.
        delay_ms: u64,
    },
    /// Flips bits of datagrams on their way. TCP is not concerned: its checksums, and those of the frames
    /// below, turn a flipped bit into a lost segment, which is retransmitted.
    Corrupt {
        /// One node.
        a: String,
        /// The other.
        b: String,
        /// Share that arrives changed, `0.0..=1.0`.
        rate: f64,
    },
    /// Drops every datagram; TCP lives on.
    BlockUdp {
        /// One node.
        a: String,
        /// The other.
        b: String,
    },
    /// Ends [`BlockUdp`](Self::BlockUdp).
    UnblockUdp {
        /// One node.
        a: String,
        /// The other.
        b: String,
    },
    /// Stalls TCP, connections and requests for new ones alike; datagrams pass.
    BlockTcp {
        /// One node.
        a: String,
        /// The other.
        b: String,
    },
    /// The same in one direction only: half of every connection is dumb.
    BlockTcpOneWay {
        /// Segments of this node stall...
        from: String,
        /// ...on their way to this one.
        to: String,
    },
    /// Ends a block of TCP, in both directions.
    UnblockTcp {
        /// One node.
        a: String,
        /// The other.
        b: String,
    },
    /// Swallows for good whatever the present TCP connections between the two carry, as when a NAT has
    /// forgotten them; neither side is told. New connections are not concerned.
    BlackHole {
        /// One node.
        a: String,
        /// The other.
        b: String,
    },
    /// Cuts the two nodes off from each other: datagrams are gone, TCP stalls and is retransmitted.
    Partition {
        /// One node.
        a: String,
        /// The other.
        b: String,
    },
    /// The same in one direction only.
    PartitionOneWay {
        /// Packets of this node are lost...
        from: String,
        /// ...on their way to this one.
        to: String,
    },
    /// Ends a partition, in both directions.
    Heal {
        /// One node.
        a: String,
        /// The other.
        b: String,
    },
    /// Resets every TCP connection between the two: both sides see `ConnectionReset` at once.
    Reset {
        /// One node.
        a: String,
        /// The other.
        b: String,
    },
    /// The machine loses power: its tasks are gone and its peers hear nothing more. After a restart the
    /// retransmissions of its peers are answered with a reset.
    Crash {
        /// The node.
        node: String,
    },
    /// The process is killed, the machine lives: its tasks are gone and its kernel closes its connections,
    /// by a reset where received bytes were left unread.
    Kill {
        /// The node.
        node: String,
    },
    /// Starts a node again, as a new life; a running one is killed first.
    Restart {
        /// The node.
        node: String,
    },
}

impl Fault {
    /// The word that JSON has for it: `partition`, `block_udp`.
    pub fn kind(&self) -> String {
        let value = serde_json::to_value(self).unwrap_or_default();
        value.get("fault").and_then(|kind| kind.as_str()).unwrap_or_default().to_owned()
    }

    /// The nodes it names.
    pub fn nodes(&self) -> Vec<&str> {
        match self {
            Self::Latency { a, b, .. }
            | Self::Bandwidth { a, b, .. }
            | Self::Loss { a, b, .. }
            | Self::Duplicate { a, b, .. }
            | Self::Reorder { a, b, .. }
            | Self::Corrupt { a, b, .. }
            | Self::BlockUdp { a, b }
            | Self::UnblockUdp { a, b }
            | Self::BlockTcp { a, b }
            | Self::UnblockTcp { a, b }
            | Self::BlackHole { a, b }
            | Self::Partition { a, b }
            | Self::Heal { a, b }
            | Self::Reset { a, b } => vec![a, b],
            Self::PartitionOneWay { from, to } | Self::BlockTcpOneWay { from, to } => vec![from, to],
            Self::Crash { node } | Self::Kill { node } | Self::Restart { node } => vec![node],
        }
    }
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimedFault {
    /// Milliseconds since the start of the run.
    pub at_ms: u64,
    /// What happens then.
    #[serde(flatten)]
    pub fault: Fault,
}

/// A list of timed faults. Reads and writes as a JSON array.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scenario {
    /// The faults. Those of the same time happen in this order.
    pub faults: Vec<TimedFault>,
}

impl Scenario {
    /// No faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fault.
    #[must_use]
    pub fn at(mut self, at: Duration, fault: Fault) -> Self {
        self.push(millis(at), fault);
        self
    }

    /// Reads the list that [`to_json()`](Self::to_json) wrote, or that somebody edited.
    ///
    /// # Errors
    ///
    /// The text is no JSON array of faults.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The scenario that the environment hands in, instead of one that follows from the seed: `VITTE_SIM_SCENARIO`
    /// is the list itself, or the path of a file that holds it.
    ///
    /// # Panics
    ///
    /// The variable is set, and holds neither: a replay with other faults than those asked for would mislead.
    pub fn from_env() -> Option<Self> {
        let text = std::env::var("VITTE_SIM_SCENARIO").ok()?;
        let text = if text.trim_start().starts_with('[') {
            text
        } else {
            match std::fs::read_to_string(&text) {
                Ok(list) => list,
                Err(error) => panic!("VITTE_SIM_SCENARIO names the file {text:?}: {error}"),
            }
        };
        match Self::from_json(&text) {
            Ok(scenario) => Some(scenario),
            Err(error) => panic!("VITTE_SIM_SCENARIO is no list of faults: {error}"),
        }
    }

    /// The list as JSON on one line, for a command line.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The list as JSON, one fault a line.
    pub fn to_json(&self) -> String {
        let lines: Vec<String> =
            self.faults.iter().filter_map(|fault| serde_json::to_string(fault).ok()).collect();
        format!("[{}]", lines.join(",\n "))
    }

    /// One to ten faults of every kind among `nodes`, all within `span`.
    ///
    /// Everything heals: each of them is undone at the latest at the end of `span`, and links are then as
    /// [`LinkSettings::default()`](crate::LinkSettings) says, so that whatever is to be delivered can be
    /// delivered afterwards. Fewer than two nodes or a `span` under 10 ms give no faults.
    pub fn random(seed: u64, nodes: &[&str], span: Duration) -> Self {
        let mut dice = Dice(generator(seed, &["scenario", "random"]));
        let mut scenario = Self::new();
        let span = millis(span);
        if nodes.len() < 2 || span < 10 {
            return scenario;
        }
        for _ in 0..dice.within(1, 10) {
            let first = dice.below(nodes.len());
            let second = (first + 1 + dice.below(nodes.len() - 1)) % nodes.len();
            let (a, b) = (nodes[first].to_owned(), nodes[second].to_owned());
            let begin = dice.within(0, span - 2);
            let end = dice.within(begin + 1, span);
            scenario.random_fault(&mut dice, a, b, begin, end);
        }
        scenario.faults.sort_by_key(|fault| fault.at_ms);
        scenario
    }

    /// One to ten cuts of the TCP and UDP links between `a` and `b` within `span`: resets, short and long
    /// partitions of either direction, UDP blocks. Everything heals at the latest at the end of `span`.
    /// A `span` under 10 ms gives no faults.
    pub fn cuts(seed: u64, a: &str, b: &str, span: Duration) -> Self {
        let mut dice = Dice(generator(seed, &["scenario", "cuts"]));
        let mut scenario = Self::new();
        let span = millis(span);
        if span < 10 {
            return scenario;
        }
        for _ in 0..dice.within(1, 10) {
            let begin = dice.within(0, span - 2);
            let end = dice.within(begin + 1, span);
            let (a, b) = (a.to_owned(), b.to_owned());
            let heal = Fault::Heal { a: a.clone(), b: b.clone() };
            match dice.below(5) {
                0 | 1 => scenario.push(begin, Fault::Reset { a, b }),
                2 => scenario.pair(begin, Fault::Partition { a, b }, end, heal),
                3 => {
                    let (from, to) = if dice.below(2) == 0 { (a, b) } else { (b, a) };
                    scenario.pair(begin, Fault::PartitionOneWay { from, to }, end, heal);
                }
                _ => scenario.pair(
                    begin,
                    Fault::BlockUdp { a: a.clone(), b: b.clone() },
                    end,
                    Fault::UnblockUdp { a, b },
                ),
            }
        }
        scenario.faults.sort_by_key(|fault| fault.at_ms);
        scenario
    }

    fn random_fault(&mut self, dice: &mut Dice, a: String, b: String, begin: u64, end: u64) {
        let heal = Fault::Heal { a: a.clone(), b: b.clone() };
        match dice.below(16) {
            0 => self.push(begin, Fault::Reset { a, b }),
            1 => self.push(begin, Fault::BlackHole { a, b }),
            2 => self.pair(begin, Fault::Partition { a, b }, end, heal),
            3 => self.pair(begin, Fault::PartitionOneWay { from: a, to: b }, end, heal),
            4 => {
                let unblock = Fault::UnblockUdp { a: a.clone(), b: b.clone() };
                self.pair(begin, Fault::BlockUdp { a, b }, end, unblock);
            }
            5 => {
                let unblock = Fault::UnblockTcp { a: a.clone(), b: b.clone() };
                self.pair(begin, Fault::BlockTcp { a, b }, end, unblock);
            }
            6 => {
                let unblock = Fault::UnblockTcp { a: a.clone(), b: b.clone() };
                self.pair(begin, Fault::BlockTcpOneWay { from: a, to: b }, end, unblock);
            }
            7 | 8 => self.pair(begin, Fault::Crash { node: a.clone() }, end, Fault::Restart { node: a }),
            9 => self.pair(begin, Fault::Kill { node: a.clone() }, end, Fault::Restart { node: a }),
            _ => self.random_weather(dice, a, b, begin, end),
        }
    }

    /// Links that are slow, lossy or noisy, but not cut.
    fn random_weather(&mut self, dice: &mut Dice, a: String, b: String, begin: u64, end: u64) {
        let (other_a, other_b) = (a.clone(), b.clone());
        match dice.below(6) {
            0 => {
                let (latency_ms, jitter_ms) = (dice.within(1, 100), dice.within(0, 50));
                let calm = Fault::Latency { a: other_a, b: other_b, latency_ms: 1, jitter_ms: 0 };
                self.pair(begin, Fault::Latency { a, b, latency_ms, jitter_ms }, end, calm);
            }
            1 => {
                let bytes_per_second = dice.within(20_000, 2_000_000);
                let open = Fault::Bandwidth { a: other_a, b: other_b, bytes_per_second: 0 };
                self.pair(begin, Fault::Bandwidth { a, b, bytes_per_second }, end, open);
            }
            2 => {
                let rate = dice.percent(30);
                self.pair(
                    begin,
                    Fault::Loss { a, b, rate },
                    end,
                    Fault::Loss { a: other_a, b: other_b, rate: 0.0 },
                );
            }
            3 => {
                let rate = dice.percent(30);
                let end_of_it = Fault::Duplicate { a: other_a, b: other_b, rate: 0.0 };
                self.pair(begin, Fault::Duplicate { a, b, rate }, end, end_of_it);
            }
            4 => {
                let (rate, delay_ms) = (dice.percent(50), dice.within(1, 50));
                let end_of_it = Fault::Reorder { a: other_a, b: other_b, rate: 0.0, delay_ms };
                self.pair(begin, Fault::Reorder { a, b, rate, delay_ms }, end, end_of_it);
            }
            _ => {
                let rate = dice.percent(20);
                let end_of_it = Fault::Corrupt { a: other_a, b: other_b, rate: 0.0 };
                self.pair(begin, Fault::Corrupt { a, b, rate }, end, end_of_it);
            }
        }
    }

    fn pair(&mut self, begin: u64, fault: Fault, end: u64, undo: Fault) {
        self.push(begin, fault);
        self.push(end, undo);
    }

    fn push(&mut self, at_ms: u64, fault: Fault) {
        self.faults.push(TimedFault { at_ms, fault });
    }
}

/// Whole milliseconds, which is how faults are written down.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

struct Dice(ChaCha20Rng);

impl Dice {
    /// `low..=high`. The bias of the remainder does not matter here.
    fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.0.next_u64() % (high - low + 1)
    }

    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.within(0, count as u64 - 1)).unwrap_or(0)
    }

    /// A share of `1..=high` per cent.
    fn percent(&mut self, high: u8) -> f64 {
        f64::from(u8::try_from(self.within(1, u64::from(high))).unwrap_or(high)) / 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_comes_back_the_same() {
        let scenario = Scenario::random(3, &["a", "b", "c"], Duration::from_secs(10));
        let text = scenario.to_json();
        assert_eq!(Scenario::from_json(&text).unwrap(), scenario, "{text}");
        let text = r#"[{"at_ms":5,"fault":"partition","a":"x","b":"y"}]"#;
        let fault = Fault::Partition { a: "x".into(), b: "y".into() };
        let expected = Scenario::new().at(Duration::from_millis(5), fault);
        assert_eq!(Scenario::from_json(text).unwrap(), expected);
    }

    #[test]
    fn random_scenarios_follow_their_seed_and_heal() {
        let span = Duration::from_secs(2);
        for seed in 0..200 {
            let scenario = Scenario::random(seed, &["a", "b", "c"], span);
            assert_eq!(scenario, Scenario::random(seed, &["a", "b", "c"], span));
            assert!(!scenario.faults.is_empty());
            assert!(scenario.faults.iter().all(|fault| fault.at_ms <= 2000));
            assert!(!Scenario::cuts(seed, "a", "b", span).faults.is_empty());
        }
        assert_ne!(Scenario::random(1, &["a", "b"], span), Scenario::random(2, &["a", "b"], span));
    }
}
