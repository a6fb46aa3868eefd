//! The rules of `docs/WIRE.md`, one by one: a session, and a peer whose frames are written by hand.

mod ends;

use alloc::format;

use super::*;
use crate::error::Violation;
use crate::frame::{Decoded, Offsets, Open, put_resume, read_frame};

/// The peer opens streams with even numbers, this side with odd ones.
struct Bare {
    session: Session,
    now: Moment,
    link: LinkId,
}

impl Bare {
    fn new(config: &Config) -> Self {
        let limits = Session::limits(config);
        let (local, remote) = (PeerId([2; 32]), PeerId([1; 32]));
        let session = Session::new(config.clone(), local, remote, limits, Moment::ZERO);
        let mut bare = Self { session, now: Moment::ZERO, link: LinkId(0) };
        bare.next_link();
        bare
    }

    fn linked() -> Self {
        Self::new(&Config::default())
    }

    /// Another link, after the last one is gone.
    fn next_link(&mut self) {
        self.session.link_down(self.link, self.now);
        self.link = LinkId(self.link.0 + 1);
        let attached = self.session.attach(self.link, LinkKind { lanes: false, preference: 0 }, self.now);
        assert_eq!(attached, Ok(()));
    }

    fn hears(&mut self, bytes: &[u8]) -> Result<(), CloseCode> {
        let heard = self.session.handle_bytes(self.link, Lane::CONTROL, bytes, self.now);
        heard.map_err(|Violation { code, .. }| code)
    }

    fn hears_frame(&mut self, frame: &Frame<'_>) -> Result<(), CloseCode> {
        let mut bytes = Vec::new();
        frame.put(&mut bytes);
        self.hears(&bytes)
    }

    fn hears_resume(&mut self, last: bool, reply: bool, entries: &[(StreamId, Offsets)]) {
        let mut bytes = Vec::new();
        put_resume(&mut bytes, last, reply, entries);
        assert_eq!(self.hears(&bytes), Ok(()));
    }

    /// What the session says on the link of that number, a frame a line. PING may go at any time: it is left out.
    fn says_on(&mut self, link: LinkId) -> Vec<String> {
        let mut out = Vec::new();
        while self.session.poll_transmit(link, &mut |_| 16_384, &mut out, self.now).is_some() {}
        let mut frames = Vec::new();
        let mut rest = &out[..];
        while let Ok(Decoded::Frame(frame, len)) = read_frame(rest) {
            if !matches!(frame, Frame::Ping { .. }) {
                frames.push(format!("{frame:?}"));
            }
            rest = &rest[len..];
        }
        assert!(rest.is_empty());
        frames
    }

    /// What the session says, and what it says when the time for company is over.
    fn says(&mut self) -> Vec<String> {
        let mut frames = self.says_on(self.link);
        self.now = self.now + Duration::from_millis(5);
        self.session.handle_timeout(self.now);
        frames.extend(self.says_on(self.link));
        frames
    }

    /// The peer opens a channel, and the application accepts it.
    fn accepts(&mut self, stream: u64, kind: StreamKind) {
        assert_eq!(self.hears_frame(&opening(stream, kind)), Ok(()));
        self.session.accept(StreamId(stream), self.now);
    }

    fn opens(&mut self) -> StreamId {
        self.session.open(channel("ours")).expect("there is room for a stream")
    }
}

fn opening(stream: u64, kind: StreamKind) -> Frame<'static> {
    let stream = StreamId(stream);
    let info = OpenInfo { kind, ..channel("theirs") };
    let open = Open { name: "theirs", ..info.to_frame(Moment::ZERO) };
    Frame::Open { stream, open }
}

fn data(stream: u64, offset: u64, payload: &[u8]) -> Frame<'_> {
    Frame::Data { stream: StreamId(stream), offset, push: false, payload }
}

fn stated(taken: u64, received: u64, limit: u64) -> Offsets {
    Offsets { taken, received, limit }
}

