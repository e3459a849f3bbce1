//! TLS at the start: certificates that are made here, files that are read, and what each listener gets of it.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P521_SHA512, SanType, SerialNumber, date_time_ymd,
};
use thiserror::Error;

use crate::config::{Config, Url};
use crate::data_dir::{self, DataDirError};
use crate::listen::{self, Endpoint, Handshakes, Role};
use crate::log;

/// A year of a certificate that is made here; etcd's.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Longer ones can't be written.
const YEARS_MAX: u64 = 5000;

/// Why TLS can't be set up. The texts are etcd's where etcd has one.
#[derive(Debug, Error)]
pub enum SecurityError {
    /// TLS is asked for, and there is no certificate.
    #[error("TLS key/cert (--cert-file, --key-file) must be provided for client url {0} with HTTPS scheme")]
    ClientCertificate(Url),
    /// The same for metrics.
    #[error("client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url")]
    MetricsCertificate,
    /// The same for peers.
    #[error("cannot listen on TLS for {0}: KeyFile and CertFile are not presented")]
    PeerCertificate(String),
    /// A file is not what it should be, or two do not fit.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The folder of certificates can't be made.
    #[error(transparent)]
    Folder(#[from] DataDirError),
    /// No validity.
    #[error("selfSignedCertValidity is invalid,it should be greater than 0")]
    Validity,
    /// A certificate can't be made.
    #[error("{0}")]
    Make(String),
    /// Threads can't be made.
    #[error("start the threads of TLS: {0}")]
    Threads(io::Error),
}

/// What TLS needs, read and checked.
pub struct Secured {
    client: Option<Arc<tls::Server>>,
    peer: Option<Arc<tls::Server>>,
    /// How other members are reached.
    pub peer_info: tls::Info,
    handshakes: Option<Handshakes>,
    verify_metrics_addresses: bool,
    verify_peer_addresses: bool,
    names_users: bool,
}

/// Makes certificates where that is asked for, reads all files, and starts the threads for handshakes, if any listener
/// needs them.
///
/// # Errors
/// See [`SecurityError`].
pub fn prepare(config: &Config) -> Result<Secured, SecurityError> {
    let peer_info = side(config, Side::Peer)?;
    let client_info = side(config, Side::Client)?;
    for (side, info) in [(Side::Peer, &peer_info), (Side::Client, &client_info)] {
        tell_of_plain(side.name(), info, &side.urls(config));
    }
    let peer = read(config, Side::Peer, &peer_info)?;
    let client = read(config, Side::Client, &client_info)?;
    for (message, info) in
        [("starting with peer TLS", &peer_info), ("starting with client TLS", &client_info)]
    {
        if !info.is_empty() {
            log::info!(message, "tls-info" => describe(info));
        }
    }
    let handshakes = match client.is_some() || peer.is_some() {
        true => Some(Handshakes::start(listen::network_threads()).map_err(SecurityError::Threads)?),
        false => None,
    };
    Ok(Secured {
        client,
        peer,
        peer_info,
        handshakes,
        verify_metrics_addresses: config.security.verify_metrics_addresses,
        verify_peer_addresses: config.security.verify_peer_addresses,
        names_users: client_info.client_cert_auth,
    })
}

/// Whose connections certificates are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Other members, both ways.
    Peer,
    /// Clients and probes.
    Client,
}

impl Side {
    /// As in settings and folders.
    pub fn name(self) -> &'static str {
        match self {
            Side::Peer => "peer",
            Side::Client => "client",
        }
    }

    /// Its certificate as given, and whether one is to be made.
    fn given(self, config: &Config) -> (&tls::Info, bool) {
        match self {
            Side::Peer => (&config.security.peer, config.security.peer_auto),
            Side::Client => (&config.security.client, config.security.client_auto),
        }
    }

    /// The URLs that its listeners are for.
    fn urls(self, config: &Config) -> Vec<Url> {
        match self {
            Side::Peer => config.listen_peer_urls.clone(),
            Side::Client => [&config.listen_client_urls[..], &config.listen_client_http_urls].concat(),
        }
    }
}

