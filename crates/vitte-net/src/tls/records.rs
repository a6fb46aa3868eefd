//! One TLS connection as a value: bytes of the wire go in, plaintext comes out, and the other way round. No
//! socket, no clock, no task. It stands on rustls' unbuffered API, whose connection owns no buffers, so that
//! reads and writes are as large as the link likes.

use std::fmt;
use std::mem;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::{IpAddr, Ipv4Addr, ServerName};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedConnectionCommon, UnbufferedStatus,
};
use rustls::{ClientConfig, Error, ServerConfig};
use vitte_net_proto::PeerId;

use super::TlsError;
use super::mesh::{ALPN, peer_of};

/// Most plaintext of one record (RFC 8446, section 5.1).
pub(crate) const MAX_PLAINTEXT: usize = 1 << 14;
/// What a record adds to its plaintext: header, content type, tag; and room for a key update before it.
const OVERHEAD: usize = 128;

/// Bytes that come in at the end and go out at the front. It remembers how far its memory has been written,
/// so that room for the next bytes need not be cleared again.
#[derive(Default)]
pub(crate) struct Buffer {
    data: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(crate) fn filled(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.start..self.end]
    }

    /// Room for at least `len` bytes behind the filled ones. They are moved to the front first if at least
    /// as many have gone before them: so no byte is moved more than once on average.
    pub(crate) fn space(&mut self, len: usize) -> &mut [u8] {
        if self.data.len() - self.end < len && self.start >= self.len() {
            self.data.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.data.len() - self.end < len {
            self.data.resize(self.end + len, 0);
        }
        &mut self.data[self.end..]
    }

    /// `len` bytes of the room have been filled.
    pub(crate) fn fill(&mut self, len: usize) {
        debug_assert!(len <= self.data.len() - self.end);
        self.end += len;
    }

    /// The first `len` bytes have gone.
    pub(crate) fn consume(&mut self, len: usize) {
        debug_assert!(len <= self.len());
        self.start += len;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.space(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.fill(bytes.len());
    }

    /// Bytes of memory it holds.
    pub(crate) fn footprint(&self) -> usize {
        self.data.capacity()
    }

    /// Gives memory above `keep` bytes back, if it is empty.
    pub(crate) fn shrink(&mut self, keep: usize) {
        if self.is_empty() && self.data.capacity() > keep {
            self.data.truncate(keep);
            self.data.shrink_to(keep);
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} of {})", self.len(), self.data.len())
    }
}

/// What [`Records::open`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// Nothing is left but, perhaps, the beginning of a record.
    All,
    /// More records may be waiting: call again.
    Some,
    /// The peer has closed in order; nothing more will come.
    Closed,
}

/// One side of a TLS connection.
///
/// Until [`handshake`](Self::handshake) says that it is done, nothing else is called. Afterwards `open` and
/// `seal` may be called in any order, but the buffer handed to `open` must be the same one every time.
/// After an error only [`close`](Self::close) does anything: it hands out the alert that tells the peer why.
pub(crate) struct Records {
    session: Session,
    /// Records that rustls made by itself and that go before the next sealed one.
    control: Buffer,
    /// Plaintext that came along with the end of the handshake.
    early: Vec<u8>,
    peer_closed: bool,
    closed: bool,
    failed: Option<TlsError>,
}

enum Session {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.session {
            Session::Client(_) => "client",
            Session::Server(_) => "server",
        };
        f.debug_struct("Records").field("side", &side).field("failed", &self.failed).finish_non_exhaustive()
    }
}

