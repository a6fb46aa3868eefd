//! Several datagrams at a time.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use super::{UdpSocket, check_length};
use crate::network::{Outgoing, Received};

/// So many datagrams are received in a row before other tasks may run: 256.
const AT_ONCE: usize = 256;

/// Room for datagrams to be received, to be used again and again.
///
/// ```no_run
/// use vitte_net::network::Outgoing;
/// use vitte_net::udp::{Batch, UdpSocket};
///
/// # async fn example() -> std::io::Result<()> {
/// // Sends back all that comes, many datagrams with one call to the system where it can do that.
/// let socket = UdpSocket::builder().batches(true).bind("127.0.0.1:7007").await?;
/// let mut batch = Batch::new(64, 1500);
/// loop {
///     socket.recv_batch(&mut batch).await?;
///     let whole = batch.iter().filter(|(_, received)| !received.truncated);
///     let answers: Vec<_> = whole.map(|(bytes, received)| Outgoing { bytes, to: received.from }).collect();
///     if let Err(failed) = socket.send_batch(&answers).await {
///         eprintln!("the answer to {} was not sent: {failed}", answers[failed.sent].to);
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Batch {
    buffer: Vec<u8>,
    longest: usize,
    received: Vec<Received>,
    most: usize,
}

impl Batch {
    /// Room for `most` datagrams (at least 1) of up to `longest` bytes each; it is allocated at once. What is longer is
    /// cut, and its [`Received::truncated`] says so.
    #[must_use]
    pub fn new(most: usize, longest: usize) -> Self {
        let most = most.max(1);
        let buffer = vec![0; most.saturating_mul(longest)];
        Self { buffer, longest, received: Vec::with_capacity(most), most }
    }

    /// The datagrams that were received last, in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], Received)> {
        self.received.iter().enumerate().map(|(i, received)| {
            let begin = i * self.longest;
            (&self.buffer[begin..begin + received.len], *received)
        })
    }

    /// How many datagrams were received last.
    #[must_use]
    pub fn len(&self) -> usize {
        self.received.len()
    }

    /// Nothing was received.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }
}

/// A batch was not sent to its end.
#[derive(Debug)]
pub struct BatchError {
    /// So many datagrams, the first ones, were sent; the next one is at fault.
    pub sent: usize,
    /// What is wrong with it, as of [`UdpSocket::send_to`].
    pub error: io::Error,
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the datagram after {} others was not sent: {}", self.sent, self.error)
    }
}

impl std::error::Error for BatchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl UdpSocket {
    /// Sends all of these, in this order. With [`batches`](super::UdpBuilder::batches) those that go to the same
    /// address and are of the same length go together where the system can do that.
    ///
    /// # Errors
    /// A datagram could not be sent: the error says which one, those before it were sent and those after it were not.
    ///
    /// # Cancel safety
    /// When the future is dropped, the first ones were sent, each of them whole, and the rest was not.
    pub async fn send_batch(&self, datagrams: &[Outgoing<'_>]) -> Result<(), BatchError> {
        let mut sent = 0;
        while sent < datagrams.len() {
            // Up to the first that is too long, so that those before it are sent.
            let rest = &datagrams[sent..];
            let fits = |datagram: &&Outgoing<'_>| check_length(datagram.bytes.len(), &datagram.to).is_ok();
            let rest = &rest[..rest.iter().take_while(fits).count().max(1)];
            let failed = |error| BatchError { sent, error };
            check_length(rest[0].bytes.len(), &rest[0].to).map_err(failed)?;
            let mut waiting = self.writers.join();
            let sending = poll_fn(|cx| self.poll_send(cx, &mut waiting, || self.socket.try_send_batch(rest)));
            sent += sending.await.map_err(failed)?;
        }
        Ok(())
    }

    /// Waits for the next datagram from anybody, or from the peer that [`connect`](Self::connect) named, and takes those
    /// that are there behind it as well, up to 256 and as many as there is room for. What was in `batch` before is gone. It returns how many there are now: at least one.
    ///
    /// # Errors
    /// What the system said, if there was no datagram before it. The socket can still be used.
    ///
    /// # Cancel safety
    /// Cancel safe: when the future is dropped, no datagram was taken.
    pub async fn recv_batch(&self, batch: &mut Batch) -> io::Result<usize> {
        batch.received.clear();
        let mut waiting = self.readers.join();
        poll_fn(|cx| waiting.poll(cx, |cx| self.poll_batch(cx, batch))).await
    }

    fn poll_batch(&self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<usize>> {
        while batch.received.len() < batch.most.min(AT_ONCE) {
            let begin = batch.received.len() * batch.longest;
            match self.poll_receive(cx, &mut batch.buffer[begin..begin + batch.longest]) {
                Poll::Ready(Ok(received)) => batch.received.push(received),
                Poll::Ready(Err(error)) if batch.is_empty() => return Poll::Ready(Err(error)),
                Poll::Pending if batch.is_empty() => return Poll::Pending,
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "an error behind datagrams that were received");
                    break;
                }
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(batch.len()))
    }
}

#[cfg(test)]
mod tests;
