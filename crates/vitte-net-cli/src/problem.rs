//! What went wrong, what to try, and the exit code for it.

use std::io;
use std::process::ExitCode;

use vitte_net::{CloseCode, DialError, StartError};

use crate::terminal;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) struct Problem {
    what: String,
    hint: String,
    code: u8,
}

impl Problem {
    /// The world did not do its part: exit code 1. The hint may be empty.
    pub(crate) fn failed(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into(), code: 1 }
    }

    /// The command or its configuration is wrong, and trying again does not help: exit code 2.
    pub(crate) fn mistake(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into(), code: 2 }
    }

    /// Nobody can listen there.
    pub(crate) fn listen(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidInput => {
                Self::mistake(error.to_string(), "HOST:PORT, such as 127.0.0.1:7007 or [::1]:0")
            }
            _ => Self::failed(
                error.to_string(),
                "another port (0 lets the system choose), or an address of this machine",
            ),
        }
    }

    /// An address that was dialled did not lead to a session.
    pub(crate) fn dial(address: &str, error: &DialError) -> Self {
        let refusal = match error {
            DialError::Failed(attempts) => attempts.iter().find_map(|(_, error)| error.code()),
            _ => None,
        };
        let what = match error {
            DialError::Failed(attempts) if attempts.len() == 1 => {
                format!("cannot connect to {address}: {}", attempts[0].1)
            }
            other => format!("cannot connect to {address}: {other}"),
        };
        match refusal {
            Some(CloseCode::AUTH_FAILED) => Self::mistake(
                what,
                "give both nodes the same secret: --secret-file FILE, or the environment variable VITTE_SECRET",
            ),
            Some(CloseCode::NOT_TRUSTED) => Self::mistake(
                what,
                "the node lets in listed keys only: add this key to its list, or use --key FILE",
            ),
            Some(CloseCode::DUPLICATE_IDENTITY) => {
                Self::mistake(what, "give every node a key of its own: --key FILE")
            }
            Some(_) => Self::failed(what, "look at the log of the other node"),
            None => Self::failed(
                what,
                "see that a node runs there, that the scheme is one it listens with (`vnet node` prints its \
                 addresses), and that no firewall is between; with RUST_LOG=debug there is more to read",
            ),
        }
    }

    /// What was wrong, in one line.
    pub(crate) fn summary(&self) -> String {
        if self.hint.is_empty() { self.what.clone() } else { format!("{}; try: {}", self.what, self.hint) }
    }

    /// Tells a person, on stderr. Whoever closed the output knows already.
    pub(crate) fn report(&self) {
        if self.what.is_empty() {
            return;
        }
        terminal::complain(&format!("vnet: {}", self.what));
        if !self.hint.is_empty() {
            terminal::complain(&format!("  try: {}", self.hint));
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

/// Stdout cannot be written. A reader that went away (`| head`) is no news.
impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::failed("", ""),
            _ => Self::failed(format!("cannot write to stdout: {error}"), ""),
        }
    }
}

impl From<StartError> for Problem {
    fn from(error: StartError) -> Self {
        let hint = match &error {
            StartError::Address { .. } => "quic://0.0.0.0:7000, tls://[::]:7000 or ws://127.0.0.1:0/mesh",
            StartError::Listen { .. } => {
                "another port (0 lets the system choose), or an address of this machine"
            }
            _ => "",
        };
        match error {
            StartError::Listen { .. } => Self::failed(error.to_string(), hint),
            _ => Self::mistake(error.to_string(), hint),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_silent_and_a_full_disk_is_not() {
        assert_eq!(Problem::from(io::Error::from(io::ErrorKind::BrokenPipe)).summary(), "");
        assert!(Problem::from(io::Error::from(io::ErrorKind::StorageFull)).summary().contains("stdout"));
    }

    #[test]
    fn a_dial_that_timed_out_is_no_mistake_of_the_command() {
        let problem = Problem::dial("tls://h:1", &DialError::TimedOut);
        assert_eq!(problem.code, 1);
        assert!(problem.summary().starts_with("cannot connect to tls://h:1: "));
        assert!(problem.summary().contains("try: "));
    }
}
