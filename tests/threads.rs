//! Handles on threads of the application's own, where no runtime is: as a user interface has them, or a program in
//! another language.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use vitte_net::{Config, Identity, Mesh, MeshEvent, PeerId, RawChannel, Trust};

fn identity(key: u8) -> Identity {
    Identity::from_secret_key([key; 32])
}

async fn mesh(key: u8, listen: Option<String>) -> Mesh {
    let trust = Trust::keys([1, 2].map(|key| identity(key).peer_id()));
    let builder = Mesh::builder().identity(identity(key)).trust(trust).config(Config::lan());
    listen
        .into_iter()
        .fold(builder, |builder, address| builder.listen(address))
        .start()
        .await
        .expect("a mesh")
}

/// A peer that has taken a channel, on a runtime of its own.
fn server(scheme: &str) -> (Runtime, Mesh) {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let mesh = runtime.block_on(async {
        let mesh = mesh(1, Some(format!("{scheme}://127.0.0.1:0"))).await;
        let mut incoming = mesh.accept_raw("log").expect("the name is free");
        tokio::spawn(async move {
            let mut taken = Vec::new();
            while let Some(channel) = incoming.next().await {
                taken.push(channel);
            }
        });
        mesh
    });
    (runtime, mesh)
}

fn connected(client: &Runtime, peer: &Mesh) -> (Mesh, RawChannel) {
    client.block_on(async {
        let mesh = mesh(2, None).await;
        let peer = mesh.connect(&peer.addresses()[0]).await.expect("a peer");
        (mesh, peer.raw_channel("log").open().await.expect("a channel"))
    })
}

async fn unreachable(mesh: &Mesh, peer: PeerId) {
    let mut events = mesh.events();
    let told = async {
        loop {
            match events.next().await.expect("the mesh lives") {
                MeshEvent::Unreachable { peer: of } if of == peer => return,
                _ => {}
            }
        }
    };
    timeout(Duration::from_secs(10), told).await.expect("the loss is told");
}

/// Whoever finds a link broken begins to dial again, also where nothing can be spawned.
#[test]
fn a_link_that_is_found_broken_outside_of_the_runtime_is_dialled_again_by_it() {
    for scheme in ["quic", "tls", "ws", "wss"] {
        let (peer_runtime, peer) = server(scheme);
        let client = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (mesh, channel) = connected(&client, &peer);
        let id = peer.id();
        // No task of the client runs now: this thread is the first to find out.
        peer_runtime.shutdown_timeout(Duration::from_secs(5));
        drop(peer);
        std::thread::spawn(move || while channel.try_send(vec![7; 100_000]).is_ok() {})
            .join()
            .expect("a handle never panics");
        client.block_on(unreachable(&mesh, id));
    }
}
