use vitte_net::tcp::TcpServer;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut server = TcpServer::bind("127.0.0.1:8080").await?;

    while let Ok((mut socket, addr)) = server.accept().await {
        tokio::spawn(async move {
            println!("Connexion de {}", addr);
            socket.send(b"Bienvenue sur VitteNet!\n").await.ok();
        });
    }
    Ok(())
}
