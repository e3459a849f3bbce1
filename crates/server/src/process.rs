//! The program in order: settings, folders, listeners, member, serving, the end.
//!
//! Only this file knows exit codes: 0 for help, versions and a member that was removed; 1 for settings that make no
//! sense and for anything that ends the member; 2 for a command line that does not parse and for a panic, which is
//! what Go's programs exit with. A signal ends the process by itself.

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use node::Quota;

use crate::auth::Tokens;
use crate::config::commands::Called;
use crate::config::env::{self, EnvError};
use crate::config::flags::{self, FlagError};
use crate::config::peer_urls::{self, SystemNames};
use crate::config::{
    self, ClusterState, Config, ConfigError, FileError, RawConfig, Url, commands, file, help,
};
use crate::data_dir::{self, Holds};
use crate::front::Front;
use crate::http::Site;
use crate::listen::{self, Listener, Network, Role, Shares};
use crate::log::{self, Level};
use crate::member::{self, Joined, Member, join};
use crate::metrics::Metrics;
use crate::peer::AllStats;
use crate::security::{self, Secured};
use crate::{check_config, notify, signals, streams, tcp_proxy};

/// How long a member that was removed goes on: others may not know yet that it is committed. etcd's.
const REMOVED_DELAY: Duration = Duration::from_secs(1);
/// How process 1, which no signal kills, ends by one before clients are served; what Go's runtime exits with there.
const KILLED_IN_START: i32 = 2;

/// What happens while a member runs.
enum Event {
    Ready,
    Removed,
    Restored,
    Signal(Signal),
}

/// How the member's threads tell the process what became of them.
#[derive(Clone)]
pub struct Events {
    sender: mpsc::Sender<(u64, Event)>,
    /// Which of the members that this process has opened, one after the other.
    run: u64,
}

impl Events {
    /// The member's own attributes, proposed in this run, are applied: clients may be served (rule 6).
    pub fn ready(&self) {
        let _ = self.sender.send((self.run, Event::Ready));
    }

    /// The member was removed from its cluster, and is to end soon. May be said again.
    pub fn removed(&self) {
        let _ = self.sender.send((self.run, Event::Removed));
    }

    /// The member's log names a snapshot of its leader's: it is to be opened anew.
    pub fn restored(&self) {
        let _ = self.sender.send((self.run, Event::Restored));
    }

    /// The member can't go on. The process ends here and now, also while it is closing: after a failed write nothing
    /// more may be acknowledged (rule 7), and no other thread is asked first.
    pub fn failed(&self, error: &anyhow::Error) -> ! {
        let _ = failed("the member can't go on", &whole(error));
        std::process::exit(1)
    }
}

/// What a signal does. A member that serves ends in good order. Before, and while it is opened anew, nobody could hear of
/// the signal for minutes, so the process ends where it is, as etcd does until clients are served: what is on disk is good
/// for the next start, as after a crash (rule 6).
#[derive(Clone, Default)]
struct Ending(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    /// Who hears of it.
    by: Option<mpsc::Sender<(u64, Event)>>,
    /// Whether it has come and was told.
    is_told: bool,
    has_served: bool,
}

impl Ending {
    /// From now on it is told there.
    fn hear(&self, by: &mpsc::Sender<(u64, Event)>) {
        let mut heard = self.lock();
        heard.by = Some(by.clone());
        heard.has_served = true;
    }

    /// From now on it is told nobody; false if it was told already.
    fn leave(&self) -> bool {
        let mut heard = self.lock();
        heard.by = None;
        !heard.is_told
    }

