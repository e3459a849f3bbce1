//! Every setting of the server: the one table that the parser, `--help`, the documentation and the tests read.

use super::value::Kind;

/// One setting: a flag, and the `ETCD_` variable of the same name.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The flag without dashes.
    pub name: &'static str,
    /// How its value is read.
    pub kind: Kind,
    /// The value when it is not set, as text.
    pub default: &'static str,
    /// What this version does with it.
    pub status: Status,
    /// Where `--help` lists it.
    pub group: Group,
    /// What it means, in one line.
    pub help: &'static str,
}

/// What this version does with a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It works.
    Works,
    /// It belongs to a later version: another value than the default is refused at start.
    Later,
    /// It has nothing to act on here: accepted, with a warning that says why.
    Inert,
    /// Any value that etcd takes is accepted, and has no effect, there as here.
    Dropped,
    /// A flag of old scripts: accepted without looking at the value.
    Ignored,
    /// A flag of an earlier etcd: unknown now, as in etcd.
    Removed,
}

/// The headings of `--help`, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the headings say it")]
pub enum Group {
    Member,
    Clustering,
    Security,
    Auth,
    Monitoring,
    Logging,
    Tracing,
    Features,
    Unsafe,
    Configuration,
    Ignored,
}

impl Group {
    /// All headings, in the order of `--help`.
    pub const ALL: [Group; 11] = [
        Group::Member,
        Group::Clustering,
        Group::Security,
        Group::Auth,
        Group::Monitoring,
        Group::Logging,
        Group::Tracing,
        Group::Features,
        Group::Unsafe,
        Group::Configuration,
        Group::Ignored,
    ];

    /// The heading.
    pub fn title(self) -> &'static str {
        match self {
            Group::Member => "Member",
            Group::Clustering => "Clustering",
            Group::Security => "Security",
            Group::Auth => "Auth",
            Group::Monitoring => "Profiling and Monitoring",
            Group::Logging => "Logging",
            Group::Tracing => "Distributed tracing",
            Group::Features => "Features",
            Group::Unsafe => "Unsafe feature",
            Group::Configuration => "Configuration",
            Group::Ignored => "(ignored)",
        }
    }
}

