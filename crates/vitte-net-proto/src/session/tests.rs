//! Two sessions in memory, joined by links that tear, hold back and are cut anywhere.

mod rules;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::frame::{Offsets, StreamKind};
use crate::id::{DeliveryClass, Lane, Priority};
use crate::stream::receive::Taken;

mod datagrams;
mod latest;

const TICK: Duration = Duration::from_millis(1);

/// One side: a session, and an application that remembers what it was told.
pub(super) struct Side {
    pub(super) session: Session,
    /// Outcome of each token, and of how many sends we expect one.
    pub(super) outcomes: BTreeMap<u64, Outcome>,
    pub(super) opened: Vec<(StreamId, OpenInfo)>,
    stopped: Vec<(StreamId, StreamCode)>,
    accepted: Vec<StreamId>,
    pub(super) taken: BTreeMap<StreamId, Vec<Bytes>>,
    /// Links that were said to have stalled.
    pub(super) stalled: Vec<LinkId>,
    dead_links: Vec<LinkId>,
    pub(super) lost: bool,
    more_streams: bool,
}

impl Side {
    fn new(config: &Config, local: u8, remote: u8) -> Self {
        let session = Session::new(
            config.clone(),
            PeerId([local; 32]),
            PeerId([remote; 32]),
            Session::limits(config),
            Moment::ZERO,
        );
        Self {
            session,
            outcomes: BTreeMap::new(),
            opened: Vec::new(),
            stopped: Vec::new(),
            accepted: Vec::new(),
            taken: BTreeMap::new(),
            stalled: Vec::new(),
            dead_links: Vec::new(),
            lost: false,
            more_streams: false,
        }
    }

    fn events(&mut self, now: Moment, accept: bool) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Opened { stream, info } => {
                    self.opened.push((stream, info));
                    if accept {
                        self.session.accept(stream, now);
                    }
                }
                Event::Settled { token, outcome } => {
                    let before = self.outcomes.insert(token, outcome);
                    assert_eq!(before, None, "message {token} ended twice");
                }
                Event::Stopped { stream, code, .. } => self.stopped.push((stream, code)),
                Event::Accepted(stream) => self.accepted.push(stream),
                Event::Stalled(link) => self.stalled.push(link),
                Event::LinkDead { link, .. } => self.dead_links.push(link),
                Event::Lost { .. } => self.lost = true,
                Event::MoreStreams => self.more_streams = true,
                Event::Readable(_)
                | Event::Writable(_)
                | Event::Finished(_)
                | Event::Unreachable
                | Event::Carried(_)
                | Event::Draining
                | Event::Throttled => {}
            }
        }
        assert!(self.session.counters().balanced(), "{:?}", self.session.counters());
    }

    pub(super) fn take_all(&mut self, stream: StreamId, now: Moment) {
        while let Taken::Payload(payload) = self.session.take(stream, usize::MAX, now) {
            self.taken.entry(stream).or_default().push(payload);
        }
    }
}

/// Bytes on their way, for each lane.
pub(super) type Pipe = BTreeMap<Lane, VecDeque<u8>>;

pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) pipes: [Pipe; 2],
    /// Frames that travel alone, and may be lost.
    packets: [VecDeque<Vec<u8>>; 2],
    /// What is sent is lost, in each direction.
    pub(super) mute: [bool; 2],
    /// Bytes that were transmitted, in each direction.
    pub(super) bytes: [usize; 2],
}

pub(super) struct Pair {
    pub(super) sides: [Side; 2],
    pub(super) links: Vec<Link>,
    next_link: u64,
    pub(super) now: Moment,
    accept: bool,
}

