//! Plain UDP: [`UdpSocket`].
//!
//! ```no_run
//! use vitte_net::udp::UdpSocket;
//!
//! # async fn example() -> std::io::Result<()> {
//! let socket = UdpSocket::bind("127.0.0.1:0").await?;
//! socket.send_to(b"ping", "127.0.0.1:7000").await?;
//! let mut buf = [0; 1500];
//! let received = socket.recv_from(&mut buf).await?;
//! println!("{} sent {} bytes", received.from, received.len);
//! # Ok(())
//! # }
//! ```
//!
//! A datagram arrives whole, late, twice or never. One that is longer than the buffer is cut, and
//! [`Received::truncated`] says so.
//!
//! Who has many datagrams to send or to take does so in batches, see [`Batch`]. Groups of multicast are joined by
//! [`UdpSocket::join_group`], all options are in [`UdpOptions`].

mod batch;
mod waiters;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::task::coop::poll_proceed;

use crate::network::{Datagrams, Interface, Network, OsNetwork, Received, Target, UdpOptions};
use waiters::{Waiters, Waiting};

pub use batch::{Batch, BatchError};

/// The longest datagram over IPv4: 65,507 bytes (65,535 less the headers of IP and UDP). Above about 1,200
/// bytes a path may have to cut it into fragments, and losing one of them loses it all.
pub const MAX_DATAGRAM_IPV4: usize = 65_507;

/// The longest datagram over IPv6: 65,527 bytes (65,535 less the header of UDP).
pub const MAX_DATAGRAM_IPV6: usize = 65_527;

/// How many datagrams of strangers `recv` drops before it lets other tasks run: 64.
const STRANGERS_AT_ONCE: usize = 64;

/// A UDP socket. All of its calls take `&self`: any number of tasks may send and receive at a time.
pub struct UdpSocket {
    socket: Arc<dyn Datagrams>,
    network: Arc<dyn Network>,
    local: SocketAddr,
    peer: Option<SocketAddr>,
    readers: Waiters,
    writers: Waiters,
}

impl UdpSocket {
    /// Binds at `at`, a host or an address of this machine and a port. `"0.0.0.0:0"` takes any free port of
    /// every interface, `"[::]:0"` does so for IPv6 and IPv4.
    ///
    /// # Errors
    /// See [`UdpBuilder::bind`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves no socket behind.
    pub async fn bind(at: impl Into<Target>) -> io::Result<Self> {
        UdpBuilder::new().bind(at).await
    }

    /// A socket whose network and options can be set before it is bound.
    #[must_use]
    pub fn builder() -> UdpBuilder {
        UdpBuilder::new()
    }

    /// Sends one datagram to `to`, at most [`MAX_DATAGRAM_IPV4`] or [`MAX_DATAGRAM_IPV6`] bytes. A host name
    /// is looked up at every call, and its first address that this socket can reach is used. Ok means that
    /// the operating system took it.
    ///
    /// # Errors
    /// What [`Target::resolve`] says, [`io::ErrorKind::InvalidInput`] for a datagram that is too long or an
    /// address of the other family, [`io::ErrorKind::PermissionDenied`] for a broadcast address
    /// without [`UdpBuilder::broadcast`], otherwise what the system said.
    ///
    /// # Cancel safety
    /// When the future is dropped, the datagram was sent whole or not at all.
    pub async fn send_to(&self, datagram: &[u8], to: impl Into<Target>) -> io::Result<()> {
        let to = to.into();
        let to = match to.as_address() {
            Some(address) if self.reaches(&address) => address,
            _ => self.reachable(&to).await?,
        };
        check_length(datagram.len(), &to)?;
        let mut waiting = self.writers.join();
        poll_fn(|cx| self.poll_send_to(cx, &mut waiting, datagram, &to)).await
    }

    /// Waits for the next datagram from anybody, or from the peer that [`connect`](Self::connect) named. What does not fit into `buf` is cut off, and
    /// [`Received::truncated`] says so; 65,535 bytes hold every datagram.
    ///
    /// # Errors
    /// What the system said. The socket can still be used.
    ///
    /// # Cancel safety
    /// Cancel safe: when the future is dropped, no datagram was taken.
    pub async fn recv_from(&self, buf: &mut [u8]) -> io::Result<Received> {
        let mut waiting = self.readers.join();
        poll_fn(|cx| self.poll_next(cx, &mut waiting, buf)).await
    }

