//! WebSocket (RFC 6455) as a carrier of bytes. No other file names `tokio-tungstenite`.
//!
//! Both sides speak the subprotocol `vitte.1`: binary messages, whose boundaries mean nothing. Pings are
//! answered, a close is the end of the bytes, a text message breaks the rules. There is no keep-alive here.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use data_encoding::BASE64;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{self, HeaderMap, HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config, client_async_with_config};

use crate::network::{BoxStream, ByteStream};

/// The subprotocol that both sides must name.
pub const SUBPROTOCOL: &str = "vitte.1";

/// Most bytes of a request before it must be complete: 8 KiB.
const HEAD: usize = 8 * 1024;
/// Bytes of a message that is sent, at most: a TLS record. A message is read when all of it has arrived, so that
/// longer ones would hold up what is in them.
const MESSAGE_OUT: usize = 16 * 1024 + 256;
/// Bytes of a message or frame that is taken, at most: 256 KiB. A proxy may have merged some of ours.
const MESSAGE_IN: usize = 256 * 1024;
/// Bytes of one read below: 16 KiB, which an idle connection keeps.
const READ: usize = 16 * 1024;

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ)
        // Nothing is held back: what is written is a batch already.
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MESSAGE_OUT)
        .max_message_size(Some(MESSAGE_IN))
        .max_frame_size(Some(MESSAGE_IN))
}

/// Makes a WebSocket of `stream` as its client, and bytes of the WebSocket. `authority` is the server's host
/// with its port, as a URL has them; `path` begins with a slash; `key` are 16 random bytes, which only tell
/// one request from another. There is no time-out here: the caller sets one.
///
/// # Errors
/// The server refused, broke the rules, or the stream failed.
///
/// # Cancel safety
/// The stream is gone when the future is dropped.
pub async fn connect(
    stream: BoxStream,
    authority: &str,
    path: &str,
    key: [u8; 16],
) -> Result<BoxStream, WsError> {
    let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
    let request = http::Request::builder()
        .uri(format!("ws://{authority}{path}"))
        .header(header::HOST, authority)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, BASE64.encode(&key))
        .header(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
        .body(())
        .map_err(|error| WsError::Address(error.to_string()))?;
    let stream = Replay { head: Vec::new(), request: 0, at: 0, inner: stream };
    let (socket, _) = client_async_with_config(request, stream, Some(config())).await?;
    Ok(Box::new(WsBytes { socket, incoming: Bytes::new(), ended: false, local, remote }))
}

/// Makes a WebSocket of `stream` as its server, and bytes of the WebSocket. Who asks for another `path` is
/// told 404, who does not offer the subprotocol 400. There is no time-out here: the caller sets one.
///
/// # Errors
/// The client asked for something else, broke the rules, sent more than 8 KiB of request, or the stream
/// failed.
///
/// # Cancel safety
/// The stream is gone when the future is dropped.
pub async fn accept(mut stream: BoxStream, path: &str) -> Result<BoxStream, WsError> {
    let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
    // A client may send its first frame in one packet with its request. The library below calls that an
    // error, so it sees the request alone first.
    let (head, request) = read_head(&mut stream).await?;
    let stream = Replay { head, request, at: 0, inner: stream };
    #[expect(clippy::result_large_err, reason = "the library below sets the type")]
    let look = |request: &Request, response: Response| look_at(request, response, path);
    let socket = accept_hdr_async_with_config(stream, look, Some(config())).await;
    let socket = socket.map_err(|error| match error {
        Error::Http(answer) => WsError::Unwelcome { status: answer.status().as_u16() },
        error => error.into(),
    })?;
    Ok(Box::new(WsBytes { socket, incoming: Bytes::new(), ended: false, local, remote }))
}

/// Reads until the end of a request and returns everything read, with the length of the request.
async fn read_head(stream: &mut BoxStream) -> Result<(Vec<u8>, usize), WsError> {
    let mut head = Vec::with_capacity(1024);
    loop {
        let before = head.len();
        if stream.take((HEAD - before) as u64).read_buf(&mut head).await? == 0 {
            return Err(if before == HEAD { WsError::HeadTooLong } else { WsError::Unfinished });
        }
        let from = before.saturating_sub(3);
        if let Some(at) = head[from..].windows(4).position(|end| end == b"\r\n\r\n") {
            return Ok((head, from + at + 4));
        }
    }
}

