//! The member's threads: each owns one of `node`'s parts and a queue in front of it.
//!
//! `raft` (consensus; never waits for a disk or the store), `wal` (group commit), `apply` (the store), `revlog`
//! (background writing and syncing), `compact` (what compactions leave to be done), `merge` (segments of the revision log
//! without what compactions dropped), and `files` (allocates log segments ahead, writes snapshot files, gives back what is
//! not needed). Network threads reach them through a lane each.
//! Everything between threads is a batch.

mod compact;
mod corruption;
mod files;
mod host;
mod hurry;
pub mod join;
mod mailbox;
mod merge;
mod ours;
mod peers;
mod slow;
mod snapshots;
mod threads;
mod times;
mod versions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use disk::{Fs, RealFs};
use node::{ClusterState, Entropy, Identity, InitialMember, Quota, Settings, SnapshotReceiver};
use raft::NodeId;
use store::watch::HubLimits;
use tokio::task::spawn_local;
use wire::ApiError;
use wire::etcdserverpb::AlarmType;

use crate::auth::{Access, Tokens};
use crate::clock::Clock;
use crate::config::{self, Config, Url};
use crate::front::Front;
use crate::grpc::hashes::Hashes;
use crate::grpc::member::{Leases, Turns};
use crate::grpc::others::Others;
use crate::grpc::turns::ReadTurns;
use crate::grpc::{GrpcConfig, MemberView, SharedStatus};
use crate::lane::{AppliedGate, Lane, LaneParts, LaneSeed, WatchParts};
use crate::listen::{Listener, Service};
use crate::log;
use crate::metrics::Metrics;
use crate::peer::{self, AllStats, Handle, Host, PeerThread};
use crate::process::Events;

pub use join::{JoinError, Joined};

use corruption::Checks;
use host::{Inbox, MemberHost};
use peers::Peers;
use threads::{Channels, Threads};

/// Batches of completions that may wait for one lane.
const COMPLETIONS_MAX: usize = 1024;
/// A replay of the revision log that takes longer says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Requests for merges that may wait.
const MERGE_REQUESTS_MAX: u64 = 16;
/// Bytes of messages that wait for the peer thread: all that consensus has under way to six others, and some more.
const HANDED_BYTES_MAX: usize = 256 << 20;

/// A member that runs.
pub struct Member {
    id: u64,
    front: Arc<Front>,
    view: Arc<MemberView>,
    threads: Threads,
    peers: PeerThread,
    /// The folder stays ours until the last write is done.
    _lock: disk::DirLock,
}

/// What goes on where a member is opened anew.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    /// What is counted of other members.
    pub stats: &'a AllStats,
    /// Where tokens come from.
    pub tokens: &'a Tokens,
    /// Everything else that is counted.
    pub metrics: &'a Arc<Metrics>,
}

