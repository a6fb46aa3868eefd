//! A worker: compiles what members of its mesh send, a bounded number of jobs at once.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use vitte_net::{CallContext, Mesh};

use crate::compiler::{Compiler, Kind};
use crate::job::{Compile, Describe, Description, HEADROOM, Object, Refusal};
use crate::net;
use crate::sandbox::{self, Limits};

/// Options of `compile-mesh worker`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Address to listen on, such as quic://0.0.0.0:7431; tls:// and ws:// too; may be repeated
    #[arg(long, value_name = "ADDRESS", required = true)]
    listen: Vec<String>,
    /// File with the secret of the mesh, mode 0600; without it COMPILE_MESH_SECRET has the secret
    #[arg(long, value_name = "FILE")]
    secret: Option<PathBuf>,
    /// Jobs at once, twice as many while another worker is lost; as many as there are processors if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    slots: Option<u32>,
    /// Compiler to offer; may be repeated
    #[arg(long, value_name = "PROGRAM", default_value = "cc")]
    compiler: Vec<String>,
    /// Folder for the private folders of jobs; the system's for temporary files if not given
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Print one line of JSON once it is ready
    #[arg(long)]
    json: bool,
    /// End when standard input ends, so that a worker never outlives who started it
    #[arg(long)]
    until_stdin_ends: bool,
}

/// What a worker prints with `--json` once it is ready.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// Its key.
    pub(crate) id: String,
    /// Where it listens, with the ports the system chose.
    pub(crate) addresses: Vec<String>,
}

struct Worker {
    compilers: Vec<Compiler>,
    slots: u32,
    free: Semaphore,
    scratch: PathBuf,
    limits: Limits,
}

/// Time for running jobs once a worker is told to end.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs a worker until it is told to end.
///
/// # Errors
///
/// It has no secret, no compiler, or no address.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let secret = net::secret(options.secret.as_deref())?;
    let mut compilers = Vec::new();
    for program in &options.compiler {
        let compiler = Compiler::find(program).await?;
        if compiler.kind == Kind::Other {
            bail!("{program} is neither gcc nor clang");
        }
        compilers.push(compiler);
    }
    let slots = match options.slots {
        Some(slots) => slots,
        None => u32::try_from(std::thread::available_parallelism()?.get())?,
    };
    let worker = Arc::new(Worker {
        compilers,
        slots,
        free: Semaphore::new((slots * HEADROOM) as usize),
        scratch: options.scratch.unwrap_or_else(std::env::temp_dir),
        limits: Limits::default(),
    });
    let mesh = net::start(secret, &options.listen).await?;
    serve(&mesh, &worker)?;
    announce(&mesh, &worker, options.json)?;
    told_to_end(options.until_stdin_ends).await?;
    mesh.drain(DRAIN, 2 * DRAIN).await;
    Ok(())
}

fn serve(mesh: &Mesh, worker: &Arc<Worker>) -> anyhow::Result<()> {
    let compiling = Arc::clone(worker);
    mesh.serve(move |_: CallContext, job: Compile| {
        let worker = Arc::clone(&compiling);
        async move { worker.compile(job).await }
    })?;
    let description = Description {
        slots: worker.slots,
        compilers: worker.compilers.iter().map(|compiler| compiler.identity).collect(),
    };
    mesh.serve(move |_: CallContext, _: Describe| {
        let description = description.clone();
        async move { Ok(description) }
    })?;
    Ok(())
}

impl Worker {
    async fn compile(&self, job: Compile) -> Result<Object, Refusal> {
        let Some(compiler) = self.compilers.iter().find(|compiler| compiler.identity == job.compiler) else {
            return Err(Refusal::NoCompiler);
        };
        let _slot = self.free.try_acquire().map_err(|_| Refusal::Busy)?;
        sandbox::run(compiler, &job, &self.limits, &self.scratch).await
    }
}

fn announce(mesh: &Mesh, worker: &Worker, json: bool) -> anyhow::Result<()> {
    let addresses: Vec<String> = mesh.addresses().iter().map(ToString::to_string).collect();
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, &Ready { id: mesh.id().to_string(), addresses })?;
        writeln!(out)?;
    } else {
        writeln!(out, "worker {} with {} slots", mesh.id(), worker.slots)?;
        for compiler in &worker.compilers {
            writeln!(out, "  compiles with {} ({})", compiler.program.display(), compiler.version)?;
        }
        for address in addresses {
            writeln!(out, "  listens on {address}")?;
        }
    }
    out.flush().context("cannot write to standard output")
}

async fn told_to_end(until_stdin_ends: bool) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let stdin_ends = async {
        if !until_stdin_ends {
            return std::future::pending().await;
        }
        let mut stdin = tokio::io::stdin();
        let mut buffer = [0; 64];
        while matches!(stdin.read(&mut buffer).await, Ok(read) if read > 0) {}
    };
    tokio::select! {
        biased;
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
        () = stdin_ends => {}
    }
    Ok(())
}