/// A caller that gives up at once: on a link with lanes its STOP may arrive before the call.
#[test]
fn a_stop_that_overtakes_its_open_is_told_behind_it() {
    let mut bare = Bare::linked();
    let stop = Frame::Stop { stream: StreamId(0), code: StreamCode(300), taken: 0, reason: "given up" };
    assert_eq!(bare.hears_frame(&stop), Ok(()));
    while let Some(event) = bare.session.poll_event() {
        assert!(!matches!(event, Event::Stopped { .. }), "nobody knows the stream");
    }
    assert_eq!(bare.hears_frame(&opening(0, StreamKind::Call)), Ok(()));
    let mut events = core::iter::from_fn(|| bare.session.poll_event());
    assert!(events.any(|event| matches!(event, Event::Opened { stream: StreamId(0), .. })));
    let told = Event::Stopped { stream: StreamId(0), code: StreamCode(300), reason: "given up".into() };
    assert_eq!(events.next(), Some(told));
    // Once.
    assert_eq!(bare.hears_frame(&opening(0, StreamKind::Call)), Ok(()));
    assert!(bare.session.poll_event().is_none());
}

fn count(frames: &[String], name: &str) -> usize {
    frames.iter().filter(|frame| frame.starts_with(name)).count()
}

#[test]
fn a_second_handshake_on_a_link_is_refused() {
    let hello = crate::Hello {
        version_min: 1,
        version_max: 1,
        features: 0,
        incarnation: crate::Incarnation([1; 16]),
        generation: 1,
        nonce: [1; 32],
        proof: crate::Proof::Keys,
        limits: Session::limits(&Config::default()),
    };
    for frame in [Frame::Hello(hello), Frame::Welcome { proof: [0; 32] }] {
        assert_eq!(Bare::linked().hears_frame(&frame), Err(CloseCode::WRONG_STATE));
    }
}

#[test]
fn a_violation_costs_the_link_and_not_the_session() {
    let mut bare = Bare::linked();
    let stream = bare.opens();
    assert_eq!(bare.session.send(stream, message(1, 8), 1, None, false), Ok(()));
    assert_eq!(bare.hears(&[0x3e, 0x00]), Err(CloseCode::UNKNOWN_FRAME));
    assert!(!bare.session.is_lost() && bare.session.active_link().is_none());
    bare.next_link();
    bare.hears_resume(true, false, &[]);
    assert_eq!(count(&bare.says(), "Data"), 1);
}

#[test]
fn a_pong_repeats_the_token_on_the_link_of_the_ping() {
    let mut bare = Bare::linked();
    let standby = LinkId(100);
    assert_eq!(bare.session.attach(standby, LinkKind { lanes: false, preference: 0 }, bare.now), Ok(()));
    let mut ping = Vec::new();
    Frame::Ping { token: 77 }.put(&mut ping);
    assert_eq!(bare.session.handle_bytes(standby, Lane::CONTROL, &ping, bare.now), Ok(()));
    assert_eq!(count(&bare.says(), "Pong"), 0);
    assert_eq!(bare.says_on(standby), ["Pong { token: 77 }"]);
}

#[test]
fn a_link_too_many_is_refused() {
    let mut bare = Bare::linked();
    let kind = LinkKind { lanes: true, preference: 0 };
    let attached: Vec<_> = (10..14).map(|id| bare.session.attach(LinkId(id), kind, bare.now)).collect();
    assert_eq!(attached, [Ok(()), Ok(()), Ok(()), Err(CloseCode::TOO_MANY)]);
}

#[test]
fn nothing_is_repeated_before_the_peer_has_said_what_it_has() {
    let mut bare = Bare::linked();
    let stream = bare.opens();
    assert_eq!(bare.session.send(stream, message(1, 40), 1, None, false), Ok(()));
    assert_eq!((count(&bare.says(), "Open"), bare.session.in_flight), (1, 41));
    bare.next_link();
    let first = bare.says();
    assert_eq!((count(&first, "Resume"), count(&first, "Open"), count(&first, "Data")), (1, 0, 0));
    // A part of the list is no list.
    bare.hears_resume(false, false, &[(stream, stated(0, 10, 65_536))]);
    assert_eq!(count(&bare.says(), "Data"), 0);
    bare.hears_resume(true, false, &[]);
    let second = bare.says();
    // It was heard of, and has the first ten bytes.
    assert_eq!(count(&second, "Open"), 0);
    let data: Vec<_> = second.iter().filter(|frame| frame.starts_with("Data")).collect();
    assert!(data.len() == 1 && data[0].contains("offset: 10, "), "{second:?}");
}

