//! Where what is drawn, and how it looks.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use super::{Bundle, COLUMNS, Way};
use crate::fault::Fault;

/// Left of it stand the names.
const LEFT: f64 = 150.0;
const PLOT: f64 = 1440.0;
const RIGHT: f64 = 30.0;
/// A fault, and a row of a link.
const ROW: f64 = 20.0;
/// Between two nodes.
const LANE: f64 = 150.0;
/// Rows of words above the lane of a node.
const WORD_ROWS: usize = 3;
const WORD_ROW: f64 = 13.0;
/// How wide a letter is, about.
const LETTER: f64 = 6.2;

pub(super) const STYLE: &str = "\
body{font:13px system-ui,sans-serif;color:#111827;background:#fff;margin:16px}\
h1{font-size:16px;margin:0 0 8px}h2{font-size:14px;margin:16px 0 4px}\
pre{font-size:12px;white-space:pre-wrap}svg{width:100%;height:auto;display:block}\
svg text{font:11px system-ui,sans-serif;fill:#111827}\
.axis{stroke:#e5e7eb;stroke-width:1}text.tick,text.small{fill:#6b7280}\
text.name{font-weight:bold;font-size:13px}text.title{font-weight:bold;font-size:12px;fill:#6b7280}\
.fault{fill:#f59e0b;fill-opacity:.8}.shade{fill:#f59e0b;fill-opacity:.05}\
.life{stroke:#111827;stroke-width:3}.down{stroke:#fff;stroke-width:5}\
.down2{stroke:#dc2626;stroke-width:2;stroke-dasharray:3 4}\
.udp{stroke:#059669;fill:#059669}.tcp{stroke:#2563eb;fill:#2563eb}\
.packet{fill:none}.lost{stroke:#dc2626;fill:none;stroke-dasharray:2 3}\
.cross{stroke:#dc2626;stroke-width:1.2;fill:none}.bar{stroke:none;fill-opacity:.75}\
.missing{stroke:none;fill:#dc2626;fill-opacity:.75}.event{fill:#7c3aed}.leader{stroke:#7c3aed;stroke-opacity:.35}\
svg text.word{fill:#6d28d9;font-size:10.5px}.legend span{margin-right:18px}\
.legend i{display:inline-block;width:18px;height:8px;margin-right:6px}";

/// What the colours stand for.
pub(super) fn legend() -> String {
    let colours = [
        ("#2563eb", "TCP that arrived"),
        ("#059669", "UDP that arrived"),
        ("#dc2626", "lost, blocked or refused on its way; a node that is down"),
        ("#f59e0b", "a fault, from its beginning to its end"),
        ("#7c3aed", "an event that a program reported"),
    ];
    let mut legend = String::from("<p class=\"legend\">");
    for (colour, what) in colours {
        let _ = write!(legend, "<span><i style=\"background:{colour}\"></i>{what}</span>");
    }
    legend + "</p>"
}

/// Text as HTML and XML can hold it: what they cannot becomes a question mark.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(' '),
            '\u{fffe}' | '\u{ffff}' => out.push('?'),
            control if control.is_control() => out.push('?'),
            letter => out.push(letter),
        }
    }
    out
}

/// The picture as far as it is drawn.
pub(super) struct Canvas<'a> {
    from: Duration,
    to: Duration,
    nodes: &'a [(String, IpAddr)],
    body: String,
    /// How far down it is drawn.
    bottom: f64,
    /// Where the lane of the first node is.
    lanes: f64,
}

impl<'a> Canvas<'a> {
    pub(super) fn new(from: Duration, to: Duration, nodes: &'a [(String, IpAddr)]) -> Self {
        let to = to.max(from + Duration::from_millis(1));
        Self { from, to, nodes, body: String::new(), bottom: 24.0, lanes: 0.0 }
    }

    /// Where a moment is; those outside of the picture are at its edge.
    fn x(&self, at: Duration) -> f64 {
        let at = at.clamp(self.from, self.to) - self.from;
        LEFT + PLOT * (at.as_secs_f64() / (self.to - self.from).as_secs_f64())
    }

    fn column(&self, column: u32) -> f64 {
        LEFT + PLOT * (f64::from(column) + 0.5) / f64::from(COLUMNS)
    }

    #[expect(clippy::cast_precision_loss, reason = "a picture has few nodes and rows")]
    fn lane(&self, node: usize) -> f64 {
        self.lanes + LANE * node as f64
    }

    fn text(&mut self, class: &str, anchor: &str, x: f64, y: f64, text: &str) {
        let text = escaped(text);
        let _ = write!(
            self.body,
            "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>"
        );
    }

    fn heading(&mut self, text: &str) {
        self.bottom += 18.0;
        let y = self.bottom;
        self.text("title", "start", 4.0, y, text);
        self.bottom += 8.0;
    }

