//! Our client and our server with each other.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use vitte_net::http::{
    Body, Client, HttpError, HttpErrorKind, Method, Protocol, Proxy, Reply, Request, Router, Server,
    StatusCode, Version, header,
};

use vitte_net::ws::{CloseCode, Message, WsAcceptor, WsConnector};

use crate::{echo, pieces, plain, serve, soon};

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

#[tokio::test]
async fn bodies_go_both_ways_in_both_versions() {
    let server = plain(echo(&Arc::default())).await;
    let client = Client::new();
    let url = format!("http://{}/echo", server.local_addr());
    for protocol in PROTOCOLS {
        for body in [Body::from("abc"), pieces(b"abc", 1), Body::empty()] {
            let length = body.length();
            let response =
                soon(client.post(&url).protocol(protocol).body(body).send()).await.expect("an answer");
            assert_eq!(response.status(), StatusCode::OK);
            let expected = if length == Some(0) { "" } else { "abc" };
            assert_eq!(response.text().await.expect("a body"), expected);
        }
        let response = soon(client.post(&url).protocol(protocol).body(pieces(&[7; 1000], 900)).send()).await;
        let response = response.expect("an answer");
        let version = if protocol == Protocol::Http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        assert_eq!(response.version(), version);
        assert_eq!(soon(response.bytes()).await.expect("a body"), vec![7; 900_000]);
    }
}

#[tokio::test]
async fn connections_are_used_again() {
    let router = Router::new()
        .get("/", |request: Request| async move { request.peer().port().to_string() })
        .post("/", |request: Request| async move { request.peer().port().to_string() });
    let server = plain(router).await;
    let client = Client::new();
    let url = format!("http://{}/", server.local_addr());
    for protocol in PROTOCOLS {
        let mut ports = Vec::new();
        for _ in 0..5 {
            let response = soon(client.get(&url).protocol(protocol).send()).await.expect("an answer");
            ports.push(response.text().await.expect("a body"));
        }
        ports.dedup();
        assert_eq!(ports.len(), 1, "{protocol:?}: {ports:?}");
    }
}

/// A connection that died in the pool costs a request nothing: it is sent on a new one.
#[tokio::test]
async fn a_server_that_closes_idle_connections_is_no_error() {
    let builder = Server::builder().idle_timeout(Duration::from_millis(1));
    let server = serve(builder, echo(&Arc::default())).await;
    let client = Client::new();
    for protocol in PROTOCOLS {
        for _ in 0..20 {
            let url = format!("http://{}/", server.local_addr());
            let response = soon(client.get(&url).protocol(protocol).send()).await.expect("an answer");
            assert_eq!(response.text().await.expect("a body"), "hello");
        }
    }
}