#[test]
fn a_stream_that_was_not_heard_of_is_opened_again() {
    let mut bare = Bare::linked();
    bare.opens();
    for _ in 0..3 {
        bare.hears_resume(true, false, &[]);
        assert_eq!(count(&bare.says(), "Open"), 1);
        bare.next_link();
    }
}

#[test]
fn a_resume_lists_every_direction_that_was_accepted() {
    let config = Config { max_streams: 200, ..Config::default() };
    let mut bare = Bare::new(&config);
    (0..120).for_each(|stream| bare.accepts(stream * 2, StreamKind::Channel));
    // Known, and not accepted.
    assert_eq!(bare.hears_frame(&opening(240, StreamKind::Channel)), Ok(()));
    let ours = bare.opens();
    bare.next_link();
    let mut out = Vec::new();
    while bare.session.poll_transmit(bare.link, &mut |_| 16_384, &mut out, bare.now).is_some() {}
    let mut listed = Vec::new();
    let mut lasts = Vec::new();
    let mut rest = &out[..];
    while let Ok(Decoded::Frame(frame, len)) = read_frame(rest) {
        if let Frame::Resume(resume) = frame {
            listed.extend(resume.entries().map(|(stream, _)| stream));
            lasts.push(resume.last);
        }
        rest = &rest[len..];
    }
    let mut expected: Vec<_> = (0..120).map(|stream| StreamId(stream * 2)).collect();
    expected.insert(1, ours);
    assert_eq!((listed, lasts), (expected, vec![false, true]));
}

#[test]
fn a_list_of_offsets_is_answered_by_one() {
    let mut bare = Bare::linked();
    bare.accepts(0, StreamKind::Channel);
    bare.says();
    // On the first link nobody has asked yet.
    bare.hears_resume(true, false, &[]);
    let answer = bare.says();
    assert!(answer.iter().any(|frame| frame.contains("last: true, reply: true")), "{answer:?}");
    // An answer is not answered.
    bare.hears_resume(true, true, &[]);
    assert_eq!(count(&bare.says(), "Resume"), 0);
}

#[test]
fn streams_beyond_the_limit_or_of_the_other_side_are_refused() {
    let config = Config { max_streams: 4, ..Config::default() };
    let refused = Err(CloseCode::STREAM_LIMIT);
    // 0, 2, 4 and 6 may be.
    assert_eq!(Bare::new(&config).hears_frame(&opening(6, StreamKind::Channel)), Ok(()));
    assert_eq!(Bare::new(&config).hears_frame(&opening(8, StreamKind::Channel)), refused);
    assert_eq!(Bare::new(&config).hears_frame(&data(8, 0, b"x")), refused);
    assert_eq!(Bare::new(&config).hears_frame(&opening(1, StreamKind::Channel)), refused);
    let never_opened = StreamId(1);
    for frame in [
        data(1, 0, b"x"),
        Frame::Fin { stream: never_opened, end: 0 },
        Frame::Reset { stream: never_opened, code: StreamCode(1), reason: "" },
        Frame::Stop { stream: never_opened, code: StreamCode(1), taken: 0, reason: "" },
        Frame::Offsets { stream: never_opened, offsets: stated(0, 0, 9) },
    ] {
        assert_eq!(Bare::new(&config).hears_frame(&frame), refused, "{frame:?}");
    }
    assert_eq!(Bare::new(&config).hears_frame(&Frame::Retire { stream: never_opened }), Ok(()));
}

