//! Frames that an authenticated peer must not send, and floods of those that it may.

use std::future::{Future, IntoFuture, poll_fn};
use std::pin::pin;
use std::task::Poll;

use tokio::time::timeout;
use vitte_net::{CallError, CloseCode, Config, Events, Mesh, MeshEvent, Peer, Refusal, Request, StreamCode};
use vitte_net_proto::frame::{Decoded, Frame, Offsets, Open, StreamKind, kind, read_frame};
use vitte_net_proto::{DeliveryClass, Lane, Priority, StreamId};

use crate::on_every_transport;
use crate::peer::{Echo, HONEST, HOSTILE, Raw, SOON, VICTIM, echo, id, mesh, transports, until};

/// The name of a channel that is accepted and never read.
const SINK: &str = "sink";

/// What every case has: a victim, its honest peer, and links for the hostile one.
struct Scene {
    victim: Mesh,
    honest: Peer,
    _honest: Mesh,
    events: Events,
    links: vitte_net::transport::Transports,
    lives: u8,
}

impl Scene {
    async fn new(scheme: &str) -> Self {
        let victim = mesh(VICTIM, &[scheme], Config::wan()).await;
        let mut sink = victim.accept_raw(SINK).expect("the name is free");
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Some(channel) = sink.next().await {
                kept.push(channel);
            }
        });
        let mesh = mesh(HONEST, &[], Config::wan()).await;
        let honest = mesh.connect(&victim.addresses()[0]).await.expect("an honest peer");
        echo(&honest).await;
        let events = victim.events();
        Self { victim, honest, _honest: mesh, events, links: transports(HOSTILE), lives: 0 }
    }

    /// The hostile peer, in a session of its own.
    async fn hostile(&mut self) -> Raw {
        self.lives += 1;
        Raw::greeted(&self.links, &self.victim.addresses()[0], self.lives).await
    }

    /// Says bytes, and is cut for them with a code and a reason that both sides see.
    async fn is_cut(&mut self, what: &str, bytes: &[u8], code: CloseCode, reason: &str) {
        let mut hostile = self.hostile().await;
        // The link may be cut before all of it is said.
        let _ = hostile.say_bytes(bytes).await;
        let told = hostile.last_word().await;
        assert_eq!(told, Some((code, reason.to_owned())), "{what}: as the hostile peer sees it");
        let seen = until(&mut self.events, |event| match event {
            MeshEvent::Violation { peer, code, reason, ours: false, .. } => Some((peer, code, reason)),
            _ => None,
        });
        assert_eq!(seen.await, (id(HOSTILE), code, reason.to_owned()), "{what}: as the victim sees it");
        echo(&self.honest).await;
    }

    /// Says bytes again and again, hears the answers, and is still there.
    async fn is_borne(&mut self, what: &str, bytes: &[u8], times: usize) {
        let mut hostile = self.hostile().await;
        for _ in 0..times {
            pump(&mut hostile, bytes).await;
            hostile.forget();
        }
        is_alive(what, &mut hostile).await;
        echo(&self.honest).await;
    }

    /// The victim's side of the session with the hostile peer.
    async fn peer_of_the_hostile(&mut self) -> Peer {
        until(&mut self.events, |event| match event {
            MeshEvent::Up { peer, .. } if peer == id(HOSTILE) => Some(()),
            _ => None,
        })
        .await;
        self.victim.peers().into_iter().find(|peer| peer.id() == id(HOSTILE)).expect("a session")
    }
}

/// The victim has read all that was said, and answers.
async fn is_alive(what: &str, hostile: &mut Raw) {
    hostile.say(&[Frame::Ping { token: 77 }]).await.expect("the link lives");
    let answered = timeout(SOON, async {
        let mut heard = Vec::new();
        loop {
            heard.extend(hostile.take(Lane::CONTROL));
            if frames_end_with_pong(&heard) {
                return;
            }
            hostile.listen().await.expect("the link lives");
        }
    });
    answered.await.unwrap_or_else(|_| panic!("{what}: no sign of life"));
}

