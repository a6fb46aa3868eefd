//! How things end: work that is drained, waits that must not last, strangers that repeat what they heard.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use vitte_net::transport::{Link, Transports};
use vitte_net::{Address, CallError, CloseCode, Config, DialError, MeshEvent, NotSent, StreamCode, Trust};
use vitte_net_proto::frame::Frame;
use vitte_net_proto::{Handshake, Hello, Incarnation, Lane, Limits, Proof, Step};

use crate::arena::{Case, Stage, play, secret};
use crate::suite::{Ask, case, meet};

/// Longer than anything here takes, shorter than what it would wait for if nobody told it.
const SOON: Duration = Duration::from_secs(2);

/// More of them than a byte link has windows.
const STUCK: usize = 12;

/// Answers `Echo` after a while, and tells when it has begun.
fn slowly(stage: &Stage) -> Arc<Notify> {
    let begun = Arc::new(Notify::new());
    let tell = begun.clone();
    let handler = move |_, ask: Ask| {
        tell.notify_one();
        async move {
            sleep(Duration::from_millis(300)).await;
            match ask {
                Ask::Echo(text) => Ok(text),
                _ => Err(1),
            }
        }
    };
    stage.mesh.serve(handler).expect("the name is free");
    begun
}

pub(crate) fn a_caller_that_drains_gets_its_answer() -> Case {
    let begun = Arc::new(Notify::new());
    let tell = begun.clone();
    let server = play(move |stage: Stage| {
        let tell = tell.clone();
        async move {
            slowly(&stage).notified().await;
            tell.notify_one();
            std::future::pending::<()>().await;
        }
    });
    let client = play(move |stage: Stage| {
        let begun = begun.clone();
        async move {
            let peer = meet(&stage).await;
            let drain = async {
                begun.notified().await;
                stage.mesh.drain(Duration::from_secs(2), Duration::from_secs(3)).await;
            };
            let call = async { peer.call(Ask::Echo("last".into())).await };
            let (answer, ()) = tokio::join!(call, drain);
            assert_eq!(answer.as_deref(), Ok("last"));
        }
    });
    case(server, client)
}

pub(crate) fn a_node_that_drains_answers_its_callers_and_lets_nobody_in() -> Case {
    // The answer is held until all else has been seen.
    let release = Arc::new(Notify::new());
    let held = release.clone();
    let server = play(move |stage: Stage| {
        let held = held.clone();
        async move {
            let begun = Arc::new(Notify::new());
            let tell = begun.clone();
            let handler = move |_, ask: Ask| {
                tell.notify_one();
                let held = held.clone();
                async move {
                    held.notified().await;
                    match ask {
                        Ask::Echo(text) => Ok(text),
                        _ => Err(1),
                    }
                }
            };
            stage.mesh.serve(handler).expect("the name is free");
            begun.notified().await;
            stage.mesh.drain(Duration::from_secs(20), Duration::from_secs(30)).await;
            std::future::pending::<()>().await;
        }
    });
    let client = play(move |stage: Stage| {
        let release = release.clone();
        async move {
            let peer = meet(&stage).await;
            let mut events = stage.mesh.events();
            let late = async {
                while !matches!(events.next().await, Some(MeshEvent::Draining { .. })) {}
                assert_eq!(peer.call(Ask::Fail).await, Err(CallError::NotSent(NotSent::Draining)));
                let other = (stage.another)(9, Trust::secret(secret())).await;
                match other.connect(&stage.server).await {
                    Err(DialError::Failed(failures)) => {
                        assert_eq!(failures[0].1.code(), Some(CloseCode::SHUTDOWN), "{failures:?}");
                    }
                    other => panic!("{other:?}"),
                }
                release.notify_one();
            };
            let call = async { peer.call(Ask::Echo("last".into())).await };
            let (answer, ()) = tokio::join!(call, late);
            assert_eq!(answer.as_deref(), Ok("last"));
        }
    });
    case(server, client)
}

pub(crate) fn streams_and_events_of_a_drained_mesh_end() -> Case {
    let server = play(async |_stage: Stage| std::future::pending::<()>().await);
    let client = play(async |stage: Stage| {
        let mut events = stage.mesh.events();
        let mut incoming = stage.mesh.accept_raw("never").expect("the name is free");
        let peer = meet(&stage).await;
        stage.mesh.drain(Duration::ZERO, Duration::from_secs(1)).await;
        let ended = async {
            while events.next().await.is_some() {}
            assert!(incoming.next().await.is_none());
        };
        timeout(SOON, ended).await.expect("a mesh that is gone says no more");
        assert!(peer.is_lost());
    });
    case(server, client)
}

