//! The guard in front of hyper's HTTP/1: hyper sees whole heads that have one meaning, and bodies that end
//! where the guard says they do.
//!
//! hyper takes bare LF, several codings, `Transfer-Encoding` beside `Content-Length` and more, so that it and
//! a proxy in front of it may disagree on where a request ends. A [`Guard`] is a stream around the connection
//! that reads heads and chunks itself ([`head`], [`chunked`]).
//!
//! As a server it answers what it refuses *through* hyper, so that the answer keeps its place behind those to
//! earlier requests: it hands on a request of its own instead, and [`Line::take`] tells the service
//! that this is one. As a client it fails the connection. It also keeps the time: for heads, between requests,
//! between pieces of a body, and for a peer that does not read.

mod chunked;
pub(super) mod head;
mod line;
mod write;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;

use self::chunked::Chunked;
use self::head::{Known, RequestHead, Scan};
pub(super) use self::line::{Expected, Line};
use super::alarm::{Alarm, Pace};
use crate::network::{BoxStream, ByteStream};

/// Bytes of trailers, at most: 8 KiB.
const TRAILERS_MAX: usize = 8 * 1024;
/// Interim responses (1xx) before the final one, at most.
pub(super) const INTERIM_MAX: u32 = 16;
/// Bytes of one read into the guard's own buffer: 8 KiB.
const READ: usize = 8 * 1024;
/// Fields of a head that hyper takes when nobody tells it a number. The guard counts; hyper is faster without.
pub(super) const HYPER_FIELDS: usize = 100;
/// What hyper is given in place of a request that is refused.
const REFUSED: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// Why a message is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The status with which a server answers.
    pub(super) status: u16,
    pub(super) what: &'static str,
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::new(io::ErrorKind::InvalidData, Broken(fault.what))
    }
}

/// The payload of an [`io::Error`] of the guard: the peer broke the rules.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Broken(pub(super) &'static str);

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

/// The limits of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of a head.
    pub(super) head: usize,
    /// Fields of a head or of trailers.
    pub(super) fields: usize,
    /// From the first byte of a head, or the beginning of the connection, to the head's end.
    pub(super) head_time: Duration,
    /// From one exchange to the next.
    pub(super) idle_time: Duration,
    /// Between pieces of a body, and for the peer to take bytes.
    pub(super) body_time: Duration,
    /// Bytes of a request's body a second, at least, after the first `body_time`; 0 is no minimum.
    pub(super) body_rate: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Server,
    Client,
}

#[derive(Debug)]
enum State {
    /// Reading a head.
    Head(Scan),
    /// So many bytes of the buffer are ready for hyper; then comes what `next` says.
    Ready {
        left: usize,
    },
    Length(u64),
    Chunked(Box<Chunked>),
    /// Until the connection ends (responses only).
    Endless,
    /// Waits for the answer to a request for another protocol.
    Undecided,
    /// Another protocol.
    Raw,
    /// Refused: nothing more is read.
    Dead,
}

