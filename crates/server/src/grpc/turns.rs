//! Turns at the threads for reads that wait for a disk, or take long.
//!
//! Brief reads and long ones have turns of their own, so that a brief one never waits for a long one. Among those of a
//! length the connections that wait take turns, and none has more than its share: what one connection asks for makes
//! another's read wait for no more than the pieces that are being read. Once a long read has read a piece it goes
//! behind others that wait, a few of them at a time, since each keeps what it has read.
//!
//! A read whose client is gone leaves its queue; one that is being read ends at the next record.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rustc_hash::FxHashMap;
use store::{Pace, ReadMode};
use tokio::sync::oneshot;

/// Brief reads at the same time, and those of one connection.
const BRIEF_MAX: usize = 12;
const BRIEF_SHARE: usize = 8;
/// Long reads at the same time, and those of one connection.
const LONG_MAX: usize = 4;
const LONG_SHARE: usize = 2;
/// Long reads that have given way to others.
const GIVEN_WAY_MAX: usize = 4;
/// What a long read reads before it gives way, and what looking at keys once counts as.
const PIECE_BYTES: usize = 8 << 20;
const HOLD_BYTES: usize = 16 << 10;

/// How long a read takes, as far as can be known before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// It collects little, but may wait for a disk, or look at many keys.
    Brief,
    /// It may take its time.
    Long,
}

impl Length {
    /// How such a read is run.
    pub fn mode(self) -> ReadMode {
        match self {
            Length::Brief => ReadMode::Brief,
            Length::Long => ReadMode::MayBlock,
        }
    }
}

/// The turns of a member; cheap to clone.
#[derive(Clone, Debug)]
pub struct ReadTurns(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    brief: Queue,
    long: Queue,
    /// The next connection's number, and the next read's.
    numbers: AtomicU64,
}

/// Those who have, or wait for, turns of one kind.
#[derive(Debug)]
struct Queue {
    turns: Mutex<Turns>,
    /// Connections in [`Turns::ring`], to be looked at without the lock.
    ready: AtomicUsize,
}

#[derive(Debug)]
struct Turns {
    free: usize,
    /// Most turns of one connection.
    share: usize,
    /// Those that have a turn or wait for one.
    connections: FxHashMap<u64, Connection>,
    /// Those that wait and have less than their share, in the order in which they get the next turns.
    ring: BTreeMap<u64, u64>,
    ring_next: u64,
    given_way: usize,
}

#[derive(Debug, Default)]
struct Connection {
    running: usize,
    /// By the reads' numbers: the oldest comes first.
    waiting: BTreeMap<u64, oneshot::Sender<Turn>>,
    /// Its place in the ring.
    place: Option<u64>,
}

impl Default for ReadTurns {
    fn default() -> Self {
        ReadTurns(Arc::new(Inner {
            brief: Queue::new(BRIEF_MAX, BRIEF_SHARE),
            long: Queue::new(LONG_MAX, LONG_SHARE),
            numbers: AtomicU64::new(0),
        }))
    }
}

impl ReadTurns {
    /// For the reads of one more connection.
    pub fn connection(&self) -> Reads {
        Reads { turns: self.clone(), connection: self.next() }
    }

    /// Reads of a length that wait for a turn.
    pub fn waiting(&self, length: Length) -> usize {
        self.queue(length).lock().connections.values().map(|connection| connection.waiting.len()).sum()
    }

