//! Who asks, and how that is found out: tokens, passwords, names of certificates.
//!
//! Users, roles and what they may do are replicated (`store::auth`). What is here belongs to one member and one run of it:
//! the simple tokens that have been given out, the keys that sign the others, and where passwords are hashed.

mod asker;
mod jwt;
mod keys;
mod method;
mod options;
mod passwords;
mod simple;

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::log;

pub use asker::{Access, Asker, Credentials, Who};
pub use jwt::{Claims, Jwt};
pub use method::Method;
pub use options::{JwtOptions, Settings, TokenOptions};
pub use passwords::{Passwords, TOO_LONG};
pub use simple::SimpleTokens;

/// Why `--auth-token` can't be started with. The texts are etcd's where etcd has one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuthError {
    /// It is not understood, or a file can't be read.
    #[error("auth: invalid auth options")]
    Options,
    /// There is no key.
    #[error("auth: missing key data")]
    MissingKey,
    /// The two keys are not of one pair.
    #[error("auth: public and private keys don't match")]
    Mismatch,
    /// A file is not of PEM.
    #[error("invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key")]
    NoPem,
    /// A key is none of the method's.
    #[error("key is not a valid {family} {side} key")]
    Key {
        /// What the method works with.
        family: &'static str,
        /// Which of the two.
        side: &'static str,
    },
}

/// Where tokens come from, ready to be used.
#[derive(Debug)]
pub enum Tokens {
    /// Drawn at random, and known to the members.
    Simple(SimpleTokens),
    /// Signed.
    Jwt(Arc<Jwt>),
    /// There are none.
    None,
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tokens::Simple(tokens) => {
                write!(f, "simple, good for {} s after each use", tokens.ttl().as_secs())
            }
            Tokens::Jwt(jwt) => jwt.fmt(f),
            Tokens::None => f.write_str("none: nobody can log in"),
        }
    }
}

impl Tokens {
    /// Reads the keys, if there are any.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub fn new(settings: &Settings) -> Result<Tokens, AuthError> {
        Ok(match &settings.tokens {
            TokenOptions::Simple => {
                // A warning in etcd; but most members have no users.
                log::info!("simple token is not cryptographically signed");
                Tokens::Simple(SimpleTokens::new(settings.token_ttl))
            }
            TokenOptions::Jwt(options) => Tokens::Jwt(Arc::new(Jwt::read(options)?)),
            TokenOptions::None => Tokens::None,
        })
    }

    /// The same for a member that is opened anew: with the same keys, and no simple token given out yet. What was applied to
    /// it meanwhile may have ended any.
    pub fn renewed(&self) -> Tokens {
        match self {
            Tokens::Simple(tokens) => Tokens::Simple(SimpleTokens::new(tokens.ttl())),
            Tokens::Jwt(jwt) => Tokens::Jwt(Arc::clone(jwt)),
            Tokens::None => Tokens::None,
        }
    }
}
