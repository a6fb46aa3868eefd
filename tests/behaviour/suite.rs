//! What every transport must do, on every network.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vitte_net::{
    Blob, CallError, CloseCode, Config, DialError, MeshEvent, NotSent, OpenError, Peer, Refusal, Request,
    Schema, Secret, SendError, StreamCode, Trust, Undelivered,
};
use vitte_net_sim::Scenario;

use crate::arena::{Case, Play, Stage, play};

/// Asks for something, by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Schema)]
pub(crate) enum Ask {
    Echo(String),
    Fail,
    Panic,
    Hang,
    Dropped,
}

impl Request for Ask {
    const NAME: &'static str = "ask/v1";
    type Response = String;
    type Error = u32;
}

/// Nobody serves it.
#[derive(Serialize, Deserialize, Schema)]
struct Nobody;

impl Request for Nobody {
    const NAME: &'static str = "nobody/v1";
    type Response = ();
    type Error = ();
}

/// As [`Ask`], but of another shape.
#[derive(Serialize, Deserialize, Schema)]
struct Misread(u64);

impl Request for Misread {
    const NAME: &'static str = "ask/v1";
    type Response = String;
    type Error = u32;
}

/// Counts the handlers that were dropped before their end.
struct Dropping(Arc<AtomicUsize>);

