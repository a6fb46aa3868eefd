//! HTTP/3 with peers that do not keep to it, played by aioquic.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use vitte_net::http::{Client, HttpErrorKind, Protocol, Server};
use vitte_net::tls::ServerTls;

use crate::secure::{authority, trusting};
use crate::third::python;
use crate::{echo, serve, soon};

/// Answers as the path says.
const SERVER: &str = r#"
import asyncio, sys
from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration

OK, HINTS = (b":status", b"200"), (b":status", b"103")
ANSWERS = {
    "/good": [[OK]],
    "/length": [[OK, (b"content-length", b"3")]],
    "/hints": [[HINTS, (b"link", b"</a>")], [(b":status", b"100")], [OK]],
    "/many-hints": [[HINTS]] * 20 + [[OK]],
    "/switched": [[(b":status", b"101")], [OK]],
    "/long": [[OK, (b"content-length", b"5")]],
    "/short": [[OK, (b"content-length", b"2")]],
    "/two": [[OK, (b"content-length", b"3"), (b"content-length", b"4")]],
    "/sign": [[OK, (b"content-length", b"+3")]],
    "/chunked": [[OK, (b"transfer-encoding", b"chunked")]],
    "/upgrade": [[OK, (b"connection", b"upgrade"), (b"upgrade", b"h2c")]],
}

class Answers(QuicConnectionProtocol):
    http = None
    def quic_event_received(self, event):
        if self.http is None:
            self.http = H3Connection(self._quic)
        for event in self.http.handle_event(event):
            if isinstance(event, HeadersReceived):
                for head in ANSWERS[dict(event.headers)[b":path"].decode()]:
                    self.http.send_headers(event.stream_id, head)
                self.http.send_data(event.stream_id, b"abc", end_stream=True)
                self.transmit()

async def main(chain, key):
    configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
    configuration.load_cert_chain(chain, key)
    server = await serve("127.0.0.1", 0, configuration=configuration, create_protocol=Answers)
    print(server._transport.get_extra_info("sockname")[1], flush=True)
    await asyncio.Future()

asyncio.run(main(*sys.argv[1:]))
"#;

#[tokio::test]
async fn what_a_server_of_http3_may_not_say_is_no_success() {
    let Some(python) = python("aioquic").await else { return };
    let (root, chain, key) = authority("localhost");
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("http");
    let files = [folder.join("rules-chain.pem"), folder.join("rules-key.pem")];
    std::fs::write(&files[0], chain).expect("a file can be written");
    std::fs::write(&files[1], key).expect("a file can be written");
    let mut command = Command::new(python);
    command.args(["-c", SERVER]).args(&files).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is a pipe")).lines();
    let port = soon(lines.next_line()).await.expect("it can be read").expect("a port");
    let client = Client::builder().tls(trusting(&root)).protocol(Protocol::Http3).build();
    let get = async |path: &str| {
        let response = client.get(format!("https://localhost:{port}/{path}")).send().await?;
        let status = response.status().as_u16();
        response.bytes().await.map(|body| (status, body))
    };
    for good in ["good", "length", "hints"] {
        let (status, body) = soon(get(good)).await.unwrap_or_else(|error| panic!("{good}: {error}"));
        assert_eq!((status, &body[..]), (200, &b"abc"[..]), "{good}");
    }
    for bad in ["many-hints", "switched", "long", "short", "two", "sign", "chunked", "upgrade"] {
        let error = soon(get(bad)).await.expect_err(bad);
        assert!(matches!(error.kind(), HttpErrorKind::Rules(_) | HttpErrorKind::CutOff), "{bad}: {error:?}");
    }
}

/// Says what it is told to, and tells the status of the answer, or that there was none.
const CLIENT: &str = r#"
import asyncio, sys
from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StreamReset

CASES = {
    "good": [(b"content-length", b"3")],
    "trailers": [(b"te", b"trailers")],
    "long": [(b"content-length", b"5")],
    "short": [(b"content-length", b"2")],
    "two": [(b"content-length", b"3"), (b"content-length", b"4")],
    "sign": [(b"content-length", b"+3")],
    "chunked": [(b"transfer-encoding", b"chunked")],
    "close": [(b"connection", b"close")],
    "upgrade": [(b"upgrade", b"h2c")],
    "te": [(b"te", b"gzip")],
    "host": [(b"host", b"elsewhere.example")],
}

class Asks(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.answer = asyncio.get_running_loop().create_future()
    def ask(self, port, more):
        stream = self._quic.get_next_available_stream_id()
        head = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"localhost:%d" % port), (b":path", b"/echo")]
        self.http.send_headers(stream, head + more)
        self.http.send_data(stream, b"abc", end_stream=True)
        self.transmit()
    def tell(self, text):
        if not self.answer.done():
            self.answer.set_result(text)
    def quic_event_received(self, event):
        if isinstance(event, (StreamReset, ConnectionTerminated)):
            self.tell("none")
        for event in self.http.handle_event(event):
            if isinstance(event, HeadersReceived):
                self.tell(dict(event.headers)[b":status"].decode())

async def main(port, root):
    for name, more in CASES.items():
        configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name="localhost")
        configuration.load_verify_locations(root)
        async with connect("127.0.0.1", port, configuration=configuration, create_protocol=Asks) as asks:
            asks.ask(port, more)
            print(name, await asyncio.wait_for(asks.answer, 10), flush=True)

asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
"#;

#[tokio::test]
async fn what_a_client_of_http3_may_not_say_is_refused() {
    let Some(python) = python("aioquic").await else { return };
    let (root, chain, key) = authority("localhost");
    let tls = ServerTls::builder().certificate_pem(chain, key).build().expect("a server");
    let server = serve(Server::builder().tls(tls).http3(true), echo(&Arc::new(AtomicU64::new(0)))).await;
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("http");
    let root_file = folder.join("rules-root.pem");
    std::fs::write(&root_file, root).expect("a file can be written");
    let port = server.local_addr().port().to_string();
    let mut command = Command::new(python);
    let output = command.args(["-c", CLIENT, &port]).arg(root_file).stdin(Stdio::null()).output();
    let output = soon(output).await.expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout).expect("text");
    let answers: Vec<_> = told.lines().filter_map(|line| line.split_once(' ')).collect();
    assert_eq!(answers.len(), 11, "{told}");
    for (what, answer) in answers {
        let expected: &[_] = if matches!(what, "good" | "trailers") { &["200"] } else { &["400", "none"] };
        assert!(expected.contains(&answer), "{what}: {answer}");
    }
}
