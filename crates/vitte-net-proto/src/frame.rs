//! The wire: frames to bytes and back (`docs/WIRE.md`, "Frames").
//!
//! A frame is a type, a length and a body, all integers as QUIC varints (RFC 9000, section 16). Every
//! length is checked against its limit before anything is allocated or copied.

use alloc::vec::Vec;

use crate::codec::{Reader, VARINT_MAX, put_text, put_varint, read_varint, varint_len};
use crate::error::{CloseCode, StreamCode, Violation};
use crate::hello::Hello;
use crate::id::{DeliveryClass, Priority, StreamId};

/// The longest name of a stream, in bytes.
pub const NAME_MAX: usize = 255;
/// The longest reason of a CLOSE, STOP or RESET, in bytes. Longer ones are cut by the sender.
pub const REASON_MAX: usize = 512;
/// The longest body of a frame that is not DATA, in bytes.
pub const CONTROL_MAX: usize = 4096;
/// The longest body of a DATA frame, in bytes: 64 KiB and its header.
pub const DATA_MAX: usize = 65_536 + 32;
/// The longest payload of a DATAGRAM frame, in bytes: with its header it fits into one TLS record.
pub const DATAGRAM_MAX: usize = 15_000;
/// Entries of one RESUME frame.
pub const RESUME_ENTRIES_MAX: usize = 96;

/// Types of frames. Even ones are mandatory to know; unknown odd ones are skipped.
pub mod kind {
    #![expect(missing_docs, reason = "the table in docs/WIRE.md says what each is")]
    pub const HELLO: u64 = 0x00;
    pub const WELCOME: u64 = 0x02;
    pub const OPEN: u64 = 0x04;
    pub const DATA: u64 = 0x06;
    pub const FIN: u64 = 0x08;
    pub const STOP: u64 = 0x0a;
    pub const RESET: u64 = 0x0c;
    pub const RETIRE: u64 = 0x0e;
    pub const OFFSETS: u64 = 0x10;
    pub const MAX_STREAMS: u64 = 0x12;
    pub const PING: u64 = 0x14;
    pub const PONG: u64 = 0x16;
    pub const DATAGRAM: u64 = 0x18;
    pub const RESUME: u64 = 0x1a;
    pub const DRAIN: u64 = 0x1c;
    pub const CLOSE: u64 = 0x1e;
    pub const LATEST: u64 = 0x20;
}

/// What a stream is for. The acceptor's registry has one namespace for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamKind {
    /// Messages both ways, long-lived.
    Channel,
    /// One request, one answer.
    Call,
    /// Bytes without boundaries, both ways.
    Bytes,
}

/// The body of an OPEN frame: everything about a stream that does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open<'a> {
    /// What it is for; [`StreamKind::Bytes`] has no message boundaries.
    pub kind: StreamKind,
    /// Its class among those that wait to be transmitted.
    pub priority: Priority,
    /// Its delivery class: other than reliable only on a channel.
    pub class: DeliveryClass,
    /// Microseconds that remain of its deadline, as written at this transmission.
    pub deadline_micros: Option<u64>,
    /// Fingerprint of what the opener sends; zero where there is no schema.
    pub schema_out: u64,
    /// Fingerprint of what the opener expects to receive.
    pub schema_in: u64,
    /// Who should take it: at most [`NAME_MAX`] bytes of UTF-8.
    pub name: &'a str,
}

/// The three offsets of one direction of a stream, as its receiver states them. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// Handed to the application. `taken <= received`.
    pub taken: u64,
    /// Contiguous in the receiver's session. `received <= limit`.
    pub received: u64,
    /// How far the sender may go.
    pub limit: u64,
}

