//! Every rule is broken here on purpose, in small made-up repositories, and the check must see it. Beside
//! each stands what looks alike and is allowed.

use super::habits;
use super::requirements;
use super::source::Source;
use super::tree::{Manifest, Tree, Violation};
use super::walls;

/// A check's answer as `path:line` texts.
fn places(mut violations: Vec<Violation>) -> Vec<String> {
    violations.sort();
    violations.iter().map(|violation| format!("{}:{}", violation.path, violation.line)).collect()
}

/// One file of the facade, under the check `check`.
fn facade(check: fn(&Tree) -> Vec<Violation>, file: &str, text: &str) -> Vec<String> {
    let path = format!("{}/src/{file}", walls::FACADE);
    places(check(&Tree::of(&[(&path, text)])))
}

fn paths_in(text: &str) -> Vec<String> {
    let source = Source::parse("a.rs", text).expect("the sample is Rust");
    source.named().into_iter().map(|named| named.segments.join("::")).collect()
}

#[test]
fn paths_are_found_wherever_they_stand() {
    let text = r#"
        pub use a::{self, b::{c, d as e}, *};
        use ::f::g;
        use quinn;
        extern crate h;
        #[i::j]
        fn k(l: crate::m::N) -> ::o::P { <Q as r::S>::t(); u::<V>(); return w::x(); }
        macro_rules! y { () => { $crate::z::A } }
        fn g() -> impl Sized + use<'static> {}
    "#;
    let expected = [
        "a",
        "a::b::c",
        "a::b::d",
        "a::*",
        "f::g",
        "quinn",
        "h",
        "i::j",
        "crate::m::N",
        "o::P",
        "r::S",
        "u",
        "w::x",
        "crate::z::A",
    ];
    assert_eq!(paths_in(text), expected);
}

