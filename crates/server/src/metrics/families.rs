//! All metrics: the names, kinds, labels and helps. Names that etcd has are etcd's, and mean what they mean there, as far as
//! `docs/operating/metrics.md` does not say otherwise; that page has the same list, which a test compares.

/// What kind of numbers a family has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// May rise and fall.
    Gauge,
    /// Only rises, as long as the process runs.
    Counter,
    /// How many were no greater than each of some bounds.
    Histogram,
}

impl Kind {
    /// Its name in Prometheus' text format.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        }
    }
}

/// One family of samples.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What its numbers are.
    pub kind: Kind,
    /// The names of its labels, in their order.
    pub labels: &'static [&'static str],
    /// What it is, in a sentence.
    pub help: &'static str,
}

macro_rules! families {
    ($($id:ident: $name:literal, $kind:ident, [$($label:literal),*], $help:literal;)*) => {
        /// The families, each by a name that the compiler knows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Id {
            $($id,)*
        }

        /// All families, in the order of their names, which is that of the page.
        pub const FAMILIES: &[Family] = &[
            $(Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help },)*
        ];
    };
}

families! {
    ClusterVersion: "etcd_cluster_version", Gauge, ["cluster_version"],
        "Which version is running. 1 for 'cluster_version' label with current cluster version";
    AuthRevision: "etcd_debugging_auth_revision", Gauge, [], "The current revision of auth store.";
    CommitRebalance: "etcd_debugging_disk_backend_commit_rebalance_duration_seconds", Histogram, [],
        "There are no pages to rebalance: always empty.";
    CommitSpill: "etcd_debugging_disk_backend_commit_spill_duration_seconds", Histogram, [],
        "There are no pages to spill: always empty.";
    CommitWrite: "etcd_debugging_disk_backend_commit_write_duration_seconds", Histogram, [],
        "The latency distributions of writes to the revision log.";
    LeasesGranted: "etcd_debugging_lease_granted_total", Counter, [], "The total number of granted leases.";
    LeasesRenewed: "etcd_debugging_lease_renewed_total", Counter, [],
        "The number of renewed leases seen by the leader.";
    LeasesRevoked: "etcd_debugging_lease_revoked_total", Counter, [], "The total number of revoked leases.";
    LeaseTtls: "etcd_debugging_lease_ttl_total", Histogram, [], "Bucketed histogram of lease TTLs.";
    CompactRevision: "etcd_debugging_mvcc_compact_revision", Gauge, [],
        "The revision of the last compaction in store.";
    CurrentRevision: "etcd_debugging_mvcc_current_revision", Gauge, [], "The current revision of store.";
    CompactionKeys: "etcd_debugging_mvcc_db_compaction_keys_total", Counter, [],
        "Total number of db keys compacted.";
    CompactionLast: "etcd_debugging_mvcc_db_compaction_last", Gauge, [],
        "The unix time of the last db compaction. Resets to 0 on start.";
    CompactionPauses: "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds", Histogram, [],
        "Bucketed histogram of db compaction pause duration.";
    CompactionTotals: "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds", Histogram, [],
        "Bucketed histogram of db compaction total duration.";
    EventsTotal: "etcd_debugging_mvcc_events_total", Counter, [], "Total number of events sent by this member.";
    IndexCompactionPauses: "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds", Histogram, [],
        "Bucketed histogram of index compaction pause duration.";
    KeysTotal: "etcd_debugging_mvcc_keys_total", Gauge, [], "Total number of keys.";
    EventsPending: "etcd_debugging_mvcc_pending_events_total", Gauge, [],
        "Total number of pending events to be sent.";
    WatchersBehind: "etcd_debugging_mvcc_slow_watcher_total", Gauge, [],
        "Total number of unsynced slow watchers.";
    PutBytes: "etcd_debugging_mvcc_total_put_size_in_bytes", Gauge, [],
        "The total size of put kv pairs seen by this member.";
    WatchStreams: "etcd_debugging_mvcc_watch_stream_total", Gauge, [], "Total number of watch streams.";
    Watchers: "etcd_debugging_mvcc_watcher_total", Gauge, [], "Total number of watchers.";
    Alarms: "etcd_debugging_server_alarms", Gauge, ["alarm_type", "server_id"],
        "Alarms for every member in cluster. 1 for 'server_id' label with current ID. 2 for 'alarm_type' label with type of this alarm";
    LeasesExpired: "etcd_debugging_server_lease_expired_total", Counter, [],
        "The total number of expired leases.";
    ControlSends: "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds", Histogram, [],
        "How long it takes to send watch responses without events.";
    ProgressTurns: "etcd_debugging_server_watch_send_loop_progress_duration_seconds", Histogram, [],
        "How long it takes to tell a stream's watches of progress.";
    EventShares: "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds", Histogram, [],
        "The average duration in seconds of sending watch responses, per event.";
    EventSends: "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds", Histogram, [],
        "How long it takes to send watch responses with events.";
    SnapMarshalling: "etcd_debugging_snap_save_marshalling_duration_seconds", Histogram, [],
        "The marshalling cost distributions of save called by snapshot.";
    SnapSaves: "etcd_debugging_snap_save_total_duration_seconds", Histogram, [],
        "The total latency distributions of save called by snapshot.";
    BackendCommits: "etcd_disk_backend_commit_duration_seconds", Histogram, [],
        "The latency distributions of making the revision log durable.";
    Defrags: "etcd_disk_backend_defrag_duration_seconds", Histogram, [],
        "The latency distribution of backend defragmentation.";
    BackendSnapshots: "etcd_disk_backend_snapshot_duration_seconds", Histogram, [],
        "The latency distribution of backend snapshots.";
    DefragInflight: "etcd_disk_defrag_inflight", Gauge, [],
        "Whether or not defrag is active on the member. 1 means active, 0 means not.";
    WalFsyncs: "etcd_disk_wal_fsync_duration_seconds", Histogram, [],
        "The latency distributions of fsync called by WAL.";
    WalBytes: "etcd_disk_wal_write_bytes_total", Gauge, [], "Total number of bytes written in WAL.";
    WalWrites: "etcd_disk_wal_write_duration_seconds", Histogram, [],
        "The latency distributions of write called by WAL.";
    OpenReads: "etcd_mvcc_db_open_read_transactions", Gauge, [],
        "The number of currently open reads that hold up compactions.";
    DbBytes: "etcd_mvcc_db_total_size_in_bytes", Gauge, [],
        "Size of the data in bytes: the length of a snapshot taken now.";
    DbBytesInUse: "etcd_mvcc_db_total_size_in_use_in_bytes", Gauge, [],
        "The same: what compactions drop does not count.";
    Deletes: "etcd_mvcc_delete_total", Counter, [], "Total number of deletes seen by this member.";
    Hashes: "etcd_mvcc_hash_duration_seconds", Histogram, [],
        "The latency distribution of storage hash operation.";
    RevisionHashes: "etcd_mvcc_hash_rev_duration_seconds", Histogram, [],
        "The latency distribution of storage hash by revision operation.";
    Puts: "etcd_mvcc_put_total", Counter, [], "Total number of puts seen by this member.";
    Ranges: "etcd_mvcc_range_total", Counter, [], "Total number of ranges seen by this member.";
    Txns: "etcd_mvcc_txn_total", Counter, [], "Total number of txns seen by this member.";
    ActivePeers: "etcd_network_active_peers", Gauge, ["Local", "Remote"],
        "The current number of active peer connections.";
    GrpcReceived: "etcd_network_client_grpc_received_bytes_total", Counter, [],
        "The total number of bytes received from grpc clients.";
    GrpcSent: "etcd_network_client_grpc_sent_bytes_total", Counter, [],
        "The total number of bytes sent to grpc clients.";
    DisconnectedPeers: "etcd_network_disconnected_peers_total", Counter, ["Local", "Remote"],
        "The total number of disconnected peers.";
    KnownPeers: "etcd_network_known_peers", Gauge, ["Local", "Remote"], "The current number of known peers.";
    PeerReceived: "etcd_network_peer_received_bytes_total", Counter, ["From"],
        "The total number of bytes received from peers.";
    PeerReceiveFailures: "etcd_network_peer_received_failures_total", Counter, ["From"],
        "The total number of receive failures from peers.";
    RoundTrips: "etcd_network_peer_round_trip_time_seconds", Histogram, ["To"],
        "Round-Trip-Time histogram between peers";
    PeerSent: "etcd_network_peer_sent_bytes_total", Counter, ["To"],
        "The total number of bytes sent to peers.";
    PeerSendFailures: "etcd_network_peer_sent_failures_total", Counter, ["To"],
        "The total number of send failures from peers.";
    StreamFailures: "etcd_network_server_stream_failures_total", Counter, ["API", "Type"],
        "The total number of stream failures from the local server.";
    SnapshotReceiveFailures: "etcd_network_snapshot_receive_failures", Counter, ["From"],
        "Total number of snapshot receive failures";
    SnapshotReceivesInflight: "etcd_network_snapshot_receive_inflights_total", Gauge, ["From"],
        "Total number of inflight snapshot receives";
    SnapshotReceives: "etcd_network_snapshot_receive_success", Counter, ["From"],
        "Total number of successful snapshot receives";
    SnapshotReceiveTimes: "etcd_network_snapshot_receive_total_duration_seconds", Histogram, ["From"],
        "Total latency distributions of v3 snapshot receives";
    SnapshotSendFailures: "etcd_network_snapshot_send_failures", Counter, ["To"],
        "Total number of snapshot send failures";
    SnapshotSendsInflight: "etcd_network_snapshot_send_inflights_total", Gauge, ["To"],
        "Total number of inflight snapshot sends";
    SnapshotSends: "etcd_network_snapshot_send_success", Counter, ["To"],
        "Total number of successful snapshot sends";
    SnapshotSendTimes: "etcd_network_snapshot_send_total_duration_seconds", Histogram, ["To"],
        "Total latency distributions of v3 snapshot sends";
    Applies: "etcd_server_apply_duration_seconds", Histogram, ["op", "success", "version"],
        "The latency distributions of applying a request.";
    ClientRequests: "etcd_server_client_requests_total", Counter, ["client_api_version", "type"],
        "The total number of client requests per client version.";
    FeatureEnabled: "etcd_server_feature_enabled", Gauge, ["name", "stage"],
        "Whether or not a feature is enabled. 1 is enabled, 0 is not.";
    HasLeader: "etcd_server_has_leader", Gauge, [],
        "Whether or not a leader exists. 1 is existence, 0 is not.";
    HealthFailures: "etcd_server_health_failures", Counter, [], "The total number of failed health checks";
    HealthSuccesses: "etcd_server_health_success", Counter, [],
        "The total number of successful health checks";
    Healthcheck: "etcd_server_healthcheck", Gauge, ["name", "type"],
        "The result of each kind of healthcheck.";
    Healthchecks: "etcd_server_healthchecks_total", Counter, ["name", "status", "type"],
        "The total number of each kind of healthcheck.";
    LateHeartbeats: "etcd_server_heartbeat_send_failures_total", Counter, [],
        "The total number of leader heartbeat send failures (likely overloaded from slow disk).";
    OwnNumber: "etcd_server_id", Gauge, ["server_id"],
        "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.";
    IsLeader: "etcd_server_is_leader", Gauge, [],
        "Whether or not this member is a leader. 1 if is, 0 otherwise.";
    IsLearner: "etcd_server_is_learner", Gauge, [],
        "Whether or not this member is a learner. 1 if is, 0 otherwise.";
    LeaderChanges: "etcd_server_leader_changes_seen_total", Counter, [],
        "The number of leader changes seen.";
    PromoteFailures: "etcd_server_learner_promote_failures", Counter, ["Reason"],
        "The total number of failed learner promotions (likely learner not ready) while this member is leader.";
    PromoteSuccesses: "etcd_server_learner_promote_successes", Counter, [],
        "The total number of successful learner promotions while this member is leader.";
    ProposalsApplied: "etcd_server_proposals_applied_total", Gauge, [],
        "The total number of consensus proposals applied.";
    ProposalsCommitted: "etcd_server_proposals_committed_total", Gauge, [],
        "The total number of consensus proposals committed.";
    ProposalsFailed: "etcd_server_proposals_failed_total", Counter, [],
        "The total number of failed proposals seen.";
    ProposalsPending: "etcd_server_proposals_pending", Gauge, [],
        "The current number of pending proposals to commit.";
    QuotaBytes: "etcd_server_quota_backend_bytes", Gauge, [], "Current backend storage quota size in bytes.";
    RangeTimes: "etcd_server_range_duration_seconds", Histogram, ["success"],
        "The latency distributions of txn.Range";
    FailedReadIndexes: "etcd_server_read_indexes_failed_total", Counter, [],
        "The total number of failed read indexes seen.";
    RequestTimes: "etcd_server_request_duration_seconds", Histogram, ["success", "type"],
        "Response latency distribution in seconds for each type.";
    SlowApplies: "etcd_server_slow_apply_total", Counter, [],
        "The total number of slow apply requests (likely overloaded from slow disk).";
    SlowReadIndexes: "etcd_server_slow_read_indexes_total", Counter, [],
        "The total number of pending read indexes not in sync with leader's or timed out read index requests.";
    SnapshotApplying: "etcd_server_snapshot_apply_in_progress_total", Gauge, [],
        "1 if the server is applying the incoming snapshot. 0 if none.";
    ServerVersion: "etcd_server_version", Gauge, ["server_version"],
        "Which version is running. 1 for 'server_version' label with current version.";
    SnapDbFsyncs: "etcd_snap_db_fsync_duration_seconds", Histogram, [],
        "The latency distributions of fsyncing .snap.db file";
    SnapDbSaves: "etcd_snap_db_save_total_duration_seconds", Histogram, [],
        "The total latency distributions of v3 snapshot save";
    SnapFsyncs: "etcd_snap_fsync_duration_seconds", Histogram, [],
        "The latency distributions of fsync called by snap.";
    GoThreads: "go_threads", Gauge, [], "Number of OS threads created.";
    GrpcHandled: "grpc_server_handled_total", Counter,
        ["grpc_code", "grpc_method", "grpc_service", "grpc_type"],
        "Total number of RPCs completed on the server, regardless of success or failure.";
    GrpcHandling: "grpc_server_handling_seconds", Histogram, ["grpc_method", "grpc_service", "grpc_type"],
        "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server.";
    GrpcMessagesReceived: "grpc_server_msg_received_total", Counter, ["grpc_method", "grpc_service", "grpc_type"],
        "Total number of RPC stream messages received on the server.";
    GrpcMessagesSent: "grpc_server_msg_sent_total", Counter, ["grpc_method", "grpc_service", "grpc_type"],
        "Total number of gRPC stream messages sent by the server.";
    GrpcStarted: "grpc_server_started_total", Counter, ["grpc_method", "grpc_service", "grpc_type"],
        "Total number of RPCs started on the server.";
    FdLimit: "os_fd_limit", Gauge, [], "The file descriptor limit.";
    FdUsed: "os_fd_used", Gauge, [], "The number of used file descriptors.";
    ProcessCpu: "process_cpu_seconds_total", Counter, [], "Total user and system CPU time spent in seconds.";
    ProcessMaxFds: "process_max_fds", Gauge, [], "Maximum number of open file descriptors.";
    ProcessReceived: "process_network_receive_bytes_total", Counter, [],
        "Number of bytes received by the process over the network.";
    ProcessSent: "process_network_transmit_bytes_total", Counter, [],
        "Number of bytes sent by the process over the network.";
    ProcessOpenFds: "process_open_fds", Gauge, [], "Number of open file descriptors.";
    ProcessResident: "process_resident_memory_bytes", Gauge, [], "Resident memory size in bytes.";
    ProcessStart: "process_start_time_seconds", Gauge, [],
        "Start time of the process since unix epoch in seconds.";
    ProcessVirtual: "process_virtual_memory_bytes", Gauge, [], "Virtual memory size in bytes.";
    ProcessVirtualMax: "process_virtual_memory_max_bytes", Gauge, [],
        "Maximum amount of virtual memory available in bytes.";
    ScrapesInFlight: "promhttp_metric_handler_requests_in_flight", Gauge, [],
        "Current number of scrapes being served.";
    Scrapes: "promhttp_metric_handler_requests_total", Counter, ["code"],
        "Total number of scrapes by HTTP status code.";
    CompactionHashesGivenUp: "quorate_compaction_hashes_given_up_total", Counter, [],
        "Hashes of compactions that were given up, since the next compaction came before they were made.";
    ChecksGivenUp: "quorate_corruption_checks_given_up_total", Counter, [],
        "Comparisons with other members' data that did not come to their end within their interval.";
    Checks: "quorate_corruption_checks_total", Counter, [],
        "Comparisons with other members' data that came to their end, made while this member led.";
    PeerProposalsRefused: "quorate_peer_proposals_refused_total", Counter, ["From"],
        "Proposals that a peer has handed on and that were not taken.";
    PeerQueued: "quorate_peer_queued_bytes", Gauge, ["To"],
        "Bytes of messages that wait to be sent to a peer.";
    PeerReadIndexesReceived: "quorate_peer_read_indexes_received_total", Counter, ["From"],
        "Requests for a read index that came from a peer.";
    PeerReadIndexesSent: "quorate_peer_read_indexes_sent_total", Counter, ["To"],
        "Requests for a read index that were sent to a peer: at most one a round.";
    RevlogBytes: "quorate_revlog_bytes", Gauge, [],
        "Bytes of the revision log's files, without what is allocated ahead.";
    RevlogDead: "quorate_revlog_dead_bytes", Gauge, [],
        "Bytes of records in the revision log that compactions have dropped.";
    RevlogLive: "quorate_revlog_live_bytes", Gauge, [], "Bytes of records in the revision log that are wanted.";
    MergeSourceBytes: "quorate_revlog_merge_source_bytes_total", Counter, [],
        "Bytes of the segments that were merged away.";
    MergedBytes: "quorate_revlog_merged_bytes_total", Counter, [],
        "Bytes of the segments that merges have made.";
    MergesGivenUp: "quorate_revlog_merges_given_up_total", Counter, [],
        "Merges that were given up for want of room.";
    Merges: "quorate_revlog_merges_total", Counter, [], "Merges that came to their end.";
}

impl Id {
    /// The family of this name.
    pub(super) fn family(self) -> &'static Family {
        &FAMILIES[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_in_order_and_their_labels_too() {
        assert!(FAMILIES.is_sorted_by(|a, b| a.name < b.name));
        for family in FAMILIES {
            assert!(family.labels.is_sorted(), "{}", family.name);
            assert!(!family.help.is_empty() && !family.help.contains(['\n', '\\']), "{}", family.name);
        }
        assert_eq!(Id::Merges.family().name, "quorate_revlog_merges_total");
    }
}
