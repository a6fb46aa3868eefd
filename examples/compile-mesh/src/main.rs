//! A distributed C compiler: a drop-in compiler wrapper, its workers, and a demo.

mod allow;
mod args;
mod cc;
mod compiler;
mod demo;
mod job;
mod net;
mod pool;
mod preprocess;
mod sandbox;
mod source;
mod worker;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// Compiles C on many machines: over QUIC, TLS and WebSocket, by a vitte-net mesh.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compile a C project with worker processes on this machine, and take one of them away meanwhile
    Demo(demo::Options),
    /// Compile what members of the mesh send
    Worker(worker::Options),
    /// Be a C compiler: preprocess here, compile on a worker, or here if no worker can
    Cc(cc::Options),
}

/// How long tasks that block may hold up the end.
const END: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("COMPILE_MESH_LOG"))
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("compile-mesh: {error}");
            return ExitCode::from(2);
        }
    };
    let ended = runtime.block_on(async {
        match Cli::parse().command {
            Command::Demo(options) => demo::run(options).await,
            Command::Worker(options) => worker::run(options).await.map(|()| 0),
            Command::Cc(options) => cc::run(options).await,
        }
    });
    // A read of standard input cannot be ended, and need not be waited for.
    runtime.shutdown_timeout(END);
    match ended {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        Err(error) => {
            // Some of it may have been said by a peer.
            let text = format!("{error:#}").replace(|c: char| c.is_control() && c != '\n', "\u{fffd}");
            eprintln!("compile-mesh: {text}");
            ExitCode::from(2)
        }
    }
}
