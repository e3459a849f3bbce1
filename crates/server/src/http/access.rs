//! Who may ask by HTTP: hosts and origins.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::Full;

use super::error;
use crate::config::quote;
use crate::log;

/// Names that are allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Allowed {
    /// All.
    #[default]
    Any,
    /// These.
    These(BTreeSet<String>),
}

impl Allowed {
    /// As etcd reads a list: one without any word, or with a `*`, allows all.
    pub fn from_list(list: impl IntoIterator<Item = String>) -> Allowed {
        let names: BTreeSet<String> = list.into_iter().collect();
        if names.is_empty() || names.contains("*") { Allowed::Any } else { Allowed::These(names) }
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Allowed::Any => true,
            Allowed::These(names) => names.contains(name),
        }
    }
}

/// What all HTTP connections share.
#[derive(Clone, Debug)]
pub struct Site {
    /// How long a probe's read may take.
    pub request_timeout: Duration,
    /// `--cors`.
    pub origins: Allowed,
    /// `--host-whitelist`.
    pub hosts: Allowed,
    /// `--enable-pprof`, or debug lines are written.
    pub profiles: bool,
}

impl Site {
    /// The answer to a request for another host: of a page in a browser whose name was turned to this address.
    pub(super) fn refuse_host(&self, head: &Parts) -> Option<Response<Full<Bytes>>> {
        if self.hosts == Allowed::Any {
            return None;
        }
        let header = head.headers.get(HOST).and_then(|value| value.to_str().ok());
        // A URL that names a host itself counts, as in Go.
        let host = head.uri.authority().map(http::uri::Authority::as_str).or(header).unwrap_or_default();
        let host = without_port(host);
        if self.hosts.has(host) {
            return None;
        }
        log::warn!("rejecting HTTP request to prevent DNS rebinding attacks", "host" => host);
        Some(error(StatusCode::MISDIRECTED_REQUEST, &unrecognized(host)))
    }

    /// Tells a browser whether the page may see the answer.
    pub(super) fn allow_origin(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        let allowed = match (&self.origins, origin) {
            (Allowed::Any, _) => HeaderValue::from_static("*"),
            (listed, Some(origin)) if origin.to_str().is_ok_and(|origin| listed.has(origin)) => {
                origin.clone()
            }
            _ => return,
        };
        for (name, value) in [
            ("access-control-allow-headers", "accept, content-type, authorization"),
            ("access-control-allow-methods", "POST, GET, OPTIONS, PUT, DELETE"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers.insert(HeaderName::from_static("access-control-allow-origin"), allowed);
    }
}

/// The host, as Go's `SplitHostPort` finds it; the whole where that fails.
fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return match rest.split_once("]:") {
            Some((address, port)) if !port.contains(':') => address,
            _ => host,
        };
    }
    match host.split_once(':') {
        Some((name, port)) if !port.contains(':') => name,
        _ => host,
    }
}

/// etcd's answer.
fn unrecognized(host: &str) -> String {
    format!(
        "\netcd received your request, but the Host header was unrecognized.\n\n\
         To fix this, choose one of the following options:\n\
         - Enable TLS, then any HTTPS request will be allowed.\n\
         - Add the hostname you want to use to the whitelist in settings.\n  \
         - e.g. etcd --host-whitelist {}\n\n\
         This requirement has been added to help prevent \"DNS Rebinding\" attacks (CVE-2018-5702).\n",
        quote(host)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_gos() {
        for (whole, host) in [
            ("a.b:1", "a.b"),
            ("a.b", "a.b"),
            ("[::1]:2379", "::1"),
            ("[::1]", "[::1]"),
            ("localhost:::", "localhost:::"),
            ("", ""),
        ] {
            assert_eq!(without_port(whole), host, "{whole}");
        }
    }
}
