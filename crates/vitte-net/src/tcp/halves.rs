//! The two directions of a [`TcpStream`](super::TcpStream).

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};

use super::{Inbox, read_through, send, send_vectored, write_through};
use crate::network::{BoxStream, ReadStream, WriteStream};

/// The receiving half of a [`TcpStream`](super::TcpStream), which owns it.
pub struct TcpReceiver {
    reader: ReadStream,
    inbox: Inbox,
}

/// The sending half of a [`TcpStream`](super::TcpStream), which owns it.
pub struct TcpSender {
    writer: WriteStream,
}

/// The receiving half of a [`TcpStream`](super::TcpStream), borrowed by [`split`](super::TcpStream::split).
#[derive(Debug)]
pub struct BorrowedTcpReceiver<'a> {
    reader: ReadHalf<&'a mut BoxStream>,
    inbox: &'a mut Inbox,
}

/// The sending half of a [`TcpStream`](super::TcpStream), borrowed by [`split`](super::TcpStream::split).
#[derive(Debug)]
pub struct BorrowedTcpSender<'a> {
    writer: WriteHalf<&'a mut BoxStream>,
}

impl TcpReceiver {
    pub(super) fn new(reader: ReadStream, inbox: Inbox) -> Self {
        Self { reader, inbox }
    }
}

impl TcpSender {
    pub(super) fn new(writer: WriteStream) -> Self {
        Self { writer }
    }
}

impl<'a> BorrowedTcpReceiver<'a> {
    pub(super) fn new(reader: ReadHalf<&'a mut BoxStream>, inbox: &'a mut Inbox) -> Self {
        Self { reader, inbox }
    }
}

impl<'a> BorrowedTcpSender<'a> {
    pub(super) fn new(writer: WriteHalf<&'a mut BoxStream>) -> Self {
        Self { writer }
    }
}

macro_rules! receives {
    ($half:ty) => {
        impl $half {
            /// As [`TcpStream::recv`](super::TcpStream::recv).
            ///
            /// # Errors
            /// The connection is broken. An orderly end is no error.
            ///
            /// # Cancel safety
            /// Cancel safe: when the future is dropped, nothing was received that the next call does not return.
            pub async fn recv(&mut self) -> io::Result<Bytes> {
                self.inbox.recv(&mut self.reader).await
            }
        }

        read_through!($half, reader);
    };
}

macro_rules! sends {
    ($half:ty) => {
        impl $half {
            /// As [`TcpStream::send`](super::TcpStream::send).
            ///
            /// # Errors
            /// The connection is broken. How much was sent is unknown then.
            ///
            /// # Cancel safety
            /// Not cancel safe: when the future is dropped, a part of `bytes` may have been sent.
            pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
                send(&mut self.writer, bytes).await
            }

            /// As [`TcpStream::send_vectored`](super::TcpStream::send_vectored).
            ///
            /// # Errors
            /// As [`send`](Self::send).
            ///
            /// # Cancel safety
            /// As [`send`](Self::send).
            pub async fn send_vectored(&mut self, pieces: &[&[u8]]) -> io::Result<()> {
                send_vectored(&mut self.writer, pieces).await
            }

            /// As [`TcpStream::finish`](super::TcpStream::finish).
            ///
            /// # Errors
            /// The connection is broken.
            ///
            /// # Cancel safety
            /// Cancel safe: it may be called again.
            pub async fn finish(&mut self) -> io::Result<()> {
                self.writer.shutdown().await
            }
        }

        write_through!($half, writer);
    };
}

receives!(TcpReceiver);
receives!(BorrowedTcpReceiver<'_>);
sends!(TcpSender);
sends!(BorrowedTcpSender<'_>);

impl fmt::Debug for TcpReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpReceiver").field("inbox", &self.inbox).finish_non_exhaustive()
    }
}

impl fmt::Debug for TcpSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpSender").finish_non_exhaustive()
    }
}
