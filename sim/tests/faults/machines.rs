use std::cell::Cell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};
use vitte_net_sim::{Cluster, FailureKind, Fault, FaultError};

use super::{connect, echo, listen, ms, ping, with_echo};

#[test]
fn a_crash_is_silent_and_the_restarted_machine_answers_with_a_reset() {
    let mut cluster = with_echo(1).client("client", |node| async move {
        let mut stream = connect(&node, "server").await?;
        ping(&mut stream).await?;
        node.world().crash("server")?;
        stream.write_all(b"x").await?;
        assert!(timeout(Duration::from_secs(10), stream.read(&mut [0])).await.is_err(), "not a word");
        node.world().restart("server")?;
        let error = stream.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        ping(&mut connect(&node, "server").await?).await?;
        Ok(())
    });
    cluster.run().unwrap();
}

#[test]
fn a_writer_with_full_buffers_learns_of_the_restart() {
    let mut cluster = Cluster::new(1)
        .node("server", |node| async move {
            let _held = listen(&node).await?.accept().await?;
            std::future::pending().await
        })
        .client("client", |node| async move {
            let mut stream = connect(&node, "server").await?;
            while let Ok(count) = timeout(ms(100), stream.write(&[0; 10_000])).await {
                count?;
            }
            node.world().crash("server")?;
            sleep(Duration::from_secs(3)).await;
            node.world().restart("server")?;
            let error = stream.write(&[0]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            Ok(())
        });
    cluster.run().unwrap();
}

#[test]
fn connecting_to_a_machine_that_is_down_waits_until_it_is_up() {
    let mut cluster = with_echo(1).client("client", |node| async move {
        node.world().crash("server")?;
        sleep(ms(10)).await;
        let restart = {
            let node = node.clone();
            async move {
                sleep(Duration::from_secs(8)).await;
                node.world().restart("server")
            }
        };
        let (stream, restarted) = tokio::join!(connect(&node, "server"), restart);
        restarted?;
        ping(&mut stream?).await?;
        Ok(())
    });
    cluster.run().unwrap();
}

#[test]
fn a_connection_request_survives_the_crash_of_the_machine_that_had_taken_it() {
    let (a, b) = ("client".to_owned(), "server".to_owned());
    let mut cluster = with_echo(1)
        .client("client", |node| async move {
            let start = Instant::now();
            let mut stream = connect(&node, "server").await?;
            assert!(start.elapsed() > Duration::from_secs(2));
            ping(&mut stream).await?;
            Ok(())
        })
        .fault(Duration::ZERO, Fault::Latency { a, b, latency_ms: 100, jitter_ms: 0 })
        // The request has arrived, the answer is under way.
        .fault(ms(150), Fault::Crash { node: "server".into() })
        .fault(ms(2000), Fault::Restart { node: "server".into() });
    cluster.run().unwrap();
}

#[test]
fn a_killed_program_leaves_its_kernel_to_close() {
    let mut cluster = with_echo(1).client("client", |node| async move {
        let mut stream = connect(&node, "server").await?;
        ping(&mut stream).await?;
        let before = Instant::now();
        node.world().kill("server")?;
        assert_eq!(stream.read(&mut [0]).await?, 0);
        assert!(before.elapsed() < ms(5));
        let error = connect(&node, "server").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        Ok(())
    });
    cluster.run().unwrap();
}

#[test]
fn a_restart_begins_a_new_life_with_the_same_identity() {
    let lives = Rc::new(Cell::new(0));
    let seen = Rc::clone(&lives);
    let keys = Rc::new(std::cell::RefCell::new(Vec::new()));
    let kept = Rc::clone(&keys);
    let mut cluster = Cluster::new(4)
        .node("phoenix", move |node| {
            assert_eq!(node.incarnation(), seen.get());
            seen.set(seen.get() + 1);
            let mut random = [0; 8];
            node.network().fill_random(&mut random);
            kept.borrow_mut().push((node.secret_key(), random));
            echo(node)
        })
        .fault(ms(10), Fault::Crash { node: "phoenix".into() })
        .fault(ms(20), Fault::Restart { node: "phoenix".into() })
        .fault(ms(30), Fault::Restart { node: "phoenix".into() });
    cluster.run_for(ms(100)).unwrap();
    assert_eq!(lives.get(), 3);
    let keys = keys.borrow();
    assert!(keys.iter().all(|(key, _)| *key == keys[0].0));
    assert!(keys[0].1 != keys[1].1 && keys[1].1 != keys[2].1, "a new life draws new numbers");
}

#[test]
fn crashed_tasks_are_gone() {
    let token = Rc::new(());
    let held = Rc::clone(&token);
    let mut cluster = Cluster::new(1).node("a", move |_| {
        let held = Rc::clone(&held);
        async move {
            let _held = held;
            std::future::pending().await
        }
    });
    cluster.run_for(ms(5)).unwrap();
    assert_eq!(Rc::strong_count(&token), 3);
    cluster.world().crash("a").unwrap();
    cluster.run_for(ms(5)).unwrap();
    assert_eq!(Rc::strong_count(&token), 2);
}

#[test]
fn failures_name_their_node() {
    let failure = Cluster::new(1).client("a", |_| async { Err("no luck".into()) }).run().unwrap_err();
    assert_eq!(failure.kind, FailureKind::Node { node: "a".into(), error: "no luck".into() });
    let failure = Cluster::new(1).client("a", |_| async { panic!("oh no") }).run().unwrap_err();
    assert_eq!(failure.kind, FailureKind::Panic { node: "a".into(), message: "oh no".into() });
}

#[test]
fn a_cluster_that_cannot_run_says_why() {
    let idle = |_| std::future::pending();
    let kind = |mut cluster: Cluster| cluster.run_for(ms(1)).unwrap_err().kind;
    assert_eq!(kind(Cluster::new(1).node("a", idle).node("a", idle)), FailureKind::NodeName("a".into()));
    assert_eq!(
        kind(Cluster::new(1).node("a", idle).fault(ms(1), Fault::Crash { node: "b".into() })),
        FailureKind::Fault(FaultError::UnknownNode("b".into()))
    );
    let loss = Fault::Loss { a: "a".into(), b: "a".into(), rate: 1.5 };
    assert_eq!(
        kind(Cluster::new(1).node("a", idle).fault(ms(1), loss)),
        FailureKind::Fault(FaultError::Rate)
    );
    assert_eq!(Cluster::new(1).node("a", idle).run().unwrap_err().kind, FailureKind::NoClient);
}
