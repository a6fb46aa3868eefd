//! Reaching peers: all their addresses in a staggered race, again and again where that is wanted.

use std::cmp::Reverse;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use vitte_net_proto::dial::{Backoff, Race, RaceStep};
use vitte_net_proto::{Moment, PeerId};

use super::Inner;
use super::establish::HandshakeError;
use crate::address::{Address, Transport};
use crate::peer::Shared;

/// A link that lived as long was no accident: the waits between dials begin anew.
const STEADY: Duration = Duration::from_secs(1);
/// Rounds of dialling one peer begin at least this far apart, whoever asks for them.
pub(super) const APART: Duration = Duration::from_secs(1);
/// A random part of it more, so that nodes that lost a peer together do not come back together.
const SCATTER: Duration = Duration::from_millis(250);

/// Why a peer was not reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// No address of the peer is known.
    #[error("no address of {0} is known")]
    NoAddress(PeerId),
    /// None of the addresses led to the peer; what each came to.
    #[error("no address led to the peer: {}", list(.0))]
    Failed(Vec<(Address, HandshakeError)>),
    /// Not all addresses came to an end in time (`Config::dial_timeout`).
    #[error("not reached within the time for a round of dialling")]
    TimedOut,
    /// This mesh is draining or gone.
    #[error("this mesh is draining")]
    Draining,
}

fn list(failures: &[(Address, HandshakeError)]) -> String {
    failures.iter().map(|(address, error)| format!("{address}: {error}")).collect::<Vec<_>>().join("; ")
}

/// What is tried first: one round trip less, no head-of-line blocking, then what passes most walls.
pub(super) fn rank(transport: Transport) -> u8 {
    match transport {
        Transport::Quic => 3,
        Transport::Tls => 2,
        Transport::Wss => 1,
        Transport::Ws => 0,
    }
}

impl Inner {
    /// A reachable session with `peer`: today's, or one over the first address that leads to it.
    pub(super) async fn reach(self: &Arc<Self>, peer: PeerId) -> Result<Arc<Shared>, DialError> {
        let most = self.config.peers_max;
        let gate = {
            let mut state = self.state();
            if state.draining {
                return Err(DialError::Draining);
            }
            state.entry(peer, most).ok_or(DialError::NoAddress(peer))?.gate.clone()
        };
        let _turn = gate.lock().await;
        if let Some(session) = self.reachable(peer) {
            return Ok(session);
        }
        self.turn_to_dial(peer).await;
        if let Some(session) = self.reachable(peer) {
            return Ok(session);
        }
        let mut addresses = {
            let mut state = self.state();
            if state.draining {
                return Err(DialError::Draining);
            }
            state.entry(peer, most).map(|entry| entry.addresses.clone()).unwrap_or_default()
        };
        if addresses.is_empty() {
            return Err(DialError::NoAddress(peer));
        }
        addresses.sort_by_key(|address| Reverse(rank(address.transport())));
        match timeout(self.config.dial_timeout, self.race(peer, addresses)).await {
            Ok(result) => result,
            Err(_) => Err(DialError::TimedOut),
        }
    }

    fn reachable(&self, peer: PeerId) -> Option<Arc<Shared>> {
        self.session_of(peer).map(|(session, _)| session).filter(|session| session.transport().is_some())
    }

    /// When the next round of dialling a peer may begin, if that is not now.
    pub(super) fn next_round(&self, peer: PeerId) -> Option<Instant> {
        let last = self.state().peers.get(&peer)?.dialled.filter(|last| last.elapsed() < APART)?;
        let mut chance = [0; 4];
        self.network.fill_random(&mut chance);
        let part = f64::from(u32::from_ne_bytes(chance)) / f64::from(u32::MAX);
        Some(last + APART + SCATTER.mul_f64(part))
    }

    /// Waits until a round of dialling may begin, or until the peer is reachable without.
    async fn turn_to_dial(&self, peer: PeerId) {
        // Before the first look: nothing may fall in between.
        let mut events = self.subscribe();
        let Some(at) = self.next_round(peer) else { return };
        let mut turn = pin!(sleep_until(at));
        while self.reachable(peer).is_none() {
            tokio::select! {
                biased;
                () = &mut turn => return,
                event = events.recv() => if matches!(event, Err(RecvError::Closed)) { return },
            }
        }
    }

