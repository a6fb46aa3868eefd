//! The server: [`Server`], [`Router`], [`Files`].

mod connection;
mod files;
mod range;
mod reply;
mod request;
mod router;
mod settings;
#[cfg(feature = "ws")]
mod websocket;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout_at};

pub use self::files::{Files, Symlinks};
pub use self::reply::{IntoReply, Reply};
pub use self::request::{Request, Upgrade};
pub use self::router::Router;
pub use self::settings::ServerBuilder;

#[allow(unused_imports, reason = "without HTTP/3 nobody asks")]
pub(super) use self::connection::Activity;
pub(super) use self::connection::Connection;
use self::settings::Settings;
use super::h3;
use crate::network::{BoxFuture, BoxStream, Target, TcpListen};
use crate::tcp::accept_patiently;

/// What answers requests: a function from a [`Request`] to a future of a [`Reply`], a [`Router`], [`Files`].
///
/// When the client goes away, or the server is shut down and its grace is over, the future is dropped. When it
/// panics, the client is told 500 and the server goes on.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(&self, request: Request) -> BoxFuture<'_, Reply>;
}

impl<F, Answer> Handler for F
where
    F: Fn(Request) -> Answer + Send + Sync + 'static,
    Answer: Future + Send + 'static,
    Answer::Output: IntoReply,
{
    fn handle(&self, request: Request) -> BoxFuture<'_, Reply> {
        let answer = self(request);
        Box::pin(async move { answer.await.into_reply() })
    }
}

/// A listening server of HTTP/1.1 and HTTP/2, and of HTTP/3 where that is wanted.
///
/// ```no_run
/// use vitte_net::http::{Request, Router, Server};
///
/// # async fn example() -> std::io::Result<()> {
/// let router = Router::new()
///     .get("/hello/{name}", |request: Request| async move {
///         format!("hello {}\n", request.param("name").unwrap_or("you"))
///     });
/// let serving = Server::bind("127.0.0.1:8080").await?.serve(router);
/// serving.ended().await
/// # }
/// ```
pub struct Server {
    listener: Box<dyn TcpListen>,
    h3: Option<h3::Listening>,
    address: SocketAddr,
    settings: Arc<Settings>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Listens at `at`, such as `"127.0.0.1:8080"`, with the defaults of [`ServerBuilder`]. Port 0 lets the
    /// system choose.
    ///
    /// # Errors
    /// See [`ServerBuilder::bind`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves no listener behind.
    pub async fn bind(at: impl Into<Target>) -> io::Result<Self> {
        Self::builder().bind(at).await
    }

    /// A server whose limits, TLS and network can be set before it listens.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// The address this server listens at, with the port the system chose.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests by `handler`, in a task of its own, until the returned [`Serving`] is shut down or
    /// dropped.
    pub fn serve(self, handler: impl Handler) -> Serving {
        let (stop, stopped) = watch::channel(false);
        let address = self.address;
        let task = tokio::spawn(accept(self, Arc::new(handler), stopped));
        Serving { address, stop, task }
    }
}

/// A server that runs. Dropping it cuts all connections.
#[derive(Debug)]
#[must_use = "dropping it ends the server"]
pub struct Serving {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<(io::Result<()>, JoinSet<()>)>,
}

impl Serving {
    /// The address it listens at, with the port the system chose.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the listener breaks, which healthy ones do not.
    ///
    /// # Errors
    /// Why it broke.
    ///
    /// # Cancel safety
    /// Dropping the future ends the server.
    pub async fn ended(mut self) -> io::Result<()> {
        match (&mut self.task).await {
            Ok((ended, _)) => ended,
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Ends the server: it stops listening, idle connections end, requests that are being answered may take up
    /// to `grace`, then the rest is cut. It returns how many connections were cut.
    ///
    /// # Cancel safety
    /// Dropping the future cuts everything at once.
    pub async fn shutdown(mut self, grace: Duration) -> usize {
        let deadline = Instant::now() + grace;
        self.stop.send_replace(true);
        let Ok((_, mut connections)) = (&mut self.task).await else { return 0 };
        while !connections.is_empty() {
            if timeout_at(deadline, connections.join_next()).await.is_err() {
                break;
            }
        }
        let cut = connections.len();
        connections.shutdown().await;
        cut
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Accepts until told to stop. The connections are given back, so that whoever stops the server waits for them.
async fn accept(
    mut server: Server,
    handler: Arc<dyn Handler>,
    mut stopped: watch::Receiver<bool>,
) -> (io::Result<()>, JoinSet<()>) {
    let mut connections = JoinSet::new();
    if let Some(h3) = server.h3.take() {
        let template = Connection {
            settings: Arc::clone(&server.settings),
            handler: Arc::clone(&handler),
            local: server.address,
            peer: server.address,
            tls: true,
        };
        connections.spawn(h3.run(template, server.settings.max_connections, stopped.clone()));
    }
    let places = Arc::new(Semaphore::new(server.settings.max_connections));
    let ended = loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, accept_patiently(&*server.listener).await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = told(&mut stopped) => break Ok(()),
            Some(_) = connections.join_next() => continue,
            next = next => next,
        };
        let (stream, peer): (BoxStream, SocketAddr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => break Err(error),
        };
        let connection = Connection {
            settings: Arc::clone(&server.settings),
            handler: Arc::clone(&handler),
            local: stream.local_addr().unwrap_or(server.address),
            peer,
            tls: false,
        };
        let stopped = stopped.clone();
        connections.spawn(async move {
            connection.run(stream, stopped).await;
            drop(place);
        });
    };
    (ended, connections)
}

#[cfg(all(test, feature = "http3"))]
mod tests;

/// Waits until the server is to stop. One whose owner is gone is.
pub(super) async fn told(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}
