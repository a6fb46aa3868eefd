//! Setting up a mesh.

use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;
use tokio::sync::broadcast;

use super::door::Door;
use super::establish::incarnation;
use super::registry::Registry;
use super::state::State;
use super::turned_away::TurnedAway;
use super::{Inner, Mesh, Running};
use crate::address::{Address, AddressError};
use crate::config::{Config, ConfigError};
use crate::discovery::{Discovery, Sightings};
use crate::identity::{Identity, Trust};
use crate::network::{Network, OsNetwork};
use crate::tls::{CryptoProvider, MeshTls, TlsError, default_provider};
use crate::transport::{LinkError, Transports};

/// Why a mesh did not start. Nothing of it runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No identity was given.
    #[error("a mesh needs an identity: MeshBuilder::identity")]
    NoIdentity,
    /// No trust was given: there is no default that is safe.
    #[error("a mesh needs a trust, Trust::secret or Trust::keys: without one everybody would be let in")]
    NoTrust,
    /// An address to listen at cannot be read.
    #[error("cannot listen at {text:?}: {error}")]
    Address {
        /// What was given.
        text: String,
        /// What is wrong with it.
        error: AddressError,
    },
    /// A limit is out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The cryptography does not fit together.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address cannot be listened at.
    #[error("cannot listen at {address}: {error}")]
    Listen {
        /// Which.
        address: Address,
        /// Why.
        error: LinkError,
    },
}

/// Sets up a [`Mesh`]. Identity and trust are needed; the rest has defaults.
#[derive(Default)]
#[must_use = "a mesh runs when it is started"]
pub struct MeshBuilder {
    identity: Option<Identity>,
    trust: Option<Trust>,
    listen: Vec<String>,
    config: Config,
    network: Option<Arc<dyn Network>>,
    provider: Option<CryptoProvider>,
    discovery: Vec<Box<dyn Discovery>>,
}

impl fmt::Debug for MeshBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshBuilder").field("listen", &self.listen).finish_non_exhaustive()
    }
}

impl MeshBuilder {
    /// Who this node is.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Whom this node lets in.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = Some(trust);
        self
    }

    /// Also listens here: `quic://`, `tls://`, `ws://` or `wss://`, a host, a port (0 lets the system
    /// choose), and for WebSocket a path. May be called several times; without any, this node only dials.
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen.push(address.into());
        self
    }

    /// All limits. Default: [`Config::wan`].
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// The network. Default: the operating system's.
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.network = Some(network);
        self
    }

    /// The cryptography. Default: ring's. A simulation hands in a seeded one.
    pub fn crypto_provider(mut self, provider: CryptoProvider) -> Self {
        self.provider = Some(provider);
        self
    }

    /// Also finds peers here, and keeps sessions with all it finds. May be called several times.
    pub fn discover(mut self, source: impl Discovery) -> Self {
        self.discovery.push(Box::new(source));
        self
    }

    /// Starts listening, and looking for peers.
    ///
    /// # Errors
    /// See [`StartError`].
    ///
    /// # Cancel safety
    /// A dropped future leaves nothing behind.
    pub async fn start(self) -> Result<Mesh, StartError> {
        let identity = self.identity.ok_or(StartError::NoIdentity)?;
        let trust = self.trust.ok_or(StartError::NoTrust)?;
        self.config.check()?;
        let network = self.network.unwrap_or_else(|| Arc::new(OsNetwork::new()));
        let tls = MeshTls::new(&identity, self.provider.unwrap_or_else(default_provider), &network)?;
        let transports =
            Transports::new(network.clone(), tls).handshake_timeout(self.config.handshake_timeout);
        let mut listeners = Vec::new();
        for text in self.listen {
            let address: Address =
                text.parse().map_err(|error| StartError::Address { text: text.clone(), error })?;
            let listener = transports.listen(&address).await;
            listeners.push(listener.map_err(|error| StartError::Listen { address, error })?);
        }
        let inner = Arc::new(Inner {
            id: identity.peer_id(),
            incarnation: incarnation(&*network),
            trust,
            network,
            transports,
            addresses: listeners.iter().map(|listener| listener.address().clone()).collect(),
            registry: Registry::default(),
            events: Mutex::new(Some(broadcast::channel(self.config.events_max).0)),
            door: Arc::new(Door::new(self.config.handshakes_max, self.config.handshakes_per_address)),
            turned_away: TurnedAway::new(),
            state: Mutex::new(State::default()),
            runtime: Handle::current(),
            tasks: Mutex::new(Vec::new()),
            config: self.config,
        });
        for listener in listeners {
            inner.spawn(inner.clone().listen(listener));
        }
        for source in self.discovery {
            inner.discover(source);
        }
        Ok(Mesh { inner: inner.clone(), _running: Arc::new(Running(inner)) })
    }
}

impl Inner {
    /// Runs a source, and keeps the peers it finds.
    fn discover(self: &Arc<Self>, source: Box<dyn Discovery>) {
        let (sightings, mut seen) = Sightings::new();
        self.spawn(source.run(sightings));
        let mesh = self.clone();
        self.spawn(async move {
            while let Some(sighting) = seen.recv().await {
                if sighting.peer == mesh.id {
                    continue;
                }
                tracing::debug!(peer = %sighting.peer.short(), address = %sighting.address, by = sighting.provenance, "seen");
                mesh.remember(sighting.peer, &sighting.address);
                if let Some(entry) = mesh.state().peers.get_mut(&sighting.peer) {
                    entry.kept = true;
                }
                mesh.keep(sighting.peer);
            }
        });
    }
}
