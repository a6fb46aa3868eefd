//! One side: a session, and an application that remembers what it was told.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use vitte_net_proto::{
    Config, DeliveryClass, Event, LinkId, Moment, OpenInfo, Outcome, PeerId, Priority, Session, StreamCode,
    StreamId, StreamKind, Taken,
};

use super::input::Input;

/// Lengths of messages: none, small ones, around the window, around the longest, too long.
const LENGTHS: [usize; 12] = [0, 1, 8, 20, 60, 150, 254, 260, 700, 1500, 2048, 2049];

/// A message that was accepted.
pub(super) struct Sent {
    pub(super) stream: StreamId,
    len: usize,
    pub(super) outcome: Option<Outcome>,
}

impl Sent {
    /// Message `index` of its side: no two that follow each other look alike.
    pub(super) fn payload(&self, index: usize) -> Vec<u8> {
        vec![index.to_le_bytes()[0]; self.len]
    }
}

pub(super) struct Side {
    pub(super) session: Session,
    pub(super) streams: Vec<StreamId>,
    kinds: BTreeMap<StreamId, StreamKind>,
    /// Datagrams that were accepted of each channel of that class; none has a token.
    pub(super) datagrams: BTreeMap<StreamId, Vec<Vec<u8>>>,
    /// Message n has the token n + 1.
    pub(super) sent: Vec<Sent>,
    pub(super) taken: BTreeMap<StreamId, Vec<Bytes>>,
    pub(super) bytes_sent: BTreeMap<StreamId, Vec<u8>>,
    pub(super) bytes_taken: BTreeMap<StreamId, Vec<u8>>,
    pub(super) dead: Vec<LinkId>,
}

impl Side {
    pub(super) fn new(config: &Config, local: u8, remote: u8) -> Self {
        let limits = Session::limits(config);
        let (local, remote) = (PeerId([local; 32]), PeerId([remote; 32]));
        Self {
            session: Session::new(config.clone(), local, remote, limits, Moment::ZERO),
            streams: Vec::new(),
            kinds: BTreeMap::new(),
            datagrams: BTreeMap::new(),
            sent: Vec::new(),
            taken: BTreeMap::new(),
            bytes_sent: BTreeMap::new(),
            bytes_taken: BTreeMap::new(),
            dead: Vec::new(),
        }
    }

