//! Comparisons of hashes with the other members: while this one leads, now and then and after compactions; and once before
//! it serves anybody (etcd: corrupt.go). What hashes mean is decided in `node`; here they are made and asked for.

mod ask;
mod start;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use node::corruption::{CompactionChecks, Fault, Hashed, LeaderHashes, Outcome, Verdict, periodic};
use store::{KvHash, ReadFailure, admission};
use tokio::time::{Instant, MissedTickBehavior};
use wire::etcdserverpb::alarm_request::AlarmAction;
use wire::etcdserverpb::{AlarmRequest, AlarmType};
use wire::{ApiError, Status};

use crate::grpc::MemberView;
use crate::lane::Lane;
use crate::log;

use ask::Asker;

pub(super) use start::check_at_start;

/// What is checked while the member runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checks {
    /// `--corrupt-check-time`.
    pub interval: Option<Duration>,
    /// `--compact-hash-check-time`, if the gate is on.
    pub compaction_interval: Option<Duration>,
}

/// Why a check came to nothing.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error(transparent)]
    Hash(#[from] ReadFailure),
    #[error("{}", .0.message)]
    Confirm(Status),
    #[error("{}", ApiError::Stopped.text())]
    Stopped,
}

/// Compares hashes as long as the member runs. For a task of the peer thread, whose lane it is given.
pub(super) async fn monitor(lane: Lane, checks: Checks) {
    let view = Arc::clone(&lane.member());
    let checker = Rc::new(Checker { view, lane });
    if let Some(interval) = checks.compaction_interval {
        tokio::task::spawn_local(compare_compactions(Rc::clone(&checker), interval));
    }
    if let Some(interval) = checks.interval {
        compare_newest(checker, interval).await;
    }
}

struct Checker {
    view: Arc<MemberView>,
    lane: Lane,
}

async fn compare_newest(checker: Rc<Checker>, interval: Duration) {
    log::info!("enabled corruption checking", "local-member-id" => checker.id(), "interval" => interval);
    let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        if !checker.leads_others() {
            continue;
        }
        let checked = checker.within(interval, checker.check_newest(interval)).await;
        if let Some(Err(error)) = checked {
            log::warn!("failed to check hash KV", "error" => log::Text(error));
        }
    }
}

async fn compare_compactions(checker: Rc<Checker>, interval: Duration) {
    let mut checks = CompactionChecks::default();
    loop {
        tokio::time::sleep(interval).await;
        let kept = checks.unchecked(checker.view.reader.compaction_hashes());
        // Where there is nothing to compare, nothing is said either, unlike in etcd: this goes on by default.
        if checker.leads_others() && !kept.is_empty() {
            checker.within(interval, checker.check_compactions(&mut checks, kept)).await;
        }
    }
}

impl Checker {
    fn id(&self) -> String {
        format!("{:x}", self.view.member_id)
    }

    /// Whether this member leads, and somebody.
    fn leads_others(&self) -> bool {
        let (view, membership) = (&self.view, self.view.reader.membership());
        view.status.leader() == view.member_id
            && membership.members().any(|member| member.id != view.member_id)
    }

    /// Runs a check to its end, or gives it up. A short interval is no reason to: another member may take some time to
    /// answer, or not answer at all, and then the rest is compared without it.
    async fn within<T>(&self, interval: Duration, check: impl Future<Output = T>) -> Option<T> {
        let limit = interval.max(2 * self.view.request_timeout);
        let done = tokio::time::timeout(limit, check).await;
        let counters = &self.view.hashes.counters;
        let counter = if done.is_ok() { &counters.checks } else { &counters.checks_given_up };
        counter.fetch_add(1, Ordering::Relaxed);
        if done.is_err() {
            log::warn!(
                "gave up a comparison of hashes: it did not come to its end within its interval",
                "local-member-id" => self.id(),
                "interval" => interval,
                "limit" => limit,
            );
        }
        done.ok()
    }

    /// This member's newest hash.
    async fn hash(&self) -> Result<Hashed, CheckError> {
        let view = &self.view;
        Ok(view.hashes.compared(&view.reader, 0).await.ok_or(CheckError::Stopped)??)
    }

    /// Asks the other members in one check.
    fn asker(&self, patience: Duration) -> Asker {
        let view = Arc::clone(&self.view);
        let ask = move |url, question, timeout| -> ask::Answer {
            Box::pin(view.others.ask(url, question, timeout))
        };
        Asker::new(self.view.member_id, patience, ask)
    }

    async fn check_newest(&self, interval: Duration) -> Result<(), CheckError> {
        let first = self.hash().await?.hash;
        // Others have to read as much as this one; one that is not there must not take the whole interval.
        let patience = self.view.request_timeout.max(interval / 2);
        let membership = self.view.reader.membership();
        let peers = self.asker(patience).ask(&membership, first.hash_revision).await;
        self.lane.linearizable().await.map_err(CheckError::Confirm)?;
        let leader = LeaderHashes { first, second: self.hash().await? };
        let found = periodic(self.view.member_id, &leader, &peers);
        for (id, fault) in &found {
            describe(&leader, *id, fault);
        }
        if let Some((id, _)) = found.first() {
            self.raise(*id).await;
        }
        let told = peers.iter().filter(|peer| peer.answer.is_ok()).count();
        log::info!("finished peer corruption check", "number-of-peers-checked" => told);
        Ok(())
    }

