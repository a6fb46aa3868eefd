//! The far side of a measurement: this program once more, in a process of its own.

use std::io::Write as _;
use std::process::Stdio;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use vitte_net::Secret;

use crate::Flavour;
use crate::load::{Side, Transport};
use crate::{ours, raw};

/// What a far side is to be.
#[derive(Clone, Debug, Args)]
pub(crate) struct Part {
    #[arg(long, value_enum)]
    pub(crate) side: Side,
    #[arg(long, value_enum)]
    pub(crate) transport: Transport,
    #[arg(long, value_enum)]
    pub(crate) runtime: Flavour,
}

/// The first line to a far side, on its standard input. Later lines ask for a line with its peak memory;
/// the end of the input ends it.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    secret: String,
}

/// The first line from a far side.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    address: String,
}

/// A far side that runs. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Far {
    process: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// Where it listens.
    pub(crate) address: String,
}

impl Far {
    /// Starts a far side and waits until it listens.
    pub(crate) async fn start(part: &Part, secret: &Secret) -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("child")
            .args(["--side", &part.side.to_string()])
            .args(["--transport", &part.transport.to_string()])
            .args(["--runtime", if part.runtime == Flavour::Multi { "multi" } else { "current" }])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(mut stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            bail!("the far side has no standard streams");
        };
        let mut lines = BufReader::new(stdout).lines();
        let hello = Hello { secret: secret.expose().to_string() };
        stdin.write_all(format!("{}\n", serde_json::to_string(&hello)?).as_bytes()).await?;
        let line = lines.next_line().await?.context("the far side ended before it was ready")?;
        let ready: Ready = serde_json::from_str(&line)?;
        Ok(Self { process, stdin, lines, address: ready.address })
    }

    /// The most memory that its process has held, in KiB.
    pub(crate) async fn peak(&mut self) -> anyhow::Result<u64> {
        self.stdin.write_all(b"peak\n").await?;
        let line = self.lines.next_line().await?.context("the far side has ended")?;
        Ok(line.parse()?)
    }

    /// Ends it and waits for that.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        drop(self.stdin);
        self.process.wait().await?;
        Ok(())
    }
}

/// The most memory that this process has held (`VmHWM`), in KiB.
pub(crate) fn peak() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("there is no /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("there is no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Runs a far side until its standard input ends.
pub(crate) fn child(part: &Part) -> anyhow::Result<()> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let hello: Hello = serde_json::from_str(&line)?;
    let secret = Secret::parse(&hello.secret)?;
    // Asked on a thread that the runtime does not know of.
    let asked = std::thread::spawn(move || -> anyhow::Result<()> {
        for line in std::io::stdin().lines() {
            line?;
            say(&peak()?.to_string())?;
        }
        Ok(())
    });
    let runtime = part.runtime.build()?;
    let (side, transport) = (part.side, part.transport);
    let served = runtime.spawn(async move {
        let ready = |address: String| say(&serde_json::to_string(&Ready { address })?);
        match side {
            Side::Ours => ours::serve(transport, secret, ready).await,
            Side::Raw => raw::serve(transport, ready).await,
        }
    });
    let over = tokio::sync::oneshot::channel::<anyhow::Result<()>>();
    std::thread::spawn(move || {
        let ended = asked.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the asked thread panicked")));
        // Nobody waits any more if the service failed first.
        let _ = over.0.send(ended);
    });
    runtime.block_on(async {
        tokio::select! {
            biased;
            served = served => served?,
            ended = over.1 => ended?,
        }
    })
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