    /// A row for each, its words beside its bar.
    pub(super) fn faults(&mut self, faults: &[(Duration, Option<Duration>, Fault)]) {
        self.heading("FAULTS");
        for (begin, end, fault) in faults {
            let (left, right) = (self.x(*begin), self.x(end.unwrap_or(*begin)));
            let width = (right - left).max(3.0);
            let words = words(fault);
            let until = end.map_or(String::new(), |end| format!(" to {}", millis(end)));
            let tip = escaped(&format!("{words}: {}{until}", millis(*begin)));
            let y = self.bottom;
            let _ = write!(
                self.body,
                "<rect class=\"fault\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" rx=\"2\">\
                 <title>{tip}</title></rect>",
                ROW - 6.0
            );
            let room = LETTER * words.chars().count() as f64;
            let (anchor, x) = if left + width + room + 8.0 < LEFT + PLOT {
                ("start", left + width + 5.0)
            } else {
                ("end", left - 5.0)
            };
            self.text("", anchor, x, y + ROW - 9.0, &words);
            self.bottom += ROW;
        }
        if faults.is_empty() {
            let y = self.bottom + 10.0;
            self.text("small", "start", LEFT, y, "none");
            self.bottom += ROW;
        }
    }

    /// The lanes of the nodes, and when which was down.
    pub(super) fn nodes(&mut self, down: &[(usize, Duration, Duration)]) {
        self.heading("NODES AND PACKETS");
        self.lanes = self.bottom + WORD_ROW * WORD_ROWS as f64 + 8.0;
        for (node, (name, ip)) in self.nodes.iter().enumerate() {
            let y = self.lane(node);
            self.text("name", "start", 14.0, y + 1.0, name);
            self.text("small", "start", 14.0, y + 15.0, &ip.to_string());
            let _ = write!(
                self.body,
                "<line class=\"life\" x1=\"{LEFT:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
                LEFT + PLOT
            );
        }
        for (node, since, until) in down {
            let (y, left, right) = (self.lane(*node), self.x(*since), self.x(*until));
            let tip = format!("down from {} to {}", millis(*since), millis(*until));
            for class in ["down", "down2"] {
                let _ = write!(
                    self.body,
                    "<line class=\"{class}\" x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\">\
                     <title>{tip}</title></line>"
                );
            }
        }
        self.bottom = self.lane(self.nodes.len().saturating_sub(1)) + 14.0;
    }

    /// Slanted from lane to lane; what was lost stops in the middle.
    pub(super) fn packets(&mut self, bundles: &[(Way, Bundle)]) {
        let of = |lost| bundles.iter().filter(move |(way, _)| way.from != way.to && way.lost == lost);
        // What was lost stands out, and few lines may be darker than many.
        let dark = (800.0 / bundles.len().max(1) as f64).clamp(0.28, 0.75);
        for (way, bundle) in of(false).chain(of(true)) {
            let (x1, mut x2) = (self.column(way.sent), self.column(way.decided));
            let (y1, mut y2) = (self.lane(way.from), self.lane(way.to));
            let step = if y2 > y1 { 4.0 } else { -4.0 };
            let width = 0.6 + f64::from(bundle.packets.ilog2().min(8)) * 0.35;
            let (from, to) = (&self.nodes[way.from].0, &self.nodes[way.to].0);
            let protocol = if way.udp { "UDP" } else { "TCP" };
            let fate = if way.lost { "lost" } else { "arrived" };
            let Bundle { packets, bytes } = bundle;
            let tip =
                escaped(&format!("{from} > {to}: {packets} packets of {protocol}, {bytes} bytes, {fate}"));
            if way.lost {
                (x2, y2) = (x1 + (x2 - x1) * 0.4, y1 + (y2 - y1) * 0.4);
                let _ = write!(
                    self.body,
                    "<path class=\"cross\" d=\"M{:.1} {:.1}l5 5m0 -5l-5 5\"/>",
                    x2 - 2.5,
                    y2 - 2.5
                );
            }
            let colour = match (way.lost, way.udp) {
                (true, _) => "lost",
                (false, true) => "udp",
                (false, false) => "tcp",
            };
            let opacity = if way.lost { 0.8 } else { dark };
            let (y1, y2) = (y1 + step, if way.lost { y2 } else { y2 - step });
            let _ = write!(
                self.body,
                "<line class=\"packet {colour}\" stroke-width=\"{width:.1}\" \
                 stroke-opacity=\"{opacity:.2}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" \
                 x2=\"{x2:.1}\" y2=\"{y2:.1}\"><title>{tip}</title></line>"
            );
        }
    }

    /// Marks on the lanes, with words above where there is room.
    pub(super) fn events(&mut self, events: &[(usize, Duration, &str)]) {
        let mut free = vec![[LEFT; WORD_ROWS]; self.nodes.len()];
        for (node, at, text) in events {
            let (x, y) = (self.x(*at), self.lane(*node));
            let tip = escaped(&format!("{}: {text}", millis(*at)));
            let _ = write!(
                self.body,
                "<circle class=\"event\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.2\"><title>{tip}</title></circle>"
            );
            let width = LETTER * text.chars().count() as f64 + 6.0;
            let x = x.min(LEFT + PLOT + RIGHT - width);
            let Some(row) = free[*node].iter().position(|free| *free <= x) else { continue };
            free[*node][row] = x + width;
            let word = y - 8.0 - WORD_ROW * row as f64;
            let _ = write!(
                self.body,
                "<line class=\"leader\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{y:.1}\"/>",
                word - 8.0
            );
            self.text("word", "start", x + 2.0, word, text);
        }
    }

