//! The resolver against a server that says what it likes, in virtual time.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;
use vitte_net::resolver::{Data, Failure, NameServer, RecordType, ResolveError, Resolver};

use crate::nameserver::*;

fn found(records: &[vitte_net::resolver::Record]) -> Vec<String> {
    records.iter().map(|record| format!("{} {}", record.name, record.data)).collect()
}

#[test]
fn every_kind_is_read() {
    let script = |ask: &Ask| {
        let data: &[u8] = match ask.kind {
            A => &[192, 0, 2, 1],
            AAAA => &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            CNAME | PTR => b"\x05other\x00",
            MX => b"\x00\x0a\x04mail\x00",
            TXT => b"\x05hello\x03\xff\"\n",
            SRV => b"\x00\x01\x00\x02\x00\x50\x03www\x00",
            _ => unreachable!(),
        };
        ask.answer(&[record(&ask.name, ask.kind, 60, data)])
    };
    let asked = with_server(script, |builder, _| async move {
        let resolver = builder.build();
        for (kind, text) in [
            (RecordType::A, "192.0.2.1"),
            (RecordType::Aaaa, "2001:db8::1"),
            (RecordType::Cname, "other"),
            (RecordType::Ptr, "other"),
            (RecordType::Mx, "10 mail"),
            (RecordType::Txt, "\"hello\" \"\\xff\\\"\\n\""),
            (RecordType::Srv, "1 2 80 www"),
        ] {
            let records = resolver.lookup("Example.ORG", kind).await.unwrap();
            assert_eq!(records[0].data.to_string(), text);
            assert_eq!(records[0].data.record_type(), kind);
        }
        let ten = "10.0.0.1".parse().unwrap();
        assert_eq!(resolver.reverse(ten).await.unwrap(), ["other"]);
        assert_eq!(resolver.reverse("2001:db8::5".parse().unwrap()).await.unwrap(), ["other"]);
    });
    assert!(asked.iter().any(|ask| ask.is("1.0.0.10.in-addr.arpa", PTR)));
    assert!(
        asked
            .iter()
            .any(|ask| ask.name.starts_with("5.0.0.0.") && ask.name.ends_with(".8.b.d.0.1.0.0.2.ip6.arpa"))
    );
    // Neither ids nor ports can be told from those before.
    let mut ids: Vec<_> = asked.iter().map(|ask| ask.id).collect();
    let mut ports: Vec<_> = asked.iter().map(|ask| ask.port).collect();
    ids.dedup_by(|a, b| a.abs_diff(*b) < 2);
    ports.dedup_by(|a, b| a.abs_diff(*b) < 2);
    assert_eq!((ids.len(), ports.len()), (asked.len(), asked.len()), "{asked:?}");
}

#[test]
fn strangers_are_not_believed() {
    let script = |ask: &Ask| {
        let evil = [a(&ask.name, [6, 6, 6, 6])];
        let mut other_id = ask.clone();
        other_id.id ^= 1;
        let mut other_name = ask.clone();
        other_name.question = [name("other.example"), vec![0, 1, 0, 1]].concat();
        let mut other_kind = ask.clone();
        let len = other_kind.question.len();
        other_kind.question[len - 3] = 28;
        let mut other_class = ask.clone();
        other_class.question[len - 1] = 3;
        let mut twice = ask.reply(0x8180, &evil, &[]);
        twice[5] = 2;
        let question = ask.question.clone();
        twice.splice(12..12, question);
        let mut none = ask.reply(0x8180, &evil, &[]);
        none[5] = 0;
        none.drain(12..12 + ask.question.len());
        vec![
            Say::Answer(other_id.reply(0x8180, &evil, &[])),
            Say::Answer(other_name.reply(0x8180, &evil, &[])),
            Say::Answer(other_kind.reply(0x8180, &evil, &[])),
            Say::Answer(other_class.reply(0x8180, &evil, &[])),
            Say::Answer(twice),
            Say::Answer(none),
            // A question, another kind of message, from elsewhere, cut anywhere, nothing.
            Say::Answer(ask.reply(0x0180, &evil, &[])),
            Say::Answer(ask.reply(0x8180 | (4 << 11), &evil, &[])),
            Say::Elsewhere(ask.reply(0x8180, &evil, &[])),
            Say::Answer(ask.reply(0x8180, &evil, &[])[..40].to_vec()),
            Say::Answer(Vec::new()),
            Say::Wait(Duration::from_millis(500)),
            Say::Answer(ask.reply(0x8180, &[a(&ask.name, [192, 0, 2, 1])], &[])),
        ]
    };
    with_server(script, |builder, _| async move {
        let records = builder.build().lookup("example.org", RecordType::A).await.unwrap();
        assert_eq!(found(&records), ["example.org 192.0.2.1"]);
    });
}

