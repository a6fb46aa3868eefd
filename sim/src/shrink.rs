//! From a scenario that fails to a small one that fails too.

use std::fmt;

use crate::fault::Scenario;
use crate::story::{Episode, Story};

/// Runs that a search may take, unless it is told otherwise.
const RUNS_MAX: usize = 200;
/// An interval is made shorter down to this many milliseconds.
const SHORTEST_MS: u64 = 10;

/// What a search came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Shrunk<E> {
    /// The smallest scenario found that fails.
    pub scenario: Scenario,
    /// How it fails.
    pub error: E,
    /// Runs that the search took.
    pub runs: usize,
}

/// Searches for a small scenario that fails.
///
/// `run` runs a seed, which stays the same, with the faults that it is given; it must not depend on
/// anything else. First faults are left out, each together with what undoes it, so that whatever is left still heals; then
/// the time between a fault and its end, and before it, is halved as long as the run still fails. The search ends
/// when no such step fails any more, or after 200 runs.
///
/// The answer is `None` if `scenario` does not fail at all.
///
/// ```
/// use std::time::Duration;
/// use vitte_net_sim::{Fault, Scenario, shrink};
///
/// let scenario = Scenario::random(3, &["a", "b", "c"], Duration::from_secs(10))
///     .at(Duration::from_secs(4), Fault::Reset { a: "a".into(), b: "b".into() });
/// let shrunk = shrink(scenario, |scenario| {
///     match scenario.faults.iter().any(|timed| matches!(timed.fault, Fault::Reset { .. })) {
///         true => Err("a reset"),
///         false => Ok(()),
///     }
/// });
/// assert_eq!(shrunk.map(|shrunk| shrunk.scenario.faults.len()), Some(1));
/// ```
pub fn shrink<E>(scenario: Scenario, run: impl FnMut(&Scenario) -> Result<(), E>) -> Option<Shrunk<E>> {
    let mut search = Search { run, runs: 0, best: None };
    if search.holds(&Story::of(&scenario)) {
        return None;
    }
    search.leave_out();
    search.shorten();
    let (story, error) = search.best?;
    Some(Shrunk { scenario: story.scenario(), error, runs: search.runs })
}

struct Search<E, F> {
    run: F,
    runs: usize,
    best: Option<(Story, E)>,
}

impl<E, F: FnMut(&Scenario) -> Result<(), E>> Search<E, F> {
    /// Whether a story does not fail. One that does is the best from now on.
    fn holds(&mut self, story: &Story) -> bool {
        self.runs += 1;
        match (self.run)(&story.scenario()) {
            Ok(()) => true,
            Err(error) => {
                self.best = Some((story.clone(), error));
                false
            }
        }
    }

    fn story(&self) -> Story {
        self.best.as_ref().map_or(Story(Vec::new()), |(story, _)| story.clone())
    }

    /// Leaves out halves, then quarters, down to single episodes, as in delta debugging (Zeller, 2002).
    fn leave_out(&mut self) {
        let mut size = self.story().0.len();
        while size > 0 {
            let mut at = 0;
            let mut left_out = false;
            while at < self.story().0.len() && self.runs < RUNS_MAX {
                let mut fewer = self.story();
                let end = (at + size).min(fewer.0.len());
                fewer.0.drain(at..end);
                if self.holds(&fewer) {
                    at += size;
                } else {
                    left_out = true;
                }
            }
            if self.runs >= RUNS_MAX || (size == 1 && !left_out) {
                return;
            }
            size = if size == 1 { 1 } else { size.div_ceil(2) };
        }
    }

    /// Makes episodes shorter, and lets them come sooner.
    fn shorten(&mut self) {
        let mut changed = true;
        while changed {
            changed = false;
            for index in 0..self.story().0.len() {
                for shorter in [halved, sooner] {
                    while self.runs < RUNS_MAX {
                        let mut story = self.story();
                        if !story.0.get_mut(index).is_some_and(shorter) || self.holds(&story) {
                            break;
                        }
                        changed = true;
                    }
                }
            }
            changed &= self.runs < RUNS_MAX;
        }
    }
}

/// Half as long. False if it is short already.
fn halved(episode: &mut Episode) -> bool {
    let Some(end) = &mut episode.end else { return false };
    let time = end.at_ms.saturating_sub(episode.begin.at_ms);
    end.at_ms = episode.begin.at_ms + time / 2;
    time / 2 >= SHORTEST_MS
}

/// After half the time. False if it comes at the start already.
fn sooner(episode: &mut Episode) -> bool {
    let time = episode.begin.at_ms / 2;
    episode.begin.at_ms -= time;
    if let Some(end) = &mut episode.end {
        end.at_ms -= time;
    }
    time >= SHORTEST_MS
}

impl<E: fmt::Display> fmt::Display for Shrunk<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, error, runs } = self;
        write!(
            f,
            "{} faults are enough, found in {runs} runs: {error}\n{}",
            scenario.faults.len(),
            scenario.to_json()
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fault::Fault;

    fn crashed_while_cut(scenario: &Scenario) -> Result<(), String> {
        let mut cut = false;
        for timed in &scenario.faults {
            match &timed.fault {
                Fault::Partition { .. } => cut = true,
                Fault::Heal { .. } => cut = false,
                Fault::Crash { node } if cut => {
                    return Err(format!("{node} crashed while the network was cut"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn pair() -> (String, String) {
        ("a".into(), "b".into())
    }

    #[test]
    fn two_faults_that_fail_together_are_left_and_heal() {
        let at = Duration::from_millis;
        let (mut found, span) = (0, Duration::from_secs(10));
        for seed in 0..50 {
            let (a, b) = pair();
            let scenario = Scenario::random(seed, &["a", "b", "c"], span)
                .at(at(5000), Fault::Partition { a: a.clone(), b: b.clone() })
                .at(at(5300), Fault::Crash { node: "c".into() })
                .at(at(5900), Fault::Restart { node: "c".into() })
                .at(at(9000), Fault::Heal { a, b });
            let scenario = Story::of(&scenario).scenario();
            let Some(shrunk) = shrink(scenario, crashed_while_cut) else { continue };
            found += 1;
            let kinds: Vec<&Fault> = shrunk.scenario.faults.iter().map(|timed| &timed.fault).collect();
            assert!(crashed_while_cut(&shrunk.scenario).is_err());
            assert_eq!(kinds.len(), 4, "{}", shrunk.scenario.to_json());
            assert!(matches!(kinds[0], Fault::Partition { .. }));
            assert!(kinds.iter().any(|fault| matches!(fault, Fault::Restart { .. })));
            assert!(shrunk.scenario.faults.iter().all(|timed| timed.at_ms < 9000));
            assert!(shrunk.to_string().contains("4 faults are enough"), "{shrunk}");
        }
        assert!(found > 40, "{found}");
    }

    #[test]
    fn a_scenario_that_holds_is_not_shrunk() {
        let scenario = Scenario::random(1, &["a", "b"], Duration::from_secs(1));
        assert!(shrink(scenario, |_| Ok::<(), ()>(())).is_none());
    }

    #[test]
    fn a_failure_without_a_fault_shrinks_to_none() {
        let scenario = Scenario::random(1, &["a", "b"], Duration::from_secs(1));
        let shrunk = shrink(scenario, |_| Err("always")).unwrap();
        assert!(shrunk.scenario.faults.is_empty());
        assert!(shrunk.runs <= 3);
    }
}
