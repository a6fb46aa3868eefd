//! From messages to bytes (RFC 6455, section 5): a value without a socket.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::deflate::{Agreed, Deflater};
use super::mask::{self, Masks};
use super::{CloseFrame, Message, WsOptions};
use crate::network::Network;

/// Content of this many bytes is not copied beside its header, but written from where it is, if the stream can
/// write both at once: 16 KiB.
const LARGE: usize = 16 * 1024;
/// A buffer that grew beyond this is given back when it is empty: 256 KiB.
const KEEP: usize = 256 * 1024;
/// Pieces of one write.
pub(super) const SLICES: usize = 8;

/// The sending side: frames that wait for the socket.
#[derive(Debug)]
pub(super) struct Outbound {
    /// A client masks.
    masks: Option<Masks>,
    deflater: Option<Deflater>,
    fragment: usize,
    high_water: usize,
    /// From how many bytes on content is not copied.
    large: usize,
    /// Large content and what stands before it, then `tail`.
    queue: VecDeque<Bytes>,
    tail: BytesMut,
    /// Bytes of both.
    waiting: usize,
    /// The answer to the latest ping, while there is no room for it.
    pong: Option<Bytes>,
    closed: bool,
}

impl Outbound {
    /// A client with its `network`, or a server, over a stream that writes several buffers at once or not.
    pub(super) fn new(
        network: Option<Arc<dyn Network>>,
        options: &WsOptions,
        agreed: Option<&Agreed>,
        vectored: bool,
    ) -> Self {
        Self {
            masks: network.map(Masks::new),
            deflater: agreed.map(Deflater::new),
            fragment: options.fragment.unwrap_or(usize::MAX).max(1),
            high_water: options.write_buffer,
            large: if vectored { LARGE } else { usize::MAX },
            queue: VecDeque::new(),
            tail: BytesMut::new(),
            waiting: 0,
            pong: None,
            closed: false,
        }
    }

    /// A close frame was sent: nothing more is.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// So much waits that no more messages should be added.
    pub(super) fn is_full(&self) -> bool {
        self.waiting > self.high_water
    }

    pub(super) fn message(&mut self, message: Message) {
        let kind = match message {
            Message::Text(_) => Data::Text,
            Message::Binary(_) => Data::Binary,
        };
        let mut content = message.into_bytes();
        let mut compressed = false;
        if let Some(deflated) = self.deflater.as_mut().and_then(|deflater| deflater.deflate(&content)) {
            content = Bytes::copy_from_slice(deflated);
            compressed = true;
        }
        let mut opcode = OpCode::Data(kind);
        while content.len() > self.fragment {
            let piece = content.split_to(self.fragment);
            self.frame(FrameHeader { is_final: false, rsv1: compressed, opcode, ..plain() }, piece);
            (opcode, compressed) = (OpCode::Data(Data::Continue), false);
        }
        self.frame(FrameHeader { rsv1: compressed, opcode, ..plain() }, content);
    }

    pub(super) fn ping(&mut self, content: Bytes) {
        self.control(Control::Ping, content);
    }

    pub(super) fn pong(&mut self, content: Bytes) {
        self.control(Control::Pong, content);
    }

    /// Answers a ping: with a frame of its own while there is room, later with one for the latest ping alone
    /// (RFC 6455, section 5.5.3), so that who only pings and never reads takes no memory.
    pub(super) fn answer(&mut self, content: Bytes) {
        if self.is_full() { self.pong = Some(content) } else { self.pong(content) }
    }

    /// Sends a close frame, once.
    pub(super) fn close(&mut self, frame: Option<&CloseFrame>) {
        if !self.closed {
            self.control(Control::Close, frame.map(CloseFrame::encode).unwrap_or_default().into());
            self.closed = true;
            self.pong = None;
        }
    }

    /// What is to be written next.
    pub(super) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        let parts = self.queue.iter().map(|part| &part[..]).chain(std::iter::once(&self.tail[..]));
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
            count += 1;
        }
        count
    }

    /// So many bytes were written.
    pub(super) fn written(&mut self, mut len: usize) {
        self.waiting -= len;
        while let Some(part) = self.queue.front_mut() {
            if len < part.len() {
                part.advance(len);
                return;
            }
            len -= part.len();
            self.queue.pop_front();
        }
        self.tail.advance(len);
        if self.waiting == 0 && self.tail.capacity() > KEEP {
            self.tail = BytesMut::new();
        }
        if !self.is_full()
            && let Some(content) = self.pong.take()
        {
            self.pong(content);
        }
    }

    /// Nothing that waits will be written.
    pub(super) fn give_up(&mut self) {
        (self.queue, self.tail, self.waiting, self.pong) = Default::default();
        self.closed = true;
    }

    fn control(&mut self, control: Control, content: Bytes) {
        self.frame(FrameHeader { opcode: OpCode::Control(control), ..plain() }, content);
    }

    fn frame(&mut self, mut header: FrameHeader, content: Bytes) {
        if self.closed {
            return;
        }
        header.mask = self.masks.as_mut().map(Masks::next);
        let len = content.len() as u64;
        let copied = content.len() < self.large;
        self.tail.reserve(header.len(len) + if copied { content.len() } else { 0 });
        // Writing to a buffer in memory does not fail.
        let _ = header.format(len, &mut (&mut self.tail).writer());
        self.waiting += header.len(len) + content.len();
        if copied {
            let begin = self.tail.len();
            self.tail.extend_from_slice(&content);
            if let Some(mask) = header.mask {
                mask::apply(&mut self.tail[begin..], mask, 0);
            }
            return;
        }
        let content = match header.mask {
            None => content,
            Some(mask) => {
                // In place where nobody else holds the bytes.
                let mut own = content.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
                mask::apply(&mut own, mask, 0);
                own.freeze()
            }
        };
        self.queue.push_back(self.tail.split().freeze());
        self.queue.push_back(content);
    }
}

fn plain() -> FrameHeader {
    FrameHeader::default()
}