/// A connection whose bytes are looked at.
pub(super) struct Guard {
    stream: BoxStream,
    role: Role,
    limits: Limits,
    line: Arc<Line>,
    buffer: BytesMut,
    state: State,
    /// What follows [`State::Ready`].
    next: Option<State>,
    interim: u32,
    known: Known,
    /// Requests handed to hyper.
    handed: u64,
    /// When the head began to come, or the connection.
    head_since: Option<Instant>,
    /// When all exchanges were over.
    idle_since: Option<Instant>,
    read_alarm: Alarm,
    /// Of the body that comes.
    pace: Pace,
    write_alarm: Alarm,
    lingered: usize,
    finished: bool,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("role", &self.role).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Guard {
    /// The server's side of `stream`, of which `read` was read already, `since` it began.
    pub(super) fn server(stream: BoxStream, read: BytesMut, limits: Limits, since: Instant) -> Self {
        let mut guard = Self::new(stream, read, limits, Role::Server);
        guard.head_since = Some(since);
        guard
    }

    /// A server's side that only keeps the time, of a protocol that is not HTTP/1.
    pub(super) fn raw(stream: BoxStream, read: BytesMut, limits: Limits) -> Self {
        let mut guard = Self::new(stream, read, limits, Role::Server);
        guard.state = State::Raw;
        guard
    }

    /// The client's side. It keeps no time: the client does, by request.
    pub(super) fn client(stream: BoxStream, limits: Limits) -> Self {
        Self::new(stream, BytesMut::new(), limits, Role::Client)
    }

    fn new(stream: BoxStream, buffer: BytesMut, limits: Limits, role: Role) -> Self {
        Self {
            stream,
            role,
            limits,
            line: Arc::default(),
            buffer,
            state: State::Head(Scan::default()),
            next: None,
            interim: 0,
            known: Known::default(),
            handed: 0,
            head_since: None,
            idle_since: None,
            read_alarm: Alarm::default(),
            pace: Pace::new(limits.body_rate),
            write_alarm: Alarm::default(),
            lingered: 0,
            finished: false,
        }
    }

    pub(super) fn line(&self) -> Arc<Line> {
        Arc::clone(&self.line)
    }

    /// The stream, and what was read of it and not handed on.
    pub(super) fn into_parts(self) -> (BoxStream, Bytes) {
        (self.stream, self.buffer.freeze())
    }

    /// Reads into the guard's own buffer. Ready with whether anything came.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.buffer.reserve(READ);
        poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.buffer).map_ok(|len| len > 0)
    }

    /// A head is complete, or broken. False: it ended before it was complete, without a fault.
    fn poll_head(&mut self, cx: &mut Context<'_>, mut scan: Scan) -> Poll<io::Result<bool>> {
        loop {
            if let Err(fault) = self.look_at_head(&mut scan) {
                return Poll::Ready(self.refuse(fault).map(|()| true));
            }
            if !matches!(self.state, State::Head(_)) {
                return Poll::Ready(Ok(true));
            }
            self.state = State::Head(scan);
            if self.head_since.is_none() && !self.buffer.is_empty() {
                self.head_since = Some(Instant::now());
            }
            let Poll::Ready(filled) = self.fill(cx) else {
                return self.poll_patience(cx);
            };
            if !filled? {
                let partial = !self.buffer.is_empty();
                return Poll::Ready(if partial {
                    Err(io::ErrorKind::UnexpectedEof.into())
                } else {
                    Ok(false)
                });
            }
        }
    }

    /// A request's head that comes whole, as most do, goes straight into hyper's buffer. Anything else is for
    /// [`poll_head`](Self::poll_head). Ready with whether there is more to do before hyper gets something.
    fn poll_whole_head(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buf) else {
            return self.poll_patience(cx);
        };
        read?;
        let bytes = &buf.filled()[before..];
        let room = bytes.len().min(self.limits.head);
        let used = match head::request(&bytes[..room], self.limits.fields, &mut self.known) {
            Ok((len, head)) => {
                self.state = self.request(head);
                len
            }
            Err(_) => 0,
        };
        if used < bytes.len() {
            self.buffer.extend_from_slice(&bytes[used..]);
        }
        let more = used == 0 && !bytes.is_empty();
        buf.set_filled(before + used);
        Poll::Ready(Ok(more))
    }

    /// Looks for the end of the head in the buffer, and at the head.
    fn look_at_head(&mut self, scan: &mut Scan) -> Result<(), Fault> {
        if self.role == Role::Client && !self.buffer.is_empty() {
            self.line.lock().must_expect()?;
        }
        // RFC 9112, section 2.2: one empty line before a request is forgiven.
        if self.role == Role::Server && self.buffer.starts_with(b"\r\n") && scan.is_fresh() {
            self.buffer.advance(2);
        }
        if self.role == Role::Server && *self.buffer == b"\r"[..] {
            return Ok(());
        }
        let room = self.buffer.len().min(self.limits.head);
        let Some(len) = scan.end(&self.buffer[..room])? else {
            if self.buffer.len() > self.limits.head {
                return Err(Fault { status: 431, what: "a head that is too long" });
            }
            return Ok(());
        };
        let next = match self.role {
            Role::Server => {
                let (_, head) = head::request(&self.buffer[..len], self.limits.fields, &mut self.known)?;
                self.request(head)
            }
            Role::Client => self.response(len)?,
        };
        self.next = Some(next);
        self.state = State::Ready { left: len };
        Ok(())
    }

    /// A request begins. Returned is what comes behind its head.
    fn request(&mut self, head: RequestHead) -> State {
        self.begin_exchange();
        if head.upgrade && head.framing == Framing::Length(0) {
            self.line.ask(self.handed);
            return State::Undecided;
        }
        self.pace = Pace::new(self.limits.body_rate);
        self.body(head.framing)
    }

    fn begin_exchange(&mut self) {
        (self.head_since, self.idle_since) = (None, None);
        self.handed += 1;
    }

    fn response(&mut self, len: usize) -> Result<State, Fault> {
        let head = head::response(&self.buffer[..len], self.limits.fields)?;
        if head.status == 101 {
            return Err(Fault { status: 400, what: "another protocol, which nobody asked for" });
        }
        if head.status < 200 {
            self.interim += 1;
            let many = self.interim > INTERIM_MAX;
            let fault = Fault { status: 400, what: "too many interim responses" };
            return if many { Err(fault) } else { Ok(State::Head(Scan::default())) };
        }
        self.interim = 0;
        let mut line = self.line.lock();
        let no_body = line.expected == Expected::NoBody || matches!(head.status, 204 | 304);
        line.expected = Expected::Nothing;
        drop(line);
        let state = match head.framing {
            _ if no_body => State::Head(Scan::default()),
            Some(framing) => self.body(framing),
            None => State::Endless,
        };
        // More than the response in one packet with it: nobody asked for that.
        if matches!(state, State::Head(_)) && self.buffer.len() > len {
            return Err(Fault { status: 400, what: "more bytes than the response has" });
        }
        Ok(state)
    }

    fn body(&self, framing: Framing) -> State {
        match framing {
            Framing::Length(0) => State::Head(Scan::default()),
            Framing::Length(len) => State::Length(len),
            Framing::Chunked => State::Chunked(Box::new(Chunked::new(self.limits.fields))),
        }
    }

    /// A server hands on a request of its own in place of the bad one; a client fails.
    fn refuse(&mut self, fault: Fault) -> io::Result<()> {
        if self.role == Role::Client {
            self.state = State::Dead;
            return Err(fault.into());
        }
        tracing::debug!(status = fault.status, what = fault.what, "a request is refused");
        self.begin_exchange();
        self.line.refuse(self.handed, fault);
        self.buffer = BytesMut::from(REFUSED);
        self.state = State::Ready { left: REFUSED.len() };
        self.next = Some(State::Dead);
        Ok(())
    }

    /// A client that is slow with its head is told so; one that has nothing to say is let go.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.role == Role::Client {
            return Poll::Pending;
        }
        let deadline = match self.head_since {
            Some(since) => since + self.limits.head_time,
            // The time begins when the exchange is over. Nobody is woken for that without need: hyper
            // looks for the next request by itself, and a task that wakes itself wakes another thread.
            None if self.line.is_open(self.handed, cx) => return Poll::Pending,
            None => *self.idle_since.get_or_insert_with(Instant::now) + self.limits.idle_time,
        };
        ready!(self.read_alarm.poll(cx, deadline));
        if self.buffer.is_empty() {
            return Poll::Ready(Ok(false));
        }
        let fault = Fault { status: 408, what: "a head that took too long" };
        Poll::Ready(self.refuse(fault).map(|()| true))
    }

    /// Body bytes go straight into hyper's buffer, unless they came together with the head.
    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.buffer.is_empty() {
            let here = self.buffer.len().min(buf.remaining());
            let used = self.state.track(&self.buffer[..here]).inspect_err(|_| self.state = State::Dead)?;
            buf.put_slice(&self.buffer[..used.bytes]);
            self.buffer.advance(used.bytes);
            self.pace.came(None, used.bytes);
            return Poll::Ready(self.progress(used.ended, !self.buffer.is_empty()));
        }
        let before = buf.filled().len();
        let polled = match (&self.state, self.role) {
            (State::Length(left), Role::Server) => {
                let room = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.remaining());
                let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
                let polled = Pin::new(&mut self.stream).poll_read(cx, &mut part);
                let filled = part.filled().len();
                buf.advance(filled);
                polled
            }
            // A client reads on, to see whether there is more than there should be.
            _ => Pin::new(&mut self.stream).poll_read(cx, buf),
        };
        if polled.is_pending() {
            if self.role == Role::Server {
                ready!(self.read_alarm.poll_for(cx, self.pace.patience(self.limits.body_time)));
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    Broken("a body that took too long"),
                )));
            }
            return Poll::Pending;
        }
        ready!(polled)?;
        let came = buf.filled().len() - before;
        self.pace.came(self.read_alarm.calm(), came);
        if came == 0 {
            // hyper knows whether that is too early.
            return Poll::Ready(Ok(()));
        }
        let used = match self.state.track(&buf.filled()[before..]) {
            Ok(used) => used,
            Err(fault) => {
                buf.set_filled(before);
                self.state = State::Dead;
                return Poll::Ready(Err(fault.into()));
            }
        };
        self.buffer.extend_from_slice(&buf.filled()[before + used.bytes..]);
        buf.set_filled(before + used.bytes);
        Poll::Ready(self.progress(used.ended, used.bytes < came))
    }

    /// After bytes of a body: is it over, and came more than belongs to it?
    fn progress(&mut self, ended: bool, more: bool) -> io::Result<()> {
        if !ended {
            return Ok(());
        }
        self.state = State::Head(Scan::default());
        if more && self.role == Role::Client {
            self.state = State::Dead;
            return Err(Fault { status: 400, what: "more bytes than the response has" }.into());
        }
        Ok(())
    }

    /// Neither head nor body until it is known whether this is another protocol now.
    fn poll_decision(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let upgraded = ready!(self.line.poll_decision(cx));
        self.state = if upgraded { State::Raw } else { State::Head(Scan::default()) };
        Poll::Ready(())
    }
}

