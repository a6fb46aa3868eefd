//! One sending half against a model that keeps every byte it ever transmitted in one flat run.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::codec::put_varint;

const WINDOW: u64 = 300;
const REPLAY: u64 = 700;

/// What happens to it next. Parts are of 255.
#[derive(Clone, Debug)]
enum Step {
    Push { len: usize, lifetime_ms: Option<u64> },
    Transmit { max: usize },
    Offsets { received: u64, taken: u64, credit: u64 },
    Rewind,
    Wait { ms: u64 },
    Finish,
    Stop { taken: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let lifetime = prop::option::weighted(0.3, 0..40_u64);
    prop_oneof![
        10 => (0..200_usize, lifetime).prop_map(|(len, lifetime_ms)| Step::Push { len, lifetime_ms }),
        12 => (0..250_usize).prop_map(|max| Step::Transmit { max }),
        8 => (0..256_u64, 0..256_u64, 0..WINDOW)
            .prop_map(|(received, taken, credit)| Step::Offsets { received, taken, credit }),
        3 => Just(Step::Rewind),
        4 => (0..30_u64).prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Finish),
        1 => (0..256_u64).prop_map(|taken| Step::Stop { taken }),
    ]
}

#[derive(Default)]
struct Model {
    queue: VecDeque<(u64, usize, Option<Moment>)>,
    /// Every byte that has an offset, and the end and token of every message in it that has no outcome.
    wire: Vec<u8>,
    begun: VecDeque<(u64, u64)>,
    base: u64,
    next: u64,
    sent: u64,
    limit: u64,
    settled: Vec<Settled>,
    over: bool,
    finished: bool,
}

fn payload(token: u64, len: usize) -> Vec<u8> {
    vec![token.to_le_bytes()[0]; len]
}

impl Model {
    fn end(&self) -> u64 {
        self.wire.len() as u64
    }

    /// The bytes that may go out now.
    fn transmit(&mut self, max: usize, now: Moment) -> Vec<u8> {
        if self.over {
            return Vec::new();
        }
        let max = (max as u64).min(self.limit.saturating_sub(self.next));
        while self.end() - self.next < max && self.end() - self.base < REPLAY {
            let Some((token, len, deadline)) = self.queue.pop_front() else { break };
            if deadline.is_some_and(|at| at <= now) {
                self.settled.push((token, Outcome::Expired));
                continue;
            }
            put_varint(&mut self.wire, len as u64);
            self.wire.extend(payload(token, len));
            self.begun.push_back((self.end(), token));
        }
        let to = self.end().min(self.next + max);
        let range = usize::try_from(self.next).unwrap_or(0)..usize::try_from(to).unwrap_or(0);
        self.next = to;
        self.sent = self.sent.max(to);
        self.wire[range].to_vec()
    }

    fn take(&mut self, taken: u64) {
        while let Some(&(_, token)) = self.begun.front().filter(|(end, _)| *end <= taken) {
            self.begun.pop_front();
            self.settled.push((token, Outcome::Delivered));
        }
    }

    fn stop(&mut self, code: StreamCode) {
        let refused = Outcome::Refused(code);
        self.settled.extend(self.begun.drain(..).map(|(_, token)| (token, refused)));
        self.settled.extend(self.queue.drain(..).map(|(token, ..)| (token, refused)));
        self.over = true;
    }
}

fn run(steps: Vec<Step>) {
    let mut half = SendHalf::new(Content::Messages, WINDOW, REPLAY);
    let mut model = Model { limit: WINDOW, ..Model::default() };
    let mut settled = Vec::new();
    let mut now = Moment::ZERO;
    let mut token = 0;
    for step in steps {
        match step {
            Step::Push { len, lifetime_ms } if half.open() => {
                token += 1;
                let deadline = lifetime_ms.map(|ms| now + Duration::from_millis(ms));
                half.push(payload(token, len).into(), token, deadline, &mut settled);
                model.queue.push_back((token, len, deadline));
            }
            Step::Push { .. } => {}
            Step::Transmit { max } => {
                let len = half.prepare(max, now, &mut settled);
                let mut out = Vec::new();
                half.copy(len, &mut out);
                assert_eq!(out, model.transmit(max, now));
                if let Some(SendEnd::Fin(end)) = half.take_end() {
                    assert!(model.finished && model.queue.is_empty());
                    assert_eq!((end, model.next), (model.end(), model.end()));
                }
            }
            Step::Offsets { received, taken, credit } => {
                let received = received * model.sent / 255;
                let taken = taken * received / 255;
                let offsets = Offsets { taken, received, limit: received + credit };
                assert_eq!(half.handle_offsets(&offsets, &mut settled), Ok(()));
                model.take(taken);
                if !model.over {
                    model.limit = model.limit.max(offsets.limit);
                    model.base = model.base.max(received);
                    model.next = model.next.max(model.base);
                }
            }
            Step::Rewind => {
                half.rewind();
                if !model.over {
                    model.next = model.base;
                }
            }
            Step::Wait { ms } => {
                now = now + Duration::from_millis(ms);
                half.expire(now, &mut settled);
                let expired = |at: &Option<Moment>| at.is_some_and(|at| at <= now);
                let gone = model.queue.iter().filter(|(_, _, at)| expired(at));
                model.settled.extend(gone.map(|(token, ..)| (*token, Outcome::Expired)));
                model.queue.retain(|(_, _, at)| !expired(at));
            }
            Step::Finish => {
                half.finish();
                model.finished = true;
            }
            Step::Stop { taken } => {
                let (code, taken) = (StreamCode(256), taken * model.sent / 255);
                if !model.over {
                    assert_eq!(half.handle_stop(code, taken, &mut settled), Ok(()));
                    model.take(taken);
                    model.stop(code);
                }
            }
        }
        assert_eq!(settled, model.settled);
        if !model.over {
            assert_eq!((half.next(), half.in_flight()), (model.next, model.next - model.base));
            assert!(half.next() <= model.limit.max(model.base), "beyond the credit");
            let kept = model.end() - model.base;
            let queued: usize = model.queue.iter().map(|(_, len, _)| len).sum();
            // Pieces are forgotten whole.
            assert!(
                half.held_bytes() >= kept + queued as u64 && half.held_bytes() <= kept + queued as u64 + 202
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::cases(500), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_keeps_its_offset_and_every_message_ends_once(steps in prop::collection::vec(step(), 1..200)) {
        run(steps);
    }
}
