// Calls methods of `jsonrpc_server`: `jsonrpc_client [HOST:PORT]`, by default `127.0.0.1:9002`.

use vitte_net::stream::jsonrpc::{CallError, JsonRpc};
use vitte_net::tcp::TcpClient;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let target = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".into());
    let connection = JsonRpc::builder().start(TcpClient::connect(target.as_str()).await?);
    let client = connection.client();
    client.notify("log", ["good morning"]).await?;
    // Calls run side by side; whoever drops one tells the server that it is not wanted any more.
    let (half, wrong) =
        tokio::join!(client.call::<_, f64>("divide", (7, 2)), client.call::<_, f64>("divide", (7, 0)));
    println!("7 / 2 = {}", half?);
    match wrong {
        Err(CallError::Answered(error)) => println!("7 / 0: {error}"),
        other => println!("7 / 0 = {other:?}"),
    }
    connection.close();
    connection.closed().await?;
    Ok(())
}
