//! Two streams joined.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Bytes that went each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// From the first stream to the second.
    pub forth: u64,
    /// From the second stream to the first.
    pub back: u64,
}

/// One of the two streams of [`copy_both`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first.
    First,
    /// The second.
    Second,
}

/// Why [`copy_both`] ended before both streams had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// A stream failed.
    #[error("the {} stream failed: {error}", if *side == Side::First { "first" } else { "second" })]
    Stream {
        /// Which one.
        side: Side,
        /// How.
        error: io::Error,
    },
    /// Not a byte went either way for this long.
    #[error("no byte went either way for {0:?}")]
    Idle(Duration),
}

/// Counts while bytes are copied; another task may look at it.
#[derive(Debug, Default)]
pub struct CopyMeter {
    forth: AtomicU64,
    back: AtomicU64,
    failed: AtomicU8,
}

impl CopyMeter {
    /// What was written so far.
    #[must_use]
    pub fn copied(&self) -> Copied {
        Copied { forth: self.forth.load(Ordering::Relaxed), back: self.back.load(Ordering::Relaxed) }
    }
}

/// Copies from each stream to the other until both have ended; the end of one is passed on to the other while
/// the rest still comes back. With `idle` it gives up when not a byte went either way for so long. It holds
/// two buffers of 8 KiB. What went over is in `meter`, also after an error.
///
/// # Errors
/// A stream failed, or nothing moved.
///
/// # Cancel safety
/// When the future is dropped, bytes that were read and not yet written are lost; `meter` counts those written.
pub async fn copy_both<A, B>(
    first: &mut A,
    second: &mut B,
    idle: Option<Duration>,
    meter: &CopyMeter,
) -> Result<Copied, CopyError>
where
    A: AsyncRead + AsyncWrite + Unpin + ?Sized,
    B: AsyncRead + AsyncWrite + Unpin + ?Sized,
{
    let mut a = Metered { stream: first, written: &meter.back, failed: &meter.failed, number: 1 };
    let mut b = Metered { stream: second, written: &meter.forth, failed: &meter.failed, number: 2 };
    let mut copying = pin!(tokio::io::copy_bidirectional(&mut a, &mut b));
    let mut silence = idle.map(|idle| (idle, Box::pin(tokio::time::sleep(idle)), meter.copied()));
    let ended = poll_fn(|cx| {
        if let Poll::Ready(ended) = copying.as_mut().poll(cx) {
            return Poll::Ready(Ok(ended));
        }
        let Some((idle, timer, seen)) = &mut silence else { return Poll::Pending };
        if *seen != meter.copied() {
            *seen = meter.copied();
            timer.as_mut().reset(Instant::now() + *idle);
        }
        timer.as_mut().poll(cx).map(|()| Err(CopyError::Idle(*idle)))
    });
    match ended.await? {
        Ok(_) => Ok(meter.copied()),
        Err(error) => {
            let second = meter.failed.load(Ordering::Relaxed) == 2;
            Err(CopyError::Stream { side: if second { Side::Second } else { Side::First }, error })
        }
    }
}

/// A stream that counts what is written to it, and remembers that it was the one that failed.
struct Metered<'a, S: ?Sized> {
    stream: &'a mut S,
    written: &'a AtomicU64,
    failed: &'a AtomicU8,
    number: u8,
}

impl<S: ?Sized> Metered<'_, S> {
    fn note<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(_)) = result {
            self.failed.store(self.number, Ordering::Relaxed);
        }
        result
    }
}

impl<S: AsyncRead + Unpin + ?Sized> AsyncRead for Metered<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut *self.stream).poll_read(cx, buf);
        self.note(read)
    }
}

impl<S: AsyncWrite + Unpin + ?Sized> AsyncWrite for Metered<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(len)) = written {
            self.written.fetch_add(len as u64, Ordering::Relaxed);
        }
        self.note(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut *self.stream).poll_flush(cx);
        self.note(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut *self.stream).poll_shutdown(cx);
        self.note(ended)
    }
}
