//! Runs one compile in a private folder, with limits, so that it can be killed and leaves nothing behind.
//!
//! This bounds what a job can use. It is no jail: a compiler that is itself tricked by its input has the
//! rights of the worker's account, so give a worker an account of its own.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::compiler::{Compiler, Kind};
use crate::job::{Compile, Object, Payload, Refusal};
use crate::{allow, source};

/// What one job may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Time on the wall. Default 120 s.
    pub(crate) wall: Duration,
    /// Seconds of processor time of each process. Default 110 s.
    pub(crate) cpu_seconds: u64,
    /// Bytes of address space of each process, where the system has such a limit. Default 4 GiB.
    pub(crate) memory: u64,
    /// Bytes of each file it writes, the object among them. Default 31 MiB: with the rest of an answer that is one message.
    pub(crate) file: u64,
    /// Bytes of each of standard output and standard error. Default 1 MiB.
    pub(crate) diagnostics: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(120),
            cpu_seconds: 110,
            memory: 4 << 30,
            file: 31 << 20,
            diagnostics: 1 << 20,
        }
    }
}

/// `ulimit -f` counts blocks of 512 bytes, `ulimit -v` KiB. A system without the latter goes on without.
const LIMITED: &str = "ulimit -c 0; ulimit -t \"$1\" || exit 125; ulimit -f \"$2\" || exit 125; \
                       ulimit -v \"$3\" 2>/dev/null; shift 3; exec \"$@\"";

/// What a compiler says when a limit of ours stopped it.
const STOPPED: &[&str] = &[
    "CPU time limit exceeded",
    "File size limit exceeded",
    "File too large",
    "virtual memory exhausted",
    "out of memory",
    "Cannot allocate memory",
    "cannot allocate",
    "signal terminated program",
    "std::bad_alloc",
];

/// Compiles `job` below `scratch`.
///
/// # Errors
///
/// The job is not allowed, or reached a limit, or this machine could not do its part. A compiler that ends
/// with an error is no error here: its exit code is in the answer.
///
/// # Cancel safety
///
/// Dropping the future kills the compiler with all its processes and removes its folder.
pub(crate) async fn run(
    compiler: &Compiler,
    job: &Compile,
    limits: &Limits,
    scratch: &Path,
) -> Result<Object, Refusal> {
    allow::arguments(&job.args).map_err(Refusal::Argument)?;
    source::check(&job.source).map_err(Refusal::Source)?;
    let folder = tempfile::Builder::new().prefix("job-").tempdir_in(scratch).map_err(failed)?;
    let input = format!("in.{}", job.language.extension());
    tokio::fs::write(folder.path().join(&input), job.source.0.clone()).await.map_err(failed)?;
    let started = Instant::now();
    let child = command(compiler, job, limits, folder.path(), &input).spawn().map_err(failed)?;
    let group = Group::of(&child);
    let ended = tokio::time::timeout(limits.wall, finish(child, limits.diagnostics)).await;
    drop(group);
    let (status, stdout, stderr) =
        ended.map_err(|_| Refusal::Limit(format!("{:?} of time", limits.wall)))??;
    let exit_code = exit_code(status, &stderr)?;
    let object = match exit_code {
        0 => tokio::fs::read(folder.path().join("out.o")).await.map_err(failed)?,
        _ => Vec::new(),
    };
    Ok(Object {
        object: Payload::from(object),
        stdout: Payload::from(stdout),
        stderr: Payload::from(stderr),
        exit_code,
        compile_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

fn failed(error: std::io::Error) -> Refusal {
    Refusal::Worker(error.to_string())
}

fn command(compiler: &Compiler, job: &Compile, limits: &Limits, folder: &Path, input: &str) -> Command {
    let mut command = Command::new("sh");
    clean_environment(&mut command, folder, job.source_date_epoch);
    command
        .args(["-c", LIMITED, "sh"])
        .arg(limits.cpu_seconds.to_string())
        .arg((limits.file / 512).to_string())
        .arg((limits.memory / 1024).to_string())
        .arg(&compiler.program)
        .args(&job.args);
    if compiler.kind == Kind::Gcc {
        // It would quote the file that a line marker of the source names, and any file has a first line.
        command.arg("-fno-diagnostics-show-caret");
    }
    command
        .args(["-x", job.language.preprocessed(), "-c", input, "-o", "out.o"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}

fn clean_environment(command: &mut Command, folder: &Path, source_date_epoch: Option<u64>) {
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    if let Some(epoch) = source_date_epoch {
        command.env("SOURCE_DATE_EPOCH", epoch.to_string());
    }
    command.env("LC_ALL", "C").env("TMPDIR", folder).env("HOME", folder);
}

/// Kills every process of the group when it goes.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // Nobody left in it is the usual case, and no error.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

async fn finish(mut child: Child, most: u64) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), Refusal> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = tokio::try_join!(read_up_to(stdout, most), read_up_to(stderr, most))?;
    let status = child.wait().await.map_err(failed)?;
    Ok((status, stdout, stderr))
}

async fn read_up_to(pipe: Option<impl AsyncRead + Unpin>, most: u64) -> Result<Vec<u8>, Refusal> {
    let mut text = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(most + 1).read_to_end(&mut text).await.map_err(failed)?;
    }
    if text.len() as u64 > most {
        return Err(Refusal::Limit(format!("{most} bytes of diagnostics")));
    }
    Ok(text)
}

/// The compiler's own exit code, unless a limit ended it.
fn exit_code(status: ExitStatus, stderr: &[u8]) -> Result<i32, Refusal> {
    let Some(code) = status.code() else {
        return Err(Refusal::Limit(format!("the compiler was ended by {status}")));
    };
    if code == 125 {
        return Err(Refusal::Worker("this system does not take the limits".to_owned()));
    }
    let stopped = STOPPED.iter().find(|text| memchr::memmem::find(stderr, text.as_bytes()).is_some());
    match stopped {
        Some(text) if code != 0 => Err(Refusal::Limit((*text).to_owned())),
        _ => Ok(code),
    }
}

#[cfg(test)]
mod tests;
