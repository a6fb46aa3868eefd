//! Invariants: what must hold in every run, checked while it goes on and once more at its end.
//!
//! A [`Ledger`] is the book of one run that all nodes write in, whatever becomes of them: senders note what
//! they offer and how they are told it ended, receivers what they see. It stands outside of the simulated
//! machines, so that a crash tears no page out. From the two columns follow
//!
//! - **exactly once, in order, unchanged**: each payload carries its flow, its number and a pattern;
//! - **honest outcomes**: what was delivered was seen, what was refused or has expired never was, what is
//!   unknown was seen at most once; and no message below one that was seen is missing;
//! - **an outcome for everything**: at the end no flow has a message whose sender still waits;
//! - **the newest arrives**: where one message may supersede another, none is superseded by nothing;
//! - **true numbers**: where only numbers are told, they add up at every moment, and fit what was seen.
//!
//! Sums of counters, bounds and leaks are for [`Ledger::expect`], at whatever moments a program samples them.
//!
//! ```
//! use vitte_net_sim::invariants::{Ledger, Promise, Verdict};
//!
//! let ledger = Ledger::default();
//! let flow = ledger.flow("orders", "server", Promise::InOrder);
//! let (first, message) = flow.offer(100);
//! ledger.saw("server", &message);
//! flow.settle(first, Verdict::Delivered);
//! assert!(ledger.violations().is_empty());
//!
//! let (second, _) = flow.offer(100);
//! flow.settle(second, Verdict::Delivered);
//! assert!(ledger.violations()[0].contains("delivered, but never seen"));
//! ```

mod bytes;
mod page;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::page::Page;

pub use self::bytes::{ByteFlow, ByteReader};

/// Violations that are kept; the rest is only counted.
const KEPT_MAX: usize = 100;
/// Bytes of a payload that name its flow and its number.
const HEADER: usize = 16;

/// How a sender was told that a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The receiver's application has it.
    Delivered,
    /// It was not taken, and never will be.
    Refused,
    /// Its time passed before it left.
    Expired,
    /// A newer one took its place, and the receiver's application never saw it.
    Superseded,
    /// It left, and nobody can say more.
    Unknown,
}

/// What the messages of a flow may count on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Every message, in the order of the offers.
    InOrder,
    /// The newest ones, in the order of the offers: any may be missing that is not called delivered, but one that
    /// is superseded has a newer one behind it that ended in another way.
    Newest,
    /// Each at most once, in any order: calls that run side by side.
    Once,
    /// Each at most once, in the order of the offers; any may be missing. The sender learns numbers, and not what
    /// became of a single one: see [`Flow::counted`].
    BestEffort,
}

/// What a sender knows of messages that have no outcome of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that were offered.
    pub offered: u64,
    /// Those that the receiver's application took.
    pub delivered: u64,
    /// Those that never left.
    pub refused: u64,
    /// Those whose time passed before they left.
    pub expired: u64,
    /// Those that left, and nobody can say more.
    pub unknown: u64,
    /// The rest.
    pub in_flight: u64,
}

/// What came of the messages of a run, for the line that ends a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages and calls that were offered.
    pub offered: u64,
    /// How often receivers saw one.
    pub seen: u64,
    /// Told as [`Verdict::Delivered`].
    pub delivered: u64,
    /// Told as [`Verdict::Refused`].
    pub refused: u64,
    /// Told as [`Verdict::Expired`].
    pub expired: u64,
    /// Told as [`Verdict::Superseded`].
    pub superseded: u64,
    /// Told as [`Verdict::Unknown`].
    pub unknown: u64,
    /// Of those that only numbers tell of: not decided when last asked.
    pub in_flight: u64,
    /// Never told: the sender crashed, or did not ask.
    pub untold: u64,
    /// Bytes that byte streams have carried.
    pub bytes: u64,
}

impl Tally {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.seen += other.seen;
        self.delivered += other.delivered;
        self.refused += other.refused;
        self.expired += other.expired;
        self.superseded += other.superseded;
        self.unknown += other.unknown;
        self.in_flight += other.in_flight;
        self.untold += other.untold;
        self.bytes += other.bytes;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            offered,
            seen,
            delivered,
            refused,
            expired,
            superseded,
            unknown,
            in_flight,
            untold,
            bytes,
        } = self;
        write!(
            f,
            "{offered} messages and calls offered, {seen} seen: {delivered} delivered, {refused} refused, \
             {expired} expired, {superseded} superseded, {unknown} unknown, {in_flight} datagrams never counted, \
             {untold} of senders that crashed; {} MiB of byte streams",
            bytes >> 20
        )
    }
}

