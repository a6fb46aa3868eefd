//! Channels of class datagram: what arrives does so in order, and all of it is counted.

use super::*;

fn ticks() -> OpenInfo {
    OpenInfo { class: DeliveryClass::Datagram, ..channel("ticks") }
}

fn fire(pair: &mut Pair, stream: StreamId, number: u64, len: usize) {
    let sent = pair.sides[0].session.send(stream, message(number, len), 0, None, false);
    assert_eq!(sent, Ok(()));
}

fn counters(pair: &Pair) -> Counters {
    pair.sides[0].session.counters()
}

fn opened(lanes: bool) -> (Pair, StreamId) {
    let mut pair = Pair::linked(&Config::default(), lanes);
    let stream = open(&mut pair, 0, ticks());
    pair.settle();
    (pair, stream)
}

fn numbers(pair: &Pair, stream: StreamId) -> Vec<u64> {
    let taken = pair.sides[1].taken.get(&stream).map(Vec::as_slice).unwrap_or_default();
    taken.iter().map(|message| message.iter().take(8).fold(0, |n, byte| n << 8 | u64::from(*byte))).collect()
}

fn frame(stream: StreamId, number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    Frame::Datagram { stream, number, payload: &message(number, 8) }.put(&mut out);
    out
}

/// Everything is transmitted, and nothing delivered.
fn transmitted(pair: &mut Pair) -> Vec<Vec<u8>> {
    pair.transmit(16_384);
    pair.links[0].packets[0].drain(..).collect()
}

#[test]
fn they_arrive_in_order_and_are_counted() {
    for lanes in [false, true] {
        let (mut pair, stream) = opened(lanes);
        for number in 1..=500 {
            fire(&mut pair, stream, number, 100);
            pair.transmit(16_384);
            assert_eq!(pair.links[0].packets[0].is_empty(), !lanes, "each travels alone where it can");
            if number % 50 == 0 {
                pair.settle();
            }
        }
        pair.settle();
        assert!(numbers(&pair, stream).into_iter().eq(1..=500));
        let Counters { offered, delivered, in_flight, .. } = counters(&pair);
        assert_eq!((offered, delivered, in_flight), (500, 500, 0));
        assert_eq!(pair.sides[0].session.in_flight, 0);
    }
}

#[test]
fn what_is_lost_is_unknown_and_what_is_late_or_twice_is_dropped() {
    let (mut pair, stream) = opened(true);
    (1..=10).for_each(|number| fire(&mut pair, stream, number, 8));
    let packets = transmitted(&mut pair);
    assert_eq!(packets.len(), 10);
    let link = pair.links[0].id;
    let hear = |pair: &mut Pair, index: usize| {
        let to = &mut pair.sides[1];
        assert_eq!(to.session.handle_bytes(link, Lane::DATAGRAM, &packets[index], pair.now), Ok(()));
        to.events(pair.now, true);
    };
    // Out of order, and one twice: they wait in the inbox in their order.
    [4, 1, 4, 6].into_iter().for_each(|index| hear(&mut pair, index));
    let now = pair.now;
    pair.sides[1].take_all(stream, now);
    assert_eq!(numbers(&pair, stream), vec![2, 5, 7]);
    // Too late.
    [0, 5].into_iter().for_each(|index| hear(&mut pair, index));
    pair.settle();
    assert_eq!(numbers(&pair, stream), vec![2, 5, 7]);
    let told = counters(&pair);
    assert_eq!((told.delivered, told.unknown, told.in_flight), (3, 4, 3));
    // The last ones never arrive: nobody waits for them.
    assert!(pair.sides.iter().all(|side| side.session.is_idle()));
    pair.sides[0].session.finish(stream);
    pair.settle();
    let told = counters(&pair);
    assert_eq!((told.delivered, told.unknown, told.in_flight), (3, 7, 0));
    assert_eq!(pair.sides[1].session.take(stream, 1, now), Taken::End);
}