/// Starts the member: opens its files and starts its threads. It calls `events.ready()` once its attributes are
/// applied, and `events.failed()` if it can't go on. The folders exist; without a log [`Config::bootstrap`] was checked. It
/// serves `lanes` network threads, and from now on the peers that connect to `listeners`. `joined`: what a member
/// without data has been told of the cluster that it joins. `front`: what served the network threads of the member that was
/// here before, if it is opened anew; it goes on with this one, and what is kept of it with `kept`.
///
/// # Errors
/// Whatever keeps it from starting; the process then ends with 1.
pub fn start(
    config: &Config,
    lanes: usize,
    joined: Option<&Joined>,
    listeners: Vec<Listener>,
    front: Option<Arc<Front>>,
    kept: Kept<'_>,
    events: &Events,
) -> anyhow::Result<Member> {
    // The peer thread has one too.
    let lanes = lanes + 1;

    let fs: Arc<dyn Fs> = Arc::new(RealFs);
    let mut settings = settings(config, joined);
    // Once in a process, as in etcd: others may have joined since.
    settings.force_new_cluster &= front.is_none();
    let entropy = Entropy { ids: random()?, log: random()?, raft: random()? };
    let clock = Clock::start();
    let mut shown = Instant::now();
    let mut progress = |stage, done: u64, total: u64| {
        if shown.elapsed() >= PROGRESS_INTERVAL {
            shown = Instant::now();
            let text = match stage {
                node::Stage::TakingOver => "taking over etcd's database",
                node::Stage::Reading => "reading the store",
            };
            log::info!(text, "done" => done, "total" => total);
        }
    };
    let opened = node::open(&fs, &settings, entropy, lanes, clock.now(), &mut progress)?;
    describe(&opened);
    // Once in a process, and not of a member that begins, as in etcd.
    if config.checks_at_start && front.is_none() && !opened.found.is_new {
        corruption::check_at_start(config, opened.identity, &opened.reader)
            .inspect_err(|error| log::error!("checkInitialHashKV failed", "error" => log::Text(error)))?;
    }

    let status = Arc::new(SharedStatus::default());
    status.set_applied(opened.applier.applied_index());
    let (compaction_finished, finished) = tokio::sync::watch::channel(opened.reader.finished_compaction());
    let (merges, merge_mail) = mailbox::mailbox(MERGE_REQUESTS_MAX);
    let asked = merges.clone();
    let gates: Vec<Arc<AppliedGate>> = (0..lanes).map(|_| Arc::default()).collect();
    let (completions, receivers): (Vec<_>, Vec<_>) =
        (0..lanes).map(|_| tokio::sync::mpsc::channel(COMPLETIONS_MAX)).unzip();
    let ids = opened.ids;
    let inbox = Inbox::default();
    let peers = Handle::counting(HANDED_BYTES_MAX, kept.stats.clone());
    // Until the log names them they can be answered, and no more.
    for (id, urls) in joined.iter().flat_map(|joined| &joined.others) {
        peers.add_remote(NodeId(*id), urls.clone());
    }
    let (leadership_told, leadership) = tokio::sync::watch::channel(node::Leadership::default());
    let own = opened.identity.member_id;
    let is_on = opened.reader.alarms().contains(AlarmType::Nospace, own);
    let (no_space_told, no_space) = tokio::sync::watch::channel(is_on);
    let channels = Channels {
        completions,
        gates: gates.clone(),
        status: status.clone(),
        leadership: leadership_told,
        no_space: no_space_told,
        ids,
        clock,
        peers: peers.clone(),
    };
    let mut hashes = Hashes::new(settings.limits.hash_bytes_per_s);
    hashes.counters = kept.metrics.checks.clone();
    let access = Arc::new(Access::new(kept.tokens.renewed(), config.auth.bcrypt_cost, clock));
    let parts = threads::Parts {
        access: Arc::clone(&access),
        consensus: opened.consensus,
        log_writer: opened.log_writer,
        applier: opened.applier,
        lessor: opened.lessor.clone(),
        revision_writer: opened.revision_writer,
        snapshot_writer: opened.snapshot_writer,
        snapshot_receiver: opened.snapshot_receiver.clone(),
        snapshot_index: opened.found.snapshot_index,
        snapshot_count: settings.snapshot_count,
        member_id: opened.identity.member_id,
        compactor: opened.compactor,
        merger: opened.merger,
        rot: opened.rot,
        merges: (merges, merge_mail),
        compaction_finished,
        compaction_sleep_interval: config.compaction_sleep_interval,
        hash_budget: hashes.budget.clone(),
        check_counters: hashes.counters.clone(),
        unwritten_bytes_max: settings.limits.unwritten_bytes_max,
        warning_apply_duration: config.warning_apply_duration,
        inbox: inbox.clone(),
        peers: Peers {
            handle: peers.clone(),
            status: status.clone(),
            events: events.clone(),
            cluster_id: opened.identity.cluster_id,
            own: opened.identity.member_id,
            known: BTreeMap::new(),
            is_removed: false,
        },
        heartbeat_interval: Duration::from_millis(config.heartbeat_interval_ms),
        metrics: kept.metrics.clone(),
    };
    let log_reader = opened.log_reader;
    kept.metrics.opened(parts.merger.counters());
    let threads = Threads::start(parts, channels, events)?;
    let view = Arc::new(MemberView {
        access,
        cluster_id: opened.identity.cluster_id,
        member_id: opened.identity.member_id,
        reader: opened.reader,
        leases: Leases::new(opened.lessor, clock),
        status,
        quota_bytes: config.quota_bytes,
        quota: settings.quota,
        space: Box::new(move || log_reader.space()),
        compaction_finished: finished,
        // One that is refused asks for what has been asked for already.
        defragment: Box::new(move || drop(asked.try_send(merge::MergeMail::Asked, 1))),
        hashes,
        reads: ReadTurns::default(),
        history: Turns::for_history(),
        snapshots: Turns::for_snapshots(),
        cuts: threads.cuts(),
        others: Others::new(
            peers.clone(),
            threads.transfer(),
            leadership,
            (clock, config.election_timeout_ms),
            config.strict_reconfig_check,
        ),
        request_timeout: config.request_timeout(),
        metrics: kept.metrics.clone(),
    });
    let request_timeout = config.request_timeout();
    let tail = opened.tail;
    let fragment_bytes = config.limits.message_bytes_max() as usize;
    let watch_limits = HubLimits { fragment_bytes, ..HubLimits::DEFAULT };
    let seeds = receivers.into_iter().zip(gates).enumerate().map(|(lane, (completions, gate))| {
        let (member, port, ids) = (view.clone(), threads.port(), ids.lane(lane));
        let watches = WatchParts { tail: tail.clone(), limits: watch_limits };
        let seed: LaneSeed = Box::new(move || {
            let (port, counts) = (Box::new(port), member.metrics.lane(lane));
            (LaneParts { member, port, ids, gate, watches, counts, request_timeout }, completions)
        });
        seed
    });
    let mut seeds: Vec<LaneSeed> = seeds.collect();
    let seed = seeds.pop().expect("the peer thread's");
    let host = HostParts {
        raft: threads.raft(),
        inbox,
        receiver: opened.snapshot_receiver,
        events: events.clone(),
        hurries: config.hurries,
        checks: Checks {
            interval: config.corrupt_check_interval,
            compaction_interval: config.compact_hash_check_interval,
        },
        no_space: config.no_space_clears.map(|_| no_space),
    };
    let peers = PeerThread::start(
        peers,
        peer_settings(config, opened.identity),
        host.on_thread(seed),
        listeners,
        random()?,
    )?;
    let front = match front {
        None => Arc::new(Front::new(seeds, GrpcConfig::from(config), config.gateway)),
        Some(front) => {
            front.renew(seeds);
            front
        }
    };
    Ok(Member { id: opened.identity.member_id, front, view, threads, peers, _lock: opened.lock })
}

