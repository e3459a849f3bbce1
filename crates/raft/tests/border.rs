//! What crosses the border and is not to be trusted: messages of broken members, and what the disk gives back.

mod cluster;

use std::collections::VecDeque;

use bytes::Bytes;
use cluster::Cluster;
use raft::*;

fn snapshot(index: u64, term: u64, voters: &[u64]) -> Body {
    let conf = ConfState { voters: voters.iter().copied().map(NodeId).collect(), learners: vec![] };
    Body::Snapshot { snapshot: Snapshot { index: Index(index), term: Term(term), conf, data: Bytes::new() } }
}

fn entry(index: u64, term: u64) -> Entry {
    Entry { term: Term(term), index: Index(index), kind: EntryKind::Normal, data: Bytes::new() }
}

/// A small generator: xorshift.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    /// Mostly small and plausible, sometimes at an edge.
    fn number(&mut self) -> u64 {
        const EDGES: [u64; 5] = [u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) - 1, u32::MAX as u64];
        if self.below(12) == 0 { EDGES[self.below(5) as usize] } else { self.below(8) }
    }

    fn position(&mut self) -> Position {
        (Index(self.number()), Term(self.number()))
    }

    fn entries(&mut self, prev: Position) -> Vec<Entry> {
        let mut entries = Vec::new();
        for place in 0..self.below(4) {
            // Half of them plausible, so that the dangerous part is reached.
            let (index, term) = if self.below(8) == 0 {
                self.position()
            } else {
                (Index(prev.0.0.wrapping_add(place + 1)), prev.1)
            };
            entries.push(entry(index.0, term.0));
        }
        entries
    }

    fn body(&mut self) -> Body {
        match self.below(14) {
            0 => Body::Propose { entries: vec![(EntryKind::Normal, Bytes::new()); self.below(3) as usize] },
            1 => {
                let prev = self.position();
                Body::Append { prev, entries: self.entries(prev), commit: Index(self.number()) }
            }
            2 => {
                let reject = (self.below(2) == 0).then(|| self.position());
                Body::AppendResponse { index: Index(self.number()), reject }
            }
            3 => Body::Vote { last: self.position(), transfer: self.below(2) == 0 },
            4 => Body::VoteResponse { reject: self.below(2) == 0 },
            5 => Body::Heartbeat { commit: Index(self.number()), context: Some(self.number()) },
            6 => Body::HeartbeatResponse { context: Some(self.number()) },
            7 => Body::ReadIndex { context: self.number() },
            8 => Body::ReadIndexResponse { index: Index(self.number()), context: self.number() },
            9 => Body::PreVote { last: self.position() },
            10 => Body::PreVoteResponse { reject: self.below(2) == 0 },
            11 => Body::Snapshot { snapshot: self.snapshot() },
            12 => Body::TransferLeader,
            _ => Body::TimeoutNow,
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        let (index, term) = self.position();
        let voters = (1..=self.below(4)).map(NodeId).collect();
        let learners = (0..self.below(2)).map(|_| NodeId(self.number())).collect();
        Snapshot { index, term, conf: ConfState { voters, learners }, data: Bytes::new() }
    }

    fn message(&mut self, to: NodeId) -> Message {
        let to = if self.below(20) == 0 { NodeId(self.number()) } else { to };
        Message { from: NodeId(self.number()), to, term: Term(self.number()), body: self.body() }
    }
}

/// What a shell that keeps its side of the contract answers to an effect, some time later.
fn answers_of(effect: Effect) -> Vec<Event> {
    match effect {
        Effect::Persist { seq, term, last, .. } => vec![Event::Persisted { seq, term, last }],
        Effect::Restore { seq, term, snapshot, .. } => {
            let Snapshot { index, term: its_term, .. } = snapshot;
            vec![Event::Persisted { seq, term, last: (index, its_term) }, Event::Applied { index }]
        }
        Effect::Apply { entries } => vec![Event::Applied { index: entries.last().unwrap().index }],
        _ => Vec::new(),
    }
}