/// Whether the PONG is among them. What was thrown away before may have torn the first frame, so that only the bytes
/// of it are looked for.
fn frames_end_with_pong(heard: &[u8]) -> bool {
    let mut pong = Vec::new();
    Frame::Pong { token: 77 }.put(&mut pong);
    heard.windows(pong.len()).any(|window| window == pong)
}

/// Waits for an OPEN, on whichever lane: the schemas that it names.
async fn hears_an_open(hostile: &mut Raw) -> (u64, u64) {
    let mut lanes = vec![Vec::new(); Lane::COUNT.into()];
    loop {
        for (lane, heard) in (0..).zip(&mut lanes) {
            heard.extend(hostile.take(Lane(lane)));
            while let Ok(Decoded::Frame(frame, len)) = read_frame(heard) {
                if let Frame::Open { open, .. } = frame {
                    return (open.schema_out, open.schema_in);
                }
                heard.drain(..len);
            }
        }
        hostile.listen().await.expect("the link lives");
    }
}

/// Writes bytes, and reads what comes meanwhile, so that neither side waits for the other.
async fn pump(hostile: &mut Raw, bytes: &[u8]) {
    for run in bytes.chunks(8 << 10) {
        hostile.link.writer.write(Lane::CONTROL, run).expect("the link lives");
        poll_fn(|cx| {
            loop {
                let mut forget = |_, _: &[u8]| ();
                let Poll::Ready(read) = pin!(hostile.link.reader.read(&mut forget)).poll(cx) else { break };
                read.expect("the link lives");
            }
            hostile.link.writer.poll_flush(cx)
        })
        .await
        .expect("the link lives");
    }
}

fn run(scheme: &'static str, case: impl AsyncFn(Scene)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime starts").block_on(async { case(Scene::new(scheme).await).await });
}

/// A stream of the hostile peer's, and one of the victim's.
fn theirs(count: u64) -> StreamId {
    StreamId(count * 2 + u64::from(id(HOSTILE) > id(VICTIM)))
}

fn ours(count: u64) -> StreamId {
    StreamId(count * 2 + u64::from(id(HOSTILE) < id(VICTIM)))
}

fn open(stream: StreamId) -> Frame<'static> {
    open_named(stream, SINK)
}

fn open_named(stream: StreamId, name: &str) -> Frame<'_> {
    let open = Open {
        kind: StreamKind::Channel,
        priority: Priority::Normal,
        class: DeliveryClass::Reliable,
        deadline_micros: None,
        schema_out: 0,
        schema_in: 0,
        name,
    };
    Frame::Open { stream, open }
}

fn data(stream: StreamId, offset: u64, payload: &[u8]) -> Frame<'_> {
    Frame::Data { stream, offset, push: true, payload }
}

fn bytes(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    frames.iter().for_each(|frame| frame.put(&mut out));
    out
}

/// A frame with any body, of which the length may say anything.
fn raw(kind: u64, len: u64, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    vitte_net_proto::codec::put_varint(&mut out, kind);
    vitte_net_proto::codec::put_varint(&mut out, len);
    out.extend_from_slice(body);
    out
}

mod cases {
    use super::*;

    const LONG: &str = "a frame is longer than its type allows";

    pub(super) async fn lengths_that_lie(mut scene: Scene) {
        for (what, kind, len) in [
            ("4 GiB of DATA", kind::DATA, 1 << 32),
            ("the longest length of PING", kind::PING, (1 << 62) - 1),
            ("a byte too many of OPEN", kind::OPEN, 4097),
            ("a byte too many of DATA", kind::DATA, 65_569),
            ("4 GiB of an unknown type", 0x3f, 1 << 32),
        ] {
            scene.is_cut(what, &raw(kind, len, b"begun"), CloseCode::FRAME_TOO_LARGE, LONG).await;
        }
        let mut message = bytes(&[open(theirs(0))]);
        message.extend(bytes(&[data(theirs(0), 0, b"\xc0\0\0\x01\0\0\0\0begun")]));
        let reason = "a message longer than the limit in the hello";
        scene.is_cut("a message of 4 GiB", &message, CloseCode::FLOW_CONTROL, reason).await;
    }

