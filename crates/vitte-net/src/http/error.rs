//! What can go wrong, whose fault it is, and whether to try again.

use std::fmt;
use std::io;
use std::time::Duration;

/// What was being done when a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Making the request: nothing has been sent.
    Prepare,
    /// Looking up the host and connecting.
    Connect,
    /// Asking the proxy for a tunnel.
    Proxy,
    /// Agreeing on TLS.
    Tls,
    /// Sending the request and waiting for the head of the response.
    Exchange,
    /// Following a redirect.
    Redirect,
    /// Reading a body.
    Body,
    /// Writing to a file, or reading from one.
    File,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepare => "cannot make the request",
            Self::Connect => "cannot connect",
            Self::Proxy => "no tunnel through the proxy",
            Self::Tls => "cannot agree on TLS",
            Self::Exchange => "no response",
            Self::Redirect => "cannot follow the redirect",
            Self::Body => "the body broke off",
            Self::File => "the file",
        })
    }
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Blame {
    /// Whoever called: the same call fails again.
    Caller,
    /// The network, or a peer that is slow or away: it may be better later.
    Network,
    /// The peer broke the rules of HTTP or TLS, or went over a limit.
    Peer,
    /// The proxy refused.
    Proxy,
    /// This machine: a full disk, a file that may not be written.
    Local,
}

/// Whether it makes sense to send a request again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retry {
    /// No: it would fail in the same way.
    No,
    /// Yes: the request was not processed, whatever its method.
    Safe,
    /// Only if the request may be processed twice: it is unknown whether it was processed.
    IfIdempotent,
}

/// Why a request, a response or a body failed.
#[derive(Debug)]
pub struct HttpError {
    stage: Stage,
    kind: HttpErrorKind,
    /// The URL, where it is known, without user and password.
    url: Option<String>,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpErrorKind {
    /// The text is no URL of http or https.
    #[error("{0}")]
    Url(String),
    /// A method, a field or a setting that cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// A socket or file failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It took longer than was allowed.
    #[error("{what} took longer than {after:?}")]
    TimedOut {
        /// What took so long.
        what: &'static str,
        /// The time-out.
        after: Duration,
    },
    /// The peer broke the rules, or sent something with two meanings.
    #[error("{0}")]
    Rules(String),
    /// The connection ended before the message did.
    #[error("it was cut off")]
    CutOff,
    /// More than a limit allows.
    #[error("{what} of more than {limit} bytes")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit in bytes.
        limit: u64,
    },
    /// A content coding that we do not know, or whose data is broken or cut off.
    #[error("the content coding {coding}: {why}")]
    Coding {
        /// Its name, as the peer gave it.
        coding: String,
        /// What is wrong.
        why: String,
    },
    /// A redirect that is not followed.
    #[error("{0}")]
    Redirect(String),
    /// The proxy refused.
    #[error("the proxy answered {status}")]
    ProxyRefused {
        /// The status (RFC 9110, section 15).
        status: u16,
    },
    /// The server answered with a status that is no success.
    #[error("the server answered {status}")]
    Status {
        /// The status (RFC 9110, section 15).
        status: u16,
    },
    /// What was received is not what was asked for.
    #[error("{0}")]
    Mismatch(String),
    /// The connection ended before it said anything about the request.
    #[error("the connection was closed")]
    Closed,
}

impl HttpError {
    pub(super) fn new(stage: Stage, kind: impl Into<HttpErrorKind>) -> Self {
        Self { stage, kind: kind.into(), url: None }
    }

    pub(super) fn rules(stage: Stage, what: impl Into<String>) -> Self {
        Self::new(stage, HttpErrorKind::Rules(what.into()))
    }

    /// Says which URL it was about, unless that is known.
    pub(super) fn at(mut self, url: &super::Url) -> Self {
        self.url.get_or_insert_with(|| url.to_string());
        self
    }