/// A frame, borrowing what is variable in it. `docs/WIRE.md` has a table of the fields of each.
#[allow(missing_docs, reason = "the fields are those of the table")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// First of each side on a link.
    Hello(Hello),
    /// The peer's hello is accepted; carries the proof of the shared secret.
    Welcome { proof: [u8; 32] },
    /// A stream begins. Lower numbers of its side exist from now on, too.
    Open { stream: StreamId, open: Open<'a> },
    /// Bytes of a stream. `push`: the sender has nothing more and waits for these to be taken.
    Data { stream: StreamId, offset: u64, push: bool, payload: &'a [u8] },
    /// The direction ends at `end`.
    Fin { stream: StreamId, end: u64 },
    /// Terminal state of a direction, from its receiver.
    Stop { stream: StreamId, code: StreamCode, taken: u64, reason: &'a str },
    /// The sender gives the direction up.
    Reset { stream: StreamId, code: StreamCode, reason: &'a str },
    /// The sender has learnt the terminal state: it can be forgotten.
    Retire { stream: StreamId },
    /// The receiver's offsets of a direction.
    Offsets { stream: StreamId, offsets: Offsets },
    /// What the receiver of a direction of class latest has consumed: `count` messages, and bit i says
    /// whether the one i before the last of them was delivered.
    Latest { stream: StreamId, count: u64, delivered: u64 },
    /// A message of class datagram, by its number in this direction.
    Datagram { stream: StreamId, number: u64, payload: &'a [u8] },
    /// How many streams the peer may open in all.
    MaxStreams { count: u64 },
    /// Asks for a PONG with the same token.
    Ping { token: u64 },
    /// Answers a PING.
    Pong { token: u64 },
    /// Offsets of many streams, on a link that begins to carry the session.
    Resume(Resume<'a>),
    /// No new streams, please: the node is going away.
    Drain,
    /// The link ends; a session-level code ends the session too.
    Close { code: CloseCode, session: bool, reason: &'a str },
}

/// The body of a RESUME frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume<'a> {
    /// No more RESUME frames follow.
    pub last: bool,
    /// An answer: the receiver need not answer again.
    pub reply: bool,
    entries: &'a [u8],
}

impl Resume<'_> {
    /// The streams and their offsets. They were checked when the frame was read.
    pub fn entries(&self) -> impl Iterator<Item = (StreamId, Offsets)> {
        let mut body = Reader(self.entries);
        core::iter::from_fn(move || {
            if body.0.is_empty() {
                return None;
            }
            Some((body.stream().ok()?, read_offsets(&mut body).ok()?))
        })
    }
}

/// What [`read_frame`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A frame, and the bytes it took.
    Frame(Frame<'a>, usize),
    /// A frame of an unknown odd type, and the bytes to skip.
    Skip(usize),
    /// More bytes are needed: at least this many in all.
    Incomplete(usize),
}

/// Reads the frame at the front of `bytes`.
///
/// # Errors
/// A frame that breaks a rule; nothing was allocated for it.
pub fn read_frame(bytes: &[u8]) -> Result<Decoded<'_>, Violation> {
    let Some((kind, kind_len)) = read_varint(bytes) else { return Ok(Decoded::Incomplete(bytes.len() + 1)) };
    let Some((len, len_len)) = read_varint(&bytes[kind_len..]) else {
        return Ok(Decoded::Incomplete(bytes.len() + 1));
    };
    let max = match kind {
        kind::DATA => DATA_MAX,
        kind::DATAGRAM => DATAGRAM_MAX + 16,
        _ => CONTROL_MAX,
    };
    let len = match usize::try_from(len) {
        Ok(len) if len <= max => len,
        _ => {
            return Err(Violation::new(CloseCode::FRAME_TOO_LARGE, "a frame is longer than its type allows"));
        }
    };
    let start = kind_len + len_len;
    let Some(body) = bytes.get(start..start + len) else { return Ok(Decoded::Incomplete(start + len)) };
    match read_body(kind, body)? {
        Some(frame) => Ok(Decoded::Frame(frame, start + len)),
        None => Ok(Decoded::Skip(start + len)),
    }
}

fn read_body(kind: u64, body: &[u8]) -> Result<Option<Frame<'_>>, Violation> {
    let mut body = Reader(body);
    let frame = match kind {
        kind::HELLO => Frame::Hello(Hello::read(&mut body)?),
        kind::WELCOME => {
            let proof = body.array()?;
            // Room for later fields: what follows is skipped.
            body.0 = &[];
            Frame::Welcome { proof }
        }
        kind::OPEN => read_open(&mut body)?,
        kind::DATA => {
            let stream = body.stream()?;
            let offset = body.varint()?;
            let push = match body.byte()? {
                0 => false,
                1 => true,
                _ => return Err(Violation::malformed("a DATA frame has flags that nobody defined")),
            };
            let payload = core::mem::take(&mut body.0);
            if payload.is_empty() || offset + payload.len() as u64 > VARINT_MAX {
                return Err(Violation::malformed("a DATA frame is empty or ends above 2^62 - 1"));
            }
            Frame::Data { stream, offset, push, payload }
        }
        kind::FIN => Frame::Fin { stream: body.stream()?, end: body.varint()? },
        kind::STOP => Frame::Stop {
            stream: body.stream()?,
            code: StreamCode(body.varint()?),
            taken: body.varint()?,
            reason: read_reason(&mut body)?,
        },
        kind::RESET => Frame::Reset {
            stream: body.stream()?,
            code: StreamCode(body.varint()?),
            reason: read_reason(&mut body)?,
        },
        kind::RETIRE => Frame::Retire { stream: body.stream()? },
        kind::OFFSETS => Frame::Offsets { stream: body.stream()?, offsets: read_offsets(&mut body)? },
        kind::DATAGRAM => {
            let (stream, number) = (body.stream()?, body.varint()?);
            let payload = core::mem::take(&mut body.0);
            if number == VARINT_MAX || payload.len() > DATAGRAM_MAX {
                return Err(Violation::malformed("a DATAGRAM frame too long, or with a number too great"));
            }
            Frame::Datagram { stream, number, payload }
        }
        kind::LATEST => {
            let stream = body.stream()?;
            let count = body.varint()?;
            let delivered = u64::from_be_bytes(body.array()?);
            if count < 64 && delivered >> count != 0 {
                return Err(Violation::malformed("a LATEST frame delivers more messages than it counts"));
            }
            Frame::Latest { stream, count, delivered }
        }
        kind::MAX_STREAMS => Frame::MaxStreams { count: body.varint()? },
        kind::PING => Frame::Ping { token: body.varint()? },
        kind::PONG => Frame::Pong { token: body.varint()? },
        kind::RESUME => read_resume(&mut body)?,
        kind::DRAIN => Frame::Drain,
        kind::CLOSE => {
            let code = CloseCode(body.varint()?);
            let session = match body.byte()? {
                0 => false,
                1 => true,
                _ => return Err(Violation::malformed("a CLOSE frame ends neither link nor session")),
            };
            Frame::Close { code, session, reason: read_reason(&mut body)? }
        }
        odd if odd % 2 == 1 => return Ok(None),
        _ => return Err(Violation::new(CloseCode::UNKNOWN_FRAME, "a frame of an unknown even type")),
    };
    if body.0.is_empty() {
        Ok(Some(frame))
    } else {
        Err(Violation::malformed("a frame goes on after its last field"))
    }
}

fn read_reason<'a>(body: &mut Reader<'a>) -> Result<&'a str, Violation> {
    body.text(REASON_MAX, "a reason is longer than 512 bytes")
}

