//! When leases end (rule 14).
//!
//! The store knows which leases there are (`store::LeaseChange`); this counts their time, on the leader only. The
//! [`Lessor`] is shared behind a short lock: network threads renew and ask, the apply thread tells of changes, and the
//! raft thread's [`keeper`] proposes the revoke of what has ended. Pure like everything here: time is handed in.
//!
//! A lease runs, has ended, or is being revoked. One that has ended by the clock never runs again: its renewal waits
//! until it is gone. It is revoked only after leadership was confirmed by a round of reads begun after that, in the
//! same term.

mod checkpoints;
mod clock;
pub(crate) mod keeper;
mod lessor;
mod spread;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use lessor::{LeaseEnd, Lessor, LessorSettings, Remaining, Renewal, Wait};

/// The lessor of a member, for all its threads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SharedLessor(Arc<Mutex<Lessor>>);

impl SharedLessor {
    /// Shares a lessor.
    pub fn new(lessor: Lessor) -> Self {
        SharedLessor(Arc::new(Mutex::new(lessor)))
    }

    /// Takes a turn. To be given back before anything is waited for.
    pub fn lock(&self) -> MutexGuard<'_, Lessor> {
        // A panic anywhere ends the process; a half-made change cannot be seen.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
