use std::net::SocketAddr;

use roxmltree::{Document, Node};

use super::*;

fn nodes() -> Vec<(String, IpAddr)> {
    (1..=3).map(|n| (format!("node {n}"), IpAddr::from([192, 168, 0, n]))).collect()
}

fn packet(at: u64, from: u8, to: u8, protocol: Protocol, fate: Fate) -> Line {
    let address = |n| SocketAddr::from(([192, 168, 0, n], 7000));
    Line::Packet {
        at: Duration::from_millis(at),
        sent: Duration::from_millis(at - 2),
        from: address(from),
        to: address(to),
        protocol,
        len: 100,
        fate,
    }
}

fn fault(at: u64, fault: &Fault) -> Line {
    let at = Duration::from_millis(at);
    Line::Fault { at, fault: serde_json::to_string(fault).expect("a fault is JSON") }
}

fn event(at: u64, text: &str) -> Line {
    Line::Event { at: Duration::from_millis(at), node: "node 2".into(), text: text.into() }
}

fn of_class<'a>(page: &'a Document<'_>, class: &str) -> Vec<Node<'a, 'a>> {
    let has = |node: &Node<'_, '_>| {
        node.attribute("class").is_some_and(|all| all.split(' ').any(|one| one == class))
    };
    page.descendants().filter(has).collect()
}

fn number(node: &Node<'_, '_>, name: &str) -> f64 {
    node.attribute(name).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{name} is a number"))
}

fn tip(node: &Node<'_, '_>) -> String {
    let title =
        node.children().find(|child| child.has_tag_name("title") || child.tag_name().name() == "title");
    title.and_then(|title| title.text().map(String::from)).unwrap_or_default()
}

#[test]
fn everything_that_happened_is_in_its_place() {
    let (a, b) = (String::from("node 1"), String::from("node 2"));
    let lines = [
        event(0, "up"),
        packet(100, 1, 2, Protocol::Tcp, Fate::Delivered),
        packet(101, 1, 2, Protocol::Tcp, Fate::Delivered),
        fault(250, &Fault::Partition { a: a.clone(), b: b.clone() }),
        packet(300, 2, 3, Protocol::Udp, Fate::Lost),
        fault(500, &Fault::Crash { node: "node 3".into() }),
        fault(750, &Fault::Heal { a, b }),
        fault(900, &Fault::Restart { node: "node 3".into() }),
        event(1000, "<b>&\u{1b}[31m \"down\""),
    ];
    let nodes = nodes();
    let text = Timeline::new("a run".into(), &nodes, &lines).to_html();
    let page = Document::parse(&text).expect("the page is well formed");

    let lanes = of_class(&page, "life");
    assert_eq!(lanes.len(), 3);
    let (left, right) = (number(&lanes[0], "x1"), number(&lanes[0], "x2"));
    let at = |ms: f64| left + (right - left) * ms / 1000.0;
    let near = |one: f64, other: f64| (one - other).abs() < (right - left) / f64::from(COLUMNS);

    let faults = of_class(&page, "fault");
    let tips: Vec<String> = faults.iter().map(tip).collect();
    assert_eq!(tips, ["partition node 1 – node 2: 250 ms to 750 ms", "crash node 3: 500 ms to 900 ms"]);
    assert!(near(number(&faults[0], "x"), at(250.0)) && near(number(&faults[0], "width"), at(500.0) - left));
    let down = of_class(&page, "down2");
    assert_eq!(down.len(), 1);
    assert!(near(number(&down[0], "x1"), at(500.0)) && near(number(&down[0], "x2"), at(900.0)));
    assert_eq!(number(&down[0], "y1"), number(&lanes[2], "y1"));

    let packets = of_class(&page, "packet");
    let tips: Vec<String> = packets.iter().map(tip).collect();
    let expected = [
        "node 1 > node 2: 2 packets of TCP, 200 bytes, arrived",
        "node 2 > node 3: 1 packets of UDP, 100 bytes, lost",
    ];
    assert_eq!(tips, expected);
    assert!(near(number(&packets[0], "x1"), at(98.0)) && near(number(&packets[0], "x2"), at(100.0)));
    let between = |node: usize| number(&lanes[node], "y1");
    assert!(number(&packets[0], "y1") >= between(0) && number(&packets[0], "y2") <= between(1));
    // What was lost stops on its way.
    assert!(number(&packets[1], "y2") < (between(1) + between(2)) / 2.0);
    assert_eq!((of_class(&page, "cross").len(), of_class(&page, "bar").len()), (1, 1));
    assert_eq!(of_class(&page, "missing").len(), 1);

    let events = of_class(&page, "event");
    assert_eq!(events.len(), 2);
    assert!(near(number(&events[1], "cx"), at(1000.0)));
    // Words of a program are words.
    assert_eq!(tip(&events[1]), "1000 ms: <b>&?[31m \"down\"");
    assert!(!text.contains("<b>"));
}

#[test]
fn a_part_can_be_drawn_and_nothing_too() {
    let nodes = nodes();
    let lines: Vec<Line> = (2..1000).map(|at| packet(at, 1, 2, Protocol::Udp, Fate::Delivered)).collect();
    let whole = Timeline::new("a run".into(), &nodes, &lines);
    let text = whole.to_html();
    let page = Document::parse(&text).expect("the page is well formed");
    let drawn = of_class(&page, "packet").len();
    // Bounded by the columns, however long the run: a packet begins in one or two columns.
    assert!(drawn <= 2 * COLUMNS as usize, "{drawn}");
    let ms = Duration::from_millis;
    let text = whole.between(ms(100), ms(109)).to_html();
    let page = Document::parse(&text).expect("the page is well formed");
    assert_eq!(of_class(&page, "packet").len(), 10, "each for itself");

    let text = Timeline::new("nothing".into(), &[], &[]).to_html();
    assert!(of_class(&Document::parse(&text).expect("the page is well formed"), "packet").is_empty());
}
