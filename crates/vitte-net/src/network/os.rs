//! The real network: tokio's sockets, socket2's options, the system's resolver, clock and randomness.
#![allow(clippy::disallowed_methods, reason = "this is the one file where these calls belong")]

#[cfg(feature = "udp-batches")]
mod batches;
mod datagrams;
mod options;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use socket2::{Protocol, SockRef, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use datagrams::OsDatagrams;
use options::{Family, configure, new_socket};

use super::{
    BoxFuture, BoxStream, ByteStream, Datagrams, Interface, Network, ReadStream, Received, TcpListen,
    TcpOptions, UdpOptions, WriteStream,
};

/// The network of the operating system. Its sockets need a tokio runtime with I/O enabled.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct OsNetwork;

impl OsNetwork {
    /// The network of the operating system.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Network for OsNetwork {
    fn connect_tcp<'a>(
        &'a self,
        to: SocketAddr,
        options: &'a TcpOptions,
    ) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            options::before(SockRef::from(&socket), options, Family::connected(to))?;
            configure(SockRef::from(&socket), options)?;
            if let Some(from) = options.from {
                bind_before_connecting(&socket, from, to)?;
            }
            let stream = refuse_self(socket.connect(to).await?)?;
            Ok(Box::new(OsStream(stream)) as BoxStream)
        })
    }

    fn listen_tcp<'a>(
        &'a self,
        at: SocketAddr,
        options: &'a TcpOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn TcpListen>>> {
        Box::pin(async move {
            let socket = new_socket(at, Type::STREAM, Protocol::TCP, options.only_ipv6)?;
            options::before(SockRef::from(&socket), options, Family::bound(at, options.only_ipv6))?;
            // On Windows SO_REUSEADDR would let another process take over a port that is in use.
            if cfg!(unix) {
                socket.set_reuse_address(options.reuse_address)?;
            }
            if options.reuse_port {
                options::share_port(&socket)?;
            }
            socket.bind(&at.into())?;
            socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
            let listener = TcpListener::from_std(socket.into())?;
            Ok(Box::new(OsListener { listener, options: options.clone() }) as Box<dyn TcpListen>)
        })
    }

    fn bind_udp<'a>(
        &'a self,
        at: SocketAddr,
        options: &'a UdpOptions,
    ) -> BoxFuture<'a, io::Result<Arc<dyn Datagrams>>> {
        Box::pin(async move {
            let socket = new_socket(at, Type::DGRAM, Protocol::UDP, options.only_ipv6)?;
            options::datagrams(SockRef::from(&socket), options, Family::bound(at, options.only_ipv6))?;
            socket.bind(&at.into())?;
            let socket = UdpSocket::from_std(socket.into())?;
            #[cfg(feature = "udp-batches")]
            if options.batches {
                return Ok(Arc::new(batches::OsBatches::new(socket, at.is_ipv6())?) as Arc<dyn Datagrams>);
            }
            Ok(Arc::new(OsDatagrams::new(socket, at.is_ipv6())) as Arc<dyn Datagrams>)
        })
    }

    fn lookup<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            if let Ok(address) = host.parse() {
                return Ok(vec![address]);
            }
            let mut found: Vec<IpAddr> = Vec::new();
            for address in tokio::net::lookup_host((host, 0)).await? {
                if !found.contains(&address.ip()) {
                    found.push(address.ip());
                }
            }
            Ok(found)
        })
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::now()
    }

    /// # Panics
    /// When the operating system has no randomness to give, which leaves nothing secure to do.
    fn fill_random(&self, out: &mut [u8]) {
        getrandom::fill(out).expect("the operating system gives random bytes");
    }
}

/// Chooses the address that a connection comes from.
fn bind_before_connecting(socket: &TcpSocket, from: SocketAddr, to: SocketAddr) -> io::Result<()> {
    if from.is_ipv4() != to.is_ipv4() {
        let text = format!("from {from}: it is not of the family of {to}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    socket.bind(from).map_err(|error| io::Error::new(error.kind(), format!("from {from}: {error}")))
}

/// A socket that connects to an ephemeral port of its own machine where nobody listens may meet itself
/// (TCP's simultaneous open). Nobody is there, so it counts as refused.
fn refuse_self(stream: TcpStream) -> io::Result<TcpStream> {
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            "the socket met itself: nobody listens",
        ));
    }
    Ok(stream)
}

/// IPv4 as IPv4, also where a dual-stack socket shows it as an IPv4-mapped IPv6 address.
fn plain(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, v6.port())),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

/// IPv4 as a socket of IPv6 wants to have it.
fn mapped(address: SocketAddr, ipv6: bool) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if ipv6 => SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())),
        other => other,
    }
}

#[derive(Debug)]
struct OsStream(TcpStream);

impl ByteStream for OsStream {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr().map(plain)
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr().map(plain)
    }

    fn into_split(self: Box<Self>) -> (ReadStream, WriteStream) {
        let (read, write) = self.0.into_split();
        (Box::new(read), Box::new(OsWriteHalf(Some(write))))
    }
}

/// The writing half of a socket. Unlike tokio's it says nothing to the peer when it is dropped: a program that
/// forgot to end its stream, or that broke off, has not said that all is said.
#[derive(Debug)]
struct OsWriteHalf(Option<OwnedWriteHalf>);

impl OsWriteHalf {
    fn half(&mut self) -> io::Result<Pin<&mut OwnedWriteHalf>> {
        self.0.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for OsWriteHalf {
    fn drop(&mut self) {
        if let Some(half) = self.0.take() {
            half.forget();
        }
    }
}

impl AsyncWrite for OsWriteHalf {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.half()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.half()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.half()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.half()?.poll_shutdown(cx)
    }
}

impl AsyncRead for OsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for OsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[derive(Debug)]
struct OsListener {
    listener: TcpListener,
    options: TcpOptions,
}

impl TcpListen for OsListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = self.listener.accept().await?;
            // Options fail when the peer is gone already (macOS says EINVAL): that is the connection's
            // trouble, not the listener's.
            configure(SockRef::from(&stream), &self.options)
                .map_err(|error| io::Error::new(io::ErrorKind::ConnectionAborted, error))?;
            Ok((Box::new(OsStream(stream)) as BoxStream, plain(from)))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[cfg(test)]
mod tests;