/// What [`MemberHost`] is made of, on the peer thread.
struct HostParts {
    raft: mailbox::Sender<threads::RaftMail>,
    inbox: Inbox,
    receiver: SnapshotReceiver,
    events: Events,
    /// `--initial-election-tick-advance`.
    hurries: bool,
    checks: Checks,
    /// Whether this member's NOSPACE is on, if that may end by itself.
    no_space: Option<tokio::sync::watch::Receiver<bool>>,
}

impl HostParts {
    /// Makes the host on its thread, with the lane of `seed`.
    fn on_thread(self, seed: LaneSeed) -> impl FnOnce() -> Arc<dyn Host> + Send + 'static {
        move || {
            let HostParts { raft, inbox, receiver, events, hurries, checks, no_space } = self;
            let (parts, completions) = seed();
            let (lane, driver) = Lane::new(parts, completions);
            spawn_local(driver);
            if hurries {
                spawn_local(hurry::hurry(Arc::clone(&lane.member()), raft.clone()));
            }
            spawn_local(versions::monitor(Arc::clone(&lane.member()), raft.clone()));
            spawn_local(corruption::monitor(lane.clone(), checks));
            if let Some(no_space) = no_space {
                spawn_local(ours::monitor(Arc::clone(&lane.member()), raft.clone(), no_space));
            }
            #[expect(clippy::arc_with_non_send_sync, reason = "hosts of tests are shared between threads")]
            Arc::new(MemberHost { raft, inbox, lane, receiver, events })
        }
    }
}

