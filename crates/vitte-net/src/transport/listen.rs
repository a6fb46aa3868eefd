//! Accepting links. Accepting a connection and shaking hands are two steps, so that whoever accepts can
//! bound how many handshakes are in flight.

use std::net::SocketAddr;
use std::sync::Arc;
#[cfg(feature = "quic")]
use std::time::Duration;

use tokio::time::timeout;

#[cfg(feature = "ws")]
use super::Transport;
use super::dial::{Shared, tcp_options};
#[cfg(feature = "quic")]
use super::quic;
use super::{Address, Link, LinkError, bytes};
use crate::network::{BoxStream, TcpListen};
use crate::tcp::accept_through;

/// A socket that peers connect to. Dropping it stops listening; links that were accepted live on.
#[derive(Debug)]
pub struct Listener {
    address: Address,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Tcp {
        listener: Box<dyn TcpListen>,
        shared: Arc<Shared>,
    },
    #[cfg(feature = "quic")]
    Quic {
        listener: quic::Listener,
        shared: Arc<Shared>,
    },
}

impl Listener {
    pub(super) async fn tcp(
        address: &Address,
        at: SocketAddr,
        shared: &Arc<Shared>,
    ) -> Result<Self, LinkError> {
        let listener = shared.network.listen_tcp(at, &tcp_options()).await?;
        let address = address.clone().with_port(listener.local_addr()?.port());
        Ok(Self { address, socket: Socket::Tcp { listener, shared: shared.clone() } })
    }

    #[cfg(feature = "quic")]
    pub(super) fn quic(
        address: &Address,
        listener: quic::Listener,
        shared: &Arc<Shared>,
    ) -> Result<Self, LinkError> {
        let address = address.clone().with_port(listener.local_addr()?.port());
        Ok(Self { address, socket: Socket::Quic { listener, shared: shared.clone() } })
    }

    /// The address it was made with, with the port that the system chose.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Waits for the next connection, through errors that pass: connections that died in the queue, and
    /// shortages, after which it waits a moment.
    ///
    /// # Errors
    /// The socket itself is broken: nothing will come from it any more.
    ///
    /// # Cancel safety
    /// A connection is either returned or still in the queue.
    pub async fn accept(&self) -> Result<Incoming, LinkError> {
        self.accept_or(&|| ()).await
    }

    /// The same; `short` is called when the process is short of files or memory, and may give some back.
    pub(crate) async fn accept_or(&self, short: &(dyn Fn() + Sync)) -> Result<Incoming, LinkError> {
        match &self.socket {
            Socket::Tcp { listener, shared } => {
                let (stream, remote) = accept_through(&**listener, short).await?;
                let address = self.address.clone();
                Ok(Incoming { remote, kind: Kind::Tcp { stream, address, shared: shared.clone() } })
            }
            #[cfg(feature = "quic")]
            Socket::Quic { listener, shared } => {
                let incoming = listener.accept().await?;
                let limit = shared.handshake_timeout;
                Ok(Incoming { remote: incoming.remote(), kind: Kind::Quic { incoming, limit } })
            }
        }
    }
}

/// A connection that has proven nothing yet.
#[derive(Debug)]
pub struct Incoming {
    remote: SocketAddr,
    kind: Kind,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "it lives until its handshake begins")]
enum Kind {
    Tcp {
        stream: BoxStream,
        address: Address,
        shared: Arc<Shared>,
    },
    #[cfg(feature = "quic")]
    Quic {
        incoming: quic::Incoming,
        limit: Duration,
    },
}

impl Incoming {
    /// Where it comes from. Over QUIC the address is unproven.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Shakes hands, within the time that [`Transports::handshake_timeout`](super::Transports::handshake_timeout)
    /// says. Any key is welcome here.
    ///
    /// # Errors
    /// Why there is no link. The connection is gone.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    pub async fn handshake(self) -> Result<Link, LinkError> {
        match self.kind {
            Kind::Tcp { stream, address, shared } => {
                let limit = shared.handshake_timeout;
                let shaken = timeout(limit, shake(stream, &address, &shared)).await;
                shaken.unwrap_or(Err(LinkError::HandshakeTimeout))
            }
            #[cfg(feature = "quic")]
            Kind::Quic { incoming, limit } => incoming.handshake(limit).await,
        }
    }
}

async fn shake(stream: BoxStream, address: &Address, shared: &Shared) -> Result<Link, LinkError> {
    let transport = address.transport();
    #[cfg(feature = "ws")]
    let stream = match transport {
        Transport::Ws => crate::ws::accept(stream, address.path()).await?,
        Transport::Wss => {
            let stream = shared.tls.outer().accept(stream).await.map_err(bytes::broken)?;
            crate::ws::accept(stream, address.path()).await?
        }
        _ => stream,
    };
    bytes::handshake_server(stream, &shared.tls, transport, shared.handshake_timeout).await
}
