//! Faults with what undoes them: what a scenario tells.

use crate::fault::{Fault, Scenario, TimedFault};

/// A fault, and what undoes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Episode {
    pub(crate) begin: TimedFault,
    pub(crate) end: Option<TimedFault>,
}

/// The episodes of a scenario, in the order of their beginnings.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Story(pub(crate) Vec<Episode>);

impl Story {
    pub(crate) fn of(scenario: &Scenario) -> Self {
        let mut story: Vec<Episode> = Vec::new();
        let mut faults = scenario.faults.clone();
        faults.sort_by_key(|timed| timed.at_ms);
        for timed in faults {
            let open = story
                .iter_mut()
                .find(|episode| episode.end.is_none() && undoes(&timed.fault, &episode.begin.fault));
            match open {
                Some(episode) => episode.end = Some(timed),
                None => story.push(Episode { begin: timed, end: None }),
            }
        }
        Self(story)
    }

    pub(crate) fn scenario(&self) -> Scenario {
        let all = self.0.iter().flat_map(|episode| [Some(&episode.begin), episode.end.as_ref()]);
        let mut faults: Vec<TimedFault> = all.flatten().cloned().collect();
        faults.sort_by_key(|timed| timed.at_ms);
        Scenario { faults }
    }
}

fn undoes(end: &Fault, begin: &Fault) -> bool {
    let same = |mut left: Vec<&str>, mut right: Vec<&str>| {
        left.sort_unstable();
        right.sort_unstable();
        left == right
    };
    let kind = match (begin, end) {
        (Fault::Partition { .. } | Fault::PartitionOneWay { .. }, Fault::Heal { .. })
        | (Fault::BlockUdp { .. }, Fault::UnblockUdp { .. })
        | (Fault::BlockTcp { .. } | Fault::BlockTcpOneWay { .. }, Fault::UnblockTcp { .. })
        | (Fault::Crash { .. } | Fault::Kill { .. }, Fault::Restart { .. })
        | (Fault::Latency { .. }, Fault::Latency { .. })
        | (Fault::Bandwidth { .. }, Fault::Bandwidth { bytes_per_second: 0, .. }) => true,
        (Fault::Loss { .. }, Fault::Loss { rate, .. })
        | (Fault::Duplicate { .. }, Fault::Duplicate { rate, .. })
        | (Fault::Reorder { .. }, Fault::Reorder { rate, .. })
        | (Fault::Corrupt { .. }, Fault::Corrupt { rate, .. }) => *rate == 0.0,
        _ => false,
    };
    kind && same(begin.nodes(), end.nodes())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn episodes_are_told_apart_and_come_back() {
        let scenario = Scenario::random(9, &["a", "b", "c"], Duration::from_secs(10));
        let mut sorted = scenario.clone();
        sorted.faults.sort_by_key(|timed| timed.at_ms);
        assert_eq!(Story::of(&scenario).scenario().faults.len(), sorted.faults.len());
        let (a, b) = (String::from("a"), String::from("b"));
        let heal = Fault::Heal { a: b.clone(), b: a.clone() };
        assert!(undoes(&heal, &Fault::PartitionOneWay { from: a.clone(), to: b.clone() }));
        assert!(!undoes(&heal, &Fault::BlockUdp { a: a.clone(), b: b.clone() }));
        assert!(!undoes(&heal, &Fault::Partition { a, b: "c".into() }));
    }
}
