//! What a certificate says of itself.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use x509_cert::certificate::{CertificateInner, Raw, Version};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::name::DirectoryString;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName};

use crate::Error;

/// What a key may be used for, as certificates name it.
pub(crate) const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
pub(crate) const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const ANY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");

/// The parts of a certificate that are judged and logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// As in a log: `CN=peer,O=etcd`.
    pub subject: String,
    /// The common name; empty if there is none.
    pub common_name: String,
    /// Alternative names.
    pub dns_names: Vec<String>,
    /// Alternative addresses.
    pub ip_addresses: Vec<IpAddr>,
    /// Its number, big endian, without leading zeros.
    pub serial: Vec<u8>,
    /// Not valid before.
    pub not_before: SystemTime,
    /// Not valid after.
    pub not_after: SystemTime,
    /// Empty for any.
    usages: Vec<ObjectIdentifier>,
    /// Whether it may sign others.
    is_authority: bool,
    /// How many authorities may stand between it and a certificate; none for any number.
    path_length: Option<u8>,
    public_key: Vec<u8>,
}

impl Certificate {
    /// Reads a certificate. Its signature is not looked at.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(der: &CertificateDer<'_>) -> Result<Certificate, Error> {
        Self::decode(der).map_err(|error| Error::Certificate(error.to_string()))
    }

    fn decode(der: &[u8]) -> Result<Certificate, x509_cert::der::Error> {
        let whole = CertificateInner::<Raw>::from_der(der)?;
        let body = whole.tbs_certificate();
        let (mut dns_names, mut ip_addresses) = (Vec::new(), Vec::new());
        for name in body.get_extension::<SubjectAltName>()?.map(|(_, names)| names.0).unwrap_or_default() {
            match name {
                GeneralName::DnsName(name) => dns_names.push(name.as_str().to_owned()),
                GeneralName::IpAddress(bytes) => ip_addresses.extend(address(bytes.as_bytes())),
                _ => {}
            }
        }
        let usages =
            body.get_extension::<ExtendedKeyUsage>()?.map(|(_, usages)| usages.0).unwrap_or_default();
        // The last one counts, as in Go.
        let common_names = body.subject().iter().filter(|one| one.oid == COMMON_NAME);
        let common_name = common_names.last().map(|one| DirectoryString::try_from(&one.value)).transpose()?;
        let common_name = common_name.map(|name| name.value().into_owned());
        // Version 1 says nothing of it, and Go takes that for a yes.
        let constraints = body.get_extension::<BasicConstraints>()?.map(|(_, constraints)| constraints);
        let may_sign = match &constraints {
            Some(constraints) => constraints.ca,
            None => body.version() == Version::V1,
        };
        let signs = body.get_extension::<KeyUsage>()?.is_none_or(|(_, usage)| usage.key_cert_sign());
        let time = |time: x509_cert::time::Time| UNIX_EPOCH + time.to_unix_duration();
        Ok(Certificate {
            subject: body.subject().to_string(),
            common_name: common_name.unwrap_or_default(),
            dns_names,
            ip_addresses,
            serial: without_zeros(body.serial_number().as_bytes()),
            not_before: time(body.validity().not_before),
            not_after: time(body.validity().not_after),
            usages,
            is_authority: may_sign && signs,
            path_length: constraints.and_then(|constraints| constraints.path_len_constraint),
            public_key: body.subject_public_key_info().to_der()?,
        })
    }

    /// The first moment at which it is valid, as RFC 3339 has it.
    pub fn valid_from(&self) -> String {
        Stamp(self.not_before).to_string()
    }

    /// The last one.
    pub fn valid_until(&self) -> String {
        Stamp(self.not_after).to_string()
    }

    /// The public key with its algorithm, DER.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Whether it may be used so.
    pub(crate) fn is_for(&self, usage: ObjectIdentifier) -> bool {
        self.usages.is_empty() || self.usages.iter().any(|one| *one == usage || *one == ANY_USAGE)
    }

    /// Whether others that it has signed may be trusted for its sake.
    pub(crate) fn is_authority(&self) -> bool {
        self.is_authority
    }

    /// How many authorities may stand between it and a certificate.
    pub(crate) fn path_length(&self) -> Option<usize> {
        self.path_length.map(usize::from)
    }

    /// Whether it is valid now.
    ///
    /// # Errors
    /// Go's text, if it is not.
    pub fn check_time(&self, now: SystemTime) -> Result<(), String> {
        let wrong = |how, bound| {
            format!(
                "x509: certificate has expired or is not yet valid: current time {} is {how} {}",
                Stamp(now),
                Stamp(bound)
            )
        };
        if now < self.not_before {
            return Err(wrong("before", self.not_before));
        }
        if now > self.not_after {
            return Err(wrong("after", self.not_after));
        }
        Ok(())
    }
}

pub(crate) fn without_zeros(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().skip_while(|byte| *byte == 0).collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// A time as RFC 3339 has it, UTC, in seconds.
struct Stamp(SystemTime);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        match x509_cert::der::DateTime::from_unix_duration(Duration::from_secs(since.as_secs())) {
            Ok(time) => time.fmt(f),
            Err(_) => write!(f, "{}s", since.as_secs()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests_only {
    use super::*;

    /// One that says nothing.
    pub(crate) fn empty(valid: SystemTime) -> Certificate {
        Certificate {
            subject: String::new(),
            common_name: String::new(),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            serial: Vec::new(),
            not_before: valid,
            not_after: valid,
            usages: Vec::new(),
            is_authority: false,
            path_length: None,
            public_key: Vec::new(),
        }
    }
}
