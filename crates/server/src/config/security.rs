//! Certificates, versions and suites: what TLS is told, for clients and for peers.

use super::raw::RawConfig;
use super::value::Value;

/// What the settings say about TLS.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// For clients' listeners and those of metrics.
    pub client: tls::Info,
    /// For peers, both ways.
    pub peer: tls::Info,
    /// Clients get a certificate that is made here.
    pub client_auto: bool,
    /// Peers likewise.
    pub peer_auto: bool,
    /// How long such a certificate is valid, years.
    pub self_signed_validity_years: u64,
    /// Whether a certificate shown to a listener of metrics must be one of the address that it comes from.
    pub verify_metrics_addresses: bool,
    /// The same for peers.
    pub verify_peer_addresses: bool,
}

impl Security {
    /// Checks versions and suites as etcd does. Files are read later.
    ///
    /// # Errors
    /// etcd's texts.
    pub(super) fn new(raw: &RawConfig) -> Result<Security, tls::Error> {
        let names = allowed(raw, "cipher-suites");
        let (version_min, version_max) = tls::check_versions(
            &raw.text("tls-min-version"),
            &raw.text("tls-max-version"),
            !names.is_empty(),
        )?;
        let suites = tls::Suites::from_names(&names)?;
        let side = |prefix: &str, cns: Vec<String>, hostnames: &str| tls::Info {
            cert_file: raw.text(&format!("{prefix}cert-file")),
            key_file: raw.text(&format!("{prefix}key-file")),
            client_cert_file: raw.text(&format!("{prefix}client-cert-file")),
            client_key_file: raw.text(&format!("{prefix}client-key-file")),
            trusted_ca_file: raw.text(&format!("{prefix}trusted-ca-file")),
            client_cert_auth: raw.bool(&format!("{prefix}client-cert-auth")),
            crl_file: raw.text(if prefix.is_empty() { "client-crl-file" } else { "peer-crl-file" }),
            allowed_cns: cns,
            allowed_hostnames: allowed(raw, hostnames),
            insecure_skip_verify: false,
            version_min,
            version_max,
            suites: suites.clone(),
        };
        let client_cns = match raw.of_file(CLIENT_ALLOWED_CN) {
            Some(Value::List(names)) => names.clone(),
            _ => Vec::new(),
        };
        let skips = matches!(raw.of_file(CLIENT_SKIP_SAN), Some(Value::Bool(true)));
        Ok(Security {
            client: side("", client_cns, "client-cert-allowed-hostname"),
            peer: side("peer-", allowed(raw, "peer-cert-allowed-cn"), "peer-cert-allowed-hostname"),
            client_auto: raw.bool("auto-tls"),
            peer_auto: raw.bool("peer-auto-tls"),
            self_signed_validity_years: match raw.uint("self-signed-cert-validity") {
                // In a file, nothing is the default.
                0 if raw.is_of_file() => 1,
                years => years,
            },
            verify_metrics_addresses: !skips,
            verify_peer_addresses: !raw.bool("peer-skip-client-san-verification"),
        })
    }
}

/// Keys of the configuration file that have no flag.
pub(super) const CLIENT_ALLOWED_CN: &str = "client-transport-security.allowed-cn";
/// See there.
pub(super) const CLIENT_SKIP_SAN: &str = "client-transport-security.skip-client-san-verification";

/// The names that are allowed; none where nothing is said of them. As in etcd an empty text that was given is one name,
/// the empty one: a variable that is missing in a script must not let everybody in.
pub(super) fn allowed(raw: &RawConfig, name: &str) -> Vec<String> {
    if raw.is_set(name) { raw.list(name) } else { words(raw, name) }
}

/// The words of a list; an empty text has none.
pub(super) fn words(raw: &RawConfig, name: &str) -> Vec<String> {
    let list = raw.list(name);
    if list == [""] { Vec::new() } else { list }
}
