//! Certificates and keys from PEM files, judged as Go's `tls.X509KeyPair` judges them.

use std::fmt;
use std::fs;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::{Certificate, Error};

/// Longest file of certificates or keys, bytes.
const BYTES_MAX: u64 = 16 << 20;

/// A certificate with its key.
pub struct Pair {
    pub(crate) key: Arc<CertifiedKey>,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pair")
    }
}

impl Pair {
    /// Reads a certificate, with those behind it, and its key.
    ///
    /// # Errors
    /// Go's, where a file is missing, is none, or both do not fit.
    pub fn read(cert_file: &str, key_file: &str) -> Result<Pair, Error> {
        let (cert, key) = (read(cert_file)?, read(key_file)?);
        let chain = CertificateDer::pem_slice_iter(&cert).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| Error::Certificate(error.to_string()))?;
        let Some(leaf) = chain.first() else {
            return Err(match begins(&cert) {
                false => Error::NoPem("certificate"),
                true if PrivateKeyDer::from_pem_slice(&cert).is_ok() => Error::Switched,
                true => Error::NoCertificate,
            });
        };
        let key = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|_| if begins(&key) { Error::NoKey } else { Error::NoPem("key") })?;
        let public = Certificate::parse(leaf)?.public_key().to_vec();
        let key = any_supported_type(&key).map_err(|_| Error::Key)?;
        if key.public_key().is_some_and(|of_key| *of_key != *public) {
            return Err(Error::Mismatch);
        }
        Ok(Pair { key: Arc::new(CertifiedKey::new(chain, key)) })
    }

    /// The certificate.
    ///
    /// # Errors
    /// None, of one that was read.
    pub fn certificate(&self) -> Result<Certificate, Error> {
        Certificate::parse(self.key.cert.first().ok_or(Error::NoCertificate)?)
    }
}

fn begins(text: &[u8]) -> bool {
    text.windows(11).any(|part| part == b"-----BEGIN ")
}

/// A file of PEM or DER.
pub(crate) fn read(path: &str) -> Result<Vec<u8>, Error> {
    let open = |error| Error::open(path, &error);
    let length = fs::metadata(path).map_err(open)?.len();
    if length > BYTES_MAX {
        return Err(Error::Open { path: path.to_owned(), why: format!("a file of {length} bytes") });
    }
    fs::read(path).map_err(open)
}

/// All certificates of a PEM file; other blocks are passed over.
pub(crate) fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_slice_iter(&read(path)?).collect::<Result<Vec<_>, _>>();
    found.map_err(|error| Error::Certificate(error.to_string()))
}
