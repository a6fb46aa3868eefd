use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};
use vitte_net_sim::{Cluster, FailureKind, Fault, limits};

use super::{address, bind, connect, echo, listen, ms, ping, receive, with_echo};

fn pair() -> (String, String) {
    ("client".to_owned(), "server".to_owned())
}

#[test]
fn latency_is_exact_in_virtual_time() {
    for latency_ms in [1, 7, 250] {
        let (a, b) = pair();
        let mut cluster = with_echo(1)
            .client("client", move |node| async move {
                let start = Instant::now();
                let mut stream = connect(&node, "server").await?;
                assert_eq!(start.elapsed(), ms(2 * latency_ms), "one round trip to connect");
                let start = Instant::now();
                ping(&mut stream).await?;
                assert_eq!(start.elapsed(), ms(2 * latency_ms));
                Ok(())
            })
            .fault(Duration::ZERO, Fault::Latency { a, b, latency_ms, jitter_ms: 0 });
        cluster.run().unwrap();
    }
}

#[test]
fn bandwidth_limits_a_transfer() {
    let (a, b) = pair();
    let mut cluster = Cluster::new(1)
        .node("server", |node| async move {
            let (mut stream, _) = listen(&node).await?.accept().await?;
            stream.write_all(&vec![0; 1_000_000]).await?;
            Ok(())
        })
        .client("client", |node| async move {
            let mut stream = connect(&node, "server").await?;
            let start = Instant::now();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await?;
            assert_eq!(all.len(), 1_000_000);
            let took = start.elapsed();
            assert!(took >= ms(990) && took < ms(1100), "{took:?}");
            Ok(())
        })
        .fault(Duration::ZERO, Fault::Bandwidth { a, b, bytes_per_second: 1_000_000 });
    cluster.run().unwrap();
}

#[test]
fn a_partition_stalls_a_stream_and_healing_frees_it() {
    let mut cluster = with_echo(1).client("client", |node| async move {
        let mut stream = connect(&node, "server").await?;
        ping(&mut stream).await?;
        node.world().partition("client", "server")?;
        let mut sent = 0;
        let chunk = vec![9; 10_000];
        while let Ok(count) = timeout(ms(100), stream.write(&chunk)).await {
            sent += count?;
        }
        assert_eq!(sent as u64, limits::SEND_BUFFER, "a stalled stream holds as much as its buffer");
        assert!(timeout(Duration::from_secs(30), stream.read(&mut [0])).await.is_err());
        node.world().heal("client", "server")?;
        let healed = Instant::now();
        let mut buf = vec![0; 64 << 10];
        while sent > 0 {
            sent -= stream.read(&mut buf).await?;
        }
        assert!(healed.elapsed() <= limits::RETRY_MAX + ms(100), "{:?}", healed.elapsed());
        ping(&mut stream).await?;
        Ok(())
    });
    cluster.run().unwrap();
}

#[test]
fn bytes_keep_their_order_through_cuts_and_jitter() {
    const LEN: usize = 2_000_000;
    let byte = |index: usize| u8::try_from(index % 251).unwrap();
    let (a, b) = pair();
    let mut cluster = Cluster::new(3)
        .node("server", move |node| async move {
            let (mut stream, _) = listen(&node).await?.accept().await?;
            let all: Vec<u8> = (0..LEN).map(byte).collect();
            for chunk in all.chunks(3_000) {
                stream.write_all(chunk).await?;
                sleep(ms(1)).await;
            }
            Ok(())
        })
        .client("client", move |node| async move {
            let mut stream = connect(&node, "server").await?;
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await?;
            assert!(all.len() == LEN && all.iter().enumerate().all(|(at, got)| *got == byte(at)));
            Ok(())
        })
        .fault(Duration::ZERO, Fault::Latency { a: a.clone(), b: b.clone(), latency_ms: 5, jitter_ms: 40 });
    for cut in 1..10_u64 {
        let (a, b) = (a.clone(), b.clone());
        let fault = match cut % 3 {
            0 => Fault::Partition { a: a.clone(), b: b.clone() },
            1 => Fault::PartitionOneWay { from: a.clone(), to: b.clone() },
            _ => Fault::PartitionOneWay { from: b.clone(), to: a.clone() },
        };
        cluster = cluster.fault(ms(cut * 100), fault).fault(ms(cut * 100 + 60), Fault::Heal { a, b });
    }
    cluster.run().unwrap();
}

