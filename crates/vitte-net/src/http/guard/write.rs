//! The way out: bytes are not looked at, but a peer that takes none is not waited for, and one that is still sending
//! when the connection ends is read for a while.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncWrite, ReadBuf};

use super::{Broken, Guard, Role};

/// A connection that ends is read until the peer has ended too, for at most so long and so many bytes:
/// otherwise the system resets it, and the peer may lose the last answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

impl Guard {
    /// The outcome of a write, unless the peer has taken nothing for too long.
    fn patient<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.write_alarm.calm();
            return polled;
        }
        if self.role == Role::Client {
            return Poll::Pending;
        }
        ready!(self.write_alarm.poll_for(cx, self.limits.body_time));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, Broken("a peer that takes no bytes"))))
    }

    /// Reads and drops until the peer has ended too, within limits.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    self.lingered += buf.filled().len();
                    if self.lingered > LINGER_BYTES {
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.write_alarm.poll_for(cx, LINGER),
            }
        }
    }
}

impl AsyncWrite for Guard {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.patient(cx, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.patient(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(cx);
        this.patient(cx, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.finished {
            let polled = Pin::new(&mut this.stream).poll_shutdown(cx);
            ready!(this.patient(cx, polled))?;
            this.finished = true;
        }
        if this.role == Role::Server {
            ready!(this.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
