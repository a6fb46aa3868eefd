//! `vnet http get`, `head`, `post` and `put`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use vitte_net::http::{
    Body, Checksum, Client, Download, HeaderMap, HeaderName, HeaderValue, HttpError, Method, Progress,
    Protocol, Proxy, Response,
};
use vitte_net::tls::ClientTls;

use super::{parse_size, problem, unreadable};
use crate::problem::Problem;
use crate::terminal::{self, Output};
use crate::{interrupted, pace};

/// Bytes of a body that is shown inside of JSON, at most: 16 MiB.
const JSON_BODY_MAX: usize = 16 << 20;
/// How often the progress is shown.
const TICK: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to ask for: http://HOST:PORT/PATH or https://HOST/PATH.
    url: String,
    /// Write the body to this file, once all of it is there [default: to stdout as it comes]
    #[arg(long, short = 'o', value_name = "FILE")]
    output: Option<PathBuf>,
    /// Go on where an earlier `-o FILE` broke off, if the file is the same still.
    #[arg(long, requires = "output")]
    resume: bool,
    /// What the file must be: sha256:HEX or blake3:HEX.
    #[arg(long, value_name = "CHECKSUM", requires = "output")]
    checksum: Option<Checksum>,
    /// With -o, how often a failure that may be better later is tried again.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(..=100))]
    retries: u32,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct SendOptions {
    /// Where to send it.
    url: String,
    /// What to send: this text.
    #[arg(long, short = 'd', value_name = "TEXT", conflicts_with = "body")]
    data: Option<String>,
    /// What to send: this file, or - for stdin.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// A field of the request, such as 'Accept: text/html'; may be repeated.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = parse_field)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// How long all of it may take [default: 30 s to connect, to answer, and for each pause]
    #[arg(long, value_name = "SECS", value_parser = pace::parse_timeout)]
    timeout: Option<Duration>,
    /// Trust the certificates in this PEM file, and no others.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Accept every certificate: anybody in between can read and change everything.
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// Bytes of the body, at most: 10m.
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    max_size: Option<u64>,
    /// Go through this proxy: http://USER:PASSWORD@HOST:PORT.
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// How many redirects to follow.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=50))]
    follow: u32,
    /// HTTP/1.1 alone.
    #[arg(long)]
    http1: bool,
    /// HTTP/2 alone.
    #[arg(long, conflicts_with = "http1")]
    http2: bool,
    /// HTTP/3 alone, over QUIC; for https.
    #[arg(long, conflicts_with_all = ["http1", "http2", "proxy"])]
    http3: bool,
}

/// `Name: value`.
fn parse_field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("a name, a colon and a value")?;
    let name = name.trim().parse().map_err(|_| format!("{name:?} is no name of a field"))?;
    let value = value.trim().parse().map_err(|_| "a control character in the value".to_owned())?;
    Ok((name, value))
}

impl Common {
    fn client(&self) -> Result<Client, Problem> {
        let mut builder = Client::builder().redirects(self.follow).protocol(self.protocol());
        if let Some(timeout) = self.timeout {
            builder =
                builder.timeout(timeout).connect_timeout(timeout).head_timeout(timeout).idle_timeout(timeout);
        }
        if let Some(bytes) = self.max_size {
            builder = builder.max_body(bytes);
        }
        if let Some(url) = &self.proxy {
            builder = builder.proxy(Proxy::new(url).map_err(|error| problem(&error))?);
        }
        if let Some(path) = &self.ca {
            let tls = ClientTls::builder().roots_file(path).and_then(|tls| tls.build());
            builder = builder.tls(tls.map_err(|error| unreadable("--ca", path, error))?);
        } else if self.insecure {
            let tls = ClientTls::builder().dangerous_accept_any_certificate().build();
            builder = builder.tls(tls.map_err(|error| Problem::failed(error.to_string(), ""))?);
        }
        Ok(builder.build())
    }

    fn protocol(&self) -> Protocol {
        if self.http1 {
            Protocol::Http1
        } else if self.http2 {
            Protocol::Http2
        } else if self.http3 {
            Protocol::Http3
        } else {
            Protocol::Auto
        }
    }

    async fn ask(&self, method: Method, url: &str, body: Body) -> Result<Response, Problem> {
        let mut request = self.client()?.request(method, url).body(body);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.send().await.map_err(|error| problem(&error))
    }
}

pub(crate) async fn get(options: Options, output: &Output) -> Result<ExitCode, Problem> {
    let asking = async {
        match &options.output {
            Some(path) => download(&options, path, output).await,
            None => {
                let response = options.common.ask(Method::GET, &options.url, Body::empty()).await?;
                tell_body(response, output).await
            }
        }
    };
    unless_interrupted(asking).await
}

