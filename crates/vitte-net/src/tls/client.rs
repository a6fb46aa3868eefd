//! The client side.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, SupportedProtocolVersion};
use tokio_rustls::TlsConnector;

use super::anybody::Anybody;
use super::failure::sorted;
use super::material::{Roots, certificates, certified_key, read};
use super::{Clock, HANDSHAKE_TIMEOUT, TlsFailure, TlsSetupError, TlsStream, default_provider};
use crate::network::{BoxStream, Network, OsNetwork};

/// Servers whose sessions are remembered, to shorten the next handshake with them.
const SESSIONS: usize = 256;

/// The client side of TLS: whom to trust, what to show, what to ask for. Cheap to clone; clones share the
/// sessions that they may resume.
#[derive(Clone, Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    handshake_timeout: Duration,
}

impl ClientTls {
    /// With the defaults of [`ClientTlsBuilder`]: the system's roots, no client certificate, no application
    /// protocol.
    ///
    /// # Errors
    /// The system has no root certificates.
    pub fn new() -> Result<Self, TlsSetupError> {
        Self::builder().build()
    }

    /// A client whose settings can be chosen.
    pub fn builder() -> ClientTlsBuilder {
        ClientTlsBuilder::default()
    }

    /// Performs the handshake over `stream` with the server that calls itself `server_name`: a DNS name or an
    /// IP address, without a port. The certificate must be valid for it. The name is sent in the clear (SNI,
    /// RFC 6066, section 3), unless it is an address or that is switched off.
    ///
    /// # Errors
    /// A [`TlsFailure`] inside, or what the stream said.
    ///
    /// # Cancel safety
    /// The stream is gone when the future is dropped.
    pub async fn connect(&self, server_name: &str, stream: BoxStream) -> io::Result<TlsStream> {
        let name = ServerName::try_from(server_name.to_owned())
            .map_err(|_| TlsFailure::Name(server_name.escape_debug().to_string()))?;
        let addresses = TlsStream::addresses(&stream);
        let handshake = TlsConnector::from(self.config.clone()).connect(name, stream);
        match tokio::time::timeout(self.handshake_timeout, handshake).await {
            Ok(Ok(tls)) => Ok(TlsStream::new(tls.into(), addresses)),
            Ok(Err(error)) => Err(sorted(error)),
            Err(_) => Err(TlsFailure::Timeout(self.handshake_timeout).into()),
        }
    }

    /// The same client asking for other application protocols, the most wanted first.
    #[must_use]
    pub fn with_alpn<P: Into<Vec<u8>>>(&self, protocols: impl IntoIterator<Item = P>) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = protocols.into_iter().map(Into::into).collect();
        Self { config: Arc::new(config), handshake_timeout: self.handshake_timeout }
    }

    /// The application protocols that it asks for.
    pub fn alpn(&self) -> impl Iterator<Item = &[u8]> {
        self.config.alpn_protocols.iter().map(Vec::as_slice)
    }

    /// The configuration in rustls' form, for QUIC, which brings its own records. QUIC takes TLS 1.3 of it.
    #[allow(dead_code, reason = "asked by HTTP/3")]
    pub(crate) fn rustls_config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }
}

/// How a [`ClientTls`] is set up.
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientTlsBuilder {
    network: Arc<dyn Network>,
    provider: CryptoProvider,
    roots: Roots,
    identity: Option<(Vec<u8>, Vec<u8>)>,
    alpn: Vec<Vec<u8>>,
    versions: Vec<&'static SupportedProtocolVersion>,
    server_name: bool,
    resumption: bool,
    any_certificate: bool,
    handshake_timeout: Duration,
}

impl Default for ClientTlsBuilder {
    fn default() -> Self {
        Self {
            network: Arc::new(OsNetwork),
            provider: default_provider(),
            roots: Roots::default(),
            identity: None,
            alpn: Vec::new(),
            versions: vec![&TLS13, &TLS12],
            server_name: true,
            resumption: true,
            any_certificate: false,
            handshake_timeout: HANDSHAKE_TIMEOUT,
        }
    }
}

