//! The configuration file: YAML or JSON. Where there is one, flags and variables do not count.
//!
//! As in etcd it is read as YAML 1.1 into JSON, and that strictly by type: `name: 12` and `pre-vote: "true"` are errors.
//! What is not a key of etcd's is passed over, `null` leaves the default, and of two equal keys the last one counts.

use std::path::Path;

use serde_json::{Map, Number, Value as Json};
use serde_saphyr::DuplicateKeyPolicy;

use super::quote;
use super::raw::{RawConfig, Source};
use super::security::{CLIENT_ALLOWED_CN, CLIENT_SKIP_SAN};
use super::settings::{SETTINGS, find};
use super::value::{Kind, Value};

/// Longest file that is read, bytes.
const BYTES_MAX: u64 = 1 << 20;

/// Why a file cannot be used. The texts are etcd's, but for what is wrong with the YAML as such.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("open {path}: {why}")]
    Open {
        /// As given.
        path: String,
        /// The system's text.
        why: String,
    },
    /// It is no YAML.
    #[error("error converting YAML to JSON: yaml: {0}")]
    Yaml(String),
    /// A value is of another type than its key's.
    #[error(
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {what} into Go {field} of type {wanted}"
    )]
    Type {
        /// What stands there.
        what: String,
        /// Go's name of the key.
        field: String,
        /// Go's name of the type.
        wanted: &'static str,
    },
    /// The peers' certificates are no section.
    #[error("invalid peer-transport-security")]
    PeerSection,
    /// URLs that do not parse: etcd ends with this text alone.
    #[error("unexpected error setting up {name}: {why}")]
    Urls {
        /// The key, as etcd says it.
        name: &'static str,
        /// What is wrong with them.
        why: String,
    },
    /// Another value that does not parse.
    #[error("{0}")]
    Value(String),
}