    /// From now on [`send`](Self::send) goes to `peer`, and only what comes from there is received (an address can be
    /// forged: this is a filter, not an authentication). Nothing is sent; that nobody listens there is not noticed.
    /// [`send_to`](Self::send_to) reaches others as before. Where the system can do that it drops what others send,
    /// and finds the way once.
    ///
    /// # Errors
    /// What [`Target::resolve`] says, [`io::ErrorKind::InvalidInput`] for an address of the other family, otherwise
    /// what the system said.
    ///
    /// # Cancel safety
    /// Cancel safe: the peer is set or not.
    pub async fn connect(&mut self, peer: impl Into<Target>) -> io::Result<()> {
        let mut peer = self.reachable(&peer.into()).await?;
        self.socket.connect(peer)?;
        if let SocketAddr::V6(peer) = &mut peer {
            // A label of what is sent: it is no part of where something comes from.
            peer.set_flowinfo(0);
        }
        self.peer = Some(peer);
        Ok(())
    }

    /// Sends one datagram to the peer that [`connect`](Self::connect) named.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotConnected`] without a peer, otherwise as [`send_to`](Self::send_to).
    ///
    /// # Cancel safety
    /// When the future is dropped, the datagram was sent whole or not at all.
    pub async fn send(&self, datagram: &[u8]) -> io::Result<()> {
        let Some(peer) = &self.peer else { return Err(no_peer()) };
        check_length(datagram.len(), peer)?;
        let mut waiting = self.writers.join();
        poll_fn(|cx| self.poll_send(cx, &mut waiting, || self.socket.try_send_peer(datagram, *peer))).await
    }

    /// Waits for the next datagram from the peer that [`connect`](Self::connect) named. Datagrams from others
    /// are dropped.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotConnected`] without a peer, otherwise as [`recv_from`](Self::recv_from).
    ///
    /// # Cancel safety
    /// Cancel safe: when the future is dropped, no datagram of the peer was taken.
    pub async fn recv(&self, buf: &mut [u8]) -> io::Result<Received> {
        if self.peer.is_none() {
            return Err(no_peer());
        }
        let mut waiting = self.readers.join();
        poll_fn(|cx| self.poll_next(cx, &mut waiting, buf)).await
    }

    /// The peer that [`connect`](Self::connect) named.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotConnected`] without one.
    pub fn peer(&self) -> io::Result<SocketAddr> {
        self.peer.ok_or_else(no_peer)
    }

    /// Joins a group of multicast, such as `224.0.0.251` or `ff02::fb`, on one interface: its datagrams arrive here
    /// too, if they are sent to the port that this socket is bound to. A socket for IPv6 groups is bound to an IPv6
    /// address; several sockets share an address by [`UdpOptions::share_address`].
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for what is no group or an interface that is named in the other family's way,
    /// [`io::ErrorKind::Unsupported`] in a simulation, otherwise what the system said.
    pub fn join_group(&self, group: IpAddr, interface: Interface) -> io::Result<()> {
        self.socket.join_group(group, interface)
    }

    /// Leaves a group that was joined on that interface.
    ///
    /// # Errors
    /// As for [`join_group`](Self::join_group), and when this socket is no member.
    pub fn leave_group(&self, group: IpAddr, interface: Interface) -> io::Result<()> {
        self.socket.leave_group(group, interface)
    }

    /// The address this socket is bound to, with the port the system chose.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// A socket of this family can send there.
    fn reaches(&self, address: &SocketAddr) -> bool {
        match (self.local, address) {
            (SocketAddr::V4(_), SocketAddr::V4(_)) | (SocketAddr::V6(_), SocketAddr::V6(_)) => true,
            (SocketAddr::V6(local), SocketAddr::V4(_)) => local.ip().is_unspecified(),
            (SocketAddr::V4(_), SocketAddr::V6(_)) => false,
        }
    }

