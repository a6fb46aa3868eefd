//! Delivery classes other than reliable.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use vitte_net::{OpenError, SendError, Undelivered};

use crate::arena::{Case, Stage, play};
use crate::suite::{case, meet};

/// Values that one run sends.
const VALUES: u64 = 1000;

pub(crate) fn a_latest_channel_delivers_the_newest_and_says_what_it_superseded() -> Case {
    let server = play(async |stage: Stage| {
        let mut incoming = stage.mesh.accept_latest_duplex::<u64, u64>("pos/v1").expect("the name is free");
        let mut go = stage.mesh.accept_raw("go/v1").expect("the name is free");
        let (_, channel) = incoming.next().await.expect("a channel comes");
        let (sender, mut receiver) = channel.split();
        let _go = go.next().await;
        let mut taken = Vec::new();
        while taken.last() != Some(&VALUES) {
            let value = receiver.recv().await.expect("it lives").expect("it goes on");
            assert!(taken.last().is_none_or(|before| *before < value), "{value} came behind {taken:?}");
            taken.push(value);
        }
        let count = taken.len() as u64;
        sender.send(count).await.expect("open").await.expect("it is the newest");
        std::future::pending::<()>().await;
    });
    let client = play(async |stage: Stage| {
        let peer = meet(&stage).await;
        let channel = peer.channel::<u64>("pos/v1").latest().open().await.expect("accepted");
        let (sender, mut receiver) = channel.split();
        let mut receipts = Vec::new();
        for value in 1..=VALUES {
            receipts.push(sender.send(value).await.expect("there is always room"));
            assert!(sender.counters().expect("it lives").balanced());
        }
        // Nobody reads yet: what was transmitted waits, and only the newest of it is kept.
        let _go = peer.raw_channel("go/v1").open().await.expect("accepted");
        let count = receiver.recv().await.expect("it lives").expect("it goes on");
        let (mut delivered, mut superseded) = (Vec::new(), 0);
        for (receipt, value) in receipts.into_iter().zip(1..) {
            match receipt.await {
                Ok(()) => delivered.push(value),
                Err(Undelivered::Superseded) => superseded += 1,
                Err(other) => panic!("value {value}: {other}"),
            }
        }
        assert_eq!((delivered.len() as u64, delivered.last()), (count, Some(&VALUES)));
        assert!(superseded > VALUES / 2, "only {superseded} were superseded");
        let counters = sender.counters().expect("it lives");
        assert_eq!((counters.offered, counters.delivered), (VALUES, count));
        assert_eq!((counters.superseded, counters.in_flight), (superseded, 0));
        sender.finish().await.expect("all was consumed");
    });
    case(server, client)
}

