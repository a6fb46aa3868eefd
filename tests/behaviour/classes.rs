//! Delivery classes other than reliable.

use vitte_net::{OpenError, Undelivered};

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
        assert!(peer.channel::<u64>("every/v1").open().await.is_ok());
        assert!(peer.channel::<u64>("newest/v1").latest().open().await.is_ok());
        assert!(peer.raw_channel("raw/v1").latest().open().await.is_ok());
    });
    case(server, client)
}
