//! The sending half of one direction: a queue of messages without offsets, then bytes with offsets that
//! are kept until the peer's session has them, then messages that wait for the peer's application.

mod datagrams;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::codec::varint_len;
use crate::error::{CloseCode, StreamCode, Violation};
use crate::frame::Offsets;
use crate::stream::{Content, Outcome};
use crate::time::Moment;

pub(crate) use self::datagrams::Fates;

/// Messages of class latest that were begun and have no outcome. The peer's LATEST frame tells of 64.
const LATEST_MAX: usize = 32;

/// A message that has no offset yet: nothing of it was transmitted.
#[derive(Debug)]
struct Queued {
    payload: Bytes,
    token: u64,
    deadline: Option<Moment>,
}

/// Bytes with offsets: a message with its length in front, or a run of a byte stream.
#[derive(Debug)]
struct Piece {
    head: [u8; 8],
    head_len: u8,
    body: Bytes,
}

impl Piece {
    fn len(&self) -> u64 {
        u64::from(self.head_len) + self.body.len() as u64
    }

    /// Appends up to `max` bytes from `at` on.
    fn copy(&self, at: usize, max: usize, out: &mut Vec<u8>) -> usize {
        let head = &self.head[..usize::from(self.head_len)];
        let from_head = head.get(at..).unwrap_or_default();
        let from_head = &from_head[..from_head.len().min(max)];
        out.extend_from_slice(from_head);
        let at = (at + from_head.len()) - head.len().min(at + from_head.len());
        let from_body =
            if from_head.len() < max && at <= self.body.len() { &self.body[at..] } else { &[][..] };
        let from_body = &from_body[..from_body.len().min(max - from_head.len())];
        out.extend_from_slice(from_body);
        from_head.len() + from_body.len()
    }
}

/// A message that was begun and whose outcome is open.
#[derive(Debug)]
struct Unsettled {
    end: u64,
    token: u64,
}

/// What the application wants to say at the end of a direction.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Nothing yet.
    Open,
    /// FIN behind everything that was accepted.
    Fin { sent: bool },
    /// RESET, now.
    Reset { code: StreamCode, reason: String, sent: bool },
    /// The peer said the terminal state; RETIRE was queued.
    Over,
}

/// How a message ended, and by which token its sender knows it.
pub(crate) type Settled = (u64, Outcome);

#[derive(Debug)]
pub(crate) struct SendHalf {
    content: Content,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    pieces: VecDeque<Piece>,
    /// Offset of the first byte of `pieces`.
    first: u64,
    /// The peer's session has everything below.
    base: u64,
    /// The next byte to transmit.
    next: u64,
    /// Everything below has been transmitted at least once.
    sent: u64,
    /// Where the piece that holds `next` is, and where in it.
    cursor: (usize, usize),
    /// The end of `pieces`.
    end: u64,
    taken: u64,
    limit: u64,
    /// Bytes that are kept until the peer has acknowledged them, before no more are begun.
    replay_max: u64,
    unsettled: VecDeque<Unsettled>,
    /// Messages of class latest whose outcome the peer has told.
    told: u64,
    last: End,
    numbers: datagrams::Numbers,
    /// The application waits for room.
    pub(crate) wants_room: bool,
}

impl SendHalf {
    pub(crate) fn new(content: Content, limit: u64, replay_max: u64) -> Self {
        Self {
            content,
            queue: VecDeque::new(),
            queued_bytes: 0,
            pieces: VecDeque::new(),
            first: 0,
            base: 0,
            next: 0,
            sent: 0,
            cursor: (0, 0),
            end: 0,
            taken: 0,
            limit,
            replay_max,
            unsettled: VecDeque::new(),
            told: 0,
            last: End::Open,
            numbers: datagrams::Numbers::default(),
            wants_room: false,
        }
    }

    /// Known when the peer's OPEN arrives.
    pub(crate) fn set_content(&mut self, content: Content) {
        self.content = content;
    }

    pub(crate) fn content(&self) -> Content {
        self.content
    }

