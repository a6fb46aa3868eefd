//! Plain TCP and UDP beside bare tokio: the same program over both.
#![allow(clippy::disallowed_methods, reason = "raw means without the library's own network")]

use std::future::Future;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;
use vitte_net::network::Outgoing;
use vitte_net::tcp::{TcpServer, TcpStream};
use vitte_net::udp::{Batch, UdpSocket};

use crate::Flavour;
use crate::table::median;

/// What must be left of bare tokio's speed.
const BAR: f64 = 0.98;

/// Options of `vitte-net-bench plain`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Only measurements whose name contains this
    #[arg(long, value_name = "SUBSTR")]
    only: Option<String>,
    /// Rounds, of which the medians are taken
    #[arg(long, value_name = "N", default_value_t = 21, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Print JSON, an object a line, instead of a table
    #[arg(long)]
    json: bool,
    /// Small sizes, to see that everything runs; the figures mean nothing
    #[arg(long)]
    short: bool,
    /// The tokio runtime, of both ends in one process
    #[arg(long, value_enum, default_value_t = Flavour::Current)]
    pub(crate) runtime: Flavour,
}

#[derive(Clone, Copy, Debug)]
enum Load {
    /// There and back, one after the other.
    TcpEcho { size: usize },
    /// One way, by so many bytes at a time; as `AsyncRead` and `AsyncWrite`.
    TcpBulk { size: usize },
    /// One way, by `send` and `recv`.
    TcpRecv { size: usize },
    /// There and back, so many on their way at once.
    UdpEcho { size: usize, in_flight: usize },
    /// The same between two sockets that name their peers once.
    UdpConnected { size: usize, in_flight: usize },
    /// There and back in batches; bare tokio has none.
    UdpBatches { size: usize, in_flight: usize },
}