pub(crate) fn a_message_that_is_taken_alone_is_settled_soon() -> Case {
    let server = play(async |stage: Stage| {
        let mut incoming = stage.mesh.accept_raw("two").expect("the name is free");
        let (_, mut channel) = incoming.next().await.expect("a channel comes");
        // Both have arrived and were acknowledged by then.
        sleep(Duration::from_millis(100)).await;
        assert_eq!(channel.recv().await.expect("it lives").as_deref(), Some(&b"one"[..]));
        std::future::pending::<()>().await;
    });
    case(
        server,
        play(async |stage: Stage| {
            let peer = meet(&stage).await;
            let channel = peer.raw_channel("two").open().await.expect("accepted");
            let one = channel.send("one").await.expect("open");
            let _two = channel.send("two").await.expect("open");
            let settled = timeout(SOON, one).await.expect("its receipt does not wait for a keep-alive");
            assert_eq!(settled, Ok(()));
        }),
    )
}

pub(crate) fn a_call_that_never_had_its_turn_was_not_sent() -> Case {
    let server = play(async |stage: Stage| {
        let handler = |_, _: Ask| async { std::future::pending::<Result<String, u32>>().await };
        stage.mesh.serve(handler).expect("the name is free");
        std::future::pending::<()>().await;
    });
    let client = play(async |stage: Stage| {
        let peer = meet(&stage).await;
        // It takes the one place that there is.
        let mut first = pin!(async { peer.call(Ask::Hang).await });
        let second = async { peer.call(Ask::Hang).deadline(Duration::from_millis(50)).await };
        let answer = tokio::select! {
            biased;
            other = &mut first => other,
            second = second => second,
        };
        assert_eq!(answer, Err(CallError::NotSent(NotSent::Expired)));
    });
    let mut case = case(server, client);
    case.config = Config::wan().max_streams(1);
    case
}

pub(crate) fn a_call_whose_deadline_is_too_short_is_nobodys_fault() -> Case {
    let runs = Arc::new(AtomicU32::new(0));
    let count = runs.clone();
    let server = play(move |stage: Stage| {
        let count = count.clone();
        async move {
            let handler = move |_, ask: Ask| {
                count.fetch_add(1, Relaxed);
                async move {
                    sleep(Duration::from_millis(3)).await;
                    match ask {
                        Ask::Echo(text) => Ok(text),
                        _ => Err(1),
                    }
                }
            };
            stage.mesh.serve(handler).expect("the name is free");
            std::future::pending::<()>().await;
        }
    });
    let client = play(move |stage: Stage| {
        let runs = runs.clone();
        async move {
            let peer = meet(&stage).await;
            let (mut calls, mut not_sent) = (0, 0);
            for (length, deadline_us) in [(0, 0), (0, 100), (0, 1_000), (300_000, 0), (300_000, 1_000)] {
                for _ in 0..60 {
                    let text = "x".repeat(length);
                    calls += 1;
                    match peer.call(Ask::Echo(text)).deadline(Duration::from_micros(deadline_us)).await {
                        Ok(_) | Err(CallError::DeadlineExceeded) => {}
                        Err(CallError::NotSent(NotSent::Expired)) => not_sent += 1,
                        Err(other) => panic!("{length} bytes, {deadline_us} us: {other:?}"),
                    }
                }
            }
            // All that was sent before this one has come to the handler.
            let last = peer.call(Ask::Echo("last".to_owned())).await;
            assert_eq!(last.as_deref(), Ok("last"));
            let (ran, sent) = (runs.load(Relaxed), calls - not_sent + 1);
            assert!(ran <= sent, "{ran} requests ran, and only {sent} were sent");
        }
    });
    case(server, client)
}

pub(crate) fn a_channel_whose_acceptor_only_sends_is_accepted() -> Case {
    let server = play(async |stage: Stage| {
        let mut incoming = stage.mesh.accept_raw("feed").expect("the name is free");
        while let Some((_, channel)) = incoming.next().await {
            let (sender, receiver) = channel.split();
            drop(receiver);
            let _receipt = sender.send("news").await.expect("open");
        }
    });
    case(
        server,
        play(async |stage: Stage| {
            let peer = meet(&stage).await;
            for _ in 0..30 {
                let mut channel = peer.raw_channel("feed").open().await.expect("accepted");
                assert_eq!(channel.recv().await.expect("it lives").as_deref(), Some(&b"news"[..]));
            }
        }),
    )
}

