//! The authorities that the other side is verified with.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::{CertificateError, Error as TlsError, RootCertStore};
use rustls_pki_types::CertificateDer;
use x509_cert::der::asn1::ObjectIdentifier;

use crate::{Certificate, Error, pem};

/// Where systems keep their bundle of authorities, in Go's order.
const SYSTEM_FILES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What a root says that does not allow as many authorities behind it.
pub(crate) const TOO_MANY_BETWEEN: CertificateError = CertificateError::ApplicationVerificationFailure;

/// Trusted certificates.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The authorities among them.
    pub(crate) roots: Arc<RootCertStore>,
    /// The same, since their own time counts too.
    authorities: Arc<Vec<Certificate>>,
    /// Whole, since a certificate that is itself trusted needs no other.
    whole: Arc<BTreeSet<Vec<u8>>>,
}

impl Pool {
    /// Reads a PEM file of certificates. One without any trusts nobody.
    ///
    /// # Errors
    /// When the file can't be read, or a certificate in it is none.
    pub fn read(path: &str) -> Result<Pool, Error> {
        Pool::of(pem::certificates(path)?, false)
    }

    /// What the system trusts: `SSL_CERT_FILE` and `SSL_CERT_DIR`, or else the first bundle that there is.
    pub fn system() -> Pool {
        let named = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let mut found = Vec::new();
        let read = |path: &str| pem::certificates(path).unwrap_or_default();
        match named("SSL_CERT_FILE") {
            Some(file) => found.extend(read(&file)),
            None => found.extend(
                SYSTEM_FILES
                    .iter()
                    .map(|file| read(file))
                    .find(|found| !found.is_empty())
                    .unwrap_or_default(),
            ),
        }
        for dir in named("SSL_CERT_DIR").iter().flat_map(|dirs| dirs.split(':')) {
            let files = fs::read_dir(dir).into_iter().flatten().flatten();
            found.extend(files.flat_map(|file| read(&file.path().to_string_lossy())));
        }
        Pool::of(found, true).expect("what does not fit is left out")
    }

    fn of(certificates: Vec<CertificateDer<'static>>, leave_out: bool) -> Result<Pool, Error> {
        let (mut roots, mut authorities, mut whole) = (RootCertStore::empty(), Vec::new(), BTreeSet::new());
        for certificate in certificates {
            whole.insert(certificate.to_vec());
            let added = Certificate::parse(&certificate).and_then(|parsed| {
                if parsed.is_authority() {
                    roots.add(certificate).map_err(|error| Error::Certificate(error.to_string()))?;
                    authorities.push(parsed);
                }
                Ok(())
            });
            match added {
                Err(error) if !leave_out => return Err(error),
                _ => {}
            }
        }
        Ok(Pool { roots: Arc::new(roots), authorities: Arc::new(authorities), whole: Arc::new(whole) })
    }

    /// Judges a chain with `chain`, which is given authorities, and of those that came with the certificate the first so
    /// many. The library takes of a root its name and key alone; here its time, what it may be used for, and how many may
    /// stand between it and a certificate count too, as in Go. If all allow it, it is given the very store of all.
    ///
    /// # Errors
    /// What `chain` says, or why the root that it would have does not allow it.
    pub(crate) fn judge(
        &self,
        now: SystemTime,
        usage: ObjectIdentifier,
        between: usize,
        chain: impl Fn(&Arc<RootCertStore>, usize) -> Result<(), TlsError>,
    ) -> Result<(), TlsError> {
        let is_valid = |authority: &Certificate| authority.check_time(now).is_ok();
        let allowed =
            |authority: &Certificate| authority.path_length().map_or(between, |most| most.min(between));
        let is_free = |one: &Certificate| is_valid(one) && one.is_for(usage) && allowed(one) == between;
        if self.authorities.iter().all(is_free) {
            return chain(&self.roots, between);
        }
        let store = |wanted: &dyn Fn(&Certificate) -> bool| {
            let roots = self.authorities.iter().zip(&self.roots.roots);
            let roots = roots.filter(|(authority, _)| wanted(authority)).map(|(_, root)| root.clone());
            Arc::new(RootCertStore { roots: roots.collect() })
        };
        let mut failure = TlsError::InvalidCertificate(CertificateError::UnknownIssuer);
        let counts: BTreeSet<usize> = self.authorities.iter().map(allowed).collect();
        for count in counts.into_iter().rev() {
            let roots = store(&|one| is_valid(one) && one.is_for(usage) && allowed(one) == count);
            match chain(&roots, count) {
                Ok(()) => return Ok(()),
                // What stands nearest to a chain that holds says most.
                Err(error) if count == between => failure = error,
                Err(_) => {}
            }
        }
        if chain(&store(&|one| is_valid(one) && one.is_for(usage)), between).is_ok() {
            failure = TlsError::InvalidCertificate(TOO_MANY_BETWEEN);
        } else if chain(&store(&is_valid), between).is_ok() {
            failure = TlsError::InvalidCertificate(CertificateError::InvalidPurpose);
        }
        Err(failure)
    }

    /// Whether it trusts nobody.
    pub(crate) fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// Whether this very certificate is trusted.
    pub(crate) fn has(&self, certificate: &CertificateDer<'_>) -> bool {
        self.whole.contains(certificate.as_ref())
    }
}
