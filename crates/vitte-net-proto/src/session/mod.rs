//! A session: everything two nodes have said to each other in one pair of lives, over any number of links.
//!
//! [`Session`] is the value that a driver owns. Its methods are of four kinds:
//!
//! 1. **Links**: [`attach`](Session::attach), [`link_down`](Session::link_down). A link is attached after
//!    its [`Handshake`](crate::Handshake); the first one carries the session, others stand by.
//! 2. **Inputs**: [`handle_bytes`](Session::handle_bytes) with what a lane of a link received,
//!    [`handle_timeout`](Session::handle_timeout) when [`poll_timeout`](Session::poll_timeout) is due.
//! 3. **Commands** of the application: `open`, `accept`, `refuse`, `send`, `take`, `finish`, `reset`, `stop`,
//!    `release`, `drain`, `close`. They never wait: what would wait is an answer that says so.
//! 4. **Outputs**, to be polled after any of the above, in this order: [`poll_event`](Session::poll_event)
//!    until `None`; [`poll_transmit`](Session::poll_transmit) for every attached link until `None`;
//!    [`poll_timeout`](Session::poll_timeout).
//!
//! The time is handed in and never goes back. A driver that breaks an order loses no message; it only
//! waits longer than needed.

mod commands;
mod datagrams;
mod floods;
mod inbound;
mod links;
mod outbound;
#[cfg(test)]
mod tests;
mod window;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::config::Config;
use crate::dial::keeps_own;
use crate::error::{CloseCode, StreamCode};
use crate::frame::Frame;
use crate::hello::Limits;
use crate::id::{LinkId, PeerId, StreamId};
use crate::schedule::Schedule;
use crate::stream::receive::ReceiveHalf;
use crate::stream::send::{SendHalf, Settled};
use crate::stream::{Content, Counters, OpenInfo, Outcome, Stream};
use crate::time::Moment;

pub use links::LinkKind;

/// Bytes of offsets and terminal states that go out with the CLOSE frame.
const LAST_WORDS: usize = 8 << 10;

/// What happened. See [`Session::poll_event`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer opened a stream: answer with [`Session::accept`] or [`Session::refuse`].
    Opened {
        /// Which.
        stream: StreamId,
        /// What it is.
        info: OpenInfo,
    },
    /// The peer accepted a stream of ours.
    Accepted(StreamId),
    /// There is something to [`take`](Session::take), if only the end.
    Readable(StreamId),
    /// A stream that answered [`SendError::Full`] has room again.
    Writable(StreamId),
    /// The peer takes nothing more of this stream; its unsettled messages have been settled.
    Stopped {
        /// Which.
        stream: StreamId,
        /// Why.
        code: StreamCode,
        /// Why, in the peer's words. Escape it before it reaches a terminal.
        reason: String,
    },
    /// The peer has taken everything of this stream, to its end.
    Finished(StreamId),
    /// The message that was sent with this token has ended.
    Settled {
        /// As given to [`Session::send`], not 0.
        token: u64,
        /// How.
        outcome: Outcome,
    },
    /// After [`OpenError::TooMany`]: the peer allows more streams, or a side drains and there will be none.
    MoreStreams,
    /// A link is dead (silent, or broken by the peer): cut it. It is detached already.
    LinkDead {
        /// Which.
        link: LinkId,
        /// Why.
        code: CloseCode,
        /// Why, in the peer's words, if the peer closed it. Escape them before they reach a terminal.
        reason: String,
    },
    /// The link that carries the session owes an answer for too long, and may be dead. Another one takes
    /// over as soon as it is attached.
    Stalled(LinkId),
    /// No link is left; the resume window runs.
    Unreachable,
    /// A link carries the session (the first, or another one than before).
    Carried(LinkId),
    /// The peer wants no new streams.
    Draining,
    /// The peer gives up streams faster than [`Config::abandoned_per_second`] allows: it opens new ones no
    /// faster than that until it has slowed down.
    Throttled,
    /// The session is over; every message has been settled.
    Lost {
        /// Why.
        code: CloseCode,
        /// Why, in words; the peer's, if the peer closed it.
        reason: String,
    },
}

/// Why a stream was not opened. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The peer's limit is reached: wait for [`Event::MoreStreams`].
    TooMany,
    /// The name is longer than 255 bytes.
    NameTooLong,
    /// The peer, or this side, is draining.
    Draining,
    /// The session is over.
    Lost,
}

