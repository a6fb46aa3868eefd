//! The simulated world: hosts, links, sockets, the queue of what is under way, and the faults.
//!
//! Everything lives behind one lock and moves in ticks. While a tick runs, nodes only put things into the
//! world; between ticks the cluster applies the faults that are due and hands over what has
//! arrived. So the order in which nodes run within a tick cannot be seen from inside, and nothing in here
//! needs a timer or a task.

pub(crate) mod tcp;
pub(crate) mod udp;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use crate::fault::Fault;
use crate::link::{Link, LinkSettings};
use crate::trace::{Fate, Line, Protocol, Trace};
use crate::world::tcp::{Connection, Listener};
use crate::world::udp::{Packet, Socket};

/// Lines of the trace that are kept for a failure report. Default: 200.
const TRACE_LINES: usize = 200;
/// Ports that the simulated systems choose from, as RFC 6335 says.
const EPHEMERAL_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;

/// Tasks that may wait for one socket at once.
const MAX_WAITERS: usize = 64;

/// Index of a host.
pub(crate) type HostId = usize;

/// A fault that cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultError {
    /// No node of the cluster has this name.
    #[error("no node is called {0:?}")]
    UnknownNode(String),
    /// A share is no number between 0 and 1.
    #[error("a rate must lie between 0 and 1")]
    Rate,
}

/// What the cluster has to do to a node between two ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    Crash(HostId),
    Kill(HostId),
    Restart(HostId),
}

/// A handle to the simulated world: faults at run time, and the virtual clock.
#[derive(Clone)]
pub struct World(Arc<Mutex<State>>);

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State::new(seed))))
    }

    /// Runs `work` on the state; wakes tasks after the lock is gone, since a waker may drop anything.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let (result, wakes) = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let result = work(&mut state);
            (result, std::mem::take(&mut state.wakes))
        };
        wakes.into_iter().for_each(Waker::wake);
        result
    }

    /// Virtual time since the start of the run: the beginning of the current tick.
    pub fn now(&self) -> Duration {
        self.with(|state| state.now)
    }

    /// Applies a fault now. Crash, kill and restart happen before the next tick.
    ///
    /// # Errors
    ///
    /// The fault names an unknown node, or a rate outside `0.0..=1.0`; nothing has happened.
    pub fn fault(&self, fault: &Fault) -> Result<(), FaultError> {
        self.with(|state| state.apply(fault))
    }

    /// [`Fault::Partition`], now.
    ///
    /// # Errors
    ///
    /// As [`fault()`](Self::fault).
    pub fn partition(&self, a: &str, b: &str) -> Result<(), FaultError> {
        self.fault(&Fault::Partition { a: a.into(), b: b.into() })
    }

    /// [`Fault::PartitionOneWay`], now.
    ///
    /// # Errors
    ///
    /// As [`fault()`](Self::fault).
    pub fn partition_one_way(&self, from: &str, to: &str) -> Result<(), FaultError> {
        self.fault(&Fault::PartitionOneWay { from: from.into(), to: to.into() })
    }

    /// [`Fault::Heal`], now.
    ///
    /// # Errors
    ///
    /// As [`fault()`](Self::fault).
    pub fn heal(&self, a: &str, b: &str) -> Result<(), FaultError> {
        self.fault(&Fault::Heal { a: a.into(), b: b.into() })
    }

    /// [`Fault::Reset`], now.
    ///
    /// # Errors
    ///
    /// As [`fault()`](Self::fault).
    pub fn reset(&self, a: &str, b: &str) -> Result<(), FaultError> {
        self.fault(&Fault::Reset { a: a.into(), b: b.into() })
    }

    /// [`Fault::BlockUdp`], now.
    ///
    /// # Errors
    ///
    /// As [`fault()`](Self::fault).
    pub fn block_udp(&self, a: &str, b: &str) -> Result<(), FaultError> {
        self.fault(&Fault::BlockUdp { a: a.into(), b: b.into() })
    }

    /// [`Fault::UnblockUdp`], now.
    ///
    /// # Errors
    ///
    /// As [`fault()`](Self::fault).
    pub fn unblock_udp(&self, a: &str, b: &str) -> Result<(), FaultError> {
        self.fault(&Fault::UnblockUdp { a: a.into(), b: b.into() })
    }

    /// [`Fault::Crash`], before the next tick.
    ///
    /// # Errors
    ///
    /// As [`fault()`](Self::fault).
    pub fn crash(&self, node: &str) -> Result<(), FaultError> {
        self.fault(&Fault::Crash { node: node.into() })
    }

    /// [`Fault::Kill`], before the next tick.
    ///
    /// # Errors
    ///
    /// As [`fault()`](Self::fault).
    pub fn kill(&self, node: &str) -> Result<(), FaultError> {
        self.fault(&Fault::Kill { node: node.into() })
    }

    /// [`Fault::Restart`], before the next tick.
    ///
    /// # Errors
    ///
    /// As [`fault()`](Self::fault).
    pub fn restart(&self, node: &str) -> Result<(), FaultError> {
        self.fault(&Fault::Restart { node: node.into() })
    }

    /// The settings of the link from one node to another, as faults have left them.
    ///
    /// # Errors
    ///
    /// No node has that name.
    pub fn link(&self, from: &str, to: &str) -> Result<LinkSettings, FaultError> {
        self.with(|state| {
            let (from, to) = (state.host_named(from)?, state.host_named(to)?);
            Ok(state.link(from, to).settings.clone())
        })
    }

    /// Open TCP connections and bound sockets of a node, for tests that look for leaks.
    ///
    /// # Errors
    ///
    /// No node has that name.
    pub fn open_sockets(&self, node: &str) -> Result<usize, FaultError> {
        self.with(|state| {
            let id = state.host_named(node)?;
            let host = &state.hosts[id];
            Ok(host.udp.len() + host.listeners.len() + state.connections_held_by(id))
        })
    }

    /// Moves the clock and applies the faults that are due. Returns the nodes to crash or start, which has to
    /// happen before [`hand_over()`](Self::hand_over): what arrives now does not reach a machine that is down.
    pub(crate) fn begin_tick(&self, now: Duration) -> Vec<Power> {
        self.with(|state| {
            state.now = now;
            while state.script.front().is_some_and(|(at, _)| *at <= now) {
                let Some((_, fault)) = state.script.pop_front() else { break };
                // The cluster has checked every fault of the script before the first tick.
                let _ = state.apply(&fault);
            }
            std::mem::take(&mut state.power)
        })
    }

    /// Hands over what has arrived.
    pub(crate) fn hand_over(&self) {
        self.with(|state| {
            while state.queue.peek().is_some_and(|Reverse(next)| next.at <= state.now) {
                if let Some(Reverse(next)) = state.queue.pop() {
                    state.happen(next.what);
                }
            }
        });
    }
}

