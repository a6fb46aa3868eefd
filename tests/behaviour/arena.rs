//! Where a case runs: two nodes, on the system's loopback or in a simulated network.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use vitte_net::network::{Network, OsNetwork};
use vitte_net::tls::{CryptoProvider, MeshTls, default_provider};
use vitte_net::transport::Transports;
use vitte_net::{Address, Config, Identity, Mesh, Secret, Transport, Trust};
use vitte_net_sim::{Cluster, Node, Scenario};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
/// Starts a mesh with a key and a trust.
type Start = Box<dyn Fn(u8, Trust) -> Starting + Send + Sync>;
type Starting = Pin<Box<dyn Future<Output = Mesh> + Send>>;
pub(crate) type Play = Arc<dyn Fn(Stage) -> Task + Send + Sync>;

/// Two programs that meet: the server's ends with the client's.
pub(crate) struct Case {
    pub(crate) config: Config,
    /// What goes wrong between the two, in the simulation.
    pub(crate) faults: Scenario,
    pub(crate) server: Play,
    pub(crate) client: Play,
}

/// What a program gets.
pub(crate) struct Stage {
    /// Its mesh, already started.
    pub(crate) mesh: Mesh,
    /// Where the server listens (a client's own stage has the same).
    pub(crate) server: Address,
    /// Starts another mesh on the same node, with this trust, not listening.
    pub(crate) another: Start,
    /// Links of the node with this key, below any mesh.
    pub(crate) transports: Box<dyn Fn(u8) -> Transports + Send + Sync>,
}

pub(crate) fn secret() -> Secret {
    Secret::parse("00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210").expect("256 bits")
}

/// Wraps an async function as a program.
pub(crate) fn play<F: Future<Output = ()> + Send + 'static>(
    f: impl Fn(Stage) -> F + Send + Sync + 'static,
) -> Play {
    Arc::new(move |stage| Box::pin(f(stage)))
}

struct Ground {
    network: Arc<dyn Network>,
    provider: Option<CryptoProvider>,
    config: Config,
}

impl Ground {
    async fn mesh(&self, key: u8, trust: Trust, listen: Option<String>) -> Mesh {
        let mut builder = Mesh::builder()
            .identity(Identity::from_secret_key([key; 32]))
            .trust(trust)
            .network(self.network.clone())
            .config(self.config.clone());
        if let Some(provider) = &self.provider {
            builder = builder.crypto_provider(provider.clone());
        }
        if let Some(address) = listen {
            builder = builder.listen(address);
        }
        builder.start().await.expect("the mesh starts")
    }

    fn transports(self: Arc<Self>) -> impl Fn(u8) -> Transports + Send + Sync {
        move |key| {
            let identity = Identity::from_secret_key([key; 32]);
            let provider = self.provider.clone().unwrap_or_else(default_provider);
            let tls =
                MeshTls::new(&identity, provider, &self.network).expect("the provider knows all it needs");
            Transports::new(self.network.clone(), tls)
        }
    }

    /// What a program gets.
    fn stage(self: Arc<Self>, mesh: Mesh, server: Address) -> Stage {
        Stage {
            mesh,
            server,
            another: Box::new(self.clone().another()),
            transports: Box::new(self.transports()),
        }
    }

    fn another(self: Arc<Self>) -> impl Fn(u8, Trust) -> Starting + Send + Sync {
        move |key, trust| {
            let ground = self.clone();
            Box::pin(async move { ground.mesh(key, trust, None).await })
        }
    }
}

/// Runs a case over loopback sockets.
pub(crate) fn os(transport: Transport, case: &Case) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime starts").block_on(async {
        let ground = Arc::new(Ground {
            network: Arc::new(OsNetwork::new()),
            provider: None,
            config: case.config.clone(),
        });
        let listen = format!("{transport}://127.0.0.1:0");
        let mesh = ground.mesh(1, Trust::secret(secret()), Some(listen)).await;
        let address = mesh.addresses()[0].clone();
        let stage = |mesh| ground.clone().stage(mesh, address.clone());
        let server = tokio::spawn((case.server)(stage(mesh)));
        let client = ground.mesh(2, Trust::secret(secret()), None).await;
        (case.client)(stage(client)).await;
        server.abort();
        if let Err(error) = server.await {
            assert!(!error.is_panic(), "the server panicked: {error}");
        }
    });
}

/// Runs a case in a simulated network.
pub(crate) fn sim(transport: Transport, case: &Case) {
    let mut cluster = Cluster::new(7).scenario(case.faults.clone());
    let ground = |node: &Node, config: &Config| {
        Arc::new(Ground {
            network: node.network(),
            provider: Some(node.crypto_provider()),
            config: config.clone(),
        })
    };
    let (config, server) = (case.config.clone(), case.server.clone());
    cluster = cluster.node("server", move |node| {
        let (ground, server) = (ground(&node, &config), server.clone());
        async move {
            let listen = format!("{transport}://0.0.0.0:7000");
            let mesh = ground.mesh(1, Trust::secret(secret()), Some(listen)).await;
            let address = Address::new(transport, "server", 7000);
            server(ground.stage(mesh, address)).await;
            std::future::pending().await
        }
    });
    let (config, client) = (case.config.clone(), case.client.clone());
    cluster = cluster.client("client", move |node| {
        let (ground, client) = (ground(&node, &config), client.clone());
        async move {
            let mesh = ground.mesh(2, Trust::secret(secret()), None).await;
            let address = Address::new(transport, "server", 7000);
            client(ground.stage(mesh, address)).await;
            Ok(())
        }
    });
    if let Err(failure) = cluster.run() {
        panic!("{failure}");
    }
}
