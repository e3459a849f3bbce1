//! When a call gives up.

use std::time::Duration;

use tokio::time::Instant;

/// The moment at which a call, or several calls together, give up; or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// Waits for as long as it takes.
    pub const NEVER: Deadline = Deadline(None);

    /// Gives up this long after now; a time too far off to be represented is [`Deadline::NEVER`].
    pub fn after(timeout: Duration) -> Self {
        Deadline(Instant::now().checked_add(timeout))
    }

    /// What is left until then, zero when it has passed; `None` when there is no end.
    pub fn remaining(self) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Runs `work` until it ends or the deadline passes. Cancel safe when `work` is; a `work` that is done when the
    /// deadline passes still counts.
    ///
    /// # Errors
    /// [`crate::Error::DeadlineExceeded`].
    pub(crate) async fn bound<T>(
        self,
        work: impl Future<Output = Result<T, crate::Error>>,
    ) -> Result<T, crate::Error> {
        match self.0 {
            None => work.await,
            Some(at) => {
                tokio::time::timeout_at(at, work).await.unwrap_or(Err(crate::Error::DeadlineExceeded))
            }
        }
    }
}
