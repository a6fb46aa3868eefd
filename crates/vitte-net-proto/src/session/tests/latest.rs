//! Channels of class latest: the newest value arrives, and every other one is known to be superseded.

use super::*;

fn latest() -> OpenInfo {
    OpenInfo { class: DeliveryClass::Latest, ..channel("pos") }
}

fn counts(pair: &Pair, side: usize) -> (u64, u64, u64) {
    let counters = pair.sides[side].session.counters();
    (counters.delivered, counters.superseded, counters.in_flight)
}

/// Everything arrives, and nothing is taken.
fn arrive(pair: &mut Pair) {
    for _ in 0..50 {
        pair.transmit(16_384);
        (0..Lane::COUNT.into()).for_each(|pick| pair.deliver(usize::MAX, pick));
        pair.advance(TICK);
    }
}

fn take(pair: &mut Pair, stream: StreamId) -> Option<Bytes> {
    match pair.sides[1].session.take(stream, usize::MAX, pair.now) {
        Taken::Payload(payload) => Some(payload),
        Taken::Empty => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_newest_takes_the_place_of_what_waits() {
    let mut pair = Pair::new(&Config::default());
    let stream = open(&mut pair, 0, latest());
    for number in 1..=1000 {
        send(&mut pair, 0, stream, number, 100);
        assert_eq!(counts(&pair, 0), (0, number - 1, 1));
    }
    assert_eq!(pair.sides[0].session.streams[&stream].send.held_bytes(), 100);
    pair.attach(false);
    pair.settle();
    assert_eq!(pair.sides[1].taken[&stream], vec![message(1000, 100)]);
    pair.sides[0].events(pair.now, true);
    assert_eq!(pair.sides[0].outcomes[&1000], Outcome::Delivered);
    assert_eq!(pair.sides[0].outcomes[&999], Outcome::Superseded);
    assert_eq!(counts(&pair, 0), (1, 999, 0));
}

#[test]
fn a_slow_reader_gets_the_newest_and_the_sender_learns_which() {
    for lanes in [false, true] {
        let mut pair = Pair::linked(&Config::default(), lanes);
        let stream = open(&mut pair, 0, latest());
        let mut number = 0;
        for round in 1..=100 {
            for _ in 0..7 {
                number += 1;
                send(&mut pair, 0, stream, number, 3000);
                pair.transmit(16_384);
            }
            arrive(&mut pair);
            assert_eq!(take(&mut pair, stream), Some(message(round * 7, 3000)), "the newest");
            assert_eq!(take(&mut pair, stream), None);
        }
        arrive(&mut pair);
        assert_eq!(counts(&pair, 0), (100, 600, 0));
        let delivered = pair.sides[0].outcomes.iter().filter(|(_, outcome)| **outcome == Outcome::Delivered);
        assert!(delivered.map(|(number, _)| *number).eq((1..=100).map(|round| round * 7)));
    }
}

#[test]
fn a_reader_that_never_reads_does_not_hold_up_newer_values() {
    let mut pair = Pair::linked(&Config::default(), false);
    let stream = open(&mut pair, 0, latest());
    for number in 1..=500 {
        send(&mut pair, 0, stream, number, 40_000);
        arrive(&mut pair);
        let held = pair.sides[1].session.streams[&stream].receive.held_bytes();
        assert!(held <= 40_004, "{held} bytes are held");
    }
    assert_eq!(counts(&pair, 0), (0, 499, 1));
    assert_eq!(take(&mut pair, stream), Some(message(500, 40_000)));
}

#[test]
fn what_is_longer_than_the_window_waits_to_be_taken() {
    let mut pair = Pair::linked(&Config::default(), false);
    let stream = open(&mut pair, 0, latest());
    send(&mut pair, 0, stream, 1, 3 << 20);
    arrive(&mut pair);
    (2..=4).for_each(|number| send(&mut pair, 0, stream, number, 3 << 20));
    arrive(&mut pair);
    pair.settle();
    let taken = &pair.sides[1].taken[&stream];
    assert_eq!(taken.last(), Some(&message(4, 3 << 20)));
    let (delivered, superseded, in_flight) = counts(&pair, 0);
    assert_eq!((delivered, delivered + superseded, in_flight), (taken.len() as u64, 4, 0));
    assert_eq!((pair.sides[1].session.assembly_used, pair.sides[1].session.assembly_reserve), (0, None));
}

#[test]
fn no_more_than_thirty_two_are_without_an_outcome() {
    let mut pair = Pair::linked(&Config::default(), false);
    let stream = open(&mut pair, 0, latest());
    for number in 1..=100 {
        send(&mut pair, 0, stream, number, 20);
        pair.transmit(16_384);
    }
    // Thirty-two were transmitted, and the newest waits; all between have ended.
    assert_eq!(counts(&pair, 0), (0, 67, 33));
    pair.settle();
    assert_eq!(pair.sides[1].taken[&stream].last(), Some(&message(100, 20)));
    assert_eq!(counts(&pair, 0).2, 0);
}

#[test]
fn outcomes_survive_the_link_that_told_of_them() {
    let mut pair = Pair::linked(&Config::default(), false);
    let stream = open(&mut pair, 0, latest());
    pair.settle();
    for number in 1..=5 {
        send(&mut pair, 0, stream, number, 20);
        pair.transmit(16_384);
    }
    pair.deliver(usize::MAX, 0);
    assert_eq!(take(&mut pair, stream), Some(message(5, 20)));
    pair.sides[1].session.stop(stream, StreamCode(300), "enough", pair.now);
    // LATEST, OFFSETS and STOP are written, and lost with the link.
    pair.transmit(16_384);
    pair.cut(0);
    assert_eq!(counts(&pair, 0), (0, 0, 5));
    pair.attach(true);
    pair.settle();
    assert_eq!(counts(&pair, 0), (1, 4, 0));
    assert_eq!(pair.sides[0].outcomes[&5], Outcome::Delivered);
    assert_eq!(pair.sides[0].stopped, vec![(stream, StreamCode(300))]);
}

#[test]
fn a_terminal_state_never_comes_without_its_count() {
    let mut pair = Pair::linked(&Config::default(), false);
    let stream = open(&mut pair, 0, latest());
    send(&mut pair, 0, stream, 1, 20);
    arrive(&mut pair);
    assert_eq!(take(&mut pair, stream), Some(message(1, 20)));
    // LATEST is under way, and late.
    pair.transmit(16_384);
    let late = core::mem::take(&mut pair.links[0].pipes[1]);
    pair.sides[1].session.stop(stream, StreamCode(300), "", pair.now);
    arrive(&mut pair);
    assert_eq!(pair.sides[0].outcomes[&1], Outcome::Delivered);
    pair.links[0].pipes[1] = late;
    pair.settle();
    assert_eq!(counts(&pair, 0), (1, 0, 0));
}

#[test]
fn what_was_not_consumed_is_refused_unknown_or_expired() {
    let mut pair = Pair::linked(&Config::default(), false);
    let stream = open(&mut pair, 0, latest());
    (1..=2).for_each(|number| {
        send(&mut pair, 0, stream, number, 20);
        arrive(&mut pair);
    });
    pair.sides[1].session.stop(stream, StreamCode(300), "", pair.now);
    arrive(&mut pair);
    assert_eq!(pair.sides[0].outcomes[&1], Outcome::Superseded);
    assert_eq!(pair.sides[0].outcomes[&2], Outcome::Refused(StreamCode(300)));
    let stream = open(&mut pair, 0, latest());
    send(&mut pair, 0, stream, 3, 20);
    arrive(&mut pair);
    pair.cut(0);
    let deadline = Some(pair.now + TICK);
    assert_eq!(pair.sides[0].session.send(stream, message(4, 8), 4, deadline, false), Ok(()));
    pair.advance(TICK);
    send(&mut pair, 0, stream, 5, 20);
    pair.advance(Duration::from_secs(61));
    assert_eq!(pair.sides[0].outcomes[&3], Outcome::Unknown);
    assert_eq!(pair.sides[0].outcomes[&4], Outcome::Expired);
    assert_eq!(pair.sides[0].outcomes[&5], Outcome::Refused(StreamCode::SHUTDOWN));
}

#[test]
fn a_finished_channel_ends_with_its_newest_value() {
    let mut pair = Pair::linked(&Config::default(), true);
    let stream = open(&mut pair, 0, latest());
    (1..=40).for_each(|number| {
        send(&mut pair, 0, stream, number, 20);
        pair.transmit(16_384);
    });
    pair.sides[0].session.finish(stream);
    pair.settle();
    assert_eq!(pair.sides[1].session.take(stream, 1, pair.now), Taken::End);
    assert_eq!(pair.sides[0].outcomes[&40], Outcome::Delivered);
    assert_eq!(pair.sides[0].outcomes.len(), 40);
}

#[test]
fn outcomes_that_cannot_be_are_violations() {
    let told = |class, count| {
        let mut pair = Pair::linked(&Config::default(), false);
        let stream = open(&mut pair, 0, OpenInfo { class, ..channel("lie") });
        (1..=3).for_each(|number| {
            send(&mut pair, 0, stream, number, 20);
            pair.transmit(16_384);
        });
        let mut frame = Vec::new();
        Frame::Latest { stream, count, delivered: 1 }.put(&mut frame);
        let result = pair.sides[0].session.handle_bytes(LinkId(0), Lane::CONTROL, &frame, pair.now);
        pair.sides[0].events(pair.now, true);
        result.map_err(|violation| violation.code)
    };
    assert_eq!(told(DeliveryClass::Latest, 3), Ok(()));
    assert_eq!(told(DeliveryClass::Latest, 4), Err(CloseCode::FLOW_CONTROL));
    assert_eq!(told(DeliveryClass::Latest, u64::MAX >> 2), Err(CloseCode::FLOW_CONTROL));
    assert_eq!(told(DeliveryClass::Reliable, 1), Err(CloseCode::MALFORMED));
}
