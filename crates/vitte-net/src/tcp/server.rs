//! Listening and accepting.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{RECV_LIMIT, TcpStream};
use crate::network::{AcceptTrouble, BoxStream, Network, OsNetwork, Target, TcpListen, TcpOptions};

/// The first wait while the process is short of something; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// The longest wait between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// So many connections may die in the queue one after another before that, too, is a reason to wait.
const DEAD_IN_A_ROW: u32 = 64;

/// Connections that are served at one time, unless told otherwise.
const MAX_CONNECTIONS: usize = 4096;

/// A listening TCP socket.
///
/// ```no_run
/// use vitte_net::tcp::TcpServer;
///
/// # async fn example() -> std::io::Result<()> {
/// let mut server = TcpServer::bind("127.0.0.1:8080").await?;
/// while let Ok((mut socket, from)) = server.accept().await {
///     tokio::spawn(async move {
///         println!("a connection from {from}");
///         socket.send(b"hello\n").await.ok();
///     });
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TcpServer {
    listener: Box<dyn TcpListen>,
    recv_limit: usize,
    pub(super) max_connections: usize,
}

impl TcpServer {
    /// Listens at `at`, a host or an address of this machine and a port, such as `"127.0.0.1:8080"`. Port 0
    /// lets the system choose, see [`local_addr`](Self::local_addr). `[::]` takes IPv6 and IPv4.
    ///
    /// # Errors
    /// See [`TcpServerBuilder::bind`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves no listener behind.
    pub async fn bind(at: impl Into<Target>) -> io::Result<Self> {
        TcpServerBuilder::new().bind(at).await
    }

    /// A server whose network and options can be set before it listens.
    #[must_use]
    pub fn builder() -> TcpServerBuilder {
        TcpServerBuilder::new()
    }

    /// Waits for the next connection. Transient errors do not end it: a connection that died in the queue
    /// is skipped, and while the process is short of files, buffers or memory it waits, 5 ms at first,
    /// doubling up to 1 s, and goes on.
    ///
    /// # Errors
    /// The listener itself is broken; no later call succeeds.
    ///
    /// # Cancel safety
    /// Cancel safe: a connection is either returned or still in the queue.
    pub async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, from) = accept_patiently(&*self.listener).await?;
        let mut stream = TcpStream::from(stream);
        stream.set_recv_limit(self.recv_limit);
        Ok((stream, from))
    }

    /// The address this server listens at, with the port the system chose.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// How a [`TcpServer`] is set up.
#[derive(Clone, Debug)]
pub struct TcpServerBuilder {
    network: Arc<dyn Network>,
    options: TcpOptions,
    recv_limit: usize,
    max_connections: usize,
}

impl Default for TcpServerBuilder {
    fn default() -> Self {
        Self {
            network: Arc::new(OsNetwork),
            options: TcpOptions::default(),
            recv_limit: RECV_LIMIT,
            max_connections: MAX_CONNECTIONS,
        }
    }
}

impl TcpServerBuilder {
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
    pub fn options(mut self, options: TcpOptions) -> Self {
        self.options = options;
        self
    }

    /// What [`TcpStream::recv`] returns at most on accepted connections, in bytes; at least 1. Default:
    /// [`RECV_LIMIT`].
    #[must_use]
    pub fn recv_limit(mut self, bytes: usize) -> Self {
        self.recv_limit = bytes;
        self
    }

    /// Connections that [`TcpServer::serve`] serves at one time; at least 1. Others wait to be accepted. Default: 4096.
    #[must_use]
    pub fn max_connections(mut self, most: usize) -> Self {
        self.max_connections = most.max(1);
        self
    }

    /// Listens at the first address of `at` that can be taken.
    ///
    /// # Errors
    /// What [`Target::resolve`] says, or the last address's error, naming that address.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no listener behind.
    pub async fn bind(&self, at: impl Into<Target>) -> io::Result<TcpServer> {
        let at = at.into();
        let mut failure = None;
        for address in at.resolve(&*self.network).await? {
            match self.network.listen_tcp(address, &self.options).await {
                Ok(listener) => {
                    let (recv_limit, max_connections) = (self.recv_limit, self.max_connections);
                    return Ok(TcpServer { listener, recv_limit, max_connections });
                }
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

/// Accepts the next connection and outlives transient errors as [`TcpServer::accept`] says. Every listener
/// of this crate accepts through here.
///
/// # Errors
/// The listener is broken.
///
/// # Cancel safety
/// Cancel safe: a connection is either returned or still in the queue.
pub(crate) async fn accept_patiently(listener: &dyn TcpListen) -> io::Result<(BoxStream, SocketAddr)> {
    accept_through(listener, &|| ()).await
}

/// The same; `short` is called each time the process is short of something, before the wait, and may give some of it
/// back.
pub(crate) async fn accept_through(
    listener: &dyn TcpListen,
    short: &(dyn Fn() + Sync),
) -> io::Result<(BoxStream, SocketAddr)> {
    let mut pause = FIRST_PAUSE;
    let mut dead_in_a_row = 0;
    loop {
        let error = match listener.accept().await {
            Ok(accepted) => return Ok(accepted),
            Err(error) => error,
        };
        match AcceptTrouble::of(&error) {
            AcceptTrouble::Listener => return Err(error),
            AcceptTrouble::Connection if dead_in_a_row < DEAD_IN_A_ROW => {
                dead_in_a_row += 1;
                tracing::debug!(%error, "a connection died before it was accepted");
            }
            trouble @ (AcceptTrouble::Connection | AcceptTrouble::Shortage) => {
                if trouble == AcceptTrouble::Shortage {
                    short();
                }
                tracing::warn!(%error, ?pause, "cannot accept connections now");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests;