/// The book of one run. See the [module](self). Cheap to clone; every clone writes in the same book.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    pages: BTreeMap<u64, Page>,
    streams: BTreeMap<u64, bytes::Run>,
    next: u64,
    violations: Vec<String>,
    more: usize,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ledger")
    }
}

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a page for one direction of a channel within one session: `to` names the node that it leads to.
    #[must_use]
    pub fn flow(&self, label: impl Into<String>, to: impl Into<String>, promise: Promise) -> Flow {
        let mut book = self.book();
        let id = book.number();
        book.pages.insert(id, Page::new(label.into(), to.into(), promise));
        drop(book);
        Flow(Arc::new(Open { ledger: self.clone(), id }))
    }

    /// The node `at` has taken this message, which [`Flow::offer`] made.
    pub fn saw(&self, at: &str, message: &[u8]) {
        let mut book = self.book();
        let Some((id, number)) = header(message) else {
            return book.accuse(format!("{at} saw a message of {} bytes that nobody offered", message.len()));
        };
        let Some(page) = book.pages.get_mut(&id) else {
            return book.accuse(format!("{at} saw message {number} of flow {id}, which is none"));
        };
        let mut found = page.see(at, number);
        if let Some(offset) = first_change(message, id, number) {
            found.push(format!("{}: message {number} was changed at byte {offset}", page.label));
        }
        found.into_iter().for_each(|violation| book.accuse(violation));
    }

    /// Writes down a violation that somebody else has found.
    pub fn accuse(&self, violation: impl Into<String>) {
        self.book().accuse(violation.into());
    }

    /// Writes down a violation unless `holds`.
    pub fn expect(&self, holds: bool, violation: impl FnOnce() -> String) {
        if !holds {
            self.accuse(violation());
        }
    }

    /// Everything that does not hold, with what only shows at the end: call it when all senders that live
    /// were told everything.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let book = self.book();
        let mut all = book.violations.clone();
        all.extend(book.pages.values().flat_map(Page::at_the_end));
        all.extend(book.streams.values().filter_map(bytes::Run::at_the_end));
        let more = book.more + all.len().saturating_sub(KEPT_MAX);
        all.truncate(KEPT_MAX);
        if more > 0 {
            all.push(format!("and {more} more"));
        }
        all
    }

    /// What does not hold so far, without what only shows at the end.
    #[must_use]
    pub fn accusations(&self) -> Vec<String> {
        self.book().violations.clone()
    }

    /// What came of everything so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let book = self.book();
        let mut tally = Tally::default();
        book.pages.values().for_each(|page| page.count(&mut tally));
        tally.bytes = book.streams.values().map(|run| run.read).sum();
        tally
    }
}

impl Book {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn accuse(&mut self, violation: String) {
        if self.violations.len() < KEPT_MAX {
            self.violations.push(violation);
        } else {
            self.more += 1;
        }
    }
}

/// The sender's side of a page. While any clone of it lives, its sender is believed to wait for outcomes.
#[derive(Clone, Debug)]
pub struct Flow(Arc<Open>);

#[derive(Debug)]
struct Open {
    ledger: Ledger,
    id: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(page) = self.ledger.book().pages.get_mut(&self.id) {
            page.sender_waits = false;
        }
    }
}

impl Flow {
    /// The next message: its number, and its bytes, at least 16 and otherwise `len`. Offer it to the program
    /// under test before the next one.
    #[must_use]
    pub fn offer(&self, len: usize) -> (u64, Vec<u8>) {
        let mut book = self.0.ledger.book();
        let number = book.pages.get_mut(&self.0.id).map_or(0, Page::offer);
        (number, message(self.0.id, number, len))
    }

    /// The sender was told how a message ended.
    pub fn settle(&self, number: u64, verdict: Verdict) {
        let mut book = self.0.ledger.book();
        if let Some(Err(violation)) = book.pages.get_mut(&self.0.id).map(|page| page.settle(number, verdict))
        {
            book.accuse(violation);
        }
    }

    /// What the sender is told of a [best-effort](Promise::BestEffort) flow so far, in numbers. Call it as often as you
    /// like, and once more at the end.
    pub fn counted(&self, counts: &Counts) {
        let mut book = self.0.ledger.book();
        let found = book.pages.get_mut(&self.0.id).map(|page| page.counted(*counts)).unwrap_or_default();
        found.into_iter().for_each(|violation| book.accuse(violation));
    }

    /// The sender gave up while it offered this message: the receiver sees it once or never, and nobody will
    /// say.
    pub fn withdraw(&self, number: u64) {
        if let Some(page) = self.0.ledger.book().pages.get_mut(&self.0.id) {
            page.withdraw(number);
        }
    }

    /// What came of this flow so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        if let Some(page) = self.0.ledger.book().pages.get(&self.0.id) {
            page.count(&mut tally);
        }
        tally
    }
}

fn message(id: u64, number: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len.max(HEADER));
    bytes.extend_from_slice(&id.to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend((HEADER..len).map(|at| pattern(id ^ number, at as u64)));
    bytes
}

fn header(message: &[u8]) -> Option<(u64, u64)> {
    let id = message.get(..8)?.try_into().ok()?;
    let number = message.get(8..HEADER)?.try_into().ok()?;
    Some((u64::from_le_bytes(id), u64::from_le_bytes(number)))
}

fn first_change(message: &[u8], id: u64, number: u64) -> Option<usize> {
    (HEADER..message.len()).find(|at| message[*at] != pattern(id ^ number, *at as u64))
}

/// A byte that depends on where it stands and whose it is.
fn pattern(of: u64, at: u64) -> u8 {
    let mixed = at.wrapping_mul(0x9e37_79b9).wrapping_add(of.wrapping_mul(31)) >> 3;
    mixed.to_le_bytes()[0]
}
