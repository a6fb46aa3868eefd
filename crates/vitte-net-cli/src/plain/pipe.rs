//! `vnet tcp` and `vnet tls`: stdin to a connection, and a connection to stdout.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vitte_net::network::BoxStream;
use vitte_net::tcp::TcpServer;
use vitte_net::tls::ServerTls;

use super::proxy::{ProxyOption, connect};
use super::{Trust, in_json, parse_pair, parse_size, stdin, tell_listening, tls_mistake};
use crate::problem::Problem;
use crate::terminal::Output;
use crate::{interrupted, pace};

#[derive(Debug, Args)]
pub(crate) struct Tcp {
    /// HOST:PORT to connect to, or with --listen to listen at.
    address: String,
    /// Wait for one connection instead.
    #[arg(long, short = 'l')]
    listen: bool,
    /// How long connecting may take, the handshake of TLS included.
    #[arg(long, value_name = "SECS", default_value = "10s", value_parser = pace::parse_timeout)]
    timeout: Duration,
    /// Give up when not a byte went either way for so long [default: never]
    #[arg(long, value_name = "SECS", value_parser = pace::parse_timeout)]
    idle: Option<Duration>,
    /// Bytes to receive, at most: 10m.
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    max_size: Option<u64>,
    #[command(flatten)]
    through: ProxyOption,
}

#[derive(Debug, Args)]
pub(crate) struct Tls {
    #[command(flatten)]
    tcp: Tcp,
    #[command(flatten)]
    trust: Trust,
    /// The name that the server's certificate must be for [default: HOST]
    #[arg(long, value_name = "NAME", conflicts_with = "listen")]
    name: Option<String>,
    /// The certificate chain and the key to show, PEM files; needed with --listen.
    #[arg(long, value_name = "CHAIN,KEY", value_parser = parse_pair)]
    cert: Option<(PathBuf, PathBuf)>,
    /// An application protocol to ask for or to offer, the most wanted first; may be repeated.
    #[arg(long, value_name = "PROTOCOL")]
    alpn: Vec<String>,
}

pub(crate) async fn run_tcp(options: Tcp, output: &Output) -> Result<ExitCode, Problem> {
    let stream = options.open(output).await?;
    options.talk(stream, output).await
}

pub(crate) async fn run_tls(options: Tls, output: &Output) -> Result<ExitCode, Problem> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|error| {
            Problem::mistake(format!("cannot read {}: {error}", path.display()), "--cert CHAIN,KEY")
        })
    };
    let stream = if options.tcp.listen {
        let Some((chain, key)) = &options.cert else {
            return Err(Problem::mistake("a server needs a certificate", "--cert CHAIN,KEY"));
        };
        let builder = ServerTls::builder().certificate_files(chain, key).alpn(options.alpn.clone());
        let builder = builder.handshake_timeout(options.tcp.timeout);
        let tls = builder.build().map_err(|error| tls_mistake(&error))?;
        let stream = options.tcp.open(output).await?;
        tls.accept(stream).await
    } else {
        let mut builder = options.trust.builder()?.alpn(options.alpn.clone());
        if let Some((chain, key)) = &options.cert {
            builder = builder.certificate_pem(read(chain)?, read(key)?);
        }
        let tls =
            builder.handshake_timeout(options.tcp.timeout).build().map_err(|error| tls_mistake(&error))?;
        let host = options.tcp.address.rsplit_once(':').map_or("", |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = options.tcp.open(output).await?;
        tls.connect(options.name.as_deref().unwrap_or(host), stream).await
    };
    let stream = stream.map_err(|error| {
        let what = format!("no TLS with {}: {error}", options.tcp.address);
        Problem::failed(
            what,
            "--ca FILE with the authority of its certificate, --name NAME if it has another name",
        )
    })?;
    options.tcp.talk(stream.into_box(), output).await
}

impl Tcp {
    async fn open(&self, output: &Output) -> Result<BoxStream, Problem> {
        if self.listen {
            if self.through.proxy.is_some() {
                let what = "a proxy makes tunnels outwards: nobody can listen through it";
                return Err(Problem::mistake(what, "--listen without --proxy"));
            }
            let mut server = TcpServer::bind(&self.address).await.map_err(|error| {
                Problem::failed(
                    error.to_string(),
                    "another port (0 lets the system choose), or an address of this machine",
                )
            })?;
            let lost = |error: std::io::Error| Problem::failed(format!("cannot accept: {error}"), "");
            tell_listening(output, server.local_addr().map_err(lost)?)?;
            let (stream, _) = tokio::select! {
                biased;
                ended = interrupted() => return Err(ended.err().unwrap_or(Problem::failed("", ""))),
                accepted = server.accept() => accepted.map_err(lost)?,
            };
            return Ok(stream.into_inner());
        }
        connect(self.through.proxy.as_ref(), &self.address, self.timeout).await
    }

    /// Both directions until both have ended. The end of stdin is passed on, and what is left of it is sent also
    /// after the peer has sent everything.
    async fn talk(&self, stream: BoxStream, output: &Output) -> Result<ExitCode, Problem> {
        let broken = |error: std::io::Error| Problem::failed(format!("the connection broke: {error}"), "");
        let (mut reader, mut writer) = stream.into_split();
        let (mut input, mut open, mut comes) = (stdin(), true, true);
        let (mut sent, mut received) = (0_u64, 0_u64);
        let mut buffer = vec![0; 64 << 10];
        let idle = self.idle.unwrap_or(Duration::from_secs(u64::from(u32::MAX)));
        while open || comes {
            tokio::select! {
                biased;
                ended = interrupted() => {
                    ended?;
                    return Ok(ExitCode::from(1));
                }
                read = reader.read(&mut buffer), if comes => {
                    let len = read.map_err(broken)?;
                    if len == 0 {
                        comes = false;
                        continue;
                    }
                    received += len as u64;
                    if let Some(limit) = self.max_size.filter(|limit| received > *limit) {
                        return Err(Problem::failed(format!("more than {limit} bytes arrive"), "--max-size BYTES"));
                    }
                    if output.is_json() {
                        let (form, bytes) = in_json(&buffer[..len]);
                        output.tell(&[], &json!({ "event": "received", form: bytes }))?;
                    } else {
                        output.bytes(&buffer[..len])?;
                    }
                }
                chunk = input.recv(), if open => match chunk {
                    Some(chunk) => {
                        // While the peer does not read, it may want to be read first.
                        let writing = async {
                            writer.write_all(&chunk).await?;
                            writer.flush().await
                        };
                        tokio::time::timeout(idle, writing).await.map_err(|_| silent(idle))?.map_err(broken)?;
                        sent += chunk.len() as u64;
                    }
                    None => {
                        open = false;
                        writer.shutdown().await.map_err(broken)?;
                    }
                },
                () = tokio::time::sleep(idle) => return Err(silent(idle)),
            }
        }
        if output.is_json() {
            output.tell(&[], &json!({ "event": "ended", "sent": sent, "received": received }))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn silent(idle: Duration) -> Problem {
    Problem::failed(format!("not a byte went either way for {idle:?}"), "--idle SECS waits longer")
}
