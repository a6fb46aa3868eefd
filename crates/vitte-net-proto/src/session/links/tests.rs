//! From one link to another, in memory.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use proptest::prelude::*;

use crate::config::Config;
use crate::error::StreamCode;
use crate::id::{Lane, LinkId, StreamId};
use crate::session::Session;
use crate::session::tests::{Pair, Side, channel, message, open, send};
use crate::stream::Outcome;
use crate::stream::receive::Taken;
use crate::time::Moment;

const MS: Duration = Duration::from_millis(1);

/// A pair with a link of preference 0, on which one message was answered: its round trip is known.
fn settled(config: &Config) -> (Pair, StreamId) {
    let mut pair = Pair::linked(config, false);
    let stream = open(&mut pair, 0, channel("log"));
    send(&mut pair, 0, stream, 1, 100);
    pair.settle();
    (pair, stream)
}

fn active(pair: &Pair) -> [Option<LinkId>; 2] {
    pair.sides.each_ref().map(|side| side.session.active_link())
}

/// Lets time pass, with everything that is sent delivered at once, unless its link is mute.
fn pass(pair: &mut Pair, time: Duration) {
    let end = pair.now + time;
    while pair.now < end {
        pair.transmit(16_384);
        for pick in 0..crate::id::Lane::COUNT.into() {
            pair.deliver(usize::MAX, pick);
        }
        let now = pair.now;
        for side in &mut pair.sides {
            let streams: Vec<StreamId> = side.session.streams.keys().copied().collect();
            streams.into_iter().for_each(|stream| side.take_all(stream, now));
        }
        pair.advance(MS);
    }
}

fn arrived(pair: &Pair, stream: StreamId, count: u64) {
    let expected: Vec<_> = (1..=count).map(|number| message(number, 100)).collect();
    assert_eq!(pair.sides[1].taken[&stream], expected);
    assert_eq!(pair.sides[0].outcomes.len() as u64, count);
    assert!(pair.sides[0].outcomes.values().all(|outcome| *outcome == Outcome::Delivered));
}

#[test]
fn a_better_link_takes_over_when_it_has_proven_itself_and_nothing_goes_twice() {
    let (mut pair, stream) = settled(&Config::default());
    pair.attach_preferred(true, 3);
    pass(&mut pair, 900 * MS);
    assert_eq!(active(&pair), [Some(LinkId(0)); 2], "it is on probation");
    let before = pair.links[0].bytes[0];
    let mut number = 1;
    while active(&pair) != [Some(LinkId(1)); 2] {
        number += 1;
        assert!(number < 1000, "the better link never took over");
        send(&mut pair, 0, stream, number, 100);
        pass(&mut pair, MS);
    }
    pass(&mut pair, 100 * MS);
    arrived(&pair, stream, number);
    // Each message takes its bytes once, with a frame around it, and nothing was stated but offsets.
    let sent = pair.links[0].bytes[0] - before + pair.links[1].bytes[0];
    assert!(sent < usize::try_from(number).unwrap() * 130 + 500, "{sent} bytes for {number} messages");
    assert!(pair.sides.iter().all(|side| side.stalled.is_empty()));
}

#[test]
fn what_the_old_link_did_not_deliver_goes_again_when_it_dies() {
    let (mut pair, stream) = settled(&Config::default());
    pair.attach_preferred(true, 3);
    let mut number = 1;
    while active(&pair)[0] != Some(LinkId(1)) {
        // The last ones before the handover are lost with the old link.
        pair.links[0].mute = [number > 950, false];
        number += 1;
        send(&mut pair, 0, stream, number, 100);
        pass(&mut pair, MS);
        assert!(number < 1100, "the better link never took over");
    }
    pair.cut(0);
    pass(&mut pair, 200 * MS);
    arrived(&pair, stream, number);
}

/// Offsets are not acknowledged: those that the old link swallowed before the handover are stated again.
#[test]
fn what_the_old_link_stated_in_vain_is_stated_again_when_it_dies() {
    let (mut pair, stream) = settled(&Config::default());
    pair.attach_preferred(true, 3);
    pass(&mut pair, 900 * MS);
    send(&mut pair, 0, stream, 2, 100);
    // It is received and acknowledged, and then taken: that word is lost.
    for _ in 0..20 {
        pair.transmit(16_384);
        pair.deliver(usize::MAX, 0);
        pair.advance(MS);
    }
    assert_eq!(active(&pair), [Some(LinkId(0)); 2]);
    pair.links[0].mute = [false, true];
    pass(&mut pair, 300 * MS);
    assert_eq!(active(&pair), [Some(LinkId(1)); 2]);
    pass(&mut pair, Duration::from_secs(30));
    arrived(&pair, stream, 2);
}

