//! A peer that reads nothing of what it is offered.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncWrite;
use vitte_net::{Config, Mesh, MeshEvent, Peer, PeerStream, RawChannel, SendError};
use vitte_net_proto::frame::{Decoded, Frame, Offsets, read_frame};
use vitte_net_proto::{Lane, Limits};

use crate::peer::{HONEST, HOSTILE, Raw, VICTIM, echo, hello, id, mesh, transports, until};
use crate::{Times, alone, form, growth, long, mib, report};

/// What is offered in all, half of it as messages and half as bytes of a stream, and how much of each at once.
const OFFERED: usize = 256 << 20;
const PART: usize = 256 << 10;
/// What both sides **together** may grow by; the bar allows each of them as much.
const MOST: usize = 16 << 20;

/// One of each, whose other ends are open and not read.
struct Unread {
    channel: RawChannel,
    stream: PeerStream,
}

impl Unread {
    async fn open(peer: &Peer) -> Self {
        let channel = peer.raw_channel("messages").open().await.expect("a channel");
        let stream = peer.byte_stream("bytes").open().await.expect("a byte stream");
        Self { channel, stream }
    }

    /// Offers a message and bytes that have no room any more. How many bytes were taken.
    async fn offer(&mut self) -> usize {
        let mut taken = match self.channel.try_send(vec![7; PART]) {
            Ok(_) => PART,
            Err(SendError::Full) => 0,
            Err(error) => panic!("{error}"),
        };
        let part = vec![7; PART];
        let mut rest = &part[..];
        while let Some(len) = self.write_now(rest).await {
            taken += len;
            rest = &rest[len..];
            if rest.is_empty() {
                break;
            }
        }
        taken
    }

    async fn write_now(&mut self, bytes: &[u8]) -> Option<usize> {
        poll_fn(|cx| {
            let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
            Poll::Ready(match written {
                Poll::Ready(written) => Some(written.expect("the stream lives")),
                Poll::Pending => None,
            })
        })
        .await
    }
}

/// Accepts what is opened, and reads none of it.
fn leave_unread(mesh: &Mesh) {
    let mut channels = mesh.accept_raw("messages").expect("the name is free");
    let mut streams = mesh.accept_bytes("bytes").expect("the name is free");
    tokio::spawn(async move {
        let mut kept = (Vec::new(), Vec::new());
        loop {
            tokio::select! {
                biased;
                Some(channel) = channels.next() => kept.0.push(channel),
                Some(stream) = streams.next() => kept.1.push(stream),
                else => return,
            }
        }
    });
}

async fn calls(peer: &Peer, count: usize) -> Duration {
    let mut times = Times::default();
    for _ in 0..count {
        times.measure(echo(peer)).await;
    }
    times.percentile(99)
}

/// An application that does not read: what waits stays small, and calls of the same peer go on as before.
fn application(scheme: &'static str) {
    alone(async |_| {
        let mut slower = Vec::new();
        for _ in 0..form(1, 5) {
            let reader = mesh(VICTIM, &[scheme], Config::wan()).await;
            leave_unread(&reader);
            let writer = mesh(HONEST, &[], Config::wan()).await;
            let peer = writer.connect(&reader.addresses()[0]).await.expect("connected");
            let rounds = OFFERED / PART / 2;
            calls(&peer, rounds / 4).await;
            let idle = calls(&peer, rounds).await;
            let mut times = Times::default();
            let (taken, grown) = growth(async {
                let mut unread = Unread::open(&peer).await;
                let mut taken = 0;
                for _ in 0..rounds {
                    taken += unread.offer().await;
                    times.measure(echo(&peer)).await;
                }
                (unread, taken)
            })
            .await;
            let busy = times.percentile(99);
            report(
                "unread",
                &format!(
                    "{scheme}: 256 MiB offered, {:.1} MiB taken; {:.1} MiB more on both sides; p99 of a call {idle:?} \
                     before, {busy:?} meanwhile",
                    mib(taken.1),
                    mib(grown),
                ),
            );
            assert!(grown < MOST, "{grown} bytes");
            slower.push(busy.as_secs_f64() / idle.as_secs_f64());
            drop(taken);
            writer.drain(Duration::ZERO, Duration::from_secs(1)).await;
            reader.drain(Duration::ZERO, Duration::from_secs(1)).await;
        }
        slower.sort_by(f64::total_cmp);
        report("unread", &format!("{scheme}: p99 meanwhile in proportion to before: {slower:.2?}"));
        // One round says little on a machine that does other things, too.
        assert!(!long() || slower[slower.len() / 2] < 2.0, "{slower:.2?}");
    });
}

