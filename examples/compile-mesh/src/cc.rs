//! The drop-in compiler: preprocesses here, compiles on a worker, and compiles here whenever that fails.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;
use vitte_net::{Address, Mesh};

use crate::args::{Plan, Unit, plan};
use crate::compiler::Compiler;
use crate::job::Object;
use crate::net;
use crate::pool::Pool;
use crate::preprocess::{Preprocessed, Unprepared, preprocess};

/// Options of `compile-mesh cc`.
#[derive(Debug, clap::Args)]
#[command(
    // They are the compiler's.
    disable_help_flag = true,
    after_help = "The workers stand in COMPILE_MESH_WORKERS, addresses separated by commas; the secret in \
                        the file that COMPILE_MESH_SECRET_FILE names, or in COMPILE_MESH_SECRET itself. \
                        COMPILE_MESH_VERBOSE=1 also says why a command that no worker can do stays here. \
                        What does not compile on a worker is compiled here once more, so that its errors are \
                        the compiler's own, with the lines they are about; warnings from a worker come \
                        without those lines."
)]
pub(crate) struct Options {
    /// The compiler
    compiler: String,
    /// Its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// How long the search for a worker may take; then the compile is done here.
const SEARCH: Duration = Duration::from_secs(3);
/// How long the goodbye to the workers may take.
const GOODBYE: Duration = Duration::from_millis(200);

/// Does what the compiler would do, and answers its exit code.
///
/// # Errors
///
/// The compiler does not even run here.
pub(crate) async fn run(options: Options) -> anyhow::Result<i32> {
    let why = match text_of(&options.args).map(|args| plan(&args)) {
        None => "an argument is not UTF-8".to_owned(),
        Some(Plan::Remote(unit)) => match remote(&options.compiler, &unit).await {
            Ok(Remote::Done) => return Ok(0),
            Ok(Remote::Failed(why)) => why,
            Err(why) => {
                say(&why);
                return local(&options).await;
            }
        },
        Some(Plan::Local(why)) => why,
    };
    if std::env::var_os("COMPILE_MESH_VERBOSE").is_some() {
        say(&why);
    }
    local(&options).await
}

fn text_of(args: &[OsString]) -> Option<Vec<String>> {
    args.iter().map(|arg| arg.to_str().map(str::to_owned)).collect()
}

fn say(why: &str) {
    // Some of it was said by a worker: a terminal gets no control characters from there.
    let why: String = why.chars().flat_map(char::escape_debug).collect();
    let _ = writeln!(std::io::stderr(), "compile-mesh: compiled here: {why}");
}

async fn local(options: &Options) -> anyhow::Result<i32> {
    use std::os::unix::process::ExitStatusExt as _;
    let status = Command::new(&options.compiler).args(&options.args).status().await;
    let status = status.with_context(|| format!("cannot run {}", options.compiler))?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
}

/// What became of a compile on a worker.
enum Remote {
    Done,
    /// The source does not compile. Here the compiler can show the lines at fault, which a worker has not got.
    Failed(String),
}

/// What a worker made of it, or why none could.
async fn remote(program: &str, unit: &Unit) -> Result<Remote, String> {
    let addresses = workers()?;
    let secret = std::env::var_os("COMPILE_MESH_SECRET_FILE").map(PathBuf::from);
    let secret = net::secret(secret.as_deref()).map_err(|error| format!("{error:#}"))?;
    let compiler = Compiler::find(program).await.map_err(|error| format!("{error:#}"))?;
    let Preprocessed { job, stderr } = match preprocess(&compiler, unit, None).await {
        Ok(preprocessed) => preprocessed,
        // The compiler says it once more, here.
        Err(Unprepared { why, stderr }) if !stderr.is_empty() => return Ok(Remote::Failed(why)),
        Err(Unprepared { why, .. }) => return Err(why),
    };
    let mesh = net::start(secret, &[]).await.map_err(|error| format!("{error:#}"))?;
    let pool = Pool::new(&mesh, compiler.identity);
    let found = find(&mesh, &pool, addresses).await;
    let done = match found {
        Ok(()) => pool.compile(&job).await.map_err(|error| error.to_string()),
        Err(why) => Err(why),
    };
    mesh.drain(GOODBYE, GOODBYE).await;
    let object = done?.object;
    if object.exit_code != 0 {
        return Ok(Remote::Failed(format!("on a worker the compiler ended with {}", object.exit_code)));
    }
    deliver(&unit.object, &object, &stderr)?;
    Ok(Remote::Done)
}

fn workers() -> Result<Vec<Address>, String> {
    let text = std::env::var("COMPILE_MESH_WORKERS")
        .map_err(|_| "COMPILE_MESH_WORKERS names no worker".to_owned())?;
    text.split(',')
        .map(str::trim)
        .filter(|address| !address.is_empty())
        .map(|address| address.parse().map_err(|error| format!("{}: {error}", address.escape_debug())))
        .collect()
}

/// Waits for the first worker that can help; the others join the pool when they answer.
async fn find(mesh: &Mesh, pool: &Arc<Pool>, addresses: Vec<Address>) -> Result<(), String> {
    let mut asked = JoinSet::new();
    for address in addresses {
        let (mesh, pool) = (mesh.clone(), Arc::clone(pool));
        asked.spawn(async move {
            let peer = mesh.connect(&address).await.map_err(|error| format!("{address}: {error}"))?;
            pool.add(peer).await.map_err(|error| format!("{address}: {error}"))
        });
    }
    let mut why = "COMPILE_MESH_WORKERS names no worker".to_owned();
    let first = async {
        while let Some(joined) = asked.join_next().await {
            match joined {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => why = error,
                Err(error) => why = error.to_string(),
            }
        }
        Err(why)
    };
    match timeout(SEARCH, first).await {
        Ok(found) => found?,
        Err(_) => return Err(format!("no worker answered within {SEARCH:?}")),
    }
    asked.detach_all();
    Ok(())
}

/// Writes what the compiler would have written.
fn deliver(path: &Path, object: &Object, preprocessor: &[u8]) -> Result<(), String> {
    std::fs::write(path, &object.object[..]).map_err(|error| format!("{}: {error}", path.display()))?;
    // If nobody reads what the compiler says, its exit code still counts.
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(preprocessor).and_then(|()| stderr.write_all(&object.stderr));
    let _ = std::io::stdout().lock().write_all(&object.stdout);
    Ok(())
}
