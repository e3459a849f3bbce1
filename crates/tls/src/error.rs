//! Why TLS can't be set up, in the words of Go and etcd.

use std::io;

use crate::go;

/// Why TLS can't be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the text is the documentation")]
pub enum Error {
    #[error("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")]
    HalfPair { key: String, cert: String },
    #[error(
        "ClientKeyFile and ClientCertFile must both be present or both absent: key: {key}, cert: {cert}]"
    )]
    HalfClientPair { key: String, cert: String },
    #[error(
        "AllowedCNs and AllowedHostnames are mutually exclusive (cns={}, hostnames={})",
        go::quoted_list(cns),
        go::quoted_list(hostnames)
    )]
    AllowedBoth { cns: Vec<String>, hostnames: Vec<String> },
    #[error("open {path}: {why}")]
    Open { path: String, why: String },
    #[error("tls: failed to find any PEM data in {0} input")]
    NoPem(&'static str),
    #[error(
        "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched"
    )]
    Switched,
    #[error("tls: failed to find \"CERTIFICATE\" PEM block in certificate input")]
    NoCertificate,
    #[error("tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input")]
    NoKey,
    #[error("tls: failed to parse private key")]
    Key,
    #[error("tls: private key does not match public key")]
    Mismatch,
    #[error("x509: malformed certificate: {0}")]
    Certificate(String),
    #[error("x509: malformed crl: {0}")]
    RevocationList(String),
    #[error("unexpected TLS version {} (must be one of: TLS1.2, TLS1.3)", go::quote(.0))]
    Version(String),
    #[error("min version ({min}) is greater than max version ({max})")]
    VersionOrder { min: String, max: String },
    #[error("cipher suites cannot be configured when only TLS1.3 is enabled")]
    SuitesOfTls13,
    #[error("unexpected TLS cipher suite {}", go::quote(.0))]
    Suite(String),
    #[error(
        "TLS cipher suite {} is not in this server's TLS library (supported: {})",
        go::quote(name),
        crate::suites::supported().join(", ")
    )]
    SuiteLacking { name: String },
    #[error("no common version and cipher suite is left: {0}")]
    NothingLeft(String),
    #[error("tls: {} is no name of a server", go::quote(.0))]
    ServerName(String),
}

impl Error {
    pub(crate) fn open(path: &str, error: &io::Error) -> Error {
        Error::Open { path: path.to_owned(), why: go::io_text(error) }
    }
}
