//! Whether a peer's certificate is one of the address that it connects from: etcd's check of alternative names.

use std::net::IpAddr;

use tls::{Certificate, verify_hostname};

/// Accepts a certificate without names, one with the address, and one with a name that the address has in the DNS. Who
/// comes by a socket file has no address.
///
/// # Errors
/// etcd's text.
pub(super) async fn verify(certificate: &Certificate, remote: Option<IpAddr>) -> Result<(), String> {
    let (addresses, names) = (&certificate.ip_addresses, &certificate.dns_names);
    if addresses.is_empty() && names.is_empty() {
        return Ok(());
    }
    // What Go makes of a socket's address.
    let remote = remote.ok_or("address @: missing port in address")?;
    if !addresses.is_empty() {
        match verify_hostname(certificate, &remote.to_string()) {
            Ok(()) => return Ok(()),
            Err(why) if names.is_empty() => return Err(why),
            Err(_) => {}
        }
    }
    let Err(why) = is_named(remote, names).await else { return Ok(()) };
    let names = names.iter().map(|name| crate::config::quote(name)).collect::<Vec<_>>().join(" ");
    let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
    Err(format!("tls: \"{remote}\" does not match any of DNSNames [{names}]{why}"))
}

/// Looks the address up, then the names. Wildcards count for the first only.
async fn is_named(remote: IpAddr, names: &[String]) -> Result<(), String> {
    let mut failure = String::new();
    let found = tokio::task::spawn_blocking(move || dns_lookup::lookup_addr(&remote)).await;
    match found.map_err(|error| error.to_string())? {
        Ok(found) => {
            let found = found.strip_suffix('.').unwrap_or(&found);
            let fits = |name: &str| match name.strip_prefix('*') {
                Some(suffix) if suffix.starts_with('.') => found.ends_with(suffix),
                _ => found == name,
            };
            if names.iter().any(|name| fits(name)) {
                return Ok(());
            }
        }
        Err(error) => failure = format!("lookup {remote}: {error}"),
    }
    for name in names.iter().filter(|name| !name.starts_with("*.")) {
        match tokio::net::lookup_host((name.as_str(), 0)).await {
            Ok(mut addresses) => {
                if addresses.any(|address| address.ip() == remote) {
                    return Ok(());
                }
            }
            Err(error) => failure = format!("lookup {name}: {}", crate::go_error(&error)),
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str]) -> Certificate {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let key = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        Certificate::parse(made.der()).unwrap()
    }

    /// As Go, which makes nothing of the address of a socket file.
    #[tokio::test]
    async fn who_comes_by_a_socket_has_no_address() {
        verify(&certificate(&[]), None).await.unwrap();
        for names in [&["127.0.0.1"][..], &["localhost"], &["127.0.0.1", "localhost"]] {
            let why = verify(&certificate(names), None).await.unwrap_err();
            assert_eq!(why, "address @: missing port in address");
        }
        verify(&certificate(&["127.0.0.1"]), Some([127, 0, 0, 1].into())).await.unwrap();
    }

    #[tokio::test]
    async fn an_address_is_named_by_the_host_file() {
        let here: IpAddr = [127, 0, 0, 1].into();
        is_named(here, &["nobody.invalid".to_owned(), "localhost".to_owned()]).await.unwrap();
        let elsewhere: IpAddr = [192, 0, 2, 1].into();
        assert!(is_named(elsewhere, &["localhost".to_owned()]).await.is_err());
    }
}