#[test]
fn a_side_opens_no_more_streams_than_it_may() {
    let config = Config { max_streams: 2, ..Config::default() };
    let mut bare = Bare::new(&config);
    assert_eq!([bare.opens(), bare.opens()], [StreamId(1), StreamId(3)]);
    assert_eq!(bare.session.open(channel("third")), Err(OpenError::TooMany));
    // The greatest count wins, whatever comes after it.
    for count in [3, 1] {
        assert_eq!(bare.hears_frame(&Frame::MaxStreams { count }), Ok(()));
    }
    assert_eq!(bare.opens(), StreamId(5));
    assert_eq!(bare.session.open(channel("fourth")), Err(OpenError::TooMany));
}

#[test]
fn an_open_may_come_last() {
    let mut bare = Bare::linked();
    // Stream 4 implies 0 and 2; its OPEN trails its bytes and its end.
    assert_eq!(bare.hears_frame(&data(4, 0, b"\x02hi")), Ok(()));
    assert_eq!(bare.hears_frame(&Frame::Fin { stream: StreamId(4), end: 3 }), Ok(()));
    assert_eq!(bare.session.stream_count(), 3);
    for stream in [4, 0, 2] {
        bare.accepts(stream, StreamKind::Channel);
    }
    assert_eq!(bare.session.take(StreamId(4), 9, bare.now), Taken::Payload(Bytes::from_static(b"hi")));
    assert_eq!(bare.session.take(StreamId(4), 9, bare.now), Taken::End);
}

#[test]
fn nothing_is_stated_of_a_stream_that_is_not_accepted() {
    let mut bare = Bare::linked();
    assert_eq!(bare.hears_frame(&opening(0, StreamKind::Channel)), Ok(()));
    assert_eq!(bare.hears_frame(&data(0, 0, &[1; 60_000])), Ok(()));
    assert_eq!(bare.says(), Vec::<String>::new());
    bare.session.accept(StreamId(0), bare.now);
    assert_eq!(count(&bare.says(), "Offsets { stream: StreamId(0)"), 1);
}

/// Its sender would take the answer for one to its OPEN, which may be lost.
#[test]
fn a_reset_before_its_open_is_answered_when_that_comes() {
    let mut bare = Bare::linked();
    let reset = Frame::Reset { stream: StreamId(0), code: StreamCode(1), reason: "" };
    assert_eq!((bare.hears_frame(&reset), bare.says()), (Ok(()), Vec::new()));
    assert_eq!((bare.hears_frame(&opening(0, StreamKind::Channel)), bare.says().len()), (Ok(()), 1));
    bare.session.release(StreamId(0), bare.now);
    assert_eq!(bare.hears_frame(&Frame::Retire { stream: StreamId(0) }), Ok(()));
    let stop = Frame::Stop { stream: StreamId(0), code: StreamCode(1), taken: 0, reason: "" };
    assert_eq!(bare.hears_frame(&stop), Ok(()));
    assert_eq!(bare.session.stream_count(), 0);
}

#[test]
fn a_refusal_is_a_stop_and_a_reset() {
    let mut bare = Bare::linked();
    assert_eq!(bare.hears_frame(&opening(0, StreamKind::Channel)), Ok(()));
    assert_eq!(bare.hears_frame(&data(0, 0, b"\x02hi")), Ok(()));
    bare.session.refuse(StreamId(0), StreamCode::NO_SUCH_NAME, "who?", bare.now);
    let said = bare.says();
    assert_eq!((count(&said, "Stop"), count(&said, "Reset"), said.len()), (1, 1, 2), "{said:?}");
}

