//! TCP as its users see it: byte streams that stall, flow again, close in order or are reset.
//!
//! A connection has two directions. What a program writes goes into the send buffer of the direction
//! ([`SEND_BUFFER`]), leaves as segments as far as the receiver's window ([`RECEIVE_BUFFER`]) reaches, arrives
//! when the link says so, in order, and is acknowledged along the opposite link. Where the link is
//! partitioned or the receiving machine is down, segments stay at the head of their direction and are tried
//! again after [`RETRY_FIRST`], doubling up to [`RETRY_MAX`]. Congestion control is not modelled.

mod ending;
mod socket;

use std::collections::VecDeque;
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;

use crate::trace::{Fate, Protocol};
use crate::world::{HostId, State, What};

pub(crate) use socket::{Acceptor, Stream};

/// Bytes written but not yet acknowledged that one direction holds. A writer beyond it waits.
pub const SEND_BUFFER: u64 = 256 * 1024;
/// Bytes that have arrived or are under way and were not read yet. A sender beyond it waits.
pub const RECEIVE_BUFFER: u64 = 256 * 1024;
/// The longest segment, as large as the offloads of real network cards let it look.
pub const MAX_SEGMENT: usize = 16 * 1024;
/// The first retransmission of data comes after this time.
pub const RETRY_FIRST: Duration = Duration::from_millis(200);
/// The first retransmission of a connection request comes after this time (RFC 6298).
pub const SYN_RETRY_FIRST: Duration = Duration::from_secs(1);
/// The time between two retransmissions grows up to this. (Linux goes on to two minutes; a simulation that
/// waits so long after a partition shows nothing new.)
pub const RETRY_MAX: Duration = Duration::from_secs(2);
/// A connection request is given up after this time, as on Linux.
pub const SYN_GIVE_UP: Duration = Duration::from_secs(127);
/// Data is given up after this time, as on Linux.
pub const GIVE_UP: Duration = Duration::from_secs(924);

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    pub(crate) backlog: usize,
    pub(crate) queue: VecDeque<u64>,
    pub(crate) wakers: Vec<Waker>,
}

/// Two ends, and a direction that begins at each of them. End 0 dialled.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) ends: [End; 2],
    pub(crate) directions: [Direction; 2],
    /// It has fallen into a black hole: nothing gets through any more.
    pub(crate) lost: bool,
}

#[derive(Debug)]
pub(crate) struct End {
    pub(crate) host: HostId,
    pub(crate) address: SocketAddr,
    pub(crate) phase: Phase,
    pub(crate) error: Option<ErrorKind>,
    pub(crate) readers: Vec<Waker>,
    pub(crate) writers: Vec<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The dialling end, until it hears from the listener.
    Connecting,
    /// In use, or waiting to be accepted.
    Open,
    /// No program holds it. Whatever arrives for it is answered with a reset.
    Gone,
}

/// What one end sends to the other.
#[derive(Debug, Default)]
pub(crate) struct Direction {
    /// Written, not yet sent.
    queued: VecDeque<Bytes>,
    queued_bytes: u64,
    fin: Fin,
    /// Sent, under way or waiting for a retransmission; in order of arrival.
    flight: VecDeque<Segment>,
    stalled: Option<Stall>,
    arrival_scheduled: bool,
    last_arrival: Duration,
    /// Bytes ever sent.
    sent: u64,
    /// Bytes ever delivered and read, at the receiver...
    delivered: u64,
    read: u64,
    /// ...and as far as the sender knows.
    delivered_known: u64,
    read_known: u64,
    /// Acknowledgements under way: when they are due, and what they say.
    acknowledgements: VecDeque<(Duration, u64, u64)>,
    acknowledgement_retry: Option<Duration>,
    /// Delivered, not yet read.
    inbox: VecDeque<Bytes>,
    ended: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fin {
    #[default]
    No,
    Queued,
    Sent,
}

#[derive(Debug)]
struct Segment {
    sent: Duration,
    arrives: Duration,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Syn,
    SynAck,
    Data(Bytes),
    Fin,
}

impl Kind {
    fn len(&self) -> usize {
        if let Self::Data(bytes) = self { bytes.len() } else { 0 }
    }
}

#[derive(Clone, Copy, Debug)]
struct Stall {
    since: Duration,
    next: Duration,
}

impl Direction {
    fn room(&self) -> u64 {
        SEND_BUFFER.saturating_sub(self.sent + self.queued_bytes - self.delivered_known)
    }

