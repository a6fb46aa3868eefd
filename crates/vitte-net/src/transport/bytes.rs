//! Byte links: TLS records over TCP, or over a WebSocket.
//!
//! Each half has its own side of the socket and its own buffer; they share the TLS connection behind a lock
//! that is never held during socket I/O, across an await, or while received bytes are delivered. So whoever
//! takes delivered bytes may write to the same link at once.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;
use vitte_net_proto::{Lane, PeerId};

use super::{Link, LinkError, LinkInfo, LinkReader, LinkWriter, Transport};
use crate::network::{BoxStream, ReadStream, WriteStream};
use crate::tls::{Buffer, MAX_PLAINTEXT, MeshTls, Opened, Records, TlsError};

/// Most bytes that are read of a peer before its handshake is done: 16 KiB. Ours takes about 1 KiB.
const HANDSHAKE_BYTES: usize = 16 * 1024;
/// Bytes that the first read of a server asks for. Before it there is no TLS state: a silent connection costs little.
const FIRST_READ: usize = 512;
/// Bytes that one read asks for, at most: 64 KiB. Larger reads measured no faster.
const READ_MOST: usize = 64 * 1024;
/// Bytes that one read asks for on a link that has little to say: 4 KiB.
const READ_LEAST: usize = 4 * 1024;
/// Sealed bytes that wait for the socket before the writer takes no more: 128 KiB, and one record above.
/// Smaller batches cost throughput; larger ones stand in the way of what is urgent.
const HIGH_WATER: usize = 128 * 1024;
/// Reads or flushes in a row that need a quarter of their buffer at most before it is made smaller.
const QUIET_ROUNDS: u32 = 16;

/// What both halves use.
struct Shared {
    records: Records,
    /// This side has cut the link.
    cut: bool,
    /// The task that waits for bytes.
    reader: Option<Waker>,
}

type SharedLock = Arc<Mutex<Shared>>;

fn lock(shared: &SharedLock) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The dialling side of a handshake over `stream`, within `limit`. If a peer is `expected`, any other key
/// is refused.
///
/// # Errors
/// What went wrong; the stream is gone.
pub(crate) async fn handshake_client(
    stream: BoxStream,
    tls: &MeshTls,
    expected: Option<PeerId>,
    transport: Transport,
    limit: Duration,
) -> Result<Link, LinkError> {
    let shaken = timeout(limit, async {
        let records = Records::client(tls.client_config(expected))?;
        handshake(stream, records, Buffer::default(), transport, true).await
    });
    shaken.await.unwrap_or(Err(LinkError::HandshakeTimeout))
}

/// The accepting side of a handshake over `stream`, within `limit`.
///
/// # Errors
/// What went wrong; the stream is gone.
pub(crate) async fn handshake_server(
    mut stream: BoxStream,
    tls: &MeshTls,
    transport: Transport,
    limit: Duration,
) -> Result<Link, LinkError> {
    let shaken = timeout(limit, async {
        let incoming = first_bytes(&mut stream).await?;
        handshake(stream, Records::server(tls.server_config())?, incoming, transport, false).await
    });
    shaken.await.unwrap_or(Err(LinkError::HandshakeTimeout))
}

/// Waits for a peer that dialled to say something.
async fn first_bytes(stream: &mut BoxStream) -> Result<Buffer, LinkError> {
    let mut first = [0; FIRST_READ];
    let len = stream.read(&mut first).await.map_err(broken)?;
    let mut incoming = Buffer::default();
    incoming.extend(&first[..len]);
    Ok(incoming)
}

