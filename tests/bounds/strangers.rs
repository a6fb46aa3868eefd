//! Connections that come and never prove anything.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use vitte_net::network::{BoxStream, Network, OsNetwork, TcpOptions};
use vitte_net::transport::{Link, Transports};
use vitte_net::{Config, Mesh};

use crate::peer::{HONEST, HOSTILE, VICTIM, echo, mesh, transports};
use crate::{Times, alone, form, growth, report};

/// What one idle connection may cost, on both sides of it together: the stranger is in this process, too.
const EACH: usize = 128 << 10;

/// Connections that stand there.
enum Idle {
    Socket(BoxStream),
    Link(Box<Link>),
}

impl Idle {
    /// Waits until the victim has ended it.
    async fn end(&mut self) {
        match self {
            Self::Socket(socket) => while socket.read(&mut [0; 256]).await.is_ok_and(|len| len > 0) {},
            Self::Link(link) => while link.reader.read(&mut |_, _| ()).await.is_ok() {},
        }
    }
}

/// How far a stranger goes before it falls silent.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Not a byte.
    Connected,
    /// Half a TLS record, or half a request.
    Begun,
    /// It has proven a key that is trusted, and says no hello.
    Proven,
}

async fn idle(mesh: &Mesh, dialler: &Transports, phase: Phase) -> Idle {
    let address = mesh.addresses().remove(0);
    if matches!(phase, Phase::Proven) {
        return Idle::Link(Box::new(dialler.dial(&address, None).await.expect("a link")));
    }
    let at = SocketAddr::from(([127, 0, 0, 1], address.port()));
    let mut socket = OsNetwork::new().connect_tcp(at, &TcpOptions::default()).await.expect("connected");
    if matches!(phase, Phase::Begun) {
        let begin: &[u8] = match address.transport() {
            vitte_net::Transport::Ws => b"GET / HTTP/1.1\r\nHost: a\r\n",
            _ => b"\x16\x03\x01\x01\x00\x01\x00",
        };
        socket.write_all(begin).await.expect("written");
    }
    Idle::Socket(socket)
}

fn half_open(scheme: &'static str, phase: Phase) {
    alone(async |_| {
        let count = form(100, 1000);
        let limit = form(Duration::from_secs(1), Duration::from_secs(10));
        let victim = mesh(VICTIM, &[scheme], Config::wan().handshake_timeout(limit)).await;
        let address = victim.addresses().remove(0);
        let dialler = transports(HOSTILE);
        let start = Instant::now();
        let (mut standing, grown) = growth(async {
            let mut standing = Vec::new();
            for _ in 0..count {
                standing.push(idle(&victim, &dialler, phase).await);
            }
            standing
        })
        .await;
        assert!(grown < count * EACH, "{grown} bytes for {count} connections");
        let mut times = Times::default();
        for _ in 0..form(5, 100) {
            let honest = mesh(HONEST, &[], Config::wan()).await;
            let peer = times.measure(honest.connect(&address)).await.expect("a real peer is let in");
            echo(&peer).await;
            honest.drain(Duration::ZERO, Duration::from_secs(1)).await;
        }
        for connection in &mut standing {
            timeout(limit + Duration::from_secs(5), connection.end()).await.expect("it is ended");
        }
        let gone = start.elapsed();
        report(
            "half-open",
            &format!(
                "{scheme}, {phase:?}: {count} idle, {} KiB each with their own side; a real peer connects in {:?} \
                 (p50), {:?} (p99); all gone after {gone:?}",
                grown / count / 1024,
                times.percentile(50),
                times.percentile(99),
            ),
        );
        victim.drain(Duration::ZERO, Duration::from_secs(1)).await;
    });
}

macro_rules! half_open {
    ($($name:ident: $scheme:literal, $phase:ident;)+) => {
        $(#[test]
        fn $name() {
            half_open($scheme, Phase::$phase);
        })+
    };
}

half_open! {
    silent_tls: "tls", Connected;
    silent_ws: "ws", Connected;
    silent_wss: "wss", Connected;
    torn_tls: "tls", Begun;
    torn_ws: "ws", Begun;
    torn_wss: "wss", Begun;
    no_hello_quic: "quic", Proven;
    no_hello_tls: "tls", Proven;
    no_hello_ws: "ws", Proven;
    no_hello_wss: "wss", Proven;
}

/// More of them than there are places: the newest has one, the honest too.
#[test]
fn a_full_door_lets_newcomers_in() {
    alone(async |_| {
        for scheme in ["tls", "ws", "wss"] {
            let config = Config::wan().handshakes_max(64).handshakes_per_address(16);
            let victim = mesh(VICTIM, &[scheme], config).await;
            let dialler = transports(HOSTILE);
            let mut standing = Vec::new();
            for _ in 0..40 {
                standing.push(idle(&victim, &dialler, Phase::Connected).await);
            }
            let honest = mesh(HONEST, &[], Config::wan()).await;
            let peer = honest.connect(&victim.addresses()[0]).await.expect("a real peer is let in");
            echo(&peer).await;
            // The oldest have made room, long before their time.
            for connection in standing.iter_mut().take(24) {
                timeout(Duration::from_secs(5), connection.end()).await.expect("it gave its place up");
            }
        }
    });
}
