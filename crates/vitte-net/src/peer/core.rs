//! What the handles, the driver and the readers of a peer share.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;
use vitte_net_proto::{
    CloseCode, Counters, Event, LinkId, Moment, OpenError, OpenInfo, Outcome, PeerId, SendError, Session,
    StreamCode, StreamId, Taken,
};

use super::flush::LinkSlot;
use super::receipts::{Receipt, Receipts};
use crate::address::Transport;
use crate::channel::Carrier;
use crate::channel::waiting::{Place, Waiter, Waiters};

/// Bytes enqueued and not yet flushed at which a sender flushes itself instead of leaving it to the driver.
const BATCH: usize = 128 << 10;

/// What the owner of all peers must know.
pub(crate) trait Observer: Send + Sync {
    /// The peer opened a stream: accept it or refuse it.
    fn opened(&self, peer: &Arc<Shared>, stream: StreamId, info: OpenInfo);
    /// Something happened to the session.
    fn event(&self, peer: &Arc<Shared>, event: PeerEvent);
}

/// What happens to a session.
#[derive(Clone, Debug)]
pub(crate) enum PeerEvent {
    Carried(Transport),
    Stalled,
    Unreachable,
    Draining,
    Throttled,
    Violation { transport: Transport, code: CloseCode, reason: String, ours: bool },
    Lost(CloseCode, String),
}

/// Who waits for what on one stream.
#[derive(Debug, Default)]
struct Watch {
    readable: Option<Waker>,
    room: Waiters,
    opening: Option<Waker>,
    accepted: bool,
    stopped: Option<(StreamCode, String)>,
    stopping: Waiters,
}

/// The state of a peer, under one lock that is never held across an await or a write to a socket.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) session: Session,
    pub(super) links: BTreeMap<LinkId, Arc<LinkSlot>>,
    pub(super) next_link: u64,
    watches: BTreeMap<StreamId, Watch>,
    receipts: Receipts,
    wants_stream: Waiters,
    /// A caller wrote at once since bytes last came in.
    pub(super) hot: bool,
    /// Somebody is about to flush: enqueueing is enough.
    pub(super) awake: bool,
    /// Bytes enqueued since the last flush.
    pub(super) pending: usize,
    /// When the driver wakes by itself: not after the session is due, perhaps before.
    pub(super) armed: Option<Moment>,
    /// Sessions that were asked for a sign of life wait here.
    pub(super) lost: Option<(CloseCode, String)>,
}

/// What is to be done once the lock is released.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) wakes: Vec<Waker>,
    pub(super) opened: Vec<(StreamId, OpenInfo)>,
    pub(super) events: Vec<PeerEvent>,
    pub(super) cut: Vec<Arc<LinkSlot>>,
}