async fn handshake(
    mut stream: BoxStream,
    mut records: Records,
    mut incoming: Buffer,
    transport: Transport,
    dialled: bool,
) -> Result<Link, LinkError> {
    let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
    let peer = shake(&mut stream, &mut records, &mut incoming).await?;
    let info = LinkInfo { peer, transport, dialled, local, remote };
    let shared = Arc::new(Mutex::new(Shared { records, cut: false, reader: None }));
    let (read_stream, write_stream) = stream.into_split();
    let reader = Reader {
        shared: shared.clone(),
        socket: read_stream,
        incoming,
        plain: Vec::new(),
        appetite: Appetite::default(),
    };
    let writer = Writer {
        shared,
        socket: write_stream,
        outgoing: Buffer::default(),
        unflushed: false,
        highest: 0,
        quiet: 0,
    };
    Ok(Link { info, reader: LinkReader::Bytes(reader), writer: LinkWriter::Bytes(writer) })
}

async fn shake(
    stream: &mut BoxStream,
    records: &mut Records,
    incoming: &mut Buffer,
) -> Result<PeerId, LinkError> {
    let mut out = Buffer::default();
    let mut received = incoming.len();
    loop {
        let step = records.handshake(incoming, &mut out);
        if !out.is_empty() {
            let sent = async {
                stream.write_all(out.filled()).await?;
                stream.flush().await
            };
            // The alert of a failed handshake is a courtesy: the failure counts, not whether it arrived.
            sent.await.map_err(broken).or_else(|error| if step.is_err() { Ok(()) } else { Err(error) })?;
            out.consume(out.len());
        }
        if let Some(peer) = step? {
            return Ok(peer);
        }
        if received >= HANDSHAKE_BYTES {
            let reason = format!("a handshake of more than {HANDSHAKE_BYTES} bytes");
            return Err(LinkError::Protocol { protocol: "TLS", reason });
        }
        let len = stream.read(&mut incoming.space(READ_LEAST)[..READ_LEAST]).await.map_err(broken)?;
        if len == 0 {
            return Err(LinkError::Io(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection ended inside the handshake",
            )));
        }
        incoming.fill(len);
        received += len;
    }
}

impl From<TlsError> for LinkError {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::WrongPeer { expected, found } => Self::WrongPeer { expected, found },
            error => Self::Protocol { protocol: "TLS", reason: error.to_string() },
        }
    }
}

/// An error of the stream below, which is more than the network where the stream is a WebSocket.
pub(super) fn broken(error: io::Error) -> LinkError {
    #[cfg(feature = "ws")]
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<crate::ws::WsError>()) {
        return LinkError::Protocol { protocol: "WebSocket", reason: error.to_string() };
    }
    // The TLS around a WebSocket says so of what it cannot read.
    if error.kind() == io::ErrorKind::InvalidData {
        return LinkError::Protocol { protocol: "TLS", reason: error.to_string() };
    }
    LinkError::Io(error)
}

/// How many bytes the next read should ask for.
#[derive(Debug)]
struct Appetite {
    size: usize,
    quiet: u32,
    /// It is less than it was: buffers may be made smaller when they are empty.
    shrunk: bool,
}

impl Default for Appetite {
    fn default() -> Self {
        Self { size: READ_LEAST, quiet: 0, shrunk: false }
    }
}

impl Appetite {
    /// A read gave `len` bytes.
    fn learn(&mut self, len: usize) {
        self.shrunk = false;
        if len == self.size {
            *self = Self { size: (self.size * 4).min(READ_MOST), quiet: 0, shrunk: false };
        } else if len > self.size / 4 {
            self.quiet = 0;
        } else {
            self.quiet += 1;
        }
        if self.quiet == QUIET_ROUNDS {
            *self = Self { size: (self.size / 2).max(READ_LEAST), quiet: 0, shrunk: true };
        }
    }
}

/// The receiving half of a byte link.
pub struct Reader {
    shared: SharedLock,
    socket: ReadStream,
    incoming: Buffer,
    plain: Vec<u8>,
    appetite: Appetite,
}