fn read_offsets(body: &mut Reader<'_>) -> Result<Offsets, Violation> {
    let taken = body.varint()?;
    let received = taken + body.varint()?;
    let limit = received + body.varint()?;
    if limit > VARINT_MAX {
        return Err(Violation::malformed("an offset is above 2^62 - 1"));
    }
    Ok(Offsets { taken, received, limit })
}

fn read_open<'a>(body: &mut Reader<'a>) -> Result<Frame<'a>, Violation> {
    let stream = body.stream()?;
    let kind = match body.byte()? {
        0 => StreamKind::Channel,
        1 => StreamKind::Call,
        2 => StreamKind::Bytes,
        _ => return Err(Violation::malformed("a stream of an unknown kind")),
    };
    let priority = *Priority::ALL
        .get(usize::from(body.byte()?))
        .ok_or(Violation::malformed("a stream of an unknown priority"))?;
    let class = *DeliveryClass::ALL
        .get(usize::from(body.byte()?))
        .filter(|class| kind == StreamKind::Channel || **class == DeliveryClass::Reliable)
        .ok_or(Violation::malformed("a delivery class that is unknown, or not of a channel"))?;
    let deadline_micros = body.varint()?.checked_sub(1);
    let schema_out = u64::from_be_bytes(body.array()?);
    let schema_in = u64::from_be_bytes(body.array()?);
    let name = body.text(NAME_MAX, "a name is longer than 255 bytes")?;
    let open = Open { kind, priority, class, deadline_micros, schema_out, schema_in, name };
    Ok(Frame::Open { stream, open })
}