impl Pair {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            sides: [Side::new(config, 1, 2), Side::new(config, 2, 1)],
            links: Vec::new(),
            next_link: 0,
            now: Moment::ZERO,
            accept: true,
        }
    }

    pub(super) fn linked(config: &Config, lanes: bool) -> Self {
        let mut pair = Self::new(config);
        pair.attach(lanes);
        pair
    }

    pub(super) fn attach(&mut self, lanes: bool) {
        self.attach_preferred(lanes, 0);
    }

    pub(super) fn attach_preferred(&mut self, lanes: bool, preference: u8) {
        self.attach_unlike(lanes, [preference; 2]);
    }

    /// A link that one side may like better than the other.
    pub(super) fn attach_unlike(&mut self, lanes: bool, preferences: [u8; 2]) {
        let id = LinkId(self.next_link);
        self.next_link += 1;
        for (side, preference) in self.sides.iter_mut().zip(preferences) {
            if side.session.attach(id, LinkKind { lanes, preference }, self.now).is_err() {
                return;
            }
        }
        self.links.push(Link {
            id,
            pipes: Default::default(),
            packets: Default::default(),
            mute: [false; 2],
            bytes: [0; 2],
        });
    }

    /// Cuts a link: what is on its way is lost.
    pub(super) fn cut(&mut self, index: usize) {
        if self.links.is_empty() {
            return;
        }
        let link = self.links.remove(index % self.links.len());
        self.sides.iter_mut().for_each(|side| side.session.link_down(link.id, self.now));
    }

    pub(super) fn transmit(&mut self, room: usize) {
        for (from, side) in self.sides.iter_mut().enumerate() {
            for link in &mut self.links {
                let mut out = Vec::new();
                while let Some(lane) = side.session.poll_transmit(link.id, &mut |_| room, &mut out, self.now)
                {
                    assert!(out.len() <= room, "{} bytes in a room of {room}", out.len());
                    link.bytes[from] += out.len();
                    if link.mute[from] {
                        out.clear();
                    }
                    if lane == Lane::DATAGRAM {
                        link.packets[from].push_back(core::mem::take(&mut out));
                    } else {
                        link.pipes[from].entry(lane).or_default().extend(out.drain(..));
                    }
                }
                assert!(out.is_empty());
            }
            side.events(self.now, self.accept);
        }
    }

    /// Delivers at most `most` bytes of one lane of each link, chosen by `pick`.
    pub(super) fn deliver(&mut self, most: usize, pick: usize) {
        for link in &mut self.links {
            for (from, pipe) in link.pipes.iter_mut().enumerate() {
                let lanes: Vec<Lane> =
                    pipe.iter().filter(|(_, bytes)| !bytes.is_empty()).map(|(lane, _)| *lane).collect();
                let Some(lane) = (!lanes.is_empty()).then(|| lanes[pick % lanes.len()]) else { continue };
                let bytes = pipe.entry(lane).or_default();
                let run: Vec<u8> = bytes.drain(..most.min(bytes.len())).collect();
                let to = &mut self.sides[1 - from];
                let result = to.session.handle_bytes(link.id, lane, &run, self.now);
                assert_eq!(result, Ok(()), "an honest peer broke the protocol");
                to.events(self.now, self.accept);
            }
        }
    }

    /// Delivers a packet of each link and direction, the last one first if `pick` is odd; every fourth is lost,
    /// and every fifth comes twice.
    fn deliver_packet(&mut self, pick: usize) {
        for link in &mut self.links {
            for (from, packets) in link.packets.iter_mut().enumerate() {
                let packet = if pick.is_multiple_of(2) { packets.pop_front() } else { packets.pop_back() };
                let times = usize::from(pick % 4 != 3) + usize::from(pick % 5 == 4);
                for packet in core::iter::repeat_n(packet, times).flatten() {
                    let to = &mut self.sides[1 - from];
                    let result = to.session.handle_bytes(link.id, Lane::DATAGRAM, &packet, self.now);
                    assert_eq!(result, Ok(()), "an honest peer broke the protocol");
                    to.events(self.now, self.accept);
                }
            }
        }
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.now = self.now + by;
        for side in &mut self.sides {
            if side.session.poll_timeout().is_some_and(|at| at <= self.now) {
                side.session.handle_timeout(self.now);
            }
            side.events(self.now, self.accept);
        }
        let dead: Vec<LinkId> = self.sides.iter_mut().flat_map(|side| side.dead_links.drain(..)).collect();
        for id in dead {
            if let Some(index) = self.links.iter().position(|link| link.id == id) {
                self.cut(index);
            }
        }
    }

    fn quiet(&self) -> bool {
        self.links.iter().all(|link| link.pipes.iter().flat_map(BTreeMap::values).all(VecDeque::is_empty))
    }

    /// Lets everything happen that can, with readers that take what comes.
    pub(super) fn settle(&mut self) {
        let mut idle = 0;
        for _ in 0..20_000 {
            self.transmit(16_384);
            let quiet = self.quiet();
            for pick in 0..Lane::COUNT.into() {
                self.deliver(usize::MAX, pick);
            }
            while self.links.iter().any(|link| link.packets.iter().any(|packets| !packets.is_empty())) {
                self.deliver_packet(0);
            }
            let mut moved = false;
            for side in &mut self.sides {
                let before: usize = side.taken.values().map(Vec::len).sum();
                let streams: Vec<StreamId> = side.session.streams.keys().copied().collect();
                streams.into_iter().for_each(|stream| side.take_all(stream, self.now));
                moved |= before != side.taken.values().map(Vec::len).sum::<usize>();
            }
            self.advance(TICK);
            idle = if quiet && !moved { idle + 1 } else { 0 };
            if idle > 20 {
                return;
            }
        }
        panic!("the pair never came to rest");
    }
}

pub(super) fn channel(name: &str) -> OpenInfo {
    OpenInfo {
        kind: StreamKind::Channel,
        priority: Priority::Normal,
        class: DeliveryClass::Reliable,
        deadline: None,
        schema_out: 1,
        schema_in: 2,
        name: name.to_string(),
    }
}

