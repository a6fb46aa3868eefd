//! The links of a session: which one carries it, whether they live, how the next takes over.
//!
//! There are three ways from one link to another:
//!
//! - **resume**: the one that carried the session is dead, or has stalled. What the peer has is unknown: both
//!   sides state it (RESUME), and what is missing goes again.
//! - **following**: the peer resumes on another link than the one that carries the session here, which is
//!   dead to the peer: this side moves there, too.
//! - **handover**: both links live, and the better one takes over. Nothing is stated and nothing goes again,
//!   unless the old one dies before all that it carried has arrived.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::window::LinkWindow;
use super::{Event, Session, Stream};
use crate::config::Config;
use crate::error::CloseCode;
use crate::frame::Deframer;
use crate::id::{Lane, LinkId, StreamId};
use crate::time::Moment;

/// A new session waits for its first link for as long, also where it would not wait for the next.
pub(super) const FIRST_LINK: Duration = Duration::from_secs(10);
/// A peer says that its other links are dead: ours must answer within this time.
const SUSPECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Questions to a better link while it is on probation.
const PROBES: u32 = 4;
/// How often the time in which a kind of link is held back doubles.
const HOLD_DOUBLINGS: u32 = 6;
/// A better link may take so much longer than the present one: this many times, and this much more.
const SLOWER: u32 = 2;
const SLOWER_BY: Duration = Duration::from_millis(20);
/// A present link that takes so much longer than one standing by loses the session: this many times, and more.
const TOO_SLOW: u32 = 4;
const TOO_SLOW_BY: Duration = Duration::from_millis(100);
/// How long the rate of a kind of link is remembered.
const RATE_LIFE: Duration = Duration::from_secs(300);

/// What a link can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkKind {
    /// It has [`Lane::COUNT`] lanes with flow control of their own; otherwise it has one.
    pub lanes: bool,
    /// The live link with the greatest preference carries the session, when it has proven itself.
    pub preference: u8,
}

/// A RESUME that is being sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResumeOut {
    pub(super) reply: bool,
    /// The next stream to state.
    pub(super) from: StreamId,
}

#[derive(Clone, Copy, Debug)]
struct Ping {
    token: u64,
    asked: Moment,
    /// The last sign of life since, or `asked`.
    alive: Moment,
}

/// What the session knows of a kind of link beyond the life of one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record {
    /// It does not take over from a live link before.
    held_until: Moment,
    failures: u32,
    rate: Option<(u64, Moment)>,
}

#[derive(Debug)]
pub(super) struct LinkState {
    pub(super) kind: LinkKind,
    pub(super) deframers: Vec<Deframer>,
    last_heard: Moment,
    /// The open question for a sign of life.
    ping: Option<Ping>,
    pub(super) ping_due: Option<u64>,
    pub(super) pong_due: Option<u64>,
    next_token: u64,
    suspect: bool,
    /// The peer owes an answer since then.
    owed: Option<Moment>,
    /// It owes one for too long.
    stalled: bool,
    /// On probation: it has answered in time since then, and is asked again at.
    proven: Option<Moment>,
    probe_at: Option<Moment>,
    /// It is much slower than one standing by since then.
    slow: Option<Moment>,
    /// It carries the session since then.
    carries: Option<Moment>,
    /// It has handed the session over, and what it carried may still be under way.
    draining: bool,
    /// Asked when it handed the session over: the answer says that the statements before have arrived, which
    /// nobody acknowledges.
    last_word: Option<u64>,
    round_trip: Option<Duration>,
    pub(super) resume_out: Option<ResumeOut>,
    resume_sent: bool,
    /// No data before the peer has said what it has.
    pub(super) waits_for_resume: bool,
    pub(super) close_due: bool,
}

impl LinkState {
    fn new(kind: LinkKind, now: Moment) -> Self {
        let lanes = if kind.lanes { Lane::COUNT } else { 1 };
        Self {
            kind,
            deframers: (0..lanes).map(|_| Deframer::default()).collect(),
            last_heard: now,
            ping: None,
            ping_due: None,
            pong_due: None,
            next_token: 1,
            suspect: false,
            owed: None,
            stalled: false,
            proven: None,
            probe_at: None,
            slow: None,
            carries: None,
            draining: false,
            last_word: None,
            round_trip: None,
            resume_out: None,
            resume_sent: false,
            waits_for_resume: false,
            close_due: false,
        }
    }

