//! The short examples run, from their very text, against independent peers on this machine.
//!
//! `tcp_client` and `tcp_server` name addresses that a test cannot have: a host on the Internet, a fixed
//! port. So this file stands in for the name `vitte_net` where they are included: the modules below hand
//! out the library's own types and exchange those two addresses, nothing else. The others take theirs from
//! the command line. Each program runs in a process of its own (this test binary, started again), so that what it
//! prints can be read.

// Helpers of tests count as tests.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate self as vitte_net;
extern crate vitte_net as real_vitte_net;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Tells a second process of this binary to be the example, and which address to use.
const ADDRESS: &str = "VITTE_NET_EXAMPLE_ADDRESS";

/// No step of these tests takes this long unless something hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// The system chooses the port.
const FREE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What the example programs see as `vitte_net::tcp`.
pub mod tcp {
    use std::io;
    use std::net::SocketAddr;

    use real_vitte_net::tcp::TcpStream;

    /// Connects to the test's server in place of the example's.
    #[derive(Debug)]
    pub struct TcpClient;

    impl TcpClient {
        /// The library's `connect`, to the other address.
        #[allow(clippy::new_ret_no_self, reason = "it stands in for the real name")]
        pub async fn connect(target: &str) -> io::Result<TcpStream> {
            let other = (target == "example.org:80").then(|| std::env::var(super::ADDRESS).unwrap());
            real_vitte_net::tcp::TcpClient::connect(other.unwrap_or_else(|| target.into())).await
        }
    }

    /// Listens at a free port in place of the example's.
    #[derive(Debug)]
    pub struct TcpServer(real_vitte_net::tcp::TcpServer);

    impl TcpServer {
        /// The library's `bind`, at the other address; says which one the system chose.
        pub async fn bind(at: &str) -> io::Result<Self> {
            let other = (at == "127.0.0.1:8080").then(|| std::env::var(super::ADDRESS).unwrap());
            let says = other.is_some();
            let server = real_vitte_net::tcp::TcpServer::bind(other.unwrap_or_else(|| at.into())).await?;
            if says {
                println!("listening at {}", server.local_addr()?);
            }
            Ok(Self(server))
        }

        /// The library's `local_addr`.
        pub fn local_addr(&self) -> io::Result<SocketAddr> {
            self.0.local_addr()
        }

        /// The library's `accept`.
        pub async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
            self.0.accept().await
        }
    }
}

/// What the example programs see beside `vitte_net::tcp`.
pub use real_vitte_net::{resolver, stream, tls, udp, ws};

mod tcp_client {
    include!("../examples/tcp_client.rs");

    pub(super) fn run() {
        main().unwrap();
    }
}

mod tcp_server {
    include!("../examples/tcp_server.rs");

    pub(super) fn run() {
        main().unwrap();
    }
}

mod udp_echo {
    include!("../examples/udp_echo.rs");

    pub(super) fn run() {
        main().unwrap();
    }
}

mod dns_lookup {
    include!("../examples/dns_lookup.rs");

    pub(super) fn run() {
        main().unwrap();
    }
}

mod jsonrpc_client {
    include!("../examples/jsonrpc_client.rs");

    pub(super) fn run() {
        main().unwrap();
    }
}

mod jsonrpc_server {
    include!("../examples/jsonrpc_server.rs");

    pub(super) fn run() {
        main().unwrap();
    }
}

mod tls_client {
    include!("../examples/tls_client.rs");

    pub(super) fn run() {
        main().unwrap();
    }
}

mod ws_client {
    include!("../examples/ws_client.rs");

    pub(super) fn run() {
        main().unwrap();
    }
}

mod ws_server {
    include!("../examples/ws_server.rs");

    pub(super) fn run() {
        main().unwrap();
    }
}

/// A running example; ends with the test.
struct Example {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Example {
    /// This binary again, running only `test`, which then is the example, with one argument, an address.
    fn start(test: &str, address: SocketAddr) -> Self {
        Self::with(test, &[&address.to_string()])
    }

    /// The arguments stand first, where a program looks for them; as filters of tests they match none.
    fn with(test: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .args(["--exact", test, "--nocapture"])
            .env(ADDRESS, arguments[0])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The rest of the first line that has `start` in it.
    fn line(&mut self, start: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "no line with {start:?}");
            if let Some((_, rest)) = line.split_once(start) {
                return rest.trim().to_owned();
            }
        }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_the_example() -> bool {
    std::env::var_os(ADDRESS).is_some()
}

#[test]
fn tcp_client_gets_a_page_from_an_http_server() {
    if is_the_example() {
        return tcp_client::run();
    }
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut example =
        Example::start("tcp_client_gets_a_page_from_an_http_server", server.local_addr().unwrap());
    let (mut stream, _) = server.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        request.push(byte[0]);
    }
    assert_eq!(request, b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n");
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\nHello, Vitte!\n").unwrap();

    assert_eq!(example.line("HTTP/1.1 "), "200 OK");
    assert_eq!(example.line("Hello, "), "Vitte!");
    assert!(example.child.wait().unwrap().success());
}

#[test]
fn tcp_server_greets_everybody() {
    if is_the_example() {
        return tcp_server::run();
    }
    let mut example = Example::start("tcp_server_greets_everybody", FREE);
    let at: SocketAddr = example.line("listening at ").parse().unwrap();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut greeting = String::new();
        stream.read_to_string(&mut greeting).unwrap();
        assert_eq!(greeting, "Bienvenue sur VitteNet!\n");
        assert_eq!(example.line("Connexion de "), stream.local_addr().unwrap().to_string());
    }

