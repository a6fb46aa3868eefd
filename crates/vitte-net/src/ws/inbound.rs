//! From bytes to messages (RFC 6455, section 5): a value without a socket.

use std::io::Cursor;

use bytes::{Buf, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::deflate::{Agreed, Inflater};
use super::utf8::Utf8;
use super::{CloseFrame, Event, Message, Role, Text, Violation, WsOptions, mask};

/// The longest header: 14 bytes.
const HEADER: usize = 14;
/// Content of a control frame, at most: 125 bytes.
pub(super) const MAX_CONTROL: usize = 125;
/// What is taken from the stream at a time, at least: 16 KiB.
const READ: usize = 16 * 1024;
/// The same from a peer whose bytes fill that again and again: 64 KiB.
const READ_BUSY: usize = 64 * 1024;
/// What is taken at a time while a large frame arrives, at most: 256 KiB.
const READ_MOST: usize = 256 * 1024;

/// What was found in the bytes.
#[derive(Debug)]
pub(super) enum Found {
    Event(Event),
    Close(Option<CloseFrame>),
    /// Nothing whole: more bytes are needed.
    Nothing,
}

/// The receiving side.
#[derive(Debug)]
pub(super) struct Inbound {
    role: Role,
    max_frame: usize,
    max_message: usize,
    /// Read and not understood yet. The content of a frame that stays whole is unmasked in it.
    buffer: BytesMut,
    /// What is taken at a time now, and how much room there was the last time.
    step: usize,
    offered: usize,
    frame: Option<Frame>,
    message: Option<Partial>,
    inflater: Option<Inflater>,
}

/// A frame whose content is not complete.
#[derive(Debug)]
struct Frame {
    kind: Kind,
    last: bool,
    mask: Option<[u8; 4]>,
    /// Bytes of content that are not taken out of the buffer yet.
    left: usize,
    /// Bytes of content that were unmasked and looked at, in the buffer or before it.
    seen: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A whole message in one frame, as it is: it is not copied.
    Whole {
        text: bool,
    },
    /// A piece of a message.
    Piece,
    Control(Control),
}

/// A message that is not complete.
#[derive(Debug)]
struct Partial {
    text: bool,
    compressed: bool,
    content: Vec<u8>,
    utf8: Utf8,
}

impl Inbound {
    /// `early` came along with the handshake.
    pub(super) fn new(role: Role, options: &WsOptions, agreed: Option<&Agreed>, early: Bytes) -> Self {
        Self {
            role,
            max_frame: options.max_frame,
            max_message: options.max_message,
            buffer: early.into(),
            step: READ,
            offered: 0,
            frame: None,
            message: None,
            inflater: agreed.map(Inflater::new),
        }
    }

    /// Where to put bytes that arrive, and how many at most.
    pub(super) fn room(&mut self) -> (&mut BytesMut, usize) {
        let missing = match &self.frame {
            Some(frame) => frame.left.saturating_sub(self.buffer.len()),
            None => 0,
        };
        // As much as is already there at most: who announces a lot must send it before it takes memory.
        let most = READ_MOST.min(self.buffer.len().max(self.step));
        let wanted = (missing + HEADER).clamp(self.step, most);
        if self.buffer.capacity() - self.buffer.len() < self.step / 4 || missing > 0 {
            self.buffer.reserve(wanted);
        }
        self.offered = (self.buffer.capacity() - self.buffer.len()).min(READ_MOST);
        (&mut self.buffer, self.offered)
    }

    /// So many bytes were put there.
    pub(super) fn arrived(&mut self, len: usize) {
        if len >= self.offered {
            self.step = (self.step * 2).min(READ_BUSY);
        } else if len < self.step / 4 {
            self.step = (self.step / 2).max(READ);
        }
    }

    /// The next thing in the bytes that arrived.
    pub(super) fn next(&mut self) -> Result<Found, Violation> {
        loop {
            let Some(frame) = self.frame.as_mut() else {
                if !self.begin()? {
                    return Ok(Found::Nothing);
                }
                continue;
            };
            let (kind, whole) = (frame.kind, self.buffer.len() >= frame.left);
            match kind {
                Kind::Whole { text } => return self.whole(text),
                Kind::Control(_) if !whole => return Ok(Found::Nothing),
                Kind::Control(control) => {
                    let content = self.content();
                    return Ok(match control {
                        Control::Ping => Found::Event(Event::Ping(content)),
                        Control::Pong => Found::Event(Event::Pong(content)),
                        _ => Found::Close(CloseFrame::decode(&content)?),
                    });
                }
                Kind::Piece => {
                    if let Some(message) = self.piece()? {
                        return Ok(Found::Event(Event::Message(message)));
                    }
                    if !whole {
                        return Ok(Found::Nothing);
                    }
                }
            }
        }
    }

    /// Reads a header, if it is complete, and looks at all that it says.
    fn begin(&mut self) -> Result<bool, Violation> {
        let mut cursor = Cursor::new(&self.buffer[..]);
        let Ok(parsed) = FrameHeader::parse(&mut cursor) else {
            return Err(Violation::ReservedOpcode(self.buffer[0] & 0x0f));
        };
        let Some((header, len)) = parsed else { return Ok(false) };
        let read = usize::try_from(cursor.position()).unwrap_or(HEADER);
        if read != header.len(len) || len >> 63 == 1 {
            return Err(Violation::Length);
        }
        let kind = self.kind(&header, len)?;
        match (self.role, header.mask) {
            (Role::Server, None) => return Err(Violation::Unmasked),
            (Role::Client, Some(_)) => return Err(Violation::Masked),
            (Role::Server, Some(_)) | (Role::Client, None) => {}
        }
        let max = self.max_frame;
        let left = usize::try_from(len).ok().filter(|len| *len <= max);
        let left = left.ok_or(Violation::FrameTooLarge { len, max })?;
        if !matches!(kind, Kind::Control(_)) {
            self.check_size(left)?;
        }
        self.buffer.advance(read);
        self.frame = Some(Frame { kind, last: header.is_final, mask: header.mask, left, seen: 0 });
        Ok(true)
    }

    /// What kind of frame this is, which depends on what came before. A message begins here.
    fn kind(&mut self, header: &FrameHeader, len: u64) -> Result<Kind, Violation> {
        let data = match header.opcode {
            OpCode::Data(data) => data,
            OpCode::Control(control) => {
                if header.rsv1 || header.rsv2 || header.rsv3 {
                    return Err(Violation::ReservedBits);
                }
                if !header.is_final {
                    return Err(Violation::FragmentedControl);
                }
                if len > MAX_CONTROL as u64 {
                    return Err(Violation::LongControl(len));
                }
                return Ok(Kind::Control(control));
            }
        };
        let begins = data != Data::Continue;
        // RFC 7692, section 6: the bit stands on the first frame of a message.
        if header.rsv2 || header.rsv3 || (header.rsv1 && !(begins && self.inflater.is_some())) {
            return Err(Violation::ReservedBits);
        }
        match (begins, self.message.is_some()) {
            (false, false) => return Err(Violation::UnexpectedContinuation),
            (true, true) => return Err(Violation::InterruptedMessage),
            (false, true) => return Ok(Kind::Piece),
            (true, false) => {}
        }
        let text = data == Data::Text;
        let kind = if header.is_final && !header.rsv1 { Kind::Whole { text } } else { Kind::Piece };
        // A text that arrives in one frame is checked in the same way, if it does not arrive at once.
        if kind == Kind::Piece || text {
            let utf8 = Utf8::default();
            self.message = Some(Partial { text, compressed: header.rsv1, content: Vec::new(), utf8 });
        }
        Ok(kind)
    }

    /// The message does not get too large by a frame of `len` bytes.
    fn check_size(&self, len: usize) -> Result<(), Violation> {
        let max = self.max_message;
        let (before, compressed) = match &self.message {
            Some(message) => (message.content.len(), message.compressed),
            None => (0, false),
        };
        // How large a compressed one gets, its inflater finds out.
        if !compressed && len > max.saturating_sub(before) {
            return Err(Violation::MessageTooLarge { max });
        }
        Ok(())
    }

    /// A message in one frame: its bytes are the buffer's. They are unmasked, and a text is checked, as they
    /// come.
    fn whole(&mut self, text: bool) -> Result<Found, Violation> {
        let Some(frame) = self.frame.as_mut() else { return Ok(Found::Nothing) };
        let there = frame.left.min(self.buffer.len());
        let fresh = &mut self.buffer[frame.seen..there];
        if let Some(mask) = frame.mask {
            mask::apply(fresh, mask, frame.seen);
        }
        let complete = there == frame.left;
        let at_once = complete && frame.seen == 0;
        frame.seen = there;
        if let Some(message) = self.message.as_mut().filter(|_| !at_once) {
            message.utf8.check(fresh)?;
        }
        if !complete {
            return Ok(Found::Nothing);
        }
        (self.frame, self.message) = (None, None);
        let content = self.buffer.split_to(there).freeze();
        if there > READ_MOST && self.buffer.is_empty() {
            // Gives the memory of a large message back.
            self.buffer = BytesMut::new();
        }
        let message = if text { Message::Text(Text::parse(content)?) } else { Message::Binary(content) };
        Ok(Found::Event(Event::Message(message)))
    }

    /// The content of a control frame, which is all there.
    fn content(&mut self) -> Bytes {
        let Some(frame) = self.frame.take() else { return Bytes::new() };
        let mut content = self.buffer.split_to(frame.left);
        if let Some(mask) = frame.mask {
            mask::apply(&mut content, mask, 0);
        }
        content.freeze()
    }

    /// Takes what there is of a piece, and returns the message if this was all of it.
    fn piece(&mut self) -> Result<Option<Message>, Violation> {
        let (Some(frame), Some(message)) = (self.frame.as_mut(), self.message.as_mut()) else {
            return Ok(None);
        };
        let there = frame.left.min(self.buffer.len());
        let fresh = &mut self.buffer[..there];
        if let Some(mask) = frame.mask {
            mask::apply(fresh, mask, frame.seen);
        }
        let before = message.content.len();
        let mut inflater = self.inflater.as_mut().filter(|_| message.compressed);
        let mut inflated = match &mut inflater {
            Some(inflater) => inflater.inflate(fresh, &mut message.content, self.max_message),
            None => {
                message.content.extend_from_slice(fresh);
                Ok(())
            }
        };
        frame.left -= there;
        frame.seen += there;
        self.buffer.advance(there);
        let ended = frame.left == 0 && frame.last;
        if ended
            && inflated.is_ok()
            && let Some(inflater) = inflater
        {
            inflated = inflater.finish(&mut message.content, self.max_message);
        }
        // Also of what stands before a fault: the first fault is told, however the bytes came.
        if message.text {
            message.utf8.check(&message.content[before..])?;
        }
        inflated?;
        if frame.left == 0 {
            self.frame = None;
        }
        let Some(message) = self.message.take_if(|_| ended) else { return Ok(None) };
        let content = Bytes::from(message.content);
        if !message.text {
            return Ok(Some(Message::Binary(content)));
        }
        message.utf8.finish()?;
        Text::parse(content).map(|text| Some(Message::Text(text)))
    }
}

#[cfg(test)]
mod tests;
