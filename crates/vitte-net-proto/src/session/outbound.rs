//! Frames out.

use alloc::vec::Vec;

use super::links::ResumeOut;
use super::{LinkId, Session};
use crate::frame::{
    CONTROL_MAX, Frame, NAME_MAX, RESUME_ENTRIES_MAX, data_overhead, put_data_header, put_resume,
};
use crate::id::{Lane, Priority, StreamId};
use crate::stream::receive::News;
use crate::stream::send::SendEnd;
use crate::time::Moment;

/// Room that any control frame fits in.
const CONTROL_ROOM: usize = CONTROL_MAX + 8;
/// Room that the header of a DATA frame, an OPEN and a FIN fit in, and some payload.
const SPEAK_ROOM: usize = NAME_MAX + 128;

/// The longest DATA frame that is sent. A frame counts when all of it is here: longer ones would be
/// acknowledged later, and leave others less often a turn.
const FRAME_MOST: usize = 16 << 10;

impl Session {
    /// Appends whole frames for one lane of a link to `out`, at most as many bytes as `capacity` says that
    /// lane takes, and answers the lane; `None` when there is nothing to send now, or no room. On a link
    /// with one lane the answer is always lane 0. Poll until `None`.
    ///
    /// The answer [`Lane::DATAGRAM`] is one frame that is to travel alone and may be lost. Of it, `capacity` says
    /// how long such a frame may be now; 0 while none may go, so that it waits. A longer one takes a lane.
    ///
    /// A lane with less than 4.2 KiB of room gets no control frames, one with less than 400 bytes none.
    pub fn poll_transmit(
        &mut self,
        link: LinkId,
        capacity: &mut dyn FnMut(Lane) -> usize,
        out: &mut Vec<u8>,
        now: Moment,
    ) -> Option<Lane> {
        let lanes = self.links.get(&link)?.kind.lanes;
        let start = out.len();
        let room = capacity(Lane::CONTROL);
        let active = self.active == Some(link);
        if !lanes && active {
            self.packets.join(&mut self.schedule);
        }
        let speaks = active && !self.lost && self.speaks();
        if room >= CONTROL_ROOM {
            self.put_link_control(link, start + room, out, now);
            if active && !self.lost && (self.state_now || speaks) {
                self.put_statements(start + room, out);
                (self.unstated, self.stated) = (0, now);
            }
        }
        if lanes && out.len() > start {
            return Some(Lane::CONTROL);
        }
        if speaks && !self.links.get(&link)?.waits_for_resume {
            if lanes && self.packets.have_turn() && self.put_packet(capacity, out, now) {
                return Some(Lane::DATAGRAM);
            }
            let lane = self.put_data(lanes, capacity, start, out, now);
            if lanes && lane.is_none() && self.put_packet(capacity, out, now) {
                return Some(Lane::DATAGRAM);
            }
            if lanes {
                return lane;
            }
        }
        (out.len() > start).then_some(Lane::CONTROL)
    }

