//! Connecting by happy eyeballs (RFC 8305).

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::TcpStream;
use crate::network::{BoxFuture, Network, OsNetwork, Target, TcpOptions};

/// How long all attempts together may take, the lookup included.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The "Connection Attempt Delay" that RFC 8305, section 8 recommends.
pub(crate) const STAGGER: Duration = Duration::from_millis(250);

/// Section 8 of RFC 8305: the delay must not be under 10 ms.
const LEAST_STAGGER: Duration = Duration::from_millis(10);

/// How a TCP connection is made.
///
/// The host is looked up, IPv6 and IPv4 addresses are interleaved (the family that the resolver put first
/// begins), and the first is tried. Every further one joins after [`stagger`](Self::stagger), or at once
/// when an attempt fails. The first connection that stands wins, the other attempts are dropped.
#[derive(Clone, Debug)]
pub struct TcpConnector {
    network: Arc<dyn Network>,
    options: TcpOptions,
    timeout: Duration,
    stagger: Duration,
}

impl Default for TcpConnector {
    fn default() -> Self {
        Self {
            network: Arc::new(OsNetwork),
            options: TcpOptions::default(),
            timeout: TIMEOUT,
            stagger: STAGGER,
        }
    }
}

impl TcpConnector {
    /// A connector with the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The network to connect through. Default: [`OsNetwork`].
    #[must_use]
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.network = network;
        self
    }

    /// Options of the socket. Default: [`TcpOptions::default`].
    #[must_use]
    pub fn options(mut self, options: TcpOptions) -> Self {
        self.options = options;
        self
    }

    /// How long all of it may take: lookup and attempts. Default: 30 seconds.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long an attempt stays alone before the next one joins it; at least 10 ms. Default: 250 ms
    /// (RFC 8305, section 8).
    #[must_use]
    pub fn stagger(mut self, stagger: Duration) -> Self {
        self.stagger = stagger.max(LEAST_STAGGER);
        self
    }

    /// Connects to `target`.
    ///
    /// # Errors
    /// What [`Target::resolve`] says; or an [`io::Error`] that carries a [`ConnectFailure`] with every address
    /// that was tried and why it failed. Its kind is [`io::ErrorKind::TimedOut`] when time ran out, otherwise
    /// that of the last failure.
    ///
    /// # Cancel safety
    /// Dropping the future gives up all attempts.
    pub async fn connect(&self, target: impl Into<Target>) -> io::Result<TcpStream> {
        let target = target.into();
        let deadline = Instant::now() + self.timeout;
        let Ok(resolved) = tokio::time::timeout_at(deadline, target.resolve(&*self.network)).await else {
            let text = format!("the lookup of {target} took longer than {:?}", self.timeout);
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        };
        let attempt = |address| self.network.connect_tcp(address, &self.options);
        let mut race = Race::new(resolved?, self.stagger, attempt);
        match tokio::time::timeout_at(deadline, race.run()).await {
            Ok(Some(stream)) => Ok(TcpStream::from(stream)),
            Ok(None) => Err(race.into_error(target, None)),
            Err(_) => Err(race.into_error(target, Some(self.timeout))),
        }
    }
}

