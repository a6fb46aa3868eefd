//! Limits of docs/LIMITS.md that no other test reaches, each on its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use vitte_net::http::{
    Body, Client, Download, HttpErrorKind, Protocol, Proxy, Reply, Request, Router, Server, Stage,
};
use vitte_net::tls::ServerTls;

use crate::secure::{authority, trusting};
use crate::{canned, echo, plain, scripted, serve, soon};

const SHORT: Duration = Duration::from_millis(200);

/// One place: whoever else is connected already is answered when it is free.
#[tokio::test]
async fn further_clients_wait_for_a_place() {
    let (told, mut tells) = mpsc::unbounded_channel();
    let router = Router::new().nest("/", move |request: Request| {
        let _ = told.send(request.uri().path().to_owned());
        async { "x" }
    });
    let server = serve(Server::builder().max_connections(1), router).await;
    let ask = async |stream: &mut TcpStream, path: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("it takes bytes");
    };
    let answered = async |stream: &mut TcpStream| {
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nx") {
            assert!(soon(stream.read_buf(&mut answer)).await.expect("an answer") > 0);
        }
    };
    let mut first = TcpStream::connect(server.local_addr()).await.expect("it listens");
    ask(&mut first, "/first").await;
    answered(&mut first).await;
    let mut second = TcpStream::connect(server.local_addr()).await.expect("it listens");
    ask(&mut second, "/second").await;
    // Time enough for a server that would take it.
    for _ in 0..100 {
        ask(&mut first, "/first").await;
        answered(&mut first).await;
    }
    drop(first);
    answered(&mut second).await;
    let mut order = Vec::new();
    while let Ok(path) = tells.try_recv() {
        order.push(path);
    }
    assert_eq!((order.len(), order.iter().position(|path| path == "/second")), (102, Some(101)));
}

/// Says when it is dropped.
struct Dropped(mpsc::UnboundedSender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test]
async fn who_takes_no_bytes_is_let_go() {
    let (told, mut tells) = mpsc::unbounded_channel();
    let router = || {
        let told = told.clone();
        Router::new().get("/", move |_: Request| {
            let until = Dropped(told.clone());
            let endless = futures_util::stream::repeat_with(move || {
                let _ = &until;
                Ok(Bytes::from_static(&[7; 16 * 1024]))
            });
            async { Reply::new(Body::stream(endless, None)) }
        })
    };
    let (root, chain, key) = authority("localhost");
    let tls = ServerTls::builder().certificate_pem(chain, key).build().expect("a server");
    let in_clear = serve(Server::builder().body_timeout(SHORT), router()).await;
    let server = serve(Server::builder().body_timeout(SHORT).tls(tls).http3(true), router()).await;
    let mut stream = TcpStream::connect(in_clear.local_addr()).await.expect("it listens");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it takes bytes");
    soon(tells.recv()).await.expect("the body is dropped");
    let client = Client::builder().tls(trusting(&root)).build();
    for protocol in [Protocol::Http2, Protocol::Http3] {
        let url = format!("https://localhost:{}/", server.local_addr().port());
        let unread = soon(client.get(url).protocol(protocol).send()).await.expect("an answer");
        soon(tells.recv()).await.expect("the body is dropped");
        drop(unread);
    }
}

/// 200 requests on one connection: about 128 run, the others wait for them. (Over QUIC one that has ended counts until
/// the server says otherwise.)
#[tokio::test]
async fn one_connection_has_so_many_requests_at_a_time() {
    let (running, most) = (Arc::new(AtomicUsize::new(0)), watch::Sender::new(0_usize));
    let (go, going) = watch::channel(false);
    let router = {
        let (running, most) = (Arc::clone(&running), most.clone());
        Router::new().get("/warm", |_: Request| async { "x" }).get("/", move |_: Request| {
            let (running, most, mut going) = (Arc::clone(&running), most.clone(), going.clone());
            async move {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                most.send_if_modified(|most| {
                    now > *most && {
                        *most = now;
                        true
                    }
                });
                let _ = going.wait_for(|go| *go).await;
                running.fetch_sub(1, Ordering::SeqCst);
                "x"
            }
        })
    };
    let (root, chain, key) = authority("localhost");
    let tls = ServerTls::builder().certificate_pem(chain, key).build().expect("a server");
    let server = serve(Server::builder().tls(tls).http3(true), router).await;
    let url = format!("https://localhost:{}/", server.local_addr().port());
    for protocol in [Protocol::Http2, Protocol::Http3] {
        most.send_replace(0);
        go.send_replace(false);
        let client = Client::builder().tls(trusting(&root)).protocol(protocol).build();
        soon(client.get(format!("{url}warm")).send()).await.expect("an answer").text().await.expect("a body");
        let mut asking = JoinSet::new();
        for _ in 0..200 {
            asking.spawn(client.get(&url).send());
        }
        let mut seen = most.subscribe();
        let running = seen.wait_for(|most| *most >= 120);
        // What it gives would hold up those who count.
        let all = tokio::time::timeout(Duration::from_secs(10), running).await.is_ok();
        assert!(all, "{protocol:?}: only {}", *most.borrow());
        // Another request on the connection would have to pass them.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        go.send_replace(true);
        while let Some(answer) = soon(asking.join_next()).await {
            answer.expect("no panic").expect("an answer");
        }
        let most = *most.borrow();
        assert!(most <= 128, "{protocol:?}: {most}");
    }
}

