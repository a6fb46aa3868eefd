//! Preprocesses on this machine and makes the job a worker gets.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::args::Unit;
use crate::compiler::{Compiler, Kind};
use crate::job::{Compile, Payload};
use crate::source;

/// Largest preprocessed source that is sent.
pub(crate) const SOURCE_BYTES_MAX: usize = 7 << 20;

/// What preprocessing came to.
#[derive(Debug)]
pub(crate) struct Preprocessed {
    /// The job.
    pub(crate) job: Compile,
    /// What the preprocessor wrote to standard error: warnings.
    pub(crate) stderr: Vec<u8>,
}

/// Why a unit could not be made ready for a worker.
#[derive(Debug)]
pub(crate) struct Unprepared {
    /// In words for a person.
    pub(crate) why: String,
    /// What the preprocessor wrote to standard error, if it failed.
    pub(crate) stderr: Vec<u8>,
}

impl From<String> for Unprepared {
    fn from(why: String) -> Self {
        Self { why, stderr: Vec::new() }
    }
}

/// Preprocesses `unit` in `folder`, the current folder if none.
///
/// # Errors
///
/// Why a worker cannot help, in words for a person: among others that the preprocessor failed.
pub(crate) async fn preprocess(
    compiler: &Compiler,
    unit: &Unit,
    folder: Option<&Path>,
) -> Result<Preprocessed, Unprepared> {
    match compiler.kind {
        Kind::Gcc | Kind::Clang => {}
        Kind::Other => return Err(format!("{} is neither gcc nor clang", compiler.version).into()),
    }
    let mut command = Command::new(&compiler.program);
    command.arg("-E");
    command.args(&unit.preprocess).arg(&unit.source).stdin(Stdio::null()).kill_on_drop(true);
    if let Some(folder) = folder {
        command.current_dir(folder);
    }
    let output = command.output().await.map_err(|error| format!("the preprocessor does not run: {error}"))?;
    if !output.status.success() {
        return Err(Unprepared {
            why: format!("the preprocessor failed: {}", output.status),
            stderr: output.stderr,
        });
    }
    if output.stdout.len() > SOURCE_BYTES_MAX {
        return Err(format!("preprocessed it is larger than {SOURCE_BYTES_MAX} bytes").into());
    }
    source::check(&output.stdout)?;
    let source_date_epoch = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    let job = Compile {
        compiler: compiler.identity,
        language: unit.language,
        args: unit.compile.clone(),
        source_date_epoch,
        source: Payload::from(output.stdout),
    };
    Ok(Preprocessed { job, stderr: output.stderr })
}
