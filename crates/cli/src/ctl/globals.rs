//! The flags of every command, their variables, and the client that they describe.

use std::time::Duration;

use client::{Config, Credentials, Endpoint, Keepalive};

use super::password;
use crate::app::{Failure, Invocation, exit};
use crate::flag::{Flag, Kind};
use crate::gotext;

pub(super) static FLAGS: &[Flag] = &[
    Flag::new("endpoints", Kind::List, "addresses of the members, as host:port or URL")
        .default("127.0.0.1:2379"),
    Flag::new("debug", Kind::Bool, "show the settings in use on standard error"),
    Flag::new("write-out", Kind::Text, "output format: simple, fields, json, protobuf or table")
        .short('w')
        .default("simple"),
    Flag::new("hex", Kind::Bool, "print byte strings in hex"),
    Flag::new("dial-timeout", Kind::Duration, "longest wait for a connection").default("2s"),
    Flag::new("command-timeout", Kind::Duration, "longest wait for the answer to a short command")
        .default("5s"),
    Flag::new("keepalive-time", Kind::Duration, "pause between keepalive pings").default("2s"),
    Flag::new("keepalive-timeout", Kind::Duration, "longest wait for the answer to a ping").default("6s"),
    Flag::new("max-request-bytes", Kind::Int, "longest request that is sent (0 means 2 MiB)"),
    Flag::new("max-recv-bytes", Kind::Int, "longest answer that is taken (0 means 2 GiB)"),
    Flag::new("insecure-transport", Kind::Bool, "connect without TLS unless an endpoint asks for it")
        .default("true"),
    Flag::new("insecure-discovery", Kind::Bool, "accept endpoints without TLS from DNS").default("true"),
    Flag::new(
        "insecure-skip-tls-verify",
        Kind::Bool,
        "do not verify the server's certificate (for tests only)",
    ),
    Flag::new("cert", Kind::Text, "certificate of the client"),
    Flag::new("key", Kind::Text, "key of the client's certificate"),
    Flag::new("cacert", Kind::Text, "certificates of the authorities that servers are verified with"),
    Flag::new("auth-jwt-token", Kind::Text, "token to authenticate with, instead of a user"),
    Flag::new("user", Kind::Text, "user to authenticate as, with or without :password"),
    Flag::new("password", Kind::Text, "password of the user"),
    Flag::new("discovery-srv", Kind::Text, "DNS domain whose SRV records name the endpoints").short('d'),
    Flag::new("discovery-srv-name", Kind::Text, "suffix of the SRV records' service"),
];

/// gRPC's Go client pings no server more often.
const KEEPALIVE_TIME_MIN: Duration = Duration::from_secs(10);
/// What it waits for a connection, and for the answer to a ping, if it is not told.
const DIAL_TIMEOUT_UNSET: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT_UNSET: Duration = Duration::from_secs(20);

const PREFIX: &str = "ETCDCTL_";

const OF_WATCH: [&str; 2] = ["watch-key", "watch-range-end"];

/// Where a line of the log names a variable.
const VARIABLE: &str = "environment-variable";

fn variable_of(flag: &str) -> String {
    PREFIX.to_owned() + &flag.to_uppercase().replace('-', "_")
}

/// Takes over the variables of inherited flags. A bad value is ignored and an unknown variable warned about, as
/// etcdctl does.
///
/// # Errors
/// When a flag is given on the command line and by its variable.
pub(super) fn read_variables(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let inherited: Vec<&Flag> = call.path.inherited(call.app).collect();
    // No flags, but as good as: they are no unknown variables to the command that reads them.
    let of_watch: &[&str] = if call.path.name() == super::watch::COMMAND.name { &OF_WATCH } else { &[] };
    let given: Vec<String> =
        inherited.iter().filter(|f| call.flags.changed(f.name)).map(|f| variable_of(f.name)).collect();
    for (name, value) in &call.world.variables {
        if given.contains(name) {
            let text = "conflicting environment variable is shadowed by corresponding command-line flag \
                        (either unset environment variable or disable flag))";
            let message = log_line("fatal", &[("msg", text), (VARIABLE, name)]);
            return Err(Failure { code: exit::ERROR, message });
        }
        let flag = inherited.iter().find(|f| variable_of(f.name) == *name).filter(|_| !value.is_empty());
        match flag {
            Some(flag) => _ = call.flags.set(flag.name, value),
            None if of_watch.iter().any(|flag| variable_of(flag) == *name) => {}
            None if name.starts_with(PREFIX) => {
                let whole = format!("{name}={value}");
                let text = "unrecognized environment variable";
                let line = log_line("warn", &[("msg", text), (VARIABLE, &whole)]);
                call.world.err.write_all(line.as_bytes())?;
            }
            None => {}
        }
    }
    if call.flags.bool("debug") {
        let mut lines: Vec<(&str, String)> =
            inherited.iter().map(|f| (f.name, call.flags.shown(f.name))).collect();
        lines.extend(of_watch.iter().map(|name| (*name, String::new())));
        lines.sort_unstable();
        for (name, value) in lines {
            writeln!(call.world.err, "{}={value}", variable_of(name))?;
        }
    }
    Ok(())
}