#[test]
fn a_flood_of_guesses_moves_the_question_to_tcp() {
    let script = |ask: &Ask| {
        let good = Say::Answer(ask.reply(0x8180, &[a(&ask.name, [192, 0, 2, 1])], &[]));
        if ask.tcp {
            return vec![good];
        }
        (0..200_u16)
            .map(|n| {
                let mut guess = ask.clone();
                guess.id = ask.id.wrapping_add(n + 1);
                Say::Answer(guess.reply(0x8180, &[a(&ask.name, [6, 6, 6, 6])], &[]))
            })
            .chain([good])
            .collect()
    };
    let asked = with_server(script, |builder, _| async move {
        let records = builder.build().lookup("example.org", RecordType::A).await.unwrap();
        assert_eq!(found(&records), ["example.org 192.0.2.1"]);
    });
    assert!(asked.last().unwrap().tcp && asked[0].id != asked.last().unwrap().id);
}

#[test]
fn records_of_others_are_dropped() {
    let script = |ask: &Ask| {
        let mut chaos = a(&ask.name, [6, 6, 6, 6]);
        let at = name(&ask.name).len() + 3;
        chaos[at] = 3;
        let answers = [
            a("bank.example", [6, 6, 6, 6]),
            chaos,
            alias("www.example.org", "real.example.org"),
            a("real.example.org", [192, 0, 2, 1]),
            alias("other.example", "www.example.org"),
        ];
        let poison = [a("real.example.org", [6, 6, 6, 7]), a("bank.example", [6, 6, 6, 8])];
        vec![Say::Answer(ask.reply(0x8180, &answers, &poison))]
    };
    let asked = with_server(script, |builder, _| async move {
        let resolver = builder.build();
        let records = resolver.lookup("www.example.org", RecordType::A).await.unwrap();
        assert_eq!(found(&records), ["real.example.org 192.0.2.1"]);
        assert_eq!(records[0].ttl, Duration::from_secs(30), "the least of the chain");
        // What was said beside it was not remembered.
        let records = resolver.lookup("bank.example", RecordType::A).await.unwrap();
        assert_eq!(found(&records), ["bank.example 6.6.6.6"]);
    });
    assert!(asked.iter().any(|ask| ask.is("bank.example", A)));
}

/// A name that is not there has no address, and no address is remembered for 136 years.
#[test]
fn contradictions_are_not_believed() {
    let script = |ask: &Ask| match ask.name.as_str() {
        "gone.example" => vec![Say::Answer(ask.reply(0x8183, &[a(&ask.name, [6, 6, 6, 6])], &[]))],
        _ => ask.answer(&[record(&ask.name, A, u32::MAX, &[192, 0, 2, 1])]),
    };
    with_server(script, |builder, _| async move {
        let resolver = builder.timeout(Duration::from_secs(1)).build();
        let error = resolver.lookup("gone.example", RecordType::A).await.unwrap_err();
        assert!(matches!(error, ResolveError::Failed { .. }), "{error:?}");
        let records = resolver.lookup("there.example", RecordType::A).await.unwrap();
        assert_eq!(
            (found(&records)[0].as_str(), records[0].ttl),
            ("there.example 192.0.2.1", Duration::ZERO)
        );
    });
}

