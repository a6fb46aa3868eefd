//! What an error of `accept` means: the one place that knows the systems' numbers.

use std::io;

/// Whose trouble an error of [`TcpListen::accept`](super::TcpListen::accept) is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AcceptTrouble {
    /// One connection died in the queue, or a signal came: the next call may succeed at once.
    Connection,
    /// The process or the system is short of files, buffers or memory: waiting helps.
    Shortage,
    /// The listener itself is broken.
    Listener,
}

impl AcceptTrouble {
    /// Sorts `error`. On Linux `accept` also hands out errors that the network had in store for the new
    /// connection (accept(2), "Error handling"); of those `EOPNOTSUPP` counts as a broken listener,
    /// because that is what it says about any socket that does not listen.
    pub(crate) fn of(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::ConnectionRefused
            | Kind::NotConnected
            | Kind::BrokenPipe
            | Kind::Interrupted
            | Kind::WouldBlock
            | Kind::TimedOut
            | Kind::NetworkDown
            | Kind::NetworkUnreachable
            | Kind::HostUnreachable
            | Kind::PermissionDenied => Self::Connection,
            Kind::OutOfMemory | Kind::QuotaExceeded => Self::Shortage,
            _ => Self::of_number(error.raw_os_error()),
        }
    }

    #[cfg(unix)]
    fn of_number(number: Option<i32>) -> Self {
        match number {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS) => Self::Shortage,
            Some(libc::EPROTO | libc::ENOPROTOOPT | libc::EHOSTDOWN) => Self::Connection,
            #[cfg(any(target_os = "android", target_os = "linux"))]
            Some(libc::ENONET) => Self::Connection,
            _ => Self::Listener,
        }
    }

    #[cfg(windows)]
    fn of_number(number: Option<i32>) -> Self {
        match number {
            // WSAEMFILE, WSAENOBUFS
            Some(10_024 | 10_055) => Self::Shortage,
            _ => Self::Listener,
        }
    }

    #[cfg(not(any(unix, windows)))]
    fn of_number(_: Option<i32>) -> Self {
        Self::Listener
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn sorted(number: i32) -> AcceptTrouble {
        AcceptTrouble::of(&io::Error::from_raw_os_error(number))
    }

    #[test]
    fn every_number_goes_where_it_belongs() {
        for number in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            assert_eq!(sorted(number), AcceptTrouble::Shortage, "{number}");
        }
        for number in [
            libc::ECONNABORTED,
            libc::ECONNRESET,
            libc::EINTR,
            libc::EPROTO,
            libc::EPERM,
            libc::ENETDOWN,
            libc::ENETUNREACH,
            libc::EHOSTUNREACH,
            libc::EHOSTDOWN,
            libc::ETIMEDOUT,
        ] {
            assert_eq!(sorted(number), AcceptTrouble::Connection, "{number}");
        }
        for number in [libc::EBADF, libc::EINVAL, libc::ENOTSOCK, libc::EOPNOTSUPP, libc::EFAULT] {
            assert_eq!(sorted(number), AcceptTrouble::Listener, "{number}");
        }
        let odd = io::Error::other("no number");
        assert_eq!(AcceptTrouble::of(&odd), AcceptTrouble::Listener);
    }
}
