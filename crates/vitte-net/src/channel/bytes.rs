//! Byte streams of any length between peers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use vitte_net_proto::{PeerId, SendError as Unsent, StreamCode, Taken};

use super::Stream;
use super::waiting::Waiter;

/// Bytes that one write hands to the session at most.
const WRITE_MAX: usize = 64 << 10;

/// A byte stream to a peer: it survives its links, has flow control of its own, and no length limit.
///
/// Shutting it down finishes this direction and waits until the peer has read everything. Dropping it
/// flushes what was written; the peer learns that nothing more is read here.
#[derive(Debug)]
pub struct PeerStream {
    stream: Stream,
    finished: bool,
    room: Waiter,
    end: Waiter,
}

impl PeerStream {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, finished: false, room: Waiter::default(), end: Waiter::default() }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.stream.carrier.peer()
    }

    /// Gives up both directions, for this reason.
    pub fn abort(self, code: StreamCode, reason: &str) {
        self.stream.carrier.reset(self.stream.id, code, reason);
        self.stream.carrier.stop(self.stream.id, code, reason);
    }
}

fn broken(code: StreamCode, reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, format!("the byte stream was given up: {code} {reason:?}"))
}

impl AsyncRead for PeerStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(match ready!(self.stream.carrier.poll_take(cx, self.stream.id, buf.remaining())) {
            Taken::Payload(bytes) => {
                buf.put_slice(&bytes);
                Ok(())
            }
            Taken::End | Taken::Empty => Ok(()),
            Taken::Reset(code, reason) => Err(broken(code, &reason)),
        })
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let part = &bytes[..bytes.len().min(WRITE_MAX)];
        let this = &mut *self;
        let Stream { carrier, id } = &this.stream;
        let sent = ready!(carrier.poll_send(
            Some((cx, &mut this.room)),
            *id,
            &Bytes::copy_from_slice(part),
            None,
            false
        ));
        Poll::Ready(match sent {
            Ok(_) => Ok(part.len()),
            Err(Unsent::Closed) if this.finished => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => match carrier.poll_stopped(cx, &mut this.end, *id) {
                Poll::Ready((code, reason)) => Err(broken(code, &reason)),
                Poll::Pending => Err(io::ErrorKind::BrokenPipe.into()),
            },
        })
    }

    /// Ready at once: what was written goes out by itself.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Stream { carrier, id } = &this.stream;
        if !this.finished {
            this.finished = true;
            carrier.finish(*id);
        }
        Poll::Ready(match ready!(carrier.poll_stopped(cx, &mut this.end, *id)) {
            (StreamCode::FINISHED, _) => Ok(()),
            (code, reason) => Err(broken(code, &reason)),
        })
    }
}
