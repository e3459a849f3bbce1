//! What the user wants: flags and `ETCD_` variables in etcd's syntax, or a file, then one conversion into what the member needs.
//!
//! [`RawConfig`] is what was said, [`Config`] what it means; all checks are between the two, with etcd's texts. The
//! table in [`settings`] drives parser, help, documentation and tests, so that a flag can't exist half-way.

pub mod bootstrap;
pub mod commands;
pub mod duration;
pub mod env;
pub mod file;
pub mod flags;
pub mod gates;
pub mod help;
pub mod notes;
pub mod peer_urls;
pub mod raw;
pub mod security;
pub mod settings;
pub mod value;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use node::AutoCompaction;
use thiserror::Error;
use wire::RequestLimits;

use crate::auth::{self, AuthError};
use crate::http::Allowed;
use crate::log::outputs::{self, OutputError, Target};
use crate::log::{self, Format, Level};

use raw::Source;
use settings::find;

pub use bootstrap::{Bootstrap, BootstrapError};
pub use file::FileError;
pub use raw::RawConfig;
pub use security::Security;
pub(crate) use wire::url::quote;
pub use wire::url::{Scheme, Url};

/// The name of a member that was not given one.
pub const DEFAULT_NAME: &str = "default";

const DEFAULT_CLUSTER: &str = "default=http://localhost:2380";
const DEFAULT_PEER_URL: &str = "http://localhost:2380";
const DEFAULT_CLIENT_URL: &str = "http://localhost:2379";
const ELECTION_TIMEOUT_MS_MAX: u64 = 50_000;
const QUOTA_BYTES_RECOMMENDED: i64 = 8 << 30;
const REQUEST_BYTES_RECOMMENDED: u64 = 10 * 1024 * 1024;
/// etcd's defaults for what is set to 0.
const COMPACTION_BATCH_LIMIT: usize = 1000;
const COMPACTION_SLEEP_INTERVAL: Duration = Duration::from_millis(10);
const WATCH_PROGRESS_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// No watch is told of progress more often.
const WATCH_PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);
const WARNING_UNARY_REQUEST_DURATION: Duration = Duration::from_millis(300);
const SNAPSHOT_COUNT: u64 = 10_000;
/// gRPC's Go server pings no client more often.
const PING_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// A member's settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The member's name.
    pub name: String,
    /// Root of the member's files; nothing is created yet.
    pub data_dir: PathBuf,
    /// Where the log lives if not under `data_dir`.
    pub wal_dir: Option<PathBuf>,
    /// Where clients are served; at least one.
    pub listen_client_urls: Vec<Url>,
    /// Where clients are served by HTTP alone; if there are any, the others serve gRPC alone.
    pub listen_client_http_urls: Vec<Url>,
    /// Where probes and metrics are served beside.
    pub listen_metrics_urls: Vec<Url>,
    /// Whether metrics have how long calls take.
    pub extensive_metrics: bool,
    /// What `--feature-gates` says, which metrics show.
    pub feature_gates: Vec<String>,
    /// Certificates and what belongs to them.
    pub security: Security,
    /// Tokens and passwords.
    pub auth: auth::Settings,
    /// Origins whose pages may see answers.
    pub origins: Allowed,
    /// Hosts that requests without TLS may ask for.
    pub hosts: Allowed,
    /// Where peers are served; at least one.
    pub listen_peer_urls: Vec<Url>,
    /// What clients are told.
    pub advertise_client_urls: Vec<Url>,
    /// What the other members of a new cluster are told.
    pub initial_advertise_peer_urls: Vec<Url>,
    /// The members that a new cluster begins with, as text; see [`Config::bootstrap`].
    pub initial_cluster: String,
    /// Whether a member without data begins a new cluster or joins one.
    pub initial_cluster_state: ClusterState,
    /// What a new cluster's ids are made of, beside its URLs.
    pub initial_cluster_token: String,
    /// Time between heartbeats, milliseconds; above 0.
    pub heartbeat_interval_ms: u64,
    /// Election timeout, milliseconds; at least 5 heartbeats, at most 50,000.
    pub election_timeout_ms: u64,
    /// Whether a member asks before it stands for election.
    pub pre_vote: bool,
    /// Whether the wait for the first election is shortened once the others are connected.
    pub hurries: bool,
    /// Whether changes of membership are refused that could cost the quorum.
    pub strict_reconfig_check: bool,
    /// Whether a member that has data goes on alone.
    pub force_new_cluster: bool,
    /// Most learners that the cluster may have.
    pub learners_max: usize,
    /// Entries behind a snapshot that are kept for slow followers.
    pub catchup_entries: usize,
    /// How often the leader looks whether a downgrade is over, milliseconds; 0 for never.
    pub downgrade_check_ms: u64,
    /// What one client request may ask for.
    pub limits: RequestLimits,
    /// The pings between server and clients.
    pub keepalive: Keepalive,
    /// Compaction without being asked.
    pub auto_compaction: AutoCompaction,
    /// Whether the leader notes in the log what is left of long leases.
    pub lease_checkpoints: bool,
    /// Versions that a compaction drops in one step; above 0.
    pub compaction_batch_limit: usize,
    /// Its pause between two steps.
    pub compaction_sleep_interval: Duration,
    /// Whether the member compares its data with the others' before it serves.
    pub checks_at_start: bool,
    /// How often the leader compares everybody's data; `None` for never.
    pub corrupt_check_interval: Option<Duration>,
    /// How often it compares what compactions have hashed; `None` for never.
    pub compact_hash_check_interval: Option<Duration>,
    /// How often watches that ask for it are told how far they are; at least 100 ms.
    pub watch_progress_interval: Duration,
    /// From when on applying an entry, or a read, is told of in the log.
    pub warning_apply_duration: Duration,
    /// From when on a call with one answer is.
    pub warning_unary_request_duration: Duration,
    /// A snapshot is taken when more entries than this were applied since the last one.
    pub snapshot_count: u64,
    /// Segments of the write-ahead log that stay; 0 for all.
    pub wals_max: usize,
    /// `.snap` files that stay; 0 for all.
    pub snapshots_max: usize,
    /// Whether a database of etcd's stays when it is taken over.
    pub keep_imported: bool,
    /// `--quota-backend-bytes`, 2 GiB where that is 0; below 0 for none.
    pub quota_bytes: i64,
    /// Whether `/debug/pprof` is served.
    pub profiles: bool,
    /// `--enable-grpc-gateway`.
    pub gateway: bool,
    /// How long there must have been room for this member's NOSPACE to end by itself; `None`: it does not.
    pub no_space_clears: Option<Duration>,
    /// Whether listeners share their ports with other processes (SO_REUSEPORT).
    pub reuse_port: bool,
    /// What is written to the log.
    pub log_level: Level,
    /// How it is written.
    pub log_format: Format,
}

