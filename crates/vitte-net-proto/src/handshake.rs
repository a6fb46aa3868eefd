//! The first frames on a link: each side says who it is, and proves what the trust asks for
//! (`docs/WIRE.md`, "Handshake").

use alloc::vec::Vec;

use crate::error::{CloseCode, Violation};
use crate::frame::{Deframer, Frame};
use crate::hello::{Hello, Step};

/// The exchange of HELLO and WELCOME on lane 0 of a new link. Both sides send their hello at once; nothing
/// else is accepted before the welcome.
///
/// Feed bytes to [`handle`](Self::handle) until it answers [`Step::Welcome`] or [`Step::Refused`]; call it
/// with an empty run to go on after [`Step::Hello`].
#[derive(Debug)]
pub struct Handshake {
    deframer: Deframer,
    waiting: Vec<u8>,
    heard: Option<Hello>,
    welcomed: bool,
}

impl Handshake {
    /// Bytes that are accepted before the welcome: a hello, a welcome, and what the peer may have sent
    /// behind it in the same flight.
    pub const BYTES_MAX: usize = 256 * 1024;

    /// Begins the exchange: appends the HELLO to `out`.
    pub fn new(local: &Hello, out: &mut Vec<u8>) -> Self {
        Frame::Hello(*local).put(out);
        Self { deframer: Deframer::default(), waiting: Vec::new(), heard: None, welcomed: false }
    }

    /// Accepts the peer's hello: appends the WELCOME with the local `proof` to `out`.
    pub fn welcome(&mut self, proof: [u8; 32], out: &mut Vec<u8>) {
        self.welcomed = true;
        Frame::Welcome { proof }.put(out);
    }

    /// Bytes that wait here.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.waiting.len() + self.deframer.buffered()
    }

    /// Takes bytes of lane 0.
    ///
    /// # Errors
    /// The peer broke the protocol; the link must be closed.
    pub fn handle(&mut self, run: &[u8]) -> Result<Step, Violation> {
        if self.waiting.len() + run.len() > Self::BYTES_MAX {
            return Err(Violation::new(CloseCode::FLOW_CONTROL, "too many bytes before the welcome"));
        }
        self.waiting.extend_from_slice(run);
        if self.heard.is_some() && !self.welcomed {
            // Bytes behind the hello wait until this side has accepted it.
            return Ok(Step::NeedBytes);
        }
        let run = core::mem::take(&mut self.waiting);
        let mut step = Step::NeedBytes;
        let heard = &mut self.heard;
        let rest = self.deframer.push(&run, &mut |frame| {
            match frame {
                Frame::Hello(hello) if heard.is_none() => {
                    *heard = Some(hello);
                    step = Step::Hello(hello);
                }
                Frame::Welcome { proof } if heard.is_some() => {
                    step = Step::Welcome { proof, rest: Vec::new() }
                }
                Frame::Close { code, reason, .. } => step = Step::Refused { code, reason: reason.into() },
                _ => {
                    return Err(Violation::new(
                        CloseCode::WRONG_STATE,
                        "a frame that the handshake does not allow",
                    ));
                }
            }
            Ok(false)
        })?;
        match &mut step {
            Step::Welcome { rest: first, .. } => *first = rest.to_vec(),
            _ => self.waiting = rest.to_vec(),
        }
        Ok(step)
    }
}

#[cfg(test)]
mod tests;
