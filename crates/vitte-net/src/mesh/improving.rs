//! Better ways to a peer that is reachable: a better transport than today's, another link when today's has
//! stalled, one to stand by. The session decides which of its links carries it; this is who brings them.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use vitte_net_proto::PeerId;
use vitte_net_proto::dial::Backoff;

use super::Inner;
use super::dialling::{APART, rank};
use crate::address::{Address, Transport};
use crate::peer::Shared;

/// How long a link that has handed the session over is kept, unless it is wanted to stand by.
const SPARE_FOR: Duration = Duration::from_secs(5);
/// How many times the interval between two looks for a better transport grows while none is found.
const GROWTH: u32 = 8;

/// What a session wants for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// Any other link, at once.
    Other,
    /// A better transport than this one, from time to time.
    Better(Transport),
    /// A link of another transport, to stand by.
    Standby,
}

impl Inner {
    /// Something has changed about the links of a session: looks for what it wants for.
    pub(super) fn improve(self: &Arc<Self>, peer: PeerId) {
        let hurry = {
            let mut state = self.state();
            if state.draining {
                return;
            }
            let Some(entry) = state.peers.get_mut(&peer).filter(|entry| !entry.addresses.is_empty()) else {
                return;
            };
            if let Some(hurry) = &entry.improving {
                hurry.notify_one();
                return;
            }
            entry.improving.insert(Arc::default()).clone()
        };
        let mesh = self.clone();
        self.spawn(async move {
            mesh.improve_until_best(peer, &hurry).await;
            // What changed between the last look and this line asked somebody who was about to leave.
            if mesh.end_improving(peer) {
                mesh.improve(peer);
            }
        });
    }

    async fn improve_until_best(self: &Arc<Self>, peer: PeerId, hurry: &Notify) {
        let every = self.config.improve_every;
        let fresh = || Backoff::new(every, every * GROWTH);
        let mut backoff = fresh();
        let mut last: Option<Instant> = None;
        while let Some((session, want)) = self.want(peer) {
            if want != Want::Other {
                let mut chance = [0; 4];
                self.network.fill_random(&mut chance);
                tokio::select! {
                    biased;
                    () = hurry.notified() => {
                        backoff = fresh();
                        continue;
                    }
                    () = sleep(backoff.wait(u32::from_ne_bytes(chance))) => {}
                }
            }
            if let Some(last) = last {
                sleep_until(last + APART).await;
            }
            last = Some(Instant::now());
            if let Some((_, want)) = self.want(peer) {
                self.bring(peer, &session, want).await;
            }
        }
    }

    /// One round of dialling.
    async fn bring(self: &Arc<Self>, peer: PeerId, session: &Arc<Shared>, want: Want) {
        let addresses = self.candidates(peer, session, want);
        if addresses.is_empty() {
            return;
        }
        // Whoever dials because nothing is left has the turn; a link that is brought is brought to both.
        let gate = self.state().peers.get(&peer).map(|entry| entry.gate.clone());
        let Some(gate) = gate else { return };
        let _turn = loop {
            let turn = gate.lock().await;
            let Some(at) = self.next_round(peer) else { break turn };
            drop(turn);
            sleep_until(at).await;
        };
        if self.want(peer).is_some_and(|(_, now)| now == want) {
            let round = self.race(peer, addresses);
            if let Ok(Err(error)) = timeout(self.config.dial_timeout, round).await {
                tracing::debug!(peer = %peer.short(), %error, ?want, "no other way to the peer");
            }
        }
    }

    /// What the session with a reachable peer wants for, if an address may bring it.
    fn want(&self, peer: PeerId) -> Option<(Arc<Shared>, Want)> {
        let (session, _) = self.session_of(peer)?;
        let present = session.transport()?;
        let state = self.state();
        let known = &state.peers.get(&peer)?.addresses;
        let better = known.iter().any(|address| rank(address.transport()) > rank(present));
        let other = known.iter().any(|address| address.transport() != present);
        let wants = [
            (session.is_stalled(), Want::Other),
            (better, Want::Better(present)),
            (other && self.config.standby && session.links() < 2, Want::Standby),
        ];
        let (_, want) = wants.into_iter().find(|(wanted, _)| *wanted)?;
        (!state.draining).then_some((session, want))
    }

    /// Addresses that may bring what is wanted, the best first. A link that is attached already, and may be on
    /// its way to death or to take over, is not dialled again.
    fn candidates(&self, peer: PeerId, session: &Arc<Shared>, want: Want) -> Vec<Address> {
        let attached = session.transports();
        let mut addresses =
            self.state().peers.get(&peer).map(|entry| entry.addresses.clone()).unwrap_or_default();
        addresses.retain(|address| {
            let transport = address.transport();
            match want {
                Want::Other => true,
                Want::Better(present) => rank(transport) > rank(present) && !attached.contains(&transport),
                Want::Standby => !attached.contains(&transport),
            }
        });
        // Of a stalled session, what is new to it comes first.
        addresses.sort_by_key(|address| {
            (attached.contains(&address.transport()), Reverse(rank(address.transport())))
        });
        addresses
    }

    fn end_improving(&self, peer: PeerId) -> bool {
        if let Some(entry) = self.state().peers.get_mut(&peer) {
            entry.improving = None;
        }
        self.want(peer).is_some()
    }

    /// A link has taken over: after a while, the ones that are not needed any more are closed by who dialled them.
    pub(super) fn tidy(self: &Arc<Self>, session: &Arc<Shared>) {
        if session.links() < 2 {
            return;
        }
        let keep = usize::from(self.config.standby);
        let session = Arc::downgrade(session);
        self.spawn(async move {
            sleep(SPARE_FOR).await;
            if let Some(session) = session.upgrade() {
                session.drop_spares(keep);
            }
        });
    }
}