    /// Frames that belong to the link itself.
    fn put_link_control(&mut self, id: LinkId, end: usize, out: &mut Vec<u8>, _now: Moment) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if let Some(token) = link.pong_due.take() {
            Frame::Pong { token }.put(out);
        }
        if let Some(token) = link.ping_due.take() {
            Frame::Ping { token }.put(out);
        }
        if link.close_due && end - out.len() >= self.closing.len() {
            link.close_due = false;
            out.extend_from_slice(&self.closing);
        }
        while end - out.len() >= CONTROL_ROOM {
            let Some(link) = self.links.get_mut(&id) else { return };
            let Some(ResumeOut { reply, from }) = link.resume_out else { return };
            let mut entries: Vec<_> = self
                .streams
                .range(from..)
                .filter(|(_, stream)| stream.accepted && !stream.receive.over())
                .map(|(id, stream)| (*id, stream.receive.offsets()))
                .take(RESUME_ENTRIES_MAX + 1)
                .collect();
            let next = (entries.len() > RESUME_ENTRIES_MAX).then(|| entries.pop()).flatten();
            put_resume(out, next.is_none(), reply, &entries);
            link.resume_out = next.map(|(from, _)| ResumeOut { reply, from });
        }
    }

    /// Offsets, terminal states, and what else waits for company.
    pub(super) fn put_statements(&mut self, end: usize, out: &mut Vec<u8>) {
        if core::mem::take(&mut self.drain_due) {
            Frame::Drain.put(out);
        }
        if let Some(granted) = self.grant_due() {
            self.peer_told = granted;
            Frame::MaxStreams { count: granted }.put(out);
        }
        while end - out.len() >= CONTROL_ROOM / 4 {
            if let Some(stream) = self.retires.pop_front() {
                Frame::Retire { stream }.put(out);
                continue;
            }
            let Some(id) = self.stating.pop_front() else { break };
            self.put_statement(id, out);
        }
        if self.stating.is_empty() && self.retires.is_empty() {
            self.state_now = false;
            self.state_at = None;
        }
    }

    fn put_statement(&mut self, id: StreamId, out: &mut Vec<u8>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.stating = false;
        if stream.info.is_none() || (!stream.accepted && stream.receive.open()) {
            return;
        }
        let stop_due = stream.receive.terminal().is_some() && !stream.stop_sent && !stream.receive.over();
        // STOP may overtake what the last link still carries: it never goes without the count behind it.
        if let Some(consumed) = stream.receive.take_consumed(stop_due) {
            let (count, delivered) = (consumed.count, consumed.delivered);
            Frame::Latest { stream: id, count, delivered }.put(out);
        }
        // Also a stream that was accepted and stopped at once was accepted.
        if stream.receive.news() != News::None || stream.accept_due {
            Frame::Offsets { stream: id, offsets: stream.receive.offsets() }.put(out);
            stream.receive.mark_told();
            stream.accept_due = false;
        }
        if let Some((terminal, taken)) = stream.receive.terminal()
            && stop_due
        {
            Frame::Stop { stream: id, code: terminal.code, taken, reason: &terminal.reason }.put(out);
            stream.stop_sent = true;
        }
    }

    /// Fills one lane with frames of the streams whose turn it is.
    fn put_data(
        &mut self,
        lanes: bool,
        capacity: &mut dyn FnMut(Lane) -> usize,
        start: usize,
        out: &mut Vec<u8>,
        now: Moment,
    ) -> Option<Lane> {
        let mut filled: Option<(Lane, usize)> = None;
        loop {
            let replay_open = self.in_flight < self.config.replay_budget;
            let window_open = replay_open && self.in_flight < self.window.size();
            let (schedule, streams) = (&mut self.schedule, &self.streams);
            let chosen = schedule.pop(|priority, stream| {
                let datagram = streams.get(&stream).map_or(0, |state| state.datagram_room(stream, lanes));
                let lane = if lanes { Lane::of(priority, stream) } else { Lane::CONTROL };
                let room = match filled {
                    Some((taken, room)) if taken == lane => room.saturating_sub(out.len() - start),
                    Some(_) => 0,
                    None => capacity(lane).saturating_sub(out.len() - start),
                };
                let urgent = priority == Priority::Urgent && replay_open;
                room >= SPEAK_ROOM.max(datagram) && (window_open || urgent)
            });
            let Some((priority, id)) = chosen else { break };
            let lane = if lanes { Lane::of(priority, id) } else { Lane::CONTROL };
            let (_, room) = *filled.get_or_insert_with(|| (lane, capacity(lane)));
            self.speak(id, lanes, start + room, out, now);
            if out.len() == start {
                // It had nothing to say any more: streams of other lanes may.
                filled = None;
            }
        }
        filled.map(|(lane, _)| lane).filter(|_| out.len() > start)
    }

    /// A stream has nothing to say any more, and waits for no turn.
    pub(super) fn unschedule(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && core::mem::take(&mut stream.scheduled)
        {
            let priority = stream.priority();
            self.schedule.remove(priority, id);
            self.packets.remove(priority, id);
        }
    }

    /// Bytes are under way that the peer will acknowledge.
    pub(super) fn departed(&mut self, len: u64, now: Moment) {
        self.in_flight += len;
        self.window.transmitted(len, self.in_flight, now);
        if let Some(link) = self.active.and_then(|active| self.links.get_mut(&active)) {
            if self.in_flight == len { link.owe_afresh(now) } else { link.owe(now) }
        }
    }

    /// One stream says what it can in one frame, and goes to the end of its queue if it has more.
    fn speak(&mut self, id: StreamId, lanes: bool, end: usize, out: &mut Vec<u8>, now: Moment) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.scheduled = false;
        if !stream.open_sent {
            stream.open_sent = true;
            // The peer may have shown in the meantime that it knows the stream.
            if let Some(info) = stream.info.as_ref().filter(|_| !stream.open_heard) {
                Frame::Open { stream: id, open: info.to_frame(now) }.put(out);
            }
        }
        self.speak_datagrams(id, lanes, end, out, now);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let offset = stream.send.next();
        let room = (end - out.len()).min(FRAME_MOST);
        let room = room.saturating_sub(data_overhead(id, offset, room) + 16);
        let len = stream.send.prepare(room, now, &mut self.settled);
        if len > 0 {
            // `prepare` has begun what fits: whatever is left in the queue is for a later frame.
            let push = stream.send.drained_after(len);
            put_data_header(out, id, offset, push, len);
            stream.send.copy(len, out);
            self.departed(len as u64, now);
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match stream.send.take_end() {
            Some(SendEnd::Fin(end)) => Frame::Fin { stream: id, end }.put(out),
            Some(SendEnd::Reset(code, reason)) if out.len() + reason.len() + 32 <= end => {
                Frame::Reset { stream: id, code, reason }.put(out);
            }
            Some(SendEnd::Reset(code, _)) => Frame::Reset { stream: id, code, reason: "" }.put(out),
            None => {}
        }
        self.settle(id);
        self.schedule(id);
    }
}
