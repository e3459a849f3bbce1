//! Refusals and derived settings, against texts recorded from etcd 3.7.1.

use super::peer_urls::PATIENCE;
use super::peer_urls::tests::Known;
use super::*;

fn raw(args: &[&str]) -> RawConfig {
    let mut raw = RawConfig::default();
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    assert_eq!(flags::parse(&args, &mut raw), Ok(Vec::new()), "{args:?}");
    raw
}

fn config(args: &[&str]) -> Config {
    Config::try_from(&raw(args)).unwrap()
}

/// One host has a name, which is known only after some seconds.
fn bootstrap(config: &Config) -> Result<Bootstrap, BootstrapError> {
    config.bootstrap(&Known::new(&[("m.example", "127.0.0.1", 3)], PATIENCE))
}

fn refusal(args: &[&str]) -> String {
    Config::try_from(&raw(args)).unwrap_err().to_string()
}

const BASE: &[&str] = &[
    "--listen-client-urls=http://127.0.0.1:1",
    "--advertise-client-urls=http://127.0.0.1:1",
    "--listen-peer-urls=http://127.0.0.1:2",
    "--initial-advertise-peer-urls=http://127.0.0.1:2",
];

/// A variable that is missing in a script must not let everybody in.
#[test]
fn an_empty_list_of_allowed_names_allows_the_empty_one() {
    let allowed = |args: &[&str]| config(args).security.peer.allowed_cns;
    assert!(allowed(BASE).is_empty(), "nothing is asked for");
    assert_eq!(allowed(&[BASE, &["--peer-cert-allowed-cn="]].concat()), [""]);
    let hosts = [BASE, &["--client-cert-allowed-hostname="]].concat();
    assert_eq!(config(&hosts).security.client.allowed_hostnames, [""]);
    let hosts = [BASE, &["--host-whitelist="]].concat();
    assert_eq!(config(&hosts).hosts, Allowed::These([String::new()].into()), "and who names no host");
    assert_eq!(config(BASE).hosts, Allowed::Any);
}

#[test]
fn refusals_are_etcds() {
    for (args, text) in [
        (
            &["--listen-client-urls=http://127.0.0.1:1"][..],
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            &["--listen-client-urls="],
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            &["--listen-peer-urls=http://example.com:1"],
            "expected IP in URL for binding (http://example.com:1)",
        ),
        (
            &["--listen-metrics-urls=http://example.com:1"],
            "expected IP in URL for binding (http://example.com:1)",
        ),
        (&["--listen-client-urls=http://:1"], "expected IP in URL for binding (http://:1)"),
        (&["--listen-client-urls=http://u@h:1"], "expected IP in URL for binding (http://u@h:1)"),
        (
            &["--advertise-client-urls=http://:2379"],
            "--advertise-client-urls \"http://:2379\" must be in the format \"host:port\", \"unix:/path/to/socket\" or \
             \"unixs:/path/to/socket\" (unexpected empty host (http://:2379))",
        ),
        (
            &["--initial-advertise-peer-urls=http://:2380"],
            "--initial-advertise-peer-urls \"http://:2380\" must be \"host:port\" (unexpected empty host (http://:2380))",
        ),
        (&["--heartbeat-interval=0"], "--heartbeat-interval must be >0 (set to 0ms)"),
        (&["--election-timeout=0"], "--election-timeout must be >0 (set to 0ms)"),
        (
            &["--election-timeout=499"],
            "--election-timeout[499ms] should be at least as 5 times as --heartbeat-interval[100ms]",
        ),
        (
            &["--election-timeout=50001"],
            "--election-timeout[50001ms] is too long, and should be set less than 50000ms",
        ),
        (
            &["--discovery-fallback=proxy"],
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
        ),
        (
            &["--discovery-endpoints=http://a:1", "--discovery-token=t", "--initial-cluster=a=http://a:1"],
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
             \"discovery-endpoints\" or \"discovery-srv\"",
        ),
        (&["--discovery-token=t"], "both --discovery-token and --discovery-endpoints must be set"),
        (
            &["--discovery-endpoints=http://a:1"],
            "both --discovery-token and --discovery-endpoints must be set",
        ),
        (&["--auto-compaction-mode=nonsense"], "unknown auto-compaction-mode \"nonsense\""),
        (&["--compact-hash-check-time=0s"], "--compact-hash-check-time must be >0 (set to 0s)"),
        (
            &["--feature-gates=LeaseCheckpointPersist=true"],
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
        ),
        (&["--auth-token=nonsense"], "auth: invalid auth options"),
        (&["--auth-token=jwt"], "auth: invalid auth options"),
        (&["--auth-token=jwt,sign-method=RS256"], "auth: missing key data"),
        (&["--auth-token=jwt,sign-method=RS256,sign-method=RS256"], "auth: invalid auth options"),
        (&["--auth-token=jwt,sign-method=RS256,ttl=x"], "auth: invalid auth options"),
        (&["--logger=capnslog"], "--logger=capnslog is removed in v3.5"),
        (&["--logger=x"], "unknown logger option \"x\""),
        (&["--log-format=xml"], "unknown log format: xml, supported values json, console"),
        (&["--log-level=loud"], "unrecognized level: \"loud\""),
    ] {
        assert_eq!(refusal(args), text, "{args:?}");
    }
}