/// A peer whose socket is not read either, and which has given all the credit there is.
fn socket(scheme: &'static str) {
    alone(async |_| {
        let victim = mesh(VICTIM, &[scheme], Config::wan()).await;
        let mut events = victim.events();
        let address = victim.addresses().remove(0);
        let honest = mesh(HONEST, &[], Config::wan()).await;
        let other = honest.connect(&address).await.expect("an honest peer");
        let idle = calls(&other, 512).await;
        let mut deaf = Raw::new(transports(HOSTILE).dial(&address, None).await.expect("a link"));
        let limits = Limits { max_message: 1 << 30, stream_window: 1 << 40, max_streams: 1 << 20 };
        deaf.greet(&vitte_net_proto::Hello { limits, ..hello(1) }).await;
        let up = |event| matches!(event, MeshEvent::Up { peer, .. } if peer == id(HOSTILE)).then_some(());
        until(&mut events, up).await;
        let peer = victim.peer(id(HOSTILE)).await.expect("it has a session");
        let mut unread = {
            let (opening, mut listening) = (pin!(Unread::open(&peer)), pin!(hear_opens(&mut deaf)));
            tokio::select! {
                biased;
                unread = opening => unread,
                () = &mut listening => unreachable!("it goes on"),
            }
        };
        let mut times = Times::default();
        let (taken, grown) = growth(async {
            let mut taken = 0;
            for _ in 0..OFFERED / PART / 2 {
                taken += unread.offer().await;
                times.measure(echo(&other)).await;
            }
            taken
        })
        .await;
        report(
            "deaf",
            &format!(
                "{scheme}: 256 MiB offered, {:.1} MiB taken; {:.1} MiB more on both sides; p99 of a call of another \
                 peer {idle:?} before, {:?} meanwhile",
                mib(taken),
                mib(grown),
                times.percentile(99),
            ),
        );
        assert!(grown < MOST, "{grown} bytes");
        drop(unread);
        victim.drain(Duration::ZERO, Duration::from_secs(1)).await;
    });
}

/// Accepts what the victim opens, with credit without end.
async fn hear_opens(deaf: &mut Raw) {
    let mut torn = Vec::new();
    loop {
        deaf.listen().await.expect("the link lives");
        for lane in 0..Lane::COUNT {
            torn.extend(deaf.take(Lane(lane)));
        }
        let mut out = Vec::new();
        while let Ok(Decoded::Frame(frame, len)) = read_frame(&torn) {
            if let Frame::Open { stream, .. } = frame {
                let offsets = Offsets { taken: 0, received: 0, limit: 1 << 40 };
                Frame::Offsets { stream, offsets }.put(&mut out);
            }
            torn.drain(..len);
        }
        deaf.say_bytes(&out).await.expect("the link lives");
    }
}

macro_rules! unread {
    ($($name:ident: $case:ident, $scheme:literal;)+) => {
        $(#[test]
        fn $name() {
            $case($scheme);
        })+
    };
}

unread! {
    what_nobody_reads_stays_small_quic: application, "quic";
    what_nobody_reads_stays_small_tls: application, "tls";
    what_nobody_reads_stays_small_ws: application, "ws";
    a_deaf_peer_costs_little_quic: socket, "quic";
    a_deaf_peer_costs_little_tls: socket, "tls";
    a_deaf_peer_costs_little_ws: socket, "ws";
}