impl Core {
    /// Takes what the session has to say.
    pub(super) fn digest(&mut self, effects: &mut Effects) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Opened { stream, info } => {
                    self.watches.entry(stream).or_default().accepted = true;
                    effects.opened.push((stream, info));
                }
                Event::Accepted(stream) => self.watch(stream, effects, |watch, wakes| {
                    watch.accepted = true;
                    wakes.extend(watch.opening.take());
                }),
                Event::Readable(stream) => {
                    self.watch(stream, effects, |watch, wakes| wakes.extend(watch.readable.take()));
                }
                Event::Writable(stream) => {
                    self.watch(stream, effects, |watch, wakes| wakes.extend(watch.room.take()))
                }
                Event::Finished(stream) => self.watch(stream, effects, |watch, wakes| {
                    watch.stopped = Some((StreamCode::FINISHED, String::new()));
                    wakes.extend(watch.room.take());
                    wakes.extend(watch.stopping.take());
                }),
                Event::Stopped { stream, code, reason } => self.watch(stream, effects, |watch, wakes| {
                    watch.stopped = Some((code, reason));
                    wakes.extend(watch.room.take());
                    wakes.extend(watch.opening.take());
                    wakes.extend(watch.stopping.take());
                }),
                Event::Settled { token, outcome } => self.receipts.settle(token, outcome, &mut effects.wakes),
                Event::MoreStreams => effects.wakes.extend(self.wants_stream.take()),
                Event::LinkDead { link, code, reason } => {
                    let slot = self.links.remove(&link);
                    let peer = self.session.remote();
                    if let Some(slot) = slot.as_ref().filter(|_| code.is_violation()) {
                        let transport = slot.info.transport;
                        tracing::warn!(peer = %peer.short(), %transport, %code, ?reason, "the peer has cut a link: this side broke a rule");
                        effects.events.push(PeerEvent::Violation { transport, code, reason, ours: true });
                    } else {
                        tracing::debug!(peer = %peer.short(), %code, ?reason, "a link is dead");
                    }
                    effects.cut.extend(slot);
                }
                Event::Stalled(_) => effects.events.push(PeerEvent::Stalled),
                Event::Unreachable => effects.events.push(PeerEvent::Unreachable),
                Event::Carried(link) => {
                    if let Some(slot) = self.links.get(&link) {
                        effects.events.push(PeerEvent::Carried(slot.info.transport));
                    }
                }
                Event::Draining => effects.events.push(PeerEvent::Draining),
                Event::Throttled => {
                    let peer = self.session.remote();
                    tracing::warn!(peer = %peer.short(), "gives up streams faster than it may: it opens new ones no faster than that");
                    effects.events.push(PeerEvent::Throttled);
                }
                Event::Lost { code, reason } => self.lose(code, reason, effects),
                _ => {}
            }
        }
    }

    /// Wakes the driver if the session has become due earlier than it knows.
    pub(super) fn rearm(&mut self, driver: &Notify) {
        if let Some(at) = self.session.poll_timeout()
            && self.armed.is_none_or(|armed| at < armed)
        {
            self.armed = Some(at);
            driver.notify_one();
        }
    }

    fn watch(
        &mut self,
        stream: StreamId,
        effects: &mut Effects,
        f: impl FnOnce(&mut Watch, &mut Vec<Waker>),
    ) {
        if let Some(watch) = self.watches.get_mut(&stream) {
            f(watch, &mut effects.wakes);
        }
    }

    fn lose(&mut self, code: CloseCode, reason: String, effects: &mut Effects) {
        for watch in self.watches.values_mut() {
            let lost = (StreamCode::SHUTDOWN, String::from("the session is over"));
            watch.stopped.get_or_insert(lost);
            effects.wakes.extend(watch.readable.take().into_iter().chain(watch.opening.take()));
            effects.wakes.extend(watch.stopping.take());
            effects.wakes.extend(watch.room.take());
        }
        effects.wakes.extend(self.wants_stream.take());
        self.lost = Some((code, reason.clone()));
        effects.events.push(PeerEvent::Lost(code, reason));
    }
}

#[derive(Debug)]
struct DriverWaker(Arc<Notify>);

impl Wake for DriverWaker {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// See [`Core`]. Handles, readers and the driver hold it together.
pub(crate) struct Shared {
    id: PeerId,
    /// Itself, for those that keep it.
    me: Weak<Self>,
    start: Instant,
    core: Mutex<Core>,
    pub(super) driver: Arc<Notify>,
    pub(super) driver_waker: Waker,
    pub(super) observer: Arc<dyn Observer>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(make: impl FnOnce(Moment) -> Session, observer: Arc<dyn Observer>) -> Arc<Self> {
        let session = make(Moment::ZERO);
        let driver = Arc::new(Notify::new());
        Arc::new_cyclic(|me| Self {
            id: session.remote(),
            me: me.clone(),
            start: Instant::now(),
            core: Mutex::new(Core {
                session,
                links: BTreeMap::new(),
                next_link: 0,
                watches: BTreeMap::new(),
                receipts: Receipts::default(),
                wants_stream: Waiters::default(),
                hot: false,
                awake: false,
                pending: 0,
                armed: None,
                lost: None,
            }),
            driver_waker: Waker::from(Arc::new(DriverWaker(driver.clone()))),
            driver,
            observer,
        })
    }

    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        // A panic while the lock was held left a session that is whole: its methods do not stop half way.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn id(&self) -> PeerId {
        self.id
    }

    pub(super) fn moment(&self) -> Moment {
        Moment::ZERO + self.start.elapsed()
    }

    pub(super) fn instant(&self, at: Moment) -> Instant {
        self.start + at.since(Moment::ZERO)
    }

    pub(crate) fn transport(&self) -> Option<Transport> {
        let core = self.core();
        let active = core.session.active_link()?;
        core.links.get(&active).map(|slot| slot.info.transport)
    }

    pub(crate) fn links(&self) -> usize {
        self.core().links.len()
    }

    /// How the links of the session travel.
    pub(crate) fn transports(&self) -> Vec<Transport> {
        self.core().links.values().map(|slot| slot.info.transport).collect()
    }