impl ClientTlsBuilder {
    /// Whose wall clock says whether a certificate is valid. Default: [`OsNetwork`].
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.network = network;
        self
    }

    /// The cryptography, for a simulation a seeded one. Default: [`default_provider`].
    pub fn crypto_provider(mut self, provider: CryptoProvider) -> Self {
        self.provider = provider;
        self
    }

    /// Trusts the system's root certificates beside those that are named. Default: they are trusted when none
    /// is named, and only then. Where OpenSSL's variables `SSL_CERT_FILE` and `SSL_CERT_DIR` are set, they say
    /// where these are.
    pub fn system_roots(mut self) -> Self {
        self.roots.system = true;
        self
    }

    /// Trusts the root certificates in this PEM text, and only named ones.
    ///
    /// # Errors
    /// The text is damaged, or holds no certificate.
    pub fn roots_pem(mut self, pem: impl AsRef<[u8]>) -> Result<Self, TlsSetupError> {
        self.roots.own.extend(certificates(pem.as_ref())?);
        Ok(self)
    }

    /// As [`roots_pem`](Self::roots_pem), from a file, which is read now.
    ///
    /// # Errors
    /// As there, or the file cannot be read.
    pub fn roots_file(self, path: impl AsRef<Path>) -> Result<Self, TlsSetupError> {
        let pem = read(path.as_ref())?;
        self.roots_pem(pem)
    }

    /// Trusts this root certificate, in DER, and only named ones.
    pub fn root_der(mut self, der: impl Into<Vec<u8>>) -> Self {
        self.roots.own.push(CertificateDer::from(der.into()));
        self
    }

    /// The certificate to show to a server that asks for one: PEM texts of the chain, the own certificate first,
    /// and of its key. Default: none.
    pub fn certificate_pem(mut self, chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((chain.into(), key.into()));
        self
    }

    /// The application protocols to ask for (RFC 7301), the most wanted first. Default: none.
    pub fn alpn<P: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// Refuses TLS 1.2. Default: both are spoken.
    pub fn only_tls13(mut self) -> Self {
        self.versions = vec![&TLS13];
        self
    }

    /// Whether the server's name is sent in the clear, so that a server of many names knows whom is meant.
    /// Default: yes.
    pub fn send_server_name(mut self, send: bool) -> Self {
        self.server_name = send;
        self
    }

    /// Whether a later handshake may be shortened by what an earlier one agreed (RFC 8446, section 2.2). Early
    /// data is never sent. Default: yes, for 256 servers.
    pub fn resumption(mut self, resume: bool) -> Self {
        self.resumption = resume;
        self
    }

    /// How long a handshake may take. Default: [`HANDSHAKE_TIMEOUT`].
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// Accepts **every** certificate: anybody in between can read and change everything. For experiments on
    /// one's own machine, where no root certificate can be had.
    pub fn dangerous_accept_any_certificate(mut self) -> Self {
        self.any_certificate = true;
        self
    }

    /// The client.
    ///
    /// # Errors
    /// A certificate or key cannot be used, or the system has no root certificates.
    pub fn build(self) -> Result<ClientTls, TlsSetupError> {
        let provider = Arc::new(self.provider);
        let broken = |error: rustls::Error| TlsSetupError::Provider(error.to_string());
        let builder =
            ClientConfig::builder_with_details(provider.clone(), Arc::new(Clock(self.network.clone())))
                .with_protocol_versions(&self.versions)
                .map_err(broken)?;
        let builder = if self.any_certificate {
            let anybody = Arc::new(Anybody::new(&provider));
            builder.dangerous().with_custom_certificate_verifier(anybody)
        } else {
            let mut roots = self.roots;
            roots.system |= roots.own.is_empty();
            let verifier =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots.store()?), provider.clone())
                    .build()
                    .map_err(|error| TlsSetupError::Certificate(error.to_string()))?;
            builder.with_webpki_verifier(verifier)
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let key = certified_key(chain, key, &provider)?;
                builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)))
            }
        };
        config.alpn_protocols = self.alpn;
        config.enable_sni = self.server_name;
        config.resumption =
            if self.resumption { Resumption::in_memory_sessions(SESSIONS) } else { Resumption::disabled() };
        Ok(ClientTls { config: Arc::new(config), handshake_timeout: self.handshake_timeout })
    }
}
