//! Integers and texts as bytes: QUIC varints (RFC 9000, section 16) and a cursor over the body of a frame.

use alloc::vec::Vec;

use crate::error::Violation;
use crate::id::StreamId;

/// The greatest varint: 2^62 - 1.
pub const VARINT_MAX: u64 = (1 << 62) - 1;

/// Bytes that a varint takes.
#[must_use]
pub const fn varint_len(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Appends a varint. Values above [`VARINT_MAX`] are cut to it: none of ours get there.
pub fn put_varint(out: &mut Vec<u8>, value: u64) {
    let value = value.min(VARINT_MAX);
    let bytes = value.to_be_bytes();
    match varint_len(value) {
        1 => out.push(bytes[7]),
        2 => out.extend_from_slice(&[bytes[6] | 0x40, bytes[7]]),
        4 => out.extend_from_slice(&[bytes[4] | 0x80, bytes[5], bytes[6], bytes[7]]),
        _ => {
            out.push(bytes[0] | 0xc0);
            out.extend_from_slice(&bytes[1..]);
        }
    }
}

/// Reads a varint from the front: the value and its length, or nothing if it is not all there.
#[must_use]
pub fn read_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let len = 1 << (first >> 6);
    let body = bytes.get(..len)?;
    let value = body[1..].iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, len))
}

/// A cursor over the body of one frame.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

const SHORT: Violation = Violation::malformed("a frame ends inside a field");

impl<'a> Reader<'a> {
    pub(crate) fn varint(&mut self) -> Result<u64, Violation> {
        let (value, len) = read_varint(self.0).ok_or(SHORT)?;
        self.0 = &self.0[len..];
        Ok(value)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Violation> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(SHORT)?;
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Violation> {
        let (head, tail) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Violation> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn stream(&mut self) -> Result<StreamId, Violation> {
        self.varint().map(StreamId)
    }

    pub(crate) fn text(&mut self, max: usize, too_long: &'static str) -> Result<&'a str, Violation> {
        let len = self.varint()?;
        match usize::try_from(len) {
            Ok(len) if len <= max => core::str::from_utf8(self.bytes(len)?)
                .map_err(|_| Violation::malformed("a text is not UTF-8")),
            _ => Err(Violation::malformed(too_long)),
        }
    }
}

/// Appends a text with its length in front.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}
