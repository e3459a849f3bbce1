//! Reads off the network threads: once there is room for the answer, when their turn comes, and no longer than somebody
//! waits for them.

use std::sync::Arc;

use store::{ReadFailure, Reader};
use tokio::time::Instant;
use wire::{ApiError, Status};

use super::answer::{Charge, HELD_BYTES_MAX, Held};
use super::kv::{self, Read};
use super::stream::passed;
use super::turns::{Length, Reads};

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
            let work = move |pace| read.run(&reader.paced(pace), length.mode());
            let made = self.reads.run(length, work).await.ok_or(ApiError::Stopped)??;
            match made {
                Err(ReadFailure::Long) if length == Length::Brief => length = Length::Long,
                Err(failure) => return Err(kv::read_status(&failure)),
                Ok((body, revision)) => {
                    charge.settle(body.len());
                    return Ok((body, revision, charge));
                }
            }
        }
    }
}
