//! A failure tells a small story, and a line that tells it again.

use std::collections::BTreeMap;
use std::process::Command;

use vitte_net_sim::Scenario;

const SEED: &str = "712";
/// One of them takes a session's last link.
const STORY: &str = r#"[
    {"at_ms":100,"fault":"latency","a":"a","b":"b","latency_ms":20,"jitter_ms":5},
    {"at_ms":200,"fault":"corrupt","a":"c","b":"a","rate":0.05},
    {"at_ms":300,"fault":"partition","a":"a","b":"b"},
    {"at_ms":700,"fault":"latency","a":"a","b":"b","latency_ms":1,"jitter_ms":0},
    {"at_ms":900,"fault":"corrupt","a":"c","b":"a","rate":0.0},
    {"at_ms":1700,"fault":"heal","a":"a","b":"b"}
]"#;

/// The sweep in a process of its own, which must not see what this one was asked for.
fn sweep(settings: &BTreeMap<String, String>) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().expect("the test has a file"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("VITTE_SIM_")) {
        command.env_remove(name);
    }
    let output = command.args(["--exact", "sweep", "--nocapture"]).envs(settings).output();
    let output = output.expect("the sweep starts");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `NAME=value NAME='value' cargo …`, as a shell reads it.
fn settings(line: &str) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    let mut rest = line.trim_start();
    while let Some((name, after)) = rest.split_once('=').filter(|(name, _)| !name.contains(' ')) {
        let (value, after) = match after.strip_prefix('\'') {
            Some(quoted) => quoted.split_once('\'').expect("the quote ends"),
            None => after.split_once(' ').expect("a command follows"),
        };
        settings.insert(name.to_owned(), value.to_owned());
        rest = after.trim_start();
    }
    assert!(rest.starts_with("cargo test"), "{line}");
    settings
}

fn violation(text: &str) -> Option<&str> {
    text.lines().find(|line| line.contains("no link carries the session"))
}

#[test]
fn a_failure_shrinks_to_a_line_that_replays_it() {
    let of = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let strict = [("VITTE_SIM_STRICT", "1"), ("VITTE_SIM_SEED", SEED), ("VITTE_SIM_SCENARIO", STORY)];
    let (passed, text) = sweep(&of(&strict));
    assert!(!passed && violation(&text).is_some(), "{text}");
    let lines: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("replay: ")).collect();
    let [whole, small] = lines.as_slice() else { panic!("two lines replay it: {text}") };
    let story = |line| Scenario::from_json(&settings(line)["VITTE_SIM_SCENARIO"]).expect("a list");
    assert_eq!(story(whole), Scenario::from_json(STORY).expect("a list"));
    let kinds: Vec<String> = story(small).faults.iter().map(|timed| timed.fault.kind()).collect();
    assert_eq!(kinds, ["partition", "heal"], "{small}");
    assert!(text.contains(" faults are enough, found in "), "{text}");

    let (passed, again) = sweep(&settings(small));
    assert!(!passed && violation(&again).is_some(), "{again}");
    // Nothing that is promised is broken by it, and without the fault nothing at all.
    let mut promised = settings(small);
    promised.remove("VITTE_SIM_STRICT");
    let (passed, text) = sweep(&promised);
    assert!(passed, "{text}");
    let mut calm = settings(small);
    calm.insert("VITTE_SIM_SCENARIO".into(), "[]".into());
    let (passed, text) = sweep(&calm);
    assert!(passed, "{text}");
}