    pub(super) async fn frames_out_of_place(mut scene: Scene) {
        let hello = bytes(&[Frame::Hello(crate::peer::hello(9))]);
        let again = "a second handshake on one link";
        scene.is_cut("a second HELLO", &hello, CloseCode::WRONG_STATE, again).await;
        let welcome = bytes(&[Frame::Welcome { proof: [0; 32] }]);
        scene.is_cut("a second WELCOME", &welcome, CloseCode::WRONG_STATE, again).await;
        for (what, frame, reason) in [
            ("an OPEN of the victim's parity", open(ours(0)), "an OPEN with the number of the other side"),
            ("more streams than allowed", open(theirs(1024)), "more streams than allowed"),
            (
                "a stream that the victim never opened",
                data(ours(0), 0, b"x"),
                "a frame for a stream that this side never opened",
            ),
            (
                "offsets of a stream that the victim never opened",
                Frame::Offsets { stream: ours(7), offsets: Offsets::default() },
                "a frame for a stream that this side never opened",
            ),
        ] {
            scene.is_cut(what, &bytes(&[frame]), CloseCode::STREAM_LIMIT, reason).await;
        }
        let mut hostile = scene.hostile().await;
        let unknown = raw(0x4242, 3, b"abc");
        hostile.say_bytes(&unknown).await.expect("the victim listens");
        assert_eq!(hostile.last_word().await.map(|(code, _)| code), Some(CloseCode::UNKNOWN_FRAME));
        // An unknown odd one is skipped, however long it may be.
        scene.is_borne("an unknown odd type", &raw(0x4243, 4096, &[7; 4096]), 4).await;
    }

    pub(super) async fn fields_out_of_their_range(mut scene: Scene) {
        let name = [b'n'; 256];
        let opening = |kind: u8, priority: u8, name: &[u8]| {
            let mut body = vec![theirs(0).0.to_le_bytes()[0], kind, priority, 0, 0];
            body.extend_from_slice(&[0; 16]);
            vitte_net_proto::codec::put_varint(&mut body, name.len() as u64);
            body.extend_from_slice(name);
            raw(kind::OPEN, body.len() as u64, &body)
        };
        for (what, bytes) in [
            ("a name of 256 bytes", opening(0, 1, &name)),
            ("a name that is no UTF-8", opening(0, 1, b"\xff\xfe")),
            ("an unknown kind", opening(9, 1, b"x")),
            ("an unknown class", opening(0, 9, b"x")),
            ("a body that ends inside a field", raw(kind::OFFSETS, 2, b"\x01\x40")),
            ("a body that goes on", raw(kind::PING, 3, b"\x01\x02\x03")),
            ("an empty DATA", raw(kind::DATA, 3, &[theirs(0).0.to_le_bytes()[0], 0, 0])),
        ] {
            let mut hostile = scene.hostile().await;
            hostile.say_bytes(&bytes).await.expect("the victim listens");
            let code = hostile.last_word().await.map(|(code, _)| code);
            assert_eq!(code, Some(CloseCode::MALFORMED), "{what}");
            echo(&scene.honest).await;
        }
    }

