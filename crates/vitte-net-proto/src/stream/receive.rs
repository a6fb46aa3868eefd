//! The receiving half of one direction: bytes by offset in, messages in order out, and the three offsets
//! that the peer lives by.

mod datagrams;
mod latest;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};

use crate::codec::read_varint;
use crate::error::{CloseCode, StreamCode, Violation};
use crate::frame::Offsets;
use crate::stream::Content;

/// Runs of bytes that may wait for earlier ones, those that touch counted as one.
const GAPS_MAX: usize = 16;
/// Messages that are cut ahead of their reader; further ones stay bytes, so that empty messages of one byte
/// each do not become queue entries of forty.
const INBOX_MAX: usize = 1024;
/// A growing message gets its whole room once this much of it is here, and not on its word alone.
const TRUST_LENGTH_AT: usize = 32 << 10;

/// The terminal state of a direction, kept until the peer retires it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terminal {
    pub(crate) code: StreamCode,
    pub(crate) reason: String,
}

/// What a receiver gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A message, or bytes of a byte stream.
    Payload(Bytes),
    /// Nothing yet.
    Empty,
    /// The peer finished, and everything was taken.
    End,
    /// The peer gave up, or the session was lost. Nothing more comes.
    Reset(StreamCode, String),
}

#[derive(Debug)]
pub(crate) struct ReceiveHalf {
    content: Content,
    max_message: usize,
    received: u64,
    taken: u64,
    limit: u64,
    window: u64,
    /// The sender came close to the end of its credit since the window last grew.
    pressed: bool,
    /// What was taken when the window last grew.
    grown_at: u64,
    /// What the peer was last told.
    told: Offsets,
    /// What the peer was told may be lost with its link.
    untold: bool,
    /// Contiguous bytes that no message was cut from yet (all of them, on a byte stream).
    buf: BytesMut,
    /// Runs of bytes behind a gap, by their offset. No two of them touch: those that do are one.
    gaps: BTreeMap<u64, VecDeque<u8>>,
    inbox: VecDeque<(Bytes, u64)>,
    /// Behind the newest message that was complete.
    completed: u64,
    /// What became of the messages of a direction of class latest.
    consumed: latest::Consumed,
    datagrams: Option<Box<datagrams::Inbox>>,
    /// Behind the last message that was granted room of the session's budget.
    granted_to: u64,
    /// The incomplete message at the front of `buf`.
    assembling: Option<Assembly>,
    end: Option<u64>,
    push_at: u64,
    terminal: Option<Terminal>,
    /// The peer has retired the direction.
    retired: bool,
    /// The peer gave up.
    reset: Option<(StreamCode, String)>,
}

#[derive(Clone, Copy, Debug)]
struct Assembly {
    /// Offset behind the message.
    end: u64,
    len: usize,
    /// Longer than the credit reaches: it needs the session's budget.
    oversized: Option<Oversized>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Oversized {
    Unasked,
    Asked,
    Granted,
}

/// What a run of bytes changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The application has something new to take.
    pub(crate) readable: bool,
}

impl ReceiveHalf {
    pub(crate) fn new(content: Content, max_message: usize, window: u64) -> Self {
        Self {
            content,
            max_message,
            received: 0,
            taken: 0,
            limit: window,
            window,
            pressed: false,
            grown_at: 0,
            told: Offsets { taken: 0, received: 0, limit: window },
            untold: false,
            buf: BytesMut::new(),
            gaps: BTreeMap::new(),
            inbox: VecDeque::new(),
            completed: 0,
            consumed: latest::Consumed::default(),
            datagrams: None,
            granted_to: 0,
            assembling: None,
            end: None,
            push_at: 0,
            terminal: None,
            retired: false,
            reset: None,
        }
    }

    /// Known when the peer's OPEN arrives. What came before it is cut now.
    pub(crate) fn set_content(&mut self, content: Content) -> Result<Progress, Violation> {
        self.content = content;
        self.check_class()?;
        let readable = self.datagrams.as_ref().is_some_and(|inbox| inbox.holds());
        self.cut().map(|progress| Progress { readable: readable || progress.readable })
    }

    fn messages(&self) -> bool {
        self.content != Content::Bytes
    }

    pub(crate) fn offsets(&self) -> Offsets {
        if self.content == Content::Datagrams {
            return self.datagrams.as_ref().map(|inbox| inbox.offsets()).unwrap_or_default();
        }
        Offsets { taken: self.taken, received: self.received, limit: self.limit.max(self.received) }
    }

    pub(crate) fn terminal(&self) -> Option<(&Terminal, u64)> {
        self.terminal.as_ref().map(|terminal| (terminal, self.offsets().taken))
    }

    pub(crate) fn over(&self) -> bool {
        self.retired
    }

