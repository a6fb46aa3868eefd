//! `vnet secret`, and where secrets come from. Never from the command line: other users see it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use vitte_net::Secret;
use vitte_net::identity::SecretError;

use crate::problem::Problem;
use crate::terminal::Output;

/// The environment variable that is read where no file is given.
pub(crate) const VARIABLE: &str = "VITTE_SECRET";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Writes the secret to a new file that its owner alone may read (mode 0600), and not to stdout.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(options: &Options, output: &Output) -> Result<ExitCode, Problem> {
    let secret = Secret::generate();
    let text = secret.expose();
    match &options.out {
        None => output.tell(&[text.to_string()], &json!({ "secret": text.as_str() }))?,
        Some(path) => {
            let shown = path.display();
            create(path, &text).map_err(|error| {
                let hint = match error.kind() {
                    io::ErrorKind::AlreadyExists => "another file: one that exists is never overwritten",
                    _ => "another file",
                };
                Problem::mistake(format!("cannot write the secret file {shown}: {error}"), hint)
            })?;
            let line = format!("a new secret is in {shown}");
            output.tell(&[line], &json!({ "secret_file": shown.to_string() }))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let written = writeln!(file, "{text}").and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a secret would be refused, or worse.
        let _ = fs::remove_file(path);
    }
    written
}

/// The secret of the mesh: from the file, or else from the environment.
pub(crate) fn load(file: Option<&Path>) -> Result<Secret, Problem> {
    let loaded = match file {
        Some(path) => Secret::from_file(path),
        None => Secret::from_env(VARIABLE),
    };
    loaded.map_err(|error| match &error {
        SecretError::NoVariable(_) => Problem::mistake(
            format!("no secret: there is no --secret-file, and {error}"),
            "`vnet secret --out FILE` once, a copy of it on every machine, and --secret-file FILE",
        ),
        SecretError::NotPrivate(path) => Problem::mistake(
            error.to_string(),
            format!("chmod 600 {}, if nobody has read it; otherwise a new secret", path.display()),
        ),
        SecretError::Io { .. } => {
            Problem::mistake(error.to_string(), "`vnet secret --out FILE` makes a secret file")
        }
        _ => {
            let place = file.map_or_else(|| VARIABLE.to_owned(), |path| path.display().to_string());
            Problem::mistake(
                format!("the secret in {place} is of no use: {error}"),
                "`vnet secret` makes one",
            )
        }
    })
}
