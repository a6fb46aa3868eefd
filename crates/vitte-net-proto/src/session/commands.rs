//! Commands of the application on one stream.

use bytes::Bytes;

use super::{OpenError, SendError, Session};
use crate::error::StreamCode;
use crate::frame::{DATAGRAM_MAX, NAME_MAX, StreamKind};
use crate::id::{DeliveryClass, StreamId};
use crate::stream::OpenInfo;
use crate::stream::receive::{News, Taken};
use crate::time::Moment;

impl Session {
    /// Opens a stream. The peer learns of it with its first bytes, or at once if there are none.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&mut self, info: OpenInfo) -> Result<StreamId, OpenError> {
        if self.lost {
            return Err(OpenError::Lost);
        }
        if self.draining {
            return Err(OpenError::Draining);
        }
        if info.name.len() > NAME_MAX {
            return Err(OpenError::NameTooLong);
        }
        if self.opened >= self.may_open {
            self.wants_open = true;
            return Err(OpenError::TooMany);
        }
        let id = StreamId(self.opened * 2 + u64::from(self.local > self.remote));
        self.opened += 1;
        let stream = self.new_stream(true, Some(info));
        self.streams.insert(id, stream);
        self.schedule(id);
        Ok(id)
    }

    /// Accepts a stream that the peer opened. The peer learns of it at once, or, of a call, with the answer.
    pub fn accept(&mut self, id: StreamId, now: Moment) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.accepted = true;
            let call = stream.info.as_ref().is_some_and(|info| info.kind == StreamKind::Call);
            stream.accept_due = !call;
            self.state(id, !call, now);
        }
    }

    /// Refuses a stream that the peer opened. Everything on it counts as refused at the peer.
    pub fn refuse(&mut self, id: StreamId, code: StreamCode, reason: &str, now: Moment) {
        self.stop(id, code, reason, now);
        self.reset(id, code, reason, now);
        self.release(id, now);
    }

    /// Queues a message, or bytes of a byte stream, behind what was sent before. `token` comes back in
    /// [`Event::Settled`](super::Event::Settled) unless it is 0. On a channel of class latest it takes the place
    /// of one that waits, and there is always room. A datagram has no token either: it is counted, and of more
    /// than the queue holds the oldest is refused. A message whose `deadline` passes before its
    /// first byte is transmitted expires. Bytes have neither token nor deadline: both are ignored.
    ///
    /// # Errors
    /// See [`SendError`]; the message counts as offered and refused, unless the answer is
    /// [`SendError::Full`] and `wait` is set: then nothing was offered.
    pub fn send(
        &mut self,
        id: StreamId,
        payload: Bytes,
        token: u64,
        deadline: Option<Moment>,
        wait: bool,
    ) -> Result<(), SendError> {
        let max = self.remote_limits.max_message;
        let config = &self.config;
        let Some(stream) = self.streams.get_mut(&id) else {
            self.totals.offered += 1;
            self.totals.refused += 1;
            return Err(SendError::Closed);
        };
        let messages = stream.info.as_ref().is_none_or(|info| info.kind != StreamKind::Bytes);
        let queued = stream.send.queued_bytes();
        let class = stream.info.as_ref().map_or(DeliveryClass::Reliable, |info| info.class);
        let max = if class == DeliveryClass::Datagram { max.min(DATAGRAM_MAX as u64) } else { max };
        let full = class == DeliveryClass::Reliable
            && (stream.send.queued_messages() >= config.send_queue_messages
                || (queued > 0 && queued + payload.len() > config.send_queue));
        let problem = if !stream.send.open() || stream.info.is_none() {
            Some(SendError::Closed)
        } else if messages && payload.len() as u64 > max {
            Some(SendError::TooLarge { max })
        } else if full {
            stream.send.wants_room |= wait;
            Some(SendError::Full)
        } else {
            None
        };
        if messages && !(wait && problem == Some(SendError::Full)) {
            stream.counters.offered += 1;
            if problem.is_some() {
                stream.counters.refused += 1;
            } else {
                stream.counters.in_flight += 1;
            }
        }
        if let Some(problem) = problem {
            return Err(problem);
        }
        if !messages && payload.is_empty() {
            return Ok(());
        }
        let token = if class == DeliveryClass::Datagram { 0 } else { token };
        let (token, deadline) = if messages { (token, deadline) } else { (0, None) };
        if class == DeliveryClass::Datagram {
            let (messages, bytes) = (config.datagram_queue_messages, config.datagram_queue);
            stream.send.make_room(payload.len(), messages, bytes, &mut self.settled);
        }
        stream.send.push(payload, token, deadline, &mut self.settled);
        self.settle(id);
        if let Some(at) = deadline {
            self.expire_at(id, at);
        }
        self.schedule(id);
        Ok(())
    }

    /// Takes the next message, or up to `max` bytes of a byte stream. What is taken counts as delivered.
    pub fn take(&mut self, id: StreamId, max: usize, now: Moment) -> Taken {
        let Some(stream) = self.streams.get_mut(&id) else { return Taken::End };
        let taken = stream.receive.take(max);
        if let Taken::Payload(_) = taken {
            self.raise(id, now);
            self.ask_assembly(id);
            self.settle_assembly(id, now);
        }
        taken
    }

    /// Raises the credit of a stream, and tells the peer of it and of what was taken.
    fn raise(&mut self, id: StreamId, now: Moment) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let grow = self.config.window_budget.saturating_sub(self.window_used);
            self.window_used += stream.receive.raise_limit(self.config.stream_window_max, grow);
        }
        self.state_news(id, now);
    }

    /// Of class latest, credit grows as newer messages come, and not only as they are taken.
    pub(super) fn raise_if_due(&mut self, id: StreamId, now: Moment) -> bool {
        let due = self.streams.get(&id).is_some_and(|stream| stream.receive.credit_due());
        if due {
            self.raise(id, now);
        }
        due
    }

    pub(super) fn state_news(&mut self, id: StreamId, now: Moment) {
        let urgent = self.streams.get(&id).is_some_and(|stream| stream.receive.news() == News::Urgent);
        self.state(id, urgent, now);
    }

    /// Whether [`take`](Self::take) would answer anything but [`Taken::Empty`].
    #[must_use]
    pub fn readable(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_none_or(|stream| stream.receive.has_messages())
    }

    /// Ends the sending direction behind everything that was accepted.
    pub fn finish(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.send.finish();
            self.schedule(id);
        }
    }

    /// Gives the sending direction up: what was not transmitted is refused, the rest is the peer's word.
    /// [`StreamCode::FINISHED`] is said as [`StreamCode::DROPPED`]: nothing that is given up is finished.
    pub fn reset(&mut self, id: StreamId, code: StreamCode, reason: &str, now: Moment) {
        let code = given_up(code);
        if let Some(stream) = self.streams.get_mut(&id) {
            let before = stream.send.in_flight();
            stream.send.reset(code, reason, &mut self.settled);
            self.landed(before, now);
            self.settle(id);
            self.schedule(id);
        }
        self.forget_if_over(id, now);
    }

    /// Wants nothing more of the receiving direction: what was not taken is refused at the peer. The code as in
    /// [`reset`](Self::reset).
    pub fn stop(&mut self, id: StreamId, code: StreamCode, reason: &str, now: Moment) {
        let code = given_up(code);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.receive.stop(code, reason);
            self.state(id, true, now);
            self.settle_assembly(id, now);
        }
    }

    /// The application has let go of a stream: it is forgotten as soon as both directions are over. A
    /// receiving direction that is still open is stopped, a sending one finished.
    pub fn release(&mut self, id: StreamId, now: Moment) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.released = true;
        if stream.receive.open() {
            self.stop(id, StreamCode::DROPPED, "", now);
        }
        self.finish(id);
        self.forget_if_over(id, now);
    }
}

/// Only the session itself says that a direction is finished, when it is: a peer would take the word of an application
/// for everything that it has sent.
fn given_up(code: StreamCode) -> StreamCode {
    if code == StreamCode::FINISHED { StreamCode::DROPPED } else { code }
}