pub(crate) fn all_who_wait_for_a_stop_hear_of_it() -> Case {
    let server = play(async |stage: Stage| {
        let mut incoming = stage.mesh.accept_raw("stop").expect("the name is free");
        let (_, mut channel) = incoming.next().await.expect("a channel comes");
        let _go = channel.recv().await;
        let (_sender, receiver) = channel.split();
        receiver.stop(StreamCode(300), "enough");
        std::future::pending::<()>().await;
    });
    case(
        server,
        play(async |stage: Stage| {
            let peer = meet(&stage).await;
            let (sender, _receiver) = peer.raw_channel("stop").open().await.expect("accepted").split();
            let sender = Arc::new(sender);
            let waiting: Vec<_> = (0..3)
                .map(|_| {
                    let sender = sender.clone();
                    tokio::spawn(async move { sender.stopped().await })
                })
                .collect();
            // They wait by now: this task does not go on before them.
            sleep(Duration::from_millis(20)).await;
            let _receipt = sender.send("go").await.expect("open");
            for task in waiting {
                let (code, _) = timeout(SOON, task).await.expect("woken").expect("no panic");
                assert_eq!(code, StreamCode(300));
            }
        }),
    )
}

pub(crate) fn a_reader_that_stops_holds_up_no_other_stream() -> Case {
    let server = play(async |stage: Stage| {
        let mut stuck = stage.mesh.accept_raw("stuck").expect("the name is free");
        let mut echo = stage.mesh.accept_raw("echo").expect("the name is free");
        let mut never_read = Vec::new();
        for _ in 0..STUCK {
            never_read.push(stuck.next().await.expect("a channel comes"));
        }
        let (_, mut channel) = echo.next().await.expect("a channel comes");
        while let Ok(Some(message)) = channel.recv().await {
            let _receipt = channel.send(message).await.expect("the client reads");
        }
        std::future::pending::<()>().await;
    });
    case(
        server,
        play(async |stage: Stage| {
            let peer = meet(&stage).await;
            let mut stuck = Vec::new();
            for _ in 0..STUCK {
                let channel = peer.raw_channel("stuck").open().await.expect("accepted");
                let mut receipts = Vec::new();
                while let Ok(receipt) = channel.try_send(vec![7; 60_000]) {
                    receipts.push(receipt);
                }
                stuck.push((channel, receipts));
            }
            // Of the same class as those that are stuck.
            let mut channel = peer.raw_channel("echo").open().await.expect("accepted");
            let passing = async {
                for round in 0..20_u8 {
                    let message = vec![round; 50_000];
                    let _receipt = channel.send(message.clone()).await.expect("open");
                    assert!(channel.recv().await.expect("it lives").as_deref() == Some(&message[..]));
                }
            };
            timeout(Duration::from_secs(20), passing).await.expect("the other stream is not held up");
        }),
    )
}

/// A hello of a node that nobody knows yet.
fn hello(nonce: u8) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        features: 0,
        incarnation: Incarnation([nonce; 16]),
        generation: 1,
        nonce: [nonce; 32],
        proof: Proof::Secret,
        limits: Limits { max_message: 1 << 20, stream_window: 1 << 16, max_streams: 16 },
    }
}

async fn say(link: &mut Link, bytes: &[u8]) {
    link.writer.write(Lane::CONTROL, bytes).expect("the link lives");
    let _ = poll_fn(|cx| link.writer.poll_flush(cx)).await;
}

/// Whatever comes on the lane of the handshake until the link ends, or `enough` says so.
async fn hear(link: &mut Link, mut enough: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let mut heard = Vec::new();
    while !enough(&heard) {
        let deliver = &mut |lane, bytes: &[u8]| {
            if lane == Lane::CONTROL {
                heard.extend_from_slice(bytes);
            }
        };
        if link.reader.read(deliver).await.is_err() {
            break;
        }
    }
    heard
}

/// What the other side made of a link, by the frames it sent.
fn verdict(heard: &[u8]) -> Option<CloseCode> {
    let mut handshake = Handshake::new(&hello(0), &mut Vec::new());
    let mut heard = heard.to_vec();
    loop {
        match handshake.handle(&std::mem::take(&mut heard)) {
            Ok(Step::Hello(_)) => handshake.welcome([0; 32], &mut Vec::new()),
            Ok(Step::Refused { code, .. }) => return Some(code),
            // Behind the welcome.
            Ok(Step::Welcome { rest, .. }) => match vitte_net_proto::frame::read_frame(&rest) {
                Ok(vitte_net_proto::frame::Decoded::Frame(Frame::Close { code, .. }, _)) => {
                    return Some(code);
                }
                _ => return None,
            },
            _ => return None,
        }
    }
}

