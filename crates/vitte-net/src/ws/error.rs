//! Errors: of an open WebSocket here, of the two handshakes below.

use std::io;

use super::CloseCode;

/// What broke an open WebSocket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WsError {
    /// The stream below failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer broke a rule, or went over a limit of this side. It was told so with the code of the
    /// [`Violation`], if it still listened.
    #[error("the peer broke the rules of WebSocket: {0}")]
    Violation(#[from] Violation),
    /// The stream ended with no close frame before it (code 1006 in other interfaces): the peer, or what is
    /// between, died. What was sent last may not have arrived.
    #[error("the connection ended without a close frame")]
    Aborted,
    /// This side closed, and the peer did not answer in time (`WsOptions::close_timeout`).
    #[error("the peer did not answer the close frame in time")]
    CloseTimeout,
    /// Nothing can be sent any more: this side has closed, or the peer has, or an error ended it before.
    #[error("nothing can be sent on a WebSocket that was closed")]
    Closed,
    /// A ping or pong with more than 125 bytes: a mistake of the caller.
    #[error("a ping or pong of {0} bytes; at most 125")]
    ControlTooLong(usize),
}

impl From<WsError> for io::Error {
    fn from(error: WsError) -> Self {
        let kind = match error {
            WsError::Io(error) => return error,
            WsError::Violation(_) => io::ErrorKind::InvalidData,
            WsError::Aborted => io::ErrorKind::UnexpectedEof,
            WsError::CloseTimeout => io::ErrorKind::TimedOut,
            WsError::Closed => io::ErrorKind::BrokenPipe,
            WsError::ControlTooLong(_) => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

/// A rule that a peer broke. [`code`](Self::code) is what it is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A reserved bit whose meaning was not agreed on (RFC 6455, section 5.2).
    #[error("a reserved bit is set")]
    ReservedBits,
    /// An opcode that means nothing (section 5.2).
    #[error("the reserved opcode {0}")]
    ReservedOpcode(u8),
    /// A client masks (section 5.1).
    #[error("a frame of a client is not masked")]
    Unmasked,
    /// A server does not mask (section 5.1).
    #[error("a frame of a server is masked")]
    Masked,
    /// A length that takes more bytes than it needs, or has its first bit set (section 5.2).
    #[error("the length of a frame is not written as the rules say")]
    Length,
    /// A control frame is one frame (section 5.5).
    #[error("a control frame in pieces")]
    FragmentedControl,
    /// A control frame has at most 125 bytes (section 5.5).
    #[error("a control frame of {0} bytes")]
    LongControl(u64),
    /// A continuation of nothing (section 5.4).
    #[error("a continuation, and no message has begun")]
    UnexpectedContinuation,
    /// A message inside another (section 5.4).
    #[error("a message has begun inside another")]
    InterruptedMessage,
    /// A close frame has nothing in it, or two bytes of code before its reason (section 5.5.1).
    #[error("a close frame of one byte")]
    CloseLength,
    /// A code that must not stand in a close frame (section 7.4).
    #[error("the close code {0}, which must not be sent")]
    CloseCode(u16),
    /// Text is UTF-8, the reason of a close too (section 8.1).
    #[error("a text is not UTF-8")]
    NotUtf8,
    /// A compressed message that is not what deflate makes (RFC 7692, section 7.2.2).
    #[error("a compressed message cannot be read")]
    Deflate,
    /// More than `WsOptions::max_frame` of this side.
    #[error("a frame of {len} bytes; at most {max}")]
    FrameTooLarge {
        /// The bytes that it announced.
        len: u64,
        /// The limit.
        max: usize,
    },
    /// More than `WsOptions::max_message` of this side, after decompression.
    #[error("a message of more than {max} bytes")]
    MessageTooLarge {
        /// The limit.
        max: usize,
    },
    /// A text message where only binary ones are served.
    #[error("a text message where binary ones are due")]
    Text,
}

impl Violation {
    /// The code that tells the peer (RFC 6455, section 7.4.1).
    #[must_use]
    pub fn code(&self) -> CloseCode {
        match self {
            Self::ReservedBits
            | Self::ReservedOpcode(_)
            | Self::Unmasked
            | Self::Masked
            | Self::Length
            | Self::FragmentedControl
            | Self::LongControl(_)
            | Self::UnexpectedContinuation
            | Self::InterruptedMessage
            | Self::CloseLength
            | Self::CloseCode(_)
            | Self::Deflate => CloseCode::PROTOCOL_ERROR,
            Self::NotUtf8 => CloseCode::INVALID_DATA,
            Self::FrameTooLarge { .. } | Self::MessageTooLarge { .. } => CloseCode::TOO_LARGE,
            Self::Text => CloseCode::UNSUPPORTED,
        }
    }
}

/// Why a client got no WebSocket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// What was asked for cannot be asked for: the URL, a header or a subprotocol is not one. A mistake of the
    /// caller.
    #[error("{0}")]
    Request(String),
    /// There is no connection to the server (or to the proxy), TLS included, or it broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// All of it took longer than `WsOptions::handshake_timeout`.
    #[error("no WebSocket within the time for the handshake")]
    TimedOut,
    /// The server answered with another status than 101. It speaks HTTP, and does not want this WebSocket: 401
    /// or 403 ask for credentials, 404 for another path, 3xx would have it elsewhere (it is not followed).
    #[error("the server answered {status}{}", location.as_deref().map(|to| format!(", see {}", to.escape_debug())).unwrap_or_default())]
    Refused {
        /// The status (RFC 9110, section 15).
        status: u16,
        /// Where a redirection leads, as the server said it.
        location: Option<String>,
    },
    /// The proxy would not make the tunnel.
    #[error("the proxy answered {status}")]
    ProxyRefused {
        /// The status (RFC 9110, section 15). 407 asks for credentials.
        status: u16,
    },
    /// The answer is not what RFC 6455, section 4.1 wants: the server is no WebSocket server, or something
    /// between answered in its place.
    #[error("the server's answer is no WebSocket handshake: {0}")]
    Answer(&'static str),
    /// The answer had no end within `WsOptions::max_handshake` bytes.
    #[error("an answer of more than {0} bytes")]
    HeadTooLong(usize),
}

/// Why a server gave no WebSocket. The client was told, where there was one to be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The stream below failed, or the TLS around it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The request was not complete within `WsOptions::handshake_timeout`. The client was told 408.
    #[error("no complete request within the time for the handshake")]
    TimedOut,
    /// The stream ended inside the request.
    #[error("the connection ended inside the request")]
    Unfinished,
    /// The request was refused.
    #[error("the client was told {}: {}", .0.status, .0.why)]
    Refused(super::Refusal),
}
