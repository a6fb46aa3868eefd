//! What quinn says, as a [`LinkError`].

use std::io;

use quinn::{ConnectError, ConnectionError, TransportErrorCode, VarInt};

use crate::transport::LinkError;

/// The link ends in order.
pub(super) const CLOSE_ORDERLY: VarInt = VarInt::from_u32(0);
/// The peer broke a rule of lanes: an unknown number, one number twice, a lane cut off.
pub(super) const CLOSE_BROKEN: VarInt = VarInt::from_u32(1);
/// The peer proved another key than the one that was dialled.
pub(super) const CLOSE_WRONG_PEER: VarInt = VarInt::from_u32(2);
/// The handshake proved no Ed25519 key.
pub(super) const CLOSE_NO_IDENTITY: VarInt = VarInt::from_u32(3);

/// The most of a peer's text that is shown.
const REASON_MAX: usize = 256;

/// Why a half of a link is useless; every later call says the same.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// quinn lost the connection.
    Lost(ConnectionError),
    /// The peer broke a rule of ours.
    Broken(&'static str),
    /// The peer reads no more.
    Gone,
    /// A stream was ended on this side.
    Closed,
}

impl Failure {
    pub(super) fn to_error(&self) -> LinkError {
        match self {
            Self::Lost(error) => lost(error),
            Self::Broken(reason) => protocol(*reason),
            Self::Gone => LinkError::Closed,
            Self::Closed => lost(&ConnectionError::LocallyClosed),
        }
    }
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Self {
        Self::Lost(error)
    }
}

pub(super) fn protocol(reason: impl Into<String>) -> LinkError {
    LinkError::Protocol { protocol: "QUIC", reason: reason.into() }
}

pub(super) fn lost(error: &ConnectionError) -> LinkError {
    let io = |kind| LinkError::Io(io::Error::new(kind, error.clone()));
    match error {
        ConnectionError::ApplicationClosed(close) if close.error_code == CLOSE_ORDERLY => LinkError::Closed,
        ConnectionError::ApplicationClosed(close) => {
            protocol(format!("the peer closed with code {}: {}", close.error_code, printable(&close.reason)))
        }
        ConnectionError::ConnectionClosed(close) => match close.error_code {
            TransportErrorCode::NO_ERROR => LinkError::Closed,
            TransportErrorCode::CONNECTION_REFUSED => io(io::ErrorKind::ConnectionRefused),
            code => protocol(format!("the peer closed with {code}: {}", printable(&close.reason))),
        },
        ConnectionError::TransportError(error) => protocol(error.to_string()),
        ConnectionError::VersionMismatch => protocol("the peer speaks no version of QUIC that we know"),
        ConnectionError::Reset => io(io::ErrorKind::ConnectionReset),
        ConnectionError::TimedOut => io(io::ErrorKind::TimedOut),
        ConnectionError::LocallyClosed => io(io::ErrorKind::NotConnected),
        ConnectionError::CidsExhausted => io(io::ErrorKind::QuotaExceeded),
    }
}

pub(super) fn refused(error: ConnectError) -> LinkError {
    let kind = match &error {
        ConnectError::EndpointStopping => io::ErrorKind::NotConnected,
        ConnectError::CidsExhausted => io::ErrorKind::QuotaExceeded,
        ConnectError::InvalidServerName(_) | ConnectError::InvalidRemoteAddress(_) => {
            io::ErrorKind::InvalidInput
        }
        ConnectError::NoDefaultClientConfig | ConnectError::UnsupportedVersion => io::ErrorKind::Unsupported,
    };
    LinkError::Io(io::Error::new(kind, error))
}

/// What the peer wrote must not reach a terminal as it is.
fn printable(text: &[u8]) -> String {
    text[..text.len().min(REASON_MAX)].escape_ascii().to_string()
}
