//! Clients that put random keys, each when there is something to do for it.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{Client, Deadline};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use wire::etcdserverpb::PutRequest;

use super::report::{Outcome, Report};

/// What is put.
pub(super) struct Shape {
    /// Of every key.
    pub prefix: String,
    /// Of a key without the prefix, bytes: a random number and zeros.
    pub key_bytes: usize,
    /// Of a value, bytes: zeros.
    pub value_bytes: usize,
    /// Longest wait for one put.
    pub timeout: Duration,
}

/// What there is to do.
pub(super) enum Work {
    /// A put for each permit, until it is closed.
    Rationed(Semaphore),
    /// So many puts more, as fast as they go.
    Left(AtomicU64),
}

impl Work {
    /// Takes a put upon itself; false when there is none left.
    async fn take(&self) -> bool {
        match self {
            Work::Rationed(permits) => {
                permits.acquire().await.map(tokio::sync::SemaphorePermit::forget).is_ok()
            }
            Work::Left(left) => {
                left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            }
        }
    }
}

/// Clients at work.
pub(super) struct Load {
    pub work: Arc<Work>,
    report: Arc<Mutex<Report>>,
    tasks: JoinSet<()>,
}

impl Load {
    /// Sets the clients to work.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub(super) fn begin(clients: &[Client], shape: Shape, work: Work) -> Load {
        let (work, shape) = (Arc::new(work), Arc::new(shape));
        let report = Arc::new(Mutex::new(Report::new()));
        let mut tasks = JoinSet::new();
        for client in clients {
            let (client, shape, work, report) = (client.clone(), shape.clone(), work.clone(), report.clone());
            tasks.spawn(put_while_there_is_work(client, shape, work, report));
        }
        Load { work, report, tasks }
    }

    /// Puts so far, the failed ones too.
    pub(super) fn done(&self) -> u64 {
        locked(&self.report).done()
    }

    /// Waits until all clients have done what they have begun, and there is nothing left. Cancel safe.
    pub(super) async fn end(&mut self) -> Outcome {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        locked(&self.report).outcome()
    }
}

fn locked(report: &Mutex<Report>) -> MutexGuard<'_, Report> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn put_while_there_is_work(
    client: Client,
    shape: Arc<Shape>,
    work: Arc<Work>,
    report: Arc<Mutex<Report>>,
) {
    let value = Bytes::from(vec![0; shape.value_bytes]);
    let mut keys = Keys::new();
    while work.take().await {
        let request = PutRequest { key: keys.next(&shape), value: value.clone(), ..PutRequest::default() };
        let begun = Instant::now();
        let answer = client.put(request, Deadline::after(shape.timeout)).await;
        let took = begun.elapsed();
        match answer {
            Ok(_) => locked(&report).add(took),
            Err(error) => locked(&report).add_error(error.to_string()),
        }
    }
}

/// Random keys: none is likely to come twice.
struct Keys {
    seed: RandomState,
    given: u64,
}

impl Keys {
    fn new() -> Keys {
        Keys { seed: RandomState::new(), given: 0 }
    }

    fn next(&mut self, shape: &Shape) -> Bytes {
        self.given += 1;
        let number = self.seed.hash_one(self.given).to_be_bytes();
        let mut key = Vec::with_capacity(shape.prefix.len() + shape.key_bytes);
        key.extend_from_slice(shape.prefix.as_bytes());
        key.extend_from_slice(&number[..number.len().min(shape.key_bytes)]);
        key.resize(shape.prefix.len() + shape.key_bytes, 0);
        key.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_length_and_differ() {
        let timeout = Duration::ZERO;
        let shape = Shape { prefix: "/p/".to_owned(), key_bytes: 256, value_bytes: 1, timeout };
        let mut keys = Keys::new();
        let some: std::collections::BTreeSet<Bytes> = (0..1000).map(|_| keys.next(&shape)).collect();
        assert_eq!(some.len(), 1000);
        assert!(some.iter().all(|key| key.len() == 259 && key.starts_with(b"/p/")));
    }

    #[tokio::test]
    async fn work_is_taken_as_often_as_there_is_some() {
        let work = Work::Left(AtomicU64::new(2));
        assert_eq!([work.take().await, work.take().await, work.take().await], [true, true, false]);
        let permits = Semaphore::new(1);
        let work = Work::Rationed(permits);
        assert!(work.take().await);
        let Work::Rationed(permits) = &work else { unreachable!() };
        permits.close();
        assert!(!work.take().await);
    }
}
