//! Who is let in as far as the door: connections that came in and have not become part of a session yet.
//!
//! A newcomer always gets a place. Where there is none, for its address or at all, the one that has made least of its
//! own for the longest time loses it: a connection that has not proven a key goes before one that has, the
//! older before the younger. So a thousand idle connections are in nobody's way but their own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Bytes behind a hello that a peer may send before its own welcome is here, without asking: a hello and a welcome
/// are a tenth of it.
const FREE_BYTES: usize = 4 << 10;
/// Bytes that all peers together may send above that.
const BYTES_MAX: usize = 16 << 20;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// It has proven nothing.
    Stranger,
    /// It has proven a key, which may be anybody's.
    Proven,
}

/// A place, in the order in which places are taken away.
type Place = (Stage, u64);

/// Connections from one source, which are counted together: an IPv4 address, or the network of 64 bits of an
/// IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source(IpAddr);

impl Source {
    fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self(ip.into()),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
        }
    }
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    /// The places of each source; none is empty.
    sources: BTreeMap<Source, BTreeSet<Place>>,
    /// Dropped, or sent on, when a place is lost.
    losing: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Held {
    /// Takes the place away that is worth least, of one source or of the one that has most.
    fn evict(&mut self, source: Option<Source>) -> bool {
        let most = || self.sources.iter().max_by_key(|(_, places)| places.len()).map(|(source, _)| *source);
        let Some(source) = source.or_else(most) else { return false };
        let Some(&place) = self.sources.get(&source).and_then(BTreeSet::first) else { return false };
        self.remove(source, place);
        true
    }

    fn remove(&mut self, source: Source, place: Place) {
        if let Some(places) = self.sources.get_mut(&source) {
            places.remove(&place);
            if places.is_empty() {
                self.sources.remove(&source);
            }
        }
        self.losing.remove(&place.1);
    }
}

/// The places before the door.
#[derive(Debug)]
pub(super) struct Door {
    most: usize,
    most_of_one: usize,
    held: Mutex<Held>,
    bytes: AtomicUsize,
}

impl Door {
    pub(super) fn new(most: usize, most_of_one: usize) -> Self {
        Self { most, most_of_one, held: Mutex::default(), bytes: AtomicUsize::new(0) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // A panic leaves a place behind at worst, which is the first to go.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a newcomer its place.
    pub(super) fn enter(self: &Arc<Self>, ip: IpAddr) -> (Ticket, Eviction) {
        let source = Source::of(ip);
        let (losing, lost) = oneshot::channel();
        let mut held = self.held();
        if held.sources.get(&source).is_some_and(|places| places.len() >= self.most_of_one) {
            held.evict(Some(source));
        } else if held.losing.len() >= self.most {
            held.evict(None);
        }
        let place = (Stage::Stranger, held.next);
        held.next += 1;
        held.sources.entry(source).or_default().insert(place);
        held.losing.insert(place.1, losing);
        drop(held);
        (Ticket { door: Arc::clone(self), source, place }, Eviction(lost))
    }

    /// The process is out of files: makes room for one.
    pub(super) fn make_room(&self) -> bool {
        self.held().evict(None)
    }

    /// Connections before the door.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.held().losing.len()
    }

    /// The bytes that a peer sends before it is let in.
    pub(super) fn allowance(&self) -> Allowance<'_> {
        Allowance { door: self, taken: 0 }
    }
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    door: Arc<Door>,
    source: Source,
    place: Place,
}

impl Ticket {
    /// The connection has proven a key.
    pub(super) fn proven(&mut self) {
        let mut held = self.door.held();
        let place = (Stage::Proven, self.place.1);
        // It may have lost its place a moment ago.
        if let Some(places) = held.sources.get_mut(&self.source)
            && places.remove(&self.place)
        {
            places.insert(place);
            self.place = place;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.door.held().remove(self.source, self.place);
    }
}

/// Comes when a place is lost to a newcomer.
#[derive(Debug)]
pub(super) struct Eviction(oneshot::Receiver<()>);

impl Eviction {
    pub(super) async fn come(self) {
        let _ = self.0.await;
    }
}

/// What one peer has sent before it was let in.
#[derive(Debug)]
pub(super) struct Allowance<'a> {
    door: &'a Door,
    taken: usize,
}

