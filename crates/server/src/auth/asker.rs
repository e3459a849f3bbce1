//! Who asks, for one call.

use std::fmt;
use std::sync::{Arc, Mutex};

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use raft::Time;
use sha2::{Digest as _, Sha256};
use store::{Auth, AuthChange, Caller};
use wire::{ApiError, Code, Status};

use super::{Passwords, SimpleTokens, Tokens};
use crate::clock::{self, Clock};
use crate::log;

/// Where clients put a token; `authorization` is looked at where there is none.
const TOKEN: HeaderName = HeaderName::from_static("token");
/// What the JSON gateway adds to what it passes on; its own certificate is nobody's name.
const GATEWAY: HeaderName = HeaderName::from_static("grpcgateway-accept");
const BEARER: &str = "Bearer ";

/// Lines a second about tokens that are refused.
const REFUSALS_TOLD_MAX: u32 = 10;

/// What etcd says where a member has no key to sign with.
const VERIFY_ONLY: &str = "auth: token signing attempted with verify-only key";

/// What a call brings along to say who asks.
#[derive(Clone, Default)]
pub struct Credentials {
    token: Option<HeaderValue>,
    certified: Option<Arc<str>>,
}

impl fmt::Debug for Credentials {
    /// The token is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_token = self.token.is_some();
        f.debug_struct("Credentials")
            .field("has_token", &has_token)
            .field("certified", &self.certified)
            .finish()
    }
}

impl Credentials {
    /// Of a call with these headers, on a connection whose client has shown a certificate of this name.
    pub fn of(headers: &HeaderMap, certified: Option<&Arc<str>>) -> Credentials {
        let token = headers.get(TOKEN).or_else(|| headers.get(AUTHORIZATION)).cloned();
        let certified = certified.filter(|_| !headers.contains_key(GATEWAY)).cloned();
        Credentials { token, certified }
    }

    /// Of another member's request, which passes on the token of its caller.
    pub fn of_token(token: &str) -> Credentials {
        Credentials { token: HeaderValue::from_str(token).ok(), certified: None }
    }

    /// The same for a call that may take long: a token as it came holds on to all headers of its call.
    #[must_use]
    pub fn detached(&self) -> Credentials {
        let token = self.token.as_ref().and_then(|token| HeaderValue::from_bytes(token.as_bytes()).ok());
        Credentials { token, certified: self.certified.clone() }
    }

    /// Bytes that it keeps for its call alone.
    pub fn bytes(&self) -> usize {
        self.token.as_ref().map_or(0, HeaderValue::len)
    }

    /// The token as it came, to be passed on.
    pub fn token(&self) -> Option<&str> {
        std::str::from_utf8(self.token.as_ref()?.as_bytes()).ok()
    }

    /// The index that has to be applied before its token is known; 0 for none. A token names the entry before that of its
    /// login: etcd waits for that one, and may refuse a token that it does not know yet.
    pub fn awaited_index(&self) -> u64 {
        let token = self.token().map(bare);
        token.and_then(SimpleTokens::index).map_or(0, |index| index.saturating_add(1))
    }
}

fn bare(token: &str) -> &str {
    token.strip_prefix(BEARER).unwrap_or(token)
}

/// Who asks, as of which auth revision.
#[derive(Clone, Debug, Default)]
pub struct Asker {
    /// `None` for nobody. A certificate without a name is somebody, with an empty one.
    name: Option<Arc<str>>,
    revision: u64,
}

impl Asker {
    /// The same, borrowed.
    pub fn caller(&self) -> Caller<'_> {
        match &self.name {
            Some(name) => Caller { name, revision: self.revision },
            None => Caller::NOBODY,
        }
    }

    /// The auth revision that the call counts with; 0 for nobody.
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

/// Who asks, and what users may do at that moment.
#[derive(Clone, Debug)]
pub struct Who {
    auth: Arc<Auth>,
    asker: Asker,
}

impl Who {
    /// What users may do.
    pub fn auth(&self) -> &Auth {
        &self.auth
    }

    /// Who asks.
    pub fn asker(&self) -> &Asker {
        &self.asker
    }

