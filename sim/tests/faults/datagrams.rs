use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use vitte_net::network::Datagrams;
use vitte_net_sim::{Cluster, Fault, Line, LinkSettings};

use super::{address, bind, connect, ms, ping, receive, with_echo};

#[test]
fn blocked_udp_leaves_tcp_alive() {
    let mut cluster = with_echo(1).client("client", |node| async move {
        let to = address(&node, "server").await?;
        let socket = bind(&node).await?;
        let mut stream = connect(&node, "server").await?;
        node.world().block_udp("client", "server")?;
        socket.try_send(b"lost", to)?;
        assert!(timeout(Duration::from_secs(5), receive(&socket, &mut [0; 9])).await.is_err());
        ping(&mut stream).await?;
        node.world().unblock_udp("client", "server")?;
        socket.try_send(b"back", to)?;
        assert_eq!(receive(&socket, &mut [0; 9]).await?, 4);
        Ok(())
    });
    cluster.run().unwrap();
}

/// Datagrams that arrive of 2,000, and whether they came in order.
fn arrivals(seed: u64, fault: Fault) -> Vec<u32> {
    let (send, receive_all) = std::sync::mpsc::channel();
    let mut cluster = Cluster::new(seed)
        .node("b", |node| async move {
            let socket = bind(&node).await?;
            for number in 0..2_000_u32 {
                socket.try_send(&number.to_le_bytes(), address(&node, "a").await?)?;
                sleep(ms(1)).await;
            }
            std::future::pending().await
        })
        .client("a", move |node| {
            let send = send.clone();
            async move {
                let socket = bind(&node).await?;
                let mut buf = [0; 4];
                while timeout(Duration::from_secs(1), receive(&socket, &mut buf)).await.is_ok() {
                    send.send(u32::from_le_bytes(buf))?;
                }
                Ok(())
            }
        })
        .fault(Duration::ZERO, fault);
    cluster.run().unwrap();
    drop(cluster);
    receive_all.iter().collect()
}

fn names() -> (String, String) {
    ("a".to_owned(), "b".to_owned())
}

#[test]
fn loss_has_its_rate() {
    let (a, b) = names();
    let got = arrivals(5, Fault::Loss { a, b, rate: 0.3 });
    assert!((1320..1480).contains(&got.len()), "{}", got.len());
    assert!(got.is_sorted());
}

#[test]
fn duplicates_come_twice() {
    let (a, b) = names();
    let got = arrivals(5, Fault::Duplicate { a, b, rate: 0.5 });
    assert!((2900..3100).contains(&got.len()), "{}", got.len());
}

#[test]
fn held_back_datagrams_are_overtaken() {
    let (a, b) = names();
    let got = arrivals(5, Fault::Reorder { a, b, rate: 0.1, delay_ms: 5 });
    assert_eq!(got.len(), 2_000);
    assert!(!got.is_sorted());
}

#[test]
fn latency_and_jitter_stay_within_their_bounds() {
    let mut settings = LinkSettings::default();
    settings.latency = ms(10);
    settings.jitter = ms(20);
    let mut cluster = with_echo(9).link(settings).client("client", |node| async move {
        let socket = bind(&node).await?;
        let mut times = Vec::new();
        for _ in 0..100 {
            let start = Instant::now();
            socket.try_send(b"x", address(&node, "server").await?)?;
            receive(&socket, &mut [0]).await?;
            times.push(start.elapsed());
        }
        assert!(times.iter().all(|time| (ms(20)..=ms(60)).contains(time)), "{times:?}");
        assert!(times.iter().any(|time| *time < ms(35)) && times.iter().any(|time| *time > ms(45)));
        Ok(())
    });
    cluster.run().unwrap();
}

#[test]
fn a_full_socket_loses_what_comes_and_the_trace_says_so() {
    let mut cluster = Cluster::new(1)
        .trace_lines(1000)
        .node("server", |node| async move {
            let _socket = bind(&node).await?;
            std::future::pending().await
        })
        .client("client", |node| async move {
            let socket = bind(&node).await?;
            for _ in 0..500 {
                Datagrams::try_send(&*socket, &[0; 1000], address(&node, "server").await?)?;
            }
            sleep(ms(5)).await;
            Ok(())
        });
    let report = cluster.run().unwrap();
    let fate = |wanted: vitte_net_sim::Fate| {
        let is = |line: &&Line| matches!(line, Line::Packet { fate, .. } if *fate == wanted);
        report.trace.iter().filter(is).count()
    };
    assert_eq!(fate(vitte_net_sim::Fate::Delivered), 200);
    assert_eq!(fate(vitte_net_sim::Fate::Overflow), 300);
}

#[test]
fn a_partition_works_in_one_direction_only_if_asked_to() {
    let mut cluster = with_echo(1).client("client", |node| async move {
        let socket = bind(&node).await?;
        let to = address(&node, "server").await?;
        for (from, target) in [("client", "server"), ("server", "client")] {
            node.world().partition_one_way(from, target)?;
            socket.try_send(b"x", to)?;
            assert!(timeout(ms(100), receive(&socket, &mut [0])).await.is_err());
            node.world().heal("client", "server")?;
            socket.try_send(b"x", to)?;
            assert_eq!(receive(&socket, &mut [0]).await?, 1);
        }
        Ok(())
    });
    cluster.run().unwrap();
}

#[test]
fn corrupted_datagrams_arrive_with_a_few_bits_flipped() {
    let (a, b) = names();
    let numbers = arrivals(1, Fault::Corrupt { a, b, rate: 0.25 });
    assert_eq!(numbers.len(), 2_000, "none is lost");
    let changed: Vec<u32> =
        (0..).zip(&numbers).map(|(sent, got)| (sent ^ got).count_ones()).filter(|bits| *bits > 0).collect();
    assert!((400..600).contains(&changed.len()), "{}", changed.len());
    assert!(changed.iter().all(|bits| *bits <= 4));
}