    pub(super) fn close(&mut self) {
        self.close_due = true;
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Something went out that the peer answers at once.
    pub(super) fn owe(&mut self, now: Moment) {
        self.owed.get_or_insert(now);
    }

    /// Nothing is under way but what goes out now.
    pub(super) fn owe_afresh(&mut self, now: Moment) {
        if self.ping.is_none() && !self.waits_for_resume {
            self.owed = Some(now);
        } else {
            self.owe(now);
        }
    }

    fn ask(&mut self, now: Moment) {
        if self.ping.is_none() {
            self.ping = Some(Ping { token: self.next_token, asked: now, alive: now });
            self.ping_due = Some(self.next_token);
            self.next_token += 1;
        }
    }

    /// How long an answer may take before the link has stalled.
    fn patience(&self, config: &Config) -> Duration {
        self.round_trip.map_or(config.stall_after * 5, |time| config.stall_after.max(time * 3))
    }

    fn dead_at(&self, config: &Config) -> Option<Moment> {
        let timeout =
            if self.suspect { SUSPECT_TIMEOUT.min(config.link_timeout) } else { config.link_timeout };
        self.ping.map(|ping| ping.alive + timeout)
    }

    /// When the session must look at the link again.
    pub(super) fn next_timeout(&self, config: &Config) -> Moment {
        let life = self.dead_at(config).unwrap_or(self.last_heard + config.keep_alive);
        let owed = self.owed.filter(|_| !self.stalled).map(|since| {
            // First it is asked, then it has stalled.
            let patience = self.patience(config);
            since + if self.ping.is_none() { patience / 2 } else { patience }
        });
        let proven = self.proven.map(|since| since + config.probation);
        let slow = self.slow.map(|since| since + config.probation);
        [owed, self.probe_at, proven, slow].into_iter().flatten().fold(life, Moment::min)
    }

    pub(super) fn heard(&mut self, now: Moment) {
        self.last_heard = now;
        self.stalled = false;
        if let Some(since) = &mut self.owed {
            *since = now;
        }
        if let Some(ping) = &mut self.ping {
            ping.alive = now;
        }
    }

    /// The answer's time, if it is one.
    fn handle_pong(&mut self, token: u64, now: Moment) -> Option<Duration> {
        self.last_heard = now;
        self.last_word.take_if(|last| *last == token);
        let ping = self.ping.take_if(|ping| ping.token == token)?;
        let sample = now.since(ping.asked);
        self.round_trip = Some(self.round_trip.map_or(sample, |known| (known * 7 + sample) / 8));
        self.suspect = false;
        Some(sample)
    }
}

impl Session {
    /// Adds a link whose handshake is done. The first carries the session; a later one stands by
    /// until it is better, or the first dies or has stalled.
    ///
    /// # Errors
    /// [`CloseCode::TOO_MANY`] links, or the session is over: close the link with that code.
    pub fn attach(&mut self, link: LinkId, kind: LinkKind, now: Moment) -> Result<(), CloseCode> {
        if self.lost {
            return Err(CloseCode::STALE_GENERATION);
        }
        if self.links.len() >= self.config.max_links {
            return Err(CloseCode::TOO_MANY);
        }
        let mut state = LinkState::new(kind, now);
        // Its round trip says how long to wait for an answer.
        state.ask(now);
        self.links.insert(link, state);
        let stalled = self.active.and_then(|active| self.links.get(&active)).is_some_and(|link| link.stalled);
        if self.active.is_none() || stalled {
            self.activate(link, false, now);
        }
        self.consider(now);
        Ok(())
    }

    /// A link is gone. What it carried and the peer does not have goes again over the next.
    pub fn link_down(&mut self, link: LinkId, now: Moment) {
        let Some(gone) = self.links.remove(&link) else { return };
        self.stop_again(now);
        if self.active != Some(link) {
            if gone.draining {
                self.old_link_failed(now);
            }
            return;
        }
        self.failed(gone.kind, gone.carries, now);
        self.active = None;
        match self.best_other(None) {
            Some(next) => self.activate(next, false, now),
            None if self.lost => {}
            None => {
                self.unlinked_at = Some(now);
                self.events.push_back(Event::Unreachable);
            }
        }
    }

