//! Who a client is to the server: the token that goes with its calls, and how it gets another one.

use std::fmt;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use wire::etcdserverpb::AuthenticateRequest;
use wire::{ApiError, Code, Status};

use crate::{Client, Deadline, Error};

/// How often a call is made whose token is refused, and the pause before the third time and later ones: as etcd's own
/// client.
const ATTEMPTS_MAX: u32 = 100;
const PAUSE: Duration = Duration::from_millis(25);

/// How a client says who it is, unless its certificate does.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Logs in with them, and again when the server does not take the token of the last login any more. Without a user
    /// or without a password they say nothing, as with etcd's own client.
    Password {
        /// The user's name.
        user: String,
        /// Their password.
        password: String,
    },
    /// A token that was got elsewhere. It is sent as it is.
    Token(String),
}

/// Names the user; keeps the rest to itself.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credentials::Password { user, .. } => {
                f.debug_struct("Password").field("user", user).finish_non_exhaustive()
            }
            Credentials::Token(_) => f.debug_tuple("Token").finish_non_exhaustive(),
        }
    }
}

/// A client that is somebody. One that is nobody has none, and looks nowhere for a token.
pub(crate) struct Identity {
    kind: Kind,
    held: std::sync::Mutex<Held>,
    /// Who logs in has it, so that many calls that are refused at once make one login.
    turn: tokio::sync::Mutex<()>,
}

enum Kind {
    Login {
        user: String,
        password: String,
    },
    Token,
    /// The user is in the certificate of the connection.
    Certificate,
}

#[derive(Default)]
struct Held {
    /// How many logins there were.
    logins: u64,
    /// What calls carry: nothing before the first login, and where the server does not ask who somebody is.
    token: Option<HeaderValue>,
    /// Whether a call has carried it.
    is_used: bool,
}

impl Identity {
    /// Nothing for a client that is nobody.
    ///
    /// # Errors
    /// Internal, as gRPC has it, for a token that no header can carry.
    pub(crate) fn new(
        credentials: Option<Credentials>,
        has_certificate: bool,
    ) -> Result<Option<Identity>, Error> {
        let (kind, token) = match credentials {
            Some(Credentials::Password { user, password }) if !user.is_empty() && !password.is_empty() => {
                (Kind::Login { user, password }, None)
            }
            Some(Credentials::Token(token)) if !token.is_empty() => (Kind::Token, Some(header(&token)?)),
            _ if has_certificate => (Kind::Certificate, None),
            _ => return Ok(None),
        };
        let held = Held { token, ..Held::default() };
        Ok(Some(Identity { kind, held: held.into(), turn: tokio::sync::Mutex::default() }))
    }

    /// What a call is to carry that leaves now.
    pub(crate) fn token(&self) -> Option<HeaderValue> {
        let mut held = self.held();
        held.is_used = true;
        held.token.clone()
    }

    /// Makes a call that may need a token. It is made again when the server does not take the token, or finds that
    /// users have changed since it looked.
    pub(crate) async fn call<T, F: Future<Output = Result<T, Error>>>(
        &self,
        client: &Client,
        attempt: impl Fn() -> F,
    ) -> Result<T, Error> {
        self.log_in(client).await?;
        let mut attempts = 0;
        loop {
            let logins = self.held().logins;
            attempts += 1;
            match attempt().await {
                Err(error) if attempts < ATTEMPTS_MAX && self.may_help(&error) => {}
                other => return other,
            }
            if attempts > 1 {
                tokio::time::sleep(PAUSE).await;
            }
            self.renew(client, logins).await?;
        }
    }

    /// Logs in, where that has not been done.
    pub(crate) async fn log_in(&self, client: &Client) -> Result<(), Error> {
        match (&self.kind, self.held().logins) {
            (Kind::Login { .. }, 0) => {}
            _ => return Ok(()),
        }
        self.renew(client, 0).await
    }

    /// Has a stream that is opened carry a token that no call has carried: the last one may be too old by now, and what
    /// a stream says about it is not always an error of the stream.
    pub(crate) async fn log_in_for_stream(&self, client: &Client) -> Result<(), Error> {
        let logins = {
            let held = self.held();
            if held.logins > 0 && !held.is_used {
                return Ok(());
            }
            held.logins
        };
        self.renew(client, logins).await
    }

    /// Whether a call that ended so may succeed with another token, or when it is made once more.
    pub(crate) fn may_help(&self, error: &Error) -> bool {
        let is = |known: ApiError| match error {
            // The reason is the text of a status, its code before it.
            Error::WatchCanceled(reason) => reason.ends_with(known.text()),
            error => error.is(known),
        };
        let is_old = || is(ApiError::InvalidAuthToken) || is(ApiError::AuthOldRevision);
        match self.kind {
            Kind::Login { .. } => is_old() || is(ApiError::UserEmpty),
            Kind::Token => false,
            Kind::Certificate => is_old(),
        }
    }

    /// Logs in, unless somebody has done so after the login of this number.
    async fn renew(&self, client: &Client, logins: u64) -> Result<(), Error> {
        let Kind::Login { user, password } = &self.kind else { return Ok(()) };
        let _turn = self.turn.lock().await;
        if self.held().logins != logins {
            return Ok(());
        }
        let request = AuthenticateRequest { name: user.clone(), password: password.clone() };
        let token = match Box::pin(client.authenticate(request, Deadline::NEVER)).await {
            Ok(answer) => Some(header(&answer.token)?),
            // Nobody is asked who they are.
            Err(error) if error.is(ApiError::AuthNotEnabled) => None,
            Err(error) => return Err(error),
        };
        *self.held() = Held { logins: logins + 1, token, is_used: false };
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn header(token: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(token).map_err(|_| {
        let text = "transport: header key \"token\" contains value with non-printable ASCII characters";
        Error::Status(Status::new(Code::Internal, text))
    })?;
    // Neither shown nor kept in a table of headers.
    value.set_sensitive(true);
    Ok(value)
}

impl Client {
    /// Logs in, where the client has a user and a password and has not done so: else the first call does it. That
    /// authentication is not on is no error.
    ///
    /// # Errors
    /// As every call; [`ApiError::AuthFailed`] for a wrong name or password.
    pub async fn log_in(&self, deadline: Deadline) -> Result<(), Error> {
        match self.identity() {
            Some(identity) => self.bound(deadline, identity.log_in(self)).await,
            None => Ok(()),
        }
    }
}
