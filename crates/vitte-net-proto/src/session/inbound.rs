//! Frames in.

use alloc::boxed::Box;
use alloc::string::String;
use core::time::Duration;

use super::{Event, LinkId, Session};
use crate::error::{CloseCode, StreamCode, Violation};
use crate::frame::{Frame, NAME_MAX, Offsets};
use crate::id::{Lane, StreamId};
use crate::stream::receive::{Progress, ReceiveHalf};
use crate::stream::{Content, OpenInfo};
use crate::time::Moment;

/// Answers to repeated terminal states that may wait: more of them is a flood.
const RETIRES_MAX: usize = 16_384;

/// Bytes that arrive before offsets are stated, and the time between two such statements.
const STATE_EVERY: u64 = 16 << 10;
const STATE_APART: Duration = Duration::from_millis(1);

impl Event {
    fn of_stop(stream: StreamId, code: StreamCode, reason: String) -> Self {
        match code {
            StreamCode::FINISHED => Self::Finished(stream),
            _ => Self::Stopped { stream, code, reason },
        }
    }
}

impl Session {
    /// Takes what a lane of a link received, in order. The run may end inside a frame.
    ///
    /// # Errors
    /// The peer broke the protocol: close the link with this code and reason. It is detached already; the
    /// session lives.
    pub fn handle_bytes(
        &mut self,
        link: LinkId,
        lane: Lane,
        run: &[u8],
        now: Moment,
    ) -> Result<(), Violation> {
        if self.lost {
            return Ok(());
        }
        let Some(state) = self.links.get_mut(&link) else { return Ok(()) };
        state.heard(now);
        if lane == Lane::DATAGRAM {
            return self.handle_packet(link, run, now).inspect_err(|_| self.link_down(link, now));
        }
        let Some(state) = self.links.get_mut(&link) else { return Ok(()) };
        let Some(slot) = state.deframers.get_mut(usize::from(lane.0)) else {
            return Err(Violation::malformed("bytes on a lane that the link does not have"));
        };
        let mut deframer = core::mem::take(slot);
        let result = deframer.push(run, &mut |frame| {
            self.handle_frame(link, frame, now)?;
            Ok(!self.lost && self.links.contains_key(&link))
        });
        if let Some(slot) =
            self.links.get_mut(&link).and_then(|state| state.deframers.get_mut(usize::from(lane.0)))
        {
            *slot = deframer;
        }
        result.map(|_| ()).inspect_err(|_| self.link_down(link, now))
    }

    pub(super) fn handle_frame(
        &mut self,
        link: LinkId,
        frame: Frame<'_>,
        now: Moment,
    ) -> Result<(), Violation> {
        match frame {
            Frame::Hello(_) | Frame::Welcome { .. } => {
                return Err(Violation::new(CloseCode::WRONG_STATE, "a second handshake on one link"));
            }
            Frame::Open { stream, open } => self.handle_open(stream, OpenInfo::read(&open, now), now)?,
            Frame::Data { stream, offset, push, payload } => {
                self.acknowledge_soon(payload.len() as u64, now);
                self.receiving(stream, now, |half, opened| half.handle_data(offset, payload, push, opened))?;
            }
            Frame::Fin { stream, end } => {
                self.receiving(stream, now, |half, opened| half.handle_fin(end, opened))?
            }
            Frame::Reset { stream, code, reason } => self.handle_reset(stream, code, reason, now)?,
            Frame::Stop { stream, code, taken, reason } => {
                self.handle_stop(stream, code, taken, reason, now)?
            }
            Frame::Retire { stream } => {
                if let Some(state) = self.streams.get_mut(&stream) {
                    state.receive.retire();
                }
                self.forget_if_over(stream, now);
            }
            Frame::Offsets { stream, offsets } => self.handle_offsets(stream, &offsets, now)?,
            Frame::Datagram { stream, number, payload } => {
                self.acknowledge_soon(payload.len() as u64, now);
                let bounds = (self.config.datagram_queue_messages, self.config.datagram_queue);
                self.receiving(stream, now, |half, opened| {
                    half.handle_datagram(number, payload, opened, bounds)
                })?;
            }
            Frame::Latest { stream, count, delivered } => self.handle_latest(stream, count, delivered)?,
            Frame::MaxStreams { count } => {
                if count > self.may_open {
                    self.may_open = count;
                    if core::mem::take(&mut self.wants_open) {
                        self.events.push_back(Event::MoreStreams);
                    }
                }
            }
            Frame::Ping { token } => {
                if let Some(state) = self.links.get_mut(&link) {
                    state.pong_due = Some(token);
                }
            }
            Frame::Pong { token } => self.handle_pong(link, token, now),
            Frame::Resume(resume) => {
                for (stream, offsets) in resume.entries() {
                    self.handle_offsets(stream, &offsets, now)?;
                }
                if resume.last {
                    self.count_resume(now)?;
                    self.handle_resume_end(link, resume.reply, now);
                }
            }
            Frame::Drain => {
                if !self.draining {
                    self.begin_draining();
                    self.events.push_back(Event::Draining);
                }
            }
            Frame::Close { code, session: true, reason } => self.lose(code, reason),
            Frame::Close { code, session: false, reason } => {
                self.events.push_back(Event::LinkDead { link, code, reason: reason.into() });
                self.link_down(link, now);
            }
        }
        Ok(())
    }

