//! The seam: everything that vitte-net asks of the operating system.
//!
//! [`Network`] is an object-safe trait. [`OsNetwork`] is the real thing; the simulation brings its own.
//! Everything above this file is the same code in both. Time is always `tokio::time`, spawning is
//! `tokio::spawn`, and no other file names `tokio::net`, `socket2`, the wall clock or OS randomness (here
//! they are in `network/os.rs`). [`Target`] is what a caller names: a host or an address, and a port.

mod os;
mod target;
mod trouble;

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite};

pub use os::OsNetwork;
pub use target::{MAX_ADDRESSES, Target};
pub(crate) use trouble::AcceptTrouble;

/// A boxed future that can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Sockets, names, the wall clock and randomness, as the operating system or a simulation gives them.
pub trait Network: Send + Sync + Debug + 'static {
    /// Connects to `to`. There is no time-out here: the caller sets one. Dropping the future gives the
    /// attempt up.
    fn connect_tcp<'a>(
        &'a self,
        to: SocketAddr,
        options: &'a TcpOptions,
    ) -> BoxFuture<'a, io::Result<BoxStream>>;
    /// Listens at `at`; port 0 lets the system choose. `[::]` takes IPv6 and IPv4 (dual stack).
    fn listen_tcp<'a>(
        &'a self,
        at: SocketAddr,
        options: &'a TcpOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn TcpListen>>>;
    /// Binds a datagram socket at `at`; port 0 lets the system choose. `[::]` takes IPv6 and IPv4.
    fn bind_udp<'a>(
        &'a self,
        at: SocketAddr,
        options: &'a UdpOptions,
    ) -> BoxFuture<'a, io::Result<Arc<dyn Datagrams>>>;
    /// The addresses of a host name, in the order in which they should be tried. An IP address in text
    /// form is its own answer.
    fn lookup<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
    /// The wall clock, for the validity of certificates and nothing else.
    fn wall_clock(&self) -> SystemTime;
    /// Fills `out` with random bytes: ids, seeds, jitter.
    fn fill_random(&self, out: &mut [u8]);
}

/// A TCP connection, or anything that behaves like one.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Sync + Unpin + Debug {
    /// The address of this side.
    fn local_addr(&self) -> io::Result<SocketAddr>;
    /// The address of the other side.
    fn peer_addr(&self) -> io::Result<SocketAddr>;
    /// Takes the stream apart, so that one task can read while another writes. Dropping the writing half
    /// says nothing to the peer while the reading half is there; shutting it down does. Unless overridden the halves share a lock, so that
    /// one waits while the other is inside a system call.
    fn into_split(self: Box<Self>) -> (ReadStream, WriteStream)
    where
        Self: 'static,
    {
        let (read, write) = tokio::io::split(self);
        (Box::new(read), Box::new(write))
    }
}

/// An owned [`ByteStream`].
pub type BoxStream = Box<dyn ByteStream>;
/// The reading half of a [`ByteStream`].
pub type ReadStream = Box<dyn AsyncRead + Send + Sync + Unpin>;
/// The writing half of a [`ByteStream`].
pub type WriteStream = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// A listening TCP socket.
pub trait TcpListen: Send + Sync + Debug {
    /// Waits for the next connection. Cancel safe: a connection is either returned or still in the queue.
    /// Its addresses are plain: a peer that came by IPv4 to a dual-stack socket has an IPv4 address. An
    /// error may be transient (the process is out of files, a connection died in the queue).
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>>;
    /// The address this socket is bound to, with the port the system chose.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// What [`Datagrams::poll_recv`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes written to the buffer.
    pub len: usize,
    /// Who sent the datagram.
    pub from: SocketAddr,
    /// The datagram was longer than the buffer; the rest is gone.
    pub truncated: bool,
}

/// A datagram to be sent, in [`Datagrams::try_send_batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// What it says.
    pub bytes: &'a [u8],
    /// Where it goes.
    pub to: SocketAddr,
}