/// Why a message was not accepted. Nothing of it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The queue is full: wait for [`Event::Writable`].
    Full,
    /// Longer than the peer accepts.
    TooLarge {
        /// The peer's limit, in bytes.
        max: u64,
    },
    /// The stream was finished, reset, stopped by the peer, or never known.
    Closed,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooMany => "the peer allows no more streams now",
            Self::NameTooLong => "a stream's name is longer than 255 bytes",
            Self::Draining => "the session is draining",
            Self::Lost => "the session is over",
        })
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the queue is full"),
            Self::TooLarge { max } => write!(f, "longer than the {max} bytes that the peer accepts"),
            Self::Closed => f.write_str("the stream is closed"),
        }
    }
}

impl core::error::Error for OpenError {}
impl core::error::Error for SendError {}

/// See the [module](self).
#[derive(Debug)]
pub struct Session {
    config: Config,
    local: PeerId,
    remote: PeerId,
    remote_limits: Limits,
    streams: BTreeMap<StreamId, Stream>,
    /// Streams this side has opened, and may open, in all.
    opened: u64,
    may_open: u64,
    wants_open: bool,
    floods: floods::Floods,
    /// Streams the peer has opened, has seen forgotten, and was told it may open, in all.
    peer_opened: u64,
    peer_forgotten: u64,
    peer_told: u64,
    links: BTreeMap<LinkId, links::LinkState>,
    active: Option<LinkId>,
    /// A link has carried the session before: the next one begins with RESUME.
    carried: bool,
    schedule: Schedule,
    packets: datagrams::Packets,
    /// Streams with offsets or a terminal state to tell.
    stating: VecDeque<StreamId>,
    /// Terminal states of forgotten or ended directions that were learnt.
    retires: VecDeque<StreamId>,
    state_now: bool,
    state_at: Option<Moment>,
    /// Earliest deadline in the queue of each stream that has one.
    expiries: BTreeSet<(Moment, StreamId)>,
    expiry_of: BTreeMap<StreamId, Moment>,
    in_flight: u64,
    /// What may be in flight on the link that carries the session.
    window: window::LinkWindow,
    /// What is known of each kind of link, by its preference.
    records: BTreeMap<u8, links::Record>,
    /// Bytes received since offsets were last stated, and when that was.
    unstated: u64,
    stated: Moment,
    window_used: u64,
    assembly_used: usize,
    assembly_waiting: VecDeque<(StreamId, usize)>,
    assembly_held: BTreeMap<StreamId, usize>,
    assembly_reserve: Option<StreamId>,
    events: VecDeque<Event>,
    settled: Vec<Settled>,
    totals: Counters,
    unlinked_at: Option<Moment>,
    draining: bool,
    drain_due: bool,
    /// The last frames of the session.
    closing: Vec<u8>,
    lost: bool,
}

impl Session {
    /// A session with `remote`, whose hello stated `remote_limits`.
    #[must_use]
    pub fn new(config: Config, local: PeerId, remote: PeerId, remote_limits: Limits, now: Moment) -> Self {
        let peer_told = config.max_streams;
        let floods = floods::Floods::new(&config);
        let window = window::LinkWindow::new(config.link_window, config.link_window_max, 0);
        let unlinked_at = Some(now + links::FIRST_LINK.saturating_sub(config.resume_window));
        Self {
            config,
            local,
            remote,
            remote_limits,
            streams: BTreeMap::new(),
            opened: 0,
            may_open: remote_limits.max_streams,
            wants_open: false,
            floods,
            peer_opened: 0,
            peer_forgotten: 0,
            peer_told,
            links: BTreeMap::new(),
            active: None,
            carried: false,
            schedule: Schedule::default(),
            packets: datagrams::Packets::default(),
            stating: VecDeque::new(),
            retires: VecDeque::new(),
            state_now: false,
            state_at: None,
            expiries: BTreeSet::new(),
            expiry_of: BTreeMap::new(),
            in_flight: 0,
            window,
            records: BTreeMap::new(),
            unstated: 0,
            stated: now,
            window_used: 0,
            assembly_used: 0,
            assembly_waiting: VecDeque::new(),
            assembly_held: BTreeMap::new(),
            assembly_reserve: None,
            events: VecDeque::new(),
            settled: Vec::new(),
            totals: Counters::default(),
            unlinked_at,
            draining: false,
            drain_due: false,
            closing: Vec::new(),
            lost: false,
        }
    }

    /// The limits that a hello for a session with this configuration states.
    #[must_use]
    pub fn limits(config: &Config) -> Limits {
        Limits {
            max_message: config.max_message as u64,
            stream_window: config.stream_window,
            max_streams: config.max_streams,
        }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn remote(&self) -> PeerId {
        self.remote
    }

    /// Of two links that both sides dialled at once, the one that this side dialled stays.
    #[must_use]
    pub fn keeps_own_dial(&self) -> bool {
        keeps_own(&self.local, &self.remote)
    }

    /// The session is over.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// This side has closed the session: every link has a last frame to carry.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.lost && !self.closing.is_empty()
    }