#[test]
fn a_forgotten_stream_answers_nothing_but_stop() {
    let mut bare = Bare::linked();
    bare.accepts(0, StreamKind::Channel);
    bare.session.release(StreamId(0), bare.now);
    bare.says();
    let stop = Frame::Stop { stream: StreamId(0), code: StreamCode::FINISHED, taken: 0, reason: "" };
    for frame in [&stop, &Frame::Retire { stream: StreamId(0) }] {
        assert_eq!(bare.hears_frame(frame), Ok(()));
    }
    assert_eq!(bare.session.stream_count(), 0);
    bare.says();
    for frame in [
        opening(0, StreamKind::Channel),
        data(0, 0, b"\x02hi"),
        Frame::Fin { stream: StreamId(0), end: 3 },
        Frame::Reset { stream: StreamId(0), code: StreamCode(1), reason: "" },
        Frame::Offsets { stream: StreamId(0), offsets: stated(0, 0, 9) },
    ] {
        assert_eq!((bare.hears_frame(&frame), bare.says()), (Ok(()), Vec::new()), "{frame:?}");
    }
    assert_eq!(bare.hears_frame(&stop), Ok(()));
    assert_eq!(bare.says(), ["Retire { stream: StreamId(0) }"]);
}

#[test]
fn messages_too_long_or_cut_short_are_refused() {
    let config = Config { max_message: 100, ..Config::default() };
    let mut bare = Bare::new(&config);
    bare.accepts(0, StreamKind::Channel);
    assert_eq!(bare.hears_frame(&data(0, 0, &[0x40, 100])), Ok(()));
    let mut bare = Bare::new(&config);
    bare.accepts(0, StreamKind::Channel);
    assert_eq!(bare.hears_frame(&data(0, 0, &[0x40, 101])), Err(CloseCode::FLOW_CONTROL));
    let mut bare = Bare::new(&config);
    bare.accepts(0, StreamKind::Channel);
    assert_eq!(bare.hears_frame(&data(0, 0, b"\x05hi")), Ok(()));
    assert_eq!(bare.hears_frame(&Frame::Fin { stream: StreamId(0), end: 3 }), Err(CloseCode::MALFORMED));
}

#[test]
fn bytes_beyond_the_credit_or_the_end_are_refused() {
    let config = Config { stream_window: 100, ..Config::default() };
    let bytes = |bare: &mut Bare, offset, len| bare.hears_frame(&data(0, offset, &[7; 200][..len]));
    let mut bare = Bare::new(&config);
    bare.accepts(0, StreamKind::Bytes);
    assert_eq!(bytes(&mut bare, 0, 100), Ok(()));
    assert_eq!(bytes(&mut bare, 100, 1), Err(CloseCode::FLOW_CONTROL));
    let mut bare = Bare::new(&config);
    bare.accepts(0, StreamKind::Bytes);
    assert_eq!(bare.hears_frame(&Frame::Fin { stream: StreamId(0), end: 10 }), Ok(()));
    assert_eq!(bytes(&mut bare, 5, 6), Err(CloseCode::FLOW_CONTROL));
}

#[test]
fn a_direction_has_one_end_behind_its_bytes() {
    let fin = |end| Frame::Fin { stream: StreamId(0), end };
    let mut bare = Bare::linked();
    bare.accepts(0, StreamKind::Bytes);
    assert_eq!(bare.hears_frame(&fin(10)), Ok(()));
    assert_eq!(bare.hears_frame(&fin(10)), Ok(()));
    assert_eq!(bare.hears_frame(&fin(11)), Err(CloseCode::MALFORMED));
    let mut bare = Bare::linked();
    bare.accepts(0, StreamKind::Bytes);
    assert_eq!(bare.hears_frame(&data(0, 0, &[7; 20])), Ok(()));
    assert_eq!(bare.hears_frame(&fin(19)), Err(CloseCode::MALFORMED));
}

#[test]
fn what_was_never_sent_cannot_be_acknowledged() {
    for frame in [
        Frame::Offsets { stream: StreamId(1), offsets: stated(0, 10, 100_000) },
        Frame::Offsets { stream: StreamId(1), offsets: stated(10, 10, 100_000) },
        Frame::Stop { stream: StreamId(1), code: StreamCode::FINISHED, taken: 10, reason: "" },
    ] {
        let mut bare = Bare::linked();
        let stream = bare.opens();
        assert_eq!(bare.session.send(stream, message(1, 8), 1, None, false), Ok(()));
        bare.says();
        assert_eq!(bare.hears_frame(&frame), Err(CloseCode::FLOW_CONTROL), "{frame:?}");
        assert_eq!(bare.session.counters().in_flight, 1);
    }
}

