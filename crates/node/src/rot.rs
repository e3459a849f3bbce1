//! What is stored and cannot be read while the member runs: found by a read, a scan or a merge, told once.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use disk::revlog;

/// Places that are remembered as told; beyond so many nothing new is told.
const PLACES_MAX: usize = 64;

/// Whoever hears of a place that cannot be read: file, offset and cause in one text.
type Listener = Box<dyn Fn(&str) + Send + Sync>;

/// The places of the revision log that could not be read in this run. Shared by all that read.
#[derive(Clone, Default)]
pub struct Rot(Arc<Shared>);

#[derive(Default)]
struct Shared {
    listener: OnceLock<Listener>,
    told: Mutex<BTreeSet<String>>,
}

impl fmt::Debug for Rot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rot")
    }
}

impl Rot {
    /// Sets who hears of each new place, once.
    ///
    /// # Panics
    /// If somebody does already.
    pub fn listen(&self, listener: impl Fn(&str) + Send + Sync + 'static) {
        let is_first = self.0.listener.set(Box::new(listener)).is_ok();
        assert!(is_first, "one listens");
    }

    /// Notes why a read failed, if it was for what is stored: a place that was given up meanwhile is no rot.
    pub(crate) fn note(&self, error: &revlog::Error, at: Option<revlog::Location>) {
        if error.is_read_failure() {
            self.tell(&text(error, at));
        }
    }

    fn tell(&self, text: &str) {
        {
            let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.len() >= PLACES_MAX || !told.insert(text.to_owned()) {
                return;
            }
        }
        if let Some(listener) = self.0.listener.get() {
            listener(text);
        }
    }
}

/// The error with the offset that was asked for, where it has none of its own.
fn text(error: &revlog::Error, at: Option<revlog::Location>) -> String {
    match (error, at) {
        (revlog::Error::Io { operation, file, source }, Some(at)) => {
            format!("{operation} {} at offset {}: {source}", file.display(), at.offset())
        }
        _ => error.to_string(),
    }
}
