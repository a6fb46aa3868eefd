//! One flow: what was offered, what was told, what was seen.

use super::{Counts, Promise, Tally, Verdict};

#[derive(Debug)]
pub(super) struct Page {
    pub(super) label: String,
    to: String,
    promise: Promise,
    offers: Vec<Offer>,
    /// The greatest number that was seen.
    newest: Option<u64>,
    /// Messages that were seen.
    seen: u64,
    /// What the sender was told last, in numbers.
    counts: Option<Counts>,
    pub(super) sender_waits: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Offer {
    told: Option<Verdict>,
    seen: u32,
    /// Its sender gave up while it was offered.
    withdrawn: bool,
}

impl Page {
    pub(super) fn new(label: String, to: String, promise: Promise) -> Self {
        let (offers, newest) = (Vec::new(), None);
        Self { label, to, promise, offers, newest, seen: 0, counts: None, sender_waits: true }
    }

    pub(super) fn offer(&mut self) -> u64 {
        self.offers.push(Offer::default());
        self.offers.len() as u64 - 1
    }

    fn at(&mut self, number: u64) -> Option<&mut Offer> {
        usize::try_from(number).ok().and_then(|index| self.offers.get_mut(index))
    }

    pub(super) fn settle(&mut self, number: u64, verdict: Verdict) -> Result<(), String> {
        let label = self.label.clone();
        match self.at(number) {
            None => Err(format!("{label}: message {number} was settled and never offered")),
            Some(Offer { told: Some(first), .. }) => {
                Err(format!("{label}: message {number} ended twice: {first:?}, then {verdict:?}"))
            }
            Some(offer) => {
                offer.told = Some(verdict);
                Ok(())
            }
        }
    }

    pub(super) fn withdraw(&mut self, number: u64) {
        if let Some(offer) = self.at(number) {
            offer.withdrawn = true;
        }
    }

    pub(super) fn see(&mut self, at: &str, number: u64) -> Vec<String> {
        let mut found = Vec::new();
        let (label, to, newest) = (self.label.clone(), self.to.clone(), self.newest);
        if at != to {
            found.push(format!("{label}: message {number} is for {to} and was seen by {at}"));
        }
        let ordered = self.promise != Promise::Once;
        self.seen += 1;
        let Some(offer) = self.at(number) else {
            found.push(format!("{label}: {at} saw message {number}, which was never offered"));
            return found;
        };
        offer.seen += 1;
        if offer.seen > 1 {
            found.push(format!("{label}: {at} saw message {number} {} times", offer.seen));
        } else if let Some(newest) = newest.filter(|newest| ordered && *newest > number) {
            found.push(format!("{label}: {at} saw message {number} after {newest}"));
        }
        if let Some(told @ (Verdict::Refused | Verdict::Expired | Verdict::Superseded)) = offer.told {
            found.push(format!("{label}: {at} saw message {number}, whose sender was told {told:?}"));
        }
        self.newest = newest.max(Some(number));
        found.extend(self.counts.and_then(|counts| self.too_many(&counts)));
        found
    }

    pub(super) fn counted(&mut self, counts: Counts) -> Vec<String> {
        let mut found = Vec::new();
        let Counts { offered, delivered, refused, expired, unknown, in_flight } = counts;
        let label = &self.label;
        if offered != delivered + refused + expired + unknown + in_flight {
            found.push(format!("{label}: {counts:?} do not add up"));
        }
        if offered != self.offers.len() as u64 {
            found.push(format!("{label}: {} were offered, and {offered} counted", self.offers.len()));
        }
        if delivered > self.seen {
            found.push(format!("{label}: {delivered} are called delivered, and {} were seen", self.seen));
        }
        if let Some(before) = self.counts {
            let grown = [
                (before.delivered, delivered),
                (before.refused, refused),
                (before.expired, expired),
                (before.unknown, unknown),
            ];
            if grown.iter().any(|(before, now)| before > now) {
                found.push(format!("{label}: {counts:?} were {before:?} before"));
            }
        }
        found.extend(self.too_many(&counts));
        self.counts = Some(counts);
        found
    }

    /// What was refused or has expired cannot be seen.
    fn too_many(&self, counts: &Counts) -> Option<String> {
        let most = (self.offers.len() as u64).saturating_sub(counts.refused + counts.expired);
        (self.seen > most).then(|| format!("{}: {} were seen, of {most} that left", self.label, self.seen))
    }

    /// What two columns say that do not fit.
    pub(super) fn at_the_end(&self) -> Vec<String> {
        let mut found = Vec::new();
        let told_in_numbers = self.counts.is_some();
        for (number, offer) in (0..).zip(&self.offers) {
            let what = match (offer.told, offer.seen) {
                (Some(Verdict::Delivered), 0) => "was called delivered, but never seen",
                // The moment of seeing has said so if the verdict came first.
                (Some(Verdict::Refused), 1..) => "was seen, and called refused",
                (Some(Verdict::Expired), 1..) => "was seen, and called expired",
                (Some(Verdict::Superseded), 1..) => "was seen, and called superseded",
                (Some(Verdict::Superseded), _) if self.promise != Promise::Newest => "was superseded",
                (Some(Verdict::Superseded), _) if self.by_nothing(number) => "was superseded by nothing",
                (None, _) if self.sender_waits && !offer.withdrawn && !told_in_numbers => {
                    "has no outcome, and its sender waits"
                }
                (Some(Verdict::Unknown), 0) if self.is_gap(number) => "is missing, and a later one was seen",
                _ => continue,
            };
            found.push(format!("{}: message {number} {what}", self.label));
        }
        found
    }

    /// No later message can have taken its place: all of them were turned away, or superseded themselves.
    fn by_nothing(&self, number: u64) -> bool {
        let later = usize::try_from(number).map_or(0, |number| number + 1);
        let took_place = |offer: &Offer| offer.told != Some(Verdict::Superseded);
        !self.offers.get(later..).unwrap_or_default().iter().any(took_place)
    }

    fn is_gap(&self, number: u64) -> bool {
        self.promise == Promise::InOrder && self.newest.is_some_and(|newest| newest > number)
    }

    pub(super) fn count(&self, tally: &mut Tally) {
        if let Some(counts) = &self.counts {
            tally.offered += counts.offered;
            tally.seen += self.seen;
            tally.delivered += counts.delivered;
            tally.refused += counts.refused;
            tally.expired += counts.expired;
            tally.unknown += counts.unknown;
            tally.in_flight += counts.in_flight;
            return;
        }
        for offer in &self.offers {
            tally.offered += 1;
            tally.seen += u64::from(offer.seen);
            *match offer.told {
                Some(Verdict::Delivered) => &mut tally.delivered,
                Some(Verdict::Refused) => &mut tally.refused,
                Some(Verdict::Expired) => &mut tally.expired,
                Some(Verdict::Superseded) => &mut tally.superseded,
                Some(Verdict::Unknown) => &mut tally.unknown,
                None => &mut tally.untold,
            } += 1;
        }
    }
}