/// Whatever arrives, the member goes on, with all its invariants, however late its disk is.
#[test]
fn no_message_panics() {
    for seed in 1..400 {
        let mut chance = Chance(seed * 0x9e37_79b9);
        let conf = ConfState { voters: (1..=3).map(NodeId).collect(), learners: vec![NodeId(4)] };
        let config = Config {
            id: NodeId(1),
            election_timeout_ms: 1000,
            heartbeat_interval_ms: 100,
            pre_vote: seed % 2 == 0,
            check_quorum: true,
            seed,
            limits: Limits::tiny(),
        };
        let restored = Restored { conf, ..Restored::default() };
        let mut raft = Raft::new(config, restored, Time::from_ms(0)).unwrap();
        let (mut effects, mut answers) = (Vec::new(), VecDeque::new());
        let mut now = Time::from_ms(0);
        for _ in 0..300 {
            let event = match chance.below(20) {
                0 => Event::Campaign,
                1 => {
                    now = now.plus_ms(chance.below(3000));
                    Event::Tick
                }
                2 => Event::TransferLeader { to: NodeId(chance.number()) },
                3 => Event::Unreachable { id: NodeId(chance.number()) },
                4 => {
                    let sent = (Term(chance.below(3)), Index(chance.number()));
                    let sent = (chance.below(2) == 0).then_some(sent);
                    Event::SnapshotReported { to: NodeId(chance.number()), sent, ok: chance.below(2) == 0 }
                }
                5 => Event::ReadIndex { context: chance.number() },
                6 => Event::Hurry,
                _ => Event::Receive(chance.message(NodeId(1))),
            };
            raft.step(now, event, &mut effects);
            raft.check();
            answers.extend(effects.drain(..).flat_map(answers_of));
            while !answers.is_empty() && chance.below(4) > 0 {
                let answer = answers.pop_front().expect("there is one");
                raft.step(now, answer, &mut effects);
                raft.check();
                answers.extend(effects.drain(..).flat_map(answers_of));
            }
        }
        assert!(raft.status().rejected_messages > 0, "the noise of seed {seed} was harmless");
    }
}

/// A member does not follow two leaders of one term, nor a stranger's answers.
#[test]
fn impossible_messages_are_counted_and_change_nothing() {
    let mut cluster = Cluster::new(3, 1, &Cluster::settings(Limits::default()));
    cluster.ids().into_iter().for_each(|id| cluster.start(id, Index::ZERO));
    cluster.step(NodeId(1), Event::Campaign);
    cluster.settle();
    let append = |prev, entries| Body::Append { prev, entries, commit: Index(0) };
    let (one, two, nine) = (NodeId(1), NodeId(2), NodeId(9));
    let last = (Index(1), Term(1));
    let cases = [
        ("a second leader of the term", two, NodeId(3), 1, append(last, vec![])),
        ("a leader told of another", one, two, 1, append(last, vec![])),
        ("a gap", two, one, 1, append(last, vec![entry(3, 1)])),
        ("a term that steps back", two, one, 2, append((Index(1), Term(2)), vec![entry(2, 1)])),
        ("entries of a term to come", two, one, 2, append(last, vec![entry(2, 3)])),
        ("an absurd term", two, one, 1 << 63, append(last, vec![])),
        ("an absurd index", two, one, 1, append((Index(1 << 63), Term(1)), vec![])),
        ("its own message", one, one, 1, append(last, vec![])),
        ("another one's message", NodeId(3), two, 1, append(last, vec![])),
        ("nobody's message", one, NodeId(0), 1, append(last, vec![])),
        ("no term", two, one, 0, append(last, vec![])),
        ("a stranger's answer", one, nine, 5, Body::AppendResponse { index: Index(9), reject: None }),
        ("a stranger's vote", one, nine, 5, Body::VoteResponse { reject: false }),
        ("an answer beyond the log", one, two, 1, Body::AppendResponse { index: Index(2), reject: None }),
        ("a round never begun", one, two, 1, Body::HeartbeatResponse { context: Some(1) }),
        ("no proposals", one, two, 0, Body::Propose { entries: vec![] }),
        ("a stranger's answer before a vote", one, nine, 5, Body::PreVoteResponse { reject: false }),
        ("a stranger's read index", two, nine, 1, Body::ReadIndexResponse { index: Index(1), context: 1 }),
        ("a second leader's wish", two, NodeId(3), 1, Body::TimeoutNow),
        ("a snapshot of nothing", two, one, 1, snapshot(0, 1, &[1, 2, 3])),
        ("a snapshot of a term to come", two, one, 1, snapshot(5, 2, &[1, 2, 3])),
        ("a snapshot without voters", two, one, 1, snapshot(5, 1, &[])),
        ("a snapshot with repeated voters", two, one, 1, snapshot(5, 1, &[1, 2, 2])),
        ("an absurd snapshot", two, one, 1, snapshot(1 << 63, 1, &[1, 2, 3])),
    ];
    for (what, to, from, term, body) in cases {
        let target = if what.starts_with("another") { one } else { to };
        let before = cluster.raft(target).status();
        let message = Message { from, to, term: Term(term), body };
        cluster.step(target, Event::Receive(message));
        let after = cluster.raft(target).status();
        assert_eq!(after.rejected_messages, before.rejected_messages + 1, "{what}");
        assert_eq!(
            Status { rejected_messages: 0, ..after },
            Status { rejected_messages: 0, ..before },
            "{what}"
        );
    }
    // The cluster is as it was.
    cluster.propose(one, &["a".to_owned()]);
    cluster.settle();
    assert!(cluster.members.values().all(|member| member.state.len() == 2));
}