    /// The signal has come.
    fn come(&self, signal: Signal) {
        let mut heard = self.lock();
        if let Some(by) = &heard.by {
            let _ = by.send((0, Event::Signal(signal)));
            heard.is_told = true;
            return;
        }
        if heard.has_served {
            tell_of(signal);
        }
        signals::end_by(signal, if heard.has_served { 0 } else { KILLED_IN_START });
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        // A panic anywhere ends the process; a half-made change cannot be seen.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell_of(signal: Signal) {
    log::info!("received signal; shutting down", "signal" => signals::name(signal));
}

/// Runs the program `etcd`.
pub fn main() -> ExitCode {
    signals::block();
    std::panic::set_hook(Box::new(panicked));
    let ending = Ending::default();
    let taken = ending.clone();
    if let Err(error) = signals::watch(move |signal| taken.come(signal)) {
        return failed("failed to start", &error);
    }
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    match commands::called(args.get(1..).unwrap_or_default()) {
        Some(Called::Help(help)) => {
            streams::out(help);
            ExitCode::SUCCESS
        }
        Some(Called::Refused(reason)) => {
            streams::err(format_args!("{reason}\n"));
            ExitCode::FAILURE
        }
        Some(Called::Gateway(settings)) => tcp_proxy::run(&args, &settings),
        None => match configure(&args) {
            Ok(config) => run(&config, &ending),
            Err(code) => code,
        },
    }
}

/// A panic of any thread ends the process: what it held is no longer known to be right.
fn panicked(info: &std::panic::PanicHookInfo<'_>) {
    let payload = info.payload();
    let message = payload.downcast_ref::<String>().map(String::as_str);
    let message = message.or(payload.downcast_ref::<&str>().copied()).unwrap_or("unknown");
    let (file, line) = info.location().map_or(("unknown", 0), |at| (at.file(), at.line()));
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    let backtrace = std::backtrace::Backtrace::capture().to_string();
    let fields: [(&str, &dyn log::Value); 3] =
        [("error", &message), ("thread", &thread), ("stacktrace", &backtrace)];
    log::write(Level::Fatal, file, line, "panic", &fields);
    std::process::exit(2);
}

/// Reads command line and environment; answers what needs no member.
fn configure(args: &[String]) -> Result<Config, ExitCode> {
    let mut raw = RawConfig::default();
    let words = match flags::parse(args.get(1..).unwrap_or_default(), &mut raw) {
        Ok(words) => words,
        Err(FlagError::Help) => {
            streams::err(help::USAGE);
            streams::out(help::flags());
            return Err(ExitCode::SUCCESS);
        }
        Err(error) => {
            streams::err(format_args!("{error}\n{}", help::USAGE));
            return Err(ExitCode::from(2));
        }
    };
    if let Some(word) = words.into_iter().next() {
        return Err(refused(args, &ConfigError::NotAFlag(word)));
    }
    if raw.bool("version") {
        streams::out(help::version());
        return Err(ExitCode::SUCCESS);
    }
    if raw.bool("check-config") {
        let report = check_config::run(raw);
        streams::out(&report);
        return Err(if report.would_start() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let file = config_file(&raw);
    match &file {
        Some(path) => raw = read_file(args, path)?,
        None => read_environment(args, &mut raw)?,
    }
    if let Ok(logging) = config::logging(&raw) {
        log::open(&logging.targets).map_err(|error| refused(args, &error.into()))?;
        log::set(logging.level, logging.format);
    }
    let config = Config::try_from(&raw).map_err(|error| refused(args, &error))?;
    if let Some(path) = file {
        log::info!(
            "loaded server configuration, other configuration command line flags and environment variables will be \
             ignored if provided",
            "path" => path,
        );
    }
    for (name, until) in [("max-snapshots", "decommissioned"), ("v2-deprecation", "removed")] {
        if raw.is_set(name) {
            log::warn!(format!("--{name} is deprecated and will be {until} in etcd 3.8"));
        }
    }
    log::info!("Running: ", "args" => args);
    Ok(config)
}

/// The configuration file, by the flag or else by its variable.
pub(crate) fn config_file(raw: &RawConfig) -> Option<String> {
    let variable = || std::env::var("ETCD_CONFIG_FILE").unwrap_or_default();
    let given = Some(raw.text("config-file")).filter(|path| !path.is_empty());
    given.or_else(|| Some(variable()).filter(|path| !path.is_empty()))
}

/// The settings of a file, which are all that count.
fn read_file(args: &[String], path: &str) -> Result<RawConfig, ExitCode> {
    file::read(Path::new(path)).map_err(|error| match error {
        FileError::Urls { .. } => {
            streams::err(format_args!("{error}\n"));
            ExitCode::FAILURE
        }
        error => refused(args, &error.into()),
    })
}

/// The settings of variables, beside those of flags.
fn read_environment(args: &[String], raw: &mut RawConfig) -> Result<(), ExitCode> {
    match env::apply(raw, &environment()) {
        Ok(()) => Ok(()),
        Err(EnvError::Conflict { variable }) => {
            let text = EnvError::Conflict { variable: variable.clone() }.to_string();
            log::fatal!(text, "environment-variable" => variable);
            Err(ExitCode::FAILURE)
        }
        Err(EnvError::Invalid(text)) => Err(refused(args, &ConfigError::Environment(text))),
    }
}

/// The variables of this process.
pub(crate) fn environment() -> Vec<(String, String)> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}

/// Says why the settings can't be started with, whatever the log level: there will be nothing else to read.
fn refused(args: &[String], error: &ConfigError) -> ExitCode {
    log::write(Level::Info, file!(), line!(), "Running: ", &[("args", &args)]);
    let text = error.to_string();
    log::write(Level::Warn, file!(), line!(), "failed to verify flags", &[("error", &text)]);
    if *error == ConfigError::AdvertiseUnset {
        log::write(Level::Warn, file!(), line!(), "advertise client URLs are not set", &[("error", &text)]);
    }
    ExitCode::FAILURE
}

/// Says what ends the process.
fn failed(message: &str, error: &dyn Display) -> ExitCode {
    log::fatal!(message, "error" => log::Text(error));
    ExitCode::FAILURE
}

/// An error with those of its causes that its own text does not name.
fn whole(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Runs a member with these settings until it ends.
fn run(config: &Config, ending: &Ending) -> ExitCode {
    let (sender, events) = mpsc::channel();
    listen::raise_descriptors();
    let secured = match security::prepare(config) {
        Ok(secured) => secured,
        Err(error) => return failed("failed to start", &error),
    };
    let tokens = match Tokens::new(&config.auth) {
        Ok(tokens) => tokens,
        Err(error) => return failed("failed to start", &error),
    };
    // With the certificates that were made for it.
    let mut config = config.clone();
    config.security.peer.clone_from(&secured.peer_info);
    let config = &config;
    let Prepared { clients, metrics, kept } = match prepare(config, &secured, tokens) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    let told = Events { sender, run: 1 };
    match start(config, &told, &kept, metrics) {
        Ok((member, network)) => {
            wait(config, Running { member, network, clients }, kept, (told, &events, ending))
        }
        Err(code) => code,
    }
}

/// What there has to be before there can be a member.
struct Prepared {
    clients: Vec<Listener>,
    metrics: Vec<Listener>,
    kept: Kept,
}

/// What stays as long as the process runs, for each member that is opened. A peer that connects in between waits.
struct Kept {
    peers: Vec<Listener>,
    /// What a member without data has heard of the cluster that it joins.
    joined: Option<Joined>,
    /// What is counted of other members.
    stats: AllStats,
    /// Where tokens come from.
    tokens: Tokens,
    /// Everything else that is counted.
    metrics: Arc<Metrics>,
}

impl Kept {
    /// Opens the member, with the network threads of the one before it, if there was one.
    fn open(&self, config: &Config, front: Option<Arc<Front>>, events: &Events) -> Result<Member, ExitCode> {
        let peers: std::io::Result<Vec<_>> = self.peers.iter().map(Listener::share).collect();
        let peers = peers.map_err(|error| failed("failed to start", &error))?;
        let (lanes, joined) = (listen::network_threads(), self.joined.as_ref());
        let kept = member::Kept { stats: &self.stats, tokens: &self.tokens, metrics: &self.metrics };
        member::start(config, lanes, joined, peers, front, kept, events)
            .map_err(|error| failed("failed to start", &whole(&error)))
    }
}

/// A member with its listeners.
struct Running {
    member: Member,
    network: Network,
    /// Bound, but not served before the member is ready.
    clients: Vec<Listener>,
}

/// What has to be before there can be a member: listeners, settings that a cluster can be begun with, folders.
fn prepare(config: &Config, secured: &Secured, tokens: Tokens) -> Result<Prepared, ExitCode> {
    let dir = config.data_dir.display().to_string();
    let holds = match data_dir::identify(&config.data_dir) {
        Ok(holds) => holds,
        Err(error @ data_dir::DataDirError::List { .. }) => {
            log::fatal!("failed to list data directory", "dir" => dir, "error" => log::Text(error));
            return Err(ExitCode::FAILURE);
        }
        Err(error) => return Err(failed("failed to start", &error)),
    };
    let message = match holds {
        Holds::Member => "server has already been initialized",
        Holds::Nothing => "Initialize and start etcd server",
    };
    log::info!(message, "data-dir" => dir, "dir-type" => holds.name());
    let peers = bind_peers(config, secured)?;
    let clients = bind_clients(config, secured)?;
    let metrics = bind_metrics(config, secured)?;
    let shares = share_out(config)?;
    let [peers, clients, metrics] = [peers, clients, metrics].map(|listeners| shares.give(listeners));
    let has_log = data_dir::has_log(&config.wal_path());
    describe(config, matches!(has_log, Ok(true)));
    let access = |what: &str, error: data_dir::DataDirError| {
        failed("failed to start", &format!("cannot access {what} directory: {error}"))
    };
    let bootstrap = match has_log {
        Ok(false) => {
            let names = SystemNames::within(peer_urls::PATIENCE);
            Some(config.bootstrap(&names).map_err(|error| failed("failed to start", &error))?)
        }
        Ok(true) | Err(_) => None,
    };
    data_dir::make(&config.data_dir).map_err(|error| access("data", error))?;
    data_dir::make(&config.member_dir()).map_err(|error| access("member", error))?;
    // Nobody is asked who this member is while it may be known here.
    has_log.map_err(|error| failed("failed to start", &error))?;
    let joined = match (&bootstrap, config.initial_cluster_state) {
        (None, _) => None,
        (Some(bootstrap), ClusterState::New) => {
            join::check_new(config, bootstrap).map_err(|error| failed("failed to start", &error))?;
            None
        }
        (Some(bootstrap), ClusterState::Existing) => {
            Some(join::join(config, bootstrap).map_err(|error| failed("failed to start", &error))?)
        }
    };
    let counted = Arc::new(Metrics::new(config.extensive_metrics, &config.feature_gates));
    let kept = Kept { peers, joined, stats: AllStats::default(), tokens, metrics: counted };
    Ok(Prepared { clients, metrics, kept })
}

fn start(
    config: &Config,
    events: &Events,
    kept: &Kept,
    metrics: Vec<Listener>,
) -> Result<(Member, Network), ExitCode> {
    for listener in &kept.peers {
        log::info!("serving peer traffic", "address" => listener.address());
    }
    let member = kept.open(config, None, events)?;
    let patience = config.request_timeout();
    let site = Site {
        request_timeout: patience,
        origins: config.origins.clone(),
        hosts: config.hosts.clone(),
        profiles: config.profiles || config.log_level == Level::Debug,
    };
    let network = Network::start(listen::network_threads(), &member.service(), patience, &Arc::new(site))
        .map_err(|error| failed("failed to start", &error))?;
    for (listener, url) in metrics.into_iter().zip(&config.listen_metrics_urls) {
        log::info!("serving metrics", "address" => url);
        network.accept(listener);
    }
    log::info!(
        "now serving peer/client/metrics",
        "local-member-id" => format!("{:x}", member.id()),
        "initial-advertise-peer-urls" => config.initial_advertise_peer_urls,
        "listen-peer-urls" => config.listen_peer_urls,
        "advertise-client-urls" => config.advertise_client_urls,
        "listen-client-urls" => config.listen_client_urls,
        "listen-metrics-urls" => config.listen_metrics_urls,
    );
    Ok((member, network))
}

/// Shares out descriptors among the member and those who connect.
fn share_out(config: &Config) -> Result<Shares, ExitCode> {
    let limit = listen::descriptors();
    if limit <= listen::SUNDRY {
        log::fatal!(
            "file descriptor limit of etcd process is too low; please set higher",
            "limit" => limit,
            "recommended-limit" => listen::SUNDRY,
        );
        return Err(ExitCode::FAILURE);
    }
    // Those of the network threads, the accepting one and the one of peers.
    let shares =
        Shares::of_process(listen::network_threads() + 2, Quota::of_setting(config.quota_bytes).bytes());
    if let Some(needed) = shares.limit_missed() {
        log::warn!(
            "the limit of file descriptors is too low for a store as large as the quota lets it be",
            "limit" => limit,
            "recommended-limit" => needed,
            "quota-size-bytes" => config.quota_bytes,
        );
    }
    Ok(shares)
}

fn bind_peers(config: &Config, secured: &Secured) -> Result<Vec<Listener>, ExitCode> {
    log::info!("configuring peer listeners", "listen-peer-urls" => config.listen_peer_urls);
    let bind_one = |url: &Url| bind(url, Role::Peer, config, url.is_secure().then_some((secured, false)));
    config.listen_peer_urls.iter().map(bind_one).collect()
}

fn bind_metrics(config: &Config, secured: &Secured) -> Result<Vec<Listener>, ExitCode> {
    let bind_one = |url: &Url| bind(url, Role::Metrics, config, url.is_secure().then_some((secured, false)));
    config.listen_metrics_urls.iter().map(bind_one).collect()
}

/// One listener an address, also where one URL asks for TLS there and another does not.
fn bind_clients(config: &Config, secured: &Secured) -> Result<Vec<Listener>, ExitCode> {
    log::info!("configuring client listeners", "listen-client-urls" => config.listen_client_urls);
    let wanted = client_listeners(config).map_err(|text| failed("failed to start", &text))?;
    let bind_one = |(url, role, secure, plain): ClientListener<'_>| {
        bind(url, role, config, secure.then_some((secured, plain)))
    };
    wanted.into_iter().map(bind_one).collect()
}

/// Where it listens, to whom, whether with TLS and whether without.
pub(crate) type ClientListener<'a> = (&'a Url, Role, bool, bool);

/// The listeners for clients.
///
/// # Errors
/// If one would have to be of two kinds.
pub(crate) fn client_listeners(config: &Config) -> Result<Vec<ClientListener<'_>>, String> {
    let is_split = !config.listen_client_http_urls.is_empty();
    let role = if is_split { Role::Grpc } else { Role::Client };
    let mut wanted: Vec<ClientListener<'_>> = Vec::new();
    let urls = config.listen_client_urls.iter().map(|url| (url, role));
    for (url, role) in urls.chain(config.listen_client_http_urls.iter().map(|url| (url, Role::Http))) {
        let address = |url: &Url| format!("{}{}", url.authority(), url.path());
        match wanted.iter_mut().find(|(other, ..)| address(other) == address(url)) {
            None => wanted.push((url, role, url.is_secure(), !url.is_secure())),
            Some((_, other, ..)) if *other != role => {
                return Err(format!(
                    "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {url}"
                ));
            }
            Some((_, _, secure, plain)) => {
                *secure |= url.is_secure();
                *plain |= !url.is_secure();
            }
        }
    }
    Ok(wanted)
}

