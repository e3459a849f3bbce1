//! Consensus as a pure state machine: Raft with etcd's messages and etcd's meaning of them, for any number of voters.
//!
//! **What it does.** It decides, with the other members, which entries are in the log and in which order: elections
//! (with a question before, and the leader's check of its quorum), replication with flow control and snapshots,
//! commitment, changes of membership, hand-over of leadership, and from which index on a read is linearizable. A cluster
//! of one voter goes through the very same steps.
//!
//! **What it never knows.** Clock, disk, network, threads, and what an entry means. Time is handed in, randomness comes
//! from the seed in [`Config`], and the same events give the same effects, always.
//!
//! **The contract.** [`Raft::step`] takes one [`Event`] at a time and returns [`Effect`]s, which the shell carries out:
//!
//! - It sends [`Event::Tick`] when [`Raft::deadline`] is reached. The deadline may move with every step.
//! - [`Effect::Persist`] is a queue of its own: written in order, synced, answered with [`Event::Persisted`].
//!   [`Effect::Restore`], which puts a snapshot in the place of the log so far, has its place in it. [`Effect::Apply`] is another, answered with [`Event::Applied`]. [`Effect::Send`] is a third. None of the three
//!   waits for another, with one exception:
//! - A `Send` with `after` waits until that `Persist`, and so all before it, is durable. If the member crashes first,
//!   the message must never leave.
//! - What is durable before what: a granted vote before its answer; a candidate's term and own vote before its requests
//!   for votes; accepted entries, or a snapshot, before their acknowledgement. A leader's own copy of an entry counts towards its
//!   commitment once durable, like everybody's; its appends and heartbeats wait for nothing (design rule 1).
//! - A committed entry may be applied before this member's own disk has it, since a quorum's disks have. The shell must
//!   not let anything durable that follows from it overtake the log (design rule 2).
//! - After a crash, the shell hands back in [`Restored`] what was durable: the newest state, and the log with the
//!   replacements of later writes. The commit index in it may be old; a sole voter commits its whole log again with its
//!   first entry of the new term, which is right since only its own disk counts.
//!
//! - [`Effect::SnapshotWanted`] is answered in the end, with [`Event::SnapshotReported`], however long the follower and
//!   its store take: until then the follower gets no entries.
//!
//! **Bounds.** Every queue has one, in [`Limits`], with what happens beyond it. In memory are the entries that are not
//! yet durable and applied, and in a cluster a bounded number of older ones for slow followers. A follower that needs
//! more gets a snapshot ([`FollowerState::Snapshot`]). What waits for a disk that hangs is bounded as well: a leader whose
//! disk answers nothing for an election timeout hands its leadership over, a member that could not win does not ask
//! again, and an acknowledgement is not repeated (design rule 4).
//!
//! **Membership.** A change is an entry like others; it counts when the state machine reports it, with
//! [`Event::ConfApplied`]. One at a time, and none before the leader has committed in its term: otherwise an empty entry
//! takes its place (design rule 16). The joint form is not built: etcd proposes none.
//!
//! **On the wire.** [`Message`] says what a message means; [`RawMessage`] has the fields of etcd's `raftpb.Message`, and
//! converts both ways.
#![forbid(unsafe_code)]

mod config;
mod election;
mod entry;
mod event;
mod log;
mod membership;
mod message;
mod position;
mod progress;
mod quorum;
mod raft;
mod random;
mod raw_message;
mod read;
mod read_index;
mod replication;
mod snapshot;
mod time;
mod transfer;

pub use config::{Config, Error, Limits, Restored};
pub use entry::{ConfState, Entry, EntryKind, HardState, Snapshot};
pub use event::{Effect, Event, Proposal, ReadRefusal, Refusal, Role};
pub use message::{Body, Message};
pub use position::{Index, NodeId, PersistSeq, Position, Term};
pub use progress::FollowerState;
pub use raft::{Follower, Raft, Status};
pub use raw_message::{MeaninglessMessage, MessageType, RawMessage};
pub use time::Time;
