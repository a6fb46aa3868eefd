//! The server side.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, ServerSessionMemoryCache,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio_rustls::TlsAcceptor;

use super::failure::sorted;
use super::material::{Roots, certificates, certified_key, read};
use super::{Clock, HANDSHAKE_TIMEOUT, TlsFailure, TlsSetupError, TlsStream, default_provider};
use crate::network::{BoxStream, Network, OsNetwork};

/// Sessions that clients may resume; the oldest makes room.
const SESSIONS: usize = 1024;

/// The server side of TLS: what to show, whom to let in. Cheap to clone; clones share the certificates, so
/// that a [`reload`](Self::reload) of one is a reload of all.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    handshake_timeout: Duration,
}

impl ServerTls {
    /// A server whose settings can be chosen. It needs at least one certificate.
    pub fn builder() -> ServerTlsBuilder {
        ServerTlsBuilder::default()
    }

    /// Performs the handshake with the client at the other end of `stream`. Do so in a task of the connection's
    /// own, not in the loop that accepts: a client may take its time.
    ///
    /// # Errors
    /// A [`TlsFailure`] inside, or what the stream said.
    ///
    /// # Cancel safety
    /// The stream is gone when the future is dropped.
    pub async fn accept(&self, stream: BoxStream) -> io::Result<TlsStream> {
        let addresses = TlsStream::addresses(&stream);
        let handshake = TlsAcceptor::from(self.config.clone()).accept(stream);
        match tokio::time::timeout(self.handshake_timeout, handshake).await {
            Ok(Ok(tls)) => Ok(TlsStream::new(tls.into(), addresses)),
            Ok(Err(error)) => Err(sorted(error)),
            Err(_) => Err(TlsFailure::Timeout(self.handshake_timeout).into()),
        }
    }

    /// Reads all certificates and keys that came from files again, for handshakes from now on; connections
    /// that stand go on. When anything is wrong the old ones stay, all of them. The files are read here and
    /// now: they are small, and this is no work for every connection.
    ///
    /// # Errors
    /// A file cannot be read or used, or no certificate came from one.
    pub fn reload(&self) -> Result<(), TlsSetupError> {
        self.certificates.reload(self.config.crypto_provider())
    }

    /// Shows this certificate alone from now on, in place of all others: PEM texts of the chain, the own
    /// certificate first, and of its key. Connections that stand go on.
    ///
    /// # Errors
    /// A text is damaged, or they do not belong together; the old certificates stay then.
    pub fn replace_pem(
        &self,
        chain: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Result<(), TlsSetupError> {
        let source = Source::Pem { chain: chain.into(), key: key.into() };
        let key = source.load(self.config.crypto_provider())?;
        self.certificates.set(vec![(source, key)]);
        Ok(())
    }

    /// The same server offering other application protocols.
    #[must_use]
    pub fn with_alpn<P: Into<Vec<u8>>>(&self, protocols: impl IntoIterator<Item = P>) -> Self {
        let mut config = ServerConfig::clone(&self.config);
        config.alpn_protocols = protocols.into_iter().map(Into::into).collect();
        Self { config: Arc::new(config), ..self.clone() }
    }

    /// The application protocols that it offers.
    pub fn alpn(&self) -> impl Iterator<Item = &[u8]> {
        self.config.alpn_protocols.iter().map(Vec::as_slice)
    }

    /// The configuration in rustls' form, for QUIC, which brings its own records. QUIC takes TLS 1.3 of it. A
    /// reload reaches it too.
    #[allow(dead_code, reason = "asked by HTTP/3")]
    pub(crate) fn rustls_config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }
}

/// How a [`ServerTls`] is set up.
#[derive(Clone, Debug)]
#[must_use]
pub struct ServerTlsBuilder {
    network: Arc<dyn Network>,
    provider: CryptoProvider,
    certificates: Vec<Source>,
    client_roots: Vec<CertificateDer<'static>>,
    client_optional: bool,
    alpn: Vec<Vec<u8>>,
    versions: Vec<&'static SupportedProtocolVersion>,
    resumption: bool,
    handshake_timeout: Duration,
}

impl Default for ServerTlsBuilder {
    fn default() -> Self {
        Self {
            network: Arc::new(OsNetwork),
            provider: default_provider(),
            certificates: Vec::new(),
            client_roots: Vec::new(),
            client_optional: false,
            alpn: Vec::new(),
            versions: vec![&TLS13, &TLS12],
            resumption: true,
            handshake_timeout: HANDSHAKE_TIMEOUT,
        }
    }
}

