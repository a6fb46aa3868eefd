//! Frames to bytes and back, and bytes that lie.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::hello::{Incarnation, Limits, Proof};

/// A frame that owns what is variable in it.
#[derive(Clone, Debug)]
enum Owned {
    Hello(Hello),
    Welcome([u8; 32]),
    Open {
        stream: u64,
        kind: StreamKind,
        priority: Priority,
        class: DeliveryClass,
        deadline: Option<u64>,
        schemas: (u64, u64),
        name: String,
    },
    Data {
        stream: u64,
        offset: u64,
        push: bool,
        payload: Vec<u8>,
    },
    Fin {
        stream: u64,
        end: u64,
    },
    Stop {
        stream: u64,
        code: u64,
        taken: u64,
        reason: String,
    },
    Reset {
        stream: u64,
        code: u64,
        reason: String,
    },
    Retire(u64),
    Offsets(u64, Offsets),
    Datagram {
        stream: u64,
        number: u64,
        payload: Vec<u8>,
    },
    Latest {
        stream: u64,
        count: u64,
        delivered: u64,
    },
    MaxStreams(u64),
    Ping(u64),
    Pong(u64),
    Resume {
        last: bool,
        reply: bool,
        entries: Vec<(StreamId, Offsets)>,
    },
    Drain,
    Close {
        code: u64,
        session: bool,
        reason: String,
    },
}

impl Owned {
    fn put(&self, out: &mut Vec<u8>) {
        if let Self::Resume { last, reply, entries } = self {
            put_resume(out, *last, *reply, entries);
        } else {
            self.frame().put(out);
        }
    }

    fn frame(&self) -> Frame<'_> {
        match self {
            Self::Hello(hello) => Frame::Hello(*hello),
            Self::Welcome(proof) => Frame::Welcome { proof: *proof },
            Self::Open { stream, kind, priority, class, deadline, schemas, name } => Frame::Open {
                stream: StreamId(*stream),
                open: Open {
                    kind: *kind,
                    priority: *priority,
                    class: *class,
                    deadline_micros: *deadline,
                    schema_out: schemas.0,
                    schema_in: schemas.1,
                    name,
                },
            },
            Self::Data { stream, offset, push, payload } => {
                Frame::Data { stream: StreamId(*stream), offset: *offset, push: *push, payload }
            }
            Self::Fin { stream, end } => Frame::Fin { stream: StreamId(*stream), end: *end },
            Self::Stop { stream, code, taken, reason } => {
                Frame::Stop { stream: StreamId(*stream), code: StreamCode(*code), taken: *taken, reason }
            }
            Self::Reset { stream, code, reason } => {
                Frame::Reset { stream: StreamId(*stream), code: StreamCode(*code), reason }
            }
            Self::Retire(stream) => Frame::Retire { stream: StreamId(*stream) },
            Self::Offsets(stream, offsets) => Frame::Offsets { stream: StreamId(*stream), offsets: *offsets },
            Self::Datagram { stream, number, payload } => {
                Frame::Datagram { stream: StreamId(*stream), number: *number, payload }
            }
            Self::Latest { stream, count, delivered } => {
                Frame::Latest { stream: StreamId(*stream), count: *count, delivered: *delivered }
            }
            Self::MaxStreams(count) => Frame::MaxStreams { count: *count },
            Self::Ping(token) => Frame::Ping { token: *token },
            Self::Pong(token) => Frame::Pong { token: *token },
            Self::Resume { last, reply, .. } => {
                Frame::Resume(Resume { last: *last, reply: *reply, entries: &[] })
            }
            Self::Drain => Frame::Drain,
            Self::Close { code, session, reason } => {
                Frame::Close { code: CloseCode(*code), session: *session, reason }
            }
        }
    }

    /// `read` says the same.
    fn check(&self, read: &Frame<'_>) {
        match (self, read) {
            (Self::Resume { last, reply, entries }, Frame::Resume(resume)) => {
                assert_eq!((*last, *reply), (resume.last, resume.reply));
                assert_eq!(entries, &resume.entries().collect::<Vec<_>>());
            }
            _ => assert_eq!(&self.frame(), read),
        }
    }
}

/// Numbers of all four lengths.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..64_u64, 64..16_384_u64, 16_384..1_u64 << 30, (1_u64 << 30)..=VARINT_MAX]
}

