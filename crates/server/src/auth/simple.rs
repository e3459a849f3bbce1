//! Simple tokens: 16 letters, a dot and the index of the entry before the one that they were given out by.
//!
//! Every member knows them, since each applies the latter; how long one is good each member counts for itself, from its
//! last use there. They are gone when the process ends.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use raft::Time;

/// Letters of a token.
const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const PREFIX_LETTERS: usize = 16;
/// Tokens that are held; with one more, one goes that was not used for long.
const TOKENS_MAX: usize = 1 << 18;
/// Tokens that are looked at, whether they are over, when one is given out.
const CLEANED_MAX: usize = 64;

/// Who holds which token.
pub struct SimpleTokens {
    ttl: Duration,
    tokens_max: usize,
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    held: HashMap<Arc<str>, Held>,
    /// Each token once, by when it is over unless it is used; that is looked up only then.
    due: VecDeque<(Time, Arc<str>)>,
}

struct Held {
    user: Arc<str>,
    /// A [`Time`].
    last_used: AtomicU64,
}

impl fmt::Debug for SimpleTokens {
    /// Tokens are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimpleTokens").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

impl Held {
    fn ends(&self, ttl: Duration) -> Time {
        Time(self.last_used.load(Ordering::Relaxed).saturating_add(ttl.as_micros() as u64))
    }
}

impl SimpleTokens {
    /// Tokens that are good as long as each is used within `ttl`.
    pub fn new(ttl: Duration) -> SimpleTokens {
        SimpleTokens { ttl, tokens_max: TOKENS_MAX, table: RwLock::default() }
    }

    /// How long a token is good that is not used.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// The letters of another token, drawn at random.
    ///
    /// # Errors
    /// Those of the system's randomness.
    pub fn draw() -> Result<String, getrandom::Error> {
        // What is above the largest multiple would make some letters likelier than others.
        const FAIR: u8 = (256 / LETTERS.len() * LETTERS.len()) as u8;
        let mut prefix = String::with_capacity(PREFIX_LETTERS);
        while prefix.len() < PREFIX_LETTERS {
            let mut drawn = [0; 2 * PREFIX_LETTERS];
            getrandom::fill(&mut drawn)?;
            let fair = drawn.into_iter().filter(|byte| *byte < FAIR);
            let letters = fair.map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()]));
            prefix.extend(letters.take(PREFIX_LETTERS - prefix.len()));
        }
        Ok(prefix)
    }

    /// The index that a token names; `None` of what is no simple token.
    pub fn index(token: &str) -> Option<u64> {
        let (_, index) = token.split_once('.')?;
        // A number may not have a sign.
        if !index.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        index.parse().ok()
    }

    /// A token was given to a user. One without letters, which a member without simple tokens has asked for, is nobody's: it
    /// could be guessed.
    pub fn give(&self, now: Time, user: &str, token: &str) {
        if token.starts_with('.') {
            return;
        }
        let mut table = self.write();
        table.clean(now, self.ttl);
        while table.held.len() >= self.tokens_max
            && let Some((_, oldest)) = table.due.pop_front()
        {
            table.held.remove(&oldest);
        }
        let token: Arc<str> = token.into();
        let held = Held { user: user.into(), last_used: AtomicU64::new(now.0) };
        let ends = held.ends(self.ttl);
        // An entry that is applied again.
        if table.held.insert(Arc::clone(&token), held).is_none() {
            table.due.push_back((ends, token));
        }
    }

    /// Who holds a token that is good now. Asking is a use of it.
    pub fn holder(&self, now: Time, token: &str) -> Option<Arc<str>> {
        let table = self.read();
        let held = table.held.get(token).filter(|held| now <= held.ends(self.ttl))?;
        held.last_used.fetch_max(now.0, Ordering::Relaxed);
        Some(Arc::clone(&held.user))
    }

    /// No token of this user is good any more.
    pub fn end_of(&self, user: &str) {
        let mut table = self.write();
        let Table { held, due } = &mut *table;
        held.retain(|_, held| &*held.user != user);
        due.retain(|(_, token)| held.contains_key(token));
    }

    /// No token is good any more.
    pub fn end_all(&self) {
        *self.write() = Table::default();
    }

    /// Tokens that are held, whether they are still good or not.
    pub fn len(&self) -> usize {
        self.read().held.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().expect("no thread panics while it holds this lock")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().expect("no thread panics while it holds this lock")
    }
}

