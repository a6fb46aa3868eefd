//! What vitte-net costs above the raw layer below it, as ratios within one run, between two processes.
//!
//! The method, the subjects and figures are in `docs/PERFORMANCE.md`.

mod far;
mod http;
mod load;
mod memory;
mod ours;
mod plain;
mod raw;
mod rounds;
mod spin;
mod table;
mod urgent;
mod websocket;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

/// Measures vitte-net against quinn, tokio-rustls, and tokio-rustls inside of tokio-tungstenite
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

/// What and how to measure.
#[derive(Clone, Debug, Args)]
struct Options {
    /// Only measurements whose name contains this, such as S/quic, /tls or D; may be repeated
    #[arg(long, value_name = "SUBSTR")]
    only: Vec<String>,
    /// Rounds, of which the medians are taken
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Print one object of JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Small sizes, to see that everything runs; the figures mean nothing
    #[arg(long)]
    short: bool,
    /// Let the processors sleep while latency is measured
    #[arg(long)]
    no_spin: bool,
    /// The tokio runtime of both processes
    #[arg(long, value_enum, default_value_t = Flavour::Multi)]
    runtime: Flavour,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Peak memory of both processes while 1 GiB goes to a reader that takes 100 MiB a second
    Memory(memory::Options),
    /// Urgent calls while bulk flows to the same peer
    Urgent(urgent::Options),
    /// HTTP/1.1 beside bare hyper: requests a second of the server, bytes a second of the client
    Http(http::Options),
    /// The server of such a measurement: started by this program
    #[command(hide = true)]
    HttpFar(http::Far),
    /// Plain TCP and UDP beside bare tokio
    Plain(plain::Options),
    /// Echoes of plain WebSockets beside raw tokio-tungstenite
    Websocket(websocket::Options),
    /// The far side of a measurement: started by this program
    #[command(hide = true)]
    Child(far::Part),
    /// The sending side of a memory measurement: started by this program
    #[command(hide = true)]
    Sender(memory::Sender),
    /// Keep one processor awake: started by this program
    #[command(hide = true)]
    Spin,
}

/// A tokio runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Flavour {
    /// Two worker threads
    Multi,
    /// One thread
    Current,
}

impl Flavour {
    fn build(self) -> anyhow::Result<Runtime> {
        let mut builder = match self {
            Self::Multi => Builder::new_multi_thread(),
            Self::Current => Builder::new_current_thread(),
        };
        Ok(builder.worker_threads(2).enable_all().build()?)
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vitte-net-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        None => {
            let runtime = cli.options.runtime.build()?;
            // In a task, because the thread that blocks on the runtime is none of its workers.
            runtime.block_on(runtime.spawn(rounds::run(cli.options)))??;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Memory(options)) => {
            let runtime = Flavour::Multi.build()?;
            runtime.block_on(runtime.spawn(memory::run(options)))?
        }
        Some(Command::Urgent(options)) => {
            let runtime = Flavour::Multi.build()?;
            runtime.block_on(runtime.spawn(urgent::run(options)))?
        }
        Some(Command::Http(options)) => {
            let runtime = Flavour::Multi.build()?;
            runtime.block_on(runtime.spawn(http::run(options)))?
        }
        Some(Command::HttpFar(far)) => {
            let runtime = Flavour::Multi.build()?;
            runtime.block_on(runtime.spawn(http::far(far)))??;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Plain(options)) => {
            let runtime = options.runtime.build()?;
            runtime.block_on(plain::run(options))
        }
        Some(Command::Websocket(options)) => {
            let runtime = Flavour::Multi.build()?;
            runtime.block_on(runtime.spawn(websocket::run(options)))?
        }
        Some(Command::Child(part)) => far::child(&part).map(|()| ExitCode::SUCCESS),
        Some(Command::Sender(sender)) => memory::sender(&sender).map(|()| ExitCode::SUCCESS),
        Some(Command::Spin) => spin::spin(),
    }
}