#[tokio::test]
async fn what_nobody_reads_waits_at_the_client() {
    let made = Arc::new(AtomicUsize::new(0));
    let router = {
        let made = Arc::clone(&made);
        Router::new().post("/", move |request: Request| {
            let made = Arc::clone(&made);
            async move {
                // So long the body is not read.
                tokio::time::sleep(SHORT).await;
                let unread = made.load(Ordering::SeqCst);
                let _ = request.into_body().discard(usize::MAX).await;
                unread.to_string()
            }
        })
    };
    let (root, chain, key) = authority("localhost");
    let tls = ServerTls::builder().certificate_pem(chain, key).build().expect("a server");
    let server = serve(Server::builder().tls(tls).http3(true), router).await;
    let client = Client::builder().tls(trusting(&root)).build();
    for protocol in [Protocol::Http2, Protocol::Http3] {
        made.store(0, Ordering::SeqCst);
        let counted = Arc::clone(&made);
        let body = futures_util::stream::repeat_with(move || {
            counted.fetch_add(64 << 10, Ordering::SeqCst);
            Ok(Bytes::from_static(&[7; 64 << 10]))
        });
        let url = format!("https://localhost:{}/", server.local_addr().port());
        let post = client.post(url).protocol(protocol).body(Body::stream(body.take(500), None));
        let unread = soon(soon(post.send()).await.expect("an answer").text()).await.expect("a body");
        let unread: usize = unread.parse().expect("a number");
        // What the two of them hold, and what is between.
        assert!(unread <= 8 << 20, "{protocol:?}: {unread} bytes were taken that nobody read");
        assert_eq!(made.load(Ordering::SeqCst), 500 * (64 << 10), "{protocol:?}");
    }
}

/// Stands between a client and a server, and tells the first byte of what the server says.
async fn relay(to: SocketAddr) -> (SocketAddr, mpsc::UnboundedReceiver<u8>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port is free");
    let at = socket.local_addr().expect("an address");
    let (told, tells) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (mut client, mut buffer) = (to, vec![0; 65_535]);
        while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
            let next = if from == to {
                let _ = told.send(buffer[0]);
                client
            } else {
                client = from;
                to
            };
            let _ = socket.send_to(&buffer[..len], next).await;
        }
    });
    (at, tells)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_many_connections_an_address_proves_itself() {
    let (root, chain, key) = authority("localhost");
    let tls = ServerTls::builder().certificate_pem(chain, key).build().expect("a server");
    let server = serve(Server::builder().tls(tls).http3(true), echo(&Arc::default())).await;
    let roots = trusting(&root);
    let ask = async |at: SocketAddr| {
        let client = Client::builder().tls(roots.clone()).protocol(Protocol::Http3).build();
        let hello = soon(client.get(format!("https://localhost:{}/", at.port())).send()).await;
        assert_eq!(hello.expect("an answer").text().await.expect("a body"), "hello");
        client
    };
    // A long header of the version 1 says its type in two bits: 3 is a Retry (RFC 9000, section 17.2).
    let is_retry = |first: u8| first & 0xf0 == 0xf0;
    let (at, mut tells) = relay(server.local_addr()).await;
    let mut standing = vec![ask(at).await];
    assert!(!is_retry(tells.recv().await.expect("an answer")));
    while standing.len() < 256 {
        standing.push(ask(server.local_addr()).await);
    }
    let (at, mut tells) = relay(server.local_addr()).await;
    standing.push(ask(at).await);
    assert!(is_retry(tells.recv().await.expect("an answer")));
}

#[tokio::test]
async fn each_wait_of_a_client_has_its_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let silent = silent.local_addr().map(|at| (silent, at)).expect("an address");
    let half = scripted("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", false).await;
    let (connect, answer, body) =
        (format!("https://{}/", silent.1), format!("http://{}/", silent.1), format!("http://{half}/"));
    let builder = Client::builder;
    for (what, client, url) in [
        ("connecting", builder().connect_timeout(SHORT), &connect),
        ("the answer", builder().head_timeout(SHORT), &answer),
        ("the body", builder().idle_timeout(SHORT), &body),
        ("all with TLS", builder().timeout(SHORT), &connect),
        ("all without an answer", builder().timeout(SHORT), &answer),
        ("all without a body", builder().timeout(SHORT), &body),
    ] {
        let begun = Instant::now();
        let client = client.build();
        let outcome = async { client.get(url).send().await?.bytes().await };
        let error = soon(outcome).await.expect_err(what);
        assert!(error.is_timeout(), "{what}: {error}");
        assert!(error.to_string().contains("took longer than 200ms"), "{what}: {error}");
        assert!(begun.elapsed() >= SHORT, "{what}");
    }
}

