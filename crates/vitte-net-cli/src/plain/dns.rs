//! `vnet dns`: asks name servers.

use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use vitte_net::resolver::{NameServer, Record, RecordType, ResolveError, Resolver};

use super::Trust;
use super::proxy::{Proxied, ProxyOption};
use crate::pace;
use crate::problem::Problem;
use crate::terminal::Output;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to ask about: a name, or an address for its names.
    name: String,
    /// A, AAAA, CNAME, MX, PTR, SRV or TXT [default: A and AAAA, or PTR for an address]
    #[arg(value_name = "TYPE")]
    kind: Option<RecordType>,
    /// Whom to ask: IP:PORT, tcp://IP, tls://IP#NAME or https://IP/PATH#NAME; may be repeated [default: the
    /// system's]
    #[arg(long, value_name = "SERVER")]
    server: Vec<NameServer>,
    /// How long all of it may take.
    #[arg(long, value_name = "SECS", default_value = "10s", value_parser = pace::parse_timeout)]
    timeout: Duration,
    /// Refuse addresses that are not public.
    #[arg(long)]
    public: bool,
    #[command(flatten)]
    trust: Trust,
    #[command(flatten)]
    through: ProxyOption,
}

pub(crate) async fn run(options: Options, output: &Output) -> Result<ExitCode, Problem> {
    let mut builder = Resolver::builder().timeout(options.timeout).cache_entries(0);
    builder = builder.attempt_timeout(Duration::from_secs(2).min(options.timeout));
    if let Some(proxy) = &options.through.proxy {
        let by_udp = |server: &NameServer| matches!(server, NameServer::Udp(_));
        if options.server.is_empty() || options.server.iter().any(by_udp) {
            let what = "questions by UDP go through no proxy: CONNECT makes a tunnel for TCP";
            return Err(Problem::mistake(
                what,
                "--server tcp://IP:PORT, tls://IP:PORT#NAME or https://IP:PORT/PATH#NAME",
            ));
        }
        builder = builder.network(Arc::new(Proxied(proxy.clone())));
    }
    if options.server.is_empty() {
        builder = builder.system().map_err(|error| {
            Problem::failed(format!("cannot read the system's configuration: {error}"), "--server IP:PORT")
        })?;
    }
    let secure = |server: &NameServer| matches!(server, NameServer::Tls { .. } | NameServer::Https { .. });
    if options.server.iter().any(secure) {
        let tls = options.trust.builder()?.handshake_timeout(options.timeout).build();
        builder = builder.tls(tls.map_err(|error| super::tls_mistake(&error))?);
    }
    for server in &options.server {
        builder = builder.server(server.clone());
    }
    if options.public {
        builder = builder.refuse_private_addresses();
    }
    let resolver = builder.build();
    let found = match (options.kind, options.name.parse::<IpAddr>()) {
        (None, Ok(address)) => {
            let names = resolver.reverse(address).await.map_err(problem)?;
            for name in names {
                output.tell(
                    &[format!("{address} PTR {name}")],
                    &json!({ "name": options.name, "type": "PTR", "data": name }),
                )?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        (Some(kind), _) => resolver.lookup(&options.name, kind).await.map_err(problem)?,
        (None, Err(_)) => {
            let (four, six) = tokio::join!(
                resolver.lookup(&options.name, RecordType::A),
                resolver.lookup(&options.name, RecordType::Aaaa)
            );
            match (four, six) {
                (Ok(four), Ok(six)) => [four, six].concat(),
                // One family alone is all there is, unless something went wrong with the other.
                (Ok(found), Err(ResolveError::NoRecord { .. }))
                | (Err(ResolveError::NoRecord { .. }), Ok(found)) => found,
                (Err(error), _) | (_, Err(error)) => return Err(problem(error)),
            }
        }
    };
    for record in found {
        tell(&record, output)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(record: &Record, output: &Output) -> Result<(), Problem> {
    let (name, ttl, kind) = (&record.name, record.ttl.as_secs(), record.data.record_type());
    let data = record.data.to_string();
    let line = format!("{name} {ttl} {kind} {data}");
    output.tell(&[line], &json!({ "name": name, "ttl": ttl, "type": kind.as_str(), "data": data }))?;
    Ok(())
}

fn problem(error: ResolveError) -> Problem {
    match error {
        ResolveError::Name(_) => Problem::mistake(error.to_string(), "a name such as example.org"),
        ResolveError::NoServer => Problem::mistake(error.to_string(), "--server IP:PORT"),
        ResolveError::Failed { .. } | ResolveError::TimedOut { .. } => {
            Problem::failed(error.to_string(), "see that a name server answers there, or another --server")
        }
        _ => Problem::failed(error.to_string(), ""),
    }
}
