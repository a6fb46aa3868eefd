//! Two halves of a WebSocket, for two tasks.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite};

use super::socket::control;
use super::{CloseCode, CloseFrame, Event, Message, WebSocket, WsError};
use crate::network::BoxStream;

/// The lock is held for moments, while the socket is polled, and never across an await.
type Shared<S> = Arc<Mutex<WebSocket<S>>>;

fn lock<S>(shared: &Shared<S>) -> MutexGuard<'_, WebSocket<S>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Two halves, for two tasks. The [`WsReceiver`] answers pings and the peer's close, so it must be polled
    /// for as long as the WebSocket lives. The stream below ends when both are dropped.
    #[must_use]
    pub fn split(self) -> (WsSender<S>, WsReceiver<S>) {
        let shared = Arc::new(Mutex::new(self));
        (WsSender(shared.clone()), WsReceiver(shared))
    }
}

/// The half of a [`WebSocket`] that sends. It is a [`Sink`], too.
pub struct WsSender<S = BoxStream>(Shared<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> WsSender<S> {
    /// As [`WebSocket::send`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<(), WsError> {
        self.feed(message).await?;
        self.flush().await
    }

    /// As [`WebSocket::feed`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn feed(&mut self, message: impl Into<Message>) -> Result<(), WsError> {
        poll_fn(|cx| lock(&self.0).poll_send_ready(cx)).await?;
        lock(&self.0).start_send(message.into())
    }

    /// As [`WebSocket::flush`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn flush(&mut self) -> Result<(), WsError> {
        poll_fn(|cx| lock(&self.0).poll_flush_all(cx)).await
    }

    /// As [`WebSocket::ping`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn ping(&mut self, content: impl Into<Bytes>) -> Result<(), WsError> {
        let content = control(content.into())?;
        poll_fn(|cx| lock(&self.0).poll_send_ready(cx)).await?;
        lock(&self.0).start_control(content, true);
        self.flush().await
    }

    /// Sends a close frame with `code` and `reason` (cut to 123 bytes). The [`WsReceiver`] then still gives what
    /// the peer sent before it answered, and ends, within `WsOptions::close_timeout`.
    ///
    /// # Errors
    /// What broke the stream.
    ///
    /// # Cancel safety
    /// Cancel safe: it may be called again.
    pub async fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), WsError> {
        poll_fn(|cx| lock(&self.0).poll_send_close(cx, code, reason)).await
    }
}

/// Closing the sink is [`WsSender::close`] with the code 1000.
impl<S: AsyncRead + AsyncWrite + Unpin> Sink<Message> for WsSender<S> {
    type Error = WsError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        lock(&self.0).poll_send_ready(cx)
    }

    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), WsError> {
        lock(&self.0).start_send(message)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        lock(&self.0).poll_flush_all(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        lock(&self.0).poll_send_close(cx, CloseCode::NORMAL, "")
    }
}

impl<S> fmt::Debug for WsSender<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WsSender").field(&*lock(&self.0)).finish()
    }
}

/// The half of a [`WebSocket`] that receives. It is a [`Stream`], too.
pub struct WsReceiver<S = BoxStream>(Shared<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> WsReceiver<S> {
    /// As [`WebSocket::recv`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn recv(&mut self) -> Result<Option<Message>, WsError> {
        loop {
            match self.recv_event().await? {
                Some(Event::Message(message)) => return Ok(Some(message)),
                Some(Event::Ping(_) | Event::Pong(_)) => {}
                None => return Ok(None),
            }
        }
    }

    /// As [`WebSocket::recv_event`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn recv_event(&mut self) -> Result<Option<Event>, WsError> {
        poll_fn(|cx| lock(&self.0).poll_event(cx)).await.transpose()
    }

    /// As [`WebSocket::peer_close`].
    #[must_use]
    pub fn peer_close(&self) -> Option<Option<CloseFrame>> {
        lock(&self.0).peer_close().map(|frame| frame.cloned())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for WsReceiver<S> {
    type Item = Result<Message, WsError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(lock(&self.0).poll_event(cx)) {
                Some(Ok(Event::Message(message))) => return Poll::Ready(Some(Ok(message))),
                Some(Ok(Event::Ping(_) | Event::Pong(_))) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl<S> fmt::Debug for WsReceiver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WsReceiver").field(&*lock(&self.0)).finish()
    }
}
