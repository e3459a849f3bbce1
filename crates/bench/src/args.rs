//! The command line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::compare::{Candidate, Comparison, Scenario};
use crate::measure::Measurement;
use crate::run::Target;
use crate::schedule::Stop;
use crate::workload::{Kind, Order, Shape};

/// A run without any answer for so long gives up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Most members of a server: etcd's own advice.
const MEMBERS_MAX: usize = 7;

/// What the user asked for.
#[derive(Clone, Debug)]
pub enum Invocation {
    /// One run against a server that is there.
    Measure {
        /// The run.
        measurement: Measurement,
        /// Against whom.
        target: Target,
        /// Put all keys first.
        fill: bool,
        /// The server's process, to be observed.
        server_pid: Option<u32>,
        /// Print JSON.
        json: bool,
    },
    /// Servers against each other.
    Compare {
        /// What and whom.
        comparison: Comparison,
        /// Print JSON.
        json: bool,
    },
}

impl Invocation {
    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    /// A `clap::Error` (help and version among them) or a text, when the line does not make sense.
    pub fn parse<I, T>(line: I) -> anyhow::Result<Invocation>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
    {
        let matches = command().try_get_matches_from(line)?;
        match matches.subcommand() {
            Some(("put", matches)) => measure(Kind::Put, matches),
            Some(("range", matches)) => measure(Kind::Range, matches),
            Some(("txn", matches)) => measure(Kind::Txn, matches),
            Some(("compare", matches)) => compare(matches),
            _ => unreachable!("clap requires a subcommand"),
        }
    }
}

fn command() -> Command {
    let calls = |name: &'static str, about: &'static str| Command::new(name).about(about).args(run_args());
    Command::new("bench")
        .about("Loads an etcd or a Quorate over real sockets, on this machine only")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(calls("put", "One key, one value a call"))
        .subcommand(
            calls("range", "One key a call")
                .arg(flag("serializable", "Serializable instead of linearizable")),
        )
        .subcommand(calls("txn", "One compare and one put a call"))
        .subcommand(
            Command::new("compare")
                .about("Starts servers and measures them in turn, in one run")
                .args(shape_args())
                .args(compare_args()),
        )
}

fn option(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help)
}

fn number(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    option(name, help).value_parser(value_parser!(u64)).default_value(default)
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    option(name, help).action(ArgAction::SetTrue)
}

fn shape_args() -> Vec<Arg> {
    vec![
        number("key-bytes", "8", "Bytes a key"),
        number("value-bytes", "256", "Bytes a value"),
        number("keys", "100000", "How many different keys"),
        number("seed", "1", "Of the random order of keys"),
        number("connections", "10", "How many"),
        number("in-flight", "256", "Calls without an answer, all connections together"),
        flag("json", "Print JSON"),
    ]
}

fn run_args() -> Vec<Arg> {
    let own = vec![
        option("endpoints", "Client URLs or host:port, separated by commas; loopback only")
            .value_delimiter(',')
            .default_value("127.0.0.1:2379"),
        option("rate", "Offered calls a second (open loop); without it a closed loop")
            .value_parser(value_parser!(f64)),
        flag("sequential", "Keys in their order instead of a random one"),
        flag("fill", "Put every key once before"),
        option("requests", "Stop after so many calls").value_parser(value_parser!(u64)),
        option("duration", "Stop after so many seconds; 10 if --requests is not given either")
            .value_parser(value_parser!(f64)),
        option("warm-up", "Seconds of the same load before, not counted")
            .value_parser(value_parser!(f64))
            .default_value("1"),
        option("server-pid", "Observe this process").value_parser(value_parser!(u32)),
    ];
    [own, shape_args()].concat()
}

fn compare_args() -> Vec<Arg> {
    vec![
        Arg::new("servers")
            .value_name("NAME=BINARY")
            .help("The first is compared with each of the others")
            .num_args(2..)
            .required(true),
        option(
            "workload",
            "Of put, txn, range, put-rate, put-one, restart, which are the default, and compact, merge, hash, \
             large-range, watch-fanout, watch-lag, keepalive, lease-expiry, idle, range-follower and failover; separated by commas",
        )
        .value_delimiter(','),
        number("members", "1", "Of each server; range-follower and failover take two or three at least"),
        number("rounds", "5", "Times that each workload is run on each server"),
        option("seconds", "Of each run").value_parser(value_parser!(f64)).default_value("5"),
        option("warm-up", "Seconds of the same load before each run, not counted")
            .value_parser(value_parser!(f64))
            .default_value("1"),
        option("rate", "Of put-rate, calls a second").value_parser(value_parser!(f64)).default_value("10000"),
        number("restart-keys", "1000000", "Keys in the store that is restarted"),
        option("scale", "Of the sizes of the scenarios that are no default: above 0, at most 1")
            .value_parser(value_parser!(f64))
            .default_value("1"),
        option("dir", "Where data directories are made; a new one among temporary files by default")
            .value_parser(value_parser!(PathBuf)),
    ]
}

