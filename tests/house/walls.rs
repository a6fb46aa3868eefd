//! The walls between the rooms of the crate `vitte-net`, and around the others.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Named, Source, calls_of, has_ident};
use super::tree::{Tree, Violation};

/// Where the facade lives.
pub(crate) const FACADE: &str = "crates/vitte-net";
/// Where the protocol lives.
pub(crate) const PROTO: &str = "crates/vitte-net-proto";

/// Rooms and their floors. An arrow (an import) goes down or stays on its floor, and never runs in a circle.
/// A new room gets a line here, in the same change that brings it.
pub(crate) const FLOORS: &[(&str, u8)] = &[
    ("mesh", 7),
    ("peer", 6),
    ("discovery", 5),
    ("http", 5),
    ("transport", 5),
    ("call", 4),
    ("channel", 4),
    ("config", 4),
    ("quic", 4),
    ("resolver", 4),
    ("tcp", 4),
    ("udp", 4),
    ("ws", 4),
    ("address", 3),
    ("error", 3),
    ("identity", 3),
    ("network", 3),
    ("tls", 3),
    ("stream", 2),
];

const PRIMITIVES: &[&str] = &["stream", "tcp", "udp", "tls", "ws", "http", "resolver", "network"];

/// Who must never import whom, and why. Where the floors say it as well, this says why.
const NEVER: &[(&[&str], &[&str], &str)] = &[
    (
        PRIMITIVES,
        &["peer", "mesh", "channel", "call", "transport", "discovery"],
        "a runtime wants plain sockets alone",
    ),
    (
        &["transport"],
        &["peer", "channel", "call", "mesh", "discovery"],
        "a link carries frames and does not know what is in them",
    ),
    (
        &["discovery"],
        &["peer", "mesh", "transport"],
        "discovery reports sightings; the mesh decides whom to dial",
    ),
];

/// Foreign crates that live in one room, so that an upgrade touches one place. The first place is the
/// room, further ones are exceptions with a reason. A place is a module and all below it. Unit tests are
/// free: they may put a raw counterpart beside the room.
pub(crate) const FOREIGN: &[(&str, &[&str])] = &[
    ("flate2", &["ws"]),
    ("async_compression", &["http"]),
    ("blake3", &["http"]),
    ("foca", &["discovery::gossip"]),
    ("getrandom", &["network"]),
    // `resolver` stands below `http`, and many servers of DNS over HTTPS speak HTTP/2 alone.
    ("h2", &["http", "resolver::https2"]),
    ("h3", &["http"]),
    ("h3_quinn", &["http"]),
    ("hickory_proto", &["resolver"]),
    ("hickory_resolver", &["resolver"]),
    ("http_body", &["http"]),
    ("httpdate", &["http"]),
    ("hyper", &["http"]),
    ("hyper_util", &["http"]),
    ("libc", &["network"]),
    ("memchr", &["http"]),
    // What all QUIC has in common is in `quic`; links and HTTP/3 are its users.
    ("quinn", &["quic", "transport::quic", "http::h3"]),
    ("quinn_proto", &["quic"]),
    ("quinn_udp", &["quic", "network::os::batches"]),
    ("rcgen", &["tls"]),
    // quinn takes its token and reset keys as types of ring's.
    ("ring", &["identity", "quic"]),
    ("rustls", &["tls"]),
    ("rustls_native_certs", &["tls"]),
    ("rustls_pki_types", &["tls"]),
    ("rustls_platform_verifier", &["tls"]),
    ("rustix", &["network::os"]),
    ("sha2", &["http"]),
    ("socket2", &["network"]),
    ("tokio::net", &["network"]),
    ("tokio_rustls", &["tls"]),
    ("tokio_tungstenite", &["ws"]),
    ("tokio_util", &["stream", "http"]),
    ("tungstenite", &["ws"]),
    ("url", &["http"]),
    ("webpki", &["tls"]),
    ("zeroize", &["identity"]),
];

/// Crates that any room may name: vocabulary, not machinery.
pub(crate) const COMMON: &[&str] = &[
    "bytes",
    "data_encoding",
    "futures_util",
    "http",
    "postcard",
    "postcard_schema",
    "serde",
    "serde_json",
    "thiserror",
    "tokio",
    "tracing",
    "vitte_net_proto",
];

/// All that the protocol may name.
const PROTO_MAY_NAME: &[&str] = &["core", "alloc", "bytes", "rand_core"];

/// An import from one room to another.
struct Arrow<'a> {
    from: String,
    to: String,
    source: &'a Source,
    named: Named,
}

impl Arrow<'_> {
    fn violation(&self, what: String) -> Violation {
        Violation { path: self.source.path.clone(), line: self.named.line, what }
    }

    fn text(&self) -> String {
        self.named.segments.join("::")
    }
}

