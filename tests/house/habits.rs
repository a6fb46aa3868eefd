//! Sizes, exceptions with reasons, unfinished code, manifests, documents.

use super::source::{Source, Token, calls_of};
use super::tree::{Manifest, Tree, Violation, strings};
use super::walls::{COMMON, FACADE, FOREIGN, PROTO};

/// Lines of a file, its tests aside.
pub(crate) const FILE_LINES_MAX: usize = 600;
/// Lines of a test module inside a file; larger ones move to `foo/tests.rs`.
pub(crate) const TEST_MODULE_LINES_MAX: usize = 200;

const COPYRIGHT: &str = "Copyright (c) 2025 Vincent Rousseau";

/// Files that a reader looks for.
const EXPECTED: &[&str] = &[
    ".ci/run",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "clippy.toml",
    "deny.toml",
    "docs/ARCHITECTURE.md",
    "docs/DESIGN.md",
    "docs/TESTING.md",
    "docs/WIRE.md",
];

fn at(source: &Source, line: usize, what: String) -> Violation {
    Violation { path: source.path.clone(), line, what }
}

/// No file and no test module grows too long.
pub(crate) fn sizes(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for source in &tree.sources {
        let lines = source.lines_without_tests();
        if lines > FILE_LINES_MAX && !source.path.ends_with("/tests.rs") {
            let what = format!("{lines} lines without its tests; at most {FILE_LINES_MAX}");
            found.push(at(source, 0, what));
        }
        for (line, lines) in source.test_modules().filter(|(_, lines)| *lines > TEST_MODULE_LINES_MAX) {
            let what = format!(
                "a test module of {lines} lines; above {TEST_MODULE_LINES_MAX} it lives in a file `tests.rs`"
            );
            found.push(at(source, line, what));
        }
    }
    found
}

/// Every exception from a lint says why.
pub(crate) fn reasons(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for source in &tree.sources {
        for (line, attribute) in source.attributes() {
            for name in ["allow", "expect"] {
                for inside in calls_of(attribute, name) {
                    let reason = inside.windows(3).any(|three| {
                        matches!(&three[0].0, Token::Ident(key) if key == "reason")
                            && matches!(&three[2].0, Token::Literal(text) if text.trim_matches('"').len() > 3)
                    });
                    if !reason {
                        found.push(at(source, line, format!("`{name}` without a `reason`")));
                    }
                }
            }
        }
    }
    found
}

/// Nothing is left unfinished, no test is switched off.
pub(crate) fn unfinished(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for source in &tree.sources {
        for call in source.macro_calls().filter(|call| ["todo", "unimplemented"].contains(&call.name)) {
            found.push(at(source, call.line, format!("`{}!`", call.name)));
        }
        for (line, attribute) in source.attributes() {
            let plain = matches!(attribute.first(), Some((Token::Ident(name), _)) if name == "ignore");
            let conditional = calls_of(attribute, "cfg_attr").iter().any(|inside| {
                inside.iter().any(|(token, _)| matches!(token, Token::Ident(name) if name == "ignore"))
            });
            if plain || conditional {
                found.push(at(
                    source,
                    line,
                    "an ignored test: a test that does not run is no test".to_owned(),
                ));
            }
        }
    }
    found
}

/// Every `select!` begins with `biased;`, so that a seed decides the order and nothing else.
pub(crate) fn biased(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    let product =
        |source: &&Source| ["crates/", "sim/", "examples/"].iter().any(|p| source.path.starts_with(p));
    for source in tree.sources.iter().filter(product) {
        for call in source.macro_calls().filter(|call| call.name == "select") {
            let biased = matches!(call.body, [(Token::Ident(first), _), (Token::Punct(';', _), _), ..] if first == "biased");
            if !biased {
                let what = "a `select!` that is not `biased;` throws a die that no seed knows".to_owned();
                found.push(at(source, call.line, what));
            }
        }
    }
    found
}

/// The workspace: members one by one, each under the MIT licence and the workspace's lints.
pub(crate) fn workspace(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    let Some(root) = tree.manifest("Cargo.toml") else {
        return vec![whole("Cargo.toml", "there is no root manifest")];
    };
    let list = |key| root.get("workspace", key).map_or(Vec::new(), |entry| strings(&entry.value));
    let (members, excluded) = (list("members"), list("exclude"));
    let line = root.get("workspace", "members").map_or(0, |entry| entry.line);
    for member in &members {
        if member.contains('*') {
            found.push(on(root, line, format!("the member `{member}` is a glob: list members one by one")));
        } else if tree.manifest(&format!("{member}/Cargo.toml")).is_none() {
            found.push(on(root, line, format!("the member `{member}` has no manifest")));
        }
    }
    for manifest in &tree.manifests {
        let folder = manifest.folder();
        if excluded.contains(&folder) {
            continue;
        }
        if !folder.is_empty() && !members.contains(&folder) {
            found.push(on(manifest, 0, "neither a member of the workspace nor excluded".to_owned()));
        }
        if !is_mit(manifest, root) {
            found.push(on(manifest, 0, "its licence is not MIT".to_owned()));
        }
        if manifest.get("lints", "workspace").is_none_or(|entry| entry.value != "true") {
            found.push(on(manifest, 0, "it does not take the lints of the workspace".to_owned()));
        }
    }
    found
}