impl ServerTlsBuilder {
    /// Whose wall clock says whether a client's certificate is valid. Default: [`OsNetwork`].
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.network = network;
        self
    }

    /// The cryptography, for a simulation a seeded one. Default: [`default_provider`].
    pub fn crypto_provider(mut self, provider: CryptoProvider) -> Self {
        self.provider = provider;
        self
    }

    /// A certificate to show: PEM texts of the chain, the own certificate first, and of its key. It may be
    /// called again for more names: a client gets the first certificate that is valid for the name it asked
    /// for, and the first of all when none is or it named nobody.
    pub fn certificate_pem(mut self, chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.certificates.push(Source::Pem { chain: chain.into(), key: key.into() });
        self
    }

    /// As [`certificate_pem`](Self::certificate_pem), from files, which [`ServerTls::reload`] reads again.
    pub fn certificate_files(mut self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.certificates.push(Source::Files { chain: chain.into(), key: key.into() });
        self
    }

    /// Lets in only clients that show a certificate which one of these roots (PEM) has issued. Default: no
    /// client is asked for a certificate. Sessions are not resumed then: a resumed handshake would not look
    /// at the certificate again.
    ///
    /// # Errors
    /// The text is damaged, or holds no certificate.
    pub fn client_roots_pem(mut self, pem: impl AsRef<[u8]>) -> Result<Self, TlsSetupError> {
        self.client_roots.extend(certificates(pem.as_ref())?);
        Ok(self)
    }

    /// With [`client_roots_pem`](Self::client_roots_pem): also lets in clients that show no certificate, which
    /// [`TlsStream::peer_certificates`] tells apart. Default: no.
    pub fn client_certificate_optional(mut self) -> Self {
        self.client_optional = true;
        self
    }

    /// The application protocols to offer (RFC 7301), the most wanted first. A client that asks for others only
    /// is refused, one that asks for none is let in. Default: none.
    pub fn alpn<P: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// Refuses TLS 1.2. Default: both are spoken.
    pub fn only_tls13(mut self) -> Self {
        self.versions = vec![&TLS13];
        self
    }

    /// Whether a client may shorten a later handshake by what an earlier one agreed (RFC 8446, section 2.2).
    /// Early data is never taken. Default: yes, the latest 1024 sessions.
    pub fn resumption(mut self, resume: bool) -> Self {
        self.resumption = resume;
        self
    }

    /// How long a handshake may take. Default: [`HANDSHAKE_TIMEOUT`].
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// The server. Files are read now.
    ///
    /// # Errors
    /// There is no certificate, or one of them, or a key, cannot be read or used.
    pub fn build(self) -> Result<ServerTls, TlsSetupError> {
        let provider = Arc::new(self.provider);
        let broken = |error: rustls::Error| TlsSetupError::Provider(error.to_string());
        let mut loaded = Vec::with_capacity(self.certificates.len());
        for source in self.certificates {
            let key = source.load(&provider)?;
            loaded.push((source, key));
        }
        if loaded.is_empty() {
            return Err(TlsSetupError::Missing("certificate for the server"));
        }
        let certificates = Arc::new(Certificates(RwLock::new(loaded)));
        let builder = ServerConfig::builder_with_details(provider.clone(), Arc::new(Clock(self.network)))
            .with_protocol_versions(&self.versions)
            .map_err(broken)?;
        let resume = self.resumption && self.client_roots.is_empty();
        let builder = if self.client_roots.is_empty() {
            builder.with_no_client_auth()
        } else {
            let roots = Roots { own: self.client_roots, system: false }.store()?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if self.client_optional { verifier.allow_unauthenticated() } else { verifier };
            let verifier = verifier.build().map_err(|error| TlsSetupError::Certificate(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        };
        let mut config = builder.with_cert_resolver(certificates.clone());
        config.alpn_protocols = self.alpn;
        config.max_early_data_size = 0;
        if resume {
            config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        } else {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(ServerTls { config: Arc::new(config), certificates, handshake_timeout: self.handshake_timeout })
    }
}

/// Where a certificate and its key come from.
#[derive(Clone)]
enum Source {
    Pem { chain: Vec<u8>, key: Vec<u8> },
    Files { chain: PathBuf, key: PathBuf },
}

impl Source {
    fn load(&self, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsSetupError> {
        match self {
            Self::Pem { chain, key } => certified_key(chain, key, provider),
            Self::Files { chain, key } => certified_key(&read(chain)?, &read(key)?, provider),
        }
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // A key stays out of every log.
            Self::Pem { .. } => f.write_str("Pem"),
            Self::Files { chain, key } => write!(f, "Files({}, {})", chain.display(), key.display()),
        }
    }
}

/// What handshakes show now.
#[derive(Debug)]
struct Certificates(RwLock<Vec<(Source, Arc<CertifiedKey>)>>);

impl Certificates {
    fn reload(&self, provider: &CryptoProvider) -> Result<(), TlsSetupError> {
        let mut fresh = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        if !fresh.iter().any(|(source, _)| matches!(source, Source::Files { .. })) {
            return Err(TlsSetupError::NotFromFiles);
        }
        for (source, key) in &mut fresh {
            *key = source.load(provider)?;
        }
        self.set(fresh);
        Ok(())
    }

    fn set(&self, fresh: Vec<(Source, Arc<CertifiedKey>)>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let named = if known.len() > 1 {
            hello.server_name().and_then(|name| ServerName::try_from(name).ok())
        } else {
            None
        };
        let fits = |key: &CertifiedKey, name: &ServerName<'_>| {
            let parsed = key.end_entity_cert().and_then(ParsedCertificate::try_from);
            parsed.and_then(|certificate| verify_server_name(&certificate, name)).is_ok()
        };
        let found = named.and_then(|name| known.iter().find(|(_, key)| fits(key, &name)));
        found.or_else(|| known.first()).map(|(_, key)| key.clone())
    }
}