#[test]
fn the_greatest_offsets_win_in_any_order() {
    let config = Config { stream_window: 20, ..Config::default() };
    let mut bare = Bare::new(&config);
    let stream = bare.opens();
    for token in 1..=3 {
        assert_eq!(bare.session.send(stream, message(token, 19), token, None, false), Ok(()));
    }
    assert_eq!(count(&bare.says(), "Data"), 1);
    for offsets in [stated(20, 20, 40), stated(0, 0, 20), stated(0, 10, 30)] {
        assert_eq!(bare.hears_frame(&Frame::Offsets { stream, offsets }), Ok(()));
    }
    let said = bare.says();
    assert!(said.len() == 1 && said[0].contains("offset: 20, "), "{said:?}");
    assert_eq!((bare.session.counters().delivered, bare.session.counters().in_flight), (1, 2));
}

#[test]
fn a_terminal_state_is_said_on_every_link_until_it_is_retired() {
    let mut bare = Bare::linked();
    bare.accepts(0, StreamKind::Channel);
    assert_eq!(bare.hears_frame(&data(0, 0, b"\x02hi\x02ho")), Ok(()));
    assert!(matches!(bare.session.take(StreamId(0), 9, bare.now), Taken::Payload(_)));
    bare.session.stop(StreamId(0), StreamCode(300), "enough", bare.now);
    let state = "Stop { stream: StreamId(0), code: StreamCode(300), taken: 3, reason: \"enough\" }";
    assert_eq!(count(&bare.says(), state), 1);
    // The sender has not heard; nothing it says changes the state.
    assert_eq!(bare.hears_frame(&data(0, 6, b"\x02he")), Ok(()));
    assert_eq!(count(&bare.says(), state), 1);
    for _ in 0..3 {
        bare.next_link();
        let reset = Frame::Reset { stream: StreamId(0), code: StreamCode(9), reason: "" };
        assert_eq!(bare.hears_frame(&reset), Ok(()));
        bare.hears_resume(true, false, &[]);
        assert_eq!(count(&bare.says(), state), 1);
    }
    assert_eq!(bare.hears_frame(&Frame::Retire { stream: StreamId(0) }), Ok(()));
    bare.next_link();
    assert_eq!(count(&bare.says(), "Stop"), 0);
}

#[test]
fn a_stop_is_the_end_of_what_is_sent() {
    let config = Config { stream_window: 10, ..Config::default() };
    let mut bare = Bare::new(&config);
    let stream = bare.opens();
    for token in 1..=3 {
        assert_eq!(bare.session.send(stream, message(token, 9), token, None, false), Ok(()));
    }
    bare.says();
    let stop = Frame::Stop { stream, code: StreamCode(300), taken: 10, reason: "" };
    assert_eq!(bare.hears_frame(&stop), Ok(()));
    let counters = bare.session.counters();
    assert_eq!((counters.delivered, counters.refused, counters.in_flight), (1, 2, 0));
    bare.session.finish(stream);
    assert_eq!(bare.says(), ["Retire { stream: StreamId(1) }"]);
    bare.next_link();
    bare.hears_resume(true, false, &[]);
    let said = bare.says();
    assert_eq!((count(&said, "Open"), count(&said, "Data"), count(&said, "Fin")), (0, 0, 0), "{said:?}");
}

#[test]
fn a_flood_of_terminal_states_is_refused() {
    let mut bare = Bare::linked();
    let mut stop = Vec::new();
    let state = Frame::Stop { stream: StreamId(0), code: StreamCode(1), taken: 0, reason: "" };
    state.put(&mut stop);
    assert_eq!(bare.hears(&stop.repeat(16_384)), Ok(()));
    assert_eq!(bare.hears(&stop), Err(CloseCode::FLOW_CONTROL));
}

