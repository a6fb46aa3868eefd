use proptest::prelude::*;

use super::*;
use crate::ws::deflate::{self, Deflate};
use crate::ws::{CloseCode, Role};

/// A frame as a peer may write it: `first` is all of the first byte.
fn frame(first: u8, mask: Option<[u8; 4]>, content: &[u8]) -> Vec<u8> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match content.len() {
        len @ 0..=125 => bytes.push(bit | u8::try_from(len).unwrap()),
        len @ 126..=65_535 => {
            bytes.push(bit | 126);
            bytes.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            bytes.push(bit | 127);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    bytes.extend(mask.iter().flatten());
    let begin = bytes.len();
    bytes.extend_from_slice(content);
    if let Some(mask) = mask {
        mask::apply(&mut bytes[begin..], mask, 0);
    }
    bytes
}

fn options() -> WsOptions {
    WsOptions { max_frame: 1000, max_message: 1500, ..WsOptions::default() }
}

/// A server that agreed on compression.
fn server() -> Inbound {
    let (agreed, _) = deflate::agree(&Deflate::default(), ["permessage-deflate"].into_iter()).unwrap();
    Inbound::new(Role::Server, &options(), Some(&agreed), Bytes::new())
}

fn client() -> Inbound {
    Inbound::new(Role::Client, &options(), None, Bytes::new())
}

/// What is found in `bytes` when they come `step` at a time, up to the first violation.
fn read(mut inbound: Inbound, bytes: &[u8], step: usize) -> (Vec<String>, Option<Violation>) {
    let mut found = Vec::new();
    for piece in bytes.chunks(step.max(1)) {
        let (buffer, room) = inbound.room();
        assert!(room > 0);
        buffer.extend_from_slice(piece);
        loop {
            match inbound.next() {
                Ok(Found::Nothing) => break,
                Ok(thing) => found.push(format!("{thing:?}")),
                Err(violation) => return (found, Some(violation)),
            }
        }
    }
    (found, None)
}

/// The violation in `bytes`, which is the same however they come.
fn broken(make: fn() -> Inbound, bytes: &[u8]) -> Option<Violation> {
    let at_once = read(make(), bytes, bytes.len());
    for step in [1, 2, 3, 7] {
        assert_eq!(read(make(), bytes, step), at_once, "{step} bytes at a time of {bytes:x?}");
    }
    at_once.1
}

const MASK: Option<[u8; 4]> = Some([0x12, 0x34, 0x56, 0x78]);

/// One row for each rule: what a client sends, and how it is told.
#[test]
fn every_broken_rule_has_its_violation() {
    let close = |content: &[u8]| frame(0x88, MASK, content);
    let rows: Vec<(Vec<u8>, Violation)> = vec![
        (frame(0x82, None, b"x"), Violation::Unmasked),
        (frame(0x89, None, b"x"), Violation::Unmasked),
        (frame(0x92, MASK, b"x"), Violation::ReservedBits),
        (frame(0xa2, MASK, b"x"), Violation::ReservedBits),
        (frame(0xd1, MASK, b"x"), Violation::ReservedBits),
        // Compressed control frames, and the bit on a continuation (RFC 7692, section 6.1).
        (frame(0xc9, MASK, b"x"), Violation::ReservedBits),
        ([frame(0x41, MASK, &[0]), frame(0xc0, MASK, &[0])].concat(), Violation::ReservedBits),
        (frame(0x83, MASK, b""), Violation::ReservedOpcode(3)),
        (frame(0x87, MASK, b"x"), Violation::ReservedOpcode(7)),
        (frame(0x8b, MASK, b""), Violation::ReservedOpcode(11)),
        (frame(0x8f, MASK, b"x"), Violation::ReservedOpcode(15)),
        (frame(0x09, MASK, b"x"), Violation::FragmentedControl),
        (frame(0x08, MASK, b""), Violation::FragmentedControl),
        (frame(0x89, MASK, &[0; 126]), Violation::LongControl(126)),
        (frame(0x88, MASK, &[0; 70_000]), Violation::LongControl(70_000)),
        (frame(0x80, MASK, b"x"), Violation::UnexpectedContinuation),
        (frame(0x00, MASK, b""), Violation::UnexpectedContinuation),
        ([frame(0x01, MASK, b"a"), frame(0x81, MASK, b"b")].concat(), Violation::InterruptedMessage),
        ([frame(0x02, MASK, b"a"), frame(0x02, MASK, b"b")].concat(), Violation::InterruptedMessage),
        (close(&[3]), Violation::CloseLength),
        (close(&[0, 0]), Violation::CloseCode(0)),
        (close(&999_u16.to_be_bytes()), Violation::CloseCode(999)),
        (close(&1004_u16.to_be_bytes()), Violation::CloseCode(1004)),
        (close(&1005_u16.to_be_bytes()), Violation::CloseCode(1005)),
        (close(&1006_u16.to_be_bytes()), Violation::CloseCode(1006)),
        (close(&1015_u16.to_be_bytes()), Violation::CloseCode(1015)),
        (close(&1016_u16.to_be_bytes()), Violation::CloseCode(1016)),
        (close(&2999_u16.to_be_bytes()), Violation::CloseCode(2999)),
        (close(&5000_u16.to_be_bytes()), Violation::CloseCode(5000)),
        (close(b"\x03\xe8\xff"), Violation::NotUtf8),
        (frame(0x81, MASK, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80edited"), Violation::NotUtf8),
        (frame(0x81, MASK, b"ends in \xe2\x82"), Violation::NotUtf8),
        ([frame(0x01, MASK, b"\xe2"), frame(0x80, MASK, b"\x28")].concat(), Violation::NotUtf8),
        ([frame(0x01, MASK, b"\xe2"), frame(0x80, MASK, b"")].concat(), Violation::NotUtf8),
        (frame(0xc1, MASK, &[0xff; 9]), Violation::Deflate),
        // A length with more bytes than it needs, and one with its first bit set (RFC 6455, section 5.2).
        (vec![0x82, 0x80 | 126, 0, 125, 0, 0, 0, 0], Violation::Length),
        (vec![0x82, 0x80 | 127, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0], Violation::Length),
        (vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], Violation::Length),
        (
            vec![0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4],
            Violation::FrameTooLarge { len: u64::MAX >> 1, max: 1000 },
        ),
        (frame(0x82, MASK, &[0; 1001]), Violation::FrameTooLarge { len: 1001, max: 1000 }),
        (
            [frame(0x02, MASK, &[0; 1000]), frame(0x80, MASK, &[0; 501])].concat(),
            Violation::MessageTooLarge { max: 1500 },
        ),
    ];
    for (bytes, violation) in rows {
        assert_eq!(broken(server, &bytes), Some(violation.clone()), "{bytes:x?}");
        assert!(CloseCode::new(violation.code().into()).is_some());
    }
    assert_eq!(broken(client, &frame(0x81, MASK, b"x")), Some(Violation::Masked));
    assert_eq!(broken(client, &frame(0xc1, None, b"x")), Some(Violation::ReservedBits));
}

/// The wrong byte is found when it comes, not when the message is complete.
#[test]
fn text_is_checked_as_it_comes() {
    let whole = frame(0x81, MASK, &[&[b'a'; 500][..], &[0xff; 400]].concat());
    let (found, violation) = read(server(), &whole[..8 + 501], 100);
    assert_eq!((found.len(), violation), (0, Some(Violation::NotUtf8)));
    let (_, violation) = read(server(), &whole[..8 + 500], 100);
    assert_eq!(violation, None);
}

#[test]
fn a_compressed_bomb_is_too_large() {
    let bomb = {
        let (agreed, _) = deflate::agree(&Deflate::default(), ["permessage-deflate"].into_iter()).unwrap();
        deflate::Deflater::new(&agreed).deflate(&[b'a'; 500_000]).unwrap().to_vec()
    };
    assert!(bomb.len() < 1000, "it fits into a frame: {}", bomb.len());
    assert_eq!(broken(server, &frame(0xc1, MASK, &bomb)), Some(Violation::MessageTooLarge { max: 1500 }));
}

#[test]
fn good_frames_are_understood_however_they_come() {
    let bytes = [
        frame(0x81, MASK, "κόσμε".as_bytes()),
        frame(0x89, MASK, b"ping"),
        frame(0x01, MASK, b"in "),
        frame(0x8a, MASK, b""),
        frame(0x00, MASK, b""),
        frame(0x80, MASK, b"pieces"),
        frame(0x82, MASK, &[7; 1000]),
        frame(0x82, MASK, b""),
        // "Hello" as RFC 7692, section 7.2.3.1 has it, in two frames, and as one stored block (7.2.3.3).
        frame(0x41, MASK, &[0xf2, 0x48, 0xcd]),
        frame(0x80, MASK, &[0xc9, 0xc9, 0x07, 0x00]),
        frame(0xc1, MASK, &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00]),
        frame(0x88, MASK, b"\x03\xe8bye"),
    ]
    .concat();
    assert_eq!(broken(server, &bytes), None);
    let (found, _) = read(server(), &bytes, bytes.len());
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found[0], "Event(Message(Text(\"κόσμε\")))");
    assert_eq!(
        found[1..4],
        ["Event(Ping(b\"ping\"))", "Event(Pong(b\"\"))", "Event(Message(Text(\"in pieces\")))"]
    );
    assert_eq!(found[6..8], ["Event(Message(Text(\"Hello\")))"; 2]);
    assert!(
        found[8].starts_with("Close(Some(CloseFrame { code: CloseCode(1000), reason: \"bye\""),
        "{}",
        found[8]
    );
}

