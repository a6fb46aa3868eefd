//! JSON-RPC: both sides of ours, and a peer that says what it likes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::{Notify, mpsc};
use vitte_net::stream::jsonrpc::{Builder, CallError, JsonRpc, Limits, RpcError};
use vitte_net::stream::{ContentLength, StreamError, TypedStream};

use super::tls::{Authority, pair};

type Raw = TypedStream<Bytes, ContentLength, DuplexStream>;

/// A connection of ours, and its peer by hand.
fn by_hand(builder: Builder) -> (JsonRpc, Raw) {
    let (near, far) = duplex(1 << 16);
    (builder.start(near), TypedStream::new(far, ContentLength::default()))
}

async fn say(raw: &mut Raw, message: &Value) {
    raw.send(message.to_string().into()).await.unwrap();
}

async fn hear(raw: &mut Raw) -> Value {
    serde_json::from_slice(&raw.recv().await.unwrap().unwrap()).unwrap()
}

fn request(id: impl Into<Value>, method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id.into(), "method": method, "params": params })
}

/// Answers `slow` when it is told to, and says when it began and when it was dropped.
struct Slow {
    began: mpsc::UnboundedReceiver<u32>,
    go: Arc<Notify>,
    dropped: Arc<AtomicU32>,
}

struct CountDrop(Arc<AtomicU32>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn slow(builder: Builder) -> (Builder, Slow) {
    let (tell, began) = mpsc::unbounded_channel();
    let (go, dropped) = (Arc::new(Notify::new()), Arc::new(AtomicU32::new(0)));
    let (wait, count) = (go.clone(), dropped.clone());
    let builder = builder.on_request("slow", move |_, (number,): (u32,)| {
        let (tell, wait, count) = (tell.clone(), wait.clone(), CountDrop(count.clone()));
        async move {
            let _count = count;
            tell.send(number).unwrap();
            wait.notified().await;
            Ok::<_, RpcError>(number)
        }
    });
    (builder, Slow { began, go, dropped })
}

#[tokio::test]
async fn calls_go_both_ways_at_once() {
    let (near, far) = duplex(256);
    let double = |_, (n,): (u32,)| async move { Ok::<_, RpcError>(n * 2) };
    let ask_back = |cx: vitte_net::stream::jsonrpc::Context, (n,): (u32,)| async move {
        cx.client.call::<_, u32>("double", (n,)).await.map_err(|error| RpcError::new(1, error.to_string()))
    };
    let one = JsonRpc::builder().on_request("double", double).start(near);
    let two = JsonRpc::builder().on_request("ask_back", ask_back).start(far);
    let calls = (0..200_u32).map(|n| {
        let client = one.client();
        tokio::spawn(async move { client.call::<_, u32>("ask_back", (n,)).await.unwrap() })
    });
    let calls: Vec<_> = calls.collect();
    for (n, call) in (0..).zip(calls) {
        assert_eq!(call.await.unwrap(), n * 2);
    }
    one.close();
    one.closed().await.unwrap();
    two.closed().await.unwrap();
    assert!(matches!(two.client().call::<_, ()>("x", ()).await, Err(CallError::Closed)));
    assert!(matches!(two.client().notify("x", ()).await, Err(CallError::Closed)));
}

#[tokio::test]
async fn it_runs_over_tls() {
    let authority = Authority::new("ours");
    let (near, far) = pair().await;
    let (client, server) = (authority.client(), authority.server(&["localhost"]));
    let (near, far) = tokio::join!(client.connect("localhost", near), server.accept(far));
    let echo = |_, value: Value| async move { Ok::<_, RpcError>(value) };
    let server = JsonRpc::builder().on_request("echo", echo).start(far.unwrap());
    let client = JsonRpc::builder().start(near.unwrap());
    let big = json!({ "text": "é".repeat(300_000) });
    assert_eq!(client.client().call::<_, Value>("echo", &big).await.unwrap(), big);
    drop(client);
    server.closed().await.unwrap();
}

#[tokio::test]
async fn errors_say_whose_they_are() {
    let panics = |_, ()| async { if true { panic!("on purpose") } else { Ok::<(), RpcError>(()) } };
    let fails =
        |_, ()| async { Err::<(), _>(RpcError { code: 7, message: "no".into(), data: Some(json!([1])) }) };
    let builder = JsonRpc::builder().on_request("panics", panics).on_request("fails", fails);
    let (near, far) = duplex(4096);
    let _server = builder.on_request("text", |_, ()| async { Ok::<_, RpcError>("no number") }).start(far);
    let connection = JsonRpc::builder().limits(limits(|limits| limits.message_max = 300)).start(near);
    let client = connection.client();
    let code = async |method: &str, params: Value| match client.call::<_, u32>(method, params).await {
        Err(CallError::Answered(error)) => error.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code("panics", json!(null)).await, RpcError::INTERNAL_ERROR);
    assert_eq!(code("unknown", json!([])).await, RpcError::METHOD_NOT_FOUND);
    assert_eq!(code("fails", json!([1])).await, RpcError::INVALID_PARAMS);
    assert_eq!(code("fails", json!(null)).await, 7);
    assert!(matches!(client.call::<_, u32>("text", ()).await, Err(CallError::Result(_))));
    let not_sent = client.call::<_, u32>("text", ["x".repeat(300)]).await;
    assert!(matches!(not_sent, Err(CallError::NotSent(StreamError::TooLarge { limit: 300, .. }))));
    let not_sent = client.call::<_, u32>("text", 5).await;
    assert!(matches!(not_sent, Err(CallError::NotSent(StreamError::Unencodable(_)))));
}

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

#[tokio::test]
async fn a_notification_is_done_before_what_follows_it() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let (written, read) = (log.clone(), log.clone());
    let builder = JsonRpc::builder()
        .on_notification("change", move |_, (n,): (u32,)| {
            let log = written.clone();
            async move {
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                log.lock().unwrap().push(n);
            }
        })
        .on_request("length", move |_, ()| {
            let log = read.clone();
            async move { Ok::<_, RpcError>(log.lock().unwrap().len()) }
        });
    let (near, far) = duplex(1 << 16);
    let (_server, client) = (builder.start(far), JsonRpc::builder().start(near));
    for n in 0..50_u32 {
        client.client().notify("change", (n,)).await.unwrap();
        let seen: u32 = client.client().call("length", ()).await.unwrap();
        assert_eq!(seen, n + 1);
    }
    // A notification that panics blocks nothing, one with strange parameters or of no method is dropped.
    client.client().notify("change", ["a"]).await.unwrap();
    client.client().notify("none", ()).await.unwrap();
    assert_eq!(client.client().call::<_, u32>("length", ()).await.unwrap(), 50);
}