impl Records {
    /// The dialling side.
    pub(crate) fn client(config: Arc<ClientConfig>) -> Result<Self, TlsError> {
        // A name is asked for, and never sent: the configuration has server name indication off.
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0; 4])));
        Ok(Self::new(Session::Client(Box::new(UnbufferedClientConnection::new(config, name)?))))
    }

    /// The accepting side.
    pub(crate) fn server(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        Ok(Self::new(Session::Server(Box::new(UnbufferedServerConnection::new(config)?))))
    }

    fn new(session: Session) -> Self {
        Self {
            session,
            control: Buffer::default(),
            early: Vec::new(),
            peer_closed: false,
            closed: false,
            failed: None,
        }
    }

    /// Takes the handshake as far as `incoming` goes and puts what must be sent into `out`, before more is
    /// read. It gives the peer's key when the handshake is done on this side.
    ///
    /// # Errors
    /// The handshake failed; `out` then has the alert that tells the peer.
    pub(crate) fn handshake(
        &mut self,
        incoming: &mut Buffer,
        out: &mut Buffer,
    ) -> Result<Option<PeerId>, TlsError> {
        let mut early = mem::take(&mut self.early);
        let result = loop {
            match self.pump(incoming, &mut early) {
                Ok(Met::Progress | Met::Plaintext) => {}
                Ok(Met::PeerClosed) => self.peer_closed = true,
                Ok(Met::Blocked | Met::Ended) => break Ok(None),
                Ok(Met::Established) if self.session.is_handshaking() => break Ok(None),
                Ok(Met::Established) => break self.authenticate(incoming).map(Some),
                Err(error) => break Err(error),
            }
        };
        self.early = early;
        out.extend(self.control.filled());
        self.control = Buffer::default();
        result
    }

    /// Decrypts records at the front of `incoming` and appends their plaintext to `plain`. It stops after
    /// about one full record, so that a caller that holds a lock can let go of it between two.
    ///
    /// # Errors
    /// The connection failed. What came before the failure is in `plain`.
    pub(crate) fn open(&mut self, incoming: &mut Buffer, plain: &mut Vec<u8>) -> Result<Opened, TlsError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        plain.append(&mut self.early);
        loop {
            if plain.len() >= MAX_PLAINTEXT {
                return Ok(Opened::Some);
            }
            match self.pump(incoming, plain)? {
                Met::Progress | Met::Plaintext => {}
                Met::PeerClosed => self.peer_closed = true,
                Met::Blocked | Met::Established | Met::Ended if self.peer_closed => {
                    return Ok(Opened::Closed);
                }
                Met::Blocked | Met::Established | Met::Ended => {
                    self.refuse_pieces(incoming)?;
                    return Ok(Opened::All);
                }
            }
        }
    }

    /// Encrypts `plaintext`, at most [`MAX_PLAINTEXT`] bytes of it into one record, at the end of `out`.
    ///
    /// # Errors
    /// The connection failed before, or was closed by this side.
    pub(crate) fn seal(&mut self, plaintext: &[u8], out: &mut Buffer) -> Result<(), TlsError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.closed {
            return Err(TlsError::Ended);
        }
        self.write(out, Outgoing::Data(plaintext))
    }

    /// Puts the goodbye at the end of `out`: a close_notify, or the alert of an earlier error.
    pub(crate) fn close(&mut self, out: &mut Buffer) {
        if self.failed.is_none() && !mem::replace(&mut self.closed, true) {
            // A connection that cannot say goodbye has nothing to add to what it said before.
            let _ = self.write(out, Outgoing::Goodbye);
        }
        out.extend(self.control.filled());
        self.control = Buffer::default();
    }

    /// Changes the keys of this direction now, and asks the peer to change its own.
    #[cfg(test)]
    pub(crate) fn refresh_keys(&mut self, out: &mut Buffer) -> Result<(), TlsError> {
        self.write(out, Outgoing::KeyUpdate)
    }

    fn authenticate(&mut self, incoming: &Buffer) -> Result<PeerId, TlsError> {
        self.refuse_pieces(incoming)?;
        let (alpn, certificates) = match &self.session {
            Session::Client(session) => (session.alpn_protocol(), session.peer_certificates()),
            Session::Server(session) => (session.alpn_protocol(), session.peer_certificates()),
        };
        let peer = if alpn == Some(ALPN) { peer_of(certificates) } else { Err(TlsError::NotVitte) };
        self.failed = peer.clone().err();
        peer
    }

    /// A handshake message in pieces is legal, and no peer of ours sends one after the handshake. While one
    /// is incomplete rustls keeps positions in `incoming`, and a call without that buffer, as `seal` makes
    /// it, would point outside: a whole record that was looked at and not taken tells that there is one.
    fn refuse_pieces(&mut self, incoming: &Buffer) -> Result<(), TlsError> {
        match incoming.filled() {
            [_, _, _, high, low, rest @ ..]
                if !self.peer_closed && rest.len() >= usize::from(u16::from_be_bytes([*high, *low])) =>
            {
                let error = TlsError::Peer("a handshake message came in pieces".into());
                self.failed = Some(error.clone());
                Err(error)
            }
            _ => Ok(()),
        }
    }

    fn pump(&mut self, incoming: &mut Buffer, plain: &mut Vec<u8>) -> Result<Met, TlsError> {
        let Self { session, control, .. } = self;
        let result = match session {
            Session::Client(session) => pump(session, incoming, control, plain),
            Session::Server(session) => pump(session, incoming, control, plain),
        };
        result.map_err(|error| {
            // If there is an alert for this, it is what comes out next.
            let _ = match session {
                Session::Client(session) => pump(session, incoming, control, &mut Vec::new()),
                Session::Server(session) => pump(session, incoming, control, &mut Vec::new()),
            };
            let error = TlsError::from(error);
            self.failed = Some(error.clone());
            error
        })
    }

    fn write(&mut self, out: &mut Buffer, what: Outgoing<'_>) -> Result<(), TlsError> {
        if !self.control.is_empty() {
            out.extend(self.control.filled());
            self.control = Buffer::default();
        }
        let result = match &mut self.session {
            Session::Client(session) => write(session, out, what),
            Session::Server(session) => write(session, out, what),
        };
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }
}