    fn messages(&self) -> bool {
        self.content != Content::Bytes
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    pub(crate) fn queued_messages(&self) -> usize {
        self.queue.len()
    }

    /// More can be accepted: neither FIN nor RESET was asked for and the peer has not stopped.
    pub(crate) fn open(&self) -> bool {
        self.last == End::Open
    }

    /// Nothing was transmitted, not even an end.
    pub(crate) fn unspoken(&self) -> bool {
        self.sent == 0
            && matches!(self.last, End::Open | End::Fin { sent: false } | End::Reset { sent: false, .. })
    }

    pub(crate) fn over(&self) -> bool {
        self.last == End::Over
    }

    /// Queues a message. Of class latest it takes the place of the one that waits.
    pub(crate) fn push(
        &mut self,
        payload: Bytes,
        token: u64,
        deadline: Option<Moment>,
        settled: &mut Vec<Settled>,
    ) {
        if self.content == Content::Latest {
            settled.extend(self.queue.drain(..).map(|older| (older.token, Outcome::Superseded)));
            self.queued_bytes = 0;
        }
        self.queued_bytes += payload.len();
        self.queue.push_back(Queued { payload, token, deadline });
    }

    /// Takes every queued message out whose deadline is not after `now`.
    pub(crate) fn expire(&mut self, now: Moment, settled: &mut Vec<Settled>) {
        let queued_bytes = &mut self.queued_bytes;
        self.queue.retain(|message| {
            let keep = message.deadline.is_none_or(|at| at > now);
            if !keep {
                *queued_bytes -= message.payload.len();
                settled.push((message.token, Outcome::Expired));
            }
            keep
        });
    }

    /// The earliest deadline in the queue.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        self.queue.iter().filter_map(|message| message.deadline).min()
    }

    pub(crate) fn finish(&mut self) {
        if self.last == End::Open {
            self.last = End::Fin { sent: false };
        }
    }

    /// Gives up: what was not transmitted is refused now, what was waits for the peer's word.
    pub(crate) fn reset(&mut self, code: StreamCode, reason: &str, settled: &mut Vec<Settled>) {
        if matches!(self.last, End::Reset { .. } | End::Over) {
            return;
        }
        self.last = End::Reset { code, reason: reason.into(), sent: false };
        self.refuse_queue(Outcome::Refused(code), settled);
        self.drop_bytes();
    }

    fn refuse_queue(&mut self, outcome: Outcome, settled: &mut Vec<Settled>) {
        self.queued_bytes = 0;
        let messages = self.messages();
        let queue = self.queue.drain(..);
        if messages {
            settled.extend(queue.map(|message| (message.token, outcome)));
        }
    }

    fn drop_bytes(&mut self) {
        self.pieces.clear();
        self.first = self.end;
        self.base = self.end;
        self.next = self.end;
        self.cursor = (0, 0);
        self.numbers.forget_unseen();
    }

    /// Bytes transmitted on the active link that the peer's session has not acknowledged.
    pub(crate) fn in_flight(&self) -> u64 {
        self.next - self.base + self.numbers.unseen_bytes()
    }

    /// Something can be transmitted now, credit included.
    pub(crate) fn ready(&self) -> bool {
        if self.content == Content::Datagrams && matches!(self.last, End::Open | End::Fin { .. }) {
            let fin_due = self.last == End::Fin { sent: false } && self.queue.is_empty();
            return fin_due || self.may_fly();
        }
        match &self.last {
            End::Over => false,
            End::Reset { sent, .. } => !sent,
            End::Fin { sent: true } => self.has_bytes(),
            End::Fin { sent: false } => self.has_bytes() || (self.next == self.end && self.queue.is_empty()),
            End::Open => self.has_bytes(),
        }
    }

    fn has_bytes(&self) -> bool {
        (self.next < self.end || self.may_begin()) && self.next < self.limit
    }

    /// A message waits, and may be begun. Datagrams have no offsets to begin at.
    fn may_begin(&self) -> bool {
        if self.content == Content::Datagrams {
            return false;
        }
        let held_back = self.content == Content::Latest && self.unsettled.len() >= LATEST_MAX;
        // What the peer has not acknowledged stays here: its credit alone is no bound.
        !self.queue.is_empty() && !held_back && self.end - self.base < self.replay_max
    }

    /// The offset that the next DATA frame starts at.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Nothing can follow the next `len` bytes now.
    pub(crate) fn drained_after(&self, len: usize) -> bool {
        self.next + len as u64 == self.end && !self.may_begin()
    }

