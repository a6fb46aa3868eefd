//! The frames of the Language Server Protocol.

use std::io::Write as _;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::codec::Codec;
use super::typed::StreamError;

/// Bytes of one message at most, unless told otherwise: 16 MiB.
const MESSAGE: usize = 16 << 20;
/// Bytes of the header of one message at most: 4 KiB.
const HEADER: usize = 4 * 1024;

/// Messages as the Language Server Protocol frames them ("Base Protocol", 3.17): header fields as in HTTP, of
/// which `Content-Length` must be there and counts the bytes, an empty line, the message.
///
/// Each line ends with a carriage return and a line feed; names are compared without regard to case. A
/// `Content-Type` may be there, and if it names a character set, that must be UTF-8. Other fields are skipped.
#[derive(Clone, Debug)]
pub struct ContentLength {
    message_max: usize,
    /// Of the message whose header was taken already.
    length: Option<usize>,
}

impl Default for ContentLength {
    fn default() -> Self {
        Self::with_message_max(MESSAGE)
    }
}

impl ContentLength {
    /// Messages of at most so many bytes. Default: 16 MiB.
    #[must_use]
    pub fn with_message_max(bytes: usize) -> Self {
        Self { message_max: bytes, length: None }
    }
}

impl Codec<Bytes> for ContentLength {
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, StreamError> {
        let length = match self.length {
            Some(length) => length,
            None => {
                let Some(end) = input.windows(4).take(HEADER).position(|end| end == b"\r\n\r\n") else {
                    return if input.len() < HEADER {
                        Ok(None)
                    } else {
                        Err(framing("the header is too long"))
                    };
                };
                let length = content_length(&input[..end])?;
                if length > self.message_max {
                    return Err(StreamError::TooLong { limit: self.message_max });
                }
                input.advance(end + 4);
                *self.length.insert(length)
            }
        };
        if input.len() < length {
            return Ok(None);
        }
        self.length = None;
        Ok(Some(input.split_to(length).freeze()))
    }

    fn decode_end(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, StreamError> {
        match self.decode(input)? {
            None if !input.is_empty() || self.length.is_some() => Err(StreamError::Truncated),
            found => Ok(found),
        }
    }

    fn encode(&mut self, value: &Bytes, output: &mut BytesMut) -> Result<(), StreamError> {
        let (len, limit) = (value.len(), self.message_max);
        if len > limit {
            return Err(StreamError::TooLarge { len, limit });
        }
        output.reserve(len + 40);
        write!(output.writer(), "Content-Length: {len}\r\n\r\n")?;
        output.extend_from_slice(value);
        Ok(())
    }
}

fn framing(why: &str) -> StreamError {
    StreamError::Framing(why.to_owned())
}

fn content_length(header: &[u8]) -> Result<usize, StreamError> {
    let header = std::str::from_utf8(header).map_err(|_| framing("the header is no text"))?;
    let mut length = None;
    for line in header.split("\r\n") {
        let Some((name, value)) = line.split_once(':') else {
            return Err(framing("a line of the header has no colon"));
        };
        let value = value.trim_matches([' ', '\t']);
        if name.eq_ignore_ascii_case("content-length") {
            // parse() would take a sign.
            let digits = value.bytes().all(|byte| byte.is_ascii_digit());
            let parsed = if digits { value.parse().ok() } else { None };
            let Some(number) = parsed else { return Err(framing("the Content-Length is no number")) };
            if length.replace(number).is_some() {
                return Err(framing("two Content-Lengths"));
            }
        } else if name.eq_ignore_ascii_case("content-type") && !is_utf8(value) {
            return Err(framing("a character set other than UTF-8"));
        }
    }
    length.ok_or_else(|| framing("no Content-Length"))
}

/// Whether the `charset` of a media type is UTF-8, in its name or the one that older clients use; or none.
fn is_utf8(media_type: &str) -> bool {
    media_type.split(';').skip(1).all(|parameter| match parameter.trim().split_once('=') {
        Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
            let value = value.trim_matches('"');
            value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8")
        }
        _ => true,
    })
}
