//! Both sides of a handshake in memory, and peers that do something else.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::codec::put_varint;
use crate::frame::kind;
use crate::hello::{Incarnation, Limits, MAGIC, Proof};

fn hello(number: u8) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        features: 0,
        incarnation: Incarnation([number; 16]),
        generation: u64::from(number),
        nonce: [number; 32],
        proof: Proof::Secret,
        limits: Limits { max_message: 1 << 20, stream_window: 1 << 16, max_streams: 100 },
    }
}

fn bytes_of(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.put(&mut bytes);
    bytes
}

fn begun() -> Handshake {
    Handshake::new(&hello(1), &mut Vec::new())
}

/// A HELLO whose body was written by hand.
fn written(magic: [u8; 4], versions: [u64; 2], proof: u8, extensions: &[u8]) -> Vec<u8> {
    let mut body = magic.to_vec();
    versions.iter().for_each(|version| put_varint(&mut body, *version));
    put_varint(&mut body, 0);
    body.extend_from_slice(&[2; 16]);
    put_varint(&mut body, 2);
    body.extend_from_slice(&[2; 32]);
    body.push(proof);
    [1 << 20, 1 << 16, 100].iter().for_each(|limit| put_varint(&mut body, *limit));
    body.extend_from_slice(extensions);
    let mut bytes = Vec::new();
    put_varint(&mut bytes, kind::HELLO);
    put_varint(&mut bytes, body.len() as u64);
    bytes.extend(body);
    bytes
}

fn code(result: Result<Step, Violation>) -> CloseCode {
    result.expect_err("the handshake must refuse this").code
}

#[test]
fn two_sides_greet_and_the_first_bytes_of_the_session_are_kept() {
    for run in [1, 7, 1000] {
        let mut to_b = Vec::new();
        let mut to_a = Vec::new();
        let mut a = Handshake::new(&hello(1), &mut to_b);
        let mut b = Handshake::new(&hello(2), &mut to_a);
        let step = to_b.chunks(run).map(|run| b.handle(run)).last();
        assert_eq!(step, Some(Ok(Step::Hello(hello(1)))));
        b.welcome([22; 32], &mut to_a);
        to_a.extend_from_slice(b"first");

        let mut greeted = false;
        let mut runs = to_a.chunks(run);
        let (proof, mut session) = loop {
            match a.handle(runs.next().unwrap_or_default()).expect("an honest peer") {
                Step::Welcome { proof, rest } => break (proof, rest),
                Step::Hello(heard) => {
                    assert!(!greeted && heard == hello(2));
                    greeted = true;
                    a.welcome([11; 32], &mut Vec::new());
                }
                step => assert_eq!(step, Step::NeedBytes),
            }
        };
        runs.for_each(|run| session.extend_from_slice(run));
        assert!(greeted);
        assert_eq!((proof, &session[..]), ([22; 32], &b"first"[..]));
    }
}

#[test]
fn bytes_behind_the_hello_wait_for_its_acceptance() {
    let mut handshake = begun();
    let welcome = bytes_of(&Frame::Welcome { proof: [9; 32] });
    assert_eq!(handshake.handle(&bytes_of(&Frame::Hello(hello(2)))), Ok(Step::Hello(hello(2))));
    assert_eq!(handshake.handle(&welcome), Ok(Step::NeedBytes));
    handshake.welcome([0; 32], &mut Vec::new());
    assert_eq!(handshake.handle(&[]), Ok(Step::Welcome { proof: [9; 32], rest: Vec::new() }));
}

#[test]
fn frames_out_of_their_place_are_refused() {
    let mut handshake = begun();
    assert_eq!(handshake.handle(&bytes_of(&Frame::Hello(hello(2)))), Ok(Step::Hello(hello(2))));
    handshake.welcome([0; 32], &mut Vec::new());
    assert_eq!(code(handshake.handle(&bytes_of(&Frame::Hello(hello(2))))), CloseCode::WRONG_STATE);
    for frame in [Frame::Welcome { proof: [0; 32] }, Frame::Ping { token: 1 }, Frame::Drain] {
        assert_eq!(code(begun().handle(&bytes_of(&frame))), CloseCode::WRONG_STATE, "{frame:?}");
    }
}

#[test]
fn a_close_is_a_refusal_at_any_time() {
    let close = bytes_of(&Frame::Close { code: CloseCode::NOT_TRUSTED, session: false, reason: "who?" });
    let refused = Step::Refused { code: CloseCode::NOT_TRUSTED, reason: String::from("who?") };
    assert_eq!(begun().handle(&close), Ok(refused.clone()));
    let mut handshake = begun();
    assert_eq!(handshake.handle(&bytes_of(&Frame::Hello(hello(2)))), Ok(Step::Hello(hello(2))));
    handshake.welcome([0; 32], &mut Vec::new());
    assert_eq!(handshake.handle(&close), Ok(refused));
}

#[test]
fn magic_version_and_proof_must_be_known() {
    assert_eq!(begun().handle(&written(MAGIC, [1, 1], 1, &[])), Ok(Step::Hello(hello(2))));
    assert_eq!(code(begun().handle(&written(*b"HTTP", [1, 1], 1, &[]))), CloseCode::MALFORMED);
    for versions in [[0, 0], [2, 9]] {
        assert_eq!(code(begun().handle(&written(MAGIC, versions, 1, &[]))), CloseCode::VERSION);
    }
    // What follows is laid out as another version likes.
    for rest in [&[][..], &[0xff; 40], &[7; 40]] {
        let body = [&MAGIC[..], &[2, 2], rest].concat();
        let hello = [&[0x00, u8::try_from(body.len()).unwrap()][..], &body].concat();
        assert_eq!(code(begun().handle(&hello)), CloseCode::VERSION, "{rest:?}");
    }
    assert!(matches!(begun().handle(&written(MAGIC, [0, 9], 1, &[])), Ok(Step::Hello(_))));
    assert_eq!(code(begun().handle(&written(MAGIC, [1, 1], 2, &[]))), CloseCode::VERSION);
}

#[test]
fn odd_extensions_are_skipped_and_even_ones_are_not() {
    assert_eq!(begun().handle(&written(MAGIC, [1, 1], 1, &[1, 3, 7, 7, 7, 5, 0])), Ok(Step::Hello(hello(2))));
    assert_eq!(code(begun().handle(&written(MAGIC, [1, 1], 1, &[1, 0, 2, 1, 7]))), CloseCode::VERSION);
    assert_eq!(code(begun().handle(&written(MAGIC, [1, 1], 1, &[1, 4, 7]))), CloseCode::MALFORMED);
    assert_eq!(code(begun().handle(&written(MAGIC, [1, 1], 1, &[1]))), CloseCode::MALFORMED);
}

#[test]
fn a_peer_cannot_make_us_hold_much_before_the_welcome() {
    let mut handshake = begun();
    assert_eq!(handshake.handle(&bytes_of(&Frame::Hello(hello(2)))), Ok(Step::Hello(hello(2))));
    let half = vec![0; Handshake::BYTES_MAX / 2];
    assert_eq!(handshake.handle(&half), Ok(Step::NeedBytes));
    assert_eq!(handshake.handle(&half), Ok(Step::NeedBytes));
    assert_eq!(code(handshake.handle(&[0])), CloseCode::FLOW_CONTROL);
}
