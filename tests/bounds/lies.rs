//! Lengths that lie: what says that 4 GiB follow gets an error, and no room.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use vitte_net::network::{Network, OsNetwork, TcpOptions};
use vitte_net::{CloseCode, Config, Events, Mesh, MeshEvent};
use vitte_net_proto::codec::put_varint;
use vitte_net_proto::frame::kind;
use vitte_net_proto::{StreamId, frame};

use crate::peer::{ALL, HOSTILE, Raw, SOON, VICTIM, id, mesh, transports, until};
use crate::{alone, growth, mib, report};

/// What both sides together may allocate, the hostile one's own connection included where it is part of the lie.
const MOST: usize = 1 << 20;

/// The begin of a frame that says it is so long.
fn lie(kind: u64, len: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_varint(&mut bytes, kind);
    put_varint(&mut bytes, len);
    bytes.extend_from_slice(b"begun");
    bytes
}

fn stream() -> StreamId {
    StreamId(u64::from(id(HOSTILE) > id(VICTIM)))
}

/// A stream, and in it the begin of a message that says it has 4 GiB.
fn lying_message() -> Vec<u8> {
    let open = frame::Open {
        kind: frame::StreamKind::Channel,
        priority: vitte_net::Priority::Normal,
        class: vitte_net::DeliveryClass::Reliable,
        deadline_micros: None,
        schema_out: 0,
        schema_in: 0,
        name: "none",
    };
    let payload = b"\xc0\0\0\x01\0\0\0\0begun";
    let mut bytes = Vec::new();
    frame::Frame::Open { stream: stream(), open }.put(&mut bytes);
    frame::Frame::Data { stream: stream(), offset: 0, push: true, payload }.put(&mut bytes);
    bytes
}

async fn cut_for(what: &str, hostile: &mut Raw, bytes: &[u8], code: CloseCode) {
    let (told, grown) = growth(async {
        // The link may be cut before all of it is said.
        let _ = hostile.say_bytes(bytes).await;
        hostile.last_word().await
    })
    .await;
    assert_eq!(told.map(|(code, _)| code), Some(code), "{what}");
    assert!(grown < MOST, "{what}: {grown} bytes");
    report("lies", &format!("{what}: {code}, {:.2} MiB", mib(grown)));
}

/// In a session, and instead of a hello.
#[test]
fn four_gibibytes_in_a_frame_get_no_room() {
    alone(async |_| {
        for scheme in ALL {
            let victim = mesh(VICTIM, &[scheme], Config::wan()).await;
            let mut events = victim.events();
            let (address, dialler) = (victim.addresses().remove(0), transports(HOSTILE));
            let lies = [
                ("DATA", lie(kind::DATA, 1 << 32), CloseCode::FRAME_TOO_LARGE),
                ("OPEN", lie(kind::OPEN, 1 << 32), CloseCode::FRAME_TOO_LARGE),
                ("an unknown type", lie(0x3f, 1 << 32), CloseCode::FRAME_TOO_LARGE),
                ("the longest there is", lie(kind::DATA, (1 << 62) - 1), CloseCode::FRAME_TOO_LARGE),
                ("a message", lying_message(), CloseCode::FLOW_CONTROL),
            ];
            for (life, (what, bytes, code)) in (1..).zip(&lies) {
                let mut hostile = Raw::greeted(&dialler, &address, life).await;
                cut_for(&format!("{scheme}: 4 GiB of {what}"), &mut hostile, bytes, *code).await;
                let seen = until(&mut events, |event| match event {
                    MeshEvent::Violation { code, ours: false, .. } => Some(code),
                    _ => None,
                });
                assert_eq!(seen.await, *code, "{scheme}: {what}");
            }
            for (what, kind) in [("HELLO", kind::HELLO), ("WELCOME", kind::WELCOME)] {
                let mut hostile = Raw::new(dialler.dial(&address, None).await.expect("a link"));
                let what = format!("{scheme}: 4 GiB of {what} before the hello");
                cut_for(&what, &mut hostile, &lie(kind, 1 << 32), CloseCode::FRAME_TOO_LARGE).await;
                let (code, reason) = rejected(&mut events).await;
                assert_eq!(code, Some(CloseCode::FRAME_TOO_LARGE), "{what}: {reason}");
            }
        }
    });
}

async fn rejected(events: &mut Events) -> (Option<CloseCode>, String) {
    until(events, |event| match event {
        MeshEvent::Rejected { code, reason, .. } => Some((code, reason)),
        _ => None,
    })
    .await
}

/// Says something on a socket that is no link yet, and is turned away.
async fn turned_away(what: &str, victim: &Mesh, events: &mut Events, speech: &[u8], word: &str) {
    let at = SocketAddr::from(([127, 0, 0, 1], victim.addresses()[0].port()));
    let (reason, grown) = growth(async {
        let mut socket = OsNetwork::new().connect_tcp(at, &TcpOptions::default()).await.expect("connected");
        // It may be cut in the middle.
        let _ = socket.write_all(speech).await;
        let (_, reason) = rejected(events).await;
        let end = async { while socket.read(&mut [0; 1024]).await.is_ok_and(|len| len > 0) {} };
        timeout(SOON, end).await.expect("the connection is gone");
        reason
    })
    .await;
    assert!(reason.contains(word), "{what}: {reason}");
    assert!(grown < MOST, "{what}: {grown} bytes");
    report("lies", &format!("{what}: {reason}, {:.2} MiB", mib(grown)));
}

/// Where frames are those of a WebSocket, or messages those of TLS.
#[test]
fn four_gibibytes_below_a_link_get_no_room() {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: vitte.1\r\n\r\n";
    let websocket = |head: &[u8]| [&request[..], head, &[0; 4], b"begun"].concat();
    alone(async |_| {
        let victim = mesh(VICTIM, &["ws"], Config::wan()).await;
        let mut events = victim.events();
        for (what, speech) in [
            ("a WebSocket frame of 4 GiB", websocket(&[0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0])),
            (
                "the longest WebSocket frame",
                websocket(&[0x82, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255]),
            ),
            ("a WebSocket fragment of 4 GiB", websocket(&[0x02, 0xff, 0, 0, 0, 1, 0, 0, 0, 0])),
            ("a ping of 4 GiB", websocket(&[0x89, 0xff, 0, 0, 0, 1, 0, 0, 0, 0])),
        ] {
            turned_away(what, &victim, &mut events, &speech, "WebSocket").await;
        }
        let victim = mesh(VICTIM, &["tls"], Config::wan()).await;
        let mut events = victim.events();
        // The length of a handshake message has 24 bits, that of a record 16.
        let hello = [&[0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..], &[0; 60_000]].concat();
        turned_away("a ClientHello of 16 MiB", &victim, &mut events, &hello, "TLS").await;
        let record = [0x16, 3, 1, 0xff, 0xff, 1, 0, 0, 0];
        turned_away("a record of 64 KiB", &victim, &mut events, &record, "TLS").await;
    });
}
