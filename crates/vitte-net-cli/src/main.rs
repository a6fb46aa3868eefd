//! `vnet`: the command line of vitte-net. It makes identities and secrets, runs a node, and measures calls.

mod http;
mod id;
mod node;
mod pace;
mod ping;
mod plain;
mod problem;
mod protocol;
mod secret;
mod terminal;
mod ws;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use self::problem::Problem;
use self::terminal::{Escaping, Output};

/// Nodes of a vitte-net mesh from the command line.
///
/// Exit codes: 0 when all went well (ping: every call was answered), 1 when something failed on the way
/// (ping: some or no answer), 2 when the command or its configuration is at fault.
///
/// Logs go to stderr; RUST_LOG sets their level.
#[derive(Debug, Parser)]
#[command(name = "vnet", version)]
struct Options {
    /// One JSON object a line on stdout, for programs.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows the id of this node, and creates its key if there is none.
    Id(id::Options),
    /// Generates the secret that the members of a mesh share.
    Secret(secret::Options),
    /// Runs a node that answers pings, and tells of its peers, until Ctrl-C.
    Node(node::Options),
    /// Calls a node again and again, and measures the round trips.
    Ping(ping::Options),
    /// Connects stdin and stdout to a TCP connection, as a client or (--listen) as a server.
    Tcp(plain::pipe::Tcp),
    /// As `tcp`, inside TLS.
    Tls(plain::pipe::Tls),
    /// Sends stdin in datagrams, and shows those that come.
    Udp(plain::udp::Options),
    /// Asks name servers about a name.
    Dns(plain::dns::Options),
    /// Calls a method of a JSON-RPC server, such as a language server.
    Jsonrpc(plain::jsonrpc::Options),
    /// Talks over a WebSocket, as a client or (--listen) as a server.
    Ws(ws::Options),
    /// Asks HTTP servers, downloads, uploads, and serves a folder.
    Http(http::Options),
}

impl Command {
    /// What is logged unless RUST_LOG says otherwise: `ping` tells of its errors itself.
    fn log_level(&self) -> LevelFilter {
        match self {
            Self::Node(_) => LevelFilter::WARN,
            Self::Id(_) | Self::Secret(_) | Self::Ping(_) | Self::Ws(_) | Self::Http(_) => LevelFilter::ERROR,
            Self::Tcp(_) | Self::Tls(_) | Self::Udp(_) | Self::Dns(_) | Self::Jsonrpc(_) => {
                LevelFilter::ERROR
            }
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let filter = EnvFilter::builder().with_default_directive(options.command.log_level().into());
    tracing_subscriber::fmt()
        .with_env_filter(filter.from_env_lossy())
        .with_writer(|| Escaping(std::io::stderr()))
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .init();
    let output = Output::new(options.json);
    let ended = match options.command {
        Command::Id(options) => id::run(&options, &output),
        Command::Secret(options) => secret::run(&options, &output),
        Command::Node(options) => node::run(options, &output).await,
        Command::Ping(options) => ping::run(options, &output).await,
        Command::Tcp(options) => plain::pipe::run_tcp(options, &output).await,
        Command::Tls(options) => plain::pipe::run_tls(options, &output).await,
        Command::Udp(options) => plain::udp::run(options, &output).await,
        Command::Dns(options) => plain::dns::run(options, &output).await,
        Command::Jsonrpc(options) => plain::jsonrpc::run(options, &output).await,
        Command::Ws(options) => ws::run(options, &output).await,
        Command::Http(options) => http::run(options, &output).await,
    };
    match ended {
        Ok(code) => code,
        Err(problem) => {
            problem.report();
            problem.exit_code()
        }
    }
}

/// Waits for Ctrl-C, or to be asked to end.
async fn interrupted() -> Result<(), Problem> {
    let unheard = |error| Problem::failed(format!("cannot wait for Ctrl-C: {error}"), "");
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminated = signal(SignalKind::terminate()).map_err(unheard)?;
        tokio::select! {
            biased;
            ended = tokio::signal::ctrl_c() => ended.map_err(unheard),
            _ = terminated.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.map_err(unheard)
}
