//! The house rules, checked against the sources of the whole repository.
//!
//! A rule that nobody checks is a wish. Each test here reads the sources as text, checks one rule of
//! `docs/ARCHITECTURE.md` or `CONTRIBUTING.md`, and lists everything that breaks it. `broken` breaks every
//! rule in small made-up sources and asserts that the check sees it.

#[path = "house/broken.rs"]
mod broken;
#[path = "house/habits.rs"]
mod habits;
#[path = "house/requirements.rs"]
mod requirements;
#[path = "house/source.rs"]
mod source;
#[path = "house/tree.rs"]
mod tree;
#[path = "house/walls.rs"]
mod walls;

use std::path::Path;

use tree::{Tree, Violation};

fn house() -> Tree {
    let tree = Tree::read(Path::new(env!("CARGO_MANIFEST_DIR")));
    hold("the checks see the house", habits::is_the_house(&tree));
    tree
}

/// Fails with every violation, one on a line.
fn hold(rule: &str, mut violations: Vec<Violation>) {
    violations.sort();
    violations.dedup();
    let list: String = violations.iter().map(|violation| format!("\n  {violation}")).collect();
    assert!(violations.is_empty(), "{} times broken: {rule}{list}\n", violations.len());
}

#[test]
fn arrows_go_down_the_floors() {
    hold("rooms import rooms below or beside them", walls::floors(&house()));
}

#[test]
fn nobody_imports_what_they_must_never() {
    hold("the never-table of docs/ARCHITECTURE.md", walls::never(&house()));
}

#[test]
fn no_imports_run_in_a_circle() {
    let tree = house();
    let folders: Vec<_> = tree.manifests.iter().map(|manifest| manifest.folder().to_owned()).collect();
    let crates = folders.iter().map(String::as_str).chain([walls::FACADE]);
    hold("no circle between the modules of a crate", crates.flat_map(|c| walls::circles(&tree, c)).collect());
}

#[test]
fn a_foreign_crate_is_named_in_one_room() {
    hold("a foreign crate is named in one room", walls::foreign(&house()));
}

#[test]
fn production_code_does_not_know_of_the_simulation() {
    hold(
        "nothing under crates/ names turmoil or vitte-net-sim, or says cfg(sim)",
        walls::no_simulation(&house()),
    );
}

#[test]
fn the_protocol_names_nothing_else() {
    hold("vitte-net-proto is no_std and names core, alloc, bytes, rand_core", walls::proto(&house()));
}

#[test]
fn dependencies_have_their_place() {
    hold("every dependency has a place", habits::dependencies(&house()));
}

#[test]
fn files_stay_short() {
    hold("files are short enough to read", habits::sizes(&house()));
}

#[test]
fn exceptions_say_why() {
    hold("every `allow` and `expect` of a lint has a reason", habits::reasons(&house()));
}

#[test]
fn nothing_is_left_unfinished() {
    hold("no todo!, no unimplemented!, no ignored test", habits::unfinished(&house()));
}

#[test]
fn every_select_is_biased() {
    hold("every select! is biased", habits::biased(&house()));
}

#[test]
fn the_workspace_lists_its_members() {
    hold("members are listed one by one, MIT, with the lints of the workspace", habits::workspace(&house()));
}

#[test]
fn the_front_door_is_there() {
    hold("the files that a reader looks for are there", habits::front_door(&house()));
}

#[test]
fn links_lead_somewhere() {
    hold("relative links in documents lead somewhere", habits::links(&house()));
}

#[test]
fn every_requirement_has_a_test() {
    hold("every MUST of docs/WIRE.md has a number and a test", requirements::tested(&house()));
    hold("every limit of docs/LIMITS.md has a test that is there", requirements::reached(&house()));
}