impl Allowance<'_> {
    /// Whether this side may hold so many bytes of the peer.
    pub(super) fn holds(&mut self, bytes: usize) -> bool {
        let need = bytes.saturating_sub(FREE_BYTES);
        if need > self.taken {
            let more = need - self.taken;
            if self.door.bytes.fetch_add(more, Ordering::Relaxed) + more > BYTES_MAX {
                self.door.bytes.fetch_sub(more, Ordering::Relaxed);
                return false;
            }
            self.taken = need;
        }
        true
    }
}

impl Drop for Allowance<'_> {
    fn drop(&mut self) {
        self.door.bytes.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    fn gone(eviction: &mut Eviction) -> bool {
        eviction.0.try_recv() != Err(oneshot::error::TryRecvError::Empty)
    }

    #[test]
    fn the_oldest_stranger_of_the_address_makes_room() {
        let door = Arc::new(Door::new(100, 3));
        let mut first = door.enter(ip(1));
        let mut others: Vec<_> = (0..2).map(|_| door.enter(ip(1))).collect();
        let mut elsewhere = door.enter(ip(2));
        first.0.proven();
        let mut newcomer = door.enter(ip(1));
        assert!(gone(&mut others[0].1) && !gone(&mut others[1].1), "the oldest that has proven nothing");
        assert!(!gone(&mut first.1) && !gone(&mut elsewhere.1) && !gone(&mut newcomer.1));
        others[1].0.proven();
        newcomer.0.proven();
        let _last = door.enter(ip(1));
        assert!(gone(&mut first.1), "all have proven a key: the oldest of them");
        assert_eq!(door.len(), 4);
    }

    #[test]
    fn the_address_with_most_makes_room_for_all() {
        let door = Arc::new(Door::new(8, 100));
        let mut many: Vec<_> = (0..6).map(|_| door.enter(ip(1))).collect();
        let mut lonely: Vec<_> = (2..4).map(|last| door.enter(ip(last))).collect();
        let _newcomers: Vec<_> = (10..14).map(|last| door.enter(ip(last))).collect();
        assert_eq!(many.iter_mut().filter_map(|place| (!gone(&mut place.1)).then_some(())).count(), 2);
        assert!(lonely.iter_mut().all(|place| !gone(&mut place.1)));
        assert_eq!(door.len(), 8);
        assert!(door.make_room());
        assert_eq!(door.len(), 7);
        drop((many, lonely));
    }

    #[test]
    fn places_are_given_back() {
        let door = Arc::new(Door::new(2, 2));
        for _ in 0..10 {
            let (mut ticket, _eviction) = door.enter(ip(1));
            ticket.proven();
        }
        assert_eq!(door.len(), 0);
        assert!(door.held().sources.is_empty());
        let mut evicted = door.enter(ip(1));
        let _others = (door.enter(ip(1)), door.enter(ip(1)));
        evicted.0.proven();
        drop(evicted);
        assert_eq!(door.len(), 2);
        assert!(!Door::new(1, 1).make_room());
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let source = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
    }

    #[test]
    fn bytes_of_strangers_have_a_bound_and_a_hello_always_fits() {
        let door = Door::new(1, 1);
        let mut greedy: Vec<_> = (0..BYTES_MAX / (256 << 10)).map(|_| door.allowance()).collect();
        assert!(greedy.iter_mut().all(|allowance| allowance.holds(256 << 10)));
        let mut honest = door.allowance();
        while honest.holds(256 << 10) {
            greedy.push(std::mem::replace(&mut honest, door.allowance()));
        }
        assert!(greedy.len() <= 65, "{}", greedy.len());
        assert!(honest.holds(FREE_BYTES));
        drop(greedy);
        assert!(honest.holds(512 << 10));
        drop(honest);
        assert_eq!(door.bytes.load(Ordering::Relaxed), 0);
    }
}