    /// The link that carries the session owes an answer for too long.
    pub(crate) fn is_stalled(&self) -> bool {
        self.core().session.is_stalled()
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.core().lost.is_some()
    }

    pub(crate) fn is_idle(&self) -> bool {
        let core = self.core();
        core.lost.is_some() || core.session.is_idle()
    }

    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.core().session.round_trip()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.core().session.counters()
    }

    /// Changes the session, and does what follows from it.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Core, Moment) -> T) -> T {
        let mut effects = Effects::default();
        let now = self.moment();
        let result = {
            let mut core = self.core();
            let result = change(&mut core, now);
            core.digest(&mut effects);
            result
        };
        self.carry_out(effects);
        result
    }

    /// As [`with`](Self::with), and what was enqueued goes out: at once if nothing else is under way, with
    /// the next flush otherwise.
    fn say<T>(&self, bytes: usize, change: impl FnOnce(&mut Core, Moment) -> T) -> T {
        let (result, flush) = self.with(|core, now| {
            let result = change(core, now);
            core.pending += bytes;
            let flush = if core.pending >= BATCH || (!core.awake && !core.hot) {
                core.hot = true;
                true
            } else {
                if !core.awake {
                    core.awake = true;
                    self.driver.notify_one();
                }
                false
            };
            (result, flush)
        });
        if flush {
            self.flush();
        }
        result
    }

    pub(super) fn carry_out(&self, effects: Effects) {
        effects.wakes.into_iter().for_each(Waker::wake);
        for slot in effects.cut {
            slot.cut();
        }
        if effects.opened.is_empty() && effects.events.is_empty() {
            return;
        }
        // Whoever calls holds it in an `Arc`: there is no other way to make one.
        let Some(me) = self.me.upgrade() else { return };
        for (stream, info) in effects.opened {
            self.observer.opened(&me, stream, info);
        }
        for event in effects.events {
            if matches!(event, PeerEvent::Lost(..)) {
                // It ends the links, and has no other alarm any more.
                self.driver.notify_one();
            }
            self.observer.event(&me, event);
        }
    }
}

