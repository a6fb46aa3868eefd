//! The demo: worker processes, a C project, and one worker that goes away in the middle.

mod fault;
mod fleet;
mod project;
mod report;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use vitte_net::{Mesh, Secret};

use crate::compiler::Compiler;
use crate::demo::fault::{Fault, Struck};
use crate::demo::fleet::Worker;
use crate::demo::project::{Project, object_of};
use crate::demo::report::{Report, Row};
use crate::net;
use crate::pool::Pool;
use crate::preprocess::preprocess;

/// Options of `compile-mesh demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Transports of the workers; all of them if not given
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["quic", "tls", "ws"])]
    transport: Vec<Transport>,
    /// Folder whose C files are compiled; if it is Lua they are linked and run too [default: Lua 5.4]
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// Kill one worker while it has a job running; the default
    #[arg(long, conflicts_with_all = ["freeze", "no_kill"])]
    kill: bool,
    /// Stop one worker (SIGSTOP) instead: its connections stay open, and silent
    #[arg(long, conflicts_with = "no_kill")]
    freeze: bool,
    /// Leave all workers alone
    #[arg(long)]
    no_kill: bool,
    /// Compare every object with a local compile, byte by byte
    #[arg(long)]
    check: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// How a worker of the demo is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Transport {
    /// QUIC.
    Quic,
    /// TLS over TCP.
    Tls,
    /// WebSocket.
    Ws,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic => "quic",
            Self::Tls => "tls",
            Self::Ws => "ws",
        })
    }
}

/// Workers that are started.
const WORKERS: usize = 3;
/// Jobs that each runs at once.
const SLOTS: u32 = 2;
/// The exit code of a program that was interrupted, as shells say it.
const INTERRUPTED: i32 = 130;
/// Longest goodbye.
const GOODBYE: Duration = Duration::from_millis(500);

/// Everything a job needs.
struct Work {
    project: Project,
    compiler: Compiler,
    pool: Arc<Pool>,
    names: Vec<(vitte_net::PeerId, String)>,
    folder: TempDir,
    check: bool,
    room: Semaphore,
}

/// Runs the demo; 0 if all of it held, else 1.
///
/// # Errors
///
/// It does not come so far: no compiler, no source, a worker that does not start.
pub(crate) async fn run(options: Options) -> anyhow::Result<i32> {
    let compiler = Compiler::find("cc").await?;
    let project = match &options.source {
        Some(folder) => Project::folder(folder)?,
        None => Project::lua().await?,
    };
    tokio::select! {
        biased;
        held = show(&options, compiler, project) => held,
        // What was started goes with the future: a stopped worker does not see that its input has ended.
        interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| INTERRUPTED).context("cannot wait for an interrupt"),
    }
}

async fn show(options: &Options, compiler: Compiler, project: Project) -> anyhow::Result<i32> {
    let folder = tempfile::tempdir()?;
    let secret = Secret::generate();
    let mesh = net::start(secret.clone(), &[]).await?;
    let pool = Pool::new(&mesh, compiler.identity);
    let fleet = start(&options.transport, &secret, &folder, &mesh, &pool).await?;
    if !options.json {
        eprintln!("{} files of {}", project.files.len(), project.folder.display());
        for worker in &fleet {
            eprintln!("{} {} over {}", worker.name, worker.id.short(), worker.transport);
        }
    }
    let fault = match (options.freeze, options.no_kill) {
        (true, _) => Some(Fault::Freeze),
        (_, true) => None,
        _ => Some(Fault::Kill),
    };
    let names = fleet.iter().map(|worker| (worker.id, worker.name.clone())).collect();
    let room = Semaphore::new(2 * pool.slots().max(1));
    let work = Arc::new(Work { project, compiler, pool, names, folder, check: options.check, room });
    let started = Instant::now();
    let (rows, struck) = compile(&work, fault, &fleet, options.json).await?;
    let took = started.elapsed();
    let lua = match work.project.is_lua() && rows.iter().all(|row| row.error.is_none()) {
        true => {
            let ran = work.project.run_lua(&work.compiler, &work.objects()).await;
            Some(ran.map_err(|error| format!("{error:#}")))
        }
        false => None,
    };
    mesh.drain(GOODBYE, GOODBYE).await;
    let fault = fault.map(|fault| (fault, struck));
    let report = Report::new(rows, took, &options.transport, fault, (&work.pool, &fleet), lua);
    report.print(options.json)?;
    Ok(i32::from(!report.held()))
}

