//! One session, and a peer that is nothing but frames.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::error::StreamCode;
use crate::frame::{Frame, Offsets, Open, StreamKind};
use crate::id::{DeliveryClass, Lane, LinkId, PeerId, Priority, StreamId};
use crate::session::{Event, LinkKind, Session};
use crate::stream::receive::Taken;
use crate::stream::{OpenInfo, Outcome};
use crate::time::Moment;
use crate::{CloseCode, Config, Violation};

const LINK: LinkId = LinkId(0);

/// A session with a link; the peer's streams have odd numbers.
struct Victim {
    session: Session,
    now: Moment,
    accept: bool,
    throttled: usize,
    /// Behind the last byte that was transmitted on each stream.
    transmitted: BTreeMap<StreamId, u64>,
    /// The peer may open so many, as it was told last.
    granted: u64,
}

impl Victim {
    fn new(config: &Config) -> Self {
        let mut session = Session::new(
            config.clone(),
            PeerId([1; 32]),
            PeerId([2; 32]),
            Session::limits(config),
            Moment::ZERO,
        );
        let kind = LinkKind { lanes: false, preference: 0 };
        assert_eq!(session.attach(LINK, kind, Moment::ZERO), Ok(()));
        Self {
            session,
            now: Moment::ZERO,
            accept: true,
            throttled: 0,
            transmitted: BTreeMap::new(),
            granted: config.max_streams,
        }
    }

    fn hear(&mut self, frames: &[Frame<'_>]) -> Result<(), Violation> {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.put(&mut bytes));
        let heard = self.session.handle_bytes(LINK, Lane::CONTROL, &bytes, self.now);
        self.events();
        heard
    }

    /// The application: it lets go of what has ended.
    fn events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Opened { stream, .. } if self.accept => self.session.accept(stream, self.now),
                Event::Readable(stream) if self.accept => {
                    if let Taken::Reset(..) = self.session.take(stream, usize::MAX, self.now) {
                        self.session.reset(stream, StreamCode::DROPPED, "", self.now);
                        self.session.release(stream, self.now);
                    }
                }
                Event::Throttled => self.throttled += 1,
                _ => {}
            }
        }
    }

    /// Says everything, and answers each STOP and RESET as the peer's session would.
    fn speak(&mut self) -> Result<(), Violation> {
        loop {
            let mut out = Vec::new();
            let said = self.session.poll_transmit(LINK, &mut |_| 16 << 10, &mut out, self.now);
            self.events();
            if said.is_none() {
                return Ok(());
            }
            let mut answers = Vec::new();
            let mut rest = &out[..];
            while let Ok(crate::frame::Decoded::Frame(frame, len)) = crate::frame::read_frame(rest) {
                rest = &rest[len..];
                match frame {
                    Frame::Stop { stream, .. } => Frame::Retire { stream }.put(&mut answers),
                    Frame::Reset { stream, code, .. } => {
                        Frame::Stop { stream, code, taken: 0, reason: "" }.put(&mut answers);
                    }
                    Frame::MaxStreams { count } => self.granted = count,
                    Frame::Data { stream, offset, payload, .. } => {
                        self.transmitted.insert(stream, offset + payload.len() as u64);
                    }
                    _ => {}
                }
            }
            self.session.handle_bytes(LINK, Lane::CONTROL, &answers, self.now)?;
            self.events();
        }
    }

    fn wait(&mut self, micros: u64) -> Result<(), Violation> {
        let until = Moment::from_micros(self.now.as_micros() + micros);
        while let Some(at) = self.session.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.session.handle_timeout(self.now);
            self.speak()?;
            // It lives, and says so.
            self.hear(&[Frame::Pong { token: u64::MAX }])?;
        }
        self.now = until;
        self.speak()
    }
}

fn theirs(count: u64) -> StreamId {
    StreamId(count * 2 + 1)
}

fn call(stream: StreamId) -> Frame<'static> {
    let open = Open {
        kind: StreamKind::Call,
        priority: Priority::Normal,
        class: DeliveryClass::Reliable,
        deadline_micros: None,
        schema_out: 0,
        schema_in: 0,
        name: "call",
    };
    Frame::Open { stream, open }
}

fn reset(stream: StreamId) -> Frame<'static> {
    Frame::Reset { stream, code: StreamCode::DROPPED, reason: "" }
}

/// Opens a call, and gives it up.
fn give_up(victim: &mut Victim, count: u64) -> Result<(), Violation> {
    let stream = theirs(count);
    let stop = Frame::Stop { stream, code: StreamCode::DROPPED, taken: 0, reason: "" };
    victim.hear(&[call(stream), reset(stream), stop])
}

