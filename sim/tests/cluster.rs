//! The cluster itself: loops to oneself, ways to run, settings.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::future::{pending, poll_fn};
use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};
use vitte_net::network::{Interface, Keepalive, TcpOptions, UdpOptions};
use vitte_net_sim::{Cluster, Line, limits};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_node_reaches_itself_whatever_the_network_does() {
    let mut cluster = Cluster::new(1).client("a", |node| async move {
        node.world().partition("a", "b")?;
        let network = node.network();
        let options = TcpOptions::default();
        let listener = network.listen_tcp(([0, 0, 0, 0], 0).into(), &options).await?;
        let socket = network.bind_udp(([0, 0, 0, 0], 0).into(), &UdpOptions::default()).await?;
        for ip in ["127.0.0.1".parse()?, node.ip()] {
            let to = (ip, listener.local_addr()?.port()).into();
            let mut dialled = network.connect_tcp(to, &options).await?;
            let (mut accepted, from) = listener.accept().await?;
            assert_eq!(from, dialled.local_addr()?);
            assert_eq!(from.ip(), ip);
            accepted.write_all(b"hello").await?;
            drop(accepted);
            let mut text = String::new();
            dialled.read_to_string(&mut text).await?;
            assert_eq!(text, "hello");
            socket.try_send(b"x", (ip, socket.local_addr()?.port()).into())?;
            let got = poll_fn(|cx| socket.poll_recv(cx, &mut [0])).await?;
            assert_eq!(got.from.ip(), ip);
        }
        Ok(())
    });
    cluster = cluster.node("b", |_| pending());
    cluster.run().unwrap();
}

#[test]
fn what_would_change_who_hears_whom_is_refused() {
    let mut cluster = Cluster::new(1).client("a", |node| async move {
        let (network, at) = (node.network(), ([0, 0, 0, 0], 0).into());
        let group = [224, 0, 0, 251].into();
        let socket = network.bind_udp(at, &UdpOptions::default()).await?;
        let joined = socket.join_group(group, Interface::Any).unwrap_err();
        assert_eq!(joined.kind(), ErrorKind::Unsupported);
        let sets: [fn(&mut TcpOptions); 3] = [
            |options| options.reuse_port = true,
            |options| options.only_ipv6 = true,
            |options| options.interface = Some("eth0".into()),
        ];
        for set in sets {
            let mut options = TcpOptions::default();
            set(&mut options);
            let error = network.listen_tcp(at, &options).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{options:?}");
        }
        let sets: [fn(&mut UdpOptions); 3] = [
            |options| options.share_address = true,
            |options| options.only_ipv6 = true,
            |options| options.interface = Some("eth0".into()),
        ];
        for set in sets {
            let mut options = UdpOptions::default();
            set(&mut options);
            let error = network.bind_udp(at, &options).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{options:?}");
        }
        let mut ignored = TcpOptions::default();
        (ignored.ttl, ignored.dscp, ignored.linger) = (Some(1), Some(1), Some(ms(1)));
        ignored.keepalive = Some(Keepalive::default());
        network.listen_tcp(at, &ignored).await?;
        Ok(())
    });
    cluster.run().unwrap();
}

#[test]
fn a_loopback_listener_is_not_seen_from_outside() {
    let mut cluster = Cluster::new(1)
        .node("a", |node| async move {
            let at = ([127, 0, 0, 1], 5).into();
            let _listener = node.network().listen_tcp(at, &TcpOptions::default()).await?;
            pending().await
        })
        .client("b", |node| async move {
            let ip = node.network().lookup("a").await?[0];
            let error = node.network().connect_tcp((ip, 5).into(), &TcpOptions::default()).await;
            assert_eq!(error.unwrap_err().kind(), ErrorKind::ConnectionRefused);
            Ok(())
        });
    cluster.run().unwrap();
}

