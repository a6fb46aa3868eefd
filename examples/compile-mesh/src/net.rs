//! What every program of the compile mesh agrees on: the secret, the limits, how a mesh is started.

use std::path::Path;

use anyhow::Context as _;
use vitte_net::{Config, Identity, Mesh, Secret, Trust};

/// The environment variable with the secret, for who names no file.
pub(crate) const SECRET_VARIABLE: &str = "COMPILE_MESH_SECRET";

/// Largest message: a preprocessed source or an object, and a little around it.
pub(crate) const MESSAGE_MAX: usize = 32 << 20;

/// Reads the secret from `file`, else from [`SECRET_VARIABLE`].
///
/// # Errors
///
/// Neither holds a secret.
pub(crate) fn secret(file: Option<&Path>) -> anyhow::Result<Secret> {
    match file {
        Some(file) => Ok(Secret::from_file(file)?),
        None => Secret::from_env(SECRET_VARIABLE)
            .with_context(|| format!("no file with a secret was named, and {SECRET_VARIABLE} holds none")),
    }
}

/// Starts a mesh with a fresh identity, which listens on `listen`.
///
/// # Errors
///
/// An address is none, or the system does not give it.
pub(crate) async fn start(secret: Secret, listen: &[String]) -> anyhow::Result<Mesh> {
    let config = Config::lan().max_message(MESSAGE_MAX).assembly_budget(2 * MESSAGE_MAX);
    let mut builder =
        Mesh::builder().identity(Identity::generate()).trust(Trust::secret(secret)).config(config);
    for address in listen {
        builder = builder.listen(address);
    }
    Ok(builder.start().await?)
}