pub(super) fn message(number: u64, len: usize) -> Bytes {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(len.max(8), number.to_le_bytes()[0]);
    bytes.into()
}

pub(super) fn open(pair: &mut Pair, side: usize, info: OpenInfo) -> StreamId {
    pair.sides[side].session.open(info).expect("there is room for a stream")
}

pub(super) fn send(pair: &mut Pair, side: usize, stream: StreamId, number: u64, len: usize) {
    let sent = pair.sides[side].session.send(stream, message(number, len), number, None, false);
    assert_eq!(sent, Ok(()));
}

#[test]
fn a_message_arrives_and_its_receipt_comes_back() {
    let mut pair = Pair::linked(&Config::default(), false);
    let stream = open(&mut pair, 0, channel("log"));
    send(&mut pair, 0, stream, 7, 100);
    pair.settle();
    assert_eq!(pair.sides[1].opened, vec![(stream, channel("log"))]);
    assert_eq!(pair.sides[1].taken[&stream], vec![message(7, 100)]);
    assert_eq!(pair.sides[0].outcomes, BTreeMap::from([(7, Outcome::Delivered)]));
    assert_eq!(pair.sides[0].accepted, vec![stream]);
}

#[test]
fn a_whole_call_leaves_nothing_behind() {
    for lanes in [false, true] {
        let mut pair = Pair::linked(&Config::default(), lanes);
        let call = OpenInfo { kind: StreamKind::Call, ..channel("call") };
        let stream = open(&mut pair, 0, call);
        send(&mut pair, 0, stream, 1, 64);
        pair.sides[0].session.finish(stream);
        pair.settle();
        send(&mut pair, 1, stream, 2, 64);
        pair.sides[1].session.release(stream, pair.now);
        pair.settle();
        assert_eq!(pair.sides[0].session.take(stream, 1, pair.now), Taken::End);
        pair.sides[0].session.release(stream, pair.now);
        pair.settle();
        assert_eq!(pair.sides.each_ref().map(|side| side.session.stream_count()), [0, 0]);
        assert_eq!(pair.sides[1].outcomes, BTreeMap::from([(2, Outcome::Delivered)]));
    }
}

#[test]
fn messages_larger_than_the_window_do_not_deadlock_each_other() {
    let config = Config { assembly_budget: 9 << 20, send_queue: 9 << 20, ..Config::default() };
    let mut pair = Pair::linked(&config, false);
    let streams: Vec<_> = (0..6).map(|_| open(&mut pair, 0, channel("big"))).collect();
    for (number, &stream) in streams.iter().enumerate() {
        send(&mut pair, 0, stream, number as u64 + 1, 8 << 20);
        send(&mut pair, 0, stream, number as u64 + 11, 3);
    }
    pair.settle();
    assert_eq!(pair.sides[0].outcomes.len(), 12);
    assert!(pair.sides[0].outcomes.values().all(|outcome| *outcome == Outcome::Delivered));
    for (number, stream) in streams.iter().enumerate() {
        let number = number as u64;
        assert_eq!(pair.sides[1].taken[stream], vec![message(number + 1, 8 << 20), message(number + 11, 3)]);
    }
    assert_eq!((pair.sides[1].session.assembly_used, pair.sides[1].session.assembly_reserve), (0, None));
}

#[test]
fn what_expires_in_the_queue_was_never_transmitted() {
    let mut pair = Pair::new(&Config::default());
    let stream = open(&mut pair, 0, channel("late"));
    let deadline = Some(Moment::ZERO + Duration::from_millis(50));
    for (number, deadline) in [(1, None), (2, deadline), (3, None)] {
        assert_eq!(pair.sides[0].session.send(stream, message(number, 8), number, deadline, false), Ok(()));
    }
    pair.advance(Duration::from_millis(50));
    assert_eq!(pair.sides[0].outcomes, BTreeMap::from([(2, Outcome::Expired)]));
    pair.attach(false);
    pair.settle();
    assert_eq!(pair.sides[1].taken[&stream], vec![message(1, 8), message(3, 8)]);
}

#[test]
fn a_stopped_stream_refuses_what_was_not_taken() {
    let mut pair = Pair::linked(&Config::default(), true);
    let stream = open(&mut pair, 0, channel("stopped"));
    (1..=3).for_each(|number| send(&mut pair, 0, stream, number, 10));
    pair.transmit(16_384);
    (0..4).for_each(|pick| pair.deliver(usize::MAX, pick));
    let Taken::Payload(first) = pair.sides[1].session.take(stream, 1, pair.now) else {
        panic!("three are here")
    };
    assert_eq!(first, message(1, 10));
    pair.sides[1].session.stop(stream, StreamCode(300), "enough", pair.now);
    pair.settle();
    let refused = Outcome::Refused(StreamCode(300));
    assert_eq!(pair.sides[0].outcomes, BTreeMap::from([(1, Outcome::Delivered), (2, refused), (3, refused)]));
    assert_eq!(pair.sides[0].stopped, vec![(stream, StreamCode(300))]);
    assert_eq!(pair.sides[0].session.send(stream, message(4, 8), 4, None, false), Err(SendError::Closed));
}

