//! `vnet ws`, both sides of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

fn vnet(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vnet"));
    command.arg("ws").args(arguments).env_remove("RUST_LOG");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A server that ends with its test.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut command = vnet(&["--listen", "127.0.0.1:0", "--json"]);
        let mut child = command.args(arguments).spawn().expect("vnet starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("stdout can be read");
        let record: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(record["event"], "listening");
        Self { child, url: record["url"].as_str().expect("a URL").to_owned() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the client says to these lines.
fn client(arguments: &[&str], lines: &str) -> Output {
    let mut child = vnet(arguments).spawn().expect("vnet starts");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    // It may have ended before.
    let _ = stdin.write_all(lines.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn lines_come_back_and_are_escaped() {
    let server = Server::start(&["--echo"]);
    let output = client(&[&server.url], "hello\n\u{1b}[2Jworld\n");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n\\u{1b}[2Jworld\n");
    let output = client(&[&server.url, "--json", "--timeout", "20"], "hello\n");
    let records: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(records[0]["event"], "connected");
    assert_eq!(records[1]["text"], "hello");
}

#[test]
fn limits_hold_and_failures_say_what_to_try() {
    let page = "https://example.org";
    let server = Server::start(&["--echo", "--max-message", "10", "--origin", page, "--origin", "http://a"]);
    let output = client(&[&server.url, "--origin", page], "0123456789\n");
    assert!(output.status.success(), "{}", stderr(&output));
    let output = client(&[&server.url, "--origin", page], "01234567890\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("closed with the code 1009"), "{}", stderr(&output));
    let output = client(&[&server.url, "--origin", "https://evil.example"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("403") && stderr(&output).contains("try: --origin"),
        "{}",
        stderr(&output)
    );

    let output = client(&["http://127.0.0.1/"], "");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let output = client(&["ws://127.0.0.1:1/", "--timeout", "20"], "");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("try: "), "{}", stderr(&output));
    assert_eq!(client(&[], "").status.code(), Some(2));
}

/// A server that is told to end tells its clients, and a client that echoes ends well by that.
#[cfg(unix)]
#[test]
fn an_echo_ends_with_the_other_side() {
    let mut server = Server::start(&[]);
    let mut echo = vnet(&[&server.url, "--echo"]).spawn().expect("vnet starts");
    let mut stdin = server.child.stdin.take().expect("stdin is a pipe");
    stdin.write_all(b"there and back\n").expect("it reads");
    // At the end of its lines the server closes, and shows what still comes.
    drop(stdin);
    let status = echo.wait().expect("it ends");
    assert!(status.success());
    assert!(server.child.wait().expect("it ends").success());

    let mut server = Server::start(&["--echo"]);
    let mut talking = vnet(&[&server.url]).spawn().expect("vnet starts");
    let mut stdin = talking.stdin.take().expect("stdin is a pipe");
    stdin.write_all(b"hello\n").expect("it reads");
    let mut stdout = BufReader::new(talking.stdout.take().expect("stdout is a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("stdout can be read");
    assert_eq!(line, "hello\n");
    let pid = server.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
    assert!(server.child.wait().expect("it ends").success());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("stdout can be read");
    assert!(talking.wait().expect("it ends").success(), "going away is no failure");
    drop(stdin);
}
