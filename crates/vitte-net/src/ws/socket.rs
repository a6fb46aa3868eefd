//! The open WebSocket: reading, writing, pings, and both ways to its end.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes};
use futures_util::task::AtomicWaker;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};

use super::deflate::Agreed;
use super::inbound::{Found, Inbound, MAX_CONTROL};
use super::outbound::{Outbound, SLICES};
use super::{CloseCode, CloseFrame, Event, Message, Role, WsError, WsOptions};
use crate::network::{BoxStream, Network};

/// What is read at a time, only to drop it: 4 KiB.
const DISCARD: usize = 4 * 1024;

/// An open WebSocket over a stream of bytes.
///
/// [`send`](Self::send) and [`recv`](Self::recv) are all that simple programs need. It is also a [`Stream`] and a
/// [`Sink`] of [`Message`]s, and [`split`](Self::split) makes two halves of it for two tasks.
///
/// Pings are answered, and a close of the peer is, while `recv` (or the stream) is polled: somebody has to. What
/// the application does not receive is not read from the stream either, so a fast sender waits.
///
/// Dropping it ends the stream below without a word, which the peer sees as [`WsError::Aborted`].
/// [`close`](Self::close) says goodbye first.
pub struct WebSocket<S = BoxStream> {
    stream: S,
    role: Role,
    inbound: Inbound,
    outbound: Outbound,
    /// Something was written to the stream since it was flushed.
    unflushed: bool,
    /// Why writing failed. What the peer sent before is still to be read.
    write_error: Option<io::Error>,
    /// The peer's close frame: `Some(None)` if it says nothing.
    peer_close: Option<Option<CloseFrame>>,
    /// What is to be told when the goodbye is over.
    failure: Option<WsError>,
    close_timeout: Duration,
    /// When the goodbye is over in any case.
    deadline: Option<Pin<Box<Sleep>>>,
    shut: bool,
    ended: bool,
    wakers: Arc<Both>,
    /// Wakes both sides, made once.
    both: Waker,
    protocol: Option<String>,
    compressed: bool,
}

/// Who waits. Sides may be different tasks, and the stream below remembers one waker for each direction.
#[derive(Default)]
struct Both {
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Wake for Both {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.reader.wake();
        self.writer.wake();
    }
}

/// Which half polls.
#[derive(Clone, Copy, Debug)]
enum Side {
    Reader,
    Writer,
}

impl<S: AsyncWrite> WebSocket<S> {
    /// `network` gives a client its masks; a server has none. `early` came along with the handshake.
    pub(super) fn new(
        stream: S,
        network: Option<Arc<dyn Network>>,
        options: &WsOptions,
        agreed: Option<&Agreed>,
        protocol: Option<String>,
        early: Bytes,
    ) -> Self {
        let role = if network.is_some() { Role::Client } else { Role::Server };
        let wakers = Arc::new(Both::default());
        let outbound = Outbound::new(network, options, agreed, stream.is_write_vectored());
        Self {
            stream,
            role,
            inbound: Inbound::new(role, options, agreed, early),
            outbound,
            unflushed: false,
            write_error: None,
            peer_close: None,
            failure: None,
            close_timeout: options.close_timeout,
            deadline: None,
            shut: false,
            ended: false,
            both: wakers.clone().into(),
            wakers,
            protocol,
            compressed: agreed.is_some(),
        }
    }
}

impl<S> WebSocket<S> {
    /// The subprotocol that both sides agreed on.
    #[must_use]
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// Both sides agreed to compress (`permessage-deflate`).
    #[must_use]
    pub fn is_compressed(&self) -> bool {
        self.compressed
    }

    /// The peer has closed; a frame that says nothing is `Some(None)`.
    #[must_use]
    pub fn peer_close(&self) -> Option<Option<&CloseFrame>> {
        self.peer_close.as_ref().map(Option::as_ref)
    }

    /// The stream below. Reading from it or writing to it breaks the WebSocket.
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Waits for the next message. None when the peer has closed and was answered: then
    /// [`peer_close`](Self::peer_close) knows what it said. Pings are answered on the way, pongs dropped; see
    /// [`recv_event`](Self::recv_event).
    ///
    /// # Errors
    /// What broke the WebSocket; after that there is nothing more. A peer that broke a rule is told so first, and
    /// given `WsOptions::close_timeout` to read it.
    ///
    /// # Cancel safety
    /// Cancel safe: no message is lost when the future is dropped.
    pub async fn recv(&mut self) -> Result<Option<Message>, WsError> {
        loop {
            match self.recv_event().await? {
                Some(Event::Message(message)) => return Ok(Some(message)),
                Some(Event::Ping(_) | Event::Pong(_)) => {}
                None => return Ok(None),
            }
        }
    }