fn is_mit(manifest: &Manifest, root: &Manifest) -> bool {
    let mit = |manifest: &Manifest, section| {
        manifest.get(section, "license").is_some_and(|entry| entry.value == "\"MIT\"")
    };
    let inherits = manifest.get("package", "license.workspace").is_some_and(|entry| entry.value == "true");
    mit(manifest, "package") || (inherits && mit(root, "workspace.package"))
}

/// Dependencies: the protocol's few, none on the simulation below `crates/` and in `benches/`, a place for
/// every crate of the facade.
pub(crate) fn dependencies(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for manifest in &tree.manifests {
        let folder = manifest.folder();
        for (kind, name, entry) in manifest.dependencies() {
            let mut add = |what: String| found.push(on(manifest, entry.line, what));
            let simulation = ["turmoil", "turmoil-net", "vitte-net-sim"].contains(&name);
            let production = folder.starts_with("crates/") || folder == "benches";
            if simulation && production {
                add(format!("`{name}`: production code does not know of the simulation"));
            }
            let shared = entry.section.starts_with("workspace.");
            if simulation
                && folder.is_empty()
                && !shared
                && (kind, name) != ("dev-dependencies", "vitte-net-sim")
            {
                add(format!("`{name}` among the `{kind}` of the facade"));
            }
            if name == "vitte-net-sim" && entry.value.contains("version") {
                add("vitte-net-sim has a version here: it is a dependency by path only".to_owned());
            }
            let ident = name.replace('-', "_");
            if folder == PROTO
                && kind != "dev-dependencies"
                && !["bytes", "rand_core"].contains(&ident.as_str())
            {
                add(format!("the protocol depends on `{name}`: it may have bytes and rand_core"));
            }
            let placed = COMMON.contains(&ident.as_str()) || FOREIGN.iter().any(|(name, _)| *name == ident);
            if folder.is_empty() && !shared && kind == "dependencies" && !placed {
                add(format!("`{name}` has no room: name it in FOREIGN, or in COMMON on purpose"));
            }
        }
    }
    found
}

/// The files that a reader looks for are there, and the licence is the right one.
pub(crate) fn front_door(tree: &Tree) -> Vec<Violation> {
    let missing = EXPECTED.iter().filter(|path| !tree.paths.iter().any(|there| there == *path));
    let mut found: Vec<_> = missing.map(|path| whole(path, "it is missing")).collect();
    if let Some(text) = tree.texts.get("LICENSE") {
        if !text.lines().any(|line| line == COPYRIGHT) {
            found.push(whole("LICENSE", &format!("no line says `{COPYRIGHT}`")));
        }
        if !text.starts_with("MIT License") {
            found.push(whole("LICENSE", "it does not begin with `MIT License`"));
        }
    }
    for path in tree.paths.iter().filter(|path| path.starts_with("rust-toolchain")) {
        found.push(whole(path, "the toolchain is not pinned: the manifest names the oldest one that works"));
    }
    found
}

/// Relative links in documents lead somewhere.
pub(crate) fn links(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in tree.texts.iter().filter(|(path, _)| path.ends_with(".md")) {
        for (index, line) in text.lines().enumerate() {
            for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let target = target.split('#').next().unwrap_or_default();
                if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                let full = join(path, target);
                let there = tree.paths.iter().any(|p| *p == full || p.starts_with(&format!("{full}/")));
                if !there {
                    let what = format!("the link to `{target}` leads nowhere");
                    found.push(Violation { path: path.clone(), line: index + 1, what });
                }
            }
        }
    }
    found
}

/// `../x` seen from `docs/a.md` is `x`.
fn join(from: &str, target: &str) -> String {
    let mut at: Vec<&str> = from.split('/').collect();
    at.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                at.pop();
            }
            part => at.push(part),
        }
    }
    at.join("/")
}

/// The checks look at the house and not at an empty lot.
pub(crate) fn is_the_house(tree: &Tree) -> Vec<Violation> {
    [format!("{FACADE}/src/lib.rs"), format!("{PROTO}/src/lib.rs"), "tests/house.rs".to_owned()]
        .into_iter()
        .filter(|path| !tree.sources.iter().any(|source| source.path == *path))
        .map(|path| whole(&path, "it was not found: the other checks look at the wrong place"))
        .collect()
}

fn whole(path: &str, what: &str) -> Violation {
    Violation { path: path.to_owned(), line: 0, what: what.to_owned() }
}

fn on(manifest: &Manifest, line: usize, what: String) -> Violation {
    Violation { path: manifest.path.clone(), line, what }
}
