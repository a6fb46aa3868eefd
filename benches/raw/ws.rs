//! A WebSocket as a stream of bytes, for TLS inside of it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures_util::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config, client_async_with_config};

/// The messages of a WebSocket, whose boundaries mean nothing.
pub(super) struct Messages {
    socket: WebSocketStream<TcpStream>,
    incoming: Bytes,
}

/// As in the library: nothing is held back, and reads are of 16 KiB.
fn config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(16 << 10).write_buffer_size(0)
}

pub(super) async fn connect(tcp: TcpStream) -> anyhow::Result<Messages> {
    let url = format!("ws://{}/", tcp.peer_addr()?);
    let (socket, _) = client_async_with_config(url, tcp, Some(config())).await?;
    Ok(Messages { socket, incoming: Bytes::new() })
}

pub(super) async fn accept(tcp: TcpStream) -> anyhow::Result<Messages> {
    let socket = accept_async_with_config(tcp, Some(config())).await?;
    Ok(Messages { socket, incoming: Bytes::new() })
}

fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

impl AsyncRead for Messages {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.incoming.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.incoming = bytes,
                Some(Ok(_)) => {}
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let len = self.incoming.len().min(buf.remaining());
        buf.put_slice(&self.incoming[..len]);
        self.incoming.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Messages {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(broken)?;
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        Pin::new(&mut self.socket).start_send(message).map_err(broken)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(broken)
    }
}
