//! The tasks of a peer: one that drives the session by the clock, one that reads each link.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{sleep, sleep_until, timeout};
use vitte_net_proto::{CloseCode, Lane, LinkId, LinkKind, Violation};

use super::core::{Effects, PeerEvent, Shared};
use super::flush::LinkSlot;
use crate::address::Transport;
use crate::transport::{Link, LinkError, LinkReader};

/// How long the driver looks after a session that this side has closed, until the peer has read its CLOSE
/// frame and ends the links.
const GOODBYE: Duration = Duration::from_secs(2);

/// How long a spare link is left alone: by then both sides have the other one.
const SPARE_GRACE: Duration = Duration::from_secs(1);

/// Bytes that a reader hears without waiting, before those whom they have woken get the thread.
const TURN: usize = 256 << 10;

/// Which link takes over when several live: the greatest.
fn preference(transport: Transport) -> u8 {
    match transport {
        Transport::Quic => 3,
        Transport::Tls => 2,
        Transport::Wss => 1,
        Transport::Ws => 0,
    }
}

/// Settles everything when the driver ends, however it ends: also when its runtime is dropped.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.with(|core, _| core.session.lose(CloseCode::SHUTDOWN, "the driver of the session has ended"));
        let links = std::mem::take(&mut self.0.core().links);
        links.values().for_each(|slot| slot.cut());
    }
}

impl Shared {
    /// Starts the task that drives the session until it is over.
    pub(crate) fn start(self: &Arc<Self>) {
        tokio::spawn(drive(Ending(self.clone())));
    }

    /// Gives the session another link; `first` are bytes that came behind its handshake.
    ///
    /// # Errors
    /// The session is over or has links enough: the link, and the code that it should be closed with.
    pub(crate) fn attach(
        self: &Arc<Self>,
        link: Link,
        first: Vec<(Lane, Vec<u8>)>,
    ) -> Result<(), (Box<Link>, CloseCode)> {
        let transport = link.info.transport;
        let kind = LinkKind { lanes: transport == Transport::Quic, preference: preference(transport) };
        let (slot, reader) = self.with(|core, now| {
            let id = LinkId(core.next_link);
            if let Err(code) = core.session.attach(id, kind, now) {
                return Err((Box::new(link), code));
            }
            core.next_link += 1;
            let slot = Arc::new(LinkSlot::new(id, link.info, link.writer));
            core.links.insert(id, slot.clone());
            Ok((slot, link.reader))
        })?;
        reader.spawn(|reader| read(self.clone(), slot, reader, first));
        self.driver.notify_one();
        if self.spare_link(transport).is_some() {
            let shared = Arc::downgrade(self);
            tokio::spawn(async move {
                sleep(SPARE_GRACE).await;
                if let Some(shared) = shared.upgrade() {
                    shared.drop_spare(transport);
                }
            });
        }
        Ok(())
    }

    /// Two nodes that dialled each other at once have two links of one transport, and one is enough: the one
    /// that the greater key dialled. The other is answered, if it was dialled here.
    fn spare_link(&self, transport: Transport) -> Option<Arc<LinkSlot>> {
        let core = self.core();
        if core.session.keeps_own_dial() {
            return None;
        }
        let of = |dialled: bool| {
            let mut slots = core.links.values();
            slots.find(|slot| slot.info.transport == transport && slot.info.dialled == dialled).cloned()
        };
        of(false).and(of(true))
    }

    fn drop_spare(self: &Arc<Self>, transport: Transport) {
        if let Some(slot) = self.spare_link(transport) {
            self.end_spare(&slot, "the peer's own link stays");
        }
    }

    /// Ends the links that were dialled here and that the session does not need, but for the best `keep`.
    pub(crate) fn drop_spares(self: &Arc<Self>, keep: usize) {
        let mut spares: Vec<_> = {
            let core = self.core();
            let spare = |slot: &&Arc<LinkSlot>| slot.info.dialled && core.session.is_spare(slot.id);
            core.links.values().filter(spare).cloned().collect()
        };
        spares.sort_by_key(|slot| std::cmp::Reverse(preference(slot.info.transport)));
        for slot in spares.into_iter().skip(keep) {
            self.end_spare(&slot, "another link carries the session");
        }
    }

    fn end_spare(self: &Arc<Self>, slot: &Arc<LinkSlot>, reason: &'static str) {
        let spare = Violation { code: CloseCode::REDUNDANT, reason };
        slot.refuse(&spare, &mut Context::from_waker(&self.driver_waker));
        self.link_failed(slot, &LinkError::Closed);
    }

    /// Whether any of today's links answers within one second.
    pub(crate) async fn probe(&self) -> bool {
        let links: Vec<LinkId> = self.with(|core, now| {
            core.session.probe(now);
            core.links.keys().copied().collect()
        });
        self.flush();
        let within = Duration::from_millis(1_100);
        let step = Duration::from_millis(20);
        let _ = timeout(within, async {
            while links.iter().any(|link| self.core().links.contains_key(link))
                && !self.core().session.answered()
            {
                sleep(step).await;
            }
        })
        .await;
        let core = self.core();
        core.lost.is_none() && core.session.answered() && !core.links.is_empty()
    }

    /// Asks the peer to open nothing new.
    pub(crate) fn drain(&self) {
        self.with(|core, _| core.session.drain());
        self.flush();
    }