    /// What was being done.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> &HttpErrorKind {
        &self.kind
    }

    /// Whose fault it is.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match (&self.kind, self.stage) {
            (HttpErrorKind::Url(_) | HttpErrorKind::Unusable(_), _) => Blame::Caller,
            (HttpErrorKind::Io(error), Stage::Tls) if error.kind() == io::ErrorKind::InvalidData => {
                Blame::Peer
            }
            (HttpErrorKind::Io(_), Stage::File) => Blame::Local,
            (HttpErrorKind::Io(error), _) if error.kind() == io::ErrorKind::InvalidInput => Blame::Caller,
            (HttpErrorKind::Io(_) | HttpErrorKind::TimedOut { .. }, _) => Blame::Network,
            (HttpErrorKind::CutOff | HttpErrorKind::Closed, _) => Blame::Network,
            (HttpErrorKind::ProxyRefused { .. }, _) | (HttpErrorKind::Rules(_), Stage::Proxy) => Blame::Proxy,
            (
                HttpErrorKind::Rules(_)
                | HttpErrorKind::TooLarge { .. }
                | HttpErrorKind::Coding { .. }
                | HttpErrorKind::Redirect(_)
                | HttpErrorKind::Status { .. }
                | HttpErrorKind::Mismatch(_),
                _,
            ) => Blame::Peer,
        }
    }

    /// Whether to send the request again.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match (self.blame(), self.stage, &self.kind) {
            (_, _, HttpErrorKind::Status { status: 408 | 429 | 500 | 502 | 503 | 504 }) => {
                Retry::IfIdempotent
            }
            (Blame::Network, Stage::Prepare | Stage::Connect | Stage::Proxy | Stage::Tls, _) => Retry::Safe,
            (Blame::Network, _, _) => Retry::IfIdempotent,
            _ => Retry::No,
        }
    }

    /// The time-outs that a caller set, told apart from other failures.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        match &self.kind {
            HttpErrorKind::TimedOut { .. } => true,
            HttpErrorKind::Io(error) => error.kind() == io::ErrorKind::TimedOut,
            _ => false,
        }
    }

    /// What hyper says, in our words: the guard's reason where it has one.
    pub(super) fn of_hyper(stage: Stage, error: &hyper::Error) -> Self {
        if let Some(kind) = kind_below(error) {
            return Self::new(stage, kind);
        }
        let kind = if error.is_incomplete_message() {
            if stage == Stage::Body { HttpErrorKind::CutOff } else { HttpErrorKind::Closed }
        } else if error.is_canceled() || error.is_closed() {
            HttpErrorKind::Closed
        } else if error.is_body_write_aborted() {
            HttpErrorKind::CutOff
        } else {
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
            HttpErrorKind::Rules(format!("{error}{}", cause.unwrap_or_default()))
        };
        Self::new(stage, kind)
    }
}

/// What an error below hyper's says: ours, or a socket's.
fn kind_below(error: &hyper::Error) -> Option<HttpErrorKind> {
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        if let Some(own) = error.downcast_ref::<HttpError>() {
            return Some(own.kind.repeat());
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(of_io(io));
        }
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            if let Some(io) = h2.get_io() {
                return Some(of_io(io));
            }
            return Some(match h2.reason() {
                Some(h2::Reason::REFUSED_STREAM) => HttpErrorKind::Closed,
                _ => HttpErrorKind::Rules(h2.to_string()),
            });
        }
        next = error.source();
    }
    None
}

fn of_io(error: &io::Error) -> HttpErrorKind {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => HttpErrorKind::CutOff,
        // What hyper finds wrong in chunks, and TLS in its records.
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => HttpErrorKind::Rules(error.to_string()),
        kind => HttpErrorKind::Io(io::Error::new(kind, error.to_string())),
    }
}

impl HttpErrorKind {
    /// The same again, for a second place to report it. What is not our own becomes its text.
    fn repeat(&self) -> Self {
        match self {
            Self::Url(text) => Self::Url(text.clone()),
            Self::Unusable(text) => Self::Unusable(text.clone()),
            Self::Io(error) => Self::Io(io::Error::new(error.kind(), error.to_string())),
            Self::TimedOut { what, after } => Self::TimedOut { what, after: *after },
            Self::Rules(text) => Self::Rules(text.clone()),
            Self::CutOff => Self::CutOff,
            Self::TooLarge { what, limit } => Self::TooLarge { what, limit: *limit },
            Self::Coding { coding, why } => Self::Coding { coding: coding.clone(), why: why.clone() },
            Self::Redirect(text) => Self::Redirect(text.clone()),
            Self::ProxyRefused { status } => Self::ProxyRefused { status: *status },
            Self::Status { status } => Self::Status { status: *status },
            Self::Mismatch(text) => Self::Mismatch(text.clone()),
            Self::Closed => Self::Closed,
        }
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(url) = &self.url {
            write!(f, "{url}: ")?;
        }
        match self.kind {
            // It did answer.
            HttpErrorKind::Status { .. } => write!(f, "{}", self.kind),
            _ => write!(f, "{}: {}", self.stage, self.kind),
        }
    }
}

impl std::error::Error for HttpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.kind)
    }
}

impl From<HttpError> for io::Error {
    fn from(error: HttpError) -> Self {
        let kind = match error.kind() {
            HttpErrorKind::Io(inner) => inner.kind(),
            HttpErrorKind::TimedOut { .. } => io::ErrorKind::TimedOut,
            HttpErrorKind::CutOff | HttpErrorKind::Closed => io::ErrorKind::UnexpectedEof,
            HttpErrorKind::Url(_) | HttpErrorKind::Unusable(_) => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}