    fn window(&self) -> u64 {
        (self.read_known + RECEIVE_BUFFER).saturating_sub(self.sent)
    }

    /// Forgets what was not delivered.
    fn clear(&mut self) {
        self.queued.clear();
        self.queued_bytes = 0;
        self.fin = Fin::Sent;
        self.flight.clear();
        self.stalled = None;
    }

    fn is_done(&self) -> bool {
        self.queued.is_empty() && self.fin != Fin::Queued && self.flight.is_empty()
    }
}

impl End {
    pub(crate) fn new(host: HostId, address: SocketAddr, phase: Phase) -> Self {
        Self { host, address, phase, error: None, readers: Vec::new(), writers: Vec::new() }
    }

    fn wake(&mut self, wakes: &mut Vec<Waker>) {
        wakes.append(&mut self.readers);
        wakes.append(&mut self.writers);
    }
}

impl Connection {
    /// Addresses of sender and receiver of a direction.
    fn route(&self, direction: usize) -> (SocketAddr, SocketAddr) {
        (self.ends[direction].address, self.ends[1 - direction].address)
    }
}

impl State {
    /// Begins to dial; the answer shows in the phase and the error of end 0.
    pub(crate) fn dial(
        &mut self,
        host: HostId,
        to: SocketAddr,
        from: Option<SocketAddr>,
    ) -> Result<u64, Error> {
        let Some(target) = self.route(host, to.ip()) else {
            return Err(ErrorKind::HostUnreachable.into());
        };
        let port = self.free_port(host, from.map_or(0, |from| from.port()), |host, port| {
            host.dialled.contains_key(&port) || host.listeners.contains_key(&port)
        })?;
        let id = self.next_connection;
        self.next_connection += 1;
        let ip = from.map(|from| from.ip()).filter(|ip| !ip.is_unspecified());
        let from = SocketAddr::new(ip.unwrap_or_else(|| self.source(host, to.ip())), port);
        self.hosts[host].dialled.insert(port, id);
        let ends = [End::new(host, from, Phase::Connecting), End::new(target, to, Phase::Gone)];
        let connection = Connection { ends, directions: Default::default(), lost: false };
        self.connections.insert(id, connection);
        self.send_segment(id, 0, Kind::Syn);
        Ok(id)
    }

    fn send_segment(&mut self, id: u64, direction: usize, kind: Kind) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (from, to) = (connection.ends[direction].host, connection.ends[1 - direction].host);
        let now = self.now;
        let arrival = self.link(from, to).arrival(now, kind.len());
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let lane = &mut connection.directions[direction];
        let arrives = arrival.max(lane.last_arrival);
        lane.last_arrival = arrives;
        lane.sent += kind.len() as u64;
        lane.flight.push_back(Segment { sent: now, arrives, kind });
        if !lane.arrival_scheduled {
            lane.arrival_scheduled = true;
            self.schedule(arrives, What::Segments { connection: id, direction });
        }
    }

    /// Sends what the window allows.
    pub(crate) fn transmit(&mut self, id: u64, direction: usize) {
        loop {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            if connection.ends[direction].phase == Phase::Connecting {
                return;
            }
            let lane = &mut connection.directions[direction];
            let window = usize::try_from(lane.window()).unwrap_or(usize::MAX).min(MAX_SEGMENT);
            let kind = match lane.queued.front_mut() {
                Some(_) if window == 0 => return,
                Some(front) if front.len() > window => Kind::Data(front.split_to(window)),
                Some(_) => lane.queued.pop_front().map_or(Kind::Fin, Kind::Data),
                None if lane.fin == Fin::Queued => {
                    lane.fin = Fin::Sent;
                    Kind::Fin
                }
                None => return,
            };
            lane.queued_bytes -= kind.len() as u64;
            self.send_segment(id, direction, kind);
        }
    }

