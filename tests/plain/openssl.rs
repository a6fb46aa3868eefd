//! Our TLS against OpenSSL's `s_client`, `s_server` and curl.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use vitte_net::network::BoxStream;
use vitte_net::tcp::{TcpClient, TcpServer};
use vitte_net::tls::{ClientTls, ServerTls, TlsFailure};

use super::programs::{run, there};
use super::tls::Authority;

/// A folder that is gone when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vitte-net-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Serves connections one after another: one handshake, then `serve`.
async fn server<Fut: Future<Output = ()> + Send>(
    tls: ServerTls,
    serve: impl Fn(vitte_net::tls::TlsStream) -> Fut + Send + Sync + 'static,
) -> u16 {
    let mut listener = TcpServer::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(stream) = tls.accept(stream.into_inner()).await {
                serve(stream).await;
            }
        }
    });
    port
}

#[tokio::test]
async fn s_client_speaks_to_our_server() {
    if !there("openssl", "version", "s_client against our server") {
        return;
    }
    let (authority, folder) = (Authority::new("ours"), Folder::new("s-client"));
    let ca = folder.file("ca.pem", &authority.pem);
    let tls = authority.server(&["localhost"]).with_alpn(["echo/1"]);
    let port = server(tls, |mut stream| async move {
        let mut line = [0; 6];
        stream.read_exact(&mut line).await.unwrap();
        stream.write_all(&line).await.unwrap();
        stream.shutdown(Duration::from_secs(5)).await.ok();
    })
    .await;
    for version in ["-tls1_2", "-tls1_3"] {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-servername", "localhost", "-alpn", "echo/1", "-verify_return_error"]);
        command.args([version, "-ign_eof", "-connect"]).arg(format!("127.0.0.1:{port}"));
        command.args(["-verify_hostname", "localhost", "-CAfile"]).arg(&ca);
        let output = run(&mut command, b"hello\n").await;
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{version}: {output:?}");
        assert!(text.contains("ALPN protocol: echo/1"), "{version}: {text}");
        assert!(text.contains("Verify return code: 0 (ok)"), "{version}: {text}");
        assert!(text.lines().any(|line| line.starts_with("hello")), "{version}: {text}");
    }
}

/// Starts `s_server` and returns it with the port it chose.
async fn s_server(arguments: &[&str], chain: &Path, key: &Path) -> (tokio::process::Child, u16) {
    let mut command = Command::new("openssl");
    command.args(["s_server", "-accept", "127.0.0.1:0", "-cert"]).arg(chain).arg("-key").arg(key);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some(port) = line.strip_prefix("ACCEPT").and_then(|rest| rest.rsplit(':').next()) {
            let port = port.trim().parse().unwrap();
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return (child, port);
        }
    }
    panic!("s_server does not listen");
}

async fn tcp(port: u16) -> BoxStream {
    TcpClient::connect(("127.0.0.1", port)).await.unwrap().into_inner()
}

#[tokio::test]
async fn our_client_speaks_to_s_server() {
    if !there("openssl", "version", "our client against s_server") {
        return;
    }
    let (authority, folder) = (Authority::new("ours"), Folder::new("s-server"));
    let (chain, key) = authority.issue(&["localhost"]);
    let (chain, key) = (folder.file("chain.pem", &chain), folder.file("key.pem", &key));
    for (version, name) in [("-tls1_2", "TLS 1.2"), ("-tls1_3", "TLS 1.3")] {
        let (_child, port) = s_server(&["-rev", version, "-alpn", "turn/1"], &chain, &key).await;
        let mut stream =
            authority.client().with_alpn(["turn/1"]).connect("localhost", tcp(port).await).await.unwrap();
        assert_eq!((stream.version(), stream.alpn()), (name, Some(&b"turn/1"[..])));
        stream.write_all(b"hello\n").await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"olleh\n");
        // It serves one connection at a time.
        drop(stream);
        let anybody = ClientTls::builder().dangerous_accept_any_certificate().build().unwrap();
        anybody.connect("elsewhere", tcp(port).await).await.unwrap();
    }
    let (_child, port) = s_server(&["-rev"], &chain, &key).await;
    let stranger = Authority::new("theirs").client();
    let error = stranger.connect("localhost", tcp(port).await).await.unwrap_err();
    assert!(matches!(TlsFailure::of(&error), Some(TlsFailure::Certificate(_))), "{error}");
}

#[tokio::test]
async fn curl_reads_from_our_server() {
    if !there("curl", "--version", "curl against our server") {
        return;
    }
    let (authority, folder) = (Authority::new("ours"), Folder::new("curl"));
    let ca = folder.file("ca.pem", &authority.pem);
    let port = server(authority.server(&["localhost"]), |mut stream| async move {
        let mut request = vec![0; 4096];
        let mut len = 0;
        while !request[..len].ends_with(b"\r\n\r\n") {
            len += stream.read(&mut request[len..]).await.unwrap();
        }
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nall of it").await.unwrap();
        stream.shutdown(Duration::from_secs(5)).await.ok();
    })
    .await;
    for version in ["1.2", "1.3"] {
        let mut command = Command::new("curl");
        command
            .args(["-sS", "--max-time", "10", "--noproxy", "*", "--tls-max", version, "--cacert"])
            .arg(&ca);
        let output = run(command.arg(format!("https://localhost:{port}/")), b"").await;
        assert!(output.status.success(), "{version}: {output:?}");
        assert_eq!(output.stdout, b"all of it", "{version}: {output:?}");
    }
}