    /// The link that carries the session now.
    #[must_use]
    pub fn active_link(&self) -> Option<LinkId> {
        self.active
    }

    /// The link that carries the session owes an answer for too long.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.active.and_then(|active| self.links.get(&active)).is_some_and(|link| link.stalled)
    }

    /// Neither side needs this link any more, as far as this side knows: another one of at least its
    /// preference carries the session, and what it carried has arrived.
    #[must_use]
    pub fn is_spare(&self, link: LinkId) -> bool {
        let preference = |id: &LinkId| self.links.get(id).map(|link| link.kind.preference);
        let Some(active) = self.active.filter(|active| *active != link) else { return false };
        let steady = self.links.get(&active).is_some_and(|active| !active.stalled);
        let drained = self.links.get(&link).is_some_and(|link| !link.draining);
        steady && drained && preference(&active) >= preference(&link)
    }

    /// Asks every link for a sign of life within one second.
    pub fn probe(&mut self, now: Moment) {
        for link in self.links.values_mut() {
            link.suspect = true;
            link.ask(now);
        }
    }

    /// A link that was asked for a sign of life, or was never asked, has none of the asking left.
    #[must_use]
    pub fn answered(&self) -> bool {
        self.links.values().any(|link| !link.suspect)
    }

    /// The best live link beside `except`: those that have stalled last.
    fn best_other(&self, except: Option<LinkId>) -> Option<LinkId> {
        let others = self.links.iter().filter(|(id, _)| Some(**id) != except);
        let best =
            others.max_by_key(|(id, link)| (!link.stalled, link.kind.preference, core::cmp::Reverse(**id)));
        best.map(|(id, _)| *id)
    }

    /// A link begins to carry the session. What the old one carried is unknown, unless it is the first.
    fn activate(&mut self, id: LinkId, following: bool, now: Moment) {
        self.carry(id, 0, now);
        if !self.carried {
            self.carried = true;
            let ids: Vec<StreamId> = self.streams.keys().copied().collect();
            ids.into_iter().for_each(|stream| self.schedule(stream));
            return;
        }
        if let Some(link) = self.links.get_mut(&id)
            && !following
        {
            // With our answer still to be sent, the peer's list is here already, and it sends no second one: it
            // takes this one for the answer.
            let heard = link.resume_out.is_some_and(|out| out.reply);
            link.resume_out = Some(ResumeOut { reply: false, from: StreamId(0) });
            link.resume_sent = true;
            link.waits_for_resume = !heard;
            link.owe(now);
        }
        self.repeat(now);
    }

    /// Both links live: the better one takes over, while what the old one carries arrives.
    fn hand_over(&mut self, id: LinkId, now: Moment) {
        if let Some(old) = self.active.and_then(|active| self.links.get_mut(&active)) {
            old.draining = true;
            // An answer that is under way was asked for before.
            old.ping = None;
            old.ask(now);
            old.owe(now);
            old.last_word = old.ping_due;
            if old.kind.lanes {
                self.say_ends_again();
            }
        }
        self.carry(id, self.in_flight, now);
    }

