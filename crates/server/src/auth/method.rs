//! The ways in which a token may be signed.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{self as sig, EcdsaSigningAlgorithm, RsaEncoding, VerificationAlgorithm};

/// How tokens are signed, by the names that RFC 7518 and RFC 8037 give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub enum Method {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    Hs256,
    Hs384,
    Hs512,
    EdDsa,
}

/// What a method's keys are, and what is done with them.
pub(super) enum Family {
    /// One secret for both.
    Hmac(hmac::Algorithm),
    Rsa(&'static dyn RsaEncoding, &'static dyn VerificationAlgorithm),
    Ecdsa(&'static EcdsaSigningAlgorithm, &'static dyn VerificationAlgorithm),
    Ed25519(&'static dyn VerificationAlgorithm),
}

impl Method {
    const ALL: [Method; 13] = [
        Method::Rs256,
        Method::Rs384,
        Method::Rs512,
        Method::Ps256,
        Method::Ps384,
        Method::Ps512,
        Method::Es256,
        Method::Es384,
        Method::Es512,
        Method::Hs256,
        Method::Hs384,
        Method::Hs512,
        Method::EdDsa,
    ];

    /// The name in a token's header and in `sign-method`.
    pub fn name(self) -> &'static str {
        match self {
            Method::Rs256 => "RS256",
            Method::Rs384 => "RS384",
            Method::Rs512 => "RS512",
            Method::Ps256 => "PS256",
            Method::Ps384 => "PS384",
            Method::Ps512 => "PS512",
            Method::Es256 => "ES256",
            Method::Es384 => "ES384",
            Method::Es512 => "ES512",
            Method::Hs256 => "HS256",
            Method::Hs384 => "HS384",
            Method::Hs512 => "HS512",
            Method::EdDsa => "EdDSA",
        }
    }

    /// The method of this name.
    pub fn from_name(name: &str) -> Option<Method> {
        Method::ALL.into_iter().find(|method| method.name() == name)
    }

    pub(super) fn family(self) -> Family {
        match self {
            Method::Rs256 => Family::Rsa(&sig::RSA_PKCS1_SHA256, &sig::RSA_PKCS1_2048_8192_SHA256),
            Method::Rs384 => Family::Rsa(&sig::RSA_PKCS1_SHA384, &sig::RSA_PKCS1_2048_8192_SHA384),
            Method::Rs512 => Family::Rsa(&sig::RSA_PKCS1_SHA512, &sig::RSA_PKCS1_2048_8192_SHA512),
            Method::Ps256 => Family::Rsa(&sig::RSA_PSS_SHA256, &sig::RSA_PSS_2048_8192_SHA256),
            Method::Ps384 => Family::Rsa(&sig::RSA_PSS_SHA384, &sig::RSA_PSS_2048_8192_SHA384),
            Method::Ps512 => Family::Rsa(&sig::RSA_PSS_SHA512, &sig::RSA_PSS_2048_8192_SHA512),
            Method::Es256 => {
                Family::Ecdsa(&sig::ECDSA_P256_SHA256_FIXED_SIGNING, &sig::ECDSA_P256_SHA256_FIXED)
            }
            Method::Es384 => {
                Family::Ecdsa(&sig::ECDSA_P384_SHA384_FIXED_SIGNING, &sig::ECDSA_P384_SHA384_FIXED)
            }
            Method::Es512 => {
                Family::Ecdsa(&sig::ECDSA_P521_SHA512_FIXED_SIGNING, &sig::ECDSA_P521_SHA512_FIXED)
            }
            Method::Hs256 => Family::Hmac(hmac::HMAC_SHA256),
            Method::Hs384 => Family::Hmac(hmac::HMAC_SHA384),
            Method::Hs512 => Family::Hmac(hmac::HMAC_SHA512),
            Method::EdDsa => Family::Ed25519(&sig::ED25519),
        }
    }
}
