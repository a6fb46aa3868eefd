//! HTTP/1.1 beside bare hyper: requests a second of the server, bytes a second of the client.
//!
//! The other side is the same for both: a raw client that sends the same bytes again and again, and a bare hyper
//! server. It runs in a process of its own.

#![allow(clippy::disallowed_methods, reason = "raw means without the library's own network")]

use std::convert::Infallible;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures_util::future::try_join_all;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use vitte_net::http::{Client, Request, Router, Server};

const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";
/// Bytes of one piece of a download.
const PIECE: usize = 64 * 1024;
/// What the figures must reach.
const BAR: f64 = 0.95;

/// How to measure HTTP.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Rounds, of which the medians are taken
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Connections at one time
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Bytes of a download
    #[arg(long, default_value_t = 1 << 30)]
    download: u64,
    /// Print one object of JSON
    #[arg(long)]
    json: bool,
}

/// The far side, started by this program.
#[derive(Debug, Args)]
pub(crate) struct Far {
    #[arg(value_enum)]
    side: Side,
    #[arg(long, default_value_t = 0)]
    download: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Side {
    Ours,
    Raw,
}

/// A server in a process of its own, until it is dropped.
struct Running {
    child: Child,
    address: SocketAddr,
}

impl Running {
    fn start(side: Side, download: u64) -> anyhow::Result<Self> {
        let side = if side == Side::Ours { "ours" } else { "raw" };
        let mut child = Command::new(std::env::current_exe()?)
            .args(["http-far", side, "--download", &download.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("stdout is a pipe")?;
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(Self { child, address: line.trim().parse()? })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let mut requests = Vec::new();
    let mut downloads = Vec::new();
    let time = Duration::from_secs_f64(options.seconds);
    for round in 0..options.rounds {
        // Who is first changes.
        let order = if round % 2 == 0 { [Side::Ours, Side::Raw] } else { [Side::Raw, Side::Ours] };
        let mut figures = [(0.0, 0.0); 2];
        for side in order {
            let place = &mut figures[usize::from(side == Side::Raw)];
            place.0 = {
                let server = Running::start(side, 0)?;
                ask(server.address, options.connections, time).await?
            };
            let server = Running::start(Side::Raw, options.download)?;
            place.1 = match side {
                Side::Ours => ours_downloads(server.address, options.download).await?,
                Side::Raw => raw_downloads(server.address, options.download).await?,
            };
        }
        requests.push((figures[0].0, figures[1].0));
        downloads.push((figures[0].1, figures[1].1));
    }
    let mut passed = true;
    for (name, unit, figures) in [("requests", "1/s", requests), ("download", "MB/s", downloads)] {
        let ratio = median(figures.iter().map(|(ours, raw)| ours / raw).collect());
        let (ours, raw) = figures.into_iter().unzip();
        let (ours, raw) = (median(ours), median(raw));
        passed &= ratio >= BAR;
        if options.json {
            println!(
                "{}",
                json!({ "name": name, "unit": unit, "ours": ours, "raw": raw, "ratio": ratio, "bar": BAR })
            );
        } else {
            let verdict = if ratio >= BAR { "pass" } else { "MISSED" };
            println!(
                "{name:<10} ours {ours:>10.0} hyper {raw:>10.0} {unit:<5} ratio {ratio:.3}  bar {BAR} {verdict}"
            );
        }
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Requests a second over some connections, each with one request on its way.
async fn ask(to: SocketAddr, connections: usize, time: Duration) -> anyhow::Result<f64> {
    let begin = Instant::now();
    let counts = try_join_all((0..connections).map(|_| tokio::spawn(ask_one(to, begin + time))));
    let total: u64 = counts.await?.into_iter().collect::<anyhow::Result<Vec<u64>>>()?.into_iter().sum();
    Ok(total as f64 / begin.elapsed().as_secs_f64())
}

async fn ask_one(to: SocketAddr, until: Instant) -> anyhow::Result<u64> {
    let mut stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let mut answer = Vec::with_capacity(4096);
    // The length of an answer is learned once: all are the same.
    let mut length = usize::MAX;
    let mut count = 0;
    while Instant::now() < until {
        stream.write_all(ASK).await?;
        answer.clear();
        while answer.len() < length {
            if stream.read_buf(&mut answer).await? == 0 {
                bail!("the server ended the connection");
            }
            if length == usize::MAX && answer.ends_with(b"hello") {
                length = answer.len();
            }
        }
        count += 1;
    }
    Ok(count)
}

async fn ours_downloads(from: SocketAddr, bytes: u64) -> anyhow::Result<f64> {
    let begin = Instant::now();
    let mut response = Client::new().get(format!("http://{from}/")).decode(false).send().await?;
    let mut so_far = 0;
    while let Some(piece) = response.chunk().await? {
        so_far += piece.len() as u64;
    }
    anyhow::ensure!(so_far == bytes, "{so_far} of {bytes} bytes");
    Ok(bytes as f64 / 1e6 / begin.elapsed().as_secs_f64())
}

async fn raw_downloads(from: SocketAddr, bytes: u64) -> anyhow::Result<f64> {
    let begin = Instant::now();
    let stream = TcpStream::connect(from).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = hyper::Request::get("/").header("host", "bench").body(Full::<Bytes>::default())?;
    let mut body = sender.send_request(request).await?.into_body();
    let mut so_far = 0;
    while let Some(frame) = body.frame().await {
        so_far += frame?.data_ref().map_or(0, Bytes::len) as u64;
    }
    anyhow::ensure!(so_far == bytes, "{so_far} of {bytes} bytes");
    Ok(bytes as f64 / 1e6 / begin.elapsed().as_secs_f64())
}

/// The server of one measurement.
pub(crate) async fn far(far: Far) -> anyhow::Result<()> {
    if far.side == Side::Ours {
        let server = Server::bind("127.0.0.1:0").await?;
        println!("{}", server.local_addr());
        let router = Router::new().get("/", |_: Request| async { "hello" });
        return Ok(server.serve(router).ended().await?);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let length = far.download;
        tokio::spawn(async move {
            let service = service_fn(move |_| async move { Ok::<_, Infallible>(answer(length)) });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

type Answer = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

fn answer(length: u64) -> hyper::Response<Answer> {
    let plain = ("content-type", "text/plain; charset=utf-8");
    if length == 0 {
        let body = Full::new(Bytes::from_static(b"hello")).boxed_unsync();
        let mut response = hyper::Response::new(body);
        response.headers_mut().insert(plain.0, hyper::header::HeaderValue::from_static(plain.1));
        return response;
    }
    let piece = Bytes::from(vec![0; PIECE]);
    let pieces = futures_util::stream::unfold(length, move |left| {
        let piece = piece.slice(..PIECE.min(usize::try_from(left).unwrap_or(PIECE)));
        let len = piece.len() as u64;
        async move { (len > 0).then(|| (Ok(Frame::data(piece)), left - len)) }
    });
    let mut response = hyper::Response::new(StreamBody::new(pieces).boxed_unsync());
    response.headers_mut().insert("content-length", length.into());
    response
}
