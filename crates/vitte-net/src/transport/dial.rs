//! Making links: resolving an address, racing what it resolves to, and shaking hands.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use vitte_net_proto::PeerId;

use super::listen::Listener;
#[cfg(feature = "quic")]
use super::quic;
use super::{Address, Link, LinkError, Transport, bytes};
use crate::network::{BoxFuture, MAX_ADDRESSES, Network, TcpOptions};
use crate::tls::MeshTls;

/// An address of a host gets this long before the next one is tried beside it (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// Bytes that may wait unsent in the kernel: what stands there stands before whatever is urgent.
const NOTSENT_LOW_WATER: u32 = 128 * 1024;
/// The longest that a handshake takes unless told otherwise, from the connection to the peer's key: 10 s.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Every way to make a link, with the key of this node.
#[derive(Debug)]
pub struct Transports {
    pub(super) shared: Arc<Shared>,
    #[cfg(feature = "quic")]
    quic: quic::Endpoints,
}

/// What dialling and listening have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) network: Arc<dyn Network>,
    pub(super) tls: MeshTls,
    pub(super) handshake_timeout: Duration,
}

impl Transports {
    /// Links over `network`, authenticated by `tls`.
    #[must_use]
    pub fn new(network: Arc<dyn Network>, tls: MeshTls) -> Self {
        Self {
            #[cfg(feature = "quic")]
            quic: quic::Endpoints::new(network.clone(), tls.clone()),
            shared: Arc::new(Shared { network, tls, handshake_timeout: HANDSHAKE_TIMEOUT }),
        }
    }

    /// How long a handshake may take: to connect, if this side dials, and until the peer's key is proven.
    /// Default: 10 s. Shorter fails on slow paths, longer keeps dead attempts. Over QUIC a minute of silence ends
    /// an attempt before.
    #[must_use]
    pub fn handshake_timeout(mut self, limit: Duration) -> Self {
        let Shared { network, tls, .. } = &*self.shared;
        let (network, tls) = (network.clone(), tls.clone());
        self.shared = Arc::new(Shared { network, tls, handshake_timeout: limit });
        self
    }

    /// Makes a link to `address`. If its host has several addresses, each gets 250 ms before the next is
    /// tried beside it, at most [`MAX_ADDRESSES`] of them; the first link wins. If a peer is `expected`,
    /// whoever proves another key is refused.
    ///
    /// # Errors
    /// The host has no address, or none of them led to a link: then it is the most telling failure, a
    /// broken rule before a broken network.
    ///
    /// # Cancel safety
    /// Dropping the future gives all attempts up.
    pub async fn dial(&self, address: &Address, expected: Option<PeerId>) -> Result<Link, LinkError> {
        let limit = self.shared.handshake_timeout;
        let found = timeout(limit, self.shared.network.lookup(address.host())).await;
        let found = found.map_err(|_| LinkError::HandshakeTimeout)??;
        let attempts = found.into_iter().take(MAX_ADDRESSES).map(|ip| -> BoxFuture<'_, _> {
            let remote = SocketAddr::new(ip, address.port());
            Box::pin(async move {
                let attempt = timeout(limit, self.attempt(address, remote, expected)).await;
                attempt.unwrap_or(Err(LinkError::HandshakeTimeout)).inspect_err(|error| {
                    tracing::debug!(%address, %remote, %error, "no link");
                })
            })
        });
        race(attempts.collect()).await.unwrap_or_else(|| Err(LinkError::NoAddress(address.host().to_owned())))
    }

    /// Listens at `address`, which must be of this machine; port 0 lets the system choose. Who accepts on
    /// `ws://` and `wss://` serves the path of the address alone.
    ///
    /// # Errors
    /// The host has no address, or nothing can listen there.
    ///
    /// # Cancel safety
    /// Dropped, nothing listens.
    pub async fn listen(&self, address: &Address) -> Result<Listener, LinkError> {
        let found = self.shared.network.lookup(address.host()).await?;
        let Some(ip) = found.first() else {
            return Err(LinkError::NoAddress(address.host().to_owned()));
        };
        let at = SocketAddr::new(*ip, address.port());
        match address.transport() {
            #[cfg(feature = "quic")]
            Transport::Quic => Listener::quic(address, self.quic.listen(at).await?, &self.shared),
            Transport::Tls => Listener::tcp(address, at, &self.shared).await,
            #[cfg(feature = "ws")]
            Transport::Ws | Transport::Wss => Listener::tcp(address, at, &self.shared).await,
            #[allow(unreachable_patterns, reason = "some builds have all transports")]
            other => Err(LinkError::Unsupported(other)),
        }
    }

    async fn attempt(
        &self,
        address: &Address,
        remote: SocketAddr,
        expected: Option<PeerId>,
    ) -> Result<Link, LinkError> {
        let Shared { network, tls, handshake_timeout } = &*self.shared;
        let transport = address.transport();
        let stream = match transport {
            #[cfg(feature = "quic")]
            Transport::Quic => return self.quic.dial(remote, "vitte", expected).await,
            Transport::Tls => network.connect_tcp(remote, &tcp_options()).await?,
            #[cfg(feature = "ws")]
            Transport::Ws | Transport::Wss => {
                let mut stream = network.connect_tcp(remote, &tcp_options()).await?;
                if transport == Transport::Wss {
                    stream = tls.outer().connect(address.host(), stream).await.map_err(bytes::broken)?;
                }
                let (authority, network) = (address.authority(), network.clone());
                crate::ws::connect_link(stream, &authority, address.path(), network).await?
            }
            #[allow(unreachable_patterns, reason = "some builds have all transports")]
            other => return Err(LinkError::Unsupported(other)),
        };
        bytes::handshake_client(stream, tls, expected, transport, *handshake_timeout).await
    }
}

