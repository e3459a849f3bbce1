//! Passwords: hashed and compared with bcrypt, on threads made for it, few at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bcrypt::Version;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::{ApiError, Code, Status};

/// What Go's library says of a password that would be cut; such as its hash were that of its beginning.
pub const TOO_LONG: &str = "bcrypt: password length exceeds 72 bytes";

/// The library's own bound counts the zero behind a password, and Go's does not.
const BYTES_MAX: usize = 72;

/// Passwords that wait for their turn; more are refused. Each takes some 50 ms of a processor with the default cost.
const WAITING_MAX: usize = 1_000;

/// Above this, or above the cost that this member hashes with, a hash is a slow one: each step doubles it, and 14 takes about a
/// second.
const SLOW_COST: u32 = 14;

/// Hashes passwords.
#[derive(Debug)]
pub struct Passwords {
    cost: u32,
    turns: Arc<Semaphore>,
    /// The one turn of hashes that take far longer: whoever may set one must not hold up everybody.
    slow_turn: Arc<Semaphore>,
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
        Passwords { cost, turns, slow_turn: Arc::new(Semaphore::new(1)), waiting: AtomicUsize::new(0) }
    }

    /// Whether a password can be hashed.
    ///
    /// # Errors
    /// Unknown with [`TOO_LONG`] above 72 bytes.
    pub fn check_length(password: &str) -> Result<(), Status> {
        if password.len() > BYTES_MAX { Err(Status::new(Code::Unknown, TOO_LONG)) } else { Ok(()) }
    }

    /// The part of a password that is compared, as Go's library does it: nothing else of what a client has sent is to wait.
    pub fn what_counts(password: String) -> Vec<u8> {
        let mut password = password.into_bytes();
        password.truncate(BYTES_MAX);
        password.shrink_to_fit();
        password
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
    /// `TooManyRequests`, also where the hash costs far more than those made here and another such one is at work.
    pub async fn matches(&self, password: Vec<u8>, hash: Vec<u8>) -> Result<bool, Status> {
        let is_slow = cost_of(&hash) > self.cost.max(SLOW_COST);
        let work = move || {
            let hash = std::str::from_utf8(&hash);
            hash.is_ok_and(|hash| bcrypt::verify(password, hash).unwrap_or(false))
        };
        if !is_slow {
            return self.run(work).await;
        }
        let turn = Arc::clone(&self.slow_turn).try_acquire_owned();
        let turn = turn.map_err(|_| Status::from(ApiError::TooManyRequests))?;
        in_turn(turn, work).await
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
        in_turn(turn, work).await
    }
}

/// Runs work where it may take long. The turn is given back behind it, whether or not somebody still waits.
async fn in_turn<T: Send + 'static>(
    turn: OwnedSemaphorePermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    let run = move || {
        let result = work();
        drop(turn);
        result
    };
    tokio::task::spawn_blocking(run).await.map_err(|_| ApiError::Stopped.into())
}

/// The cost that a hash names, as `$2a$10$…`; 0 if it names none.
fn cost_of(hash: &[u8]) -> u32 {
    let cost = hash.split(|byte| *byte == b'$').nth(2).and_then(|cost| std::str::from_utf8(cost).ok());
    cost.and_then(|cost| cost.parse().ok()).unwrap_or(0)
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
            assert!(passwords.matches(b"secret".to_vec(), hash.clone()).await.unwrap());
            assert!(!passwords.matches(b"Secret".to_vec(), hash.clone()).await.unwrap());
            assert!(!passwords.matches(Vec::new(), hash).await.unwrap());
            assert!(!passwords.matches(Vec::new(), Vec::new()).await.unwrap());
            assert!(!passwords.matches(b"x".to_vec(), vec![0xff; 60]).await.unwrap());
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
                assert!(passwords.matches(password.into(), hash.clone()).await.unwrap(), "{password:?}");
                assert!(!passwords.matches(b"p".to_vec(), hash).await.unwrap(), "{password:?}");
            }
            let longest = b"$2a$04$2aCEukvUNdhMy8WtYCtWd.LvYsc2wFWeQXFpFKm6ZryVZhsQvb6qG".to_vec();
            assert!(
                passwords.matches(Passwords::what_counts("p".repeat(72)), longest.clone()).await.unwrap()
            );
            assert!(
                passwords.matches(Passwords::what_counts("p".repeat(73)), longest.clone()).await.unwrap(),
                "as Go compares"
            );
            assert!(!passwords.matches(Passwords::what_counts("p".repeat(71)), longest).await.unwrap());
        });
    }

    #[test]
    fn a_password_is_not_cut() {
        run(async |passwords| {
            let hash = passwords.hash("p".repeat(72)).await.unwrap();
            let hash = STANDARD.decode(hash).unwrap();
            assert!(passwords.matches(Passwords::what_counts("p".repeat(72)), hash).await.unwrap());
            let refused = passwords.hash("p".repeat(73)).await.unwrap_err();
            assert_eq!((refused.code, &*refused.message), (Code::Unknown, TOO_LONG));
        });
    }

    /// One of cost 31 takes a day; whoever plants it holds up nobody but its own user.
    #[test]
    fn a_hash_that_costs_too_much_holds_up_nobody() {
        run(async |passwords| {
            assert_eq!(cost_of(b"$2a$31$n1/g2k5LgDUg8lM8AaAFBu"), 31);
            assert_eq!((cost_of(b"$2a$04$n1"), cost_of(b"x"), cost_of(b"$2a$-1$")), (4, 0, 0));
            let _at_work = Arc::clone(&passwords.slow_turn).try_acquire_owned().unwrap();
            let planted = b"$2a$31$n1/g2k5LgDUg8lM8AaAFBuBgXy04GeLOdrTnY4Ua/qP/Ze/FRlaXO".to_vec();
            let refused = passwords.matches(b"x".to_vec(), planted).await;
            assert_eq!(refused, Err(ApiError::TooManyRequests.into()));
            let own = STANDARD.decode(passwords.hash("secret".to_owned()).await.unwrap()).unwrap();
            assert_eq!(passwords.matches(b"secret".to_vec(), own).await, Ok(true));
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