    /// The same, borrowed.
    pub fn caller(&self) -> Caller<'_> {
        self.asker.caller()
    }

    /// Whether anybody asks, where that matters.
    ///
    /// # Errors
    /// `UserEmpty`.
    pub fn check_known(&self) -> Result<(), ApiError> {
        let is_needed = self.auth.is_enabled();
        if is_needed && self.asker.name.is_none() { Err(ApiError::UserEmpty) } else { Ok(()) }
    }

    /// Whether the one who asks has role root.
    ///
    /// # Errors
    /// `UserEmpty`, `UserNotFound`, `PermissionDenied`.
    pub fn check_admin(&self) -> Result<(), ApiError> {
        self.auth.check_admin(self.caller())
    }

    /// Whether a range may be read.
    ///
    /// # Errors
    /// `UserEmpty`, `AuthOldRevision`, `PermissionDenied`.
    pub fn check_range(&self, key: &[u8], range_end: &[u8]) -> Result<(), ApiError> {
        self.auth.check_range(self.caller(), key, range_end)
    }

    /// Whether a key may be written.
    ///
    /// # Errors
    /// As [`Who::check_range`].
    pub fn check_put(&self, key: &[u8]) -> Result<(), ApiError> {
        self.auth.check_put(self.caller(), key)
    }
}

/// How a member finds out who asks.
#[derive(Debug)]
pub struct Access {
    tokens: Tokens,
    /// Where passwords are hashed.
    pub passwords: Passwords,
    refusals: Refusals,
    clock: Clock,
}

/// Tokens that were refused. Anybody can send such, so not each is told of.
#[derive(Debug, Default)]
struct Refusals(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// Since when lines are counted.
    since: Time,
    lines: u32,
    left_out: u64,
}

impl Refusals {
    fn tell(&self, now: Time, token: &str) {
        let mut told = self.0.lock().expect("no thread panics while it holds this lock");
        if now >= told.since.plus_ms(1000) {
            (told.since, told.lines) = (now, 0);
        }
        if told.lines >= REFUSALS_TOLD_MAX {
            told.left_out += 1;
            return;
        }
        told.lines += 1;
        let left_out = std::mem::take(&mut told.left_out);
        drop(told);
        let fingerprint = fingerprint(token);
        match left_out {
            0 => log::warn!("invalid auth token", "token-fingerprint" => fingerprint),
            _ => log::warn!(
                "invalid auth token",
                "token-fingerprint" => fingerprint,
                "others-before" => left_out,
            ),
        }
    }
}

impl Access {
    /// `bcrypt_cost`: from 4 to 31. `clock`: that of the member.
    pub fn new(tokens: Tokens, bcrypt_cost: u32, clock: Clock) -> Access {
        let passwords = Passwords::new(bcrypt_cost);
        Access { tokens, passwords, refusals: Refusals::default(), clock }
    }

    /// Who asks, if users count: by a token, else by a certificate's name.
    ///
    /// # Errors
    /// `InvalidAuthToken`.
    pub fn who(&self, auth: Arc<Auth>, credentials: &Credentials) -> Result<Who, ApiError> {
        if !auth.is_enabled() {
            return Ok(Who { auth, asker: Asker::default() });
        }
        let asker = match &credentials.token {
            Some(token) => self.holder(token.as_bytes(), auth.revision())?,
            None => match &credentials.certified {
                Some(name) => Asker { name: Some(Arc::clone(name)), revision: auth.revision() },
                None => Asker::default(),
            },
        };
        Ok(Who { auth, asker })
    }

    fn holder(&self, token: &[u8], revision: u64) -> Result<Asker, ApiError> {
        let text = std::str::from_utf8(token).map(bare).unwrap_or_default();
        let asker = match &self.tokens {
            // It counts as of now, whenever it was given out.
            Tokens::Simple(tokens) => {
                tokens.holder(self.clock.now(), text).map(|name| Asker { name: Some(name), revision })
            }
            Tokens::Jwt(jwt) => match jwt.check(clock::unix_ns(), text) {
                Ok(claims) => Some(Asker { name: Some(claims.user), revision: claims.revision }),
                Err(error) => {
                    log::debug!("failed to parse a JWT token", "error" => error);
                    None
                }
            },
            Tokens::None => None,
        };
        asker.ok_or_else(|| {
            self.refusals.tell(self.clock.now(), text);
            ApiError::InvalidAuthToken
        })
    }

    /// Whether there are tokens that a member knows once it has applied their login.
    pub fn has_simple_tokens(&self) -> bool {
        matches!(self.tokens, Tokens::Simple(_))
    }

