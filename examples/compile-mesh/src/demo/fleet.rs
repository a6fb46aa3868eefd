//! The worker processes of the demo.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use vitte_net::{Address, Mesh, PeerId};

use crate::demo::Transport;
use crate::net::SECRET_VARIABLE;
use crate::pool::Pool;
use crate::worker::Ready;

/// How long a worker may take from its start to its first answer.
const START: Duration = Duration::from_secs(20);
/// Longest line a worker says that it is ready with.
const READY_BYTES_MAX: u64 = 16 * 1024;

/// A worker process.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Its key.
    pub(crate) id: PeerId,
    /// `worker-1` and so on.
    pub(crate) name: String,
    /// How it is reached.
    pub(crate) transport: Transport,
    /// Killed when dropped.
    child: Child,
}

impl Worker {
    /// Starts a worker that listens on loopback, and takes it into the pool.
    ///
    /// # Errors
    ///
    /// It does not start, or is not reached.
    pub(crate) async fn start(
        number: usize,
        transport: Transport,
        slots: u32,
        secret: &str,
        scratch: &Path,
        (mesh, pool): (&Mesh, &Pool),
    ) -> anyhow::Result<Self> {
        let name = format!("worker-{number}");
        let starting = async {
            let mut child = Command::new(std::env::current_exe()?)
                .args(["worker", "--json", "--until-stdin-ends", "--listen"])
                .arg(format!("{transport}://127.0.0.1:0"))
                .args(["--slots", &slots.to_string(), "--scratch"])
                .arg(scratch)
                .env(SECRET_VARIABLE, secret)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()?;
            let ready = ready(&mut child).await?;
            let id: PeerId = ready.id.parse()?;
            let address: Address = ready.addresses.first().context("it has no address")?.parse()?;
            let peer = mesh.connect(&address).await.with_context(|| format!("cannot reach {address}"))?;
            if peer.id() != id {
                bail!("somebody else answers at {address}");
            }
            pool.add(peer).await?;
            Ok(Self { id, name: name.clone(), transport, child })
        };
        match timeout(START, starting).await {
            Ok(started) => started.with_context(|| format!("{name} ({transport})")),
            Err(_) => bail!("{name} ({transport}) is not there after {START:?}"),
        }
    }

    /// Sends a signal to the process.
    ///
    /// # Errors
    ///
    /// It is not there any more.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.child.id().context("the worker has ended")?;
        let pid = Pid::from_raw(i32::try_from(id)?).context("the worker has no process id")?;
        Ok(kill_process(pid, signal)?)
    }
}

async fn ready(child: &mut Child) -> anyhow::Result<Ready> {
    let stdout = child.stdout.take().context("no standard output")?;
    let mut line = String::new();
    BufReader::new(stdout.take(READY_BYTES_MAX)).read_line(&mut line).await?;
    if line.is_empty() {
        bail!("it ended with {}", child.wait().await?);
    }
    Ok(serde_json::from_str(&line)?)
}
