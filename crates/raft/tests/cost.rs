//! What a leader of five allocates, counted by the allocator: nothing for heartbeats and their answers, a fixed number of
//! pieces for a proposal, whatever its size and however long the log. Payloads are shared, never copied.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use raft::*;

thread_local! {
    /// Pieces asked for by this thread.
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory of its own making.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same there.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above, that is, from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct Leader {
    raft: Raft,
    now: Time,
    effects: Vec<Effect>,
    /// The other four answer at once, and this disk too.
    last: Index,
}

const OTHERS: std::ops::RangeInclusive<u64> = 2..=5;

impl Leader {
    fn new() -> Self {
        let config = Config {
            id: NodeId(1),
            election_timeout_ms: 1000,
            heartbeat_interval_ms: 100,
            pre_vote: false,
            check_quorum: true,
            seed: 1,
            limits: Limits::default(),
        };
        let conf = ConfState { voters: (1..=5).map(NodeId).collect(), learners: vec![] };
        let raft = Raft::new(config, Restored { conf, ..Restored::default() }, Time::from_ms(0)).unwrap();
        let mut leader = Self { raft, now: Time::from_ms(0), effects: Vec::new(), last: Index(1) };
        leader.step(Event::Campaign);
        leader.disk();
        OTHERS.for_each(|id| leader.receive(id, Body::VoteResponse { reject: false }));
        leader.disk();
        leader.acknowledge();
        assert_eq!(leader.raft.status().role, Role::Leader);
        leader
    }

    fn step(&mut self, event: Event) {
        self.raft.step(self.now, event, &mut self.effects);
    }

    fn receive(&mut self, from: u64, body: Body) {
        let term = self.raft.status().term;
        self.step(Event::Receive(Message { from: NodeId(from), to: NodeId(1), term, body }));
    }

    fn disk(&mut self) {
        let persist = self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Persist { seq, term, last, .. } => Some((*seq, *term, *last)),
            _ => None,
        });
        self.effects.clear();
        if let Some((seq, term, last)) = persist {
            self.last = last.0;
            self.step(Event::Persisted { seq, term, last });
        }
    }

    fn acknowledge(&mut self) {
        OTHERS.for_each(|id| self.receive(id, Body::AppendResponse { index: self.last, reject: None }));
        self.effects.clear();
        self.step(Event::Applied { index: self.last });
    }

    fn heartbeats(&mut self) {
        self.now = self.now.plus_ms(100);
        self.step(Event::Tick);
        self.effects.clear();
        OTHERS.for_each(|id| self.receive(id, Body::HeartbeatResponse { context: None }));
        self.effects.clear();
    }

    fn propose(&mut self, entries: Vec<Proposal>) -> Vec<Effect> {
        self.step(Event::Propose { entries });
        let effects = self.effects.clone();
        self.disk();
        self.acknowledge();
        effects
    }
}

fn counted(work: impl FnOnce()) -> usize {
    let before = ASKED.get();
    work();
    ASKED.get() - before
}

fn proposals(count: usize, size: usize) -> Vec<Proposal> {
    let data = Bytes::from(vec![7; size]);
    // `Bytes` allocates once more when it is shared for the first time; a request's bytes are.
    let _shared = data.clone();
    vec![Proposal { token: 1, kind: EntryKind::Normal, data }; count]
}

#[test]
fn heartbeats_allocate_nothing() {
    let mut leader = Leader::new();
    (0..3).for_each(|_| leader.heartbeats());
    assert_eq!(counted(|| (0..100).for_each(|_| leader.heartbeats())), 0);
}

/// An append's list of entries for each of the four, one for the disk and one to apply; for a hundred proposals in one
/// event no more than for one, and as many at the end of a long log as at its beginning.
#[test]
fn proposals_allocate_a_fixed_number_of_pieces() {
    let mut leader = Leader::new();
    let mut cost = |count: usize, size: usize| {
        let proposals = proposals(count, size);
        let before = ASKED.get();
        leader.step(Event::Propose { entries: proposals });
        leader.disk();
        leader.acknowledge();
        ASKED.get() - before
    };
    // Queues grow to their size first.
    for _ in 0..200 {
        cost(100, 10);
        cost(1, 10);
    }
    assert_eq!(cost(1, 10), 6);
    assert_eq!(cost(1, 100_000), 6, "a large payload");
    assert_eq!(cost(100, 10), 6, "a hundred in one event");
    for _ in 0..2_000 {
        cost(100, 10);
    }
    assert_eq!(cost(1, 10), 6, "behind 200,000 entries");
}

#[test]
fn payloads_are_shared() {
    let mut leader = Leader::new();
    let proposal = proposals(1, 1000);
    let place = proposal[0].data.as_ptr();
    let effects = leader.propose(proposal);
    let mut seen = 0;
    for effect in &effects {
        let entries = match effect {
            Effect::Persist { entries, .. } | Effect::Apply { entries } => entries,
            Effect::Send { message, .. } => match &message.body {
                Body::Append { entries, .. } => entries,
                _ => continue,
            },
            _ => continue,
        };
        seen += entries.len();
        assert!(entries.iter().all(|entry| entry.data.as_ptr() == place), "a payload was copied");
    }
    assert_eq!(seen, 5, "one for the disk, and one for each of the others");
}