#[test]
fn a_peer_that_opens_and_resets_gets_no_more_than_the_burst_and_the_rate() {
    let config =
        Config { max_streams: 64, abandoned_burst: 100, abandoned_per_second: 50, ..Config::default() };
    let mut victim = Victim::new(&config);
    let mut opened = 0;
    for _ in 0..100_000 {
        while opened < victim.granted {
            give_up(&mut victim, opened).unwrap();
            opened += 1;
        }
        victim.wait(100).unwrap();
    }
    // Ten seconds.
    assert!((100 + 500..=100 + 500 + 64).contains(&opened), "{opened}");
    assert!(victim.throttled >= 1);
    assert!(victim.session.stream_count() <= 64);
    // After a pause the whole burst is there again.
    victim.wait(10_000_000).unwrap();
    let before = opened;
    while opened < victim.granted {
        give_up(&mut victim, opened).unwrap();
        victim.wait(6_000).unwrap();
        opened += 1;
    }
    assert!(opened - before >= 100, "{}", opened - before);
}

/// Seven eighths of its places and more are in use for good: the others must not wait for an eighth to be free.
#[test]
fn a_peer_that_keeps_most_of_its_places_gets_the_others_back() {
    let config = Config { max_streams: 16, ..Config::default() };
    let mut victim = Victim::new(&config);
    for count in 0..15 {
        victim.hear(&[call(theirs(count))]).unwrap();
    }
    for opened in 15..200 {
        assert_eq!(victim.granted, opened + 1, "one place is free");
        give_up(&mut victim, opened).unwrap();
        // The end is stated, and retired.
        victim.wait(50_000).unwrap();
    }
}

/// What was refused and not said, since the peer takes nothing, is forgotten with its stream.
#[test]
fn a_peer_that_gives_up_what_is_refused_leaves_nothing_behind_and_is_throttled() {
    let mut victim = Victim::new(&Config::default());
    victim.accept = false;
    // It acknowledges nothing, so that the window of the link is full.
    let info = OpenInfo {
        kind: StreamKind::Channel,
        priority: Priority::Normal,
        class: DeliveryClass::Reliable,
        deadline: None,
        schema_out: 0,
        schema_in: 0,
        name: "log".into(),
    };
    let full = victim.session.open(info).unwrap();
    let offsets = Offsets { taken: 0, received: 0, limit: 1 << 40 };
    for _ in 0..20 {
        victim.hear(&[Frame::Offsets { stream: full, offsets }]).unwrap();
        // The last ones find the queue full.
        let _ = victim.session.send(full, Bytes::from_static(&[0; 100_000]), 0, None, false);
        victim.speak().unwrap();
    }
    victim.speak().unwrap();
    let mut opened = 0;
    for _ in 0..10_000 {
        if opened < victim.granted {
            let stream = theirs(opened);
            let stop = Frame::Stop { stream, code: StreamCode::DROPPED, taken: 0, reason: "" };
            victim.hear(&[call(stream)]).unwrap();
            victim.session.refuse(stream, StreamCode::NO_SUCH_NAME, "", victim.now);
            victim.hear(&[stop, Frame::Retire { stream }]).unwrap();
            opened += 1;
        }
        victim.wait(100).unwrap();
    }
    // A second.
    assert!(victim.session.schedule.len() <= 2, "{}", victim.session.schedule.len());
    assert_eq!(victim.session.stream_count(), 1);
    assert!(victim.throttled > 0 && opened < 3_100, "{opened}");
}

/// All of an eighth at once would be a burst of work again and again.
#[test]
fn a_throttled_peer_gets_its_places_back_a_few_at_a_time() {
    for rate in [1_000, 10_000] {
        let config = Config { abandoned_per_second: rate, ..Config::default() };
        let mut victim = Victim::new(&config);
        let (mut opened, mut most, mut later) = (0, 0, 0);
        for step in 0..20_000 {
            let before = opened;
            while opened < victim.granted {
                give_up(&mut victim, opened).unwrap();
                opened += 1;
            }
            if step > 2_000 {
                most = most.max(opened - before);
                later += opened - before;
            }
            victim.wait(100).unwrap();
        }
        // Two milliseconds' worth, and no less in all for that.
        assert!(most <= u64::from(rate) / 500 + 1, "{most} at once of {rate}");
        let (least, full) = (u64::from(rate) * 17 / 10, u64::from(rate) * 18 / 10 + 64);
        assert!((least..=full).contains(&later), "{later} in 1.8 s of {rate}");
    }
}

#[test]
fn a_peer_that_does_not_wait_for_its_places_is_cut() {
    let config =
        Config { max_streams: 64, abandoned_burst: 100, abandoned_per_second: 1, ..Config::default() };
    let mut victim = Victim::new(&config);
    let mut opened = 0;
    let violation = loop {
        let heard = give_up(&mut victim, opened).and_then(|()| victim.wait(6_000));
        match heard {
            Ok(()) => opened += 1,
            Err(violation) => break violation,
        }
    };
    assert_eq!(violation.code, CloseCode::STREAM_LIMIT);
    assert!((164..=165).contains(&opened), "{opened}");
    assert!(!victim.session.is_lost());
}