/// What a start finds for one side.
#[derive(Debug)]
pub enum Checked {
    /// It has no TLS.
    Plain,
    /// Everything could be read.
    Sound(tls::Info),
    /// A certificate would be made in this folder.
    WouldMake(PathBuf),
}

/// Reads what [`prepare`] reads of one side, and makes nothing.
///
/// # Errors
/// See [`SecurityError`].
pub fn check(config: &Config, side: Side) -> Result<Checked, SecurityError> {
    let (given, auto) = side.given(config);
    let mut info = given.clone();
    if auto && given.is_empty() {
        if config.security.self_signed_validity_years == 0 {
            return Err(SecurityError::Validity);
        }
        let (folder, cert, key) = fixtures(config, side);
        if !cert.exists() || !key.exists() {
            return Ok(Checked::WouldMake(folder));
        }
        info = of_fixtures(given, &cert, &key);
    }
    read(config, side, &info)?;
    Ok(if info.is_empty() { Checked::Plain } else { Checked::Sound(info) })
}

/// Reads and checks the files of one side; what its listeners need, if any has TLS.
fn read(config: &Config, side: Side, info: &tls::Info) -> Result<Option<Arc<tls::Server>>, SecurityError> {
    let secure = |urls: &[Url]| urls.iter().find(|url| url.is_secure()).cloned();
    let of_side = secure(&side.urls(config));
    let of_metrics = secure(&config.listen_metrics_urls).filter(|_| side == Side::Client);
    if side == Side::Peer && !(info.is_empty() && info.trusted_ca_file.is_empty()) {
        // Also how this member reaches others.
        tls::Client::new(info, &[])?;
    }
    if info.is_empty() {
        return match (of_side, side) {
            (Some(url), Side::Peer) => Err(SecurityError::PeerCertificate(url.authority().to_owned())),
            (Some(url), Side::Client) => Err(SecurityError::ClientCertificate(url)),
            (None, _) if of_metrics.is_some() => Err(SecurityError::MetricsCertificate),
            (None, _) => Ok(None),
        };
    }
    Ok(match of_side.or(of_metrics) {
        Some(_) => Some(Arc::new(tls::Server::new(info)?)),
        None => None,
    })
}

impl Secured {
    /// What a listener of this role gets for TLS. `also_plain`: it serves those without as well.
    ///
    /// # Panics
    /// If no URL of this role asked for TLS.
    pub fn for_role(&self, role: Role, also_plain: bool) -> listen::Security {
        let server = if role == Role::Peer { &self.peer } else { &self.client };
        listen::Security {
            server: server.clone().expect("prepared, since a URL asks for it"),
            handshakes: self.handshakes.clone().expect("prepared, since a URL asks for it"),
            endpoint: if role == Role::Peer { Endpoint::Peer } else { Endpoint::Client },
            http2: role != Role::Peer,
            verify_address: match role {
                Role::Peer => self.verify_peer_addresses,
                Role::Metrics => self.verify_metrics_addresses,
                Role::Client | Role::Grpc | Role::Http => false,
            },
            also_plain,
            // Where there is HTTP alone, the gateway refuses certificates with a name.
            names_users: self.names_users && matches!(role, Role::Client | Role::Grpc | Role::Http),
        }
    }
}

/// One side's settings, with the certificate that is made here if none is given.
fn side(config: &Config, side: Side) -> Result<tls::Info, SecurityError> {
    let (given, auto) = side.given(config);
    if !auto {
        return Ok(given.clone());
    }
    if !given.is_empty() {
        log::warn!(format!("ignoring {} auto TLS since certs given", side.name()));
        return Ok(given.clone());
    }
    if config.security.self_signed_validity_years == 0 {
        log::warn!("cannot generate cert", "error" => log::Text(SecurityError::Validity));
        return Err(SecurityError::Validity);
    }
    let (folder, cert, key) = fixtures(config, side);
    data_dir::make(&config.data_dir)?;
    data_dir::make(&config.data_dir.join("fixtures"))?;
    data_dir::make(&folder)?;
    if !cert.exists() || !key.exists() {
        let urls = side.urls(config);
        self_sign(&cert, &key, urls.iter().map(Url::host), config.security.self_signed_validity_years)?;
    }
    Ok(of_fixtures(given, &cert, &key))
}

