//! The fuzz targets on any compiler: the committed corpus, and random inputs.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is a library of its own for the fuzz targets")]
mod targets;

use std::fs;
use std::path::PathBuf;

use proptest::collection::vec;
use proptest::prelude::*;

/// Runs every input of the committed corpus; under Miri, which is slow, a few short ones.
fn corpus(target: &str, run: fn(&[u8])) {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", target].iter().collect();
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry of a folder").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    let mut inputs: Vec<(PathBuf, Vec<u8>)> = paths
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).expect("an input can be read")))
        .filter(|(_, input)| !cfg!(miri) || input.len() <= 100)
        .collect();
    if cfg!(miri) {
        let step = inputs.len().div_ceil(2);
        inputs = inputs.into_iter().step_by(step).collect();
    }
    for (path, input) in inputs {
        // Shown with a failure.
        println!("{}", path.display());
        run(&input);
    }
}

#[test]
fn frames_of_the_corpus() {
    corpus("frame", targets::frame::run);
}

#[test]
fn handshakes_of_the_corpus() {
    corpus("handshake", targets::handshake::run);
}

#[test]
fn sessions_of_the_corpus() {
    corpus("session", targets::session::run);
}

#[test]
fn hostile_peers_of_the_corpus() {
    corpus("hostile", targets::hostile::run);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 1 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn two_sessions_under_any_driver_lose_nothing(input in vec(any::<u8>(), 0..600)) {
        targets::session::run(&input);
    }

    #[test]
    fn a_session_bears_any_peer(input in vec(any::<u8>(), 0..600)) {
        targets::hostile::run(&input);
    }

    #[test]
    fn a_handshake_bears_any_greeting(input in vec(any::<u8>(), 0..400)) {
        targets::handshake::run(&input);
    }
}
