//! WebSocket (RFC 6455), client and server, with `permessage-deflate` (RFC 7692). No mesh is needed; its `ws://`
//! links are carried by the same code. No other module names `tokio-tungstenite` or `flate2`.
//!
//! ```no_run
//! use vitte_net::ws::{self, CloseCode};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut socket = ws::connect("wss://example.org/chat").await?;
//! socket.send("hello").await?;
//! while let Some(message) = socket.recv().await? {
//!     println!("{} bytes", message.len());
//! }
//! socket.close(CloseCode::NORMAL, "").await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`WsConnector`] and [`WsServer`] have the settings; [`WsAcceptor`] makes WebSockets of any stream, and of
//! requests that an HTTP server has read on the same port. [`WebSocket`] says how messages go both ways.
//!
//! What a peer does wrong is told to it with the code that RFC 6455 has for it ([`Violation::code`]), and its
//! stream is read on for a moment, so that it can hear. Every size and every wait has a limit in [`WsOptions`].

mod acceptor;
mod connector;
mod deflate;
mod error;
mod head;
mod inbound;
#[cfg(feature = "mesh")]
mod link;
mod mask;
mod message;
mod outbound;
mod proxy;
mod request;
mod server;
mod socket;
mod split;
mod url;
mod utf8;

use std::time::Duration;

pub use acceptor::WsAcceptor;
pub use connector::WsConnector;
pub use deflate::Deflate;
pub use error::{AcceptError, ConnectError, Violation, WsError};
#[cfg(feature = "mesh")]
pub use link::SUBPROTOCOL;
#[cfg(feature = "mesh")]
pub(crate) use link::{accept, connect as connect_link};
pub use message::{CloseCode, CloseFrame, Event, Message, Text};
pub use request::{Agreement, Origins, Refusal, WsRequest};
pub use server::{WsIncoming, WsServer, WsServerBuilder};
pub use socket::WebSocket;
pub use split::{WsReceiver, WsSender};

/// Connects to `url`, such as `ws://example.org/chat`, with the defaults of [`WsConnector`].
///
/// # Errors
/// See [`WsConnector::connect`].
///
/// # Cancel safety
/// Dropping the future gives all attempts up.
pub async fn connect(url: &str) -> Result<WebSocket, ConnectError> {
    WsConnector::new().connect(url).await
}

/// Limits and times of a WebSocket, on either side.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WsOptions {
    /// Bytes of a frame that is taken, at most. Default: 16 MiB. A larger one is answered with 1009.
    pub max_frame: usize,
    /// Bytes of a message that is taken, at most, after decompression. Default: 16 MiB. A larger one is answered
    /// with 1009. One connection may need this much memory, while a message arrives.
    pub max_message: usize,
    /// Bytes of content of a frame that is sent, at most: larger messages go in several. Default: none, one frame
    /// for each message.
    pub fragment: Option<usize>,
    /// Bytes that may wait to be written before `send` and `feed` wait. Default: 64 KiB. One message of any size
    /// may come on top.
    pub write_buffer: usize,
    /// Compresses messages, if the peer wants that too. Default: none.
    pub deflate: Option<Deflate>,
    /// Bytes of the request (or the answer to it) of the handshake, at most. Default: 16 KiB.
    pub max_handshake: usize,
    /// How long the handshake may take; for a client with lookup, TCP and TLS. Default: 15 s.
    pub handshake_timeout: Duration,
    /// How long a goodbye may take: from the first close frame until the peer has answered it and the stream has
    /// ended. Default: 5 s.
    pub close_timeout: Duration,
}

impl Default for WsOptions {
    fn default() -> Self {
        Self {
            max_frame: 16 * 1024 * 1024,
            max_message: 16 * 1024 * 1024,
            fragment: None,
            write_buffer: 64 * 1024,
            deflate: None,
            max_handshake: 16 * 1024,
            handshake_timeout: Duration::from_secs(15),
            close_timeout: Duration::from_secs(5),
        }
    }
}

/// Which side this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

#[cfg(test)]
mod tests;