/// A UDP socket.
pub trait Datagrams: Send + Sync + Debug + 'static {
    /// Takes the next datagram, or registers the task to be woken when there is one. Only the task of the
    /// latest call is woken. `from` is plain: IPv4 even on a dual-stack socket.
    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<Received>>;
    /// Takes a datagram that is known to be there, or says [`io::ErrorKind::WouldBlock`]: then
    /// [`poll_recv`](Self::poll_recv) is to be asked. It wakes nobody and is a shortcut; unless overridden it knows of
    /// no datagram.
    fn try_recv(&self, buf: &mut [u8]) -> io::Result<Received> {
        let _ = buf;
        Err(io::ErrorKind::WouldBlock.into())
    }
    /// Sends one datagram now, or says [`io::ErrorKind::WouldBlock`] (a fresh socket may say so too, until
    /// it was once found writable). A dual-stack socket takes plain IPv4 addresses.
    fn try_send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()>;
    /// As [`try_send`](Self::try_send) to the peer that [`connect`](Self::connect) named, which `peer` repeats: the system
    /// knows the way. Unless overridden it is that.
    fn try_send_peer(&self, datagram: &[u8], peer: SocketAddr) -> io::Result<()> {
        self.try_send(datagram, peer)
    }
    /// Sends as many of these as go with one call to the system, and says how many: the first ones, at least one if
    /// there are any. An error is that of the first. Unless overridden it sends one.
    fn try_send_batch(&self, datagrams: &[Outgoing<'_>]) -> io::Result<usize> {
        match datagrams.first() {
            Some(first) => self.try_send(first.bytes, first.to).map(|()| 1),
            None => Ok(0),
        }
    }
    /// Registers the task to be woken when [`try_send`](Self::try_send) is worth another try. Only the task
    /// of the latest call is woken.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// The address this socket is bound to, with the port the system chose.
    fn local_addr(&self) -> io::Result<SocketAddr>;
    /// Says that `peer` is the only one to be spoken with, so that the system can drop what others send and look the way up
    /// once. It is an advice: what others send may arrive all the same. Unless overridden it does nothing.
    ///
    /// # Errors
    /// What the system said.
    fn connect(&self, peer: SocketAddr) -> io::Result<()> {
        let _ = peer;
        Ok(())
    }
    /// Joins a group of multicast: its datagrams arrive here too.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where there is no multicast, otherwise what the system said.
    fn join_group(&self, group: IpAddr, interface: Interface) -> io::Result<()> {
        let _ = (group, interface);
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Leaves a group of multicast.
    ///
    /// # Errors
    /// As for [`join_group`](Self::join_group), and when the socket is no member.
    fn leave_group(&self, group: IpAddr, interface: Interface) -> io::Result<()> {
        let _ = (group, interface);
        Err(io::ErrorKind::Unsupported.into())
    }
    /// A second handle of the operating system's socket, where there is one: QUIC gives it to quinn's own
    /// runtime, which knows GSO, GRO and ECN. A simulated socket has none. The handle is non-blocking and
    /// shares the queue of datagrams with this one, so only one of the two should receive. On a dual-stack
    /// socket its IPv4 addresses are IPv4-mapped.
    fn os_socket(&self) -> Option<io::Result<std::net::UdpSocket>>;
}

/// How a TCP socket is set up.
///
/// What a system does not have is refused with [`io::ErrorKind::Unsupported`] unless the option says otherwise, and a
/// value out of its range with [`io::ErrorKind::InvalidInput`]: the error names the option. A simulation refuses and
/// ignores likewise, see its own documentation.
///
/// ```
/// use vitte_net::network::{Keepalive, TcpOptions};
///
/// let mut options = TcpOptions::default();
/// options.keepalive = Some(Keepalive::default());
/// options.dscp = Some(46);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TcpOptions {
    /// Send small segments at once (`TCP_NODELAY`). Default: yes.
    pub nodelay: bool,
    /// Connections that wait to be accepted. Default: 1024.
    pub backlog: u32,
    /// Let a listener take an address whose last connections linger (`SO_REUSEADDR`). Default: yes.
    pub reuse_address: bool,
    /// Let several listeners share an address; the system spreads connections over them (`SO_REUSEPORT`, Unix).
    /// Default: no.
    pub reuse_port: bool,
    /// Bytes that may wait unsent in the kernel before a stream counts as full (`TCP_NOTSENT_LOWAT`,
    /// where it exists; ignored elsewhere). Default: none, the kernel decides.
    pub notsent_low_water: Option<u32>,
    /// Ask a silent peer whether it is still there (`SO_KEEPALIVE`). Default: no.
    pub keepalive: Option<Keepalive>,
    /// How long closing waits for what was not sent yet, rounded up to whole seconds; it blocks the thread for so
    /// long. Zero resets the connection instead of ending it (`SO_LINGER`). Default: none, closing returns at once
    /// and the system goes on sending.
    pub linger: Option<Duration>,
    /// Bytes of the kernel's receive buffer (`SO_RCVBUF`). Default: none, the kernel decides.
    pub receive_buffer: Option<usize>,
    /// Bytes of the kernel's send buffer (`SO_SNDBUF`). Default: none, the kernel decides.
    pub send_buffer: Option<usize>,
    /// A listener at `[::]` takes IPv6 alone (`IPV6_V6ONLY`). Default: no, it takes IPv4 too.
    pub only_ipv6: bool,
    /// The interface that the socket is bound to, by its name (`SO_BINDTODEVICE`, Linux; it may need a
    /// privilege). Default: none.
    pub interface: Option<String>,
    /// Routers that a packet may pass: 1 to 255 (`IP_TTL`, `IPV6_UNICAST_HOPS`). Default: the system's.
    pub ttl: Option<u8>,
    /// The class of the traffic: 0 to 63 (DSCP, RFC 2474; `IP_TOS`, `IPV6_TCLASS`, Unix). Default: 0.
    pub dscp: Option<u8>,
    /// The address to connect from; port 0 lets the system choose. Addresses of the other family cannot be
    /// connected to then. A listener ignores it. Default: none, the system chooses.
    pub from: Option<SocketAddr>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            nodelay: true,
            backlog: 1024,
            reuse_address: true,
            reuse_port: false,
            notsent_low_water: None,
            keepalive: None,
            linger: None,
            receive_buffer: None,
            send_buffer: None,
            only_ipv6: false,
            interface: None,
            ttl: None,
            dscp: None,
            from: None,
        }
    }
}

