// JSON-RPC over TCP, framed as the Language Server Protocol does: `jsonrpc_server [ADDRESS]`, by default
// `127.0.0.1:9002`. Try it with `jsonrpc_client`, or with
// `vnet jsonrpc divide '[7, 2]' --connect tcp://127.0.0.1:9002`.

use vitte_net::stream::jsonrpc::{JsonRpc, RpcError};
use vitte_net::tcp::TcpServer;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let at = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".into());
    let mut server = TcpServer::bind(at.as_str()).await?;
    println!("listening at {}", server.local_addr()?);
    loop {
        let (stream, from) = server.accept().await?;
        let connection = JsonRpc::builder()
            .on_request("divide", |_, (dividend, divisor): (f64, f64)| async move {
                if divisor == 0.0 {
                    return Err(RpcError::new(RpcError::INVALID_PARAMS, "nothing can be divided by 0"));
                }
                Ok(dividend / divisor)
            })
            .on_notification("log", move |_, (line,): (String,)| async move {
                println!("{from} says {}", line.escape_debug());
            })
            .start(stream);
        tokio::spawn(async move {
            if let Err(error) = connection.closed().await {
                println!("{from}: {error}");
            }
        });
    }
}
