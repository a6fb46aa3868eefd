//! Finds a C compiler and says exactly which one it is.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use tokio::process::Command;

/// Whose compiler it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// GNU.
    Gcc,
    /// LLVM.
    Clang,
    /// Something else, which is only run locally.
    Other,
}

/// A compiler of this machine.
#[derive(Clone, Debug)]
pub(crate) struct Compiler {
    /// The program.
    pub(crate) program: PathBuf,
    /// Whose it is.
    pub(crate) kind: Kind,
    /// Equal on two machines when the same input gives the same object: a hash of what it says of itself, of
    /// its compiler proper, and of its assembler's version.
    pub(crate) identity: [u8; 32],
    /// The first line of `--version`.
    pub(crate) version: String,
}

impl Compiler {
    /// Looks at `program`, a path or a name on `PATH`.
    ///
    /// # Errors
    ///
    /// There is no such program, or it does not answer `--version` and `-dumpmachine`.
    pub(crate) async fn find(program: &str) -> anyhow::Result<Self> {
        let path = on_path(Path::new(program)).with_context(|| format!("no {program} on PATH"))?;
        let version = ask(&path, &["--version"]).await?;
        let machine = ask(&path, &["-dumpmachine"]).await?;
        let kind = if version.contains("clang") {
            Kind::Clang
        } else if version.contains("Free Software Foundation") {
            Kind::Gcc
        } else {
            Kind::Other
        };
        let assembler = ask(&path, &["-print-prog-name=as"]).await?;
        let assembler = on_path(Path::new(assembler.trim())).unwrap_or_else(|| PathBuf::from("as"));
        let mut hasher = blake3::Hasher::new_derive_key("vitte-net compile-mesh 2025 compiler identity v1");
        // The first word of the first line is the name it was called by.
        let said = version.split_once(' ').map_or(version.as_str(), |(_, said)| said);
        for part in [said, &machine] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        if kind == Kind::Gcc {
            for proper in ["cc1", "cc1plus"] {
                let found = ask(&path, &[&format!("-print-prog-name={proper}")]).await?;
                if let Some(found) = on_path(Path::new(found.trim())) {
                    let bytes = tokio::fs::read(&found).await;
                    let bytes = bytes.with_context(|| format!("cannot read {}", found.display()))?;
                    hasher.update(proper.as_bytes()).update(&bytes);
                }
            }
            let line = ask(&assembler, &["--version"]).await?;
            hasher.update(line.lines().next().unwrap_or_default().as_bytes());
        }
        let version = version.lines().next().unwrap_or_default().to_owned();
        Ok(Self { program: path, kind, identity: *hasher.finalize().as_bytes(), version })
    }
}

async fn ask(program: &Path, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        bail!("{} {} ended with {}", program.display(), args.join(" "), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where a program is: itself if it names a folder, else the first of its name on `PATH`.
fn on_path(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_same_compiler_under_two_names_is_one() {
        let cc = Compiler::find("cc").await.expect("a C compiler");
        let folder = tempfile::tempdir().expect("a folder");
        let other = folder.path().join("renamed");
        std::os::unix::fs::symlink(&cc.program, &other).expect("a link");
        let renamed = Compiler::find(other.to_str().expect("UTF-8")).await.expect("the same");
        assert_eq!(cc.identity, renamed.identity);
        assert_ne!(cc.kind, Kind::Other, "{}", cc.version);
    }

    #[tokio::test]
    async fn what_is_no_compiler_is_an_error() {
        assert!(Compiler::find("no-such-compiler-here").await.is_err());
        assert!(Compiler::find("false").await.is_err());
    }
}