    /// As [`recv`](Self::recv), with the pings and pongs of the peer. Pings are answered already.
    ///
    /// # Errors
    /// As `recv`.
    ///
    /// # Cancel safety
    /// Cancel safe, as `recv`.
    pub async fn recv_event(&mut self) -> Result<Option<Event>, WsError> {
        poll_fn(|cx| self.poll_event(cx)).await.transpose()
    }

    /// Sends a message. It returns when the stream below has taken all of it, and waits as long as the peer does
    /// not read.
    ///
    /// # Errors
    /// [`WsError::Closed`] after a close, or what broke the stream.
    ///
    /// # Cancel safety
    /// When the future is dropped, the message was either taken whole, and the rest of it is written by the next
    /// call that sends, flushes or receives, or not at all. It is lost in the second case.
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<(), WsError> {
        self.feed(message).await?;
        self.flush().await
    }

    /// As [`send`](Self::send), but only puts the message into the buffer, and writes when that is full
    /// (`WsOptions::write_buffer`). The rest is written by [`flush`](Self::flush), and by [`recv`](Self::recv) when
    /// it has to wait: who answers what it receives gets all answers to one read into one write.
    ///
    /// # Errors
    /// As `send`.
    ///
    /// # Cancel safety
    /// When the future is dropped, the message was not taken.
    pub async fn feed(&mut self, message: impl Into<Message>) -> Result<(), WsError> {
        poll_fn(|cx| self.poll_ready_to_send(cx)).await?;
        self.outbound.message(message.into());
        Ok(())
    }

    /// Writes everything that waits in the buffer.
    ///
    /// # Errors
    /// What broke the stream.
    ///
    /// # Cancel safety
    /// Cancel safe: what was not written stays in the buffer.
    pub async fn flush(&mut self) -> Result<(), WsError> {
        poll_fn(|cx| self.poll_flush_from(cx, Side::Writer)).await
    }

