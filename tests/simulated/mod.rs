//! A mesh on a simulated node.

use vitte_net::{Identity, Mesh, MeshBuilder, Secret, Trust};
use vitte_net_sim::Node;

/// Both ends prove this secret; keys, randomness and the network are the node's.
pub(crate) fn builder(node: &Node) -> MeshBuilder {
    let secret = Secret::parse("00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210");
    Mesh::builder()
        .identity(Identity::from_secret_key(node.secret_key()))
        .trust(Trust::secret(secret.expect("256 bits")))
        .network(node.network())
        .crypto_provider(node.crypto_provider())
}