/// Lets time pass until both sides are carried by this link.
fn until_carried(pair: &mut Pair, link: LinkId) {
    for _ in 0..10_000 {
        if active(pair) == [Some(link); 2] {
            return;
        }
        pass(pair, MS);
    }
    panic!("{link:?} never took over: {:?}", active(pair));
}

/// Lanes are not in order with one another: the old link's last word says nothing of what the others carry.
#[test]
fn what_a_lane_of_the_old_link_lost_is_said_again() {
    let mut pair = Pair::linked(&Config::default(), true);
    let [ends, resets] = [0, 1].map(|number| {
        let stream = open(&mut pair, 0, channel("log"));
        send(&mut pair, 0, stream, number, 100);
        stream
    });
    pair.settle();
    pair.attach_preferred(false, 3);
    pass(&mut pair, 900 * MS);
    assert_eq!(active(&pair), [Some(LinkId(0)); 2]);
    let begins = open(&mut pair, 0, channel("new"));
    pair.sides[0].session.finish(ends);
    pair.sides[0].session.reset(resets, StreamCode::DROPPED, "", pair.now);
    pair.transmit(16_384);
    let lost: usize = pair.links[0].pipes[0]
        .iter_mut()
        .filter(|(lane, _)| **lane != Lane::CONTROL)
        .map(|(_, bytes)| bytes.drain(..).count())
        .sum();
    assert!(lost > 0, "it was under way");
    until_carried(&mut pair, LinkId(1));
    pass(&mut pair, 1000 * MS);
    let heard: Vec<StreamId> = pair.sides[1].opened.iter().map(|(stream, _)| *stream).collect();
    assert_eq!(heard, [ends, resets, begins]);
    let now = pair.now;
    assert_eq!(pair.sides[1].session.take(ends, 1, now), Taken::End);
    assert!(matches!(pair.sides[1].session.take(resets, 1, now), Taken::Reset(StreamCode::DROPPED, _)));
}

/// It is the answer to STOP, and who gave it has forgotten the stream: the other side asks again.
#[test]
fn a_retire_that_died_with_a_link_of_one_side_is_said_again() {
    let config = Config { max_streams: 8, hold: Duration::ZERO, ..Config::default() };
    let mut pair = Pair::linked(&config, false);
    for round in 1..10 {
        let stream = open(&mut pair, 0, channel("log"));
        pass(&mut pair, 50 * MS);
        pair.attach_unlike(false, [3, 0]);
        for _ in 0..60_000 {
            if active(&pair) == [Some(LinkId(round)), Some(LinkId(0))] {
                break;
            }
            pass(&mut pair, MS);
        }
        assert_eq!(active(&pair), [Some(LinkId(round)), Some(LinkId(0))], "round {round}");
        pass(&mut pair, 1000 * MS);
        // What the one side says is lost from now on, its RETIRE as well.
        pair.links[1].mute = [true, false];
        let now = pair.now;
        pair.sides.iter_mut().for_each(|side| side.session.release(stream, now));
        pass(&mut pair, 100 * MS);
        pair.cut(1);
        pass(&mut pair, 1000 * MS);
        let counts = pair.sides.each_ref().map(|side| side.session.stream_count());
        assert_eq!(counts, [0, 0], "round {round}");
    }
}

#[test]
fn an_old_link_that_falls_silent_after_the_handover_holds_nothing_up() {
    let (mut pair, stream) = settled(&Config::default());
    pair.attach_preferred(false, 3);
    let mut number = 1;
    while active(&pair)[0] != Some(LinkId(1)) {
        number += 1;
        send(&mut pair, 0, stream, number, 100);
        // The last ones before the handover stay on the old link for good.
        pair.links[0].mute = [number > 980; 2];
        pass(&mut pair, MS);
        assert!(number < 1100, "the better link never took over");
    }
    assert!((pair.sides[1].taken[&stream].len() as u64) < number, "something is under way");
    pass(&mut pair, 500 * MS);
    assert_eq!(pair.links.len(), 2, "no link was cut");
    arrived(&pair, stream, number);
}

