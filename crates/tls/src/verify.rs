//! Verifying the other side's certificate, as Go does it for etcd.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::CertificateError;
use rustls::Error as TlsError;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_cert::der::asn1::ObjectIdentifier;

use crate::revocation::Revoked;
use crate::seen::Seen;
use crate::watched::Watched;
use crate::{Certificate, Info, Pool, verify_hostname};

/// Go's text before a certificate's own.
const FAILED: &str = "tls: failed to verify certificate: ";

/// etcd's text for a certificate without an allowed name, whichever side shows it.
const NOT_ALLOWED: &str = "client certificate authentication failed";

/// What a certificate must be beside signed by a trusted authority.
#[derive(Debug, Default)]
pub(crate) struct Demands {
    cns: Vec<String>,
    hostnames: Vec<String>,
    revoked: Option<Watched<Revoked>>,
}

impl Demands {
    /// Those of those who connect, with the list of the revoked, which etcd does not look at where it dials.
    pub(crate) fn of(info: &Info, with_revoked: bool) -> Result<Demands, crate::Error> {
        let revoked = match with_revoked && !info.crl_file.is_empty() {
            // The file may come later; until then nobody is let in.
            true => Some(Watched::lazy(vec![info.crl_file.clone()], Revoked::read)),
            false => None,
        };
        Ok(Demands { cns: info.allowed_cns.clone(), hostnames: info.allowed_hostnames.clone(), revoked })
    }

    pub(crate) fn names_any(&self) -> bool {
        !self.cns.is_empty() || !self.hostnames.is_empty()
    }

    fn check(&self, leaf: &Certificate) -> Result<(), String> {
        let is_allowed = match (self.cns.is_empty(), self.hostnames.is_empty()) {
            (true, true) => true,
            (false, _) => self.cns.contains(&leaf.common_name),
            (true, false) => self.hostnames.iter().any(|host| verify_hostname(leaf, host).is_ok()),
        };
        if is_allowed { Ok(()) } else { Err(NOT_ALLOWED.to_owned()) }
    }
}

/// One handshake's look at a certificate.
pub(crate) struct Look<'a> {
    pub(crate) leaf: &'a CertificateDer<'a>,
    pub(crate) rest: &'a [CertificateDer<'a>],
    pub(crate) now: UnixTime,
    pub(crate) seen: &'a Seen,
}

impl Look<'_> {
    /// Refuses a certificate that names are asked of but nobody has verified.
    pub(crate) fn refuse_unverified(&self) -> Result<(), TlsError> {
        self.seen.refuse(NOT_ALLOWED.to_owned());
        Err(TlsError::InvalidCertificate(CertificateError::BadEncoding))
    }

    /// Now.
    pub(crate) fn moment(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.now.as_secs())
    }

    /// Judges a certificate whose chain the library has judged with `chain`, unless it is itself trusted.
    ///
    /// # Errors
    /// With the alert that Go would send; the reason is in `seen`.
    pub(crate) fn judge(
        &self,
        pool: &Pool,
        usage: ObjectIdentifier,
        demands: &Demands,
        host: Option<&str>,
        chain: impl FnOnce() -> Result<(), TlsError>,
    ) -> Result<(), TlsError> {
        let refuse = |why: String, error: CertificateError| {
            self.seen.refuse(why);
            Err(TlsError::InvalidCertificate(error))
        };
        let leaf = match Certificate::parse(self.leaf) {
            Ok(leaf) => leaf,
            Err(error) => return refuse(format!("{FAILED}{error}"), CertificateError::BadEncoding),
        };
        self.seen.meet(leaf.clone());
        let now = self.moment();
        if let Err(why) = leaf.check_time(now) {
            return refuse(format!("{FAILED}{why}"), CertificateError::Expired);
        }
        let judged = match pool.has(self.leaf) {
            true if leaf.is_for(usage) => Ok(()),
            true => Err(TlsError::InvalidCertificate(CertificateError::InvalidPurpose)),
            false => chain(),
        };
        if let Err(error) = judged {
            let (why, error) = chain_refusal(&error);
            return refuse(format!("{FAILED}{why}"), error);
        }
        if let Some(Err(why)) = host.map(|host| verify_hostname(&leaf, host)) {
            return refuse(format!("{FAILED}{why}"), CertificateError::BadEncoding);
        }
        if let Err(why) = demands.check(&leaf) {
            return refuse(why, CertificateError::BadEncoding);
        }
        if let Some(revoked) = &demands.revoked {
            let all = std::iter::once(self.leaf).chain(self.rest);
            let checked = revoked.get().map_err(|error| error.to_string()).and_then(|list| list.check(all));
            if let Err(why) = checked {
                return refuse(why, CertificateError::Revoked);
            }
        }
        Ok(())
    }
}

/// What the library finds wrong with a chain: Go's text, and the error whose alert is Go's.
fn chain_refusal(error: &TlsError) -> (String, CertificateError) {
    let TlsError::InvalidCertificate(error) = error else {
        return (format!("x509: {error}"), CertificateError::BadEncoding);
    };
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            ("x509: certificate signed by unknown authority".to_owned(), CertificateError::UnknownIssuer)
        }
        // Of an authority; the certificate's own time was looked at.
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            (format!("x509: {error} (an authority's)"), CertificateError::Expired)
        }
        CertificateError::ApplicationVerificationFailure => (
            "x509: too many intermediates for path length constraint".to_owned(),
            CertificateError::BadEncoding,
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => (
            "x509: certificate specifies an incompatible key usage".to_owned(),
            CertificateError::BadEncoding,
        ),
        other => (format!("x509: {other}"), CertificateError::BadEncoding),
    }
}
