//! `vnet http`, as its users run it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

fn vnet(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vnet"));
    command.env_remove("RUST_LOG").arg("http").args(arguments);
    command
}

fn run(arguments: &[&str]) -> Output {
    vnet(arguments).output().expect("vnet starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// An empty folder for one test.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vnet-http").join(test);
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("the folder of an earlier run can be removed");
    }
    fs::create_dir_all(&folder).expect("a folder can be made");
    folder
}

/// `vnet http serve`, until it is dropped.
struct Serving {
    child: Child,
    url: String,
}

impl Serving {
    fn start(folder: &Path, more: &[&str]) -> Self {
        let folder = folder.to_str().expect("text");
        let mut command = vnet(&["serve", folder, "--listen", "127.0.0.1:0", "--json"]);
        let mut child = command.args(more).stdout(Stdio::piped()).spawn().expect("vnet starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("stdout can be read");
        let started: Value = serde_json::from_str(&line).expect("JSON");
        Self { child, url: started["url"].as_str().expect("a URL").to_owned() }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_folder_is_served_and_got() {
    let root = folder("served");
    fs::write(root.join("file"), "some text").expect("a file");
    let server = Serving::start(&root, &["--echo"]);
    let file = format!("{}file", server.url);
    let got = run(&["get", &file, "--timeout", "5"]);
    assert!(got.status.success(), "{}", stderr(&got));
    assert_eq!(stdout(&got), "some text");
    let posted = run(&["post", &server.url, "--data", "hello", "--http2"]);
    assert!(posted.status.success(), "{}", stderr(&posted));
    assert_eq!(stdout(&posted), "hello");
    let head = run(&["head", &file, "--json"]);
    let head: Value = serde_json::from_str(&stdout(&head)).expect("JSON");
    assert_eq!((&head["status"], &head["headers"]["content-length"][0]), (&200.into(), &"9".into()));
    let to = root.join("copy");
    let sum = "sha256:b94f6f125c79e3a5ffaa826f584c10d52ada669e6762051b826b55776d05aed2";
    let got = run(&["get", &file, "-o", to.to_str().expect("text"), "--checksum", sum]);
    assert!(got.status.success(), "{}", stderr(&got));
    assert_eq!(fs::read(&to).expect("a file"), b"some text");
    let upload = run(&["put", &server.url, "--body", to.to_str().expect("text")]);
    assert_eq!(stdout(&upload), "some text");
}

/// A certificate by openssl: `None` says in a line that there is none.
fn certificate(folder: &Path) -> Option<(String, String)> {
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]);
    command.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    command.arg("-keyout").arg(&key).arg("-out").arg(&certificate).stderr(Stdio::null());
    if !command.status().is_ok_and(|status| status.success()) {
        println!("skipped: openssl cannot make a certificate");
        return None;
    }
    Some((certificate.to_str()?.to_owned(), key.to_str()?.to_owned()))
}

#[test]
fn tls_and_all_versions_are_spoken_on_one_port() {
    let root = folder("tls");
    fs::write(root.join("file"), "some text").expect("a file");
    let Some((certificate, key)) = certificate(&root) else { return };
    let server = Serving::start(&root, &["--tls", &format!("{certificate},{key}"), "--http3"]);
    let file = format!("{}file", server.url);
    for version in [&[][..], &["--http1"], &["--http2"], &["--http3"]] {
        let arguments = [&["get", &file, "--timeout", "5", "--ca", &certificate][..], version].concat();
        let got = run(&arguments);
        assert!(got.status.success(), "{version:?}: {}", stderr(&got));
        assert_eq!(stdout(&got), "some text");
        let insecure = run(&[&["get", &file, "--insecure"][..], version].concat());
        assert!(insecure.status.success(), "{version:?}: {}", stderr(&insecure));
        let stranger = run(&[&["get", &file, "--timeout", "5"][..], version].concat());
        assert_eq!(stranger.status.code(), Some(1), "{version:?}");
        assert!(stderr(&stranger).contains("--ca FILE"), "{version:?}: {}", stderr(&stranger));
    }
}

/// A server that says these bytes to everybody.
fn canned(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.expect("a client");
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer);
        }
    });
    address
}

#[test]
fn what_is_not_complete_is_no_success_and_errors_say_what_to_try() {
    let root = folder("failures");
    let server = Serving::start(&root, &[]);
    let cut = format!("http://{}/", canned(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"));
    let redirect =
        format!("http://{}/", canned(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"));
    let hostile = format!("http://{}/", canned(b"\x1b[2JHTTP\r\n\r\n"));
    let missing = format!("{}missing", server.url);
    for (arguments, code, what, hint) in [
        (&["get", &missing][..], 1, "missing: the server answered 404", "another path"),
        (&["get", &cut], 1, "cut off", "--resume"),
        (&["get", &redirect], 1, "answered 302", "--follow"),
        (&["get", &redirect, "--follow", "3"], 1, "more than 3 redirects", "head"),
        (&["get", &hostile], 1, "no response", "does not keep to HTTP"),
        (&["get", "http://127.0.0.1:1/"], 1, "cannot connect", "whether the server runs"),
        (&["get", "nonsense"], 2, "no URL", "http://HOST"),
        (&["get", &server.url, "--ca", "/nonexistent"], 2, "--ca", "another file"),
        (&["get", &server.url, "--checksum", "md5:0"], 2, "a checksum is", ""),
    ] {
        let output = run(arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(what) && text.contains(hint), "{arguments:?}: {text}");
        assert!(!text.contains('\x1b'), "{arguments:?}: {text:?}");
    }
}

#[test]
fn a_silent_server_costs_the_time_that_was_given() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let begin = tokio::time::Instant::now();
    let output = run(&["get", &url, "--timeout", "300ms"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("took longer than 300ms"), "{}", stderr(&output));
    assert!(begin.elapsed() < std::time::Duration::from_secs(10));
}
