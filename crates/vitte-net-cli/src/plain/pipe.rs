//! `vnet tcp` and `vnet tls`: stdin to a connection, and a connection to stdout.

use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};
use vitte_net::network::BoxStream;
use vitte_net::tcp::TcpServer;
use vitte_net::tls::ServerTls;

use super::proxy::{ProxyOption, connect};
use super::{Trust, in_json, parse_pair, parse_size, stdin, tell_listening, tls_mistake};
use crate::problem::Problem;
use crate::terminal::Output;
use crate::{interrupted, pace};

/// How long what the peer has said is still read after it has hung up.
const LAST_WORDS: Duration = Duration::from_secs(1);

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
            let mut server = TcpServer::bind(&self.address).await.map_err(|error| Problem::listen(&error))?;
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

    /// Both directions, neither of which waits for the other, until both have ended. The end of stdin is passed on,
    /// and what is left of it is sent also after the peer has sent everything.
    async fn talk(&self, stream: BoxStream, output: &Output) -> Result<ExitCode, Problem> {
        let (reader, writer) = stream.into_split();
        let moved = Moved::new();
        let (mut comes, mut open) = (true, true);
        let mut receiving = pin!(self.receive(reader, &moved, output));
        let mut sending = pin!(send(writer, &moved));
        let mut silence = pin!(silence(self.idle, &moved));
        let mut ended = pin!(interrupted());
        while open || comes {
            tokio::select! {
                biased;
                ended = &mut ended => {
                    ended?;
                    return Ok(ExitCode::from(1));
                }
                received = &mut receiving, if comes => {
                    received?;
                    comes = false;
                }
                sent = &mut sending, if open => {
                    if let Err(problem) = sent {
                        // What the peer said before it hung up may say why.
                        if comes {
                            let _ = timeout(LAST_WORDS, receiving).await;
                        }
                        return Err(problem);
                    }
                    open = false;
                }
                problem = &mut silence => return Err(problem),
            }
        }
        if output.is_json() {
            let (sent, received) = (moved.sent.get(), moved.received.get());
            output.tell(&[], &json!({ "event": "ended", "sent": sent, "received": received }))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Shows what comes, until the peer has sent everything.
    async fn receive(
        &self,
        mut reader: impl AsyncRead + Unpin,
        moved: &Moved,
        output: &Output,
    ) -> Result<(), Problem> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let len = reader.read(&mut buffer).await.map_err(broken)?;
            if len == 0 {
                return Ok(());
            }
            moved.count(&moved.received, len);
            if let Some(limit) = self.max_size.filter(|limit| moved.received.get() > *limit) {
                return Err(Problem::failed(format!("more than {limit} bytes arrive"), "--max-size BYTES"));
            }
            if output.is_json() {
                let (form, bytes) = in_json(&buffer[..len]);
                output.tell(&[], &json!({ "event": "received", form: bytes }))?;
            } else {
                output.bytes(&buffer[..len])?;
            }
        }
    }
}

/// Sends stdin to its end, and passes the end on.
async fn send(mut writer: impl AsyncWrite + Unpin, moved: &Moved) -> Result<(), Problem> {
    let mut input = stdin();
    while let Some(chunk) = input.recv().await {
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            let len = writer.write(rest).await.map_err(broken)?;
            if len == 0 {
                return Err(broken(io::ErrorKind::WriteZero.into()));
            }
            moved.count(&moved.sent, len);
            rest = &rest[len..];
        }
        writer.flush().await.map_err(broken)?;
    }
    writer.shutdown().await.map_err(broken)
}

/// Ends when not a byte went either way for so long.
async fn silence(idle: Option<Duration>, moved: &Moved) -> Problem {
    let Some(idle) = idle else { return std::future::pending().await };
    while moved.last.get().elapsed() < idle {
        sleep_until(moved.last.get() + idle).await;
    }
    Problem::failed(format!("not a byte went either way for {idle:?}"), "--idle SECS waits longer")
}

fn broken(error: io::Error) -> Problem {
    Problem::failed(format!("the connection broke: {error}"), "")
}

/// Bytes that went either way, and when the last ones did.
struct Moved {
    sent: Cell<u64>,
    received: Cell<u64>,
    last: Cell<Instant>,
}

impl Moved {
    fn new() -> Self {
        Self { sent: Cell::new(0), received: Cell::new(0), last: Cell::new(Instant::now()) }
    }

    fn count(&self, way: &Cell<u64>, len: usize) {
        way.set(way.get() + len as u64);
        self.last.set(Instant::now());
    }
}
