//! Revocation lists, used as etcd uses them: a certificate whose number is listed is refused, whoever signed the list.

use std::collections::BTreeSet;

use rustls_pki_types::CertificateDer;
use x509_cert::certificate::Raw;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode as _;

use crate::certificate::without_zeros;
use crate::{Certificate, Error, pem};

/// The numbers of revoked certificates.
#[derive(Debug)]
pub(crate) struct Revoked(BTreeSet<Vec<u8>>);

impl Revoked {
    /// Reads a DER file.
    pub(crate) fn read(paths: &[String]) -> Result<Revoked, Error> {
        let der = pem::read(&paths[0])?;
        let list = CertificateList::<Raw>::from_der(&der);
        let list = list.map_err(|error| Error::RevocationList(error.to_string()))?;
        let entries = list.tbs_cert_list.revoked_certificates.unwrap_or_default();
        Ok(Revoked(entries.iter().map(|entry| without_zeros(entry.serial_number.as_bytes())).collect()))
    }

    /// etcd's text, if one of the certificates is listed.
    pub(crate) fn check<'a>(
        &self,
        certificates: impl Iterator<Item = &'a CertificateDer<'a>>,
    ) -> Result<(), String> {
        for certificate in certificates {
            let serial = Certificate::parse(certificate).map_err(|error| error.to_string())?.serial;
            if self.0.contains(&serial) {
                let hex: String = serial.iter().map(|byte| format!("{byte:02x}")).collect();
                return Err(format!("transport: certificate serial {hex} revoked"));
            }
        }
        Ok(())
    }
}