    /// What has been applied: who has got a token, and whose are over. To be called before anybody sees that it is applied.
    pub fn applied(&self, changes: &[AuthChange]) {
        let Tokens::Simple(tokens) = &self.tokens else { return };
        for change in changes {
            match change {
                AuthChange::LoggedIn { user, token } => tokens.give(self.clock.now(), user, token),
                AuthChange::UserChanged { user } => tokens.end_of(user),
                AuthChange::Disabled => tokens.end_all(),
                AuthChange::Enabled => {}
            }
        }
    }

    /// What a login is proposed with, of which its token begins: empty unless tokens are simple.
    ///
    /// # Errors
    /// Those of the system's randomness.
    pub fn token_prefix(&self) -> Result<String, Status> {
        match &self.tokens {
            Tokens::Simple(_) => {
                SimpleTokens::draw().map_err(|error| Status::new(Code::Unknown, error.to_string()))
            }
            Tokens::Jwt(_) | Tokens::None => Ok(String::new()),
        }
    }

    /// The token of a login that has been applied as of this auth revision. `simple`: the one that all members know.
    ///
    /// # Errors
    /// Where this member gives out none.
    pub async fn issue(
        self: Arc<Self>,
        user: String,
        revision: u64,
        simple: String,
    ) -> Result<String, Status> {
        match &self.tokens {
            Tokens::Simple(_) => Ok(simple),
            Tokens::None => Err(ApiError::AuthFailed.into()),
            Tokens::Jwt(_) => {
                let access = Arc::clone(&self);
                let sign = move || match &access.tokens {
                    Tokens::Jwt(jwt) => jwt.issue(clock::unix_ns(), &user, revision),
                    Tokens::Simple(_) | Tokens::None => None,
                };
                let signed = self.passwords.run(sign).await?;
                signed.ok_or_else(|| Status::new(Code::Unknown, VERIFY_ONLY))
            }
        }
    }
}

/// What the log shows of a token.
fn fingerprint(token: &str) -> String {
    Sha256::digest(token).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        pairs.collect()
    }

    #[test]
    fn the_first_token_counts() {
        let of = |pairs| Credentials::of(&headers(pairs), None).token().map(|token| bare(token).to_owned());
        assert_eq!(of(&[("token", "a"), ("authorization", "b")]).as_deref(), Some("a"));
        assert_eq!(of(&[("authorization", "Bearer b")]).as_deref(), Some("b"));
        assert_eq!(of(&[("token", "Bearer c")]).as_deref(), Some("c"));
        assert_eq!(of(&[("authorization", "bearer d")]).as_deref(), Some("bearer d"));
        assert_eq!(of(&[("token", "")]).as_deref(), Some(""));
        assert_eq!(of(&[("x-token", "a")]), None);
    }

    #[test]
    fn a_gateway_has_no_name() {
        let name: Arc<str> = "client".into();
        assert_eq!(Credentials::of(&headers(&[]), Some(&name)).certified, Some(Arc::clone(&name)));
        assert_eq!(Credentials::of(&headers(&[("grpcgateway-accept", "x")]), Some(&name)).certified, None);
    }

    #[test]
    fn a_token_is_not_shown() {
        let shown = format!("{:?}", Credentials::of_token("Bearer secret.7"));
        assert!(!shown.contains("secret"), "{shown}");
        assert_eq!(Credentials::of_token("Bearer secret.7").awaited_index(), 8);
        assert_eq!(Credentials::of_token(&format!("secret.{}", u64::MAX)).awaited_index(), u64::MAX);
        assert_eq!(Credentials::of_token("a.b.7").awaited_index(), 0);
        assert_eq!(fingerprint("secret"), "2bb80d537b1d");
    }

    #[test]
    fn of_many_refused_tokens_only_some_are_told_of() {
        let refusals = Refusals::default();
        let tell = |ms, times| (0..times).for_each(|_| refusals.tell(Time::from_ms(ms), "x"));
        tell(0, 25);
        let told = |refusals: &Refusals| {
            let told = refusals.0.lock().unwrap();
            (told.lines, told.left_out)
        };
        assert_eq!(told(&refusals), (10, 15));
        tell(1_000, 1);
        assert_eq!(told(&refusals), (1, 0), "the next line says how many were left out");
    }
}
