//! Listening for WebSockets.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{AcceptError, Refusal, WebSocket, WsAcceptor, WsRequest};
use crate::network::{BoxStream, Network, OsNetwork, Target, TcpListen, TcpOptions};
use crate::tcp::accept_patiently;
use crate::tls::ServerTls;

/// A listening socket whose connections are to become WebSockets.
///
/// Accepting a connection and shaking hands are two steps, so that a slow client delays nobody else, and that
/// whoever accepts can bound how many shake hands at once:
///
/// ```no_run
/// use vitte_net::ws::WsServer;
///
/// # async fn example() -> std::io::Result<()> {
/// let mut server = WsServer::bind("127.0.0.1:8080").await?;
/// loop {
///     let incoming = server.accept().await?;
///     tokio::spawn(async move {
///         let Ok((mut socket, _request)) = incoming.handshake().await else { return };
///         while let Ok(Some(message)) = socket.recv().await {
///             if socket.send(message).await.is_err() {
///                 break;
///             }
///         }
///     });
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct WsServer {
    listener: Box<dyn TcpListen>,
    shared: Arc<Shared>,
}

#[derive(Clone, Debug)]
struct Shared {
    acceptor: WsAcceptor,
    tls: Option<ServerTls>,
}

impl WsServer {
    /// Listens at `at`, a host or an address of this machine and a port, such as `"127.0.0.1:8080"`, with the
    /// defaults of [`WsAcceptor`]. Port 0 lets the system choose.
    ///
    /// # Errors
    /// See [`WsServerBuilder::bind`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves no listener behind.
    pub async fn bind(at: impl Into<Target>) -> io::Result<Self> {
        WsServerBuilder::new().bind(at).await
    }

    /// A server whose settings can be chosen before it listens.
    #[must_use]
    pub fn builder() -> WsServerBuilder {
        WsServerBuilder::new()
    }

    /// Waits for the next connection. Transient errors do not end it, see
    /// [`TcpServer::accept`](crate::tcp::TcpServer::accept).
    ///
    /// # Errors
    /// The listener itself is broken; no later call succeeds.
    ///
    /// # Cancel safety
    /// Cancel safe: a connection is either returned or still in the queue.
    pub async fn accept(&mut self) -> io::Result<WsIncoming> {
        let (stream, from) = accept_patiently(&*self.listener).await?;
        Ok(WsIncoming { stream, from, shared: self.shared.clone() })
    }

    /// The address this server listens at, with the port the system chose.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that has said nothing yet.
#[derive(Debug)]
pub struct WsIncoming {
    stream: BoxStream,
    from: SocketAddr,
    shared: Arc<Shared>,
}

impl WsIncoming {
    /// Where it comes from.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.from
    }

    /// Shakes hands: TLS if the server has it, each within its time, then the WebSocket.
    ///
    /// # Errors
    /// As [`WsAcceptor::accept`], or why there is no TLS.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    pub async fn handshake(self) -> Result<(WebSocket, WsRequest), AcceptError> {
        self.handshake_if(|_| Ok(())).await
    }

    /// As [`handshake`](Self::handshake), if `decide` lets the request in.
    ///
    /// # Errors
    /// As `handshake`; what `decide` refused is [`AcceptError::Refused`].
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    pub async fn handshake_if(
        self,
        decide: impl FnOnce(&WsRequest) -> Result<(), Refusal>,
    ) -> Result<(WebSocket, WsRequest), AcceptError> {
        let Shared { acceptor, tls } = &*self.shared;
        let stream: BoxStream = match tls {
            Some(tls) => Box::new(tls.accept(self.stream).await?),
            None => self.stream,
        };
        acceptor.accept_if(stream, decide).await
    }
}

/// How a [`WsServer`] is set up.
#[derive(Clone, Debug)]
pub struct WsServerBuilder {
    network: Arc<dyn Network>,
    tcp: TcpOptions,
    shared: Shared,
}

impl Default for WsServerBuilder {
    fn default() -> Self {
        let shared = Shared { acceptor: WsAcceptor::new(), tls: None };
        Self { network: Arc::new(OsNetwork), tcp: TcpOptions::default(), shared }
    }
}

impl WsServerBuilder {
    /// A builder with the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The network to listen on. Default: [`OsNetwork`].
    #[must_use]
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.network = network;
        self
    }

    /// Options of the listener and of the connections it accepts. Default: [`TcpOptions::default`].
    #[must_use]
    pub fn tcp(mut self, options: TcpOptions) -> Self {
        self.tcp = options;
        self
    }

    /// What is let in, with limits and times. Default: [`WsAcceptor::new`].
    #[must_use]
    pub fn acceptor(mut self, acceptor: WsAcceptor) -> Self {
        self.shared.acceptor = acceptor;
        self
    }

    /// Serves `wss://`: the TLS of each connection, with `http/1.1` as its protocol. Default: none, `ws://`.
    #[must_use]
    pub fn tls(mut self, tls: &ServerTls) -> Self {
        self.shared.tls = Some(tls.with_alpn(["http/1.1"]));
        self
    }

    /// Listens at the first address of `at` that can be taken.
    ///
    /// # Errors
    /// What [`Target::resolve`] says, or the last address's error, naming that address.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no listener behind.
    pub async fn bind(&self, at: impl Into<Target>) -> io::Result<WsServer> {
        let at = at.into();
        let mut failure = None;
        for address in at.resolve(&*self.network).await? {
            match self.network.listen_tcp(address, &self.tcp).await {
                Ok(listener) => return Ok(WsServer { listener, shared: Arc::new(self.shared.clone()) }),
                Err(error) => {
                    let text = format!("cannot listen at {address}: {error}");
                    failure = Some(io::Error::new(error.kind(), text));
                }
            }
        }
        Err(failure
            .unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no address for {at}"))))
    }
}