    /// How many bytes the next DATA frame can carry, at most `max`. Messages are begun as far as needed;
    /// expired ones are skipped.
    pub(crate) fn prepare(&mut self, max: usize, now: Moment, settled: &mut Vec<Settled>) -> usize {
        if matches!(self.last, End::Reset { .. } | End::Over) {
            return 0;
        }
        let credit = usize::try_from(self.limit.saturating_sub(self.next)).unwrap_or(usize::MAX);
        let max = max.min(credit);
        while self.end - self.next < max as u64 && self.may_begin() {
            let Some(message) = self.queue.pop_front() else { break };
            self.queued_bytes -= message.payload.len();
            if message.deadline.is_some_and(|at| at <= now) {
                settled.push((message.token, Outcome::Expired));
                continue;
            }
            self.begin(message);
        }
        usize::try_from(self.end - self.next).unwrap_or(usize::MAX).min(max)
    }

    fn begin(&mut self, message: Queued) {
        let mut piece = Piece { head: [0; 8], head_len: 0, body: message.payload };
        if self.messages() {
            let len = piece.body.len() as u64;
            let head_len = varint_len(len);
            let tag = [0x00, 0x40, 0x80, 0xc0][head_len.trailing_zeros() as usize];
            piece.head[..head_len].copy_from_slice(&len.to_be_bytes()[8 - head_len..]);
            piece.head[0] |= tag;
            piece.head_len = head_len.to_le_bytes()[0];
        }
        self.end += piece.len();
        if self.messages() {
            self.unsettled.push_back(Unsettled { end: self.end, token: message.token });
        }
        self.pieces.push_back(piece);
    }

    /// Appends exactly `len` bytes that [`prepare`](Self::prepare) promised.
    pub(crate) fn copy(&mut self, mut len: usize, out: &mut Vec<u8>) {
        self.next += len as u64;
        self.sent = self.sent.max(self.next);
        while len > 0 {
            let (index, at) = self.cursor;
            let Some(piece) = self.pieces.get(index) else { return };
            let copied = piece.copy(at, len, out);
            len -= copied;
            self.cursor =
                if (at + copied) as u64 == piece.len() { (index + 1, 0) } else { (index, at + copied) };
        }
    }

