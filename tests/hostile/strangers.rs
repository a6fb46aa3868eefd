//! Strangers that never authenticate: garbage, torn records, requests without an end.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use vitte_net::network::{Network, OsNetwork, TcpOptions};
use vitte_net::{CloseCode, Config, MeshEvent};
use vitte_net_proto::Lane;

use crate::peer::{ALL, HONEST, HOSTILE, Raw, SOON, VICTIM, echo, hello, mesh, transports, until};

/// Bytes of no protocol, the same in every run.
fn noise(len: usize, mut state: u64) -> Vec<u8> {
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// What strangers say, and a word of why they are turned away.
fn speeches(scheme: &str) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: vitte.1\r\n\r\n";
    let frame = |head: &[u8]| [&request[..], head].concat();
    if scheme == "ws" {
        return vec![
            (
                "a request without an end",
                b"GET / HTTP/1.1\r\nX: ".iter().copied().chain([b'x'; 9000]).collect(),
                "too long",
            ),
            (
                "another path",
                b"GET /other HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                    .to_vec(),
                "404",
            ),
            (
                "a WebSocket frame of 4 GiB",
                frame(&[0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4]),
                "WebSocket",
            ),
            ("a text message", frame(&[0x81, 0x81, 0, 0, 0, 0, b'x']), "text"),
            (
                "noise inside a WebSocket",
                frame(&[&[0x82, 0xfe, 0x04, 0x00, 0, 0, 0, 0][..], &noise(1024, 5)].concat()),
                "TLS",
            ),
            ("noise", noise(20_000, 1), ""),
        ];
    }
    vec![
        ("noise", noise(2_000, 1), "TLS"),
        ("a record of a type that is none", vec![0x99, 3, 3, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "TLS"),
        ("a record that is too long", [&[0x16, 3, 1, 0xff, 0xff][..], &noise(20_000, 2)].concat(), "TLS"),
        (
            "a handshake without an end",
            [&[0x16, 3, 1, 0x3f, 0xff, 1, 0, 0xff, 0xff][..], &vec![0; 40_000]].concat(),
            "TLS",
        ),
        ("an alert", vec![0x15, 3, 3, 0, 2, 2, 40], ""),
    ]
}

#[test]
fn strangers_are_turned_away_with_a_reason() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime starts").block_on(async {
        for scheme in ["tls", "ws", "wss"] {
            let victim = mesh(VICTIM, &[scheme], Config::wan()).await;
            let mesh = mesh(HONEST, &[], Config::wan()).await;
            let honest = mesh.connect(&victim.addresses()[0]).await.expect("an honest peer");
            let mut events = victim.events();
            for (what, speech, word) in speeches(scheme) {
                let at = SocketAddr::from(([127, 0, 0, 1], victim.addresses()[0].port()));
                let mut socket =
                    OsNetwork::new().connect_tcp(at, &TcpOptions::default()).await.expect("connected");
                // It may be cut in the middle.
                let _ = socket.write_all(&speech).await;
                let reason = until(&mut events, |event| match event {
                    MeshEvent::Rejected { reason, code, .. } => {
                        assert_eq!(code, None, "{scheme}: {what}: nobody was told a code");
                        Some(reason)
                    }
                    _ => None,
                });
                let reason = reason.await;
                assert!(reason.contains(word), "{scheme}: {what}: {reason}");
                let end = async { while socket.read(&mut [0; 1024]).await.is_ok_and(|len| len > 0) {} };
                timeout(SOON, end).await.expect("the connection is gone");
                echo(&honest).await;
            }
        }
    });
}

/// It is told why, and stays on the line.
#[test]
fn a_refused_link_is_cut_although_its_peer_stays() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime starts").block_on(async {
        for scheme in ALL {
            let victim = mesh(VICTIM, &[scheme], Config::wan()).await;
            let link = transports(9).dial(&victim.addresses()[0], None).await.expect("any key has a link");
            let mut stranger = Raw::new(link);
            let start = Instant::now();
            let refused = stranger.try_greet(&hello(1)).await.expect("it is told");
            assert_eq!(refused, Err(CloseCode::NOT_TRUSTED), "{scheme}");
            stranger.last_word().await;
            // Long before the time for a handshake is over.
            assert!(start.elapsed() < Duration::from_secs(5), "{scheme}: {:?}", start.elapsed());
        }
    });
}

/// Lanes may overtake the one with the handshake, and are not read without end for that.
#[test]
fn bytes_of_other_lanes_before_the_welcome_have_a_bound() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime starts").block_on(async {
        let victim = mesh(VICTIM, &["quic"], Config::wan()).await;
        let link = transports(HOSTILE).dial(&victim.addresses()[0], None).await.expect("a link");
        let mut hostile = Raw::new(link);
        for _ in 0..300 {
            // It is cut before the last of them.
            let written = hostile.link.writer.write(Lane(3), &[0; 1024]);
            if written.is_err() || poll_fn(|cx| hostile.link.writer.poll_flush(cx)).await.is_err() {
                break;
            }
        }
        let reason = String::from("too many bytes before the welcome");
        assert_eq!(hostile.last_word().await, Some((CloseCode::FLOW_CONTROL, reason)));
    });
}

/// Datagrams of no protocol, of a version that is none, and torn ones.
#[test]
fn datagrams_of_strangers_are_not_noticed() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime starts").block_on(async {
        let victim = mesh(VICTIM, &["quic"], Config::wan()).await;
        let mesh = mesh(HONEST, &[], Config::wan()).await;
        let honest = mesh.connect(&victim.addresses()[0]).await.expect("an honest peer");
        let at = SocketAddr::from(([127, 0, 0, 1], victim.addresses()[0].port()));
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for seed in 0..300 {
            let mut datagram = noise(1 + (usize::try_from(seed).unwrap() * 37) % 1400, seed);
            match seed % 3 {
                // A long header of QUIC version 1, and of a version that is none.
                0 => datagram.splice(0..5.min(datagram.len()), [0xc0, 0, 0, 0, 1]).for_each(drop),
                1 => datagram.splice(0..5.min(datagram.len()), [0xc0, 0xfa, 0xfa, 0xfa, 0xfa]).for_each(drop),
                _ => {}
            }
            socket.send_to(&datagram, at).expect("sent");
            if seed % 50 == 0 {
                echo(&honest).await;
            }
        }
        echo(&honest).await;
        assert!(!honest.is_lost());
    });
}

/// More of them than are told one by one: the rest is told by number, and none is hidden.
#[test]
fn a_flood_of_strangers_is_told_by_number() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime starts").block_on(async {
        let victim = mesh(VICTIM, &["tls"], Config::wan()).await;
        let mut events = victim.events();
        let at = SocketAddr::from(([127, 0, 0, 1], victim.addresses()[0].port()));
        let total = 300;
        for _ in 0..total {
            let mut socket =
                OsNetwork::new().connect_tcp(at, &TcpOptions::default()).await.expect("connected");
            let _ = socket.write_all(b"\x99 no protocol").await;
        }
        let (mut each, mut by_number) = (0, 0);
        while each + by_number < total {
            let told = until(&mut events, |event| match event {
                MeshEvent::Rejected { .. } => Some((1, 0)),
                MeshEvent::RejectedMore { count } => Some((0, count)),
                _ => None,
            });
            let told = told.await;
            (each, by_number) = (each + told.0, by_number + told.1);
        }
        assert_eq!(each + by_number, total);
        assert!(each >= 64 && by_number > 0, "{each} one by one, {by_number} by number");
    });
}