impl Table {
    /// Forgets tokens that are over; looks at a few only, so that nobody waits for it.
    fn clean(&mut self, now: Time, ttl: Duration) {
        for _ in 0..CLEANED_MAX {
            if self.due.front().is_none_or(|(ends, _)| *ends >= now) {
                return;
            }
            let Some((_, token)) = self.due.pop_front() else { return };
            let Some(held) = self.held.get(&token) else { continue };
            let ends = held.ends(ttl);
            if ends < now {
                self.held.remove(&token);
            } else {
                self.due.push_back((ends, token));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(3);

    fn at(ms: u64) -> Time {
        Time::from_ms(ms)
    }

    #[test]
    fn a_token_is_good_for_its_time_after_each_use() {
        let tokens = SimpleTokens::new(TTL);
        tokens.give(at(1_000), "u", "abc.7");
        let holder = |ms| tokens.holder(at(ms), "abc.7").as_deref().map(str::to_owned);
        assert_eq!(holder(4_000).as_deref(), Some("u"));
        assert_eq!(holder(7_000).as_deref(), Some("u"), "the last use counts");
        assert_eq!(holder(6_000).as_deref(), Some("u"), "another thread may be behind");
        assert_eq!(holder(10_001), None);
        assert_eq!(holder(10_000).as_deref(), Some("u"), "what is over is not made good by asking");
        assert_eq!(tokens.holder(at(1_000), "abc.8"), None);
        assert_eq!(tokens.holder(at(1_000), ""), None);
    }

    #[test]
    fn tokens_end_with_their_user_and_all_together() {
        let tokens = SimpleTokens::new(TTL);
        for (user, token) in [("u", "a.1"), ("v", "b.2"), ("u", "c.3")] {
            tokens.give(at(0), user, token);
        }
        tokens.end_of("u");
        assert_eq!(
            ["a.1", "b.2", "c.3"].map(|token| tokens.holder(at(1), token).is_some()),
            [false, true, false]
        );
        tokens.give(at(2), "u", "d.4");
        assert!(tokens.holder(at(2), "d.4").is_some());
        tokens.end_all();
        assert!(tokens.is_empty() && tokens.holder(at(2), "b.2").is_none());
    }

    #[test]
    fn what_is_over_is_forgotten_a_few_at_a_time() {
        let tokens = SimpleTokens::new(TTL);
        for index in 0..1_000 {
            tokens.give(at(0), "u", &format!("t.{index}"));
        }
        // Some are used on, and stay.
        for index in 0..10 {
            assert!(tokens.holder(at(2_500), &format!("t.{index}")).is_some());
        }
        let mut lengths = Vec::new();
        for index in 0..20 {
            tokens.give(at(4_000), "v", &format!("s.{index}"));
            lengths.push(tokens.len());
        }
        assert!(lengths.windows(2).all(|pair| pair[0] < pair[1] + CLEANED_MAX), "{lengths:?}");
        assert_eq!(*lengths.last().unwrap(), 10 + 20);
        assert!(tokens.holder(at(4_000), "t.3").is_some() && tokens.holder(at(4_000), "t.10").is_none());
        tokens.give(at(60_000), "u", "last.1");
        assert_eq!(tokens.len(), 1);
    }

    #[test]
    fn there_are_never_too_many() {
        let tokens = SimpleTokens { tokens_max: 3, ..SimpleTokens::new(TTL) };
        for index in 0..10 {
            tokens.give(at(index), "u", &format!("t.{index}"));
        }
        assert_eq!(tokens.len(), 3);
        assert!(tokens.holder(at(10), "t.9").is_some() && tokens.holder(at(10), "t.6").is_none());
    }

    #[test]
    fn indexes_of_tokens() {
        for (token, index) in [
            ("abc.7", Some(7)),
            ("abc.0", Some(0)),
            (".7", Some(7)),
            ("abc.18446744073709551615", Some(u64::MAX)),
            ("abc.18446744073709551616", None),
            ("abc.+7", None),
            ("abc.7x", None),
            ("abc.", None),
            ("abc", None),
            ("a.b.7", None),
            ("", None),
        ] {
            assert_eq!(SimpleTokens::index(token), index, "{token}");
        }
    }

    #[test]
    fn one_without_letters_is_nobodys() {
        let tokens = SimpleTokens::new(TTL);
        tokens.give(at(0), "root", ".7");
        assert_eq!(tokens.holder(at(0), ".7"), None);
    }

    #[test]
    fn letters_are_drawn_anew() {
        let (one, other) = (SimpleTokens::draw().unwrap(), SimpleTokens::draw().unwrap());
        assert!(one.len() == 16 && one.bytes().all(|byte| byte.is_ascii_alphabetic()), "{one}");
        assert_ne!(one, other);
    }
}
