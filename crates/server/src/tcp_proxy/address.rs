//! Hosts and ports as Go takes them apart.

use std::net::{IpAddr, ToSocketAddrs as _};

/// `host:port` of a URL, or the text itself.
pub(super) fn without_scheme(text: &str) -> &str {
    let Some((_, rest)) = text.split_once("://") else { return text };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rsplit_once('@').map_or(authority, |(_, host)| host) {
        "" => text,
        host => host,
    }
}

/// Host and port; an address of IPv6 without its brackets.
pub(super) fn split(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    match host.strip_prefix('[') {
        Some(bracketed) => Some((bracketed.strip_suffix(']')?, port)),
        None if host.contains([':', '[', ']']) => None,
        None => Some((host, port)),
    }
}

/// The reverse.
pub(super) fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The addresses of a host; nothing if there is none.
pub(super) fn look_up(host: &str) -> Option<Vec<IpAddr>> {
    if host.is_empty() {
        return None;
    }
    let found = (host, 0).to_socket_addrs().ok()?;
    Some(found.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_lose_their_scheme() {
        for (text, expected) in [
            ("127.0.0.1:2379", "127.0.0.1:2379"),
            ("localhost:2379", "localhost:2379"),
            ("http://a:1", "a:1"),
            ("https://a:1/b?c#d", "a:1"),
            ("http://user@a:1", "a:1"),
            ("http://[::1]:1", "[::1]:1"),
            ("unix:///a", "unix:///a"),
        ] {
            assert_eq!(without_scheme(text), expected);
        }
    }

    #[test]
    fn hosts_and_ports_as_go_splits_them() {
        for (text, expected) in [
            ("a:1", Some(("a", "1"))),
            (":1", Some(("", "1"))),
            ("[::1]:1", Some(("::1", "1"))),
            ("a", None),
            ("::1", None),
            ("a:b:1", None),
            ("[::1]", None),
            ("[a]b:1", None),
        ] {
            assert_eq!(split(text), expected, "{text}");
        }
        assert_eq!((join("a", 1), join("::1", 1)), ("a:1".to_owned(), "[::1]:1".to_owned()));
        assert_eq!(look_up(""), None);
        assert_eq!(look_up("127.0.0.1"), Some(vec!["127.0.0.1".parse().unwrap()]));
    }
}