fn offsets() -> impl Strategy<Value = Offsets> {
    [0..1_u64 << 60, 0..1 << 60, 0..1 << 60].prop_map(|[taken, more, credit]| Offsets {
        taken,
        received: taken + more,
        limit: taken + more + credit,
    })
}

fn hello() -> impl Strategy<Value = Hello> {
    let limits = [number(), number(), number()];
    (0..=1_u64, 1..100_u64, [number(), number()], any::<[u8; 16]>(), any::<[u8; 32]>(), any::<bool>(), limits)
        .prop_map(|(version_min, version_max, [features, generation], incarnation, nonce, secret, limits)| {
            let [max_message, stream_window, max_streams] = limits;
            Hello {
                version_min,
                version_max,
                features,
                incarnation: Incarnation(incarnation),
                generation,
                nonce,
                proof: if secret { Proof::Secret } else { Proof::Keys },
                limits: Limits { max_message, stream_window, max_streams },
            }
        })
}

fn open() -> impl Strategy<Value = Owned> {
    let [reliable, latest, datagram] = DeliveryClass::ALL;
    let kind = prop_oneof![
        Just((StreamKind::Channel, reliable)),
        Just((StreamKind::Channel, latest)),
        Just((StreamKind::Channel, datagram)),
        Just((StreamKind::Call, reliable)),
        Just((StreamKind::Bytes, reliable)),
    ];
    let deadline = prop::option::of(0..VARINT_MAX);
    (number(), kind, 0..3_usize, deadline, any::<(u64, u64)>(), "[a-zä]{0,120}").prop_map(
        |(stream, (kind, class), priority, deadline, schemas, name)| Owned::Open {
            stream,
            kind,
            class,
            priority: Priority::ALL[priority],
            deadline,
            schemas,
            name,
        },
    )
}

fn any_frame() -> impl Strategy<Value = Owned> {
    let reason = || ".{0,128}";
    let payload = prop_oneof![
        9 => prop::collection::vec(any::<u8>(), 1..300),
        1 => (1..=65_536_usize).prop_map(|len| vec![7; len]),
    ];
    let entries = prop::collection::vec((number().prop_map(StreamId), offsets()), 0..=RESUME_ENTRIES_MAX);
    prop_oneof![
        hello().prop_map(Owned::Hello),
        any::<[u8; 32]>().prop_map(Owned::Welcome),
        open(),
        (number(), 0..VARINT_MAX - 65_536, any::<bool>(), payload)
            .prop_map(|(stream, offset, push, payload)| Owned::Data { stream, offset, push, payload }),
        (number(), number()).prop_map(|(stream, end)| Owned::Fin { stream, end }),
        (number(), number(), number(), reason()).prop_map(|(stream, code, taken, reason)| Owned::Stop {
            stream,
            code,
            taken,
            reason
        }),
        (number(), number(), reason()).prop_map(|(stream, code, reason)| Owned::Reset {
            stream,
            code,
            reason
        }),
        number().prop_map(Owned::Retire),
        (number(), offsets()).prop_map(|(stream, offsets)| Owned::Offsets(stream, offsets)),
        (number(), 0..VARINT_MAX, prop::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(stream, number, payload)| Owned::Datagram { stream, number, payload }),
        (number(), number(), any::<u64>()).prop_map(|(stream, count, delivered)| Owned::Latest {
            stream,
            count,
            delivered: if count < 64 { delivered & ((1 << count) - 1) } else { delivered },
        }),
        number().prop_map(Owned::MaxStreams),
        number().prop_map(Owned::Ping),
        number().prop_map(Owned::Pong),
        (any::<bool>(), any::<bool>(), entries).prop_map(|(last, reply, entries)| Owned::Resume {
            last,
            reply,
            entries
        }),
        Just(Owned::Drain),
        (number(), any::<bool>(), reason()).prop_map(|(code, session, reason)| Owned::Close {
            code,
            session,
            reason
        }),
    ]
}

fn bytes_of(frame: &Owned) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.put(&mut bytes);
    bytes
}

/// A frame of any type with a body of any length, written the short way.
fn raw(kind: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_varint(&mut bytes, kind);
    put_varint(&mut bytes, body.len() as u64);
    bytes.extend_from_slice(body);
    bytes
}

