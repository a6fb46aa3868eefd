//! Reading the head of an HTTP/1.1 message: up to its empty line, and no byte beyond it is lost.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The end of a head.
const END: &[u8] = b"\r\n\r\n";

/// Why there is no head.
#[derive(Debug)]
pub(super) enum NoHead {
    TooLong,
    Unfinished,
    /// A line ends in LF without CR: such a head has no end.
    BareLf,
    Io(io::Error),
}

/// Reads until an empty line and returns the head with it, and what came after. At most `max` bytes are read, and
/// none behind a line that ends in LF alone.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    max: usize,
) -> Result<(Bytes, Bytes), NoHead> {
    let mut read = BytesMut::with_capacity(1024);
    loop {
        let before = read.len();
        let room = (max - before) as u64;
        if stream.take(room).read_buf(&mut read).await.map_err(NoHead::Io)? == 0 {
            return Err(if before == max { NoHead::TooLong } else { NoHead::Unfinished });
        }
        let from = before.saturating_sub(END.len() - 1);
        if let Some(at) = read[from..].windows(END.len()).position(|end| end == END) {
            let head = read.split_to(from + at + END.len()).freeze();
            return if bare_lf(&head) { Err(NoHead::BareLf) } else { Ok((head, read.freeze())) };
        }
        if bare_lf(&read[from..]) {
            return Err(NoHead::BareLf);
        }
    }
}

/// Whether a LF stands there without its CR; of the first byte that is not known.
fn bare_lf(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r')
}
