// Says a word to a WebSocket and shows what comes back: `ws_client [URL]`, by default `ws://127.0.0.1:9001/`. Try it
// beside `ws_server`, or beside `vnet ws --listen 127.0.0.1:9001 --echo`.

use std::time::Duration;

use vitte_net::ws::{self, CloseCode, Message};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "ws://127.0.0.1:9001/".into());
    let mut socket = ws::connect(&url).await?;
    socket.send("hello").await?;
    match tokio::time::timeout(Duration::from_secs(10), socket.recv()).await?? {
        Some(Message::Text(text)) => println!("{}", text.as_str().escape_debug()),
        Some(Message::Binary(bytes)) => println!("{} bytes", bytes.len()),
        None => println!("the server has nothing to say"),
    }
    socket.close(CloseCode::NORMAL, "").await?;
    Ok(())
}