impl Reader {
    pub(super) async fn read(
        &mut self,
        deliver: &mut (dyn FnMut(Lane, &[u8]) + Send),
    ) -> Result<(), LinkError> {
        loop {
            if self.open(deliver)? {
                return Ok(());
            }
            if self.appetite.shrunk {
                self.incoming.shrink(self.appetite.size);
                self.plain.shrink_to(self.appetite.size);
            }
            let len = poll_fn(|cx| self.poll_socket(cx)).await?;
            if len == 0 {
                return Err(LinkError::Io(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the connection was cut without a goodbye",
                )));
            }
            self.incoming.fill(len);
            self.appetite.learn(len);
        }
    }

    /// Delivers all whole records that have been read, and says whether there was anything in them.
    fn open(&mut self, deliver: &mut (dyn FnMut(Lane, &[u8]) + Send)) -> Result<bool, LinkError> {
        let mut delivered = false;
        loop {
            self.plain.clear();
            let opened = lock(&self.shared).records.open(&mut self.incoming, &mut self.plain);
            if !self.plain.is_empty() {
                delivered = true;
                deliver(Lane::CONTROL, &self.plain);
            }
            match opened? {
                Opened::Some => {}
                Opened::Closed if !delivered => return Err(LinkError::Closed),
                Opened::All | Opened::Closed => return Ok(delivered),
            }
        }
    }

    fn poll_socket(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, LinkError>> {
        let size = self.appetite.size;
        let mut room = ReadBuf::new(&mut self.incoming.space(size)[..size]);
        if let Poll::Ready(read) = Pin::new(&mut self.socket).poll_read(cx, &mut room) {
            return Poll::Ready(read.map(|()| room.filled().len()).map_err(broken));
        }
        let mut shared = lock(&self.shared);
        if shared.cut {
            return Poll::Ready(Err(LinkError::Io(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "this side cut the link",
            ))));
        }
        if !shared.reader.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            shared.reader = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("incoming", &self.incoming).finish_non_exhaustive()
    }
}

/// The sending half of a byte link.
pub struct Writer {
    shared: SharedLock,
    socket: WriteStream,
    outgoing: Buffer,
    /// Something was written to the stream since it was flushed.
    unflushed: bool,
    /// Most bytes that waited at once since the buffer was last looked at.
    highest: usize,
    quiet: u32,
}

impl Writer {
    pub(super) fn capacity(&self) -> usize {
        if self.outgoing.len() < HIGH_WATER { MAX_PLAINTEXT } else { 0 }
    }

    pub(super) fn write(&mut self, frames: &[u8]) -> Result<(), LinkError> {
        debug_assert!(frames.len() <= self.capacity(), "more than was offered");
        if frames.is_empty() {
            return Ok(());
        }
        lock(&self.shared).records.seal(frames, &mut self.outgoing)?;
        self.highest = self.highest.max(self.outgoing.len());
        Ok(())
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        while !self.outgoing.is_empty() {
            let len = ready!(Pin::new(&mut self.socket).poll_write(cx, self.outgoing.filled()));
            match len.map_err(broken)? {
                0 => return Poll::Ready(Err(LinkError::Io(io::ErrorKind::WriteZero.into()))),
                len => self.outgoing.consume(len),
            }
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.socket).poll_flush(cx)).map_err(broken)?;
            self.unflushed = false;
            self.shrink();
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn close(&mut self) {
        let reader = {
            let mut shared = lock(&self.shared);
            shared.records.close(&mut self.outgoing);
            shared.cut = true;
            shared.reader.take()
        };
        let mut cx = Context::from_waker(Waker::noop());
        // As far as it goes without waiting: who cannot be told, will see the end of the bytes.
        let _ = self.poll_flush(&mut cx);
        let _ = Pin::new(&mut self.socket).poll_shutdown(&mut cx);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn shrink(&mut self) {
        let quiet = self.highest <= self.outgoing.footprint() / 4;
        self.quiet = if quiet { self.quiet + 1 } else { 0 };
        self.highest = 0;
        if self.quiet >= QUIET_ROUNDS {
            self.outgoing.shrink((self.outgoing.footprint() / 2).max(READ_LEAST));
            self.quiet = 0;
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("outgoing", &self.outgoing).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
