//! Signed tokens (RFC 7519): who, as of which auth revision, and until when.
//!
//! One method is configured, and a token that names another one is refused before its signature is looked at. The library's
//! primitives are enough for this little; a crate for tokens has no ES512, reads keys by other rules than etcd, and takes
//! nine more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::{fmt, fs};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::keys::{self, Signer, Verifier};
use super::{AuthError, JwtOptions, Method};
use crate::log;

/// Tokens whose signatures were found good that are remembered. A client shows the same one with each call.
const KNOWN_MAX: usize = 1 << 12;
/// Longer ones are none of ours.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// Makes and checks signed tokens.
pub struct Jwt {
    method: Method,
    ttl_ns: i64,
    signer: Option<Signer>,
    verifier: Verifier,
    known: Mutex<HashMap<Box<str>, Claims>>,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The user.
    pub user: Arc<str>,
    /// The auth revision at which it was issued.
    pub revision: u64,
    /// Good before this, nanoseconds since 1970; `None` for ever.
    expires_ns: Option<i128>,
    /// Good from this on.
    begins_ns: Option<i128>,
}

impl fmt::Debug for Jwt {
    /// Tokens are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt").field("method", &self.method).finish_non_exhaustive()
    }
}

impl fmt::Display for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = self.method.name();
        match self.signer {
            Some(_) => write!(f, "signed by {method}"),
            None => write!(
                f,
                "signed by {method}; this member has no private key, so it checks them and makes none"
            ),
        }
    }
}

