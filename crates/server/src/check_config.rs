//! `etcd --check-config`: what is wrong with the settings, and what a start would do with them.
//!
//! It goes through what a start goes through, in the same functions where they change nothing, and otherwise by looking:
//! settings, outputs of the log, certificates, addresses, the data directory. Nothing is made, moved, locked for longer than
//! it is read, or asked of other members.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use disk::{Fs, RealFs};
use nix::unistd::AccessFlags;
use node::offline::{self, DataDir};

use crate::auth::Tokens;
use crate::config::peer_urls::SystemNames;
use crate::config::{self, ClusterState, Config, RawConfig, Url, env, file};
use crate::data_dir::{self, Holds};
use crate::listen::{Listener, Role};
use crate::log::{self, Format, Level};
use crate::process;
use crate::security::{self, Checked, Side};

/// A certificate that ends sooner is told of.
const SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// What an empty member takes: a segment of each log, and one more of each ahead.
const EMPTY_BYTES: u64 = 256 << 20;
/// A start waits longer for names that nobody knows yet.
const NAMES_PATIENCE: Duration = Duration::from_secs(5);

/// What was found, a line each.
#[derive(Debug, Default)]
pub struct Report {
    lines: Vec<(Kind, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It was looked at, and is as it should be.
    Sound,
    /// It stops no start, and may not be what was meant.
    Note,
    /// The start would fail.
    Wrong,
    /// What the start would do.
    Would,
}

impl Report {
    /// Whether nothing was found that a start would end with.
    pub fn would_start(&self) -> bool {
        self.wrong() == 0
    }

    fn wrong(&self) -> usize {
        self.lines.iter().filter(|(kind, _)| *kind == Kind::Wrong).count()
    }

    fn add(&mut self, kind: Kind, text: String) {
        self.lines.push((kind, text));
    }