#[test]
fn comments_and_strings_name_nothing() {
    let text = r##"
        //! crate::mesh
        /// [`crate::mesh::Mesh`]
        fn f() { /* crate::mesh */ let _ = "crate::mesh"; let _ = r#"quinn::x"#; self.quinn.call(); a.quinn::<T>() }
    "##;
    assert_eq!(paths_in(text), Vec::<String>::new());
}

#[test]
fn an_arrow_up_is_seen_in_a_use_and_in_a_path() {
    let text = "use crate::{network::Network, peer::Peer};\nfn f(m: &crate::mesh::Mesh) {}\nuse super::call;";
    assert_eq!(
        facade(walls::floors, "channel.rs", text),
        ["crates/vitte-net/src/channel.rs:1", "crates/vitte-net/src/channel.rs:2"]
    );
    assert_eq!(facade(walls::floors, "transport/quic.rs", "use super::super::peer::Peer;").len(), 1);
    assert_eq!(
        facade(walls::floors, "transport/quic.rs", "mod inner { use super::super::super::peer::Peer; }")
            .len(),
        1
    );
    assert!(
        facade(walls::floors, "mesh.rs", "use crate::peer::Peer; use vitte_net_proto::PeerId;").is_empty()
    );
    assert!(
        facade(walls::floors, "transport/quic.rs", "use super::LinkError; use super::peer::X;").is_empty()
    );
}

#[test]
fn a_re_export_is_no_way_around_a_floor() {
    let tree = Tree::of(&[
        (
            "crates/vitte-net/src/lib.rs",
            "pub mod mesh; pub mod tcp;\npub use mesh::Mesh as M; pub use vitte_net_proto::PeerId;",
        ),
        ("crates/vitte-net/src/mesh.rs", "pub struct Mesh;"),
        ("crates/vitte-net/src/tcp.rs", "use crate::PeerId;\nuse crate::M;"),
    ]);
    assert_eq!(places(walls::floors(&tree)), ["crates/vitte-net/src/tcp.rs:2"]);
    assert_eq!(places(walls::never(&tree)), ["crates/vitte-net/src/tcp.rs:2"]);
    assert_eq!(facade(walls::floors, "tcp.rs", "use crate::*;").len(), 1);
    assert_eq!(facade(walls::floors, "tcp.rs", "use crate::unheard_of::X;").len(), 1);
}

#[test]
fn a_room_without_a_floor_is_seen() {
    assert_eq!(facade(walls::floors, "utils.rs", "fn f() {}"), ["crates/vitte-net/src/utils.rs:0"]);
    assert_eq!(facade(walls::floors, "utils/deep.rs", "fn f() {}"), ["crates/vitte-net/src/utils/deep.rs:0"]);
    assert!(
        facade(walls::floors, "gone.rs", "").len() == 1 && facade(walls::floors, "tcp.rs", "").is_empty()
    );
}

#[test]
fn every_row_of_the_never_table_is_seen() {
    for room in ["stream", "tcp", "udp", "tls", "ws", "http", "resolver", "network"] {
        for target in ["peer", "mesh", "channel", "call", "transport", "discovery"] {
            let text = format!("use crate::{target}::X;");
            assert_eq!(facade(walls::never, &format!("{room}.rs"), &text).len(), 1, "{room} to {target}");
        }
    }
    for target in ["peer", "channel", "call", "mesh", "discovery"] {
        assert_eq!(facade(walls::never, "transport/bytes.rs", &format!("use crate::{target}::X;")).len(), 1);
    }
    for target in ["peer", "mesh", "transport"] {
        assert_eq!(facade(walls::never, "discovery/fixed.rs", &format!("use crate::{target}::X;")).len(), 1);
    }
    assert!(facade(walls::never, "discovery/fixed.rs", "use crate::address::Address;").is_empty());
    assert!(facade(walls::never, "mesh.rs", "use crate::{peer, discovery, transport, tcp};").is_empty());
}

#[test]
fn a_circle_is_seen_with_all_of_its_arrows() {
    let tree = Tree::of(&[
        ("sim/src/lib.rs", "mod a; mod b; mod c; mod d;"),
        ("sim/src/a.rs", "use crate::b::B;"),
        ("sim/src/b.rs", "fn f() -> crate::c::C {}"),
        ("sim/src/c.rs", "\nuse super::a::A;"),
        ("sim/src/d.rs", "use crate::a::A; #[cfg(test)] mod tests { use crate::d::D; use super::*; }"),
    ]);
    assert_eq!(places(walls::circles(&tree, "sim")), ["sim/src/a.rs:1", "sim/src/b.rs:1", "sim/src/c.rs:2"]);
}

#[test]
fn a_foreign_crate_outside_of_its_room_is_seen() {
    let samples = [
        ("mesh.rs", "use quinn::Connection;"),
        ("transport/mod.rs", "fn f(c: quinn::Connection) {}"),
        ("transport/quic.rs", "use rustls as tls;"),
        ("transport/bytes.rs", "use tokio_rustls::client;"),
        ("transport/bytes.rs", "use tokio_tungstenite::WebSocketStream;"),
        ("tcp.rs", "use tokio::{io::AsyncRead, net::TcpStream};"),
        ("udp.rs", "fn f(s: socket2::Socket) {}"),
        ("mesh.rs", "use hickory_resolver::Resolver;"),
        ("discovery/lan.rs", "use foca::Foca;"),
        ("tls.rs", "use ring::hmac;"),
    ];
    for (file, text) in samples {
        assert_eq!(facade(walls::foreign, file, text).len(), 1, "{file}: {text}");
    }
}

#[test]
fn a_foreign_crate_in_its_room_is_welcome() {
    let samples = [
        ("transport/quic.rs", "use quinn::Connection;"),
        ("transport/quic/socket.rs", "use quinn::AsyncUdpSocket; use quinn::crypto::rustls::X;"),
        ("tls.rs", "use rustls::pki_types::ServerName;"),
        ("ws.rs", "use tokio_tungstenite::tungstenite::Message;"),
        ("network.rs", "use tokio::net::TcpStream; use socket2::Socket;"),
        ("network/os.rs", "use tokio::net::TcpStream; use socket2::Socket;"),
        ("identity.rs", "use ring::signature;"),
        ("tcp.rs", "use tokio::io::AsyncRead; #[cfg(test)] mod tests { use tokio::net::TcpListener; }"),
    ];
    for (file, text) in samples {
        assert_eq!(facade(walls::foreign, file, text), Vec::<String>::new(), "{file}: {text}");
    }
}

#[test]
fn the_simulation_in_production_code_is_seen() {
    let samples = [
        "use turmoil::net;",
        "#[cfg(test)] mod tests { use vitte_net_sim::Cluster; }",
        "#[cfg(sim)] fn f() {}",
        "#[cfg(any(test, sim))] fn f() {}",
        "#[cfg_attr(sim, derive(Debug))] struct S;",
        "#[cfg(feature = \"sim\")] fn f() {}",
        "fn f() { if cfg!(sim) {} }",
    ];
    for text in samples {
        assert_eq!(facade(walls::no_simulation, "mesh.rs", text).len(), 1, "{text}");
    }
    assert!(
        facade(walls::no_simulation, "mesh.rs", "/// turmoil::net\n#[cfg(test)] fn f() { sim(); }")
            .is_empty()
    );
    assert!(places(walls::no_simulation(&Tree::of(&[("sim/src/lib.rs", "use turmoil::net;")]))).is_empty());
}

#[test]
fn the_protocol_reaching_out_is_seen() {
    let check = |text: &str| {
        let files = [("crates/vitte-net-proto/src/lib.rs", text), ("crates/vitte-net-proto/src/id.rs", "")];
        places(walls::proto(&Tree::of(&files)))
    };
    for text in
        ["use std::vec::Vec;", "fn f() -> std::time::Instant {}", "use tokio::time;", "extern crate std;"]
    {
        assert_eq!(check(&format!("#![no_std]\n{text}")), ["crates/vitte-net-proto/src/lib.rs:2"], "{text}");
    }
    assert_eq!(check("#![cfg_attr(not(test), no_std)]"), ["crates/vitte-net-proto/src/lib.rs:0"]);
    let fine = "#![no_std] extern crate alloc; pub mod id; pub use id::X; use core::fmt; use bytes::Bytes;
        use rand_core::RngCore; use crate::id::Y; fn f() { Y::new(); u8::MAX; }
        #[cfg(test)] mod tests { extern crate std; use std::vec; use proptest::prelude::*; }";
    assert_eq!(check(fine), Vec::<String>::new());
}

#[test]
fn a_long_file_is_seen_and_its_tests_do_not_count() {
    let lines = |count: usize| "fn f() {}\n".repeat(count);
    let tests = |count: usize| format!("#[cfg(test)]\nmod tests {{\n{}}}\n", lines(count - 3));
    let check = |path: &str, text: String| places(habits::sizes(&Tree::of(&[(path, &text)])));
    assert_eq!(check("sim/src/a.rs", lines(601)), ["sim/src/a.rs:0"]);
    assert!(check("sim/src/a.rs", lines(600)).is_empty());
    assert!(check("sim/src/a.rs", lines(600) + &tests(200)).is_empty());
    assert_eq!(check("sim/src/a.rs", lines(601) + &tests(200)), ["sim/src/a.rs:0"]);
    assert_eq!(check("sim/src/a.rs", lines(9) + &tests(201)), ["sim/src/a.rs:10"]);
    assert!(check("sim/src/a/tests.rs", lines(2000)).is_empty());
    assert_eq!(check("tests/behaviour/order.rs", lines(601)).len(), 1);
}

#[test]
fn an_exception_without_a_reason_is_seen() {
    let check = |text: &str| places(habits::reasons(&Tree::of(&[("sim/src/a.rs", text)])));
    for text in [
        "#![allow(dead_code)]",
        "#[expect(clippy::unwrap_used)] fn f() {}",
        "#[cfg_attr(test, allow(dead_code))] fn f() {}",
        "#[allow(dead_code, reason = \"\")] fn f() {}",
    ] {
        assert_eq!(check(text), ["sim/src/a.rs:1"], "{text}");
    }
    assert!(
        check("#[allow(dead_code, reason = \"the C side calls it\")] fn f() { x.expect(\"y\"); }").is_empty()
    );
}

#[test]
fn what_is_unfinished_is_seen() {
    let check = |text: &str| places(habits::unfinished(&Tree::of(&[("tests/a.rs", text)])));
    for text in [
        "fn f() { todo!() }",
        "fn f() { std::unimplemented![\"later\"] }",
        "#[test] #[ignore] fn f() {}",
        "#[ignore = \"slow\"] fn f() {}",
        "#[cfg_attr(not(slow), ignore)] fn f() {}",
    ] {
        assert_eq!(check(text), ["tests/a.rs:1"], "{text}");
    }
    assert!(check("/// todo!()\nfn todo(ignore: bool) { todo(\"#[ignore]\") }").is_empty());
}

#[test]
fn a_select_that_is_not_biased_is_seen() {
    let check = |text: &str| places(habits::biased(&Tree::of(&[("crates/vitte-net/src/peer.rs", text)])));
    assert_eq!(check("fn f() {\n tokio::select! { a = b => {} } }"), ["crates/vitte-net/src/peer.rs:2"]);
    assert!(check("fn f() { tokio::select! { biased; a = b => {} } }").is_empty());
}

const ROOT: &str = r#"
[workspace]
members = [
    "sim", # a comment
    "crates/vitte-net-proto",
]
exclude = ["fuzz"]
[workspace.package]
license = "MIT"
[package]
license.workspace = true
[lints]
workspace = true
"#;
const MEMBER: &str = "[package]\nlicense.workspace = true\n[lints]\nworkspace = true\n";

#[test]
fn a_workspace_out_of_order_is_seen() {
    let check = |files: &[(&str, &str)]| {
        let mut all = vec![("sim/Cargo.toml", MEMBER), ("crates/vitte-net-proto/Cargo.toml", MEMBER)];
        all.retain(|(path, _)| !files.iter().any(|(other, _)| other == path));
        all.extend_from_slice(files);
        places(habits::workspace(&Tree::of(&all)))
    };
    assert_eq!(check(&[("Cargo.toml", ROOT), ("fuzz/Cargo.toml", "")]), Vec::<String>::new());
    assert_eq!(check(&[]), ["Cargo.toml:0"]);
    assert_eq!(check(&[("Cargo.toml", ROOT), ("stray/Cargo.toml", MEMBER)]), ["stray/Cargo.toml:0"]);
    assert_eq!(
        check(&[
            ("Cargo.toml", ROOT),
            ("sim/Cargo.toml", "[package]\nlicense = \"GPL-3.0\"\n[lints]\nworkspace = true")
        ]),
        ["sim/Cargo.toml:0"]
    );
    assert_eq!(
        check(&[("Cargo.toml", ROOT), ("sim/Cargo.toml", "[package]\nlicense = \"MIT\"")]),
        ["sim/Cargo.toml:0"]
    );
    let glob = ROOT.replace("\"sim\"", "\"sim\", \"crates/*\"");
    assert_eq!(check(&[("Cargo.toml", &glob)]), ["Cargo.toml:3"]);
    let ghost = ROOT.replace("\"sim\"", "\"sim\", \"ghost\"");
    assert_eq!(check(&[("Cargo.toml", &ghost)]), ["Cargo.toml:3"]);
}

#[test]
fn a_dependency_out_of_place_is_seen() {
    let check = |path: &str, text: &str| places(habits::dependencies(&Tree::of(&[(path, text)])));
    let proto = "crates/vitte-net-proto/Cargo.toml";
    assert_eq!(
        check(proto, "[dependencies]\nbytes = \"1\"\ntokio = \"1\""),
        ["crates/vitte-net-proto/Cargo.toml:3"]
    );
    assert_eq!(
        check(proto, "[dependencies.serde]\nversion = \"1\""),
        ["crates/vitte-net-proto/Cargo.toml:2"]
    );
    assert!(
        check(proto, "[dependencies]\nbytes.workspace = true\n[dev-dependencies]\nproptest = \"1\"")
            .is_empty()
    );
    for path in ["crates/vitte-net-cli/Cargo.toml", "benches/Cargo.toml"] {
        assert_eq!(check(path, "[dev-dependencies]\nvitte-net-sim = { path = \"../sim\" }").len(), 1);
    }
    assert_eq!(check("Cargo.toml", "[dependencies]\nvitte-net-sim = { path = \"sim\" }").len(), 2);
    assert_eq!(
        check("Cargo.toml", "[dev-dependencies]\nvitte-net-sim = { path = \"sim\", version = \"1\" }").len(),
        1
    );
    assert!(check("Cargo.toml", "[dev-dependencies]\nvitte-net-sim = { path = \"sim\" }").is_empty());
    assert_eq!(check("Cargo.toml", "[dependencies]\nopenssl = \"0.10\"\nquinn = \"0.11\""), ["Cargo.toml:2"]);
    assert_eq!(check("Cargo.toml", "[target.'cfg(unix)'.dependencies]\nnix = \"0.30\""), ["Cargo.toml:2"]);
}

#[test]
fn a_missing_front_door_is_seen() {
    let found =
        places(habits::front_door(&Tree::of(&[("LICENSE", "MIT License\n\nCopyright (c) 2024 Somebody")])));
    assert!(found.contains(&"README.md:0".to_owned()) && found.contains(&"docs/WIRE.md:0".to_owned()));
    assert_eq!(found.iter().filter(|place| *place == "LICENSE:0").count(), 1);
    let right = Tree::of(&[
        ("LICENSE", "MIT License\n\nCopyright (c) 2025 Vincent Rousseau\n"),
        ("rust-toolchain.toml", ""),
    ]);
    let found = places(habits::front_door(&right));
    assert!(!found.contains(&"LICENSE:0".to_owned()) && found.contains(&"rust-toolchain.toml:0".to_owned()));
}

#[test]
fn a_link_to_nowhere_is_seen() {
    let text = "[a](https://example.org/x.md) [b](#here)\n[c](../LICENSE) [d](WIRE.md#frames) [e](../sim)\n[f](gone.md)";
    let tree =
        Tree::of(&[("docs/A.md", text), ("docs/WIRE.md", ""), ("LICENSE", ""), ("sim/src/lib.rs", "")]);
    assert_eq!(places(habits::links(&tree)), ["docs/A.md:3"]);
}

#[test]
fn an_empty_lot_is_seen() {
    assert_eq!(habits::is_the_house(&Tree::default()).len(), 3);
}

#[test]
fn manifests_are_read_as_they_are_written() {
    let text = "[a]\nx = [\n  \"1\", # \"no\"\n  \"2\",\n]\ny = \"# no comment\"\n[[b]]\nz.w = true";
    let manifest = Manifest::parse("Cargo.toml", text);
    let read: Vec<_> = manifest
        .entries
        .iter()
        .map(|e| (e.section.as_str(), e.key.as_str(), e.value.as_str(), e.line))
        .collect();
    assert_eq!(
        read,
        [("a", "x", "[\"1\",\"2\",]", 2), ("a", "y", "\"# no comment\"", 6), ("b", "z.w", "true", 8)]
    );
}

#[test]
fn a_requirement_without_a_number_or_a_test_is_seen() {
    let tests = "#[test] fn one() {} #[tokio::test(start_paused = true)] #[x] async fn two() {} fn three() {}\n\
                 proptest! { #[test] fn four(a in b) {} } fn five() -> Case {} #[cfg(test)] mod t { fn six() {} }";
    let check =
        |page: &str| places(requirements::tested(&Tree::of(&[("docs/WIRE.md", page), ("a.rs", tests)])));
    let good = "It MUST [W-1].\n| W-1 | It MUST. | `one`, `two` |\n| W-2 | It MUST NOT. | `four`, `five` |\n";
    assert_eq!(check(good), Vec::<String>::new());
    for (bad, line) in [
        ("It MUST.", 4),
        ("It MUST and MUST NOT [W-1].", 4),
        ("It may [W-3].", 4),
        ("| W-3 | It MUST. | none |", 4),
        ("| W-3 | It MUST. | `three` |", 4),
        ("| W-3 | It MUST. | `six` |", 4),
        ("| W-3 | It MUST. | `one`, `gone` |", 4),
        ("| W-2 | It MUST. | `one` |", 4),
        ("| W-3 | It should. | `one` |", 4),
    ] {
        assert_eq!(check(&format!("{good}{bad}\n")), [format!("docs/WIRE.md:{line}")], "{bad}");
    }
    assert_eq!(check("Nothing."), ["docs/WIRE.md:0"]);
}

#[test]
fn a_limit_without_a_test_is_seen() {
    let tests = "#[test] fn one() {} fn three() {} mount! { four: \"x\"; five, six { seven } }";
    let check = |page: &str| {
        places(requirements::reached(&Tree::of(&[("docs/LIMITS.md", page), ("tests/a.rs", tests)])))
    };
    let good = "| limit | test |\n|---|---|\n| a | `one`, `four` |\n| b | by `five` |\n\n| c |  |\n";
    assert_eq!(check(good), Vec::<String>::new());
    for (bad, line) in
        [("| c |  |", 3), ("| c | suite |", 3), ("| c | `one`, `three` |", 3), ("| c | `seven` |", 3)]
    {
        let page = format!("| limit | test |\n|---|---|\n{bad}\n");
        assert_eq!(check(&page), [format!("docs/LIMITS.md:{line}")], "{bad}");
    }
    assert_eq!(check("| limit | range |\n"), ["docs/LIMITS.md:0", "docs/LIMITS.md:1"]);
}