fn code_of(bytes: &[u8]) -> CloseCode {
    match read_frame(bytes) {
        Err(violation) => violation.code,
        Ok(found) => panic!("{bytes:?} was read as {found:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::cases(256), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(frame in any_frame()) {
        let bytes = bytes_of(&frame);
        match read_frame(&bytes) {
            Ok(Decoded::Frame(read, len)) => {
                prop_assert_eq!(len, bytes.len());
                frame.check(&read);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_torn_frame_says_what_it_needs(frame in any_frame(), at in any::<prop::sample::Index>()) {
        let bytes = bytes_of(&frame);
        let end = at.index(bytes.len());
        match read_frame(&bytes[..end]) {
            Ok(Decoded::Incomplete(need)) => prop_assert!(need > end && need <= bytes.len()),
            other => panic!("{end} bytes of {frame:?} are {other:?}"),
        }
    }

    #[test]
    fn cuts_do_not_matter(
        frames in prop::collection::vec(any_frame(), 1..12),
        skipped in prop::collection::vec(any::<u8>(), 0..100),
        cuts in prop::collection::vec(1..200_usize, 1..50),
    ) {
        let mut bytes = Vec::new();
        for frame in &frames {
            frame.put(&mut bytes);
            bytes.extend(raw(0x21, &skipped));
        }
        let mut deframer = Deframer::default();
        let mut expected = frames.iter();
        let mut cuts = cuts.iter().cycle();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let len = cuts.next().map_or(1, |len| *len).min(rest.len());
            let left = deframer.push(&rest[..len], &mut |read| {
                expected.next().expect("no more frames than were written").check(&read);
                Ok(true)
            });
            prop_assert_eq!(left, Ok(&[][..]));
            rest = &rest[len..];
        }
        prop_assert!(expected.next().is_none());
        prop_assert_eq!(deframer.buffered(), 0);
    }

    #[test]
    fn arbitrary_bytes_are_an_error_at_worst(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut deframer = Deframer::default();
        let _ = deframer.push(&bytes, &mut |_| Ok(true));
        prop_assert!(deframer.buffered() <= bytes.len());
    }
}

#[test]
fn a_length_that_lies_is_refused_before_there_is_room_for_it() {
    for (kind, max) in [
        (kind::DATA, DATA_MAX),
        (kind::STOP, CONTROL_MAX),
        (kind::DATAGRAM, DATAGRAM_MAX + 16),
        (0x21, CONTROL_MAX),
    ] {
        for len in [max as u64 + 1, VARINT_MAX] {
            let mut head = Vec::new();
            put_varint(&mut head, kind);
            put_varint(&mut head, len);
            assert_eq!(code_of(&head), CloseCode::FRAME_TOO_LARGE);
            let mut deframer = Deframer::default();
            let refused = deframer.push(&head, &mut |_| Ok(true)).map_err(|violation| violation.code);
            assert_eq!(refused, Err(CloseCode::FRAME_TOO_LARGE));
            assert_eq!(deframer.partial.capacity(), 0);
        }
        let mut head = Vec::new();
        put_varint(&mut head, kind);
        put_varint(&mut head, max as u64);
        assert_eq!(read_frame(&head), Ok(Decoded::Incomplete(head.len() + max)));
    }
}

#[test]
fn a_torn_frame_takes_no_more_room_than_has_come() {
    let mut head = Vec::new();
    put_varint(&mut head, kind::DATA);
    put_varint(&mut head, DATA_MAX as u64);
    let mut deframer = Deframer::default();
    assert_eq!(deframer.push(&head, &mut |_| Ok(true)), Ok(&[][..]));
    assert_eq!(deframer.buffered(), head.len());
    assert!(deframer.partial.capacity() < 64);
}

#[test]
fn unknown_types_are_skipped_if_odd_and_an_error_if_even() {
    for kind in [0x01, 0x1f, 0x21, 0x4001, VARINT_MAX] {
        let bytes = raw(kind, &[1, 2, 3]);
        assert_eq!(read_frame(&bytes), Ok(Decoded::Skip(bytes.len())));
    }
    for kind in [0x22, 0x24, 0x4000, VARINT_MAX - 1] {
        assert_eq!(code_of(&raw(kind, &[1, 2, 3])), CloseCode::UNKNOWN_FRAME);
    }
}

#[test]
fn a_field_out_of_its_range_is_malformed() {
    let open = |kind: u8, priority: u8, class: u8, name: &[u8]| {
        let mut body = vec![0, kind, priority, class, 0];
        body.extend_from_slice(&[0; 16]);
        put_varint(&mut body, name.len() as u64);
        body.extend_from_slice(name);
        raw(kind::OPEN, &body)
    };
    assert!(matches!(read_frame(&open(2, 2, 0, &[b'a'; 255])), Ok(Decoded::Frame(..))));
    let mut far = vec![0];
    put_varint(&mut far, VARINT_MAX);
    let past_the_end = [&far[..], &[0, 1]].concat();
    let bad_offsets = [&far[..], &[1, 0]].concat();
    let long_reason = [&[0, 0, 0x42, 0x01][..], &[b'a'; 513]].concat();
    let entries: Vec<u8> =
        [1].into_iter().chain((0..97).flat_map(|stream| [stream & 0x3f, 0, 0, 0])).collect();
    for bytes in [
        open(3, 0, 0, b"kind"),
        open(0, 3, 0, b"priority"),
        open(0, 0, 3, b"class"),
        open(1, 0, 1, b"a call of class latest"),
        open(2, 0, 1, b"a byte stream of class latest"),
        open(0, 0, 0, &[b'a'; 256]),
        open(0, 0, 0, &[0xff, 0xfe]),
        raw(kind::LATEST, &[0, 2, 0, 0, 0, 0, 0, 0, 0, 4]),
        raw(kind::LATEST, &[0, 2, 0, 0, 0, 0, 0, 0, 3]),
        raw(kind::DATAGRAM, &far),
        raw(kind::DATAGRAM, &[0; DATAGRAM_MAX + 3]),
        raw(kind::DATA, &[0, 0, 0]),
        raw(kind::DATA, &[0, 0, 2, 1]),
        raw(kind::DATA, &past_the_end),
        raw(kind::OFFSETS, &bad_offsets),
        raw(kind::RESET, &long_reason),
        raw(kind::RESUME, &[4]),
        raw(kind::RESUME, &[1, 0, 0]),
        raw(kind::RESUME, &entries),
        raw(kind::CLOSE, &[0, 2, 0]),
        raw(kind::FIN, &[0]),
        raw(kind::FIN, &[0, 0, 0]),
        raw(kind::DRAIN, &[0]),
        raw(kind::WELCOME, &[0; 31]),
    ] {
        assert_eq!(code_of(&bytes), CloseCode::MALFORMED, "{bytes:?}");
    }
}

#[test]
fn a_welcome_may_go_on() {
    let bytes = raw(kind::WELCOME, &[5; 40]);
    assert_eq!(read_frame(&bytes), Ok(Decoded::Frame(Frame::Welcome { proof: [5; 32] }, bytes.len())));
}

#[test]
fn a_reader_may_stop_between_frames() {
    let mut bytes = Vec::new();
    Frame::Ping { token: 1 }.put(&mut bytes);
    let first = bytes.len();
    Frame::Ping { token: 2 }.put(&mut bytes);
    for cut in 0..first {
        let mut deframer = Deframer::default();
        assert_eq!(deframer.push(&bytes[..cut], &mut |_| Ok(true)), Ok(&[][..]));
        let rest = deframer.push(&bytes[cut..], &mut |_| Ok(false));
        assert_eq!(rest, Ok(&bytes[first..]));
        assert_eq!(deframer.buffered(), 0);
    }
}

#[test]
fn long_texts_are_cut_at_a_character() {
    let long: String = "ä".repeat(400);
    let mut bytes = Vec::new();
    Frame::Reset { stream: StreamId(0), code: StreamCode::DROPPED, reason: &long }.put(&mut bytes);
    let Ok(Decoded::Frame(Frame::Reset { reason, .. }, _)) = read_frame(&bytes) else { panic!("{bytes:?}") };
    assert_eq!(reason, &long[..REASON_MAX]);
    let odd = format!("a{long}");
    assert_eq!(cut_reason(&odd).len(), REASON_MAX - 1);
}

#[test]
fn varints_are_those_of_rfc_9000() {
    // Appendix A.1.
    for (value, bytes) in [
        (151_288_809_941_952_652, &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..]),
        (494_878_333, &[0x9d, 0x7f, 0x3e, 0x7d]),
        (15_293, &[0x7b, 0xbd]),
        (37, &[0x25]),
    ] {
        let mut out = Vec::new();
        put_varint(&mut out, value);
        assert_eq!(out, bytes);
        assert_eq!(read_varint(bytes), Some((value, bytes.len())));
        assert_eq!(read_varint(&bytes[..bytes.len() - 1]), None);
    }
    assert_eq!(read_varint(&[0x40, 0x25]), Some((37, 2)));
}
