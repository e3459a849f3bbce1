//! The keys of one method: what signs, and what checks.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, ParsedPublicKey, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;

use super::method::Family;
use super::{AuthError, Method};

/// What signs tokens.
pub(super) enum Signer {
    Hmac(Box<hmac::Key>),
    Rsa(Box<RsaKeyPair>, &'static dyn RsaEncoding),
    Ecdsa(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
}

/// What checks them.
pub(super) enum Verifier {
    Hmac(Box<hmac::Key>),
    Public(Box<ParsedPublicKey>),
}

/// Makes the keys of a method of the contents of its two files, of which one may be empty. Without the private one nothing
/// can be signed.
///
/// # Errors
/// Where there is no key, one is none of the method's, or they are not of one pair.
pub(super) fn read(
    method: Method,
    private: &[u8],
    public: &[u8],
) -> Result<(Option<Signer>, Verifier), AuthError> {
    let name = match method.family() {
        Family::Hmac(_) if private.is_empty() => return Err(AuthError::MissingKey),
        Family::Hmac(algorithm) => {
            let key = Box::new(hmac::Key::new(algorithm, private));
            return Ok((Some(Signer::Hmac(key.clone())), Verifier::Hmac(key)));
        }
        Family::Rsa(..) => "RSA",
        Family::Ecdsa(..) => "ECDSA",
        Family::Ed25519(_) => "Ed25519",
    };
    let of = |side| AuthError::Key { family: name, side };
    let signer = match private {
        [] => None,
        private => Some(Signer::parse(method, &pem(private)?).ok_or(of("private"))?),
    };
    let given = match public {
        [] => None,
        public => Some(Verifier::parse(method, &public_key(pem(public)?)).ok_or(of("public"))?),
    };
    let verifier = match (&signer, given) {
        (None, None) => return Err(AuthError::MissingKey),
        (_, Some(given)) => given,
        (Some(signer), None) => {
            let key = signer.public_key().ok_or(of("private"))?;
            Verifier::parse(method, &key).ok_or(of("private"))?
        }
    };
    if let Some(signer) = &signer {
        // Two keys belong together if the one takes what the other signs.
        const PROBE: &[u8] = b"one pair";
        let signature = signer.sign(PROBE).ok_or(of("private"))?;
        if !verifier.accepts(PROBE, &signature) {
            return Err(AuthError::Mismatch);
        }
    }
    Ok((signer, verifier))
}

impl Signer {
    fn parse(method: Method, der: &[u8]) -> Option<Signer> {
        match method.family() {
            Family::Hmac(_) => None,
            Family::Rsa(encoding, _) => {
                let pair = RsaKeyPair::from_der(der).or_else(|_| RsaKeyPair::from_pkcs8(der));
                Some(Signer::Rsa(Box::new(pair.ok()?), encoding))
            }
            Family::Ecdsa(algorithm, _) => {
                let pair = EcdsaKeyPair::from_private_key_der(algorithm, der);
                Some(Signer::Ecdsa(Box::new(pair.ok()?)))
            }
            Family::Ed25519(_) => {
                Some(Signer::Ed25519(Box::new(Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?)))
            }
        }
    }

    /// The public key with its algorithm, DER.
    fn public_key(&self) -> Option<Vec<u8>> {
        let der = match self {
            Signer::Hmac(_) => return None,
            Signer::Rsa(pair, _) => pair.public_key().as_der(),
            Signer::Ecdsa(pair) => pair.public_key().as_der(),
            Signer::Ed25519(pair) => pair.public_key().as_der(),
        };
        Some(der.ok()?.as_ref().to_vec())
    }

    /// Signs; `None` where the library refuses.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        Some(match self {
            Signer::Hmac(key) => hmac::sign(key, message).as_ref().to_vec(),
            Signer::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature).ok()?;
                signature
            }
            Signer::Ecdsa(pair) => pair.sign(&random, message).ok()?.as_ref().to_vec(),
            Signer::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        })
    }
}

impl Verifier {
    fn parse(method: Method, key: &[u8]) -> Option<Verifier> {
        let algorithm = match method.family() {
            Family::Hmac(_) => return None,
            Family::Rsa(_, algorithm) | Family::Ecdsa(_, algorithm) | Family::Ed25519(algorithm) => algorithm,
        };
        Some(Verifier::Public(Box::new(ParsedPublicKey::new(algorithm, key).ok()?)))
    }

    /// Whether this is a signature of the message.
    pub(super) fn accepts(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Verifier::Hmac(key) => hmac::verify(key, message, signature).is_ok(),
            Verifier::Public(key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}

/// The key of a certificate, or what was given, which is a key then.
fn public_key(der: Vec<u8>) -> Vec<u8> {
    match tls::Certificate::parse(&CertificateDer::from(&der[..])) {
        Ok(certificate) => certificate.public_key().to_vec(),
        Err(_) => der,
    }
}

/// The first block of a PEM file, whatever it is called, as in etcd; but for the parameters that OpenSSL writes before a key.
fn pem(text: &[u8]) -> Result<Vec<u8>, AuthError> {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines().map(str::trim_end);
    loop {
        let mut named =
            lines.by_ref().filter_map(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
        let name = named.next().ok_or(AuthError::NoPem)?.to_owned();
        let end = format!("-----END {name}-----");
        let mut body = String::new();
        let mut is_whole = false;
        for line in lines.by_ref() {
            is_whole = line == end;
            if is_whole {
                break;
            }
            // Headers come before the body.
            if !line.contains(':') {
                body.push_str(line);
            }
        }
        if !is_whole {
            return Err(AuthError::NoPem);
        }
        if name != "EC PARAMETERS" {
            return STANDARD.decode(body).map_err(|_| AuthError::NoPem);
        }
    }
}