    /// Hears everything that happened. What is named `no` is refused.
    pub(super) fn events(&mut self, now: Moment) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Opened { stream, info } if info.name == "no" => {
                    self.session.refuse(stream, StreamCode::NO_SUCH_NAME, "no", now);
                }
                Event::Opened { stream, info } => {
                    self.streams.push(stream);
                    self.kinds.insert(stream, info.kind);
                    if info.class == DeliveryClass::Datagram {
                        self.datagrams.insert(stream, Vec::new());
                    }
                    self.session.accept(stream, now);
                }
                Event::Settled { token, outcome } => {
                    let index = usize::try_from(token - 1).unwrap_or(usize::MAX);
                    let sent = self.sent.get_mut(index).expect("somebody sent it");
                    assert_eq!(sent.outcome.replace(outcome), None, "message {token} ended twice");
                }
                Event::LinkDead { link, .. } => self.dead.push(link),
                _ => {}
            }
        }
    }

    /// The sum holds, and nothing grows beyond its bounds.
    pub(super) fn check(&self, config: &Config) {
        let counters = self.session.counters();
        assert!(counters.balanced(), "{counters:?}");
        // Its own streams are the application's: it may open as many as the peer says.
        let streams = config.max_streams + self.streams.len() as u64;
        assert!(self.session.stream_count() as u64 <= streams);
        let message = config.max_message as u64 + 8;
        let queue = config.send_queue as u64 + message;
        let held = self.session.held_bytes();
        let bound = streams * (queue + config.stream_window_max.max(message) * 2)
            // Datagrams have a queue and an inbox of their own.
            + self.datagrams.len() as u64 * 2 * config.datagram_queue as u64
            + config.assembly_budget as u64
            + config.window_budget;
        assert!(held <= bound, "{held} bytes are held, at most {bound} may be");
    }

    /// One thing that an application does.
    pub(super) fn act(&mut self, input: &mut Input<'_>, now: Moment) -> Option<()> {
        let act = input.below(16)?;
        if act == 0 || self.streams.is_empty() {
            return self.open(input, now);
        }
        let stream = self.streams[input.below(self.streams.len())?];
        match act {
            1..=7 => self.send(input, stream, now)?,
            8..=10 => {
                let max = input.of(&[1, 10, 100, usize::MAX])?;
                self.take(stream, max, now);
            }
            11 => self.session.stop(stream, StreamCode(256), "no more", now),
            12 => self.session.reset(stream, StreamCode(257), "changed my mind", now),
            13 => self.session.finish(stream),
            14 => self.session.release(stream, now),
            _ => match input.byte()? {
                0..=3 => self.session.drain(),
                4..=7 => self.session.probe(now),
                _ => while self.take(stream, usize::MAX, now) {},
            },
        }
        Some(())
    }

    fn open(&mut self, input: &mut Input<'_>, now: Moment) -> Option<()> {
        let kind = input.of(&[
            StreamKind::Channel,
            StreamKind::Channel,
            StreamKind::Channel,
            StreamKind::Call,
            StreamKind::Bytes,
        ])?;
        let choices = input.byte()?;
        let priority = Priority::ALL[usize::from(choices % 3)];
        let class = match (kind, choices % 5) {
            (StreamKind::Channel, 1) => DeliveryClass::Latest,
            (StreamKind::Channel, 2) => DeliveryClass::Datagram,
            _ => DeliveryClass::Reliable,
        };
        let name = if choices >= 224 { "no" } else { "yes" };
        let deadline = (choices % 7 == 0).then(|| now + Duration::from_millis(choices.into()));
        let (schema_out, schema_in, name) = (1, 2, name.to_owned());
        let info = OpenInfo { kind, priority, class, deadline, schema_out, schema_in, name };
        if let Ok(stream) = self.session.open(info) {
            self.streams.push(stream);
            self.kinds.insert(stream, kind);
            if class == DeliveryClass::Datagram {
                self.datagrams.insert(stream, Vec::new());
            }
        }
        Some(())
    }

    fn send(&mut self, input: &mut Input<'_>, stream: StreamId, now: Moment) -> Option<()> {
        let len = input.of(&LENGTHS)?;
        let choices = input.byte()?;
        let wait = choices % 3 == 0;
        let sent = Sent { stream, len, outcome: None };
        let payload = sent.payload(self.sent.len());
        if self.kinds.get(&stream) == Some(&StreamKind::Bytes) {
            if self.session.send(stream, payload.clone().into(), 0, None, wait).is_ok() {
                self.bytes_sent.entry(stream).or_default().extend(payload);
            }
            return Some(());
        }
        let deadline = (choices >= 200).then(|| now + Duration::from_millis((choices - 200).into()));
        if let Some(sent) = self.datagrams.get_mut(&stream) {
            if self.session.send(stream, payload.clone().into(), 0, deadline, wait).is_ok() {
                sent.push(payload);
            }
            return Some(());
        }
        let token = self.sent.len() as u64 + 1;
        if self.session.send(stream, payload.into(), token, deadline, wait).is_ok() {
            self.sent.push(sent);
        }
        Some(())
    }

    /// Takes one message, or some bytes.
    fn take(&mut self, stream: StreamId, max: usize, now: Moment) -> bool {
        let Taken::Payload(payload) = self.session.take(stream, max, now) else { return false };
        if self.kinds.get(&stream) == Some(&StreamKind::Bytes) {
            self.bytes_taken.entry(stream).or_default().extend_from_slice(&payload);
        } else {
            self.taken.entry(stream).or_default().push(payload);
        }
        true
    }

    pub(super) fn take_everything(&mut self, now: Moment) -> bool {
        let mut moved = false;
        for index in 0..self.streams.len() {
            while self.take(self.streams[index], usize::MAX, now) {
                moved = true;
            }
        }
        moved
    }
}
