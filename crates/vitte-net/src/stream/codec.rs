//! How values are cut out of bytes and made of them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::codec::{Decoder, LinesCodec, LinesCodecError};

use super::typed::StreamError;

/// Bytes of one frame at most, unless told otherwise: 16 MiB.
const FRAME: usize = 16 << 20;
/// Bytes of one line at most, unless told otherwise: 1 MiB.
const LINE: usize = 1 << 20;
/// Bytes before a frame that say how many it has.
const LENGTH: usize = 4;

/// Cuts values of type `T` out of a stream of bytes, and writes them.
pub trait Codec<T> {
    /// Takes the next value out of `input`, which holds all that was read and not taken; none if more bytes
    /// are needed. Limits are checked before anything is waited for or allocated.
    ///
    /// # Errors
    /// There is no value. If the error [passes](StreamError::is_passing), its frame was taken out.
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<T>, StreamError>;

    /// As [`decode`](Self::decode), when no more bytes will come.
    ///
    /// # Errors
    /// As there; by default [`StreamError::Truncated`] if a part of a value is left.
    fn decode_end(&mut self, input: &mut BytesMut) -> Result<Option<T>, StreamError> {
        match self.decode(input)? {
            None if !input.is_empty() => Err(StreamError::Truncated),
            found => Ok(found),
        }
    }

    /// Appends `value` to `output`.
    ///
    /// # Errors
    /// It cannot be written. What was appended until then is taken back by the caller.
    fn encode(&mut self, value: &T, output: &mut BytesMut) -> Result<(), StreamError>;
}

/// Frames of bytes, each after its length: four bytes, the highest first.
#[derive(Clone, Debug)]
pub struct LengthDelimited {
    frame_max: usize,
}

impl Default for LengthDelimited {
    fn default() -> Self {
        Self::with_frame_max(FRAME)
    }
}

impl LengthDelimited {
    /// Frames of at most so many bytes; at most 4 GiB less one. Default: 16 MiB.
    #[must_use]
    pub fn with_frame_max(bytes: usize) -> Self {
        Self { frame_max: bytes.min(u32::MAX as usize) }
    }

    fn put(&self, output: &mut BytesMut, len: usize) -> Result<(), StreamError> {
        match u32::try_from(len) {
            Ok(length) if len <= self.frame_max => output.put_u32(length),
            _ => return Err(StreamError::TooLarge { len, limit: self.frame_max }),
        }
        Ok(())
    }
}

impl Codec<Bytes> for LengthDelimited {
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, StreamError> {
        let Some(length) = input.first_chunk::<LENGTH>() else { return Ok(None) };
        let len = u32::from_be_bytes(*length) as usize;
        if len > self.frame_max {
            return Err(StreamError::TooLong { limit: self.frame_max });
        }
        if input.len() - LENGTH < len {
            return Ok(None);
        }
        input.advance(LENGTH);
        Ok(Some(input.split_to(len).freeze()))
    }

    fn encode(&mut self, value: &Bytes, output: &mut BytesMut) -> Result<(), StreamError> {
        self.put(output, value.len())?;
        output.extend_from_slice(value);
        Ok(())
    }
}

/// Lines of UTF-8, ended by a line feed, or by a carriage return and a line feed. The last line needs no end.
#[derive(Clone, Debug)]
pub struct Lines {
    codec: LinesCodec,
}

impl Default for Lines {
    fn default() -> Self {
        Self::with_line_max(LINE)
    }
}

impl Lines {
    /// Lines of at most so many bytes. Default: 1 MiB.
    #[must_use]
    pub fn with_line_max(bytes: usize) -> Self {
        Self { codec: LinesCodec::new_with_max_length(bytes) }
    }

    fn sort(&self, found: Result<Option<String>, LinesCodecError>) -> Result<Option<String>, StreamError> {
        found.map_err(|error| match error {
            LinesCodecError::MaxLineLengthExceeded => StreamError::TooLong { limit: self.codec.max_length() },
            // The only one is text that is no UTF-8; its line was taken out.
            LinesCodecError::Io(error) => StreamError::Malformed(error.to_string()),
        })
    }
}

impl Codec<String> for Lines {
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<String>, StreamError> {
        let found = self.codec.decode(input);
        self.sort(found)
    }

    fn decode_end(&mut self, input: &mut BytesMut) -> Result<Option<String>, StreamError> {
        let found = self.codec.decode_eof(input);
        self.sort(found)
    }

    fn encode(&mut self, value: &String, output: &mut BytesMut) -> Result<(), StreamError> {
        if value.contains(['\n', '\r']) {
            return Err(StreamError::Unencodable("the text has more than one line".to_owned()));
        }
        let limit = self.codec.max_length();
        if value.len() > limit {
            return Err(StreamError::TooLarge { len: value.len(), limit });
        }
        output.extend_from_slice(value.as_bytes());
        output.put_u8(b'\n');
        Ok(())
    }
}

/// Values in postcard's form, each in a frame of [`LengthDelimited`].
#[derive(Clone, Debug, Default)]
pub struct Postcard {
    frames: LengthDelimited,
}

impl Postcard {
    /// Values of at most so many bytes. Default: 16 MiB.
    #[must_use]
    pub fn with_frame_max(bytes: usize) -> Self {
        Self { frames: LengthDelimited::with_frame_max(bytes) }
    }
}

impl<T: Serialize + DeserializeOwned> Codec<T> for Postcard {
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<T>, StreamError> {
        let Some(frame) = self.frames.decode(input)? else { return Ok(None) };
        match postcard::take_from_bytes(&frame) {
            Ok((value, [])) => Ok(Some(value)),
            Ok((_, rest)) => Err(StreamError::Malformed(format!("{} bytes are left over", rest.len()))),
            Err(error) => Err(StreamError::Malformed(error.to_string())),
        }
    }

    fn encode(&mut self, value: &T, output: &mut BytesMut) -> Result<(), StreamError> {
        let bytes =
            postcard::to_stdvec(value).map_err(|error| StreamError::Unencodable(error.to_string()))?;
        self.frames.put(output, bytes.len())?;
        output.extend_from_slice(&bytes);
        Ok(())
    }
}
