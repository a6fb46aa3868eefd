//! The links of a session: which one carries it, whether they live, how the next takes over.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::{Event, Session};
use crate::config::Config;
use crate::error::CloseCode;
use crate::frame::Deframer;
use crate::id::{Lane, LinkId, StreamId};
use crate::time::Moment;

/// A peer says that its other links are dead: ours must answer within this time.
const SUSPECT_TIMEOUT: Duration = Duration::from_secs(1);

/// What a link can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkKind {
    /// It has [`Lane::COUNT`] lanes with flow control of their own; otherwise it has one, and the session
    /// keeps its kernel buffers short.
    pub lanes: bool,
    /// When the link that carries the session dies, the live one with the greatest preference takes over.
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

    fn ask(&mut self, now: Moment) {
        if self.ping.is_none() {
            self.ping = Some(Ping { token: self.next_token, asked: now, alive: now });
            self.ping_due = Some(self.next_token);
            self.next_token += 1;
        }
    }

    fn dead_at(&self, config: &Config) -> Option<Moment> {
        let timeout =
            if self.suspect { SUSPECT_TIMEOUT.min(config.link_timeout) } else { config.link_timeout };
        self.ping.map(|ping| ping.alive + timeout)
    }

    pub(super) fn next_timeout(&self, config: &Config) -> Moment {
        self.dead_at(config).unwrap_or(self.last_heard + config.keep_alive)
    }

    pub(super) fn heard(&mut self, now: Moment) {
        self.last_heard = now;
        if let Some(ping) = &mut self.ping {
            ping.alive = now;
        }
    }

    pub(super) fn handle_pong(&mut self, token: u64, now: Moment) {
        if let Some(ping) = self.ping.take_if(|ping| ping.token == token) {
            let sample = now.since(ping.asked);
            self.round_trip = Some(self.round_trip.map_or(sample, |known| (known * 7 + sample) / 8));
            self.suspect = false;
        }
        self.last_heard = now;
    }
}

impl Session {
    /// Adds a link whose handshake is done. The first carries the session; a later one stands by
    /// until the first dies.
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
        self.links.insert(link, LinkState::new(kind, now));
        if self.active.is_none() {
            self.activate(link, now);
        }
        Ok(())
    }

    /// A link is gone. What it carried and the peer does not have goes again over the next.
    pub fn link_down(&mut self, link: LinkId, now: Moment) {
        if self.links.remove(&link).is_none() || self.active != Some(link) {
            return;
        }
        self.active = None;
        let best =
            self.links.iter().max_by_key(|(id, link)| (link.kind.preference, core::cmp::Reverse(**id)));
        match best.map(|(id, _)| *id) {
            Some(next) => self.activate(next, now),
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

    fn activate(&mut self, id: LinkId, now: Moment) {
        self.active = Some(id);
        self.unlinked_at = None;
        self.events.push_back(Event::Carried(id));
        if !self.carried {
            self.carried = true;
            let ids: Vec<StreamId> = self.streams.keys().copied().collect();
            ids.into_iter().for_each(|stream| self.schedule(stream));
            return;
        }
        if let Some(link) = self.links.get_mut(&id) {
            link.resume_out = Some(ResumeOut { reply: false, from: StreamId(0) });
            link.resume_sent = true;
            link.waits_for_resume = true;
        }
        // Frames that the old link lost are stated again: they are absolute.
        self.in_flight = 0;
        self.drain_due = self.draining;
        self.peer_told = self.config.max_streams;
        self.state_now = true;
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for stream in ids {
            if let Some(state) = self.streams.get_mut(&stream) {
                state.send.rewind();
                state.stop_sent = false;
                state.open_sent = !state.local || state.open_heard;
            }
            self.state(stream, true, now);
            self.schedule(stream);
        }
    }

    /// The peer's link is up and it wants to know what we have, or tells us.
    pub(super) fn handle_resume_end(&mut self, id: LinkId, reply: bool, now: Moment) {
        let active = self.active;
        let Some(link) = self.links.get_mut(&id) else { return };
        link.waits_for_resume = false;
        if !reply && !link.resume_sent {
            link.resume_out = Some(ResumeOut { reply: true, from: StreamId(0) });
        }
        link.resume_sent = false;
        if !reply
            && let Some(other) =
                active.filter(|other| *other != id).and_then(|other| self.links.get_mut(&other))
        {
            // To the peer our link is dead; it may be.
            other.suspect = true;
            other.ask(now);
        }
    }

    pub(super) fn check_links(&mut self, now: Moment) {
        let mut dead = Vec::new();
        for (&id, link) in &mut self.links {
            match link.dead_at(&self.config) {
                Some(at) if now >= at => dead.push(id),
                Some(_) => {}
                None if now >= link.last_heard + self.config.keep_alive => link.ask(now),
                None => {}
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
    }
}