#[tokio::test]
async fn a_dropped_call_is_cancelled_over_there() {
    let (builder, mut slow) = slow(JsonRpc::builder());
    let (near, far) = duplex(4096);
    let (_server, client) = (builder.start(far), JsonRpc::builder().start(near));
    let handle = client.client();
    let call = tokio::spawn(async move { handle.call::<_, u32>("slow", (1,)).await });
    assert_eq!(slow.began.recv().await, Some(1));
    call.abort();
    // The next one is read after the cancellation, so it sees what that did.
    let handle = client.client();
    let call = tokio::spawn(async move { handle.call::<_, u32>("slow", (2,)).await });
    assert_eq!(slow.began.recv().await, Some(2));
    while slow.dropped.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    slow.go.notify_one();
    assert_eq!(call.await.unwrap().unwrap(), 2);
    assert_eq!(slow.dropped.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn cancelled_requests_are_answered() {
    let (builder, mut slow) = slow(JsonRpc::builder().limits(limits(|limits| limits.running_max = 1)));
    let (_connection, mut raw) = by_hand(builder);
    for id in ["a", "b", "c"] {
        say(&mut raw, &request(id, "slow", &json!([1]))).await;
    }
    slow.began.recv().await.unwrap();
    // One that waits, one that runs, one that nobody knows.
    for id in ["b", "a", "z"] {
        let cancel = json!({ "jsonrpc": "2.0", "method": "$/cancelRequest", "params": { "id": id } });
        say(&mut raw, &cancel).await;
    }
    for id in ["b", "a"] {
        let answer = hear(&mut raw).await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(id), &json!(-32800)));
    }
    slow.began.recv().await.unwrap();
    slow.go.notify_one();
    assert_eq!(hear(&mut raw).await, json!({ "jsonrpc": "2.0", "id": "c", "result": 1 }));
}