fn peer_settings(config: &Config, identity: Identity) -> peer::Settings {
    let identity = peer::Identity {
        member_id: NodeId(identity.member_id),
        cluster_id: identity.cluster_id,
        peer_urls: config.initial_advertise_peer_urls.iter().map(ToString::to_string).collect(),
    };
    peer::Settings { identity, limits: peer_limits(config), security: config.security.peer.clone() }
}

fn peer_limits(config: &Config) -> peer::Limits {
    // etcd's.
    let dial_timeout = Duration::from_secs(1) + Duration::from_millis(config.election_timeout_ms);
    peer::Limits { dial_timeout, ..peer::Limits::default() }
}

impl Member {
    /// What the network threads serve.
    pub fn service(&self) -> Arc<dyn Service> {
        self.front.clone()
    }

    /// The same, for the next member that serves them.
    pub fn front(&self) -> Arc<Front> {
        self.front.clone()
    }

    /// The member's id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Lets another member lead, if this one does and there is one that may. Waits for that, but not for ever.
    pub fn hand_over(&self) {
        let (view, id) = (&self.view, format!("{:x}", self.id));
        let leader = view.status.leader();
        if leader != self.id {
            log::info!(
                "skipped leadership transfer; local server is not leader",
                "local-member-id" => id,
                "current-leader-member-id" => format!("{leader:x}"),
            );
            return;
        }
        if view.reader.membership().members().filter(|member| !member.is_learner).count() < 2 {
            log::info!(
                "skipped leadership transfer for single voting member cluster",
                "local-member-id" => id,
                "current-leader-member-id" => format!("{leader:x}"),
            );
            return;
        }
        let failed = |error: &str| {
            log::warn!("leadership transfer failed", "local-member-id" => id, "error" => error);
        };
        let Some(heir) = view.others.situation(view, |situation| situation.heir()) else {
            return failed(ApiError::Unhealthy.text());
        };
        let transferee = format!("{heir:x}");
        log::info!(
            "leadership transfer starting",
            "local-member-id" => id,
            "current-leader-member-id" => id,
            "transferee-member-id" => transferee,
        );
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => return failed(&error.to_string()),
        };
        let started = Instant::now();
        let transfer =
            async { tokio::time::timeout(view.request_timeout, view.others.transfer_leader(heir)).await };
        match runtime.block_on(transfer) {
            Ok(()) => log::info!(
                "leadership transfer finished",
                "local-member-id" => id,
                "old-leader-member-id" => id,
                "new-leader-member-id" => transferee,
                "took" => started.elapsed(),
            ),
            Err(_) => failed(ApiError::TimeoutLeaderTransfer.text()),
        }
    }

    /// Ends its threads once everything begun is on disk. The network threads are gone by then, or are told that the member
    /// is.
    pub fn stop(self) {
        self.threads.stop(self.peers);
    }
}

