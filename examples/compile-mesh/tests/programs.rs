//! The programs as a user starts them: a worker, the drop-in compiler, the demo.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

/// Sixteen bytes that no mesh outside this test uses.
const SECRET: &str = "5d1c0e9a74b3f2866fa1d7c28b40e935";

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_compile-mesh"));
    command.env("COMPILE_MESH_SECRET", SECRET).env_remove("COMPILE_MESH_WORKERS");
    command
}

/// A worker process, which ends with the test.
struct Worker {
    child: Child,
    addresses: String,
}

impl Worker {
    fn start(listen: &[&str]) -> Self {
        let mut command = program();
        command.args(["worker", "--json", "--until-stdin-ends", "--slots", "2"]);
        for address in listen {
            command.args(["--listen", address]);
        }
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a worker starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let ready: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let addresses = ready["addresses"].as_array().expect("addresses");
        let addresses: Vec<&str> = addresses.iter().filter_map(|address| address.as_str()).collect();
        assert_eq!(addresses.len(), listen.len());
        Self { child, addresses: addresses.join(",") }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cc(folder: &TempDir, workers: Option<&str>, args: &str) -> Output {
    let mut command = program();
    if let Some(workers) = workers {
        command.env("COMPILE_MESH_WORKERS", workers);
    }
    command.args(["cc", "cc"]).args(args.split_ascii_whitespace()).current_dir(folder.path());
    command.output().expect("the compiler runs")
}

fn source(text: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("x.c"), text).expect("a source");
    folder
}

fn read(folder: &TempDir, name: impl AsRef<Path>) -> Vec<u8> {
    std::fs::read(folder.path().join(name)).expect("a file")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const HELLO: &str = "#include <stdio.h>\nint main(void) { return puts(\"hello\") < 0; }\n";

#[test]
fn without_a_worker_it_compiles_here_and_says_why() {
    let folder = source(HELLO);
    for (workers, why) in [(None, "COMPILE_MESH_WORKERS"), (Some("tls://127.0.0.1:1"), "tls://127.0.0.1:1")] {
        let output = cc(&folder, workers, "-O2 -c x.c -o x.o");
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.starts_with("compile-mesh: compiled here: ") && said.contains(why), "{said}");
    }
    assert!(cc(&folder, None, "x.o -o x").status.success());
    let ran = Command::new(folder.path().join("x")).output().expect("it runs");
    assert_eq!(text(&ran.stdout), "hello\n");
}

#[test]
fn a_worker_makes_the_object_that_a_local_compile_makes() {
    let worker = Worker::start(&["quic://127.0.0.1:0", "tls://127.0.0.1:0", "ws://127.0.0.1:0"]);
    let folder = source(HELLO);
    assert!(cc(&folder, None, "-O2 -c x.c -o here.o").status.success());
    for address in worker.addresses.split(',').chain([worker.addresses.as_str()]) {
        let output = cc(&folder, Some(address), "-O2 -c x.c -o there.o");
        assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
        assert!(read(&folder, "here.o") == read(&folder, "there.o"), "the objects differ over {address}");
        std::fs::remove_file(folder.path().join("there.o")).expect("it was there");
    }
}

#[test]
fn an_error_comes_back_with_the_compilers_text_and_code() {
    let worker = Worker::start(&["tls://127.0.0.1:0"]);
    let folder = source("int main(void) { return nothing; }\n");
    let output = cc(&folder, Some(&worker.addresses), "-c x.c");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    // Word for word what the compiler says here, the line at fault included.
    let here = Command::new("cc")
        .args(["-c", "x.c"])
        .current_dir(folder.path())
        .output()
        .expect("the compiler runs");
    assert_eq!((said.as_str(), output.status.code()), (text(&here.stderr).as_str(), here.status.code()));
    assert!(said.starts_with("x.c:") && said.contains("nothing"), "{said}");
    assert!(!said.contains("compiled here") && !folder.path().join("x.o").exists(), "{said}");
}

#[test]
fn with_another_secret_nothing_is_compiled_there() {
    let worker = Worker::start(&["tls://127.0.0.1:0"]);
    let folder = source(HELLO);
    let mut command = program();
    command.env("COMPILE_MESH_SECRET", "00112233445566778899aabbccddeeff");
    command.env("COMPILE_MESH_WORKERS", &worker.addresses).args(["cc", "cc", "-c", "x.c"]);
    let output = command.current_dir(folder.path()).output().expect("the compiler runs");
    let said = text(&output.stderr);
    assert!(output.status.success() && said.starts_with("compile-mesh: compiled here: "), "{said}");
}

/// A few files with a bit of work in each, so that a worker can be lost in the middle.
fn small_project() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for nth in 0..16 {
        let function = |at| format!("double f{nth}_{at}(double x) {{ return x * {at}.5 + f{at}(x); }}\n");
        let declared = |at| format!("double f{at}(double);\n");
        let text: String = (0..300).map(|at| declared(at) + &function(at)).collect();
        std::fs::write(folder.path().join(format!("part{nth}.c")), text).expect("a source");
    }
    folder
}

fn demo(project: &TempDir, args: &[&str]) -> serde_json::Value {
    let mut command = program();
    command.args(["demo", "--json", "--check", "--source"]).arg(project.path()).args(args);
    let output = command.output().expect("the demo runs");
    let report = serde_json::from_slice(&output.stdout);
    let report: serde_json::Value = report.unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["held"], true);
    assert_eq!(report["files"].as_array().map(Vec::len), Some(16));
    report
}

#[test]
fn the_demo_survives_every_fault() {
    let project = small_project();
    for args in [&["--no-kill"][..], &[], &["--freeze"]] {
        let report = demo(&project, args);
        assert_eq!(report["loss"].is_null(), args == ["--no-kill"], "{report:#}");
    }
}

#[test]
fn the_demo_fails_when_a_file_does() {
    let folder = source("this is no C;\n");
    let mut command = program();
    command.args(["demo", "--no-kill", "--transport", "tls", "--source"]).arg(folder.path());
    let output = command.output().expect("the demo runs");
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("x.c:1") && said.contains("FAILED: 0 of 1"), "{said}");
}
