// A line to a server inside TLS, and its answer: `tls_client [HOST:PORT] [CA.pem]`, by default `localhost:4433` and the
// certificates that the system trusts. Try it with
// `vnet tls --listen 127.0.0.1:4433 --cert chain.pem,key.pem`.

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vitte_net::tcp::TcpClient;
use vitte_net::tls::ClientTls;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let target = arguments.next().unwrap_or_else(|| "localhost:4433".into());
    let mut tls = ClientTls::builder();
    if let Some(authority) = arguments.next() {
        tls = tls.roots_file(authority)?;
    }
    let tls = tls.build()?;

    let (host, _) = target.rsplit_once(':').context("the port is missing")?;
    let stream = TcpClient::connect(target.as_str()).await?;
    // The certificate must be for this name, and signed by somebody who is trusted.
    let mut stream = tls.connect(host, stream.into_inner()).await?;
    stream.write_all(b"hello\n").await?;
    // The other side learns that nothing more comes, and can tell that from a cut.
    AsyncWriteExt::shutdown(&mut stream).await?;
    let mut answer = String::new();
    // So can we: what ends without a goodbye is an error.
    stream.take(64 << 10).read_to_string(&mut answer).await?;
    println!("{}", answer.escape_debug());
    Ok(())
}
