//! `vnet ws`: a WebSocket client and server.

mod serve;
mod talk;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::time::timeout;
use vitte_net::tls::{ClientTls, ServerTls};
use vitte_net::ws::{ConnectError, Deflate, WsConnector, WsOptions};

use self::talk::Talk;
use crate::problem::Problem;
use crate::terminal::Output;
use crate::{interrupted, pace};

#[derive(Debug, Args)]
#[command(after_help = "Lines of stdin are text messages; text messages are lines of stdout.")]
pub(crate) struct Options {
    /// The WebSocket to connect to: ws://HOST:PORT/PATH or wss://…
    #[arg(required_unless_present = "listen", conflicts_with = "listen")]
    url: Option<String>,
    /// Listens at this address instead, for one connection after another (with --echo: for many at once).
    #[arg(long, short = 'l', value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Sends every message back, until the other side closes.
    #[arg(long)]
    echo: bool,
    /// Bytes of a message that is taken, at most.
    #[arg(long, value_name = "BYTES", alias = "max-size", default_value_t = 16 << 20)]
    max_message: usize,
    /// With --listen: an origin whose pages may connect; may be repeated [default: all]. Otherwise: the origin to
    /// state [default: none]
    #[arg(long, value_name = "ORIGIN")]
    origin: Vec<String>,
    /// A subprotocol to offer or to accept, the best first; may be repeated.
    #[arg(long, value_name = "NAME")]
    protocol: Vec<String>,
    /// Seconds that the handshake may take, with TCP and TLS.
    #[arg(long, value_name = "SECS", default_value = "15", value_parser = pace::parse_timeout)]
    handshake_timeout: Duration,
    /// Seconds after which all of it ends [default: no end]
    #[arg(long, value_name = "SECS", value_parser = pace::parse_timeout)]
    timeout: Option<Duration>,
    /// Does not compress, whatever the other side can do.
    #[arg(long)]
    no_compression: bool,
    /// For wss://: trusts the certificates in this PEM file, in place of the system's.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["listen", "insecure"])]
    ca: Option<PathBuf>,
    /// For wss://: takes any certificate. Whoever is between can read and change everything.
    #[arg(long, conflicts_with = "listen")]
    insecure: bool,
    /// Goes through this HTTP proxy: http://HOST:PORT, or with USER:PASSWORD@ before the host
    #[arg(long, value_name = "URL", conflicts_with = "listen")]
    proxy: Option<String>,
    /// Serves wss:// with the certificate chain in this PEM file.
    #[arg(long, value_name = "FILE", requires_all = ["listen", "tls_key"])]
    tls_cert: Option<PathBuf>,
    /// The key of --tls-cert, a PEM file.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

pub(crate) async fn run(options: Options, output: &Output) -> Result<ExitCode, Problem> {
    let all = async {
        match (&options.listen, &options.url) {
            (Some(at), _) => serve::run(&options, at, output).await,
            (None, Some(url)) => client(&options, url, output).await,
            (None, None) => Err(Problem::mistake("there is no URL", "vnet ws ws://HOST:PORT/")),
        }
    };
    match options.timeout {
        None => all.await,
        Some(limit) => timeout(limit, all).await.unwrap_or_else(|_| {
            Err(Problem::failed(format!("not done within {limit:?}"), "a longer --timeout"))
        }),
    }
}

impl Options {
    fn limits(&self) -> WsOptions {
        let mut limits = WsOptions::default();
        limits.max_message = self.max_message;
        limits.max_frame = self.max_message;
        limits.handshake_timeout = self.handshake_timeout;
        limits.deflate = (!self.no_compression).then(Deflate::default);
        limits
    }

    fn client_tls(&self) -> Result<ClientTls, Problem> {
        let mut tls = ClientTls::builder();
        if let Some(file) = &self.ca {
            tls = tls.roots_file(file).map_err(|error| {
                Problem::mistake(
                    format!("cannot use {}: {error}", file.display()),
                    "a PEM file with certificates",
                )
            })?;
        }
        if self.insecure {
            tls = tls.dangerous_accept_any_certificate();
        }
        tls.build().map_err(|error| Problem::mistake(error.to_string(), "--ca FILE"))
    }

    fn server_tls(&self) -> Result<Option<ServerTls>, Problem> {
        let (Some(chain), Some(key)) = (&self.tls_cert, &self.tls_key) else { return Ok(None) };
        let tls = ServerTls::builder().certificate_files(chain, key).build();
        let hint = "PEM files: a chain, its own certificate first, and its key";
        tls.map(Some).map_err(|error| Problem::mistake(error.to_string(), hint))
    }
}

async fn client(options: &Options, url: &str, output: &Output) -> Result<ExitCode, Problem> {
    let mut connector =
        WsConnector::new().options(options.limits()).protocols(options.protocol.iter().map(String::as_str));
    if url.starts_with("wss:") {
        connector = connector.tls(options.client_tls()?);
    }
    match options.origin.as_slice() {
        [] => {}
        [origin] => connector = connector.origin(origin),
        _ => return Err(Problem::mistake("a client has one origin", "--origin once")),
    }
    if let Some(proxy) = &options.proxy {
        connector = connector.proxy(proxy);
    }
    let socket = connector.connect(url).await.map_err(|error| no_connection(url, &error))?;
    Talk { output, echo: options.echo, max: options.max_message }.with(socket, url).await
}

fn no_connection(url: &str, error: &ConnectError) -> Problem {
    let what = format!("cannot connect to {url}: {error}");
    match error {
        ConnectError::Request(_) => Problem::mistake(what, "ws://HOST:PORT/PATH or wss://HOST:PORT/PATH"),
        ConnectError::TimedOut => Problem::failed(what, "a longer --handshake-timeout, if the path is slow"),
        ConnectError::Refused { status: 403, .. } => {
            Problem::failed(what, "--origin, as a page of that site has it")
        }
        ConnectError::Refused { .. } => {
            Problem::failed(what, "another path: it serves HTTP there, but no WebSocket")
        }
        ConnectError::ProxyRefused { status: 407 } => {
            Problem::failed(what, "--proxy http://USER:PASSWORD@HOST:PORT")
        }
        ConnectError::Io(_) if url.starts_with("wss:") => {
            Problem::failed(what, "see that something listens there, and that --ca FILE names its authority")
        }
        ConnectError::Io(_) => Problem::failed(what, "see that something listens there and speaks WebSocket"),
        _ => Problem::failed(what, "see that it is a WebSocket server that answers there"),
    }
}
