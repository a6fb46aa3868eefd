//! One stream: two directions, each with a sending half here and a receiving half there.

pub(crate) mod receive;
pub(crate) mod send;

use alloc::boxed::Box;
use alloc::string::String;
use core::ops::AddAssign;
use core::time::Duration;

use crate::error::StreamCode;
use crate::frame::{NAME_MAX, Open, StreamKind};
use crate::id::{DeliveryClass, Priority, StreamId};
use crate::stream::send::Fates;
use crate::time::Moment;

/// How a message ended. Every message ends in exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The peer's application received it, in order, exactly once.
    Delivered,
    /// It was not taken, and will not be: the stream was closed by either side.
    Refused(StreamCode),
    /// Its deadline passed before it was transmitted. The peer never saw any of it.
    Expired,
    /// A newer one took its place, here or at the peer (channels of class latest only). The peer's application
    /// never saw it.
    Superseded,
    /// It was transmitted, and the session was lost before the peer said what became of it.
    Unknown,
}

/// What became of the messages that were offered to a stream. At every moment
/// `offered = delivered + refused + expired + superseded + unknown + in_flight`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages that the application tried to send.
    pub offered: u64,
    /// [`Outcome::Delivered`].
    pub delivered: u64,
    /// [`Outcome::Refused`], and messages that a full queue or a limit turned away.
    pub refused: u64,
    /// [`Outcome::Expired`].
    pub expired: u64,
    /// [`Outcome::Superseded`].
    pub superseded: u64,
    /// [`Outcome::Unknown`].
    pub unknown: u64,
    /// Accepted, and not ended yet.
    pub in_flight: u64,
}

impl Counters {
    pub(crate) fn settle(&mut self, outcome: Outcome) {
        self.in_flight -= 1;
        match outcome {
            Outcome::Delivered => self.delivered += 1,
            Outcome::Refused(_) => self.refused += 1,
            Outcome::Expired => self.expired += 1,
            Outcome::Superseded => self.superseded += 1,
            Outcome::Unknown => self.unknown += 1,
        }
    }

    /// Datagrams end in numbers.
    pub(crate) fn settle_fates(&mut self, fates: Fates) {
        self.in_flight -= fates.delivered + fates.unknown;
        self.delivered += fates.delivered;
        self.unknown += fates.unknown;
    }

    /// Whether the sum holds.
    #[must_use]
    pub const fn balanced(&self) -> bool {
        let ended = self.delivered + self.refused + self.expired + self.superseded + self.unknown;
        self.offered == ended + self.in_flight
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.offered += other.offered;
        self.delivered += other.delivered;
        self.refused += other.refused;
        self.expired += other.expired;
        self.superseded += other.superseded;
        self.unknown += other.unknown;
        self.in_flight += other.in_flight;
    }
}

/// Everything about a stream that is said when it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenInfo {
    /// What it is for.
    pub kind: StreamKind,
    /// Its class among those that wait to be transmitted.
    pub priority: Priority,
    /// What becomes of its messages; other than reliable only on a channel.
    pub class: DeliveryClass,
    /// When it must be done, on the clock of this side.
    pub deadline: Option<Moment>,
    /// Fingerprint of what the opener sends; zero where there is no schema.
    pub schema_out: u64,
    /// Fingerprint of what the opener expects to receive.
    pub schema_in: u64,
    /// Who should take it.
    pub name: String,
}

impl OpenInfo {
    pub(crate) fn read(open: &Open<'_>, now: Moment) -> Self {
        Self {
            kind: open.kind,
            priority: open.priority,
            class: open.class,
            deadline: open.deadline_micros.map(|micros| now + Duration::from_micros(micros)),
            schema_out: open.schema_out,
            schema_in: open.schema_in,
            name: open.name.into(),
        }
    }

    pub(crate) fn to_frame(&self, now: Moment) -> Open<'_> {
        Open {
            kind: self.kind,
            priority: self.priority,
            class: self.class,
            deadline_micros: self
                .deadline
                .map(|at| u64::try_from(at.since(now).as_micros()).unwrap_or(u64::MAX)),
            schema_out: self.schema_out,
            schema_in: self.schema_in,
            name: &self.name,
        }
    }
}

