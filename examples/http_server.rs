//! Routes, files of a folder, an echo of what is posted, and an end that takes nobody by surprise.

use std::time::Duration;

use vitte_net::http::{Files, HttpError, Reply, Request, Router, Server};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let at = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let router = Router::new()
        .get("/hello/{name}", |request: Request| async move {
            format!("hello {}\n", request.param("name").unwrap_or("you"))
        })
        // At most 1 MiB; more is told 413, half a body 400.
        .post("/echo", |request: Request| async move {
            Ok::<_, HttpError>(Reply::new(request.bytes(1 << 20).await?))
        })
        .nest("/files", Files::new("."));
    let serving = Server::bind(at).await?.serve(router);
    println!("listening at http://{}/", serving.local_addr());
    tokio::signal::ctrl_c().await?;
    let cut = serving.shutdown(Duration::from_secs(5)).await;
    println!("{cut} connections were cut");
    Ok(())
}