#[test]
fn a_lost_session_leaves_nothing_open() {
    let mut pair = Pair::linked(&Config::default(), false);
    let stream = open(&mut pair, 0, channel("lost"));
    send(&mut pair, 0, stream, 1, 10);
    pair.transmit(16_384);
    pair.cut(0);
    send(&mut pair, 0, stream, 2, 10);
    pair.advance(Duration::from_secs(61));
    assert!(pair.sides[0].lost);
    let expected = BTreeMap::from([(1, Outcome::Unknown), (2, Outcome::Refused(StreamCode::SHUTDOWN))]);
    assert_eq!(pair.sides[0].outcomes, expected);
}

#[test]
fn a_silent_link_dies_and_a_standby_takes_over() {
    let mut pair = Pair::linked(&Config::default(), true);
    pair.attach(false);
    let stream = open(&mut pair, 0, channel("moved"));
    send(&mut pair, 0, stream, 1, 10);
    pair.settle();
    // The first link swallows everything from now on.
    send(&mut pair, 0, stream, 2, 10);
    for _ in 0..40 {
        pair.transmit(16_384);
        pair.links
            .iter_mut()
            .filter(|link| link.id == LinkId(0))
            .for_each(|link| link.pipes = [Pipe::new(), Pipe::new()]);
        (0..4).for_each(|pick| pair.deliver(usize::MAX, pick));
        pair.advance(Duration::from_secs(1));
    }
    pair.settle();
    assert_eq!(pair.sides.each_ref().map(|side| side.session.active_link()), [Some(LinkId(1)); 2]);
    assert_eq!(pair.sides[1].taken[&stream], vec![message(1, 10), message(2, 10)]);
}

/// The peer resumes on a link that stands by here, and this side's own link dies before the answer is sent.
#[test]
fn two_sides_that_resume_one_after_the_other_do_not_wait_for_ever() {
    for first in 0..2 {
        let mut pair = Pair::linked(&Config::default(), false);
        let streams = [open(&mut pair, 0, channel("one")), open(&mut pair, 1, channel("other"))];
        pair.settle();
        pair.attach(false);
        pair.sides[first].session.link_down(LinkId(0), pair.now);
        pair.transmit(16_384);
        pair.deliver(usize::MAX, 0);
        pair.sides[1 - first].session.link_down(LinkId(0), pair.now);
        pair.links.remove(0);
        for (side, stream) in streams.into_iter().enumerate() {
            send(&mut pair, side, stream, 7, 100);
        }
        pair.settle();
        for (side, stream) in streams.into_iter().enumerate() {
            assert_eq!(pair.sides[side].outcomes.get(&7), Some(&Outcome::Delivered), "from {side}");
            assert_eq!(pair.sides[1 - side].taken[&stream], vec![message(7, 100)]);
        }
    }
}

#[test]
fn urgent_frames_pass_a_full_link_window() {
    let mut pair = Pair::linked(&Config::default(), false);
    for number in 0..20 {
        let bulk = open(&mut pair, 0, OpenInfo { priority: Priority::Bulk, ..channel("bulk") });
        send(&mut pair, 0, bulk, number + 1, 60_000);
    }
    pair.transmit(16_384);
    let written: usize = pair.links[0].pipes[0].values().map(VecDeque::len).sum();
    assert!((512 << 10..(512 << 10) + 17_000).contains(&written), "{written} bytes stand in the kernel");
    let urgent = open(&mut pair, 0, OpenInfo { priority: Priority::Urgent, ..channel("urgent") });
    send(&mut pair, 0, urgent, 100, 64);
    pair.transmit(16_384);
    let after: usize = pair.links[0].pipes[0].values().map(VecDeque::len).sum();
    assert!(after > written && after < written + 200);
}

#[test]
fn a_byte_stream_of_any_length_passes_a_small_window() {
    let mut pair = Pair::linked(&Config::default(), true);
    let stream = open(&mut pair, 0, OpenInfo { kind: StreamKind::Bytes, ..channel("blob") });
    let blob: Vec<u8> = (0..3_000_000_u32).map(|i| i.to_le_bytes()[i as usize % 3]).collect();
    let mut rest = Bytes::from(blob.clone());
    while !rest.is_empty() {
        let part = rest.split_to(rest.len().min(100_000));
        while pair.sides[0].session.send(stream, part.clone(), 0, None, true) == Err(SendError::Full) {
            pair.settle();
        }
    }
    pair.sides[0].session.finish(stream);
    pair.settle();
    assert_eq!(pair.sides[1].taken[&stream].concat(), blob);
    assert_eq!(pair.sides[1].session.take(stream, 1, pair.now), Taken::End);
}