    pub(super) async fn offsets_that_cannot_be(mut scene: Scene) {
        let first = theirs(0);
        let beyond = "bytes beyond the credit or the end of a stream";
        let overrun = bytes(&[open(first), data(first, 64 << 10, b"x")]);
        scene.is_cut("beyond the credit", &overrun, CloseCode::FLOW_CONTROL, beyond).await;
        let mut gaps = vec![open(first)];
        gaps.extend((0..17).map(|at| data(first, 10 + at * 10, b"x")));
        let reason = "more than sixteen gaps in a stream";
        scene.is_cut("a flood of gaps", &bytes(&gaps), CloseCode::FLOW_CONTROL, reason).await;
        let fin = |end| Frame::Fin { stream: first, end };
        let after = bytes(&[open(first), fin(3), data(first, 3, b"x")]);
        scene.is_cut("behind the end", &after, CloseCode::FLOW_CONTROL, beyond).await;
        let reason = "a stream with two ends, or one before its bytes";
        let twice = bytes(&[open(first), fin(3), fin(4)]);
        scene.is_cut("two ends", &twice, CloseCode::MALFORMED, reason).await;
        let back = bytes(&[open(first), data(first, 0, b"\x05abcde"), fin(2)]);
        scene.is_cut("an end before the bytes", &back, CloseCode::MALFORMED, reason).await;
        let torn = bytes(&[open(first), data(first, 0, b"\x05abc"), fin(4)]);
        let reason = "a stream that ends inside a message";
        scene.is_cut("an end inside a message", &torn, CloseCode::MALFORMED, reason).await;
        let never = Offsets { taken: 5, received: 5, limit: 100 };
        let claim = bytes(&[open(first), Frame::Offsets { stream: first, offsets: never }]);
        let reason = "an acknowledgement of bytes that were never sent";
        scene.is_cut("an acknowledgement of nothing", &claim, CloseCode::FLOW_CONTROL, reason).await;
        let (code, taken) = (StreamCode::FINISHED, 5);
        let claim = bytes(&[open(first), Frame::Stop { stream: first, code, taken, reason: "" }]);
        let reason = "a terminal state of bytes that were never sent";
        scene.is_cut("a terminal state of nothing", &claim, CloseCode::FLOW_CONTROL, reason).await;
    }

    /// All in one session: a fifth is refused, and the four live.
    pub(super) async fn links_beyond_the_bound(mut scene: Scene) {
        let address = scene.victim.addresses().remove(0);
        let mut links = Vec::new();
        for _ in 0..4 {
            links.push(Raw::greeted(&scene.links, &address, 1).await);
        }
        let mut fifth = Raw::greeted(&scene.links, &address, 1).await;
        let told = fifth.last_word().await;
        let reason = "the session takes no more links";
        assert_eq!(told, Some((CloseCode::TOO_MANY, reason.to_owned())));
        let code = until(&mut scene.events, |event| match event {
            MeshEvent::Rejected { code, .. } => Some(code),
            _ => None,
        });
        assert_eq!(code.await, Some(CloseCode::TOO_MANY));
        for link in &mut links {
            link.say(&[Frame::Ping { token: 1 }]).await.expect("it lives");
        }
        echo(&scene.honest).await;
    }

    pub(super) async fn floods(mut scene: Scene) {
        let many = |frame: Frame<'_>| bytes(&vec![frame; 2_000]);
        let code = StreamCode::DROPPED;
        for (what, flood) in [
            ("PING", many(Frame::Ping { token: 1 })),
            ("PONG", many(Frame::Pong { token: 1 })),
            ("RETIRE", many(Frame::Retire { stream: ours(3) })),
            ("MAX_STREAMS", many(Frame::MaxStreams { count: 1 << 40 })),
            (
                "OFFSETS",
                many(Frame::Offsets {
                    stream: theirs(0),
                    offsets: Offsets { limit: 9, ..Offsets::default() },
                }),
            ),
            ("STOP", many(Frame::Stop { stream: theirs(0), code, taken: 0, reason: "r" })),
            ("RESET", many(Frame::Reset { stream: theirs(0), code, reason: "r" })),
            ("DRAIN", many(Frame::Drain)),
            ("an unknown odd type", raw(0x4243, 0, b"").repeat(2_000)),
            ("OPEN, and its replay", many(open(theirs(3)))),
            ("DATA that is known", many(data(theirs(0), 0, b"x"))),
        ] {
            scene.is_borne(what, &flood, 5).await;
        }
        // A list is far longer than the question.
        let questions = raw(kind::RESUME, 1, &[1]).repeat(100);
        scene.is_cut("RESUME", &questions, CloseCode::FLOW_CONTROL, "a flood of RESUME").await;
    }

