//! `vnet udp`: stdin in datagrams, and datagrams to stdout.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use vitte_net::network::Target;
use vitte_net::udp::UdpSocket;

use super::proxy::Proxy;
use super::{CHUNK, in_json, parse_size, stdin, tell_listening};
use crate::problem::Problem;
use crate::terminal::Output;
use crate::{interrupted, pace};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// HOST:PORT to send to, or with --listen to bind to.
    address: String,
    /// Wait for datagrams; stdin goes to whoever sent the last one. Ends with Ctrl-C, or after --count.
    #[arg(long, short = 'l')]
    listen: bool,
    /// With the end of stdin: how long to wait for more answers.
    #[arg(long, value_name = "SECS", default_value = "1s", value_parser = pace::parse_timeout)]
    timeout: Duration,
    /// End after so many datagrams [default: see --timeout]
    #[arg(long, short = 'c', value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Allow sending to broadcast addresses.
    #[arg(long)]
    broadcast: bool,
    /// Bytes to receive, at most: 10m.
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    max_size: Option<u64>,
    /// Refused: an HTTP proxy makes tunnels for TCP alone.
    #[arg(long, value_name = "URL")]
    proxy: Option<Proxy>,
}

pub(crate) async fn run(options: Options, output: &Output) -> Result<ExitCode, Problem> {
    if options.proxy.is_some() {
        let what = "datagrams go through no proxy: CONNECT makes a tunnel for TCP (RFC 9110, section 9.3.6)";
        return Err(Problem::mistake(what, "vnet udp without --proxy, or vnet tcp with it"));
    }
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::InvalidInput => {
            Problem::mistake(error.to_string(), "HOST:PORT, such as 127.0.0.1:7007")
        }
        _ => Problem::failed(error.to_string(), "see that something listens there"),
    };
    let builder = UdpSocket::builder().broadcast(options.broadcast);
    let (socket, mut peer) = if options.listen {
        let socket = builder.bind(&options.address).await.map_err(|error| Problem::listen(&error))?;
        tell_listening(output, socket.local_addr().map_err(failed)?)?;
        (socket, None)
    } else {
        let to = Target::from(&options.address).resolve(&vitte_net::network::OsNetwork::new()).await;
        let to = to.map_err(failed)?[0];
        let own = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        (builder.bind(own).await.map_err(failed)?, Some(to))
    };
    // Many may answer what went to many; what went to one is answered by that one.
    let only = peer.filter(|to: &SocketAddr| !options.broadcast && !to.ip().is_multicast());
    let (mut input, mut open, mut received) = (stdin(), true, 0_u64);
    let mut bytes_received = 0_u64;
    let mut buffer = vec![0; CHUNK + 1];
    loop {
        let ends = !open && !options.listen;
        // Nobody is there to be answered before the first datagram came.
        let heard = peer.is_some();
        tokio::select! {
            biased;
            ended = interrupted() => {
                ended?;
                return Ok(ExitCode::SUCCESS);
            }
            datagram = socket.recv_from(&mut buffer) => {
                let datagram = datagram.map_err(failed)?;
                if only.is_some_and(|to| to != datagram.from) {
                    continue;
                }
                bytes_received += datagram.len as u64;
                if let Some(limit) = options.max_size.filter(|limit| bytes_received > *limit) {
                    return Err(Problem::failed(format!("more than {limit} bytes arrive"), "--max-size BYTES"));
                }
                peer = Some(if options.listen { datagram.from } else { peer.unwrap_or(datagram.from) });
                received += 1;
                let bytes = &buffer[..datagram.len];
                if output.is_json() {
                    let (form, bytes) = in_json(bytes);
                    let (from, truncated) = (datagram.from.to_string(), datagram.truncated);
                    output.tell(&[], &json!({ "event": "received", "from": from, "truncated": truncated, form: bytes }))?;
                } else {
                    output.bytes(bytes)?;
                }
                if options.count.is_some_and(|count| received >= count) {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            chunk = input.recv(), if open && heard => match (chunk, peer) {
                (Some(chunk), Some(to)) => socket.send_to(&chunk, to).await.map_err(failed)?,
                (Some(_), None) => {}
                (None, _) => open = false,
            },
            () = tokio::time::sleep(options.timeout), if ends => {
                return Ok(if options.count.is_some() { ExitCode::from(1) } else { ExitCode::SUCCESS });
            }
        }
    }
}
