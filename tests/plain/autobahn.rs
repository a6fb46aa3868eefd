//! The Autobahn test suite for WebSockets, on both sides.
//!
//! It is the program `wstest` of the Python package `autobahntestsuite` 0.8.2, which needs Python 2.7. A part of
//! its cases runs always, all 517 with `VITTE_AUTOBAHN=all`, which takes some minutes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use vitte_net::ws::{Message, Origins, WebSocket, WsAcceptor, WsConnector, WsServer};

use crate::port::free_port;
use crate::programs::there;
use crate::ws::{compressing, echo};

/// Everything but the largest messages and the many rounds of compression.
const PART: &[&str] = &[
    "1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.1.1", "9.2.1", "9.3.1", "9.4.9", "9.5.1", "9.6.6",
    "10.*", "12.1.1", "12.2.3", "12.5.1", "13.1.1", "13.2.2", "13.3.1", "13.4.1", "13.5.1", "13.6.1",
    "13.7.1",
];
/// All of them, on a busy machine.
const LIMIT: Duration = Duration::from_secs(3600);

fn cases() -> Value {
    match std::env::var("VITTE_AUTOBAHN") {
        Ok(all) if all == "all" => json!(["*"]),
        _ => json!(PART),
    }
}

fn folder(side: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("autobahn").join(side);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn wstest(mode: &str, folder: &Path, settings: &Value) -> Child {
    let file = folder.join("settings.json");
    std::fs::write(&file, settings.to_string()).unwrap();
    let mut command = Command::new("wstest");
    command.args(["--mode", mode, "--spec"]).arg(file).current_dir(folder);
    command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap()
}

/// Reads the report: every case must be passed, closing handshake included.
fn judge(folder: &Path, least: usize) {
    let report = std::fs::read(folder.join("reports/index.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    let cases = report["vitte-net"].as_object().unwrap();
    assert!(cases.len() >= least, "only {} cases", cases.len());
    let passed = |verdict: &Value| ["OK", "INFORMATIONAL"].iter().any(|good| verdict == good);
    let failed: Vec<String> = cases
        .iter()
        .filter(|(_, case)| !passed(&case["behavior"]) || !passed(&case["behaviorClose"]))
        .map(|(id, case)| format!("{id}: {}, closing {}", case["behavior"], case["behaviorClose"]))
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    println!("{} cases of the Autobahn test suite", cases.len());
}

#[tokio::test]
async fn the_autobahn_passes_our_server() {
    if !there("wstest", "--help", "the Autobahn test suite against our server") {
        return;
    }
    let acceptor = WsAcceptor::new().options(compressing()).origins(Origins::Any);
    let mut server = WsServer::builder().acceptor(acceptor).bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", server.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        loop {
            let incoming = server.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut socket, _) = incoming.handshake().await.unwrap();
                // How it ends is for the suite to judge.
                let _ = echo(&mut socket).await;
            });
        }
    });
    let folder = folder("server");
    let settings = json!({
        "outdir": "./reports",
        "servers": [{ "agent": "vitte-net", "url": url }],
        "cases": cases(), "exclude-cases": [], "exclude-agent-cases": {},
    });
    let ended = timeout(LIMIT, wstest("fuzzingclient", &folder, &settings).wait()).await;
    assert!(ended.expect("it ends").unwrap().success());
    serving.abort();
    judge(&folder, 250);
}

/// Connects, also while the suite is not listening yet.
async fn reach(at: SocketAddr, path: &str) -> WebSocket {
    let connector = WsConnector::new().options(compressing());
    let url = format!("ws://{at}{path}");
    let connecting = async {
        loop {
            match connector.connect(&url).await {
                Ok(socket) => return socket,
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    };
    timeout(Duration::from_secs(60), connecting).await.expect("the suite listens")
}

#[tokio::test]
async fn the_autobahn_passes_our_client() {
    if !there("wstest", "--help", "the Autobahn test suite against our client") {
        return;
    }
    let folder = folder("client");
    let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let settings = json!({
        "url": format!("ws://{at}"), "outdir": "./reports",
        "cases": cases(), "exclude-cases": [], "exclude-agent-cases": {},
    });
    let mut suite = wstest("fuzzingserver", &folder, &settings);
    let mut counting = reach(at, "/getCaseCount").await;
    let Some(Message::Text(count)) = counting.recv().await.unwrap() else { panic!("no count") };
    let count: usize = count.parse().unwrap();
    for case in 1..=count {
        let mut socket = reach(at, &format!("/runCase?case={case}&agent=vitte-net")).await;
        let _ = timeout(LIMIT, echo(&mut socket)).await.expect("the case ends");
    }
    let mut updating = reach(at, "/updateReports?agent=vitte-net").await;
    assert!(updating.recv().await.unwrap().is_none(), "the reports are written before it closes");
    suite.kill().await.unwrap();
    judge(&folder, 250);
}