/// `secured`: with TLS, and whether connections without are taken beside.
fn bind(
    url: &Url,
    role: Role,
    config: &Config,
    secured: Option<(&Secured, bool)>,
) -> Result<Listener, ExitCode> {
    let bound =
        Listener::bind(url, role, config.reuse_port).map_err(|error| failed("failed to start", &error))?;
    Ok(match secured {
        Some((secured, also_plain)) => bound.secured(secured.for_role(role, also_plain)),
        None => bound,
    })
}

fn describe(config: &Config, initialized: bool) {
    log::info!(
        "starting an etcd server",
        "etcd-version" => wire::version::ETCD,
        "quorate-version" => wire::version::QUORATE,
        "git-sha" => help::GIT_SHA,
        "max-cpu-available" => listen::network_threads(),
        "member-initialized" => initialized,
        "name" => config.name,
        "data-dir" => log::Text(config.data_dir.display()),
        "wal-dir" => log::Text(config.wal_dir.clone().unwrap_or_default().display()),
        "member-dir" => log::Text(config.member_dir().display()),
        "heartbeat-interval" => std::time::Duration::from_millis(config.heartbeat_interval_ms),
        "election-timeout" => std::time::Duration::from_millis(config.election_timeout_ms),
        "initial-election-tick-advance" => config.hurries,
        "snapshot-count" => config.snapshot_count,
        "max-wals" => config.wals_max,
        "max-snapshots" => config.snapshots_max,
        "initial-advertise-peer-urls" => config.initial_advertise_peer_urls,
        "listen-peer-urls" => config.listen_peer_urls,
        "advertise-client-urls" => config.advertise_client_urls,
        "listen-client-urls" => config.listen_client_urls,
        "initial-cluster" => config.initial_cluster,
        "initial-cluster-state" => config.initial_cluster_state.name(),
        "initial-cluster-token" => config.initial_cluster_token,
        "strict-reconfig-check" => config.strict_reconfig_check,
        "pre-vote" => config.pre_vote,
        "force-new-cluster" => config.force_new_cluster,
        "max-learners" => config.learners_max as u64,
        "downgrade-check-interval" => std::time::Duration::from_millis(config.downgrade_check_ms),
        "max-request-bytes" => config.limits.request_bytes_max,
        "max-txn-ops" => config.limits.txn_ops_max,
        "max-concurrent-streams" => config.limits.concurrent_streams_max,
    );
}

