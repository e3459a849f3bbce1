//! Certificates and TLS as Go's etcd means them, on rustls and aws-lc-rs: for listeners, for peers that dial, and for
//! the command line tools.
//!
//! [`Info`] is what the user said, like etcd's `TLSInfo`; [`Server`] and [`Client`] are one side each, checked. For
//! every handshake they give a configuration of its own ([`Server::begin`], [`Client::begin`]) with the certificate and the
//! revocation list as the files have them at that moment, and a [`Seen`] that tells afterwards whom it met and in Go's
//! words why it failed. Sessions are never resumed: nobody passes by a check. Reads files; knows no sockets, no threads,
//! no flags.
//!
//! Stricter than Go, since the library is: no CBC suites and no RSA key exchange, no RSA keys below 2048 bits, no
//! certificates of X.509 version 1, and a certificate that may itself sign others is taken only where it is trusted as it is.
#![forbid(unsafe_code)]

mod certificate;
mod client;
mod error;
mod go;
mod hostname;
mod pem;
mod pool;
mod revocation;
mod seen;
mod server;
mod suites;
mod verify;
mod watched;

pub use certificate::Certificate;
pub use client::{Client, Dialing};
pub use error::Error;
pub use hostname::verify_hostname;
pub use pem::Pair;
pub use pool::Pool;
pub use seen::Seen;
pub use server::{Accepting, Alpn, Server};
pub use suites::{Suites, Version, check_versions};

/// One side's TLS as the user said it; an empty text is unset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// The certificate, and behind it those between it and the authority; PEM.
    pub cert_file: String,
    /// Its key, PEM.
    pub key_file: String,
    /// What is shown where this side dials, if not the same.
    pub client_cert_file: String,
    /// Its key.
    pub client_key_file: String,
    /// The authorities that the other side is verified with, PEM; unset, those of the system.
    pub trusted_ca_file: String,
    /// Who connects must show a certificate. A trusted CA means the same.
    pub client_cert_auth: bool,
    /// A list of revoked certificates, DER.
    pub crl_file: String,
    /// If there are any: common names, one of which the other side's certificate must have.
    pub allowed_cns: Vec<String>,
    /// If there are any: names or addresses, one of which it must be valid for.
    pub allowed_hostnames: Vec<String>,
    /// Where this side dials, take any certificate.
    pub insecure_skip_verify: bool,
    /// Lowest version; unset, TLS 1.2.
    pub version_min: Option<Version>,
    /// Highest version; unset, TLS 1.3.
    pub version_max: Option<Version>,
    /// The suites to choose from.
    pub suites: Suites,
}

impl Info {
    /// Whether there is neither certificate nor key.
    pub fn is_empty(&self) -> bool {
        self.cert_file.is_empty() && self.key_file.is_empty()
    }

    /// Whether those who connect must show a certificate.
    pub fn asks_for_certificates(&self) -> bool {
        self.client_cert_auth || !self.trusted_ca_file.is_empty()
    }

    /// What etcd's `baseConfig` checks before anything is read.
    fn check(&self) -> Result<(), Error> {
        if self.cert_file.is_empty() || self.key_file.is_empty() {
            return Err(Error::HalfPair { key: self.key_file.clone(), cert: self.cert_file.clone() });
        }
        if self.client_cert_file.is_empty() != self.client_key_file.is_empty() {
            let (key, cert) = (self.client_key_file.clone(), self.client_cert_file.clone());
            return Err(Error::HalfClientPair { key, cert });
        }
        if !self.allowed_cns.is_empty() && !self.allowed_hostnames.is_empty() {
            let (cns, hostnames) = (self.allowed_cns.clone(), self.allowed_hostnames.clone());
            return Err(Error::AllowedBoth { cns, hostnames });
        }
        Ok(())
    }
}
