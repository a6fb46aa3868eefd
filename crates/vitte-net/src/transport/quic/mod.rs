//! `quic://` links, by quinn: [`Lane::COUNT`](vitte_net_proto::Lane::COUNT) lanes in each direction, each a
//! QUIC stream of its own (RFC 9000, section 2).
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | endpoints, dialling, listening |
//! | `lanes.rs` | the two halves of a link |
//! | `datagrams.rs` | what travels outside of the lanes, and how much of it |
//! | `config.rs` | limits and seeds |
//! | `failure.rs` | errors |

mod config;
mod datagrams;
mod failure;
mod lanes;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::{ConnectError, Connecting};
use vitte_net_proto::PeerId;

use self::failure::{CLOSE_NO_IDENTITY, CLOSE_WRONG_PEER};
use super::{Link, LinkError, LinkInfo, LinkReader, LinkWriter, Transport};
use crate::network::Network;
use crate::quic::{self, Seat, Seats};
use crate::tls::{MeshTls, peer_of_quic};

pub use self::lanes::{Reader, Writer};

/// With so many handshakes in flight, an address must prove itself (RFC 9000, section 8.1.2) before it
/// gets one more.
const RETRY_ABOVE: usize = 64;

/// The sockets of one node that carry QUIC. One socket per address family serves every dial; a listener on
/// all interfaces serves them too.
#[derive(Debug)]
pub(crate) struct Endpoints {
    network: Arc<dyn Network>,
    tls: MeshTls,
    open: Arc<Mutex<Open>>,
}

/// A socket of quinn's, and the tasks of its links.
#[derive(Clone, Debug)]
struct Endpoint {
    quinn: quinn::Endpoint,
    seats: Arc<Seats>,
}

impl std::ops::Deref for Endpoint {
    type Target = quinn::Endpoint;

    fn deref(&self) -> &quinn::Endpoint {
        &self.quinn
    }
}

#[derive(Debug, Default)]
struct Open {
    v4: Option<Endpoint>,
    v6: Option<Endpoint>,
    listening: BTreeMap<u64, Endpoint>,
    listeners: u64,
}

impl Open {
    fn client(&mut self, v6: bool) -> &mut Option<Endpoint> {
        if v6 { &mut self.v6 } else { &mut self.v4 }
    }

