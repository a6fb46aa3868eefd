//! One run: the cluster of a plan, what its nodes share, and what is wrong at its end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vitte_net_sim::invariants::{Ledger, Tally};
use vitte_net_sim::{Cluster, Report, Scenario};

use crate::plan::{Plan, SPAN, TALK_WITHIN};
use crate::{node, watch};

/// What all nodes of a run share: it stands outside of the simulated machines.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) plan: Plan,
    pub(crate) ledger: Ledger,
    /// Handlers whose futures live.
    pub(crate) handlers: AtomicUsize,
    board: Mutex<Board>,
}

#[derive(Debug, Default)]
struct Board {
    /// How long each pair needed to talk after everything had healed.
    talked: BTreeMap<(&'static str, &'static str), Duration>,
    /// How far each node has come, by name.
    stages: BTreeMap<&'static str, Stage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// All its workers have their outcomes.
    Settled,
    /// Its mesh is gone, and left nothing behind.
    Gone,
}

impl Run {
    pub(crate) fn talked(&self, from: &'static str, to: &'static str, after: Duration) {
        self.board().talked.insert((from, to), after);
    }

    pub(crate) fn reach(&self, name: &'static str, stage: Stage) {
        self.board().stages.insert(name, stage);
    }

    /// All nodes have come as far.
    pub(crate) fn all(&self, stage: Stage) -> bool {
        let board = self.board();
        self.plan.members.iter().all(|member| board.stages.get(member.name) >= Some(&stage))
    }

    fn board(&self) -> std::sync::MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a run came to.
pub(crate) struct Done {
    pub(crate) report: Report,
    pub(crate) tally: Tally,
    /// The pair that needed longest to talk after everything had healed.
    pub(crate) slowest_talk: Duration,
    /// The address that was dialled most within five seconds after everything had healed.
    pub(crate) most_dials: usize,
}

/// Why a run is no good: violations, or the cluster's own failure.
pub(crate) struct Bad {
    pub(crate) violations: Vec<String>,
    pub(crate) report: Report,
}

thread_local! {
    /// What panicked on this thread since the run began.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Panics of tasks stay in their handles, which the library drops: they are collected here.
pub(crate) fn collect_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let text = info.to_string();
        if !text.contains(node::ON_PURPOSE) {
            let collected = PANICS.try_with(|panics| panics.borrow_mut().push(text));
            if collected.is_err() {
                before(info);
            }
        }
    }));
}

/// Runs a seed with these faults.
pub(crate) fn run(seed: u64, scenario: &Scenario) -> Result<Done, Box<Bad>> {
    PANICS.take();
    watch::begin();
    let plan = Plan { scenario: scenario.clone(), ..Plan::of(seed) };
    let (ledger, link) = (Ledger::default(), plan.link.clone());
    let run = Arc::new(Run { plan, ledger, handlers: AtomicUsize::new(0), board: Mutex::default() });
    let limit = run.plan.settled_by() + Duration::from_secs(90);
    let mut cluster = Cluster::new(seed).link(link).limit(limit).scenario(scenario.clone());
    for member in &run.plan.members {
        let (run, name) = (run.clone(), member.name);
        cluster = cluster.client(name, move |node| node::live(node, run.clone(), name));
    }
    let (mut violations, report) = match cluster.run() {
        Ok(report) => (Vec::new(), report),
        Err(failure) => (vec![failure.kind.to_string()], failure.report),
    };
    violations.extend(PANICS.take().into_iter().map(|text| format!("a task panicked: {text}")));
    violations.extend(run.ledger.violations());
    let handlers = run.handlers.load(Ordering::SeqCst);
    if violations.is_empty() && handlers != 0 {
        violations.push(format!("{handlers} handlers run on"));
    }
    let slowest_talk = run.board().talked.values().max().copied().unwrap_or(TALK_WITHIN);
    let dials = watch::dials_within(SPAN, SPAN + TALK_WITHIN);
    let most = dials.into_iter().max_by_key(|(_, times)| times.len());
    let most_dials = most.as_ref().map_or(0, |(_, times)| times.len());
    if let Some(((node, address), times)) = most.filter(|(_, times)| times.len() > 6) {
        violations
            .push(format!("{node} dialled {address} {} times after all had healed: {times:?}", times.len()));
    }
    let tally = run.ledger.tally();
    if violations.is_empty() {
        Ok(Done { report, tally, slowest_talk, most_dials })
    } else {
        Err(Box::new(Bad { violations, report }))
    }
}