    /// The application still reads.
    pub(crate) fn open(&self) -> bool {
        self.terminal.is_none() && self.reset.is_none()
    }

    /// Takes the bytes of a DATA frame. `opened` is false while the OPEN trails: then nothing is cut yet.
    pub(crate) fn handle_data(
        &mut self,
        offset: u64,
        payload: &[u8],
        push: bool,
        opened: bool,
    ) -> Result<Progress, Violation> {
        if !self.open() {
            return Ok(Progress::default());
        }
        if self.content == Content::Datagrams {
            return Err(Violation::malformed("bytes with offsets on a datagram channel"));
        }
        let end = offset + payload.len() as u64;
        if end > self.limit.max(self.told.limit) || self.end.is_some_and(|at| end > at) {
            return Err(Violation::new(
                CloseCode::FLOW_CONTROL,
                "bytes beyond the credit or the end of a stream",
            ));
        }
        self.pressed |= end + self.window / 4 > self.told.limit;
        if push {
            self.push_at = self.push_at.max(end);
        }
        if offset > self.received {
            self.keep_gap(offset, payload)?;
            return Ok(Progress::default());
        }
        let Some(fresh) = usize::try_from(self.received - offset).ok().and_then(|skip| payload.get(skip..))
        else {
            return Ok(Progress::default());
        };
        self.append(fresh);
        while let Some(gap) = self.gaps.first_entry() {
            if *gap.key() > self.received {
                break;
            }
            let (offset, run) = gap.remove_entry();
            let skip = usize::try_from(self.received - offset).unwrap_or(usize::MAX);
            let (head, tail) = run.as_slices();
            self.append(head.get(skip..).unwrap_or_default());
            self.append(tail.get(skip.saturating_sub(head.len())..).unwrap_or_default());
        }
        if opened { self.cut() } else { Ok(Progress::default()) }
    }

    /// Keeps bytes behind a gap. They become one run with all that they overlap or touch, so that no byte is
    /// held twice and only real gaps count.
    fn keep_gap(&mut self, offset: u64, payload: &[u8]) -> Result<(), Violation> {
        let end = offset + payload.len() as u64;
        let touched: Vec<u64> = self
            .gaps
            .range(..=end)
            .rev()
            .take_while(|(start, run)| **start + run.len() as u64 >= offset)
            .map(|(start, _)| *start)
            .collect();
        if touched.is_empty() && self.gaps.len() >= GAPS_MAX {
            return Err(Violation::new(CloseCode::FLOW_CONTROL, "more than sixteen gaps in a stream"));
        }
        let new = |from: u64, to: u64| {
            let at = |offset_in_stream: u64| usize::try_from(offset_in_stream - offset).unwrap_or(usize::MAX);
            payload.get(at(from.min(end))..at(to.min(end))).unwrap_or_default()
        };
        let mut first = offset;
        let mut whole = VecDeque::new();
        for start in touched.into_iter().rev() {
            let Some(run) = self.gaps.remove(&start) else { continue };
            if start <= offset {
                (first, whole) = (start, run);
            } else {
                let reached = first + whole.len() as u64;
                whole.extend(new(reached, start));
                whole = join(whole, run);
            }
        }
        let reached = first + whole.len() as u64;
        if reached < end {
            whole.extend(new(reached, end));
        }
        self.gaps.insert(first, whole);
        Ok(())
    }

    fn append(&mut self, fresh: &[u8]) {
        self.received += fresh.len() as u64;
        let spare = self.buf.capacity() - self.buf.len();
        if spare < fresh.len() {
            let missing = self
                .assembling
                .filter(|assembly| assembly.oversized == Some(Oversized::Granted))
                .map_or(0, |assembly| {
                    usize::try_from(assembly.end.saturating_sub(self.received)).unwrap_or(0) + fresh.len()
                });
            if missing > fresh.len() && self.buf.len() >= TRUST_LENGTH_AT {
                self.buf.reserve(missing);
            } else if self.received > TRUST_LENGTH_AT as u64 {
                // A stream that flows shares blocks between its messages.
                self.buf.reserve(fresh.len().max(TRUST_LENGTH_AT));
            } else {
                self.buf.reserve(fresh.len());
            }
        }
        self.buf.extend_from_slice(fresh);
    }