    // curl sends a request that the server never reads, so the connection may end in a reset after the
    // greeting: its output counts, its exit code does not.
    match Command::new("curl")
        .args(["--silent", "--http0.9", "--max-time", "30"])
        .arg(at.to_string())
        .output()
    {
        Ok(curl) => assert_eq!(String::from_utf8_lossy(&curl.stdout), "Bienvenue sur VitteNet!\n"),
        Err(missing) => println!("without curl: {missing}"),
    }
}

#[test]
fn udp_echo_sends_back_what_fits() {
    if is_the_example() {
        return udp_echo::run();
    }
    let mut example = Example::start("udp_echo_sends_back_what_fits", FREE);
    let at: SocketAddr = example.line("listening at ").parse().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(at).unwrap();
    let mut buf = [0; 2000];
    socket.send(b"hello").unwrap();
    assert_eq!(socket.recv(&mut buf).unwrap(), 5);
    assert_eq!(&buf[..5], b"hello");
    socket.send(&[1; 1501]).unwrap();
    assert!(example.line(": more than ").starts_with("1500 bytes"));
    socket.send(&[2; 1500]).unwrap();
    assert_eq!(socket.recv(&mut buf).unwrap(), 1500);
}

#[test]
fn tls_client_hears_from_a_server_it_can_trust() {
    if is_the_example() {
        return tls_client::run();
    }
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let ca = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples-ca.pem");
    std::fs::write(&ca, made.cert.pem()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let tls =
            tls::ServerTls::builder().certificate_pem(made.cert.pem(), made.signing_key.serialize_pem());
        let tls = tls.build().unwrap();
        let mut server = real_vitte_net::tcp::TcpServer::bind("127.0.0.1:0").await.unwrap();
        let target = format!("localhost:{}", server.local_addr().unwrap().port());
        let arguments = [target.as_str(), ca.to_str().unwrap()];
        let mut example = Example::with("tls_client_hears_from_a_server_it_can_trust", &arguments);
        let (stream, _) = server.accept().await.unwrap();
        let mut stream = tls.accept(stream.into_inner()).await.unwrap();
        let mut question = String::new();
        stream.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "hello\n");
        stream.write_all(b"welcome\x1b[2J").await.unwrap();
        stream.shutdown(PATIENCE).await.unwrap();
        assert_eq!(example.line("welcome"), r"\u{1b}[2J");
        assert!(example.child.wait().unwrap().success());
    });
}

#[test]
fn ws_server_and_ws_client_understand_each_other() {
    // Either of the two, as its argument says.
    match std::env::var(ADDRESS) {
        Ok(address) if address.starts_with("ws:") => return ws_client::run(),
        Ok(_) => return ws_server::run(),
        Err(_) => {}
    }
    const TEST: &str = "ws_server_and_ws_client_understand_each_other";
    let mut server = Example::start(TEST, FREE);
    let at = server.line("listening at ");
    let mut client = Example::with(TEST, &[&format!("ws://{at}/")]);
    assert_eq!(client.line("hello"), "");
    assert!(client.child.wait().unwrap().success());
    assert_eq!(server.line(": 1 "), "messages");
}

#[test]
fn jsonrpc_server_and_jsonrpc_client_understand_each_other() {
    match std::env::var(ADDRESS) {
        Ok(address) if address == FREE.to_string() => return jsonrpc_server::run(),
        Ok(_) => return jsonrpc_client::run(),
        Err(_) => {}
    }
    const TEST: &str = "jsonrpc_server_and_jsonrpc_client_understand_each_other";
    let mut server = Example::start(TEST, FREE);
    let at = server.line("listening at ");
    let mut client = Example::with(TEST, &[&at]);
    assert_eq!(client.line("7 / 2 = "), "3.5");
    assert!(client.line("7 / 0: ").contains("nothing can be divided by 0"));
    assert!(client.child.wait().unwrap().success());
    assert_eq!(server.line(" says "), "good morning");
}

#[test]
fn dns_lookup_asks_the_server_it_is_told() {
    if is_the_example() {
        return dns_lookup::run();
    }
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = socket.local_addr().unwrap().to_string();
    // Knows an IPv4 address for every name, and nothing else.
    std::thread::spawn(move || {
        let mut query = [0; 1500];
        while let Ok((len, from)) = socket.recv_from(&mut query) {
            let end = 12 + query[12..len].iter().position(|byte| *byte == 0).unwrap() + 5;
            let known = query[end - 4..end - 2] == [0, 1];
            let head = [0x81, 0x80, 0, 1, 0, u8::from(known), 0, 0, 0, 0];
            let mut answer = [&query[..2], &head, &query[12..end]].concat();
            if known {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
            }
            socket.send_to(&answer, from).unwrap();
        }
    });
    let arguments = ["name.example", server.as_str()];
    let mut example = Example::with("dns_lookup_asks_the_server_it_is_told", &arguments);
    assert_eq!(example.line("name.example is at "), "192.0.2.1");
    assert_eq!(example.line("name.example takes no "), "mail");
    assert!(example.child.wait().unwrap().success());
}
