//! What one handshake has met, for the log.

use std::error::Error as _;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::{AlertDescription, PeerIncompatible};

use crate::Certificate;

/// The other side's certificate and, if it was refused, why. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Seen(Arc<Mutex<Met>>);

#[derive(Debug, Default)]
struct Met {
    certificate: Option<Certificate>,
    refusal: Option<String>,
}

impl Seen {
    pub(crate) fn meet(&self, certificate: Certificate) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).certificate = Some(certificate);
    }

    pub(crate) fn refuse(&self, why: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).refusal = Some(why);
    }

    /// The certificate that the other side has shown.
    pub fn certificate(&self) -> Option<Certificate> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).certificate.clone()
    }

    /// Why the handshake failed, in Go's words as far as Go has any.
    pub fn reason(&self, error: &io::Error) -> String {
        if let Some(why) = self.0.lock().unwrap_or_else(PoisonError::into_inner).refusal.clone() {
            return why;
        }
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return "EOF".to_owned();
        }
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(error) => in_gos_words(error),
            None => match error.source() {
                Some(source) => source.to_string(),
                None => crate::go::io_text(error),
            },
        }
    }
}

fn in_gos_words(error: &rustls::Error) -> String {
    match error {
        rustls::Error::AlertReceived(alert) => format!("remote error: tls: {}", alert_text(*alert)),
        rustls::Error::NoCertificatesPresented => "tls: client didn't provide a certificate".to_owned(),
        rustls::Error::NoApplicationProtocol => {
            "tls: client requested unsupported application protocols".to_owned()
        }
        rustls::Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => {
            "tls: no cipher suite supported by both client and server".to_owned()
        }
        rustls::Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => "tls: client offered only unsupported versions".to_owned(),
        rustls::Error::InvalidMessage(_) => "tls: first record does not look like a TLS handshake".to_owned(),
        other => format!("tls: {other}"),
    }
}

/// The texts of Go's alerts.
fn alert_text(alert: AlertDescription) -> String {
    let text = match alert {
        AlertDescription::CloseNotify => "close notify",
        AlertDescription::UnexpectedMessage => "unexpected message",
        AlertDescription::BadRecordMac => "bad record MAC",
        AlertDescription::RecordOverflow => "record overflow",
        AlertDescription::HandshakeFailure => "handshake failure",
        AlertDescription::BadCertificate => "bad certificate",
        AlertDescription::UnsupportedCertificate => "unsupported certificate",
        AlertDescription::CertificateRevoked => "revoked certificate",
        AlertDescription::CertificateExpired => "expired certificate",
        AlertDescription::CertificateUnknown => "unknown certificate",
        AlertDescription::IllegalParameter => "illegal parameter",
        AlertDescription::UnknownCA => "unknown certificate authority",
        AlertDescription::AccessDenied => "access denied",
        AlertDescription::DecodeError => "error decoding message",
        AlertDescription::DecryptError => "error decrypting message",
        AlertDescription::ProtocolVersion => "protocol version not supported",
        AlertDescription::InsufficientSecurity => "insufficient security level",
        AlertDescription::InternalError => "internal error",
        AlertDescription::UserCanceled => "user canceled",
        AlertDescription::NoApplicationProtocol => "no application protocol",
        AlertDescription::UnrecognisedName => "unrecognized name",
        AlertDescription::CertificateRequired => "certificate required",
        other => return format!("alert({})", u8::from(other)),
    };
    text.to_owned()
}
