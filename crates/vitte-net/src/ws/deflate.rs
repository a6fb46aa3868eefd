//! `permessage-deflate` (RFC 7692): what is agreed on, and both directions of it. No other file names `flate2`.

mod offer;

use std::fmt;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::Violation;

pub(super) use offer::{agree, check_answer, offer};

/// The end of a flushed block, which is not sent (RFC 7692, section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// What the inflater is given to fill at a time: 16 KiB.
const STEP: usize = 16 * 1024;
/// The window that zlib cannot make, although RFC 7692 names it.
const NO_WINDOW: u8 = 8;
/// The largest window.
const MAX_WINDOW: u8 = 15;

/// How messages are compressed. With `Deflate::default()` a connection that has seen a message in each direction
/// keeps about 300 KiB for it.
///
/// Whoever compresses secrets together with text that an attacker chooses shows him their similarity by the
/// length (as in CRIME and BREACH): leave it off there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Deflate {
    /// How hard to try, from 1 (fast) to 9 (small). Default: 3.
    pub level: u32,
    /// Messages with fewer bytes are sent as they are. Default: 64.
    pub least: usize,
    /// What this side sends may refer to its earlier messages. Default: yes. No makes worse compression; the
    /// other side need not keep a window between messages.
    pub context_takeover: bool,
    /// The other side may refer to its earlier messages. Default: yes. No makes this side need less memory.
    pub peer_context_takeover: bool,
    /// Bits of the window of what this side sends, 9 to 15: it keeps 2 to the power of it. Default: 15 (32 KiB).
    pub window_bits: u8,
}

impl Default for Deflate {
    fn default() -> Self {
        Self {
            level: 3,
            least: 64,
            context_takeover: true,
            peer_context_takeover: true,
            window_bits: MAX_WINDOW,
        }
    }
}

/// What both sides agreed on, seen from this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    level: u32,
    least: usize,
    /// This side's sending.
    takeover: bool,
    window_bits: u8,
    /// The peer's sending.
    peer_takeover: bool,
}

/// Compresses what is sent.
pub(super) struct Deflater {
    agreed: Agreed,
    /// Made when it is first needed: it is large.
    state: Option<Compress>,
    compressed: Vec<u8>,
}

impl Deflater {
    pub(super) fn new(agreed: &Agreed) -> Self {
        Self { agreed: agreed.clone(), state: None, compressed: Vec::new() }
    }

    /// The compressed message, or none if it is to be sent as it is.
    pub(super) fn deflate(&mut self, message: &[u8]) -> Option<&[u8]> {
        let Self { agreed, state, compressed } = self;
        if message.len() < agreed.least.max(1) || agreed.window_bits == NO_WINDOW {
            return None;
        }
        let level = Compression::new(agreed.level.clamp(1, 9));
        let state =
            state.get_or_insert_with(|| Compress::new_with_window_bits(level, false, agreed.window_bits));
        compressed.clear();
        compressed.shrink_to(STEP);
        let mut rest = message;
        loop {
            compressed.reserve((rest.len() / 2).max(64));
            let before = state.total_in();
            let done = state.compress_vec(rest, compressed, FlushCompress::Sync);
            let taken = usize::try_from(state.total_in() - before).ok().filter(|_| done.is_ok());
            let Some(taken) = taken else {
                // A compressor that has room does not fail. If it did, the next begins afresh.
                self.state = None;
                return None;
            };
            rest = &rest[taken..];
            if rest.is_empty() && compressed.len() < compressed.capacity() {
                break;
            }
        }
        if !agreed.takeover {
            state.reset();
        }
        Some(compressed.strip_suffix(&TAIL).unwrap_or(compressed))
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater").field("agreed", &self.agreed).finish_non_exhaustive()
    }
}

/// Decompresses what arrives.
pub(super) struct Inflater {
    takeover: bool,
    /// Made when it is first needed: it is large.
    state: Option<Decompress>,
}

impl Inflater {
    pub(super) fn new(agreed: &Agreed) -> Self {
        Self { takeover: agreed.peer_takeover, state: None }
    }

    /// Decompresses a piece of a message to the end of `message`, which never grows beyond `max` bytes.
    pub(super) fn inflate(
        &mut self,
        mut piece: &[u8],
        message: &mut Vec<u8>,
        max: usize,
    ) -> Result<(), Violation> {
        let state = self.state.get_or_insert_with(|| Decompress::new(false));
        loop {
            if message.len() == message.capacity() {
                // One byte more than is allowed tells a message that is too large from one that just fits.
                let room = STEP.max(message.len()).min((max - message.len()).saturating_add(1));
                message.reserve_exact(room);
            }
            let (before, len) = (state.total_in(), message.len());
            let status = state.decompress_vec(piece, message, FlushDecompress::Sync);
            let taken = usize::try_from(state.total_in() - before).unwrap_or(piece.len());
            piece = &piece[taken..];
            if message.len() > max {
                return Err(Violation::MessageTooLarge { max });
            }
            let ended = status.map_err(|_| Violation::Deflate)? == Status::StreamEnd;
            if ended {
                // A block that says it is the last one: the next begins afresh.
                state.reset(false);
            }
            if message.len() < message.capacity() {
                if piece.is_empty() {
                    return Ok(());
                }
                if taken == 0 && message.len() == len && !ended {
                    return Err(Violation::Deflate);
                }
            }
        }
    }

    /// The message ends here.
    pub(super) fn finish(&mut self, message: &mut Vec<u8>, max: usize) -> Result<(), Violation> {
        self.inflate(&TAIL, message, max)?;
        if !self.takeover {
            self.state = None;
        }
        Ok(())
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("takeover", &self.takeover).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