    /// Dials addresses in a staggered race; the others are given up when one has led to the peer.
    pub(super) async fn race(
        self: &Arc<Self>,
        peer: PeerId,
        addresses: Vec<Address>,
    ) -> Result<Arc<Shared>, DialError> {
        tracing::debug!(node = %self.id.short(), peer = %peer.short(), addresses = addresses.len(), "dials a peer");
        let start = Instant::now();
        if let Some(entry) = self.state().peers.get_mut(&peer) {
            entry.dialled = Some(start);
        }
        let mut race = Race::new(addresses.len(), self.config.dial_stagger);
        let mut attempts = JoinSet::new();
        let mut failures = Vec::new();
        loop {
            let wake = match race.step(Moment::ZERO + start.elapsed()) {
                RaceStep::Start(number) => {
                    let (mesh, address) = (self.clone(), addresses[number].clone());
                    attempts.spawn(async move {
                        let result = mesh.dial_one(&address, Some(peer)).await;
                        (address, result)
                    });
                    continue;
                }
                RaceStep::WaitUntil(at) => Some(start + at.since(Moment::ZERO)),
                RaceStep::WaitForEnds => None,
                RaceStep::Lost => return Err(DialError::Failed(failures)),
            };
            let ended = match wake {
                Some(at) => tokio::select! {
                    biased;
                    Some(ended) = attempts.join_next() => ended,
                    () = sleep_until(at) => continue,
                },
                None => match attempts.join_next().await {
                    Some(ended) => ended,
                    None => return Err(DialError::Failed(failures)),
                },
            };
            match ended {
                Ok((_, Ok(session))) => return Ok(session),
                Ok((address, Err(error))) => {
                    tracing::debug!(peer = %peer.short(), %address, %error, "an address did not lead to the peer");
                    failures.push((address, error));
                    race.failed();
                }
                Err(_) => race.failed(),
            }
        }
    }

    /// Dials one address and makes the link part of a session.
    pub(super) async fn dial_one(
        self: &Arc<Self>,
        address: &Address,
        expected: Option<PeerId>,
    ) -> Result<Arc<Shared>, HandshakeError> {
        tracing::debug!(node = %self.id.short(), %address, "dials");
        let link = self.transports.dial(address, expected).await?;
        let session = self.establish(link, Instant::now() + self.config.handshake_timeout).await?;
        self.remember(session.id(), address);
        // An address that was not known before may be the better one.
        self.improve(session.id());
        Ok(session)
    }

    /// Notes an address of a peer.
    pub(super) fn remember(&self, peer: PeerId, address: &Address) {
        let most = self.config.addresses_max;
        let mut state = self.state();
        if let Some(entry) = state.entry(peer, self.config.peers_max)
            && entry.addresses.len() < most
            && !entry.addresses.contains(address)
        {
            entry.addresses.push(address.clone());
        }
    }

    /// Dials a peer again and again, until it is reached, or nobody wants it any more.
    pub(super) fn keep(self: &Arc<Self>, peer: PeerId) {
        let start = {
            let mut state = self.state();
            let draining = state.draining;
            let entry = state.peers.get_mut(&peer);
            entry.is_some_and(|entry| {
                !draining && !entry.addresses.is_empty() && !std::mem::replace(&mut entry.keeping, true)
            })
        };
        if start {
            let mesh = self.clone();
            self.spawn(async move {
                mesh.keep_dialling(peer).await;
                // The session may have been lost again between the last look and this line.
                if mesh.end_keeping(peer) {
                    mesh.keep(peer);
                }
            });
        }
    }

    async fn keep_dialling(self: &Arc<Self>, peer: PeerId) {
        let waits = self.state().peers.get_mut(&peer).and_then(|entry| entry.waits.take());
        // Who lets in and leaves at once is waited for as who is not there.
        let unsteady = waits.filter(|(_, reached)| reached.elapsed() < STEADY);
        let mut wait_first = unsteady.is_some();
        let fresh = || Backoff::new(self.config.backoff_first, self.config.backoff_max);
        let mut backoff = unsteady.map_or_else(fresh, |(waits, _)| waits);
        while self.wanted(peer) {
            if !std::mem::take(&mut wait_first) && self.reach(peer).await.is_ok() {
                if let Some(entry) = self.state().peers.get_mut(&peer) {
                    entry.waits = Some((backoff, Instant::now()));
                }
                return;
            }
            let mut chance = [0; 4];
            self.network.fill_random(&mut chance);
            let wait = Instant::now() + backoff.wait(u32::from_ne_bytes(chance));
            sleep_until(self.next_round(peer).map_or(wait, |turn| turn.max(wait))).await;
        }
    }

    /// The peer is not reachable, and is kept or has a session that waits.
    fn wanted(&self, peer: PeerId) -> bool {
        let state = self.state();
        state.peers.get(&peer).is_some_and(|entry| {
            let waits = entry.session.as_ref().map(|(session, _)| session.transport().is_none());
            !state.draining && waits.unwrap_or(entry.kept)
        })
    }

    fn end_keeping(&self, peer: PeerId) -> bool {
        if let Some(entry) = self.state().peers.get_mut(&peer) {
            entry.keeping = false;
        }
        self.wanted(peer)
    }
}