impl Drop for Dropping {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

async fn answering(stage: Stage) {
    let dropped = Arc::new(AtomicUsize::new(0));
    let handler = move |_, ask: Ask| {
        let dropped = dropped.clone();
        async move {
            match ask {
                Ask::Echo(text) => Ok(text),
                Ask::Fail => Err(42),
                Ask::Panic => panic!("as asked"),
                Ask::Hang => {
                    let _dropping = Dropping(dropped);
                    std::future::pending().await
                }
                Ask::Dropped => Ok(dropped.load(Ordering::SeqCst).to_string()),
            }
        }
    };
    stage.mesh.serve(handler).expect("the name is free");
    std::future::pending::<()>().await;
}

pub(crate) async fn meet(stage: &Stage) -> Peer {
    stage.mesh.connect(&stage.server).await.expect("the server is there")
}

/// Hangs in a handler, as soon as there is room for one.
async fn hang(peer: &Peer) {
    while peer.call(Ask::Hang).await == Err(CallError::Refused(Refusal::Busy)) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn wait_for_drops(peer: &Peer, count: &str) {
    while peer.call(Ask::Dropped).await.as_deref() != Ok(count) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn a_call_is_answered_or_says_why_not() -> Case {
    case(
        play(answering),
        play(async |stage: Stage| {
            let peer = meet(&stage).await;
            for round in 0..50 {
                let text = format!("round {round}");
                assert_eq!(peer.call(Ask::Echo(text.clone())).await, Ok(text));
            }
            assert_eq!(peer.call(Ask::Fail).await, Err(CallError::Failed(42)));
            assert_eq!(peer.call(Nobody).await, Err(CallError::Refused(Refusal::NoHandler)));
            match peer.call(Misread(1)).await {
                Err(CallError::Refused(Refusal::SchemaMismatch { ours, theirs })) => {
                    assert!(ours.contains("Misread") && theirs.contains("Ask"), "{ours} / {theirs}");
                }
                other => panic!("{other:?}"),
            }
            let big = "x".repeat(9 << 20);
            assert_eq!(peer.call(Ask::Echo(big)).await, Err(CallError::NotSent(NotSent::TooLarge)));
            assert_eq!(peer.call(Ask::Echo("after".into())).await.as_deref(), Ok("after"));
        }),
    )
}

pub(crate) fn a_handler_that_panics_costs_one_call() -> Case {
    case(
        play(answering),
        play(async |stage: Stage| {
            let peer = meet(&stage).await;
            assert_eq!(peer.call(Ask::Panic).await, Err(CallError::Panicked));
            assert_eq!(peer.call(Ask::Echo("alive".into())).await.as_deref(), Ok("alive"));
        }),
    )
}

pub(crate) fn a_dropped_call_stops_its_handler() -> Case {
    case(
        play(answering),
        play(async |stage: Stage| {
            let peer = meet(&stage).await;
            let call = tokio::time::timeout(Duration::from_millis(100), async { peer.call(Ask::Hang).await });
            assert!(call.await.is_err());
            wait_for_drops(&peer, "1").await;
        }),
    )
}

pub(crate) fn a_deadline_ends_a_call_on_both_sides() -> Case {
    case(
        play(answering),
        play(async |stage: Stage| {
            let peer = meet(&stage).await;
            let call = peer.call(Ask::Hang).deadline(Duration::from_millis(100));
            assert_eq!(call.await, Err(CallError::DeadlineExceeded));
            wait_for_drops(&peer, "1").await;
        }),
    )
}

pub(crate) fn too_many_calls_are_refused_as_busy() -> Case {
    let mut case = case(
        play(answering),
        play(async |stage: Stage| {
            let peer = meet(&stage).await;
            let (first, second) = (peer.clone(), peer.clone());
            let hanging = [
                tokio::spawn(async move { hang(&first).await }),
                tokio::spawn(async move { hang(&second).await }),
            ];
            let busy = Err(CallError::Refused(Refusal::Busy));
            while peer.call(Ask::Echo("room?".into())).await != busy {
                tokio::task::yield_now().await;
            }
            hanging.iter().for_each(tokio::task::JoinHandle::abort);
            while peer.call(Ask::Echo("room?".into())).await == busy {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }),
    );
    case.config = case.config.handlers_max(2);
    case
}

pub(crate) fn a_channel_keeps_order_and_settles_receipts() -> Case {
    let server = play(async |stage: Stage| {
        let mut incoming = stage.mesh.accept_duplex::<u64, String>("words/v1").expect("the name is free");
        let (_, mut channel) = incoming.next().await.expect("a channel comes");
        let mut count = 0_u64;
        while let Some(word) = channel.recv().await.expect("the channel lives") {
            assert_eq!(word, format!("word {count}"));
            count += 1;
        }
        channel.send(count).await.expect("the client reads").await.expect("it is taken");
        std::future::pending::<()>().await;
    });
    case(
        server,
        play(async |stage: Stage| {
            let peer = meet(&stage).await;
            let channel =
                peer.channel::<String>("words/v1").receiving::<u64>().open().await.expect("accepted");
            let (sender, mut receiver) = channel.split();
            let mut receipts = Vec::new();
            for number in 0..2000 {
                receipts.push(sender.send(format!("word {number}")).await.expect("the channel is open"));
            }
            for receipt in receipts {
                assert_eq!(receipt.await, Ok(()));
            }
            let counters = sender.counters().expect("the channel lives");
            assert_eq!((counters.offered, counters.delivered, counters.in_flight), (2000, 2000, 0));
            sender.finish().await.expect("all was taken");
            assert_eq!(receiver.recv().await, Ok(Some(2000)));
            assert!(peer.counters().balanced());
        }),
    )
}

pub(crate) fn a_channel_says_at_open_why_it_is_refused() -> Case {
    let server = play(async |stage: Stage| {
        let _incoming = stage.mesh.accept::<u32>("numbers/v1").expect("the name is free");
        std::future::pending::<()>().await;
    });
    case(
        server,
        play(async |stage: Stage| {
            let peer = meet(&stage).await;
            assert_eq!(peer.channel::<u32>("nothing").open().await.err(), Some(OpenError::NoSuchName));
            match peer.channel::<String>("numbers/v1").open().await {
                Err(OpenError::SchemaMismatch { theirs }) => assert!(theirs.contains("u32"), "{theirs}"),
                other => panic!("{other:?}"),
            }
            assert!(peer.channel::<u32>("numbers/v1").open().await.is_ok());
            let long = "n".repeat(256);
            assert_eq!(peer.channel::<u32>(&long).open().await.err(), Some(OpenError::NameTooLong));
        }),
    )
}

pub(crate) fn messages_of_any_size_up_to_the_limit_arrive() -> Case {
    let server = play(async |stage: Stage| {
        let mut incoming = stage.mesh.accept::<Blob>("blobs/v1").expect("the name is free");
        let (_, mut channel) = incoming.next().await.expect("a channel comes");
        while let Ok(Some(blob)) = channel.recv().await {
            channel.send(blob).await.expect("the client reads").await.expect("it is taken");
        }
        std::future::pending::<()>().await;
    });
    case(
        server,
        play(async |stage: Stage| {
            let peer = meet(&stage).await;
            let mut channel = peer.channel::<Blob>("blobs/v1").open().await.expect("accepted");
            for len in [0, 1, 63, 64, 16_383, 16_384, 65_536, 300_000, (8 << 20) - 4] {
                let blob = Blob::from((0..len).map(|i: u32| i.to_le_bytes()[0]).collect::<Vec<u8>>());
                channel.send(blob.clone()).await.expect("the channel is open").await.expect("it is taken");
                assert!(channel.recv().await == Ok(Some(blob)), "{len} bytes came back changed");
            }
            let too_large = channel.send(Blob::from(vec![0; (8 << 20) + 1])).await;
            assert!(matches!(too_large, Err(SendError::TooLarge { .. })));
        }),
    )
}

pub(crate) fn a_stopped_channel_refuses_what_was_not_taken() -> Case {
    let server = play(async |stage: Stage| {
        let mut incoming = stage.mesh.accept_raw("stop/v1").expect("the name is free");
        let mut go = stage.mesh.accept_raw("go/v1").expect("the name is free");
        let (_, channel) = incoming.next().await.expect("a channel comes");
        let _go = go.next().await;
        let (_sender, mut receiver) = channel.split();
        assert_eq!(receiver.recv().await.expect("it lives").as_deref(), Some(&b"first"[..]));
        receiver.stop(StreamCode(300), "enough");
        std::future::pending::<()>().await;
    });
    case(
        server,
        play(async |stage: Stage| {
            let peer = meet(&stage).await;
            let channel = peer.raw_channel("stop/v1").open().await.expect("accepted");
            let (sender, _receiver) = channel.split();
            let first = sender.send("first").await.expect("open");
            let second = sender.send("second").await.expect("open");
            let _go = peer.raw_channel("go/v1").open().await.expect("accepted");
            assert_eq!(first.await, Ok(()));
            assert_eq!(second.await, Err(Undelivered::Refused(StreamCode(300))));
            assert_eq!(sender.stopped().await, (StreamCode(300), String::from("enough")));
            assert!(matches!(sender.send("third").await, Err(SendError::Closed)));
        }),
    )
}

pub(crate) fn a_full_queue_pushes_back() -> Case {
    let server = play(async |stage: Stage| {
        let mut incoming = stage.mesh.accept_raw("slow/v1").expect("the name is free");
        let mut go = stage.mesh.accept_raw("go/v1").expect("the name is free");
        let (_, mut channel) = incoming.next().await.expect("a channel comes");
        let _go = go.next().await;
        while let Ok(Some(_)) = channel.recv().await {}
        std::future::pending::<()>().await;
    });
    case(
        server,
        play(async |stage: Stage| {
            let peer = meet(&stage).await;
            let channel = peer.raw_channel("slow/v1").open().await.expect("accepted");
            let mut receipts = Vec::new();
            loop {
                match channel.try_send(vec![0; 50_000]) {
                    Ok(receipt) => receipts.push(receipt),
                    Err(SendError::Full) => break,
                    Err(other) => panic!("{other}"),
                }
                assert!(receipts.len() < 1000, "a queue without a bound");
            }
            let waiting = tokio::time::timeout(Duration::from_millis(200), channel.send(vec![0; 50_000]));
            let waited = waiting.await;
            // The window may have taken some in the meantime; then the next ones wait.
            if let Ok(sent) = waited {
                receipts.push(sent.expect("the channel is open"));
            }
            let _go = peer.raw_channel("go/v1").open().await.expect("accepted");
            for receipt in receipts {
                assert_eq!(receipt.await, Ok(()));
            }
            channel.send("room again").await.expect("open").await.expect("taken");
        }),
    )
}

pub(crate) fn a_byte_stream_carries_megabytes_both_ways() -> Case {
    let server = play(async |stage: Stage| {
        let mut incoming = stage.mesh.accept_bytes("pipe").expect("the name is free");
        let (_, stream) = incoming.next().await.expect("a stream comes");
        let (mut reader, mut writer) = tokio::io::split(stream);
        tokio::io::copy(&mut reader, &mut writer).await.expect("the stream lives");
        writer.shutdown().await.expect("all is read");
        std::future::pending::<()>().await;
    });
    case(
        server,
        play(async |stage: Stage| {
            let peer = meet(&stage).await;
            let stream = peer.byte_stream("pipe").open().await.expect("accepted");
            let (mut reader, mut writer) = tokio::io::split(stream);
            let sent: Vec<u8> = (0..5_000_000_u32).map(|i| (i / 7).to_le_bytes()[0]).collect();
            let copy = sent.clone();
            let writing = tokio::spawn(async move {
                writer.write_all(&copy).await.expect("the stream lives");
                writer.shutdown().await.expect("all is read");
            });
            let mut back = Vec::new();
            reader.read_to_end(&mut back).await.expect("the stream lives");
            assert!(back == sent, "{} bytes came back changed", back.len());
            writing.await.expect("the writer ends");
        }),
    )
}

pub(crate) fn raw_channels_carry_bytes() -> Case {
    let server = play(async |stage: Stage| {
        let mut incoming = stage.mesh.accept_raw("raw").expect("the name is free");
        while let Some((_, mut channel)) = incoming.next().await {
            while let Ok(Some(message)) = channel.recv().await {
                let _ = channel.send(message).await;
            }
        }
    });
    case(
        server,
        play(async |stage: Stage| {
            let peer = meet(&stage).await;
            let mut channel = peer.raw_channel("raw").open().await.expect("accepted");
            for message in [&b""[..], b"one", &[0xff; 1000]] {
                let _receipt = channel.send(message.to_vec()).await.expect("open");
                assert_eq!(channel.recv().await.expect("it lives").as_deref(), Some(message));
            }
        }),
    )
}

pub(crate) fn draining_lets_work_finish() -> Case {
    case(
        play(answering),
        play(async |stage: Stage| {
            let mut events = stage.mesh.events();
            let peer = meet(&stage).await;
            let up = MeshEvent::Up { peer: peer.id(), transport: stage.server.transport() };
            assert_eq!(events.next().await, Some(up));
            assert_eq!(peer.call(Ask::Echo("last".into())).await.as_deref(), Ok("last"));
            stage.mesh.drain(Duration::from_secs(2), Duration::from_secs(3)).await;
            assert!(peer.is_lost());
            assert_eq!(peer.call(Ask::Fail).await, Err(CallError::NotSent(NotSent::Lost)));
            assert!(matches!(events.next().await, Some(MeshEvent::Down { .. })));
        }),
    )
}

/// Answers calls with what this side saw of rejected connections.
async fn rejecting(stage: Stage) {
    let mut events = stage.mesh.events();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let answer = seen.clone();
    let handler = move |_, _: Ask| {
        let seen = format!("{:?}", answer.lock().expect("no handler panics"));
        async move { Ok(seen) }
    };
    stage.mesh.serve(handler).expect("the name is free");
    while let Some(event) = events.next().await {
        if let MeshEvent::Rejected { code: Some(code), .. } = event {
            seen.lock().expect("no handler panics").push(code.0);
        }
    }
}

pub(crate) fn a_wrong_secret_delivers_nothing() -> Case {
    case(
        play(rejecting),
        play(async |stage: Stage| {
            let stranger = (stage.another)(9, Trust::secret(Secret::generate())).await;
            match stranger.connect(&stage.server).await {
                Err(DialError::Failed(failures)) => {
                    assert_eq!(failures[0].1.code(), Some(CloseCode::AUTH_FAILED), "{failures:?}");
                }
                other => panic!("{other:?}"),
            }
            let listed = (stage.another)(8, Trust::keys([stage.mesh.id()])).await;
            match listed.connect(&stage.server).await {
                Err(DialError::Failed(failures)) => {
                    assert_eq!(failures[0].1.code(), Some(CloseCode::NOT_TRUSTED), "{failures:?}");
                }
                other => panic!("{other:?}"),
            }
            let peer = meet(&stage).await;
            let both = format!("{:?}", [CloseCode::AUTH_FAILED.0, CloseCode::NOT_TRUSTED.0]);
            while peer.call(Ask::Fail).await.as_deref() != Ok(&both) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }),
    )
}

pub(crate) fn case(server: Play, client: Play) -> Case {
    Case { config: Config::wan(), faults: Scenario::new(), server, client }
}