/// How many of some bytes belong to a body, and whether it is over after them.
struct Used {
    bytes: usize,
    ended: bool,
}

impl State {
    /// Looks at the next bytes of a body.
    fn track(&mut self, bytes: &[u8]) -> Result<Used, Fault> {
        let ended_after = match self {
            Self::Length(left) => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= used as u64;
                (*left == 0).then_some(used)
            }
            Self::Chunked(chunked) => chunked.look(bytes)?,
            _ => None,
        };
        Ok(Used { bytes: ended_after.unwrap_or(bytes.len()), ended: ended_after.is_some() })
    }
}

impl AsyncRead for Guard {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let State::Head(scan) = &this.state
            && this.role == Role::Server
            && scan.is_fresh()
            && this.buffer.is_empty()
            && !ready!(this.poll_whole_head(cx, buf))?
        {
            return Poll::Ready(Ok(()));
        }
        this.poll_any(cx, buf)
    }
}

impl Guard {
    /// Reads in whatever state it is.
    fn poll_any(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.state {
                State::Head(scan) => {
                    let scan = *scan;
                    if !ready!(self.poll_head(cx, scan))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                State::Ready { left } => {
                    let len = (*left).min(buf.remaining());
                    buf.put_slice(&self.buffer[..len]);
                    self.buffer.advance(len);
                    *left -= len;
                    if *left == 0 {
                        self.state = self.next.take().unwrap_or(State::Dead);
                    }
                    return Poll::Ready(Ok(()));
                }
                State::Length(_) | State::Chunked(_) | State::Endless => return self.poll_body(cx, buf),
                State::Undecided => ready!(self.poll_decision(cx)),
                State::Raw if self.buffer.is_empty() => {
                    return Pin::new(&mut self.stream).poll_read(cx, buf);
                }
                State::Raw => {
                    let len = self.buffer.len().min(buf.remaining());
                    buf.put_slice(&self.buffer[..len]);
                    self.buffer.advance(len);
                    return Poll::Ready(Ok(()));
                }
                // A server has said what it had to say about it, or will; a client has failed.
                State::Dead if self.role == Role::Server => return Poll::Pending,
                State::Dead => return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            }
        }
    }
}

impl ByteStream for Guard {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}