    /// The first address of `to` that this socket can send to.
    async fn reachable(&self, to: &Target) -> io::Result<SocketAddr> {
        let candidates = to.resolve(&*self.network).await?;
        candidates.into_iter().find(|address| self.reaches(address)).ok_or_else(|| {
            let text =
                format!("a socket bound to {} cannot send to {to}: no address of its family", self.local);
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        waiting: &mut Waiting<'_>,
        datagram: &[u8],
        to: &SocketAddr,
    ) -> Poll<io::Result<()>> {
        self.poll_send(cx, waiting, || match &self.peer {
            Some(peer) if peer == to => self.socket.try_send_peer(datagram, *to),
            _ => self.socket.try_send(datagram, *to),
        })
    }

    /// Sends by `attempt` as soon as it does not say that it would block.
    fn poll_send<T>(
        &self,
        cx: &mut Context<'_>,
        waiting: &mut Waiting<'_>,
        mut attempt: impl FnMut() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        // Whoever sends on and on shares the thread with others all the same.
        let budget = ready!(poll_proceed(cx));
        loop {
            match attempt() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => {
                    budget.made_progress();
                    return Poll::Ready(sent);
                }
            }
            ready!(waiting.poll(cx, |cx| self.socket.poll_writable(cx)))?;
        }
    }

    fn poll_next(
        &self,
        cx: &mut Context<'_>,
        waiting: &mut Waiting<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<Received>> {
        let budget = ready!(poll_proceed(cx));
        // What is there already needs no place among those who wait.
        match self.socket.try_recv(buf) {
            Ok(received) if self.is_stranger(&received.from) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            answer => {
                budget.made_progress();
                return Poll::Ready(answer);
            }
        }
        drop(budget);
        waiting.poll(cx, |cx| self.poll_receive(cx, buf))
    }

    fn is_stranger(&self, from: &SocketAddr) -> bool {
        self.peer.as_ref().is_some_and(|peer| peer != from)
    }

    fn poll_receive(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<Received>> {
        for _ in 0..STRANGERS_AT_ONCE {
            match self.socket.poll_recv(cx, buf) {
                Poll::Ready(Ok(received)) if self.is_stranger(&received.from) => {}
                answer => return answer,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cold]
fn no_peer() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the socket has no peer: call connect first")
}

/// What is too long is refused before the system is asked, so that its length is named.
#[inline]
fn check_length(len: usize, to: &SocketAddr) -> io::Result<()> {
    let longest = if to.is_ipv4() { MAX_DATAGRAM_IPV4 } else { MAX_DATAGRAM_IPV6 };
    if len <= longest { Ok(()) } else { Err(too_long(len, longest)) }
}

#[cold]
fn too_long(len: usize, longest: usize) -> io::Error {
    let text = format!("{len} bytes are too long for a datagram: at most {longest}");
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket")
            .field("socket", &self.socket)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// How a [`UdpSocket`] is set up.
#[derive(Clone, Debug)]
pub struct UdpBuilder {
    network: Arc<dyn Network>,
    options: UdpOptions,
}

impl Default for UdpBuilder {
    fn default() -> Self {
        Self { network: Arc::new(OsNetwork), options: UdpOptions::default() }
    }
}

impl UdpBuilder {
    /// A builder with the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The network to bind on. Default: [`OsNetwork`].
    #[must_use]
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.network = network;
        self
    }

    /// All options of the socket; those that are set by other calls here are a part of it. Default:
    /// [`UdpOptions::default`].
    #[must_use]
    pub fn options(mut self, options: UdpOptions) -> Self {
        self.options = options;
        self
    }

    /// Give the system several datagrams with one call where it can do that, see [`UdpOptions::batches`]. Default: no.
    #[must_use]
    pub fn batches(mut self, together: bool) -> Self {
        self.options.batches = together;
        self
    }

    /// Bytes of the kernel's receive buffer; the kernel may give another number. Default: its own choice.
    #[must_use]
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.options.receive_buffer = Some(bytes);
        self
    }

    /// Bytes of the kernel's send buffer; the kernel may give another number. Default: its own choice.
    #[must_use]
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.options.send_buffer = Some(bytes);
        self
    }

    /// Allow sending to broadcast addresses. Default: no.
    #[must_use]
    pub fn broadcast(mut self, allow: bool) -> Self {
        self.options.broadcast = allow;
        self
    }

    /// Binds at the first address of `at` that can be taken.
    ///
    /// # Errors
    /// What [`Target::resolve`] says, or the last address's error, naming that address.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no socket behind.
    pub async fn bind(&self, at: impl Into<Target>) -> io::Result<UdpSocket> {
        let at = at.into();
        let mut failure = None;
        for address in at.resolve(&*self.network).await? {
            match self.network.bind_udp(address, &self.options).await {
                Ok(socket) => {
                    return Ok(UdpSocket {
                        local: socket.local_addr()?,
                        socket,
                        network: Arc::clone(&self.network),
                        peer: None,
                        readers: Waiters::default(),
                        writers: Waiters::default(),
                    });
                }
                Err(error) => {
                    failure =
                        Some(io::Error::new(error.kind(), format!("cannot bind to {address}: {error}")));
                }
            }
        }
        Err(failure
            .unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no address for {at}"))))
    }
}

#[cfg(test)]
mod tests;