fn measure(kind: Kind, matches: &ArgMatches) -> anyhow::Result<Invocation> {
    let endpoints: Vec<&String> = matches.get_many("endpoints").into_iter().flatten().collect();
    let endpoints = endpoints.into_iter().map(|text| endpoint(text)).collect::<anyhow::Result<_>>()?;
    let requests = matches.get_one("requests").copied();
    let duration =
        matches.get_one("duration").copied().map(|value| seconds("duration", value)).transpose()?;
    let duration = duration.or(requests.is_none().then_some(Duration::from_secs(10)));
    let rate: Option<f64> = matches.get_one("rate").copied();
    ensure!(rate.is_none_or(|rate| rate > 0.0 && rate.is_finite()), "--rate must be above zero");
    let serializable = kind == Kind::Range && matches.get_flag("serializable");
    let mut shape = shape(matches, serializable)?;
    if matches.get_flag("sequential") {
        shape.order = Order::Sequential;
    }
    let measurement =
        Measurement { kind, shape, rate, stop: Stop { requests, duration }, warm_up: warm_up(matches)? };
    Ok(Invocation::Measure {
        measurement,
        target: target(matches, endpoints)?,
        fill: matches.get_flag("fill"),
        server_pid: matches.get_one("server-pid").copied(),
        json: matches.get_flag("json"),
    })
}

fn compare(matches: &ArgMatches) -> anyhow::Result<Invocation> {
    let mut candidates: Vec<Candidate> = Vec::new();
    for text in matches.get_many::<String>("servers").into_iter().flatten() {
        let (name, binary) = text.split_once('=').with_context(|| format!("{text} is not NAME=BINARY"))?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        ensure!(!name.is_empty() && name.bytes().all(plain), "{name:?} is no name for a server");
        ensure!(candidates.iter().all(|other| other.name != name), "two servers are named {name}");
        candidates.push(Candidate { name: name.to_owned(), binary: PathBuf::from(binary) });
    }
    let scenarios = match matches.get_many::<String>("workload") {
        Some(names) => names.map(|name| Scenario::by_name(name)).collect::<anyhow::Result<_>>()?,
        None => Scenario::DEFAULT.to_vec(),
    };
    let float = |name| *matches.get_one::<f64>(name).expect("it has a default");
    let rate = float("rate");
    ensure!(rate > 0.0 && rate.is_finite(), "--rate must be above zero");
    let scale = float("scale");
    ensure!(scale > 0.0 && scale <= 1.0, "--scale must be above 0 and at most 1");
    let members = count(matches, "members")?;
    ensure!(members <= MEMBERS_MAX, "--members must be at most {MEMBERS_MAX}");
    for scenario in &scenarios {
        let least = match scenario {
            Scenario::Failover => 3,
            Scenario::RangeFollower => 2,
            _ => 1,
        };
        ensure!(members >= least, "{} takes --members {least} or more", scenario.name());
    }
    let comparison = Comparison {
        scale,
        candidates,
        members,
        scenarios,
        rounds: count(matches, "rounds")?,
        duration: seconds("seconds", float("seconds"))?,
        warm_up: warm_up(matches)?,
        rate,
        restart_keys: count(matches, "restart-keys")? as u64,
        shape: shape(matches, false)?,
        target: target(matches, Vec::new())?,
        dir: matches.get_one("dir").cloned(),
    };
    Ok(Invocation::Compare { comparison, json: matches.get_flag("json") })
}

fn shape(matches: &ArgMatches, serializable: bool) -> anyhow::Result<Shape> {
    let shape = Shape {
        key_bytes: count(matches, "key-bytes")?,
        value_bytes: *matches.get_one::<u64>("value-bytes").expect("it has a default") as usize,
        keys: count(matches, "keys")? as u64,
        order: Order::Random(*matches.get_one("seed").expect("it has a default")),
        serializable,
    };
    shape.check()?;
    Ok(shape)
}

fn target(matches: &ArgMatches, endpoints: Vec<SocketAddr>) -> anyhow::Result<Target> {
    let in_flight = count(matches, "in-flight")?;
    // One call in flight asks for one connection, whatever the default.
    let connections = count(matches, "connections")?.min(in_flight);
    Ok(Target { endpoints, connections, in_flight, answer_timeout: ANSWER_TIMEOUT })
}

fn warm_up(matches: &ArgMatches) -> anyhow::Result<Option<Stop>> {
    let value = *matches.get_one::<f64>("warm-up").expect("it has a default");
    if value == 0.0 {
        return Ok(None);
    }
    Ok(Some(Stop { requests: None, duration: Some(seconds("warm-up", value)?) }))
}

fn count(matches: &ArgMatches, name: &str) -> anyhow::Result<usize> {
    let value = *matches.get_one::<u64>(name).expect("it has a default");
    ensure!((1..1 << 31).contains(&value), "--{name} must be from 1 to 2147483647");
    Ok(value as usize)
}

/// A run's length: bounded, so that every run ends by itself.
fn seconds(name: &str, value: f64) -> anyhow::Result<Duration> {
    ensure!(value > 0.0 && value <= 3600.0, "--{name} must be above 0 and at most 3600 seconds");
    Ok(Duration::from_secs_f64(value))
}

/// `host:port`, with `http://` before it or not; nothing but this machine.
fn endpoint(text: &str) -> anyhow::Result<SocketAddr> {
    let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let parsed = match address.strip_prefix("localhost:") {
        Some(port) => port.parse().ok().map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
        None => address.parse().ok(),
    };
    match parsed {
        Some(address) if address.ip().is_loopback() => Ok(address),
        Some(address) => bail!("{address} is not on this machine: only loopback is loaded"),
        None => bail!("{text} is not an address and port of this machine, as in http://127.0.0.1:2379"),
    }
}