/// Its requests for votes leave when its own vote is durable: whoever answers before that was never asked.
#[test]
fn votes_nobody_was_asked_for_elect_nobody() {
    let conf = ConfState { voters: (1..=3).map(NodeId).collect(), learners: vec![] };
    let config = Config { pre_vote: false, ..config() };
    let mut raft = Raft::new(config, Restored { conf, ..Restored::default() }, Time::from_ms(0)).unwrap();
    let (now, mut effects) = (Time::from_ms(0), Vec::new());
    raft.step(now, Event::Campaign, &mut effects);
    let term = raft.status().term;
    let vote = |from| Message { from, to: NodeId(1), term, body: Body::VoteResponse { reject: false } };
    for from in [NodeId(2), NodeId(3)] {
        raft.step(now, Event::Receive(vote(from)), &mut effects);
    }
    assert_eq!((raft.status().role, raft.status().rejected_messages), (Role::Candidate, 2));
    for answer in effects.drain(..).flat_map(answers_of).collect::<Vec<_>>() {
        raft.step(now, answer, &mut Vec::new());
    }
    assert_eq!(raft.status().role, Role::Candidate, "with one vote of three");
    raft.step(now, Event::Receive(vote(NodeId(2))), &mut effects);
    assert_eq!(raft.status().role, Role::Leader);
}

fn config() -> Config {
    Config {
        id: NodeId(1),
        election_timeout_ms: 1000,
        heartbeat_interval_ms: 100,
        pre_vote: true,
        check_quorum: true,
        seed: 1,
        limits: Limits::default(),
    }
}

fn start(restored: Restored) -> Result<Raft, Error> {
    Raft::new(config(), restored, Time::from_ms(0))
}

#[test]
fn unsound_disk_is_refused_by_name() {
    let conf = ConfState { voters: vec![NodeId(1)], learners: vec![] };
    let sound = || Restored {
        hard_state: HardState { term: Term(2), vote: None, commit: Index(6) },
        conf: conf.clone(),
        offset: (Index(4), Term(1)),
        entries: vec![entry(5, 1), entry(6, 2), entry(7, 2)],
        applied: Index(5),
    };
    assert!(start(sound()).is_ok());
    let text = |restored| start(restored).expect_err("refused").to_string();
    let gap = Restored { entries: vec![entry(5, 1), entry(7, 2)], ..sound() };
    assert_eq!(text(gap), "log entry 7 (term 2) cannot follow entry 5 (term 1)");
    let back = Restored { entries: vec![entry(5, 2), entry(6, 1)], ..sound() };
    assert_eq!(text(back), "log entry 6 (term 1) cannot follow entry 5 (term 2)");
    let lost = Restored { entries: vec![entry(5, 1)], ..sound() };
    assert_eq!(text(lost), "commit index 6 is beyond the last log entry 5");
    let ahead = Restored { applied: Index(8), ..sound() };
    assert_eq!(text(ahead), "applied index 8 is outside the log, which reaches from 4 to 7");
    let behind = Restored { applied: Index(3), ..sound() };
    assert_eq!(text(behind), "applied index 3 is outside the log, which reaches from 4 to 7");
    let conf = ConfState { voters: vec![NodeId(2), NodeId(1)], learners: vec![] };
    assert!(matches!(start(Restored { conf, ..sound() }), Err(Error::Conf(_))));
    let conf = ConfState { voters: vec![NodeId(1)], learners: vec![NodeId(1)] };
    assert!(matches!(start(Restored { conf, ..sound() }), Err(Error::Conf(_))));
}

/// A crash may keep a new term's entries and lose the state that was written behind them: the term is at least theirs,
/// and the vote of an older term is none in it.
#[test]
fn term_is_never_behind_the_log() {
    let hard_state = HardState { term: Term(1), vote: Some(NodeId(2)), commit: Index(0) };
    let conf = ConfState { voters: vec![NodeId(1), NodeId(2)], learners: vec![] };
    let raft =
        start(Restored { hard_state, conf, entries: vec![entry(1, 3)], ..Restored::default() }).unwrap();
    assert_eq!((raft.status().term, raft.status().vote), (Term(3), None));
    raft.check();
}

