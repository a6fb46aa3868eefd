//! One life of one node: it starts a mesh, serves, works, settles, and leaves nothing behind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use vitte_net::discovery::Fixed;
use vitte_net::{Blob, Events, Identity, Mesh, MeshEvent, PeerId, Transport};
use vitte_net_sim::{Node, NodeResult};

use crate::plan::{Dice, SPAN, TALK_WITHIN};
use crate::run::{Run, Stage};
use crate::workload::{Ask, serve, work};
use crate::{simulated, watch};

/// The words of a handler that is meant to panic.
pub(crate) const ON_PURPOSE: &str = "on purpose";
/// A mesh that was dropped or drained has let go of everything within this time: last words have two seconds, QUIC
/// connections that are closed or whose handshake has failed three.
const GONE_WITHIN: Duration = Duration::from_secs(6);
/// Once nobody sends any more, the last acknowledgements are here within this time.
const QUIET_WITHIN: Duration = Duration::from_secs(2);
/// Messages of a session that wait for their outcome: queues and windows of a handful of streams.
const IN_FLIGHT_MAX: u64 = 10_000;

/// A node as its workers see it.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) name: &'static str,
    pub(crate) node: Node,
    pub(crate) mesh: Mesh,
    pub(crate) run: Arc<Run>,
    pub(crate) peers: Arc<BTreeMap<&'static str, PeerId>>,
}

impl Site {
    pub(crate) fn now(&self) -> Duration {
        self.node.world().now()
    }

    /// Everything has healed.
    pub(crate) fn healed(&self) -> bool {
        self.now() >= SPAN
    }

    pub(crate) fn dice(&self, label: &str) -> Dice {
        Dice(self.node.rng(label))
    }

    pub(crate) fn name_of(&self, peer: PeerId) -> &'static str {
        self.peers.iter().find(|(_, id)| **id == peer).map_or("a stranger", |(name, _)| name)
    }
}

pub(crate) async fn live(node: Node, run: Arc<Run>, name: &'static str) -> NodeResult {
    watch::set_world(node.world());
    let tasks_before = Handle::current().metrics().num_alive_tasks();
    let (site, events) = start(node, run, name).await?;
    let mut services = JoinSet::new();
    let mut workers = JoinSet::new();
    serve(&site, &mut services);
    services.spawn(follow(site.clone().without_mesh(), events));
    for other in site.run.plan.members.iter().filter(|member| member.name != name) {
        for number in 0..site.run.plan.workers {
            workers.spawn(work(site.clone(), other.name, number));
        }
        workers.spawn(talk(site.clone(), other.name));
    }
    settle(&site, workers).await;
    site.run.reach(name, Stage::Settled);
    while !site.run.all(Stage::Settled) {
        sample(&site);
        sleep(Duration::from_millis(50)).await;
    }
    let (run, node) = (site.run.clone(), site.node.clone());
    leave(site).await;
    node.event("left");
    gone(&run, &node, name, services, tasks_before).await;
    run.reach(name, Stage::Gone);
    Ok(())
}

/// What is left of a site when its mesh must not be kept alive.
pub(crate) struct Outside {
    pub(crate) name: &'static str,
    pub(crate) node: Node,
    pub(crate) run: Arc<Run>,
    pub(crate) peers: Arc<BTreeMap<&'static str, PeerId>>,
}

impl Site {
    pub(crate) fn without_mesh(self) -> Outside {
        let Self { name, node, run, peers, .. } = self;
        Outside { name, node, run, peers }
    }
}

impl Outside {
    pub(crate) fn again(&self) -> Self {
        let (node, run, peers) = (self.node.clone(), self.run.clone(), self.peers.clone());
        Self { name: self.name, node, run, peers }
    }

    pub(crate) fn name_of(&self, peer: PeerId) -> &'static str {
        self.peers.iter().find(|(_, id)| **id == peer).map_or("a stranger", |(name, _)| name)
    }

    pub(crate) fn healed(&self) -> bool {
        self.node.world().now() >= SPAN
    }
}