    /// OPEN, FIN and RESET of a link with lanes are acknowledged by nobody in time: they may be behind the last word.
    /// Said twice they change nothing.
    fn say_ends_again(&mut self) {
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.open_sent = !stream.local || stream.open_heard;
                stream.send.say_end_again();
            }
            self.schedule(id);
        }
    }

    fn carry(&mut self, id: LinkId, in_flight: u64, now: Moment) {
        if let Some((link, rate)) = self
            .active
            .and_then(|active| self.links.get_mut(&active))
            .and_then(|link| Some((link, self.window.path_rate()?)))
        {
            self.records.entry(link.kind.preference).or_default().rate = Some((rate, now));
        }
        for link in self.links.values_mut() {
            (link.proven, link.probe_at, link.slow, link.carries) = (None, None, None, None);
        }
        if let Some(link) = self.links.get_mut(&id) {
            link.carries = Some(now);
            (link.draining, link.last_word) = (false, None);
            link.waits_for_resume = false;
        }
        self.active = Some(id);
        self.unlinked_at = None;
        self.window = LinkWindow::new(self.config.link_window, self.config.link_window_max, in_flight);
        self.state_now = true;
        self.events.push_back(Event::Carried(id));
    }

    /// The link that handed the session over may never deliver what it carried: it goes again. The peer gets a list that
    /// it has not asked for, and with it states again what this side may have answered in vain.
    fn old_link_failed(&mut self, now: Moment) {
        let Some(active) = self.active.and_then(|active| self.links.get_mut(&active)) else { return };
        if active.resume_out.is_none() {
            active.resume_out = Some(ResumeOut { reply: true, from: StreamId(0) });
        }
        self.streams.values_mut().for_each(|stream| stream.receive.tell_again());
        self.repeat(now);
    }

    /// The answer to a terminal state, RETIRE, may have been lost: its sender does not remember it.
    fn stop_again(&mut self, now: Moment) {
        if self.lost {
            return;
        }
        let stopped = |(_, stream): &(&StreamId, &Stream)| stream.stop_sent && !stream.receive.over();
        let ids: Vec<StreamId> = self.streams.iter().filter(stopped).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.stop_sent = false;
            }
            self.state(id, true, now);
        }
    }

    /// Frames that other links lost are stated again, and what the peer does not have goes again: all of
    /// it is absolute, so that what it does have changes nothing.
    fn repeat(&mut self, now: Moment) {
        self.links.values_mut().for_each(|link| (link.draining, link.last_word) = (false, None));
        self.in_flight = 0;
        self.window = LinkWindow::new(self.config.link_window, self.config.link_window_max, 0);
        self.drain_due = self.draining;
        self.peer_told = self.config.max_streams;
        self.state_now = true;
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for stream in ids {
            if let Some(state) = self.streams.get_mut(&stream) {
                state.send.rewind();
                state.stop_sent = false;
                state.receive.restate();
                state.open_sent = !state.local || state.open_heard;
            }
            self.state(stream, true, now);
            self.schedule(stream);
        }
    }

    /// The peer's link is up and it wants to know what we have, or tells us.
    pub(super) fn handle_resume_end(&mut self, id: LinkId, reply: bool, now: Moment) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.waits_for_resume = false;
        let asked = core::mem::take(&mut link.resume_sent);
        self.stop_again(now);
        if reply {
            return;
        }
        if !asked && let Some(link) = self.links.get_mut(&id) {
            link.resume_out = Some(ResumeOut { reply: true, from: StreamId(0) });
        }
        if let Some(active) = self.active.filter(|active| *active != id) {
            // To the peer our link is dead; it may be.
            if let Some(other) = self.links.get_mut(&active) {
                other.suspect = true;
                other.ask(now);
                let (kind, carries) = (other.kind, other.carries);
                self.failed(kind, carries, now);
            }
            self.activate(id, true, now);
        }
    }

    pub(super) fn handle_pong(&mut self, id: LinkId, token: u64, now: Moment) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(sample) = link.handle_pong(token, now) else { return };
        if link.probe_at.is_some() {
            let bound = self.active_round_trip().map(|time| time * SLOWER + SLOWER_BY);
            let in_time = bound.is_none_or(|bound| sample <= bound);
            if let Some(link) = self.links.get_mut(&id) {
                link.proven = if in_time { Some(link.proven.unwrap_or(now)) } else { None };
            }
        }
        self.consider(now);
    }

    fn active_round_trip(&self) -> Option<Duration> {
        let asked = self.active.and_then(|active| self.links.get(&active)).and_then(LinkState::round_trip);
        self.window.round_trip().into_iter().chain(asked).min()
    }

    /// A kind of link has failed: it is held back for a while.
    fn failed(&mut self, kind: LinkKind, carries: Option<Moment>, now: Moment) {
        let record = self.records.entry(kind.preference).or_default();
        let hold = self.config.hold * (1 << record.failures.min(HOLD_DOUBLINGS));
        if carries.is_some_and(|since| now.since(since) >= hold) {
            record.failures = 0;
        }
        record.held_until = now + self.config.hold * (1 << record.failures.min(HOLD_DOUBLINGS));
        record.failures = record.failures.saturating_add(1);
    }

    /// Puts better links than the present one on probation, and lets one take over that has passed it.
    fn consider(&mut self, now: Moment) {
        let Some(active) = self.active.filter(|_| !self.lost) else { return };
        let Some(present) = self.links.get(&active) else { return };
        let (preference, waits) = (present.kind.preference, present.waits_for_resume);
        let rate = self.window.path_rate();
        let mut chosen = None;
        for (&id, link) in &mut self.links {
            if id == active || link.kind.preference <= preference {
                continue;
            }
            let record = self.records.get(&link.kind.preference).copied().unwrap_or_default();
            let known = record.rate.filter(|(_, at)| now.since(*at) < RATE_LIFE).map(|(rate, _)| rate);
            // A kind of link that was seen to carry half as much is no better.
            let thin = matches!((known, rate), (Some(known), Some(rate)) if known < rate / 2);
            if link.stalled || thin || waits {
                (link.proven, link.probe_at) = (None, None);
            } else if now < record.held_until {
                (link.proven, link.probe_at) = (None, Some(record.held_until));
            } else if link.proven.is_some_and(|since| now.since(since) >= self.config.probation) {
                chosen = chosen.max(Some((link.kind.preference, core::cmp::Reverse(id))));
            } else if link.probe_at.is_none_or(|at| now >= at) {
                link.ask(now);
                link.owe(now);
                link.probe_at = Some(now + self.config.probation / PROBES);
            }
        }
        if let Some((_, core::cmp::Reverse(id))) = chosen {
            self.hand_over(id, now);
        } else {
            self.compare(active, now);
        }
    }

    /// A present link that is much slower than one standing by, for long enough, loses the session to it.
    fn compare(&mut self, active: LinkId, now: Moment) {
        let standing = |link: &LinkState| if link.stalled { None } else { link.round_trip };
        let others = self.links.iter().filter(|(id, _)| **id != active);
        let best = others.filter_map(|(id, link)| Some((standing(link)?, *id))).min();
        let present = self.active_round_trip();
        let Some(link) = self.links.get_mut(&active) else { return };
        let (Some((time, id)), Some(present)) = (best, present) else {
            link.slow = None;
            return;
        };
        let slow = present > time * TOO_SLOW + TOO_SLOW_BY;
        link.slow = if slow { Some(link.slow.unwrap_or(now)) } else { None };
        if link.slow.is_some_and(|since| now.since(since) >= self.config.probation) {
            let (kind, carries) = (link.kind, link.carries);
            self.failed(kind, carries, now);
            self.hand_over(id, now);
        }
    }

    pub(super) fn check_links(&mut self, now: Moment) {
        let mut dead = Vec::new();
        let mut stalled = Vec::new();
        let in_flight = self.in_flight > 0;
        for (&id, link) in &mut self.links {
            match link.dead_at(&self.config) {
                Some(at) if now >= at => dead.push(id),
                Some(_) => {}
                None if now >= link.last_heard + self.config.keep_alive => link.ask(now),
                None => {}
            }
            let patience = link.patience(&self.config);
            let Some(since) = link.owed.filter(|_| !link.stalled) else { continue };
            if link.ping.is_none() && !link.waits_for_resume && !(in_flight && self.active == Some(id)) {
                link.owed = None;
            } else if now >= since + patience {
                (link.stalled, link.proven) = (true, None);
                stalled.push(id);
            } else if now >= since + patience / 2 {
                link.ask(now);
            }
        }
        for id in dead {
            self.events.push_back(Event::LinkDead {
                link: id,
                code: CloseCode::TIMEOUT,
                reason: String::new(),
            });
            self.link_down(id, now);
        }
        for id in stalled {
            self.handle_stall(id, now);
        }
        if self.in_flight == 0 {
            // What they carried has arrived.
            let arrived = |link: &&mut LinkState| link.last_word.is_none();
            self.links.values_mut().filter(arrived).for_each(|link| link.draining = false);
        }
        self.consider(now);
    }

    fn handle_stall(&mut self, id: LinkId, now: Moment) {
        let Some(link) = self.links.get(&id) else { return };
        if self.active != Some(id) {
            if link.draining {
                self.old_link_failed(now);
            }
            return;
        }
        let (kind, carries) = (link.kind, link.carries);
        self.failed(kind, carries, now);
        self.events.push_back(Event::Stalled(id));
        let other = self.best_other(Some(id));
        if let Some(other) = other.filter(|other| self.links.get(other).is_some_and(|link| !link.stalled)) {
            self.activate(other, false, now);
        }
    }
}

#[cfg(test)]
mod tests;