#[tokio::test]
async fn requests_run_side_by_side_and_up_to_a_number() {
    let (builder, mut slow) = slow(JsonRpc::builder().limits(limits(|limits| limits.running_max = 2)));
    let (_connection, mut raw) = by_hand(builder);
    for id in 0..3 {
        say(&mut raw, &request(id, "slow", &json!([id]))).await;
    }
    say(&mut raw, &request(0, "slow", &json!([0]))).await;
    let answer = hear(&mut raw).await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(0), &json!(RpcError::INVALID_REQUEST)));
    assert_eq!((slow.began.recv().await, slow.began.recv().await), (Some(0), Some(1)));
    assert!(slow.began.try_recv().is_err(), "a third one runs");
    slow.go.notify_one();
    hear(&mut raw).await;
    assert_eq!(slow.began.recv().await, Some(2));
    slow.go.notify_waiters();
    slow.go.notify_one();
    hear(&mut raw).await;
}

#[tokio::test]
async fn a_flood_is_told_so_while_an_answer_is_due() {
    let (builder, mut slow) = slow(JsonRpc::builder().limits(limits(|limits| {
        (limits.running_max, limits.queue_max) = (1, 2);
    })));
    let (connection, mut raw) = by_hand(builder);
    let client = connection.client();
    let call = tokio::spawn(async move { client.call::<_, u32>("ours", ()).await });
    assert_eq!(hear(&mut raw).await["method"], "ours");
    for id in 10..15 {
        say(&mut raw, &request(id, "slow", &json!([id]))).await;
    }
    slow.began.recv().await.unwrap();
    for _ in 0..2 {
        let answer = hear(&mut raw).await;
        assert_eq!(answer["error"]["code"], json!(RpcError::BUSY), "{answer}");
    }
    say(&mut raw, &json!({ "jsonrpc": "2.0", "id": 1, "result": 5 })).await;
    assert_eq!(call.await.unwrap().unwrap(), 5);
    for id in [10, 11, 12] {
        slow.go.notify_one();
        assert_eq!(hear(&mut raw).await["result"], json!(id));
    }
}

#[tokio::test]
async fn nonsense_is_answered_and_does_not_end_it() {
    let echo = |_, value: Value| async move { Ok::<_, RpcError>(value) };
    let (_connection, mut raw) = by_hand(JsonRpc::builder().on_request("echo", echo));
    let deep = "[".repeat(100_000);
    for (message, code) in [
        ("nonsense", RpcError::PARSE_ERROR),
        ("", RpcError::PARSE_ERROR),
        ("{\"jsonrpc\":\"2.0\"", RpcError::PARSE_ERROR),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"} x", RpcError::PARSE_ERROR),
        (&deep, RpcError::INVALID_REQUEST),
        ("[]", RpcError::INVALID_REQUEST),
        ("5", RpcError::INVALID_REQUEST),
        ("{}", RpcError::INVALID_REQUEST),
        ("{\"id\":1,\"method\":\"echo\"}", RpcError::INVALID_REQUEST),
        ("{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"echo\"}", RpcError::INVALID_REQUEST),
        ("{\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"echo\"}", RpcError::INVALID_REQUEST),
        ("{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"echo\"}", RpcError::INVALID_REQUEST),
        ("{\"jsonrpc\":\"2.0\",\"id\":[1],\"method\":\"echo\"}", RpcError::INVALID_REQUEST),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"echo\"}", RpcError::INVALID_REQUEST),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":5}", RpcError::INVALID_REQUEST),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":5}", RpcError::INVALID_REQUEST),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"result\":5}", RpcError::INVALID_REQUEST),
        (
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":5,\"error\":{\"code\":1,\"message\":\"\"}}",
            RpcError::INVALID_REQUEST,
        ),
        ("{\"jsonrpc\":\"2.0\",\"id\":1}", RpcError::INVALID_REQUEST),
    ] {
        raw.send(Bytes::from(message.to_owned())).await.unwrap();
        let answer = hear(&mut raw).await;
        assert_eq!(
            (&answer["id"], &answer["error"]["code"]),
            (&Value::Null, &json!(code)),
            "{message:.80}: {answer}"
        );
    }
    raw.send(Bytes::from_static(b"\xff\xfe")).await.unwrap();
    assert_eq!(hear(&mut raw).await["error"]["code"], json!(RpcError::PARSE_ERROR));
    // Answers that nobody waits for, complaints, cancellations of nothing.
    say(&mut raw, &json!({ "jsonrpc": "2.0", "id": 99, "result": null })).await;
    say(&mut raw, &json!({ "jsonrpc": "2.0", "id": null, "error": { "code": 1, "message": "?" } })).await;
    say(&mut raw, &json!({ "jsonrpc": "2.0", "method": "$/cancelRequest", "params": [5] })).await;
    say(&mut raw, &request("x", "echo", &json!({ "a": 1 }))).await;
    assert_eq!(hear(&mut raw).await, json!({ "jsonrpc": "2.0", "id": "x", "result": { "a": 1 } }));
}