    /// The head of this direction may have arrived.
    pub(crate) fn segments_due(&mut self, id: u64, direction: usize) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (from, to) = (connection.ends[direction].host, connection.ends[1 - direction].host);
        connection.directions[direction].arrival_scheduled = false;
        if connection.directions[direction].flight.is_empty() {
            return;
        }
        let swallowed = connection.lost.then_some(Fate::Blocked);
        let obstacle = self.link(from, to).obstacle(Protocol::Tcp).or(swallowed);
        let down = (!self.hosts[to].up).then_some(Fate::HostDown);
        if let Some(fate) = obstacle.or(down) {
            return self.stall(id, direction, fate);
        }
        if self.resend(id, direction) {
            return;
        }
        let now = self.now;
        loop {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            let lane = &mut connection.directions[direction];
            match lane.flight.front() {
                Some(head) if head.arrives <= now => {}
                Some(head) => {
                    let at = head.arrives;
                    lane.arrival_scheduled = true;
                    return self.schedule(at, What::Segments { connection: id, direction });
                }
                None => return self.forget_if_over(id),
            }
            let Some(segment) = lane.flight.pop_front() else { return };
            if !self.deliver(id, direction, segment) {
                return;
            }
        }
    }

    /// Nobody gets through: try again later, or give up.
    fn stall(&mut self, id: u64, direction: usize, fate: Fate) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let route = connection.route(direction);
        let lane = &mut connection.directions[direction];
        let Some(head) = lane.flight.front() else { return };
        let is_syn = matches!(head.kind, Kind::Syn);
        let (sent, len) = (head.sent, head.kind.len());
        let first = lane.stalled.is_none();
        let fresh = Stall { since: now, next: if is_syn { SYN_RETRY_FIRST } else { RETRY_FIRST } };
        let stall = lane.stalled.unwrap_or(fresh);
        lane.stalled = Some(Stall { since: stall.since, next: (stall.next * 2).min(RETRY_MAX) });
        if now - stall.since >= if is_syn { SYN_GIVE_UP } else { GIVE_UP } {
            return self.break_end(id, direction, ErrorKind::TimedOut);
        }
        lane.arrival_scheduled = true;
        self.schedule(now + stall.next, What::Segments { connection: id, direction });
        if first {
            self.packet(Protocol::Tcp, route, sent, len, fate);
        }
    }

    /// The way is free again: everything under way is sent once more. False if nothing was stalled.
    fn resend(&mut self, id: u64, direction: usize) -> bool {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        if connection.directions[direction].stalled.take().is_none() {
            return false;
        }
        let (from, to) = (connection.ends[direction].host, connection.ends[1 - direction].host);
        let lengths: Vec<usize> =
            connection.directions[direction].flight.iter().map(|segment| segment.kind.len()).collect();
        let mut arrives = now;
        let mut arrivals = VecDeque::new();
        for len in lengths {
            arrives = self.link(from, to).arrival(now, len).max(arrives);
            arrivals.push_back(arrives);
        }
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        let lane = &mut connection.directions[direction];
        for (segment, arrives) in lane.flight.iter_mut().zip(&arrivals) {
            segment.arrives = *arrives;
        }
        lane.last_arrival = arrives;
        lane.arrival_scheduled = true;
        let at = arrivals.front().copied().unwrap_or(now);
        self.schedule(at, What::Segments { connection: id, direction });
        true
    }

    /// Hands one segment to the receiving end. False: nothing more is to be delivered now.
    fn deliver(&mut self, id: u64, direction: usize, segment: Segment) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        let route = connection.route(direction);
        let (sent, len) = (segment.sent, segment.kind.len());
        let receiver = &mut connection.ends[1 - direction];
        let mut fate = Fate::Delivered;
        match segment.kind {
            Kind::Syn => match self.knock(id) {
                Knock::Accepted => self.send_segment(id, 1, Kind::SynAck),
                Knock::Refused => fate = Fate::NoSocket,
                Knock::Full => {
                    let Some(connection) = self.connections.get_mut(&id) else { return false };
                    connection.directions[0].flight.push_front(segment);
                    self.stall(id, 0, Fate::Backlog);
                    return false;
                }
            },
            // A program that closed has read the end of what it wanted; a close is no news to it.
            Kind::Fin if receiver.phase == Phase::Gone => {}
            _ if receiver.phase == Phase::Gone => fate = Fate::NoSocket,
            Kind::SynAck => {
                receiver.phase = Phase::Open;
                receiver.wake(&mut self.wakes);
                self.transmit(id, 0);
            }
            Kind::Data(bytes) => {
                self.wakes.append(&mut receiver.readers);
                connection.directions[direction].delivered += len as u64;
                connection.directions[direction].inbox.push_back(bytes);
                self.send_acknowledgement(id, direction);
            }
            Kind::Fin => {
                self.wakes.append(&mut receiver.readers);
                connection.directions[direction].ended = true;
            }
        }
        self.packet(Protocol::Tcp, route, sent, len, fate);
        if fate == Fate::NoSocket {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.directions[direction].clear();
            }
            self.send_reset(id, direction);
        }
        fate == Fate::Delivered
    }

    /// A connection request reached its host.
    fn knock(&mut self, id: u64) -> Knock {
        let Some(connection) = self.connections.get_mut(&id) else { return Knock::Refused };
        let to = connection.ends[1].address;
        let host = &mut self.hosts[connection.ends[1].host];
        let listener = host.listeners.get_mut(&to.port()).filter(|listener| {
            let at = listener.address.ip();
            at.is_unspecified() || at == to.ip()
        });
        match listener {
            None => Knock::Refused,
            Some(listener) if listener.queue.len() >= listener.backlog => Knock::Full,
            Some(listener) => {
                connection.ends[1].phase = Phase::Open;
                // An earlier life of the machine may have answered already: this one begins anew.
                let answers = &mut connection.directions[1];
                let arrival_scheduled = answers.arrival_scheduled;
                *answers = Direction { arrival_scheduled, ..Direction::default() };
                listener.queue.push_back(id);
                self.wakes.append(&mut listener.wakers);
                Knock::Accepted
            }
        }
    }

    /// The receiver of `direction` says what it has and what it has read.
    pub(crate) fn send_acknowledgement(&mut self, id: u64, direction: usize) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (from, to) = (connection.ends[1 - direction].host, connection.ends[direction].host);
        let due = self.now + self.link(from, to).settings.latency;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let lane = &mut connection.directions[direction];
        let (delivered, read) = (lane.delivered, lane.read);
        match lane.acknowledgements.back_mut() {
            Some(last) if last.0 >= due => (last.1, last.2) = (delivered, read),
            _ => {
                lane.acknowledgements.push_back((due, delivered, read));
                self.schedule(due, What::Acknowledge { connection: id, direction });
            }
        }
    }

    /// The sender of `direction` learns it.
    pub(crate) fn acknowledge(&mut self, id: u64, direction: usize) {
        let now = self.now;
        let Some(connection) = self.connections.get(&id) else { return };
        let (from, to) = (connection.ends[1 - direction].host, connection.ends[direction].host);
        let open = !connection.lost && self.link(from, to).obstacle(Protocol::Tcp).is_none();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let lane = &mut connection.directions[direction];
        if lane.acknowledgements.front().is_none_or(|next| next.0 > now) {
            return;
        }
        if !open {
            let wait = lane.acknowledgement_retry.unwrap_or(RETRY_FIRST);
            lane.acknowledgement_retry = Some((wait * 2).min(RETRY_MAX));
            // One retry carries all: what is said last is all that counts.
            if let Some((_, delivered, read)) = lane.acknowledgements.pop_back() {
                lane.acknowledgements.clear();
                lane.acknowledgements.push_back((now + wait, delivered, read));
                self.schedule(now + wait, What::Acknowledge { connection: id, direction });
            }
            return;
        }
        lane.acknowledgement_retry = None;
        while lane.acknowledgements.front().is_some_and(|next| next.0 <= now) {
            if let Some((_, delivered, read)) = lane.acknowledgements.pop_front() {
                lane.delivered_known = delivered;
                lane.read_known = read;
            }
        }
        if lane.room() > 0 {
            self.wakes.append(&mut connection.ends[direction].writers);
        }
        self.transmit(id, direction);
    }
}

enum Knock {
    Accepted,
    Refused,
    Full,
}