#[tokio::test]
async fn a_client_has_so_many_connections() {
    let silent = scripted("", false).await;
    let client = Client::builder().max_connections(1).connect_timeout(SHORT).build();
    let waiting = tokio::spawn(client.get(format!("http://{silent}/")).send());
    let server = plain(echo(&Arc::default())).await;
    let url = format!("http://{}/", server.local_addr());
    // Until the first has its place.
    let error = loop {
        match soon(client.get(&url).send()).await {
            Ok(answer) => drop(answer),
            Err(error) => break error,
        }
    };
    assert!(error.is_timeout() && error.stage() == Stage::Prepare, "{error:?}");
    waiting.abort();
    let _ = waiting.await;
    assert_eq!(soon(client.get(&url).send()).await.expect("its place is free").status(), 200);
}

#[tokio::test]
async fn connections_that_wait_are_few_and_not_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let (told, mut ended) = mpsc::unbounded_channel();
    let answering = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let told = told.clone();
            tokio::spawn(async move {
                let begun = Instant::now();
                while stream.read(&mut [0; 4096]).await.is_ok_and(|len| len > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
                    stream.write_all(answer).await.expect("it takes bytes");
                }
                let _ = told.send(begun.elapsed());
            });
        }
    });
    let get = async |client: &Client| {
        soon(client.get(&url).send()).await.expect("an answer").text().await.expect("a body")
    };
    let client = Client::builder().pool(1, SHORT).build();
    get(&client).await;
    assert!(soon(ended.recv()).await.expect("it ends") >= SHORT);
    // Two at a time: one of them is too many, long before its time.
    let client = Client::builder().pool(1, Duration::from_secs(600)).build();
    tokio::join!(get(&client), get(&client));
    soon(ended.recv()).await.expect("it ends");
    assert!(ended.try_recv().is_err());
    drop(client);
    soon(ended.recv()).await.expect("it ends");
    answering.abort();
}

#[tokio::test]
async fn urls_and_proxies_have_their_bounds() {
    let long = format!("http://127.0.0.1:1/{}", "a".repeat(8 * 1024));
    let error = soon(Client::new().get(long).send()).await.expect_err("too long");
    assert!(matches!(error.kind(), HttpErrorKind::Url(_)), "{error:?}");
    let proxy = canned(format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(17 * 1024))).await;
    let proxy = Proxy::new(format!("http://{proxy}")).expect("a proxy");
    let client = Client::builder().proxy(proxy).build();
    let error = soon(client.get("https://nowhere.example/").send()).await.expect_err("too long");
    assert!(matches!(error.kind(), HttpErrorKind::TooLarge { .. }), "{error:?}");
    assert_eq!(error.stage(), Stage::Proxy);
}

#[tokio::test]
async fn a_download_tries_so_often() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let router = Router::new().get("/", move |_: Request| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Reply::status(vitte_net::http::StatusCode::SERVICE_UNAVAILABLE) }
    });
    let server = plain(router).await;
    let to = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("http-tries");
    let client = Client::new();
    let download = Download::new(&client, format!("http://{}/", server.local_addr()), &to);
    let error = soon(download.retries(3, Duration::from_millis(1)).run()).await.expect_err("it never comes");
    assert!(matches!(error.kind(), HttpErrorKind::Status { status: 503 }), "{error:?}");
    assert_eq!(tries.load(Ordering::SeqCst), 4);
}

/// A server answers at once and never reads the body that is sent: the next request does not wait for that, and
/// the place of the connection is free again.
#[tokio::test]
async fn an_answer_before_its_time_holds_nothing_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let answering = tokio::spawn(async move {
        let mut standing = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.expect("a client");
            standing.spawn(async move {
                loop {
                    let mut head = Vec::new();
                    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                        if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    stream.write_all(answer).await.expect("it takes bytes");
                    if head.starts_with(b"POST") {
                        return std::future::pending().await;
                    }
                }
            });
        }
    });
    let client = Client::builder().max_connections(2).timeout(Duration::from_secs(3)).build();
    for _ in 0..4 {
        let endless = futures_util::stream::repeat_with(|| Ok(Bytes::from_static(&[7; 64 << 10])));
        let post = client.post(&url).body(Body::stream(endless, None));
        let response = soon(post.send()).await.expect("an answer");
        assert_eq!(soon(response.text()).await.expect("a body"), "ok");
        let response = soon(client.get(&url).send()).await.expect("an answer");
        assert_eq!(soon(response.text()).await.expect("a body"), "ok");
    }
    answering.abort();
}
