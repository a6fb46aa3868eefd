//! One side: a session, and an application that remembers what it was told.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use vitte_net_proto::{
    Config, Event, LinkId, Moment, OpenInfo, Outcome, PeerId, Priority, SendError, Session, StreamCode,
    StreamId, StreamKind, Taken,
};

pub(crate) struct Side {
    pub(crate) session: Session,
    pub(crate) streams: Vec<StreamId>,
    kinds: BTreeMap<StreamId, StreamKind>,
    /// Tokens that were accepted, and the stream of each.
    pub(crate) sent: BTreeMap<u64, StreamId>,
    pub(crate) outcomes: BTreeMap<u64, Outcome>,
    /// Numbers of the messages that were taken from each stream.
    pub(crate) taken: BTreeMap<StreamId, Vec<u64>>,
    pub(crate) bytes_sent: BTreeMap<StreamId, Vec<u8>>,
    pub(crate) bytes_taken: BTreeMap<StreamId, Vec<u8>>,
    pub(crate) dead: BTreeSet<LinkId>,
    next_token: u64,
}

impl Side {
    pub(crate) fn new(config: &Config, local: u8, remote: u8) -> Self {
        let limits = Session::limits(config);
        let (local, remote) = (PeerId([local; 32]), PeerId([remote; 32]));
        Self {
            session: Session::new(config.clone(), local, remote, limits, Moment::ZERO),
            streams: Vec::new(),
            kinds: BTreeMap::new(),
            sent: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            taken: BTreeMap::new(),
            bytes_sent: BTreeMap::new(),
            bytes_taken: BTreeMap::new(),
            dead: BTreeSet::new(),
            next_token: 1,
        }
    }

    /// Hears everything that happened. What is named `no` is refused.
    pub(crate) fn events(&mut self, now: Moment) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Opened { stream, info } if info.name == "no" => {
                    self.session.refuse(stream, StreamCode::NO_SUCH_NAME, "no", now);
                }
                Event::Opened { stream, info } => {
                    self.streams.push(stream);
                    self.kinds.insert(stream, info.kind);
                    self.session.accept(stream, now);
                }
                Event::Settled { token, outcome } => {
                    assert!(self.sent.contains_key(&token), "nobody sent {token}");
                    let before = self.outcomes.insert(token, outcome);
                    assert_eq!(before, None, "message {token} ended twice");
                }
                Event::LinkDead { link, .. } => {
                    self.dead.insert(link);
                }
                _ => {}
            }
        }
        let counters = self.session.counters();
        assert!(counters.balanced(), "{counters:?}");
    }

    fn pick(&self, u: &mut Unstructured<'_>) -> Result<Option<StreamId>> {
        if self.streams.is_empty() { Ok(None) } else { u.choose(&self.streams).copied().map(Some) }
    }

    /// One thing that an application does.
    pub(crate) fn act(&mut self, u: &mut Unstructured<'_>, now: Moment) -> Result<()> {
        let act = u.int_in_range(0..=11)?;
        if act == 0 {
            return self.open(u, now);
        }
        let Some(stream) = self.pick(u)? else { return self.open(u, now) };
        match act {
            1..=5 => self.send(u, stream, now)?,
            6..=7 => self.take(stream, u.int_in_range(1..=2000)?, now),
            8 => self.session.stop(stream, StreamCode(256), "no more", now),
            9 => self.session.reset(stream, StreamCode(257), "changed my mind", now),
            10 => self.session.finish(stream),
            _ => self.session.release(stream, now),
        }
        self.events(now);
        Ok(())
    }

    fn open(&mut self, u: &mut Unstructured<'_>, now: Moment) -> Result<()> {
        let kind = *u.choose(&[StreamKind::Channel, StreamKind::Call, StreamKind::Bytes])?;
        let priority = *u.choose(&Priority::ALL)?;
        let name = if u.ratio(1_u8, 8_u8)? { "no" } else { "yes" };
        let info =
            OpenInfo { kind, priority, deadline: None, schema_out: 1, schema_in: 2, name: name.to_owned() };
        if let Ok(stream) = self.session.open(info) {
            self.streams.push(stream);
            self.kinds.insert(stream, kind);
        }
        self.events(now);
        Ok(())
    }

    fn send(&mut self, u: &mut Unstructured<'_>, stream: StreamId, now: Moment) -> Result<()> {
        let len = match u.int_in_range(0..=3)? {
            0 => u.int_in_range(1025..=9000)?,
            _ => u.int_in_range(0..=300)?,
        };
        let wait = u.ratio(1_u8, 3_u8)?;
        let token = self.next_token;
        self.next_token += 1;
        let mut payload = token.to_be_bytes().to_vec();
        payload.resize(len.max(8), token.to_le_bytes()[0]);
        if self.kinds.get(&stream) == Some(&StreamKind::Bytes) {
            if self.session.send(stream, payload.clone().into(), 0, None, wait).is_ok() {
                self.bytes_sent.entry(stream).or_default().extend(payload);
            }
            return Ok(());
        }
        let deadline = match u.int_in_range(0..=4)? {
            0 => Some(now + core::time::Duration::from_millis(u.int_in_range(0..=50)?)),
            _ => None,
        };
        self.sent.insert(token, stream);
        match self.session.send(stream, payload.into(), token, deadline, wait) {
            Ok(()) => {}
            Err(SendError::Full | SendError::TooLarge { .. } | SendError::Closed) => {
                self.sent.remove(&token);
            }
            Err(other) => panic!("{other:?}"),
        }
        Ok(())
    }

    pub(crate) fn take(&mut self, stream: StreamId, max: usize, now: Moment) {
        if let Taken::Payload(payload) = self.session.take(stream, max, now) {
            self.took(stream, &payload);
        }
    }

    pub(crate) fn take_everything(&mut self, now: Moment) -> bool {
        let mut moved = false;
        for stream in self.streams.clone() {
            while let Taken::Payload(payload) = self.session.take(stream, usize::MAX, now) {
                self.took(stream, &payload);
                moved = true;
            }
        }
        moved
    }

    fn took(&mut self, stream: StreamId, payload: &Bytes) {
        if self.kinds.get(&stream) == Some(&StreamKind::Bytes) {
            self.bytes_taken.entry(stream).or_default().extend_from_slice(payload);
        } else {
            let number = payload.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
            self.taken.entry(stream).or_default().push(number);
        }
    }
}
