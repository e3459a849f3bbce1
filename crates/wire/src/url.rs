//! URLs as etcd's flags take them: `http://host:port`, `https://host:port`, `unix://path`.

use std::cmp::Ordering;
use std::fmt;

/// A URL in the form that etcd prints: what is hashed into member ids and shown to clients.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Url {
    text: String,
    scheme: Scheme,
    /// Where the authority is in `text`.
    host: (usize, usize),
    /// Where the path is in `text`, without query and fragment.
    path: (usize, usize),
}

/// What a listener or a peer is reached by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain TCP.
    Http,
    /// TLS over TCP.
    Https,
    /// A socket in the file system.
    Unix,
    /// TLS over a socket in the file system.
    Unixs,
}

impl Url {
    /// Reads one URL.
    ///
    /// # Errors
    /// The text that etcd gives for it.
    pub fn parse(text: &str) -> Result<Url, String> {
        let input = text.trim();
        let fail = |why: String| Err(format!("parse {}: {why}", quote(input)));
        let (body, fragment) = match input.find('#') {
            Some(at) => input.split_at(at),
            None => (input, ""),
        };
        if body.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return fail("net/url: invalid control character in URL".into());
        }
        let (name, rest) = match split_scheme(body) {
            Ok(parts) => parts,
            Err(why) => return fail(why.into()),
        };
        let (rest, query) = match rest.find('?') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let lower = name.to_ascii_lowercase();
        let scheme = match lower.as_str() {
            "http" => Some(Scheme::Http),
            "https" => Some(Scheme::Https),
            "unix" => Some(Scheme::Unix),
            "unixs" => Some(Scheme::Unixs),
            _ => None,
        };
        if name.is_empty()
            && !rest.starts_with('/')
            && rest.split('/').next().is_some_and(|s| s.contains(':'))
        {
            return fail("first path segment in URL cannot contain colon".into());
        }
        let (host, path) = match rest.strip_prefix("//") {
            Some(after) => after.split_at(after.find('/').unwrap_or(after.len())),
            None => ("", rest),
        };
        let authority = host.rsplit_once('@').map_or(host, |(_, host)| host);
        if let Err(why) = check_host(scheme, authority) {
            return fail(why);
        }
        let Some(scheme) = scheme else {
            return Err(format!("URL scheme must be http, https, unix, or unixs: {input}"));
        };
        if matches!(scheme, Scheme::Http | Scheme::Https) {
            if !has_port(authority) {
                return Err(format!("URL address does not have the form \"host:port\": {input}"));
            }
            if !path.is_empty() {
                return Err(format!("URL must not contain a path: {input}"));
            }
        }
        let slashes = if rest.starts_with("//") { "//" } else { "" };
        let mut out = format!("{lower}:{slashes}");
        let user = host.len() - authority.len();
        let host_at = (out.len() + user, out.len() + host.len());
        out.push_str(host);
        let path_at = (out.len(), out.len() + path.len());
        out.push_str(path);
        out.push_str(query);
        out.push_str(fragment);
        Ok(Url { text: out, scheme, host: host_at, path: path_at })
    }

    /// Reads a list separated by commas, sorted, without repetitions.
    ///
    /// # Errors
    /// As [`Url::parse`], for the first that is none.
    pub fn parse_list(text: &str) -> Result<Vec<Url>, String> {
        let mut urls = text.split(',').map(Url::parse).collect::<Result<Vec<Url>, String>>()?;
        urls.sort();
        urls.dedup();
        Ok(urls)
    }

    /// The whole, as etcd prints it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What it is reached by.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host and port, as `host:port`; for a socket the part before the first `/`.
    pub fn authority(&self) -> &str {
        &self.text[self.host.0..self.host.1]
    }

    /// The host, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        split_port(self.authority()).0
    }

    /// The port, empty if there is none.
    pub fn port(&self) -> &str {
        split_port(self.authority()).1
    }

    /// The path, which only a socket has.
    pub fn path(&self) -> &str {
        &self.text[self.path.0..self.path.1]
    }

    /// Whether it is a socket in the file system.
    pub fn is_unix(&self) -> bool {
        matches!(self.scheme, Scheme::Unix | Scheme::Unixs)
    }

    /// Whether it asks for TLS.
    pub fn is_secure(&self) -> bool {
        matches!(self.scheme, Scheme::Https | Scheme::Unixs)
    }

    /// The same with another host; the scheme must be one of TCP.
    pub fn with_host(&self, host: &str, port: &str) -> Url {
        let scheme = if self.scheme == Scheme::Https { "https" } else { "http" };
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Url::parse(&format!("{scheme}://{host}:{port}")).expect("a host and a port make a URL")
    }
}

