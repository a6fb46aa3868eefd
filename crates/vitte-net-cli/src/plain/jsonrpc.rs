//! `vnet jsonrpc`: calls a method of a JSON-RPC server, such as a language server.

use std::process::{ExitCode, Stdio};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::process::Command;
use vitte_net::stream::jsonrpc::{CallError, JsonRpc, Limits, RpcError};

use super::proxy::{ProxyOption, connect};
use super::{Trust, parse_size};
use crate::pace;
use crate::problem::Problem;
use crate::terminal::Output;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The method to call.
    #[arg(required_unless_present = "echo")]
    method: Option<String>,
    /// Its parameters in JSON: a list or an object.
    params: Option<String>,
    /// The server: tcp://HOST:PORT or tls://HOST:PORT.
    #[arg(long, value_name = "ADDRESS", required_unless_present_any = ["command", "echo"])]
    connect: Option<String>,
    /// Send a notification, which has no answer.
    #[arg(long)]
    notify: bool,
    /// Be a server on stdin and stdout, which answers every request with its parameters.
    #[arg(long, conflicts_with_all = ["connect", "notify", "method"])]
    echo: bool,
    /// How long connecting and the answer may take.
    #[arg(long, value_name = "SECS", default_value = "10s", value_parser = pace::parse_timeout)]
    timeout: Duration,
    /// Bytes of one message, at most: 10m [default: 16m]
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    max_size: Option<u64>,
    #[command(flatten)]
    through: ProxyOption,
    #[command(flatten)]
    trust: Trust,
    /// The server: a program to start, which speaks on its stdin and stdout.
    #[arg(last = true, value_name = "COMMAND", conflicts_with_all = ["connect", "echo"])]
    command: Vec<String>,
}

pub(crate) async fn run(options: Options, output: &Output) -> Result<ExitCode, Problem> {
    if options.echo {
        return echo(options.limits()).await;
    }
    let method = options.method.clone().unwrap_or_default();
    let params: Value = match &options.params {
        None => Value::Null,
        Some(text) => serde_json::from_str(text).map_err(|error| {
            Problem::mistake(format!("the parameters are no JSON: {error}"), "'[1, 2]' or '{\"a\": 1}'")
        })?,
    };
    let mut child = None;
    let builder = JsonRpc::builder().limits(options.limits());
    let connection = if let Some(address) = &options.connect {
        builder.start(options.open(address).await?)
    } else {
        let [program, arguments @ ..] = &options.command[..] else {
            return Err(Problem::mistake("there is no server", "--connect ADDRESS, or -- COMMAND"));
        };
        let mut started = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Problem::mistake(format!("cannot start {program}: {error}"), "-- COMMAND"))?;
        let (Some(input), Some(out)) = (started.stdin.take(), started.stdout.take()) else {
            return Err(Problem::failed("the program has no stdin and stdout", ""));
        };
        child = Some(started);
        builder.start(tokio::io::join(out, input))
    };
    let client = connection.client();
    let asked = async {
        if options.notify {
            client.notify(&method, params).await.map(|()| None)
        } else {
            client.call::<_, Value>(&method, params).await.map(Some)
        }
    };
    let answer = tokio::time::timeout(options.timeout, asked).await;
    connection.close();
    let closed = tokio::time::timeout(options.timeout, connection.closed()).await;
    drop(child);
    match answer {
        Err(_) => Err(Problem::failed(
            format!("no answer within {:?}", options.timeout),
            "--timeout SECS waits longer",
        )),
        // A notification has arrived, for all that can be known, if the connection ended well.
        Ok(Ok(None)) => match closed {
            Ok(Ok(())) => Ok(ExitCode::SUCCESS),
            Ok(Err(error)) => Err(Problem::failed(format!("the connection broke: {error}"), "")),
            Err(_) => Err(Problem::failed("the notification could not be sent in time", "")),
        },
        Ok(Ok(Some(result))) => {
            let text = serde_json::to_string_pretty(&result).map_err(std::io::Error::from)?;
            output
                .tell(&text.lines().map(str::to_owned).collect::<Vec<_>>(), &json!({ "result": result }))?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(Err(CallError::Answered(error))) => {
            if output.is_json() {
                output.tell(&[], &json!({ "error": error }))?;
            }
            let hint = if error.code == RpcError::METHOD_NOT_FOUND {
                "see which methods the server has"
            } else {
                ""
            };
            Err(Problem::failed(format!("the server answered: {error}"), hint))
        }
        Ok(Err(error @ CallError::NotSent(_))) => {
            Err(Problem::mistake(error.to_string(), "'[1, 2]' or '{\"a\": 1}'"))
        }
        Ok(Err(error)) => {
            let why = match closed {
                Ok(Err(end)) => format!("{error}: {end}"),
                _ => error.to_string(),
            };
            Err(Problem::failed(why, "see that the server speaks JSON-RPC with Content-Length"))
        }
    }
}

/// Serves until stdin ends.
async fn echo(limits: Limits) -> Result<ExitCode, Problem> {
    let echo = |_, params: Value| async move { Ok::<_, RpcError>(params) };
    let stdio = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
    let connection = JsonRpc::builder().limits(limits).on_other_requests(echo).start(stdio);
    match connection.closed().await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(Problem::failed(format!("the connection broke: {error}"), "")),
    }
}

impl Options {
    fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        if let Some(bytes) = self.max_size {
            limits.message_max = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
        limits
    }

    async fn open(&self, address: &str) -> Result<vitte_net::network::BoxStream, Problem> {
        let (tls, target) = match address.split_once("://") {
            Some(("tcp", target)) => (false, target),
            Some(("tls", target)) => (true, target),
            _ => {
                return Err(Problem::mistake(
                    "an address is tcp://HOST:PORT or tls://HOST:PORT",
                    "--connect tcp://127.0.0.1:9000",
                ));
            }
        };
        let stream = connect(self.through.proxy.as_ref(), target, self.timeout).await?;
        if !tls {
            return Ok(stream);
        }
        let host = target.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
        let tls = self.trust.builder()?.handshake_timeout(self.timeout);
        let tls = tls.build().map_err(|error| super::tls_mistake(&error))?;
        let secured = tls.connect(host, stream).await.map_err(|error| {
            let what = format!("no TLS with {target}: {error}");
            Problem::failed(what, "--ca FILE with the authority of its certificate")
        })?;
        Ok(secured.into_box())
    }
}
