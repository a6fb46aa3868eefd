//! A WebSocket as a carrier of bytes, for the links of a mesh.
//!
//! Both sides speak the subprotocol `vitte.1`: binary messages, whose boundaries mean nothing. Pings are
//! answered, a close is the end of the bytes, a text message breaks the rules. There is no keep-alive here.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connector::shake;
use super::{
    AcceptError, CloseCode, ConnectError, Event, Message, Refusal, Violation, WebSocket, WsAcceptor, WsError,
    WsOptions,
};
use crate::network::{BoxStream, ByteStream, Network};

/// The subprotocol that both sides must name.
pub const SUBPROTOCOL: &str = "vitte.1";

/// Most bytes of a request or an answer before it must be complete: 8 KiB.
const HEAD: usize = 8 * 1024;
/// Bytes of a message that is sent, at most: a TLS record. A message is read when all of it has arrived, so that
/// longer ones would hold up what is in them.
const MESSAGE_OUT: usize = 16 * 1024 + 256;
/// Bytes of a message or frame that is taken, at most: 256 KiB. A proxy may have merged some of ours.
const MESSAGE_IN: usize = 256 * 1024;

fn options() -> WsOptions {
    WsOptions {
        max_frame: MESSAGE_IN,
        max_message: MESSAGE_IN,
        max_handshake: HEAD,
        // What is written is a batch already.
        write_buffer: 0,
        ..WsOptions::default()
    }
}

/// Makes a WebSocket of `stream` as its client, and bytes of the WebSocket. `authority` is the server's host
/// with its port, as a URL has them; `path` begins with a slash. The key of the request and the masks come from
/// `network`. There is no time-out here: the caller sets one.
///
/// # Errors
/// The server refused, broke the rules, or the stream failed.
///
/// # Cancel safety
/// The stream is gone when the future is dropped.
pub(crate) async fn connect(
    stream: BoxStream,
    authority: &str,
    path: &str,
    network: Arc<dyn Network>,
) -> Result<BoxStream, ConnectError> {
    let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
    let protocols = [SUBPROTOCOL.to_owned()];
    let socket = shake(stream, authority, path, &protocols, &[], &options(), network).await?;
    if socket.protocol().is_none() {
        return Err(ConnectError::Answer("it does not speak vitte.1"));
    }
    Ok(Box::new(WsBytes { socket, incoming: Bytes::new(), ended: false, local, remote }))
}

/// Makes a WebSocket of `stream` as its server, and bytes of the WebSocket. Who asks for another `path` is
/// told 404, who does not offer the subprotocol 400.
///
/// # Errors
/// The client asked for something else, broke the rules, sent more than 8 KiB of request, or the stream
/// failed.
///
/// # Cancel safety
/// The stream is gone when the future is dropped.
pub(crate) async fn accept(stream: BoxStream, path: &str) -> Result<BoxStream, AcceptError> {
    let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
    let acceptor = WsAcceptor::new().options(options()).origins(super::Origins::Any).protocols([SUBPROTOCOL]);
    let accepted = acceptor.accept_if(stream, |request| {
        if request.path() != path {
            return Err(Refusal::new(404, "another path"));
        }
        if !request.offers(SUBPROTOCOL) {
            return Err(Refusal::new(400, "it does not offer vitte.1"));
        }
        Ok(())
    });
    let (socket, _) = accepted.await?;
    Ok(Box::new(WsBytes { socket, incoming: Bytes::new(), ended: false, local, remote }))
}

/// The binary messages of a WebSocket as a stream of bytes.
struct WsBytes {
    socket: WebSocket,
    /// What is left of the last message.
    incoming: Bytes,
    ended: bool,
    local: SocketAddr,
    remote: SocketAddr,
}

impl fmt::Debug for WsBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WsBytes").field("local", &self.local).field("remote", &self.remote).finish()
    }
}

impl ByteStream for WsBytes {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.remote)
    }
}

impl AsyncRead for WsBytes {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.incoming.is_empty() && !this.ended {
            match this.socket.poll_event(cx) {
                Poll::Ready(Some(Ok(Event::Message(Message::Binary(bytes))))) => this.incoming = bytes,
                Poll::Ready(Some(Ok(Event::Message(Message::Text(_))))) => {
                    this.socket.fail(Violation::Text);
                }
                Poll::Ready(Some(Ok(Event::Ping(_) | Event::Pong(_)))) => {}
                // A close is the end, also before the goodbye is over; so is an end without one.
                Poll::Ready(None | Some(Err(WsError::Aborted | WsError::CloseTimeout))) => this.ended = true,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error.into())),
                Poll::Pending if this.socket.peer_close().is_some() => this.ended = true,
                Poll::Pending => return Poll::Pending,
            }
        }
        let len = this.incoming.len().min(buf.remaining());
        buf.put_slice(&this.incoming[..len]);
        this.incoming.advance(len);
        if this.incoming.is_empty() {
            // Gives the memory of the message back.
            this.incoming = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WsBytes {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // One message at a time: more would only wait here.
        ready!(self.socket.poll_send_ready(cx))?;
        let len = buf.len().min(MESSAGE_OUT);
        self.socket.start_send(Message::binary(Bytes::copy_from_slice(&buf[..len])))?;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(ready!(self.socket.poll_flush_all(cx))?))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(ready!(self.socket.poll_send_close(cx, CloseCode::NORMAL, ""))?))
    }
}

#[cfg(test)]
mod tests;
