//! One side against a peer that says anything: any bytes, and any frames in any order.

use std::time::Duration;

use vitte_net_proto::frame::{Frame, Open, put_resume};
use vitte_net_proto::{
    CloseCode, DeliveryClass, Lane, LinkId, LinkKind, Moment, Priority, StreamCode, StreamId, StreamKind,
};

use super::config;
use super::input::Input;
use super::side::Side;

const STEPS_MAX: usize = 200;
static ZEROS: [u8; 1500] = [0; 1500];

pub fn run(data: &[u8]) {
    let mut side = Side::new(&config(), 1, 2);
    let _ = drive(&mut side, &mut Input(data));
    side.session.lose(CloseCode::MALFORMED, "the end");
    side.events(Moment::ZERO);
    assert_eq!(side.session.counters().in_flight, 0);
    assert!(side.sent.iter().all(|sent| sent.outcome.is_some()), "every send ended");
}

fn drive(side: &mut Side, input: &mut Input<'_>) -> Option<()> {
    let config = config();
    let lanes = input.flag()?;
    let mut now = Moment::ZERO;
    let mut link = 0;
    let mut bytes = Vec::new();
    for _ in 0..STEPS_MAX {
        if side.session.active_link().is_none() {
            link += 1;
            let _ = side.session.attach(LinkId(link), LinkKind { lanes, preference: 0 }, now);
        }
        let act = input.byte()?;
        let lane = match act / 10 % 13 {
            12 => Lane::DATAGRAM,
            lane if lanes => Lane(lane % 12),
            _ => Lane(act / 128),
        };
        match act % 10 {
            0..=2 => side.act(input, now)?,
            3..=7 => {
                bytes.clear();
                frame(input, &mut bytes)?;
                let _ = side.session.handle_bytes(LinkId(link), lane, &bytes, now);
            }
            8 => {
                let len = input.below(40)?;
                let _ = side.session.handle_bytes(LinkId(link), lane, input.bytes(len), now);
            }
            _ => {
                now = now + Duration::from_millis(input.byte()?.into());
                side.session.handle_timeout(now);
                bytes.clear();
                while side.session.poll_transmit(LinkId(link), &mut |_| 16_384, &mut bytes, now).is_some() {
                    assert!(bytes.len() <= 16_384);
                    bytes.clear();
                }
            }
        }
        side.events(now);
        side.dead.clear();
        side.check(&config);
    }
    Some(())
}

fn frame(input: &mut Input<'_>, out: &mut Vec<u8>) -> Option<()> {
    let choice = input.byte()?;
    let stream = StreamId(match input.byte()? {
        small @ 0..=239 => u64::from(small % 10),
        _ => input.number()?,
    });
    let frame = match choice % 14 {
        0 => Frame::Open {
            stream,
            open: Open {
                kind: input.of(&[StreamKind::Channel, StreamKind::Call, StreamKind::Bytes])?,
                class: DeliveryClass::ALL[usize::from(choice / 14) % DeliveryClass::ALL.len()],
                priority: input.of(&Priority::ALL)?,
                deadline_micros: Some(input.number()?).filter(|micros| *micros > 9),
                schema_out: 0,
                schema_in: 0,
                name: input.of(&["yes", "no"])?,
            },
        },
        1..=3 => {
            let offset = input.number()?.min(1 << 61);
            let len = input.byte()?;
            let payload = match len {
                0..=199 => input.bytes(usize::from(len % 40) + 1),
                _ => &ZEROS[..usize::from(len - 199) * 26],
            };
            if payload.is_empty() {
                return None;
            }
            Frame::Data { stream, offset, push: choice >= 128, payload }
        }
        4 => Frame::Fin { stream, end: input.number()? },
        5 => {
            Frame::Stop { stream, code: StreamCode(input.number()?), taken: input.number()?, reason: "stop" }
        }
        6 => Frame::Reset { stream, code: StreamCode(input.number()?), reason: "reset" },
        7 => Frame::Retire { stream },
        8..=9 => Frame::Offsets { stream, offsets: input.offsets()? },
        10 if choice >= 128 => Frame::Latest { stream, count: input.number()?, delivered: input.number()? },
        10 => Frame::MaxStreams { count: input.number()? },
        11 if choice >= 128 => Frame::Datagram {
            stream,
            number: input.number()?,
            payload: input.bytes(usize::from(choice - 127)),
        },
        11 => Frame::Pong { token: input.number()? },
        12 => {
            put_resume(out, choice >= 128, choice % 4 >= 2, &[(stream, input.offsets()?)]);
            return Some(());
        }
        _ if choice < 128 => Frame::Ping { token: input.number()? },
        _ => Frame::Drain,
    };
    frame.put(out);
    Some(())
}
