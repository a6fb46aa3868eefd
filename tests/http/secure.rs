//! HTTP inside of TLS, and other people's clients.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::process::Command;
use vitte_net::http::{
    Blame, Client, HttpErrorKind, Protocol, Proxy, Request, Retry, Router, Server, Serving, Stage, Version,
};
use vitte_net::tls::{ClientTls, ServerTls};

use crate::{echo, pieces, serve, soon};

/// An authority, in PEM, and the TLS of a server for `name`, also in PEM.
pub(crate) fn authority(name: &str) -> (String, String, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new([]).expect("no names");
    params.distinguished_name.push(DnType::CommonName, "the root of these tests");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).expect("a root").pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new([name.to_owned()]).expect("a name").signed_by(&key, &issuer);
    (root, leaf.expect("a certificate").pem(), key.serialize_pem())
}

async fn secured(name: &str) -> (Serving, String) {
    let (root, chain, key) = authority(name);
    let tls = ServerTls::builder().certificate_pem(chain, key).build().expect("a server");
    (serve(Server::builder().tls(tls), echo(&Arc::default())).await, root)
}

pub(crate) fn trusting(root: &str) -> ClientTls {
    ClientTls::builder().roots_pem(root).expect("a root").build().expect("a client")
}

#[tokio::test]
async fn tls_agrees_on_the_version() {
    let (server, root) = secured("localhost").await;
    let client = Client::builder().tls(trusting(&root)).build();
    for (protocol, version) in [
        (Protocol::Auto, Version::HTTP_2),
        (Protocol::Http1, Version::HTTP_11),
        (Protocol::Http2, Version::HTTP_2),
    ] {
        let url = format!("https://localhost:{}/echo", server.local_addr().port());
        let response = soon(client.post(url).protocol(protocol).body(pieces(b"abc", 1000)).send()).await;
        let response = response.expect("an answer");
        assert_eq!(response.version(), version);
        assert_eq!(response.bytes().await.expect("a body").len(), 3000);
    }
}

#[tokio::test]
async fn wrong_certificates_are_nobodys_success() {
    let (server, root) = secured("other.example").await;
    let (_, stranger) = secured("localhost").await;
    let url = format!("https://localhost:{}/", server.local_addr().port());
    for root in [&root, &stranger] {
        let client = Client::builder().tls(trusting(root)).build();
        let error = soon(client.get(&url).send()).await.expect_err("another name, or an unknown root");
        assert_eq!((error.stage(), error.retry()), (Stage::Tls, Retry::No), "{error}");
        assert_eq!(error.blame(), Blame::Peer, "{error}");
    }
    // A server without TLS, asked with it, and the other way round.
    let plain = crate::plain(echo(&Arc::default())).await;
    let client = Client::builder().tls(trusting(&root)).timeout(Duration::from_secs(5)).build();
    for url in [format!("https://{}/", plain.local_addr()), format!("http://{}/", server.local_addr())] {
        soon(client.get(url).send()).await.expect_err("no agreement");
    }
}

/// A server that ends the connection without TLS's own end has cut the body off.
#[tokio::test]
async fn a_body_that_ends_with_the_connection_ends_with_tls() {
    let (root, chain, key) = authority("localhost");
    let tls = ServerTls::builder().certificate_pem(chain, key).build().expect("a server");
    let mut listener = vitte_net::tcp::TcpServer::bind("127.0.0.1:0").await.expect("a port is free");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        for clean in [true, false] {
            let (stream, _) = listener.accept().await.expect("a client");
            let mut stream = tls.accept(stream.into_inner()).await.expect("TLS");
            let mut head = [0; 2048];
            let _ = stream.read(&mut head).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nabc").await.expect("it takes bytes");
            stream.flush().await.expect("it takes bytes");
            if clean {
                stream.shutdown(Duration::from_secs(5)).await.expect("an end");
            }
        }
    });
    let client = Client::builder().tls(trusting(&root)).protocol(Protocol::Http1).build();
    let get = || async { client.get(format!("https://localhost:{port}/")).send().await?.bytes().await };
    assert_eq!(soon(get()).await.expect("a clean end"), "abc");
    soon(get()).await.expect_err("a cut");
}