    /// Nothing is queued, unacknowledged or waiting for an outcome, in either direction, and no call or byte
    /// stream is under way. A channel may stay open: that alone is no work, and transmitted datagrams are none.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.streams.values().all(Stream::idle)
    }

    /// Something should go out without waiting for company.
    #[must_use]
    pub fn wants_flush(&self) -> bool {
        !self.lost && self.active.is_some() && (self.state_now || self.speaks())
    }

    /// Streams that are not forgotten.
    #[must_use]
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// Bytes of payload that the session holds: queued, kept for replay, or waiting to be taken.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.streams.values().map(|stream| stream.send.held_bytes() + stream.receive.held_bytes()).sum()
    }

    /// What became of all messages of this side, over all streams, forgotten ones included.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut sum = self.totals;
        self.streams.values().for_each(|stream| sum += stream.counters);
        sum
    }

    /// What became of the messages that this side sent on a stream; nothing if it is forgotten.
    #[must_use]
    pub fn stream_counters(&self, stream: StreamId) -> Option<Counters> {
        self.streams.get(&stream).map(|stream| stream.counters)
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn new_stream(&self, local: bool, info: Option<OpenInfo>) -> Stream {
        let content = Content::of(info.as_ref());
        Stream {
            local,
            accepted: local,
            accept_due: false,
            open_sent: !local,
            open_heard: !local,
            accept_heard: !local,
            send: SendHalf::new(content, self.remote_limits.stream_window, self.config.replay_max),
            receive: ReceiveHalf::new(content, self.config.max_message, self.config.stream_window),
            info,
            scheduled: false,
            stating: false,
            stop_sent: false,
            stopped_early: None,
            released: false,
            abandoned: false,
            counters: Counters::default(),
        }
    }

    fn expire_at(&mut self, id: StreamId, at: Moment) {
        match self.expiry_of.get(&id) {
            Some(&known) if known <= at => return,
            Some(&known) => {
                self.expiries.remove(&(known, id));
            }
            None => {}
        }
        self.expiries.insert((at, id));
        self.expiry_of.insert(id, at);
    }

    /// Tells the peer to open nothing new, and opens nothing new here.
    pub fn drain(&mut self) {
        if !self.draining {
            self.drain_due = true;
            self.state_now = true;
            self.begin_draining();
        }
    }

    /// Who waits for room for a stream learns that there will be none.
    fn begin_draining(&mut self) {
        self.draining = true;
        if core::mem::take(&mut self.wants_open) {
            self.events.push_back(Event::MoreStreams);
        }
    }

    /// Ends the session: one CLOSE frame goes out on every link, and everything is settled.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        if !self.lost {
            // What the application took before it closed counts: the peer must hear of it.
            let mut last_words = Vec::new();
            if self.active.is_some() {
                self.put_statements(LAST_WORDS, &mut last_words);
            }
            Frame::Close { code, session: true, reason }.put(&mut last_words);
            self.closing = last_words;
            self.links.values_mut().for_each(links::LinkState::close);
            self.lose(code, reason);
        }
    }

    /// The session cannot go on (the peer restarted, or lost its side of it): everything is settled.
    pub fn lose(&mut self, code: CloseCode, reason: &str) {
        if self.lost {
            return;
        }
        self.lost = true;
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.send.lose(StreamCode::SHUTDOWN, &mut self.settled);
                stream.receive.lose(StreamCode::SHUTDOWN, "the session is over");
                self.settle(id);
                self.events.push_back(Event::Readable(id));
            }
        }
        self.in_flight = 0;
        self.expiries.clear();
        self.expiry_of.clear();
        self.assembly_waiting.clear();
        self.stating.clear();
        self.retires.clear();
        self.events.push_back(Event::Lost { code, reason: reason.into() });
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due; never, if there is nothing to wait for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Moment> {
        if self.lost {
            return None;
        }
        let resume = self.unlinked_at.map(|at| at + self.config.resume_window);
        let links = self.links.values().map(|link| link.next_timeout(&self.config)).min();
        let expiry = self.expiries.first().map(|(at, _)| *at);
        let state = if self.active.is_some() { self.state_at } else { None };
        let floods = self.floods.next_timeout();
        [resume, links, expiry, state, floods].into_iter().flatten().min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Moment) {
        if self.lost {
            return;
        }
        if self.unlinked_at.is_some_and(|at| now >= at + self.config.resume_window) {
            self.lose(CloseCode::TIMEOUT, "no link came back within the resume window");
            return;
        }
        if self.state_at.is_some_and(|at| now >= at) {
            self.state_now = true;
            self.state_at = None;
        }
        while let Some(&(at, id)) = self.expiries.first().filter(|(at, _)| *at <= now) {
            self.expiries.remove(&(at, id));
            self.expiry_of.remove(&id);
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.send.expire(now, &mut self.settled);
                if let Some(next) = stream.send.next_deadline() {
                    self.expire_at(id, next);
                }
                self.settle(id);
                self.schedule(id);
            }
        }
        self.check_floods(now);
        self.check_links(now);
    }

    /// Counts and announces what `settled` holds, and wakes a sender that waits for room.
    fn settle(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        for (token, outcome) in self.settled.drain(..) {
            stream.counters.settle(outcome);
            if token != 0 {
                self.events.push_back(Event::Settled { token, outcome });
            }
        }
        stream.counters.settle_fates(stream.send.take_fates());
        let room = stream.send.queued_bytes() <= self.config.send_queue / 2
            && stream.send.queued_messages() <= self.config.send_queue_messages / 2;
        if stream.send.wants_room && (room || !stream.send.open()) {
            stream.send.wants_room = false;
            self.events.push_back(Event::Writable(id));
        }
    }

    /// Puts a stream in the queue of speakers, if it has something to say.
    fn schedule(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.scheduled
            && (!stream.open_sent || stream.send.ready())
        {
            stream.scheduled = true;
            let (priority, alone) = (stream.priority(), stream.open_sent && self.travels_alone(id));
            if alone { self.packets.push(priority, id) } else { self.schedule.push(priority, id) }
        }
    }

    /// Puts a stream in the queue of statements.
    fn state(&mut self, id: StreamId, urgent: bool, now: Moment) {
        if let Some(stream) = self.streams.get_mut(&id) {
            if !stream.stating {
                stream.stating = true;
                self.stating.push_back(id);
            }
            self.state_now |= urgent;
            self.state_at.get_or_insert(now + self.config.ack_delay);
        }
    }

    /// Puts a message larger than its stream's window in the queue for room.
    fn ask_assembly(&mut self, id: StreamId) {
        if let Some(len) = self.streams.get_mut(&id).and_then(|stream| stream.receive.ask_assembly()) {
            self.assembly_waiting.push_back((id, len));
        }
    }

    /// Gives or returns room for a message larger than its stream's window.
    fn settle_assembly(&mut self, id: StreamId, now: Moment) {
        if self.assembly_held.is_empty() && self.assembly_waiting.is_empty() {
            return;
        }
        let receive = self.streams.get(&id).map(|stream| &stream.receive);
        if !receive.is_some_and(|half| half.waits_for_assembly()) {
            self.assembly_waiting.retain(|(waiting, _)| *waiting != id);
        }
        // A stream may wait for the room of its next message when it returns that of the last.
        if !receive.is_some_and(|half| half.holds_assembly())
            && let Some(held) = self.assembly_held.remove(&id)
        {
            if self.assembly_reserve == Some(id) {
                self.assembly_reserve = None;
            } else {
                self.assembly_used -= held;
            }
        }
        let general = self.config.assembly_budget.saturating_sub(self.config.max_message);
        while let Some(&(waiting, len)) = self.assembly_waiting.front() {
            if self.assembly_used + len <= general {
                self.assembly_used += len;
            } else if self.assembly_reserve.is_none() {
                self.assembly_reserve = Some(waiting);
            } else {
                break;
            }
            self.assembly_waiting.pop_front();
            self.assembly_held.insert(waiting, len);
            if let Some(stream) = self.streams.get_mut(&waiting) {
                stream.receive.grant_assembly();
                self.state(waiting, true, now);
            }
        }
    }

    fn forget_if_over(&mut self, id: StreamId, now: Moment) {
        let Some(stream) = self.streams.get(&id).filter(|stream| stream.released && stream.over()) else {
            return;
        };
        self.window_used -= stream.receive.window() - self.config.stream_window;
        self.totals += stream.counters;
        let (local, abandoned) = (stream.local, stream.abandoned);
        self.unschedule(id);
        self.streams.remove(&id);
        if !local {
            self.give_back(abandoned, now);
        }
        if let Some(at) = self.expiry_of.remove(&id) {
            self.expiries.remove(&(at, id));
        }
        self.settle_assembly(id, now);
    }

    /// How long the acknowledgement of a ping took last, on the link that carries the session.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.links.get(&self.active?)?.round_trip()
    }
}