#[test]
fn what_does_not_exist_is_an_error_at_once() {
    let mut cluster = Cluster::new(1).client("a", |node| async move {
        let network = node.network();
        assert_eq!(network.lookup("nobody").await.unwrap_err().kind(), ErrorKind::NotFound);
        let options = TcpOptions::default();
        let error = network.connect_tcp(([10, 0, 0, 1], 1).into(), &options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HostUnreachable);
        let error = network.listen_tcp(([10, 0, 0, 1], 1).into(), &options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
        assert_eq!(node.world().now(), Duration::ZERO);
        Ok(())
    });
    cluster.run().unwrap();
}

#[test]
fn a_run_goes_on_where_it_stopped() {
    let mut cluster = Cluster::new(1).node("a", |node| async move {
        loop {
            sleep(ms(10)).await;
            node.event("tick");
        }
    });
    assert_eq!(cluster.run_for(ms(100)).unwrap().elapsed, ms(100));
    let report = cluster.run_for(ms(50)).unwrap();
    assert_eq!(report.elapsed, ms(150));
    assert_eq!(report.events, 14, "the event at 150 ms belongs to the next tick");
    let report = cluster.run_until(|world| world.now() >= ms(400)).unwrap();
    assert!(report.elapsed >= ms(400) && report.elapsed <= ms(401));
    assert!(matches!(&report.trace[0], Line::Event { at, .. } if *at == ms(10)));
}

#[test]
fn a_longer_tick_is_coarser() {
    let mut cluster = Cluster::new(1)
        .tick(ms(10))
        .node("a", |node| async move {
            let at = ([0, 0, 0, 0], 5).into();
            let listener = node.network().listen_tcp(at, &TcpOptions::default()).await?;
            let _held = listener.accept().await?;
            pending().await
        })
        .client("b", |node| async move {
            let ip = node.network().lookup("a").await?[0];
            let start = Instant::now();
            node.network().connect_tcp((ip, 5).into(), &TcpOptions::default()).await?;
            assert_eq!(start.elapsed(), ms(20));
            Ok(())
        });
    cluster.run().unwrap();
}

#[test]
fn a_low_water_mark_stops_the_writer_early() {
    let written = |low_water| {
        let (send, receive) = std::sync::mpsc::channel();
        let mut cluster = Cluster::new(1)
            .node("a", |node| async move {
                let at = ([0, 0, 0, 0], 5).into();
                let _held = node.network().listen_tcp(at, &TcpOptions::default()).await?.accept().await?;
                pending().await
            })
            .client("b", move |node| {
                let send = send.clone();
                async move {
                    let ip = node.network().lookup("a").await?[0];
                    let mut options = TcpOptions::default();
                    options.notsent_low_water = low_water;
                    let mut stream = node.network().connect_tcp((ip, 5).into(), &options).await?;
                    let mut count = 0;
                    while let Ok(more) = timeout(ms(50), stream.write(&[0; 1024])).await {
                        count += more?;
                    }
                    send.send(count as u64)?;
                    Ok(())
                }
            });
        cluster.run().unwrap();
        receive.recv().unwrap()
    };
    assert_eq!(written(None), limits::SEND_BUFFER + limits::RECEIVE_BUFFER);
    assert_eq!(written(Some(16 << 10)), limits::RECEIVE_BUFFER + (16 << 10));
}

#[test]
fn a_program_that_ends_flushes_and_closes() {
    let mut cluster = Cluster::new(1)
        .node("a", |node| async move {
            let at = ([0, 0, 0, 0], 5).into();
            let listener = node.network().listen_tcp(at, &TcpOptions::default()).await?;
            let (mut stream, _) = listener.accept().await?;
            stream.write_all(&[7; 100_000]).await?;
            // The stream is still held by a task when the program ends.
            tokio::spawn(async move {
                let _held = stream;
                pending::<()>().await;
            });
            Ok(())
        })
        .client("b", |node| async move {
            let ip = node.network().lookup("a").await?[0];
            let mut stream = node.network().connect_tcp((ip, 5).into(), &TcpOptions::default()).await?;
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await?;
            assert_eq!(all.len(), 100_000);
            assert_eq!(node.world().open_sockets("a")?, 0);
            Ok(())
        });
    cluster.run().unwrap();
}