fn read_resume<'a>(body: &mut Reader<'a>) -> Result<Frame<'a>, Violation> {
    let flags = body.byte()?;
    if flags > 3 {
        return Err(Violation::malformed("a RESUME frame has flags that nobody defined"));
    }
    let entries = body.0;
    let mut count = 0;
    while !body.0.is_empty() {
        body.stream()?;
        read_offsets(body)?;
        count += 1;
    }
    if count > RESUME_ENTRIES_MAX {
        return Err(Violation::malformed("a RESUME frame has more than 96 entries"));
    }
    Ok(Frame::Resume(Resume { last: flags & 1 != 0, reply: flags & 2 != 0, entries }))
}

/// Bytes that a DATA frame takes before its payload: at most 8 + 8 + 1 + 1 + 4.
#[must_use]
pub fn data_overhead(stream: StreamId, offset: u64, payload: usize) -> usize {
    let fields = varint_len(stream.0) + varint_len(offset) + 1;
    1 + varint_len((fields + payload) as u64) + fields
}

/// Appends everything of a DATA frame but its payload, of which exactly `payload` bytes must follow.
pub fn put_data_header(out: &mut Vec<u8>, stream: StreamId, offset: u64, push: bool, payload: usize) {
    put_varint(out, kind::DATA);
    put_varint(out, (varint_len(stream.0) + varint_len(offset) + 1 + payload) as u64);
    put_varint(out, stream.0);
    put_varint(out, offset);
    out.push(u8::from(push));
}

/// Bytes of a whole DATAGRAM frame.
#[must_use]
pub fn datagram_len(stream: StreamId, number: u64, payload: usize) -> usize {
    let body = varint_len(stream.0) + varint_len(number) + payload;
    1 + varint_len(body as u64) + body
}

/// Cuts a reason to [`REASON_MAX`] bytes at a character boundary.
#[must_use]
pub fn cut_reason(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary_at(REASON_MAX)]
}

trait FloorCharBoundary {
    fn floor_char_boundary_at(&self, max: usize) -> usize;
}

impl FloorCharBoundary for str {
    fn floor_char_boundary_at(&self, max: usize) -> usize {
        (0..=max.min(self.len())).rev().find(|&at| self.is_char_boundary(at)).unwrap_or(0)
    }
}

fn put_offsets(out: &mut Vec<u8>, offsets: &Offsets) {
    put_varint(out, offsets.taken);
    put_varint(out, offsets.received.saturating_sub(offsets.taken));
    put_varint(out, offsets.limit.saturating_sub(offsets.received));
}

/// Appends type and length around what `body` writes; the length takes two bytes, so the body must stay
/// below 16 KiB, and every frame that is built this way stays below [`CONTROL_MAX`].
fn put_framed(out: &mut Vec<u8>, kind: u64, body: impl FnOnce(&mut Vec<u8>)) {
    put_varint(out, kind);
    let at = out.len();
    out.extend_from_slice(&[0x40, 0]);
    body(out);
    let len = out.len() - at - 2;
    debug_assert!(len <= CONTROL_MAX, "a control frame of {len} bytes");
    let [.., high, low] = len.to_be_bytes();
    out[at] = 0x40 | high;
    out[at + 1] = low;
}

/// Appends a RESUME frame. At most [`RESUME_ENTRIES_MAX`] entries.
pub fn put_resume(out: &mut Vec<u8>, last: bool, reply: bool, entries: &[(StreamId, Offsets)]) {
    put_framed(out, kind::RESUME, |out| {
        out.push(u8::from(last) | u8::from(reply) << 1);
        for (stream, offsets) in entries {
            put_varint(out, stream.0);
            put_offsets(out, offsets);
        }
    });
}

