//! Two honest sides, joined by links that tear, hold back, overtake each other, repeat, swallow and are cut.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use vitte_net_proto::frame::{Decoded, Frame, read_frame};
use vitte_net_proto::{CloseCode, Config, Lane, LinkId, LinkKind, Moment, Outcome, StreamId};

use super::config;
use super::input::Input;
use super::side::Side;
use super::watch::Watch;

/// Steps of one input.
const STEPS_MAX: usize = 200;
/// Runs that were delivered and may come again.
const HISTORY_MAX: usize = 6;

/// The bytes of one lane on their way: runs of whole frames, the first of which may be delivered in part.
#[derive(Default)]
struct Pipe {
    runs: VecDeque<Vec<u8>>,
    at: usize,
}

struct Link {
    id: LinkId,
    pipes: [[Pipe; Lane::COUNT as usize]; 2],
    /// Frames that travel alone.
    packets: [VecDeque<Vec<u8>>; 2],
    /// It takes everything and delivers nothing.
    swallows: bool,
}

struct Pair {
    config: Config,
    sides: [Side; 2],
    watches: [Watch; 2],
    links: Vec<Link>,
    next_link: u64,
    now: Moment,
    /// What was delivered to each side lately.
    history: VecDeque<(usize, Vec<u8>)>,
}

pub fn run(data: &[u8]) {
    let mut pair = Pair::new(config());
    let _ = drive(&mut pair, &mut Input(data));
    pair.heal();
    pair.check();
}

fn drive(pair: &mut Pair, input: &mut Input<'_>) -> Option<()> {
    for _ in 0..STEPS_MAX {
        match input.below(24)? {
            0..=8 => {
                let side = input.below(2)?;
                pair.sides[side].act(input, pair.now)?;
                pair.sides[side].events(pair.now);
                pair.sides[side].check(&pair.config);
            }
            9..=12 => {
                let room = input.of(&[16_384, 16_384, 4_200, 5_000, 900, 0])?;
                pair.transmit(room);
            }
            13..=16 => {
                let choices = input.byte()?;
                let (link, from) = (usize::from(choices % 3), usize::from(choices / 3 % 2));
                pair.deliver(link, from, usize::from(choices / 6), input.byte()?);
            }
            17 => {
                pair.deliver_all();
            }
            18 => pair.attach(input.flag()?),
            19 => pair.cut(input.below(3)?),
            20 => {
                if input.byte()? < 64
                    && let Some(link) = pair.links.last_mut()
                {
                    link.swallows = true;
                }
            }
            21 => pair.repeat(input.byte()?),
            _ => {
                let ms = input.byte()?;
                let ms = if ms >= 240 { u64::from(ms - 239) * 4_000 } else { u64::from(ms % 40) };
                pair.advance(Duration::from_millis(ms));
            }
        }
    }
    Some(())
}

impl Pair {
    fn new(config: Config) -> Self {
        let sides = [Side::new(&config, 1, 2), Side::new(&config, 2, 1)];
        let watches = [Watch::default(), Watch::default()];
        Self {
            config,
            sides,
            watches,
            links: Vec::new(),
            next_link: 0,
            now: Moment::ZERO,
            history: VecDeque::new(),
        }
    }

    fn attach(&mut self, lanes: bool) {
        let id = LinkId(self.next_link);
        self.next_link += 1;
        let kind = LinkKind { lanes, preference: u8::from(lanes) };
        let attached = self.sides.each_mut().map(|side| side.session.attach(id, kind, self.now).is_ok());
        if attached == [true; 2] {
            self.links.push(Link {
                id,
                pipes: Default::default(),
                packets: Default::default(),
                swallows: false,
            });
        } else {
            self.sides.iter_mut().for_each(|side| side.session.link_down(id, self.now));
        }
    }

    fn cut(&mut self, index: usize) {
        if index < self.links.len() {
            let link = self.links.remove(index);
            for side in &mut self.sides {
                side.session.link_down(link.id, self.now);
                side.events(self.now);
            }
        }
    }

    fn transmit(&mut self, room: usize) -> bool {
        let mut moved = false;
        let first = self.config.stream_window;
        for from in 0..2 {
            let [one, other] = &mut self.watches;
            let (watch, peer) = if from == 0 { (one, other) } else { (other, one) };
            let side = &mut self.sides[from];
            for link in &mut self.links {
                let mut out = Vec::new();
                while let Some(lane) = side.session.poll_transmit(link.id, &mut |_| room, &mut out, self.now)
                {
                    assert!(!out.is_empty() && out.len() <= room, "{} bytes in {room}", out.len());
                    watch.see(&out, |stream| peer.limit(stream, first));
                    moved = true;
                    let run = std::mem::take(&mut out);
                    if lane == Lane::DATAGRAM {
                        link.packets[from].push_back(run);
                    } else if !link.swallows {
                        link.pipes[from][usize::from(lane.0)].runs.push_back(run);
                    }
                }
                assert!(out.is_empty());
            }
            side.events(self.now);
        }
        moved
    }