#[test]
fn calls_that_are_answered_or_refused_are_never_held_up() {
    let config = Config { max_streams: 64, abandoned_burst: 1, abandoned_per_second: 1, ..Config::default() };
    for refuse in [false, true] {
        let mut victim = Victim::new(&config);
        victim.accept = false;
        for count in 0..10_000 {
            let stream = theirs(count);
            assert!(count < victim.granted, "held up at {count}");
            let request = Frame::Data { stream, offset: 0, push: true, payload: b"\x01x" };
            victim.hear(&[call(stream), request, Frame::Fin { stream, end: 2 }]).unwrap();
            let now = victim.now;
            if refuse {
                victim.session.refuse(stream, StreamCode::BUSY, "", now);
            } else {
                assert_eq!(
                    victim.session.take(stream, usize::MAX, now),
                    Taken::Payload(Bytes::from_static(b"x"))
                );
                victim.session.send(stream, Bytes::from_static(b"y"), 0, None, false).unwrap();
                victim.session.finish(stream);
                victim.session.release(stream, now);
            }
            victim.speak().unwrap();
            if !refuse {
                let offsets = Offsets { taken: 2, received: 2, limit: 1000 };
                let taken = Frame::Stop { stream, code: StreamCode::FINISHED, taken: 2, reason: "" };
                victim.hear(&[Frame::Offsets { stream, offsets }, taken]).unwrap();
            }
            victim.speak().unwrap();
        }
        assert_eq!(victim.throttled, 0);
    }
}

#[test]
fn a_flood_of_resume_is_a_violation() {
    // An answer makes this side speak as well: it states again what is not retired.
    for flags in [0x01, 0x03] {
        let mut victim = Victim::new(&Config::default());
        for _ in 0..64 {
            victim.session.handle_bytes(LINK, Lane::CONTROL, &[0x1a, 0x01, flags], victim.now).unwrap();
            victim.speak().unwrap();
        }
        let heard = victim.session.handle_bytes(LINK, Lane::CONTROL, &[0x1a, 0x01, flags], victim.now);
        assert_eq!(heard.map_err(|violation| violation.code), Err(CloseCode::FLOW_CONTROL));
    }
}

/// A peer that reads everything, gives credit without end, and acknowledges nothing.
#[test]
fn credit_alone_does_not_make_this_side_keep_without_end() {
    let (replay_max, replay_budget) = (200_000, 500_000);
    let config = Config { replay_max, replay_budget, link_window: 1 << 30, ..Config::default() };
    let mut victim = Victim::new(&config);
    let info = |priority| OpenInfo {
        kind: StreamKind::Channel,
        priority,
        class: DeliveryClass::Reliable,
        deadline: None,
        schema_out: 0,
        schema_in: 0,
        name: String::from("log"),
    };
    let streams: Vec<StreamId> = (0..6)
        .map(|at| {
            victim.session.open(info(if at % 2 == 0 { Priority::Urgent } else { Priority::Bulk })).unwrap()
        })
        .collect();
    victim.speak().unwrap();
    let endless = Offsets { taken: 0, received: 0, limit: 1 << 60 };
    for &stream in &streams {
        victim.hear(&[Frame::Offsets { stream, offsets: endless }]).unwrap();
    }
    let mut accepted = 0;
    for _ in 0..100 {
        for &stream in &streams {
            while victim.session.send(stream, Bytes::from(alloc::vec![7; 10_000]), 1, None, false).is_ok() {
                accepted += 1;
            }
        }
        victim.speak().unwrap();
    }
    let queued = streams.len() * config.send_queue;
    let held = replay_budget + 64 * 1024;
    assert!(accepted * 10_000 <= queued + usize::try_from(held).unwrap(), "{accepted}");
    // One that acknowledges gets everything.
    let mut done = 0;
    for _ in 0..1000 {
        victim.speak().unwrap();
        let mut answers = Vec::new();
        for (&stream, &end) in &victim.transmitted {
            let offsets = Offsets { taken: end, received: end, limit: 1 << 60 };
            Frame::Offsets { stream, offsets }.put(&mut answers);
        }
        victim.session.handle_bytes(LINK, Lane::CONTROL, &answers, victim.now).unwrap();
        while let Some(event) = victim.session.poll_event() {
            if let Event::Settled { outcome, .. } = event {
                assert_eq!(outcome, Outcome::Delivered);
                done += 1;
            }
        }
    }
    assert_eq!(done, accepted);
}

/// A byte each: forty times as much as a queue entry.
#[test]
fn empty_messages_wait_as_the_bytes_they_are() {
    let config = Config::default();
    let mut victim = Victim::new(&config);
    victim.accept = false;
    let stream = theirs(0);
    let Frame::Open { mut open, .. } = call(stream) else { unreachable!() };
    open.kind = StreamKind::Channel;
    let payload = alloc::vec![0_u8; 60_000];
    let data = Frame::Data { stream, offset: 0, push: true, payload: &payload };
    victim.hear(&[Frame::Open { stream, open }, data, Frame::Fin { stream, end: 60_000 }]).unwrap();
    assert!(victim.session.streams[&stream].receive.waiting_messages() <= 1024);
    let now = victim.now;
    let mut taken = 0;
    while let Taken::Payload(message) = victim.session.take(stream, usize::MAX, now) {
        assert!(message.is_empty());
        taken += 1;
    }
    assert_eq!(taken, 60_000);
    assert_eq!(victim.session.take(stream, usize::MAX, now), Taken::End);
}