    /// What each direction of each link carried, as bars, and what it lost, below them.
    pub(super) fn links(&mut self, bundles: &[(Way, Bundle)]) {
        self.heading("LINKS: BYTES EACH WAY, AND WHAT WAS LOST BELOW THE LINE");
        let most = bundles.iter().map(|(_, bundle)| bundle.bytes).max().unwrap_or(1).max(1) as f64;
        let width = PLOT / f64::from(COLUMNS);
        for from in 0..self.nodes.len() {
            for to in (0..self.nodes.len()).filter(|to| *to != from) {
                for (udp, class, protocol) in [(false, "tcp", "TCP"), (true, "udp", "UDP")] {
                    let mut sums = vec![[Bundle::default(); 2]; COLUMNS as usize];
                    let of_link = |way: &Way| (way.from, way.to, way.udp) == (from, to, udp);
                    for (way, bundle) in bundles.iter().filter(|(way, _)| of_link(way)) {
                        let sum = &mut sums[way.decided as usize][usize::from(way.lost)];
                        sum.packets += bundle.packets;
                        sum.bytes += bundle.bytes;
                    }
                    if sums.iter().flatten().all(|sum| sum.packets == 0) {
                        continue;
                    }
                    let line = self.bottom + ROW - 4.0;
                    let name = format!("{} > {} {protocol}", self.nodes[from].0, self.nodes[to].0);
                    self.text("", "start", 14.0, line, &name);
                    for (column, [arrived, lost]) in (0..).zip(&sums) {
                        let x = self.column(column) - width / 2.0;
                        for (bundle, class, down) in
                            [(arrived, format!("bar {class}"), false), (lost, "missing".into(), true)]
                        {
                            if bundle.packets == 0 {
                                continue;
                            }
                            // A packet without bytes is seen too.
                            let height = 1.0 + (bundle.bytes as f64 / most).sqrt() * (ROW - 8.0);
                            let (height, y) = if down { (3.0, line + 0.5) } else { (height, line - height) };
                            let _ = write!(
                                self.body,
                                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
                                 height=\"{height:.1}\"><title>{}: {} packets, {} bytes</title></rect>",
                                escaped(&name),
                                bundle.packets,
                                bundle.bytes
                            );
                        }
                    }
                    self.bottom += ROW + 2.0;
                }
            }
        }
    }

    /// The axis behind everything, and the whole.
    pub(super) fn finish(self) -> String {
        let (height, width) = (self.bottom + 26.0, LEFT + PLOT + RIGHT);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\">"
        );
        let step = tick(self.to - self.from);
        let first = self.from.as_nanos().div_ceil(step.as_nanos());
        for number in first..=self.to.as_nanos() / step.as_nanos() {
            let at = Duration::from_nanos(u64::try_from(number * step.as_nanos()).unwrap_or(u64::MAX));
            let x = self.x(at);
            let bottom = self.bottom + 8.0;
            let _ = write!(
                svg,
                "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"20\" y2=\"{bottom:.1}\"/>"
            );
            for y in [14.0, self.bottom + 20.0] {
                let _ = write!(
                    svg,
                    "<text class=\"tick\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>",
                    millis(at)
                );
            }
        }
        svg + &self.body + "</svg>"
    }
}

/// About sixteen of them, at round times.
fn tick(span: Duration) -> Duration {
    let steps = [1, 2, 5, 10, 20, 50, 100, 200, 250, 500, 1000, 2000, 5000, 10_000, 20_000, 60_000];
    let steps = steps.map(Duration::from_millis);
    steps.into_iter().find(|step| *step * 18 >= span).unwrap_or(span / 16)
}

fn millis(at: Duration) -> String {
    let ms = at.as_secs_f64() * 1e3;
    if at < Duration::from_secs(10) { format!("{ms:.0} ms") } else { format!("{:.1} s", ms / 1e3) }
}

/// A fault in a few words.
fn words(fault: &Fault) -> String {
    let nodes = fault.nodes().join(if one_way(fault) { " > " } else { " – " });
    let kind = fault.kind().replace('_', " ");
    let percent = |rate: &f64| format!(" {:.0} %", rate * 100.0);
    let more = match fault {
        Fault::Latency { latency_ms, jitter_ms, .. } => format!(" {latency_ms} ms + {jitter_ms} ms"),
        Fault::Bandwidth { bytes_per_second, .. } => format!(" {} kB/s", bytes_per_second / 1000),
        Fault::Reorder { rate, delay_ms, .. } => format!("{} by {delay_ms} ms", percent(rate)),
        Fault::Loss { rate, .. } | Fault::Duplicate { rate, .. } | Fault::Corrupt { rate, .. } => {
            percent(rate)
        }
        _ => String::new(),
    };
    format!("{kind} {nodes}{more}")
}

fn one_way(fault: &Fault) -> bool {
    matches!(fault, Fault::PartitionOneWay { .. } | Fault::BlockTcpOneWay { .. })
}
