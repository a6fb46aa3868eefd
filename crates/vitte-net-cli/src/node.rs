//! `vnet node`: a node that answers pings and tells of its peers.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;
use vitte_net::{Address, CloseCode, DialError, Mesh, MeshEvent, Trust};

use crate::problem::Problem;
use crate::protocol::{Ping, Pong};
use crate::terminal::{self, Output};
use crate::{id, interrupted, secret};

/// How long peers may take to finish when the node ends, and when it ends whatever they do.
const DRAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(6));
/// First and longest wait before an address to join is dialled again.
const JOIN_AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Listens here: quic://, tls://, ws:// or wss://, a host and a port (0 lets the system choose). May be
    /// given several times.
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<Address>,
    /// Joins the mesh by this node, and again whenever it is lost. May be given several times.
    #[arg(long, value_name = "ADDRESS")]
    join: Vec<Address>,
    /// The file with the secret of the mesh (mode 0600) [default: the environment variable VITTE_SECRET]
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// The key file, created if there is none [default: vitte/node.key in $XDG_CONFIG_HOME or ~/.config]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

pub(crate) async fn run(options: Options, output: &Output) -> Result<ExitCode, Problem> {
    if options.listen.is_empty() && options.join.is_empty() {
        let what = "a node that neither listens nor joins is alone";
        return Err(Problem::mistake(what, "--listen quic://0.0.0.0:7000, or --join ADDRESS"));
    }
    let trust = Trust::secret(secret::load(options.secret_file.as_deref())?);
    let identity = id::load(&id::key_path(options.key.as_deref())?)?;
    let mut builder = Mesh::builder().identity(identity).trust(trust);
    for address in &options.listen {
        builder = builder.listen(address.to_string());
    }
    let mesh = builder.start().await?;
    let answer = |_, Ping { sequence, payload }| async move { Ok(Pong { sequence, payload }) };
    mesh.serve::<Ping, _, _>(answer).map_err(|error| Problem::failed(error.to_string(), ""))?;
    tell_start(&mesh, output)?;

    let mut joining = JoinSet::new();
    for address in options.join {
        joining.spawn(join(mesh.clone(), address));
    }
    let told = tokio::select! {
        biased;
        ended = interrupted() => ended,
        ended = tell_events(&mesh, output) => ended,
    };
    // Without the output there is nobody to tell, but the peers are still told.
    joining.shutdown().await;
    if told.is_ok() {
        output
            .tell(&[String::from("draining; Ctrl-C again to end at once")], &json!({ "event": "ending" }))?;
    }
    tokio::select! {
        biased;
        () = mesh.drain(DRAIN.0, DRAIN.1) => {}
        _ = interrupted() => {}
    }
    told.map(|()| ExitCode::SUCCESS)
}

fn tell_start(mesh: &Mesh, output: &Output) -> Result<(), Problem> {
    let addresses: Vec<String> = mesh.addresses().iter().map(ToString::to_string).collect();
    let mut lines = vec![format!("id {}", mesh.id())];
    lines.extend(addresses.iter().map(|address| format!("listening at {address}")));
    let record = json!({ "event": "started", "id": mesh.id().to_string(), "addresses": addresses });
    Ok(output.tell(&lines, &record)?)
}

/// Tells of all that happens to peers, until the output is gone.
async fn tell_events(mesh: &Mesh, output: &Output) -> Result<(), Problem> {
    let mut events = mesh.events();
    while let Some(event) = events.next().await {
        let (line, record) = describe(&event);
        output.tell(&[line], &record)?;
    }
    Ok(())
}

fn describe(event: &MeshEvent) -> (String, Value) {
    match event {
        MeshEvent::Up { peer, transport } => (
            format!("up {} over {transport}", peer.short()),
            json!({ "event": "up", "peer": peer.to_string(), "transport": transport.scheme() }),
        ),
        MeshEvent::Unreachable { peer } => (
            format!("unreachable {}: its session waits for another link", peer.short()),
            json!({ "event": "unreachable", "peer": peer.to_string() }),
        ),
        MeshEvent::Resumed { peer, transport } => (
            format!("resumed {} over {transport}", peer.short()),
            json!({ "event": "resumed", "peer": peer.to_string(), "transport": transport.scheme() }),
        ),
        MeshEvent::Draining { peer } => (
            format!("draining {}: it is going away", peer.short()),
            json!({ "event": "draining", "peer": peer.to_string() }),
        ),
        MeshEvent::Throttled { peer } => (
            format!("throttled {}: it opens and gives up too many streams", peer.short()),
            json!({ "event": "throttled", "peer": peer.to_string() }),
        ),
        MeshEvent::Violation { peer, transport, code, reason, ours } => (
            format!(
                "cut {} over {transport}: {} broke a rule ({code}): {reason}",
                peer.short(),
                if *ours { "this node" } else { "the peer" },
            ),
            json!({ "event": "violation", "peer": peer.to_string(), "transport": transport.scheme(),
                "code": code.0, "reason": reason, "ours": ours }),
        ),
        MeshEvent::Down { peer, reason } => (
            format!("down {}: {reason}", peer.short()),
            json!({ "event": "down", "peer": peer.to_string(), "reason": reason }),
        ),
        MeshEvent::Rejected { remote, code, reason } => (
            match code {
                Some(code) => format!("rejected {remote} ({code}): {reason}"),
                None => format!("rejected {remote}: {reason}"),
            },
            json!({ "event": "rejected", "remote": remote.to_string(), "code": code.map(|code| code.0),
                "reason": reason }),
        ),
        MeshEvent::RejectedMore { count } => (
            format!("rejected {count} more in the last second"),
            json!({ "event": "rejected_more", "count": count }),
        ),
        MeshEvent::Lagged { missed } => (
            format!("{missed} events are missing here: the reader of this output was too slow"),
            json!({ "event": "lagged", "missed": missed }),
        ),
        other => (format!("{other:?}"), json!({ "event": "other", "text": format!("{other:?}") })),
    }
}

/// Keeps a session with the node at an address, whoever it is.
async fn join(mesh: Mesh, address: Address) {
    let mut wait = JOIN_AGAIN.0;
    let mut last_complaint = String::new();
    loop {
        // From before the dial, so that the end of the session cannot be missed.
        let mut events = mesh.events();
        match mesh.connect(&address).await {
            Ok(peer) => {
                wait = JOIN_AGAIN.0;
                last_complaint.clear();
                while !peer.is_lost() {
                    if events.next().await.is_none() {
                        return;
                    }
                }
            }
            Err(DialError::Draining) => return,
            Err(error) => {
                let complaint = Problem::dial(&address.to_string(), &error).summary();
                if complaint != last_complaint {
                    terminal::complain(&format!("vnet: {complaint}"));
                    last_complaint = complaint;
                }
                if is_own_key(&error) {
                    return;
                }
            }
        }
        sleep(wait).await;
        wait = (wait * 2).min(JOIN_AGAIN.1);
    }
}

/// The address leads to this node itself, or to one with a copy of its key.
fn is_own_key(error: &DialError) -> bool {
    let DialError::Failed(attempts) = error else { return false };
    attempts.iter().any(|(_, error)| error.code() == Some(CloseCode::DUPLICATE_IDENTITY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vitte_net::PeerId;

    #[test]
    fn the_reason_of_a_peer_is_escaped_on_its_way_out() {
        let reason = String::from("\u{1b}[2J\u{9b}31m");
        let (line, _) = describe(&MeshEvent::Down { peer: PeerId([7; 32]), reason });
        assert_eq!(terminal::escape(&line), r"down 07070707: \u{1b}[2J\u{9b}31m");
    }
}