#[test]
fn a_link_that_owes_an_answer_loses_the_session_to_one_that_stands_by() {
    for lanes in [false, true] {
        let (mut pair, stream) = settled(&Config::default());
        pair.attach(lanes);
        pass(&mut pair, 10 * MS);
        pair.links[0].mute = [true; 2];
        send(&mut pair, 0, stream, 2, 100);
        pass(&mut pair, 190 * MS);
        assert_eq!(active(&pair)[0], Some(LinkId(0)), "it has its time");
        pass(&mut pair, 20 * MS);
        // The peer, which owed nothing, follows.
        assert_eq!(active(&pair), [Some(LinkId(1)); 2]);
        assert_eq!(pair.sides[0].stalled, vec![LinkId(0)]);
        pass(&mut pair, 50 * MS);
        arrived(&pair, stream, 2);
        assert!(!pair.sides[0].lost);
    }
}

#[test]
fn without_another_link_a_stall_is_told_once_and_the_next_link_is_taken_at_once() {
    let (mut pair, stream) = settled(&Config::default());
    pair.links[0].mute = [true; 2];
    send(&mut pair, 0, stream, 2, 100);
    pass(&mut pair, 800 * MS);
    assert_eq!(pair.sides[0].stalled, vec![LinkId(0)]);
    assert!(pair.sides[0].session.is_stalled());
    pair.attach(false);
    assert_eq!(active(&pair)[0], Some(LinkId(1)));
    pass(&mut pair, 50 * MS);
    assert!(!pair.sides[0].session.is_stalled());
    arrived(&pair, stream, 2);
}

#[test]
fn a_link_that_only_paused_is_not_given_up() {
    let (mut pair, stream) = settled(&Config::default());
    pair.links[0].mute = [false, true];
    send(&mut pair, 0, stream, 2, 100);
    pass(&mut pair, 300 * MS);
    assert!(pair.sides[0].session.is_stalled());
    pair.links[0].mute = [false; 2];
    // The peer says something, whatever it is.
    let back = open(&mut pair, 1, channel("back"));
    send(&mut pair, 1, back, 9, 10);
    pass(&mut pair, 50 * MS);
    assert!(!pair.sides[0].session.is_stalled());
    assert_eq!(active(&pair), [Some(LinkId(0)); 2]);
}

#[test]
fn a_kind_of_link_that_failed_is_held_back_longer_each_time() {
    let config = Config::default();
    let (mut pair, stream) = settled(&config);
    let mut number = 1;
    let mut waits = Vec::new();
    for _ in 0..3 {
        pair.attach_preferred(true, 3);
        let begun = pair.now;
        while active(&pair) != [pair.links.last().map(|link| link.id); 2] {
            pass(&mut pair, 100 * MS);
            assert!(pair.now - begun < Duration::from_secs(120), "it never took over");
        }
        waits.push(pair.now - begun);
        // It stalls, and dies.
        let last = pair.links.len() - 1;
        pair.links[last].mute = [true; 2];
        number += 1;
        send(&mut pair, 0, stream, number, 100);
        pass(&mut pair, 300 * MS);
        assert_eq!(active(&pair), [Some(LinkId(0)); 2]);
        pair.cut(last);
    }
    let seconds: Vec<u64> = waits.iter().map(Duration::as_secs).collect();
    assert!(seconds[0] < 2 && (5..8).contains(&seconds[1]) && (10..13).contains(&seconds[2]), "{waits:?}");
    arrived(&pair, stream, number);
}

#[test]
fn a_better_kind_of_link_that_answers_late_is_not_taken() {
    let (mut pair, _) = settled(&Config::default());
    pair.attach_preferred(true, 3);
    for _ in 0..40 {
        // Answers take 60 ms; on the present link they come at once.
        pair.links[1].mute = [false; 2];
        pair.transmit(16_384);
        let held: Vec<_> = pair.links.drain(1..).collect();
        pass(&mut pair, 60 * MS);
        pair.links.extend(held);
        for pick in 0..crate::id::Lane::COUNT.into() {
            pair.deliver(usize::MAX, pick);
        }
    }
    assert_eq!(active(&pair), [Some(LinkId(0)); 2]);
}

