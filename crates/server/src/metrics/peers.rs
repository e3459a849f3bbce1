//! What is shown of other members: `etcd_network_*`, and some of our own.

use raft::NodeId;

use super::cells::{Counter, Durations, SECONDS};
use super::families::Id;
use super::page::Page;
use crate::grpc::MemberView;
use crate::peer::PeerStats;

/// Adds what is counted of each other member, and who is known.
pub(super) fn add(page: &mut Page, member: &MemberView) {
    let own = member.member_id;
    for known in member.reader.membership().members() {
        page.sample(Id::KnownPeers, [hex(own), hex(known.id)], 1.0);
    }
    for (id, stats) in member.others.stats() {
        let mut peer = Peer { page, id };
        peer.connections(own, &stats);
        peer.messages(&stats);
        peer.snapshots(&stats);
        peer.ours(&stats);
    }
}

fn hex(id: u64) -> super::page::Label {
    NodeId(id).to_string().into()
}

/// What is counted of one of them.
struct Peer<'a> {
    page: &'a mut Page,
    id: NodeId,
}

impl Peer<'_> {
    /// A counter; as in etcd, what has never happened is not on the page.
    fn counter(&mut self, id: Id, counter: &Counter) {
        if counter.get() > 0 {
            self.page.sample(id, [hex(self.id.0)], counter.get() as f64);
        }
    }

    fn durations<const FIRST: u64, const N: usize>(&mut self, id: Id, durations: &Durations<FIRST, N>) {
        let reading = durations.read(SECONDS);
        if reading.count > 0 {
            self.page.histogram(id, [hex(self.id.0)], reading);
        }
    }

    fn connections(&mut self, own: u64, stats: &PeerStats) {
        let pair = || [hex(own), hex(self.id.0)];
        if stats.connects.get() > 0 {
            let is_active = f64::from(u8::from(stats.active_since().is_some()));
            self.page.sample(Id::ActivePeers, pair(), is_active);
        }
        if stats.disconnects.get() > 0 {
            self.page.sample(Id::DisconnectedPeers, pair(), stats.disconnects.get() as f64);
        }
    }

    fn messages(&mut self, stats: &PeerStats) {
        self.counter(Id::PeerSent, &stats.sent_bytes);
        self.counter(Id::PeerReceived, &stats.received_bytes);
        self.counter(Id::PeerSendFailures, &stats.sent_failures);
        self.counter(Id::PeerReceiveFailures, &stats.received_failures);
        self.durations(Id::RoundTrips, &stats.round_trips);
    }

    fn snapshots(&mut self, stats: &PeerStats) {
        self.counter(Id::SnapshotSends, &stats.snapshots_sent);
        self.counter(Id::SnapshotSendFailures, &stats.snapshots_failed);
        self.durations(Id::SnapshotSendTimes, &stats.snapshot_sends);
        self.counter(Id::SnapshotReceives, &stats.snapshots_received);
        self.counter(Id::SnapshotReceiveFailures, &stats.snapshots_cut);
        self.durations(Id::SnapshotReceiveTimes, &stats.snapshot_receives);
        for (id, now, ended) in [
            (
                Id::SnapshotSendsInflight,
                &stats.snapshots_in_flight,
                [&stats.snapshots_sent, &stats.snapshots_failed],
            ),
            (
                Id::SnapshotReceivesInflight,
                &stats.snapshots_incoming,
                [&stats.snapshots_received, &stats.snapshots_cut],
            ),
        ] {
            if now.get() > 0 || ended.iter().any(|ended| ended.get() > 0) {
                self.page.sample(id, [hex(self.id.0)], now.get() as f64);
            }
        }
    }

    fn ours(&mut self, stats: &PeerStats) {
        if stats.connects.get() > 0 {
            self.page.sample(Id::PeerQueued, [hex(self.id.0)], stats.queued_bytes.get() as f64);
        }
        self.counter(Id::PeerReadIndexesSent, &stats.read_indexes_sent);
        self.counter(Id::PeerReadIndexesReceived, &stats.read_indexes_received);
        self.counter(Id::PeerProposalsRefused, &stats.proposals_refused);
    }
}