    /// Delivers from the lane that `pick` says, of those that have something: a run, a part of one, one twice,
    /// or all of them.
    fn deliver(&mut self, link: usize, from: usize, pick: usize, how: u8) {
        if how >= 160 {
            self.deliver_packet(link, from, pick, how);
            return;
        }
        let Some(link) = self.links.get(link) else { return };
        let full = (0..Lane::COUNT).filter(|lane| !link.pipes[from][usize::from(*lane)].runs.is_empty());
        let count = full.clone().count();
        let (id, mut full) = (link.id, full);
        let Some(lane) = (count > 0).then(|| full.nth(pick % count)).flatten() else { return };
        match how {
            0..=31 => self.deliver_part(id, from, lane, usize::from(how) + 1),
            32..=95 => while self.deliver_run(id, from, lane, false) {},
            96..=127 => {
                self.deliver_run(id, from, lane, true);
            }
            _ => {
                self.deliver_run(id, from, lane, false);
            }
        }
    }

    /// Delivers a packet of those that are under way, perhaps twice, or loses it.
    fn deliver_packet(&mut self, link: usize, from: usize, pick: usize, how: u8) {
        let Some(link) = self.links.get_mut(link) else { return };
        let (id, count) = (link.id, link.packets[from].len());
        let Some(packet) = (count > 0).then(|| link.packets[from].remove(pick % count)).flatten() else {
            return;
        };
        for _ in 0..usize::from(how % 4).min(2) {
            self.hand(id, from, Lane::DATAGRAM.0, &packet);
        }
    }

    fn pipe(&mut self, id: LinkId, from: usize, lane: u8) -> Option<&mut Pipe> {
        let link = self.links.iter_mut().find(|link| link.id == id)?;
        Some(&mut link.pipes[from][usize::from(lane)])
    }

    fn deliver_part(&mut self, id: LinkId, from: usize, lane: u8, len: usize) {
        let Some(pipe) = self.pipe(id, from, lane) else { return };
        let Some(run) = pipe.runs.front() else { return };
        if pipe.at + len >= run.len() {
            self.deliver_run(id, from, lane, false);
            return;
        }
        let part = run[pipe.at..pipe.at + len].to_vec();
        pipe.at += len;
        self.hand(id, from, lane, &part);
    }

    fn deliver_run(&mut self, id: LinkId, from: usize, lane: u8, twice: bool) -> bool {
        let Some(pipe) = self.pipe(id, from, lane) else { return false };
        let at = std::mem::take(&mut pipe.at);
        let Some(run) = pipe.runs.pop_front() else { return false };
        self.hand(id, from, lane, &run[at..]);
        if twice {
            self.hand_again(id, from, &run);
        }
        if run.len() < 600 {
            self.history.truncate(HISTORY_MAX - 1);
            self.history.push_front((from, run));
        }
        true
    }

    fn hand(&mut self, id: LinkId, from: usize, lane: u8, run: &[u8]) {
        let to = &mut self.sides[1 - from];
        let result = to.session.handle_bytes(id, Lane(lane), run, self.now);
        assert_eq!(result, Ok(()), "an honest peer broke the protocol");
        to.events(self.now);
    }

    /// Hands the frames of streams out of `run` in again: they are absolute, so nothing may change.
    fn hand_again(&mut self, id: LinkId, from: usize, run: &[u8]) {
        let torn = self.pipe(id, from, 0).is_none_or(|pipe| pipe.at > 0);
        if torn {
            return;
        }
        let mut again = Vec::new();
        let mut rest = run;
        while let Ok(Decoded::Frame(frame, len)) = read_frame(rest) {
            match frame {
                Frame::Open { .. }
                | Frame::Data { .. }
                | Frame::Fin { .. }
                | Frame::Stop { .. }
                | Frame::Reset { .. }
                | Frame::Retire { .. }
                | Frame::Offsets { .. }
                | Frame::Latest { .. }
                | Frame::Datagram { .. }
                | Frame::MaxStreams { .. } => again.extend_from_slice(&rest[..len]),
                _ => {}
            }
            rest = &rest[len..];
        }
        self.hand(id, from, 0, &again);
    }

    /// Something old comes again, over whatever link there is.
    fn repeat(&mut self, choices: u8) {
        let Some((from, run)) = self.history.get(usize::from(choices) % HISTORY_MAX).cloned() else { return };
        if let Some(link) = self.links.get(usize::from(choices / 16) % 3) {
            self.hand_again(link.id, from, &run);
        }
    }

    fn deliver_all(&mut self) -> bool {
        let mut moved = false;
        let ids: Vec<LinkId> = self.links.iter().filter(|link| !link.swallows).map(|link| link.id).collect();
        for id in ids {
            for from in 0..2 {
                let packets =
                    |link: &mut Link| (link.id == id).then(|| std::mem::take(&mut link.packets[from]));
                for packet in self.links.iter_mut().find_map(packets).unwrap_or_default() {
                    moved = true;
                    self.hand(id, from, Lane::DATAGRAM.0, &packet);
                }
                for lane in 0..Lane::COUNT {
                    while self.deliver_run(id, from, lane, false) {
                        moved = true;
                    }
                }
            }
        }
        moved
    }

