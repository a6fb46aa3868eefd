//! The plain tools: `tcp`, `tls`, `udp`, `dns`, `jsonrpc`. They know of no mesh.

pub(crate) mod dns;
pub(crate) mod jsonrpc;
pub(crate) mod pipe;
pub(crate) mod proxy;
pub(crate) mod udp;

use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use vitte_net::tls::{ClientTls, ClientTlsBuilder, TlsSetupError};

use crate::problem::Problem;
use crate::terminal::Output;

/// Bytes of one read from stdin: the longest datagram.
const CHUNK: usize = 65_507;
/// Chunks of stdin that wait to be sent.
const CHUNKS: usize = 4;

/// Whom to trust.
#[derive(Debug, Args)]
pub(crate) struct Trust {
    /// Trust the certificates in this PEM file, and no others [default: those of the system]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Accept every certificate: anybody in between can read and change everything.
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
}

impl Trust {
    fn builder(&self) -> Result<ClientTlsBuilder, Problem> {
        let builder = ClientTls::builder();
        if self.insecure {
            return Ok(builder.dangerous_accept_any_certificate());
        }
        match &self.ca {
            Some(path) => builder.roots_file(path).map_err(|error| tls_mistake(&error)),
            None => Ok(builder),
        }
    }
}

fn tls_mistake(error: &TlsSetupError) -> Problem {
    Problem::mistake(error.to_string(), "--ca FILE with a certificate in PEM, or --cert CHAIN,KEY")
}

/// Reads `CHAIN,KEY`.
fn parse_pair(text: &str) -> Result<(PathBuf, PathBuf), String> {
    let (chain, key) = text.split_once(',').ok_or("two files with a comma between: chain.pem,key.pem")?;
    Ok((chain.into(), key.into()))
}

/// Reads a number of bytes: `1000`, `64k`, `10m`, `2g`.
fn parse_size(text: &str) -> Result<u64, String> {
    let (number, scale) = match text.chars().last() {
        Some('k') => (&text[..text.len() - 1], 1 << 10),
        Some('m') => (&text[..text.len() - 1], 1 << 20),
        Some('g') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    let number: u64 = number.parse().map_err(|_| "a number of bytes: 1000, 64k, 10m, 2g")?;
    number.checked_mul(scale).ok_or_else(|| "too many bytes".to_owned())
}

/// What comes from stdin, by a thread of its own: a read of stdin cannot be broken off, and the program shall
/// end all the same.
fn stdin() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    std::thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        let mut input = std::io::stdin().lock();
        while let Ok(len @ 1..) = input.read(&mut buffer) {
            if sender.blocking_send(buffer[..len].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Bytes in JSON: as text where they are text, in hexadecimal digits otherwise.
fn in_json(bytes: &[u8]) -> (&'static str, Value) {
    match std::str::from_utf8(bytes) {
        Ok(text) => ("text", json!(text)),
        Err(_) => ("hex", json!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())),
    }
}

/// Tells where the program listens, on stderr for people: stdout is for what arrives.
fn tell_listening(output: &Output, at: impl ToString) -> Result<(), Problem> {
    let at = at.to_string();
    if output.is_json() {
        output.tell(&[], &json!({ "event": "listening", "at": at }))?;
    } else {
        crate::terminal::complain(&format!("listening at {at}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_pairs_are_read() {
        assert_eq!((parse_size("10"), parse_size("2k"), parse_size("1g")), (Ok(10), Ok(2048), Ok(1 << 30)));
        for wrong in ["", "k", "-1", "1t", "99999999999999999999", "18446744073709551615k", "é"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_pair("a,b"), Ok(("a".into(), "b".into())));
        assert!(parse_pair("a").is_err());
        assert_eq!(in_json(b"a\xff"), ("hex", json!("61ff")));
    }
}