/// When a silent peer is asked whether it is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// How long it may be silent before; at least a second, rounded up to whole ones.
    pub idle: Duration,
    /// How long from one question to the next; at least a second, rounded up to whole ones.
    pub interval: Duration,
    /// So many questions without an answer end the connection; at least 1. Ignored on Windows.
    pub probes: u32,
}

impl Default for Keepalive {
    /// After a minute, every 10 seconds, six times: a dead peer is noticed after two minutes.
    fn default() -> Self {
        Self { idle: Duration::from_secs(60), interval: Duration::from_secs(10), probes: 6 }
    }
}

/// Which interface a group of multicast is joined on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interface {
    /// The one that the system chooses.
    #[default]
    Any,
    /// The one with this IPv4 address; for IPv4 groups.
    Address(Ipv4Addr),
    /// The one with this number.
    Index(u32),
}

/// How a UDP socket is set up. What a system does not have is refused as for [`TcpOptions`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct UdpOptions {
    /// Bytes of the kernel's receive buffer (`SO_RCVBUF`). Default: none, the kernel decides.
    pub receive_buffer: Option<usize>,
    /// Bytes of the kernel's send buffer (`SO_SNDBUF`). Default: none, the kernel decides.
    pub send_buffer: Option<usize>,
    /// Allow sending to broadcast addresses. Default: no.
    pub broadcast: bool,
    /// Let several sockets take the same address, as receivers of one group do (`SO_REUSEADDR`, and `SO_REUSEPORT`
    /// where there is). Default: no.
    pub share_address: bool,
    /// A socket at `[::]` takes IPv6 alone (`IPV6_V6ONLY`). Default: no, it takes IPv4 too.
    pub only_ipv6: bool,
    /// The interface that the socket is bound to, by its name (`SO_BINDTODEVICE`, Linux; it may need a
    /// privilege). Default: none.
    pub interface: Option<String>,
    /// Routers that a datagram may pass: 1 to 255. Default: the system's.
    pub ttl: Option<u8>,
    /// Routers that a datagram to a group may pass: 0 (this machine) to 255. Default: the system's, which is 1.
    pub multicast_ttl: Option<u8>,
    /// Whether datagrams to a group come back to members on this machine. Default: the system's, which is yes.
    pub multicast_loop: Option<bool>,
    /// Where datagrams to a group go out: by an address for IPv4, by a number for IPv6. Default: the system chooses.
    pub multicast_interface: Interface,
    /// The class of the traffic: 0 to 63 (DSCP, RFC 2474; Unix). Not together with `batches`. Default: 0.
    pub dscp: Option<u8>,
    /// Give the system several datagrams with one call, and take several, where it can do that: segmentation and
    /// coalescing of datagrams (GSO, GRO) and `recvmmsg` on Linux; elsewhere, and without the feature `udp-batches`,
    /// they go one by one all the same. Datagrams are not cut into fragments then: one that is longer than the path
    /// takes is refused. Costs up to 1 MiB of memory for what was received. Default: no.
    pub batches: bool,
}
