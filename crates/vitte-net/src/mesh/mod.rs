//! A mesh: one node's view of all the others. It listens, dials, keeps sessions alive, and tells of them.

mod builder;
mod dialling;
mod door;
mod establish;
mod events;
mod improving;
mod readmission;
mod registry;
mod state;
mod turned_away;

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::broadcast;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use vitte_net_proto::{CloseCode, DeliveryClass, Incarnation, OpenInfo, PeerId, StreamId};

use crate::address::Address;
use crate::call::{CallContext, Handler, Request};
use crate::channel::bytes::PeerStream;
use crate::channel::datagrams::{Datagrams, RawDatagrams};
use crate::channel::raw::RawChannel;
use crate::channel::typed::{Channel, Message};
use crate::config::Config;
use crate::identity::Trust;
use crate::network::Network;
use crate::peer::{Observer, Peer, PeerEvent, Shared};
use crate::transport::{Incoming as Arrival, LinkError, Listener, Transports};

use self::door::{Door, Ticket};
use self::registry::Registry;
use self::state::{Life, State};
use self::turned_away::TurnedAway;

pub use self::builder::{MeshBuilder, StartError};
pub use self::dialling::DialError;
pub use self::establish::HandshakeError;
pub use self::events::{Events, MeshEvent};
pub use self::registry::{Incoming, ServeError};

/// A running mesh: cheap to clone. When the last clone is dropped it stops listening, and its sessions are
/// closed; use [`drain`](Self::drain) to let them finish first.
#[derive(Clone)]
pub struct Mesh {
    inner: Arc<Inner>,
    _running: Arc<Running>,
}

/// Ends the mesh with the last handle.
struct Running(Arc<Inner>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.shut_down();
    }
}

pub(crate) struct Inner {
    id: PeerId,
    incarnation: Incarnation,
    trust: Trust,
    config: Config,
    network: Arc<dyn Network>,
    transports: Transports,
    addresses: Vec<Address>,
    registry: Registry,
    /// None once the mesh is gone: its readers come to an end.
    events: Mutex<Option<broadcast::Sender<MeshEvent>>>,
    door: Arc<Door>,
    turned_away: TurnedAway,
    state: Mutex<State>,
    /// Where its tasks run: whoever finds a link broken may be on another thread.
    runtime: Handle,
    /// Tasks that end with the mesh.
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Mesh {
    /// Sets up a mesh.
    pub fn builder() -> MeshBuilder {
        MeshBuilder::default()
    }

    /// This node's key.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.inner.id
    }