/// A line of the tool's log, in the form of etcd's.
pub(super) fn log_line(level: &str, fields: &[(&str, &str)]) -> String {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ");
    let mut line = format!("{{\"level\":\"{level}\",\"ts\":\"{now}\"");
    for (name, value) in fields {
        line += &format!(",\"{name}\":{}", gotext::quote(value.as_bytes()));
    }
    line + "}\n"
}

/// The client that flags and variables describe.
///
/// # Errors
/// What etcdctl refuses too, and every option that this version lacks.
pub(super) fn client_config(call: &mut Invocation<'_>) -> Result<Config, Failure> {
    let flags = &call.flags;
    for name in ["discovery-srv", "discovery-srv-name"] {
        if !flags.text(name).is_empty() {
            return Err(Failure::not_yet(&format!("--{name}")));
        }
    }
    for name in ["cert", "key", "cacert"] {
        if flags.text(name).is_empty() && flags.changed(name) {
            return Err(Failure::new(exit::BAD_ARGS, format!("empty string is passed to --{name} option")));
        }
    }
    let file = |name| flags.text(name).to_owned();
    let tls = tls::Info {
        cert_file: file("cert"),
        key_file: file("key"),
        trusted_ca_file: file("cacert"),
        insecure_skip_verify: flags.bool("insecure-skip-tls-verify"),
        ..tls::Info::default()
    };
    let has_files = [&tls.cert_file, &tls.key_file, &tls.trusted_ca_file].iter().any(|file| !file.is_empty());
    let credentials = credentials(call)?;

    let flags = &call.flags;
    let mut config = Config::new(endpoints(flags.list("endpoints"))?);
    config.tls = tls;
    config.credentials = credentials;
    config.tls_by_default = has_files || config.tls.insecure_skip_verify || !flags.bool("insecure-transport");
    config.dial_timeout = match flags.duration("dial-timeout") {
        Duration::ZERO => DIAL_TIMEOUT_UNSET,
        given => given,
    };
    config.keepalive = match (flags.duration("keepalive-time"), flags.duration("keepalive-timeout")) {
        (Duration::ZERO, _) => None,
        (time, Duration::ZERO) => Some((time, KEEPALIVE_TIMEOUT_UNSET)),
        given => Some(given),
    }
    .map(|(time, timeout)| Keepalive { time: time.max(KEEPALIVE_TIME_MIN), timeout });
    for (name, limit) in [
        ("max-request-bytes", &mut config.request_bytes_max),
        ("max-recv-bytes", &mut config.answer_bytes_max),
    ] {
        match flags.int(name) {
            ..=0 => {}
            bytes => *limit = u32::try_from(bytes).unwrap_or(u32::MAX),
        }
    }
    Ok(config)
}

/// Who the user says they are. Asks for the password if it stands nowhere; a token needs none.
fn credentials(call: &mut Invocation<'_>) -> Result<Option<Credentials>, Failure> {
    let text = |name| call.flags.text(name).to_owned();
    let (token, user, password) = (text("auth-jwt-token"), text("user"), text("password"));
    if !token.is_empty() {
        return Ok(Some(Credentials::Token(token)));
    }
    password_of(call, (user, password), "Password: ")
}

/// A user, if one is named, with the password that stands beside it, in the other flag, or nowhere: then it is asked for.
///
/// # Errors
/// If it cannot be asked for.
pub(super) fn password_of(
    call: &mut Invocation<'_>,
    (user, password): (String, String),
    prompt: &str,
) -> Result<Option<Credentials>, Failure> {
    if user.is_empty() {
        return Ok(None);
    }
    let (user, password) = match user.split_once(':') {
        _ if !password.is_empty() => (user, password),
        Some((user, password)) => (user.to_owned(), password.to_owned()),
        None => {
            let password = password::ask(call, prompt, exit::ERROR, "")?;
            (user, password)
        }
    };
    Ok(Some(Credentials::Password { user, password }))
}

/// Reads endpoints. One that cannot be read is as good as one where nobody listens, as in etcdctl, so it matters only
/// when there is no other.
pub(super) fn endpoints(list: &[String]) -> Result<Vec<Endpoint>, Failure> {
    let (mut endpoints, mut bad) = (Vec::new(), None);
    for text in list {
        match text.trim().parse() {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(error) => bad = bad.or(Some(error)),
        }
    }
    match bad {
        Some(error) if endpoints.is_empty() => Err(Failure::new(exit::BAD_CONNECTION, error)),
        _ => Ok(endpoints),
    }
}
