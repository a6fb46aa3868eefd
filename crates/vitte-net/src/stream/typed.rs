//! A stream of bytes as a stream of values.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{Decoder, Encoder, Framed};

use super::codec::Codec;

/// Why a value could not be sent or received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The stream below failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Theirs: a frame is longer than this side takes. It was not read; nothing more comes.
    #[error("a frame of more than {limit} bytes arrives")]
    TooLong {
        /// What this side takes at most, in bytes.
        limit: usize,
    },
    /// Ours: the value is longer than a frame may be. Nothing of it was sent; the stream goes on.
    #[error("a value of {len} bytes for frames of at most {limit}")]
    TooLarge {
        /// Its bytes.
        len: usize,
        /// What one frame takes at most.
        limit: usize,
    },
    /// Theirs: the frame is whole, but its bytes are no value of this type. The stream goes on.
    #[error("a frame holds no such value: {0}")]
    Malformed(String),
    /// Ours: the value cannot be written in this form. Nothing of it was sent; the stream goes on.
    #[error("the value cannot be encoded: {0}")]
    Unencodable(String),
    /// Theirs: what separates the frames is broken, so nothing more can be read.
    #[error("no frame begins here: {0}")]
    Framing(String),
    /// Theirs: the stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
}

impl StreamError {
    /// Whether the stream still works after this.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::Malformed(_) | Self::Unencodable(_) => true,
            Self::Io(_) | Self::TooLong { .. } | Self::Framing(_) | Self::Truncated => false,
        }
    }
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match error {
            StreamError::Io(error) => return error,
            StreamError::TooLarge { .. } | StreamError::Unencodable(_) => io::ErrorKind::InvalidInput,
            StreamError::TooLong { .. } | StreamError::Malformed(_) | StreamError::Framing(_) => {
                io::ErrorKind::InvalidData
            }
            StreamError::Truncated => io::ErrorKind::UnexpectedEof,
        };
        Self::new(kind, error)
    }
}

/// Values of one type over a stream of bytes, cut and encoded by a [`Codec`]. It is a [`Stream`] and a [`Sink`];
/// [`recv`](Self::recv) and [`send`](Self::send) do for simple programs.
///
/// ```
/// use vitte_net::stream::{Lines, TypedStream};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), vitte_net::stream::StreamError> {
/// let (near, far) = tokio::io::duplex(64);
/// let mut near: TypedStream<String, _, _> = TypedStream::new(near, Lines::default());
/// let mut far: TypedStream<String, _, _> = TypedStream::new(far, Lines::default());
/// near.send("hello".to_owned()).await?;
/// assert_eq!(far.recv().await?.as_deref(), Some("hello"));
/// # Ok(())
/// # }
/// ```
///
/// As a [`Stream`] it ends after the first error that does not [pass](StreamError::is_passing).
pub struct TypedStream<T, C, S> {
    framed: Framed<S, Adapter<T, C>>,
    ended: bool,
}

impl<T, C: Codec<T>, S: AsyncRead + AsyncWrite + Unpin> TypedStream<T, C, S> {
    /// Values over `stream`. Nothing is read or written yet.
    pub fn new(stream: S, codec: C) -> Self {
        Self { framed: Framed::new(stream, Adapter { codec, item: PhantomData }), ended: false }
    }

    /// Sends a value, and everything queued before it.
    ///
    /// # Errors
    /// The value cannot be sent in this form, or the stream failed.
    ///
    /// # Cancel safety
    /// When the future is dropped, the value is either sent, queued, so that the next `send` or flush sends it,
    /// or not taken at all. It never leaves half of a frame.
    pub async fn send(&mut self, value: T) -> Result<(), StreamError> {
        SinkExt::send(self, value).await
    }

    /// Waits for the next value; none when the peer has sent everything.
    ///
    /// # Errors
    /// What arrives is no value, or the stream failed; see [`StreamError::is_passing`].
    ///
    /// # Cancel safety
    /// Cancel safe: what was read so far stays for the next call.
    pub async fn recv(&mut self) -> Result<Option<T>, StreamError> {
        StreamExt::next(self).await.transpose()
    }

    /// Sends what is queued and says that nothing more comes; receiving goes on.
    ///
    /// # Errors
    /// The stream failed.
    ///
    /// # Cancel safety
    /// Cancel safe: it may be called again.
    pub async fn finish(&mut self) -> Result<(), StreamError> {
        SinkExt::close(self).await
    }

    /// The stream below.
    pub fn stream(&self) -> &S {
        self.framed.get_ref()
    }

    /// The stream below, with the bytes that were read of it and belong to no value yet. What was queued and
    /// not flushed is lost.
    pub fn into_inner(self) -> (S, BytesMut) {
        let parts = self.framed.into_parts();
        (parts.io, parts.read_buf)
    }
}

impl<T, C: Codec<T>, S: AsyncRead + Unpin> Stream for TypedStream<T, C, S> {
    type Item = Result<T, StreamError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match ready!(self.framed.poll_next_unpin(cx)) {
            Some(Ok(item)) => Poll::Ready(Some(item)),
            Some(Err(error)) => {
                self.ended = true;
                Poll::Ready(Some(Err(error)))
            }
            None => {
                self.ended = true;
                Poll::Ready(None)
            }
        }
    }
}

impl<T, C: Codec<T>, S: AsyncWrite + Unpin> Sink<T> for TypedStream<T, C, S> {
    type Error = StreamError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.framed.poll_ready_unpin(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, value: T) -> Result<(), StreamError> {
        self.framed.start_send_unpin(value)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.framed.poll_flush_unpin(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.framed.poll_close_unpin(cx)
    }
}

impl<T, C, S> Unpin for TypedStream<T, C, S> {}

impl<T, C: fmt::Debug, S: fmt::Debug> fmt::Debug for TypedStream<T, C, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedStream")
            .field("stream", self.framed.get_ref())
            .field("codec", &self.framed.codec().codec)
            .finish_non_exhaustive()
    }
}

/// A codec of ours in the form that tokio-util asks for. A value that is malformed is an item there: its
/// framing is intact, and the library below would stop at an error.
struct Adapter<T, C> {
    codec: C,
    item: PhantomData<fn(T) -> T>,
}

impl<T, C: Codec<T>> Adapter<T, C> {
    fn sort(found: Result<Option<T>, StreamError>) -> Result<Option<Result<T, StreamError>>, StreamError> {
        match found {
            Ok(item) => Ok(item.map(Ok)),
            Err(error) if error.is_passing() => Ok(Some(Err(error))),
            Err(error) => Err(error),
        }
    }
}

impl<T, C: Codec<T>> Decoder for Adapter<T, C> {
    type Item = Result<T, StreamError>;
    type Error = StreamError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Self::Item>, StreamError> {
        Self::sort(self.codec.decode(input))
    }

    fn decode_eof(&mut self, input: &mut BytesMut) -> Result<Option<Self::Item>, StreamError> {
        Self::sort(self.codec.decode_end(input))
    }
}

impl<T, C: Codec<T>> Encoder<T> for Adapter<T, C> {
    type Error = StreamError;

    fn encode(&mut self, value: T, output: &mut BytesMut) -> Result<(), StreamError> {
        let before = output.len();
        self.codec.encode(&value, output).inspect_err(|_| output.truncate(before))
    }
}
