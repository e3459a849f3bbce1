//! Reads off the network threads: once there is room for the answer, when their turn comes, and no longer than somebody
//! waits for them.

use std::sync::Arc;

use store::{ReadFailure, Reader};
use tokio::time::Instant;
use wire::{ApiError, Status};

use super::answer::{Charge, HELD_BYTES_MAX, Held};
use super::kv::{self, Made, Read};
use super::stream::passed;
use super::turns::{Length, Reads};
use crate::metrics::{Own, nanoseconds};

/// What a brief answer is taken for before it is there; one record may be longer.
pub const BRIEF_BYTES: usize = 512 << 10;

/// Where one connection's reads run.
#[derive(Clone)]
pub struct Elsewhere {
    /// The state.
    pub reader: Reader,
    /// The connection's turns.
    pub reads: Reads,
    /// Its bytes.
    pub held: Held,
    /// Its thread's numbers.
    pub counts: Own,
}

impl Elsewhere {
    /// Runs a read that was found to be of this length: the body with room in front, the header's revision, and what
    /// counts the bytes. Dropping the future ends it.
    pub async fn run(
        self,
        read: Read,
        length: Length,
        deadline: Option<Instant>,
    ) -> Result<(Vec<u8>, i64, Charge), Status> {
        tokio::select! {
            biased;
            made = self.made(read, length) => made,
            () = passed(deadline) => Err(ApiError::ContextDeadlineExceeded.into()),
        }
    }

    async fn made(&self, read: Read, mut length: Length) -> Result<(Vec<u8>, i64, Charge), Status> {
        let read = Arc::new(read);
        loop {
            let bytes = match length {
                Length::Brief => BRIEF_BYTES,
                // Nobody knows: no other is made beside it.
                Length::Long => HELD_BYTES_MAX,
            };
            let mut charge = self.held.reserve(length, bytes).await;
            let (read, reader) = (Arc::clone(&read), self.reader.clone());
            let is_range = read.is_range();
            let work = move |pace| {
                let begun = std::time::Instant::now();
                (read.run(&reader.paced(pace), length.mode()), begun.elapsed())
            };
            let (made, took) = self.reads.run(length, work).await.ok_or(ApiError::Stopped)?;
            let made = made?;
            if length == Length::Brief && matches!(made, Err(ReadFailure::Long)) {
                length = Length::Long;
                continue;
            }
            kv::count_ranges(made.as_ref().ok(), &self.counts);
            if is_range {
                self.counts.ranges[usize::from(made.is_ok())].observe_alone(nanoseconds(took), 1);
            }
            match made {
                Err(failure) => return Err(kv::read_status(&failure)),
                Ok(Made { body, revision, .. }) => {
                    charge.settle(body.len());
                    return Ok((body, revision, charge));
                }
            }
        }
    }
}
