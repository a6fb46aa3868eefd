use super::*;

fn one(ledger: &Ledger, part: &str) {
    let violations = ledger.violations();
    assert_eq!(violations.len(), 1, "{violations:?}");
    assert!(violations[0].contains(part), "{violations:?}");
}

fn flow(promise: Promise) -> (Ledger, Flow) {
    let ledger = Ledger::default();
    let flow = ledger.flow("flow", "b", promise);
    (ledger, flow)
}

#[test]
fn a_run_in_order_holds() {
    let (ledger, flow) = flow(Promise::InOrder);
    for len in [0, 16, 17, 5000] {
        let (number, message) = flow.offer(len);
        assert_eq!(message.len(), len.max(16));
        ledger.saw("b", &message);
        flow.settle(number, Verdict::Delivered);
    }
    let (expired, _) = flow.offer(20);
    let (refused, _) = flow.offer(20);
    let (unknown, _) = flow.offer(20);
    flow.settle(expired, Verdict::Expired);
    flow.settle(refused, Verdict::Refused);
    flow.settle(unknown, Verdict::Unknown);
    assert_eq!(ledger.violations(), [""; 0]);
    let tally = ledger.tally();
    assert_eq!((tally.offered, tally.seen, tally.delivered, tally.unknown), (7, 4, 4, 1));
    assert_eq!(flow.tally(), tally);
}

#[test]
fn twice_and_out_of_order_are_seen_at_once() {
    let (ledger, flow) = flow(Promise::InOrder);
    let (first, second) = (flow.offer(20), flow.offer(20));
    ledger.saw("b", &second.1);
    ledger.saw("b", &first.1);
    flow.settle(first.0, Verdict::Delivered);
    flow.settle(second.0, Verdict::Delivered);
    one(&ledger, "saw message 0 after 1");
    let (ledger, flow) = self::flow(Promise::Once);
    let (first, second) = (flow.offer(20), flow.offer(20));
    ledger.saw("b", &second.1);
    ledger.saw("b", &first.1);
    ledger.saw("b", &first.1);
    flow.settle(first.0, Verdict::Unknown);
    flow.settle(second.0, Verdict::Unknown);
    one(&ledger, "saw message 0 2 times");
}

#[test]
fn outcomes_that_were_not_honest_are_seen() {
    for (verdict, part) in [(Verdict::Refused, "called refused"), (Verdict::Expired, "called expired")] {
        let (ledger, flow) = flow(Promise::InOrder);
        let (number, message) = flow.offer(20);
        ledger.saw("b", &message);
        flow.settle(number, verdict);
        one(&ledger, part);
    }
    let (ledger, flow) = flow(Promise::InOrder);
    let (number, message) = flow.offer(20);
    flow.settle(number, Verdict::Refused);
    ledger.saw("b", &message);
    assert!(ledger.violations()[0].contains("whose sender was told Refused"));
}

#[test]
fn a_gap_is_seen_unless_it_is_explained() {
    for (verdict, gap) in [(Verdict::Unknown, true), (Verdict::Expired, false), (Verdict::Refused, false)] {
        let (ledger, flow) = flow(Promise::InOrder);
        let (first, second) = (flow.offer(20), flow.offer(20));
        ledger.saw("b", &second.1);
        flow.settle(first.0, verdict);
        flow.settle(second.0, Verdict::Delivered);
        assert_eq!(!ledger.violations().is_empty(), gap, "{verdict:?}");
    }
}

#[test]
fn a_sender_that_waits_for_ever_is_seen_and_one_that_crashed_is_not() {
    let (ledger, flow) = flow(Promise::InOrder);
    let _ = flow.offer(20);
    one(&ledger, "has no outcome");
    drop(flow);
    assert!(ledger.violations().is_empty());
    assert_eq!(ledger.tally().untold, 1);

    let (ledger, flow) = self::flow(Promise::InOrder);
    let (given_up, _) = flow.offer(20);
    flow.withdraw(given_up);
    let (number, message) = flow.offer(20);
    ledger.saw("b", &message);
    flow.settle(number, Verdict::Delivered);
    assert!(ledger.violations().is_empty());
}

#[test]
fn changes_and_strangers_are_seen() {
    let (ledger, flow) = flow(Promise::InOrder);
    let (number, mut message) = flow.offer(300);
    message[200] ^= 1;
    ledger.saw("b", &message);
    flow.settle(number, Verdict::Delivered);
    one(&ledger, "changed at byte 200");
    let (ledger, flow) = self::flow(Promise::InOrder);
    let (number, message) = flow.offer(20);
    ledger.saw("c", &message);
    flow.settle(number, Verdict::Delivered);
    one(&ledger, "is for b and was seen by c");
    let ledger = Ledger::default();
    ledger.saw("b", &[7; 20]);
    ledger.saw("b", &[7; 2]);
    assert_eq!(ledger.violations().len(), 2);
}

