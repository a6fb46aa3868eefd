//! Plain TCP: [`TcpClient`] connects, [`TcpServer`] accepts, both give a [`TcpStream`].
//!
//! ```no_run
//! use vitte_net::tcp::TcpClient;
//!
//! # async fn example() -> std::io::Result<()> {
//! let mut client = TcpClient::connect("example.org:80").await?;
//! client.send(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n").await?;
//! let response = client.recv().await?;
//! println!("{}", String::from_utf8_lossy(&response));
//! # Ok(())
//! # }
//! ```
//!
//! Whoever reads and writes at the same time takes the stream apart: [`TcpStream::into_split`] for two tasks,
//! [`TcpStream::split`] within one. [`TcpServer::serve`] is a whole server: a limit of connections, and an end that
//! waits for those that are being served, but not forever. Options of the socket are in
//! [`TcpOptions`](crate::network::TcpOptions).
//!
//! A host name with several addresses is tried by happy eyeballs (RFC 8305), see [`TcpConnector`]. A server
//! outlives transient errors, see [`TcpServer::accept`]. Every call goes through a
//! [`Network`](crate::network::Network), so the same program runs on a simulated one.

pub(crate) mod connect;
mod halves;
mod server;
mod serving;

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::network::{BoxStream, ByteStream, Target};

pub use connect::{ConnectFailure, TcpConnector};
pub use halves::{BorrowedTcpReceiver, BorrowedTcpSender, TcpReceiver, TcpSender};
// The mesh's listeners outlive the same errors in the same way.
pub use server::{TcpServer, TcpServerBuilder};
#[allow(unused_imports, reason = "without the mesh nobody asks")]
pub(crate) use server::{accept_patiently, accept_through};
pub use serving::{Accepted, Stopping, TcpServing};

/// What one [`TcpStream::recv`] returns at most, unless told otherwise: 65,536 bytes (64 KiB).
pub const RECV_LIMIT: usize = 64 * 1024;

/// Below this much room `recv` takes a new block instead of filling the rest of the old one: 4 KiB.
const LEAST_ROOM: usize = 4 * 1024;

/// So many pieces of a vectored write go to the system at a time: 64.
const PIECES_AT_ONCE: usize = 64;

/// What [`TcpStream::shutdown`] reads at a time, only to drop it: 8 KiB.
const DISCARD: usize = 8 * 1024;

/// The name under which client programs know [`TcpStream`]: `TcpClient::connect("example.org:80")`.
pub type TcpClient = TcpStream;

/// A TCP connection, connected or accepted.
///
/// [`send`](Self::send) and [`recv`](Self::recv) are all that simple programs need. It is also
/// [`AsyncRead`] and [`AsyncWrite`], without a buffer between: both ways of reading can be mixed.
///
/// Dropping it closes the connection at once: what was sent is still delivered by the operating system,
/// unless unread bytes wait here, in which case TCP resets the connection and the peer may lose the end of
/// what was sent. [`shutdown`](Self::shutdown) avoids that.
#[derive(Debug)]
pub struct TcpStream {
    stream: BoxStream,
    inbox: Inbox,
}

impl TcpStream {
    /// Connects to `target`, a host and a port such as `"example.org:80"`, with the defaults of
    /// [`TcpConnector`]: the operating system's network, happy eyeballs, 30 seconds for all of it.
    ///
    /// # Errors
    /// See [`TcpConnector::connect`].
    ///
    /// # Cancel safety
    /// Dropping the future gives up all attempts.
    pub async fn connect(target: impl Into<Target>) -> io::Result<Self> {
        TcpConnector::new().connect(target).await
    }

    /// A connector whose network, time-out and options can be set before it connects.
    #[must_use]
    pub fn builder() -> TcpConnector {
        TcpConnector::new()
    }