    fn next(&self) -> u64 {
        self.0.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn queue(&self, length: Length) -> &Queue {
        match length {
            Length::Brief => &self.0.brief,
            Length::Long => &self.0.long,
        }
    }

    /// Queues a read, and gives the turns that are free.
    fn enter(&self, length: Length, connection: u64, read: u64) -> oneshot::Receiver<Turn> {
        let (sender, receiver) = oneshot::channel();
        let queue = self.queue(length);
        let mut turns = queue.lock();
        turns.connections.entry(connection).or_default().waiting.insert(read, sender);
        turns.settle(connection);
        self.grant(length, turns);
        receiver
    }

    /// Forgets a read that waits.
    fn leave(&self, length: Length, connection: u64, read: u64) {
        let queue = self.queue(length);
        let mut turns = queue.lock();
        let left = turns.connections.get_mut(&connection).and_then(|known| known.waiting.remove(&read));
        turns.settle(connection);
        queue.publish(&turns);
        drop(turns);
        drop(left);
    }

    /// Gives the turns that are free to those that are first, outside the lock: who is gone gives it back at once.
    fn grant(&self, length: Length, mut turns: MutexGuard<'_, Turns>) {
        let mut granted = Vec::new();
        while turns.free > 0
            && let Some((_, connection)) = turns.ring.pop_first()
        {
            let Some(known) = turns.connections.get_mut(&connection) else { continue };
            known.place = None;
            if let Some((_, sender)) = known.waiting.pop_first() {
                known.running += 1;
                turns.free -= 1;
                granted.push((sender, Turn { turns: self.clone(), length, connection }));
            }
            turns.settle(connection);
        }
        self.queue(length).publish(&turns);
        drop(turns);
        for (sender, turn) in granted {
            drop(sender.send(turn));
        }
    }

    /// Whether it is a long read's time to let others read, and there are any.
    fn should_give_way(&self, length: Length) -> bool {
        length == Length::Long && self.queue(length).ready.load(Ordering::Relaxed) > 0
    }
}

impl Queue {
    fn new(free: usize, share: usize) -> Self {
        let turns = Turns {
            free,
            share,
            connections: FxHashMap::default(),
            ring: BTreeMap::new(),
            ring_next: 0,
            given_way: 0,
        };
        Queue { turns: Mutex::new(turns), ready: AtomicUsize::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().expect("no thread panics while it holds this lock")
    }

    fn publish(&self, turns: &Turns) {
        self.ready.store(turns.ring.len(), Ordering::Relaxed);
    }
}

impl Turns {
    /// Puts a connection into the ring, or takes it out, or forgets it, after its numbers have changed.
    fn settle(&mut self, connection: u64) {
        let Some(known) = self.connections.get_mut(&connection) else { return };
        let is_ready = !known.waiting.is_empty() && known.running < self.share;
        match known.place {
            None if is_ready => {
                self.ring.insert(self.ring_next, connection);
                known.place = Some(self.ring_next);
                self.ring_next += 1;
            }
            Some(place) if !is_ready => {
                self.ring.remove(&place);
                known.place = None;
            }
            _ => {}
        }
        if known.waiting.is_empty() && known.running == 0 {
            self.connections.remove(&connection);
        }
    }
}

/// A turn; the next one begins when it is dropped.
#[derive(Debug)]
struct Turn {
    turns: ReadTurns,
    length: Length,
    connection: u64,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.turns.queue(self.length).lock();
        turns.free += 1;
        if let Some(known) = turns.connections.get_mut(&self.connection) {
            known.running -= 1;
        }
        turns.settle(self.connection);
        self.turns.grant(self.length, turns);
    }
}

/// The turns of one connection; cheap to clone.
#[derive(Clone, Debug)]
pub struct Reads {
    turns: ReadTurns,
    connection: u64,
}

impl Reads {
    /// Runs `work` on a thread made for it when its turn comes. It is to ask the [`Pace`] that it gets whether to go on.
    /// Once this is dropped nobody waits: it is not begun, or ends soon. `None` where the process is about to end.
    pub async fn run<T: Send + 'static>(
        &self,
        length: Length,
        work: impl FnOnce(Arc<dyn Pace>) -> T + Send + 'static,
    ) -> Option<T> {
        let read = Arc::new(Progress {
            turns: self.turns.clone(),
            length,
            connection: self.connection,
            read: self.turns.next(),
            is_gone: AtomicBool::new(false),
            turn: Mutex::new(None),
            bytes: AtomicUsize::new(0),
        });
        let _asker = Asker(Arc::clone(&read));
        let turn = self.turns.enter(length, self.connection, read.read).await.ok()?;
        let run = move || {
            *read.turn() = Some(turn);
            let result = (!read.is_gone()).then(|| work(read.clone()));
            drop(read.turn().take());
            result
        };
        tokio::task::spawn_blocking(run).await.ok().flatten()
    }
}

/// Tells a read when nobody waits for it any more.
struct Asker(Arc<Progress>);

impl Drop for Asker {
    fn drop(&mut self) {
        let Progress { turns, length, connection, read, is_gone, .. } = &*self.0;
        is_gone.store(true, Ordering::Relaxed);
        turns.leave(*length, *connection, *read);
    }
}

/// A read that has, or waits for, its turn.
struct Progress {
    turns: ReadTurns,
    length: Length,
    connection: u64,
    read: u64,
    is_gone: AtomicBool,
    /// While it has it.
    turn: Mutex<Option<Turn>>,
    /// Read since the turn began.
    bytes: AtomicUsize,
}

impl Progress {
    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    fn turn(&self) -> MutexGuard<'_, Option<Turn>> {
        self.turn.lock().expect("no thread panics while it holds this lock")
    }

    /// Lets others read first; waits for the next turn.
    fn give_way(&self) {
        let queue = self.turns.queue(self.length);
        {
            let mut turns = queue.lock();
            if turns.given_way >= GIVEN_WAY_MAX {
                return;
            }
            turns.given_way += 1;
        }
        // First the turn ends, so that those who wait are before this one.
        drop(self.turn().take());
        let next = self.turns.enter(self.length, self.connection, self.read);
        // The asker may have gone before this entered; then nobody takes it out of the queue.
        if self.is_gone() {
            self.turns.leave(self.length, self.connection, self.read);
        }
        *self.turn() = next.blocking_recv().ok();
        queue.lock().given_way -= 1;
        self.bytes.store(0, Ordering::Relaxed);
    }
}

