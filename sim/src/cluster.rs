//! The cluster: nodes, a script of faults, and a run.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use vitte_net::network::Network;

use crate::fault::{Fault, Scenario};
use crate::link::LinkSettings;
use crate::network::SimNetwork;
use crate::node::Node;
use crate::report::{Failure, FailureKind, Report};
use crate::world::{HostId, Power, World};

/// What a node's program ends with.
pub type NodeResult = Result<(), Box<dyn Error>>;

type Program = Rc<dyn Fn(Node) -> Pin<Box<dyn Future<Output = NodeResult>>>>;

/// Nodes under a simulated network, and the faults that befall them.
///
/// Everything random follows from one seed. A cluster brings its own runtimes: it runs in a plain `#[test]`,
/// not inside of another runtime. Programs use `tokio::time` and `tokio::spawn`; each node has a paused
/// current-thread runtime of its own. An unbiased `tokio::select!` is not seeded: say `biased;`. A panic of
/// a spawned task stays in its `JoinHandle`, as in production; only that of the program itself fails the run.
pub struct Cluster {
    seed: u64,
    tick: Duration,
    limit: Duration,
    world: World,
    plan: Vec<Plan>,
    bad_name: Option<String>,
    scenario: Scenario,
    running: Option<Running>,
}

struct Plan {
    name: String,
    is_client: bool,
    program: Program,
}

struct Running {
    sim: turmoil::Sim<'static>,
    endings: Rc<RefCell<Vec<Ending>>>,
}

/// How the present life of a node ended, if it did.
#[derive(Clone, Debug, PartialEq)]
enum Ending {
    None,
    Done,
    Failed(String),
    Panicked(String),
}