    fn is_local(&self, id: StreamId) -> bool {
        (id.0 % 2 == 1) == (self.local > self.remote)
    }

    /// Makes sure that a stream the peer names exists, unless it is over. A frame that names a stream of
    /// the peer implies all lower ones.
    fn reach(&mut self, id: StreamId) -> Result<(), Violation> {
        let count = id.0 / 2;
        if self.is_local(id) {
            return if count < self.opened {
                Ok(())
            } else {
                Err(Violation::new(
                    CloseCode::STREAM_LIMIT,
                    "a frame for a stream that this side never opened",
                ))
            };
        }
        if count >= self.peer_forgotten + self.config.max_streams {
            return Err(Violation::new(CloseCode::STREAM_LIMIT, "more streams than allowed"));
        }
        while self.peer_opened <= count {
            let implied = StreamId(self.peer_opened * 2 + id.0 % 2);
            let stream = self.new_stream(false, None);
            self.streams.insert(implied, stream);
            self.peer_opened += 1;
        }
        Ok(())
    }

    fn handle_open(&mut self, id: StreamId, info: OpenInfo, now: Moment) -> Result<(), Violation> {
        if self.is_local(id) {
            return Err(Violation::new(CloseCode::STREAM_LIMIT, "an OPEN with the number of the other side"));
        }
        debug_assert!(info.name.len() <= NAME_MAX);
        self.reach(id)?;
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if stream.info.is_some() {
            // A replay of what was heard over another link.
            return Ok(());
        }
        let content = Content::of(Some(&info));
        stream.info = Some(info.clone());
        stream.send.set_content(content);
        let progress = stream.receive.set_content(content)?;
        self.events.push_back(Event::Opened { stream: id, info });
        if let Some(stopped) = stream.stopped_early.take() {
            self.events.push_back(Event::of_stop(id, stopped.0, stopped.1));
        }
        if progress.readable || !stream.receive.open() {
            self.events.push_back(Event::Readable(id));
        }
        if stream.receive.terminal().is_some() {
            // It was given up before it was heard of.
            self.state(id, true, now);
        }
        self.raise_if_due(id, now);
        self.ask_assembly(id);
        Ok(())
    }

