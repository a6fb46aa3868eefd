//! A WebSocket against a peer that says anything: as its server from the request on, or behind a good one; as
//! its client from the answer on, or behind a good one; with and without compression.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use vitte_net::ws::{Deflate, Message, WebSocket, WsAcceptor, WsConnector, WsOptions};

use super::link::Wired;
use super::stream::{Script, run as run_on};

/// Longest message that is taken.
const MAX: usize = 4096;

fn request(deflate: bool) -> Vec<u8> {
    let head = "GET /mesh HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    [head, extension(deflate), "\r\n"].concat().into_bytes()
}

/// Of the key of 16 sevens, which the network of this target draws.
fn answer(deflate: bool) -> Vec<u8> {
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Accept: CdXSYUsvsaMthlEXWDNURGWA/1o=\r\n";
    [head, extension(deflate), "\r\n"].concat().into_bytes()
}

fn extension(deflate: bool) -> &'static str {
    if deflate { "Sec-WebSocket-Extensions: permessage-deflate\r\n" } else { "" }
}

pub fn run(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else { return };
    let Some((&step, bytes)) = rest.split_first() else { return };
    let deflate = choice & 4 != 0;
    let mut options = WsOptions::default();
    options.max_frame = MAX;
    options.max_message = MAX;
    options.deflate = deflate.then(Deflate::default);
    let acceptor = WsAcceptor::new().options(options.clone());
    let connector = WsConnector::new().network(Arc::new(Wired::default())).options(options);
    let script = |head: Vec<u8>| Script::new([&head, bytes].concat(), usize::from(step) * 4 + 1);
    run_on(async {
        let opened = match choice % 4 {
            0 => acceptor.accept(script(Vec::new())).await.ok().map(|(socket, _)| socket),
            1 => acceptor.accept(script(request(deflate))).await.ok().map(|(socket, _)| socket),
            2 => connector.connect_over(script(Vec::new()), "a:1", "/mesh").await.ok(),
            _ => connector.connect_over(script(answer(deflate)), "a:1", "/mesh").await.ok(),
        };
        assert!(opened.is_some() || choice % 2 == 0, "a good beginning was refused");
        if let Some(socket) = opened {
            listen(socket).await;
        }
    });
}

async fn listen<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocket<S>) {
    while let Ok(Some(message)) = socket.recv().await {
        let len = match &message {
            Message::Text(text) => text.len(),
            Message::Binary(bytes) => bytes.len(),
        };
        assert!(len <= MAX, "a message of {len} bytes");
    }
}
