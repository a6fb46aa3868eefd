//! `vnet http`: asks servers, downloads, uploads, and serves a folder.

mod fetch;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use vitte_net::http::{Blame, HttpError, HttpErrorKind, Method, Stage};

use crate::problem::Problem;
use crate::terminal::Output;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Gets what is at a URL: to stdout, or to a file, which is whole or not there.
    Get(fetch::Options),
    /// Shows the head of the response alone.
    Head(fetch::Options),
    /// Sends a body, and writes the answer to stdout.
    Post(fetch::SendOptions),
    /// Uploads a body, and writes the answer to stdout.
    Put(fetch::SendOptions),
    /// Serves the files of a folder until Ctrl-C.
    Serve(serve::Options),
}

pub(crate) async fn run(options: Options, output: &Output) -> Result<ExitCode, Problem> {
    match options.command {
        Command::Get(options) => fetch::get(options, output).await,
        Command::Head(options) => fetch::head(options, output).await,
        Command::Post(options) => fetch::send(Method::POST, options, output).await,
        Command::Put(options) => fetch::send(Method::PUT, options, output).await,
        Command::Serve(options) => serve::run(options, output).await,
    }
}

/// What went wrong with a request, and what to try.
fn problem(error: &HttpError) -> Problem {
    let hint = match (error.kind(), error.stage(), error.blame()) {
        (HttpErrorKind::Url(_), ..) => "http://HOST:PORT/PATH or https://HOST/PATH",
        (HttpErrorKind::Redirect(_), ..) => "look where it leads with `vnet http head`, or raise --follow",
        (HttpErrorKind::TimedOut { .. }, ..) => "a longer --timeout, or whether the server is well",
        (HttpErrorKind::TooLarge { .. }, ..) => "a larger --max-size",
        (HttpErrorKind::Status { status: 401 | 403 }, ..) => "credentials: --header 'Authorization: ...'",
        (HttpErrorKind::Status { status: 404 | 410 }, ..) => "another path",
        (HttpErrorKind::Status { status: 300..=399 }, ..) => "--follow 5, to go where it leads",
        (HttpErrorKind::Status { .. }, ..) => "the server's log",
        (HttpErrorKind::ProxyRefused { .. }, ..) | (_, Stage::Proxy, _) => {
            "what the proxy allows, and --proxy http://USER:PASSWORD@HOST:PORT if it wants to know who asks"
        }
        (_, Stage::Tls, _) => {
            "--ca FILE with the certificate that signed the server's, or whether the server speaks TLS there"
        }
        (_, Stage::Connect, _) => "whether the server runs, the port is right and no firewall is between",
        (HttpErrorKind::Mismatch(_), ..) => "the same again without what is here, or another checksum",
        (HttpErrorKind::CutOff | HttpErrorKind::Closed, ..) => {
            "again; `get -o FILE --resume` keeps what came"
        }
        (_, Stage::File, _) => "another file, or more room on the disk",
        (_, _, Blame::Peer) => "to tell whoever runs the server: it does not keep to HTTP",
        _ => "",
    };
    match error.blame() {
        Blame::Caller => Problem::mistake(error.to_string(), hint),
        _ => Problem::failed(error.to_string(), hint),
    }
}

/// A file that was named on the command line and cannot be used.
fn unreadable(what: &str, path: &std::path::Path, error: impl std::fmt::Display) -> Problem {
    Problem::mistake(format!("{what} {}: {error}", path.display()), "another file")
}

/// Two files, such as `cert.pem,key.pem`.
fn parse_pair(text: &str) -> Result<(PathBuf, PathBuf), String> {
    match text.split_once(',') {
        Some((first, second)) if !first.is_empty() && !second.is_empty() => Ok((first.into(), second.into())),
        _ => Err("two files with a comma between: CERT.pem,KEY.pem".to_owned()),
    }
}

/// A number of bytes, perhaps with k, m or g: powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || "a number of bytes, or with k, m or g behind it: 10m".to_owned();
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_pairs_are_read() {
        for (text, bytes) in [("5", 5), ("2k", 2048), ("3M", 3 << 20), ("1g", 1 << 30)] {
            assert_eq!(parse_size(text), Ok(bytes));
        }
        for text in ["", "k", "-1", "1t", "99999999999g"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert!(parse_pair("a,b").is_ok() && parse_pair("a").is_err() && parse_pair("a,").is_err());
    }
}