#[test]
fn settled_twice_and_expectations() {
    let (ledger, flow) = flow(Promise::Once);
    let (number, message) = flow.offer(20);
    ledger.saw("b", &message);
    flow.settle(number, Verdict::Delivered);
    assert!(ledger.violations().is_empty());
    flow.settle(number, Verdict::Unknown);
    one(&ledger, "ended twice");
    ledger.expect(true, || unreachable!());
    for _ in 0..200 {
        ledger.expect(false, || "a bound".into());
    }
    let violations = ledger.violations();
    assert_eq!(violations.len(), KEPT_MAX + 1);
    assert_eq!(violations[KEPT_MAX], "and 101 more");
}

#[test]
fn byte_streams_add_up() {
    let ledger = Ledger::default();
    let mut flow = ledger.bytes("bytes", "b");
    let mut reader = ledger.reader("b");
    let mut all = Vec::new();
    for len in [0, 1, 100, 10_000] {
        let part = flow.next(len);
        flow.wrote(part.len());
        all.extend(part);
    }
    for part in all.chunks(777) {
        reader.saw(part);
    }
    reader.ended();
    flow.finished();
    assert!(ledger.violations().is_empty(), "{:?}", ledger.violations());
    assert_eq!(ledger.tally().bytes, 10_109);

    reader.saw(&[0]);
    assert!(ledger.violations().iter().any(|text| text.contains("10110 bytes were read")));
    let ledger = Ledger::default();
    let mut flow = ledger.bytes("bytes", "b");
    let mut part = flow.next(50);
    flow.wrote(part.len());
    part.remove(30);
    let mut reader = ledger.reader("b");
    reader.saw(&part);
    one(&ledger, "byte 30 was changed");
    reader.ended();
    assert_eq!(ledger.violations().len(), 2);
    flow.withdraw();
    one(&ledger, "byte 30 was changed");
}

#[test]
fn the_newest_arrives_and_what_was_superseded_is_not_seen() {
    let (ledger, flow) = flow(Promise::Newest);
    let (first, second) = (flow.offer(20), flow.offer(20));
    ledger.saw("b", &second.1);
    flow.settle(first.0, Verdict::Superseded);
    flow.settle(second.0, Verdict::Delivered);
    assert_eq!(ledger.violations(), [""; 0]);
    let (third, fourth) = (flow.offer(20), flow.offer(20));
    flow.settle(third.0, Verdict::Superseded);
    flow.settle(fourth.0, Verdict::Expired);
    assert_eq!(ledger.violations(), [""; 0]);
    let last = flow.offer(20);
    flow.settle(last.0, Verdict::Superseded);
    one(&ledger, "message 4 was superseded by nothing");

    for told_first in [true, false] {
        let (ledger, flow) = self::flow(Promise::Newest);
        let (first, second) = (flow.offer(20), flow.offer(20));
        if told_first {
            flow.settle(first.0, Verdict::Superseded);
        }
        ledger.saw("b", &first.1);
        ledger.saw("b", &second.1);
        if !told_first {
            flow.settle(first.0, Verdict::Superseded);
        }
        flow.settle(second.0, Verdict::Delivered);
        assert!(ledger.violations().iter().any(|text| text.contains("called superseded")), "{told_first}");
    }
    let (ledger, flow) = self::flow(Promise::InOrder);
    let (first, second) = (flow.offer(20), flow.offer(20));
    ledger.saw("b", &second.1);
    flow.settle(first.0, Verdict::Superseded);
    flow.settle(second.0, Verdict::Delivered);
    one(&ledger, "message 0 was superseded");
}

#[test]
fn numbers_must_add_up_and_fit_what_was_seen() {
    let counts = |offered, delivered, refused, unknown| Counts {
        offered,
        delivered,
        refused,
        unknown,
        ..Counts::default()
    };
    let (ledger, flow) = flow(Promise::BestEffort);
    let messages: Vec<Vec<u8>> = (0..4).map(|_| flow.offer(20).1).collect();
    ledger.saw("b", &messages[1]);
    ledger.saw("b", &messages[3]);
    flow.counted(&Counts { in_flight: 2, ..counts(4, 1, 1, 0) });
    flow.counted(&counts(4, 2, 1, 1));
    assert_eq!(ledger.violations(), [""; 0]);
    let tally = ledger.tally();
    assert_eq!((tally.offered, tally.seen, tally.delivered, tally.unknown), (4, 2, 2, 1));
    ledger.saw("b", &messages[2]);
    one(&ledger, "saw message 2 after 3");

    for (bad, part) in [
        (counts(2, 1, 0, 0), "do not add up"),
        (counts(1, 1, 0, 0), "2 were offered, and 1 counted"),
        (counts(2, 2, 0, 0), "2 are called delivered, and 1 were seen"),
        (counts(2, 0, 2, 0), "1 were seen, of 0 that left"),
    ] {
        let (ledger, flow) = self::flow(Promise::BestEffort);
        let (_, second) = (flow.offer(20), flow.offer(20).1);
        ledger.saw("b", &second);
        flow.counted(&bad);
        one(&ledger, part);
    }
    let (ledger, flow) = self::flow(Promise::BestEffort);
    let (_, second) = (flow.offer(20), flow.offer(20).1);
    flow.counted(&counts(2, 0, 2, 0));
    ledger.saw("b", &second);
    one(&ledger, "1 were seen, of 0 that left");
    flow.counted(&counts(2, 0, 1, 1));
    assert!(ledger.violations().iter().any(|text| text.contains("before")));
}