#[tokio::test]
async fn redirects_never_lead_out_of_tls() {
    let (root, chain, key) = authority("localhost");
    let tls = ServerTls::builder().certificate_pem(chain, key).build().expect("a server");
    let handler = |_: Request| async {
        use vitte_net::http::{Reply, StatusCode, header};
        Reply::status(StatusCode::FOUND)
            .header(header::LOCATION, "http://localhost/".parse().expect("a value"))
    };
    let server = serve(Server::builder().tls(tls), Router::new().nest("/", handler)).await;
    let client = Client::builder().tls(trusting(&root)).redirects(5).build();
    let url = format!("https://localhost:{}/", server.local_addr().port());
    let error = soon(client.get(url).send()).await.expect_err("refused");
    assert!(matches!(error.kind(), HttpErrorKind::Redirect(_)), "{error:?}");
}

/// A proxy that grants tunnels.
#[tokio::test]
async fn https_goes_through_a_tunnel() {
    let (server, root) = secured("localhost").await;
    let mut listener = vitte_net::tcp::TcpServer::bind("127.0.0.1:0").await.expect("a port is free");
    let proxy = listener.local_addr().expect("an address");
    let to = server.local_addr();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        loop {
            let (mut client, _) = listener.accept().await.expect("a client");
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    assert!(client.read_buf(&mut head).await.expect("a head") > 0);
                }
                let head = String::from_utf8(head).expect("text");
                assert!(
                    head.starts_with("CONNECT localhost:") && head.contains("Proxy-Authorization: Basic ")
                );
                client.write_all(b"HTTP/1.1 200 Fine\r\nVia: test\r\n\r\n").await.expect("it takes bytes");
                let mut server = vitte_net::tcp::TcpClient::connect(to).await.expect("a server");
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    let proxy = Proxy::new(format!("http://u:p@{proxy}")).expect("a proxy");
    let client = Client::builder().tls(trusting(&root)).proxy(proxy).build();
    let response =
        soon(client.get(format!("https://localhost:{}/", to.port())).send()).await.expect("an answer");
    assert_eq!(response.text().await.expect("a body"), "hello");
}

/// curl, where it can be had: `None` says so in a line.
async fn curl(arguments: &[&str]) -> Option<Vec<u8>> {
    let spawned =
        Command::new("curl").args(["-sS", "--max-time", "20"]).args(arguments).stdin(Stdio::null()).output();
    match spawned.await {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(output.stdout)
        }
        Err(error) => {
            println!("skipped: curl cannot be started: {error}");
            None
        }
    }
}

fn file(name: &str, text: &[u8]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("http").join("secure");
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a file can be written");
    path
}

#[tokio::test]
async fn curl_understands_us() {
    let (server, root) = secured("localhost").await;
    let open = crate::plain(echo(&Arc::default())).await;
    let root = file("root.pem", root.as_bytes());
    let root = root.to_str().expect("text");
    let upload = file("upload", &vec![7; 300_000]);
    let upload = format!("@{}", upload.display());
    let secure = format!("https://localhost:{}/echo", server.local_addr().port());
    let plain = format!("http://{}/echo", open.local_addr());
    for arguments in [
        &["--http1.1", "--cacert", root, &secure][..],
        &["--http2", "--cacert", root, &secure],
        &["--http1.1", &plain],
        &["--http2-prior-knowledge", &plain],
        &["--http1.1", "-H", "Transfer-Encoding: chunked", &plain],
        &["--http1.1", "-H", "Expect: 100-continue", &plain],
        &["--http1.0", &plain],
    ] {
        let arguments = [&["--data-binary", &upload][..], arguments].concat();
        let Some(body) = curl(&arguments).await else { return };
        assert!(body == vec![7; 300_000], "{arguments:?}: {} bytes", body.len());
    }
}
