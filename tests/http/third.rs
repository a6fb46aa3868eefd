//! HTTP/3.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Command;
use vitte_net::http::{
    Body, Client, HttpErrorKind, Protocol, Reply, Request, Router, Server, Serving, Stage, Version, header,
};
use vitte_net::network::UdpOptions;
use vitte_net::resolver::Resolver;
use vitte_net::tls::{ClientTls, ServerTls};
use vitte_net_sim::{Cluster, Fault, Report};

use crate::secure::{authority, trusting};
use crate::{echo, pieces, serve, soon};

async fn third() -> (Serving, Client, String) {
    let (root, chain, key) = authority("localhost");
    let tls = ServerTls::builder().certificate_pem(chain, key).build().expect("a server");
    let server =
        serve(Server::builder().tls(tls).http3(true).hosts(["localhost"]), echo(&Arc::default())).await;
    (server, Client::builder().tls(trusting(&root)).protocol(Protocol::Http3).build(), root)
}

#[tokio::test]
async fn bodies_go_both_ways() {
    let (server, client, _) = third().await;
    let url = format!("https://localhost:{}/echo", server.local_addr().port());
    for body in [Body::from("abc"), pieces(b"abc", 1)] {
        let response = soon(client.post(&url).body(body).send()).await.expect("an answer");
        assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_3));
        assert_eq!(response.text().await.expect("a body"), "abc");
    }
    let response = soon(client.post(&url).body(pieces(&[7; 1000], 900)).send()).await.expect("an answer");
    assert_eq!(soon(response.bytes()).await.expect("a body"), vec![7; 900_000]);
    let missing = soon(client.get(format!("{url}/nowhere")).send()).await.expect("an answer");
    assert_eq!(missing.status(), 404);
    let head = soon(client.head(url.replace("/echo", "/")).send()).await.expect("an answer");
    assert_eq!(head.headers()[header::CONTENT_LENGTH], "5");
    let error = soon(client.get("http://localhost:1/").send()).await.expect_err("no TLS");
    assert!(matches!(error.kind(), HttpErrorKind::Unusable(_)), "{error:?}");
}

/// The server says so by TCP, and is asked by QUIC from then on.
#[tokio::test]
async fn an_alternative_is_learned() {
    let (server, _, root) = third().await;
    let client = Client::builder().tls(trusting(&root)).alt_svc(true).build();
    let url = format!("https://localhost:{}/", server.local_addr().port());
    for version in [Version::HTTP_2, Version::HTTP_3, Version::HTTP_3] {
        let response = soon(client.get(&url).send()).await.expect("an answer");
        assert_eq!(response.version(), version);
        assert_eq!(response.text().await.expect("a body"), "hello");
    }
}

#[tokio::test]
async fn a_stranger_is_refused_and_silence_is_bounded() {
    let (server, _, _) = third().await;
    let (root, _, _) = authority("localhost");
    let client = Client::builder().tls(trusting(&root)).protocol(Protocol::Http3);
    let client = client.timeout(Duration::from_millis(500)).build();
    let url = format!("https://localhost:{}/", server.local_addr().port());
    let error = soon(client.get(&url).send()).await.expect_err("an unknown root");
    assert_eq!(error.stage(), Stage::Tls, "{error}");
    // Nobody answers there.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("https://127.0.0.1:{}/", socket.local_addr().expect("an address").port());
    let error = soon(client.get(&url).send()).await.expect_err("silence");
    assert!(error.is_timeout(), "{error}");
}

