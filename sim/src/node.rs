//! What a simulated program is given.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use rand_chacha::ChaCha20Rng;
use rustls::crypto::CryptoProvider;
use vitte_net::network::Network;

use crate::crypto::seeded_provider;
use crate::network::SimNetwork;
use crate::seed::{derive, generator};
use crate::trace::Line;
use crate::world::{HostId, World};

/// One life of a node: from its start to its end, crash or restart.
///
/// Everything random in here follows from the seed of the cluster, the name of the node and the number of
/// its life.
#[derive(Clone)]
pub struct Node(Arc<Life>);

struct Life {
    world: World,
    seed: u64,
    name: String,
    ip: IpAddr,
    number: u32,
    network: Arc<SimNetwork>,
    provider: OnceLock<CryptoProvider>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", &self.0.name).field("incarnation", &self.0.number).finish()
    }
}

impl Node {
    pub(crate) fn new(world: World, host: HostId) -> Self {
        let network = Arc::new(SimNetwork::new(world.clone(), host, "node"));
        let (seed, name, ip, number) = world.with(|state| {
            let own = &state.hosts[host];
            (state.seed, own.name.clone(), own.ip, own.life)
        });
        let provider = OnceLock::new();
        Self(Arc::new(Life { world, seed, name, ip, number, network, provider }))
    }

    /// The name it was given to the cluster with; other nodes look it up by it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its address.
    pub fn ip(&self) -> IpAddr {
        self.0.ip
    }

    /// Counts the lives that ended before this one: 0 for the first.
    pub fn incarnation(&self) -> u32 {
        self.0.number
    }

    /// The network as this node sees it: what production code takes instead of the operating system's.
    pub fn network(&self) -> Arc<dyn Network> {
        Arc::clone(&self.0.network) as Arc<dyn Network>
    }

    /// Seeded cryptography, see [`seeded_provider()`]. All calls of one life share its generators.
    pub fn crypto_provider(&self) -> CryptoProvider {
        let seed = || derive(self.0.seed, &["crypto", &self.0.name, &self.0.number.to_string()]);
        self.0.provider.get_or_init(|| seeded_provider(seed())).clone()
    }

    /// The secret key of the node's identity. It stays the same over restarts.
    pub fn secret_key(&self) -> [u8; 32] {
        derive(self.0.seed, &["identity", &self.0.name])
    }

    /// A generator of its own for each label, for what the program under test wants at random.
    pub fn rng(&self, label: &str) -> ChaCha20Rng {
        generator(self.0.seed, &["program", &self.0.name, &self.0.number.to_string(), label])
    }

    /// Reports something that happened. It becomes part of the trace and of the digest.
    pub fn event(&self, text: impl Into<String>) {
        let text = text.into();
        self.0.world.with(|state| {
            let (at, node) = (state.now, self.0.name.clone());
            state.trace.push(Line::Event { at, node, text });
        });
    }

    /// The world, to make things go wrong at run time.
    pub fn world(&self) -> &World {
        &self.0.world
    }
}