    /// Ends the session in order, as far as its links take the last frame without waiting.
    pub(crate) fn close(&self, code: CloseCode, reason: &str) {
        self.with(|core, _| core.session.close(code, reason));
        self.flush();
        self.driver.notify_one();
    }

    /// This side has closed the session, and a link may still have to carry its last frame.
    pub(crate) fn has_last_words(&self) -> bool {
        let core = self.core();
        core.session.is_closing() && !core.links.is_empty()
    }

    /// The session cannot go on: the peer has begun anew.
    pub(crate) fn lose(&self, code: CloseCode, reason: &str) {
        self.with(|core, _| core.session.lose(code, reason));
        self.driver.notify_one();
    }
}

async fn drive(ending: Ending) {
    let shared = &ending.0;
    loop {
        shared.with(|core, now| {
            core.awake = false;
            if core.session.poll_timeout().is_some_and(|at| at <= now) {
                core.session.handle_timeout(now);
            }
        });
        if shared.flush() {
            yield_now().await;
        }
        // Asked behind both: either may have been what lost it, and then nobody wakes this task again.
        if shared.is_lost() {
            // What its links did not take at once they may take now. Who was told ends them; to cut them
            // before would reset a connection that the last frame is still on.
            let goodbye = async {
                while shared.has_last_words() {
                    shared.driver.notified().await;
                    shared.flush();
                }
            };
            let _ = timeout(GOODBYE, goodbye).await;
            return;
        }
        let due = {
            let now = shared.moment();
            let mut core = shared.core();
            // An earlier alarm stays until it has passed. Most of what it was set for is said before, with
            // something else; to set it anew each time would wake this task for every message.
            let early = core.armed.filter(|&at| at > now);
            core.armed = core.session.poll_timeout().into_iter().chain(early).min();
            core.armed
        };
        match due {
            Some(at) => tokio::select! {
                biased;
                () = shared.driver.notified() => {}
                () = sleep_until(shared.instant(at)) => {}
            },
            None => shared.driver.notified().await,
        }
    }
}

/// What a run of bytes came to.
struct Heard {
    /// How many bytes came since the reader waited for some.
    bytes: usize,
    effects: Effects,
    violation: Option<Violation>,
}

async fn read(shared: Arc<Shared>, slot: Arc<LinkSlot>, mut reader: LinkReader, first: Vec<(Lane, Vec<u8>)>) {
    let mut heard = Heard { bytes: 0, effects: Effects::default(), violation: None };
    // Whether somebody was woken since this task waited.
    let mut woken = false;
    for (lane, run) in first {
        hear(&shared, &slot, lane, &run, &mut heard);
    }
    loop {
        woken |= !(heard.effects.wakes.is_empty() && heard.effects.opened.is_empty());
        if !digest(&shared, &slot, &mut heard).await {
            return;
        }
        // A task that is woken here is run by this thread, and not before this task waits. While bytes come faster
        // than they are read it never does.
        if woken && heard.bytes >= TURN {
            (woken, heard.bytes) = (false, 0);
            yield_now().await;
        }
        let mut waited = false;
        let before = heard.bytes;
        let mut deliver = |lane: Lane, run: &[u8]| hear(&shared, &slot, lane, run, &mut heard);
        let result: Result<(), LinkError> = tokio::select! {
            biased;
            () = slot.cut.notified() => return,
            result = reader.read(&mut deliver) => result,
            () = poll_fn(|_| { waited = true; Poll::<()>::Pending }) => return,
        };
        if waited {
            (woken, heard.bytes) = (false, heard.bytes - before);
        }
        if let Err(error) = result {
            if digest(&shared, &slot, &mut heard).await {
                shared.link_failed(&slot, &error);
            }
            return;
        }
    }
}

fn hear(shared: &Arc<Shared>, slot: &LinkSlot, lane: Lane, run: &[u8], heard: &mut Heard) {
    if heard.violation.is_some() {
        return;
    }
    heard.bytes += run.len();
    let now = shared.moment();
    let mut core = shared.core();
    core.hot = false;
    heard.violation = core.session.handle_bytes(slot.id, lane, run, now).err();
    core.digest(&mut heard.effects);
}

/// Does what the bytes ask for. False when they broke the protocol, and the link is cut.
async fn digest(shared: &Arc<Shared>, slot: &Arc<LinkSlot>, heard: &mut Heard) -> bool {
    let effects = std::mem::take(&mut heard.effects);
    // One task may wait for several things: an answer, and what became of the request.
    let others = effects
        .wakes
        .split_first()
        .map_or(0, |(first, rest)| 1 + usize::from(rest.iter().any(|waker| !waker.will_wake(first))));
    let many = others + effects.opened.len() >= 2;
    if many {
        // What they are about to say goes out in one flush, below.
        shared.core().awake = true;
    }
    shared.carry_out(effects);
    if let Some(violation) = heard.violation.take() {
        tracing::warn!(peer = %shared.id().short(), transport = %slot.info.transport, %violation, "a link is cut");
        slot.refuse(&violation, &mut Context::from_waker(&shared.driver_waker));
        let Violation { code, reason } = violation;
        let (transport, reason) = (slot.info.transport, reason.into());
        let event = PeerEvent::Violation { transport, code, reason, ours: false };
        shared.observer.event(shared, event);
        shared.link_failed(slot, &LinkError::Closed);
        return false;
    }
    if many {
        yield_now().await;
        shared.core().awake = false;
    }
    shared.flush();
    true
}