#[test]
fn of_more_than_fit_the_oldest_are_dropped_at_either_end() {
    for lanes in [false, true] {
        let (mut pair, stream) = opened(lanes);
        // Nothing is transmitted: the queue has its bound in messages...
        (1..=300).for_each(|number| fire(&mut pair, stream, number, 8));
        assert_eq!((counters(&pair).refused, counters(&pair).in_flight), (44, 256));
        // ...and in bytes.
        (301..=310).for_each(|number| fire(&mut pair, stream, number, 15_000));
        let held = pair.sides[0].session.streams[&stream].send.held_bytes();
        assert!(held <= 64 << 10, "{held} bytes wait");
        assert!(!pair.sides[0].session.is_idle());
        pair.settle();
        assert_eq!(numbers(&pair, stream).last(), Some(&310));
        let before = numbers(&pair, stream).len() as u64;
        assert_eq!(counters(&pair).delivered, before);
        // The reader sleeps: its inbox has the same bounds, and what falls out is unknown at the sender.
        for number in 311..=2000 {
            fire(&mut pair, stream, number, 8);
            pair.transmit(16_384);
            pair.deliver(usize::MAX, 0);
            pair.deliver(usize::MAX, 1);
            pair.deliver_packet(0);
            pair.advance(TICK);
        }
        assert!(pair.sides[1].session.streams[&stream].receive.held_bytes() <= 256 * 8);
        pair.settle();
        assert!(numbers(&pair, stream).into_iter().skip(usize::try_from(before).unwrap()).eq(1745..=2000));
        let told = counters(&pair);
        assert_eq!((told.delivered - before, told.in_flight), (256, 0));
        assert_eq!(told.unknown, 1690 - 256);
    }
}

#[test]
fn a_sender_of_datagrams_does_not_fill_the_kernel_of_a_byte_link() {
    let (mut pair, stream) = opened(false);
    for number in 1..=5000 {
        fire(&mut pair, stream, number, 1000);
        pair.transmit(16_384);
    }
    let written: usize = pair.links[0].pipes[0].values().map(VecDeque::len).sum();
    assert!((100 << 10..(512 << 10) + 17_000).contains(&written), "{written} bytes stand in the kernel");
    pair.settle();
    assert_eq!(numbers(&pair, stream).last(), Some(&5000));
    assert_eq!((counters(&pair).in_flight, pair.sides[0].session.in_flight), (0, 0));
}

#[test]
fn no_more_than_a_thousand_small_ones_are_under_way_on_a_byte_link() {
    let (mut pair, stream) = opened(false);
    for number in 1..=2000 {
        fire(&mut pair, stream, number, 8);
        pair.transmit(16_384);
    }
    // What was transmitted is in flight, the rest waits or was dropped.
    let told = counters(&pair);
    assert_eq!((told.in_flight, told.refused), (1024 + 256, 2000 - 1024 - 256));
    pair.settle();
    assert_eq!(counters(&pair).in_flight, 0);
}

#[test]
fn one_that_is_longer_than_a_packet_takes_the_lane() {
    let (mut pair, stream) = opened(true);
    (1..=3).for_each(|number| fire(&mut pair, stream, number, if number == 2 { 9000 } else { 100 }));
    let mut out = Vec::new();
    let mut seen = Vec::new();
    let mut capacity = |lane: Lane| if lane == Lane::DATAGRAM { 1200 } else { 16_384 };
    while let Some(lane) = pair.sides[0].session.poll_transmit(LinkId(0), &mut capacity, &mut out, pair.now) {
        seen.push((lane, out.len() > 9000));
        out.clear();
    }
    let lane = Lane::of(Priority::Normal, stream);
    assert_eq!(seen, vec![(Lane::DATAGRAM, false), (lane, true), (Lane::DATAGRAM, false)]);
}