    /// Keeps what is sound under this name, or what is wrong.
    fn judge<E: fmt::Display>(&mut self, what: &str, result: Result<String, E>) {
        match result {
            Ok(found) => self.add(Kind::Sound, format!("{what}: {found}")),
            Err(error) => self.add(Kind::Wrong, format!("{what}: {error}")),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, text) in &self.lines {
            let mark = match kind {
                Kind::Sound => "ok",
                Kind::Note => "note",
                Kind::Wrong => "wrong",
                Kind::Would => "would",
            };
            writeln!(f, "{mark:<6}{text}")?;
        }
        match self.wrong() {
            0 => writeln!(f, "etcd would start"),
            1 => writeln!(f, "etcd would not start: 1 thing is wrong"),
            count => writeln!(f, "etcd would not start: {count} things are wrong"),
        }
    }
}

/// Checks the settings of the command line, of the variables of this process, or of the file that one of them names.
pub fn run(flags: RawConfig) -> Report {
    // What a start warns of is said on stderr, as there.
    log::set(Level::Warn, Format::Console);
    let mut report = Report::default();
    let (raw, source) = match settings(flags) {
        Ok(read) => read,
        Err(error) => {
            report.add(Kind::Wrong, format!("settings: {error}"));
            return report;
        }
    };
    let targets = config::logging(&raw).map(|logging| logging.targets).unwrap_or_default();
    let config = match Config::try_from(&raw) {
        Ok(config) => config,
        Err(error) => {
            report.add(Kind::Wrong, format!("settings: {error}"));
            return report;
        }
    };
    report.add(Kind::Sound, format!("settings: {source}"));
    for target in targets {
        report.judge("log-outputs", target.check().map(|()| target.to_string()));
    }
    for side in [Side::Client, Side::Peer] {
        check_security(&mut report, &config, side);
    }
    report.judge("auth-token", Tokens::new(&config.auth).map(|tokens| tokens.to_string()));
    check_listeners(&mut report, &config);
    check_data_dir(&mut report, &config);
    report
}

/// The settings, and where they are from.
fn settings(mut flags: RawConfig) -> Result<(RawConfig, String), String> {
    if let Some(path) = process::config_file(&flags) {
        let raw = file::read(Path::new(&path)).map_err(|error| error.to_string())?;
        return Ok((raw, format!("of the file {path}, which are all that count")));
    }
    env::apply(&mut flags, &process::environment()).map_err(|error| error.to_string())?;
    Ok((flags, "of flags and variables".to_owned()))
}

/// Whether a listener for clients or probes speaks TLS; else nothing of its settings is read at a start.
fn needs_client_tls(config: &Config) -> bool {
    let urls = config.listen_client_urls.iter().chain(&config.listen_client_http_urls);
    urls.chain(&config.listen_metrics_urls).any(Url::is_secure)
}

fn check_security(report: &mut Report, config: &Config, side: Side) {
    let what = format!("{} TLS", side.name());
    let is_passed_over = side == Side::Client && !needs_client_tls(config);
    let refuse = |report: &mut Report, error: String| match is_passed_over {
        true => {
            report.add(Kind::Note, format!("{what}: {error}; no URL is https, so a start passes it over"))
        }
        false => report.add(Kind::Wrong, format!("{what}: {error}")),
    };
    let info = match security::check(config, side) {
        Ok(Checked::Plain) => return report.add(Kind::Sound, format!("{what}: none")),
        Ok(Checked::WouldMake(folder)) => {
            return report.add(Kind::Would, format!("make a certificate in {}", folder.display()));
        }
        Ok(Checked::Sound(info)) => info,
        Err(error) => return refuse(report, error.to_string()),
    };
    for (cert, key) in [(&info.cert_file, &info.key_file), (&info.client_cert_file, &info.client_key_file)] {
        if cert.is_empty() {
            continue;
        }
        let certificate = match tls::Pair::read(cert, key).and_then(|pair| pair.certificate()) {
            Ok(certificate) => certificate,
            Err(error) => return refuse(report, error.to_string()),
        };
        let names = certificate.dns_names.iter().cloned();
        let names = names.chain(certificate.ip_addresses.iter().map(ToString::to_string));
        report.add(
            Kind::Sound,
            format!(
                "{what}: {cert}: {}, for [{}], until {}",
                certificate.subject,
                names.collect::<Vec<_>>().join(" "),
                certificate.valid_until()
            ),
        );
        #[expect(clippy::disallowed_methods, reason = "certificates are valid by the wall clock")]
        let now = SystemTime::now();
        if let Err(why) = certificate.check_time(now) {
            report.add(Kind::Note, format!("{what}: nobody will accept {cert}: {why}"));
        } else if let Err(why) = certificate.check_time(now + SOON) {
            report.add(Kind::Note, format!("{what}: {cert} ends within 30 days: {why}"));
        }
        if cert != &info.cert_file || info.insecure_skip_verify {
            continue;
        }
        let advertised = match side {
            Side::Peer => &config.initial_advertise_peer_urls,
            Side::Client => &config.advertise_client_urls,
        };
        for url in advertised.iter().filter(|url| url.is_secure() && !url.is_unix()) {
            if let Err(why) = tls::verify_hostname(&certificate, url.host()) {
                report.add(Kind::Note, format!("{what}: {cert} does not fit the advertised {url}: {why}"));
            }
        }
    }
}

fn check_listeners(report: &mut Report, config: &Config) {
    let clients = match process::client_listeners(config) {
        Ok(clients) => clients,
        Err(error) => {
            report.add(Kind::Wrong, format!("listen-client-urls: {error}"));
            Vec::new()
        }
    };
    let peers = config.listen_peer_urls.iter().map(|url| ("listen-peer-urls", url, Role::Peer));
    let clients = clients.into_iter().map(|(url, role, ..)| match role {
        Role::Http => ("listen-client-http-urls", url, role),
        _ => ("listen-client-urls", url, role),
    });
    let metrics = config.listen_metrics_urls.iter().map(|url| ("listen-metrics-urls", url, Role::Metrics));
    let mut seen: Vec<(&str, &Url)> = Vec::new();
    for (flag, url, role) in peers.chain(clients).chain(metrics) {
        let is_same = |other: &Url| {
            (other.authority(), other.path()) == (url.authority(), url.path()) && url.port() != "0"
        };
        if let Some((other, _)) = seen.iter().find(|(_, other)| is_same(other)) {
            report.add(Kind::Wrong, format!("{flag}: {url} is the address of --{other} too"));
            continue;
        }
        seen.push((flag, url));
        report.judge(flag, Listener::check(url, role, config.reuse_port).map(|()| url.to_string()));
    }
}

fn check_data_dir(report: &mut Report, config: &Config) {
    let dir = config.data_dir.display();
    match data_dir::identify(&config.data_dir) {
        Ok(Holds::Member) => report.add(Kind::Sound, format!("data-dir: {dir} holds a member's files")),
        Ok(Holds::Nothing) => report.add(Kind::Sound, format!("data-dir: {dir} holds nothing yet")),
        Err(error) => return report.add(Kind::Wrong, format!("data-dir: {error}")),
    }
    check_room(report, "data-dir", &config.data_dir);
    if let Some(wal_dir) = &config.wal_dir {
        check_room(report, "wal-dir", wal_dir);
    }
    match data_dir::has_log(&config.wal_path()) {
        Ok(true) => check_member(report, config),
        Ok(false) => check_bootstrap(report, config),
        Err(error) => report.add(Kind::Wrong, format!("data-dir: {error}")),
    }
}

/// Whether a folder can be made or written to, and has room for an empty member.
fn check_room(report: &mut Report, flag: &str, dir: &Path) {
    let existing = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let existing: PathBuf =
        existing.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/")).to_owned();
    let wrong = |error: io::Error| format!("{flag}: {}: {}", existing.display(), crate::go_error(&error));
    if !existing.is_dir() {
        return report.add(Kind::Wrong, wrong(io::ErrorKind::NotADirectory.into()));
    }
    let flags = AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK;
    if let Err(error) = nix::unistd::access(&existing, flags) {
        return report.add(Kind::Wrong, wrong(error.into()));
    }
    let Ok(system) = nix::sys::statvfs::statvfs(&existing) else { return };
    let free = system.blocks_available() * system.fragment_size();
    if free < EMPTY_BYTES {
        let (free, needed) = (log::bytes(free), log::bytes(EMPTY_BYTES));
        report.add(
            Kind::Note,
            format!("{flag}: {} has {free} left, an empty member takes {needed}", existing.display()),
        );
    }
}

/// There is a log: the member goes on, and what a new cluster would begin with does not count.
fn check_member(report: &mut Report, config: &Config) {
    let fs: Arc<dyn Fs> = Arc::new(RealFs);
    let place = DataDir::new(config.data_dir.clone(), config.wal_dir.clone());
    let found = match offline::check(&fs, &place) {
        Ok(found) => found,
        Err(error) => return report.add(Kind::Wrong, format!("data-dir: {error}")),
    };
    for part in found.sound {
        report.add(Kind::Sound, format!("data-dir: {}: {}", part.path.display(), part.holds));
    }
    for note in found.notes {
        report.add(Kind::Note, format!("data-dir: {note}"));
    }
    for fault in found.faults {
        let kind = if fault.stops_a_start() { Kind::Wrong } else { Kind::Note };
        report.add(kind, format!("data-dir: {}; {}", fault.what, fault.advice));
    }
    let database = config.member_dir().join("snap/db");
    if database.exists() {
        report.add(Kind::Would, format!("take over etcd's database {}", database.display()));
    }
    report.add(
        Kind::Would,
        match config.force_new_cluster {
            true => {
                "go on alone with the data that is there; all other members are removed (--force-new-cluster)"
                    .to_owned()
            }
            false => {
                "go on as the member that is there; --initial-cluster, its state and its token do not count"
                    .to_owned()
            }
        },
    );
}

/// There is none: the member begins a cluster, or joins one.
fn check_bootstrap(report: &mut Report, config: &Config) {
    let member = config.member_dir();
    let leftovers =
        [("rev", "seg", "revisions"), ("snap", "snap", "snapshots"), ("snap", "db", "a database")];
    for (folder, ending, what) in leftovers {
        let folder = member.join(folder);
        let is_one =
            |name: PathBuf| name.extension().is_some_and(|found| found == ending) || name.ends_with(ending);
        if std::fs::read_dir(&folder).into_iter().flatten().flatten().any(|file| is_one(file.path())) {
            let (folder, wal) = (folder.display(), config.wal_path());
            report.add(
                Kind::Wrong,
                format!("data-dir: {folder} holds {what}, but {} holds no log", wal.display()),
            );
        }
    }
    let bootstrap = match config.bootstrap(&SystemNames::within(NAMES_PATIENCE)) {
        Ok(bootstrap) => bootstrap,
        Err(error) => return report.add(Kind::Wrong, format!("initial-cluster: {error}")),
    };
    let others: Vec<&str> =
        bootstrap.members.keys().map(String::as_str).filter(|name| *name != config.name).collect();
    let others = if others.is_empty() { "alone".to_owned() } else { format!("with {}", others.join(", ")) };
    if config.initial_cluster_state == ClusterState::Existing {
        return report.add(
            Kind::Would,
            format!("ask the others of --initial-cluster who {} is, and join them, {others}", config.name),
        );
    }
    let id = |urls: &Vec<Url>| {
        let urls: Vec<String> = urls.iter().map(ToString::to_string).collect();
        node::member_id(&urls, &bootstrap.token)
    };
    let ids: Vec<u64> = bootstrap.members.values().map(id).collect();
    let own = bootstrap.members.get(&config.name).map(id).unwrap_or_default();
    report.add(
        Kind::Would,
        format!(
            "begin the cluster {:x} as the member {} ({own:x}), {others}",
            node::cluster_id(&ids),
            config.name
        ),
    );
}
