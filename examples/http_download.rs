//! Downloads a file, goes on where an earlier run broke off, and checks it:
//! `cargo run --example http_download -- URL FILE [sha256:HEX]`.

use vitte_net::http::{Checksum, Client, Download};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, file, sum @ ..] = arguments.as_slice() else { return Err("URL FILE [sha256:HEX]".into()) };
    let client = Client::builder().redirects(5).build();
    let mut shown = 0;
    let mut download = Download::new(&client, url, file).on_progress(|progress| {
        if progress.received - shown >= 1 << 20 || Some(progress.received) == progress.total {
            shown = progress.received;
            eprintln!("{shown} of {:?} bytes", progress.total);
        }
    });
    if let Some(sum) = sum.first() {
        download = download.checksum(sum.parse::<Checksum>()?);
    }
    let done = download.run().await?;
    println!("{file}: {} bytes, {} of them from an earlier run", done.length, done.resumed);
    Ok(())
}
