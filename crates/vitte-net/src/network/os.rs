//! The real network: tokio's sockets, socket2's options, the system's resolver, clock and randomness.
#![allow(clippy::disallowed_methods, reason = "this is the one file where these calls belong")]

#[cfg(feature = "udp-batches")]
mod batches;
mod options;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use socket2::{Protocol, SockRef, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use options::{Family, configure, new_socket};

use super::{
    BoxFuture, BoxStream, ByteStream, Datagrams, Interface, Network, ReadStream, Received, TcpListen,
    TcpOptions, UdpOptions, WriteStream,
};

/// No UDP datagram that a socket receives is longer (65,535 bytes: the length field of RFC 768).
const LONGEST_DATAGRAM: usize = 65_535;

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
            let datagrams = OsDatagrams {
                socket,
                ipv6: at.is_ipv6(),
                scratch: Mutex::default(),
                peer: RwLock::default(),
            };
            Ok(Arc::new(datagrams) as Arc<dyn Datagrams>)
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

/// The ICMP message "port unreachable" for an earlier datagram, as Windows tells it to every socket and others to
/// connected ones. It says nothing about this socket, nor anything that can be relied upon.
fn is_echo(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused)
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

#[derive(Debug)]
struct OsDatagrams {
    socket: UdpSocket,
    ipv6: bool,
    /// Where datagrams land when the caller's buffer is smaller than the longest one: one byte more than
    /// that buffer tells a full datagram from a truncated one.
    scratch: Mutex<Vec<u8>>,
    /// To whom the socket is connected.
    peer: RwLock<Option<SocketAddr>>,
}

impl OsDatagrams {
    /// Receives by `ask`, in such a way that a datagram which does not fit is noticed.
    fn receive<W>(
        &self,
        buf: &mut [u8],
        mut ask: impl FnMut(&mut [u8]) -> Result<(usize, SocketAddr), W>,
    ) -> Result<Received, W> {
        if buf.len() >= LONGEST_DATAGRAM {
            let (len, from) = ask(buf)?;
            return Ok(Received { len, from: plain(from), truncated: false });
        }
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        // Windows makes an error of a datagram that does not fit, and keeps its sender to itself.
        let room = if cfg!(windows) { LONGEST_DATAGRAM } else { buf.len() + 1 };
        if scratch.len() < room {
            scratch.resize(room, 0);
        }
        let (arrived, from) = ask(&mut scratch[..room])?;
        let len = arrived.min(buf.len());
        buf[..len].copy_from_slice(&scratch[..len]);
        Ok(Received { len, from: plain(from), truncated: arrived > len })
    }

    fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut buf = ReadBuf::new(buf);
        loop {
            match ready!(self.socket.poll_recv_from(cx, &mut buf)) {
                Ok(from) => return Poll::Ready(Ok((buf.filled().len(), from))),
                Err(error) if is_echo(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Datagrams for OsDatagrams {
    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<Received>> {
        let answer = self.receive(buf, |buf| match self.poll_recv_from(cx, buf) {
            Poll::Ready(Ok(received)) => Ok(received),
            Poll::Ready(Err(error)) => Err(Some(error)),
            Poll::Pending => Err(None),
        });
        match answer {
            Ok(received) => Poll::Ready(Ok(received)),
            Err(Some(error)) => Poll::Ready(Err(error)),
            Err(None) => Poll::Pending,
        }
    }

    fn try_recv(&self, buf: &mut [u8]) -> io::Result<Received> {
        self.receive(buf, |buf| self.socket.try_recv_from(buf))
            .map_err(|error| if is_echo(&error) { io::ErrorKind::WouldBlock.into() } else { error })
    }

    fn try_send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        let peer = *self.peer.read().unwrap_or_else(PoisonError::into_inner);
        // A datagram is sent whole or not at all, so the count says nothing.
        if peer != Some(to) {
            return self.socket.try_send_to(datagram, mapped(to, self.ipv6)).map(|_| ());
        }
        match self.socket.try_send(datagram) {
            // Of an earlier datagram: this one was not even looked at.
            Err(error) if is_echo(&error) => self.socket.try_send(datagram).map(|_| ()),
            sent => sent.map(|_| ()),
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_send_ready(cx)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn connect(&self, peer: SocketAddr) -> io::Result<()> {
        // Elsewhere a connected socket sends to nobody else.
        if cfg!(any(target_os = "android", target_os = "linux")) {
            SockRef::from(&self.socket).connect(&mapped(peer, self.ipv6).into())?;
            *self.peer.write().unwrap_or_else(PoisonError::into_inner) = Some(peer);
        }
        Ok(())
    }

    fn join_group(&self, group: IpAddr, interface: Interface) -> io::Result<()> {
        options::group(SockRef::from(&self.socket), group, interface, true)
    }

    fn leave_group(&self, group: IpAddr, interface: Interface) -> io::Result<()> {
        options::group(SockRef::from(&self.socket), group, interface, false)
    }

    fn os_socket(&self) -> Option<io::Result<std::net::UdpSocket>> {
        Some(SockRef::from(&self.socket).try_clone().map(Into::into))
    }
}

#[cfg(test)]
mod tests;