impl Session {
    fn is_handshaking(&self) -> bool {
        match self {
            Self::Client(session) => session.is_handshaking(),
            Self::Server(session) => session.is_handshaking(),
        }
    }
}

/// What one turn of rustls' state machine met.
enum Met {
    Progress,
    Plaintext,
    PeerClosed,
    Blocked,
    Established,
    Ended,
}

enum Outgoing<'a> {
    Data(&'a [u8]),
    Goodbye,
    #[cfg(test)]
    KeyUpdate,
}

/// The two sides of rustls' unbuffered API, which are alike and have no common name.
trait Side: Sized {
    fn process<'c, 'i>(
        session: &'c mut UnbufferedConnectionCommon<Self>,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self>;
}

impl Side for ClientConnectionData {
    fn process<'c, 'i>(
        session: &'c mut UnbufferedConnectionCommon<Self>,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self> {
        session.process_tls_records(incoming)
    }
}

impl Side for ServerConnectionData {
    fn process<'c, 'i>(
        session: &'c mut UnbufferedConnectionCommon<Self>,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self> {
        session.process_tls_records(incoming)
    }
}

fn pump<S: Side>(
    session: &mut UnbufferedConnectionCommon<S>,
    incoming: &mut Buffer,
    control: &mut Buffer,
    plain: &mut Vec<u8>,
) -> Result<Met, Error> {
    let UnbufferedStatus { mut discard, state } = S::process(session, incoming.filled_mut());
    let met = match state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    plain.extend_from_slice(record.payload);
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Met::Plaintext),
            }
        },
        Ok(ConnectionState::EncodeTlsData(data)) => encode(data, control).map(|()| Met::Progress),
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Met::Progress)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Met::Blocked),
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Met::Established),
        Ok(ConnectionState::PeerClosed) => Ok(Met::PeerClosed),
        Ok(ConnectionState::Closed) => Ok(Met::Ended),
        Ok(other) => Err(Error::General(format!("no use for the state {other:?}"))),
        Err(error) => Err(error),
    };
    incoming.consume(discard);
    met
}

fn encode<S>(mut data: EncodeTlsData<'_, S>, out: &mut Buffer) -> Result<(), Error> {
    let mut room = OVERHEAD;
    loop {
        match data.encode(out.space(room)) {
            Ok(len) => {
                out.fill(len);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                room = required_size;
            }
            Err(error @ EncodeError::AlreadyEncoded) => return Err(Error::General(error.to_string())),
        }
    }
}

/// See [`Records::refuse_pieces`] for why there may be no incoming bytes here.
fn write<S: Side>(
    session: &mut UnbufferedConnectionCommon<S>,
    out: &mut Buffer,
    what: Outgoing<'_>,
) -> Result<(), TlsError> {
    let mut room = OVERHEAD + if let Outgoing::Data(plaintext) = what { plaintext.len() } else { 0 };
    loop {
        match S::process(session, &mut []).state? {
            ConnectionState::EncodeTlsData(data) => encode(data, out)?,
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::WriteTraffic(mut traffic) => {
                let sealed = match what {
                    Outgoing::Data(plaintext) => traffic.encrypt(plaintext, out.space(room)),
                    Outgoing::Goodbye => traffic.queue_close_notify(out.space(room)),
                    #[cfg(test)]
                    Outgoing::KeyUpdate => {
                        traffic.refresh_traffic_keys()?;
                        return match S::process(session, &mut []).state? {
                            ConnectionState::EncodeTlsData(data) => Ok(encode(data, out)?),
                            other => panic!("a key update makes a record, not {other:?}"),
                        };
                    }
                };
                match sealed {
                    Ok(len) => {
                        out.fill(len);
                        return Ok(());
                    }
                    Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                        room = required_size;
                    }
                    Err(EncryptError::EncryptExhausted) => return Err(TlsError::Ended),
                }
            }
            ConnectionState::Closed => return Err(TlsError::Ended),
            other => return Err(TlsError::Config(format!("no use for the state {other:?}"))),
        }
    }
}

#[cfg(test)]
mod tests;