    fn serving(&self, v6: bool) -> Option<Endpoint> {
        let everywhere = self.listening.values().find(|endpoint| {
            endpoint.local_addr().is_ok_and(|at| at.ip().is_unspecified() && at.is_ipv6() == v6)
        });
        everywhere.or(if v6 { self.v6.as_ref() } else { self.v4.as_ref() }).cloned()
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Endpoints {
    /// Sockets of `network`, opened when they are needed.
    pub(crate) fn new(network: Arc<dyn Network>, tls: MeshTls) -> Self {
        Self { network, tls, open: Arc::default() }
    }

    /// Connects to `remote`, which must prove the key of `expected`, if one is given.
    ///
    /// # Errors
    /// No socket, no answer within a minute (the caller may give up sooner), another key, or the peer broke a
    /// rule.
    ///
    /// # Cancel safety
    /// When the future is dropped, the attempt ends and the peer is told.
    pub(crate) async fn dial(
        &self,
        remote: SocketAddr,
        server_name: &str,
        expected: Option<PeerId>,
    ) -> Result<Link, LinkError> {
        let (endpoint, connecting, seat) = self.connect(remote, server_name).await?;
        let link = link(&endpoint, connecting, seat, true).await?;
        match (expected, &link.writer) {
            (Some(expected), LinkWriter::Quic(writer)) if expected != link.info.peer => {
                writer.abort(CLOSE_WRONG_PEER, b"not the key that was dialled");
                Err(LinkError::WrongPeer { expected, found: link.info.peer })
            }
            _ => Ok(link),
        }
    }

    async fn connect(
        &self,
        remote: SocketAddr,
        server_name: &str,
    ) -> Result<(Endpoint, Connecting, Seat), LinkError> {
        let config = config::client(&self.network, &self.tls)?;
        let endpoint = self.endpoint(remote.is_ipv6()).await?;
        match endpoint.seats.take(|| endpoint.connect_with(config.clone(), remote, server_name)) {
            Ok((connecting, seat)) => return Ok((endpoint, connecting, seat)),
            Err(ConnectError::EndpointStopping) => {}
            Err(error) => return Err(failure::refused(error)),
        }
        // Its socket has failed for good, in a suspended machine for example: a new one gets one try.
        self.forget(remote.is_ipv6(), &endpoint);
        let endpoint = self.endpoint(remote.is_ipv6()).await?;
        let connecting = endpoint.seats.take(|| endpoint.connect_with(config, remote, server_name));
        let (connecting, seat) = connecting.map_err(failure::refused)?;
        Ok((endpoint, connecting, seat))
    }

    async fn endpoint(&self, v6: bool) -> Result<Endpoint, LinkError> {
        if let Some(endpoint) = lock(&self.open).serving(v6) {
            return Ok(endpoint);
        }
        let any = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let new = self.bind(SocketAddr::new(any, 0), None).await?;
        // Whoever was first while this one was bound stays.
        Ok(lock(&self.open).client(v6).get_or_insert(new).clone())
    }

    fn forget(&self, v6: bool, dead: &Endpoint) {
        let address = dead.local_addr().ok();
        let mut open = lock(&self.open);
        open.listening.retain(|_, endpoint| endpoint.local_addr().ok() != address);
        let client = open.client(v6);
        if client.as_ref().is_some_and(|endpoint| endpoint.local_addr().ok() == address) {
            *client = None;
        }
    }

    async fn bind(&self, at: SocketAddr, server: Option<quinn::ServerConfig>) -> Result<Endpoint, LinkError> {
        let datagrams = self.network.bind_udp(at, &quic::socket_options()).await?;
        let socket = quic::for_quinn(datagrams)?;
        let config = quic::endpoint(&self.network);
        let seats = Arc::new(Seats::default());
        let quinn = quinn::Endpoint::new_with_abstract_socket(config, server, socket, seats.clone())?;
        Ok(Endpoint { quinn, seats })
    }

    /// Listens at `at`; port 0 lets the system choose.
    ///
    /// # Errors
    /// The address is taken or is not of this machine.
    pub(crate) async fn listen(&self, at: SocketAddr) -> Result<Listener, LinkError> {
        let config = config::server(&self.network, &self.tls)?;
        let endpoint = self.bind(at, Some(config)).await?;
        let mut open = lock(&self.open);
        let id = open.listeners;
        open.listeners += 1;
        open.listening.insert(id, endpoint.clone());
        Ok(Listener { endpoint, id, open: Arc::clone(&self.open), in_flight: Arc::default() })
    }
}

/// A socket where QUIC connections arrive. When it is dropped, its links live on.
#[derive(Debug)]
pub(crate) struct Listener {
    endpoint: Endpoint,
    id: u64,
    open: Arc<Mutex<Open>>,
    in_flight: Arc<AtomicUsize>,
}

impl Listener {
    /// Waits for the next connection attempt that may have a handshake: with 64 in flight, an address has to
    /// prove itself first. How many there may be in all is for the caller to say.
    ///
    /// # Errors
    /// The socket has failed.
    ///
    /// # Cancel safety
    /// An attempt is either returned or still in the queue.
    pub(crate) async fn accept(&self) -> Result<Incoming, LinkError> {
        loop {
            let Some(incoming) = self.endpoint.accept().await else {
                return Err(
                    io::Error::new(io::ErrorKind::NotConnected, "the socket of the listener failed").into()
                );
            };
            let in_flight = self.in_flight.load(Ordering::Relaxed);
            if in_flight >= RETRY_ABOVE && !incoming.remote_address_validated() {
                // It can only fail for an address that has proven itself.
                incoming.retry().ok();
            } else {
                let ticket = Ticket::take(&self.in_flight);
                return Ok(Incoming {
                    endpoint: self.endpoint.clone(),
                    incoming: Box::new(incoming),
                    ticket,
                });
            }
        }
    }

    /// The address of the socket, with the port the system chose.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        lock(&self.open).listening.remove(&self.id);
        // Links keep the socket; without a server's configuration it answers no new attempt.
        self.endpoint.set_server_config(None);
    }
}

/// A connection attempt. When it is dropped, the attempt is refused.
#[derive(Debug)]
pub(crate) struct Incoming {
    endpoint: Endpoint,
    incoming: Box<quinn::Incoming>,
    ticket: Ticket,
}

impl Incoming {
    /// Where it comes from; nothing has proven that it is true.
    pub(crate) fn remote(&self) -> SocketAddr {
        plain(self.incoming.remote_address())
    }

    /// Goes through the handshake, after which the peer has proven its key, within `limit`.
    ///
    /// # Errors
    /// The peer broke a rule or took too long.
    ///
    /// # Cancel safety
    /// When the future is dropped, the attempt ends and the peer is told.
    pub(crate) async fn handshake(self, limit: Duration) -> Result<Link, LinkError> {
        let Self { endpoint, incoming, ticket } = self;
        let begun = endpoint.seats.take(|| incoming.accept());
        let (connecting, seat) = begun.map_err(|error| failure::lost(&error))?;
        let link = tokio::time::timeout(limit, link(&endpoint, connecting, seat, false)).await;
        drop(ticket);
        link.unwrap_or(Err(LinkError::HandshakeTimeout))
    }
}

/// One of the handshakes in flight.
#[derive(Debug)]
struct Ticket(Arc<AtomicUsize>);

impl Ticket {
    fn take(in_flight: &Arc<AtomicUsize>) -> Self {
        in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(in_flight))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn link(
    endpoint: &Endpoint,
    connecting: Connecting,
    seat: Seat,
    dialled: bool,
) -> Result<Link, LinkError> {
    let used = seat.begin_use();
    let connection = connecting.await.map_err(|error| failure::lost(&error))?;
    // rustls has made sure of the protocol: over QUIC it insists on an ALPN that suits both.
    let Some(peer) = connection.peer_identity().and_then(peer_of_quic) else {
        connection.close(CLOSE_NO_IDENTITY, b"no Ed25519 key");
        return Err(failure::protocol("the peer proved no Ed25519 key"));
    };
    let bound = endpoint.local_addr()?;
    let local = connection.local_ip().map_or(bound, |ip| SocketAddr::new(ip, bound.port()));
    let info = LinkInfo {
        peer,
        transport: Transport::Quic,
        dialled,
        local: plain(local),
        remote: plain(connection.remote_address()),
    };
    let (reader, writer) = lanes::split(connection, seat, used);
    Ok(Link { info, reader: LinkReader::Quic(reader), writer: LinkWriter::Quic(writer) })
}

/// IPv4 as IPv4, also where a dual-stack socket shows it as an IPv4-mapped IPv6 address.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests;
