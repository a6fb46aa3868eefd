//! What the demo compiles: the C files of Lua 5.4, or those of any folder.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tokio::process::Command;

use crate::args::{Plan, Unit, plan};
use crate::compiler::Compiler;

/// How every file is compiled.
const FLAGS: &[&str] = &["-std=gnu99", "-O2", "-Wall", "-DLUA_COMPAT_5_3", "-DLUA_USE_POSIX", "-I."];
/// Most files of a folder.
const FILES_MAX: usize = 10_000;
/// The programs of the Lua distribution, which have a main of their own.
const PROGRAMS: &[&str] = &["lua.c", "luac.c"];

/// A folder of C files.
#[derive(Clone, Debug)]
pub(crate) struct Project {
    /// The folder.
    pub(crate) folder: PathBuf,
    /// The files, by their names below the folder, sorted.
    pub(crate) files: Vec<PathBuf>,
}

impl Project {
    /// The Lua 5.4 that the crate `lua-src` carries.
    ///
    /// # Errors
    ///
    /// Cargo does not find it.
    pub(crate) async fn lua() -> anyhow::Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let output = Command::new(cargo)
            .args(["metadata", "--format-version=1", "--manifest-path"])
            .arg(&manifest)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .await
            .context("cannot run cargo, which knows where the sources of Lua are")?;
        if !output.status.success() {
            bail!("cargo metadata ended with {}", output.status);
        }
        let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
        let package = metadata.packages.iter().find(|package| package.name == "lua-src");
        let package = package.context("cargo metadata knows no package lua-src")?;
        let root = package.manifest_path.parent().context("lua-src has no folder")?;
        let lua = std::fs::read_dir(root)?.filter_map(Result::ok).map(|entry| entry.path()).find(|path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("lua-5.4."))
        });
        Self::folder(&lua.with_context(|| format!("no Lua 5.4 in {}", root.display()))?)
    }

    /// The C files of `folder` and below.
    ///
    /// # Errors
    ///
    /// It cannot be read, has none, or has more than 10,000.
    pub(crate) fn folder(folder: &Path) -> anyhow::Result<Self> {
        let folder = folder.canonicalize().with_context(|| format!("cannot read {}", folder.display()))?;
        let mut files = Vec::new();
        let mut folders = vec![folder.clone()];
        while let Some(next) = folders.pop() {
            for entry in
                std::fs::read_dir(&next).with_context(|| format!("cannot read {}", next.display()))?
            {
                let entry = entry?;
                let (kind, path) = (entry.file_type()?, entry.path());
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "c") {
                    files.push(path.strip_prefix(&folder)?.to_owned());
                }
                if files.len() > FILES_MAX {
                    bail!("more than {FILES_MAX} C files in {}", folder.display());
                }
            }
        }
        if files.is_empty() {
            bail!("no C file in {}", folder.display());
        }
        files.sort();
        Ok(Self { folder, files })
    }

    /// How `file` is compiled.
    ///
    /// # Errors
    ///
    /// Its name is not UTF-8, or looks like an option.
    pub(crate) fn unit(&self, file: &Path) -> anyhow::Result<Unit> {
        let name = file.to_str().with_context(|| format!("{} is not UTF-8", file.display()))?;
        let args: Vec<String> = FLAGS.iter().chain(&["-c", name]).map(|arg| (*arg).to_owned()).collect();
        match plan(&args) {
            Plan::Remote(unit) => Ok(unit),
            Plan::Local(why) => bail!("{name} cannot go to a worker: {why}"),
        }
    }

    /// Compiles `file` here, into `object`.
    ///
    /// # Errors
    ///
    /// The compiler fails.
    pub(crate) async fn compile_here(
        &self,
        compiler: &Compiler,
        file: &Path,
        object: &Path,
    ) -> anyhow::Result<()> {
        let mut command = Command::new(&compiler.program);
        command.args(FLAGS).arg("-c").arg(file).arg("-o").arg(object).current_dir(&self.folder);
        succeed(command).await.map(|_| ())
    }

    /// Whether this is Lua, which the demo can link and run.
    pub(crate) fn is_lua(&self) -> bool {
        ["lua.h", "lauxlib.h", "lualib.h", "lvm.c"].iter().all(|name| self.folder.join(name).is_file())
    }

    /// Links the objects of Lua in `objects` with a small main, runs a script with it, and answers what that
    /// printed.
    ///
    /// # Errors
    ///
    /// It does not link, or the script fails.
    pub(crate) async fn run_lua(&self, compiler: &Compiler, objects: &Path) -> anyhow::Result<String> {
        let (main, script, program) =
            (objects.join("demo-main.c"), objects.join("demo.lua"), objects.join("demo-main"));
        tokio::fs::write(&main, include_str!("../lua/main.c")).await?;
        tokio::fs::write(&script, include_str!("../lua/script.lua")).await?;
        let mut link = Command::new(&compiler.program);
        link.arg("-I").arg(&self.folder).arg(&main);
        let library = |file: &&PathBuf| !PROGRAMS.iter().any(|program| Path::new(program) == file.as_path());
        for file in self.files.iter().filter(library) {
            link.arg(object_of(objects, file));
        }
        link.arg("-o").arg(&program).args(["-lm", "-ldl"]);
        succeed(link).await.context("linking")?;
        let mut run = Command::new(&program);
        run.arg(&script);
        Ok(succeed(run).await.context("the script")?.trim_end().to_owned())
    }
}

/// Where the object of `file` is kept below `folder`.
pub(crate) fn object_of(folder: &Path, file: &Path) -> PathBuf {
    let name = file.to_string_lossy().replace('%', "%25").replace('/', "%2f");
    folder.join(format!("{name}.o"))
}

async fn succeed(mut command: Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    if !output.status.success() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lua_is_found_through_cargo() {
        let lua = Project::lua().await.expect("Lua 5.4");
        assert_eq!(lua.files.len(), 32, "{:?}", lua.files);
        assert!(lua.is_lua());
        let unit = lua.unit(&lua.files[0]).expect("for a worker");
        assert_eq!(unit.source, lua.files[0]);
        assert!(lua.files.contains(&PathBuf::from("lvm.c")));
    }

    #[test]
    fn a_folder_without_c_files_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(Project::folder(folder.path()).is_err());
        std::fs::create_dir(folder.path().join("below")).expect("a folder");
        std::fs::write(folder.path().join("below/x.c"), "int x;").expect("a file");
        let project = Project::folder(folder.path()).expect("one file");
        assert_eq!(project.files, [PathBuf::from("below/x.c")]);
        assert!(!project.is_lua());
    }

    #[test]
    fn objects_of_different_files_have_different_names() {
        let folder = Path::new("/o");
        assert_ne!(object_of(folder, Path::new("a/b.c")), object_of(folder, Path::new("a%2fb.c")));
    }
}