#[test]
fn packets_that_may_not_go_hold_up_nothing_else() {
    let (mut pair, stream) = opened(true);
    let log = open(&mut pair, 0, channel("log"));
    fire(&mut pair, stream, 1, 100);
    send(&mut pair, 0, log, 7, 100);
    let mut out = Vec::new();
    let mut blocked = |lane: Lane| if lane == Lane::DATAGRAM { 0 } else { 16_384 };
    while let Some(lane) = pair.sides[0].session.poll_transmit(LinkId(0), &mut blocked, &mut out, pair.now) {
        pair.links[0].pipes[0].entry(lane).or_default().extend(out.drain(..));
    }
    for pick in 0..4 {
        pair.deliver(usize::MAX, pick);
    }
    let now = pair.now;
    pair.sides[1].take_all(log, now);
    assert_eq!(pair.sides[1].taken[&log], vec![message(7, 100)]);
    assert_eq!(counters(&pair).in_flight, 2);
    // A lane that takes nothing does not hold up packets either.
    send(&mut pair, 0, log, 8, 100);
    let mut full = |lane: Lane| if lane == Lane::DATAGRAM { 1200 } else { 0 };
    let lane = pair.sides[0].session.poll_transmit(LinkId(0), &mut full, &mut out, pair.now);
    assert_eq!(lane, Some(Lane::DATAGRAM));
}

#[test]
fn they_expire_in_the_queue_and_are_never_sent_again() {
    let (mut pair, stream) = opened(true);
    fire(&mut pair, stream, 1, 8);
    assert_eq!(transmitted(&mut pair).len(), 1);
    pair.cut(0);
    fire(&mut pair, stream, 2, 8);
    let deadline = Some(pair.now + TICK);
    assert_eq!(pair.sides[0].session.send(stream, message(3, 8), 0, deadline, false), Ok(()));
    pair.advance(TICK);
    assert_eq!(counters(&pair).expired, 1);
    pair.attach(false);
    pair.settle();
    assert_eq!(numbers(&pair, stream), vec![2]);
    let told = counters(&pair);
    assert_eq!((told.delivered, told.unknown, told.in_flight), (1, 1, 0));
    assert!(pair.sides[0].outcomes.is_empty(), "datagrams have no receipts");
}

#[test]
fn a_lost_session_leaves_none_in_flight() {
    let (mut pair, stream) = opened(true);
    (1..=3).for_each(|number| fire(&mut pair, stream, number, 8));
    assert_eq!(transmitted(&mut pair).len(), 3);
    pair.cut(0);
    fire(&mut pair, stream, 4, 8);
    pair.advance(Duration::from_secs(61));
    let told = counters(&pair);
    assert_eq!((told.unknown, told.refused, told.in_flight), (3, 1, 0));
}

#[test]
fn a_receiver_that_stops_says_how_many_it_took() {
    for lanes in [false, true] {
        let (mut pair, stream) = opened(lanes);
        (1..=5).for_each(|number| fire(&mut pair, stream, number, 8));
        pair.transmit(16_384);
        (0..4).for_each(|pick| pair.deliver(usize::MAX, pick));
        (0..5).for_each(|_| pair.deliver_packet(0));
        let now = pair.now;
        assert!(matches!(pair.sides[1].session.take(stream, usize::MAX, now), Taken::Payload(_)));
        pair.sides[1].session.stop(stream, StreamCode(300), "", now);
        pair.settle();
        let told = counters(&pair);
        assert_eq!((told.delivered, told.unknown, told.in_flight), (1, 4, 0));
        assert_eq!(pair.sides[0].session.in_flight, 0);
        assert_eq!(pair.sides[0].session.send(stream, message(6, 8), 0, None, false), Err(SendError::Closed));
    }
}

