//! What the library says while it runs: dials are counted, and with `VITTE_SIM_LOG` set everything is printed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use vitte_net_sim::World;

/// A node dials a peer at most once in each second.
const ROUNDS_APART: Duration = Duration::from_secs(1);

/// Who dialled whom, and when.
pub(crate) type Dials = BTreeMap<(String, String), Vec<Duration>>;

#[derive(Default)]
struct Watched {
    world: Option<World>,
    /// Rounds of dialling a peer, by its name.
    rounds: Dials,
    /// Dials of an address.
    dials: Dials,
    /// The last round of dialling each peer, of today's lives.
    last_rounds: BTreeMap<(String, String), Duration>,
    /// Rounds that began too soon behind the last one, and how long after it.
    hasty: Vec<(String, String, Duration)>,
}

thread_local! {
    static WATCHED: RefCell<Watched> = RefCell::default();
}

/// A new run begins on this thread.
pub(crate) fn begin() {
    WATCHED.take();
}

/// The clock of the run.
pub(crate) fn set_world(world: &World) {
    WATCHED.with_borrow_mut(|watched| {
        watched.world.get_or_insert_with(|| world.clone());
    });
}

/// A node begins to live, perhaps not for the first time: it knows nothing of what it dialled before.
pub(crate) fn born(node: &str) {
    WATCHED.with_borrow_mut(|watched| watched.last_rounds.retain(|(of, _), _| of != node));
}

/// Who dialled whom too soon, in the run on this thread so far.
pub(crate) fn hasty() -> Vec<(String, String, Duration)> {
    WATCHED.with_borrow(|watched| watched.hasty.clone())
}

impl Watched {
    fn round(&mut self, node: String, peer: String, now: Duration) {
        self.rounds.entry((node.clone(), peer.clone())).or_default().push(now);
        let last = self.last_rounds.insert((node.clone(), peer.clone()), now);
        let apart = last.map(|last| now - last).filter(|apart| *apart < ROUNDS_APART);
        self.hasty.extend(apart.map(|apart| (node, peer, apart)));
    }
}

/// The rounds of dialling a peer, and the dials of an address, of the run on this thread between two moments.
pub(crate) fn dials_within(from: Duration, to: Duration) -> [Dials; 2] {
    let watched = WATCHED.take();
    [watched.rounds, watched.dials].map(|mut dials| {
        dials.values_mut().for_each(|times| times.retain(|at| (from..to).contains(at)));
        dials
    })
}

pub(crate) struct Watcher {
    prints: bool,
}

impl Watcher {
    pub(crate) fn new() -> Self {
        Self { prints: std::env::var_os("VITTE_SIM_LOG").is_some() }
    }
}

impl Subscriber for Watcher {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let dials = metadata.target() == "vitte_net::mesh::dialling";
        metadata.is_event() && (dials || self.prints && metadata.target().starts_with("vitte_net"))
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        // The clock's own lock is never held while the library speaks.
        let world = WATCHED.with_borrow(|watched| watched.world.clone());
        let now = world.map_or(Duration::ZERO, |world| world.now());
        if self.prints {
            eprintln!("{:>10.1} ms  {}{}", now.as_secs_f64() * 1e3, said.message, said.fields);
        }
        WATCHED.with_borrow_mut(|watched| match said.message.as_str() {
            "dials a peer" => watched.round(said.node, said.peer, now),
            "dials" => watched.dials.entry((said.node, said.address)).or_default().push(now),
            _ => {}
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Said {
    message: String,
    node: String,
    address: String,
    peer: String,
    fields: String,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            name => {
                let _ = write!(self.fields, " {name}={text}");
                match name {
                    "node" => self.node = text,
                    "address" => self.address = text,
                    "peer" => self.peer = text,
                    _ => {}
                }
            }
        }
    }
}
