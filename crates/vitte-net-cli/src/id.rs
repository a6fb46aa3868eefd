//! `vnet id`, and where keys are.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use vitte_net::Identity;
use vitte_net::identity::IdentityError;

use crate::problem::Problem;
use crate::terminal::{self, Output};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The key file [default: vitte/node.key in $XDG_CONFIG_HOME or ~/.config]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

pub(crate) fn run(options: &Options, output: &Output) -> Result<ExitCode, Problem> {
    let path = key_path(options.key.as_deref())?;
    let created = !path.exists();
    let id = load(&path)?.peer_id();
    if created {
        terminal::complain(&format!("vnet: a new key is in {}", path.display()));
    }
    let record = json!({ "id": id.to_string(), "key": path.display().to_string(), "created": created });
    output.tell(&[id.to_string()], &record)?;
    Ok(ExitCode::SUCCESS)
}

/// The key file that was given, or the usual one, whose folder is made.
pub(crate) fn key_path(given: Option<&Path>) -> Result<PathBuf, Problem> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let from_env = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = from_env("XDG_CONFIG_HOME").or_else(|| Some(from_env("HOME")?.join(".config")));
    let folder = config
        .ok_or_else(|| Problem::mistake("no place for the key: HOME is not set", "--key FILE"))?
        .join("vitte");
    std::fs::create_dir_all(&folder).map_err(|error| {
        Problem::mistake(format!("cannot make the folder {}: {error}", folder.display()), "--key FILE")
    })?;
    Ok(folder.join("node.key"))
}

/// Reads the key file, or creates it.
pub(crate) fn load(path: &Path) -> Result<Identity, Problem> {
    Identity::load_or_create(path).map_err(|error| {
        let hint = match &error {
            IdentityError::NotPrivate(path) => {
                format!("chmod 600 {}, if nobody has read it; otherwise a new key", path.display())
            }
            _ => String::from("--key FILE with another file: one that does not exist is created"),
        };
        Problem::mistake(error.to_string(), hint)
    })
}
