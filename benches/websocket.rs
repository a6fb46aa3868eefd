//! Echoes of plain WebSockets beside raw tokio-tungstenite: the same program over both.
#![allow(clippy::disallowed_methods, reason = "raw means without the library's own network")]

use std::future::poll_fn;
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Poll, ready};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite;
use vitte_net::ws::{Message, WsConnector, WsServer};

/// Options of `vitte-net-bench websocket`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Only loads whose name contains this
    #[arg(long, value_name = "SUBSTR")]
    only: Option<String>,
    /// Rounds, of which the medians are taken
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Print JSON, an object a line, instead of a table
    #[arg(long)]
    json: bool,
    /// Small sizes, to see that everything runs; the figures mean nothing
    #[arg(long)]
    short: bool,
}

/// Messages of one size, so many of them on their way at once.
#[derive(Clone, Copy, Debug)]
struct Load {
    name: &'static str,
    size: usize,
    in_flight: usize,
    count: usize,
}

const LOADS: &[Load] = &[
    Load { name: "64 B, one", size: 64, in_flight: 1, count: 20_000 },
    Load { name: "64 B, 64 in flight", size: 64, in_flight: 64, count: 200_000 },
    Load { name: "16 KiB, 8 in flight", size: 16 << 10, in_flight: 8, count: 20_000 },
    Load { name: "1 MiB, 2 in flight", size: 1 << 20, in_flight: 2, count: 300 },
];

/// Measures all loads. Success is that none is slower than raw.
pub(crate) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let mut pass = true;
    if !options.json {
        println!("{:<22} {:>12} {:>12} {:>7}  range", "echoes a second", "ours", "raw", "ratio");
    }
    for load in LOADS {
        if options.only.as_ref().is_some_and(|only| !load.name.contains(only.as_str())) {
            continue;
        }
        let load = Load { count: if options.short { load.in_flight * 2 } else { load.count }, ..*load };
        let (mut ours, mut raw, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..options.rounds {
            // Who goes first changes from round to round.
            let (one, other) = if round % 2 == 0 {
                let one = measure_ours(load).await?;
                (one, measure_raw(load).await?)
            } else {
                let other = measure_raw(load).await?;
                (measure_ours(load).await?, other)
            };
            ours.push(one);
            raw.push(other);
            ratios.push(one / other);
        }
        let (ours, raw, ratio) = (median(&mut ours), median(&mut raw), median(&mut ratios));
        let (least, greatest) = (ratios[0], ratios[ratios.len() - 1]);
        pass &= ratio >= 1.0;
        if options.json {
            let name = load.name;
            println!("{}", json!({ "name": name, "ours": ours, "raw": raw, "ratio": ratio, "bar": 1.0 }));
        } else {
            println!("{:<22} {ours:>12.0} {raw:>12.0} {ratio:>7.2}  {least:.2} to {greatest:.2}", load.name);
        }
    }
    Ok(if pass { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn measure_ours(load: Load) -> anyhow::Result<f64> {
    let mut server = WsServer::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}/", server.local_addr()?);
    let serving = tokio::spawn(async move {
        let (socket, _) = server.accept().await?.handshake().await?;
        echo(socket, Some).await
    });
    let socket = WsConnector::new().connect(&url).await?;
    let figure = ask(socket, Message::Binary, Message::into_bytes, load).await?;
    serving.await??;
    Ok(figure)
}

async fn measure_raw(load: Load) -> anyhow::Result<f64> {
    use tungstenite::Message;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let socket = tokio_tungstenite::accept_async(stream).await?;
        echo(socket, |message| (!message.is_close()).then_some(message)).await
    });
    let stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    let (socket, _) = tokio_tungstenite::client_async(format!("ws://{at}/"), stream).await?;
    let figure = ask(socket, Message::Binary, Message::into_data, load).await?;
    serving.await??;
    Ok(figure)
}

/// Sends back what comes, and flushes when nothing comes.
async fn echo<S, M, E>(mut socket: S, data: fn(M) -> Option<M>) -> anyhow::Result<()>
where
    S: Stream<Item = Result<M, E>> + Sink<M, Error = E> + Unpin,
    E: std::error::Error + Send + Sync + 'static,
{
    let mut held = None;
    let end = poll_fn(|cx| {
        loop {
            if held.is_some() {
                ready!(Pin::new(&mut socket).poll_ready(cx))?;
                if let Some(message) = held.take() {
                    Pin::new(&mut socket).start_send(message)?;
                }
            }
            match Pin::new(&mut socket).poll_next(cx) {
                Poll::Ready(Some(message)) => held = data(message?),
                Poll::Ready(None) => return Poll::Ready(Ok::<_, E>(())),
                Poll::Pending => {
                    let _ = Pin::new(&mut socket).poll_flush(cx)?;
                    return Poll::Pending;
                }
            }
        }
    });
    Ok(end.await?)
}

/// Echoes a second.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
async fn ask<S, M, E>(
    mut socket: S,
    pack: fn(Bytes) -> M,
    unpack: fn(M) -> Bytes,
    load: Load,
) -> anyhow::Result<f64>
where
    S: Stream<Item = Result<M, E>> + Sink<M, Error = E> + Unpin,
    E: std::error::Error + Send + Sync + 'static,
{
    let content = Bytes::from(vec![7; load.size]);
    let begin = Instant::now();
    for _ in 0..load.in_flight {
        socket.feed(pack(content.clone())).await?;
    }
    socket.flush().await?;
    let mut sent = load.in_flight;
    for _ in 0..load.count {
        let message = socket.next().await.context("it ended early")??;
        if unpack(message).len() != load.size {
            bail!("another message came back");
        }
        if sent < load.count {
            socket.send(pack(content.clone())).await?;
            sent += 1;
        }
    }
    let figure = load.count as f64 / begin.elapsed().as_secs_f64();
    socket.close().await?;
    match socket.next().await {
        None | Some(Ok(_)) => Ok(figure),
        Some(Err(error)) => Err(anyhow!(error)),
    }
}