#[test]
fn too_long_is_an_error() {
    let (mut pair, stream) = opened(false);
    let sent = pair.sides[0].session.send(stream, message(1, 15_001), 0, None, false);
    assert_eq!(sent, Err(SendError::TooLarge { max: 15_000 }));
    assert_eq!(counters(&pair).refused, 1);
    fire(&mut pair, stream, 2, 15_000);
    pair.settle();
    assert_eq!(numbers(&pair, stream), vec![2]);
}

#[test]
fn lies_about_datagrams_are_violations() {
    let hear = |lane: Lane, run: &dyn Fn(StreamId) -> Vec<u8>, class| {
        let mut pair = Pair::linked(&Config::default(), true);
        let theirs = open(&mut pair, 1, OpenInfo { class, ..channel("theirs") });
        pair.settle();
        let heard = pair.sides[0].session.handle_bytes(LinkId(0), lane, &run(theirs), pair.now);
        pair.sides[0].events(pair.now, true);
        heard.map_err(|violation| violation.code)
    };
    let (datagram, reliable) = (DeliveryClass::Datagram, DeliveryClass::Reliable);
    let control = Lane::CONTROL;
    assert_eq!(hear(Lane::DATAGRAM, &|stream| frame(stream, 3), datagram), Ok(()));
    assert_eq!(hear(control, &|stream| frame(stream, 3), datagram), Ok(()));
    // On a channel that has offsets, and offsets on a channel that has none.
    assert_eq!(hear(control, &|stream| frame(stream, 3), reliable), Err(CloseCode::MALFORMED));
    let put = |frames: &[Frame<'_>]| {
        let mut out = Vec::new();
        frames.iter().for_each(|frame| frame.put(&mut out));
        out
    };
    let data = |stream| put(&[Frame::Data { stream, offset: 0, push: true, payload: b"x" }]);
    assert_eq!(hear(control, &data, datagram), Err(CloseCode::MALFORMED));
    // Beyond the end, an end before what came, two ends.
    let fin = |stream, end| Frame::Fin { stream, end };
    let ended = |stream| [frame(stream, 3), put(&[fin(stream, 4)]), frame(stream, 4)].concat();
    assert_eq!(hear(control, &ended, datagram), Err(CloseCode::FLOW_CONTROL));
    let early = |stream| [frame(stream, 3), put(&[fin(stream, 2)])].concat();
    assert_eq!(hear(control, &early, datagram), Err(CloseCode::MALFORMED));
    // A packet is one DATAGRAM frame.
    for packet in
        [data(StreamId(1)), vec![], vec![0x18], [frame(StreamId(1), 1), frame(StreamId(1), 2)].concat()]
    {
        assert_eq!(hear(Lane::DATAGRAM, &|_| packet.clone(), datagram), Err(CloseCode::MALFORMED));
    }
}

#[test]
fn counts_that_cannot_be_are_violations() {
    let told = |counts: &[[u64; 3]]| {
        let (mut pair, stream) = opened(true);
        (1..=5).for_each(|number| fire(&mut pair, stream, number, 8));
        transmitted(&mut pair);
        let mut frames = Vec::new();
        for &[taken, received, limit] in counts {
            Frame::Offsets { stream, offsets: Offsets { taken, received, limit } }.put(&mut frames);
        }
        let result = pair.sides[0].session.handle_bytes(LinkId(0), Lane::CONTROL, &frames, pair.now);
        pair.sides[0].events(pair.now, true);
        result.map_err(|violation| violation.code)
    };
    assert_eq!(told(&[[1, 2, 3], [2, 5, 5], [1, 2, 3]]), Ok(()));
    assert_eq!(told(&[[0, 0, 6]]), Err(CloseCode::FLOW_CONTROL));
    // Three were missed, and then only one.
    assert_eq!(told(&[[0, 3, 3], [3, 4, 4]]), Err(CloseCode::FLOW_CONTROL));
    assert_eq!(told(&[[2, 2, 2], [1, 4, 4]]), Err(CloseCode::FLOW_CONTROL));
}
