//! Two honest sides, joined by links that tear, hold back, overtake each other, swallow and are cut.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use vitte_net_proto::{CloseCode, Config, Lane, LinkId, LinkKind, Moment, Outcome, StreamId};

use crate::config;
use crate::side::Side;

type Pipe = BTreeMap<Lane, VecDeque<u8>>;

struct Link {
    id: LinkId,
    pipes: [Pipe; 2],
    /// It takes everything and delivers nothing.
    swallows: bool,
}

struct Pair {
    sides: [Side; 2],
    links: Vec<Link>,
    next_link: u64,
    now: Moment,
}

pub(crate) fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let mut pair = Pair::new(&config());
    let driven = drive(&mut pair, u);
    pair.heal();
    pair.check();
    driven
}

fn drive(pair: &mut Pair, u: &mut Unstructured<'_>) -> Result<()> {
    for _ in 0..300 {
        if u.is_empty() {
            break;
        }
        match u.int_in_range(0..=19)? {
            0..=7 => {
                let side = u.int_in_range(0..=1)?;
                pair.sides[side].act(u, pair.now)?;
            }
            8..=11 => pair.transmit(u.int_in_range(0..=16_384)?),
            12..=15 => {
                let link = u.int_in_range(0..=2)?;
                let (from, pick) = (u.int_in_range(0..=1)?, u.int_in_range(0..=10)?);
                pair.deliver(link, from, pick, u.int_in_range(1..=20_000)?);
            }
            16 => pair.attach(u.ratio(1_u8, 2_u8)?),
            17 => pair.cut(u.int_in_range(0..=2)?),
            18 if u.ratio(1_u8, 4_u8)? => {
                if let Some(link) = pair.links.last_mut() {
                    link.swallows = true;
                }
            }
            _ => {
                let most = if u.ratio(1_u8, 16_u8)? { 70_000 } else { 40 };
                pair.advance(Duration::from_millis(u.int_in_range(0..=most)?));
            }
        }
    }
    Ok(())
}

impl Pair {
    fn new(config: &Config) -> Self {
        let sides = [Side::new(config, 1, 2), Side::new(config, 2, 1)];
        Self { sides, links: Vec::new(), next_link: 0, now: Moment::ZERO }
    }

    fn attach(&mut self, lanes: bool) {
        let id = LinkId(self.next_link);
        self.next_link += 1;
        let kind = LinkKind { lanes, preference: u8::from(lanes) };
        let attached = self.sides.each_mut().map(|side| side.session.attach(id, kind, self.now).is_ok());
        if attached == [true; 2] {
            self.links.push(Link { id, pipes: [Pipe::new(), Pipe::new()], swallows: false });
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

    fn transmit(&mut self, room: usize) {
        for (from, side) in self.sides.iter_mut().enumerate() {
            for link in &mut self.links {
                let mut out = Vec::new();
                while let Some(lane) = side.session.poll_transmit(link.id, &mut |_| room, &mut out, self.now)
                {
                    assert!(!out.is_empty() && out.len() <= room, "{} bytes in {room}", out.len());
                    let bytes = out.drain(..);
                    if !link.swallows {
                        link.pipes[from].entry(lane).or_default().extend(bytes);
                    }
                }
            }
            side.events(self.now);
        }
    }

    fn deliver(&mut self, link: usize, from: usize, pick: usize, most: usize) {
        let Some(link) = self.links.get_mut(link) else { return };
        let full: Vec<Lane> =
            link.pipes[from].iter().filter(|(_, bytes)| !bytes.is_empty()).map(|(lane, _)| *lane).collect();
        if full.is_empty() || link.swallows {
            return;
        }
        let lane = full[pick % full.len()];
        let Some(bytes) = link.pipes[from].get_mut(&lane) else { return };
        let run: Vec<u8> = bytes.drain(..most.min(bytes.len())).collect();
        let to = &mut self.sides[1 - from];
        let result = to.session.handle_bytes(link.id, lane, &run, self.now);
        assert_eq!(result, Ok(()), "an honest peer broke the protocol");
        to.events(self.now);
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
            while let Some(dead) = self.sides[side].dead.pop_first() {
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
    }

    fn settle(&mut self) {
        let mut idle = 0;
        for _ in 0..5000 {
            self.transmit(16_384);
            let mut moved = false;
            for from in 0..2 {
                for lane in 0..Lane::COUNT {
                    let waits = |link: &Link| {
                        link.pipes[from].get(&Lane(lane)).is_some_and(|bytes| !bytes.is_empty())
                    };
                    moved |= self.links.first().is_some_and(waits);
                    self.deliver(0, from, 0, usize::MAX);
                }
            }
            let now = self.now;
            self.sides.iter_mut().for_each(|side| moved |= side.take_everything(now));
            self.advance(Duration::from_millis(1));
            idle = if moved { 0 } else { idle + 1 };
            if idle > 20 {
                return;
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
        for side in &self.sides {
            assert_eq!(side.session.stream_count(), 0, "{:#?}", side.session);
        }
    }

    fn check_direction(&self, from: usize, lost: bool) {
        let (sender, receiver) = (&self.sides[from], &self.sides[1 - from]);
        assert_eq!(sender.session.counters().in_flight, 0);
        let ended: Vec<_> = sender.outcomes.keys().collect();
        assert_eq!(ended, sender.sent.keys().collect::<Vec<_>>(), "every send ended");
        let mut delivered: BTreeMap<StreamId, Vec<u64>> = BTreeMap::new();
        for (token, outcome) in &sender.outcomes {
            match outcome {
                Outcome::Delivered => delivered.entry(sender.sent[token]).or_default().push(*token),
                Outcome::Unknown => assert!(lost, "message {token} is unknown, and the session lives"),
                Outcome::Refused(_) | Outcome::Expired => {}
            }
        }
        if lost {
            for (stream, tokens) in &delivered {
                let taken = receiver.taken.get(stream).map(Vec::as_slice).unwrap_or_default();
                assert!(taken.starts_with(tokens), "{stream:?}: {tokens:?} of {taken:?}");
            }
        } else {
            assert_eq!(receiver.taken, delivered, "what was delivered is what was taken");
        }
        for (stream, bytes) in &receiver.bytes_taken {
            let sent = sender.bytes_sent.get(stream).map(Vec::as_slice).unwrap_or_default();
            assert!(sent.starts_with(bytes), "{stream:?} received what nobody sent");
        }
    }
}