/// Where one side's own certificate is kept: the folder, the certificate, its key.
fn fixtures(config: &Config, side: Side) -> (PathBuf, PathBuf, PathBuf) {
    let folder = config.data_dir.join("fixtures").join(side.name());
    let folder = std::path::absolute(&folder).unwrap_or(folder);
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    (folder, cert, key)
}

/// One side's settings with a certificate that was made here. All else is dropped, as in etcd.
fn of_fixtures(given: &tls::Info, cert: &Path, key: &Path) -> tls::Info {
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    tls::Info {
        cert_file: cert.clone(),
        key_file: key.clone(),
        client_cert_file: cert,
        client_key_file: key,
        insecure_skip_verify: true,
        version_min: given.version_min,
        version_max: given.version_max,
        suites: given.suites.clone(),
        ..tls::Info::default()
    }
}

/// Makes a certificate for these hosts that is its own authority, with a key on P-521, as etcd's.
#[expect(clippy::disallowed_methods, reason = "certificates are valid by the wall clock")]
fn self_sign<'a>(
    cert: &Path,
    key: &Path,
    hosts: impl Iterator<Item = &'a str>,
    years: u64,
) -> Result<(), SecurityError> {
    let failed =
        |error: rcgen::Error| SecurityError::Make(format!("cannot generate x509 certificate: {error}"));
    let mut params = CertificateParams::default();
    for host in hosts.filter(|host| !host.is_empty()) {
        params.subject_alt_names.push(match host.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.try_into().map_err(failed)?),
        });
    }
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "etcd");
    let mut serial = [0; 16];
    getrandom::fill(&mut serial)
        .map_err(|error| SecurityError::Make(format!("cannot generate random number: {error}")))?;
    // A positive number.
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let validity = YEAR * u32::try_from(years.min(YEARS_MAX)).unwrap_or(u32::MAX);
    params.not_before = date_time_ymd(1970, 1, 1) + since;
    params.not_after = params.not_before + validity;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    log::warn!(
        "automatically generate certificates",
        "certificate-validity-bound-not-after" => log::Text(params.not_after),
    );
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).map_err(failed)?;
    let made = params.self_signed(&pair).map_err(failed)?;
    write(cert, made.pem().as_bytes(), 0o644)?;
    log::info!("created cert file", "path" => log::Text(cert.display()));
    write(key, pair.serialize_pem().as_bytes(), 0o600)?;
    log::info!("created key file", "path" => log::Text(key.display()));
    Ok(())
}

/// Writes a file that is there as a whole or not at all.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), SecurityError> {
    let failed = |error: io::Error| {
        SecurityError::Make(format!("open {}: {}", path.display(), crate::go_error(&error)))
    };
    let part = path.with_extension("tmp");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&part)
        .map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&part, path).map_err(failed)
}

fn tell_of_plain(who: &str, info: &tls::Info, urls: &[Url]) {
    let (scheme, key) = match who {
        "peer" => ("HTTP", "peer-url"),
        _ => ("http or unix", "client-url"),
    };
    for url in urls.iter().filter(|url| !url.is_secure()) {
        let fields: [(&str, &dyn log::Value); 1] = [(key, url)];
        let warn = |message: String| {
            if log::enabled(log::Level::Warn) {
                log::write(log::Level::Warn, file!(), line!(), &message, &fields);
            }
        };
        if !info.is_empty() {
            warn(format!(
                "scheme is {scheme} while key and cert files are present; ignoring key and cert files"
            ));
        }
        if info.client_cert_auth {
            let flag = if who == "peer" { "--peer-client-cert-auth" } else { "--client-cert-auth" };
            warn(format!(
                "scheme is {scheme} while {flag} is enabled; ignoring client cert auth for this URL"
            ));
        }
    }
}

/// As etcd writes it.
fn describe(info: &tls::Info) -> String {
    format!(
        "cert = {}, key = {}, client-cert={}, client-key={}, trusted-ca = {}, client-cert-auth = {}, crl-file = {}",
        info.cert_file,
        info.key_file,
        info.client_cert_file,
        info.client_key_file,
        info.trusted_ca_file,
        info.client_cert_auth,
        info.crl_file,
    )
}
