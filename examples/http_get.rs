//! Gets a page and shows how it came: `cargo run --example http_get -- https://example.org/`.

use std::io::Write;

use vitte_net::http::{Client, HttpError};

#[tokio::main]
async fn main() {
    let url = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:8080/hello/you".into());
    if let Err(error) = get(&url).await {
        eprintln!("{error}\nwhose fault: {:?}; again: {:?}", error.blame(), error.retry());
        std::process::exit(1);
    }
}

async fn get(url: &str) -> Result<(), HttpError> {
    let client = Client::builder().redirects(5).build();
    let mut response = client.get(url).send().await?.success()?;
    eprintln!("{:?} {} from {}", response.version(), response.status(), response.url());
    // The body comes piece by piece; the end without an error means that all of it came.
    while let Some(bytes) = response.chunk().await? {
        std::io::stdout().write_all(&bytes).expect("stdout takes bytes");
    }
    Ok(())
}
