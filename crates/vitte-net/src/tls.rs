//! TLS 1.3: the mesh's own, which proves keys, and the ordinary one around a WebSocket. No file outside this
//! module names `rustls`, `tokio-rustls` or `rcgen`.

#[cfg(feature = "mesh")]
mod mesh;
#[cfg(all(feature = "mesh", feature = "ws"))]
mod outer;
#[cfg(feature = "mesh")]
mod records;

#[cfg(feature = "quic")]
pub(crate) use mesh::peer_of_quic;
#[cfg(feature = "mesh")]
pub use mesh::{CryptoProvider, MeshTls, TlsError, default_provider};
#[cfg(all(feature = "mesh", feature = "ws"))]
pub(crate) use outer::OuterTls;
#[cfg(feature = "mesh")]
pub(crate) use records::{Buffer, MAX_PLAINTEXT, Opened, Records};