pub(crate) fn a_channel_of_another_class_is_refused_at_open() -> Case {
    let server = play(async |stage: Stage| {
        let _every = stage.mesh.accept::<u64>("every/v1").expect("the name is free");
        let _newest = stage.mesh.accept_latest::<u64>("newest/v1").expect("the name is free");
        let _raw = stage.mesh.accept_latest_raw("raw/v1").expect("the name is free");
        let _ticks = stage.mesh.accept_datagrams::<u64>("ticks/v1").expect("the name is free");
        std::future::pending::<()>().await;
    });
    let client = play(async |stage: Stage| {
        let peer = meet(&stage).await;
        match peer.channel::<u64>("every/v1").latest().open().await {
            Err(OpenError::WrongClass { theirs }) => assert!(theirs.contains("every message"), "{theirs}"),
            other => panic!("{other:?}"),
        }
        match peer.channel::<u64>("newest/v1").open().await {
            Err(OpenError::WrongClass { theirs }) => assert!(theirs.contains("newest"), "{theirs}"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(peer.raw_channel("raw/v1").open().await, Err(OpenError::WrongClass { .. })));
        for name in ["every/v1", "newest/v1"] {
            let refused = peer.datagrams::<u64>(name).open().await;
            assert!(matches!(refused, Err(OpenError::WrongClass { .. })), "{refused:?}");
        }
        match peer.channel::<u64>("ticks/v1").open().await {
            Err(OpenError::WrongClass { theirs }) => assert!(theirs.contains("datagrams"), "{theirs}"),
            other => panic!("{other:?}"),
        }
        match peer.datagrams::<u32>("ticks/v1").open().await {
            Err(OpenError::SchemaMismatch { theirs }) => assert!(theirs.contains("u64"), "{theirs}"),
            other => panic!("{other:?}"),
        }
        assert!(peer.datagrams::<u64>("ticks/v1").open().await.is_ok());
        assert!(peer.channel::<u64>("every/v1").open().await.is_ok());
        assert!(peer.channel::<u64>("newest/v1").latest().open().await.is_ok());
        assert!(peer.raw_channel("raw/v1").latest().open().await.is_ok());
    });
    case(server, client)
}

pub(crate) fn datagrams_arrive_in_order_and_are_counted() -> Case {
    let server = play(async |stage: Stage| {
        let mut incoming =
            stage.mesh.accept_datagrams_duplex::<u32, u64>("ticks/v1").expect("the name is free");
        let (_, channel) = incoming.next().await.expect("a channel comes");
        let (sender, mut receiver) = channel.split();
        let mut last = 0;
        for _ in 0..200 {
            let value = receiver.recv().await.expect("it lives").expect("it goes on");
            assert!(value > last, "{value} came behind {last}");
            last = value;
        }
        drop(receiver);
        // The other direction lives.
        for number in 0.. {
            if sender.send(&number) == Err(SendError::Closed) {
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
        std::future::pending::<()>().await;
    });
    let client = play(async |stage: Stage| {
        let peer = meet(&stage).await;
        let channel = peer.datagrams::<u64>("ticks/v1").receiving::<u32>().open().await.expect("accepted");
        let (sender, mut receiver) = channel.split();
        // Until the server has two hundred of them, and stops.
        for number in 1.. {
            if sender.send(&number) == Err(SendError::Closed) {
                break;
            }
            assert!(sender.counters().expect("it lives").balanced());
            sleep(Duration::from_millis(1)).await;
        }
        assert!(sender.finish().await.is_err(), "it was stopped");
        let counters = sender.counters().expect("it lives");
        assert_eq!((counters.delivered, counters.in_flight), (200, 0));
        assert!(counters.balanced());
        assert!(receiver.recv().await.expect("it lives").is_some());
    });
    case(server, client)
}

pub(crate) fn datagrams_too_long_for_a_packet_arrive_and_too_long_ones_are_refused() -> Case {
    let server = play(async |stage: Stage| {
        let mut incoming = stage.mesh.accept_datagrams_raw("big").expect("the name is free");
        let (_, channel) = incoming.next().await.expect("a channel comes");
        let (sender, mut receiver) = channel.split();
        while let Ok(Some(message)) = receiver.recv().await {
            sender.send(message).expect("it was not too long on its way here");
        }
        std::future::pending::<()>().await;
    });
    let client = play(async |stage: Stage| {
        let peer = meet(&stage).await;
        let (sender, mut receiver) = peer.raw_datagrams("big").open().await.expect("accepted").split();
        for len in [0, 1, 1000, 1500, 9000, 15_000] {
            // A packet may be lost, also on loopback.
            let echo = loop {
                sender.send(vec![7; len]).expect("open");
                match tokio::time::timeout(Duration::from_secs(1), receiver.recv()).await {
                    Ok(echo) => break echo.expect("it lives").expect("it goes on"),
                    Err(_) => continue,
                }
            };
            assert!(echo.len() <= len && echo.iter().all(|byte| *byte == 7));
        }
        assert_eq!(sender.send(vec![7; 15_001]), Err(SendError::TooLarge { max: 15_000 }));
    });
    case(server, client)
}

pub(crate) fn draining_does_not_wait_for_the_count_of_datagrams() -> Case {
    let server = play(async |stage: Stage| {
        let mut incoming = stage.mesh.accept_datagrams::<u64>("ticks/v1").expect("the name is free");
        let _never_read = incoming.next().await.expect("a channel comes");
        std::future::pending::<()>().await;
    });
    let client = play(async |stage: Stage| {
        let peer = meet(&stage).await;
        let (sender, _receiver) = peer.datagrams::<u64>("ticks/v1").open().await.expect("accepted").split();
        for number in 0..10 {
            sender.send(&number).expect("open");
        }
        let begun = Instant::now();
        stage.mesh.drain(Duration::from_secs(20), Duration::from_secs(30)).await;
        assert!(begun.elapsed() < Duration::from_secs(10), "it waited for what nobody will say");
        let counters = peer.counters();
        assert!(counters.balanced() && counters.in_flight == 0, "{counters:?}");
    });
    case(server, client)
}