    /// Sends all of `bytes`. It returns when the operating system has taken them, which does not mean that
    /// the peer has; it waits while the peer does not read, for as long as that takes.
    ///
    /// # Errors
    /// The connection is broken. How much was sent is unknown then.
    ///
    /// # Cancel safety
    /// Not cancel safe: when the future is dropped, a part of `bytes` may have been sent. The connection is
    /// then only good for being closed.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        send(&mut self.stream, bytes).await
    }

    /// Sends all of these pieces one after the other, as if they were one, without copying them together (a vectored
    /// write). Over a stream that has no such thing, TLS for one, they go one by one.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn send_vectored(&mut self, pieces: &[&[u8]]) -> io::Result<()> {
        send_vectored(&mut self.stream, pieces).await
    }

    /// Waits until bytes have arrived and returns what is there, at most [`RECV_LIMIT`] bytes unless
    /// [`set_recv_limit`](Self::set_recv_limit) says otherwise. TCP keeps no message boundaries: one `send`
    /// may arrive in several pieces, and several in one. Empty means that the peer has sent everything.
    ///
    /// # Errors
    /// The connection is broken. An orderly end is no error.
    ///
    /// # Cancel safety
    /// Cancel safe: when the future is dropped, nothing was received that the next call does not return.
    pub async fn recv(&mut self) -> io::Result<Bytes> {
        self.inbox.recv(&mut self.stream).await
    }

    /// Sets what one [`recv`](Self::recv) returns at most, in bytes; at least 1. Default: [`RECV_LIMIT`].
    /// It is also the memory that a waiting `recv` holds.
    pub fn set_recv_limit(&mut self, bytes: usize) {
        self.inbox.limit = bytes.max(1);
    }

    /// Says that nothing more will be sent (TCP's FIN). The peer's `recv` returns empty after the last
    /// byte; receiving here goes on.
    ///
    /// # Errors
    /// The connection is broken.
    ///
    /// # Cancel safety
    /// Cancel safe: it may be called again.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Ends the connection so that the peer gets all that was sent: says that nothing more comes, then
    /// drops what still arrives until the peer has ended its side too, all of it for at most `within`. The
    /// connection is closed afterwards in any case. 5 seconds suit most protocols.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when the peer did not end its side in time, otherwise what broke the
    /// connection. Either way it is unknown whether the peer got everything.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection at once.
    pub async fn shutdown(mut self, within: Duration) -> io::Result<()> {
        let goodbye = async {
            self.stream.shutdown().await?;
            let mut dropped = vec![0; DISCARD];
            while self.stream.read(&mut dropped).await? > 0 {}
            Ok(())
        };
        match tokio::time::timeout(within, goodbye).await {
            Ok(ended) => ended,
            Err(_) => {
                let text = format!("the peer did not end the connection within {within:?}");
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            }
        }
    }

    /// The two directions, to be used by two tasks. The connection is closed when both are dropped;
    /// dropping the [`TcpSender`] alone does not tell the peer, [`TcpSender::finish`] does.
    #[must_use]
    pub fn into_split(self) -> (TcpReceiver, TcpSender) {
        let (reader, writer) = self.stream.into_split();
        (TcpReceiver::new(reader, self.inbox), TcpSender::new(writer))
    }

    /// The two directions, to be used by one task at the same time, in a `select!` or a `join!`. The stream is whole
    /// again when they are gone.
    pub fn split(&mut self) -> (BorrowedTcpReceiver<'_>, BorrowedTcpSender<'_>) {
        let (reader, writer) = tokio::io::split(&mut self.stream);
        (BorrowedTcpReceiver::new(reader, &mut self.inbox), BorrowedTcpSender::new(writer))
    }

    /// The address of this side.
    ///
    /// # Errors
    /// The socket is not connected any more.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// The address of the other side.
    ///
    /// # Errors
    /// The socket is not connected any more.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// The stream below, for code that speaks to the seam.
    #[must_use]
    pub fn into_inner(self) -> BoxStream {
        self.stream
    }
}

impl From<BoxStream> for TcpStream {
    fn from(stream: BoxStream) -> Self {
        Self { stream, inbox: Inbox::default() }
    }
}

impl ByteStream for TcpStream {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

/// The block that `recv` reads into; what it returns are parts of it.
#[derive(Debug)]
struct Inbox {
    block: BytesMut,
    limit: usize,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { block: BytesMut::new(), limit: RECV_LIMIT }
    }
}

impl Inbox {
    async fn recv(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
        // All of the block again if nobody holds a part of it: a larger read is one call to the system less.
        let short = self.block.capacity() < self.limit && !self.block.try_reclaim(self.limit);
        if short && self.block.capacity() < LEAST_ROOM.min(self.limit) {
            self.block.reserve(self.limit);
        }
        let room = self.block.capacity().min(self.limit);
        from.read_buf(&mut (&mut self.block).limit(room)).await?;
        Ok(self.block.split().freeze())
    }
}

async fn send(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

async fn send_vectored(to: &mut (impl AsyncWrite + Unpin), pieces: &[&[u8]]) -> io::Result<()> {
    // The first piece that is not sent whole, and how much of it is.
    let (mut first, mut done) = (0, 0);
    loop {
        while pieces.get(first).is_some_and(|piece| piece.len() == done) {
            (first, done) = (first + 1, 0);
        }
        let Some(begun) = pieces.get(first) else { return to.flush().await };
        let mut slices = [IoSlice::new(&[]); PIECES_AT_ONCE];
        let rest = std::iter::once(&begun[done..]).chain(pieces[first + 1..].iter().copied());
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(rest) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        done += match to.write_vectored(&slices[..count]).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            sent => sent,
        };
        while let Some(piece) = pieces.get(first).filter(|piece| piece.len() <= done) {
            (first, done) = (first + 1, done - piece.len());
        }
    }
}

macro_rules! read_through {
    ($wrapper:ty, $field:ident) => {
        impl tokio::io::AsyncRead for $wrapper {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.$field).poll_read(cx, buf)
            }
        }
    };
}

macro_rules! write_through {
    ($wrapper:ty, $field:ident) => {
        impl tokio::io::AsyncWrite for $wrapper {
            fn poll_write(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.$field).poll_write(cx, buf)
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.$field).poll_write_vectored(cx, bufs)
            }

            fn is_write_vectored(&self) -> bool {
                self.$field.is_write_vectored()
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.$field).poll_flush(cx)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.$field).poll_shutdown(cx)
            }
        }
    };
}

// By their names here, so that the halves see them too.
use {read_through, write_through};

read_through!(TcpStream, stream);
write_through!(TcpStream, stream);

#[cfg(test)]
mod tests;