#[test]
fn the_first_fault_of_a_compressed_text_is_told() {
    // As it came from a proptest: it inflates to no UTF-8, and then to nothing more.
    let bytes = [
        193, 146, 107, 59, 80, 70, 240, 16, 48, 128, 0, 192, 96, 160, 0, 0, 61, 230, 0, 0, 63, 64, 64, 5, 0,
        0, 0, 0, 0,
    ];
    assert_eq!(broken(server, &bytes), Some(Violation::NotUtf8));
}

/// A peer that announces a lot and sends little takes little memory.
#[test]
fn what_is_announced_takes_no_memory() {
    let options = WsOptions::default();
    let mut inbound = Inbound::new(Role::Server, &options, None, Bytes::new());
    let (buffer, _) = inbound.room();
    buffer.extend_from_slice(&[0x82, 0xff, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5]);
    assert!(matches!(inbound.next(), Ok(Found::Nothing)));
    let (buffer, _) = inbound.room();
    assert!(buffer.capacity() <= 2 * READ + HEADER, "{}", buffer.capacity());
}

/// Who fills what is offered is read in larger pieces, up to a bound, and in small ones again when it gets quiet.
#[test]
fn a_busy_peer_is_read_in_larger_pieces() {
    let mut inbound = Inbound::new(Role::Client, &WsOptions::default(), None, Bytes::new());
    let mut come = |busy: bool| {
        let (buffer, room) = inbound.room();
        let len = if busy { room } else { 1 };
        buffer.resize(len, 0);
        drop(buffer.split());
        inbound.arrived(len);
        room
    };
    let busy: Vec<_> = (0..8).map(|_| come(true)).collect();
    assert!(
        busy[0] < 2 * READ && busy[7] >= READ_BUSY && busy.iter().max() <= Some(&(2 * READ_BUSY)),
        "{busy:?}"
    );
    for _ in 0..8 {
        come(false);
    }
    assert_eq!(inbound.step, READ);
}

proptest! {
    /// Whatever comes, it is understood or refused, the same in any pieces.
    #[test]
    fn any_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1..40_usize) {
        for make in [server, client] {
            prop_assert_eq!(read(make(), &bytes, step), read(make(), &bytes, bytes.len()));
        }
    }

    /// The same for bytes that look like frames.
    #[test]
    fn any_frames_do_no_harm(
        frames in proptest::collection::vec(
            (any::<u8>(), any::<[u8; 4]>(), proptest::collection::vec(any::<u8>(), 0..130)), 0..6
        ),
        step in 1..40_usize,
    ) {
        let bytes: Vec<u8> =
            frames.iter().flat_map(|(first, mask, content)| frame(*first, Some(*mask), content)).collect();
        prop_assert_eq!(read(server(), &bytes, step), read(server(), &bytes, bytes.len()));
    }
}