/// Hears hello and proof of a member who takes it for the server, and says them again to the server, with
/// the member's own key. All that differs is what the server said.
pub(crate) fn a_replayed_hello_delivers_nothing() -> Case {
    let recorded = Arc::new(Mutex::new(None::<Vec<u8>>));
    let impostor_at = Arc::new(Mutex::new(None::<Address>));
    let (record, place) = (recorded.clone(), impostor_at.clone());
    let server = play(move |stage: Stage| {
        let (record, place) = (record.clone(), place.clone());
        async move {
            let rejected = Arc::new(Mutex::new(Vec::new()));
            let mut events = stage.mesh.events();
            let tell = rejected.clone();
            tokio::spawn(async move {
                while let Some(event) = events.next().await {
                    match event {
                        MeshEvent::Rejected { code, .. } => tell.lock().expect("no panic").push(code),
                        MeshEvent::Up { .. } => tell.lock().expect("no panic").push(None),
                        _ => {}
                    }
                }
            });
            stage
                .mesh
                .serve(move |_, _: Ask| {
                    let seen = format!("{:?}", rejected.lock().expect("no panic"));
                    async move { Ok(seen) }
                })
                .expect("the name is free");
            // The key of the server, as if it were stolen: proofs name the keys of both sides.
            let transports: Transports = (stage.transports)(1);
            let host = if stage.server.host() == "server" { "0.0.0.0" } else { "127.0.0.1" };
            let at = Address::new(stage.server.transport(), host, if host == "0.0.0.0" { 7100 } else { 0 });
            let listener = transports.listen(&at).await.expect("the port is free");
            let reachable = listener.address().port();
            *place.lock().expect("no panic") =
                Some(Address::new(stage.server.transport(), stage.server.host(), reachable));
            let incoming = listener.accept().await.expect("the member comes");
            let mut link = incoming.handshake().await.expect("it proves its key");
            let mut out = Vec::new();
            let mut handshake = Handshake::new(&hello(1), &mut out);
            handshake.welcome([0; 32], &mut out);
            say(&mut link, &out).await;
            let heard = hear(&mut link, |heard| {
                let mut frames = Handshake::new(&hello(1), &mut Vec::new());
                if let Ok(Step::Hello(_)) = frames.handle(heard) {
                    frames.welcome([0; 32], &mut Vec::new());
                    return matches!(frames.handle(&[]), Ok(Step::Welcome { .. }));
                }
                false
            })
            .await;
            *record.lock().expect("no panic") = Some(heard);
            std::future::pending::<()>().await;
        }
    });
    let client = play(move |stage: Stage| {
        let (recorded, impostor_at) = (recorded.clone(), impostor_at.clone());
        async move {
            async fn when<T>(place: &Mutex<Option<T>>) -> T {
                loop {
                    if let Some(value) = place.lock().expect("no panic").take() {
                        return value;
                    }
                    sleep(Duration::from_millis(5)).await;
                }
            }
            let impostor = when(&impostor_at).await;
            let member = (stage.another)(9, Trust::secret(secret())).await;
            match member.connect(&impostor).await {
                Err(DialError::Failed(failures)) => {
                    assert_eq!(failures[0].1.code(), Some(CloseCode::AUTH_FAILED), "{failures:?}");
                }
                other => panic!("{other:?}"),
            }
            drop(member);
            let recorded = when(&recorded).await;
            assert!(recorded.len() > 100, "a hello and a welcome");

            let transports: Transports = (stage.transports)(9);
            let mut link = transports.dial(&stage.server, None).await.expect("the key is the member's");
            say(&mut link, &recorded).await;
            let heard = hear(&mut link, |_| false).await;
            assert_eq!(verdict(&heard), Some(CloseCode::AUTH_FAILED), "{heard:?}");
            link.writer.close();

            let peer = meet(&stage).await;
            // The replay was rejected, and nothing but the client itself came up.
            let expected = format!("{:?}", [Some(CloseCode::AUTH_FAILED), None]);
            let told = async {
                while peer.call(Ask::Fail).await.as_deref() != Ok(&expected) {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(SOON, told).await.expect("the server says whom it rejected");
        }
    });
    case(server, client)
}