/// A flag of a later version is refused by name, unless it says what is so anyway.
#[test]
fn nothing_is_silently_ignored() {
    for setting in settings::SETTINGS.iter().filter(|s| s.status == settings::Status::Later) {
        let given = format!("--{}={}", setting.name, setting.default);
        assert!(Config::try_from(&raw(&[&given])).is_ok(), "{given}");
        let other = match setting.kind {
            value::Kind::Bool => if setting.default == "true" { "false" } else { "true" }.to_owned(),
            value::Kind::Uint | value::Kind::Uint32 | value::Kind::Int => "7777".to_owned(),
            value::Kind::Duration => "77s".to_owned(),
            value::Kind::Urls | value::Kind::Origins => "http://127.0.0.1:7777".to_owned(),
            value::Kind::Gates => "AllBeta=true".to_owned(),
            _ => "other".to_owned(),
        };
        let given = format!("--{}={other}", setting.name);
        assert!(Config::try_from(&raw(&[&given])).is_err(), "{given} is ignored");
    }
    assert!(
        refusal(&["--enable-distributed-tracing"])
            .starts_with("--enable-distributed-tracing is not yet supported")
    );
}

#[test]
fn what_tls_can_not_do_is_refused() {
    for (args, text) in [
        (
            &["--tls-min-version=TLS1.4"][..],
            "unexpected TLS version \"TLS1.4\" (must be one of: TLS1.2, TLS1.3)",
        ),
        (
            &["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (&["--cipher-suites=x"], "unexpected TLS cipher suite \"x\""),
        (
            &["--cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA"],
            "TLS cipher suite \"TLS_RSA_WITH_AES_128_CBC_SHA\" is not in",
        ),
    ] {
        let refused = refusal(args);
        assert!(refused.starts_with(text), "{refused}");
    }
}

#[test]
fn all_that_is_not_there_yet_is_named_at_once() {
    let text = refusal(&["--memory-mlock", "--unsafe-no-fsync", "--feature-gates=PriorityRequest=true"]);
    for name in ["--memory-mlock", "--unsafe-no-fsync", "--feature-gates PriorityRequest"] {
        assert!(text.contains(&format!("{name} is not yet supported by Quorate")), "{text}");
    }
    config(&["--backend-batch-limit=7", "--raft-read-timeout=9s"]);
}

#[test]
fn defaults_are_etcds() {
    let config = config(&[]);
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir, Path::new("default.etcd"));
    assert_eq!(config.wal_path(), Path::new("default.etcd/member/wal"));
    assert_eq!(config.listen_client_urls[0].as_str(), "http://localhost:2379");
    assert_eq!((config.heartbeat_interval_ms, config.election_timeout_ms), (100, 1000));
    assert_eq!(config.limits, RequestLimits::DEFAULT);
    assert_eq!(config.keepalive.interval, Duration::from_secs(7200));
    assert_eq!(config.request_timeout(), Duration::from_secs(7));
    let bootstrap = bootstrap(&config).unwrap();
    assert_eq!(bootstrap.members["default"][0].as_str(), "http://localhost:2380");
    assert_eq!(bootstrap.token, "etcd-cluster");
}

#[test]
fn a_name_alone_makes_the_initial_cluster() {
    let args: Vec<&str> = BASE.iter().copied().chain(["--name=n1"]).collect();
    let config = config(&args);
    assert_eq!(config.initial_cluster, "n1=http://127.0.0.1:2");
    assert_eq!(config.data_dir, Path::new("n1.etcd"));
    assert!(bootstrap(&config).is_ok());
}

