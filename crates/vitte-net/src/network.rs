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
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

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
    /// need not end the stream; shutting it down does. Unless overridden the halves share a lock, so that
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

/// A UDP socket.
pub trait Datagrams: Send + Sync + Debug + 'static {
    /// Takes the next datagram, or registers the task to be woken when there is one. Only the task of the
    /// latest call is woken. `from` is plain: IPv4 even on a dual-stack socket.
    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<Received>>;
    /// Sends one datagram now, or says [`io::ErrorKind::WouldBlock`] (a fresh socket may say so too, until
    /// it was once found writable). A dual-stack socket takes plain IPv4 addresses.
    fn try_send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()>;
    /// Registers the task to be woken when [`try_send`](Self::try_send) is worth another try. Only the task
    /// of the latest call is woken.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// The address this socket is bound to, with the port the system chose.
    fn local_addr(&self) -> io::Result<SocketAddr>;
    /// A second handle of the operating system's socket, where there is one: QUIC gives it to quinn's own
    /// runtime, which knows GSO, GRO and ECN. A simulated socket has none. The handle is non-blocking and
    /// shares the queue of datagrams with this one, so only one of the two should receive. On a dual-stack
    /// socket its IPv4 addresses are IPv4-mapped.
    fn os_socket(&self) -> Option<io::Result<std::net::UdpSocket>>;
}

/// How a TCP socket is set up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TcpOptions {
    /// Send small segments at once (`TCP_NODELAY`). Default: yes.
    pub nodelay: bool,
    /// Connections that wait to be accepted. Default: 1024.
    pub backlog: u32,
    /// Let a listener take an address whose last connections linger (`SO_REUSEADDR`). Default: yes.
    pub reuse_address: bool,
    /// Bytes that may wait unsent in the kernel before a stream counts as full (`TCP_NOTSENT_LOWAT`,
    /// where it exists). Default: none, the kernel decides.
    pub notsent_low_water: Option<u32>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self { nodelay: true, backlog: 1024, reuse_address: true, notsent_low_water: None }
    }
}

/// How a UDP socket is set up.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct UdpOptions {
    /// Bytes of the kernel's receive buffer (`SO_RCVBUF`). Default: none, the kernel decides.
    pub receive_buffer: Option<usize>,
    /// Bytes of the kernel's send buffer (`SO_SNDBUF`). Default: none, the kernel decides.
    pub send_buffer: Option<usize>,
    /// Allow sending to broadcast addresses. Default: no.
    pub broadcast: bool,
}
