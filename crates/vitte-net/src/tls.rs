//! TLS, for clients and servers over any byte stream, and the mesh's own, which proves keys. No file outside
//! this module names `rustls`, `tokio-rustls` or `rcgen`.
//!
//! [`ClientTls`] and [`ServerTls`] speak TLS 1.3 and 1.2 (RFC 8446, RFC 5246) over whatever [`BoxStream`] they
//! are handed: TCP, a simulated connection, another [`TlsStream`].
//!
//! ```no_run
//! use tokio::io::AsyncWriteExt;
//! use vitte_net::tcp::TcpClient;
//! use vitte_net::tls::ClientTls;
//!
//! # async fn example() -> std::io::Result<()> {
//! let tls = ClientTls::builder().alpn(["http/1.1"]).build()?;
//! let tcp = TcpClient::connect("example.org:443").await?;
//! let mut stream = tls.connect("example.org", tcp.into_inner()).await?;
//! stream.write_all(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n").await?;
//! stream.flush().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A connection whose bytes just stop is not a connection that ended: reading gives
//! [`TlsFailure::Truncated`] then, and end of file only after the peer's `close_notify`.
//!
//! [`BoxStream`]: crate::network::BoxStream

mod anybody;
mod client;
mod failure;
mod material;
#[cfg(feature = "mesh")]
mod mesh;
#[cfg(all(feature = "mesh", feature = "ws"))]
mod outer;
#[cfg(feature = "mesh")]
mod records;
mod server;
mod stream;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

pub use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use crate::network::Network;

pub use client::{ClientTls, ClientTlsBuilder};
pub use failure::{TlsFailure, TlsSetupError};
#[cfg(feature = "quic")]
pub(crate) use mesh::peer_of_quic;
#[cfg(feature = "mesh")]
pub use mesh::{MeshTls, TlsError};
#[cfg(all(feature = "mesh", feature = "ws"))]
pub(crate) use outer::OuterTls;
#[cfg(feature = "mesh")]
pub(crate) use records::{Buffer, MAX_PLAINTEXT, Opened, Records};
pub use server::{ServerTls, ServerTlsBuilder};
pub use stream::TlsStream;

/// How long a handshake may take, unless told otherwise: 10 seconds.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The cryptography that is used unless another is handed in: ring's.
#[must_use]
pub fn default_provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// The wall clock of a network, in the form that rustls asks for.
#[derive(Debug)]
struct Clock(Arc<dyn Network>);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        self.0.wall_clock().duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}
