//! The picture of a run: faults, nodes, messages and links over time, as one page that needs nothing else.
//!
//! The page is HTML that is also well-formed XML. What belongs to one moment stands on one vertical line:
//! faults on top, from their beginning to their end; a lane for each node, interrupted while it is down, with
//! the events that its program reported; between the lanes the packets, slanted from when they were sent to
//! when they arrived; below, what each link carried, and what it lost. Whatever is drawn has a tooltip.

mod draw;
#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use crate::fault::{Fault, Scenario, TimedFault};
use crate::story::Story;
use crate::trace::{Fate, Line, Protocol};

use self::draw::{Canvas, escaped};

/// Columns of time: what happens within one, between the same nodes and alike, is drawn as one.
const COLUMNS: u32 = 160;
/// Events that the list at the end of the page names.
const LISTED_MAX: usize = 500;

/// A picture of a run that is about to be drawn, over time: faults, nodes with what their programs reported, packets between
/// them, and what each link carried and lost.
#[derive(Clone, Debug)]
#[must_use = "`to_html` draws it"]
pub struct Timeline<'a> {
    title: String,
    nodes: &'a [(String, IpAddr)],
    lines: &'a [Line],
    from: Duration,
    to: Duration,
}

/// Packets of one column that went the same way and met the same fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    from: usize,
    to: usize,
    udp: bool,
    lost: bool,
    sent: u32,
    decided: u32,
}

/// How many they were.
#[derive(Clone, Copy, Debug, Default)]
struct Bundle {
    packets: u64,
    bytes: u64,
}

impl<'a> Timeline<'a> {
    pub(crate) fn new(title: String, nodes: &'a [(String, IpAddr)], lines: &'a [Line]) -> Self {
        let from = lines.iter().map(Line::at).min().unwrap_or_default();
        let to = lines.iter().map(Line::at).max().unwrap_or_default();
        Self { title, nodes, lines, from, to }
    }

    /// Draws only what happened between two moments since the start of the run: the shorter, the more of it can be told
    /// apart. Default: all that the trace holds.
    pub fn between(mut self, from: Duration, to: Duration) -> Self {
        (self.from, self.to) = (from, to);
        self
    }

    /// The page.
    pub fn to_html(&self) -> String {
        let bundles = self.bundles();
        let mut canvas = Canvas::new(self.from, self.to, self.nodes);
        let faults = self.faults();
        canvas.faults(&faults);
        canvas.nodes(&self.lives());
        canvas.packets(&bundles);
        canvas.events(&self.events());
        canvas.links(&bundles);
        let svg = canvas.finish();
        let mut page = String::new();
        let title = escaped(&self.title);
        let _ = write!(
            page,
            "<html xmlns=\"http://www.w3.org/1999/xhtml\"><head><meta charset=\"utf-8\"/><title>{title}</title>\
             <style>{}</style></head><body><h1>{title}</h1>{}{svg}{}</body></html>",
            draw::STYLE,
            draw::legend(),
            self.list()
        );
        page
    }

    fn inside(&self, at: Duration) -> bool {
        (self.from..=self.to).contains(&at)
    }

    /// The column of a moment; those before the picture are in the first.
    fn column(&self, at: Duration) -> u32 {
        let span = (self.to.saturating_sub(self.from)).as_nanos().max(1);
        let at = at.saturating_sub(self.from).as_nanos();
        u32::try_from(at * u128::from(COLUMNS) / span).unwrap_or(COLUMNS).min(COLUMNS - 1)
    }

    /// Packets, in the order of a map, so that equal runs make equal pages.
    fn bundles(&self) -> Vec<(Way, Bundle)> {
        let node = |ip: IpAddr| self.nodes.iter().position(|(_, own)| *own == ip);
        let mut bundles = std::collections::BTreeMap::<Way, Bundle>::new();
        for line in self.lines.iter().filter(|line| self.inside(line.at())) {
            let Line::Packet { at, sent, from, to, protocol, len, fate } = line else { continue };
            let (Some(from), Some(to)) = (node(from.ip()), node(to.ip())) else { continue };
            let lost = match fate {
                Fate::Delivered | Fate::Duplicated | Fate::Reset => false,
                Fate::Lost
                | Fate::Blocked
                | Fate::Partitioned
                | Fate::HostDown
                | Fate::Overflow
                | Fate::NoSocket
                | Fate::Backlog
                | Fate::Corrupted => true,
            };
            let udp = *protocol == Protocol::Udp;
            let (sent, decided) = (self.column(*sent), self.column(*at));
            let bundle = bundles.entry(Way { from, to, udp, lost, sent, decided }).or_default();
            bundle.packets += 1;
            bundle.bytes += *len as u64;
        }
        bundles.into_iter().collect()
    }

    /// Faults with what undid them.
    fn faults(&self) -> Vec<(Duration, Option<Duration>, Fault)> {
        let at = |ms| Duration::from_millis(ms);
        let story = Story::of(&self.scenario());
        let episodes = story.0.into_iter().map(|episode| {
            let TimedFault { at_ms, fault } = episode.begin;
            (at(at_ms), episode.end.map(|end| at(end.at_ms)), fault)
        });
        episodes
            .filter(|(begin, end, _)| *begin <= self.to && end.is_none_or(|end| end >= self.from))
            .collect()
    }

    /// The faults that were applied.
    fn scenario(&self) -> Scenario {
        let mut scenario = Scenario::new();
        for line in self.lines {
            if let Line::Fault { at, fault } = line
                && let Ok(fault) = serde_json::from_str(fault)
            {
                scenario = scenario.at(*at, fault);
            }
        }
        scenario
    }

    /// When which node was down.
    fn lives(&self) -> Vec<(usize, Duration, Duration)> {
        let number = |name: &str| self.nodes.iter().position(|(own, _)| own == name);
        let mut down: Vec<Option<Duration>> = vec![None; self.nodes.len()];
        let mut found = Vec::new();
        for timed in self.scenario().faults {
            let at = Duration::from_millis(timed.at_ms);
            match &timed.fault {
                Fault::Crash { node } | Fault::Kill { node } => {
                    if let Some(node) = number(node) {
                        down[node].get_or_insert(at);
                    }
                }
                Fault::Restart { node } => {
                    if let Some(node) = number(node)
                        && let Some(since) = down[node].take()
                    {
                        found.push((node, since, at));
                    }
                }
                _ => {}
            }
        }
        found.extend((0..).zip(down).filter_map(|(node, since)| since.map(|since| (node, since, self.to))));
        found
    }

    fn events(&self) -> Vec<(usize, Duration, &str)> {
        let events = self.lines.iter().filter_map(|line| match line {
            Line::Event { at, node, text } if self.inside(*at) => {
                let node = self.nodes.iter().position(|(name, _)| name == node)?;
                Some((node, *at, text.as_str()))
            }
            Line::Event { .. } | Line::Packet { .. } | Line::Fault { .. } => None,
        });
        events.collect()
    }

    /// Faults and events in words.
    fn list(&self) -> String {
        let told = |line: &&Line| self.inside(line.at()) && !matches!(line, Line::Packet { .. });
        let mut list = String::from("<h2>Faults and events</h2><pre>");
        for line in self.lines.iter().filter(told).take(LISTED_MAX) {
            let _ = writeln!(list, "{}", escaped(&line.to_string()));
        }
        let more = self.lines.iter().filter(told).count().saturating_sub(LISTED_MAX);
        if more > 0 {
            let _ = writeln!(list, "and {more} more");
        }
        list + "</pre>"
    }
}
