//! Urgent calls while bulk flows to the same peer: at half of what the link takes, and at all of it.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep, sleep_until};
use vitte_net::{Priority, Secret};

use crate::Flavour;
use crate::far::{Far, Part};
use crate::load::{BLOCK, Side, Transport};
use crate::ours::{self, Near};
use crate::spin::Awake;
use crate::table::median;

/// Calls of one measurement, and the time between two of them.
const CALLS: u32 = 1_500;
const APART: Duration = Duration::from_millis(1);
/// How much later than idle the 99th percentile may be with bulk at half of the capacity, in µs.
const BAR: f64 = 2_000.0;

/// Options of `vitte-net-bench urgent`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Only transports whose name contains this
    #[arg(long, value_name = "SUBSTR")]
    only: Option<String>,
    /// Rounds, of which the medians are taken
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
    /// Print JSON, an object a line, instead of a table
    #[arg(long)]
    json: bool,
}

/// 99th percentiles in µs, and rates of bulk in bytes a second.
#[derive(Debug, Default, Serialize)]
struct Figures {
    idle: Vec<f64>,
    half: Vec<f64>,
    saturated: Vec<f64>,
    capacity: Vec<f64>,
    saturated_rate: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Summary {
    transport: Transport,
    idle_p99_us: f64,
    half_p99_us: f64,
    saturated_p99_us: f64,
    capacity_mb_s: f64,
    saturated_mb_s: f64,
    pass: bool,
}

/// Measures every transport, its three states in turn in every round.
pub(crate) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let mut pass = true;
    if !options.json {
        println!("p99 of urgent calls of 64 bytes, in µs; medians of {} rounds", options.rounds);
        println!(
            "{:<6} {:>8} {:>10} {:>10} {:>14} {:>14}  half at most idle + 2 ms",
            "", "idle", "half", "saturated", "capacity MB/s", "saturated MB/s"
        );
    }
    for transport in Transport::ALL {
        let name = transport.to_string();
        if options.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let mut figures = Figures::default();
        for _ in 0..options.rounds {
            round(transport, &mut figures).await.with_context(|| format!("urgent calls over {name}"))?;
        }
        let summary = figures.summary(transport);
        pass &= summary.pass;
        if options.json {
            println!("{}", serde_json::to_string(&summary)?);
            continue;
        }
        let verdict = if summary.pass { "pass" } else { "FAIL" };
        println!(
            "{name:<6} {:>8.0} {:>10.0} {:>10.0} {:>14.0} {:>14.0}  {verdict}",
            summary.idle_p99_us,
            summary.half_p99_us,
            summary.saturated_p99_us,
            summary.capacity_mb_s,
            summary.saturated_mb_s
        );
    }
    Ok(if pass { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Figures {
    fn summary(self, transport: Transport) -> Summary {
        let [idle, half, saturated] = [self.idle, self.half, self.saturated].map(median);
        Summary {
            transport,
            idle_p99_us: idle,
            half_p99_us: half,
            saturated_p99_us: saturated,
            capacity_mb_s: median(self.capacity) / 1e6,
            saturated_mb_s: median(self.saturated_rate) / 1e6,
            pass: half <= idle + BAR,
        }
    }
}

async fn round(transport: Transport, figures: &mut Figures) -> anyhow::Result<()> {
    let secret = Secret::generate();
    let part = Part { side: Side::Ours, transport, runtime: Flavour::Multi };
    let far = Far::start(&part, &secret).await?;
    let near = Near::connect(&far.address, secret).await?;
    let awake = Awake::keep();
    figures.idle.push(percentile(&near).await?);
    // Bulk keeps the processors awake by itself; and one that spins is not idle to the system, which then moves no
    // waiting thread to it before the next tick of its clock.
    drop(awake);
    // How much the link takes when nothing else is wanted of it.
    let bulk = Bulk::start(&near, None).await?;
    sleep(Duration::from_millis(500)).await;
    let before = bulk.sent.load(Ordering::Relaxed);
    sleep(Duration::from_secs(1)).await;
    let capacity = bulk.sent.load(Ordering::Relaxed) - before;
    bulk.end().await?;
    figures.capacity.push(as_f64(capacity));
    let bulk = Bulk::start(&near, Some(capacity / 2)).await?;
    figures.half.push(percentile(&near).await?);
    bulk.end().await?;
    let bulk = Bulk::start(&near, None).await?;
    sleep(Duration::from_millis(500)).await;
    let (before, start) = (bulk.sent.load(Ordering::Relaxed), Instant::now());
    figures.saturated.push(percentile(&near).await?);
    let sent = bulk.sent.load(Ordering::Relaxed) - before;
    figures.saturated_rate.push(as_f64(sent) / start.elapsed().as_secs_f64());
    bulk.end().await?;
    drop(near);
    far.end().await
}

#[expect(clippy::cast_precision_loss, reason = "bytes of seconds are far below 2^52")]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}

/// The 99th percentile of urgent calls, in µs.
async fn percentile(near: &Near) -> anyhow::Result<f64> {
    let mut times = Vec::new();
    let mut due = Instant::now();
    for _ in 0..CALLS {
        due += APART;
        sleep_until(due).await;
        let start = Instant::now();
        ours::echo(near.peer(), Priority::Urgent).await?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() * 99 / 100])
}

/// Bulk that flows until it is ended.
struct Bulk {
    sent: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
    over: Arc<tokio::sync::Notify>,
}

impl Bulk {
    /// At `rate` bytes a second, or as fast as it goes.
    async fn start(near: &Near, rate: Option<u64>) -> anyhow::Result<Self> {
        let mut stream = near.peer().byte_stream(ours::BULK).open().await?;
        let (sent, over) = (Arc::new(AtomicU64::new(0)), Arc::new(tokio::sync::Notify::new()));
        let (count, end) = (sent.clone(), over.clone());
        let task = tokio::spawn(async move {
            let block = vec![7; BLOCK];
            let start = Instant::now();
            let write = async {
                loop {
                    stream.write_all(&block).await?;
                    let sent = count.fetch_add(BLOCK as u64, Ordering::Relaxed) + BLOCK as u64;
                    if let Some(rate) = rate {
                        sleep_until(start + Duration::from_micros(sent * 1_000_000 / rate.max(1))).await;
                    }
                }
            };
            let written: anyhow::Result<()> = tokio::select! {
                biased;
                () = end.notified() => Ok(()),
                result = write => result,
            };
            written?;
            stream.shutdown().await?;
            Ok(())
        });
        Ok(Self { sent, task, over })
    }

    async fn end(self) -> anyhow::Result<()> {
        self.over.notify_one();
        self.task.await?
    }
}
