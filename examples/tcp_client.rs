use vitte_net::tcp::TcpClient;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut client = TcpClient::connect("example.org:80").await?;
    client.send(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n").await?;
    let response = client.recv().await?;
    println!("{}", String::from_utf8_lossy(&response));
    Ok(())
}
