//! From one link to another, in memory.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use proptest::prelude::*;

use crate::config::Config;
use crate::id::{LinkId, StreamId};
use crate::session::Session;
use crate::session::tests::{Pair, channel, message, open, send};
use crate::stream::Outcome;
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

    /// Links of all kinds come, fall silent in one direction or both, speak again and are cut; at the end there
    /// is a good one. Every message arrives once, in order, and every receipt says so.
    #[test]
    fn links_come_and_go(steps in prop::collection::vec((0_u8..8, 0_u8..4, any::<bool>(), 1_u16..400), 1..40)) {
        let mut pair = Pair::new(&Config { link_timeout: Duration::from_secs(1), ..Config::default() });
        let streams = [0, 1].map(|side| open(&mut pair, side, channel("log")));
        let mut numbers = [0_u64; 2];
        for (what, which, lanes, time) in steps {
            let index = usize::from(which);
            match what {
                0 | 1 => pair.attach_preferred(lanes, which),
                2 => pair.cut(index),
                3 | 4 => if let Some(link) = pair.links.get_mut(index) {
                    link.mute = [what == 3 || lanes, what == 4 || lanes];
                },
                5 => pair.links.iter_mut().for_each(|link| link.mute = [false; 2]),
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
