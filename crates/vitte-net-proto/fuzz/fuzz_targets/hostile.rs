//! One side against a peer that says anything: any bytes, and any frames in any order.

use std::time::Duration;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use vitte_net_proto::frame::{Frame, Offsets, Open, put_resume};
use vitte_net_proto::{
    CloseCode, Lane, LinkId, LinkKind, Moment, Priority, StreamCode, StreamId, StreamKind,
};

use crate::config;
use crate::side::Side;

pub(crate) fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let mut side = Side::new(&config(), 1, 2);
    let driven = drive(&mut side, u);
    side.session.lose(CloseCode::MALFORMED, "the end");
    side.events(Moment::ZERO);
    assert_eq!(side.session.counters().in_flight, 0);
    assert!(side.sent.keys().eq(side.outcomes.keys()), "every send ended");
    driven
}

fn drive(side: &mut Side, u: &mut Unstructured<'_>) -> Result<()> {
    let mut now = Moment::ZERO;
    let mut link = 0;
    let mut out = Vec::new();
    for _ in 0..300 {
        if u.is_empty() {
            break;
        }
        if side.session.active_link().is_none() {
            link += 1;
            let _ = side.session.attach(LinkId(link), LinkKind { lanes: true, preference: 0 }, now);
        }
        match u.int_in_range(0..=9)? {
            0..=3 => side.act(u, now)?,
            4..=7 => {
                let mut bytes = Vec::new();
                frame(u, &mut bytes)?;
                let _ = side.session.handle_bytes(LinkId(link), Lane(u.int_in_range(0..=10)?), &bytes, now);
            }
            8 => {
                let len = u.int_in_range(0..=40)?;
                let bytes = u.bytes(len.min(u.len()))?;
                let _ = side.session.handle_bytes(LinkId(link), Lane(u.int_in_range(0..=11)?), bytes, now);
            }
            _ => {
                now = now + Duration::from_millis(u.int_in_range(0..=100)?);
                side.session.handle_timeout(now);
                while side.session.poll_transmit(LinkId(link), &mut |_| 16_384, &mut out, now).is_some() {
                    out.clear();
                }
            }
        }
        side.events(now);
    }
    Ok(())
}

/// Mostly small, sometimes anything.
fn number(u: &mut Unstructured<'_>) -> Result<u64> {
    match u.int_in_range(0..=7)? {
        0 => u.arbitrary(),
        1 => u.int_in_range(0..=10_000),
        _ => u.int_in_range(0..=64),
    }
}

fn offsets(u: &mut Unstructured<'_>) -> Result<Offsets> {
    let taken = number(u)?;
    let received = taken.saturating_add(number(u)?);
    Ok(Offsets { taken, received, limit: received.saturating_add(number(u)?) })
}

fn frame(u: &mut Unstructured<'_>, out: &mut Vec<u8>) -> Result<()> {
    let stream = StreamId(if u.ratio(1_u8, 16_u8)? { number(u)? } else { u.int_in_range(0..=9)? });
    let payload = [0; 1500];
    let frame = match u.int_in_range(0..=13)? {
        0 => {
            let kind = *u.choose(&[StreamKind::Channel, StreamKind::Call, StreamKind::Bytes])?;
            let priority = *u.choose(&Priority::ALL)?;
            let name = u.choose(&["yes", "no"])?;
            let deadline_micros = Some(number(u)?).filter(|micros| *micros > 9);
            Frame::Open {
                stream,
                open: Open { kind, priority, deadline_micros, schema_out: 0, schema_in: 0, name },
            }
        }
        1..=3 => {
            let offset = number(u)?;
            let payload = if u.arbitrary()? {
                let len = u.int_in_range(1..=40)?;
                u.bytes(len)?
            } else {
                &payload[..u.int_in_range(1..=payload.len())?]
            };
            Frame::Data { stream, offset, push: u.arbitrary()?, payload }
        }
        4 => Frame::Fin { stream, end: number(u)? },
        5 => Frame::Stop { stream, code: StreamCode(number(u)?), taken: number(u)?, reason: "stop" },
        6 => Frame::Reset { stream, code: StreamCode(number(u)?), reason: "reset" },
        7 => Frame::Retire { stream },
        8..=9 => Frame::Offsets { stream, offsets: offsets(u)? },
        10 => Frame::MaxStreams { count: number(u)? },
        11 => Frame::Pong { token: number(u)? },
        12 => {
            put_resume(out, u.arbitrary()?, u.arbitrary()?, &[(stream, offsets(u)?)]);
            return Ok(());
        }
        _ if u.arbitrary()? => Frame::Ping { token: number(u)? },
        _ => Frame::Drain,
    };
    frame.put(out);
    Ok(())
}
