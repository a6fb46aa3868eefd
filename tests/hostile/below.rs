//! Rules of the layers below the session: bytes that are changed on their way break those of TLS.

use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{sleep, timeout};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use vitte_net::Config;
use vitte_net::network::{
    BoxFuture, BoxStream, ByteStream, Datagrams, Network, OsNetwork, TcpListen, TcpOptions, UdpOptions,
};

use crate::peer::{HONEST, SOON, VICTIM, echo, mesh, mesh_on};

/// What was warned of.
type Warnings = Arc<Mutex<Vec<String>>>;

/// A rule that is broken below the session is told by both logs, with the reason, and costs the link alone.
#[test]
fn bytes_that_are_changed_on_their_way_end_the_link_and_both_logs_say_why() {
    for scheme in ["tls", "ws", "wss"] {
        let warnings = Warnings::default();
        let _told = tracing::subscriber::set_default(Ears(warnings.clone()));
        // One thread: the ears are its own.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime starts").block_on(async {
            let victim = mesh(VICTIM, &[scheme], Config::lan()).await;
            let changes = Arc::new(AtomicBool::new(false));
            let network = Arc::new(Changing(changes.clone()));
            let honest = mesh_on(network, HONEST, &[], Config::lan()).await;
            let peer = honest.connect(&victim.addresses()[0]).await.expect("a peer");
            echo(&peer).await;
            changes.store(true, Ordering::SeqCst);
            let said = |node: &str, warnings: &Warnings| {
                let warnings = warnings.lock().expect("no panic");
                let broken = |line: &&String| line.contains("a link is broken") && line.contains(node);
                warnings.iter().find(broken).cloned()
            };
            let nodes = [victim.id(), honest.id()].map(|id| id.short().to_string());
            let both = async {
                loop {
                    let lines = [0, 1].map(|node| said(&nodes[node], &warnings));
                    if let [Some(one), Some(other)] = lines {
                        return [one, other];
                    }
                    sleep(Duration::from_millis(10)).await;
                }
            };
            // What is said on the link is what is changed; the session waits for the next one.
            let answered = async {
                echo(&peer).await;
                echo(&peer).await;
            };
            let (lines, ()) = tokio::join!(timeout(SOON, both), answered);
            for line in lines.unwrap_or_else(|_| panic!("{scheme}: {:?}", warnings.lock())) {
                assert!(line.contains("rules of TLS"), "{scheme}: {line}");
            }
        });
    }
}

struct Ears(Warnings);

impl Subscriber for Ears {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.0.lock().expect("no panic").push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!("{}={value:?} ", field.name()));
    }
}

/// A network whose connections change one bit of what is written next, once this is set.
#[derive(Debug)]
struct Changing(Arc<AtomicBool>);

impl Network for Changing {
    fn connect_tcp<'a>(
        &'a self,
        to: SocketAddr,
        options: &'a TcpOptions,
    ) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let stream = OsNetwork::new().connect_tcp(to, options).await?;
            let stream: BoxStream = Box::new(Changed { stream, changes: self.0.clone() });
            Ok(stream)
        })
    }

    fn listen_tcp<'a>(
        &'a self,
        at: SocketAddr,
        options: &'a TcpOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn TcpListen>>> {
        Box::pin(async move { OsNetwork::new().listen_tcp(at, options).await })
    }

    fn bind_udp<'a>(
        &'a self,
        at: SocketAddr,
        options: &'a UdpOptions,
    ) -> BoxFuture<'a, io::Result<Arc<dyn Datagrams>>> {
        Box::pin(async move { OsNetwork::new().bind_udp(at, options).await })
    }

    fn lookup<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move { OsNetwork::new().lookup(host).await })
    }

    fn wall_clock(&self) -> SystemTime {
        OsNetwork::new().wall_clock()
    }

    fn fill_random(&self, out: &mut [u8]) {
        OsNetwork::new().fill_random(out);
    }
}

#[derive(Debug)]
struct Changed {
    stream: BoxStream,
    changes: Arc<AtomicBool>,
}

impl ByteStream for Changed {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

impl AsyncRead for Changed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Changed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.changes.load(Ordering::SeqCst) {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        let mut bytes = bytes.to_vec();
        // The last byte: of the tag of a record.
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, &bytes);
        if matches!(written, Poll::Ready(Ok(_))) {
            self.changes.store(false, Ordering::SeqCst);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
