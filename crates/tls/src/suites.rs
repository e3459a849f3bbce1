//! Versions and cipher suites by Go's names.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{CipherSuite, SupportedProtocolVersion, version};

use crate::{Error, Info};

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 1.2.
    Tls12,
    /// 1.3.
    Tls13,
}

impl Version {
    /// The version that etcd calls so; the empty name is none.
    ///
    /// # Errors
    /// Another name.
    pub fn from_name(name: &str) -> Result<Option<Version>, Error> {
        match name {
            "" => Ok(None),
            "TLS1.2" => Ok(Some(Version::Tls12)),
            "TLS1.3" => Ok(Some(Version::Tls13)),
            other => Err(Error::Version(other.to_owned())),
        }
    }
}

/// Checks names of versions, and whether suites may be chosen with them, as etcd does at its start.
///
/// # Errors
/// etcd's.
pub fn check_versions(
    min: &str,
    max: &str,
    has_suites: bool,
) -> Result<(Option<Version>, Option<Version>), Error> {
    let (lowest, highest) = (Version::from_name(min)?, Version::from_name(max)?);
    if highest.is_some_and(|highest| lowest.is_some_and(|lowest| lowest > highest)) {
        return Err(Error::VersionOrder { min: min.to_owned(), max: max.to_owned() });
    }
    if lowest == Some(Version::Tls13) && has_suites {
        return Err(Error::SuitesOfTls13);
    }
    Ok((lowest, highest))
}

/// Those of TLS 1.2 that there are, with the number that all names of one share.
const SUPPORTED: [(&str, CipherSuite); 8] = [
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// Those of TLS 1.3, which a list does not touch, as in Go.
const OF_TLS13: [&str; 3] =
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// What Go has beside them.
const LACKING: [&str; 16] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

/// The names that may be given.
pub(crate) fn supported() -> Vec<&'static str> {
    SUPPORTED.iter().map(|(name, _)| *name).chain(OF_TLS13).collect()
}

/// The suites to choose from; by default all that there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suites(Option<Vec<CipherSuite>>);

impl Suites {
    /// The suites of these names; no names are all suites.
    ///
    /// # Errors
    /// A name that Go does not know either, or a suite that the library lacks.
    pub fn from_names(names: &[String]) -> Result<Suites, Error> {
        if names.is_empty() {
            return Ok(Suites(None));
        }
        let mut chosen = Vec::new();
        for name in names {
            match SUPPORTED.iter().find(|(known, _)| known == name) {
                Some((_, suite)) => chosen.push(*suite),
                None if OF_TLS13.contains(&name.as_str()) => {}
                None if LACKING.contains(&name.as_str()) => {
                    return Err(Error::SuiteLacking { name: name.clone() });
                }
                None => return Err(Error::Suite(name.clone())),
            }
        }
        Ok(Suites(Some(chosen)))
    }

    fn provider(&self) -> CryptoProvider {
        let mut provider = aws_lc_rs::default_provider();
        if let Some(chosen) = &self.0 {
            provider.cipher_suites.retain(|suite| suite.tls13().is_some() || chosen.contains(&suite.suite()));
        }
        provider
    }
}

/// The library's parts, as an [`Info`] chooses them.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
}

impl Parts {
    pub(crate) fn of(info: &Info) -> Result<Parts, Error> {
        let lowest = info.version_min.unwrap_or(Version::Tls12);
        let highest = info.version_max.unwrap_or(Version::Tls13);
        let all = [(Version::Tls12, &version::TLS12), (Version::Tls13, &version::TLS13)];
        let chosen = all.into_iter().filter(|(version, _)| (lowest..=highest).contains(version));
        let versions: Vec<_> = chosen.map(|(_, version)| version).collect();
        let provider = Arc::new(info.suites.provider());
        // The same question that the library asks at each handshake.
        rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .map_err(|error| Error::NothingLeft(error.to_string()))?;
        Ok(Parts { provider, versions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &str) -> Result<Suites, Error> {
        Suites::from_names(&names.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn names_are_gos() {
        for (name, suite) in SUPPORTED {
            assert_eq!(named(name).unwrap(), Suites(Some(vec![suite])));
            assert!(aws_lc_rs::ALL_CIPHER_SUITES.iter().any(|one| one.suite() == suite), "{name}");
        }
        let of_tls12 = aws_lc_rs::ALL_CIPHER_SUITES.iter().filter(|suite| suite.tls13().is_none());
        assert!(of_tls12.clone().count() == 6, "the library has others now");
        assert_eq!(named("TLS_AES_128_GCM_SHA256").unwrap(), Suites(Some(Vec::new())));
        assert_eq!(named("nonsense").unwrap_err().to_string(), "unexpected TLS cipher suite \"nonsense\"");
        let lacking = named("TLS_RSA_WITH_AES_128_CBC_SHA").unwrap_err().to_string();
        assert!(lacking.contains("supported: TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "), "{lacking}");
    }

    #[test]
    fn versions_are_etcds() {
        let text = |min, max, suites| check_versions(min, max, suites).unwrap_err().to_string();
        assert_eq!(
            text("TLS1.4", "", false),
            "unexpected TLS version \"TLS1.4\" (must be one of: TLS1.2, TLS1.3)"
        );
        assert_eq!(
            text("TLS1.3", "TLS1.2", false),
            "min version (TLS1.3) is greater than max version (TLS1.2)"
        );
        assert_eq!(
            text("TLS1.3", "", true),
            "cipher suites cannot be configured when only TLS1.3 is enabled"
        );
        assert!(check_versions("", "TLS1.2", true).is_ok());
    }
}