#[test]
fn a_one_way_partition_stalls_both_directions_in_the_end() {
    let mut cluster = Cluster::new(1)
        .node("server", |node| async move {
            let (mut stream, _) = listen(&node).await?.accept().await?;
            stream.write_all(&vec![1; 4 << 20]).await?;
            Ok(())
        })
        .client("client", |node| async move {
            let mut stream = connect(&node, "server").await?;
            // Data still comes, acknowledgements do not get back.
            node.world().partition_one_way("client", "server")?;
            let mut got = 0;
            let mut buf = vec![0; 64 << 10];
            while let Ok(count) = timeout(Duration::from_secs(5), stream.read(&mut buf)).await {
                got += count?;
            }
            assert!(got > 0 && got as u64 <= limits::SEND_BUFFER, "{got}");
            node.world().heal("client", "server")?;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await?;
            assert_eq!(got + rest.len(), 4 << 20);
            Ok(())
        });
    cluster.run().unwrap();
}

#[test]
fn connecting_waits_for_the_heal_or_for_the_callers_patience() {
    let mut cluster = with_echo(1).client("client", |node| async move {
        node.world().partition("client", "server")?;
        assert!(timeout(Duration::from_secs(20), connect(&node, "server")).await.is_err());
        assert_eq!(node.world().open_sockets("client")?, 0, "giving up leaves nothing behind");
        let late = tokio::spawn({
            let node = node.clone();
            async move { connect(&node, "server").await }
        });
        sleep(Duration::from_secs(10)).await;
        assert!(!late.is_finished());
        node.world().heal("client", "server")?;
        let healed = Instant::now();
        ping(&mut late.await??).await?;
        assert!(healed.elapsed() <= limits::RETRY_MAX + ms(10), "{:?}", healed.elapsed());
        Ok(())
    });
    cluster.run().unwrap();
}

#[test]
fn a_connection_request_is_given_up_at_last() {
    let mut cluster = with_echo(1).client("client", |node| async move {
        node.world().partition("client", "server")?;
        let start = Instant::now();
        let error = connect(&node, "server").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(start.elapsed() >= limits::SYN_GIVE_UP, "{:?}", start.elapsed());
        Ok(())
    });
    cluster.run().unwrap();
}

#[test]
fn a_refusal_that_is_lost_is_repeated() {
    let (a, b) = pair();
    let mut cluster = Cluster::new(1)
        .node("server", |_| std::future::pending())
        .client("client", |node| async move {
            node.world().partition_one_way("server", "client")?;
            let error = connect(&node, "server").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            assert!(node.world().now() >= Duration::from_secs(9));
            Ok(())
        })
        .fault(Duration::from_secs(9), Fault::Heal { a, b });
    cluster.run().unwrap();
}

