//! Where hashes of everything that is stored are made: off the network threads, few at a time, and those that no client has
//! asked for within a budget of bytes read.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use node::corruption::Hashed;
use store::{Pace, ReadFailure, Reader};

use super::member::Turns;

/// What is owed for less time than this is left to the next pause: each costs a wake-up.
const PAUSE_MIN: Duration = Duration::from_millis(4);

/// The turns, the budget and the counts of a member's hashes.
#[derive(Debug)]
pub struct Hashes {
    /// Of clients' hashes.
    turns: Turns,
    /// Of those for comparisons, which others ask for: they are slow by their budget, and clients do not wait for that.
    comparisons: Turns,
    /// What checks and compactions may read.
    pub budget: Arc<HashBudget>,
    /// What checks came to.
    pub counters: Arc<CheckCounters>,
}

/// What checks for corruption came to in this run; for whoever shows it.
#[derive(Debug, Default)]
pub struct CheckCounters {
    /// Comparisons with other members that came to their end.
    pub checks: AtomicU64,
    /// Those that were given up since they did not within their interval.
    pub checks_given_up: AtomicU64,
    /// Hashes of compactions that were given up since the next compaction came first.
    pub hashes_given_up: AtomicU64,
}

/// Bytes that may be read a second. Whoever has read some waits for as long as they stand for, one after the other.
#[derive(Debug)]
pub struct HashBudget {
    bytes_per_s: u64,
    /// Until when what was read reaches.
    spent_until: Mutex<Option<Instant>>,
}

impl HashBudget {
    /// So many bytes a second.
    pub fn new(bytes_per_s: u64) -> Self {
        HashBudget { bytes_per_s: bytes_per_s.max(1), spent_until: Mutex::default() }
    }

    /// Spends so many bytes; how long to wait before more is read.
    pub fn spend(&self, bytes: usize, now: Instant) -> Duration {
        let share = Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / self.bytes_per_s);
        // A panic anywhere ends the process; a half-made change cannot be seen.
        let mut spent_until = self.spent_until.lock().unwrap_or_else(PoisonError::into_inner);
        let until = spent_until.map_or(now, |until| until.max(now)) + share;
        *spent_until = Some(until);
        until - now
    }
}

impl Hashes {
    /// With a budget of so many bytes a second.
    pub fn new(bytes_per_s: u64) -> Self {
        let budget = Arc::new(HashBudget::new(bytes_per_s));
        let (turns, comparisons) = (Turns::for_hashes(), Turns::for_hashes());
        Hashes { turns, comparisons, budget, counters: Arc::default() }
    }

    /// Runs a hash that a client has asked for, when its turn comes, of what the reader reads. Ends soon after it is dropped.
    /// `None` where the process is about to end.
    pub async fn run<T: Send + 'static>(
        &self,
        reader: &Reader,
        hash: impl FnOnce(&Reader) -> T + Send + 'static,
    ) -> Option<T> {
        let (reader, _asker) = asked(reader, None);
        self.turns.run(move || hash(&reader)).await
    }

    /// Hashes all revisions up to `revision` (0: the newest) for a comparison of members, within the budget. Ends soon after
    /// it is dropped. `None` where the process is about to end.
    pub async fn compared(&self, reader: &Reader, revision: i64) -> Option<Result<Hashed, ReadFailure>> {
        let (reader, _asker) = asked(reader, Some(self.budget.clone()));
        let hashed = self.comparisons.run(move || reader.hash_kv(revision)).await?;
        Some(hashed.map(|(hash, revision)| Hashed { hash, revision }))
    }
}

/// A reader for a hash that ends once the asker is dropped.
fn asked(reader: &Reader, budget: Option<Arc<HashBudget>>) -> (Reader, Asker) {
    let pace = Arc::new(HashPace { budget, is_gone: AtomicBool::new(false) });
    (reader.paced(pace.clone()), Asker(pace))
}

/// How fast a hash reads, and for how long.
struct HashPace {
    /// Of one for a comparison.
    budget: Option<Arc<HashBudget>>,
    is_gone: AtomicBool,
}

impl Pace for HashPace {
    fn go_on(&self, bytes: usize) -> bool {
        let owed = self.budget.as_ref().map_or(Duration::ZERO, |budget| budget.spend(bytes, Instant::now()));
        if owed >= PAUSE_MIN {
            std::thread::sleep(owed);
        }
        !self.is_gone.load(Ordering::Relaxed)
    }
}

/// Tells a hash when nobody waits for it any more.
struct Asker(Arc<HashPace>);