#[tokio::test]
async fn routes_lead_where_they_say() {
    let router = Router::new()
        .get("/users/{id}", |request: Request| async move {
            format!("{} {:?}", request.param("id").unwrap_or("?"), request.query_param("q"))
        })
        .nest("/rest", |request: Request| async move { request.rest().to_owned() })
        .put("/users/{id}", |_: Request| async { StatusCode::NO_CONTENT })
        .get("/panic", |_: Request| async { panic!("on purpose") as &'static str });
    let server = plain(router).await;
    let client = Client::new();
    let ask = |method: Method, path: &str| {
        client.request(method, format!("http://{}{path}", server.local_addr())).send()
    };
    for (path, expected) in
        [("/users/a%20b?q=c%26d", "a b Some(\"c&d\")"), ("/rest/of/it", "/of/it"), ("/rest", "/")]
    {
        let response = soon(ask(Method::GET, path)).await.expect("an answer");
        assert_eq!(response.text().await.expect("a body"), expected);
    }
    for (method, path, status) in [
        (Method::GET, "/users", 404),
        (Method::GET, "/users/", 404),
        (Method::GET, "/users/1/2", 404),
        (Method::GET, "/resting", 404),
        (Method::POST, "/users/1", 405),
        (Method::PUT, "/users/1", 204),
        (Method::HEAD, "/users/1", 200),
        (Method::GET, "/panic", 500),
    ] {
        let response = soon(ask(method, path)).await.expect("an answer");
        assert_eq!(response.status(), status, "{path}");
        if status == 405 {
            assert_eq!(response.headers()[header::ALLOW], "GET, PUT");
        }
    }
}

#[tokio::test]
async fn other_hosts_are_misdirected() {
    let server = serve(Server::builder().hosts(["localhost"]), echo(&Arc::default())).await;
    let client = Client::new();
    for protocol in PROTOCOLS {
        let at = |host: &str| {
            client.get(format!("http://{host}:{}/", server.local_addr().port())).protocol(protocol)
        };
        assert_eq!(soon(at("localhost").send()).await.expect("an answer").status(), 200);
        assert_eq!(soon(at("127.0.0.1").send()).await.expect("an answer").status(), 421);
    }
}

#[tokio::test]
async fn redirects_are_followed_only_when_asked_and_lose_credentials_elsewhere() {
    let seen = |request: Request| async move {
        let has = |name| request.headers().contains_key(name);
        format!("{} {} {}", request.method(), has(header::AUTHORIZATION), has(header::COOKIE))
    };
    let other = plain(Router::new().nest("/", seen)).await;
    let elsewhere = format!("http://{}/there", other.local_addr());
    let to = |status: u16, place: String| {
        move |_: Request| {
            let place = place.clone();
            async move {
                let mut reply = Reply::status(StatusCode::from_u16(status).expect("a status"));
                reply.headers_mut().insert(header::LOCATION, place.parse().expect("a place"));
                reply
            }
        }
    };
    let server = plain(
        Router::new()
            .nest("/here", seen)
            .nest("/302", to(302, "/here".into()))
            .nest("/307", to(307, "here".into()))
            .nest("/303", to(303, "/here".into()))
            .nest("/away", to(307, elsewhere))
            .nest("/loop", to(302, "/loop".into()))
            .nest("/file", to(302, "file:///etc/passwd".into())),
    )
    .await;
    let client = Client::new();
    let ask = |path: &str, redirects| {
        client
            .post(format!("http://{}{path}", server.local_addr()))
            .header("authorization", "secret")
            .header("cookie", "secret")
            .body("a")
            .redirects(redirects)
            .send()
    };
    assert_eq!(soon(ask("/302", 0)).await.expect("an answer").status(), 302);
    for (path, expected) in [
        ("/302", "GET true true"),
        ("/303", "GET true true"),
        ("/307", "POST true true"),
        ("/away", "POST false false"),
    ] {
        let response = soon(ask(path, 5)).await.expect("an answer");
        assert_eq!(response.text().await.expect("a body"), expected, "{path}");
    }
    for (path, why) in [("/loop", "more than 5 redirects"), ("/file", "the scheme is another")] {
        let error = soon(ask(path, 5)).await.expect_err("no end");
        assert!(matches!(error.kind(), HttpErrorKind::Redirect(_)), "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

/// The server ends: who is being answered gets the answer, who does not end in time is cut.
#[tokio::test]
async fn a_shutdown_is_graceful_and_bounded() {
    for protocol in PROTOCOLS {
        let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let handler = {
            let (begun, go) = (Arc::clone(&begun), Arc::clone(&go));
            move |_: Request| {
                let (begun, go) = (Arc::clone(&begun), Arc::clone(&go));
                async move {
                    begun.notify_one();
                    go.notified().await;
                    "done"
                }
            }
        };
        let server = plain(Router::new().nest("/", handler)).await;
        let client = Client::new();
        let url = format!("http://{}/", server.local_addr());
        let asking = tokio::spawn(client.get(&url).protocol(protocol).send());
        begun.notified().await;
        let stopping = tokio::spawn(server.shutdown(Duration::from_secs(10)));
        go.notify_one();
        let response = soon(asking).await.expect("no panic").expect("an answer");
        assert_eq!(response.text().await.expect("a body"), "done");
        drop(client);
        assert_eq!(soon(stopping).await.expect("no panic"), 0, "{protocol:?}");
    }
    let server = plain(Router::new().nest("/", |_: Request| std::future::pending::<&'static str>())).await;
    let client = Client::new();
    let asking = tokio::spawn(client.get(format!("http://{}/", server.local_addr())).send());
    let mut stuck = tokio::net::TcpStream::connect(server.local_addr()).await.expect("it listens");
    stuck.write_all(b"GET / HTTP/1.1\r\n").await.expect("it takes bytes");
    assert!(soon(server.shutdown(Duration::from_millis(100))).await <= 2);
    let error = soon(asking).await.expect("no panic").expect_err("it was cut");
    assert!(matches!(error.kind(), HttpErrorKind::Closed | HttpErrorKind::Io(_)), "{error:?}");
}

/// Another protocol on the same connection: what the client sent with its request is not lost.
#[tokio::test]
async fn a_connection_can_become_another_protocol() {
    let handler = |mut request: Request| async move {
        let Some(upgrade) = request.upgrade() else { return Reply::status(StatusCode::UPGRADE_REQUIRED) };
        tokio::spawn(async move {
            let (mut stream, early) = upgrade.stream().await.expect("another protocol");
            stream.write_all(&early).await.expect("it takes bytes");
            let mut more = [0; 4];
            stream.read_exact(&mut more).await.expect("more");
            stream.write_all(&more).await.expect("it takes bytes");
            stream.shutdown().await.expect("an end");
        });
        Reply::upgrade("echo")
    };
    let server = plain(Router::new().get("/", handler)).await;
    let mut stream = tokio::net::TcpStream::connect(server.local_addr()).await.expect("it listens");
    let ask =
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\nGET \0early\n";
    stream.write_all(ask).await.expect("it takes bytes");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\0early\n") {
        assert!(soon(stream.read_buf(&mut answer)).await.expect("an answer") > 0, "{answer:?}");
    }
    stream.write_all(b"\r\nX\n").await.expect("it takes bytes");
    soon(stream.read_to_end(&mut answer)).await.expect("an end");
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.starts_with("HTTP/1.1 101 ") && answer.ends_with("\r\n\r\nGET \0early\n\r\nX\n"),
        "{answer}"
    );
    // Who does not ask for it goes on with HTTP.
    let url = format!("http://{}/", server.local_addr());
    assert_eq!(soon(Client::new().get(url).send()).await.expect("an answer").status(), 426);
}

/// WebSocket and HTTP on one port: who does not play by the rules of one is told so by the other.
#[tokio::test]
async fn websockets_share_the_port() {
    let handler = |request: Request| async {
        let (reply, socket) = request.websocket(&WsAcceptor::new().protocols(["echo"]))?;
        tokio::spawn(async move {
            let mut socket = socket.await.expect("a WebSocket");
            while let Some(message) = socket.recv().await.expect("messages") {
                socket.send(message).await.expect("it takes messages");
            }
        });
        Ok::<_, Box<Reply>>(reply)
    };
    let server = plain(Router::new().get("/socket", handler).get("/", |_: Request| async { "hello" })).await;
    let at = server.local_addr();
    let connector = WsConnector::new().protocols(["echo"]);
    let mut socket = soon(connector.connect(&format!("ws://{at}/socket"))).await.expect("a WebSocket");
    assert_eq!(socket.protocol(), Some("echo"));
    for text in ["a", "b"] {
        socket.send(Message::text(text)).await.expect("it takes messages");
        assert_eq!(soon(socket.recv()).await.expect("a message"), Some(Message::text(text)));
    }
    soon(socket.close(CloseCode::NORMAL, "")).await.expect("an end");
    let client = Client::new();
    for (path, status) in [("/", 200), ("/socket", 426)] {
        let response = soon(client.get(format!("http://{at}{path}")).send()).await.expect("an answer");
        assert_eq!(response.status(), status);
    }
    let wrong = "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let next = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = crate::raw(at, format!("{wrong}{next}").as_bytes()).await;
    let order: Vec<_> = answer.match_indices("HTTP/1.1 ").map(|(at, _)| &answer[at + 9..at + 12]).collect();
    assert_eq!(order, ["426", "200"], "{answer}");
}

#[tokio::test]
async fn a_proxy_is_asked_for_whole_urls() {
    let handler = |request: Request| async move {
        let authorization = request.headers().get(header::PROXY_AUTHORIZATION).is_some();
        format!("{} {authorization}", request.uri())
    };
    let proxy = plain(Router::new().nest("/", handler)).await;
    let url = format!("http://user:secret@{}/", proxy.local_addr());
    let client = Client::builder().proxy(Proxy::new(url).expect("a proxy")).build();
    let response = soon(client.get("http://nowhere.example/a?b").send()).await.expect("an answer");
    assert_eq!(response.text().await.expect("a body"), "http://nowhere.example/a?b true");
    // The proxy refuses a tunnel.
    let error = soon(client.get("https://nowhere.example/").send()).await.expect_err("no tunnel");
    assert!(matches!(error.kind(), HttpErrorKind::ProxyRefused { status: 405 }), "{error:?}");
}

#[tokio::test]
async fn what_belongs_to_the_connection_is_not_the_callers() {
    let client = Client::new();
    for (name, value) in [("content-length", "5"), ("transfer-encoding", "chunked"), ("connection", "close")]
    {
        let error = client.get("http://127.0.0.1:9/").header(name, value).send().await.expect_err("refused");
        assert!(matches!(error.kind(), HttpErrorKind::Unusable(_)), "{error:?}");
    }
    for url in ["ftp://a/", "http://", "nonsense", "http://a:0/"] {
        let error: HttpError = client.get(url).send().await.expect_err("no URL");
        assert!(matches!(error.kind(), HttpErrorKind::Url(_)), "{error:?}");
    }
}