    /// Where this node listens, with the ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> Vec<Address> {
        self.inner.addresses.clone()
    }

    /// Notes where a peer may be found: a hint. The peer is dialled when it is asked for.
    pub fn add_address(&self, peer: PeerId, address: Address) {
        self.inner.remember(peer, &address);
    }

    /// Dials an address whose key is not known: the trust decides. The address is remembered.
    ///
    /// # Errors
    /// What the attempt came to.
    ///
    /// # Cancel safety
    /// A dropped future cuts the link, unless it has become part of a session.
    pub async fn connect(&self, address: &Address) -> Result<Peer, DialError> {
        if self.inner.state().draining {
            return Err(DialError::Draining);
        }
        match timeout(self.inner.config.dial_timeout, self.inner.dial_one(address, None)).await {
            Ok(Ok(session)) => Ok(Peer::new(session)),
            Ok(Err(error)) => Err(DialError::Failed(vec![(address.clone(), error)])),
            Err(_) => Err(DialError::TimedOut),
        }
    }

    /// A peer that can be reached now: today's session, or else all known addresses are dialled in a
    /// staggered race, the better transports first. Such rounds of dialling begin at least a second apart for each
    /// peer, whoever asks: a call that comes sooner waits for its turn, or for the peer to come by itself.
    ///
    /// # Errors
    /// Nothing led to the peer.
    ///
    /// # Cancel safety
    /// A dropped future ends the race.
    pub async fn peer(&self, id: PeerId) -> Result<Peer, DialError> {
        self.inner.reach(id).await.map(Peer::new)
    }

    /// The peers with a session, reachable or not.
    #[must_use]
    pub fn peers(&self) -> Vec<Peer> {
        let state = self.inner.state();
        let sessions = state.peers.values().filter_map(|entry| entry.session.as_ref());
        sessions.map(|(session, _)| Peer::new(session.clone())).collect()
    }

    /// Events from now on; the first ones tell of today's peers, so that none falls in between.
    #[must_use]
    pub fn events(&self) -> Events {
        let state = self.inner.state();
        let mut first = VecDeque::new();
        for (&peer, entry) in state.peers.iter().filter(|(_, entry)| entry.announced) {
            let Some((session, _)) = &entry.session else { continue };
            match session.transport() {
                Some(transport) => first.push_back(MeshEvent::Up { peer, transport }),
                None => first.push_back(MeshEvent::Unreachable { peer }),
            }
        }
        Events::new(first, self.inner.subscribe())
    }

    /// Serves a kind of call. At most [`Config::handlers_max`] run at once; the rest is refused as busy. A
    /// handler's future is dropped when the caller gives up or its deadline passes; a panic in it is an
    /// error of that call alone.
    ///
    /// # Errors
    /// The name is taken, or too long.
    pub fn serve<R, H, F>(&self, handler: H) -> Result<(), ServeError>
    where
        R: Request,
        H: Fn(CallContext, R) -> F + Send + Sync + 'static,
        F: Future<Output = Result<R::Response, R::Error>> + Send + 'static,
    {
        let handler = Handler::<R, H>::new(handler, self.inner.config.handlers_max);
        self.inner.registry.serve(R::NAME, Arc::new(handler))
    }

    /// Accepts channels of this name and type, both ways; see [`accept_duplex`](Self::accept_duplex) for two
    /// types.
    ///
    /// # Errors
    /// The name is taken, or too long.
    pub fn accept<T: Message>(&self, name: &str) -> Result<Incoming<Channel<T>>, ServeError> {
        self.inner.registry.channels(name, DeliveryClass::Reliable, self.inner.config.accept_queue)
    }

    /// Accepts channels of this name, on which this side sends `Out` and receives `In`.
    ///
    /// # Errors
    /// The name is taken, or too long.
    pub fn accept_duplex<Out: Message, In: Message>(
        &self,
        name: &str,
    ) -> Result<Incoming<Channel<Out, In>>, ServeError> {
        self.inner.registry.channels(name, DeliveryClass::Reliable, self.inner.config.accept_queue)
    }

    /// Accepts channels of this name whose messages are bytes.
    ///
    /// # Errors
    /// The name is taken, or too long.
    pub fn accept_raw(&self, name: &str) -> Result<Incoming<RawChannel>, ServeError> {
        self.inner.registry.raw(name, DeliveryClass::Reliable, self.inner.config.accept_queue)
    }

    /// Accepts channels of this name and type of which only the newest value matters, both ways: what waits
    /// is superseded by what is newer.
    ///
    /// # Errors
    /// The name is taken, or too long.
    pub fn accept_latest<T: Message>(&self, name: &str) -> Result<Incoming<Channel<T>>, ServeError> {
        self.accept_latest_duplex(name)
    }

    /// As [`accept_latest`](Self::accept_latest), with two types: this side sends `Out` and receives `In`.
    ///
    /// # Errors
    /// The name is taken, or too long.
    pub fn accept_latest_duplex<Out: Message, In: Message>(
        &self,
        name: &str,
    ) -> Result<Incoming<Channel<Out, In>>, ServeError> {
        self.inner.registry.channels(name, DeliveryClass::Latest, self.inner.config.accept_queue)
    }

    /// As [`accept_latest`](Self::accept_latest), with messages that are bytes.
    ///
    /// # Errors
    /// The name is taken, or too long.
    pub fn accept_latest_raw(&self, name: &str) -> Result<Incoming<RawChannel>, ServeError> {
        self.inner.registry.raw(name, DeliveryClass::Latest, self.inner.config.accept_queue)
    }

    /// Accepts channels of datagrams of this name and type: messages that may be lost.
    ///
    /// # Errors
    /// The name is taken, or too long.
    pub fn accept_datagrams<T: Message>(&self, name: &str) -> Result<Incoming<Datagrams<T>>, ServeError> {
        self.accept_datagrams_duplex(name)
    }

    /// As [`accept_datagrams`](Self::accept_datagrams), with two types: this side sends `Out` and receives `In`.
    ///
    /// # Errors
    /// The name is taken, or too long.
    pub fn accept_datagrams_duplex<Out: Message, In: Message>(
        &self,
        name: &str,
    ) -> Result<Incoming<Datagrams<Out, In>>, ServeError> {
        self.inner.registry.datagrams(name, self.inner.config.accept_queue)
    }

    /// As [`accept_datagrams`](Self::accept_datagrams), with messages that are bytes.
    ///
    /// # Errors
    /// The name is taken, or too long.
    pub fn accept_datagrams_raw(&self, name: &str) -> Result<Incoming<RawDatagrams>, ServeError> {
        self.inner.registry.raw_datagrams(name, self.inner.config.accept_queue)
    }

    /// Accepts byte streams of this name.
    ///
    /// # Errors
    /// The name is taken, or too long.
    pub fn accept_bytes(&self, name: &str) -> Result<Incoming<PeerStream>, ServeError> {
        self.inner.registry.bytes(name, self.inner.config.accept_queue)
    }

    /// Starts no new session, by accepting or dialling, asks all peers to open nothing new, waits up to `soft`
    /// until nothing is under way, then closes all sessions. It returns within `hard` at the latest. Under way
    /// are messages that wait for their outcome, calls without their answer, and byte streams that have not
    /// ended; a channel may stay open.
    ///
    /// # Cancel safety
    /// A dropped future leaves the mesh draining; dropping the mesh closes it.
    pub async fn drain(&self, soft: Duration, hard: Duration) {
        let _ = timeout(hard, self.inner.drain(soft.min(hard))).await;
        self.inner.shut_down();
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh").field("id", &self.inner.id).field("addresses", &self.inner.addresses).finish()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under this lock is one assignment or insertion: a panic leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The generation for a hello to `peer`, if there is room for it.
    fn pin(&self, peer: PeerId) -> Option<u64> {
        self.state().stranger(peer, self.config.peers_max).map(|entry| entry.generation)
    }

    fn session_of(&self, peer: PeerId) -> Option<(Arc<Shared>, Life)> {
        self.state().peers.get(&peer)?.session.clone().filter(|(session, _)| !session.is_lost())
    }

    fn sessions(&self) -> Vec<Arc<Shared>> {
        self.state().peers.values().filter_map(|entry| Some(entry.session.as_ref()?.0.clone())).collect()
    }

    /// Runs a task that ends with the mesh.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let handle: JoinHandle<()> = self.runtime.spawn(task);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // Only when there is no room: a flood of newcomers would look at all of them for each.
        if tasks.len() == tasks.capacity() {
            tasks.retain(|task| !task.is_finished());
        }
        tasks.push(handle.abort_handle());
    }

    /// Accepts connections of one listener; each shakes hands in a task of its own.
    async fn listen(self: Arc<Self>, listener: Listener) {
        let short = || {
            self.door.make_room();
        };
        loop {
            let arrival = match listener.accept_or(&short).await {
                Ok(arrival) => arrival,
                Err(error) => {
                    tracing::error!(address = %listener.address(), %error, "a listener is broken");
                    return;
                }
            };
            let remote = arrival.remote();
            let (ticket, eviction) = self.door.enter(remote.ip());
            let mesh = self.clone();
            self.spawn(async move {
                let result = tokio::select! {
                    biased;
                    result = mesh.let_in(arrival, ticket) => result,
                    () = eviction.come() => Err(HandshakeError::Evicted),
                };
                if let Err(error) = result {
                    mesh.turn_away(remote, &error);
                }
            });
        }
    }

    /// Makes a connection that came in part of a session, within the time for all of it.
    async fn let_in(self: &Arc<Self>, arrival: Arrival, mut ticket: Ticket) -> Result<(), HandshakeError> {
        let until = Instant::now() + self.config.handshake_timeout;
        let link = timeout_at(until, arrival.handshake()).await;
        let link = link.unwrap_or(Err(LinkError::HandshakeTimeout))?;
        ticket.proven();
        self.establish(link, until).await.map(drop)
    }

    async fn drain(&self, soft: Duration) {
        self.state().draining = true;
        let sessions = self.sessions();
        sessions.iter().for_each(|session| session.drain());
        let step = Duration::from_millis(10);
        let idle = async {
            while !sessions.iter().all(|session| session.is_idle()) {
                sleep(step).await;
            }
        };
        let _ = timeout(soft, idle).await;
        for session in &sessions {
            session.close(CloseCode::SHUTDOWN, "the node shuts down");
        }
        // A program may end behind this: its peers should have read the last frame by then. Two seconds at most.
        while sessions.iter().any(|session| session.has_last_words()) {
            sleep(step).await;
        }
    }

    fn shut_down(&self) {
        self.state().draining = true;
        for session in self.sessions() {
            session.close(CloseCode::SHUTDOWN, "the node shuts down");
        }
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.iter().for_each(AbortHandle::abort);
        let peers = std::mem::take(&mut self.state().peers);
        drop(peers);
        self.registry.close();
        *self.events.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn subscribe(&self) -> broadcast::Receiver<MeshEvent> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        // Without a sender there is nothing to come.
        events.as_ref().map_or_else(|| broadcast::channel(1).1, broadcast::Sender::subscribe)
    }

    fn tell(&self, event: MeshEvent) {
        if let Some(events) = &*self.events.lock().unwrap_or_else(PoisonError::into_inner) {
            // Nobody may listen, which is fine.
            let _ = events.send(event);
        }
    }
}