impl Setting {
    /// The variable that sets it: `ETCD_` and the name in upper case.
    pub fn variable(&self) -> String {
        format!("ETCD_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// Whether the parser knows it.
    pub fn is_known(&self) -> bool {
        self.status != Status::Removed
    }
}

/// The place in [`SETTINGS`] of the setting with this name.
pub fn find(name: &str) -> Option<usize> {
    SETTINGS.iter().position(|setting| setting.name == name && setting.is_known())
}

use Group::{
    Auth, Clustering, Configuration, Features, Ignored as Old, Logging, Member, Monitoring, Security,
    Tracing, Unsafe,
};
use Kind::{Bool, Choice, Choices, Duration, Gates, Ignored, Int, List, Origins, Text, Uint, Uint32, Urls};
use Status::{Dropped, Inert, Later, Removed, Works};

const fn setting(
    group: Group,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    status: Status,
    help: &'static str,
) -> Setting {
    Setting { name, kind, default, status, group, help }
}

const fn old(name: &'static str) -> Setting {
    setting(Old, name, Ignored, "", Status::Ignored, "accepted for old scripts, without any effect")
}

/// Every flag of etcd 3.7.1, grouped as in `--help`.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    setting(Member, "data-dir", Text, "", Works, "root directory of member data"),
    setting(Member, "wal-dir", Text, "", Works, "separate directory for the write-ahead log"),
    setting(Member, "max-snapshots", Uint, "5", Works, "snapshot files to keep, 0 keeps all"),
    setting(Member, "max-wals", Uint, "5", Works, "WAL files to keep, 0 keeps all"),
    setting(Member, "quorate-keep-imported-db", Bool, "false", Works, "keep etcd's database, as member/imported-<index>.db, when a data directory of etcd is taken over (not etcd's)"),
    setting(Member, "name", Text, "default", Works, "human name of this member; also the local key looked up in initial-cluster"),
    setting(Member, "snapshot-count", Uint, "10000", Works, "applied entries between raft snapshots on disk; 0 means the default"),
    setting(Member, "heartbeat-interval", Uint, "100", Works, "time between heartbeats of the leader, in milliseconds"),
    setting(Member, "election-timeout", Uint, "1000", Works, "election timeout in milliseconds: at least 5 heartbeat intervals, at most 50000"),
    setting(Member, "initial-election-tick-advance", Bool, "true", Works, "fast-forward election ticks at boot; a one-member cluster does so anyway"),
    setting(Member, "quota-backend-bytes", Int, "0", Works, "size of the data that raises NOSPACE; 0 means 2 GiB, negative means no quota, over 8 GiB only warns"),
    setting(Member, "backend-bbolt-freelist-type", Text, "", Works, "accepted with a warning; there is no free list here"),
    setting(Member, "backend-batch-interval", Duration, "0s", Works, "accepted with a warning; the revision log is synced once a second, and nothing waits for it"),
    setting(Member, "backend-batch-limit", Int, "0", Works, "accepted with a warning; a batch is what is committed at once"),
    setting(Member, "max-txn-ops", Uint, "128", Works, "most compares, or then-ops, or else-ops in a transaction (nesting uses up the rest)"),
    setting(Member, "max-request-bytes", Uint, "1572864", Works, "largest request in bytes; a gRPC message may be 512 KiB longer; above 10 MiB there is a warning"),
    setting(Member, "grpc-keepalive-min-time", Duration, "5s", Works, "client pings closer together than this get the connection closed (ENHANCE_YOUR_CALM); 0 means 5m"),
    setting(Member, "grpc-keepalive-interval", Duration, "2h", Works, "idle time before the server pings the client, at least 1s; 0 means 2h, and 20s for the timeout"),
    setting(Member, "grpc-keepalive-timeout", Duration, "20s", Works, "wait for the ping answer before closing; 0 means 20s, and 2h for the interval"),
    setting(Member, "socket-reuse-port", Bool, "false", Works, "SO_REUSEPORT on listeners"),
    setting(Member, "socket-reuse-address", Bool, "false", Works, "accepted; listeners set SO_REUSEADDR in any case"),
    setting(Member, "raft-read-timeout", Duration, "5s", Inert, "read timeout of raft HTTP connections; lower values are raised to 5s"),
    setting(Member, "raft-write-timeout", Duration, "5s", Inert, "write timeout of raft HTTP connections; lower values are raised to 5s"),
    setting(Member, "enable-grpc-gateway", Bool, "true", Works, "serve the JSON gateway under /v3/"),
    setting(Member, "memory-mlock", Bool, "false", Later, "lock pages (mostly the db mapping) in memory"),
    setting(Member, "listen-peer-urls", Urls, "http://localhost:2380", Works, "where to listen for peers (IP, localhost, unix:// or unixs:// only)"),
    setting(Member, "listen-client-urls", Urls, "http://localhost:2379", Works, "where to listen for clients: gRPC, and HTTP too unless listen-client-http-urls is set"),
    setting(Member, "listen-client-http-urls", Urls, "", Works, "HTTP-only client listeners; setting it takes HTTP off listen-client-urls"),
    setting(Member, "max-concurrent-streams", Uint32, "4294967295", Works, "HTTP/2 stream limit per client connection, at most 65536 whatever is given; 0 means the default"),
    setting(Member, "feature-gates", Gates, "", Works, "switch feature gates, as Name=true,Other=false; those that do not work yet are refused by name; CompactHashCheck is on by default, unlike in etcd"),

    setting(Clustering, "discovery-token", Text, "", Later, "v3 discovery token; needs discovery-endpoints"),
    setting(Clustering, "discovery-dial-timeout", Duration, "2s", Later, "dial timeout for discovery"),
    setting(Clustering, "discovery-request-timeout", Duration, "5s", Later, "request timeout for discovery"),
    setting(Clustering, "discovery-keepalive-time", Duration, "2s", Later, "keepalive time for discovery"),
    setting(Clustering, "discovery-keepalive-timeout", Duration, "6s", Later, "keepalive timeout for discovery"),
    setting(Clustering, "discovery-insecure-transport", Bool, "true", Later, "no TLS to the discovery service"),
    setting(Clustering, "discovery-insecure-skip-tls-verify", Bool, "false", Later, "do not check the discovery server certificate"),
    setting(Clustering, "discovery-cert", Text, "", Later, "client certificate for discovery"),
    setting(Clustering, "discovery-key", Text, "", Later, "client key for discovery"),
    setting(Clustering, "discovery-cacert", Text, "", Later, "CA bundle for discovery"),
    setting(Clustering, "discovery-user", Text, "", Later, "user[:password] for discovery"),
    setting(Clustering, "discovery-password", Text, "", Later, "password for discovery"),
    setting(Clustering, "discovery-srv", Text, "", Later, "DNS domain whose SRV records give the initial cluster"),
    setting(Clustering, "discovery-srv-name", Text, "", Later, "suffix of the SRV service name"),
    setting(Clustering, "initial-cluster", Text, "default=http://localhost:2380", Works, "the members that a new cluster begins with"),
    setting(Clustering, "initial-cluster-token", Text, "etcd-cluster", Works, "mixed into member ids at bootstrap so that equal URLs give different clusters"),
    setting(Clustering, "strict-reconfig-check", Bool, "true", Works, "refuse membership changes that would lose quorum"),
    setting(Clustering, "pre-vote", Bool, "true", Works, "raft pre-vote round before elections"),
    setting(Clustering, "auto-compaction-retention", Text, "0", Works, "how much history to keep: revisions, hours, or a duration; 0 is off"),
    setting(Clustering, "auto-compaction-mode", Text, "periodic", Works, "how auto-compaction-retention is read"),
    setting(Clustering, "initial-advertise-peer-urls", Urls, "http://localhost:2380", Works, "peer URLs of this member told to the cluster"),
    setting(Clustering, "advertise-client-urls", Urls, "http://localhost:2379", Works, "client URLs told to the cluster"),
    setting(Clustering, "discovery-endpoints", List, "", Later, "v3 discovery service endpoints; needs discovery-token"),
    setting(Clustering, "discovery-fallback", Choice(&["exit", "proxy"]), "exit", Works, "what to do when discovery fails: only exit works"),
    setting(Clustering, "initial-cluster-state", Choice(&["new", "existing"]), "new", Works, "bootstrap a new cluster or join one; used only at first start"),
    setting(Clustering, "v2-deprecation", Choices(&["write-only", "write-only-skip-check", "write-only-drop-data", "gone"]), "write-only", Dropped, "accepted for old scripts, without any effect"),
    setting(Clustering, "discovery", Text, "", Removed, "a flag of etcd 3.6 and older"),
    setting(Clustering, "discovery-proxy", Text, "", Removed, "a flag of etcd 3.6 and older"),

    setting(Security, "cert-file", Text, "", Works, "server certificate for clients"),
    setting(Security, "key-file", Text, "", Works, "server key for clients"),
    setting(Security, "client-cert-file", Text, "", Works, "certificate for client-side use (gateway and proxying) instead of cert-file"),
    setting(Security, "client-key-file", Text, "", Works, "key that goes with client-cert-file"),
    setting(Security, "client-cert-auth", Bool, "false", Works, "require and verify client certificates"),
    setting(Security, "client-crl-file", Text, "", Works, "revocation list for client certificates, read at each handshake"),
    setting(Security, "trusted-ca-file", Text, "", Works, "CA for client certificates; setting it alone also makes client certificates required"),
    setting(Security, "auto-tls", Bool, "false", Works, "self-signed certificate for the client side under <data-dir>/fixtures/client"),
    setting(Security, "peer-cert-file", Text, "", Works, "peer certificate (server and client side)"),
    setting(Security, "peer-key-file", Text, "", Works, "peer key"),
    setting(Security, "peer-client-cert-file", Text, "", Works, "separate certificate for dialing peers"),
    setting(Security, "peer-client-key-file", Text, "", Works, "separate key for dialing peers"),
    setting(Security, "peer-client-cert-auth", Bool, "false", Works, "require and verify peer certificates"),
    setting(Security, "peer-trusted-ca-file", Text, "", Works, "CA for peers"),
    setting(Security, "peer-auto-tls", Bool, "false", Works, "self-signed certificate for peers under <data-dir>/fixtures/peer"),
    setting(Security, "self-signed-cert-validity", Uint, "1", Works, "lifetime of auto-TLS certificates"),
    setting(Security, "peer-crl-file", Text, "", Works, "revocation list for peer certificates"),
    setting(Security, "tls-min-version", Text, "TLS1.2", Works, "lowest TLS version"),
    setting(Security, "tls-max-version", Text, "", Works, "highest TLS version; empty leaves it to the TLS library"),
    setting(Security, "client-cert-allowed-hostname", List, "", Works, "client certificate must match one of these host names"),
    setting(Security, "peer-cert-allowed-cn", List, "", Works, "peer certificate CN must be one of these"),
    setting(Security, "peer-cert-allowed-hostname", List, "", Works, "peer certificate must match one of these host names; not together with allowed-cn"),
    setting(Security, "cipher-suites", List, "", Works, "TLS 1.2 cipher suites by Go name; not allowed when tls-min-version is TLS1.3"),
    setting(Security, "cors", Origins, "*", Works, "allowed CORS origins as scheme://host:port, the port is required (else exit 2), compared as text with Origin; empty or * means any"),
    setting(Security, "host-whitelist", List, "*", Works, "allowed Host header values on plain HTTP; * means any, an empty text requests that name no host"),

    setting(Auth, "auth-token", Text, "simple", Works, "where tokens come from: simple; jwt,sign-method=…,priv-key=…,pub-key=…,ttl=… with the methods RS, PS, ES, HS (256, 384, 512) and EdDSA, the keys in PEM files; an empty text for none"),
    setting(Auth, "bcrypt-cost", Uint, "10", Works, "bcrypt cost 4..31, others fall back to 10"),
    setting(Auth, "auth-token-ttl", Uint, "300", Works, "life of a simple token since its last use"),

    setting(Monitoring, "enable-pprof", Bool, "false", Works, "serve /debug/pprof on the client URLs: here an index and the command line"),
    setting(Monitoring, "metrics", Text, "basic", Works, "extensive adds the gRPC handling-time histogram"),
    setting(Monitoring, "listen-metrics-urls", Urls, "", Works, "extra listeners for the probes and /metrics"),

    setting(Logging, "logger", Text, "zap", Works, "only zap is accepted"),
    setting(Logging, "log-level", Text, "info", Works, "one of debug, info, warn, error, dpanic, panic, fatal"),
    setting(Logging, "log-format", Text, "json", Works, "json or console"),
    setting(Logging, "enable-log-rotation", Bool, "false", Works, "rotate the single file in log-outputs"),
    setting(Logging, "log-rotation-config-json", Text, r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#, Works, "rotation settings"),
    setting(Logging, "warning-unary-request-duration", Duration, "300ms", Works, "warn in the log about slower unary requests; 0 means the default"),
    setting(Logging, "log-outputs", List, "default", Works, "default, stderr, stdout, systemd/journal or file paths"),

    setting(Tracing, "enable-distributed-tracing", Bool, "false", Later, "OpenTelemetry tracing"),
    setting(Tracing, "distributed-tracing-address", Text, "localhost:4317", Later, "OTLP gRPC collector"),
    setting(Tracing, "distributed-tracing-service-name", Text, "etcd", Later, "service name in traces"),
    setting(Tracing, "distributed-tracing-instance-id", Text, "", Later, "service instance id in traces"),
    setting(Tracing, "distributed-tracing-sampling-rate", Int, "0", Later, "samples per million spans, 0..1000000"),

    setting(Features, "peer-skip-client-san-verification", Bool, "false", Works, "do not check a connecting peer certificate SAN against its address"),
    setting(Features, "corrupt-check-time", Duration, "0s", Works, "period of the leader-driven hash check across members; 0 is off"),
    setting(Features, "compact-hash-check-time", Duration, "1m0s", Works, "period of the compaction hash check (gate CompactHashCheck, on by default here); must be > 0"),
    setting(Features, "compaction-batch-limit", Int, "0", Works, "versions dropped per compaction batch; 0 means 1000"),
    setting(Features, "compaction-sleep-interval", Duration, "0s", Works, "pause between compaction batches; 0 means 10ms"),
    setting(Features, "watch-progress-notify-interval", Duration, "0s", Works, "period of watch progress notices; lower bound 100ms"),
    setting(Features, "downgrade-check-time", Duration, "5s", Works, "how often the leader looks whether a downgrade is done; 0 is off"),
    setting(Features, "warning-apply-duration", Duration, "100ms", Works, "warn in the log about slower applies and reads"),
    setting(Features, "bootstrap-defrag-threshold-megabytes", Uint, "0", Inert, "defragment at start if at least this much would be freed; 0 is off"),
    setting(Features, "quorate-nospace-clears", Bool, "true", Works, "end this member's own NOSPACE alarm once the data has been below 90 % of the quota for a while; with other members only where all of them run this program; not in etcd"),
    setting(Features, "quorate-nospace-clears-after", Duration, "1m0s", Works, "how long the data must have been below 90 % of the quota for that; not in etcd"),
    setting(Features, "max-learners", Int, "1", Works, "most learners in the cluster"),
    setting(Features, "snapshot-catchup-entries", Uint, "5000", Works, "raft entries kept in memory behind a snapshot for slow followers"),

    setting(Unsafe, "unsafe-no-fsync", Bool, "false", Later, "never fsync"),
    setting(Unsafe, "force-new-cluster", Bool, "false", Works, "restart as a one-member cluster keeping the data"),

    setting(Configuration, "config-file", Text, "", Works, "YAML or JSON configuration file; where one is given, other flags and variables do not count"),
    setting(Configuration, "check-config", Bool, "false", Works, "say what is wrong with the settings and what a start would do, and exit with 0 if it would come up; changes nothing (not etcd's)"),
    setting(Configuration, "version", Bool, "false", Works, "print versions and exit"),

    old("cluster-active-size"),
    old("cluster-remove-delay"),
    old("cluster-sync-interval"),
    old("config"),
    old("force"),
    old("max-result-buffer"),
    old("max-retry-attempts"),
    old("peer-heartbeat-interval"),
    old("peer-election-timeout"),
    old("retry-interval"),
    old("snapshot"),
    old("v"),
    old("vv"),
    old("test.coverprofile"),
    old("test.outputdir"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_defaults_parse() {
        for (position, setting) in SETTINGS.iter().enumerate() {
            assert_eq!(
                SETTINGS.iter().position(|s| s.name == setting.name),
                Some(position),
                "{}",
                setting.name
            );
            if !setting.default.is_empty() {
                assert!(setting.kind.parse(setting.default).is_ok(), "{}", setting.name);
            }
            assert!(
                !setting.help.is_empty() && !setting.help.contains(['\n', '\t', '|']),
                "{}",
                setting.name
            );
        }
    }
}