#[test]
fn aliases_are_followed_and_end() {
    let script = |ask: &Ask| {
        let step = |n: &str| format!("{}.chain.example", n.parse::<u32>().unwrap() + 1);
        match ask.name.split_once('.').unwrap() {
            (_, "loop.example") => ask.answer(&[
                alias("a.loop.example", "b.loop.example"),
                alias("b.loop.example", "a.loop.example"),
            ]),
            ("self", _) => ask.answer(&[alias("self.example", "self.example")]),
            ("20", "chain.example") => ask.answer(&[a(&ask.name, [192, 0, 2, 1])]),
            (n, "chain.example") => ask.answer(&[alias(&ask.name, &step(n))]),
            ("one", _) => ask.answer(&[alias("one.pair.example", "two.pair.example")]),
            ("two", _) => ask.answer(&[alias("two.pair.example", "one.pair.example")]),
            _ => ask.answer(&[]),
        }
    };
    let asked = with_server(script, |builder, _| async move {
        let resolver = builder.build();
        for looping in ["a.loop.example", "self.example", "one.pair.example", "0.chain.example"] {
            let error = resolver.lookup(looping, RecordType::A).await.unwrap_err();
            assert!(matches!(error, ResolveError::Loop(_)), "{looping}: {error:?}");
        }
        let records = resolver.lookup("10.chain.example", RecordType::A).await.unwrap();
        assert_eq!(found(&records), ["20.chain.example 192.0.2.1"]);
    });
    assert!(asked.len() < 60, "{}", asked.len());
}

#[test]
fn a_cut_answer_is_asked_for_again_by_tcp() {
    let script = |ask: &Ask| {
        if ask.tcp {
            let many: Vec<_> = (0..200).map(|n| a(&ask.name, [192, 0, 2, n])).collect();
            return ask.answer(&many);
        }
        vec![Say::Answer(ask.reply(0x8380, &[a(&ask.name, [6, 6, 6, 6])], &[]))]
    };
    with_server(script, |builder, _| async move {
        let records = builder.build().lookup("example.org", RecordType::A).await.unwrap();
        assert_eq!(records.len(), 200);
        assert!(records.iter().all(|record| !record.data.to_string().starts_with('6')));
    });
}

#[test]
fn huge_answers_and_bombs_cost_little() {
    let script = |ask: &Ask| match ask.name.as_str() {
        "huge.example" if ask.tcp => {
            ask.answer(&(0..1500).map(|_| a(&ask.name, [192, 0, 2, 1])).collect::<Vec<_>>())
        }
        "huge.example" => vec![Say::Answer(ask.reply(0x8380, &[], &[]))],
        // A pointer to itself, to one behind it, and names that grow by pointers.
        "pointer.example" => {
            let mut bytes = ask.reply(
                0x8180,
                &[vec![
                    0xc0,
                    12 + u8::try_from(ask.question.len()).unwrap(),
                    0,
                    1,
                    0,
                    1,
                    0,
                    0,
                    0,
                    9,
                    0,
                    4,
                    6,
                    6,
                    6,
                    6,
                ]],
                &[],
            );
            bytes.extend([0; 10]);
            vec![
                Say::Answer(bytes),
                Say::Answer(ask.reply(
                    0x8180,
                    &[vec![0xc0, 0xff, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 6, 6, 6, 6]],
                    &[],
                )),
            ]
        }
        // It says that it has 65,535 records.
        _ => {
            let mut bytes = ask.reply(0x8180, &[a(&ask.name, [6, 6, 6, 6])], &[]);
            bytes[6..8].copy_from_slice(&[0xff, 0xff]);
            vec![Say::Answer(bytes)]
        }
    };
    with_server(script, |builder, _| async move {
        let resolver = builder.build();
        let records = resolver.lookup("huge.example", RecordType::A).await.unwrap();
        assert_eq!(records.len(), 256, "no more are kept");
        for broken in ["pointer.example", "count.example"] {
            let begin = Instant::now();
            let error = resolver.lookup(broken, RecordType::A).await.unwrap_err();
            assert!(matches!(error, ResolveError::Failed { .. }), "{broken}: {error:?}");
            assert!(begin.elapsed() <= Duration::from_secs(10));
        }
    });
}