    /// Sends a ping with `content`, at most 125 bytes. Its pong comes by [`recv_event`](Self::recv_event).
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`WsError::ControlTooLong`].
    ///
    /// # Cancel safety
    /// As `send`.
    pub async fn ping(&mut self, content: impl Into<Bytes>) -> Result<(), WsError> {
        let content = control(content.into())?;
        poll_fn(|cx| self.poll_ready_to_send(cx)).await?;
        self.outbound.ping(content);
        self.flush().await
    }

    /// Sends a pong that answers nothing (RFC 6455, section 5.5.3: a sign of life), at most 125 bytes.
    ///
    /// # Errors
    /// As [`ping`](Self::ping).
    ///
    /// # Cancel safety
    /// As `send`.
    pub async fn pong(&mut self, content: impl Into<Bytes>) -> Result<(), WsError> {
        let content = control(content.into())?;
        poll_fn(|cx| self.poll_ready_to_send(cx)).await?;
        self.outbound.pong(content);
        self.flush().await
    }

    /// Closes: sends a close frame with `code` and `reason` (cut to 123 bytes), waits for the peer's, drops the
    /// messages that come before it, and ends the stream, all within `WsOptions::close_timeout`.
    ///
    /// # Errors
    /// [`WsError::CloseTimeout`] when the peer did not answer in time, otherwise what broke the WebSocket before
    /// or on the way. It has ended in any case. After an end there is nothing to do, which is fine.
    ///
    /// # Cancel safety
    /// Cancel safe: it may be called again. The time runs from the first call.
    pub async fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), WsError> {
        self.start_close(code, reason);
        while self.recv_event().await?.is_some() {}
        Ok(())
    }

    /// Puts the close frame into the buffer; the rest of the goodbye is up to who receives.
    fn start_close(&mut self, code: CloseCode, reason: &str) {
        if !self.outbound.is_closed() {
            self.outbound.close(Some(&CloseFrame::new(code, reason)));
            self.limit();
            // It has a deadline to look at now.
            self.wakers.reader.wake();
        }
    }

    /// The goodbye begins, and has an end.
    fn limit(&mut self) {
        if self.deadline.is_none() {
            // What does not fit into the clock is far enough away.
            const FAR: Duration = Duration::from_secs(86_400);
            let deadline = Instant::now() + self.close_timeout.min(FAR);
            self.deadline = Some(Box::pin(sleep_until(deadline)));
        }
    }

    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready())
    }

    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event, WsError>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            if self.failure.is_some() || self.peer_close.is_some() {
                ready!(self.poll_goodbye(cx));
                return Poll::Ready(self.failure.take().map(Err));
            }
            if self.deadline.is_some() && self.poll_overdue(cx) {
                self.end();
                return Poll::Ready(Some(Err(WsError::CloseTimeout)));
            }
            match self.inbound.next() {
                Ok(Found::Event(Event::Ping(content))) => {
                    self.outbound.answer(content.clone());
                    self.write_now(cx);
                    return Poll::Ready(Some(Ok(Event::Ping(content))));
                }
                Ok(Found::Event(event)) => return Poll::Ready(Some(Ok(event))),
                Ok(Found::Close(frame)) => {
                    let answer = frame.as_ref().map(|frame| CloseFrame::new(frame.code, ""));
                    self.outbound.close(answer.as_ref());
                    self.peer_close = Some(frame);
                    self.limit();
                }
                Ok(Found::Nothing) => match ready!(self.poll_more(cx)) {
                    Ok(()) => {}
                    Err(error) => {
                        self.end();
                        return Poll::Ready(Some(Err(error)));
                    }
                },
                Err(violation) => self.fail(violation),
            }
        }
    }

    /// Tells the peer which rule it broke.
    pub(super) fn fail(&mut self, violation: super::Violation) {
        self.outbound.close(Some(&CloseFrame::new(violation.code(), violation.to_string())));
        self.failure = Some(violation.into());
        self.limit();
    }

    /// Waits for bytes. What waits to be written is written on the way.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        self.write_now(cx);
        let (buffer, room) = self.inbound.room();
        let read = pin!(self.stream.read_buf(&mut buffer.limit(room))).poll(cx);
        let error = match read {
            Poll::Pending => {
                self.wakers.reader.register(cx.waker());
                return Poll::Pending;
            }
            Poll::Ready(Ok(0)) => WsError::Aborted,
            Poll::Ready(Ok(len)) => {
                self.inbound.arrived(len);
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Err(error)) => error.into(),
        };
        // Why writing failed before says more than that there is nothing to read.
        Poll::Ready(Err(self.write_error.take().map_or(error, WsError::Io)))
    }

    /// Writes what is to be written, drops what still arrives, and waits for the end of the stream: otherwise
    /// unread bytes would reset it, and the close frame might be lost on the way.
    fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let over = self.poll_overdue(cx) || self.poll_farewell(cx).is_ready();
        if over {
            self.end();
            return Poll::Ready(());
        }
        self.wakers.reader.register(cx.waker());
        Poll::Pending
    }

    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let flushed = ready!(self.poll_flush_from(cx, Side::Reader));
        if flushed.is_err() {
            return Poll::Ready(());
        }
        // A server ends the stream first (RFC 6455, section 7.1.1), and who was wronged does not wait for it.
        if !self.shut && (self.role == Role::Server || self.failure.is_some()) {
            if ready!(Pin::new(&mut self.stream).poll_shutdown(cx)).is_err() {
                return Poll::Ready(());
            }
            self.shut = true;
        }
        let mut dropped = [0; DISCARD];
        loop {
            match ready!(pin!(self.stream.read(&mut dropped)).poll(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    }

    /// It is over: nothing is read or written any more.
    fn end(&mut self) {
        self.ended = true;
        self.outbound.give_up();
        self.deadline = None;
        if !self.shut {
            self.shut = true;
            // As far as it goes without waiting.
            let _ = Pin::new(&mut self.stream).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
        self.wakers.writer.wake();
    }

    /// Writes as far as it goes, for the reader. An error waits until all is read.
    fn write_now(&mut self, cx: &mut Context<'_>) {
        if self.outbound.is_empty() && !self.unflushed {
            return;
        }
        if let Poll::Ready(Err(WsError::Io(error))) = self.poll_flush_from(cx, Side::Reader) {
            self.write_error.get_or_insert(error);
        }
    }

    fn poll_ready_to_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        if self.outbound.is_full() {
            ready!(self.poll_write_all(cx, Side::Writer, false))?;
        }
        Poll::Ready(if self.outbound.is_closed() { Err(self.why_closed()) } else { Ok(()) })
    }

    fn why_closed(&mut self) -> WsError {
        self.write_error.take().map_or(WsError::Closed, WsError::Io)
    }

    fn poll_flush_from(&mut self, cx: &mut Context<'_>, side: Side) -> Poll<Result<(), WsError>> {
        ready!(self.poll_write_all(cx, side, true))?;
        if self.unflushed {
            let flushed = self.poll_stream(cx, side, |stream, cx| Pin::new(stream).poll_flush(cx));
            ready!(flushed).inspect_err(|_| self.outbound.give_up())?;
            self.unflushed = false;
        }
        Poll::Ready(match self.write_error.take() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        })
    }

    /// Writes all that waits, or only until there is room for more.
    fn poll_write_all(&mut self, cx: &mut Context<'_>, side: Side, all: bool) -> Poll<Result<(), WsError>> {
        while if all { !self.outbound.is_empty() } else { self.outbound.is_full() } {
            let Self { stream, outbound, wakers, both, .. } = self;
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = outbound.slices(&mut slices);
            let slices = &slices[..count];
            let write = |stream: &mut S, cx: &mut Context<'_>| match slices {
                [only] => Pin::new(stream).poll_write(cx, only),
                several if stream.is_write_vectored() => Pin::new(stream).poll_write_vectored(cx, several),
                several => {
                    let first = several.iter().find(|slice| !slice.is_empty());
                    Pin::new(stream).poll_write(cx, first.map_or(&[], |slice| slice))
                }
            };
            match ready!(poll_both(stream, wakers, both, cx, side, write)) {
                Ok(0) => {
                    self.outbound.give_up();
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
                }
                Ok(len) => {
                    self.outbound.written(len);
                    self.unflushed = true;
                }
                Err(error) => {
                    self.outbound.give_up();
                    self.unflushed = false;
                    return Poll::Ready(Err(error.into()));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_stream<T>(
        &mut self,
        cx: &mut Context<'_>,
        side: Side,
        operation: impl Fn(&mut S, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        poll_both(&mut self.stream, &self.wakers, &self.both, cx, side, operation)
    }

    pub(super) fn poll_send_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        self.poll_ready_to_send(cx)
    }

    pub(super) fn start_send(&mut self, message: Message) -> Result<(), WsError> {
        if self.outbound.is_closed() {
            return Err(self.why_closed());
        }
        self.outbound.message(message);
        Ok(())
    }

    pub(super) fn poll_flush_all(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        self.poll_flush_from(cx, Side::Writer)
    }

    /// Says goodbye and writes it; the answer is for who receives.
    pub(super) fn poll_send_close(
        &mut self,
        cx: &mut Context<'_>,
        code: CloseCode,
        reason: &str,
    ) -> Poll<Result<(), WsError>> {
        self.start_close(code, reason);
        self.poll_flush_from(cx, Side::Writer)
    }

    pub(super) fn start_control(&mut self, content: Bytes, ping: bool) {
        if ping { self.outbound.ping(content) } else { self.outbound.pong(content) }
    }
}

/// Polls the writing direction of a stream. The stream remembers the waker of the latest call alone, so it gets
/// one that wakes whoever waits. The side says that it waits only when it has to, and asks again then.
fn poll_both<S, T>(
    stream: &mut S,
    wakers: &Both,
    both: &Waker,
    cx: &mut Context<'_>,
    side: Side,
    operation: impl Fn(&mut S, &mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    let mut shared = Context::from_waker(both);
    if let Poll::Ready(done) = operation(stream, &mut shared) {
        return Poll::Ready(done);
    }
    match side {
        Side::Reader => wakers.reader.register(cx.waker()),
        Side::Writer => wakers.writer.register(cx.waker()),
    }
    operation(stream, &mut shared)
}

pub(super) fn control(content: Bytes) -> Result<Bytes, WsError> {
    if content.len() > MAX_CONTROL { Err(WsError::ControlTooLong(content.len())) } else { Ok(content) }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for WebSocket<S> {
    type Item = Result<Message, WsError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            match ready!(this.poll_event(cx)) {
                Some(Ok(Event::Message(message))) => return Poll::Ready(Some(Ok(message))),
                Some(Ok(Event::Ping(_) | Event::Pong(_))) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// Closing the sink sends a close frame with the code 1000; the stream then ends when the peer has answered.
impl<S: AsyncRead + AsyncWrite + Unpin> Sink<Message> for WebSocket<S> {
    type Error = WsError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        self.get_mut().poll_ready_to_send(cx)
    }

    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), WsError> {
        WebSocket::start_send(self.get_mut(), message)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        self.get_mut().poll_flush_from(cx, Side::Writer)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        self.get_mut().poll_send_close(cx, CloseCode::NORMAL, "")
    }
}

impl<S> fmt::Debug for WebSocket<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket")
            .field("role", &self.role)
            .field("protocol", &self.protocol)
            .field("compressed", &self.compressed)
            .field("peer_close", &self.peer_close)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
