//! The signals that end a command in an orderly way.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{Failure, exit};

/// SIGINT and SIGTERM, which from its making on do not end the process any more.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// # Panics
    /// Outside of a runtime.
    pub(super) fn take() -> Result<Signals, Failure> {
        let take = |kind| {
            signal(kind).map_err(|error| Failure::new(exit::ERROR, format!("handle signals: {error}")))
        };
        Ok(Signals { interrupt: take(SignalKind::interrupt())?, terminate: take(SignalKind::terminate())? })
    }

    /// Waits for either. Cancel safe.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// What a command says that a signal ended while it was waiting.
pub(super) fn canceled() -> Failure {
    Failure::new(exit::ERROR, "context canceled")
}