#[test]
fn nothing_takes_longer_than_it_may() {
    let script = |ask: &Ask| match (ask.name.as_str(), ask.tcp) {
        ("silent.example", _) => Vec::new(),
        // A byte a second, and more announced than ever comes.
        (_, true) => {
            (0..100).flat_map(|_| [Say::Raw(vec![0x7f]), Say::Wait(Duration::from_secs(1))]).collect()
        }
        ("drip.example", false) => vec![Say::Answer(ask.reply(0x8380, &[], &[]))],
        // Aliases without end, each after a while.
        _ => {
            let next = format!("x{}.example", ask.number);
            vec![
                Say::Wait(Duration::from_millis(1500)),
                Say::Answer(ask.reply(0x8180, &[alias(&ask.name, &next)], &[])),
            ]
        }
    };
    with_server(script, |builder, _| async move {
        let resolver = builder.timeout(Duration::from_secs(7)).build();
        for (slow, at_most) in [("silent.example", 4), ("drip.example", 4), ("chain.example", 7)] {
            let begin = Instant::now();
            let error = resolver.lookup(slow, RecordType::A).await.unwrap_err();
            let took = begin.elapsed();
            assert!(
                took <= Duration::from_secs(at_most) + Duration::from_millis(10),
                "{slow}: {took:?} {error}"
            );
            let timed_out = matches!(&error, ResolveError::TimedOut { .. });
            let silent = matches!(&error, ResolveError::Failed { tried, .. } if tried.iter().all(|(_, f)| *f == Failure::Silent));
            assert!(timed_out || silent, "{slow}: {error:?}");
        }
    });
}

#[test]
fn the_next_server_is_asked_and_the_silent_one_comes_last() {
    let script = |ask: &Ask| match (ask.name.as_str(), ask.extended) {
        ("old.example", true) => vec![Say::Answer(ask.reply(0x8181, &[], &[]))],
        ("sick.example", _) => vec![Say::Answer(ask.reply(0x8182, &[], &[]))],
        _ => ask.answer(&[a(&ask.name, [192, 0, 2, 1])]),
    };
    with_server(script, |_, network| async move {
        let dns = network.lookup("dns").await.unwrap()[0];
        let dead = NameServer::Udp(SocketAddr::new(dns, 54));
        let builder = Resolver::builder().network(network).server(dead.clone()).server(dns.into());
        let resolver = builder.build();
        let begin = Instant::now();
        resolver.lookup("one.example", RecordType::A).await.unwrap();
        assert!(begin.elapsed() >= Duration::from_secs(2) && begin.elapsed() < Duration::from_secs(3));
        let begin = Instant::now();
        resolver.lookup("two.example", RecordType::A).await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(1));
        resolver.lookup("old.example", RecordType::A).await.unwrap();
        tokio::time::sleep(Duration::from_secs(31)).await;
        let begin = Instant::now();
        resolver.lookup("three.example", RecordType::A).await.unwrap();
        assert!(begin.elapsed() >= Duration::from_secs(2), "the first has its turn again");
        let error = resolver.lookup("sick.example", RecordType::A).await.unwrap_err();
        let ResolveError::Failed { tried, .. } = error else { panic!("{error:?}") };
        assert!(tried.iter().any(|(_, failure)| matches!(failure, Failure::Refused(_))), "{tried:?}");
    });
}

