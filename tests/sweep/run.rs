//! One run: the cluster of a plan, what its nodes share, and what is wrong at its end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vitte_net_sim::invariants::{Ledger, Tally};
use vitte_net_sim::{Cluster, Report, Scenario};

use crate::plan::{Plan, SPAN, TALK_WITHIN};
use crate::watch::Dials;
use crate::{node, watch};

/// Rounds of dialling one peer within the five seconds after everything has healed: one each second.
const ROUNDS_MAX: usize = 5;
/// Dials of one address within the same time: a round dials each once.
const DIALS_MAX: usize = 5;

/// How a seed is run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mode {
    /// Nothing may leave a session without a link. That is not promised: it shows what becomes of a failure.
    pub(crate) strict: bool,
    /// The whole trace is kept.
    pub(crate) traced: bool,
}

impl Mode {
    pub(crate) fn from_env() -> Self {
        Self { strict: std::env::var_os("VITTE_SIM_STRICT").is_some(), traced: false }
    }
}

/// What all nodes of a run share: it stands outside of the simulated machines.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) plan: Plan,
    pub(crate) mode: Mode,
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
    /// How often what happened.
    notes: Notes,
    /// A strict run is over: nothing that comes later is asked for.
    broken: bool,
}

/// How often what happened, by what it is.
pub(crate) type Notes = BTreeMap<String, u64>;

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

    /// Counts something, for the lines that end a sweep.
    pub(crate) fn note(&self, what: impl Into<String>) {
        *self.board().notes.entry(what.into()).or_default() += 1;
    }

    /// A session is without a link before all has healed.
    pub(crate) fn unreachable(&self, violation: impl FnOnce() -> String) {
        if self.mode.strict && !std::mem::replace(&mut self.board().broken, true) {
            self.ledger.accuse(violation());
        }
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
    /// Rounds of dialling the peer that was dialled most within five seconds after everything had healed.
    pub(crate) most_rounds: usize,
    pub(crate) notes: Notes,
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
pub(crate) fn run(seed: u64, scenario: &Scenario, mode: Mode) -> Result<Done, Box<Bad>> {
    PANICS.take();
    watch::begin();
    let plan = Plan { scenario: scenario.clone(), ..Plan::of(seed) };
    let (ledger, link) = (Ledger::default(), plan.link.clone());
    let run = Arc::new(Run { plan, mode, ledger, handlers: AtomicUsize::new(0), board: Mutex::default() });
    let limit = run.plan.settled_by() + Duration::from_secs(90);
    let mut cluster = Cluster::new(seed).link(link).limit(limit).scenario(scenario.clone());
    if mode.traced {
        cluster = cluster.trace_lines(usize::MAX);
    }
    for member in &run.plan.members {
        let (run, name) = (run.clone(), member.name);
        cluster = cluster.client(name, move |node| node::live(node, run.clone(), name));
    }
    let ended = if mode.strict {
        cluster.run_until(|_| run.board().broken || run.all(Stage::Gone))
    } else {
        cluster.run()
    };
    let (mut violations, report) = match ended {
        Ok(report) => (Vec::new(), report),
        Err(failure) => (vec![failure.kind.to_string()], failure.report),
    };
    violations.extend(PANICS.take().into_iter().map(|text| format!("a task panicked: {text}")));
    violations.extend(if run.board().broken { run.ledger.accusations() } else { run.ledger.violations() });
    let handlers = run.handlers.load(Ordering::SeqCst);
    if violations.is_empty() && handlers != 0 {
        violations.push(format!("{handlers} handlers run on"));
    }
    let slowest_talk = run.board().talked.values().max().copied().unwrap_or(TALK_WITHIN);
    violations.extend(watch::hasty().iter().map(|(node, to, apart)| {
        format!("{node} dialled {to} again {apart:?} after the last round had begun")
    }));
    let [rounds, dials] = watch::dials_within(SPAN, SPAN + TALK_WITHIN);
    let most_rounds = rounds.values().map(Vec::len).max().unwrap_or(0);
    violations.extend(too_many(&rounds, ROUNDS_MAX));
    violations.extend(too_many(&dials, DIALS_MAX));
    let tally = run.ledger.tally();
    let notes = run.board().notes.clone();
    if violations.is_empty() {
        Ok(Done { report, tally, slowest_talk, most_rounds, notes })
    } else {
        Err(Box::new(Bad { violations, report }))
    }
}

fn too_many(dials: &Dials, most: usize) -> Vec<String> {
    let too_many = dials.iter().filter(|(_, times)| times.len() > most);
    let tell = |((node, to), times): (&(String, String), &Vec<Duration>)| {
        format!("{node} dialled {to} {} times after all had healed: {times:?}", times.len())
    };
    too_many.map(tell).collect()
}
