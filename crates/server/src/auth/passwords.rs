//! Passwords: hashed and compared with bcrypt, on threads made for it, few at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bcrypt::Version;
use tokio::sync::Semaphore;
use wire::{ApiError, Code, Status};

/// What Go's library says of a password that would be cut; such as its hash were that of its beginning.
pub const TOO_LONG: &str = "bcrypt: password length exceeds 72 bytes";

/// The library's own bound counts the zero behind a password, and Go's does not.
const BYTES_MAX: usize = 72;

/// Passwords that wait for their turn; more are refused. Each takes some 50 ms of a processor with the default cost.
const WAITING_MAX: usize = 1_000;

/// Hashes passwords.
#[derive(Debug)]
pub struct Passwords {
    cost: u32,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// One that waits or is at work.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Passwords {
    /// With this cost, from 4 to 31; at most half of the processors are taken.
    pub fn new(cost: u32) -> Passwords {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let turns = Arc::new(Semaphore::new((processors / 2).max(1)));
        Passwords { cost, turns, waiting: AtomicUsize::new(0) }
    }

    /// Whether a password can be hashed.
    ///
    /// # Errors
    /// Unknown with [`TOO_LONG`] above 72 bytes.
    pub fn check_length(password: &str) -> Result<(), Status> {
        if password.len() > BYTES_MAX { Err(Status::new(Code::Unknown, TOO_LONG)) } else { Ok(()) }
    }

    /// The hash of a password as it is replicated: `$2a$…`, as Go's members write it, in base64.
    ///
    /// # Errors
    /// Unknown with [`TOO_LONG`] above 72 bytes; `TooManyRequests`.
    pub async fn hash(&self, password: String) -> Result<String, Status> {
        Passwords::check_length(&password)?;
        let cost = self.cost;
        match self.run(move || bcrypt::hash_with_result(password, cost)).await? {
            Ok(parts) => Ok(STANDARD.encode(parts.format_for_version(Version::TwoA))),
            Err(error) => Err(Status::new(Code::Unknown, format!("bcrypt: {error}"))),
        }
    }

    /// Whether a password is the one of this hash; no password is one of what is no hash. As in Go's library, only the first
    /// 72 bytes of it count here.
    ///
    /// # Errors
    /// `TooManyRequests`.
    pub async fn matches(&self, password: String, hash: Vec<u8>) -> Result<bool, Status> {
        self.run(move || {
            let hash = std::str::from_utf8(&hash);
            hash.is_ok_and(|hash| bcrypt::verify(password, hash).unwrap_or(false))
        })
        .await
    }

    /// Runs work as long as a password's when its turn comes.
    ///
    /// # Errors
    /// `TooManyRequests`.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= WAITING_MAX {
            return Err(ApiError::TooManyRequests.into());
        }
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|_| Status::from(ApiError::Stopped))?;
        let run = move || {
            let result = work();
            drop(turn);
            result
        };
        tokio::task::spawn_blocking(run).await.map_err(|_| ApiError::Stopped.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(test: impl AsyncFnOnce(Passwords) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(test(Passwords::new(4)))
    }

    #[test]
    fn a_hash_is_one_of_gos() {
        run(async |passwords| {
            let hash = STANDARD.decode(passwords.hash("secret".to_owned()).await.unwrap()).unwrap();
            assert!(hash.starts_with(b"$2a$04$") && hash.len() == 60, "{}", String::from_utf8_lossy(&hash));
            assert!(passwords.matches("secret".to_owned(), hash.clone()).await.unwrap());
            assert!(!passwords.matches("Secret".to_owned(), hash.clone()).await.unwrap());
            assert!(!passwords.matches(String::new(), hash).await.unwrap());
            assert!(!passwords.matches(String::new(), Vec::new()).await.unwrap());
            assert!(!passwords.matches("x".to_owned(), vec![0xff; 60]).await.unwrap());
        });
    }

    /// Written by Go's library.
    #[test]
    fn hashes_of_gos_members_are_understood() {
        run(async |passwords| {
            for (password, hash) in [
                ("secret", "$2a$04$Km3n85QSTUaboZVHJwD7euPoHjMEhjDw7Q9nirRQUQvSNcnRfEd4u"),
                ("", "$2a$04$n1/g2k5LgDUg8lM8AaAFBuBgXy04GeLOdrTnY4Ua/qP/Ze/FRlaXO"),
                ("p\0q", "$2a$04$Vvwe5I6N7KLz4wXex2S7IenKw/a/zSvLzZMlhxKW8ipTKTr0kfE0i"),
            ] {
                let hash = hash.as_bytes().to_vec();
                assert!(passwords.matches(password.to_owned(), hash.clone()).await.unwrap(), "{password:?}");
                assert!(!passwords.matches("p".to_owned(), hash).await.unwrap(), "{password:?}");
            }
            let longest = b"$2a$04$2aCEukvUNdhMy8WtYCtWd.LvYsc2wFWeQXFpFKm6ZryVZhsQvb6qG".to_vec();
            assert!(passwords.matches("p".repeat(72), longest.clone()).await.unwrap());
            assert!(passwords.matches("p".repeat(73), longest.clone()).await.unwrap(), "as Go compares");
            assert!(!passwords.matches("p".repeat(71), longest).await.unwrap());
        });
    }

    #[test]
    fn a_password_is_not_cut() {
        run(async |passwords| {
            let hash = passwords.hash("p".repeat(72)).await.unwrap();
            let hash = STANDARD.decode(hash).unwrap();
            assert!(passwords.matches("p".repeat(72), hash).await.unwrap());
            let refused = passwords.hash("p".repeat(73)).await.unwrap_err();
            assert_eq!((refused.code, &*refused.message), (Code::Unknown, TOO_LONG));
        });
    }

    #[test]
    fn only_so_many_wait() {
        run(async |passwords| {
            passwords.waiting.store(WAITING_MAX, Ordering::Relaxed);
            assert_eq!(passwords.hash("p".to_owned()).await, Err(ApiError::TooManyRequests.into()));
            passwords.waiting.store(0, Ordering::Relaxed);
            passwords.hash("p".to_owned()).await.unwrap();
            assert_eq!(passwords.waiting.load(Ordering::Relaxed), 0);
        });
    }
}
