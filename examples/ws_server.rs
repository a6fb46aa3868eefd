// A WebSocket that sends back every message: `ws_server [ADDRESS]`, by default `127.0.0.1:9001`. Try it with
// `ws_client`, or in the console of a browser: `new WebSocket("ws://127.0.0.1:9001/")`.

use vitte_net::ws::{WsIncoming, WsServer};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let at = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".into());
    let mut server = WsServer::bind(at).await?;
    println!("listening at {}", server.local_addr()?);
    loop {
        // The handshake is a step of its own, so that a slow client delays nobody.
        let incoming = server.accept().await?;
        tokio::spawn(async move {
            let from = incoming.remote();
            match echo(incoming).await {
                Ok(count) => println!("{from}: {count} messages"),
                Err(error) => println!("{from}: {error}"),
            }
        });
    }
}

async fn echo(incoming: WsIncoming) -> anyhow::Result<u64> {
    let (mut socket, _request) = incoming.handshake().await?;
    let mut count = 0;
    // Pings are answered, and messages have a limit, without a word about it.
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
        count += 1;
    }
    Ok(count)
}
