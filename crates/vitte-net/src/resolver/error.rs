//! What goes wrong, and whose fault it is.

use std::io;
use std::time::Duration;

use super::record::RecordType;

/// Why a name could not be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// Ours: this is no name.
    #[error("no name: {0}")]
    Name(String),
    /// The servers say that there is no such name (NXDOMAIN).
    #[error("there is no name {0}")]
    NotFound(String),
    /// The name exists and has no such record.
    #[error("{name} has no {kind} record")]
    NoRecord {
        /// The name.
        name: String,
        /// What was asked for.
        kind: RecordType,
    },
    /// All addresses of the name are private ones, which were to be refused.
    #[error("{0} leads to private addresses, which are refused here")]
    Private(String),
    /// The name is an alias that leads back to itself, or through too many others.
    #[error("the aliases of {0} never end")]
    Loop(String),
    /// No server gave an answer that could be used. Trying again later may help.
    #[error("no server answered for {name}: {}", tries(tried))]
    Failed {
        /// The name.
        name: String,
        /// The servers in the order in which they were asked, and what became of each.
        tried: Vec<(String, Failure)>,
    },
    /// Time ran out.
    #[error("no answer for {name} within {timeout:?}")]
    TimedOut {
        /// The name.
        name: String,
        /// The time.
        timeout: Duration,
    },
    /// Ours: there is no server to ask.
    #[error("no name server is configured")]
    NoServer,
}

fn tries(tried: &[(String, Failure)]) -> String {
    let lines: Vec<String> = tried.iter().map(|(server, failure)| format!("{server}: {failure}")).collect();
    lines.join("; ")
}

/// Why one server did not answer a question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// It was silent, or only strangers answered.
    #[error("no answer")]
    Silent,
    /// The network or the server's stream failed.
    #[error("{0}")]
    Network(String),
    /// It answered something that is no message.
    #[error("the answer makes no sense: {0}")]
    Malformed(String),
    /// It answered another question than the one that was asked.
    #[error("the answer is to another question")]
    Foreign,
    /// It said that it will not or cannot answer.
    #[error("it said: {0}")]
    Refused(String),
    /// The aliases in its answer never end.
    #[error("aliases without an end")]
    Loop,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Network(error.to_string())
    }
}

impl From<ResolveError> for io::Error {
    fn from(error: ResolveError) -> Self {
        let kind = match &error {
            ResolveError::Name(_) | ResolveError::NoServer => io::ErrorKind::InvalidInput,
            ResolveError::NotFound(_) | ResolveError::NoRecord { .. } => io::ErrorKind::NotFound,
            ResolveError::Private(_) => io::ErrorKind::PermissionDenied,
            ResolveError::Loop(_) => io::ErrorKind::InvalidData,
            ResolveError::Failed { .. } => io::ErrorKind::HostUnreachable,
            ResolveError::TimedOut { .. } => io::ErrorKind::TimedOut,
        };
        Self::new(kind, error)
    }
}
