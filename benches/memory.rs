//! Peak memory while much more is sent than a slow reader takes.

use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::{Instant, sleep_until};
use vitte_net::{Blob, Channel, Incoming, Secret};

use crate::Flavour;
use crate::far::{self, Far, Part};
use crate::load::{BLOB, Side, Transport};
use crate::ours::{self, Answer, Near};

/// The name of the channel.
pub(crate) const PACED: &str = "paced";
/// Bytes that the reader takes in a second.
const RATE: u32 = 100 << 20;
/// Bytes of memory that each process may hold at most: 64 MiB, in KiB.
const BAR: u64 = 64 << 10;

/// Options of `vitte-net-bench memory`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Only transports whose name contains this
    #[arg(long, value_name = "SUBSTR")]
    only: Option<String>,
    /// MiB to send
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    size: u32,
    /// Print JSON, an object a line, instead of a table
    #[arg(long)]
    json: bool,
}

/// Options of the sending side.
#[derive(Clone, Debug, Args)]
pub(crate) struct Sender {
    #[arg(long)]
    size: u32,
}

/// The line to the sending side.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    secret: String,
    address: String,
}

#[derive(Debug, Serialize)]
struct Peaks {
    transport: Transport,
    mib_sent: u32,
    sender_kib: u64,
    receiver_kib: u64,
    seconds: f64,
    pass: bool,
}

/// Takes messages at [`RATE`].
pub(crate) async fn take_paced(mut incoming: Incoming<Channel<Answer, Blob>>) -> anyhow::Result<()> {
    while let Some((_, channel)) = incoming.next().await {
        let (answers, mut messages) = channel.split();
        let mut due = Instant::now();
        let mut bytes = 0;
        while let Some(message) = messages.recv().await? {
            let len = u32::try_from(message.len())?;
            bytes += u64::from(len);
            due += Duration::from_secs(1) * len / RATE;
            sleep_until(due).await;
        }
        drop(answers.send(bytes).await?);
        // The near side closes when it has the answer.
        let _ = answers.finish().await;
    }
    Ok(())
}

/// Measures every transport.
pub(crate) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let mut pass = true;
    if !options.json {
        println!("{:<6} {:>12} {:>12} {:>9}  below 64 MiB", "", "sender MiB", "receiver MiB", "seconds");
    }
    for transport in Transport::ALL {
        let name = transport.to_string();
        if options.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let peaks = measure(transport, options.size).await.with_context(|| format!("memory over {name}"))?;
        pass &= peaks.pass;
        if options.json {
            println!("{}", serde_json::to_string(&peaks)?);
            continue;
        }
        let verdict = if peaks.pass { "pass" } else { "FAIL" };
        println!(
            "{name:<6} {:>12.1} {:>12.1} {:>9.1}  {verdict}",
            mib(peaks.sender_kib),
            mib(peaks.receiver_kib),
            peaks.seconds
        );
    }
    Ok(if pass { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::cast_precision_loss, reason = "KiB of memory are far below 2^52")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

async fn measure(transport: Transport, size: u32) -> anyhow::Result<Peaks> {
    let secret = Secret::generate();
    let part = Part { side: Side::Ours, transport, runtime: Flavour::Multi };
    let mut far = Far::start(&part, &secret).await?;
    let mut process = Command::new(std::env::current_exe()?)
        .args(["sender", "--size", &size.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let Some(mut stdin) = process.stdin.take() else { bail!("the sender has no standard input") };
    let order = Order { secret: secret.expose().to_string(), address: far.address.clone() };
    let start = Instant::now();
    stdin.write_all(format!("{}\n", serde_json::to_string(&order)?).as_bytes()).await?;
    let output = process.wait_with_output().await?;
    ensure!(output.status.success(), "the sender failed");
    let seconds = start.elapsed().as_secs_f64();
    let sender_kib = String::from_utf8(output.stdout)?.trim().parse()?;
    let receiver_kib = far.peak().await?;
    far.end().await?;
    let pass = sender_kib < BAR && receiver_kib < BAR;
    Ok(Peaks { transport, mib_sent: size, sender_kib, receiver_kib, seconds, pass })
}

/// Sends everything and says how much memory that took.
pub(crate) fn sender(options: &Sender) -> anyhow::Result<()> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let order: Order = serde_json::from_str(&line)?;
    let secret = Secret::parse(&order.secret)?;
    let bytes = u64::from(options.size) << 20;
    let runtime = Flavour::Multi.build()?;
    runtime.block_on(runtime.spawn(async move {
        let near = Near::connect(&order.address, secret).await?;
        let channel = near.peer().channel::<Blob>(PACED).receiving::<Answer>().open().await?;
        ours::send_all(channel, BLOB, bytes).await
    }))??;
    println!("{}", far::peak()?);
    Ok(())
}