impl Pace for Progress {
    fn go_on(&self, bytes: usize) -> bool {
        let cost = if bytes == 0 { HOLD_BYTES } else { bytes };
        let read = self.bytes.fetch_add(cost, Ordering::Relaxed) + cost;
        if read > PIECE_BYTES && !self.is_gone() && self.turns.should_give_way(self.length) {
            self.give_way();
        }
        !self.is_gone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The turns that have been given, in order, by connection.
    fn given(waiting: &mut Vec<(u64, oneshot::Receiver<Turn>)>) -> Vec<(u64, Turn)> {
        let mut given = Vec::new();
        waiting.retain_mut(|(connection, receiver)| match receiver.try_recv() {
            Ok(turn) => {
                given.push((*connection, turn));
                false
            }
            Err(_) => true,
        });
        given
    }

    #[test]
    fn connections_take_turns_and_none_has_more_than_its_share() {
        for (length, most, share) in
            [(Length::Brief, BRIEF_MAX, BRIEF_SHARE), (Length::Long, LONG_MAX, LONG_SHARE)]
        {
            let turns = ReadTurns::default();
            let mut waiting: Vec<_> = (0..500).map(|_| (1, turns.enter(length, 1, turns.next()))).collect();
            let mut running = given(&mut waiting);
            assert_eq!(running.len(), share);
            let others = (0..20).flat_map(|_| 2..5);
            waiting.extend(others.map(|c| (c, turns.enter(length, c, turns.next()))));
            running.extend(given(&mut waiting));
            assert_eq!(running.len(), most, "what one connection may not have is there for others");
            // Every connection that waits gets its turn before any gets a second one.
            let mut order = Vec::new();
            while order.len() < 8 {
                running.remove(0);
                let next = given(&mut waiting);
                order.extend(next.iter().map(|(connection, _)| *connection));
                running.extend(next);
            }
            let (first, second) = (&order[..4], &order[4..]);
            for connection in 1..5 {
                assert_eq!(first.iter().filter(|c| **c == connection).count(), 1, "{order:?}");
                assert_eq!(second.iter().filter(|c| **c == connection).count(), 1, "{order:?}");
            }
            drop(waiting);
        }
    }

    #[test]
    fn what_is_cancelled_is_forgotten() {
        let turns = ReadTurns::default();
        let numbers: Vec<u64> = (0..10_000).map(|_| turns.next()).collect();
        let receivers: Vec<_> =
            numbers.iter().map(|read| turns.enter(Length::Long, 1 + read % 50, *read)).collect();
        numbers.iter().for_each(|read| turns.leave(Length::Long, 1 + read % 50, *read));
        assert_eq!(turns.waiting(Length::Long), 0);
        assert!(turns.queue(Length::Long).lock().ring.is_empty());
        // Turns that were given to who is gone come back.
        drop(receivers);
        let queue = turns.queue(Length::Long).lock();
        assert_eq!((queue.free, queue.connections.len()), (LONG_MAX, 0));
    }

    #[test]
    fn a_long_read_lets_others_read_after_a_piece() {
        let turns = ReadTurns::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (told, mut tell) = tokio::sync::mpsc::unbounded_channel();
            let mut reads = tokio::task::JoinSet::new();
            let mut begin = |name: usize, go_on: Option<std::sync::mpsc::Receiver<()>>| {
                let (connection, told) = (turns.connection(), told.clone());
                reads.spawn(async move {
                    let work = move |pace: Arc<dyn Pace>| {
                        told.send((name, "begun")).unwrap();
                        if let Some(go_on) = go_on {
                            go_on.recv().unwrap();
                        }
                        assert!(pace.go_on(PIECE_BYTES + 1));
                        told.send((name, "ended")).unwrap();
                    };
                    connection.run(Length::Long, work).await.unwrap();
                });
            };
            let mut permissions = Vec::new();
            for name in 0..LONG_MAX {
                let (permit, go_on) = std::sync::mpsc::channel();
                permissions.push(permit);
                begin(name, Some(go_on));
            }
            begin(LONG_MAX, None);
            while turns.waiting(Length::Long) < 1 {
                tokio::task::yield_now().await;
            }
            for _ in 0..LONG_MAX {
                assert_eq!(tell.recv().await.unwrap().1, "begun");
            }
            permissions[0].send(()).unwrap();
            assert_eq!(tell.recv().await, Some((LONG_MAX, "begun")));
            // It lets the first one go on after a piece, in its turn.
            let mut ended = [tell.recv().await.unwrap(), tell.recv().await.unwrap()];
            ended.sort_unstable();
            assert_eq!(ended, [(0, "ended"), (LONG_MAX, "ended")]);
            permissions[1..].iter().for_each(|permit| permit.send(()).unwrap());
            while reads.join_next().await.is_some() {}
        });
    }
}
