//! The chunked transfer coding (RFC 9112, section 7.1), watched and not decoded: hyper does that, once it is
//! known where the body ends.

use super::head::{self, Scan};
use super::{Fault, TRAILERS_MAX};

/// Hexadecimal digits of a chunk's size, at most.
const SIZE_DIGITS_MAX: u8 = 15;
/// Bytes of all chunk extensions of one body, at most: 4 KiB. They mean nothing to anybody.
const EXTENSIONS_MAX: usize = 4 * 1024;

const fn bad(what: &'static str) -> Fault {
    Fault { status: 400, what }
}

/// Where in a chunked body we are.
#[derive(Debug)]
pub(super) struct Chunked {
    state: State,
    extensions: usize,
    trailers: Vec<u8>,
    scan: Scan,
    fields_max: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Size { value: u64, digits: u8 },
    Extension { value: u64 },
    SizeLf { value: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    Trailers,
}

impl Chunked {
    pub(super) fn new(fields_max: usize) -> Self {
        let state = State::Size { value: 0, digits: 0 };
        Self { state, extensions: 0, trailers: Vec::new(), scan: Scan::default(), fields_max }
    }

    /// Looks at the next bytes. Some: the body ends after so many of them.
    ///
    /// # Errors
    /// The coding is broken, or could be read in two ways.
    pub(super) fn look(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                State::Data { left } => {
                    let here = (bytes.len() - at) as u64;
                    if here < left {
                        self.state = State::Data { left: left - here };
                        return Ok(None);
                    }
                    // No more than `here`, which fits.
                    at += usize::try_from(left).unwrap_or(usize::MAX);
                    self.state = State::DataCr;
                    continue;
                }
                State::Trailers => {
                    let before = self.trailers.len();
                    let room = TRAILERS_MAX + 1 - before;
                    self.trailers.extend_from_slice(&bytes[at..][..room.min(bytes.len() - at)]);
                    if let Some(end) = self.scan.end(&self.trailers)? {
                        head::trailers(&self.trailers[..end], self.fields_max)?;
                        return Ok(Some(at + end - before));
                    }
                    if self.trailers.len() > TRAILERS_MAX {
                        return Err(Fault { status: 431, what: "trailers that are too long" });
                    }
                    return Ok(None);
                }
                state => self.state = self.step(state, bytes[at])?,
            }
            at += 1;
        }
        Ok(None)
    }

    fn step(&mut self, state: State, byte: u8) -> Result<State, Fault> {
        Ok(match (state, byte) {
            (State::Size { value, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if digits == SIZE_DIGITS_MAX {
                    return Err(bad("a chunk size with too many digits"));
                }
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                State::Size { value: value * 16 + u64::from(digit), digits: digits + 1 }
            }
            (State::Size { value, digits: 1.. }, b'\r') => State::SizeLf { value },
            (State::Size { value, digits: 1.. }, b';') => State::Extension { value },
            (State::Size { .. }, _) => return Err(bad("a chunk size that is no hexadecimal number")),
            (State::Extension { value }, b'\r') => State::SizeLf { value },
            (State::Extension { value }, b'\t' | 0x20..=0x7e | 0x80..) => {
                self.extensions += 1;
                if self.extensions > EXTENSIONS_MAX {
                    return Err(bad("chunk extensions that are too long"));
                }
                State::Extension { value }
            }
            (State::Extension { .. }, _) => return Err(bad("a control character in a chunk extension")),
            (State::SizeLf { value: 0 }, b'\n') => State::Trailers,
            (State::SizeLf { value }, b'\n') => State::Data { left: value },
            (State::SizeLf { .. }, _) => return Err(bad("a chunk size that does not end in CR LF")),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { value: 0, digits: 0 },
            (State::DataCr | State::DataLf, _) => return Err(bad("a chunk that does not end in CR LF")),
            (State::Data { .. } | State::Trailers, _) => state,
        })
    }
}