    /// A FIN or RESET that must go out now, once.
    pub(crate) fn take_end(&mut self) -> Option<SendEnd<'_>> {
        let drained = self.next == self.end && self.queue.is_empty();
        match &mut self.last {
            End::Fin { sent } if !*sent && drained => {
                *sent = true;
                let datagrams = self.content == Content::Datagrams;
                Some(SendEnd::Fin(if datagrams { self.numbers.sent() } else { self.end }))
            }
            End::Reset { code, reason, sent } if !*sent => {
                *sent = true;
                Some(SendEnd::Reset(*code, reason))
            }
            _ => None,
        }
    }

    /// The active link changed: everything the peer's session does not have goes again.
    pub(crate) fn rewind(&mut self) {
        self.seek(self.base);
        self.numbers.forget_unseen();
        self.say_end_again();
    }

    /// The end may not have arrived.
    pub(crate) fn say_end_again(&mut self) {
        match &mut self.last {
            End::Fin { sent } | End::Reset { sent, .. } => *sent = false,
            End::Open | End::Over => {}
        }
    }

    fn seek(&mut self, to: u64) {
        self.next = to;
        let mut at = self.first;
        let mut index = 0;
        while let Some(piece) = self.pieces.get(index) {
            if to < at + piece.len() {
                break;
            }
            at += piece.len();
            index += 1;
        }
        self.cursor = (index, usize::try_from(to - at).unwrap_or(0));
    }

    /// Takes the peer's offsets. They are absolute: old ones change nothing.
    pub(crate) fn handle_offsets(
        &mut self,
        offsets: &Offsets,
        settled: &mut Vec<Settled>,
    ) -> Result<(), Violation> {
        if self.content == Content::Datagrams {
            return if self.over() { Ok(()) } else { self.numbers.handle_offsets(offsets) };
        }
        if offsets.received > self.sent && !matches!(self.last, End::Over) {
            return Err(Violation::new(
                CloseCode::FLOW_CONTROL,
                "an acknowledgement of bytes that were never sent",
            ));
        }
        self.limit = self.limit.max(offsets.limit);
        if self.content != Content::Latest {
            self.settle_taken(offsets.taken, settled);
        }
        if offsets.received <= self.base || matches!(self.last, End::Reset { .. } | End::Over) {
            return Ok(());
        }
        self.base = offsets.received;
        while let Some(piece) = self.pieces.front() {
            if self.first + piece.len() > self.base {
                break;
            }
            self.first += piece.len();
            self.pieces.pop_front();
            if self.cursor.0 == 0 { self.cursor = (0, 0) } else { self.cursor.0 -= 1 }
        }
        if self.next < self.base {
            self.seek(self.base);
        }
        Ok(())
    }

    fn settle_taken(&mut self, taken: u64, settled: &mut Vec<Settled>) {
        self.taken = self.taken.max(taken);
        while let Some(message) = self.unsettled.front() {
            if message.end > self.taken {
                break;
            }
            settled.push((message.token, Outcome::Delivered));
            self.unsettled.pop_front();
        }
    }

    /// Takes what the peer has consumed of a direction of class latest. It is absolute: what is old changes
    /// nothing.
    pub(crate) fn handle_latest(
        &mut self,
        count: u64,
        delivered: u64,
        settled: &mut Vec<Settled>,
    ) -> Result<(), Violation> {
        if self.content != Content::Latest {
            return Err(Violation::malformed("a LATEST frame for a stream of another class"));
        }
        if count <= self.told || self.over() {
            return Ok(());
        }
        let fresh = usize::try_from(count - self.told).unwrap_or(usize::MAX);
        if self.unsettled.get(fresh - 1).is_none_or(|message| message.end > self.sent) {
            return Err(Violation::new(
                CloseCode::FLOW_CONTROL,
                "an outcome of messages that were never sent",
            ));
        }
        self.told = count;
        settled.extend(self.unsettled.drain(..fresh).zip((0..fresh).rev()).map(|(message, ago)| {
            let outcome = if delivered >> ago & 1 == 1 { Outcome::Delivered } else { Outcome::Superseded };
            (message.token, outcome)
        }));
        Ok(())
    }

    /// Takes the peer's terminal state: what it took is delivered, the rest refused.
    pub(crate) fn handle_stop(
        &mut self,
        code: StreamCode,
        taken: u64,
        settled: &mut Vec<Settled>,
    ) -> Result<(), Violation> {
        if self.content != Content::Datagrams && taken > self.sent {
            return Err(Violation::new(
                CloseCode::FLOW_CONTROL,
                "a terminal state of bytes that were never sent",
            ));
        }
        if code == StreamCode::FINISHED && !self.may_be_finished(taken) {
            return Err(Violation::malformed("a direction that is finished before its end"));
        }
        if self.content == Content::Datagrams {
            self.numbers.end(Some(taken))?;
        }
        if self.content == Content::Messages {
            self.settle_taken(taken, settled);
        }
        settled.extend(self.unsettled.drain(..).map(|message| (message.token, Outcome::Refused(code))));
        self.refuse_queue(Outcome::Refused(code), settled);
        self.drop_bytes();
        self.last = End::Over;
        Ok(())
    }

    /// Whether the peer can have taken everything to the end: there is one, and nothing is left before it.
    fn may_be_finished(&self, taken: u64) -> bool {
        match self.last {
            End::Open => false,
            End::Fin { .. } => {
                self.queue.is_empty() && (self.content == Content::Datagrams || taken == self.end)
            }
            // It may have had a FIN before.
            End::Reset { .. } | End::Over => true,
        }
    }

    /// The session is lost: what was transmitted is unknown, what was not is refused.
    pub(crate) fn lose(&mut self, code: StreamCode, settled: &mut Vec<Settled>) {
        settled.extend(self.unsettled.drain(..).map(|message| (message.token, Outcome::Unknown)));
        // Without a last word nothing can be wrong with it.
        let _ = self.numbers.end(None);
        self.refuse_queue(Outcome::Refused(code), settled);
        self.drop_bytes();
        self.last = End::Over;
    }

    /// Bytes that this half holds.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.end - self.first + self.queued_bytes as u64
    }
}

/// How a direction ends on the wire.
#[derive(Debug)]
pub(crate) enum SendEnd<'a> {
    Fin(u64),
    Reset(StreamCode, &'a str),
}

#[cfg(test)]
mod tests;
