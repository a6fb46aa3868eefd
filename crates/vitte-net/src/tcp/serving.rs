//! Serving: a task for each connection, a limit to them, an end that is bounded.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{Instant, timeout_at};

use super::{TcpServer, TcpStream};

/// A connection that a [`TcpServer`] gives to its handler.
#[derive(Debug)]
#[non_exhaustive]
pub struct Accepted {
    /// The connection.
    pub stream: TcpStream,
    /// Where it comes from.
    pub from: SocketAddr,
    /// Tells when the server is to end.
    pub stopping: Stopping,
}

/// Tells a handler that its server is to end. Whoever does not listen to it is cut when the grace is over.
#[derive(Clone, Debug)]
pub struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Waits until the server is to end.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait(&mut self) {
        // A server that is gone has ended.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Whether the server is to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// A [`TcpServer`] that runs. Dropping it cuts all connections.
#[derive(Debug)]
#[must_use = "dropping it ends the server"]
pub struct TcpServing {
    address: io::Result<SocketAddr>,
    stop: watch::Sender<bool>,
    task: JoinHandle<(io::Result<()>, JoinSet<()>)>,
}

impl TcpServer {
    /// Gives every connection to `handler`, in a task of its own, until the returned [`TcpServing`] is shut down or
    /// dropped. While there are [`max_connections`](super::TcpServerBuilder::max_connections), further ones wait in
    /// the system's queue. A handler that panics ends its own connection and no other.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use vitte_net::tcp::{Accepted, TcpServer};
    ///
    /// # async fn example() -> std::io::Result<()> {
    /// let server = TcpServer::builder().max_connections(100).bind("127.0.0.1:8080").await?;
    /// let serving = server.serve(|Accepted { mut stream, mut stopping, .. }| async move {
    ///     loop {
    ///         let bytes = tokio::select! {
    ///             biased;
    ///             bytes = stream.recv() => bytes,
    ///             () = stopping.wait() => break,
    ///         };
    ///         match bytes {
    ///             Ok(bytes) if !bytes.is_empty() && stream.send(&bytes).await.is_ok() => {}
    ///             _ => break,
    ///         }
    ///     }
    /// });
    /// tokio::signal::ctrl_c().await?;
    /// let cut = serving.shutdown(Duration::from_secs(10)).await;
    /// println!("{cut} connections were cut");
    /// # Ok(())
    /// # }
    /// ```
    pub fn serve<H, F>(self, handler: H) -> TcpServing
    where
        H: Fn(Accepted) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = watch::channel(false);
        let address = self.local_addr();
        let task = tokio::spawn(accept(self, Arc::new(handler), Stopping(stopped)));
        TcpServing { address, stop, task }
    }
}

impl TcpServing {
    /// The address it listens at, with the port the system chose.
    ///
    /// # Errors
    /// The socket was broken when serving began.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.address {
            Ok(address) => Ok(*address),
            Err(error) => Err(error.kind().into()),
        }
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

    /// Ends the server: it stops listening (connections that wait in the system's queue are reset), handlers are told
    /// by their [`Stopping`] and may take up to `grace`, then the rest is cut. It returns how many were cut.
    ///
    /// # Cancel safety
    /// Dropping the future cuts everything at once.
    pub async fn shutdown(mut self, grace: Duration) -> usize {
        let deadline = Instant::now() + grace;
        self.stop.send_replace(true);
        let Ok((_, mut connections)) = (&mut self.task).await else { return 0 };
        while let Ok(Some(ended)) = timeout_at(deadline, connections.join_next()).await {
            note(ended);
        }
        let cut = connections.len();
        connections.shutdown().await;
        cut
    }
}

impl Drop for TcpServing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Accepts until told to stop. The connections are given back, so that whoever stops the server waits for them.
async fn accept<H, F>(
    mut server: TcpServer,
    handler: Arc<H>,
    mut stopping: Stopping,
) -> (io::Result<()>, JoinSet<()>)
where
    H: Fn(Accepted) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let most = server.max_connections;
    let ended = loop {
        let room = connections.len() < most;
        let accepted = tokio::select! {
            biased;
            () = stopping.wait() => break Ok(()),
            Some(ended) = connections.join_next() => {
                note(ended);
                continue;
            }
            accepted = server.accept(), if room => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                let (handler, stopping) = (Arc::clone(&handler), stopping.clone());
                connections.spawn(async move { handler(Accepted { stream, from, stopping }).await });
            }
            Err(error) => break Err(error),
        }
    };
    (ended, connections)
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "the handler of a connection broke off");
    }
}

#[cfg(test)]
mod tests;
