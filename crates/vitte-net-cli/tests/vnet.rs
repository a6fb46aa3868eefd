//! The real program: its output, its exit codes, and what it says when something is wrong.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

use serde_json::Value;

const SECRET: &str = "6f1d0c5e9a4b3827d1e0f7a6b5c49382716a5b4c3d2e1f00918273645a6b7c8d";
const OTHER_SECRET: &str = "00918273645a6b7c8d6f1d0c5e9a4b3827d1e0f7a6b5c49382716a5b4c3d2e1f";

/// The program, in an environment without a secret and without a home of its own.
fn vnet(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vnet"));
    command.env_remove("VITTE_SECRET").env_remove("RUST_LOG").env_remove("XDG_CONFIG_HOME").env("HOME", home);
    command
}

/// An empty folder for one test.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vnet").join(test);
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("the folder of an earlier run can be removed");
    }
    fs::create_dir_all(&folder).expect("a folder can be made");
    folder
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("stdout is UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("stderr is UTF-8")
}

fn records(output: &Output) -> Vec<Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// A program that runs beside the test and ends with it.
struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
    errors: ChildStderr,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let command = command.arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("vnet starts");
        let output = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let errors = child.stderr.take().expect("stderr is a pipe");
        Self { child, output, errors }
    }

    /// Reads on until an event of this name.
    fn event(&mut self, name: &str) -> Value {
        loop {
            let mut line = String::new();
            let length = self.output.read_line(&mut line).expect("stdout can be read");
            assert!(length > 0, "it ended before it said {name:?}: {}", self.last_errors());
            let record: Value = serde_json::from_str(&line).expect(&line);
            if record["event"] == name {
                return record;
            }
        }
    }

    fn last_errors(&mut self) -> String {
        let _ = self.child.kill();
        let mut text = String::new();
        self.errors.read_to_string(&mut text).expect("stderr can be read");
        text
    }

    /// Asks it to end, as Ctrl-C does.
    #[cfg(unix)]
    fn interrupt(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill starts").success());
    }

    #[cfg(unix)]
    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Node {
    running: Running,
    id: String,
    addresses: Vec<String>,
}

impl Node {
    fn start(home: &Path, arguments: &[&str]) -> Self {
        let mut running = Running::start(vnet(home).arg("node").args(arguments).env("VITTE_SECRET", SECRET));
        let started = running.event("started");
        let id = started["id"].as_str().expect("an id").to_owned();
        let addresses = started["addresses"].as_array().expect("addresses");
        let addresses = addresses.iter().map(|a| a.as_str().expect("a text").to_owned()).collect();
        Self { running, id, addresses }
    }

    /// Listens on one port of each transport.
    fn everywhere(home: &Path) -> Self {
        let listen = ["quic", "tls", "ws", "wss"].map(|scheme| format!("--listen={scheme}://127.0.0.1:0"));
        Self::start(home, &listen.each_ref().map(String::as_str))
    }

    fn address(&self, scheme: &str) -> &str {
        let prefix = format!("{scheme}://");
        self.addresses.iter().find(|address| address.starts_with(&prefix)).expect(scheme)
    }
}

fn ping(home: &Path, address: &str, secret: &str, arguments: &[&str]) -> Output {
    let mut command = vnet(home);
    command.args(["ping", address]).args(arguments).env("VITTE_SECRET", secret);
    command.output().expect("vnet starts")
}

