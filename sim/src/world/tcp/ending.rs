//! How connections end: in order, by a reset, or with the machine.

use std::io::ErrorKind;

use super::{Connection, Direction, Fin, Kind, Phase, RETRY_MAX};
use crate::trace::{Fate, Protocol};
use crate::world::{HostId, State, What};

impl State {
    /// Tells `end` that the other side is gone.
    pub(super) fn send_reset(&mut self, id: u64, end: usize) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (from, to) = (connection.ends[1 - end].host, connection.ends[end].host);
        let now = self.now;
        let at = self.link(from, to).arrival(now, 0);
        self.schedule(at, What::Reset { connection: id, end });
    }

    /// A reset reaches `end`. Where the link is cut it is lost: nobody repeats a reset, but an end that
    /// waits for something asks again and provokes another.
    pub(crate) fn reset_arrives(&mut self, id: u64, end: usize) {
        let now = self.now;
        let Some(connection) = self.connections.get(&id) else { return };
        let route = connection.route(1 - end);
        let (from, to) = (connection.ends[1 - end].host, connection.ends[end].host);
        let connecting = connection.ends[end].phase == Phase::Connecting;
        let lane = &connection.directions[end];
        let asks_again = connecting || lane.sent > lane.delivered_known || lane.queued_bytes > 0;
        let swallowed = connection.lost.then_some(Fate::Blocked);
        if let Some(fate) = self.link(from, to).obstacle(Protocol::Tcp).or(swallowed) {
            // From a black hole no answer ever comes.
            if asks_again && swallowed.is_none() {
                self.schedule(now + RETRY_MAX, What::Reset { connection: id, end });
            }
            return self.packet(Protocol::Tcp, route, now, 0, fate);
        }
        self.packet(Protocol::Tcp, route, now, 0, Fate::Reset);
        let kind = if connecting { ErrorKind::ConnectionRefused } else { ErrorKind::ConnectionReset };
        self.break_end(id, end, kind);
    }

    /// This end is of no more use. What it has received can still be read.
    pub(super) fn break_end(&mut self, id: u64, end: usize, error: ErrorKind) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.directions[end].clear();
        let end = &mut connection.ends[end];
        end.error = Some(error);
        end.wake(&mut self.wakes);
        self.forget_if_over(id);
    }

    /// The program lets go of its end: what it has written still goes out, then the end of the stream. If
    /// it leaves bytes unread, the other side is told by a reset (RFC 1122, 4.2.2.13).
    pub(crate) fn close(&mut self, id: u64, end: usize) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let phase = std::mem::replace(&mut connection.ends[end].phase, Phase::Gone);
        if phase == Phase::Connecting {
            connection.directions[end].clear();
        }
        if connection.ends[end].error.is_some() || phase == Phase::Connecting {
            return self.forget_if_over(id);
        }
        if connection.directions[1 - end].inbox.is_empty() {
            if connection.directions[end].fin == Fin::No {
                connection.directions[end].fin = Fin::Queued;
            }
            self.transmit(id, end);
            self.forget_if_over(id);
        } else {
            self.abort(id, end);
        }
    }

    /// The program lets go of its end, and what it has written is lost.
    pub(crate) fn abort(&mut self, id: u64, end: usize) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.ends[end].phase = Phase::Gone;
        connection.directions[end].clear();
        connection.directions[1 - end].inbox.clear();
        self.send_reset(id, 1 - end);
    }

    /// The fault: both sides see a reset now.
    pub(crate) fn reset_between(&mut self, a: HostId, b: HostId) {
        for id in self.connections_where(|hosts| hosts == [a, b] || hosts == [b, a]) {
            for end in 0..2 {
                let now = self.now;
                let Some(connection) = self.connections.get(&id) else { break };
                let route = connection.route(1 - end);
                self.packet(Protocol::Tcp, route, now, 0, Fate::Reset);
                self.break_end(id, end, ErrorKind::ConnectionReset);
            }
        }
    }

    /// The fault: nothing gets through any more, and nobody is told.
    pub(crate) fn lose_between(&mut self, a: HostId, b: HostId) {
        for id in self.connections_where(|hosts| hosts == [a, b] || hosts == [b, a]) {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.lost = true;
            }
        }
    }

    fn connections_where(&self, wanted: impl Fn([HostId; 2]) -> bool) -> Vec<u64> {
        let hosts = |connection: &Connection| [connection.ends[0].host, connection.ends[1].host];
        self.connections
            .iter()
            .filter(|(_, connection)| wanted(hosts(connection)))
            .map(|(id, _)| *id)
            .collect()
    }

    pub(crate) fn connections_held_by(&self, host: HostId) -> usize {
        let ends = self.connections.values().flat_map(|connection| &connection.ends);
        ends.filter(|end| end.host == host && end.phase != Phase::Gone).count()
    }

    /// The machine loses power: nothing more comes from it, and nothing that it had survives. Its peers go
    /// on sending, a connection request too, until it answers with a reset after a restart.
    pub(crate) fn lose_connections(&mut self, host: HostId) {
        for id in self.connections_where(|hosts| hosts.contains(&host)) {
            for end in 0..2 {
                let Some(connection) = self.connections.get_mut(&id) else { break };
                if connection.ends[end].host != host {
                    continue;
                }
                connection.ends[end].phase = Phase::Gone;
                connection.ends[end].wake(&mut self.wakes);
                connection.directions[end].clear();
                let peer = &mut connection.directions[1 - end];
                peer.inbox.clear();
                // A closed window is probed; here the probe is the data itself.
                peer.read_known = peer.sent;
                let unanswered = connection.ends[1 - end].phase == Phase::Connecting;
                if unanswered && connection.directions[1 - end].flight.is_empty() {
                    self.send_segment(id, 1 - end, Kind::Syn);
                }
                self.transmit(id, 1 - end);
                self.forget_if_over(id);
            }
        }
    }

    /// A program ended: everything it left open is closed.
    pub(crate) fn close_connections(&mut self, host: HostId) {
        for id in self.connections_where(|hosts| hosts.contains(&host)) {
            for end in 0..2 {
                let Some(connection) = self.connections.get(&id) else { break };
                let end_is_held = connection.ends[end].phase != Phase::Gone;
                if connection.ends[end].host == host && end_is_held {
                    self.close(id, end);
                }
            }
        }
    }

    /// A connection that nobody holds and that has nothing under way leaves no trace.
    pub(super) fn forget_if_over(&mut self, id: u64) {
        let Some(connection) = self.connections.get(&id) else { return };
        let gone = connection.ends.iter().all(|end| end.phase == Phase::Gone);
        if !gone || !connection.directions.iter().all(Direction::is_done) {
            return;
        }
        let dialler = &connection.ends[0];
        let (host, port) = (dialler.host, dialler.address.port());
        let dialled = &mut self.hosts[host].dialled;
        if dialled.get(&port) == Some(&id) {
            dialled.remove(&port);
        }
        if let Some(mut connection) = self.connections.remove(&id) {
            connection.ends.iter_mut().for_each(|end| end.wake(&mut self.wakes));
        }
    }
}
