//! An established connection.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::{HandshakeKind, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::TlsFailure;
use super::failure::sorted;
use crate::network::{BoxStream, ByteStream};

/// What [`TlsStream::shutdown`] reads at a time, only to drop it: 8 KiB.
const DISCARD: usize = 8 * 1024;

/// A TLS connection over a [`BoxStream`], after its handshake. It is a [`ByteStream`] itself: boxed, it goes
/// wherever a TCP connection goes.
///
/// A write may be held back until a flush. The end of file is read only after the peer's `close_notify`;
/// otherwise the end is [`TlsFailure::Truncated`]. Shutting the writing side down sends a `close_notify` and
/// shuts the stream below down; reading goes on. Dropping it says no goodbye.
#[derive(Debug)]
pub struct TlsStream {
    tls: tokio_rustls::TlsStream<BoxStream>,
    addresses: [Option<SocketAddr>; 2],
}

impl TlsStream {
    pub(super) fn new(tls: tokio_rustls::TlsStream<BoxStream>, addresses: [Option<SocketAddr>; 2]) -> Self {
        Self { tls, addresses }
    }

    /// The addresses of both sides, while the stream still knows them.
    pub(super) fn addresses(stream: &BoxStream) -> [Option<SocketAddr>; 2] {
        [stream.local_addr().ok(), stream.peer_addr().ok()]
    }

    /// The application protocol that both sides agreed on (RFC 7301).
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tls.get_ref().1.alpn_protocol()
    }

    /// The certificates that the peer showed, in DER, its own first; none for a client without one. They were
    /// accepted. A resumed session shows those of the handshake that it resumes.
    pub fn peer_certificates(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.tls.get_ref().1.peer_certificates().unwrap_or_default().iter().map(|der| der.as_ref())
    }

    /// The name that the client asked for (SNI); on the server's side only.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        match &self.tls {
            tokio_rustls::TlsStream::Client(_) => None,
            tokio_rustls::TlsStream::Server(tls) => tls.get_ref().1.server_name(),
        }
    }

    /// Whether the handshake was shortened by what an earlier one had agreed.
    #[must_use]
    pub fn resumed(&self) -> bool {
        self.tls.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The version as people write it: `TLS 1.3` or `TLS 1.2`.
    #[must_use]
    pub fn version(&self) -> &'static str {
        match self.tls.get_ref().1.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "TLS 1.3",
        }
    }

    /// The cipher suite by its registered name, such as `TLS13_AES_128_GCM_SHA256`.
    #[must_use]
    pub fn cipher_suite(&self) -> String {
        let suite = self.tls.get_ref().1.negotiated_cipher_suite();
        suite.and_then(|suite| suite.suite().as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Ends the connection so that both sides know that they have everything: sends a `close_notify`, then
    /// drops what still arrives until the peer has said the same, all of it for at most `within`. The
    /// connection is closed afterwards in any case.
    ///
    /// # Errors
    /// [`TlsFailure::NoGoodbye`] when the peer did not end its side in time, [`TlsFailure::Truncated`] when it
    /// ended without a goodbye, otherwise what broke the connection. Either way it is unknown whether the
    /// peer got everything.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection at once.
    pub async fn shutdown(mut self, within: Duration) -> io::Result<()> {
        let goodbye = async {
            AsyncWriteExt::shutdown(&mut self).await?;
            let mut dropped = vec![0; DISCARD];
            while self.read(&mut dropped).await? > 0 {}
            Ok(())
        };
        match tokio::time::timeout(within, goodbye).await {
            Ok(ended) => ended,
            Err(_) => Err(TlsFailure::NoGoodbye(within).into()),
        }
    }

    /// The connection as an owned [`ByteStream`].
    #[must_use]
    pub fn into_box(self) -> BoxStream {
        Box::new(self)
    }
}

impl ByteStream for TlsStream {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.addresses[0].ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.addresses[1].ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(ready!(Pin::new(&mut self.tls).poll_read(cx, buf)).map_err(sorted))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(ready!(Pin::new(&mut self.tls).poll_write(cx, buf)).map_err(sorted))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(ready!(Pin::new(&mut self.tls).poll_write_vectored(cx, bufs)).map_err(sorted))
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(ready!(Pin::new(&mut self.tls).poll_flush(cx)).map_err(sorted))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(ready!(Pin::new(&mut self.tls).poll_shutdown(cx)).map_err(sorted))
    }
}