    async fn check_compactions(&self, checks: &mut CompactionChecks, kept: Vec<KvHash>) {
        let timeout = self.view.request_timeout;
        log::info!("starting compact hash check", "local-member-id" => self.id(), "timeout" => timeout);
        let (asker, mut checked) = (self.asker(timeout), 0);
        for leader in kept {
            checked += 1;
            let peers = asker.ask(&self.view.reader.membership(), leader.hash_revision).await;
            let verdict = checks.judge(self.view.member_id, leader, &peers);
            self.describe_verdict(&leader, peers.len(), &verdict);
            for id in verdict.outcome.alarms() {
                self.raise(id).await;
            }
            if verdict.outcome.is_final() {
                break;
            }
        }
        log::info!("finished compaction hash check", "number-of-hashes-checked" => checked);
    }

    /// Raises CORRUPT for a member; 0 stands for the whole cluster.
    async fn raise(&self, id: u64) {
        let kind = AlarmType::Corrupt;
        if self.view.reader.alarms().contains(kind, id) {
            return;
        }
        let (action, alarm) = (AlarmAction::Activate as i32, kind as i32);
        let request = AlarmRequest { action, member_id: id, alarm };
        let entry = self.lane.next_id();
        // If it is lost, the next check finds the same.
        if let Err(status) = self.lane.apply(entry, admission::encode_alarm(entry.0, &request), false).await {
            log::warn!(
                "failed to raise an alarm",
                "alarm" => kind.as_str_name(),
                "member-id" => format!("{id:x}"),
                "error" => log::Text(&status.message),
            );
        }
    }

    fn describe_verdict(&self, leader: &KvHash, peers: usize, verdict: &Verdict) {
        let id = self.id();
        for (peer, reason) in &verdict.skipped {
            log::warn!(
                "Skipped peer's hash",
                "number-of-peers" => peers,
                "leader-id" => id,
                "peer-id" => format!("{peer:x}"),
                "reason" => log::Text(reason),
            );
        }
        match &verdict.outcome {
            Outcome::Same => log::info!(
                "successfully checked hash on whole cluster",
                "number-of-peers-checked" => verdict.compared,
                "revision" => leader.hash_revision,
                "compactRevision" => leader.compact_revision,
            ),
            Outcome::SameOfSome => log::warn!(
                "skipped revision in compaction hash check; was not able to check all peers",
                "number-of-peers-checked" => verdict.compared,
                "number-of-peers" => peers,
                "revision" => leader.hash_revision,
                "compactRevision" => leader.compact_revision,
            ),
            Outcome::Undecided => log::warn!(
                "Detected compaction hash mismatch; a member may be about to compact, and the next check looks again",
                "leader-id" => id,
                "leader-revision" => leader.hash_revision,
                "leader-compact-revision" => leader.compact_revision,
                "leader-hash" => leader.hash,
            ),
            Outcome::Different { has_quorum, others } => {
                if !has_quorum {
                    log::error!(
                        "Detected compaction hash mismatch but cannot identify the corrupted members, so intentionally \
                         set the memberID as 0",
                        "leader-id" => id,
                        "leader-revision" => leader.hash_revision,
                        "leader-compact-revision" => leader.compact_revision,
                        "leader-hash" => leader.hash,
                    );
                }
                for (hash, members) in others {
                    let members: Vec<String> = members.iter().map(|member| format!("{member:x}")).collect();
                    log::error!(
                        "Detected compaction hash mismatch",
                        "leader-id" => id,
                        "leader-revision" => leader.hash_revision,
                        "leader-compact-revision" => leader.compact_revision,
                        "leader-hash" => leader.hash,
                        "peer-hash" => *hash,
                        "peer-ids" => members.join(","),
                        "quorum-exist" => *has_quorum,
                    );
                }
            }
        }
    }
}

/// Says what is wrong with a member.
fn describe(leader: &LeaderHashes, id: u64, fault: &Fault) {
    let LeaderHashes { first, second } = leader;
    let peer = format!("{id:x}");
    match fault {
        Fault::Unstable => log::warn!(
            "found hash mismatch",
            "revision-1" => first.hash_revision,
            "compact-revision-1" => first.compact_revision,
            "hash-1" => first.hash,
            "revision-2" => second.hash.hash_revision,
            "compact-revision-2" => second.hash.compact_revision,
            "hash-2" => second.hash.hash,
        ),
        Fault::Revision { told } => log::warn!(
            "revision from follower must be less than or equal to leader's",
            "leader-revision" => second.revision,
            "follower-revision" => *told,
            "follower-peer-id" => peer,
        ),
        Fault::CompactRevision { told } => log::warn!(
            "compact revision from follower must be less than or equal to leader's",
            "leader-compact-revision" => second.hash.compact_revision,
            "follower-compact-revision" => *told,
            "follower-peer-id" => peer,
        ),
        Fault::Hash { told } => log::warn!(
            "same compact revision then hashes must match",
            "leader-compact-revision" => second.hash.compact_revision,
            "leader-hash" => first.hash,
            "follower-compact-revision" => told.compact_revision,
            "follower-hash" => told.hash,
            "follower-peer-id" => peer,
        ),
    }
}
