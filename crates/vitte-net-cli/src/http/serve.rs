//! `vnet http serve`: the files of a folder.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use clap::Args;
use serde_json::json;
use vitte_net::http::{
    Body, Files, HeaderValue, HttpError, Reply, Request, Router, Server, Symlinks, header,
};
use vitte_net::tls::ServerTls;

use super::{parse_pair, parse_size};
use crate::problem::Problem;
use crate::terminal::Output;
use crate::{interrupted, pace};

/// How long requests may still take after Ctrl-C.
const GRACE: Duration = Duration::from_secs(5);
/// Bytes of a body that are looked at before it is sent back: 1 MiB. A body that is broken within them is
/// refused.
const LOOKED_AT: usize = 1 << 20;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The folder whose files are served.
    folder: PathBuf,
    /// Where to listen; port 0 lets the system choose.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Answer POST and PUT with their own body.
    #[arg(long)]
    echo: bool,
    /// Serve https with this certificate chain and key, PEM files.
    #[arg(long, value_name = "CERT,KEY", value_parser = parse_pair)]
    tls: Option<(PathBuf, PathBuf)>,
    /// Speak HTTP/3 as well, at the same port by UDP.
    #[arg(long, requires = "tls")]
    http3: bool,
    /// How long the head of a request may take.
    #[arg(long, value_name = "SECS", default_value = "15s", value_parser = pace::parse_timeout)]
    header_timeout: Duration,
    /// How long a connection may wait for its next request.
    #[arg(long, value_name = "SECS", default_value = "60s", value_parser = pace::parse_timeout)]
    idle_timeout: Duration,
    /// Bytes of the body of a request, at most.
    #[arg(long, value_name = "BYTES", default_value = "64m", value_parser = parse_size)]
    max_size: u64,
    /// Answer for this host alone; may be repeated [default: for any]
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Follow symbolic links that lead out of the folder, too.
    #[arg(long)]
    follow_links: bool,
}

pub(crate) async fn run(options: Options, output: &Output) -> Result<ExitCode, Problem> {
    if !options.folder.is_dir() {
        return Err(Problem::mistake(
            format!("{} is no folder", options.folder.display()),
            "a folder that exists",
        ));
    }
    let mut builder = Server::builder()
        .header_timeout(options.header_timeout)
        .idle_timeout(options.idle_timeout)
        .max_body(options.max_size)
        .http3(options.http3)
        .hosts(options.host.iter().cloned());
    if let Some((chain, key)) = &options.tls {
        let tls = ServerTls::builder().certificate_files(chain, key).build();
        let tls = tls.map_err(|error| {
            Problem::mistake(format!("--tls: {error}"), "a certificate and its key in PEM")
        })?;
        builder = builder.tls(tls);
    }
    let server = builder.bind(&options.listen).await.map_err(|error| Problem::listen(&error))?;
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}/", server.local_addr());
    let links = if options.follow_links { Symlinks::Follow } else { Symlinks::Inside };
    let mut router = Router::new();
    let files = Files::new(&options.folder).symlinks(links);
    router = if options.echo { router.nest("/", EchoOr(files)) } else { router.nest("/", files) };
    let serving = server.serve(router);
    let line = format!("serving {} at {url}", options.folder.display());
    output.tell(&[line], &json!({ "event": "started", "url": url }))?;
    let stopped = interrupted().await;
    let cut = serving.shutdown(GRACE).await;
    if cut > 0 {
        output
            .tell(&[format!("{cut} connections were cut")], &json!({ "event": "cut", "connections": cut }))?;
    }
    stopped.map(|()| ExitCode::SUCCESS)
}

/// POST and PUT come back, the rest is files.
struct EchoOr(Files);

impl vitte_net::http::Handler for EchoOr {
    fn handle(&self, request: Request) -> vitte_net::network::BoxFuture<'_, Reply> {
        if !matches!(request.method().as_str(), "POST" | "PUT") {
            return self.0.handle(request);
        }
        Box::pin(async move {
            use vitte_net::http::IntoReply;
            echo(request).await.into_reply()
        })
    }
}

async fn echo(request: Request) -> Result<Reply, HttpError> {
    let media = request.headers().get(header::CONTENT_TYPE).cloned();
    let mut body = request.into_body();
    let mut begin = BytesMut::new();
    let whole = loop {
        match body.chunk().await? {
            None => break true,
            Some(bytes) => begin.extend_from_slice(&bytes),
        }
        if begin.len() >= LOOKED_AT {
            break false;
        }
    };
    let begin = begin.freeze();
    let reply = if whole { Reply::new(begin) } else { Reply::new(behind(begin, body)) };
    let media = media.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    Ok(reply.header(header::CONTENT_TYPE, media))
}

/// What was looked at, and the rest as it comes.
fn behind(begin: Bytes, body: Body) -> Body {
    let stream = futures_util::stream::unfold((Some(begin), body), |(begin, mut body)| async move {
        match begin {
            Some(begin) => Some((Ok(begin), (None, body))),
            None => match body.chunk().await {
                Ok(bytes) => bytes.map(|bytes| (Ok(bytes), (None, body))),
                Err(error) => Some((Err(std::io::Error::from(error)), (None, Body::empty()))),
            },
        }
    });
    Body::stream(stream, None)
}