impl Jwt {
    /// Reads the keys.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub fn read(options: &JwtOptions) -> Result<Jwt, AuthError> {
        let read = |path: &str| match path {
            "" => Ok(Vec::new()),
            path => fs::read(path).map_err(|error| {
                let error = format!("open {path}: {}", crate::go_error(&error));
                log::error!("problem loading JWT options", "error" => error);
                AuthError::Options
            }),
        };
        let (public, private) = (read(&options.public_file)?, read(&options.private_file)?);
        Jwt::new(options.method, options.ttl_ns, &private, &public)
    }

    /// With the contents of the two files, of which one may be empty.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub fn new(method: Method, ttl_ns: i64, private: &[u8], public: &[u8]) -> Result<Jwt, AuthError> {
        let (signer, verifier) = keys::read(method, private, public)?;
        Ok(Jwt { method, ttl_ns, signer, verifier, known: Mutex::default() })
    }

    /// Issues a token; `None` where there is no key to sign with. `now_ns`: since 1970.
    pub fn issue(&self, now_ns: i128, user: &str, revision: u64) -> Option<String> {
        let signer = self.signer.as_ref()?;
        let expires_s = (now_ns + i128::from(self.ttl_ns)).div_euclid(1_000_000_000);
        let header = format!(r#"{{"alg":"{}","typ":"JWT"}}"#, self.method.name());
        let user = Value::from(user);
        let claims = format!(r#"{{"exp":{expires_s},"revision":{revision},"username":{user}}}"#);
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = signer.sign(signed.as_bytes())?;
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// What a token says that is good now, or why it is none. `now_ns`: since 1970.
    ///
    /// # Errors
    /// A text for the log.
    pub fn check(&self, now_ns: i128, token: &str) -> Result<Claims, &'static str> {
        let known = self.known().get(token).cloned();
        let claims = match known {
            Some(claims) => claims,
            None => self.verify(token)?,
        };
        if claims.expires_ns.is_some_and(|expires| now_ns >= expires) {
            self.known().remove(token);
            return Err("token has invalid claims: token is expired");
        }
        if claims.begins_ns.is_some_and(|begins| now_ns < begins) {
            return Err("token has invalid claims: token is not valid yet");
        }
        let mut known = self.known();
        if !known.contains_key(token) {
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
            known.insert(token.into(), claims.clone());
        }
        Ok(claims)
    }

    fn verify(&self, token: &str) -> Result<Claims, &'static str> {
        const MALFORMED: &str = "token is malformed";
        if token.len() > TOKEN_BYTES_MAX {
            return Err(MALFORMED);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(MALFORMED)?;
        let (header, claims) = signed.split_once('.').ok_or(MALFORMED)?;
        let json = |part: &str| -> Option<Value> {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
        };
        let header = json(header).ok_or(MALFORMED)?;
        if header.get("alg").and_then(Value::as_str) != Some(self.method.name()) {
            return Err("token is unverifiable: error while executing keyfunc: invalid signing method");
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| MALFORMED)?;
        if !self.verifier.accepts(signed.as_bytes(), &signature) {
            return Err("token signature is invalid");
        }
        Claims::read(&json(claims).ok_or(MALFORMED)?)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Box<str>, Claims>> {
        self.known.lock().expect("no thread panics while it holds this lock")
    }
}

impl Claims {
    fn read(claims: &Value) -> Result<Claims, &'static str> {
        let date = |name| match claims.get(name) {
            None | Some(Value::Null) => Ok(None),
            // Nothing to etcd's library.
            Some(Value::Number(number)) if number.as_f64() == Some(0.0) => Ok(None),
            Some(Value::Number(number)) => Ok(number.as_f64().map(|seconds| (seconds * 1e9) as i128)),
            Some(_) => Err("token has invalid claims: a date is invalid"),
        };
        let (expires_ns, begins_ns) = (date("exp")?, date("nbf")?);
        let user = claims.get("username").and_then(Value::as_str);
        let user = user.ok_or("failed to obtain user claims from jwt token")?.into();
        let revision = claims.get("revision").and_then(Value::as_f64);
        let revision = revision.ok_or("failed to obtain revision claims from jwt token")? as u64;
        Ok(Claims { user, revision, expires_ns, begins_ns })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519,
        PKCS_RSA_SHA256, SignatureAlgorithm,
    };

    use super::*;

    const NOW_NS: i128 = 1_800_000_000_000_000_000;
    const TTL_NS: i64 = 300_000_000_000;
    const SECRET: &[u8] = b"a secret of some length";

    /// The two files of a new key.
    fn pair(algorithm: &'static SignatureAlgorithm) -> (Vec<u8>, Vec<u8>) {
        let pair = KeyPair::generate_for(algorithm).unwrap();
        (pair.serialize_pem().into_bytes(), pair.public_key_pem().into_bytes())
    }

    fn of_method(method: Method) -> (Vec<u8>, Vec<u8>) {
        match method.name() {
            "ES256" => pair(&PKCS_ECDSA_P256_SHA256),
            "ES384" => pair(&PKCS_ECDSA_P384_SHA384),
            "ES512" => pair(&PKCS_ECDSA_P521_SHA512),
            "EdDSA" => pair(&PKCS_ED25519),
            name if name.starts_with("HS") => (SECRET.to_vec(), Vec::new()),
            _ => pair(&PKCS_RSA_SHA256),
        }
    }

    const METHODS: [&str; 13] = [
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "HS256", "HS384",
        "HS512", "EdDSA",
    ];

    #[test]
    fn each_method_signs_and_checks() {
        for name in METHODS {
            let method = Method::from_name(name).unwrap();
            let (private, public) = of_method(method);
            let jwt = Jwt::new(method, TTL_NS, &private, &public).unwrap();
            let token = jwt.issue(NOW_NS, "us\"er", 7).unwrap();
            for _ in 0..2 {
                let claims = jwt.check(NOW_NS, &token).unwrap();
                assert_eq!((&*claims.user, claims.revision), ("us\"er", 7), "{name}");
            }
            assert!(jwt.check(NOW_NS + i128::from(TTL_NS) - 1, &token).is_ok(), "{name}");
            assert!(jwt.check(NOW_NS + i128::from(TTL_NS), &token).is_err(), "{name}");
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let (header, claims) = signed.split_once('.').unwrap();
            let other = URL_SAFE_NO_PAD.encode(r#"{"exp":9999999999,"revision":9,"username":"root"}"#);
            let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
            for bad in [
                format!("{header}.{other}.{signature}"),
                format!("{none}.{claims}."),
                format!("{none}.{claims}.{signature}"),
                format!("{token}.x"),
                format!("{token}="),
                signed.to_owned(),
                String::new(),
            ] {
                assert!(jwt.check(NOW_NS, &bad).is_err(), "{name}: {bad}");
            }
            // One of another key.
            let (foreign, public) = match name.starts_with("HS") {
                true => (b"another secret".to_vec(), Vec::new()),
                false => of_method(method),
            };
            let foreign = Jwt::new(method, TTL_NS, &foreign, &public).unwrap();
            assert!(foreign.check(NOW_NS, &token).is_err(), "{name}");
        }
    }

    #[test]
    fn the_public_key_alone_checks_and_makes_none() {
        for name in METHODS.iter().filter(|name| !name.starts_with("HS")) {
            let method = Method::from_name(name).unwrap();
            let (private, public) = of_method(method);
            let issuer = Jwt::new(method, TTL_NS, &private, &[]).unwrap();
            let checker = Jwt::new(method, TTL_NS, &[], &public).unwrap();
            let token = issuer.issue(NOW_NS, "u", 1).unwrap();
            assert!(checker.check(NOW_NS, &token).is_ok(), "{name}");
            assert_eq!(checker.issue(NOW_NS, "u", 1), None);
        }
    }

    #[test]
    fn keys_that_do_not_do() {
        let new = |name, private: &[u8], public: &[u8]| {
            Jwt::new(Method::from_name(name).unwrap(), TTL_NS, private, public).unwrap_err().to_string()
        };
        let (rsa, rsa_public) = pair(&PKCS_RSA_SHA256);
        let (other, other_public) = pair(&PKCS_RSA_SHA256);
        let (p256, p256_public) = pair(&PKCS_ECDSA_P256_SHA256);
        assert_eq!(new("RS256", &rsa, &other_public), "auth: public and private keys don't match");
        assert_eq!(new("RS256", &[], &[]), "auth: missing key data");
        assert_eq!(new("HS256", &[], SECRET), "auth: missing key data");
        assert_eq!(new("RS256", &p256, &[]), "key is not a valid RSA private key");
        assert_eq!(new("PS256", &other, &p256_public), "key is not a valid RSA public key");
        assert_eq!(new("ES256", &rsa, &[]), "key is not a valid ECDSA private key");
        assert_eq!(new("ES384", &p256, &[]), "key is not a valid ECDSA private key", "of another curve");
        assert_eq!(new("EdDSA", &[], &rsa_public), "key is not a valid Ed25519 public key");
        let no_pem = "invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key";
        assert_eq!(new("RS256", b"nonsense", &[]), no_pem);
        assert_eq!(new("RS256", b"-----BEGIN PRIVATE KEY-----\nAAAA\n", &[]), no_pem);
    }

    #[test]
    fn a_certificate_stands_for_its_key() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        let issuer = Jwt::new(Method::Es256, TTL_NS, key.serialize_pem().as_bytes(), &[]).unwrap();
        let checker = Jwt::new(Method::Es256, TTL_NS, &[], certificate.pem().as_bytes()).unwrap();
        assert!(checker.check(NOW_NS, &issuer.issue(NOW_NS, "u", 1).unwrap()).is_ok());
    }

    #[test]
    fn claims_of_other_issuers() {
        let jwt = Jwt::new(Method::Hs256, TTL_NS, SECRET, &[]).unwrap();
        let signed = |claims: &str| {
            let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
            let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
            let signature = jwt.signer.as_ref().unwrap().sign(signed.as_bytes()).unwrap();
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
        };
        let is_good = |claims: &str| jwt.check(NOW_NS, &signed(claims)).is_ok();
        assert!(is_good(r#"{"username":"u","revision":1}"#), "without an end");
        assert!(is_good(r#"{"username":"u","revision":1,"exp":0,"aud":"x","iat":9999999999}"#));
        assert!(is_good(r#"{"username":"u","revision":1.0,"exp":1800000000.5,"nbf":1800000000}"#));
        assert!(!is_good(r#"{"username":"u","revision":1,"exp":1800000000}"#));
        assert!(!is_good(r#"{"username":"u","revision":1,"nbf":1800000001}"#));
        assert!(!is_good(r#"{"username":"u","revision":1,"exp":"never"}"#));
        assert!(!is_good(r#"{"username":"u","revision":"1"}"#));
        assert!(!is_good(r#"{"username":7,"revision":1}"#));
        assert!(!is_good(r#"{"revision":1}"#));
        assert!(!is_good("[]"));
    }
}