/// Serves clients once the member is ready, and waits for its end.
fn wait(
    config: &Config,
    running: Running,
    kept: Kept,
    (mut told, events, ending): (Events, &mpsc::Receiver<(u64, Event)>, &Ending),
) -> ExitCode {
    let Running { mut member, network, mut clients } = running;
    let mut ready = false;
    let mut ends_at: Option<Instant> = None;
    loop {
        let left = ends_at.map(|at| at.saturating_duration_since(Instant::now()));
        let event = match left {
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(left) => events.recv_timeout(left),
        };
        match event {
            Ok((_, Event::Signal(signal))) => {
                tell_of(signal);
                close(config, member, network, kept);
                signals::end_by(signal, 0);
            }
            // What a member that is gone has said last.
            Ok((of, _)) if of != told.run => {}
            Ok((_, Event::Ready)) if !ready => {
                ready = true;
                ending.hear(&told.sender);
                for listener in clients.drain(..) {
                    log::info!("ready to serve client requests");
                    tell_of_traffic(&listener);
                    network.accept(listener);
                }
                notify::ready();
            }
            Ok((_, Event::Ready)) => {}
            Ok((_, Event::Removed)) => {
                ends_at.get_or_insert_with(|| Instant::now() + REMOVED_DELAY);
            }
            Ok((_, Event::Restored)) => {
                // A signal that has come already is among the next events.
                if !ending.leave() {
                    continue;
                }
                log::info!("opening the member anew, on a snapshot of the leader's");
                let front = member.front();
                member.stop();
                told.run += 1;
                kept.metrics.member.snapshot_applying.set(1);
                member = match kept.open(config, Some(front), &told) {
                    Ok(member) => member,
                    Err(code) => return code,
                };
                kept.metrics.member.snapshot_applying.set(0);
                if ready {
                    ending.hear(&told.sender);
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                let error = "the member has been permanently removed from the cluster";
                log::warn!("server error", "error" => error);
                log::warn!("data-dir used by this member must be removed");
                close(config, member, network, kept);
                return if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            }
            Err(RecvTimeoutError::Disconnected) => {
                return failed("the member can't go on", &"all its threads are gone");
            }
        }
    }
}

fn tell_of_traffic(listener: &Listener) {
    let traffic = match listener.role() {
        Role::Grpc => "grpc",
        Role::Http => "http",
        Role::Client | Role::Metrics | Role::Peer => "grpc+http",
    };
    if listener.serves_plain() {
        log::info!(
            "serving client traffic insecurely; this is strongly discouraged!",
            "traffic" => traffic,
            "address" => listener.address(),
        );
    }
    if listener.is_secure() {
        log::info!(
            "serving client traffic securely",
            "traffic" => traffic,
            "address" => listener.address(),
        );
    }
}

fn close(config: &Config, member: Member, network: Network, kept: Kept) {
    // No peer connects any more.
    drop(kept);
    // While it still serves: what is under way goes to the next leader.
    member.hand_over();
    let dir = config.data_dir.display();
    log::info!("closing etcd server", "name" => config.name, "data-dir" => log::Text(&dir));
    network.stop();
    member.stop();
    log::info!("closed etcd server", "name" => config.name, "data-dir" => log::Text(&dir));
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    /// Set in the process that is to fail.
    const FAILS: &str = "QUORATE_TEST_FAILS";
    /// Set in the process that a signal is to end.
    const ENDS: &str = "QUORATE_TEST_ENDS";

    /// Runs one of these tests in a process of its own, with a variable set.
    fn alone(test: &str, variable: &str, value: &str) -> (std::process::ExitStatus, String) {
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let name = format!("process::tests::{test}");
        let ended = alone.args(["--exact", &name, "--nocapture"]).env(variable, value).output().unwrap();
        (ended.status, String::from_utf8(ended.stderr).unwrap())
    }

    #[test]
    fn rule_7_a_failure_ends_the_process_where_it_is_found() {
        if std::env::var_os(FAILS).is_some() {
            let cause = std::io::Error::other("broken disk");
            let error = anyhow::Error::new(cause).context("write 0.wal");
            let (sender, _events) = mpsc::channel();
            std::thread::spawn(move || -> () { Events { sender, run: 1 }.failed(&error) });
            // The main thread has other things to do, and never looks.
            loop {
                std::thread::park();
            }
        }
        let (status, log) = alone("rule_7_a_failure_ends_the_process_where_it_is_found", FAILS, "1");
        assert_eq!(status.code(), Some(1));
        assert!(
            log.contains(r#""msg":"the member can't go on","error":"write 0.wal: broken disk"}"#),
            "{log}"
        );
    }

    /// Nobody hears of it in a start, nor while the member is opened anew; both may take minutes.
    #[test]
    fn a_signal_ends_the_process_where_nobody_hears_of_it() {
        let (sender, events) = mpsc::channel();
        if let Some(when) = std::env::var_os(ENDS) {
            signals::block();
            log::set(Level::Info, log::Format::Json);
            let ending = Ending::default();
            if when == "anew" {
                ending.hear(&sender);
                assert!(ending.leave());
            }
            ending.come(Signal::SIGTERM);
            unreachable!("it has ended");
        }
        let line = r#""msg":"received signal; shutting down","signal":"terminated"}"#;
        for (when, is_told) in [("start", false), ("anew", true)] {
            let (status, log) = alone("a_signal_ends_the_process_where_nobody_hears_of_it", ENDS, when);
            assert_eq!(status.signal(), Some(Signal::SIGTERM as i32), "{when}: {log}");
            assert_eq!(log.contains(line), is_told, "{when}, as etcd once it has started: {log}");
        }

        let ending = Ending::default();
        ending.hear(&sender);
        ending.come(Signal::SIGINT);
        assert!(matches!(events.recv(), Ok((0, Event::Signal(Signal::SIGINT)))));
        assert!(!ending.leave(), "who serves is to hear of it first");
    }
}