/// One machine.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) ip: IpAddr,
    pub(crate) up: bool,
    /// Counts lives: sockets of an earlier life are dead.
    pub(crate) life: u32,
    pub(crate) listeners: BTreeMap<u16, Listener>,
    /// Local ports of outgoing connections.
    pub(crate) dialled: BTreeMap<u16, u64>,
    pub(crate) udp: BTreeMap<u16, Socket>,
    next_port: u16,
}

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum What {
    /// Segments of this direction may have arrived.
    Segments { connection: u64, direction: usize },
    /// The sender of this direction learns what was received and read.
    Acknowledge { connection: u64, direction: usize },
    /// A reset reaches this end.
    Reset { connection: u64, end: usize },
    /// A datagram arrives.
    Datagram(Packet),
}

#[derive(Debug)]
pub(crate) struct Scheduled {
    at: Duration,
    number: u64,
    what: What,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Everything there is.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) seed: u64,
    pub(crate) now: Duration,
    pub(crate) hosts: Vec<Host>,
    pub(crate) names: BTreeMap<String, HostId>,
    addresses: BTreeMap<IpAddr, HostId>,
    links: BTreeMap<(HostId, HostId), Link>,
    pub(crate) default_link: LinkSettings,
    pub(crate) connections: BTreeMap<u64, Connection>,
    pub(crate) next_connection: u64,
    pub(crate) trace: Trace,
    pub(crate) wakes: Vec<Waker>,
    pub(crate) script: VecDeque<(Duration, Fault)>,
    queue: BinaryHeap<Reverse<Scheduled>>,
    next_number: u64,
    power: Vec<Power>,
}

