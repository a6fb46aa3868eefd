//! The mesh's TLS: both sides prove an Ed25519 key (RFC 7250), and that is all they prove.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    AlertDescription, CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName,
    Error, OtherError, PeerMisbehaved, ServerConfig, SignatureScheme,
};
use vitte_net_proto::PeerId;

use super::Clock;
use crate::identity::Identity;
use crate::network::Network;

/// The application protocol of every mesh link (RFC 7301).
pub(crate) const ALPN: &[u8] = b"vitte/1";

/// What comes before the 32 bytes of an Ed25519 key in its 44-byte SubjectPublicKeyInfo (RFC 8410, section 4).
const ED25519_SPKI: &[u8; 12] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// The two TLS configurations of a node, for TCP, WebSocket and QUIC alike.
///
/// TLS 1.3 only; both sides show a raw Ed25519 public key and prove it; the application protocol is
/// `vitte/1`. There are no sessions to resume and there is no early data: a resumed handshake would not look
/// at the key again. Whether a key is trusted is asked above, after the handshake.
#[derive(Clone, Debug)]
pub struct MeshTls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    peer: PeerId,
    #[cfg(feature = "ws")]
    outer: super::OuterTls,
}

impl MeshTls {
    /// The configurations of the node with this key. AES-128-GCM goes first among the provider's cipher
    /// suites, which is the fastest where the processor knows AES; `network` gives the wall clock.
    ///
    /// # Errors
    /// The provider knows no Ed25519, or nothing of TLS 1.3.
    pub fn new(
        identity: &Identity,
        mut provider: CryptoProvider,
        network: &Arc<dyn Network>,
    ) -> Result<Self, TlsError> {
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        let provider = Arc::new(provider);
        let clock = Arc::new(Clock(network.clone()));
        let pkcs8 = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.pkcs8().to_vec()));
        let signer = provider.key_provider.load_private_key(pkcs8)?;
        let spki = [ED25519_SPKI.as_slice(), &identity.peer_id().0].concat();
        let key = Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signer));

        let proof = Arc::new(KeyProof::new(None, &provider));
        let mut client = ClientConfig::builder_with_details(provider.clone(), clock.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(proof.clone())
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key.clone())));
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        client.enable_early_data = false;

        let mut server = ServerConfig::builder_with_details(provider.clone(), clock.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(proof)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.max_early_data_size = 0;

        Ok(Self {
            client: Arc::new(client),
            server: Arc::new(server),
            peer: identity.peer_id(),
            #[cfg(feature = "ws")]
            outer: super::OuterTls::new(identity, provider, clock)?,
        })
    }

    /// Whose key this is.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.peer
    }

    /// The dialling side. If a peer is expected, any other key fails the handshake. No server name is sent,
    /// so any valid one will do where a library asks for it.
    #[must_use]
    pub fn client_config(&self, expected: Option<PeerId>) -> Arc<ClientConfig> {
        if expected.is_none() {
            return self.client.clone();
        }
        let mut config = ClientConfig::clone(&self.client);
        let proof = KeyProof::new(expected, config.crypto_provider());
        config.dangerous().set_certificate_verifier(Arc::new(proof));
        Arc::new(config)
    }

    /// The accepting side.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    #[cfg(feature = "ws")]
    pub(crate) fn outer(&self) -> &super::OuterTls {
        &self.outer
    }
}

/// The key that the other side has proven: the one raw Ed25519 key in place of its certificates.
pub(crate) fn peer_of(certificates: Option<&[CertificateDer<'_>]>) -> Result<PeerId, TlsError> {
    match certificates {
        Some([key]) => peer_of_spki(key),
        _ => Err(TlsError::NoKey),
    }
}

/// The key that the other side of a QUIC connection has proven, from quinn's `Connection::peer_identity`.
#[cfg(feature = "quic")]
#[allow(dead_code, reason = "asked by the QUIC transport")]
pub(crate) fn peer_of_quic(identity: Box<dyn std::any::Any>) -> Option<PeerId> {
    let certificates = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    peer_of(Some(&certificates)).ok()
}

fn peer_of_spki(spki: &[u8]) -> Result<PeerId, TlsError> {
    let key = spki.strip_prefix(ED25519_SPKI).ok_or(TlsError::NoKey)?;
    Ok(PeerId(key.try_into().map_err(|_| TlsError::NoKey)?))
}

/// Why a handshake failed, or an established connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The peer proved another key than the one that was asked for.
    #[error("wrong peer: asked for {expected}, found {found}")]
    WrongPeer {
        /// Whom the caller wanted.
        expected: PeerId,
        /// Who answered.
        found: PeerId,
    },
    /// The peer showed no raw Ed25519 key.
    #[error("the peer showed no Ed25519 key")]
    NoKey,
    /// The peer does not speak our application protocol.
    #[error("the peer does not speak vitte/1")]
    NotVitte,
    /// The peer ended the connection with an alert (RFC 8446, section 6.2).
    #[error("the peer gave up: {0}")]
    Alert(String),
    /// The peer broke the rules of TLS, a record was damaged, or no version or cipher suits both.
    #[error("{0}")]
    Peer(String),
    /// Something was asked of a connection that had failed or ended before.
    #[error("the connection has ended")]
    Ended,
    /// Our own configuration does not work with this cryptography provider.
    #[error("the TLS configuration does not work: {0}")]
    Config(String),
}

impl From<Error> for TlsError {
    fn from(error: Error) -> Self {
        match &error {
            Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
                inner.downcast_ref::<Self>().cloned().unwrap_or_else(|| Self::Peer(error.to_string()))
            }
            Error::AlertReceived(AlertDescription::NoApplicationProtocol) | Error::NoApplicationProtocol => {
                Self::NotVitte
            }
            Error::AlertReceived(alert) => Self::Alert(format!("{alert:?}")),
            Error::General(_) | Error::FailedToGetRandomBytes | Error::FailedToGetCurrentTime => {
                Self::Config(error.to_string())
            }
            _ => Self::Peer(error.to_string()),
        }
    }
}

impl From<TlsError> for Error {
    fn from(error: TlsError) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
    }
}

/// Looks at the key and at the proof of it, and trusts nobody and everybody.
#[derive(Debug)]
struct KeyProof {
    expected: Option<PeerId>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl KeyProof {
    fn new(expected: Option<PeerId>, provider: &CryptoProvider) -> Self {
        Self { expected, algorithms: provider.signature_verification_algorithms }
    }

    fn look_at(&self, key: &[u8], more: &[CertificateDer<'_>]) -> Result<(), Error> {
        let found = peer_of_spki(key)?;
        match self.expected {
            _ if !more.is_empty() => Err(TlsError::NoKey.into()),
            Some(expected) if expected != found => Err(TlsError::WrongPeer { expected, found }.into()),
            _ => Ok(()),
        }
    }

    fn verify(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }
}

/// Both configurations allow TLS 1.3 alone.
fn no_tls12() -> Error {
    PeerMisbehaved::SelectedTls12UsingTls13VersionExtension.into()
}

impl ServerCertVerifier for KeyProof {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.look_at(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for KeyProof {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.look_at(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