#[test]
fn the_initial_cluster_is_checked_as_etcd_does() {
    for (more, text) in [
        (
            &[][..],
            "--initial-cluster has default=http://localhost:2380 but missing from \
             --initial-advertise-peer-urls=http://127.0.0.1:2 (resolved urls: \"http://127.0.0.1:2\" != \
             \"http://localhost:2380\")",
        ),
        (
            &["--name=other", "--initial-cluster=default=http://127.0.0.1:2"],
            "couldn't find local name \"other\" in the initial cluster configuration",
        ),
        (
            &["--initial-cluster="],
            "couldn't find local name \"default\" in the initial cluster configuration",
        ),
        (
            &["--initial-cluster=nonsense"],
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ",
        ),
        (
            &["--initial-cluster=default=http://127.0.0.1:2,b=http://127.0.0.1:2"],
            "initial cluster b=http://127.0.0.1:2,default=http://127.0.0.1:2 has duplicate url",
        ),
        (
            &["--initial-cluster=default=http://127.0.0.1:2,default=http://127.0.0.1:3"],
            "--initial-cluster has default=http://127.0.0.1:3 but missing from \
             --initial-advertise-peer-urls=http://127.0.0.1:2 (len([\"http://127.0.0.1:2\"]) != \
             len([\"http://127.0.0.1:2\" \"http://127.0.0.1:3\"]))",
        ),
        (
            &["--initial-cluster=default=https://m.example:2"],
            "--initial-cluster has default=https://m.example:2 but missing from \
             --initial-advertise-peer-urls=http://127.0.0.1:2 (resolved urls: \"http://127.0.0.1:2\" != \
             \"https://127.0.0.1:2\")",
        ),
        (
            &["--initial-cluster=default=http://nobody.example:2"],
            "--initial-cluster has default=http://nobody.example:2 but missing from \
             --initial-advertise-peer-urls=http://127.0.0.1:2 (failed to resolve \"http://nobody.example:2\" \
             (lookup nobody.example: no such host))",
        ),
        (
            &["--initial-cluster=default=http://127.0.0.1:2,default=http://127.0.0.1:2"],
            "failed to resolve http://127.0.0.1:2 to match --initial-cluster=default=http://127.0.0.1:2 \
             (len([\"http://127.0.0.1:2\"]) != len([\"http://127.0.0.1:2\" \"http://127.0.0.1:2\"]))",
        ),
    ] {
        let args: Vec<&str> = BASE.iter().copied().chain(more.iter().copied()).collect();
        assert_eq!(bootstrap(&config(&args)).unwrap_err().to_string(), text, "{more:?}");
    }
    let args: Vec<&str> = BASE
        .iter()
        .copied()
        .chain(["--initial-cluster=default=http://127.0.0.1:2,b=http://127.0.0.1:3"])
        .collect();
    assert_eq!(bootstrap(&config(&args)).unwrap().members.len(), 2);
    let args: Vec<&str> =
        BASE.iter().copied().chain(["--initial-cluster=default=http://m.example:2"]).collect();
    assert!(bootstrap(&config(&args)).is_ok(), "a name for the same address is the same");
}

/// Where there is a log the first members don't count, and a start waits for no resolver.
#[test]
fn the_first_members_are_read_without_a_look_up() {
    let config = config(&[BASE, &["--initial-cluster=default=http://nobody.example:2"]].concat());
    let members = config.initial_members();
    assert_eq!(members["default"][0].as_str(), "http://nobody.example:2");
}

/// etcd leaves out what is not above zero, and gRPC's Go server then has its defaults; compared by running both.
#[test]
fn zero_pings_are_grpcs_defaults() {
    let keepalive = |args: &[&str]| {
        let Keepalive { min_time, interval, timeout } = config(&[BASE, args].concat()).keepalive;
        [min_time, interval, timeout].map(|duration| duration.as_secs_f64())
    };
    assert_eq!(keepalive(&[]), [5.0, 7200.0, 20.0]);
    assert_eq!(keepalive(&["--grpc-keepalive-interval=0"]), [5.0, 7200.0, 20.0]);
    assert_eq!(
        keepalive(&["--grpc-keepalive-interval=9s", "--grpc-keepalive-timeout=0"]),
        [5.0, 7200.0, 20.0]
    );
    assert_eq!(keepalive(&["--grpc-keepalive-interval=-9s"]), [5.0, 7200.0, 20.0]);
    assert_eq!(keepalive(&["--grpc-keepalive-min-time=0"]), [300.0, 7200.0, 20.0]);
    assert_eq!(
        keepalive(&["--grpc-keepalive-interval=1ms", "--grpc-keepalive-timeout=3ms"]),
        [5.0, 1.0, 0.003]
    );
}

#[test]
fn no_streams_are_no_limit() {
    let streams = |text: &str| {
        let flag = format!("--max-concurrent-streams={text}");
        config(&[BASE, &[flag.as_str()]].concat()).limits.concurrent_streams_max
    };
    assert_eq!((streams("0"), streams("1")), (u32::MAX, 1));
}

/// etcd's flag of URLs takes an empty text and does nothing; compared by running both.
#[test]
fn no_urls_leave_those_that_are_there() {
    let advertised =
        |args: &[&str]| config(args).advertise_client_urls.iter().map(Url::to_string).collect::<Vec<_>>();
    assert_eq!(advertised(&["--advertise-client-urls="]), ["http://localhost:2379"]);
    assert_eq!(
        advertised(&["--advertise-client-urls=http://a:1", "--advertise-client-urls="]),
        ["http://a:1"]
    );
}