fn answers_over(scheme: &str) {
    let home = folder(&format!("answers-{scheme}"));
    let mut node = Node::everywhere(&home);
    let address = node.address(scheme).to_owned();
    let arguments = ["--count=3", "--interval=5ms", "--timeout=20s", "--size=2000"];

    let output = ping(&home, &address, SECRET, &[&arguments[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    let records = records(&output);
    let events: Vec<_> = records.iter().map(|record| record["event"].as_str().expect("an event")).collect();
    assert_eq!(events, ["connected", "answer", "answer", "answer", "summary"]);
    assert_eq!(records[0]["peer"], node.id.as_str());
    for (sequence, answer) in (1..).zip(&records[1..4]) {
        assert_eq!(answer["sequence"], sequence);
        assert_eq!(answer["bytes"], 2000);
        assert_eq!(answer["transport"], scheme);
        assert!(answer["ms"].as_f64().expect("a number") > 0.0);
    }
    let summary = &records[4];
    assert_eq!((&summary["sent"], &summary["answered"]), (&Value::from(3), &Value::from(3)));
    assert_eq!(summary["lost_percent"], 0.0);
    let [min, avg, max] = ["min_ms", "avg_ms", "max_ms"].map(|name| summary[name].as_f64().expect(name));
    assert!(min <= avg && avg <= max, "{summary}");

    let up = node.running.event("up");
    assert_eq!(up["transport"], scheme);
    assert_eq!(node.running.event("down")["peer"], up["peer"]);

    let output = ping(&home, &address, SECRET, &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains(&format!("over {scheme}: seq=3 time=")), "{text}");
    assert!(text.contains("3 sent, 3 answered, 0.0% lost"), "{text}");
}

#[test]
fn a_node_answers_over_quic() {
    answers_over("quic");
}

#[test]
fn a_node_answers_over_tls() {
    answers_over("tls");
}

#[test]
fn a_node_answers_over_websocket() {
    answers_over("ws");
}

#[test]
fn a_node_answers_over_websocket_in_tls() {
    answers_over("wss");
}

#[test]
fn a_wrong_secret_is_a_mistake_that_says_what_to_try() {
    let home = folder("wrong-secret");
    let node = Node::everywhere(&home);
    for scheme in ["quic", "tls", "ws"] {
        let address = node.address(scheme);
        let output = ping(&home, address, OTHER_SECRET, &["--count=1", "--timeout=20s"]);
        let errors = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert_eq!(stdout(&output), "");
        assert!(errors.contains(&format!("cannot connect to {address}: ")), "{errors}");
        assert!(errors.contains("try: give both nodes the same secret"), "{errors}");
        assert!(!errors.contains(OTHER_SECRET), "{errors}");
    }
}

#[test]
fn without_a_secret_nothing_starts() {
    let home = folder("no-secret");
    for arguments in [["ping", "tls://127.0.0.1:1"], ["node", "--listen=tls://127.0.0.1:0"]] {
        let output = vnet(&home).args(arguments).output().expect("vnet starts");
        let errors = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains("no secret") && errors.contains("vnet secret --out FILE"), "{errors}");
    }
}

#[test]
fn mistakes_in_the_command_end_with_two() {
    let home = folder("mistakes");
    for arguments in [
        &["ping", "tcp://127.0.0.1:1"][..],
        &["ping", "tls://127.0.0.1:1", "--timeout=1fortnight"],
        &["ping", "tls://127.0.0.1:1", "--size=4194305"],
        &["ping", "tls://127.0.0.1:1", "--count=0"],
        &["ping", "tls://127.0.0.1:1", "--secret-file=/nonexistent/secret"],
        &["ping", "tls://127.0.0.1:1", "--secret=abc"],
        &["node"],
        &[],
    ] {
        let output = vnet(&home).args(arguments).env("VITTE_SECRET", SECRET).output().expect("vnet starts");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    let output = ping(&home, "tls://127.0.0.1:1", "password1234567890", &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!stderr(&output).contains("password1"), "{}", stderr(&output));
}

#[test]
fn nobody_there_is_no_answer() {
    let home = folder("nobody");
    // Held by the test and never read: what arrives there gets no answer of any kind.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = format!("quic://{}", socket.local_addr().expect("an address"));
    let output = ping(&home, &address, SECRET, &["--count=1", "--timeout=300ms"]);
    let errors = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains(&format!("cannot connect to {address}: ")) && errors.contains("try: "),
        "{errors}"
    );
}

/// The node is killed between two calls; then the command is interrupted.
#[cfg(unix)]
#[test]
fn some_answers_are_not_all() {
    let home = folder("killed");
    let mut node = Node::everywhere(&home);
    let mut command = vnet(&home);
    command.args(["ping", node.address("tls"), "--interval=5ms", "--timeout=500ms"]);
    let mut pinging = Running::start(command.env("VITTE_SECRET", SECRET));
    pinging.event("answer");
    node.running.child.kill().expect("the node can be killed");
    let lost = pinging.event("no-answer");
    assert!(!lost["reason"].as_str().expect("a reason").is_empty(), "{lost}");
    pinging.interrupt();
    let summary = pinging.event("summary");
    assert_eq!(pinging.exit_code(), Some(1));
    let [sent, answered] = ["sent", "answered"].map(|name| summary[name].as_u64().expect(name));
    assert!(0 < answered && answered < sent, "{summary}");
}

#[test]
fn an_identity_is_made_once_and_shown_again() {
    let home = folder("identity");
    let key = home.join("a.key");
    let show = || {
        let output = vnet(&home).args(["id", "--json", "--key"]).arg(&key).output().expect("vnet starts");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        records(&output).remove(0)
    };
    let (first, second) = (show(), show());
    assert_eq!((&first["created"], &second["created"]), (&Value::from(true), &Value::from(false)));
    assert_eq!(first["id"], second["id"]);
    assert_eq!(first["id"].as_str().expect("an id").len(), 64);

    let usual = vnet(&home).arg("id").output().expect("vnet starts");
    assert_eq!(usual.status.code(), Some(0), "{}", stderr(&usual));
    assert_ne!(stdout(&usual).trim(), first["id"].as_str().expect("an id"));
    assert!(home.join(".config/vitte/node.key").exists());

    fs::write(&key, "no key\n").expect("a file can be written");
    let output = vnet(&home).args(["id", "--key"]).arg(&key).output().expect("vnet starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("is no key file"), "{}", stderr(&output));
}

#[test]
fn a_secret_file_is_private_is_never_overwritten_and_is_of_use() {
    let home = folder("secret");
    let file = home.join("mesh.secret");
    let make = || vnet(&home).args(["secret", "--out"]).arg(&file).output().expect("vnet starts");
    let output = make();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let secret = fs::read_to_string(&file).expect("the file is there");
    assert!(!stdout(&output).contains(secret.trim()));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&file).expect("the file is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let again = make();
    assert_eq!(again.status.code(), Some(2));
    assert!(stderr(&again).contains("try: another file"), "{}", stderr(&again));
    assert_eq!(fs::read_to_string(&file).expect("the file is there"), secret);

    let argument = format!("--secret-file={}", file.display());
    let node = Node::start(&home, &["--listen=tls://127.0.0.1:0", &argument]);
    let output = ping(&home, node.address("tls"), OTHER_SECRET, &["--count=1", "--timeout=20s", &argument]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// Two nodes, one of which joins by the other; the first is interrupted.
#[cfg(unix)]
#[test]
fn nodes_join_tell_of_each_other_and_drain() {
    let home = folder("join");
    let mut first = Node::start(&home, &["--listen=quic://127.0.0.1:0"]);
    let key = format!("--key={}", home.join("b.key").display());
    let join = format!("--join={}", first.addresses[0]);
    let mut second = Node::start(&home, &[&key, &join]);
    assert_eq!(first.running.event("up")["peer"], second.id.as_str());
    assert_eq!(second.running.event("up")["peer"], first.id.as_str());

    first.running.interrupt();
    first.running.event("ending");
    let down = second.running.event("down");
    assert_eq!(down["peer"], first.id.as_str());
    assert!(down["reason"].as_str().expect("a reason").contains("shuts down"), "{down}");
    assert_eq!(first.running.exit_code(), Some(0));
    second.running.interrupt();
    assert_eq!(second.running.exit_code(), Some(0));
}
