//! What the settings say about tokens and passwords.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{AuthError, Method};
use crate::config::duration;
use crate::log;

/// How long a simple token is good that is not used, and a signed one in any case; etcd's.
const TTL_DEFAULT: Duration = Duration::from_secs(300);
/// The costs that there are, and etcd's default.
const COST_MIN: u32 = 4;
const COST_MAX: u32 = 31;
const COST_DEFAULT: u32 = 10;

/// What the settings say about tokens and passwords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `--auth-token`.
    pub tokens: TokenOptions,
    /// `--auth-token-ttl`.
    pub token_ttl: Duration,
    /// `--bcrypt-cost`, from 4 to 31.
    pub bcrypt_cost: u32,
}

/// Where tokens come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenOptions {
    /// Drawn at random.
    Simple,
    /// Signed.
    Jwt(JwtOptions),
    /// There are none.
    None,
}

/// How tokens are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtOptions {
    /// By which method.
    pub method: Method,
    /// How long they are good, nanoseconds. A negative one makes tokens that are good for nothing, as in etcd.
    pub ttl_ns: i64,
    /// The file of the key that checks; empty for none.
    pub public_file: String,
    /// The file of the key that signs, or of the secret; empty for none.
    pub private_file: String,
}

impl Settings {
    /// `token`, `ttl_s` and `cost` as they are given.
    ///
    /// # Errors
    /// See [`AuthError`]. Files are read later.
    pub fn new(token: &str, ttl_s: u64, cost: u64) -> Result<Settings, AuthError> {
        Ok(Settings {
            tokens: TokenOptions::parse(token)?,
            token_ttl: token_ttl(ttl_s),
            bcrypt_cost: bcrypt_cost(cost),
        })
    }
}

/// None is etcd's default, and so is what overflows its numbers.
fn token_ttl(ttl_s: u64) -> Duration {
    let fits = i64::try_from(ttl_s).is_ok_and(|ttl_s| ttl_s.checked_mul(1_000_000_000).is_some());
    if ttl_s == 0 || !fits { TTL_DEFAULT } else { Duration::from_secs(ttl_s) }
}

fn bcrypt_cost(given: u64) -> u32 {
    match u32::try_from(given) {
        Ok(cost @ COST_MIN..=COST_MAX) => cost,
        _ => {
            log::warn!(
                "use default bcrypt cost instead of the invalid given cost",
                "min-cost" => COST_MIN,
                "max-cost" => COST_MAX,
                "default-cost" => COST_DEFAULT,
                "given-cost" => given,
            );
            COST_DEFAULT
        }
    }
}

impl TokenOptions {
    /// Reads `--auth-token`: a kind, then options of the form `name=value`, by commas.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub fn parse(given: &str) -> Result<TokenOptions, AuthError> {
        let mut words = given.split(',');
        let kind = words.next().unwrap_or_default();
        let mut options = BTreeMap::new();
        for word in words {
            let pair = word.split_once('=').filter(|(_, value)| !value.contains('='));
            let (name, value) = pair.ok_or(AuthError::Options)?;
            if options.insert(name, value).is_some() {
                return Err(AuthError::Options);
            }
        }
        match kind {
            "simple" => Ok(TokenOptions::Simple),
            "" => Ok(TokenOptions::None),
            "jwt" => Ok(TokenOptions::Jwt(JwtOptions::new(&options)?)),
            _ => Err(AuthError::Options),
        }
    }
}

impl JwtOptions {
    fn new(options: &BTreeMap<&str, &str>) -> Result<JwtOptions, AuthError> {
        let of = |name: &str| options.get(name).copied().unwrap_or_default();
        let method = Method::from_name(of("sign-method")).ok_or(AuthError::Options)?;
        let ttl_ns = match of("ttl") {
            "" => TTL_DEFAULT.as_nanos() as i64,
            ttl => duration::parse(ttl).ok_or(AuthError::Options)?,
        };
        let (public_file, private_file) = (of("pub-key").to_owned(), of("priv-key").to_owned());
        if public_file.is_empty() && private_file.is_empty() {
            return Err(AuthError::MissingKey);
        }
        let is_known = |name: &str| ["sign-method", "pub-key", "priv-key", "ttl"].contains(&name);
        let unknown: Vec<String> =
            options.keys().filter(|name| !is_known(name)).map(|name| (*name).to_owned()).collect();
        if !unknown.is_empty() {
            log::warn!("unknown JWT options", "keys" => unknown);
        }
        Ok(JwtOptions { method, ttl_ns, public_file, private_file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_as_etcd_reads_them() {
        let refused = |given: &str| TokenOptions::parse(given).unwrap_err();
        assert_eq!(TokenOptions::parse("simple"), Ok(TokenOptions::Simple));
        assert_eq!(TokenOptions::parse("simple,a=b"), Ok(TokenOptions::Simple));
        assert_eq!(TokenOptions::parse(""), Ok(TokenOptions::None));
        for bad in [
            "nonsense",
            "jwt",
            "jwt,",
            "jwt,sign-method",
            "jwt,sign-method=RS256=RS256",
            "jwt,sign-method=RS257",
            "jwt,sign-method=rs256",
            "jwt,sign-method=RS256,sign-method=RS256",
            "jwt,sign-method=RS256,priv-key=x,ttl=soon",
            "simple,x",
        ] {
            assert_eq!(refused(bad), AuthError::Options, "{bad}");
        }
        assert_eq!(refused("jwt,sign-method=RS256"), AuthError::MissingKey);
        assert_eq!(
            TokenOptions::parse("jwt,sign-method=ES512,priv-key=a,pub-key=b,ttl=-2s,other=x"),
            Ok(TokenOptions::Jwt(JwtOptions {
                method: Method::Es512,
                ttl_ns: -2_000_000_000,
                public_file: "b".to_owned(),
                private_file: "a".to_owned(),
            }))
        );
    }

    #[test]
    fn costs_and_lives_out_of_range_are_the_defaults() {
        let of = |ttl_s, cost| {
            let settings = Settings::new("simple", ttl_s, cost).unwrap();
            (settings.token_ttl.as_secs(), settings.bcrypt_cost)
        };
        assert_eq!(of(1, 4), (1, 4));
        assert_eq!(of(0, 3), (300, 10));
        assert_eq!(of(u64::MAX, 32), (300, 10));
        assert_eq!(of(4_294_967_296, 4_294_967_300), (4_294_967_296, 10));
        assert_eq!(of(9_223_372_036, 31), (9_223_372_036, 31));
        assert_eq!(of(9_223_372_037, 0), (300, 10));
    }
}