#[test]
fn a_spare_is_known_as_one() {
    let (mut pair, _) = settled(&Config::default());
    let spare = |pair: &Pair, link| pair.sides.each_ref().map(|side| side.session.is_spare(LinkId(link)));
    assert_eq!(spare(&pair, 0), [false; 2], "it carries the session");
    pair.attach_preferred(true, 3);
    assert_eq!(spare(&pair, 1), [false; 2], "it is the better one");
    while active(&pair) != [Some(LinkId(1)); 2] {
        pass(&mut pair, 100 * MS);
    }
    pass(&mut pair, 6000 * MS);
    assert_eq!(spare(&pair, 0), [true; 2]);
    assert_eq!(spare(&pair, 1), [false; 2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 64 }))]

    /// Links of all kinds come, liked better by one side or the other, fall silent in one direction or both, speak again
    /// and are cut, while streams begin and end; at the end there is a good link. Every message arrives once, in order,
    /// every receipt says so, and no side remembers a stream that both have let go of.
    #[test]
    fn links_come_and_go(steps in prop::collection::vec((0_u8..11, 0_u8..4, any::<bool>(), 1_u16..400), 1..40)) {
        let config = Config { link_timeout: Duration::from_secs(1), max_streams: 16, ..Config::default() };
        let mut pair = Pair::new(&config);
        let streams = [0, 1].map(|side| open(&mut pair, side, channel("log")));
        let (mut numbers, mut brief) = ([0_u64; 2], Vec::new());
        for (what, which, lanes, time) in steps {
            let index = usize::from(which);
            match what {
                0 => pair.attach_preferred(lanes, which),
                1 => pair.attach_unlike(lanes, [which, 3 - which]),
                2 => pair.cut(index),
                3 | 4 => if let Some(link) = pair.links.get_mut(index) {
                    link.mute = [what == 3 || lanes, what == 4 || lanes];
                },
                5 => pair.links.iter_mut().for_each(|link| link.mute = [false; 2]),
                6 | 7 => if let Ok(stream) = pair.sides[index % 2].session.open(channel("brief")) {
                    let sent = pair.sides[index % 2].session.send(stream, message(0, 100), 0, None, false);
                    prop_assert_eq!(sent, Ok(()));
                    brief.push(stream);
                },
                8 | 9 if !brief.is_empty() => {
                    let stream = brief.remove(index % brief.len());
                    let now = pair.now;
                    // Who has not heard of it cannot let go of it.
                    let told = |side: &&mut Side| {
                        side.session.streams.get(&stream).is_some_and(|state| state.info.is_some())
                    };
                    for side in pair.sides.iter_mut().filter(told) {
                        if lanes {
                            side.session.reset(stream, StreamCode::DROPPED, "", now);
                        }
                        side.session.release(stream, now);
                    }
                },
                _ => {}
            }
            for side in 0..2 {
                for _ in 0..which {
                    numbers[side] += 1;
                    send(&mut pair, side, streams[side], numbers[side], 100);
                }
            }
            pass(&mut pair, u32::from(time) * MS);
        }
        // A torn frame of a link that was mute is no violation here: what is lost is whole.
        while !pair.links.is_empty() {
            pair.cut(0);
        }
        pair.attach_preferred(true, 3);
        pair.settle();
        for side in 0..2 {
            let got = pair.sides[1 - side].taken.get(&streams[side]).cloned().unwrap_or_default();
            let expected: Vec<_> = (1..=numbers[side]).map(|number| message(number, 100)).collect();
            prop_assert_eq!(got, expected);
            prop_assert!(pair.sides[side].outcomes.values().all(|outcome| *outcome == Outcome::Delivered));
            prop_assert_eq!(pair.sides[side].outcomes.len() as u64, numbers[side]);
            prop_assert!(!pair.sides[side].lost);
        }
        // Whoever hears of a stream lets go of it, then or now.
        let now = pair.now;
        for side in &mut pair.sides {
            let known: Vec<StreamId> = side.session.streams.keys().copied().collect();
            known.into_iter().for_each(|stream| side.session.release(stream, now));
        }
        pair.settle();
        prop_assert_eq!(pair.sides.each_ref().map(|side| side.session.stream_count()), [0, 0]);
    }
}

/// What a fresh session waits for.
#[test]
fn a_session_without_a_link_waits_for_the_resume_window_alone() {
    let config = Config::default();
    let pair = Pair::new(&config);
    let session: &Session = &pair.sides[0].session;
    assert_eq!(session.poll_timeout(), Some(Moment::ZERO + config.resume_window));
}

#[test]
fn a_session_that_waits_for_no_second_link_waits_for_its_first() {
    let config = Config { resume_window: Duration::ZERO, ..Config::default() };
    let mut pair = Pair::new(&config);
    pair.advance(Duration::from_secs(9));
    pair.attach(false);
    let stream = open(&mut pair, 0, channel("log"));
    send(&mut pair, 0, stream, 1, 100);
    pass(&mut pair, 2000 * MS);
    arrived(&pair, stream, 1);
    pair.cut(0);
    pair.advance(MS);
    assert!(pair.sides.iter().all(|side| side.lost));
}
