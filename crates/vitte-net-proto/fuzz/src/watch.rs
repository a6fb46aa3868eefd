//! An observer of all frames that one side sends, over all links: what an honest side never does
//! (`docs/WIRE.md`, "Streams").

use std::collections::BTreeMap;

use vitte_net_proto::frame::{Decoded, Frame, Offsets, read_frame};
use vitte_net_proto::{StreamCode, StreamId};

/// What a side has said of one stream.
#[derive(Default)]
struct Said {
    /// As a receiver.
    offsets: Offsets,
    stop: Option<(StreamCode, u64)>,
    /// As a sender: every byte, by its offset.
    bytes: Vec<u8>,
    end: Option<u64>,
    /// The number of the next datagram.
    datagrams: u64,
}

#[derive(Default)]
pub(super) struct Watch {
    streams: BTreeMap<StreamId, Said>,
}

impl Watch {
    /// The greatest credit that this side has stated.
    pub(super) fn limit(&self, stream: StreamId, first: u64) -> u64 {
        self.streams.get(&stream).map_or(first, |said| said.offsets.limit.max(first))
    }

    /// Sees whole frames; `limit` is the credit that the other side has stated, heard or not.
    pub(super) fn see(&mut self, mut run: &[u8], limit: impl Fn(StreamId) -> u64) {
        while !run.is_empty() {
            let Ok(Decoded::Frame(frame, len)) = read_frame(run) else {
                panic!("a side sends whole frames that can be read: {run:?}")
            };
            self.see_frame(&frame, &limit);
            run = &run[len..];
        }
    }

    fn see_frame(&mut self, frame: &Frame<'_>, limit: &impl Fn(StreamId) -> u64) {
        match frame {
            Frame::Data { stream, offset, payload, .. } => {
                let said = self.streams.entry(*stream).or_default();
                let at = usize::try_from(*offset).unwrap_or(usize::MAX);
                let end = at + payload.len();
                assert!(end as u64 <= limit(*stream), "{stream:?}: bytes beyond the credit");
                assert!(said.end.is_none_or(|last| end as u64 <= last), "{stream:?}: bytes behind the end");
                assert!(at <= said.bytes.len(), "{stream:?}: a hole in what was transmitted");
                let known = &said.bytes[at..end.min(said.bytes.len())];
                assert_eq!(known, &payload[..known.len()], "{stream:?}: other bytes at the same offset");
                let fresh = &payload[known.len()..];
                said.bytes.extend_from_slice(fresh);
            }
            Frame::Fin { stream, end } => {
                let said = self.streams.entry(*stream).or_default();
                assert_eq!(*said.end.get_or_insert(*end), *end, "{stream:?}: two ends");
                assert_eq!(
                    said.bytes.len() as u64 + said.datagrams,
                    *end,
                    "{stream:?}: an end elsewhere than behind the bytes"
                );
            }
            Frame::Datagram { stream, number, .. } => {
                let said = self.streams.entry(*stream).or_default();
                assert_eq!(*number, said.datagrams, "{stream:?}: a datagram out of turn, or twice");
                assert!(said.bytes.is_empty() && said.end.is_none(), "{stream:?}: a datagram out of place");
                said.datagrams += 1;
            }
            Frame::Offsets { stream, offsets } => self.grow(*stream, *offsets),
            Frame::Resume(resume) => {
                resume.entries().for_each(|(stream, offsets)| self.grow(stream, offsets));
            }
            Frame::Stop { stream, code, taken, .. } => {
                let said = self.streams.entry(*stream).or_default();
                let state = (*code, *taken);
                assert_eq!(*said.stop.get_or_insert(state), state, "{stream:?}: another terminal state");
                assert!(*taken >= said.offsets.taken, "{stream:?}: taken shrinks");
            }
            _ => {}
        }
    }

    fn grow(&mut self, stream: StreamId, now: Offsets) {
        let said = self.streams.entry(stream).or_default();
        let before = said.offsets;
        assert!(now.taken <= now.received && now.received <= now.limit, "{stream:?}: {now:?}");
        assert!(
            now.taken >= before.taken && now.received >= before.received && now.limit >= before.limit,
            "{stream:?}: {before:?} shrinks to {now:?}"
        );
        assert!(said.stop.is_none_or(|(_, taken)| now.taken <= taken), "{stream:?}: taken behind the end");
        said.offsets = now;
    }
}
