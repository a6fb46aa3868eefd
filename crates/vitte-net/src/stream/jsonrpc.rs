//! JSON-RPC 2.0 both ways over one stream of bytes, framed as the Language Server Protocol does
//! ([`ContentLength`](super::ContentLength)): requests, responses, notifications, cancellation.
//!
//! ```
//! use vitte_net::stream::jsonrpc::{JsonRpc, RpcError};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (near, far) = tokio::io::duplex(1024);
//! let _server = JsonRpc::builder()
//!     .on_request("add", |_, (a, b): (u32, u32)| async move { Ok::<_, RpcError>(a + b) })
//!     .start(far);
//! let client = JsonRpc::builder().start(near);
//! let sum: u32 = client.client().call("add", (1, 2)).await?;
//! assert_eq!(sum, 3);
//! # Ok(())
//! # }
//! ```
//!
//! # Order
//! What arrives is begun in the order of its arrival. A notification is handled to its end before anything after
//! it is begun, so that a request sees every change that was sent before it. Requests run side by side, and
//! each is answered when it is done.
//!
//! # Bounds
//! [`Limits`] names them. Whoever does not read answers is given up after a time; who sends too many requests is
//! made to wait, or told [`RpcError::BUSY`] where waiting could lock both sides up.
//!
//! # Cancellation
//! Dropping the future of a [`call`](Client::call) tells the peer (`$/cancelRequest`). When the peer does, the
//! future of its request is dropped and answered by [`RpcError::REQUEST_CANCELLED`].
//!
//! Batches (JSON-RPC 2.0, section 6) are no part of the Language Server Protocol and are refused.

mod client;
mod driver;
mod message;
mod service;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::typed::StreamError;

pub use client::{CallError, Client};
pub use message::{Id, RpcError};
pub use service::{Builder, Context};

use client::Shared;

/// What a connection may hold and how long it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of one message, both ways. Default: 16 MiB. It is also the memory that a peer can make us hold
    /// while it sends one.
    pub message_max: usize,
    /// Requests of the peer that run at a time. Default: 64.
    pub running_max: usize,
    /// Messages of the peer that wait for their turn. When so many do, nothing more is read. Default: 1024.
    pub queue_max: usize,
    /// Calls of ours that wait for their answer; further ones wait before they are sent. Default: 1024.
    pub calls_max: usize,
    /// Messages that wait to be written; who has more to say waits. Default: 256.
    pub outgoing_max: usize,
    /// How long one write may wait for the peer to read. Default: 30 seconds.
    pub write_timeout: Duration,
    /// How long requests that run may go on after the peer has sent everything, or after
    /// [`JsonRpc::close`]. Default: 5 seconds.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_max: 16 << 20,
            running_max: 64,
            queue_max: 1024,
            calls_max: 1024,
            outgoing_max: 256,
            write_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(5),
        }
    }
}

/// A connection that stands. Dropping it closes the connection, as [`close`](Self::close) does.
#[derive(Debug)]
pub struct JsonRpc {
    shared: Arc<Shared>,
}

impl JsonRpc {
    /// A connection whose handlers and limits can be set before it starts.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A handle to call the peer. Cheap to clone; it does not keep the connection open.
    #[must_use]
    pub fn client(&self) -> Client {
        Client { shared: self.shared.clone() }
    }

    /// Reads nothing more, lets requests that run finish and answer for at most [`Limits::drain`], and ends the
    /// connection. [`closed`](Self::closed) says when that is done.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Waits for the end of the connection: Ok when the peer ended its side and everything was answered, or
    /// after [`close`](Self::close).
    ///
    /// # Errors
    /// What ended it.
    ///
    /// # Cancel safety
    /// Cancel safe: any number of tasks may wait, any number of times.
    pub async fn closed(&self) -> Result<(), Arc<StreamError>> {
        self.shared.closed().await
    }
}

impl Drop for JsonRpc {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Builder {
    /// Starts the connection over `stream`, on tasks of its own. For standard input and output, join the two:
    /// `tokio::io::join(tokio::io::stdin(), tokio::io::stdout())`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start<S: AsyncRead + AsyncWrite + Send + 'static>(self, stream: S) -> JsonRpc {
        let (service, limits) = self.into_parts();
        let (shared, outgoing) = Shared::new(limits);
        let (input, output) = tokio::io::split(stream);
        let writer = tokio::spawn(writer::run(output, outgoing, shared.clone()));
        tokio::spawn(driver::run(input, service, shared.clone(), writer));
        JsonRpc { shared }
    }
}
