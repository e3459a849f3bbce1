use super::*;
use crate::config::{Config, ConfigError};

fn refused(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

/// What etcd 3.7.1 says of the same files.
#[test]
fn types_are_strict() {
    let of = |what: &str, field: &str, wanted: &str| {
        format!(
            "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {what} into Go {field} of type {wanted}"
        )
    };
    let field = |name: &str| format!("struct field configYAML.Config.{name}");
    for (text, expected) in [
        ("name: 12", of("number", &field("name"), "string")),
        ("name: on", of("bool", &field("name"), "string")),
        ("heartbeat-interval: \"100\"", of("string", &field("heartbeat-interval"), "uint")),
        ("heartbeat-interval: 1.5", of("number 1.5", &field("heartbeat-interval"), "uint")),
        ("max-txn-ops: -1", of("number -1", &field("max-txn-ops"), "uint")),
        (
            "quota-backend-bytes: 99999999999999999999",
            of("number 100000000000000000000", &field("quota-backend-bytes"), "int64"),
        ),
        (
            "max-concurrent-streams: 4294967296",
            of("number 4294967296", &field("max-concurrent-streams"), "uint32"),
        ),
        ("pre-vote: \"true\"", of("string", &field("pre-vote"), "bool")),
        ("grpc-keepalive-interval: 5s", of("string", &field("grpc-keepalive-interval"), "time.Duration")),
        ("log-outputs: stderr", of("string", &field("log-outputs"), "[]string")),
        ("log-outputs: [1]", of("number", &field("log-outputs"), "string")),
        ("cors: [x]", of("array", "struct field configYAML.configJSON.cors", "string")),
        ("[1, 2]", of("array", "value", "embed.configYAML")),
        (
            "client-transport-security: 5",
            of(
                "number",
                "struct field configYAML.configJSON.client-transport-security",
                "embed.securityConfig",
            ),
        ),
        (
            "client-transport-security: {cert-file: 5}",
            of(
                "number",
                "struct field securityConfig.configJSON.client-transport-security.cert-file",
                "string",
            ),
        ),
        ("socket-options: 7", of("number", &field("socket-options"), "transport.SocketOpts")),
        (
            "socket-options: {reuse-port: 1}",
            of("number", "struct field SocketOpts.Config.socket-options.reuse-port", "bool"),
        ),
        (
            "discovery-config: {client: {endpoints: 5}}",
            of("number", "struct field ConfigSpec.Config.discovery-config.client.endpoints", "[]string"),
        ),
    ] {
        assert_eq!(refused(text), expected, "{text}");
    }
}

#[test]
fn other_values_are_refused_with_etcds_texts() {
    for (text, expected) in [
        ("peer-transport-security: null", "invalid peer-transport-security"),
        ("initial-cluster-state: old", "unexpected clusterState \"old\""),
        ("feature-gates: Foo=true", "unrecognized feature gate: Foo"),
        (
            "listen-client-urls: http://127.0.0.1:notaport",
            "unexpected error setting up listen-client-urls: parse \"http://127.0.0.1:notaport\": invalid port \
             \":notaport\" after host",
        ),
    ] {
        assert_eq!(refused(text), expected, "{text}");
    }
    for text in ["name: [unclosed", "name: a\n\tb: c\n", "a: &x [*x]"] {
        assert!(
            refused(text).starts_with("error converting YAML to JSON: yaml: "),
            "{text}: {}",
            refused(text)
        );
    }
    let missing = read(Path::new("/nonexistent/etcd.yaml")).unwrap_err();
    assert_eq!(missing.to_string(), "open /nonexistent/etcd.yaml: no such file or directory");
}

#[test]
fn values_are_read_as_yaml_1_1() {
    let number =
        |text: &str| parse(&format!("heartbeat-interval: {text}")).unwrap().uint("heartbeat-interval");
    assert_eq!(["1_00", "0144", "0x64", "1e2", "100.0"].map(number), [100; 5]);
    let on = |text: &str| parse(&format!("pre-vote: {text}")).unwrap().bool("pre-vote");
    assert_eq!(["yes", "on", "True", "y"].map(on), [true; 4]);
    assert_eq!(["no", "off", "FALSE", "n"].map(on), [false; 4]);
    assert_eq!(parse("name: 2001-01-01").unwrap().text("name"), "2001-01-01");
    assert_eq!(parse("name: a\nname: b").unwrap().text("name"), "b");
    assert_eq!(parse("NAME: a").unwrap().text("name"), "a");
    assert_eq!(parse("x: &x b\nname: *x").unwrap().text("name"), "b");
    assert_eq!(parse(r#"{"name": "j", "max-txn-ops": 7}"#).unwrap().uint("max-txn-ops"), 7);
}

#[test]
fn what_is_not_said_or_not_known_changes_nothing() {
    for text in
        ["", "# nothing\n", "~", "name: ~", "nonsense: 1\nproxy: 'off'", "5: name", "listen-peer-urls: \"\""]
    {
        let raw = parse(text).expect(text);
        let given = (0..SETTINGS.len()).filter(|position| raw.source(*position).is_some());
        assert_eq!(given.count(), 0, "{text}");
    }
}

#[test]
fn a_file_becomes_a_configuration() {
    let raw = parse(
        "name: m\ndata-dir: d\nlisten-client-urls: http://127.0.0.1:1,http://127.0.0.1:2\n\
         watch-progress-notify-interval: 600000000000\nsocket-options:\n  reuse-port: true\n",
    )
    .unwrap();
    let config = Config::try_from(&raw).unwrap();
    assert_eq!((config.name.as_str(), config.data_dir.to_str()), ("m", Some("d")));
    assert_eq!(config.listen_client_urls.len(), 2);
    assert_eq!(config.watch_progress_interval.as_secs(), 600);
    assert!(config.reuse_port);
    // Unlike the flags, which then want both.
    assert_eq!(config.advertise_client_urls[0].to_string(), "http://localhost:2379");
    let later = parse("unsafe-no-fsync: true").unwrap();
    assert_eq!(
        Config::try_from(&later).unwrap_err(),
        ConfigError::NotYet(vec![(
            "--unsafe-no-fsync".into(),
            "nothing is acknowledged here before it is durable"
        )])
    );
    let keys = parse("enable-distributed-tracing: true\ndiscovery-config: {client: {max-request-bytes: 5}}")
        .unwrap();
    let refused = Config::try_from(&keys).unwrap_err().to_string();
    for name in
        ["--enable-distributed-tracing is not yet", "discovery-config.client.max-request-bytes is not yet"]
    {
        assert!(refused.contains(name), "{refused}");
    }
    let names = parse("client-transport-security: {allowed-cn: [a, b]}").unwrap();
    assert_eq!(Config::try_from(&names).unwrap().security.client.allowed_cns, ["a", "b"]);
}

/// Every key has a flag of its kind, and every flag that etcd's file can set has a key.
#[test]
fn keys_and_flags_fit() {
    fn look(keys: &[Key], set: &mut Vec<&'static str>) {
        for key in keys {
            let text = match key.shape {
                Shape::Section(section) => {
                    look(section.keys, set);
                    continue;
                }
                Text => Typed::Text(String::new()),
                Texts => Typed::Texts(Vec::new()),
                Bool => Typed::Bool(true),
                Shape::Int(..) => Typed::Int(0),
            };
            if let Some(flag) = key.flag {
                assert!(find(flag).is_some(), "{flag}");
                take(key, text, key.name, &mut RawConfig::default()).expect("a value of its shape");
                set.push(flag);
            }
        }
    }
    const WITHOUT_A_KEY: &[&str] = &[
        "check-config",
        "client-crl-file",
        "config-file",
        "discovery-fallback",
        "peer-crl-file",
        "raft-read-timeout",
        "raft-write-timeout",
        "version",
    ];
    let mut set = Vec::new();
    look(TOP, &mut set);
    let missing: Vec<&str> = SETTINGS
        .iter()
        .filter(|setting| setting.is_known() && setting.kind != Kind::Ignored && !set.contains(&setting.name))
        .map(|setting| setting.name)
        .collect();
    let mut expected = WITHOUT_A_KEY.to_vec();
    expected.sort_unstable();
    let mut found = missing;
    found.sort_unstable();
    assert_eq!(found, expected);
}