#[test]
fn answers_are_remembered_as_long_as_they_say() {
    let script = |ask: &Ask| match ask.name.as_str() {
        "gone.example" => vec![Say::Answer(ask.reply(0x8183, &[], &[soa("example", 100)]))],
        "empty.example" => vec![Say::Answer(ask.reply(0x8180, &[], &[soa("example", 100_000)]))],
        "zero.example" => ask.answer(&[record(&ask.name, A, 0, &[192, 0, 2, 1])]),
        _ => ask.answer(&[a(&ask.name, [192, 0, 2, 1])]),
    };
    let asked = with_server(script, |builder, _| async move {
        let resolver = builder.build();
        let look = async |name: &str| resolver.lookup(name, RecordType::A).await;
        // Many at once are one question.
        let many = futures_util::future::join_all((0..20).map(|_| look("many.example"))).await;
        assert!(many.iter().all(Result::is_ok));
        look("long.example").await.unwrap();
        assert_eq!(look("gone.example").await, Err(ResolveError::NotFound("gone.example".into())));
        assert!(matches!(look("empty.example").await, Err(ResolveError::NoRecord { .. })));
        tokio::time::sleep(Duration::from_secs(50)).await;
        let left = look("LONG.example.").await.unwrap()[0].ttl;
        assert!(left > Duration::from_secs(9) && left <= Duration::from_secs(10), "{left:?}");
        tokio::time::sleep(Duration::from_secs(49)).await;
        look("gone.example").await.unwrap_err();
        look("long.example").await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        look("gone.example").await.unwrap_err();
        look("empty.example").await.unwrap_err();
        tokio::time::sleep(Duration::from_secs(200)).await;
        look("empty.example").await.unwrap_err();
        for _ in 0..2 {
            look("zero.example").await.unwrap();
            tokio::time::sleep(Duration::from_millis(1100)).await;
        }
        resolver.clear_cache();
        look("zero.example").await.unwrap();
    });
    let times = |name: &str| asked.iter().filter(|ask| ask.name == name).count();
    assert_eq!(times("many.example"), 1);
    assert_eq!((times("long.example"), times("gone.example"), times("empty.example")), (2, 2, 2));
    assert_eq!(times("zero.example"), 3);
}

