//! What is shown of other members: `etcd_network_*`, and some of our own.

use raft::NodeId;

use super::Kind::{Counter, Gauge};
use super::Page;
use crate::grpc::MemberView;
use crate::peer::{self, PeerStats};

/// Adds what is counted of each other member, and who is known.
pub(super) fn add(page: &mut Page, member: &MemberView) {
    let own = NodeId(member.member_id);
    for known in member.reader.membership().members() {
        let labels = pair(own, NodeId(known.id));
        let what = (Gauge, "etcd_network_known_peers", "The current number of known peers.");
        page.sample(what, "", &labels, 1.0);
    }
    for (id, stats) in member.others.stats() {
        connections(page, &pair(own, id), &stats);
        let (to, from) = (format!("To=\"{id}\""), format!("From=\"{id}\""));
        messages(page, &to, &from, &stats);
        snapshots(page, &to, &from, &stats);
        ours(page, &to, &from, &stats);
    }
}

fn pair(local: NodeId, remote: NodeId) -> String {
    format!("Local=\"{local}\",Remote=\"{remote}\"")
}

/// A counter; as in etcd, what has never happened is not on the page.
fn counter(page: &mut Page, name: &'static str, help: &str, labels: &str, counter: &peer::Counter) {
    if counter.get() > 0 {
        page.sample((Counter, name, help), "", labels, counter.get() as f64);
    }
}

fn connections(page: &mut Page, labels: &str, stats: &PeerStats) {
    if stats.connects.get() > 0 {
        let what = (Gauge, "etcd_network_active_peers", "The current number of active peer connections.");
        page.sample(what, "", labels, f64::from(u8::from(stats.active_since().is_some())));
    }
    counter(
        page,
        "etcd_network_disconnected_peers_total",
        "The total number of disconnected peers.",
        labels,
        &stats.disconnects,
    );
}

fn messages(page: &mut Page, to: &str, from: &str, stats: &PeerStats) {
    counter(
        page,
        "etcd_network_peer_sent_bytes_total",
        "The total number of bytes sent to peers.",
        to,
        &stats.sent_bytes,
    );
    counter(
        page,
        "etcd_network_peer_received_bytes_total",
        "The total number of bytes received from peers.",
        from,
        &stats.received_bytes,
    );
    counter(
        page,
        "etcd_network_peer_sent_failures_total",
        "The total number of send failures from peers.",
        to,
        &stats.sent_failures,
    );
    counter(
        page,
        "etcd_network_peer_received_failures_total",
        "The total number of receive failures from peers.",
        from,
        &stats.received_failures,
    );
    page.durations(
        "etcd_network_peer_round_trip_time_seconds",
        "Round-Trip-Time histogram between peers",
        to,
        &stats.round_trips,
    );
}

fn snapshots(page: &mut Page, to: &str, from: &str, stats: &PeerStats) {
    counter(
        page,
        "etcd_network_snapshot_send_success",
        "Total number of successful snapshot sends",
        to,
        &stats.snapshots_sent,
    );
    counter(
        page,
        "etcd_network_snapshot_send_failures",
        "Total number of snapshot send failures",
        to,
        &stats.snapshots_failed,
    );
    page.durations(
        "etcd_network_snapshot_send_total_duration_seconds",
        "Total latency distributions of v3 snapshot sends",
        to,
        &stats.snapshot_sends,
    );
    counter(
        page,
        "etcd_network_snapshot_receive_success",
        "Total number of successful snapshot receives",
        from,
        &stats.snapshots_received,
    );
    counter(
        page,
        "etcd_network_snapshot_receive_failures",
        "Total number of snapshot receive failures",
        from,
        &stats.snapshots_cut,
    );
    page.durations(
        "etcd_network_snapshot_receive_total_duration_seconds",
        "Total latency distributions of v3 snapshot receives",
        from,
        &stats.snapshot_receives,
    );
    let mut in_flight = |name, help, labels: &str, now: &peer::Counter, ended: [&peer::Counter; 2]| {
        if now.get() > 0 || ended.iter().any(|ended| ended.get() > 0) {
            page.sample((Gauge, name, help), "", labels, now.get() as f64);
        }
    };
    in_flight(
        "etcd_network_snapshot_send_inflights_total",
        "Total number of inflight snapshot sends",
        to,
        &stats.snapshots_in_flight,
        [&stats.snapshots_sent, &stats.snapshots_failed],
    );
    in_flight(
        "etcd_network_snapshot_receive_inflights_total",
        "Total number of inflight snapshot receives",
        from,
        &stats.snapshots_incoming,
        [&stats.snapshots_received, &stats.snapshots_cut],
    );
}

fn ours(page: &mut Page, to: &str, from: &str, stats: &PeerStats) {
    if stats.connects.get() > 0 {
        let what = (Gauge, "quorate_peer_queued_bytes", "Bytes of messages that wait to be sent to a peer.");
        page.sample(what, "", to, stats.queued_bytes.get() as f64);
    }
    counter(
        page,
        "quorate_peer_read_indexes_sent_total",
        "Requests for a read index that were sent to a peer: at most one a round.",
        to,
        &stats.read_indexes_sent,
    );
    counter(
        page,
        "quorate_peer_read_indexes_received_total",
        "Requests for a read index that came from a peer.",
        from,
        &stats.read_indexes_received,
    );
    counter(
        page,
        "quorate_peer_proposals_refused_total",
        "Proposals that a peer has handed on and that were not taken.",
        from,
        &stats.proposals_refused,
    );
}
