//! The fuzz targets of the library and of the simulation on any compiler: the committed corpus. Those of the
//! protocol have their own test.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is a library of its own for the fuzz targets")]
mod targets;

use std::fs;
use std::path::PathBuf;

fn corpus(target: &str, run: fn(&[u8])) {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", target].iter().collect();
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry of a folder").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    for path in paths {
        // Shown with a failure.
        println!("{}", path.display());
        run(&fs::read(path).expect("an input can be read"));
    }
}

#[test]
fn texts() {
    corpus("text", targets::text::run);
}

#[test]
fn codecs() {
    corpus("codecs", targets::codecs::run);
}

#[test]
fn scenarios() {
    corpus("scenario", targets::scenario::run);
}

#[test]
fn websockets() {
    corpus("websocket", targets::websocket::run);
}

#[test]
fn links() {
    corpus("link", targets::link::run);
}
