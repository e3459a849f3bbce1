//! Where a server listens, as users write it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use http::uri::Authority;

use crate::Error;

/// One address of a server: `host:port`, `:port` (of this machine), `http://host:port`, `unix:path` or `unix://path`; with
/// `https` and `unixs` in their place by TLS.
///
/// Shows itself as it was written: the commands print it so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    text: String,
    target: Target,
    /// What requests carry as `:authority`.
    authority: Authority,
    security: Wish,
}

/// What an endpoint says about TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// `https` or `unixs`: with TLS, whatever else is set.
    Secure,
    /// `http`: without.
    Plain,
    /// Nothing, or `unix`: with TLS if there are certificates or the user has asked for it.
    Either,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A host, or an address literal in brackets, and a port.
    Tcp(String),
    Unix(PathBuf),
}

/// As Go names what it dials.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp(host) => write!(f, "dial tcp {host}"),
            Target::Unix(path) => write!(f, "dial unix {}", path.display()),
        }
    }
}

impl Endpoint {
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    pub(crate) fn security(&self) -> Wish {
        self.security
    }

    /// Whether it is reached with TLS, if those are that say nothing about it.
    pub(crate) fn is_secure(&self, by_default: bool) -> bool {
        match self.security {
            Wish::Secure => true,
            Wish::Plain => false,
            Wish::Either => by_default,
        }
    }

    /// The server's name in its certificate.
    pub(crate) fn server_name(&self) -> &str {
        self.authority.host()
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    /// # Errors
    /// [`Error::BadEndpoint`] without a host or port.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |reason| Error::BadEndpoint { endpoint: text.to_owned(), reason };
        let (scheme, rest) = match text.split_once("://") {
            Some(parts) => parts,
            None => match text.split_once(':') {
                Some((scheme @ ("unix" | "unixs"), path)) => (scheme, path),
                _ => ("", text),
            },
        };
        let security = match scheme {
            // As etcd's client has it: who gives certificates wants them used, also on a socket.
            "" | "unix" => Wish::Either,
            "https" | "unixs" => Wish::Secure,
            _ => Wish::Plain,
        };
        match scheme {
            "" | "http" | "https" => {
                let host = rest.split('/').next().unwrap_or_default();
                // As in Go, a port alone is one of this machine.
                let host = if host.starts_with(':') { format!("localhost{host}") } else { host.to_owned() };
                let authority: Authority = host.parse().map_err(|_| bad("invalid host"))?;
                if authority.host().is_empty() {
                    return Err(bad("missing host"));
                }
                if authority.port_u16().is_none() {
                    return Err(bad("missing or invalid port in address"));
                }
                Ok(Endpoint { text: text.to_owned(), target: Target::Tcp(host), authority, security })
            }
            "unix" | "unixs" => {
                if rest.is_empty() {
                    return Err(bad("missing path of the socket"));
                }
                // The name that Go's client asks for: the file's.
                let name = rest.rsplit('/').next().unwrap_or_default();
                let authority = name.parse().unwrap_or_else(|_| Authority::from_static("localhost"));
                Ok(Endpoint { text: text.to_owned(), target: Target::Unix(rest.into()), authority, security })
            }
            _ => Err(bad("unknown scheme")),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_etcdctl_accepts() {
        let tcp = |text: &str| match text.parse::<Endpoint>().unwrap().target {
            Target::Tcp(host) => host,
            Target::Unix(path) => panic!("{path:?}"),
        };
        assert_eq!(tcp("127.0.0.1:2379"), "127.0.0.1:2379");
        assert_eq!(tcp("http://localhost:2379"), "localhost:2379");
        assert_eq!(tcp("http://[::1]:2379/"), "[::1]:2379");
        assert_eq!(tcp(":2379"), "localhost:2379");
        assert_eq!(tcp("http://:2379"), "localhost:2379");
        for text in ["unix:///run/etcd.sock", "unix:/run/etcd.sock"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().target, Target::Unix("/run/etcd.sock".into()));
        }
        let security = |text: &str| text.parse::<Endpoint>().unwrap().security();
        assert_eq!(security("a:1"), Wish::Either);
        assert_eq!(security("http://a:1"), Wish::Plain);
        assert_eq!(security("https://a:1"), Wish::Secure);
        assert_eq!(security("unixs:///a"), Wish::Secure);
        assert_eq!(security("unix:///a"), Wish::Either);
        assert_eq!("unix:///run/etcd.sock".parse::<Endpoint>().unwrap().server_name(), "etcd.sock");
        assert_eq!("http://a:1".parse::<Endpoint>().unwrap().to_string(), "http://a:1");
    }

    #[test]
    fn refuses_what_it_cannot_reach() {
        for text in ["", "host", "http://", "http://host", "ftp://host:1", "unix:", "a b:1", "a:x", "a:99999"]
        {
            assert!(matches!(text.parse::<Endpoint>(), Err(Error::BadEndpoint { .. })), "{text}");
        }
    }
}
