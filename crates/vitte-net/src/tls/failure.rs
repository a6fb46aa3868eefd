//! What goes wrong, and whose fault it is.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustls::{AlertDescription, Error};

/// Why a plain TLS handshake or connection failed: the payload of the [`io::Error`], by
/// [`io::Error::get_ref`] and `downcast_ref`. Trouble of the stream below stays an `io::Error` of its own kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsFailure {
    /// Ours: the name is neither a DNS name nor an IP address.
    #[error("\"{0}\" is no server name")]
    Name(String),
    /// Theirs, or our roots lack somebody: the peer's certificate was not accepted.
    #[error("the peer's certificate was not accepted: {0}")]
    Certificate(String),
    /// The peer ended the connection with an alert (RFC 8446, section 6.2): it did not accept what we sent.
    #[error("the peer gave up: {0}")]
    Alert(String),
    /// Both sides speak TLS, but name no application protocol in common (RFC 7301).
    #[error("no application protocol in common")]
    Protocol,
    /// Theirs: the peer broke the rules of TLS or does not speak it, a record was damaged, or no version or
    /// cipher suits both.
    #[error("{0}")]
    Peer(String),
    /// The stream ended without the peer's `close_notify` (RFC 8446, section 6.1): what was read may be only a
    /// part of what was sent.
    #[error("the stream ended without a goodbye: what was read may be cut short")]
    Truncated,
    /// The handshake took longer than it may.
    #[error("no handshake within {0:?}")]
    Timeout(Duration),
    /// The peer did not end its side in time.
    #[error("the peer did not end the connection within {0:?}")]
    NoGoodbye(Duration),
    /// Ours: this side's configuration does not work.
    #[error("the TLS configuration does not work: {0}")]
    Config(String),
}

impl TlsFailure {
    /// The failure inside `error`, if one is.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Name(_) | Self::Config(_) => io::ErrorKind::InvalidInput,
            Self::Certificate(_) | Self::Protocol | Self::Peer(_) => io::ErrorKind::InvalidData,
            Self::Alert(_) => io::ErrorKind::ConnectionAborted,
            Self::Truncated => io::ErrorKind::UnexpectedEof,
            Self::Timeout(_) | Self::NoGoodbye(_) => io::ErrorKind::TimedOut,
        }
    }
}

impl From<&Error> for TlsFailure {
    fn from(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(why) => Self::Certificate(why.to_string()),
            Error::NoCertificatesPresented => Self::Certificate("it showed none".to_owned()),
            Error::AlertReceived(AlertDescription::NoApplicationProtocol) | Error::NoApplicationProtocol => {
                Self::Protocol
            }
            Error::AlertReceived(alert) => Self::Alert(format!("{alert:?}")),
            Error::General(_) | Error::FailedToGetRandomBytes | Error::FailedToGetCurrentTime => {
                Self::Config(error.to_string())
            }
            _ => Self::Peer(error.to_string()),
        }
    }
}

impl From<TlsFailure> for io::Error {
    fn from(failure: TlsFailure) -> Self {
        Self::new(failure.kind(), failure)
    }
}

/// An error of the library below, sorted.
pub(super) fn sorted(error: io::Error) -> io::Error {
    if let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        return TlsFailure::from(inner).into();
    }
    // Only rustls makes this kind out of an end of the stream; a socket knows it as reading nothing.
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return TlsFailure::Truncated.into();
    }
    error
}

/// Why a [`ClientTls`](super::ClientTls) or a [`ServerTls`](super::ServerTls) could not be made. All of it is to
/// be mended on this side.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsSetupError {
    /// A file could not be read.
    #[error("cannot read {}: {error}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The text is no PEM, or a section of it is damaged.
    #[error("{what}: {why}")]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The text holds no such section.
    #[error("no {0} was found")]
    Missing(&'static str),
    /// A certificate or a key is of no kind that is known here, or they do not belong together.
    #[error("the certificate cannot be used: {0}")]
    Certificate(String),
    /// The system has no root certificates where they are expected.
    #[error("the system has no root certificates ({0}): install them, or name your own")]
    NoRoots(String),
    /// The cryptography provider knows no version or cipher that TLS needs.
    #[error("the cryptography provider does not work: {0}")]
    Provider(String),
    /// None of the certificates came from a file, so there is nothing to read again.
    #[error("no certificate came from a file")]
    NotFromFiles,
}

impl From<TlsSetupError> for io::Error {
    fn from(error: TlsSetupError) -> Self {
        let kind = match &error {
            TlsSetupError::File { error, .. } => error.kind(),
            TlsSetupError::NoRoots(_) => io::ErrorKind::NotFound,
            TlsSetupError::Pem { .. }
            | TlsSetupError::Missing(_)
            | TlsSetupError::Certificate(_)
            | TlsSetupError::Provider(_)
            | TlsSetupError::NotFromFiles => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}
