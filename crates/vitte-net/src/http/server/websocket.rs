//! WebSocket (RFC 6455) on the port that serves HTTP.

use std::io;

use http::{HeaderName, HeaderValue, StatusCode};

use super::{Reply, Request};
use crate::network::BoxStream;
use crate::ws::{Refusal, WebSocket, WsAcceptor};

impl Request {
    /// Makes a WebSocket of the connection of this request, if it asks for one that `acceptor` lets in. Answer
    /// with the reply, and await the WebSocket in a task of its own: it is there once the reply was sent.
    /// HTTP/1.1 alone.
    ///
    /// ```no_run
    /// use vitte_net::http::{Reply, Request, Router};
    /// use vitte_net::ws::WsAcceptor;
    ///
    /// let echo = |request: Request| async {
    ///     let (reply, socket) = request.websocket(&WsAcceptor::new())?;
    ///     tokio::spawn(async move {
    ///         let mut socket = socket.await?;
    ///         while let Some(message) = socket.recv().await? {
    ///             socket.send(message).await?;
    ///         }
    ///         Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    ///     });
    ///     Ok::<_, Box<Reply>>(reply)
    /// };
    /// let router = Router::new().get("/echo", echo);
    /// ```
    ///
    /// # Errors
    /// The answer for a request that asks for none, or that is not let in. The returned future fails when the
    /// connection ends before it is a WebSocket.
    pub fn websocket(
        mut self,
        acceptor: &WsAcceptor,
    ) -> Result<(Reply, impl Future<Output = io::Result<WebSocket<BoxStream>>> + Send + use<>), Box<Reply>>
    {
        let agreement = acceptor
            .check(self.method(), self.version(), self.headers())
            .map_err(|refusal| Box::new(refused(&refusal)))?;
        let Some(upgrade) = self.upgrade() else {
            return Err(Box::new(Reply::status(StatusCode::BAD_REQUEST)));
        };
        let mut reply = Reply::default().with_status(StatusCode::SWITCHING_PROTOCOLS);
        *reply.headers_mut() = agreement.headers().clone();
        let acceptor = acceptor.clone();
        Ok((reply, async move {
            let (stream, early) = upgrade.stream().await?;
            Ok(acceptor.upgrade(stream, early, agreement))
        }))
    }
}

fn refused(refusal: &Refusal) -> Reply {
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let reply = Reply::text(format!("{}\n", refusal.why())).with_status(status);
    let field = refusal.header().and_then(|(name, value)| {
        Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
    });
    match field {
        Some((name, value)) => reply.header(name, value),
        None => reply,
    }
}
