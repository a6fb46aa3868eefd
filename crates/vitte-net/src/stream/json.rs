//! Values as lines of JSON.

use bytes::{BufMut, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

use super::codec::{Codec, Lines};
use super::typed::StreamError;

/// Values in JSON (RFC 8259), one a line. Empty lines are skipped.
#[derive(Clone, Debug)]
pub struct JsonLines {
    lines: Lines,
    line_max: usize,
}

impl Default for JsonLines {
    fn default() -> Self {
        Self::with_line_max(1 << 20)
    }
}

impl JsonLines {
    /// Lines of at most so many bytes. Default: 1 MiB.
    #[must_use]
    pub fn with_line_max(bytes: usize) -> Self {
        Self { lines: Lines::with_line_max(bytes), line_max: bytes }
    }
}

fn parse<T: DeserializeOwned>(line: &str) -> Result<Option<T>, StreamError> {
    serde_json::from_str(line).map(Some).map_err(|error| StreamError::Malformed(error.to_string()))
}

impl<T: Serialize + DeserializeOwned> Codec<T> for JsonLines {
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<T>, StreamError> {
        while let Some(line) = self.lines.decode(input)? {
            if !line.trim().is_empty() {
                return parse(&line);
            }
        }
        Ok(None)
    }

    fn decode_end(&mut self, input: &mut BytesMut) -> Result<Option<T>, StreamError> {
        while let Some(line) = self.lines.decode_end(input)? {
            if !line.trim().is_empty() {
                return parse(&line);
            }
        }
        Ok(None)
    }

    fn encode(&mut self, value: &T, output: &mut BytesMut) -> Result<(), StreamError> {
        let before = output.len();
        serde_json::to_writer(output.writer(), value)
            .map_err(|error| StreamError::Unencodable(error.to_string()))?;
        let len = output.len() - before;
        if len > self.line_max {
            return Err(StreamError::TooLarge { len, limit: self.line_max });
        }
        output.put_u8(b'\n');
        Ok(())
    }
}