async fn start(
    node: Node,
    run: Arc<Run>,
    name: &'static str,
) -> Result<(Site, Events), Box<dyn std::error::Error>> {
    let plan = &run.plan;
    let mut builder = simulated::builder(&node).config(plan.config.clone());
    let (mut peers, mut known) = (BTreeMap::new(), Vec::new());
    for member in &plan.members {
        let identity = Identity::from_secret_key([member.name.as_bytes()[0]; 32]);
        let id = identity.peer_id();
        peers.insert(member.name, id);
        if member.name == name {
            builder = builder.identity(identity);
            for address in &member.addresses {
                builder = builder.listen(format!("{}://0.0.0.0:{}", address.transport(), address.port()));
            }
        } else {
            known.extend(member.addresses.iter().map(|address| (id, address.clone())));
        }
    }
    if plan.kept {
        builder = builder.discover(Fixed::new(known.clone()));
    }
    watch::born(&peers[name].short().to_string());
    let mesh = builder.start().await?;
    let events = mesh.events();
    for (id, address) in known {
        mesh.add_address(id, address);
    }
    Ok((Site { name, node, mesh, run: run.clone(), peers: Arc::new(peers) }, events))
}

/// Waits for all workers; counters add up at every moment meanwhile.
async fn settle(site: &Site, mut workers: JoinSet<()>) {
    let by = site.run.plan.settled_by();
    while !workers.is_empty() {
        sample(site);
        if site.now() >= by {
            let count = workers.len();
            return site.run.ledger.accuse(format!("{}: {count} workers wait for ever", site.name));
        }
        let _ = timeout(Duration::from_millis(7), async {
            while let Some(ended) = workers.join_next().await {
                if let Err(error) = ended {
                    site.run.ledger.accuse(format!("{}: a worker ended badly: {error}", site.name));
                }
            }
        })
        .await;
    }
}

fn sample(site: &Site) {
    for peer in site.mesh.peers() {
        let counters = peer.counters();
        let ledger = &site.run.ledger;
        ledger.expect(counters.balanced(), || {
            format!("{}: the outcomes do not add up: {counters:?}", site.name)
        });
        ledger.expect(counters.in_flight <= IN_FLIGHT_MAX, || {
            format!("{}: {} messages in flight", site.name, counters.in_flight)
        });
    }
}

/// Once everything has healed, this node must get an answer from the other soon.
async fn talk(site: Site, to: &'static str) {
    sleep(SPAN.saturating_sub(site.now())).await;
    let begin = site.now();
    let start = Instant::now();
    let answered = timeout(TALK_WITHIN, async {
        loop {
            if let Ok(peer) = site.mesh.peer(site.peers[to]).await {
                let question = Ask { message: Blob::from(Vec::new()), think_ms: 0, answer: 0 };
                if peer.call(question).deadline(Duration::from_secs(1)).await.is_ok() {
                    return;
                }
            }
            sleep(Duration::from_millis(500)).await;
        }
    });
    let result = answered.await;
    let took = start.elapsed();
    // A node that has just started again has less time behind it than the faults.
    site.run.talked(site.name, to, took + begin.saturating_sub(SPAN));
    if result.is_err() {
        let links: Vec<String> = site.mesh.peers().iter().map(|peer| format!("{peer:?}")).collect();
        site.run.ledger.accuse(format!("{}: no answer from {to} within {took:?}; {links:?}", site.name));
    }
}

/// Events must tell a story that can be: up, then unreachable and resumed in turn, then down.
async fn follow(site: Outside, mut events: Events) {
    let mut up: BTreeMap<PeerId, bool> = BTreeMap::new();
    let mut carried: BTreeMap<PeerId, Transport> = BTreeMap::new();
    while let Some(event) = events.next().await {
        note(&site.run, &event, &up, &mut carried);
        let (peer, fits) = match &event {
            MeshEvent::Up { peer, .. } => (*peer, up.insert(*peer, true).is_none()),
            MeshEvent::Resumed { peer, .. } => (*peer, up.insert(*peer, true).is_some()),
            MeshEvent::Unreachable { peer } => (*peer, up.insert(*peer, false).is_some()),
            MeshEvent::Draining { peer } => (*peer, up.contains_key(peer)),
            MeshEvent::Down { peer, .. } => (*peer, up.remove(peer).is_some()),
            MeshEvent::Rejected { .. } => continue,
            other => return site.run.ledger.accuse(format!("{}: the event {other:?}", site.name)),
        };
        let name = site.name_of(peer);
        if matches!(event, MeshEvent::Unreachable { .. }) && !site.healed() {
            site.run.unreachable(|| format!("{}: no link carries the session with {name}", site.name));
        }
        site.run
            .ledger
            .expect(fits, || format!("{}: the event {event:?} of {name} does not follow", site.name));
        let text = format!("{event:?}");
        let word = text.split([' ', '{']).next().unwrap_or_default();
        site.node.event(format!("{name}: {word}"));
    }
}

