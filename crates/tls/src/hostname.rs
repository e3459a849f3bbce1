//! Whether a certificate is valid for a name, as Go's `VerifyHostname` decides it.

use std::net::IpAddr;

use crate::Certificate;

/// Whether the certificate is valid for this name or address. The common name does not count; a wildcard is a whole
/// first label and stands for just one.
///
/// # Errors
/// Go's text.
pub fn verify_hostname(certificate: &Certificate, host: &str) -> Result<(), String> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        let found = certificate.ip_addresses.iter().any(|ip| ip.to_canonical() == address.to_canonical());
        return if found { Ok(()) } else { Err(refusal(certificate, bare, true)) };
    }
    let candidate = host.to_ascii_lowercase();
    let is_name = is_valid(&candidate, false);
    let found = certificate.dns_names.iter().any(|pattern| match is_name && is_valid(pattern, true) {
        true => matches(&pattern.to_ascii_lowercase(), &candidate),
        false => !candidate.is_empty() && pattern.eq_ignore_ascii_case(&candidate),
    });
    if found { Ok(()) } else { Err(refusal(certificate, host, false)) }
}

fn refusal(certificate: &Certificate, host: &str, is_address: bool) -> String {
    let names: Vec<String> = match is_address {
        true => certificate.ip_addresses.iter().map(ToString::to_string).collect(),
        false => certificate.dns_names.clone(),
    };
    let has_names = !certificate.dns_names.is_empty() || !certificate.ip_addresses.is_empty();
    if is_address && names.is_empty() {
        return format!(
            "x509: cannot validate certificate for {host} because it doesn't contain any IP SANs"
        );
    }
    if !has_names && is_valid(&certificate.common_name, true) {
        return "x509: certificate relies on legacy Common Name field, use SANs instead".to_owned();
    }
    if names.is_empty() {
        return format!("x509: certificate is not valid for any names, but wanted to match {host}");
    }
    format!("x509: certificate is valid for {}, not {host}", names.join(", "))
}

/// A name that could be one of the DNS.
fn is_valid(name: &str, is_pattern: bool) -> bool {
    let name = if is_pattern { name } else { name.strip_suffix('.').unwrap_or(name) };
    if name.is_empty() || name == "*" {
        return false;
    }
    name.split('.').enumerate().all(|(position, label)| {
        if is_pattern && position == 0 && label == "*" {
            return true;
        }
        let is_good = |(at, byte): (usize, u8)| match byte {
            b'-' => at != 0,
            byte => byte.is_ascii_alphanumeric() || byte == b'_',
        };
        !label.is_empty() && label.bytes().enumerate().all(is_good)
    })
}

fn matches(pattern: &str, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let mut hosts = host.split('.');
    let mut patterns = pattern.split('.');
    let first = (patterns.next(), hosts.next());
    let first = matches!(first, (Some(pattern), Some(host)) if pattern == "*" || pattern == host);
    first && patterns.eq(hosts)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::certificate::tests_only;

    fn holds(dns: &[&str], ips: &[&str], host: &str) -> bool {
        let mut certificate = tests_only::empty(UNIX_EPOCH);
        certificate.dns_names = dns.iter().map(ToString::to_string).collect();
        certificate.ip_addresses = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        verify_hostname(&certificate, host).is_ok()
    }

    #[test]
    fn names_match_as_in_go() {
        assert!(holds(&["good.example"], &[], "good.example"));
        assert!(holds(&["GOOD.example"], &[], "good.EXAMPLE"));
        assert!(holds(&["good.example"], &[], "good.example."));
        assert!(holds(&["*.example"], &[], "good.example"));
        assert!(!holds(&["*.example"], &[], "example"));
        assert!(!holds(&["*.example"], &[], "a.good.example"));
        assert!(!holds(&["g*.example"], &[], "good.example"));
        assert!(!holds(&["*"], &[], "good"));
        assert!(!holds(&[".example"], &[], "good.example"));
        assert!(!holds(&[], &[], ""));
        assert!(holds(&[], &["127.0.0.1"], "127.0.0.1"));
        assert!(holds(&[], &["::1"], "[::1]"));
        assert!(!holds(&["127.0.0.1"], &[], "127.0.0.1"), "an address is no name");
    }

    #[test]
    fn refusals_are_gos() {
        let mut certificate = tests_only::empty(UNIX_EPOCH);
        let text = |certificate: &Certificate, host: &str| verify_hostname(certificate, host).unwrap_err();
        assert_eq!(
            text(&certificate, "a.b"),
            "x509: certificate is not valid for any names, but wanted to match a.b"
        );
        certificate.common_name = "a.b".to_owned();
        assert_eq!(
            text(&certificate, "a.b"),
            "x509: certificate relies on legacy Common Name field, use SANs instead"
        );
        assert_eq!(
            text(&certificate, "10.0.0.1"),
            "x509: cannot validate certificate for 10.0.0.1 because it doesn't contain any IP SANs"
        );
        certificate.dns_names = vec!["x".to_owned(), "y".to_owned()];
        assert_eq!(text(&certificate, "a.b"), "x509: certificate is valid for x, y, not a.b");
    }
}