/// Starts the workers, all at once.
async fn start(
    transports: &[Transport],
    secret: &Secret,
    folder: &TempDir,
    mesh: &Mesh,
    pool: &Pool,
) -> anyhow::Result<Vec<Worker>> {
    let secret = secret.expose();
    let scratch = folder.path().join("scratch");
    std::fs::create_dir(&scratch)?;
    std::fs::create_dir(folder.path().join("objects"))?;
    let number = WORKERS.max(transports.len());
    let starting =
        transports.iter().cycle().take(number).enumerate().map(|(nth, transport)| {
            Worker::start(nth + 1, *transport, SLOTS, &secret, &scratch, (mesh, pool))
        });
    let mut fleet = Vec::new();
    for worker in futures_util::future::try_join_all(starting).await? {
        fleet.push(worker);
    }
    Ok(fleet)
}

/// Compiles every file, and strikes a worker meanwhile.
async fn compile(
    work: &Arc<Work>,
    fault: Option<Fault>,
    fleet: &[Worker],
    quiet: bool,
) -> anyhow::Result<(Vec<Row>, Option<Struck>)> {
    let bar = if quiet { ProgressBar::hidden() } else { bar(work.project.files.len())? };
    let mut jobs = JoinSet::new();
    for (nth, file) in work.project.files.iter().cloned().enumerate() {
        let work = Arc::clone(work);
        jobs.spawn(async move { (nth, work.file(file).await) });
    }
    let all = async {
        let mut rows = Vec::new();
        while let Some(row) = jobs.join_next().await {
            let (nth, row) = row.context("a job panicked")?;
            bar.inc(1);
            bar.set_message(row.file.clone());
            rows.push((nth, row));
        }
        anyhow::Ok(rows)
    };
    let mut struck = None;
    let strike = async {
        if let Some(fault) = fault {
            struck = Some(fault.strike(&work.pool, fleet).await?);
        }
        std::future::pending::<anyhow::Result<()>>().await
    };
    let mut rows = tokio::select! {
        biased;
        rows = all => rows?,
        failed = strike => return Err(failed.err().context("a fault ended")?),
    };
    bar.finish_and_clear();
    rows.sort_by_key(|(nth, _)| *nth);
    Ok((rows.into_iter().map(|(_, row)| row).collect(), struck))
}

fn bar(files: usize) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} {msg}")?;
    Ok(ProgressBar::new(files as u64).with_style(style))
}

impl Work {
    fn objects(&self) -> PathBuf {
        self.folder.path().join("objects")
    }

    /// Compiles one file on a worker.
    async fn file(&self, file: PathBuf) -> Row {
        let mut row = Row { file: file.display().to_string(), ..Row::default() };
        if let Err(error) = self.fill(&mut row, &file).await {
            row.error = Some(format!("{error:#}"));
        }
        row
    }

    async fn fill(&self, row: &mut Row, file: &std::path::Path) -> anyhow::Result<()> {
        let _room = self.room.acquire().await?;
        let unit = self.project.unit(file)?;
        let preprocessed = preprocess(&self.compiler, &unit, Some(&self.project.folder)).await;
        let job = match preprocessed {
            Ok(preprocessed) => preprocessed.job,
            Err(unprepared) => {
                row.diagnostics = String::from_utf8_lossy(&unprepared.stderr).into_owned();
                anyhow::bail!(unprepared.why);
            }
        };
        row.bytes_in = job.source.len();
        let started = Instant::now();
        let done = self.pool.compile(&job).await?;
        row.milliseconds = u64::try_from(started.elapsed().as_millis())?;
        let name = self.names.iter().find(|(id, _)| *id == done.worker).map(|(_, name)| name.clone());
        (row.worker, row.transport) = (name, Some(done.transport));
        (row.bytes_out, row.retries) = (done.object.object.len(), done.retries);
        row.diagnostics = String::from_utf8_lossy(&done.object.stderr).into_owned();
        if done.object.exit_code != 0 {
            anyhow::bail!("the compiler ended with {}", done.object.exit_code);
        }
        let path = object_of(&self.objects(), file);
        tokio::fs::write(&path, &done.object.object.0).await?;
        if self.check {
            let local = path.with_extension("local");
            self.project.compile_here(&self.compiler, file, &local).await.context("the local compile")?;
            row.identical = Some(tokio::fs::read(&local).await? == *done.object.object);
        }
        Ok(())
    }
}