#[expect(clippy::result_large_err, reason = "the library below sets the type")]
fn look_at(request: &Request, mut response: Response, path: &str) -> Result<Response, ErrorResponse> {
    let refuse = |status: StatusCode| {
        let mut answer = ErrorResponse::new(None);
        *answer.status_mut() = status;
        answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        Err(answer)
    };
    if request.uri().path() != path {
        return refuse(StatusCode::NOT_FOUND);
    }
    if !offers(request.headers()) {
        return refuse(StatusCode::BAD_REQUEST);
    }
    response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    Ok(response)
}

fn offers(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim() == SUBPROTOCOL)
}

/// Why a WebSocket could not be made, or broke.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WsError {
    /// The stream below failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The address makes no URL.
    #[error("no address of a WebSocket: {0}")]
    Address(String),
    /// The server answered the request with another status than 101.
    #[error("the server answered {status}")]
    Refused {
        /// The status (RFC 9110, section 15).
        status: u16,
    },
    /// This server answered the request with another status than 101: 404 for another path, 400 for a
    /// request without our subprotocol.
    #[error("asked for something that is not here, and was told {status}")]
    Unwelcome {
        /// The status (RFC 9110, section 15).
        status: u16,
    },
    /// The request was not complete after 8 KiB.
    #[error("a request of more than {HEAD} bytes")]
    HeadTooLong,
    /// The stream ended inside the request.
    #[error("the connection ended inside the request")]
    Unfinished,
    /// A text message: ours are binary.
    #[error("a text message where binary ones are due")]
    Text,
    /// The peer broke the rules of WebSocket, or went over a limit.
    #[error("{0}")]
    Rules(String),
}

impl From<Error> for WsError {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => Self::Io(error),
            Error::Http(answer) => Self::Refused { status: answer.status().as_u16() },
            error => Self::Rules(error.to_string()),
        }
    }
}

impl From<WsError> for io::Error {
    fn from(error: WsError) -> Self {
        match error {
            WsError::Io(error) => error,
            error => Self::new(io::ErrorKind::InvalidData, error),
        }
    }
}

/// The binary messages of a WebSocket as a stream of bytes.
struct WsBytes {
    socket: WebSocketStream<Replay>,
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
            match ready!(Pin::new(&mut this.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => this.incoming = bytes,
                Some(Ok(Message::Text(_))) => return Poll::Ready(Err(WsError::Text.into())),
                // The library below answers pings and closes while it is asked for the next message.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_))) => {}
                None | Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => {
                    this.ended = true;
                }
                Some(Err(error)) => return Poll::Ready(Err(WsError::from(error).into())),
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
        // One message at a time, so that it always fits into the buffer below, beside answers to pings.
        ready!(self.as_mut().poll_flush(cx))?;
        let len = buf.len().min(MESSAGE_OUT);
        let message = Message::Binary(Bytes::copy_from_slice(&buf[..len]));
        Pin::new(&mut self.socket).start_send(message).map_err(WsError::from)?;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The library below wakes whoever wrote last also when bytes come in. So it is told of the writer only
        // when the writer has to wait.
        let mut nobody = Context::from_waker(Waker::noop());
        let flushed = match Pin::new(&mut self.socket).poll_flush(&mut nobody) {
            Poll::Pending => Pin::new(&mut self.socket).poll_flush(cx),
            flushed => flushed,
        };
        flushed.map_err(|error| WsError::from(error).into())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(|error| WsError::from(error).into())
    }
}

/// A stream that gives again what was read of it: the request alone, then what came along with it.
#[derive(Debug)]
struct Replay {
    head: Vec<u8>,
    request: usize,
    at: usize,
    inner: BoxStream,
}

impl AsyncRead for Replay {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.at == this.head.len() {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        let until = if this.at < this.request { this.request } else { this.head.len() };
        let len = buf.remaining().min(until - this.at);
        buf.put_slice(&this.head[this.at..this.at + len]);
        this.at += len;
        if this.at == this.head.len() {
            (this.head, this.at) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replay {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