/// Floors of the facade: every room has one, and no arrow goes up.
pub(crate) fn floors(tree: &Tree) -> Vec<Violation> {
    let floor = |room: &str| FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor);
    let mut found = Vec::new();
    for (source, module) in tree.crate_sources(FACADE) {
        if let Some(room) = module.first().filter(|room| floor(room).is_none()) {
            let what = format!("the room `{room}` has no floor: give it one in FLOORS");
            found.push(Violation { path: source.path.clone(), line: 0, what });
        }
    }
    for arrow in arrows(tree, FACADE) {
        match (floor(&arrow.from), floor(&arrow.to)) {
            (Some(from), Some(to)) if to > from => found.push(arrow.violation(format!(
                "`{}` (floor {from}) imports `{}`, up to `{}` (floor {to}): arrows go down",
                arrow.from,
                arrow.text(),
                arrow.to
            ))),
            (Some(_), None) => found.push(arrow.violation(format!(
                "`{}` imports `{}`, which is no room and no name that lib.rs re-exports from one",
                arrow.from,
                arrow.text()
            ))),
            _ => {}
        }
    }
    found
}

/// The never-table between rooms.
pub(crate) fn never(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for arrow in arrows(tree, FACADE) {
        for (from, to, why) in NEVER {
            if from.contains(&arrow.from.as_str()) && to.contains(&arrow.to.as_str()) {
                let text = arrow.text();
                found.push(arrow.violation(format!("`{}` must never import `{text}`: {why}", arrow.from)));
            }
        }
    }
    found
}

/// No circle between the top-level modules of a crate. Unit tests are free.
pub(crate) fn circles(tree: &Tree, folder: &str) -> Vec<Violation> {
    let arrows: Vec<_> = arrows(tree, folder).into_iter().filter(|arrow| !arrow.named.in_test).collect();
    let mut reach: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for arrow in &arrows {
        reach.entry(&arrow.from).or_default().insert(&arrow.to);
    }
    loop {
        let mut grown = false;
        for from in reach.keys().copied().collect::<Vec<_>>() {
            let next: BTreeSet<&str> =
                reach[from].iter().filter_map(|to| reach.get(to)).flatten().copied().collect();
            let known = reach.entry(from).or_default();
            let before = known.len();
            known.extend(next);
            grown |= known.len() > before;
        }
        if !grown {
            break;
        }
    }
    let back =
        |arrow: &Arrow<'_>| reach.get(arrow.to.as_str()).is_some_and(|to| to.contains(arrow.from.as_str()));
    arrows
        .iter()
        .filter(|arrow| back(arrow))
        .map(|arrow| {
            let what = format!("`{}` imports `{}`, which leads back: a circle", arrow.from, arrow.text());
            arrow.violation(what)
        })
        .collect()
}

/// Foreign crates stay in their room.
pub(crate) fn foreign(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (source, module) in tree.crate_sources(FACADE) {
        for named in source.named().into_iter().filter(|named| !named.in_test) {
            let text = named.segments.join("::");
            let here = module.join("::");
            let owner = FOREIGN.iter().find(|(name, _)| is_below(&text, name));
            if let Some((name, places)) =
                owner.filter(|(_, places)| !places.iter().any(|p| is_below(&here, p)))
            {
                let what = format!("`{text}`: the crate `{name}` is named in {} only", places.join(" and "));
                found.push(Violation { path: source.path.clone(), line: named.line, what });
            }
        }
    }
    found
}

/// Nothing under `crates/` knows of the simulation: no import, no flag.
pub(crate) fn no_simulation(tree: &Tree) -> Vec<Violation> {
    const WHY: &str = "a build that knows of the simulation tests another program";
    let mut found = Vec::new();
    for source in tree.sources.iter().filter(|source| source.path.starts_with("crates/")) {
        let mut add = |line, what: String| {
            found.push(Violation { path: source.path.clone(), line, what: format!("{what}: {WHY}") });
        };
        for named in source.named() {
            if ["turmoil", "turmoil_net", "vitte_net_sim"].contains(&named.segments[0].as_str()) {
                add(named.line, format!("`{}`", named.segments.join("::")));
            }
        }
        for (line, attribute) in source.attributes() {
            for condition in ["cfg", "cfg_attr"].iter().flat_map(|name| calls_of(attribute, name)) {
                if says_sim(condition) {
                    add(line, "a cfg that says `sim`".to_owned());
                }
            }
        }
        for call in source.macro_calls().filter(|call| call.name == "cfg" && says_sim(call.body)) {
            add(call.line, "a cfg! that says `sim`".to_owned());
        }
    }
    found
}