/// Counts sessions, and what became of their links.
fn note(
    run: &Run,
    event: &MeshEvent,
    up: &BTreeMap<PeerId, bool>,
    carried: &mut BTreeMap<PeerId, Transport>,
) {
    match event {
        MeshEvent::Up { peer, transport } => {
            carried.insert(*peer, *transport);
            run.note(format!("sessions that began over {transport}"));
        }
        MeshEvent::Resumed { peer, transport } => {
            let before = carried.insert(*peer, *transport);
            let alive = up.get(peer) == Some(&true);
            match before.filter(|before| before != transport) {
                Some(_) if !alive => run.note("sessions that resumed over another transport"),
                Some(before) if rank(*transport) > rank(before) => {
                    run.note("handovers to a better transport")
                }
                Some(_) => run.note("handovers to the next best transport"),
                None => run.note("sessions that resumed over the same transport"),
            }
        }
        MeshEvent::Down { .. } => run.note("sessions that ended"),
        _ => {}
    }
}

fn rank(transport: Transport) -> usize {
    let order = [Transport::Ws, Transport::Wss, Transport::Tls, Transport::Quic];
    order.iter().position(|other| *other == transport).unwrap_or(0)
}

async fn leave(site: Site) {
    sample(&site);
    // Who has an answer may have it earlier than the one who gave it knows.
    let quiet = async {
        let handlers = || site.run.handlers.load(Ordering::SeqCst);
        while handlers() > 0 || site.mesh.peers().iter().any(|peer| peer.counters().in_flight > 0) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let _ = timeout(QUIET_WITHIN, quiet).await;
    for peer in site.mesh.peers() {
        let counters = peer.counters();
        site.run.ledger.expect(counters.in_flight == 0, || {
            format!("{}: all is settled, but {counters:?} to {}", site.name, site.name_of(peer.id()))
        });
    }
    let handlers = site.run.handlers.load(Ordering::SeqCst);
    site.run.ledger.expect(handlers == 0, || {
        format!("{}: nobody waits for an answer any more, but {handlers} handlers run", site.name)
    });
    let mut dice = site.dice("leave");
    sleep(dice.millis(0, 300)).await;
    if site.run.plan.drains {
        let (soft, hard) = (Duration::from_millis(500), Duration::from_millis(3_000));
        let start = Instant::now();
        site.mesh.drain(soft, hard).await;
        let took = start.elapsed();
        site.run.ledger.expect(took <= hard + Duration::from_millis(2), || {
            format!("{}: the drain took {took:?}", site.name)
        });
    }
}

/// Waits until nothing is left of the mesh: no socket, no task, no reader that waits.
async fn gone(run: &Run, node: &Node, name: &str, mut services: JoinSet<()>, tasks_before: usize) {
    let start = Instant::now();
    loop {
        while let Some(ended) = services.try_join_next() {
            if let Err(error) = ended {
                run.ledger.accuse(format!("{name}: a service ended badly: {error}"));
            }
        }
        let sockets = node.world().open_sockets(name).unwrap_or(0);
        let tasks = Handle::current().metrics().num_alive_tasks().saturating_sub(tasks_before);
        if sockets == 0 && tasks == 0 && services.is_empty() {
            return;
        }
        if start.elapsed() > GONE_WITHIN {
            let waiting = services.len();
            return run.ledger.accuse(format!(
                "{name}: {sockets} sockets, {tasks} tasks and {waiting} services are left; {} handlers",
                run.handlers.load(Ordering::SeqCst)
            ));
        }
        sleep(Duration::from_millis(50)).await;
    }
}