impl State {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            now: Duration::ZERO,
            hosts: Vec::new(),
            names: BTreeMap::new(),
            addresses: BTreeMap::new(),
            links: BTreeMap::new(),
            default_link: LinkSettings::default(),
            connections: BTreeMap::new(),
            next_connection: 0,
            trace: Trace::new(TRACE_LINES),
            wakes: Vec::new(),
            script: VecDeque::new(),
            queue: BinaryHeap::new(),
            next_number: 0,
            power: Vec::new(),
        }
    }

    pub(crate) fn add_host(&mut self, name: &str, ip: IpAddr) -> HostId {
        let id = self.hosts.len();
        self.names.insert(name.to_owned(), id);
        self.addresses.insert(ip, id);
        self.hosts.push(Host {
            name: name.to_owned(),
            ip,
            up: true,
            life: 0,
            listeners: BTreeMap::new(),
            dialled: BTreeMap::new(),
            udp: BTreeMap::new(),
            next_port: *EPHEMERAL_PORTS.start(),
        });
        id
    }

    pub(crate) fn host_named(&self, name: &str) -> Result<HostId, FaultError> {
        self.names.get(name).copied().ok_or_else(|| FaultError::UnknownNode(name.to_owned()))
    }

    /// The host that `ip` leads to, seen from `from`.
    pub(crate) fn route(&self, from: HostId, ip: IpAddr) -> Option<HostId> {
        if ip.is_loopback() { Some(from) } else { self.addresses.get(&ip).copied() }
    }

    /// The source address of packets from `host` to `to`.
    pub(crate) fn source(&self, host: HostId, to: IpAddr) -> IpAddr {
        if to.is_loopback() { to } else { self.hosts[host].ip }
    }

    pub(crate) fn link(&mut self, from: HostId, to: HostId) -> &mut Link {
        let (seed, hosts, default) = (self.seed, &self.hosts, &self.default_link);
        self.links.entry((from, to)).or_insert_with(|| {
            let settings = if from == to {
                LinkSettings { latency: Duration::ZERO, ..LinkSettings::default() }
            } else {
                default.clone()
            };
            Link::new(seed, &hosts[from].name, &hosts[to].name, settings)
        })
    }

    pub(crate) fn schedule(&mut self, at: Duration, what: What) {
        let number = self.next_number;
        self.next_number += 1;
        self.queue.push(Reverse(Scheduled { at, number, what }));
    }

    /// A free port: `wanted`, or the next ephemeral one that `taken` does not know.
    pub(crate) fn free_port(
        &mut self,
        host: HostId,
        wanted: u16,
        taken: impl Fn(&Host, u16) -> bool,
    ) -> std::io::Result<u16> {
        let host = &mut self.hosts[host];
        if wanted != 0 {
            let free = !taken(host, wanted);
            return free.then_some(wanted).ok_or_else(|| std::io::ErrorKind::AddrInUse.into());
        }
        for _ in EPHEMERAL_PORTS {
            let port = host.next_port;
            host.next_port = port.checked_add(1).unwrap_or(*EPHEMERAL_PORTS.start());
            if !taken(host, port) {
                return Ok(port);
            }
        }
        Err(std::io::ErrorKind::AddrInUse.into())
    }

    pub(crate) fn packet(
        &mut self,
        protocol: Protocol,
        route: (SocketAddr, SocketAddr),
        sent: Duration,
        len: usize,
        fate: Fate,
    ) {
        let (from, to) = route;
        self.trace.push(Line::Packet { at: self.now, sent, from, to, protocol, len, fate });
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Segments { connection, direction } => self.segments_due(connection, direction),
            What::Acknowledge { connection, direction } => self.acknowledge(connection, direction),
            What::Reset { connection, end } => self.reset_arrives(connection, end),
            What::Datagram(packet) => self.datagram_arrives(packet),
        }
    }

    /// Whether `fault` can be applied.
    pub(crate) fn check(&self, fault: &Fault) -> Result<(), FaultError> {
        for node in fault.nodes() {
            self.host_named(node)?;
        }
        match fault {
            Fault::Loss { rate, .. }
            | Fault::Duplicate { rate, .. }
            | Fault::Reorder { rate, .. }
            | Fault::Corrupt { rate, .. }
                if !(0.0..=1.0).contains(rate) =>
            {
                Err(FaultError::Rate)
            }
            _ => Ok(()),
        }
    }

    fn apply(&mut self, fault: &Fault) -> Result<(), FaultError> {
        self.check(fault)?;
        let text = serde_json::to_string(fault).unwrap_or_else(|_| format!("{fault:?}"));
        self.trace.push(Line::Fault { at: self.now, fault: text });
        match fault {
            Fault::Latency { a, b, latency_ms, jitter_ms } => self.both(a, b, |link| {
                link.settings.latency = Duration::from_millis(*latency_ms);
                link.settings.jitter = Duration::from_millis(*jitter_ms);
            }),
            Fault::Bandwidth { a, b, bytes_per_second } => {
                self.both(a, b, |link| link.settings.bandwidth = NonZeroU64::new(*bytes_per_second))
            }
            Fault::Loss { a, b, rate } => self.both(a, b, |link| link.settings.loss = *rate),
            Fault::Duplicate { a, b, rate } => self.both(a, b, |link| link.settings.duplicate = *rate),
            Fault::Reorder { a, b, rate, delay_ms } => self.both(a, b, |link| {
                link.settings.reorder = *rate;
                link.settings.reorder_delay = Duration::from_millis(*delay_ms);
            }),
            Fault::Corrupt { a, b, rate } => self.both(a, b, |link| link.settings.corrupt = *rate),
            Fault::BlockUdp { a, b } => self.both(a, b, |link| link.udp_blocked = true),
            Fault::UnblockUdp { a, b } => self.both(a, b, |link| link.udp_blocked = false),
            Fault::BlockTcp { a, b } => self.both(a, b, |link| link.tcp_blocked = true),
            Fault::BlockTcpOneWay { from, to } => {
                let (from, to) = (self.host_named(from)?, self.host_named(to)?);
                self.link(from, to).tcp_blocked = true;
                Ok(())
            }
            Fault::UnblockTcp { a, b } => self.both(a, b, |link| link.tcp_blocked = false),
            Fault::BlackHole { a, b } => {
                let (a, b) = (self.host_named(a)?, self.host_named(b)?);
                self.lose_between(a, b);
                Ok(())
            }
            Fault::Partition { a, b } => self.both(a, b, |link| link.partitioned = true),
            Fault::Heal { a, b } => self.both(a, b, |link| link.partitioned = false),
            Fault::PartitionOneWay { from, to } => {
                let (from, to) = (self.host_named(from)?, self.host_named(to)?);
                self.link(from, to).partitioned = true;
                Ok(())
            }
            Fault::Reset { a, b } => {
                let (a, b) = (self.host_named(a)?, self.host_named(b)?);
                self.reset_between(a, b);
                Ok(())
            }
            Fault::Crash { node } => self.power(node, Power::Crash),
            Fault::Kill { node } => self.power(node, Power::Kill),
            Fault::Restart { node } => self.power(node, Power::Restart),
        }
    }

    fn both(&mut self, a: &str, b: &str, set: impl Fn(&mut Link)) -> Result<(), FaultError> {
        let (a, b) = (self.host_named(a)?, self.host_named(b)?);
        set(self.link(a, b));
        set(self.link(b, a));
        Ok(())
    }

    fn power(&mut self, node: &str, act: impl FnOnce(HostId) -> Power) -> Result<(), FaultError> {
        let power = act(self.host_named(node)?);
        self.power.push(power);
        Ok(())
    }

    /// A life ends. `silent`: the machine is gone with it. Otherwise its kernel closes what it left open.
    pub(crate) fn end_life(&mut self, host: HostId, silent: bool) {
        if silent {
            self.lose_connections(host);
        } else {
            self.close_connections(host);
        }
        let host = &mut self.hosts[host];
        host.up = !silent;
        host.life += 1;
        // Wakers are dropped outside the lock, and waking is the way to get them there.
        let listeners = std::mem::take(&mut host.listeners).into_values();
        self.wakes.extend(listeners.flat_map(|listener| listener.wakers));
        let sockets = std::mem::take(&mut host.udp).into_values();
        self.wakes.extend(sockets.flat_map(|socket| socket.wakers));
    }
}

/// Remembers who to wake; the same task once. Where many tasks came and gave up, all are woken to ask again.
pub(crate) fn register(wakers: &mut Vec<Waker>, cx: &Context<'_>, wakes: &mut Vec<Waker>) {
    if wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
        return;
    }
    if wakers.len() == MAX_WAITERS {
        wakes.append(wakers);
    }
    wakers.push(cx.waker().clone());
}