fn says_sim(condition: &[(super::source::Token, usize)]) -> bool {
    let features = ["\"sim\"", "\"simulation\"", "\"turmoil\""];
    ["sim", "simulation", "turmoil"].iter().any(|name| has_ident(condition, name))
        || condition.iter().any(|(token, _)| {
            matches!(token, super::source::Token::Literal(text) if features.contains(&text.as_str()))
        })
}

/// The protocol is `no_std` and names four crates at most.
pub(crate) fn proto(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    let modules: BTreeSet<String> =
        tree.crate_sources(PROTO).filter_map(|(_, module)| module.first().cloned()).collect();
    for (source, module) in tree.crate_sources(PROTO) {
        let mut add = |line, what| found.push(Violation { path: source.path.clone(), line, what });
        let no_std = |(_, attribute): (usize, &[_])| attribute.len() == 1 && has_ident(attribute, "no_std");
        if module.is_empty() && source.path.ends_with("/lib.rs") && !source.attributes().any(no_std) {
            add(0, "the protocol says `#![no_std]` with no condition".to_owned());
        }
        let own = own_modules(&source.path, &module, tree);
        for named in source.named().into_iter().filter(|named| !named.in_test) {
            let first = named.segments[0].as_str();
            let imported = named.imported_as.is_some();
            let allowed = PROTO_MAY_NAME.contains(&first)
                || ["crate", "self", "super", "Self"].contains(&first)
                || (module.is_empty() && modules.contains(first))
                || own.contains(first)
                || first.starts_with(char::is_uppercase);
            let elsewhere = imported || first == "std";
            if elsewhere && !allowed {
                let text = named.segments.join("::");
                add(
                    named.line,
                    format!("the protocol names `{text}`: it may name {}", PROTO_MAY_NAME.join(", ")),
                );
            }
        }
    }
    found
}

/// Child modules of a module, which a `use` may name with no `self::`.
fn own_modules(path: &str, module: &[String], tree: &Tree) -> BTreeSet<String> {
    tree.crate_sources(PROTO)
        .filter(|(source, other)| {
            source.path != path && other.len() == module.len() + 1 && other.starts_with(module)
        })
        .filter_map(|(_, other)| other.last().cloned())
        .collect()
}

/// `a::b::c` is below `a::b`.
fn is_below(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Every import between two top-level modules of the crate in `folder`.
fn arrows<'a>(tree: &'a Tree, folder: &str) -> Vec<Arrow<'a>> {
    let exports = re_exports(tree, folder);
    let mut found = Vec::new();
    for (source, module) in tree.crate_sources(folder) {
        let Some(from) = module.first() else { continue };
        for named in source.named() {
            let Some(target) = in_crate(&named, &module) else { continue };
            let first = target.first().map_or("*", String::as_str);
            let to = exports.get(first).map_or(first, String::as_str);
            if to != from && !to.is_empty() {
                found.push(Arrow { from: from.clone(), to: to.to_owned(), source, named });
            }
        }
    }
    found
}

/// Names that lib.rs (or main.rs) brings up from its modules, with the module; an empty text for names
/// from other crates. A module stands for itself.
fn re_exports(tree: &Tree, folder: &str) -> BTreeMap<String, String> {
    let modules: BTreeSet<String> =
        tree.crate_sources(folder).filter_map(|(_, module)| module.first().cloned()).collect();
    let mut exports = BTreeMap::new();
    for (source, _) in tree.crate_sources(folder).filter(|(_, module)| module.is_empty()) {
        for named in source.named().into_iter().filter(|named| named.inside.is_empty()) {
            let Some(name) = named.imported_as.clone() else { continue };
            let path = match named.segments[0].as_str() {
                "crate" | "self" => &named.segments[1..],
                _ => &named.segments[..],
            };
            let home = path.first().filter(|first| modules.contains(*first)).cloned().unwrap_or_default();
            exports.insert(name, home);
        }
    }
    exports.extend(modules.into_iter().map(|module| (module.clone(), module)));
    exports
}

/// The absolute path inside the crate, if it is one: `super::x` in `a/b.rs` is `a::x`.
fn in_crate(named: &Named, module: &[String]) -> Option<Vec<String>> {
    let mut at: Vec<String> = module.iter().chain(&named.inside).cloned().collect();
    let mut rest = named.segments.as_slice();
    match rest.first()?.as_str() {
        "crate" => at.clear(),
        "self" => {}
        "super" => {
            at.pop();
        }
        _ => return None,
    }
    rest = &rest[1..];
    while rest.first().is_some_and(|segment| segment == "super") {
        at.pop();
        rest = &rest[1..];
    }
    at.extend(rest.iter().cloned());
    Some(at)
}
