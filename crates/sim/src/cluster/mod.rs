//! A cluster on a simulated network, disks and clocks, driven by a seed.
//!
//! [`run`] joins several real members, lets clients write, read and renew leases at any of them, and disturbs what can be
//! disturbed: messages are lost, repeated, late and overtaken, ways are cut, machines crash, disks fail and fill up,
//! processes are stopped, clocks run at different speeds and jump, members come and go, and leadership is moved. What happens is a
//! queue of events in true time, so idle times cost nothing, and the same seed gives the same run.
//!
//! Every entry is the same wherever it is applied, each request happens at most once, and what is refused never
//! (`checker.rs`). Whoever asks for something later than somebody has seen a result comes after it: writes by their place
//! in the log, reads by what they show, which must be what the model has at that very entry. As revisions order
//! everything, that is linearizability, in one pass. Whose fate nobody will ever tell is told so (`fates.rs`).

mod clients;
mod fates;
mod finish;
mod host;
mod leases;
mod network;
mod scenario;
mod transfer;
mod watches;
mod world;

pub use world::World;

/// How long and how rough a run is.
#[derive(Clone, Copy, Debug)]
pub struct ClusterOptions {
    /// How long things are disturbed, milliseconds of true time.
    pub disturbed_ms: u64,
    /// Whether to print each line of the trace as it happens; its digest is always made.
    pub print_trace: bool,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        ClusterOptions { disturbed_ms: 10_000, print_trace: false }
    }
}

/// What a run did. A run that finds a fault panics, naming it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterReport {
    /// Answers that clients got, each checked.
    pub answers: u64,
    /// Of them, those that a member gave which did not lead.
    pub forwarded: u64,
    /// Linearizable reads that were served, each checked whole.
    pub reads: u64,
    /// Members that were killed, or ended by a failed disk.
    pub crashes: u64,
    /// Terms in which somebody led.
    pub elections: u64,
    /// Requests whose callers were told that their fate is unknown.
    pub lost: u64,
    /// Changes of membership that were applied, beside those of the start.
    pub changes: u64,
    /// Snapshots that members took over from their leader.
    pub restored: u64,
    /// Leases that ended by themselves.
    pub leases_ended: u64,
    /// Renewals of leases that were acknowledged.
    pub renewals: u64,
    /// Events that watches were told of.
    pub events: u64,
    /// A sum over the trace: equal for equal runs.
    pub digest: u64,
}

/// Runs a cluster from `seed`.
///
/// # Panics
/// On any fault found; the message does not repeat the seed, the caller prints it.
pub fn run(seed: u64, options: ClusterOptions) -> ClusterReport {
    let mut world = World::new(seed, options);
    world.disturb();
    world.finish();
    world.report()
}
