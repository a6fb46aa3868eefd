//! Connections that wait for their next request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::connect::{Channel, Key};
use crate::http::h3::Endpoints;

/// The right to one connection.
pub(super) type Permit = OwnedSemaphorePermit;

/// The connections of a client that nobody uses now, and HTTP/2 connections, which many may use.
#[derive(Debug)]
pub(super) struct Pool {
    idle: Mutex<Idle>,
    /// Connections that have answered and still send the request.
    finishing: Mutex<JoinSet<()>>,
    idle_max: usize,
    idle_time: Duration,
    connections: Arc<Semaphore>,
    /// The UDP sockets of HTTP/3.
    pub(super) endpoints: Endpoints,
}

/// How long a connection that has answered is waited for to take the next request: it may have to send the rest of
/// the last one first.
const READY: Duration = Duration::from_millis(100);

/// Origins whose HTTP/3 is remembered, at most.
const ALTERNATIVES_MAX: usize = 256;

#[derive(Debug, Default)]
struct Idle {
    /// Where HTTP/3 is spoken for an origin, and until when that is known.
    alternatives: BTreeMap<Key, (u16, Instant)>,
    waiting: BTreeMap<Key, Vec<Waiting>>,
    count: usize,
    /// A task that closes what waits too long is running.
    reaper: bool,
}

#[derive(Debug)]
struct Waiting {
    channel: Channel,
    since: Instant,
}

impl Pool {
    pub(super) fn new(idle_max: usize, idle_time: Duration, connections: usize) -> Self {
        let connections = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        let endpoints = Endpoints::default();
        let (idle, finishing) = (Mutex::default(), Mutex::default());
        Self { idle, finishing, idle_max, idle_time, connections, endpoints }
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The port at which an origin speaks HTTP/3, if it said so lately.
    pub(super) fn alternative(&self, key: &Key) -> Option<u16> {
        let idle = self.lock();
        let (port, until) = idle.alternatives.get(key)?;
        (Instant::now() < *until).then_some(*port)
    }

    /// What an origin said of its HTTP/3; none: forget it.
    pub(super) fn learn(&self, key: &Key, found: Option<(u16, Duration)>) {
        let mut idle = self.lock();
        let until = found.and_then(|(port, time)| Some((port, Instant::now().checked_add(time)?)));
        match until {
            Some(found)
                if idle.alternatives.len() < ALTERNATIVES_MAX || idle.alternatives.contains_key(key) =>
            {
                idle.alternatives.insert(key.clone(), found);
            }
            Some(_) => {}
            None => {
                idle.alternatives.remove(key);
            }
        }
    }

    fn lock_finishing(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.finishing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the right to a connection. What only waits in the pool makes room, and what has its answer.
    pub(super) async fn permit(&self) -> Permit {
        let at_once = Arc::clone(&self.connections).try_acquire_owned();
        if let Ok(permit) = at_once {
            return permit;
        }
        {
            let mut idle = self.lock();
            idle.count = 0;
            idle.waiting.clear();
        }
        self.lock_finishing().abort_all();
        match Arc::clone(&self.connections).acquire_owned().await {
            Ok(permit) => permit,
            // Nobody closes the semaphore.
            Err(_) => std::future::pending().await,
        }
    }

    /// A connection that waits, the latest first, if there is one that still stands.
    pub(super) async fn take(self: &Arc<Self>, key: &Key) -> Option<Channel> {
        loop {
            let mut channel = self.pop(key)?;
            if channel.is_closed() {
                continue;
            }
            match timeout(READY, channel.ready()).await {
                Ok(true) => {
                    if let Some(shared) = channel.share() {
                        self.keep(key, shared);
                    }
                    return Some(channel);
                }
                Ok(false) => {}
                Err(_) => self.finish(key, channel),
            }
        }
    }

    /// Lets a connection send the rest of a request, as long as others may wait for one.
    fn finish(self: &Arc<Self>, key: &Key, mut channel: Channel) {
        let (pool, key, time) = (Arc::downgrade(self), key.clone(), self.idle_time);
        let mut finishing = self.lock_finishing();
        while finishing.try_join_next().is_some() {}
        finishing.spawn(async move {
            if timeout(time, channel.ready()).await == Ok(true)
                && let Some(pool) = pool.upgrade()
            {
                pool.keep(&key, channel);
            }
        });
    }

    fn pop(&self, key: &Key) -> Option<Channel> {
        let mut idle = self.lock();
        let waiting = idle.waiting.get_mut(key)?;
        let found = waiting.pop();
        if waiting.is_empty() {
            idle.waiting.remove(key);
        }
        let found = found?;
        idle.count -= 1;
        (found.since.elapsed() < self.idle_time).then_some(found.channel)
    }

    fn put(&self, key: &Key, channel: Channel) -> bool {
        if channel.is_closed() {
            return false;
        }
        let mut idle = self.lock();
        if idle.count >= self.idle_max {
            return false;
        }
        let waiting = idle.waiting.entry(key.clone()).or_default();
        // One of them is enough for all.
        if !matches!(channel, Channel::H1 { .. }) && !waiting.is_empty() {
            return false;
        }
        waiting.push(Waiting { channel, since: Instant::now() });
        idle.count += 1;
        let start = !idle.reaper;
        idle.reaper = true;
        start
    }

    /// The use of a connection for one exchange. An HTTP/2 connection is at once there for others.
    pub(super) fn lease(self: &Arc<Self>, key: &Key, channel: Channel) -> Lease {
        let channel = match channel {
            Channel::H1 { .. } => Some(channel),
            shared => {
                self.keep(key, shared);
                None
            }
        };
        Lease { pool: Arc::clone(self), key: key.clone(), channel }
    }

    fn keep(self: &Arc<Self>, key: &Key, channel: Channel) {
        if self.put(key, channel) {
            tokio::spawn(reap(Arc::downgrade(self), self.idle_time));
        }
    }

    /// Drops what has waited too long. None: nothing waits any more.
    fn sweep(&self) -> Option<Instant> {
        let mut idle = self.lock();
        let mut oldest = None;
        let mut dropped = Vec::new();
        for waiting in idle.waiting.values_mut() {
            let old = |one: &mut Waiting| one.since.elapsed() >= self.idle_time || one.channel.is_closed();
            dropped.extend(waiting.extract_if(.., old));
            oldest = oldest.into_iter().chain(waiting.iter().map(|one| one.since)).min();
        }
        idle.waiting.retain(|_, waiting| !waiting.is_empty());
        idle.count -= dropped.len();
        idle.reaper = oldest.is_some();
        oldest
    }
}

/// Closes connections that have waited too long, until none waits or the client is gone.
async fn reap(pool: Weak<Pool>, idle_time: Duration) {
    loop {
        let Some(oldest) = pool.upgrade().and_then(|pool| pool.sweep()) else { return };
        tokio::time::sleep_until(oldest + idle_time).await;
    }
}

/// One exchange on a connection. Ended well, the connection goes back; dropped, it is closed.
#[derive(Debug)]
pub(in crate::http) struct Lease {
    pool: Arc<Pool>,
    key: Key,
    channel: Option<Channel>,
}

impl Lease {
    pub(super) fn end(mut self) {
        if let Some(channel) = self.channel.take() {
            self.pool.keep(&self.key, channel);
        }
    }
}
