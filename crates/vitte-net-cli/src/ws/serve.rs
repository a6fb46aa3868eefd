//! The server's side of `vnet ws`.

use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use vitte_net::ws::{CloseCode, Origins, WsAcceptor, WsIncoming, WsServer};

use super::talk::{Talk, echo, lines};
use super::{Options, interrupted};
use crate::problem::Problem;
use crate::terminal::{Output, complain};

/// Connections at once, those that shake hands included. Further ones wait to be accepted.
const CONNECTIONS: usize = 4096;

pub(super) async fn run(options: &Options, at: &str, output: &Output) -> Result<ExitCode, Problem> {
    let tls = options.server_tls()?;
    let origins =
        if options.origin.is_empty() { Origins::Any } else { Origins::Only(options.origin.clone()) };
    let acceptor = WsAcceptor::new()
        .options(options.limits())
        .origins(origins)
        .protocols(options.protocol.iter().map(String::as_str));
    let mut builder = WsServer::builder().acceptor(acceptor);
    if let Some(tls) = &tls {
        builder = builder.tls(tls);
    }
    let server = builder.bind(at).await.map_err(|error| Problem::listen(&error))?;
    let scheme = if tls.is_some() { "wss" } else { "ws" };
    let unknown = |error| Problem::failed(format!("cannot tell where it listens: {error}"), "");
    let url = format!("{scheme}://{}/", server.local_addr().map_err(unknown)?);
    output.tell(&[format!("listening at {url}")], &json!({ "event": "listening", "url": url }))?;
    if options.echo { echo_to_all(server).await } else { talk_to_each(options, server, output).await }
}

/// Sends everybody's messages back until it is told to end; then everybody is told.
async fn echo_to_all(mut server: WsServer) -> Result<ExitCode, Problem> {
    let (leave, leaving) = watch::channel(false);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut running = JoinSet::new();
    let mut ended = std::pin::pin!(interrupted());
    let outcome = loop {
        let incoming = tokio::select! {
            biased;
            ended = &mut ended => break ended,
            _ = running.join_next(), if !running.is_empty() => continue,
            incoming = next(&mut server, &room) => incoming,
        };
        match incoming {
            Ok((incoming, permit)) => {
                let leaving = leaving.clone();
                running.spawn(async move {
                    serve(incoming, leaving).await;
                    drop(permit);
                });
            }
            Err(error) => break Err(Problem::failed(format!("cannot accept: {error}"), "")),
        }
    };
    // Each has a bounded time for its goodbye.
    leave.send_replace(true);
    while running.join_next().await.is_some() {}
    outcome.map(|()| ExitCode::SUCCESS)
}

/// The next connection, when there is room for one.
async fn next(
    server: &mut WsServer,
    room: &Arc<Semaphore>,
) -> std::io::Result<(WsIncoming, Option<tokio::sync::OwnedSemaphorePermit>)> {
    let permit = room.clone().acquire_owned().await.ok();
    Ok((server.accept().await?, permit))
}

async fn serve(incoming: WsIncoming, mut leaving: watch::Receiver<bool>) {
    let from = incoming.remote();
    let shaken = tokio::select! {
        biased;
        () = told(&mut leaving) => return,
        shaken = incoming.handshake() => shaken,
    };
    let mut socket = match shaken {
        Ok((socket, _)) => socket,
        Err(error) => return complain(&format!("vnet: no WebSocket with {from}: {error}")),
    };
    let echoed = tokio::select! {
        biased;
        () = told(&mut leaving) => socket.close(CloseCode::GOING_AWAY, "").await.map(|()| None),
        echoed = echo(&mut socket) => echoed,
    };
    if let Err(error) = echoed {
        complain(&format!("vnet: {from}: {error}"));
    }
}

/// Shows and answers one after another, as netcat does.
async fn talk_to_each(options: &Options, mut server: WsServer, output: &Output) -> Result<ExitCode, Problem> {
    let mut lines = lines(options.max_message);
    loop {
        let incoming = tokio::select! {
            biased;
            ended = interrupted() => return ended.map(|()| ExitCode::SUCCESS),
            incoming = server.accept() => incoming,
        };
        let incoming = incoming.map_err(|error| Problem::failed(format!("cannot accept: {error}"), ""))?;
        let from = incoming.remote().to_string();
        match incoming.handshake().await {
            Err(error) => complain(&format!("vnet: no WebSocket with {from}: {error}")),
            Ok((socket, _)) => {
                let talk = Talk { output, echo: false, max: options.max_message };
                if let Err(problem) = talk.lines(socket, &mut lines, &from).await {
                    problem.report();
                }
                if lines.is_closed() && lines.is_empty() {
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
    }
}

/// Waits until everybody is to leave.
async fn told(leaving: &mut watch::Receiver<bool>) {
    let _ = leaving.wait_for(|leave| *leave).await;
}