pub(super) fn tcp_options() -> TcpOptions {
    TcpOptions { notsent_low_water: Some(NOTSENT_LOW_WATER), ..TcpOptions::default() }
}

#[cfg(feature = "ws")]
impl From<crate::ws::ConnectError> for LinkError {
    fn from(error: crate::ws::ConnectError) -> Self {
        match error {
            crate::ws::ConnectError::Io(error) => bytes::broken(error),
            error => Self::Protocol { protocol: "WebSocket", reason: error.to_string() },
        }
    }
}

#[cfg(feature = "ws")]
impl From<crate::ws::AcceptError> for LinkError {
    fn from(error: crate::ws::AcceptError) -> Self {
        match error {
            crate::ws::AcceptError::Io(error) => bytes::broken(error),
            error => Self::Protocol { protocol: "WebSocket", reason: error.to_string() },
        }
    }
}

/// The first success of several attempts, which begin one after the other: when the last one has failed, or
/// after [`STAGGER`]. None if there are no attempts.
async fn race<T>(attempts: Vec<BoxFuture<'_, Result<T, LinkError>>>) -> Option<Result<T, LinkError>> {
    let mut waiting = attempts.into_iter();
    let mut running = vec![waiting.next()?];
    let mut worst = None;
    let mut next = pin!(sleep_until(Instant::now() + STAGGER));
    let won = std::future::poll_fn(|cx| {
        loop {
            let mut at = 0;
            while let Some(attempt) = running.get_mut(at) {
                match attempt.as_mut().poll(cx) {
                    Poll::Pending => at += 1,
                    Poll::Ready(Ok(link)) => return Poll::Ready(Some(link)),
                    Poll::Ready(Err(error)) => {
                        drop(running.remove(at));
                        if !matches!((&worst, &error), (Some(_), LinkError::Io(_))) {
                            worst = Some(error);
                        }
                    }
                }
            }
            let late = waiting.len() > 0 && next.as_mut().poll(cx).is_ready();
            if !running.is_empty() && !late {
                return Poll::Pending;
            }
            match waiting.next() {
                Some(attempt) => running.push(attempt),
                None => return Poll::Ready(None),
            }
            next.as_mut().reset(Instant::now() + STAGGER);
        }
    })
    .await;
    won.map(Ok).or(worst.map(Err))
}

#[cfg(test)]
mod tests;