pub(crate) async fn head(options: Options, output: &Output) -> Result<ExitCode, Problem> {
    let asking = async {
        let response = options.common.ask(Method::HEAD, &options.url, Body::empty()).await?;
        let mut lines = vec![format!("{:?} {}", response.version(), response.status())];
        for (name, value) in response.headers() {
            lines.push(format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
        }
        output.tell(&lines, &record(&response))?;
        response.success().map_err(|error| problem(&error))?;
        Ok(())
    };
    unless_interrupted(asking).await
}

pub(crate) async fn send(method: Method, options: SendOptions, output: &Output) -> Result<ExitCode, Problem> {
    let sending = async {
        let body = match (&options.data, &options.body) {
            (Some(text), _) => Body::from(text.clone()),
            (None, Some(path)) if path.as_os_str() == "-" => Body::reader(tokio::io::stdin(), None),
            (None, Some(path)) => {
                let file =
                    tokio::fs::File::open(path).await.map_err(|error| unreadable("--body", path, error))?;
                let metadata = file.metadata().await.map_err(|error| unreadable("--body", path, error))?;
                Body::reader(file, metadata.is_file().then_some(metadata.len()))
            }
            (None, None) => Body::empty(),
        };
        tell_body(options.common.ask(method, &options.url, body).await?, output).await
    };
    unless_interrupted(sending).await
}

/// Ctrl-C is no success. What a download has is kept.
async fn unless_interrupted(work: impl Future<Output = Result<(), Problem>>) -> Result<ExitCode, Problem> {
    tokio::select! {
        biased;
        ended = work => ended.map(|()| ExitCode::SUCCESS),
        stopped = interrupted() => {
            stopped?;
            Err(Problem::failed("interrupted", ""))
        }
    }
}

/// Writes the body to stdout as it comes.
async fn tell_body(response: Response, output: &Output) -> Result<(), Problem> {
    let mut response = response.success().map_err(|error| problem(&error))?;
    if output.is_json() {
        let mut record = record(&response);
        let url = response.url().clone();
        let body = response.into_body().bytes(JSON_BODY_MAX).await;
        let body =
            body.map_err(|error| Problem::failed(format!("{url}: {error}"), "-o FILE for what is large"))?;
        record.insert("length".to_owned(), json!(body.len()));
        record.insert("body".to_owned(), json!(String::from_utf8_lossy(&body)));
        return Ok(output.tell(&[], &record)?);
    }
    while let Some(bytes) = response.chunk().await.map_err(|error| problem(&error))? {
        output.bytes(&bytes)?;
    }
    Ok(())
}

fn record(response: &Response) -> Map<String, Value> {
    let mut headers = Map::new();
    for name in response.headers().keys() {
        let values = response.headers().get_all(name).iter();
        let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        headers.insert(name.to_string(), json!(values));
    }
    let record = json!({
        "url": response.url().to_string(),
        "status": response.status().as_u16(),
        "version": format!("{:?}", response.version()),
        "headers": headers,
    });
    match record {
        Value::Object(record) => record,
        _ => Map::new(),
    }
}

async fn download(options: &Options, path: &std::path::Path, output: &Output) -> Result<(), Problem> {
    let common = &options.common;
    let client = common.client()?;
    let mut bar = Bar::new();
    let mut headers = HeaderMap::new();
    for (name, value) in &common.headers {
        headers.append(name, value.clone());
    }
    let mut download = Download::new(&client, &options.url, path)
        .headers(headers)
        .resume(options.resume)
        .retries(options.retries, Duration::from_millis(500))
        .max_size(common.max_size.unwrap_or(u64::MAX))
        .on_progress(|progress| bar.show(progress));
    if let Some(checksum) = options.checksum {
        download = download.checksum(checksum);
    }
    // All tries together.
    let done = match common.timeout {
        None => download.run().await,
        Some(timeout) => match tokio::time::timeout(timeout, download.run()).await {
            Ok(done) => done,
            Err(_) => {
                bar.clear();
                let what = format!("{}: the download took longer than {timeout:?}", options.url);
                return Err(Problem::failed(what, "a longer --timeout; --resume goes on where it was"));
            }
        },
    };
    bar.clear();
    let done = done.map_err(|error: HttpError| problem(&error))?;
    let line = format!("{}: {}", path.display(), size(done.length));
    let record = json!({
        "event": "downloaded",
        "file": path,
        "url": done.url.to_string(),
        "length": done.length,
        "resumed": done.resumed,
        "retries": done.retries,
    });
    Ok(output.tell(&[line], &record)?)
}

/// One line on stderr, where that is a terminal, that says how far the download is.
struct Bar {
    begun: Instant,
    shown: Option<Instant>,
    on_terminal: bool,
}

impl Bar {
    fn new() -> Self {
        Self { begun: Instant::now(), shown: None, on_terminal: terminal::shows_progress() }
    }

    fn show(&mut self, progress: Progress) {
        if !self.on_terminal || self.shown.is_some_and(|shown| shown.elapsed() < TICK) {
            return;
        }
        self.shown = Some(Instant::now());
        let rate = size(per_second(progress.received, self.begun.elapsed()));
        let line = match progress.total {
            Some(total) if total > 0 => {
                let percent = u128::from(progress.received) * 100 / u128::from(total);
                let done = usize::try_from(percent / 4).unwrap_or(25).min(25);
                let bar = "#".repeat(done) + &".".repeat(25 - done);
                format!("[{bar}] {percent:>3} % of {}, {rate}/s", size(total))
            }
            _ => format!("{}, {rate}/s", size(progress.received)),
        };
        terminal::progress(&line);
    }

    fn clear(&mut self) {
        if self.shown.take().is_some() {
            terminal::progress("");
            let _ = std::io::stderr().flush();
        }
    }
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    let rate = u128::from(bytes) * 1000 / time.as_millis().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// A number of bytes for people.
fn size(bytes: u64) -> String {
    let (unit, shift) = match bytes {
        0..1024 => return format!("{bytes} bytes"),
        1024..0x10_0000 => ("KiB", 10),
        0x10_0000..0x4000_0000 => ("MiB", 20),
        _ => ("GiB", 30),
    };
    let tenths = (u128::from(bytes) * 10) >> shift;
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_fields_are_readable() {
        for (bytes, text) in [(1, "1 bytes"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (3 << 30, "3.0 GiB")] {
            assert_eq!(size(bytes), text);
        }
        assert!(parse_field("Accept: a").is_ok());
        assert!(
            parse_field("Accept").is_err()
                && parse_field("a b: c").is_err()
                && parse_field("a: b\nc").is_err()
        );
    }
}