fn replace(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

impl Carrier for Shared {
    fn peer(&self) -> PeerId {
        self.id
    }

    fn now(&self) -> Moment {
        self.moment()
    }

    fn poll_open(
        &self,
        cx: &mut Context<'_>,
        waiter: &mut Waiter,
        info: &OpenInfo,
        only: Option<&Bytes>,
    ) -> Poll<Result<(StreamId, u64), OpenError>> {
        self.say(only.map_or(0, Bytes::len), |core, _| {
            let id = match core.session.open(info.clone()) {
                Ok(id) => id,
                Err(OpenError::TooMany) => {
                    core.wants_stream.keep(waiter, cx);
                    return Poll::Pending;
                }
                Err(error) => return Poll::Ready(Err(error)),
            };
            core.watches.insert(id, Watch::default());
            let Some(request) = only else { return Poll::Ready(Ok((id, 0))) };
            let token = core.receipts.add();
            if core.session.send(id, request.clone(), token, info.deadline, false).is_err() {
                core.receipts.settle(token, Outcome::Refused(StreamCode::TOO_LARGE), &mut Vec::new());
                core.receipts.drop_receipt(token);
                return Poll::Ready(Ok((id, 0)));
            }
            core.session.finish(id);
            Poll::Ready(Ok((id, token)))
        })
    }

    fn poll_accepted(&self, cx: &mut Context<'_>, id: StreamId) -> Poll<Result<(), (StreamCode, String)>> {
        let mut core = self.core();
        let lost = core.lost.is_some();
        let Some(watch) = core.watches.get_mut(&id) else {
            return Poll::Ready(Err((StreamCode::SHUTDOWN, String::new())));
        };
        match &watch.stopped {
            // Who accepts may still want nothing of one direction.
            _ if watch.accepted && !lost => Poll::Ready(Ok(())),
            Some((code, reason)) => Poll::Ready(Err((*code, reason.clone()))),
            None => {
                replace(&mut watch.opening, cx);
                Poll::Pending
            }
        }
    }

    fn poll_send(
        &self,
        cx: Option<(&mut Context<'_>, &mut Waiter)>,
        id: StreamId,
        payload: &Bytes,
        deadline: Option<Moment>,
        receipt: bool,
    ) -> Poll<Result<u64, SendError>> {
        self.say(payload.len(), |core, _| {
            let token = if receipt { core.receipts.add() } else { 0 };
            let sent = core.session.send(id, payload.clone(), token, deadline, cx.is_some());
            if sent.is_err() {
                core.receipts.settle(token, Outcome::Expired, &mut Vec::new());
                core.receipts.drop_receipt(token);
            }
            match (sent, cx) {
                (Err(SendError::Full), Some((cx, waiter))) => {
                    if let Some(watch) = core.watches.get_mut(&id) {
                        watch.room.keep(waiter, cx);
                    }
                    Poll::Pending
                }
                (sent, _) => Poll::Ready(sent.map(|()| token)),
            }
        })
    }

    fn send_only(&self, id: StreamId, payload: &Bytes) -> Result<(), SendError> {
        self.say(payload.len(), |core, _| {
            core.session.send(id, payload.clone(), 0, None, false)?;
            core.session.finish(id);
            Ok(())
        })
    }

    fn poll_take(&self, cx: &mut Context<'_>, id: StreamId, max: usize) -> Poll<Taken> {
        let (taken, flush) = self.with(|core, now| {
            let taken = core.session.take(id, max, now);
            if taken == Taken::Empty
                && let Some(watch) = core.watches.get_mut(&id)
            {
                replace(&mut watch.readable, cx);
            }
            let flush = core.session.wants_flush() && !core.awake;
            if !flush {
                // What may wait for company has its time, too.
                core.rearm(&self.driver);
            }
            (taken, flush)
        });
        if flush {
            self.flush();
        }
        if taken == Taken::Empty { Poll::Pending } else { Poll::Ready(taken) }
    }

    fn poll_stopped(
        &self,
        cx: &mut Context<'_>,
        waiter: &mut Waiter,
        id: StreamId,
    ) -> Poll<(StreamCode, String)> {
        let mut core = self.core();
        let Some(watch) = core.watches.get_mut(&id) else {
            return Poll::Ready((StreamCode::SHUTDOWN, String::new()));
        };
        match &watch.stopped {
            Some(stopped) => Poll::Ready(stopped.clone()),
            None => {
                watch.stopping.keep(waiter, cx);
                Poll::Pending
            }
        }
    }

    fn leave(&self, place: Place, waiter: &Waiter) {
        let mut core = self.core();
        let waiters = match place {
            Place::Open => Some(&mut core.wants_stream),
            Place::Room(id) => core.watches.get_mut(&id).map(|watch| &mut watch.room),
            Place::Stop(id) => core.watches.get_mut(&id).map(|watch| &mut watch.stopping),
        };
        waiters.into_iter().for_each(|waiters| waiters.leave(waiter));
    }

    fn poll_receipt(&self, cx: &mut Context<'_>, token: u64) -> Poll<Outcome> {
        let mut core = self.core();
        match core.receipts.slot(token) {
            Some((_, Receipt::Done(outcome))) => Poll::Ready(*outcome),
            Some((_, Receipt::Pending(waker))) => {
                replace(waker, cx);
                Poll::Pending
            }
            // Only a driver that died with its runtime leaves a receipt without an outcome.
            Some((_, Receipt::Free | Receipt::Dropped)) | None => Poll::Ready(Outcome::Unknown),
        }
    }

    fn drop_receipt(&self, token: u64) {
        self.core().receipts.drop_receipt(token);
    }

    fn accept(&self, id: StreamId) {
        self.with(|core, now| core.session.accept(id, now));
    }

    fn refuse(&self, id: StreamId, code: StreamCode, reason: &str) {
        self.say(0, |core, now| core.session.refuse(id, code, reason, now));
    }

    fn finish(&self, id: StreamId) {
        self.say(0, |core, _| core.session.finish(id));
    }

    fn reset(&self, id: StreamId, code: StreamCode, reason: &str) {
        self.say(0, |core, now| core.session.reset(id, code, reason, now));
    }

    fn stop(&self, id: StreamId, code: StreamCode, reason: &str) {
        self.say(0, |core, now| core.session.stop(id, code, reason, now));
    }

    fn release(&self, id: StreamId) {
        self.with(|core, now| {
            core.watches.remove(&id);
            core.session.release(id, now);
            if core.session.wants_flush() && !core.awake {
                core.awake = true;
                self.driver.notify_one();
            } else {
                core.rearm(&self.driver);
            }
        });
    }

    fn counters(&self, id: StreamId) -> Option<Counters> {
        self.core().session.stream_counters(id)
    }

    fn is_over(&self) -> bool {
        self.is_lost()
    }
}