impl Frame<'_> {
    /// Appends the frame. Texts longer than their limits are the caller's mistake and are cut.
    pub fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => put_framed(out, kind::HELLO, |out| hello.put(out)),
            Self::Welcome { proof } => put_framed(out, kind::WELCOME, |out| out.extend_from_slice(proof)),
            Self::Open { stream, open } => put_framed(out, kind::OPEN, |out| {
                put_varint(out, stream.0);
                out.push(match open.kind {
                    StreamKind::Channel => 0,
                    StreamKind::Call => 1,
                    StreamKind::Bytes => 2,
                });
                out.push(open.priority as u8);
                out.push(open.class as u8);
                put_varint(out, open.deadline_micros.map_or(0, |micros| micros.saturating_add(1)));
                out.extend_from_slice(&open.schema_out.to_be_bytes());
                out.extend_from_slice(&open.schema_in.to_be_bytes());
                put_text(out, &open.name[..open.name.floor_char_boundary_at(NAME_MAX)]);
            }),
            Self::Data { stream, offset, push, payload } => {
                put_data_header(out, *stream, *offset, *push, payload.len());
                out.extend_from_slice(payload);
            }
            Self::Fin { stream, end } => put_framed(out, kind::FIN, |out| {
                put_varint(out, stream.0);
                put_varint(out, *end);
            }),
            Self::Stop { stream, code, taken, reason } => put_framed(out, kind::STOP, |out| {
                put_varint(out, stream.0);
                put_varint(out, code.0);
                put_varint(out, *taken);
                put_text(out, cut_reason(reason));
            }),
            Self::Reset { stream, code, reason } => put_framed(out, kind::RESET, |out| {
                put_varint(out, stream.0);
                put_varint(out, code.0);
                put_text(out, cut_reason(reason));
            }),
            Self::Retire { stream } => put_framed(out, kind::RETIRE, |out| put_varint(out, stream.0)),
            Self::Offsets { stream, offsets } => put_framed(out, kind::OFFSETS, |out| {
                put_varint(out, stream.0);
                put_offsets(out, offsets);
            }),
            Self::Datagram { stream, number, payload } => {
                put_varint(out, kind::DATAGRAM);
                put_varint(out, (varint_len(stream.0) + varint_len(*number) + payload.len()) as u64);
                put_varint(out, stream.0);
                put_varint(out, *number);
                out.extend_from_slice(payload);
            }
            Self::Latest { stream, count, delivered } => put_framed(out, kind::LATEST, |out| {
                put_varint(out, stream.0);
                put_varint(out, *count);
                out.extend_from_slice(&delivered.to_be_bytes());
            }),
            Self::MaxStreams { count } => put_framed(out, kind::MAX_STREAMS, |out| put_varint(out, *count)),
            Self::Ping { token } => put_framed(out, kind::PING, |out| put_varint(out, *token)),
            Self::Pong { token } => put_framed(out, kind::PONG, |out| put_varint(out, *token)),
            Self::Resume(resume) => put_framed(out, kind::RESUME, |out| {
                out.push(u8::from(resume.last) | u8::from(resume.reply) << 1);
                out.extend_from_slice(resume.entries);
            }),
            Self::Drain => put_framed(out, kind::DRAIN, |_| ()),
            Self::Close { code, session, reason } => put_framed(out, kind::CLOSE, |out| {
                put_varint(out, code.0);
                out.push(u8::from(*session));
                put_text(out, cut_reason(reason));
            }),
        }
    }
}

/// Cuts the bytes of one lane into frames. Frames that are whole in a run are read in place; only one that
/// straddles two runs is copied, and never more than [`DATA_MAX`] bytes of it.
#[derive(Debug, Default)]
pub struct Deframer {
    partial: Vec<u8>,
}

impl Deframer {
    /// Reads all whole frames of `run` and hands each to `each`, which may end the reading early by
    /// answering `false`; the bytes that were not read are returned.
    ///
    /// # Errors
    /// The first rule that was broken, here or in `each`.
    pub fn push<'r>(
        &mut self,
        mut run: &'r [u8],
        each: &mut dyn FnMut(Frame<'_>) -> Result<bool, Violation>,
    ) -> Result<&'r [u8], Violation> {
        while !self.partial.is_empty() {
            // Fill up the torn frame, no further than it says.
            let need = match read_frame(&self.partial)? {
                Decoded::Incomplete(need) => need,
                Decoded::Skip(_) => {
                    self.partial.clear();
                    break;
                }
                Decoded::Frame(frame, _) => {
                    let go_on = each(frame)?;
                    self.partial.clear();
                    if !go_on {
                        return Ok(run);
                    }
                    break;
                }
            };
            if run.is_empty() {
                return Ok(run);
            }
            let (head, tail) = run.split_at((need - self.partial.len()).min(run.len()));
            self.partial.extend_from_slice(head);
            run = tail;
        }
        loop {
            if run.is_empty() {
                return Ok(run);
            }
            match read_frame(run)? {
                Decoded::Frame(frame, len) => {
                    run = &run[len..];
                    if !each(frame)? {
                        return Ok(run);
                    }
                }
                Decoded::Skip(len) => run = &run[len..],
                Decoded::Incomplete(_) => {
                    self.partial.extend_from_slice(run);
                    return Ok(&[]);
                }
            }
        }
    }

    /// Bytes of a torn frame that wait here.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.partial.len()
    }
}

#[cfg(test)]
mod tests;