    /// Cuts whole messages from the front of the contiguous bytes.
    fn cut(&mut self) -> Result<Progress, Violation> {
        let mut progress = Progress::default();
        if self.content == Content::Datagrams {
            self.end_datagrams();
            return Ok(progress);
        }
        if !self.messages() {
            progress.readable = !self.buf.is_empty();
            self.close_if_done()?;
            return Ok(progress);
        }
        loop {
            if let Some(assembly) = self.assembling {
                if self.received < assembly.end {
                    break;
                }
                let message = self.buf.split_to(assembly.len).freeze();
                if self.content == Content::Latest {
                    while let Some((_, end)) = self.inbox.pop_front() {
                        self.consume(end, false);
                    }
                }
                self.inbox.push_back((message, assembly.end));
                self.completed = assembly.end;
                self.assembling = None;
                progress.readable = true;
                continue;
            }
            if self.holds_back() {
                break;
            }
            let Some((len, head)) = read_varint(&self.buf) else { break };
            let start = self.received - self.buf.len() as u64 + head as u64;
            let len = match usize::try_from(len) {
                Ok(len) if len <= self.max_message => len,
                _ => {
                    return Err(Violation::new(
                        CloseCode::FLOW_CONTROL,
                        "a message longer than the limit in the hello",
                    ));
                }
            };
            let _ = self.buf.split_to(head);
            let end = start + len as u64;
            let credit = self.limit.max(self.credit_base() + self.window);
            let oversized = (end > credit).then_some(Oversized::Unasked);
            self.assembling = Some(Assembly { end, len, oversized });
        }
        self.close_if_done()?;
        Ok(progress)
    }

    /// What was cut must be taken first: a message larger than the window, whose room the next may need, or
    /// as many messages as may wait.
    fn holds_back(&self) -> bool {
        self.granted_to > self.taken || self.inbox.len() >= INBOX_MAX
    }

    /// The length of a message that needs the session's budget; it is answered once.
    pub(crate) fn ask_assembly(&mut self) -> Option<usize> {
        let assembly =
            self.assembling.as_mut().filter(|assembly| assembly.oversized == Some(Oversized::Unasked))?;
        assembly.oversized = Some(Oversized::Asked);
        Some(assembly.len)
    }

    /// The session's budget has room for the message at the front: the credit reaches to its end.
    pub(crate) fn grant_assembly(&mut self) {
        if let Some(assembly) = &mut self.assembling {
            assembly.oversized = Some(Oversized::Granted);
            self.granted_to = assembly.end;
            self.limit = self.limit.max(assembly.end);
        }
    }

    /// Room of the session's budget is asked for, and not granted.
    pub(crate) fn waits_for_assembly(&self) -> bool {
        let oversized = self.assembling.and_then(|assembly| assembly.oversized);
        self.open() && oversized.is_some_and(|state| state != Oversized::Granted)
    }

    /// Room of the session's budget is in use until the message is taken.
    pub(crate) fn holds_assembly(&self) -> bool {
        self.open() && self.granted_to > self.taken
    }

    /// Takes a FIN.
    pub(crate) fn handle_fin(&mut self, end: u64, opened: bool) -> Result<Progress, Violation> {
        if !self.open() {
            return Ok(Progress::default());
        }
        if opened && self.content == Content::Datagrams {
            return self.finish_datagrams(end);
        }
        if self.end.is_some_and(|known| known != end) || end < self.received {
            return Err(Violation::malformed("a stream with two ends, or one before its bytes"));
        }
        if self.gaps.iter().any(|(offset, bytes)| offset + bytes.len() as u64 > end) {
            return Err(Violation::new(CloseCode::FLOW_CONTROL, "bytes beyond the end of a stream"));
        }
        self.end = Some(end);
        if !opened {
            return Ok(Progress::default());
        }
        self.close_if_done()?;
        // A reader that waits must learn that nothing more comes.
        Ok(Progress { readable: self.received == end })
    }

    fn close_if_done(&mut self) -> Result<(), Violation> {
        if self.end != Some(self.received) || self.terminal.is_some() || self.holds_back() {
            return Ok(());
        }
        if self.messages() && (self.assembling.is_some() || !self.buf.is_empty()) {
            return Err(Violation::malformed("a stream that ends inside a message"));
        }
        if self.taken == self.received {
            self.terminal = Some(Terminal { code: StreamCode::FINISHED, reason: String::new() });
        }
        Ok(())
    }

    /// Takes a RESET: what was not taken is gone.
    pub(crate) fn handle_reset(&mut self, code: StreamCode, reason: &str) {
        if self.terminal.is_some() {
            return;
        }
        self.clear();
        self.reset = Some((code, reason.into()));
        self.terminal = Some(Terminal { code, reason: String::new() });
    }

    /// The application wants no more.
    pub(crate) fn stop(&mut self, code: StreamCode, reason: &str) {
        if self.terminal.is_some() {
            return;
        }
        self.clear();
        self.terminal = Some(Terminal { code, reason: reason.into() });
    }

    /// The session is lost.
    pub(crate) fn lose(&mut self, code: StreamCode, reason: &str) {
        self.clear();
        if self.terminal.is_none() {
            self.reset = Some((code, reason.into()));
            self.terminal = Some(Terminal { code, reason: String::new() });
        }
        self.retired = true;
    }