#[test]
fn the_end_of_a_session_is_said_on_every_link() {
    let mut bare = Bare::linked();
    let standby = LinkId(100);
    assert_eq!(bare.session.attach(standby, LinkKind { lanes: true, preference: 0 }, bare.now), Ok(()));
    bare.session.close(CloseCode::SHUTDOWN, "bye");
    for link in [bare.link, standby] {
        let said = bare.says_on(link);
        assert_eq!(count(&said, "Close { code: CloseCode(11), session: true, reason: \"bye\" }"), 1);
    }
    let mut other = Bare::linked();
    let close = Frame::Close { code: CloseCode::SHUTDOWN, session: true, reason: "bye" };
    assert_eq!(other.hears_frame(&close), Ok(()));
    assert!(other.session.is_lost());
    let mut other = Bare::linked();
    let close = Frame::Close { code: CloseCode(99), session: false, reason: "only the link" };
    assert_eq!(other.hears_frame(&close), Ok(()));
    assert!(!other.session.is_lost() && other.session.active_link().is_none());
}

#[test]
fn who_drains_or_is_drained_opens_nothing() {
    let mut bare = Bare::linked();
    assert_eq!(bare.hears_frame(&Frame::Drain), Ok(()));
    assert_eq!(bare.session.open(channel("late")), Err(OpenError::Draining));
    let mut bare = Bare::linked();
    bare.session.drain();
    assert_eq!(count(&bare.says(), "Drain"), 1);
    bare.next_link();
    assert_eq!(count(&bare.says(), "Drain"), 1, "it is said again on the next link");
}

#[test]
fn a_deadline_is_what_remains_at_each_transmission() {
    let mut bare = Bare::linked();
    let deadline = Some(bare.now + Duration::from_millis(100));
    let info = OpenInfo { deadline, ..channel("hurry") };
    assert!(bare.session.open(info).is_ok());
    let said = bare.says();
    assert!(said[0].contains("deadline_micros: Some(100000)"), "{said:?}");
    bare.now = bare.now + Duration::from_millis(35);
    bare.next_link();
    bare.hears_resume(true, false, &[]);
    let said = bare.says();
    assert!(said.iter().any(|frame| frame.contains("deadline_micros: Some(60000)")), "{said:?}");
    bare.now = bare.now + Duration::from_secs(1);
    bare.next_link();
    bare.hears_resume(true, false, &[]);
    let said = bare.says();
    assert!(said.iter().any(|frame| frame.contains("deadline_micros: Some(0)")), "{said:?}");
}

#[test]
fn unknown_codes_are_kept_as_numbers() {
    let mut bare = Bare::linked();
    let stream = bare.opens();
    bare.says();
    let stop = Frame::Stop { stream, code: StreamCode(200), taken: 0, reason: "" };
    assert_eq!(bare.hears_frame(&stop), Ok(()));
    let mut heard = Vec::new();
    while let Some(event) = bare.session.poll_event() {
        heard.push(event);
    }
    assert!(heard.contains(&Event::Stopped { stream, code: StreamCode(200), reason: String::new() }));
}

#[test]
fn a_lane_that_a_link_does_not_have_is_refused() {
    let mut bare = Bare::linked();
    let heard = bare.session.handle_bytes(bare.link, Lane(1), &[0x1c, 0], bare.now);
    assert_eq!(heard.map_err(|violation| violation.code), Err(CloseCode::MALFORMED));
}

#[test]
fn any_frame_is_taken_on_any_lane() {
    let mut bare = Bare::linked();
    let kind = LinkKind { lanes: true, preference: 0 };
    let standby = LinkId(100);
    assert_eq!(bare.session.attach(standby, kind, bare.now), Ok(()));
    for lane in 0..Lane::COUNT {
        let stream = u64::from(lane) * 2;
        let mut bytes = Vec::new();
        opening(stream, StreamKind::Channel).put(&mut bytes);
        data(stream, 0, b"\x02hi").put(&mut bytes);
        assert_eq!(bare.session.handle_bytes(standby, Lane(lane), &bytes, bare.now), Ok(()));
        let taken = bare.session.take(StreamId(stream), 9, bare.now);
        assert_eq!(taken, Taken::Payload(Bytes::from_static(b"hi")), "lane {lane}");
    }
}