/// A body that breaks off is no body, in both directions; a shutdown ends.
#[tokio::test]
async fn half_a_body_is_an_error() {
    let (root, chain, key) = authority("localhost");
    let tls = ServerTls::builder().certificate_pem(chain, key).build().expect("a server");
    let broken = || Ok::<_, std::io::Error>("half".into());
    let broken =
        move || Body::stream(futures_util::stream::iter([broken(), Err(std::io::Error::other("no"))]), None);
    let router = Router::new().get("/", move |_: Request| async move { Reply::new(broken()) }).post(
        "/",
        |request: Request| async move {
            request.bytes(100).await.map(|_| panic!("half of it was taken for all") as &'static str)
        },
    );
    let server = serve(Server::builder().tls(tls).http3(true), router).await;
    let client = Client::builder().tls(trusting(&root)).build();
    let url = format!("https://localhost:{}/", server.local_addr().port());
    for protocol in [Protocol::Http3, Protocol::Http2, Protocol::Http1] {
        let response = soon(client.get(&url).protocol(protocol).send()).await;
        let outcome = async { response?.bytes().await };
        assert!(soon(outcome).await.is_err(), "{protocol:?}");
        let posted = soon(client.post(&url).protocol(protocol).body(broken()).send()).await;
        assert!(posted.is_err_and(|error| error.stage() != Stage::Connect), "{protocol:?}");
    }
    drop(client);
    soon(server.shutdown(Duration::from_millis(500))).await;
}

fn run(seed: u64) -> Report {
    let (root, chain, key) = AUTHORITY.get_or_init(|| authority("server")).clone();
    let mut cluster = Cluster::new(seed)
        .limit(Duration::from_secs(120))
        .node("server", move |node| {
            let (chain, key) = (chain.clone(), key.clone());
            async move {
                let tls = ServerTls::builder()
                    .network(node.network())
                    .crypto_provider(node.crypto_provider())
                    .certificate_pem(chain, key)
                    .build()?;
                let server = Server::builder().network(node.network()).tls(tls).http3(true);
                server.bind("0.0.0.0:443").await?.serve(echo(&Arc::default())).ended().await?;
                Ok(())
            }
        })
        .client("client", move |node| {
            let root = root.clone();
            async move {
                let tls = ClientTls::builder()
                    .network(node.network())
                    .crypto_provider(node.crypto_provider())
                    .roots_pem(root)?
                    .build()?;
                let client =
                    Client::builder().network(node.network()).tls(tls).protocol(Protocol::Http3).build();
                for _ in 0..3 {
                    let request = client.post("https://server/echo").body(Body::from(vec![5; 100_000]));
                    let length = request.send().await?.bytes().await?.len();
                    node.event(format!("{length} bytes"));
                    // The second request is sent into the partition.
                    tokio::time::sleep(Duration::from_millis(1500)).await;
                }
                Ok(())
            }
        })
        .fault(Duration::from_secs(1), Fault::Partition { a: "server".into(), b: "client".into() })
        .fault(Duration::from_secs(4), Fault::Heal { a: "server".into(), b: "client".into() });
    cluster.run().expect("it ends well")
}

static AUTHORITY: std::sync::OnceLock<(String, String, String)> = std::sync::OnceLock::new();

#[test]
fn the_same_seed_is_the_same_run() {
    let (first, second) = (run(7), run(7));
    assert_eq!(first.digest, second.digest);
    assert!(first.elapsed > Duration::from_secs(4));
}

/// A host with an address that is silent is as good as one without (RFC 8305).
#[test]
fn a_silent_address_holds_nothing_up() {
    let (root, chain, key) = AUTHORITY.get_or_init(|| authority("server")).clone();
    let mut cluster = Cluster::new(3)
        .limit(Duration::from_secs(60))
        .node("silent", |node| async move {
            let at = std::net::SocketAddr::new(node.ip(), 443);
            let _socket = node.network().bind_udp(at, &UdpOptions::default()).await?;
            std::future::pending().await
        })
        .node("server", move |node| {
            let (chain, key) = (chain.clone(), key.clone());
            async move {
                let tls = ServerTls::builder()
                    .network(node.network())
                    .crypto_provider(node.crypto_provider())
                    .certificate_pem(chain, key)
                    .build()?;
                let server = Server::builder().network(node.network()).tls(tls).http3(true);
                server.bind("0.0.0.0:443").await?.serve(echo(&Arc::default())).ended().await?;
                Ok(())
            }
        })
        .client("client", move |node| {
            let root = root.clone();
            async move {
                let network = node.network();
                let (silent, server) =
                    (network.lookup("silent").await?[0], network.lookup("server").await?[0]);
                let names = Resolver::builder().host("server", silent).host("server", server).build();
                let network = names.over(network);
                assert_eq!(network.lookup("server").await?, [silent, server]);
                let tls = ClientTls::builder()
                    .network(Arc::clone(&network))
                    .crypto_provider(node.crypto_provider())
                    .roots_pem(root)?
                    .build()?;
                let client = Client::builder().network(network).tls(tls).protocol(Protocol::Http3).build();
                let begun = tokio::time::Instant::now();
                let hello = client.get("https://server/").send().await?.text().await?;
                let took = begun.elapsed();
                assert_eq!(hello, "hello");
                // The second address joins after 250 ms.
                assert!(took >= Duration::from_millis(250) && took < Duration::from_millis(600), "{took:?}");
                Ok(())
            }
        });
    cluster.run().expect("it ends well");
}

/// Asks for a page and posts a body, by aioquic.
const AIOQUIC: &str = r#"
import asyncio, ssl, sys
from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration

class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.waiting = {}
    async def ask(self, port, method, path, body=b""):
        stream = self._quic.get_next_available_stream_id()
        names = [(b":method", method), (b":scheme", b"https"), (b":authority", b"localhost:%d" % port), (b":path", path)]
        self.http.send_headers(stream, names, end_stream=not body)
        if body:
            self.http.send_data(stream, body, end_stream=True)
        self.waiting[stream] = (asyncio.get_running_loop().create_future(), [], bytearray())
        self.transmit()
        return await asyncio.wait_for(self.waiting[stream][0], 15)
    def quic_event_received(self, event):
        for event in self.http.handle_event(event):
            future, headers, body = self.waiting[event.stream_id]
            if isinstance(event, HeadersReceived):
                headers.extend(event.headers)
            elif isinstance(event, DataReceived):
                body.extend(event.data)
            if event.stream_ended and not future.done():
                future.set_result((dict(headers)[b":status"], bytes(body)))

async def main(port, root):
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name="localhost")
    configuration.load_verify_locations(root)
    async with connect("127.0.0.1", port, configuration=configuration, create_protocol=Client) as client:
        assert await client.ask(port, b"GET", b"/") == (b"200", b"hello")
        body = bytes(range(256)) * 1000
        assert await client.ask(port, b"POST", b"/echo", body) == (b"200", body)
        assert (await client.ask(port, b"GET", b"/nowhere"))[0] == b"404"
    print("fine")

asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
"#;

/// A Python with a package, where both can be had. Its folder is made by one test at a time.
pub(crate) async fn python(package: &str) -> Option<std::path::PathBuf> {
    static MAKING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _making = MAKING.lock().await;
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("http").join("python");
    let python = folder.join("bin").join("python");
    let run = async |program: &std::path::Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().await.is_ok_and(|status| status.success())
    };
    let import = format!("import {package}");
    if run(&python, &["-c", &import]).await {
        return Some(python);
    }
    let folder = folder.to_str().expect("text");
    let made = run("python3".as_ref(), &["-m", "venv", folder]).await
        && run(&python, &["-m", "pip", "install", "--quiet", package]).await;
    if !made {
        println!("skipped: {package} cannot be installed");
    }
    made.then_some(python)
}

#[tokio::test]
async fn aioquic_understands_us() {
    let Some(python) = python("aioquic").await else { return };
    let (server, _, root) = third().await;
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("http");
    let root_file = folder.join("third.pem");
    std::fs::write(&root_file, root).expect("a file can be written");
    let port = server.local_addr().port().to_string();
    let mut command = Command::new(python);
    let output = command.args(["-c", AIOQUIC, &port]).arg(root_file).stdin(Stdio::null()).output();
    let output = soon(output).await.expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"fine\n");
}

/// Asks for a page and posts a body, by curl with HTTP/3, which the package curl_cffi brings.
const CURL: &str = r#"
import sys
from curl_cffi import CurlHttpVersion, requests
port, root = sys.argv[1:]
url = f"https://localhost:{port}"
with requests.Session(http_version=CurlHttpVersion.V3ONLY, verify=root, timeout=15) as session:
    page = session.get(url + "/")
    assert (page.status_code, page.http_version, page.content) == (200, CurlHttpVersion.V3, b"hello"), page.content
    body = bytes(range(256)) * 1000
    echoed = session.post(url + "/echo", data=body)
    assert (echoed.status_code, echoed.content == body) == (200, True), len(echoed.content)
    assert session.get(url + "/nowhere").status_code == 404
print("fine")
"#;

#[tokio::test]
async fn curl_understands_us_by_http3() {
    let Some(python) = python("curl_cffi").await else { return };
    let (server, _, root) = third().await;
    let root_file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("http").join("third-curl.pem");
    std::fs::write(&root_file, root).expect("a file can be written");
    let port = server.local_addr().port().to_string();
    let mut command = Command::new(python);
    let output = command.args(["-c", CURL, &port]).arg(root_file).stdin(Stdio::null()).output();
    let output = soon(output).await.expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"fine\n");
}