    fn advance(&mut self, by: Duration) {
        self.now = self.now + by;
        for side in &mut self.sides {
            if side.session.poll_timeout().is_some_and(|at| at <= self.now) {
                side.session.handle_timeout(self.now);
            }
            side.events(self.now);
        }
        for side in 0..2 {
            while let Some(dead) = self.sides[side].dead.pop() {
                if let Some(index) = self.links.iter().position(|link| link.id == dead) {
                    self.cut(index);
                }
            }
        }
    }

    fn lost(&self) -> bool {
        self.sides.iter().any(|side| side.session.is_lost())
    }

    /// One good link, readers that take everything, and time, until nothing moves any more.
    fn heal(&mut self) {
        while !self.links.is_empty() {
            self.cut(0);
        }
        if !self.lost() {
            self.attach(true);
            self.settle();
        }
        if self.lost() {
            for side in &mut self.sides {
                side.session.lose(CloseCode::TIMEOUT, "the other side lost it");
                side.events(self.now);
            }
        }
        self.sides.iter().for_each(|side| side.check(&self.config));
    }

    /// Time goes on only as far as somebody waits for it, and no further than to what a live link waits for.
    fn settle(&mut self) {
        for _ in 0..2_000 {
            let mut moved = self.transmit(16_384);
            moved |= self.deliver_all();
            let now = self.now;
            self.sides.iter_mut().for_each(|side| moved |= side.take_everything(now));
            if moved {
                continue;
            }
            let due = self.sides.iter().filter_map(|side| side.session.poll_timeout()).min();
            match due.map(|at| at.since(now)) {
                Some(wait) if wait <= Duration::from_millis(300) => self.advance(wait),
                _ => return,
            }
        }
        panic!("the pair never came to rest");
    }

    /// Every message ended once, and what was delivered is what the other application took, in order.
    fn check(mut self) {
        let lost = self.lost();
        for from in 0..2 {
            self.check_direction(from, lost);
        }
        if lost {
            return;
        }
        for side in &mut self.sides {
            for stream in side.streams.clone() {
                side.session.release(stream, self.now);
            }
        }
        self.settle();
        for (from, side) in self.sides.iter().enumerate() {
            assert_eq!(side.session.stream_count(), 0, "{:#?}", side.session);
            assert_eq!(side.session.held_bytes(), 0);
            let counters = side.session.counters();
            let taken: usize = self.sides[1 - from].taken.values().map(Vec::len).sum();
            assert_eq!((counters.in_flight, counters.delivered), (0, taken as u64), "{counters:?}");
        }
    }

    fn check_direction(&self, from: usize, lost: bool) {
        let (sender, receiver) = (&self.sides[from], &self.sides[1 - from]);
        if sender.datagrams.is_empty() || lost {
            assert_eq!(sender.session.counters().in_flight, 0);
        }
        let mut delivered: BTreeMap<StreamId, Vec<Vec<u8>>> = BTreeMap::new();
        for (index, sent) in sender.sent.iter().enumerate() {
            match sent.outcome.expect("every send ended") {
                Outcome::Delivered => delivered.entry(sent.stream).or_default().push(sent.payload(index)),
                Outcome::Unknown => assert!(lost, "message {index} is unknown, and the session lives"),
                Outcome::Refused(_) | Outcome::Expired | Outcome::Superseded => {}
            }
        }
        for (stream, payloads) in &delivered {
            let taken = receiver.taken.get(stream).map(Vec::as_slice).unwrap_or_default();
            let same = taken.iter().zip(payloads).all(|(taken, sent)| taken == sent);
            assert!(same && taken.len() >= payloads.len(), "{stream:?}: {payloads:?} of {taken:?}");
        }
        if !lost {
            let reliable = receiver.taken.iter().filter(|(stream, _)| !sender.datagrams.contains_key(stream));
            for (stream, taken) in reliable {
                let count = delivered.get(stream).map_or(0, Vec::len);
                assert_eq!(taken.len(), count, "{stream:?}: what was taken was delivered");
            }
        }
        for (stream, sent) in &sender.datagrams {
            let mut sent = sent.iter();
            for taken in receiver.taken.get(stream).into_iter().flatten() {
                assert!(
                    sent.any(|sent| sent == taken),
                    "{stream:?}: a datagram that nobody sent, or out of order"
                );
            }
        }
        for (stream, bytes) in &receiver.bytes_taken {
            let sent = sender.bytes_sent.get(stream).map(Vec::as_slice).unwrap_or_default();
            assert!(sent.starts_with(bytes), "{stream:?} received what nobody sent");
        }
    }
}