/// Why no address of a target could be connected to: the payload of the [`io::Error`] of
/// [`TcpConnector::connect`], by [`io::Error::get_ref`] and `downcast_ref`.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConnectFailure {
    /// What the caller asked for.
    pub target: Target,
    /// The addresses that failed and why, in the order of their failing.
    pub failed: Vec<(SocketAddr, io::Error)>,
    /// The addresses that had not answered when time ran out, in the order in which they were tried.
    pub silent: Vec<SocketAddr>,
    /// The addresses whose turn had not come when time ran out.
    pub untried: Vec<SocketAddr>,
    /// The time-out, if it was what ended the attempts.
    pub timed_out: Option<Duration>,
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot connect to {}", self.target)?;
        if let Some(timeout) = self.timed_out {
            write!(f, " within {timeout:?}")?;
        }
        let failed = self.failed.iter().map(|(address, error)| format!("{address}: {error}"));
        let silent = self.silent.iter().map(|address| format!("{address}: no answer"));
        let untried = self.untried.iter().map(|address| format!("{address}: not tried"));
        for (i, line) in failed.chain(silent).chain(untried).enumerate() {
            f.write_str(if i == 0 { ": " } else { "; " })?;
            f.write_str(&line)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConnectFailure {}

/// Families in turn, beginning with that of the first address, the order within a family kept (RFC 8305,
/// section 4, with a First Address Family Count of 1).
fn interleave(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_ipv4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let mut ordered = VecDeque::with_capacity(addresses.len());
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv4() == first_is_ipv4);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        match (first.next(), second.next()) {
            (None, None) => return ordered,
            (one, other) => ordered.extend(one.into_iter().chain(other)),
        }
    }
}

type Attempt<'a, T> = BoxFuture<'a, io::Result<T>>;

/// Attempts on their way and addresses whose turn has not come. HTTP/3 runs it, too.
pub(crate) struct Race<'a, T> {
    attempt: Box<dyn FnMut(SocketAddr) -> Attempt<'a, T> + Send + 'a>,
    stagger: Duration,
    waiting: VecDeque<SocketAddr>,
    running: Vec<(SocketAddr, Attempt<'a, T>)>,
    /// The addresses that failed and why, in the order of their failing.
    pub(crate) failed: Vec<(SocketAddr, io::Error)>,
    /// Rings when the next address may join.
    next: Pin<Box<Sleep>>,
}

impl<'a, T> Race<'a, T> {
    pub(crate) fn new(
        addresses: Vec<SocketAddr>,
        stagger: Duration,
        attempt: impl FnMut(SocketAddr) -> Attempt<'a, T> + Send + 'a,
    ) -> Self {
        let next = Box::pin(tokio::time::sleep(Duration::ZERO));
        let (attempt, waiting) = (Box::new(attempt), interleave(addresses));
        Self { attempt, stagger, waiting, running: Vec::new(), failed: Vec::new(), next }
    }

    /// The winner, or none when every address has failed.
    pub(crate) async fn run(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        loop {
            let failures = self.failed.len();
            if let Some(winner) = self.poll_running(cx) {
                return Poll::Ready(Some(winner));
            }
            let one_failed = self.failed.len() > failures;
            let due = self.running.is_empty() || one_failed || self.next.as_mut().poll(cx).is_ready();
            let Some(address) = (if due { self.waiting.pop_front() } else { None }) else {
                let lost = self.running.is_empty() && self.waiting.is_empty();
                return if lost { Poll::Ready(None) } else { Poll::Pending };
            };
            self.running.push((address, (self.attempt)(address)));
            self.next.as_mut().reset(Instant::now() + self.stagger);
        }
    }

    fn poll_running(&mut self, cx: &mut Context<'_>) -> Option<T> {
        let mut i = 0;
        while let Some((address, attempt)) = self.running.get_mut(i) {
            match attempt.as_mut().poll(cx) {
                Poll::Ready(Ok(stream)) => return Some(stream),
                Poll::Ready(Err(error)) => {
                    self.failed.push((*address, error));
                    drop(self.running.remove(i));
                }
                Poll::Pending => i += 1,
            }
        }
        None
    }

    fn into_error(self, target: Target, timed_out: Option<Duration>) -> io::Error {
        let kind = match (timed_out, self.failed.last()) {
            (None, Some((_, last))) => last.kind(),
            _ => io::ErrorKind::TimedOut,
        };
        let failure = ConnectFailure {
            target,
            failed: self.failed,
            silent: self.running.into_iter().map(|(address, _)| address).collect(),
            untried: self.waiting.into(),
            timed_out,
        };
        io::Error::new(kind, failure)
    }
}

#[cfg(test)]
mod tests;