/// Each stream would like to grow to the default of a mebibyte.
#[test]
fn windows_grow_no_further_than_all_of_them_may() {
    let budget = 200_000;
    let config = Config { window_budget: budget, ..Config::default() };
    let mut pair = Pair::linked(&config, true);
    let streams: Vec<StreamId> = (0..8)
        .map(|number| {
            open(&mut pair, 0, OpenInfo { kind: StreamKind::Bytes, ..channel(&number.to_string()) })
        })
        .collect();
    for _ in 0..30 {
        for &stream in &streams {
            let part = Bytes::from(vec![7; 50_000]);
            while pair.sides[0].session.send(stream, part.clone(), 0, None, true) == Err(SendError::Full) {
                pair.settle();
            }
        }
        assert!(pair.sides[1].session.window_used <= budget, "{}", pair.sides[1].session.window_used);
    }
    pair.settle();
    assert!(pair.sides[1].session.window_used > budget / 2, "{}", pair.sides[1].session.window_used);
    for &stream in &streams {
        assert_eq!(pair.sides[1].taken[&stream].concat().len(), 1_500_000, "all of it passes");
        pair.sides[0].session.finish(stream);
    }
    pair.settle();
    for side in &mut pair.sides {
        for &stream in &streams {
            side.session.take(stream, 1, pair.now);
            side.session.finish(stream);
            side.session.stop(stream, StreamCode::DROPPED, "", pair.now);
            side.session.release(stream, pair.now);
        }
    }
    pair.settle();
    assert_eq!(pair.sides[1].session.window_used, 0, "what ends gives its part back");
}

/// Bytes have no outcome: to give them up settles nothing.
#[test]
fn a_byte_stream_ends_with_bytes_in_its_queue() {
    type Ending = fn(&mut Session, StreamId, StreamCode, &str, Moment);
    for (side, end) in [(0, Session::reset as Ending), (1, Session::stop)] {
        let mut pair = Pair::linked(&Config::default(), false);
        let stream = open(&mut pair, 0, OpenInfo { kind: StreamKind::Bytes, ..channel("blob") });
        let deadline = Some(pair.now + TICK);
        for _ in 0..4 {
            let sent = pair.sides[0].session.send(stream, message(0, 30_000), 7, deadline, false);
            assert_eq!(sent, Ok(()));
        }
        pair.transmit(16_384);
        pair.deliver(100, 0);
        end(&mut pair.sides[side].session, stream, StreamCode::DROPPED, "", pair.now);
        pair.settle();
        assert_eq!(pair.sides[0].session.counters(), Counters::default());
        assert_eq!(pair.sides[0].outcomes, BTreeMap::new());
    }
}

#[test]
fn a_stream_that_is_forgotten_while_a_link_resumes_is_counted() {
    let config = Config { max_streams: 4, ..Config::default() };
    let mut pair = Pair::linked(&config, false);
    for _ in 0..6 {
        let stream = open(&mut pair, 0, channel("short"));
        pair.settle();
        for side in &mut pair.sides {
            side.session.release(stream, pair.now);
        }
        pair.settle();
    }
    let last = open(&mut pair, 0, channel("last"));
    pair.settle();
    pair.sides[0].session.release(last, pair.now);
    pair.settle();
    pair.cut(0);
    pair.attach(false);
    // Before a word of the new link is said.
    pair.sides[1].session.release(last, pair.now);
    let retire = {
        let mut out = Vec::new();
        Frame::Retire { stream: last }.put(&mut out);
        out
    };
    let link = pair.links[0].id;
    assert_eq!(pair.sides[1].session.handle_bytes(link, Lane::CONTROL, &retire, pair.now), Ok(()));
    pair.settle();
    for _ in 0..4 {
        open(&mut pair, 0, channel("again"));
    }
}

#[test]
fn an_acceptor_that_only_sends_has_accepted() {
    for lanes in [false, true] {
        let mut pair = Pair::linked(&Config::default(), lanes);
        pair.accept = false;
        let stream = open(&mut pair, 0, channel("feed"));
        pair.transmit(16_384);
        (0..4).for_each(|pick| pair.deliver(usize::MAX, pick));
        let acceptor = &mut pair.sides[1].session;
        acceptor.accept(stream, pair.now);
        acceptor.stop(stream, StreamCode::DROPPED, "", pair.now);
        pair.settle();
        assert_eq!(pair.sides[0].accepted, vec![stream], "lanes: {lanes}");
    }
}