impl Cluster {
    /// An empty cluster. Equal seeds, nodes and scripts make equal runs.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            tick: Duration::from_millis(1),
            limit: Duration::from_secs(600),
            world: World::new(seed),
            plan: Vec::new(),
            bad_name: None,
            scenario: Scenario::new(),
            running: None,
        }
    }

    /// How far the clock moves at once, at least 1 ms. Packets arrive at the beginning of a tick. A longer
    /// tick is faster and coarser. Default: 1 ms, the resolution of tokio's timers.
    #[must_use]
    pub fn tick(mut self, tick: Duration) -> Self {
        self.tick = tick.max(Duration::from_millis(1));
        self
    }

    /// The virtual time a run may take. Default: 600 s.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// How many lines of the trace are kept for the report. Default: 200.
    #[must_use]
    pub fn trace_lines(self, lines: usize) -> Self {
        self.world.with(|state| state.trace.set_keep(lines));
        self
    }

    /// The link between any two different nodes, until a fault changes it.
    #[must_use]
    pub fn link(self, settings: LinkSettings) -> Self {
        self.world.with(|state| state.default_link = settings);
        self
    }

    /// Adds a node. `program` is called at the start of each of its lives; a program that returns has ended
    /// as a process does, its sockets are closed. An error fails the run.
    #[must_use]
    pub fn node<F, Fut>(self, name: &str, program: F) -> Self
    where
        F: Fn(Node) -> Fut + 'static,
        Fut: Future<Output = NodeResult> + 'static,
    {
        self.add(name, false, Rc::new(move |node| Box::pin(program(node))))
    }

    /// Adds a node whose end ends the run: [`run()`](Self::run) returns when all clients have ended.
    #[must_use]
    pub fn client<F, Fut>(self, name: &str, program: F) -> Self
    where
        F: Fn(Node) -> Fut + 'static,
        Fut: Future<Output = NodeResult> + 'static,
    {
        self.add(name, true, Rc::new(move |node| Box::pin(program(node))))
    }

    fn add(mut self, name: &str, is_client: bool, program: Program) -> Self {
        let known = self.plan.iter().any(|plan| plan.name == name);
        if known || name == "localhost" || name.parse::<IpAddr>().is_ok() {
            self.bad_name.get_or_insert(name.to_owned());
            return self;
        }
        // turmoil numbers its hosts the same way, in the order of their first mention.
        let number = self.plan.len() + 1;
        let [.., high, low] = number.to_be_bytes();
        self.world.with(|state| state.add_host(name, IpAddr::from([192, 168, high, low])));
        self.plan.push(Plan { name: name.to_owned(), is_client, program });
        self
    }

    /// Adds a fault to the script.
    #[must_use]
    pub fn fault(mut self, at: Duration, fault: Fault) -> Self {
        self.scenario = self.scenario.at(at, fault);
        self
    }

    /// Adds all faults of a scenario to the script.
    #[must_use]
    pub fn scenario(mut self, scenario: Scenario) -> Self {
        self.scenario.faults.extend(scenario.faults);
        self
    }

    /// The world: its clock and its faults, from outside of the nodes.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The network as the present life of a node sees it, for tests that hold both ends in one place.
    pub fn network(&self, node: &str) -> Option<Arc<dyn Network>> {
        let host = self.world.with(|state| state.host_named(node).ok())?;
        Some(Arc::new(SimNetwork::new(self.world.clone(), host, "outside")))
    }

    /// Runs until every client has ended.
    ///
    /// # Errors
    ///
    /// [`Failure`]: a node failed or panicked, the limit of virtual time is reached, or the cluster cannot
    /// run as it was described. It shows seed, faults, the last lines of the trace and how to replay it.
    pub fn run(&mut self) -> Result<Report, Box<Failure>> {
        if !self.plan.iter().any(|plan| plan.is_client) {
            return Err(self.failure(FailureKind::NoClient));
        }
        let clients: Vec<HostId> = (0..self.plan.len()).filter(|host| self.plan[*host].is_client).collect();
        self.run_while(|running, _| {
            let endings = running.endings.borrow();
            clients.iter().any(|client| endings[*client] == Ending::None)
        })
    }

    /// Runs for some more virtual time.
    ///
    /// # Errors
    ///
    /// As [`run()`](Self::run).
    pub fn run_for(&mut self, time: Duration) -> Result<Report, Box<Failure>> {
        let mut end = None;
        self.run_while(|running, _| running.sim.elapsed() < *end.get_or_insert(running.sim.elapsed() + time))
    }

    /// Runs until `reached` says so; it is asked before each tick.
    ///
    /// # Errors
    ///
    /// As [`run()`](Self::run).
    pub fn run_until(&mut self, mut reached: impl FnMut(&World) -> bool) -> Result<Report, Box<Failure>> {
        self.run_while(|_, world| !reached(world))
    }

    fn run_while(
        &mut self,
        mut goes_on: impl FnMut(&Running, &World) -> bool,
    ) -> Result<Report, Box<Failure>> {
        let mut running = match self.running.take() {
            Some(running) => running,
            None => self.start().map_err(|kind| self.failure(kind))?,
        };
        let mut result = Ok(());
        while result.is_ok() && goes_on(&running, &self.world) {
            result = self.step(&mut running);
        }
        self.running = Some(running);
        match result {
            Ok(()) => Ok(self.report()),
            Err(kind) => Err(self.failure(kind)),
        }
    }

    fn start(&mut self) -> Result<Running, FailureKind> {
        if let Some(name) = self.bad_name.clone() {
            return Err(FailureKind::NodeName(name));
        }
        self.world.with(|state| {
            for timed in &self.scenario.faults {
                state.check(&timed.fault)?;
            }
            let mut script: Vec<(Duration, Fault)> = self
                .scenario
                .faults
                .iter()
                .map(|timed| (Duration::from_millis(timed.at_ms), timed.fault.clone()))
                .collect();
            script.sort_by_key(|(at, _)| *at);
            state.script = script.into();
            Ok::<(), FailureKind>(())
        })?;
        let mut sim = turmoil::Builder::new()
            .rng_seed(self.seed)
            .tick_duration(self.tick)
            .epoch(SystemTime::UNIX_EPOCH)
            .build();
        let endings = Rc::new(RefCell::new(vec![Ending::None; self.plan.len()]));
        for (host, plan) in self.plan.iter().enumerate() {
            let (world, program, endings) =
                (self.world.clone(), Rc::clone(&plan.program), Rc::clone(&endings));
            sim.host(plan.name.clone(), move || {
                let life = program(Node::new(world.clone(), host));
                supervise(world.clone(), host, Rc::clone(&endings), life)
            });
        }
        Ok(Running { sim, endings })
    }

    fn step(&mut self, running: &mut Running) -> Result<(), FailureKind> {
        if running.sim.elapsed() >= self.limit {
            return Err(FailureKind::LimitReached { limit: self.limit });
        }
        for power in self.world.begin_tick(running.sim.elapsed()) {
            self.switch(running, power);
        }
        self.world.hand_over();
        running.sim.step().map_err(|error| FailureKind::Simulator(error.to_string()))?;
        for (host, ending) in running.endings.borrow().iter().enumerate() {
            let node = || self.plan[host].name.clone();
            match ending {
                Ending::None | Ending::Done => {}
                Ending::Failed(error) => {
                    return Err(FailureKind::Node { node: node(), error: error.clone() });
                }
                Ending::Panicked(message) => {
                    return Err(FailureKind::Panic { node: node(), message: message.clone() });
                }
            }
        }
        Ok(())
    }

    /// Crashes, kills or starts a node. turmoil drops the tasks; the world knows beforehand, so that sockets
    /// dropped with them do not look like sockets closed on purpose.
    fn switch(&self, running: &mut Running, power: Power) {
        let (Power::Crash(host) | Power::Kill(host) | Power::Restart(host)) = power;
        let name = self.plan[host].name.as_str();
        if running.sim.is_host_running(name) {
            self.world.with(|state| state.end_life(host, matches!(power, Power::Crash(_))));
            running.sim.crash(name);
        } else if matches!(power, Power::Crash(_)) {
            self.world.with(|state| state.end_life(host, true));
        }
        if power == Power::Restart(host) {
            self.world.with(|state| state.hosts[host].up = true);
            running.endings.borrow_mut()[host] = Ending::None;
            running.sim.bounce(name);
        }
    }

    fn report(&self) -> Report {
        let elapsed = self.running.as_ref().map_or(Duration::ZERO, |running| running.sim.elapsed());
        self.world.with(|state| Report {
            seed: self.seed,
            digest: state.trace.digest(),
            events: state.trace.events(),
            elapsed,
            trace: state.trace.tail(),
            nodes: state.hosts.iter().map(|host| (host.name.clone(), host.ip)).collect(),
        })
    }

    fn failure(&self, kind: FailureKind) -> Box<Failure> {
        Box::new(Failure { kind, scenario: self.scenario.clone(), report: self.report() })
    }
}

/// Runs one life and writes down its end. A program that ends leaves its sockets to the kernel.
async fn supervise(
    world: World,
    host: HostId,
    endings: Rc<RefCell<Vec<Ending>>>,
    life: Pin<Box<dyn Future<Output = NodeResult>>>,
) -> NodeResult {
    let ending = {
        let mut life = pin!(life);
        poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| life.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(()))) => Poll::Ready(Ending::Done),
            Ok(Poll::Ready(Err(error))) => Poll::Ready(Ending::Failed(with_causes(&*error))),
            Err(panic) => Poll::Ready(Ending::Panicked(panic_text(&*panic))),
        })
        .await
    };
    world.with(|state| state.end_life(host, false));
    endings.borrow_mut()[host] = ending;
    Ok(())
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut seen = BTreeSet::from([text.clone()]);
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if seen.insert(said.clone()) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