impl Ord for Url {
    fn cmp(&self, other: &Url) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl PartialOrd for Url {
    fn partial_cmp(&self, other: &Url) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn split_scheme(text: &str) -> Result<(&str, &str), &'static str> {
    for (at, b) in text.bytes().enumerate() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("missing protocol scheme"),
            b':' => return Ok((&text[..at], &text[at + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

fn check_host(scheme: Option<Scheme>, host: &str) -> Result<(), String> {
    if let Some(open) = host.rfind('[') {
        if open > 0 {
            return Err("invalid IP-literal".into());
        }
        let Some(close) = host.rfind(']') else {
            return Err("missing ']' in host".into());
        };
        check_port(&host[close + 1..])?;
        let address = host[1..close].split('%').next().unwrap_or_default();
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(format!("invalid host: ParseAddr({}): unable to parse IP", quote(address)));
        }
        return Ok(());
    }
    let tcp = matches!(scheme, Some(Scheme::Http | Scheme::Https));
    if let Some(at) = if tcp { host.find(':') } else { host.rfind(':') } {
        check_port(&host[at..])?;
    }
    let bytes = host.as_bytes();
    for (at, &b) in bytes.iter().enumerate() {
        let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
        if b == b'%' && !(hex(at + 1) && hex(at + 2)) {
            let end = (at + 3).min(host.len());
            return Err(format!("invalid URL escape {}", quote(host.get(at..end).unwrap_or("%"))));
        }
        if b < 0x80 && !b.is_ascii_alphanumeric() && !b"-_.~!$&'()*+,;=:[]<>\"%".contains(&b) {
            return Err(format!("invalid character {} in host name", quote(&host[at..at + 1])));
        }
    }
    Ok(())
}

fn check_port(text: &str) -> Result<(), String> {
    let valid =
        text.is_empty() || text.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    if valid { Ok(()) } else { Err(format!("invalid port {} after host", quote(text))) }
}

fn has_port(authority: &str) -> bool {
    let after = authority.rfind(']').map_or(authority, |at| &authority[at + 1..]);
    after.contains(':')
}

fn split_port(authority: &str) -> (&str, &str) {
    let (host, port) = match authority.rfind(':') {
        Some(at) if !authority[at..].contains(']') => (&authority[..at], &authority[at + 1..]),
        _ => (authority, ""),
    };
    (host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host), port)
}

/// A text in quotes, as Go's `%q` prints it.
pub fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts recorded from etcd 3.7.1.
    #[test]
    fn refusals_are_etcds() {
        for (url, text) in [
            (":2379", r#"parse ":2379": missing protocol scheme"#),
            ("127.0.0.1:2379", r#"parse "127.0.0.1:2379": first path segment in URL cannot contain colon"#),
            ("1http://x:1", r#"parse "1http://x:1": first path segment in URL cannot contain colon"#),
            ("http://127.0.0.1", r#"URL address does not have the form "host:port": http://127.0.0.1"#),
            ("http://127.0.0.1:abc", r#"parse "http://127.0.0.1:abc": invalid port ":abc" after host"#),
            ("http://::1:3", r#"parse "http://::1:3": invalid port "::1:3" after host"#),
            ("http://[::1:1", r#"parse "http://[::1:1": missing ']' in host"#),
            ("http://a b:1", r#"parse "http://a b:1": invalid character " " in host name"#),
            ("http://%zz:1", r#"parse "http://%zz:1": invalid URL escape "%zz""#),
            ("ftp://127.0.0.1:1", "URL scheme must be http, https, unix, or unixs: ftp://127.0.0.1:1"),
            ("//a:1", "URL scheme must be http, https, unix, or unixs: //a:1"),
            ("abc", "URL scheme must be http, https, unix, or unixs: abc"),
            ("", "URL scheme must be http, https, unix, or unixs: "),
            ("http://127.0.0.1:1/x", "URL must not contain a path: http://127.0.0.1:1/x"),
            ("http://127.0.0.1:1/", "URL must not contain a path: http://127.0.0.1:1/"),
        ] {
            assert_eq!(Url::parse(url), Err(text.to_owned()), "{url}");
        }
    }

    #[test]
    fn parts_are_found() {
        let url = Url::parse(" HTTP://[::1]:2379").unwrap();
        assert_eq!((url.as_str(), url.host(), url.port()), ("http://[::1]:2379", "::1", "2379"));
        let url = Url::parse("unix:///run/etcd.sock").unwrap();
        assert_eq!((url.authority(), url.path(), url.is_unix()), ("", "/run/etcd.sock", true));
        let url = Url::parse("unix://peer.sock").unwrap();
        assert_eq!((url.authority(), url.path()), ("peer.sock", ""));
        let url = Url::parse("unix:/run/x").unwrap();
        assert_eq!((url.as_str(), url.path()), ("unix:/run/x", "/run/x"));
        let list = Url::parse_list("http://b:1,http://a:1,http://b:1").unwrap();
        assert_eq!(list.iter().map(Url::as_str).collect::<Vec<_>>(), ["http://a:1", "http://b:1"]);
    }
}