#[test]
fn a_stream_with_nothing_to_say_does_not_silence_another_lane() {
    let mut pair = Pair::linked(&Config::default(), true);
    let urgent = open(&mut pair, 0, OpenInfo { priority: Priority::Urgent, ..channel("urgent") });
    pair.settle();
    // Both wait in the schedule when the urgent one has nothing left to say.
    let deadline = Some(pair.now + TICK);
    assert_eq!(pair.sides[0].session.send(urgent, message(1, 8), 1, deadline, false), Ok(()));
    open(&mut pair, 0, channel("normal"));
    pair.now = pair.now + TICK;
    pair.transmit(16_384);
    (0..4).for_each(|pick| pair.deliver(usize::MAX, pick));
    assert_eq!(pair.sides[1].opened.len(), 2);
}

#[test]
fn a_refused_stream_was_never_accepted() {
    // The RESET of the one direction may overtake the STOP of the other on a link with lanes.
    for pick in 0..2 {
        let mut pair = Pair::linked(&Config::default(), true);
        pair.accept = false;
        let stream = open(&mut pair, 0, channel("no"));
        pair.transmit(16_384);
        (0..4).for_each(|pick| pair.deliver(usize::MAX, pick));
        pair.sides[1].session.refuse(stream, StreamCode::NO_SUCH_NAME, "", pair.now);
        pair.transmit(16_384);
        pair.deliver(usize::MAX, pick);
        pair.settle();
        assert_eq!(pair.sides[0].accepted, vec![], "lane {pick} first");
        assert_eq!(pair.sides[0].stopped, vec![(stream, StreamCode::NO_SUCH_NAME)]);
    }
}

#[test]
fn large_messages_behind_each_other_return_their_room() {
    let config = Config {
        stream_window: 4 << 10,
        stream_window_max: 64 << 10,
        max_message: 40_000,
        assembly_budget: 80_000,
        ..Config::default()
    };
    let mut pair = Pair::linked(&config, false);
    let stream = open(&mut pair, 0, channel("mixed"));
    // Small ones wait untaken in front of one that is larger than the credit, and gets its room. Taking them
    // raises the credit past its end, so that the head of the next large one is here before it is taken.
    let mut number = 0;
    for _ in 0..8 {
        for len in [900, 900, 900, 2_000, 39_000, 20] {
            number += 1;
            send(&mut pair, 0, stream, number, len);
        }
        for round in 0..60 {
            pair.transmit(16_384);
            (0..4).for_each(|pick| pair.deliver(usize::MAX, pick));
            pair.advance(TICK);
            if round > 20 {
                let taken = pair.sides[1].session.take(stream, usize::MAX, pair.now);
                assert!(!matches!(taken, Taken::Reset(..)));
            }
        }
    }
    pair.settle();
    assert_eq!(pair.sides[0].outcomes.len() as u64, number);
    assert_eq!((pair.sides[1].session.assembly_used, pair.sides[1].session.assembly_reserve), (0, None));
}

#[test]
fn bytes_behind_an_end_are_a_violation_also_when_they_came_early() {
    let mut pair = Pair::linked(&Config::default(), false);
    let stream = open(&mut pair, 0, OpenInfo { kind: StreamKind::Bytes, ..channel("bytes") });
    pair.settle();
    let mut out = Vec::new();
    Frame::Data { stream, offset: 50, push: false, payload: &[1; 20] }.put(&mut out);
    Frame::Fin { stream, end: 60 }.put(&mut out);
    let link = pair.links[0].id;
    let result = pair.sides[1].session.handle_bytes(link, Lane::CONTROL, &out, pair.now);
    assert_eq!(result.map_err(|violation| violation.code), Err(CloseCode::FLOW_CONTROL));
}

#[test]
fn a_call_without_its_answer_is_under_way() {
    let mut pair = Pair::linked(&Config::default(), false);
    let call = open(&mut pair, 0, OpenInfo { kind: StreamKind::Call, ..channel("call") });
    send(&mut pair, 0, call, 1, 64);
    pair.sides[0].session.finish(call);
    let log = open(&mut pair, 1, channel("log"));
    pair.settle();
    assert_eq!(pair.sides[0].outcomes, BTreeMap::from([(1, Outcome::Delivered)]));
    assert_eq!(pair.sides.each_ref().map(|side| side.session.is_idle()), [false; 2]);
    send(&mut pair, 1, call, 2, 64);
    pair.sides[1].session.release(call, pair.now);
    assert_eq!(pair.sides.each_ref().map(|side| side.session.is_idle()), [false; 2]);
    pair.settle();
    pair.sides[0].session.release(call, pair.now);
    pair.settle();
    // A call that its caller gave up is none, whether or not the peer has heard of it.
    let given_up = open(&mut pair, 0, OpenInfo { kind: StreamKind::Call, ..channel("call") });
    send(&mut pair, 0, given_up, 3, 64);
    pair.settle();
    pair.cut(0);
    pair.sides[0].session.reset(given_up, StreamCode::DROPPED, "", pair.now);
    pair.sides[0].session.release(given_up, pair.now);
    assert!(pair.sides[0].session.is_idle());
    pair.attach(false);
    pair.settle();
    pair.sides[1].session.release(given_up, pair.now);
    pair.settle();
    // A channel may stay open for ever: it is no work.
    assert!(pair.sides[0].session.readable(call) && pair.sides[0].session.stream_counters(log).is_some());
    assert_eq!(pair.sides.each_ref().map(|side| side.session.is_idle()), [true; 2]);
}

