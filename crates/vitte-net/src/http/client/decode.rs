//! Content codings undone (RFC 9110, section 8.4): gzip, br, zstd, bounded, and whole or an error.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http::{HeaderMap, header};
use http_body::Body as _;
use tokio::io::{AsyncBufRead, AsyncRead};
use tokio_util::io::{StreamReader, poll_read_buf};

use super::received::Received;
use crate::http::body::Body;
use crate::http::error::{HttpError, HttpErrorKind, Stage};

/// Bytes of one decoded piece, at most: 32 KiB.
const PIECE: usize = 32 * 1024;
/// A body that is inflated to more than so many bytes, 32 MiB, may not be more than so many times as large as
/// what was received: a bomb has a thousand times.
const BOMB_FLOOR: u64 = 32 << 20;
const BOMB_RATIO: u64 = 200;
/// The window of zstd, as a power of two: 8 MiB (RFC 9659).
const ZSTD_WINDOW: u32 = 23;

/// A content coding that can be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Brotli,
    Zstd,
}

impl Coding {
    /// What the fields say. None: the bytes are as they are.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, HttpError> {
        let mut found = None;
        let unknown = |coding: &str, why: &str| {
            let coding = coding.chars().take(100).collect::<String>().escape_debug().to_string();
            Err(HttpError::new(Stage::Body, HttpErrorKind::Coding { coding, why: why.to_owned() }))
        };
        for value in headers.get_all(header::CONTENT_ENCODING) {
            let Ok(text) = value.to_str() else { return unknown("?", "its name is no text") };
            for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                let coding = match name.to_ascii_lowercase().as_str() {
                    "identity" => continue,
                    "gzip" | "x-gzip" => Self::Gzip,
                    "br" => Self::Brotli,
                    "zstd" => Self::Zstd,
                    _ => return unknown(name, "nobody asked for it, and it cannot be undone"),
                };
                if found.replace(coding).is_some() {
                    return unknown(text, "one inside another is not undone");
                }
            }
        }
        Ok(found)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// The body without its coding.
pub(super) fn decoded(received: Received, coding: Coding, limit: u64) -> Body {
    let taken = Arc::new(AtomicU64::new(0));
    let reader = StreamReader::new(Taken { received, taken: Arc::clone(&taken) });
    let decoder = match coding {
        Coding::Gzip => {
            let mut decoder = GzipDecoder::new(reader);
            decoder.multiple_members(true);
            Decoder::Gzip(decoder)
        }
        Coding::Brotli => Decoder::Brotli(BrotliDecoder::new(reader)),
        Coding::Zstd => {
            let window = [DParameter::window_log_max(ZSTD_WINDOW)];
            let mut decoder = ZstdDecoder::with_params(reader, &window);
            decoder.multiple_members(true);
            Decoder::Zstd(decoder)
        }
    };
    Body::boxed(Decoded { decoder, coding, taken, given: 0, limit, buffer: BytesMut::new(), over: false })
}

/// What was received, counted.
struct Taken {
    received: Received,
    taken: Arc<AtomicU64>,
}

impl Stream for Taken {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            match ready!(Pin::new(&mut this.received).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(frame)) => {
                    let bytes = frame.into_data().unwrap_or_default();
                    if !bytes.is_empty() {
                        this.taken.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                }
            }
        }
    }
}

type Reader = StreamReader<Taken, Bytes>;

enum Decoder {
    Gzip(GzipDecoder<Reader>),
    Brotli(BrotliDecoder<Reader>),
    Zstd(ZstdDecoder<Reader>),
}

impl Decoder {
    fn reader(&mut self) -> &mut Reader {
        match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Brotli(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.get_mut(),
        }
    }
}

impl AsyncRead for Decoder {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Gzip(decoder) => Pin::new(decoder).poll_read(cx, buf),
            Self::Brotli(decoder) => Pin::new(decoder).poll_read(cx, buf),
            Self::Zstd(decoder) => Pin::new(decoder).poll_read(cx, buf),
        }
    }
}

struct Decoded {
    decoder: Decoder,
    coding: Coding,
    taken: Arc<AtomicU64>,
    given: u64,
    limit: u64,
    buffer: BytesMut,
    over: bool,
}

impl Decoded {
    fn broken(&self, why: impl ToString) -> HttpError {
        let kind = HttpErrorKind::Coding { coding: self.coding.name().to_owned(), why: why.to_string() };
        HttpError::new(Stage::Body, kind)
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, HttpError>> {
        self.buffer.reserve(PIECE);
        let len = match ready!(poll_read_buf(Pin::new(&mut self.decoder), cx, &mut self.buffer)) {
            Ok(len) => len,
            Err(error) => return Poll::Ready(Err(self.sorted(error))),
        };
        if len == 0 {
            // The coding is at its end: so must the body be.
            let rest = ready!(Pin::new(self.decoder.reader()).poll_fill_buf(cx));
            return Poll::Ready(match rest.map(<[u8]>::is_empty) {
                Ok(true) if self.taken.load(Ordering::Relaxed) == 0 => {
                    Err(self.broken("there is nothing in it"))
                }
                Ok(true) => Ok(None),
                Ok(false) => Err(self.broken("there are bytes behind its end")),
                Err(error) => Err(self.sorted(error)),
            });
        }
        self.given += len as u64;
        if self.given > self.limit {
            let kind = HttpErrorKind::TooLarge { what: "a body", limit: self.limit };
            return Poll::Ready(Err(HttpError::new(Stage::Body, kind)));
        }
        let taken = self.taken.load(Ordering::Relaxed);
        if self.given > BOMB_FLOOR && self.given / BOMB_RATIO > taken {
            let why = format!("a bomb: {taken} bytes became {} and more", self.given);
            return Poll::Ready(Err(self.broken(why)));
        }
        Poll::Ready(Ok(Some(self.buffer.split().freeze())))
    }

    /// An error of the body below is itself; another is the coding's.
    fn sorted(&self, error: io::Error) -> HttpError {
        match error.downcast::<HttpError>() {
            Ok(below) => below,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.broken("it was cut off"),
            Err(error) => self.broken(error),
        }
    }
}

impl http_body::Body for Decoded {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, HttpError>>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        let piece = ready!(this.poll_piece(cx)).transpose();
        this.over = !matches!(piece, Some(Ok(_)));
        Poll::Ready(piece.map(|piece| piece.map(http_body::Frame::data)))
    }
}