/// A load, its name, how often it is repeated, and whether it has a bar.
type Row = (Load, &'static str, usize, bool);

const ROWS: &[Row] = &[
    (Load::TcpEcho { size: 64 }, "tcp, 64 B there and back", 10_000, true),
    (Load::TcpEcho { size: 16 << 10 }, "tcp, 16 KiB there and back", 6_000, true),
    (Load::TcpBulk { size: 1 << 10 }, "tcp, 1 KiB one way", 100_000, true),
    (Load::TcpBulk { size: 64 << 10 }, "tcp, 64 KiB one way", 10_000, true),
    (Load::TcpRecv { size: 64 << 10 }, "tcp, send and recv, 64 KiB", 10_000, true),
    (Load::UdpEcho { size: 64, in_flight: 1 }, "udp, 64 B there and back", 20_000, true),
    (Load::UdpEcho { size: 1200, in_flight: 32 }, "udp, 1200 B, 32 in flight", 20_000, true),
    (Load::UdpConnected { size: 1200, in_flight: 32 }, "udp with a peer, 1200 B, 32", 20_000, true),
    (Load::UdpBatches { size: 1200, in_flight: 32 }, "udp in batches, 1200 B, 32", 20_000, true),
];

/// Measures all loads. Success is that none is below its bar.
pub(crate) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let mut pass = true;
    if !options.json {
        println!("{:<28} {:>12} {:>12} {:>7}  range", "times a second", "ours", "raw", "ratio");
    }
    for (load, name, count, barred) in ROWS {
        if options.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let count = if options.short { 64 } else { *count };
        let (mut ours, mut raw, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..options.rounds {
            // Who goes first changes from round to round.
            let (one, other) = if round % 2 == 0 {
                let one = measure_ours(*load, count).await?;
                (one, measure_raw(*load, count).await?)
            } else {
                let other = measure_raw(*load, count).await?;
                (measure_ours(*load, count).await?, other)
            };
            ours.push(one);
            raw.push(other);
            ratios.push(one / other);
        }
        ratios.sort_by(f64::total_cmp);
        let (least, greatest) = (ratios[0], ratios[ratios.len() - 1]);
        let (ours, raw, ratio) = (median(ours), median(raw), median(ratios));
        pass &= ratio >= BAR || !barred;
        if options.json {
            println!("{}", json!({ "name": name, "ours": ours, "raw": raw, "ratio": ratio, "bar": BAR }));
        } else {
            println!("{name:<28} {ours:>12.0} {raw:>12.0} {ratio:>7.3}  {least:.2} to {greatest:.2}");
        }
    }
    Ok(if pass { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure_ours(load: Load, count: usize) -> anyhow::Result<f64> {
    match load {
        Load::TcpEcho { size } => {
            let (near, far) = ours_pair().await?;
            echoes(near, far, size, count).await
        }
        Load::TcpBulk { size } => {
            let (near, far) = ours_pair().await?;
            one_way(near, far, size, count).await
        }
        Load::TcpRecv { size } => {
            let (mut near, mut far) = ours_pair().await?;
            let reading = tokio::spawn(async move {
                let mut arrived = 0;
                loop {
                    match far.recv().await?.len() {
                        0 => return anyhow::Ok(arrived),
                        len => arrived += len,
                    }
                }
            });
            let writing = async {
                let block = vec![7; size];
                for _ in 0..count {
                    near.send(&block).await?;
                }
                anyhow::Ok(near.finish().await?)
            };
            rate(count, size, writing, reading).await
        }
        Load::UdpEcho { size, in_flight } => {
            let (near, far) = (UdpSocket::bind("127.0.0.1:0").await?, UdpSocket::bind("127.0.0.1:0").await?);
            let (to, far) = (far.local_addr()?, Arc::new(far));
            let serving = tokio::spawn(async move {
                let mut buf = vec![0; 2048];
                for _ in 0..count {
                    let received = far.recv_from(&mut buf).await?;
                    far.send_to(&buf[..received.len], received.from).await?;
                }
                anyhow::Ok(())
            });
            let near = &near;
            let send = async |bytes: &[u8]| near.send_to(bytes, to).await;
            let recv = async |buf: &mut [u8]| near.recv_from(buf).await.map(|received| received.len);
            datagrams(size, in_flight, count, send, recv, serving).await
        }
        Load::UdpConnected { size, in_flight } => {
            let mut near = UdpSocket::bind("127.0.0.1:0").await?;
            let mut far = UdpSocket::bind("127.0.0.1:0").await?;
            near.connect(far.local_addr()?).await?;
            far.connect(near.local_addr()?).await?;
            let serving = tokio::spawn(async move {
                let mut buf = vec![0; 2048];
                for _ in 0..count {
                    let received = far.recv(&mut buf).await?;
                    far.send(&buf[..received.len]).await?;
                }
                anyhow::Ok(())
            });
            let near = &near;
            let send = async |bytes: &[u8]| near.send(bytes).await;
            let recv = async |buf: &mut [u8]| near.recv(buf).await.map(|received| received.len);
            datagrams(size, in_flight, count, send, recv, serving).await
        }
        Load::UdpBatches { size, in_flight } => batches(size, in_flight, count).await,
    }
}

async fn measure_raw(load: Load, count: usize) -> anyhow::Result<f64> {
    match load {
        Load::TcpEcho { size } => {
            let (near, far) = raw_pair().await?;
            echoes(near, far, size, count).await
        }
        Load::TcpBulk { size } => {
            let (near, far) = raw_pair().await?;
            one_way(near, far, size, count).await
        }
        Load::TcpRecv { size } => {
            let (near, far) = raw_pair().await?;
            one_way(near, far, size, count).await
        }
        Load::UdpEcho { size, in_flight } | Load::UdpBatches { size, in_flight } => {
            let (near, far) = (raw_socket().await?, raw_socket().await?);
            let to = far.local_addr()?;
            let serving = tokio::spawn(async move {
                let mut buf = vec![0; 2048];
                for _ in 0..count {
                    let (len, from) = far.recv_from(&mut buf).await?;
                    far.send_to(&buf[..len], from).await?;
                }
                anyhow::Ok(())
            });
            let near = &near;
            let send = async |bytes: &[u8]| near.send_to(bytes, to).await.map(|_| ());
            let recv = async |buf: &mut [u8]| near.recv_from(buf).await.map(|(len, _)| len);
            datagrams(size, in_flight, count, send, recv, serving).await
        }
        Load::UdpConnected { size, in_flight } => {
            let (near, far) = (raw_socket().await?, raw_socket().await?);
            near.connect(far.local_addr()?).await?;
            far.connect(near.local_addr()?).await?;
            let serving = tokio::spawn(async move {
                let mut buf = vec![0; 2048];
                for _ in 0..count {
                    let len = far.recv(&mut buf).await?;
                    far.send(&buf[..len]).await?;
                }
                anyhow::Ok(())
            });
            let near = &near;
            let send = async |bytes: &[u8]| near.send(bytes).await.map(|_| ());
            let recv = async |buf: &mut [u8]| near.recv(buf).await;
            datagrams(size, in_flight, count, send, recv, serving).await
        }
    }
}

async fn ours_pair() -> anyhow::Result<(TcpStream, TcpStream)> {
    let mut server = TcpServer::bind("127.0.0.1:0").await?;
    let at = server.local_addr()?;
    let (near, far) = tokio::try_join!(TcpStream::connect(at), server.accept())?;
    Ok((near, far.0))
}

async fn raw_pair() -> anyhow::Result<(tokio::net::TcpStream, tokio::net::TcpStream)> {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let at = server.local_addr()?;
    let (near, far) = tokio::try_join!(tokio::net::TcpStream::connect(at), server.accept())?;
    near.set_nodelay(true)?;
    far.0.set_nodelay(true)?;
    Ok((near, far.0))
}

async fn raw_socket() -> anyhow::Result<tokio::net::UdpSocket> {
    Ok(tokio::net::UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn per_second(count: usize, begin: Instant) -> f64 {
    count as f64 / begin.elapsed().as_secs_f64()
}

async fn echoes<S>(mut near: S, mut far: S, size: usize, count: usize) -> anyhow::Result<f64>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let serving = tokio::spawn(async move {
        let mut block = vec![0; size];
        for _ in 0..count {
            far.read_exact(&mut block).await?;
            far.write_all(&block).await?;
        }
        anyhow::Ok(())
    });
    let mut block = vec![7; size];
    let begin = Instant::now();
    for _ in 0..count {
        near.write_all(&block).await?;
        near.read_exact(&mut block).await?;
    }
    let figure = per_second(count, begin);
    serving.await??;
    Ok(figure)
}

async fn one_way<S>(mut near: S, mut far: S, size: usize, count: usize) -> anyhow::Result<f64>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let reading = tokio::spawn(async move {
        let mut block = vec![0; 64 << 10];
        let mut arrived = 0;
        loop {
            match far.read(&mut block).await? {
                0 => return anyhow::Ok(arrived),
                len => arrived += len,
            }
        }
    });
    let writing = async {
        let block = vec![7; size];
        for _ in 0..count {
            near.write_all(&block).await?;
        }
        anyhow::Ok(near.shutdown().await?)
    };
    rate(count, size, writing, reading).await
}

/// Blocks a second, until the last has arrived.
async fn rate(
    count: usize,
    size: usize,
    writing: impl Future<Output = anyhow::Result<()>>,
    reading: tokio::task::JoinHandle<anyhow::Result<usize>>,
) -> anyhow::Result<f64> {
    let begin = Instant::now();
    writing.await?;
    let arrived = reading.await??;
    anyhow::ensure!(arrived == count * size, "{arrived} bytes arrived");
    Ok(per_second(count, begin))
}

/// Datagrams there and back a second.
async fn datagrams(
    size: usize,
    in_flight: usize,
    count: usize,
    send: impl AsyncFn(&[u8]) -> std::io::Result<()>,
    recv: impl AsyncFn(&mut [u8]) -> std::io::Result<usize>,
    serving: tokio::task::JoinHandle<anyhow::Result<()>>,
) -> anyhow::Result<f64> {
    let (block, mut buf) = (vec![7; size], vec![0; 2048]);
    let begin = Instant::now();
    for _ in 0..in_flight.min(count) {
        send(&block).await?;
    }
    let mut sent = in_flight.min(count);
    for _ in 0..count {
        let len = recv(&mut buf).await?;
        anyhow::ensure!(len == size, "{len} bytes came back");
        if sent < count {
            send(&block).await?;
            sent += 1;
        }
    }
    let figure = per_second(count, begin);
    serving.await??;
    Ok(figure)
}

async fn batches(size: usize, in_flight: usize, count: usize) -> anyhow::Result<f64> {
    let builder = UdpSocket::builder().batches(true);
    let (near, far) = (builder.bind("127.0.0.1:0").await?, builder.bind("127.0.0.1:0").await?);
    let to = far.local_addr()?;
    let serving = tokio::spawn(async move {
        let (mut batch, mut served) = (Batch::new(in_flight, 2048), 0);
        while served < count {
            served += far.recv_batch(&mut batch).await?;
            let answers: Vec<_> =
                batch.iter().map(|(bytes, received)| Outgoing { bytes, to: received.from }).collect();
            far.send_batch(&answers).await?;
        }
        anyhow::Ok(())
    });
    let block = vec![7; size];
    let datagrams = vec![Outgoing { bytes: &block, to }; in_flight];
    let mut batch = Batch::new(in_flight, 2048);
    let begin = Instant::now();
    let mut sent = in_flight.min(count);
    near.send_batch(&datagrams[..sent]).await?;
    let mut arrived = 0;
    while arrived < count {
        let came = near.recv_batch(&mut batch).await?;
        arrived += came;
        anyhow::ensure!(batch.iter().all(|(bytes, _)| bytes.len() == size), "another datagram came back");
        let next = came.min(count - sent);
        near.send_batch(&datagrams[..next]).await?;
        sent += next;
    }
    let figure = per_second(count, begin);
    serving.await?.context("the echo")?;
    Ok(figure)
}
