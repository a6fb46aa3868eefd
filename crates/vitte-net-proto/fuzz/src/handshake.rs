//! The handshake, with itself over any cuts, and against bytes that somebody changed.

use vitte_net_proto::frame::Frame;
use vitte_net_proto::{Handshake, Hello, Incarnation, Limits, Proof, Step};

use super::input::Input;

/// What a greeting ended as, if it ended well: what each side heard.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    hello: Option<Hello>,
    welcome: Option<([u8; 32], Vec<u8>)>,
}

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let _ = greet(&mut input);
}

fn greet(input: &mut Input<'_>) -> Option<()> {
    let local = hello(input)?;
    let remote = hello(input)?;
    let cut = input.below(80)? + 1;
    let honest = input.flag()?;
    let mut bytes = Vec::new();
    let mut peer = Handshake::new(&remote, &mut bytes);
    let proof = [input.byte()?; 32];
    peer.welcome(proof, &mut bytes);
    let greeting = bytes.len();
    let behind = input.byte()?;
    Frame::Ping { token: behind.into() }.put(&mut bytes);
    if !honest {
        change(&mut bytes, input)?;
    }

    let mut out = Vec::new();
    let mut handshake = Handshake::new(&local, &mut out);
    let mut heard = Heard::default();
    let mut runs = bytes.chunks(cut);
    let mut ended = false;
    // As a driver does: an empty run after the hello was accepted.
    let mut again = false;
    while let Some(run) = if again { Some(&[][..]) } else { runs.next() } {
        again = false;
        match handshake.handle(run) {
            Ok(Step::NeedBytes) => {}
            Ok(Step::Hello(hello)) => {
                assert!(heard.hello.replace(hello).is_none() && !ended);
                handshake.welcome([7; 32], &mut out);
                again = true;
            }
            Ok(Step::Welcome { proof, rest }) => {
                assert!(heard.hello.is_some(), "a welcome before the hello");
                assert!(heard.welcome.replace((proof, rest)).is_none());
                ended = true;
            }
            Ok(Step::Refused { .. }) => ended = true,
            Err(_) => {
                assert!(!honest, "an honest greeting was refused");
                ended = true;
            }
        }
        if ended {
            break;
        }
    }
    if honest {
        let mut rest: Vec<u8> = runs.flatten().copied().collect();
        let (said, mut first) = heard.welcome.expect("an honest greeting ends with a welcome");
        first.append(&mut rest);
        assert_eq!((heard.hello, said, &first[..]), (Some(remote), proof, &bytes[greeting..]));
    }
    Some(())
}

fn hello(input: &mut Input<'_>) -> Option<Hello> {
    Some(Hello {
        version_min: u64::from(input.flag()?),
        version_max: 1 + input.number()?.min(1 << 60),
        features: input.number()?.min(1 << 60),
        incarnation: Incarnation([input.byte()?; 16]),
        generation: input.number()?.min(1 << 60),
        nonce: [input.byte()?; 32],
        proof: input.of(&[Proof::Keys, Proof::Secret])?,
        limits: Limits {
            max_message: input.number()?.min(1 << 60),
            stream_window: input.number()?.min(1 << 60),
            max_streams: input.number()?.min(1 << 60),
        },
    })
}

/// Changes, removes or inserts some bytes; or says something else altogether.
fn change(bytes: &mut Vec<u8>, input: &mut Input<'_>) -> Option<()> {
    for _ in 0..input.below(4)? + 1 {
        let at = input.below(256)?.min(bytes.len());
        match input.below(4)? {
            0 => bytes.truncate(at),
            1 => {
                let new = input.byte()?;
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = new;
                }
            }
            2 => {
                let len = input.below(64)?;
                let fresh = input.bytes(len);
                bytes.splice(at..at, fresh.iter().copied());
            }
            _ => *bytes = input.bytes(300).to_vec(),
        }
    }
    Some(())
}