impl Drop for Asker {
    fn drop(&mut self) {
        self.0.is_gone.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use store::{Location, ReadError, RecordKind, RecordSource, RecordVisitor, Revision, Settings, Store};
    use tokio::sync::{mpsc, oneshot};

    use super::super::member::HASHES_MAX;
    use super::*;

    /// Of a store that has nothing.
    struct NoRecords;

    impl RecordSource for NoRecords {
        fn read(&self, at: Location, _: &mut [u8]) -> Result<(), ReadError> {
            panic!("there is nothing at {at:?}")
        }

        fn read_nowait(&self, at: Location, _: &mut [u8]) -> Result<bool, ReadError> {
            panic!("there is nothing at {at:?}")
        }

        fn scan(&self, _: i64, _: &mut RecordVisitor<'_>) -> Result<(), ReadError> {
            Ok(())
        }
    }

    /// Of a store that never ends. Tells when a scan has begun, and when it has ended.
    struct Endless(Mutex<Option<(oneshot::Sender<()>, oneshot::Sender<()>)>>);

    impl RecordSource for Endless {
        fn read(&self, _: Location, _: &mut [u8]) -> Result<(), ReadError> {
            Err(ReadError("nobody reads".to_owned()))
        }

        fn read_nowait(&self, _: Location, _: &mut [u8]) -> Result<bool, ReadError> {
            Err(ReadError("nobody reads".to_owned()))
        }

        fn scan(&self, _: i64, visitor: &mut RecordVisitor<'_>) -> Result<(), ReadError> {
            let (begun, ended) = self.0.lock().unwrap().take().unwrap();
            begun.send(()).unwrap();
            let record = vec![0; 64 << 10];
            while visitor(RecordKind::Put, Revision { main: 1, sub: 0 }, &record).is_continue() {}
            ended.send(()).unwrap();
            Ok(())
        }
    }

    /// The end of the process, and the client's turn, would wait for it.
    #[test]
    fn a_hash_whose_client_is_gone_ends() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let is_over = runtime.block_on(async {
            let (begins, begun) = oneshot::channel();
            let (ends, ended) = oneshot::channel();
            let source = Endless(Mutex::new(Some((begins, ends))));
            let reader = Store::new(Arc::new(source), Settings::default()).reader();
            let hashes = Hashes::new(1 << 20);
            let client = tokio::spawn(async move { hashes.run(&reader, |reader| reader.hash_kv(0)).await });
            begun.await.unwrap();
            client.abort();
            tokio::time::timeout(Duration::from_secs(60), ended).await.is_ok()
        });
        runtime.shutdown_background();
        assert!(is_over, "it goes on");
    }

    /// What other members ask for is none of clients' business, nor the other way round.
    #[test]
    fn clients_hashes_and_comparisons_do_not_take_each_others_turns() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let hashes = Arc::new(Hashes::new(1 << 20));
            let reader = Store::new(Arc::new(NoRecords), Settings::default()).reader();
            let (begins, mut begun) = mpsc::channel(HASHES_MAX);
            let clients = (0..HASHES_MAX).map(|_| {
                let (end, ended) = std::sync::mpsc::channel::<()>();
                let (hashes, begins) = (hashes.clone(), begins.clone());
                let work = move |_: &Reader| {
                    begins.blocking_send(()).unwrap();
                    ended.recv().is_err()
                };
                let reader = reader.clone();
                (end, tokio::spawn(async move { hashes.run(&reader, work).await }))
            });
            let clients: Vec<_> = clients.collect();
            for _ in 0..HASHES_MAX {
                begun.recv().await;
            }
            let compared = tokio::time::timeout(Duration::from_secs(60), hashes.compared(&reader, 0)).await;
            let hashed = compared.expect("it has a turn").expect("a hash").expect("a hash");
            assert_eq!(hashed.revision, 1);
            for (end, client) in clients {
                drop(end);
                assert_eq!(client.await.unwrap(), Some(true));
            }
        });
    }

    #[test]
    fn all_who_read_share_the_budget_and_what_was_not_used_is_gone() {
        let budget = HashBudget::new(1 << 20);
        let start = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(budget.spend(1 << 20, start), second);
        assert_eq!(budget.spend(1 << 19, start), second * 3 / 2, "a second reader waits behind the first");
        let later = start + 10 * second;
        assert_eq!(budget.spend(1 << 18, later), second / 4, "a pause is not made up for");
        assert_eq!(budget.spend(0, later + second), Duration::ZERO);
    }
}