    pub(crate) fn retire(&mut self) {
        if self.terminal.is_some() {
            self.retired = true;
        }
    }

    fn clear(&mut self) {
        self.buf = BytesMut::new();
        self.gaps.clear();
        self.inbox.clear();
        self.assembling = None;
        if let Some(inbox) = &mut self.datagrams {
            inbox.clear();
        }
    }

    /// Hands out the next message, or up to `max` bytes of a byte stream. Taking is what settles receipts.
    pub(crate) fn take(&mut self, max: usize) -> Taken {
        if let Some((code, reason)) = &self.reset {
            return Taken::Reset(*code, reason.clone());
        }
        let payload = if self.content == Content::Datagrams {
            self.datagrams.as_mut().and_then(|inbox| inbox.take())
        } else if self.messages() {
            self.inbox.pop_front().map(|(message, end)| {
                self.consume(end, true);
                message
            })
        } else {
            let len = self.buf.len().min(max);
            self.taken += len as u64;
            (len > 0).then(|| self.buf.split_to(len).freeze())
        };
        match payload {
            Some(payload) => {
                // What comes behind a large message was not looked at before it was taken. If it is
                // malformed, the direction ends here: the link it came on may be gone.
                if let Err(violation) = self.cut() {
                    self.clear();
                    self.reset = Some((StreamCode::BAD_PAYLOAD, violation.reason.into()));
                    self.terminal =
                        Some(Terminal { code: StreamCode::BAD_PAYLOAD, reason: violation.reason.into() });
                }
                Taken::Payload(payload)
            }
            None if self.terminal.is_some() => Taken::End,
            None => Taken::Empty,
        }
    }

    /// Raises the credit behind what was taken. `grow` is how far the window may grow now; the answer is
    /// how much of that was used.
    pub(crate) fn raise_limit(&mut self, window_max: u64, grow: u64) -> u64 {
        let mut used = 0;
        if self.content == Content::Datagrams {
            return used;
        }
        let base = self.credit_base();
        let keeps_up = self.received - base <= self.window / 2;
        if keeps_up && (self.pressed || base - self.grown_at >= 4 * self.window) {
            used = self.window.min(window_max.saturating_sub(self.window)).min(grow);
            self.window += used;
            self.pressed = false;
            self.grown_at = base;
        }
        self.limit = self.limit.max(base + self.window);
        used
    }

    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    /// Whether the peer must hear of new offsets at once, lazily, or not at all.
    pub(crate) fn news(&self) -> News {
        if self.retired || self.terminal.is_some() {
            return News::None;
        }
        let step = self.window / 4;
        let offsets = self.offsets();
        if self.untold {
            return News::Urgent;
        }
        if offsets == self.told {
            return News::None;
        }
        if self.content == Content::Datagrams {
            return if datagrams::urgent(self.told, offsets) { News::Urgent } else { News::Lazy };
        }
        let pushed = self.push_at > self.told.taken && self.taken >= self.push_at;
        let blocked = self.told.limit < self.granted_to;
        if pushed
            || blocked
            || offsets.limit - self.told.limit >= step
            || offsets.received - self.told.received >= step
        {
            News::Urgent
        } else {
            News::Lazy
        }
    }

    /// What was told last may never arrive: it is told again.
    pub(crate) fn tell_again(&mut self) {
        self.untold = true;
    }

    pub(crate) fn mark_told(&mut self) {
        self.told = self.offsets();
        self.untold = false;
    }

    /// Bytes that this half holds for its reader.
    pub(crate) fn held_bytes(&self) -> u64 {
        if let Some(inbox) = &self.datagrams {
            return inbox.bytes();
        }
        let gaps: usize = self.gaps.values().map(VecDeque::len).sum();
        (self.received - self.taken) + gaps as u64
    }

    /// Messages that wait for the application.
    #[cfg(test)]
    pub(crate) fn waiting_messages(&self) -> usize {
        self.inbox.len()
    }

    pub(crate) fn has_messages(&self) -> bool {
        self.datagrams.as_ref().is_some_and(|inbox| inbox.holds())
            || !self.inbox.is_empty()
            || (!self.messages() && !self.buf.is_empty())
            || !self.open()
    }
}

/// Two runs that touch, as one. The longer one is not copied: so no order of arrival costs more than a few
/// copies of each byte.
fn join(mut before: VecDeque<u8>, mut after: VecDeque<u8>) -> VecDeque<u8> {
    if before.len() >= after.len() {
        before.append(&mut after);
        before
    } else {
        let len = before.len();
        after.append(&mut before);
        after.rotate_right(len);
        after
    }
}

/// See [`ReceiveHalf::news`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    None,
    Lazy,
    Urgent,
}

#[cfg(test)]
mod tests;
