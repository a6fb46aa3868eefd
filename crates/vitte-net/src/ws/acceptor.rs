//! The server's side of the handshake (RFC 6455, section 4.2).

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::http::{HeaderMap, Method, Version};

use super::head::{self, NoHead};
use super::request::{self, Agreement, Origins, Refusal, Terms, WsRequest};
use super::{AcceptError, WebSocket, WsOptions};

/// So long who was refused may take to read it, before the connection is cut: 1 s.
const REFUSAL: Duration = Duration::from_secs(1);

/// What a server lets in, and how its WebSockets work. It makes WebSockets of streams:
///
/// - [`accept`](Self::accept) of one that has said nothing yet, such as an accepted connection;
/// - [`check`](Self::check) and [`upgrade`](Self::upgrade) where an HTTP server has read the request.
#[derive(Clone, Debug, Default)]
pub struct WsAcceptor {
    options: WsOptions,
    origins: Origins,
    protocols: Vec<String>,
}

impl WsAcceptor {
    /// An acceptor with the defaults: pages of this host alone, no subprotocol, no compression.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits and times. Default: [`WsOptions::default`].
    #[must_use]
    pub fn options(mut self, options: WsOptions) -> Self {
        self.options = options;
        self
    }

    /// Which pages may connect. Default: [`Origins::SameHost`].
    #[must_use]
    pub fn origins(mut self, origins: Origins) -> Self {
        self.origins = origins;
        self
    }

    /// The subprotocols that are spoken here, the best first. Of those that a client offers, the first of these
    /// is taken; if there is none, the WebSocket has none. Default: none.
    #[must_use]
    pub fn protocols<T: Into<String>>(mut self, protocols: impl IntoIterator<Item = T>) -> Self {
        self.protocols = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// Reads the request from `stream`, answers it, and returns the WebSocket with the request. Within
    /// `WsOptions::handshake_timeout` all of it, or 408 is the answer.
    ///
    /// # Errors
    /// There was no request, or one for something else, which was answered.
    ///
    /// # Cancel safety
    /// The stream is gone when the future is dropped.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> Result<(WebSocket<S>, WsRequest), AcceptError> {
        self.accept_if(stream, |_| Ok(())).await
    }

    /// As [`accept`](Self::accept), if `decide` lets the request in: 404 for a path that is not served, 401 for
    /// a request without credentials.
    ///
    /// # Errors
    /// As `accept`; what `decide` refused is [`AcceptError::Refused`].
    ///
    /// # Cancel safety
    /// The stream is gone when the future is dropped.
    pub async fn accept_if<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: S,
        decide: impl FnOnce(&WsRequest) -> Result<(), Refusal>,
    ) -> Result<(WebSocket<S>, WsRequest), AcceptError> {
        let limit = self.options.handshake_timeout;
        let outcome = timeout(limit, self.shake(&mut stream, decide)).await;
        let error = match outcome.unwrap_or(Err(AcceptError::TimedOut)) {
            Ok((agreement, request, early)) => {
                return Ok((self.upgrade(stream, early, agreement), request));
            }
            Err(error) => error,
        };
        let refusal = match &error {
            AcceptError::Refused(refusal) => refusal.clone(),
            AcceptError::TimedOut => Refusal::new(408, "no complete request in time"),
            AcceptError::Io(_) | AcceptError::Unfinished => return Err(error),
        };
        // Who does not want to hear it is not waited for.
        let _ = timeout(REFUSAL, refuse(&mut stream, &refusal)).await;
        Err(error)
    }

    async fn shake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        decide: impl FnOnce(&WsRequest) -> Result<(), Refusal>,
    ) -> Result<(Agreement, WsRequest, Bytes), AcceptError> {
        let (head, early) = match head::read(stream, self.options.max_handshake).await {
            Ok(read) => read,
            Err(NoHead::Unfinished) => return Err(AcceptError::Unfinished),
            Err(NoHead::Io(error)) => return Err(error.into()),
            Err(NoHead::BareLf) => {
                return Err(AcceptError::Refused(Refusal::new(400, "a line that ends in LF without CR")));
            }
            Err(NoHead::TooLong) => {
                return Err(AcceptError::Refused(Refusal::new(431, "a request that is too long")));
            }
        };
        let agreed = request::parse(&head).and_then(|request| {
            let agreement = self.terms().check_request(&request)?;
            decide(&request)?;
            Ok((agreement, request))
        });
        let (agreement, request) = agreed.map_err(AcceptError::Refused)?;
        stream.write_all(&agreement.answer()).await?;
        stream.flush().await?;
        Ok((agreement, request, early))
    }

    /// Looks at a request that an HTTP server has read. If it is one for a WebSocket, answer it with the status
    /// 101 and [`Agreement::headers`], and hand the connection to [`upgrade`](Self::upgrade). The types are those
    /// of the crate `http`, version 1.
    ///
    /// # Errors
    /// The answer for this request; 426 if it is an ordinary one.
    pub fn check(
        &self,
        method: &Method,
        version: Version,
        headers: &HeaderMap,
    ) -> Result<Agreement, Refusal> {
        self.terms().check(method, version, headers)
    }

    /// Makes a WebSocket of a connection on which the answer 101 with [`Agreement::headers`] was sent. `early` is
    /// what was read from it beyond the request.
    pub fn upgrade<S: AsyncWrite>(&self, stream: S, early: Bytes, agreement: Agreement) -> WebSocket<S> {
        let Agreement { protocol, agreed, .. } = agreement;
        WebSocket::new(stream, None, &self.options, agreed.as_ref(), protocol, early)
    }

    fn terms(&self) -> Terms<'_> {
        let Self { options, origins, protocols } = self;
        Terms { origins, protocols, deflate: options.deflate.as_ref() }
    }
}

/// Tells the client, and drops what it still sends until it has heard.
async fn refuse(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), refusal: &Refusal) -> io::Result<()> {
    stream.write_all(refusal.answer().as_bytes()).await?;
    stream.shutdown().await?;
    let mut dropped = [0; 1024];
    while stream.read(&mut dropped).await? > 0 {}
    Ok(())
}