/// What a key's value is.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Text,
    Texts,
    Bool,
    /// An integer of this Go type, from the least to the largest.
    Int(&'static str, i128, i128),
    Section(&'static Section),
}

/// Keys that stand together.
#[derive(Debug)]
struct Section {
    /// Go's type as it is named where something else stands in its place.
    go_type: &'static str,
    /// Go's type as it is named before its fields.
    go_name: &'static str,
    keys: &'static [Key],
}

#[derive(Debug)]
struct Key {
    name: &'static str,
    /// The flag of the same meaning.
    flag: Option<&'static str>,
    shape: Shape,
    /// Without a flag: what it is kept by.
    kept: Option<&'static str>,
    /// Whether etcd has it in the part that it looks at once more (`configJSON`).
    looked_at: bool,
}

const UINT: Shape = Shape::Int("uint", 0, u64::MAX as i128);
const UINT64: Shape = Shape::Int("uint64", 0, u64::MAX as i128);
const UINT32: Shape = Shape::Int("uint32", 0, u32::MAX as i128);
const INT: Shape = Shape::Int("int", i64::MIN as i128, i64::MAX as i128);
const INT64: Shape = Shape::Int("int64", i64::MIN as i128, i64::MAX as i128);
const NANOS: Shape = Shape::Int("time.Duration", i64::MIN as i128, i64::MAX as i128);
use Shape::{Bool, Text, Texts};

/// A key that is called like its flag.
const fn same(name: &'static str, shape: Shape) -> Key {
    Key { name, flag: Some(name), shape, kept: None, looked_at: false }
}

/// The same, in the part that etcd looks at once more.
const fn again(name: &'static str) -> Key {
    Key { name, flag: Some(name), shape: Text, kept: None, looked_at: true }
}

const fn of(name: &'static str, flag: &'static str, shape: Shape) -> Key {
    Key { name, flag: Some(flag), shape, kept: None, looked_at: false }
}

const fn alone(name: &'static str, shape: Shape) -> Key {
    Key { name, flag: None, shape, kept: None, looked_at: false }
}

const fn kept(name: &'static str, shape: Shape, kept: &'static str) -> Key {
    Key { name, flag: None, shape, kept: Some(kept), looked_at: false }
}

const fn section(name: &'static str, section: &'static Section, looked_at: bool) -> Key {
    Key { name, flag: None, shape: Shape::Section(section), kept: None, looked_at }
}

static CLIENT_SECURITY: Section = Section {
    go_type: "embed.securityConfig",
    go_name: "securityConfig",
    keys: &[
        same("cert-file", Text),
        same("key-file", Text),
        same("client-cert-file", Text),
        same("client-key-file", Text),
        same("client-cert-auth", Bool),
        same("trusted-ca-file", Text),
        same("auto-tls", Bool),
        kept("allowed-cn", Texts, CLIENT_ALLOWED_CN),
        of("allowed-hostname", "client-cert-allowed-hostname", Texts),
        kept("skip-client-san-verification", Bool, CLIENT_SKIP_SAN),
    ],
};

static PEER_SECURITY: Section = Section {
    go_type: "embed.securityConfig",
    go_name: "securityConfig",
    keys: &[
        of("cert-file", "peer-cert-file", Text),
        of("key-file", "peer-key-file", Text),
        of("client-cert-file", "peer-client-cert-file", Text),
        of("client-key-file", "peer-client-key-file", Text),
        of("client-cert-auth", "peer-client-cert-auth", Bool),
        of("trusted-ca-file", "peer-trusted-ca-file", Text),
        of("auto-tls", "peer-auto-tls", Bool),
        of("allowed-cn", "peer-cert-allowed-cn", Texts),
        of("allowed-hostname", "peer-cert-allowed-hostname", Texts),
        of("skip-client-san-verification", "peer-skip-client-san-verification", Bool),
    ],
};

static SOCKETS: Section = Section {
    go_type: "transport.SocketOpts",
    go_name: "SocketOpts",
    keys: &[of("reuse-port", "socket-reuse-port", Bool), of("reuse-address", "socket-reuse-address", Bool)],
};

static DISCOVERY: Section = Section {
    go_type: "v3discovery.DiscoveryConfig",
    go_name: "DiscoveryConfig",
    keys: &[of("token", "discovery-token", Text), section("client", &DISCOVERY_CLIENT, false)],
};

static DISCOVERY_CLIENT: Section = Section {
    go_type: "clientv3.ConfigSpec",
    go_name: "ConfigSpec",
    keys: &[
        of("endpoints", "discovery-endpoints", Texts),
        of("request-timeout", "discovery-request-timeout", NANOS),
        of("dial-timeout", "discovery-dial-timeout", NANOS),
        of("keepalive-time", "discovery-keepalive-time", NANOS),
        of("keepalive-timeout", "discovery-keepalive-timeout", NANOS),
        alone("max-request-bytes", INT),
        alone("max-recv-bytes", INT),
        section("secure", &DISCOVERY_SECURE, false),
        section("auth", &DISCOVERY_AUTH, false),
    ],
};

static DISCOVERY_SECURE: Section = Section {
    go_type: "clientv3.SecureConfig",
    go_name: "SecureConfig",
    keys: &[
        of("cert", "discovery-cert", Text),
        of("key", "discovery-key", Text),
        of("cacert", "discovery-cacert", Text),
        alone("server-name", Text),
        of("insecure-transport", "discovery-insecure-transport", Bool),
        of("insecure-skip-tls-verify", "discovery-insecure-skip-tls-verify", Bool),
    ],
};

static DISCOVERY_AUTH: Section = Section {
    go_type: "clientv3.AuthConfig",
    go_name: "AuthConfig",
    keys: &[
        of("username", "discovery-user", Text),
        of("password", "discovery-password", Text),
        alone("token", Text),
    ],
};

/// The keys of etcd 3.7.1, and ours beside them.
static TOP: &[Key] = &[
    same("name", Text),
    same("data-dir", Text),
    same("wal-dir", Text),
    same("snapshot-count", UINT64),
    same("snapshot-catchup-entries", UINT64),
    same("max-snapshots", UINT),
    same("max-wals", UINT),
    same("quorate-keep-imported-db", Bool),
    same("heartbeat-interval", UINT),
    same("election-timeout", UINT),
    same("initial-election-tick-advance", Bool),
    same("backend-batch-interval", NANOS),
    same("backend-batch-limit", INT),
    same("backend-bbolt-freelist-type", Text),
    same("quota-backend-bytes", INT64),
    same("max-txn-ops", UINT),
    same("max-request-bytes", UINT),
    same("max-concurrent-streams", UINT32),
    same("self-signed-cert-validity", UINT),
    same("cipher-suites", Texts),
    same("tls-min-version", Text),
    same("tls-max-version", Text),
    same("initial-cluster-state", Text),
    same("discovery-srv", Text),
    same("discovery-srv-name", Text),
    same("initial-cluster", Text),
    same("initial-cluster-token", Text),
    same("strict-reconfig-check", Bool),
    same("auto-compaction-mode", Text),
    same("auto-compaction-retention", Text),
    same("grpc-keepalive-min-time", NANOS),
    same("grpc-keepalive-interval", NANOS),
    same("grpc-keepalive-timeout", NANOS),
    same("pre-vote", Bool),
    same("auth-token", Text),
    same("bcrypt-cost", UINT),
    same("auth-token-ttl", UINT),
    same("corrupt-check-time", NANOS),
    same("compact-hash-check-time", NANOS),
    same("compaction-batch-limit", INT),
    same("compaction-sleep-interval", NANOS),
    same("watch-progress-notify-interval", NANOS),
    same("warning-apply-duration", NANOS),
    same("bootstrap-defrag-threshold-megabytes", UINT),
    same("warning-unary-request-duration", NANOS),
    same("max-learners", INT),
    same("quorate-nospace-clears", Bool),
    same("quorate-nospace-clears-after", NANOS),
    same("force-new-cluster", Bool),
    same("enable-pprof", Bool),
    same("metrics", Text),
    same("listen-metrics-urls", Text),
    same("enable-distributed-tracing", Bool),
    same("distributed-tracing-address", Text),
    same("distributed-tracing-service-name", Text),
    same("distributed-tracing-instance-id", Text),
    same("distributed-tracing-sampling-rate", INT),
    same("logger", Text),
    same("log-level", Text),
    same("log-format", Text),
    same("log-outputs", Texts),
    same("enable-log-rotation", Bool),
    same("log-rotation-config-json", Text),
    same("enable-grpc-gateway", Bool),
    same("unsafe-no-fsync", Bool),
    same("downgrade-check-time", NANOS),
    same("memory-mlock", Bool),
    // Read, and without any effect: so is every value of it.
    same("v2-deprecation", Text),
    again("listen-peer-urls"),
    again("listen-client-urls"),
    again("listen-client-http-urls"),
    again("initial-advertise-peer-urls"),
    again("advertise-client-urls"),
    again("cors"),
    again("host-whitelist"),
    again("feature-gates"),
    section("client-transport-security", &CLIENT_SECURITY, true),
    section("peer-transport-security", &PEER_SECURITY, true),
    section("socket-options", &SOCKETS, false),
    section("discovery-config", &DISCOVERY, false),
];

/// Reads a file's settings.
///
/// # Errors
/// See [`FileError`].
pub fn read(path: &Path) -> Result<RawConfig, FileError> {
    let open = |why: String| FileError::Open { path: path.display().to_string(), why };
    let length = std::fs::metadata(path).map_err(|error| open(go_text(&error)))?.len();
    if length > BYTES_MAX {
        return Err(open(format!("a configuration file of {length} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| open(go_text(&error)))?;
    parse(&text)
}

/// Go's text of an error of the system, which has no number behind it.
fn go_text(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        _ => error.to_string(),
    }
}

/// Reads settings from the text of a file.
///
/// # Errors
/// See [`FileError`].
pub fn parse(text: &str) -> Result<RawConfig, FileError> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        legacy_octal_numbers: true,
        strict_booleans: false,
        with_snippet: false,
    };
    let whole: Json = match text.trim().is_empty() {
        true => Json::Null,
        false => serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| FileError::Yaml(error.to_string().replace('\n', " ")))?,
    };
    let mut raw = RawConfig::for_file();
    match &whole {
        Json::Null => {}
        Json::Object(object) => read_section(object, TOP, "configYAML", "", &mut raw)?,
        other => {
            let field = "value".to_owned();
            return Err(FileError::Type {
                what: kind_of(other).to_owned(),
                field,
                wanted: "embed.configYAML",
            });
        }
    }
    Ok(raw)
}

/// `go_name`: the Go type that has the keys. `path`: the sections around them, each with a dot behind it.
fn read_section(
    object: &Map<String, Json>,
    keys: &[Key],
    go_name: &str,
    path: &str,
    raw: &mut RawConfig,
) -> Result<(), FileError> {
    for (name, value) in object {
        // As Go does it: the exact name, or one that differs in case only.
        let exact = keys.iter().find(|key| key.name == name);
        let Some(key) = exact.or_else(|| keys.iter().find(|key| key.name.eq_ignore_ascii_case(name))) else {
            continue;
        };
        let part = match (path, key.looked_at) {
            ("", true) => "configJSON.",
            ("", false) => "Config.",
            _ => "",
        };
        let inside = format!("{path}{part}{}", key.name);
        let wrong = |what: String, wanted| FileError::Type {
            what,
            field: format!("struct field {go_name}.{inside}"),
            wanted,
        };
        match (key.shape, value) {
            (_, Json::Null) if key.name == "peer-transport-security" => return Err(FileError::PeerSection),
            (_, Json::Null) => {}
            (Shape::Section(section), Json::Object(object)) => {
                read_section(object, section.keys, section.go_name, &format!("{inside}."), raw)?;
            }
            (Shape::Section(section), other) => {
                return Err(wrong(kind_of(other).to_owned(), section.go_type));
            }
            (shape, value) => {
                let value = typed(shape, value).map_err(|(what, wanted)| wrong(what, wanted))?;
                take(key, value, &inside, raw)?;
            }
        }
    }
    Ok(())
}

/// The value, if it is of the shape; else what stands there and Go's name of what should.
fn typed(shape: Shape, value: &Json) -> Result<Typed, (String, &'static str)> {
    let wrong = |value: &Json, wanted| Err((kind_of(value).to_owned(), wanted));
    match (shape, value) {
        (Text, Json::String(text)) => Ok(Typed::Text(text.clone())),
        (Text, other) => wrong(other, "string"),
        (Bool, Json::Bool(on)) => Ok(Typed::Bool(*on)),
        (Bool, other) => wrong(other, "bool"),
        (Texts, Json::Array(items)) => {
            let text = |item: &Json| match item {
                Json::String(text) => Ok(text.clone()),
                Json::Null => Ok(String::new()),
                other => Err((kind_of(other).to_owned(), "string")),
            };
            Ok(Typed::Texts(items.iter().map(text).collect::<Result<_, _>>()?))
        }
        (Texts, other) => wrong(other, "[]string"),
        (Shape::Int(wanted, least, most), Json::Number(number)) => match whole(number) {
            Some(whole) if (least..=most).contains(&whole) => Ok(Typed::Int(whole)),
            _ => Err((format!("number {}", shown(number)), wanted)),
        },
        (Shape::Int(wanted, ..), other) => wrong(other, wanted),
        (Shape::Section(_), _) => unreachable!("sections are read by read_section"),
    }
}

enum Typed {
    Text(String),
    Texts(Vec<String>),
    Bool(bool),
    Int(i128),
}

impl Typed {
    fn is_zero(&self) -> bool {
        match self {
            Typed::Text(text) => text.is_empty(),
            Typed::Texts(texts) => texts.is_empty(),
            Typed::Bool(on) => !on,
            Typed::Int(number) => *number == 0,
        }
    }
}

/// Hands a value to its flag.
fn take(key: &Key, value: Typed, inside: &str, raw: &mut RawConfig) -> Result<(), FileError> {
    if let Some(kept) = key.kept {
        match value {
            Typed::Texts(texts) => raw.put_of_file(kept, Value::List(texts)),
            Typed::Bool(on) => raw.put_of_file(kept, Value::Bool(on)),
            Typed::Text(_) | Typed::Int(_) => unreachable!("no such key is of this shape"),
        }
        return Ok(());
    }
    let Some(flag) = key.flag else {
        if !value.is_zero() {
            raw.refuse_key(inside.replacen("configJSON.", "", 1).replacen("Config.", "", 1));
        }
        return Ok(());
    };
    let position = find(flag).expect("a test looks for every flag");
    let kind = SETTINGS[position].kind;
    let value = match (kind, value) {
        (Kind::Bool, Typed::Bool(on)) => Value::Bool(on),
        (Kind::Uint | Kind::Uint32, Typed::Int(number)) => {
            Value::Uint(u64::try_from(number).unwrap_or(u64::MAX))
        }
        (Kind::Int, Typed::Int(number)) => Value::Int(i64::try_from(number).unwrap_or(i64::MAX)),
        (Kind::Duration, Typed::Int(nanos)) => Value::Duration(i64::try_from(nanos).unwrap_or(i64::MAX)),
        (Kind::Choices(_) | Kind::List, Typed::Texts(texts)) => Value::List(texts),
        // etcd takes what the flag would refuse, and enforces the default.
        (Kind::Choices(_), Typed::Text(_)) => return Ok(()),
        // An empty state is a new cluster.
        (Kind::Choice(_), Typed::Text(text)) if text.is_empty() => return Ok(()),
        (Kind::Choice(choices), Typed::Text(text)) if !choices.contains(&text.as_str()) => {
            return Err(FileError::Value(format!("unexpected clusterState {}", quote(&text))));
        }
        (Kind::Urls | Kind::Origins | Kind::List | Kind::Gates, Typed::Text(text)) if text.is_empty() => {
            return Ok(());
        }
        (kind, Typed::Text(text)) => kind.parse(&text).map_err(|why| match kind {
            Kind::Urls => FileError::Urls { name: said_of(flag), why },
            _ => FileError::Value(why),
        })?,
        _ => unreachable!("a test gives every key a value of its shape"),
    };
    raw.put(position, value, Source::File);
    Ok(())
}

/// etcd names another key where it cannot read these.
fn said_of(flag: &'static str) -> &'static str {
    match flag {
        "advertise-client-urls" => "advertise-peer-urls",
        other => other,
    }
}

/// The number, if it is a whole one: `1e2` and `100.0` are.
fn whole(number: &Number) -> Option<i128> {
    if let Some(number) = number.as_i128() {
        return Some(number);
    }
    let float = number.as_f64()?;
    (float.fract() == 0.0 && float.abs() < 1e19).then_some(float as i128)
}

fn shown(number: &Number) -> String {
    match number.as_i128() {
        Some(whole) => whole.to_string(),
        None => number.as_f64().unwrap_or_default().to_string(),
    }
}

/// What Go calls a value.
fn kind_of(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "bool",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests;