#[test]
fn names_are_looked_for_where_they_should_be() {
    let script = |ask: &Ask| match ask.name.as_str() {
        "box.two.example" | "deep.name" => ask.answer(&[a(&ask.name, [192, 0, 2, 1])]),
        _ => vec![Say::Answer(ask.reply(0x8183, &[], &[]))],
    };
    let asked = with_server(script, |builder, _| async move {
        let home = "192.168.0.9".parse().unwrap();
        let resolver = builder.search("one.example").search("two.example").host("Nas.home", home).build();
        let one = async |name: &str| {
            resolver.lookup(name, RecordType::A).await.map(|found| found[0].data.to_string())
        };
        assert_eq!(one("box").await.unwrap(), "192.0.2.1");
        assert_eq!(one("deep.name").await.unwrap(), "192.0.2.1");
        assert!(matches!(one("box.").await, Err(ResolveError::NotFound(_))));
        assert_eq!(one("localhost").await.unwrap(), "127.0.0.1");
        assert_eq!(one("a.localhost").await.unwrap(), "127.0.0.1");
        assert_eq!(one("nas.HOME.").await.unwrap(), "192.168.0.9");
        assert_eq!(one("10.1.2.3").await.unwrap(), "10.1.2.3");
        for nobody in ["x.invalid", "x.onion"] {
            assert!(matches!(one(nobody).await, Err(ResolveError::NotFound(_))));
        }
        for wrong in ["", ".", "a..b", &"x".repeat(64), &"x.".repeat(200)] {
            assert!(matches!(one(wrong).await, Err(ResolveError::Name(_))), "{wrong}");
        }
        assert_eq!(resolver.lookup_ip("::1").await.unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
    });
    let names: Vec<_> = asked.iter().map(|ask| ask.name.as_str()).collect();
    assert_eq!(names, ["box.one.example", "box.two.example", "deep.name", "box"]);
}

#[test]
fn private_addresses_are_refused_where_that_was_said() {
    let script = |ask: &Ask| match ask.name.as_str() {
        "mixed.example" => ask.answer(&[a(&ask.name, [10, 0, 0, 1]), a(&ask.name, [1, 1, 1, 1])]),
        _ => ask.answer(&[a(&ask.name, [127, 0, 0, 1])]),
    };
    with_server(script, |builder, _| async move {
        let strict = builder.clone().refuse_private_addresses().build();
        let error = strict.lookup("evil.example", RecordType::A).await.unwrap_err();
        assert_eq!(error, ResolveError::Private("evil.example".into()));
        assert_eq!(
            found(&strict.lookup("mixed.example", RecordType::A).await.unwrap()),
            ["mixed.example 1.1.1.1"]
        );
        strict.lookup("localhost", RecordType::A).await.unwrap();
        builder.build().lookup("evil.example", RecordType::A).await.unwrap();
    });
}

#[test]
fn both_families_come_and_one_does_not_wait_for_the_other() {
    let six = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let script = move |ask: &Ask| match (ask.name.as_str(), ask.kind) {
        ("slow6.example", AAAA) | ("slow4.example", A) => Vec::new(),
        ("only4.example", AAAA) => ask.answer(&[]),
        ("none.example", _) => vec![Say::Answer(ask.reply(0x8183, &[], &[]))],
        (_, AAAA) => ask.answer(&[record(&ask.name, AAAA, 60, &six)]),
        _ => ask.answer(&[a(&ask.name, [192, 0, 2, 1])]),
    };
    with_server(script, |builder, network| async move {
        let resolver = builder.build();
        let look = async |name: &str| {
            let begin = Instant::now();
            let found = resolver.lookup_ip(name).await;
            (found.map(|found| found.iter().map(IpAddr::is_ipv6).collect::<Vec<_>>()), begin.elapsed())
        };
        assert_eq!(look("both.example").await.0.unwrap(), [true, false]);
        assert_eq!(look("only4.example").await.0.unwrap(), [false]);
        for (name, ipv6) in [("slow6.example", false), ("slow4.example", true)] {
            let (found, took) = look(name).await;
            assert_eq!(found.unwrap(), [ipv6]);
            assert!(took < Duration::from_millis(400), "{name}: {took:?}");
        }
        assert!(matches!(look("none.example").await.0, Err(ResolveError::NotFound(_))));
        // As the names of a network.
        let over = resolver.over(network);
        assert_eq!(over.lookup("both.example").await.unwrap().len(), 2);
        assert_eq!(over.lookup("none.example").await.unwrap_err().kind(), std::io::ErrorKind::NotFound);
    });
}

#[test]
fn services_come_by_priority_and_weight() {
    let script = |ask: &Ask| {
        let srv = |priority: u16, weight: u16, target: &str| {
            let data = [&priority.to_be_bytes()[..], &weight.to_be_bytes(), &[0, 80], &name(target)].concat();
            record(&ask.name, SRV, 60, &data)
        };
        match ask.name.as_str() {
            "_no._tcp.example" => ask.answer(&[srv(0, 0, "")]),
            _ => ask.answer(&[
                srv(2, 1, "last"),
                srv(1, 90, "often"),
                srv(1, 10, "seldom"),
                srv(1, 0, "hardly"),
            ]),
        }
    };
    with_server(script, |builder, _| async move {
        let resolver = builder.build();
        let mut often = 0;
        for _ in 0..200 {
            let services = resolver.lookup_srv("_x._tcp.example").await.unwrap();
            assert_eq!((services.len(), services[3].target.as_str()), (4, "last"));
            often += u32::from(services[0].target == "often");
        }
        assert!((150..200).contains(&often), "{often} of 200");
        assert!(matches!(resolver.lookup_srv("_no._tcp.example").await, Err(ResolveError::NoRecord { .. })));
    });
}

#[test]
fn servers_are_named_in_text() {
    for (text, same) in [
        ("192.0.2.1", "192.0.2.1:53"),
        ("udp://[2001:db8::1]", "[2001:db8::1]:53"),
        ("2001:db8::1", "[2001:db8::1]:53"),
        ("tcp://192.0.2.1:5353", "tcp://192.0.2.1:5353"),
        ("tls://192.0.2.1#dns.example", "tls://192.0.2.1:853#dns.example"),
        ("tls://192.0.2.1", "tls://192.0.2.1:853#192.0.2.1"),
        ("https://192.0.2.1/q?x#dns.example", "https://192.0.2.1:443/q?x#dns.example"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443/dns-query#2001:db8::1"),
    ] {
        let server: NameServer = text.parse().unwrap();
        assert_eq!(server.to_string(), same);
        assert_eq!(server.to_string().parse::<NameServer>().unwrap(), server);
    }
    for wrong in
        ["", "example.org", "http://192.0.2.1", "192.0.2.1/x", "tls://192.0.2.1/x", "https://192.0.2.1/a b"]
    {
        assert!(wrong.parse::<NameServer>().is_err(), "{wrong}");
    }
    assert!(Data::Txt(vec![b"x".to_vec()]).address().is_none());
}