    /// A refusal resets, too: it shows that the stream was heard of, and not that it was accepted.
    fn handle_reset(
        &mut self,
        id: StreamId,
        code: StreamCode,
        reason: &str,
        now: Moment,
    ) -> Result<(), Violation> {
        self.reach(id)?;
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.open_heard = true;
            stream.abandoned |= !stream.local && stream.receive.terminal().is_none();
        }
        self.apply(id, now, |half, _| {
            half.handle_reset(code, reason);
            Ok(Progress { readable: true })
        })
    }

    /// Takes a frame of the peer's sending direction that only an accepted stream has.
    fn receiving(
        &mut self,
        id: StreamId,
        now: Moment,
        apply: impl FnOnce(&mut ReceiveHalf, bool) -> Result<Progress, Violation>,
    ) -> Result<(), Violation> {
        self.reach(id)?;
        self.hear(id);
        self.apply(id, now, apply)
    }

    /// Applies a frame of the peer's sending direction.
    fn apply(
        &mut self,
        id: StreamId,
        now: Moment,
        apply: impl FnOnce(&mut ReceiveHalf, bool) -> Result<Progress, Violation>,
    ) -> Result<(), Violation> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        let progress = apply(&mut stream.receive, stream.info.is_some())?;
        if progress.readable && stream.info.is_some() {
            self.events.push_back(Event::Readable(id));
        }
        let terminal = stream.receive.terminal().is_some();
        if terminal && stream.stop_sent {
            // The peer may not have heard the terminal state: it is stated again.
            stream.stop_sent = false;
        }
        if !self.raise_if_due(id, now) {
            self.state_news(id, now);
        }
        self.ask_assembly(id);
        self.settle_assembly(id, now);
        Ok(())
    }

    /// So many bytes are no longer in flight.
    pub(super) fn landed(&mut self, bytes: u64, now: Moment) {
        self.in_flight -= bytes;
        if bytes > 0 {
            self.window.acknowledged(self.in_flight, now);
        }
    }

    /// The peer measures its path by what it hears of our offsets: while much arrives, they are stated
    /// sooner than otherwise.
    fn acknowledge_soon(&mut self, bytes: u64, now: Moment) {
        self.unstated += bytes;
        if self.unstated < STATE_EVERY {
            return;
        }
        let at = self.stated + STATE_APART.min(self.config.ack_delay);
        if now >= at {
            self.state_now = true;
        } else {
            self.state_at = Some(self.state_at.map_or(at, |known| known.min(at)));
        }
    }

    /// The peer has accepted a stream of ours.
    fn hear(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.accept_heard
        {
            stream.open_heard = true;
            stream.accept_heard = true;
            self.events.push_back(Event::Accepted(id));
        }
    }

    fn handle_offsets(&mut self, id: StreamId, offsets: &Offsets, now: Moment) -> Result<(), Violation> {
        self.reach(id)?;
        self.hear(id);
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        let before = stream.send.in_flight();
        stream.send.handle_offsets(offsets, &mut self.settled)?;
        let after = stream.send.in_flight();
        self.landed(before - after, now);
        self.settle(id);
        self.schedule(id);
        Ok(())
    }

    fn handle_latest(&mut self, id: StreamId, count: u64, delivered: u64) -> Result<(), Violation> {
        self.reach(id)?;
        self.hear(id);
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        stream.send.handle_latest(count, delivered, &mut self.settled)?;
        self.settle(id);
        self.schedule(id);
        Ok(())
    }

    fn handle_stop(
        &mut self,
        id: StreamId,
        code: StreamCode,
        taken: u64,
        reason: &str,
        now: Moment,
    ) -> Result<(), Violation> {
        self.reach(id)?;
        if self.retires.len() >= RETIRES_MAX {
            return Err(Violation::new(CloseCode::FLOW_CONTROL, "a flood of terminal states"));
        }
        self.retires.push_back(id);
        self.state_at.get_or_insert(now + self.config.ack_delay);
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if stream.send.over() {
            return Ok(());
        }
        stream.abandoned |= !stream.local && code != StreamCode::FINISHED && stream.send.unspoken();
        let before = stream.send.in_flight();
        stream.send.handle_stop(code, taken, &mut self.settled)?;
        stream.open_heard = true;
        if stream.info.is_some() {
            self.events.push_back(Event::of_stop(id, code, reason.into()));
        } else {
            stream.stopped_early = Some(Box::new((code, reason.into())));
        }
        self.landed(before, now);
        self.settle(id);
        self.forget_if_over(id, now);
        Ok(())
    }
}