#[test]
#[should_panic(expected = "was never issued")]
fn durable_before_written_is_a_broken_shell() {
    let mut raft = start(Restored::default()).unwrap();
    let event = Event::Persisted { seq: PersistSeq(1), term: Term(0), last: (Index(0), Term(0)) };
    raft.step(Time::from_ms(0), event, &mut Vec::new());
}

#[test]
#[should_panic(expected = "but only 0 was handed out")]
fn applied_before_committed_is_a_broken_shell() {
    let mut raft = start(Restored::default()).unwrap();
    raft.step(Time::from_ms(0), Event::Applied { index: Index(1) }, &mut Vec::new());
}

/// An append may be cut short by a bound on its size while its commit index is far ahead. The follower commits what the
/// append covers, not what its own log happens to have behind it: that may be another leader's.
#[test]
fn append_commits_no_further_than_it_reaches() {
    let conf = ConfState { voters: (1..=3).map(NodeId).collect(), learners: vec![] };
    let hard_state = HardState { term: Term(1), vote: None, commit: Index(0) };
    let entries = (1..=4).map(|index| entry(index, 1)).collect();
    let mut raft = start(Restored { hard_state, conf, entries, ..Restored::default() }).unwrap();
    let receive = |body| Event::Receive(Message { from: NodeId(2), to: NodeId(1), term: Term(2), body });
    let mut effects = Vec::new();
    let short = Body::Append { prev: (Index(1), Term(1)), entries: vec![entry(2, 1)], commit: Index(4) };
    raft.step(Time::from_ms(1), receive(short), &mut effects);
    assert_eq!(raft.status().commit, Index(2));
    let none = Body::Append { prev: (Index(3), Term(1)), entries: vec![], commit: Index(4) };
    raft.step(Time::from_ms(2), receive(none), &mut effects);
    assert_eq!(raft.status().commit, Index(3));
    let applied: Vec<u64> = effects
        .iter()
        .filter_map(|effect| if let Effect::Apply { entries } = effect { Some(entries) } else { None })
        .flatten()
        .map(|entry| entry.index.0)
        .collect();
    assert_eq!(applied, [1, 2, 3]);
}

/// A snapshot of entries that are here brings nothing but the news that they are committed; one that does not name this
/// member is not for it. Both are answered with what is committed, so that the leader knows.
#[test]
fn snapshots_that_bring_nothing_are_not_taken_over() {
    let conf = ConfState { voters: (1..=3).map(NodeId).collect(), learners: vec![] };
    let hard_state = HardState { term: Term(1), vote: None, commit: Index(1) };
    let entries = (1..=4).map(|index| entry(index, 1)).collect();
    let mut raft = start(Restored { hard_state, conf, entries, ..Restored::default() }).unwrap();
    let mut answer = |body| {
        let message = Message { from: NodeId(2), to: NodeId(1), term: Term(1), body };
        let mut effects = Vec::new();
        raft.step(Time::from_ms(1), Event::Receive(message), &mut effects);
        raft.check();
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Restore { .. })), "taken over");
        let sent = effects.into_iter().find_map(|effect| match effect {
            Effect::Send { message, .. } => Some(message.body),
            _ => None,
        });
        (sent, raft.status().commit, raft.status().last)
    };
    let has = |index| Some(Body::AppendResponse { index: Index(index), reject: None });
    let last = (Index(4), Term(1));
    assert_eq!(answer(snapshot(9, 1, &[2, 3])), (has(1), Index(1), last), "of others");
    assert_eq!(answer(snapshot(3, 1, &[1, 2, 3])), (has(3), Index(3), last), "of entries that are here");
    assert_eq!(answer(snapshot(2, 1, &[1, 2, 3])), (has(3), Index(3), last), "of what is committed");
}

#[test]
#[should_panic(expected = "but only 0 is applied")]
fn snapshot_of_what_is_not_applied_is_a_broken_shell() {
    let mut raft = start(Restored::default()).unwrap();
    let conf = ConfState { voters: vec![NodeId(1)], learners: vec![] };
    let snapshot = Snapshot { index: Index(1), term: Term(1), conf, data: Bytes::new() };
    raft.step(Time::from_ms(0), Event::SnapshotReady { to: NodeId(2), snapshot }, &mut Vec::new());
}