/// Whether a member without data begins a new cluster or joins one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// Begins it.
    New,
    /// Joins it.
    Existing,
}

impl ClusterState {
    /// The word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            ClusterState::New => "new",
            ClusterState::Existing => "existing",
        }
    }
}

/// The pings between server and clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// A client that pings more often loses its connection; above zero.
    pub min_time: Duration,
    /// Idle time before the server pings; at least a second.
    pub interval: Duration,
    /// Wait for the answer before the connection is closed; above zero.
    pub timeout: Duration,
}

/// Settings that parse but can't be started with. The texts are etcd's where etcd has one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the text is the documentation")]
pub enum ConfigError {
    #[error("{} is not a valid flag", quote(.0))]
    NotAFlag(String),
    #[error("{0}")]
    Environment(String),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"")]
    Proxy,
    #[error("--logger=capnslog is removed in v3.5")]
    Capnslog,
    #[error("unknown logger option {}", quote(.0))]
    Logger(String),
    #[error("unrecognized level: {}", quote(.0))]
    LogLevel(String),
    #[error("unknown log format: {0}, supported values json, console")]
    LogFormat(String),
    #[error("{0}")]
    Address(String),
    #[error("expected IP in URL for binding ({0})")]
    BindName(Url),
    #[error("--initial-advertise-peer-urls {} must be \"host:port\" (unexpected empty host ({url}))", quote(.all))]
    PeerHost { all: String, url: Url },
    #[error(
        "--advertise-client-urls {} must be in the format \"host:port\", \"unix:/path/to/socket\" or \
         \"unixs:/path/to/socket\" (unexpected empty host ({url}))",
        quote(.all)
    )]
    ClientHost { all: String, url: Url },
    #[error(
        "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
         \"discovery-endpoints\" or \"discovery-srv\""
    )]
    Bootstrap,
    #[error("both --discovery-token and --discovery-endpoints must be set")]
    Discovery,
    #[error("--heartbeat-interval must be >0 (set to 0ms)")]
    Heartbeat,
    #[error("--election-timeout must be >0 (set to 0ms)")]
    ElectionZero,
    #[error(
        "--election-timeout[{election_ms}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat_ms}ms]"
    )]
    ElectionShort { election_ms: u64, heartbeat_ms: u64 },
    #[error("--election-timeout[{0}ms] is too long, and should be set less than 50000ms")]
    ElectionLong(u64),
    #[error("--advertise-client-urls is required when --listen-client-urls is set explicitly")]
    AdvertiseUnset,
    #[error("undefined auto-compaction-mode")]
    CompactionModeEmpty,
    #[error("unknown auto-compaction-mode {}", quote(.0))]
    CompactionMode(String),
    #[error("error parsing CompactionRetention: time: invalid duration {}", quote(.0))]
    CompactionRetention(String),
    #[error("distributed tracing configurition is not valid: (sampling rate must be between 0 and 1000000)")]
    Tracing,
    #[error("enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint")]
    CheckpointPersist,
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("--compact-hash-check-time must be >0 (set to {0})")]
    CompactHashCheck(String),
    #[error(transparent)]
    LogOutput(#[from] OutputError),
    #[error("{name} must be at most {max} (set to {value})")]
    TooLarge { name: &'static str, max: u64, value: u64 },
    #[error("{name} must not be negative (set to {value})")]
    Negative { name: &'static str, value: String },
    #[error("{}; leave out what is named, or at its default", not_yet(.0))]
    NotYet(Vec<(String, &'static str)>),
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

impl TryFrom<&RawConfig> for Config {
    type Error = ConfigError;

    /// Checks in etcd's order, with etcd's texts; then refuses what belongs to a later version.
    fn try_from(raw: &RawConfig) -> Result<Config, ConfigError> {
        if raw.text("discovery-fallback") == "proxy" {
            return Err(ConfigError::Proxy);
        }
        let Logging { level: log_level, format: log_format, .. } = logging(raw)?;
        let listen_peer_urls = raw.urls("listen-peer-urls");
        let listen_client_urls = raw.urls("listen-client-urls");
        for name in
            ["listen-peer-urls", "listen-client-urls", "listen-client-http-urls", "listen-metrics-urls"]
        {
            raw.urls(name).iter().try_for_each(check_bind)?;
        }
        let initial_advertise_peer_urls = raw.urls("initial-advertise-peer-urls");
        if let Some(url) = without_host(&initial_advertise_peer_urls) {
            return Err(ConfigError::PeerHost { all: join(&initial_advertise_peer_urls), url });
        }
        let advertise_client_urls = raw.urls("advertise-client-urls");
        if let Some(url) = without_host(&advertise_client_urls) {
            return Err(ConfigError::ClientHost { all: join(&advertise_client_urls), url });
        }
        check_discovery(raw)?;
        let (heartbeat_interval_ms, election_timeout_ms) = intervals(raw)?;
        let listens = find("listen-client-urls").and_then(|position| raw.source(position));
        // In a file the default stays.
        if matches!(listens, Some(source) if source != Source::File) && !raw.is_set("advertise-client-urls") {
            return Err(ConfigError::AdvertiseUnset);
        }
        let auth = check_others(raw)?;
        let security = Security::new(raw)?;
        let gates = raw.list("feature-gates");
        let refused_gates = gates::unsupported(&gates).into_iter();
        let refused_gates = refused_gates
            .map(|name| (format!("--feature-gates {name}"), "what it switches is not there yet"));
        let refused: Vec<_> = raw.unsupported().into_iter().chain(refused_gates).collect();
        if !refused.is_empty() {
            return Err(ConfigError::NotYet(refused));
        }
        for name in raw.inert() {
            crate::warn!(format!("--{name} has no effect"), "reason" => notes::note(name));
        }

        warn_of_storage(raw);
        let name = raw.text("name");
        let mut config = Config {
            data_dir: PathBuf::from(raw.text("data-dir")),
            wal_dir: Some(raw.text("wal-dir")).filter(|dir| !dir.is_empty()).map(PathBuf::from),
            initial_cluster: raw.text("initial-cluster"),
            initial_cluster_state: match raw.text("initial-cluster-state").as_str() {
                "existing" => ClusterState::Existing,
                _ => ClusterState::New,
            },
            initial_cluster_token: raw.text("initial-cluster-token"),
            pre_vote: raw.bool("pre-vote"),
            hurries: raw.bool("initial-election-tick-advance"),
            strict_reconfig_check: raw.bool("strict-reconfig-check"),
            force_new_cluster: raw.bool("force-new-cluster"),
            learners_max: usize::try_from(raw.int("max-learners")).unwrap_or(0),
            catchup_entries: usize::try_from(raw.uint("snapshot-catchup-entries")).unwrap_or(usize::MAX),
            // Rounded up, so that no time is never.
            downgrade_check_ms: u64::try_from(raw.nanos("downgrade-check-time"))
                .map_or(1, |nanos| nanos.div_ceil(1_000_000)),
            limits: limits(raw)?,
            keepalive: keepalive(raw),
            auto_compaction: auto_compaction(raw)?,
            lease_checkpoints: gates::is_on(&gates, "LeaseCheckpoint"),
            compaction_batch_limit: match raw.int("compaction-batch-limit") {
                0 => COMPACTION_BATCH_LIMIT,
                given => usize::try_from(given).unwrap_or(1),
            },
            compaction_sleep_interval: match raw.nanos("compaction-sleep-interval") {
                0 => COMPACTION_SLEEP_INTERVAL,
                given => Duration::from_nanos(u64::try_from(given).unwrap_or(0)),
            },
            checks_at_start: gates::is_on(&gates, "InitialCorruptCheck"),
            corrupt_check_interval: positive(raw.nanos("corrupt-check-time")),
            compact_hash_check_interval: gates::is_on(&gates, "CompactHashCheck")
                .then(|| positive(raw.nanos("compact-hash-check-time")))
                .flatten(),
            watch_progress_interval: match raw.nanos("watch-progress-notify-interval") {
                ..=0 => WATCH_PROGRESS_INTERVAL,
                given => Duration::from_nanos(given.unsigned_abs()).max(WATCH_PROGRESS_INTERVAL_MIN),
            },
            warning_apply_duration: threshold(raw.nanos("warning-apply-duration")),
            warning_unary_request_duration: match raw.nanos("warning-unary-request-duration") {
                0 => WARNING_UNARY_REQUEST_DURATION,
                given => threshold(given),
            },
            snapshot_count: match raw.uint("snapshot-count") {
                0 => SNAPSHOT_COUNT,
                given => given,
            },
            wals_max: usize::try_from(raw.uint("max-wals")).unwrap_or(usize::MAX),
            snapshots_max: usize::try_from(raw.uint("max-snapshots")).unwrap_or(usize::MAX),
            keep_imported: raw.bool("quorate-keep-imported-db"),
            quota_bytes: quota(raw),
            profiles: raw.bool("enable-pprof"),
            gateway: raw.bool("enable-grpc-gateway"),
            no_space_clears: raw.bool("quorate-nospace-clears").then(|| {
                let nanos = raw.nanos("quorate-nospace-clears-after");
                Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
            }),
            reuse_port: raw.bool("socket-reuse-port"),
            name,
            listen_client_urls,
            listen_client_http_urls: raw.urls("listen-client-http-urls"),
            listen_metrics_urls: raw.urls("listen-metrics-urls"),
            extensive_metrics: raw.text("metrics") == "extensive",
            feature_gates: gates.clone(),
            security,
            auth,
            origins: Allowed::from_list(security::words(raw, "cors")),
            hosts: Allowed::from_list(security::allowed(raw, "host-whitelist")),
            listen_peer_urls,
            advertise_client_urls,
            initial_advertise_peer_urls,
            heartbeat_interval_ms,
            election_timeout_ms,
            log_level,
            log_format,
        };
        config.settle_names();
        Ok(config)
    }
}

impl Config {
    /// The folder of the member's own files.
    pub fn member_dir(&self) -> PathBuf {
        self.data_dir.join("member")
    }

    /// The folder of the log's segments.
    pub fn wal_path(&self) -> PathBuf {
        self.wal_dir.clone().unwrap_or_else(|| self.member_dir().join("wal"))
    }

    /// How long a request may take before it is answered with a timeout, as etcd reckons it.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * Duration::from_millis(self.election_timeout_ms)
    }

    /// Fills in what follows from other settings: the initial cluster from a name, hosts from `0.0.0.0`, the data
    /// directory from the name.
    fn settle_names(&mut self) {
        let host = || default_host();
        let adopt = |advertised: &mut Vec<Url>, default: &str, listen: &[Url]| -> Option<String> {
            let is_default = matches!(advertised.as_slice(), [one] if one.as_str() == default);
            let first = listen.first()?;
            if !is_default || first.host() != "0.0.0.0" {
                return None;
            }
            let host = host()?.to_string();
            advertised[0] = advertised[0].with_host(&host, first.port());
            Some(host)
        };
        let peer = adopt(&mut self.initial_advertise_peer_urls, DEFAULT_PEER_URL, &self.listen_peer_urls);
        if self.name != DEFAULT_NAME && self.initial_cluster == DEFAULT_CLUSTER {
            let name = if self.name.is_empty() { DEFAULT_NAME } else { &self.name };
            let pairs = self.initial_advertise_peer_urls.iter().map(|url| format!("{name}={url}"));
            self.initial_cluster = pairs.collect::<Vec<_>>().join(",");
        }
        let client = adopt(&mut self.advertise_client_urls, DEFAULT_CLIENT_URL, &self.listen_client_urls);
        if let Some(host) = peer.or(client) {
            crate::info!("detected default host for advertise", "host" => host);
        }
        if self.data_dir == Path::new("") {
            self.data_dir = PathBuf::from(format!("{}.etcd", self.name));
            crate::warn!("'data-dir' was empty; using default", "data-dir" => log::Text(self.data_dir.display()));
        }
    }
}

/// How the log is to be written.
#[derive(Clone, Debug)]
pub struct Logging {
    /// From which level on.
    pub level: Level,
    /// In which form.
    pub format: Format,
    /// Where to; nothing is opened yet.
    pub targets: Vec<Target>,
}

/// How the log is to be written; settled before the rest, which may have something to log.
///
/// # Errors
/// A logger, level, format or output that does not exist.
pub fn logging(raw: &RawConfig) -> Result<Logging, ConfigError> {
    match raw.text("logger").as_str() {
        "zap" => {}
        "capnslog" => return Err(ConfigError::Capnslog),
        other => return Err(ConfigError::Logger(other.to_owned())),
    }
    let rotation = raw.text("log-rotation-config-json");
    let rotation = raw.bool("enable-log-rotation").then_some(rotation.as_str());
    let targets = outputs::targets(&security::allowed(raw, "log-outputs"), rotation)?;
    let name = raw.text("log-level");
    let level = Level::from_name(&name).ok_or(ConfigError::LogLevel(name))?;
    let name = raw.text("log-format");
    let format = Format::from_name(&name).ok_or(ConfigError::LogFormat(name))?;
    Ok(Logging { level, format, targets })
}

/// All that is refused, each with its reason.
fn not_yet(refused: &[(String, &str)]) -> String {
    let version = wire::version::QUORATE;
    let one =
        |(name, why): &(String, &str)| format!("{name} is not yet supported by Quorate {version} ({why})");
    refused.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// A name other than `localhost` is no address to listen on.
fn check_bind(url: &Url) -> Result<(), ConfigError> {
    if url.is_unix() || url.host() == "localhost" {
        return Ok(());
    }
    // A zone, as in fe80::1%eth0, belongs to the address.
    let host = url.host().split('%').next().unwrap_or_default();
    host.parse::<IpAddr>().map(drop).map_err(|_| ConfigError::BindName(url.clone()))
}

fn without_host(urls: &[Url]) -> Option<Url> {
    urls.iter().find(|url| !url.is_unix() && url.host().is_empty()).cloned()
}

fn check_discovery(raw: &RawConfig) -> Result<(), ConfigError> {
    let endpoints = raw.is_set("discovery-endpoints")
        && raw.value("discovery-endpoints") != value::Value::List(vec![String::new()]);
    let dns = !raw.text("discovery-srv").is_empty();
    let named = dns || endpoints || !raw.text("discovery-srv-name").is_empty();
    let cluster =
        if named { raw.is_set("initial-cluster") } else { true } && !raw.text("initial-cluster").is_empty();
    if [cluster, dns, endpoints].iter().filter(|set| **set).count() > 1 {
        return Err(ConfigError::Bootstrap);
    }
    if raw.text("discovery-token").is_empty() == endpoints {
        return Err(ConfigError::Discovery);
    }
    Ok(())
}

fn intervals(raw: &RawConfig) -> Result<(u64, u64), ConfigError> {
    let (heartbeat_ms, election_ms) = (raw.uint("heartbeat-interval"), raw.uint("election-timeout"));
    if heartbeat_ms == 0 {
        return Err(ConfigError::Heartbeat);
    }
    if election_ms == 0 {
        return Err(ConfigError::ElectionZero);
    }
    if heartbeat_ms.saturating_mul(5) > election_ms {
        return Err(ConfigError::ElectionShort { election_ms, heartbeat_ms });
    }
    if election_ms > ELECTION_TIMEOUT_MS_MAX {
        return Err(ConfigError::ElectionLong(election_ms));
    }
    Ok((heartbeat_ms, election_ms))
}

/// What is zero or less is never.
fn positive(nanos: i64) -> Option<Duration> {
    u64::try_from(nanos).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos)
}

/// What etcd refuses of further settings, of those too that do not work yet; what comes of those about tokens.
fn check_others(raw: &RawConfig) -> Result<auth::Settings, ConfigError> {
    match raw.text("auto-compaction-mode").as_str() {
        "periodic" | "revision" => {}
        "" => return Err(ConfigError::CompactionModeEmpty),
        other => return Err(ConfigError::CompactionMode(other.to_owned())),
    }
    let rate = raw.int("distributed-tracing-sampling-rate");
    if raw.bool("enable-distributed-tracing") && !(0..=1_000_000).contains(&rate) {
        return Err(ConfigError::Tracing);
    }
    let (ttl_s, cost) = (raw.uint("auth-token-ttl"), raw.uint("bcrypt-cost"));
    let auth = auth::Settings::new(&raw.text("auth-token"), ttl_s, cost)?;
    let gates = raw.list("feature-gates");
    if gates::is_on(&gates, "LeaseCheckpointPersist") && !gates::is_on(&gates, "LeaseCheckpoint") {
        return Err(ConfigError::CheckpointPersist);
    }
    let nanos = raw.nanos("compact-hash-check-time");
    if nanos <= 0 {
        return Err(ConfigError::CompactHashCheck(duration::format(nanos)));
    }
    Ok(auth)
}

/// A bare number is hours or revisions, by the mode; anything else is a duration, which in the other mode etcd takes for
/// its number of nanoseconds.
fn auto_compaction(raw: &RawConfig) -> Result<AutoCompaction, ConfigError> {
    let text = match raw.text("auto-compaction-retention") {
        text if text.is_empty() => "0".to_owned(),
        text => text,
    };
    let refused = || ConfigError::CompactionRetention(text.clone());
    let by_revision = raw.text("auto-compaction-mode") == "revision";
    let retention = match text.parse::<i64>() {
        Ok(number) if number >= 0 && by_revision => number,
        Ok(hours) if hours >= 0 => hours.checked_mul(3_600_000_000_000).ok_or_else(refused)?,
        _ => duration::parse(&text).filter(|nanos| *nanos >= 0).ok_or_else(refused)?,
    };
    Ok(match (retention, by_revision) {
        (0, _) => AutoCompaction::Off,
        (retention, true) => AutoCompaction::Revision { retention },
        // Rounded up, so that no period is nothing.
        (nanos, false) => AutoCompaction::Periodic { period_us: nanos.unsigned_abs().div_ceil(1000) },
    })
}

/// Says once what settings of etcd's storage do here, where there is another one.
fn warn_of_storage(raw: &RawConfig) {
    const WITHOUT_EFFECT: [&str; 3] =
        ["backend-batch-interval", "backend-batch-limit", "backend-bbolt-freelist-type"];
    const WITH_ANOTHER: [&str; 2] = ["compaction-batch-limit", "compaction-sleep-interval"];
    let given = |names: &[&str]| -> Vec<String> {
        names.iter().filter(|name| raw.is_set(name)).map(|name| format!("--{name}")).collect()
    };
    let (ignored, bounds) = (given(&WITHOUT_EFFECT), given(&WITH_ANOTHER));
    if ignored.is_empty() && bounds.is_empty() {
        return;
    }
    crate::warn!(
        "these settings are of etcd's storage: some do nothing here, others bound only how fast a compaction gives up the \
         index of what it drops; space on disk comes back by merging",
        "without-effect" => ignored.join(","),
        "bounds-compaction" => bounds.join(","),
    );
}

/// The quota, and what etcd says of it in the log.
fn quota(raw: &RawConfig) -> i64 {
    let bytes = raw.int("quota-backend-bytes");
    let size = |bytes: i64| log::bytes(bytes.unsigned_abs());
    match bytes {
        ..0 => crate::info!("disabled backend quota", "quota-size-bytes" => bytes),
        0 => {
            let default = node::QUOTA_BYTES_DEFAULT as i64;
            crate::info!(
                "enabled backend quota with default value",
                "quota-size-bytes" => default,
                "quota-size" => size(default),
            );
            return default;
        }
        _ => {
            if bytes > QUOTA_BYTES_RECOMMENDED {
                crate::warn!(
                    "quota exceeds the maximum value",
                    "quota-size-bytes" => bytes,
                    "quota-size" => size(bytes),
                    "quota-maximum-size-bytes" => QUOTA_BYTES_RECOMMENDED,
                    "quota-maximum-size" => size(QUOTA_BYTES_RECOMMENDED),
                );
            }
            crate::info!("enabled backend quota", "quota-size-bytes" => bytes, "quota-size" => size(bytes));
        }
    }
    bytes
}

fn limits(raw: &RawConfig) -> Result<RequestLimits, ConfigError> {
    let number = |name: &'static str| {
        let value = raw.uint(name);
        let max = u64::from(u32::MAX) - u64::from(wire::limits::GRPC_OVERHEAD_BYTES);
        match u32::try_from(value) {
            Ok(n) if value <= max || name == "max-concurrent-streams" => Ok(n),
            _ => Err(ConfigError::TooLarge { name, max, value }),
        }
    };
    let request_bytes = raw.uint("max-request-bytes");
    if request_bytes > REQUEST_BYTES_RECOMMENDED {
        crate::warn!(
            "exceeded recommended request limit",
            "max-request-bytes" => request_bytes,
            "recommended-request-bytes" => REQUEST_BYTES_RECOMMENDED,
        );
    }
    Ok(RequestLimits {
        request_bytes_max: number("max-request-bytes")?,
        txn_ops_max: number("max-txn-ops")?,
        // To gRPC's Go server none is no limit.
        concurrent_streams_max: match number("max-concurrent-streams")? {
            0 => u32::MAX,
            given => given,
        },
    })
}

/// The pings as gRPC's Go server keeps them: what is zero or less etcd does not hand to it, and then its own
/// defaults hold. Nothing turns them off.
fn keepalive(raw: &RawConfig) -> Keepalive {
    let given = |name: &str| {
        let nanos = u64::try_from(raw.nanos(name)).ok().filter(|nanos| *nanos > 0);
        nanos.map(Duration::from_nanos)
    };
    let (interval, timeout) = match (given("grpc-keepalive-interval"), given("grpc-keepalive-timeout")) {
        (Some(interval), Some(timeout)) => (interval.max(PING_INTERVAL_MIN), timeout),
        _ => (Duration::from_secs(2 * 60 * 60), Duration::from_secs(20)),
    };
    let min_time = given("grpc-keepalive-min-time").unwrap_or(Duration::from_secs(5 * 60));
    Keepalive { min_time, interval, timeout }
}

/// What takes longer is told of; below zero, everything.
fn threshold(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

/// The address that packets to the outside leave from: what etcd advertises for a listener on all addresses.
fn default_host() -> Option<IpAddr> {
    // Connecting a datagram socket sends nothing; it only asks the routing table.
    let routes = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];
    routes.into_iter().find_map(|(from, to)| {
        let socket = std::net::UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        socket
            .local_addr()
            .ok()
            .map(|address| address.ip())
            .filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
    })
}

fn join(urls: &[Url]) -> String {
    urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
