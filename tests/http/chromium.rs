//! Chromium, which fetches a page and posts from it, by each version of HTTP.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use data_encoding::BASE64;
use rcgen::{KeyPair, PublicKeyData};
use sha2::{Digest, Sha256};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::timeout;
use vitte_net::http::{HttpError, Reply, Request, Router, Server, ServerBuilder, Version, header};
use vitte_net::tls::ServerTls;

use crate::secure::authority;
use crate::serve;

/// Reads back what it posts, and says by its last request what became of it.
const PAGE: &str = r#"<!DOCTYPE html><link rel="icon" href="data:,"><script type="module">
try {
    const body = new Uint8Array(300000).map((_, at) => at % 251);
    for (let round = 0; round < 3; round += 1) {
        const response = await fetch("/echo", { method: "POST", body });
        const back = new Uint8Array(await response.arrayBuffer());
        if (response.status !== 200 || !body.every((byte, at) => back[at] === byte)) throw new Error("echo " + round);
    }
    const missing = await fetch("/nowhere");
    if (missing.status !== 404) throw new Error("status " + missing.status);
    await fetch("/said", { method: "POST", body: "fine" });
} catch (error) {
    await fetch("/said", { method: "POST", body: String(error) });
}
</script>"#;

/// What the page says in the end, and by which version it says it.
async fn visited(builder: ServerBuilder, scheme: &str, flags: &[String]) -> (Version, String) {
    let (says, mut said) = mpsc::unbounded_channel();
    let router = Router::new()
        .get("/", |_: Request| async {
            Reply::new(PAGE).header(header::CONTENT_TYPE, "text/html".parse().expect("a value"))
        })
        .post("/echo", |request: Request| async move {
            Ok::<_, HttpError>(Reply::new(request.bytes(1 << 20).await?))
        })
        .post("/said", move |request: Request| {
            let says = says.clone();
            async move {
                let version = request.version();
                let text = String::from_utf8_lossy(&request.bytes(1 << 10).await?).into_owned();
                let _ = says.send((version, text));
                Ok::<_, HttpError>("heard")
            }
        });
    let server = serve(builder, router).await;
    let port = server.local_addr().port();
    let profile = Path::new(env!("CARGO_TARGET_TMPDIR")).join("http").join(format!("chromium-{port}"));
    let mut browser = Command::new("chromium");
    browser.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--remote-debugging-port=0",
    ]);
    browser.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    // QUIC goes to the first address alone, and localhost may be an IPv6 address first.
    browser.arg("--host-resolver-rules=MAP localhost 127.0.0.1");
    browser.args(flags.iter().map(|flag| flag.replace("PORT", &port.to_string())));
    browser
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("{scheme}://localhost:{port}/"));
    let browser = browser.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn();
    let mut browser = browser.expect("it starts");
    let heard = timeout(Duration::from_secs(60), said.recv()).await;
    let heard = heard.unwrap_or_else(|_| panic!("no word of the browser with {flags:?}"));
    browser.kill().await.expect("it ends");
    let _ = std::fs::remove_dir_all(profile);
    heard.expect("the server stands")
}

#[tokio::test]
async fn a_browser_fetches_by_every_version() {
    if std::process::Command::new("chromium").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: chromium is not installed");
        return;
    }
    let (_, chain, key) = authority("localhost");
    let public = KeyPair::from_pem(&key).expect("a key").subject_public_key_info();
    let tls = ServerTls::builder().certificate_pem(chain, key).build().expect("a server");
    // It takes no root from us, but a key that it is told of.
    let pinned = format!("--ignore-certificate-errors-spki-list={}", BASE64.encode(&Sha256::digest(public)));
    let no_quic = "--disable-quic".to_owned();
    let quic = "--origin-to-force-quic-on=localhost:PORT".to_owned();
    let secure = || Server::builder().tls(tls.clone());
    for (builder, scheme, flags, version) in [
        (Server::builder(), "http", vec![no_quic.clone()], Version::HTTP_11),
        (secure().http2(false), "https", vec![pinned.clone(), no_quic.clone()], Version::HTTP_11),
        (secure(), "https", vec![pinned.clone(), no_quic], Version::HTTP_2),
        (secure().http3(true), "https", vec![pinned, quic], Version::HTTP_3),
    ] {
        assert_eq!(visited(builder, scheme, &flags).await, (version, "fine".to_owned()), "{scheme}");
    }
}
