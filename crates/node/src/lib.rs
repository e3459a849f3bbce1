//! One member as pure state machines: consensus, apply and the two log writers, joined by events and effects.
//!
//! The shell (`server`) gives each its thread, the simulator (`sim`) interleaves them on virtual time; both run
//! exactly this code. Nothing here knows sockets, clocks, threads or files other than through `disk::Fs`.
//!
//! [`open`] reads what the last run left and gives the parts of a [`Member`]. Between them travel, always in
//! batches and in order:
//!
//! ```text
//! Submission ─► Consensus ─ PersistRequest ─► LogWriter ─ Persisted ─► Consensus
//!                   ├─ durable index ─► Applier, RevisionWriter
//!                   └─ Entry ─► Applier ─ Frame ─► RevisionWriter
//!                                  ├─ LeaseChange ─► Lessor ◄─ renewals; ─ what has ended ─► Consensus
//!                                  ├─ Applied ─► Consensus
//!                                  └─ answers ─► who asked
//! ```
//!
//! Beside it, now and then, a snapshot goes round: [`SnapshotOrder`]; and a [`Merger`] gives back what compactions drop.
#![forbid(unsafe_code)]

mod applier;
mod auto_compaction;
mod cluster_version;
mod consensus;
pub mod corruption;
mod error;
mod exchange;
mod fates;
mod forced;
mod held;
mod identity;
mod ids;
pub mod interchange;
pub mod lease;
mod log_writer;
mod merge;
pub mod offline;
mod quota;
mod reconfigure;
mod records;
mod revision_writer;
mod rot;
mod snapshot;
mod start;

pub use applier::{Applier, ApplyWatch, Batch};
pub use auto_compaction::AutoCompaction;
pub use consensus::{
    Applied, AutoCompactionEvent, Consensus, ForwardRefused, Input, Leadership, Outputs, OwnAttributes,
};
pub use error::Error;
pub use exchange::{Completions, Promotion, RequestId, Submission};
pub use fates::LostProposals;
pub use forced::Forced;
pub use identity::{Identity, InitialMember, cluster_id, member_id};
pub use ids::{LaneIds, RequestIds};
pub use interchange::{Incoming, ReceiveError, SnapshotReceiver};
pub use log_writer::{LogWriter, PersistRequest, Persisted, Written};
pub use merge::{MergeCounters, MergeStep, Merged, Merger, Pressure};
pub use quota::{QUOTA_BYTES_DEFAULT, Quota};
pub use reconfigure::{Change, NewMember, Situation, added_member_id};
pub use revision_writer::RevisionWriter;
pub use rot::Rot;
pub use snapshot::{SnapshotOrder, SnapshotWriter};
pub use start::{ClusterState, Entropy, Found, Limits, Member, Settings, Stage, open};