#[test]
fn a_reset_is_seen_by_both_sides_at_once() {
    let mut cluster = Cluster::new(1)
        .node("server", |node| async move {
            let (mut stream, _) = listen(&node).await?.accept().await?;
            let error = stream.read(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            node.event("server saw it");
            std::future::pending().await
        })
        .client("client", |node| async move {
            let mut stream = connect(&node, "server").await?;
            sleep(ms(10)).await;
            let before = node.world().now();
            node.world().reset("client", "server")?;
            let error = stream.read(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            assert_eq!(node.world().now(), before);
            assert_eq!(stream.write(&[0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
            sleep(ms(10)).await;
            Ok(())
        });
    let report = cluster.run().unwrap();
    assert!(report.trace.iter().any(|line| line.to_string().contains("server saw it")));
}

#[test]
fn a_full_backlog_delays_and_does_not_refuse() {
    use vitte_net::network::TcpOptions;
    let mut cluster = Cluster::new(1)
        .node("server", |node| async move {
            let mut options = TcpOptions::default();
            options.backlog = 1;
            let listener = node.network().listen_tcp(super::any(), &options).await?;
            sleep(Duration::from_secs(5)).await;
            let mut held = Vec::new();
            loop {
                held.push(listener.accept().await?);
            }
        })
        .client("client", |node| async move {
            let _first = connect(&node, "server").await?;
            assert!(timeout(Duration::from_secs(4), connect(&node, "server")).await.is_err());
            let _second = connect(&node, "server").await?;
            assert!(node.world().now() >= Duration::from_secs(5));
            Ok(())
        });
    cluster.run().unwrap();
}

#[test]
fn streams_leave_nothing_behind() {
    let mut cluster = with_echo(1).client("client", |node| async move {
        for _ in 0..20 {
            ping(&mut connect(&node, "server").await?).await?;
        }
        sleep(Duration::from_secs(1)).await;
        assert_eq!(node.world().open_sockets("client")?, 0);
        // Its listener and its datagram socket.
        assert_eq!(node.world().open_sockets("server")?, 2);
        Ok(())
    });
    cluster.run().unwrap();
}

#[test]
fn a_run_that_hangs_is_an_error_that_tells_how_to_replay_it() {
    let mut cluster = Cluster::new(77)
        .limit(Duration::from_secs(3))
        .node("server", echo)
        .client("client", |_| std::future::pending())
        .fault(ms(5), Fault::Reset { a: "client".into(), b: "server".into() });
    let failure = cluster.run().unwrap_err();
    assert_eq!(failure.kind, FailureKind::LimitReached { limit: Duration::from_secs(3) });
    let text = failure.to_string();
    assert!(text.contains("VITTE_SIM_SEED=77"), "{text}");
    assert!(text.contains(r#"{"at_ms":5,"fault":"reset","a":"client","b":"server"}"#), "{text}");
}

#[test]
fn blocked_tcp_stalls_old_and_new_connections_and_leaves_datagrams_alone() {
    let mut cluster = with_echo(1).client("client", |node| async move {
        let mut stream = connect(&node, "server").await?;
        let socket = bind(&node).await?;
        let (a, b) = pair();
        node.world().fault(&Fault::BlockTcp { a: a.clone(), b: b.clone() })?;
        assert!(timeout(Duration::from_secs(5), ping(&mut stream)).await.is_err());
        assert!(timeout(Duration::from_secs(5), connect(&node, "server")).await.is_err());
        socket.try_send(b"passes", address(&node, "server").await?)?;
        assert_eq!(receive(&socket, &mut [0; 9]).await?, 6);
        node.world().fault(&Fault::UnblockTcp { a, b })?;
        // The answer to the first question, which was retransmitted.
        stream.read_exact(&mut [0]).await?;
        connect(&node, "server").await?;
        Ok(())
    });
    cluster.run().unwrap();
}

#[test]
fn tcp_blocked_one_way_is_deaf_and_not_dumb() {
    let mut cluster = with_echo(1).client("client", |node| async move {
        let mut stream = connect(&node, "server").await?;
        let (to, from) = pair();
        node.world().fault(&Fault::BlockTcpOneWay { from, to })?;
        assert!(timeout(Duration::from_secs(5), ping(&mut stream)).await.is_err());
        assert_eq!(node.world().open_sockets("server")?, 3, "listener, datagrams, and the connection");
        node.world().fault(&Fault::UnblockTcp { a: "client".into(), b: "server".into() })?;
        stream.read_exact(&mut [0]).await?;
        Ok(())
    });
    cluster.run().unwrap();
}

#[test]
fn a_black_hole_swallows_old_connections_and_not_new_ones() {
    let mut cluster = with_echo(1).client("client", |node| async move {
        let mut old = connect(&node, "server").await?;
        ping(&mut old).await?;
        let (a, b) = pair();
        node.world().fault(&Fault::BlackHole { a, b })?;
        assert!(timeout(Duration::from_secs(60), ping(&mut old)).await.is_err());
        ping(&mut connect(&node, "server").await?).await?;
        Ok(())
    });
    cluster.run().unwrap();
}