/// The words of a loss: those that were said, behind the name of the code unless they are the same.
fn because(code: CloseCode, reason: String) -> String {
    let name = code.to_string();
    if reason == name || reason.is_empty() { name } else { format!("{name}: {reason}") }
}

impl Observer for Arc<Inner> {
    fn opened(&self, peer: &Arc<Shared>, stream: StreamId, info: OpenInfo) {
        self.registry.opened(peer, stream, &info);
    }

    fn event(&self, peer: &Arc<Shared>, event: PeerEvent) {
        let id = peer.id();
        match event {
            PeerEvent::Carried(transport) => {
                let mut state = self.state();
                let Some(entry) = state.peers.get_mut(&id) else { return };
                let announced = std::mem::replace(&mut entry.announced, true);
                self.tell(if announced {
                    MeshEvent::Resumed { peer: id, transport }
                } else {
                    MeshEvent::Up { peer: id, transport }
                });
                drop(state);
                self.improve(id);
                self.tidy(peer);
            }
            PeerEvent::Stalled => self.improve(id),
            PeerEvent::Unreachable => {
                self.tell(MeshEvent::Unreachable { peer: id });
                self.keep(id);
            }
            PeerEvent::Draining => self.tell(MeshEvent::Draining { peer: id }),
            PeerEvent::Throttled => self.tell(MeshEvent::Throttled { peer: id }),
            PeerEvent::Violation { transport, code, reason, ours } => {
                if !ours {
                    self.has_cut(id);
                }
                self.tell(MeshEvent::Violation { peer: id, transport, code, reason, ours });
            }
            PeerEvent::Lost(code, reason) => {
                let again = {
                    let mut state = self.state();
                    let fresh = state.next_generation();
                    match state.peers.get_mut(&id) {
                        Some(entry)
                            if entry.session.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, peer)) =>
                        {
                            entry.generation = fresh;
                            entry.session = None;
                            entry.announced = false;
                            entry.kept
                        }
                        _ => false,
                    }
                };
                self.tell(MeshEvent::Down { peer: id, reason: because(code, reason) });
                if again {
                    self.keep(id);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
