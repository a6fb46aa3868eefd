//! The TLS around a WebSocket. It hides the mesh from the way in between and proves nothing: identities are
//! proven inside, so that any proxy with any certificate may stand in front of a node.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rcgen::{CertificateParams, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::TlsError;
use super::anybody::Anybody;
use crate::identity::Identity;
use crate::network::{BoxStream, ByteStream};

/// Bytes that one outer TLS connection buffers in each direction: two full records.
const BUFFER: usize = 32 * 1024;

/// Client and server configuration of the TLS around a WebSocket: TLS 1.3, HTTP/1.1, any certificate.
#[derive(Clone)]
pub(crate) struct OuterTls {
    connector: TlsConnector,
    acceptor: TlsAcceptor,
}

impl OuterTls {
    /// The server shows a self-signed certificate of the node's own Ed25519 key: a signature of another kind
    /// would need a key of its own and randomness.
    pub(super) fn new(
        identity: &Identity,
        provider: Arc<CryptoProvider>,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Self, TlsError> {
        let config = |error: rcgen::Error| TlsError::Config(error.to_string());
        let pkcs8 = PrivatePkcs8KeyDer::from(identity.pkcs8().to_vec());
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ED25519).map_err(config)?;
        let name = format!("{}.vitte", identity.peer_id().short());
        let certificate =
            CertificateParams::new([name]).and_then(|params| params.self_signed(&pair)).map_err(config)?;

        let mut server = ServerConfig::builder_with_details(provider.clone(), clock.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], pkcs8.into())?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let anybody = Anybody::new(&provider);
        let mut client = ClientConfig::builder_with_details(provider, clock)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(anybody))
            .with_no_client_auth();
        client.alpn_protocols = server.alpn_protocols.clone();
        client.resumption = Resumption::disabled();
        Ok(Self { connector: Arc::new(client).into(), acceptor: Arc::new(server).into() })
    }

    /// The client side of a handshake, with `host` as server name. The caller bounds the time.
    pub(crate) async fn connect(&self, host: &str, stream: BoxStream) -> io::Result<BoxStream> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
        let tls = self
            .connector
            .connect_with(name, stream, |session| session.set_buffer_limit(Some(BUFFER)))
            .await?;
        Ok(Box::new(OuterStream { tls: tls.into(), local, remote }))
    }

    /// The server side of a handshake. The caller bounds the time.
    pub(crate) async fn accept(&self, stream: BoxStream) -> io::Result<BoxStream> {
        let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
        let tls = self.acceptor.accept_with(stream, |session| session.set_buffer_limit(Some(BUFFER))).await?;
        Ok(Box::new(OuterStream { tls: tls.into(), local, remote }))
    }
}

impl std::fmt::Debug for OuterTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OuterTls").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct OuterStream {
    tls: TlsStream<BoxStream>,
    local: SocketAddr,
    remote: SocketAddr,
}

impl ByteStream for OuterStream {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.remote)
    }
}

impl AsyncRead for OuterStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for OuterStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