#[tokio::test]
async fn null_is_a_result() {
    let (connection, mut raw) = by_hand(JsonRpc::builder());
    let client = connection.client();
    let call = tokio::spawn(async move { client.call::<_, Option<u32>>("x", ()).await });
    assert_eq!(hear(&mut raw).await, json!({ "jsonrpc": "2.0", "id": 1, "method": "x" }));
    say(&mut raw, &json!({ "jsonrpc": "2.0", "id": 1, "result": null })).await;
    assert_eq!(call.await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn an_end_settles_every_call() {
    let (connection, mut raw) = by_hand(JsonRpc::builder());
    let client = connection.client();
    let call = tokio::spawn(async move { client.call::<_, u32>("x", ()).await });
    hear(&mut raw).await;
    drop(raw);
    assert!(matches!(call.await.unwrap(), Err(CallError::Lost)));
    connection.closed().await.ok();

    let (connection, mut raw) = by_hand(JsonRpc::builder());
    let (stream, _) = {
        say(&mut raw, &json!({ "jsonrpc": "2.0", "method": "x" })).await;
        raw.into_inner()
    };
    let mut lines: TypedStream<String, _, _> = TypedStream::new(stream, vitte_net::stream::Lines::default());
    lines.send("no header at all".to_owned()).await.unwrap();
    lines.finish().await.unwrap();
    let ended = connection.closed().await.unwrap_err();
    assert!(matches!(&*ended, StreamError::Truncated), "{ended}");
}

#[tokio::test]
async fn who_has_sent_everything_still_gets_its_answers() {
    let (builder, mut slow) = slow(JsonRpc::builder());
    let (connection, mut raw) = by_hand(builder);
    say(&mut raw, &request(1, "slow", &json!([1]))).await;
    raw.finish().await.unwrap();
    slow.began.recv().await.unwrap();
    slow.go.notify_one();
    assert_eq!(hear(&mut raw).await["result"], 1);
    assert!(raw.recv().await.unwrap().is_none());
    connection.closed().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn closing_is_bounded() {
    let (builder, mut slow) = slow(JsonRpc::builder().limits(limits(|limits| limits.running_max = 1)));
    let (connection, mut raw) = by_hand(builder);
    say(&mut raw, &request(1, "slow", &json!([1]))).await;
    say(&mut raw, &request(2, "slow", &json!([2]))).await;
    slow.began.recv().await.unwrap();
    let begin = tokio::time::Instant::now();
    connection.close();
    connection.closed().await.unwrap();
    assert_eq!(begin.elapsed(), Limits::default().drain);
    // The one that had not begun is told so; the one that ran is not answered.
    let answer = hear(&mut raw).await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(2), &json!(RpcError::BUSY)));
    assert!(raw.recv().await.unwrap().is_none());
    assert_eq!(slow.dropped.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_given_up() {
    let (near, far) = duplex(64);
    let connection = JsonRpc::builder().start(near);
    let begin = tokio::time::Instant::now();
    let client = connection.client();
    let call = tokio::spawn(async move { client.call::<_, u32>("x", ["y".repeat(1000)]).await });
    let ended = connection.closed().await.unwrap_err();
    assert!(
        matches!(&*ended, StreamError::Io(error) if error.kind() == std::io::ErrorKind::TimedOut),
        "{ended}"
    );
    assert_eq!(begin.elapsed(), Limits::default().write_timeout);
    assert!(matches!(call.await.unwrap(), Err(CallError::Lost)));
    assert!(begin.elapsed() < Duration::from_secs(31));
    drop(far);
}
