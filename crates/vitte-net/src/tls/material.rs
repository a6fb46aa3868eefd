//! Certificates, keys and roots, out of PEM (RFC 7468), DER, files and the system.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::TlsSetupError;

/// Reads a file whole. Only set-up and reload do, never a connection.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsSetupError> {
    fs::read(path).map_err(|error| TlsSetupError::File { path: path.to_owned(), error })
}

/// All certificates of `pem`, at least one.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsSetupError> {
    const WHAT: &str = "certificate (PEM)";
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| pem_error(WHAT, &error))?;
    if found.is_empty() { Err(TlsSetupError::Missing(WHAT)) } else { Ok(found) }
}

/// A chain, the own certificate first, with its key (PKCS #8, PKCS #1 or SEC 1), as one that signs.
pub(super) fn certified_key(
    chain: &[u8],
    key: &[u8],
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, TlsSetupError> {
    let chain = certificates(chain)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| pem_error("private key (PEM)", &error))?;
    let certified = CertifiedKey::from_der(chain, key, provider)
        .map_err(|error| TlsSetupError::Certificate(error.to_string()))?;
    Ok(Arc::new(certified))
}

fn pem_error(what: &'static str, error: &PemError) -> TlsSetupError {
    match error {
        PemError::NoItemsFound => TlsSetupError::Missing(what),
        error => TlsSetupError::Pem { what, why: error.to_string() },
    }
}

/// Whom to trust to issue certificates.
#[derive(Clone, Debug, Default)]
pub(super) struct Roots {
    pub(super) own: Vec<CertificateDer<'static>>,
    pub(super) system: bool,
}

impl Roots {
    /// Named ones must all be usable; of the system's those that are not are left out.
    pub(super) fn store(self) -> Result<RootCertStore, TlsSetupError> {
        let mut store = RootCertStore::empty();
        for root in self.own {
            store.add(root).map_err(|error| TlsSetupError::Certificate(error.to_string()))?;
        }
        if self.system {
            let loaded = rustls_native_certs::load_native_certs();
            let (usable, _) = store.add_parsable_certificates(loaded.certs);
            if usable == 0 {
                let why = loaded.errors.first().map_or("none found".to_owned(), ToString::to_string);
                return Err(TlsSetupError::NoRoots(why));
            }
        }
        Ok(store)
    }
}