/// What the directions of a stream carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Bytes without boundaries.
    Bytes,
    /// Messages of which each counts.
    Messages,
    /// Messages of which the newest counts.
    Latest,
    /// Messages without offsets, that may be lost.
    Datagrams,
}

impl Content {
    /// What a stream carries whose OPEN trails behind is taken for messages until it is known.
    pub(crate) fn of(info: Option<&OpenInfo>) -> Self {
        match info.map(|info| (info.kind, info.class)) {
            Some((StreamKind::Bytes, _)) => Self::Bytes,
            Some((StreamKind::Channel, DeliveryClass::Latest)) => Self::Latest,
            Some((StreamKind::Channel, DeliveryClass::Datagram)) => Self::Datagrams,
            Some((StreamKind::Channel | StreamKind::Call, _)) | None => Self::Messages,
        }
    }
}

/// A stream of a session.
#[derive(Debug)]
pub(crate) struct Stream {
    /// This side opened it.
    pub(crate) local: bool,
    /// None while the peer's OPEN trails behind.
    pub(crate) info: Option<OpenInfo>,
    /// The application knows the stream: it opened it, or accepted it.
    pub(crate) accepted: bool,
    /// The peer has not heard of the acceptance yet.
    pub(crate) accept_due: bool,
    /// OPEN went out on the active link.
    pub(crate) open_sent: bool,
    /// The peer has answered in any way: OPEN need not be repeated.
    pub(crate) open_heard: bool,
    /// The peer has accepted: it may have stopped or reset a direction before that is heard.
    pub(crate) accept_heard: bool,
    pub(crate) send: send::SendHalf,
    pub(crate) receive: receive::ReceiveHalf,
    /// Waits in the scheduler.
    pub(crate) scheduled: bool,
    /// Waits to state offsets or its terminal state.
    pub(crate) stating: bool,
    /// STOP went out on the active link.
    pub(crate) stop_sent: bool,
    /// The peer wants nothing more, and its OPEN trails behind: the application hears of both together.
    pub(crate) stopped_early: Option<Box<(StreamCode, String)>>,
    /// The application has let go: the stream is forgotten when both directions are over.
    pub(crate) released: bool,
    /// The peer opened it and gave it up: before it had sent everything, or before anything was answered.
    pub(crate) abandoned: bool,
    pub(crate) counters: Counters,
}

impl Stream {
    pub(crate) fn priority(&self) -> Priority {
        self.info.as_ref().map_or(Priority::Normal, |info| info.priority)
    }

    pub(crate) fn over(&self) -> bool {
        self.send.over() && self.receive.over()
    }

    /// Bytes of the DATAGRAM frame that goes next by the stream's lane, and not alone.
    pub(crate) fn datagram_here(&self, id: StreamId, lanes: bool) -> usize {
        if lanes && !self.send.too_long() { 0 } else { self.send.next_datagram(id).unwrap_or(0) }
    }

    /// Room for it, and for the OPEN in front of it and the FIN behind it.
    pub(crate) fn datagram_room(&self, id: StreamId, lanes: bool) -> usize {
        let open = if self.open_sent { 0 } else { NAME_MAX + 64 };
        self.datagram_here(id, lanes) + open + 32
    }

    /// Nothing is queued, unacknowledged or waiting for an outcome. Nobody waits for datagrams that are under way:
    /// the last ones may never be counted.
    pub(crate) fn idle(&self) -> bool {
        if self.send.content() == Content::Datagrams {
            return self.send.queued_messages() == 0;
        }
        self.counters.in_flight == 0
            && self.send.held_bytes() == 0
            && self.receive.held_bytes() == 0
            && !self.under_way()
    }

    /// A call without its answer, or a byte stream without its ends, that the application holds.
    pub(crate) fn under_way(&self) -> bool {
        let work = self.info.as_ref().is_some_and(|info| info.kind != StreamKind::Channel);
        work && !self.released && !(self.send.over() && self.receive.terminal().is_some())
    }
}