#[test]
fn who_waits_for_a_stream_learns_that_none_will_come() {
    let config = Config { max_streams: 1, ..Config::default() };
    for draining in 0..2 {
        let mut pair = Pair::linked(&config, false);
        open(&mut pair, 0, channel("only"));
        assert_eq!(pair.sides[0].session.open(channel("more")), Err(OpenError::TooMany));
        pair.settle();
        pair.sides[0].more_streams = false;
        pair.sides[draining].session.drain();
        pair.settle();
        assert!(pair.sides[0].more_streams, "side {draining} drains");
        assert_eq!(pair.sides[0].session.open(channel("more")), Err(OpenError::Draining));
    }
}

/// What a random run may do next.
#[derive(Clone, Debug)]
enum Step {
    Open { side: bool, priority: u8, class: u8 },
    Send { side: bool, stream: usize, len: usize, lifetime_ms: Option<u64> },
    Transmit { room: usize },
    Deliver { most: usize, pick: usize },
    Take { side: bool, stream: usize },
    Cut { link: usize },
    Attach { lanes: bool },
    Advance { ms: u64 },
    Stop { side: bool, stream: usize },
    Reset { side: bool, stream: usize },
    Finish { side: bool, stream: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![8 => 0..200_usize, 2 => 0..20_000_usize, 1 => 60_000..300_000_usize];
    prop_oneof![
        2 => (any::<bool>(), 0..3_u8, 0..3_u8)
            .prop_map(|(side, priority, class)| Step::Open { side, priority, class }),
        10 => (any::<bool>(), 0..8_usize, len, prop::option::weighted(0.2, 0..50_u64))
            .prop_map(|(side, stream, len, lifetime_ms)| Step::Send { side, stream, len, lifetime_ms }),
        10 => (4200..16_385_usize).prop_map(|room| Step::Transmit { room }),
        15 => (1..40_000_usize, 0..11_usize).prop_map(|(most, pick)| Step::Deliver { most, pick }),
        6 => (any::<bool>(), 0..8_usize).prop_map(|(side, stream)| Step::Take { side, stream }),
        2 => (0..4_usize).prop_map(|link| Step::Cut { link }),
        3 => any::<bool>().prop_map(|lanes| Step::Attach { lanes }),
        3 => (0..40_u64).prop_map(|ms| Step::Advance { ms }),
        1 => (any::<bool>(), 0..8_usize).prop_map(|(side, stream)| Step::Stop { side, stream }),
        1 => (any::<bool>(), 0..8_usize).prop_map(|(side, stream)| Step::Reset { side, stream }),
        1 => (any::<bool>(), 0..8_usize).prop_map(|(side, stream)| Step::Finish { side, stream }),
    ]
}

/// Streams that a side can use: its own, and the peer's that it has seen.
fn streams_of(pair: &Pair, own: &[Vec<StreamId>; 2], side: usize) -> Vec<StreamId> {
    own[side].iter().copied().chain(pair.sides[side].opened.iter().map(|(id, _)| *id)).collect()
}

/// Runs the steps, heals, and checks the promise: every message ended once, and what was delivered is
/// exactly what the other application took, in order.
fn run(steps: Vec<Step>) {
    let mut pair = Pair::new(&Config::default());
    let mut own = [Vec::new(), Vec::new()];
    let mut sent: [BTreeMap<u64, StreamId>; 2] = Default::default();
    let mut number = 0;
    for step in steps {
        let now = pair.now;
        let pick = |pair: &Pair, side: bool, stream: usize| {
            let known = streams_of(pair, &own, usize::from(side));
            (!known.is_empty()).then(|| known[stream % known.len()])
        };
        match step {
            Step::Open { side, priority, class } => {
                let priority = Priority::ALL[usize::from(priority)];
                let class = DeliveryClass::ALL[usize::from(class)];
                let info = OpenInfo { priority, class, ..channel("random") };
                let stream = open(&mut pair, side.into(), info);
                own[usize::from(side)].push(stream);
            }
            Step::Send { side, stream, len, lifetime_ms } => {
                let Some(stream) = pick(&pair, side, stream) else { continue };
                number += 1;
                let deadline = lifetime_ms.map(|ms| now + Duration::from_millis(ms));
                let side = usize::from(side);
                let session = &mut pair.sides[side].session;
                let datagram = session.streams[&stream].send.content() == Content::Datagrams;
                let accepted = session.send(stream, message(number, len), number, deadline, false).is_ok();
                // Datagrams have no outcomes of their own.
                if accepted && !datagram {
                    sent[side].insert(number, stream);
                }
            }
            Step::Transmit { room } => pair.transmit(room),
            Step::Deliver { most, pick } => {
                pair.deliver(most, pick);
                pair.deliver_packet(pick);
            }
            Step::Take { side, stream } => {
                if let Some(stream) = pick(&pair, side, stream) {
                    pair.sides[usize::from(side)].take_all(stream, now);
                }
            }
            Step::Cut { link } => pair.cut(link),
            Step::Attach { lanes } => pair.attach(lanes),
            Step::Advance { ms } => pair.advance(Duration::from_millis(ms)),
            Step::Stop { side, stream } => {
                if let Some(stream) = pick(&pair, side, stream) {
                    pair.sides[usize::from(side)].session.stop(stream, StreamCode(256), "no more", now);
                }
            }
            Step::Reset { side, stream } => {
                if let Some(stream) = pick(&pair, side, stream) {
                    pair.sides[usize::from(side)].session.reset(
                        stream,
                        StreamCode(257),
                        "changed my mind",
                        now,
                    );
                }
            }
            Step::Finish { side, stream } => {
                if let Some(stream) = pick(&pair, side, stream) {
                    pair.sides[usize::from(side)].session.finish(stream);
                }
            }
        }
    }
    pair.attach(true);
    pair.settle();
    for (side, sent) in sent.iter().enumerate() {
        check_side(&pair, side, sent);
    }
    release_all(pair, own);
}

fn check_side(pair: &Pair, side: usize, sent: &BTreeMap<u64, StreamId>) {
    let outcomes = &pair.sides[side].outcomes;
    assert_eq!(outcomes.keys().collect::<Vec<_>>(), sent.keys().collect::<Vec<_>>(), "every send ended");
    let mut expected: BTreeMap<StreamId, Vec<u64>> = BTreeMap::new();
    for (number, stream) in sent {
        match outcomes[number] {
            Outcome::Delivered => expected.entry(*stream).or_default().push(*number),
            Outcome::Refused(_) | Outcome::Expired => {}
            Outcome::Superseded => {
                let class = pair.sides[side].session.streams[stream].info.as_ref().map(|info| info.class);
                assert_eq!(class, Some(DeliveryClass::Latest));
            }
            Outcome::Unknown => panic!("the session lived"),
        }
    }
    let numbers = |messages: &Vec<Bytes>| -> Vec<u64> {
        messages
            .iter()
            .map(|message| message.iter().take(8).fold(0, |n, byte| n << 8 | u64::from(*byte)))
            .collect()
    };
    let mut taken: BTreeMap<StreamId, Vec<u64>> =
        pair.sides[1 - side].taken.iter().map(|(stream, messages)| (*stream, numbers(messages))).collect();
    let session = &pair.sides[side].session;
    taken.retain(|stream, numbers| {
        let state = &session.streams[stream];
        let datagrams = state.send.content() == Content::Datagrams;
        if datagrams {
            assert!(numbers.is_sorted_by(|one, next| one < next), "in order, none twice");
            let Counters { delivered, unknown, in_flight, .. } = state.counters;
            let count = numbers.len() as u64;
            let told = if state.send.over() { delivered == count } else { delivered <= count };
            assert!(told && count <= delivered + unknown + in_flight, "{count} of {:?}", state.counters);
        }
        !datagrams && !numbers.is_empty()
    });
    assert_eq!(taken, expected, "what was delivered is what was taken, in order, once");
    assert_eq!(pair.sides[side].session.in_flight, 0);
}

/// When both applications let go, nothing is left.
fn release_all(mut pair: Pair, own: [Vec<StreamId>; 2]) {
    let now = pair.now;
    for side in 0..2 {
        for stream in streams_of(&pair, &own, side) {
            pair.sides[side].session.release(stream, now);
        }
    }
    pair.settle();
    for side in &pair.sides {
        assert_eq!(side.session.stream_count(), 0, "{:#?}", side.session.streams);
        assert_eq!(side.session.counters().in_flight, 0);
        assert_eq!((side.session.window_used, side.session.assembly_used), (0, 0));
        assert_eq!(side.session.assembly_reserve, None);
        assert!(side.session.assembly_held.is_empty() && side.session.assembly_waiting.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::cases(300), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_silent_loss(steps in prop::collection::vec(step(), 1..250)) {
        run(steps);
    }

    #[test]
    fn arbitrary_bytes_are_an_error_at_worst(
        runs in prop::collection::vec((0..12_u8, prop::collection::vec(any::<u8>(), 0..300)), 1..20),
    ) {
        let mut pair = Pair::linked(&Config::default(), true);
        for (lane, run) in runs {
            let _ = pair.sides[0].session.handle_bytes(LinkId(0), Lane(lane), &run, pair.now);
            pair.sides[0].events(pair.now, true);
        }
    }
}