fn settings(config: &Config, joined: Option<&Joined>) -> Settings {
    let texts = |urls: &[Url]| urls.iter().map(ToString::to_string).collect::<Vec<_>>();
    // They were checked if there is no log. Where there is one they don't count: a fault in them is no reason to stop, nor
    // are their names a reason to wait for a resolver.
    let initial_members = config.initial_members().into_iter();
    let initial_cluster =
        initial_members.map(|(name, urls)| InitialMember { name, peer_urls: texts(&urls) }).collect();
    Settings {
        data_dir: config.data_dir.clone(),
        wal_dir: config.wal_dir.clone(),
        name: config.name.clone(),
        peer_urls: texts(&config.initial_advertise_peer_urls),
        client_urls: texts(&config.advertise_client_urls),
        initial_cluster,
        cluster_state: match (config.initial_cluster_state, joined) {
            (config::ClusterState::New, _) => ClusterState::New,
            (config::ClusterState::Existing, joined) => {
                ClusterState::Existing(joined.map(|joined| joined.identity))
            }
        },
        token: config.initial_cluster_token.clone(),
        election_timeout_ms: config.election_timeout_ms,
        heartbeat_interval_ms: config.heartbeat_interval_ms,
        force_new_cluster: config.force_new_cluster,
        pre_vote: config.pre_vote,
        downgrade_check_ms: config.downgrade_check_ms,
        learners_max: config.learners_max,
        auto_compaction: config.auto_compaction,
        lease_checkpoints: config.lease_checkpoints,
        compaction_batch_limit: config.compaction_batch_limit,
        snapshot_count: config.snapshot_count,
        wals_max: config.wals_max,
        snapshots_max: config.snapshots_max,
        keep_imported: config.keep_imported,
        quota: Quota::of_setting(config.quota_bytes),
        no_space_clears_ms: config.no_space_clears.map(|after| after.as_millis() as u64),
        limits: node::Limits {
            raft: raft::Limits { kept_entries_max: config.catchup_entries, ..raft::Limits::default() },
            ..node::Limits::default()
        },
    }
}

fn random() -> Result<u64, std::io::Error> {
    getrandom::u64().map_err(std::io::Error::other)
}

fn describe(opened: &node::Member) {
    let found = &opened.found;
    for (file, offset) in &found.torn {
        log::warn!(
            "cut the torn end of a log; nothing of it was acknowledged",
            "file" => log::Text(file.display()),
            "offset" => *offset,
        );
    }
    for (broken, aside) in &found.broken {
        let (path, reason) = (log::Text(broken.file.display()), broken.reason);
        let error = format!("damaged at offset {}: {reason}", broken.offset);
        log::warn!("failed to read a snap file", "path" => path, "error" => error);
        log::warn!("renamed to a broken snap file", "path" => path, "broken-path" => log::Text(aside.display()));
    }
    if let Some(imported) = &found.imported {
        log::info!(
            "took over etcd's database",
            "path" => log::Text(imported.file.display()),
            "consistent-index" => imported.applied.index,
            "revision" => imported.revision,
            "compact-revision" => imported.compacted,
        );
    }
    if let Some(forced) = &found.forced {
        let removed: Vec<String> = forced.removed.iter().map(|id| format!("{id:x}")).collect();
        log::warn!(
            "forced a new cluster of this member alone: what was not committed here is dropped, all others are removed",
            "number-of-discarded-entries" => forced.discarded,
            "removed-member-ids" => removed,
        );
    }
    if let Some(finished) = &found.compaction {
        log::info!(
            "finished scheduled compaction",
            "compact-revision" => finished.revision,
            "number-of-keys-compacted" => finished.dropped,
        );
    }
    if let Some(path) = &found.missing {
        log::warn!(
            "the snap file that the write-ahead log names is missing; nothing depends on it, and a new one is made",
            "path" => log::Text(path.display()),
        );
    }
    log::info!(
        if found.is_new { "starting local member" } else { "restarting local member" },
        "cluster-id" => format!("{:x}", opened.identity.cluster_id),
        "local-member-id" => format!("{:x}", opened.identity.member_id),
        "last-index" => found.last_index,
        "applied-index" => found.applied_index,
    );
}
