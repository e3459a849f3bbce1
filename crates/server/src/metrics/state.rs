//! What the member's threads count, and what is asked of the member when the page is made.

use std::sync::atomic::{AtomicU64, Ordering};

use store::RequestKind;
use wire::etcdserverpb::AlarmType;

use super::Metrics;
use super::cells::{Counter, Durations, MILLISECONDS, Reading, SECONDS};
use super::families::Id;
use super::page::Page;
use crate::grpc::MemberView;

/// Adds all of it.
pub(super) fn add(page: &mut Page, metrics: &Metrics, member: &MemberView) {
    server(page, metrics, member);
    space(page, metrics, member);
    store(page, metrics, member);
    applied(page, metrics);
    disk(page, metrics);
    compactions(page, metrics);
    http(page, metrics);
}

fn is(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

fn count(page: &mut Page, id: Id, counter: &Counter) {
    page.number(id, counter.get() as f64);
}

fn seconds<const FIRST: u64, const N: usize>(page: &mut Page, id: Id, durations: &Durations<FIRST, N>) {
    page.histogram(id, [], durations.read(SECONDS));
}

fn server(page: &mut Page, metrics: &Metrics, member: &MemberView) {
    let (status, counts) = (&member.status, &metrics.member);
    page.number(Id::HasLeader, is(status.leader() != 0));
    page.number(Id::IsLeader, is(status.leader() == member.member_id));
    page.number(Id::IsLearner, is(status.is_learner()));
    page.number(Id::ProposalsCommitted, status.committed() as f64);
    page.number(Id::ProposalsApplied, status.applied() as f64);
    page.number(Id::QuotaBytes, member.quota_bytes as f64);
    page.sample(Id::ServerVersion, [wire::version::ETCD.into()], 1.0);
    page.sample(Id::OwnNumber, [format!("{:x}", member.member_id).into()], 1.0);
    let cluster = member.reader.membership().cluster_version().map(major_minor);
    for (version, is_now) in metrics.cluster_versions(cluster.as_deref()) {
        page.sample(Id::ClusterVersion, [version.into()], is(is_now));
    }
    for (name, stage, is_on) in &metrics.gates {
        page.sample(Id::FeatureEnabled, [(*name).into(), (*stage).into()], is(*is_on));
    }
    for alarm in member.reader.alarms().iter() {
        let kind = AlarmType::try_from(alarm.alarm).unwrap_or_default().as_str_name();
        page.sample(Id::Alarms, [kind.into(), format!("{:x}", alarm.member_id).into()], 1.0);
    }
    count(page, Id::LeaderChanges, &counts.leader_changes);
    count(page, Id::LateHeartbeats, &counts.late_heartbeats);
    count(page, Id::SnapshotApplying, &counts.snapshot_applying);
    count(page, Id::PromoteSuccesses, &counts.promotions);
    for (reason, failures) in counts.promote_failures.all() {
        page.sample(Id::PromoteFailures, [reason.into()], failures as f64);
    }
}

/// `X.Y` of `X.Y.Z`.
fn major_minor(version: &str) -> String {
    version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

fn space(page: &mut Page, metrics: &Metrics, member: &MemberView) {
    let size = member.reader.size_bytes() as f64;
    page.number(Id::DbBytes, size);
    page.number(Id::DbBytesInUse, size);
    let space = (member.space)();
    page.number(Id::RevlogBytes, space.bytes as f64);
    page.number(Id::RevlogDead, space.dead_bytes as f64);
    page.number(Id::RevlogLive, space.record_bytes.saturating_sub(space.dead_bytes) as f64);
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    let ids = [Id::Merges, Id::MergeSourceBytes, Id::MergedBytes, Id::MergesGivenUp];
    let merges = super::lock(&metrics.merges).numbers();
    for (id, number) in ids.into_iter().zip(merges) {
        page.number(id, number as f64);
    }
    let checks = &metrics.checks;
    page.number(Id::CompactionHashesGivenUp, count(&checks.hashes_given_up));
    page.number(Id::ChecksGivenUp, count(&checks.checks_given_up));
    page.number(Id::Checks, count(&checks.checks));
}

fn store(page: &mut Page, metrics: &Metrics, member: &MemberView) {
    let (reader, ops) = (&member.reader, &metrics.member.ops);
    page.number(Id::CurrentRevision, reader.revision() as f64);
    page.number(Id::CompactRevision, reader.compacted() as f64);
    page.number(Id::AuthRevision, reader.auth().revision() as f64);
    page.number(Id::KeysTotal, reader.key_count() as f64);
    page.number(Id::OpenReads, reader.open_reads() as f64);
    count(page, Id::Puts, &ops.puts);
    count(page, Id::Deletes, &ops.deletes);
    count(page, Id::PutBytes, &ops.put_bytes);
}

fn applied(page: &mut Page, metrics: &Metrics) {
    let counts = &metrics.member;
    for kind in RequestKind::ALL {
        for (place, success) in ["false", "true"].into_iter().enumerate() {
            let reading = counts.applies[kind.number()][place].read(SECONDS);
            if reading.count > 0 {
                page.histogram(Id::Applies, [kind.name().into(), success.into(), "v3".into()], reading);
            }
        }
    }
    count(page, Id::SlowApplies, &counts.slow_applies);
    count(page, Id::LeasesGranted, &counts.leases_granted);
    count(page, Id::LeasesRevoked, &counts.leases_revoked);
    count(page, Id::LeasesRenewed, &counts.leases_renewed);
    count(page, Id::LeasesExpired, &counts.leases_expired);
    page.histogram(Id::LeaseTtls, [], counts.lease_ttls.read(1.0));
}

fn disk(page: &mut Page, metrics: &Metrics) {
    let counts = &metrics.member;
    count(page, Id::WalBytes, &counts.wal.bytes);
    seconds(page, Id::WalWrites, &counts.wal.writes);
    seconds(page, Id::WalFsyncs, &counts.wal.fsyncs);
    seconds(page, Id::BackendCommits, &counts.revlog_syncs);
    seconds(page, Id::CommitWrite, &counts.revlog_writes);
    // What bbolt does to its tree of pages is done nowhere here.
    let never = || Durations::<{ super::MS }, 14>::default().read(SECONDS);
    page.histogram(Id::CommitRebalance, [], never());
    page.histogram(Id::CommitSpill, [], never());
    seconds(page, Id::Defrags, &counts.defrags);
    count(page, Id::DefragInflight, &counts.defrags_in_flight);
    seconds(page, Id::BackendSnapshots, &counts.snapshots);
    seconds(page, Id::SnapSaves, &counts.snap_saves);
    seconds(page, Id::SnapMarshalling, &counts.snap_marshalling);
    seconds(page, Id::SnapFsyncs, &counts.snap_fsyncs);
    seconds(page, Id::SnapDbSaves, &counts.database_saves);
    seconds(page, Id::SnapDbFsyncs, &counts.database_fsyncs);
    seconds(page, Id::Hashes, &counts.hashes);
    seconds(page, Id::RevisionHashes, &counts.revision_hashes);
}

fn compactions(page: &mut Page, metrics: &Metrics) {
    let counts = &metrics.member.compactions;
    let mut add = |id, reading: Reading| page.histogram(id, [], reading);
    add(Id::IndexCompactionPauses, counts.index_pauses.read(MILLISECONDS));
    add(Id::CompactionPauses, counts.pauses.read(MILLISECONDS));
    add(Id::CompactionTotals, counts.totals.read(MILLISECONDS));
    count(page, Id::CompactionKeys, &counts.keys);
    count(page, Id::CompactionLast, &counts.last);
}

fn http(page: &mut Page, metrics: &Metrics) {
    let (counts, probes) = (&metrics.member, &metrics.member.probes);
    count(page, Id::HealthSuccesses, &probes.successes);
    count(page, Id::HealthFailures, &probes.failures);
    for ((probe, name), check) in probes.checks() {
        page.sample(Id::Healthcheck, [name.into(), probe.into()], is(check.is_well));
        for (status, count) in ["error", "success"].into_iter().zip(check.ended) {
            if count > 0 {
                page.sample(Id::Healthchecks, [name.into(), status.into(), probe.into()], count as f64);
            }
        }
    }
    count(page, Id::ScrapesInFlight, &counts.scrapes_in_flight);
    page.sample(Id::Scrapes, ["200".into()], counts.scrapes.get() as f64);
    for code in ["500", "503"] {
        page.sample(Id::Scrapes, [code.into()], 0.0);
    }
}