    /// More calls than handlers may run, none of which is ever finished: they are no handlers yet.
    pub(super) async fn requests_that_are_never_finished(mut scene: Scene) {
        let mut hostile = scene.hostile().await;
        let peer = scene.peer_of_the_hostile().await;
        let call = peer.call(Echo(String::from("to learn its schemas"))).into_future();
        let (schema_out, schema_in) = tokio::select! {
            biased;
            answer = call => panic!("nobody answers, but here is {answer:?}"),
            schemas = hears_an_open(&mut hostile) => schemas,
        };
        let mut calls = Vec::new();
        for count in 0..300 {
            let Frame::Open { stream, mut open } = open_named(theirs(count), <Echo as Request>::NAME) else {
                unreachable!()
            };
            (open.kind, open.schema_out, open.schema_in) = (StreamKind::Call, schema_out, schema_in);
            calls.extend([Frame::Open { stream, open }, data(stream, 0, b"\x20\x1fa part of a")]);
        }
        hostile.say(&calls).await.expect("the link lives");
        is_alive("calls", &mut hostile).await;
        echo(&scene.honest).await;
        assert!(peer.counters().balanced(), "{:?}", peer.counters());
    }

    /// A peer that answers a call with the code of a node that shuts down has not run it.
    pub(super) async fn a_call_that_is_refused_by_who_shuts_down(mut scene: Scene) {
        let mut hostile = scene.hostile().await;
        let peer = scene.peer_of_the_hostile().await;
        let call = peer.call(Echo(String::from("for nobody"))).into_future();
        let answers = async {
            hears_an_open(&mut hostile).await;
            let (stream, code) = (ours(0), StreamCode::SHUTDOWN);
            let refusal = [
                Frame::Stop { stream, code, taken: 0, reason: "" },
                Frame::Reset { stream, code, reason: "" },
            ];
            hostile.say(&refusal).await.expect("the link lives");
        };
        let (called, ()) = tokio::join!(call, answers);
        assert_eq!(called, Err(CallError::Refused(Refusal::ShuttingDown)));
        assert!(peer.counters().balanced(), "{:?}", peer.counters());
        echo(&scene.honest).await;
    }

    /// It asks and asks, and reads no answer.
    pub(super) async fn answers_that_nobody_reads(mut scene: Scene) {
        let hostile = scene.hostile().await;
        let stop = Frame::Stop { stream: theirs(0), code: StreamCode::DROPPED, taken: 0, reason: "" };
        let flood = bytes(&vec![stop; 1_000]);
        let mut writer = hostile.link.writer;
        let _reader = hostile.link.reader;
        let saying = async {
            loop {
                for run in flood.chunks(8 << 10) {
                    if writer.write(Lane::CONTROL, run).is_err() {
                        return;
                    }
                    if poll_fn(|cx| writer.poll_flush(cx)).await.is_err() {
                        return;
                    }
                }
            }
        };
        let mut cut = pin!(until(&mut scene.events, |event| match event {
            MeshEvent::Violation { code, reason, .. } => Some((code, reason)),
            _ => None,
        }));
        let expected = (CloseCode::FLOW_CONTROL, String::from("a flood of terminal states"));
        tokio::select! {
            biased;
            cut = &mut cut => assert_eq!(cut, expected),
            // The link is cut first, and then it is told why.
            () = saying => assert_eq!(cut.await, expected),
        }
        echo(&scene.honest).await;
    }
}

on_every_transport!(
    lengths_that_lie,
    frames_out_of_place,
    fields_out_of_their_range,
    offsets_that_cannot_be,
    links_beyond_the_bound,
    floods,
    a_call_that_is_refused_by_who_shuts_down,
    requests_that_are_never_finished,
    answers_that_nobody_reads,
);

/// The test's own eyes.
#[test]
fn a_pong_is_found_behind_a_torn_frame() {
    let mut heard = vec![0x3f, 0x00, 0x99];
    assert!(!frames_end_with_pong(&heard));
    heard.extend(bytes(&[Frame::Pong { token: 77 }]));
    assert!(frames_end_with_pong(&heard));
    assert!(matches!(read_frame(&heard[3..]), Ok(Decoded::Frame(Frame::Pong { token: 77 }, _))));
}
