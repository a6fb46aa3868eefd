//! Datagrams: frames that travel alone where the link has packets for them, and by the lane of their class
//! elsewhere.

use alloc::vec::Vec;

use super::Session;
use crate::error::Violation;
use crate::frame::{Decoded, Frame, read_frame};
use crate::id::{Lane, LinkId, Priority, StreamId};
use crate::schedule::Schedule;
use crate::time::Moment;

/// Streams whose next datagram travels alone. They wait apart from those that wait for a lane: neither holds up
/// the other.
#[derive(Debug, Default)]
pub(super) struct Packets {
    waiting: Schedule,
    /// Packets and lanes speak in turn.
    turn: bool,
}

impl Packets {
    pub(super) fn push(&mut self, priority: Priority, stream: StreamId) {
        self.waiting.push(priority, stream);
    }

    pub(super) fn remove(&mut self, priority: Priority, stream: StreamId) {
        self.waiting.remove(priority, stream);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn have_turn(&mut self) -> bool {
        self.turn = !self.turn;
        self.turn && !self.is_empty()
    }

    /// The link has no packets: all wait for its lane.
    pub(super) fn join(&mut self, schedule: &mut Schedule) {
        while let Some((priority, stream)) = self.waiting.pop(|_, _| true) {
            schedule.push(priority, stream);
        }
    }
}

impl Session {
    /// A stream has something to say.
    pub(super) fn speaks(&self) -> bool {
        !self.schedule.is_empty() || !self.packets.is_empty()
    }

    /// Whether the next thing that a stream has to say is a datagram that may travel alone.
    pub(super) fn travels_alone(&self, id: StreamId) -> bool {
        let stream = self.streams.get(&id);
        stream.is_some_and(|stream| stream.send.next_datagram(id).is_some() && !stream.send.too_long())
            && self.active.and_then(|link| self.links.get(&link)).is_some_and(|link| link.kind.lanes)
    }

    /// One datagram that travels alone, unless none may go now. Longer ones are sent to their lanes.
    pub(super) fn put_packet(
        &mut self,
        capacity: &mut dyn FnMut(Lane) -> usize,
        out: &mut Vec<u8>,
        now: Moment,
    ) -> bool {
        let room = if self.packets.is_empty() { 0 } else { capacity(Lane::DATAGRAM) };
        if room == 0 {
            return false;
        }
        let start = out.len();
        while out.len() == start
            && let Some((priority, id)) = self.packets.waiting.pop(|_, _| true)
        {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            if stream.send.next_datagram(id).is_some_and(|len| len > room) {
                stream.send.set_too_long(true);
                self.schedule.push(priority, id);
                continue;
            }
            stream.scheduled = false;
            if stream.send.next_datagram(id).is_some()
                && let Some((number, payload)) = stream.send.pop_datagram(now, &mut self.settled)
            {
                Frame::Datagram { stream: id, number, payload: &payload }.put(out);
            }
            self.settle(id);
            self.schedule(id);
        }
        out.len() > start
    }

    /// Datagrams that go by their lane: all of them on a byte link, those that are too long elsewhere.
    pub(super) fn speak_datagrams(
        &mut self,
        id: StreamId,
        lanes: bool,
        end: usize,
        out: &mut Vec<u8>,
        now: Moment,
    ) {
        while let Some(stream) = self.streams.get_mut(&id) {
            let len = stream.datagram_here(id, lanes);
            if len == 0 || out.len() + len + 32 > end {
                return;
            }
            let Some((number, payload)) = stream.send.pop_datagram(now, &mut self.settled) else { continue };
            Frame::Datagram { stream: id, number, payload: &payload }.put(out);
            if !lanes {
                stream.send.keep_unseen(len);
                self.departed(len as u64, now);
            }
        }
    }

    /// A frame that travelled alone.
    pub(super) fn handle_packet(&mut self, link: LinkId, run: &[u8], now: Moment) -> Result<(), Violation> {
        let lanes = self.links.get(&link).is_some_and(|state| state.kind.lanes);
        match read_frame(run)? {
            Decoded::Frame(frame @ Frame::Datagram { .. }, len) if lanes && len == run.len() => {
                self.handle_frame(link, frame, now)
            }
            Decoded::Frame(..) | Decoded::Skip(_) | Decoded::Incomplete(_) => {
                Err(Violation::malformed("a packet that is not one DATAGRAM frame"))
            }
        }
    }
}
