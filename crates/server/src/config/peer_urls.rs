//! Whether two lists of peer URLs mean the same, as etcd compares them (pkg/netutil): as they are written, or else with the
//! addresses of their hosts in the place of names.

use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{Url, quote};
use crate::log;

/// How long names are looked up again that nobody knows yet; etcd's. A pod runs some seconds before its name is known.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two look-ups of a name; etcd's.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Whom names are asked of, and for how long. All comparisons that share it share its time, as they do in etcd.
pub trait Names {
    /// The first address of a host.
    ///
    /// # Errors
    /// Why there is none, in Go's words.
    fn look_up(&self, host: &str) -> Result<IpAddr, String>;

    /// How much time is left. Without any nothing is looked up.
    fn left(&self) -> Duration;

    /// Waits.
    fn pause(&self, time: Duration);
}

/// The system's resolver and clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemNames {
    ends_at: Instant,
}

impl SystemNames {
    /// Has its time from now on.
    pub fn within(patience: Duration) -> SystemNames {
        SystemNames { ends_at: Instant::now() + patience }
    }
}

impl Names for SystemNames {
    fn look_up(&self, host: &str) -> Result<IpAddr, String> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let name = host.to_owned();
        // A look-up can't be given up: its thread ends with it, and nobody waits for that.
        let looking = std::thread::Builder::new().name("look-up".to_owned());
        let begun = looking.spawn(move || drop(sender.send(first_address(&name))));
        begun.map_err(|error| format!("lookup {host}: {}", crate::go_error(&error)))?;
        receiver.recv_timeout(self.left()).unwrap_or_else(|_| Err(format!("lookup {host}: i/o timeout")))
    }

    fn left(&self) -> Duration {
        self.ends_at.saturating_duration_since(Instant::now())
    }

    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

fn first_address(host: &str) -> Result<IpAddr, String> {
    let mut found =
        (host, 0).to_socket_addrs().map_err(|error| format!("lookup {host}: {}", in_gos_words(&error)))?;
    found.next().map(|address| address.ip()).ok_or_else(|| format!("lookup {host}: no such host"))
}

fn in_gos_words(error: &io::Error) -> String {
    let text = crate::go_error(error);
    match text.strip_prefix("failed to lookup address information: ").unwrap_or(&text) {
        "Name or service not known" | "No address associated with hostname" => "no such host".to_owned(),
        other => other.to_owned(),
    }
}

/// Whether two sorted lists mean the same; in etcd's words why not.
pub(crate) fn same(one: &[Url], other: &[Url], names: &dyn Names) -> Result<(), String> {
    if one.len() != other.len() {
        let list = |urls: &[Url]| {
            format!("[{}]", urls.iter().map(|url| quote(url.as_str())).collect::<Vec<_>>().join(" "))
        };
        return Err(format!("len({}) != len({})", list(one), list(other)));
    }
    if one.iter().zip(other).all(|(one, other)| is_same(one, other)) {
        return Ok(());
    }
    let resolve = |urls: &[Url]| -> Result<Vec<Url>, String> {
        let mut all = urls.iter().map(|url| resolved(url, names)).collect::<Result<Vec<_>, _>>()?;
        all.sort();
        Ok(all)
    };
    let (one, other) = (resolve(one)?, resolve(other)?);
    match one.iter().zip(&other).find(|(one, other)| !is_same(one, other)) {
        None => Ok(()),
        Some((one, other)) => {
            Err(format!("resolved urls: {} != {}", quote(one.as_str()), quote(other.as_str())))
        }
    }
}

/// What etcd compares of two URLs.
fn is_same(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme() && place(one) == place(other) && one.path() == other.path()
}

/// Host and port; an address in the one form that it has.
fn place(url: &Url) -> (String, &str) {
    match url.host().parse::<IpAddr>() {
        Ok(address) => (address.to_canonical().to_string(), url.port()),
        Err(_) => (url.authority().to_owned(), ""),
    }
}

/// The URL with its host's address. A name that nobody knows is looked up again as long as there is time.
fn resolved(url: &Url, names: &dyn Names) -> Result<Url, String> {
    let host = url.host();
    if url.is_unix() || host == "localhost" {
        return Ok(url.clone());
    }
    let with = |address: IpAddr| url.with_host(&address.to_canonical().to_string(), url.port());
    if let Ok(address) = host.parse() {
        return Ok(with(address));
    }
    let mut error = "context deadline exceeded".to_owned();
    while !names.left().is_zero() {
        match names.look_up(host) {
            Ok(address) => {
                let resolved = with(address);
                log::info!(
                    "resolved URL Host",
                    "url" => url,
                    "host" => url.authority(),
                    "resolved-addr" => resolved.authority(),
                );
                return Ok(resolved);
            }
            Err(why) => error = why,
        }
        log::warn!(
            "failed to resolve URL Host",
            "url" => url,
            "host" => url.authority(),
            "retry-interval" => RETRY_INTERVAL,
            "error" => error,
        );
        names.pause(RETRY_INTERVAL.min(names.left()));
    }
    Err(format!("failed to resolve {} ({error})", quote(url.as_str())))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// Names, each with its address and how long it takes until it is known, on a clock that pauses alone move.
    pub(crate) struct Known {
        names: Vec<(&'static str, &'static str, Duration)>,
        now: Cell<Duration>,
        patience: Duration,
        pub(crate) asked: RefCell<Vec<String>>,
    }

    impl Known {
        pub(crate) fn new(names: &[(&'static str, &'static str, u64)], patience: Duration) -> Known {
            let from_secs = |&(name, address, seconds)| (name, address, Duration::from_secs(seconds));
            let names = names.iter().map(from_secs).collect();
            Known { names, now: Cell::default(), patience, asked: RefCell::default() }
        }
    }

    impl Names for Known {
        fn look_up(&self, host: &str) -> Result<IpAddr, String> {
            self.asked.borrow_mut().push(host.to_owned());
            let known = |(name, _, from): &&(&str, &str, Duration)| *name == host && *from <= self.now.get();
            let found = self.names.iter().find(known).map(|(_, address, _)| address.parse().unwrap());
            found.ok_or_else(|| format!("lookup {host}: no such host"))
        }

        fn left(&self) -> Duration {
            self.patience.saturating_sub(self.now.get())
        }

        fn pause(&self, time: Duration) {
            self.now.set(self.now.get() + time);
        }
    }

    fn urls(texts: &[&str]) -> Vec<Url> {
        let mut urls: Vec<Url> = texts.iter().map(|text| Url::parse(text).unwrap()).collect();
        urls.sort();
        urls
    }

    fn names() -> Known {
        let names = [
            ("a.example", "10.0.0.1", 0),
            ("b.example", "10.0.0.2", 0),
            ("six.example", "fd00::1", 0),
            ("late.example", "10.0.0.9", 20),
        ];
        Known::new(&names, PATIENCE)
    }

    /// The cases of etcd's own test, and what its comparison leaves out.
    #[test]
    fn urls_are_compared_as_etcd_compares_them() {
        for (one, other, expected) in [
            (&["http://a.example:1"][..], &["http://10.0.0.1:1"][..], Ok(())),
            (
                &["http://a.example:1"],
                &["https://10.0.0.1:1"],
                Err(r#"resolved urls: "http://10.0.0.1:1" != "https://10.0.0.1:1""#),
            ),
            (
                &["http://a.example:2"],
                &["http://10.0.0.1:1"],
                Err(r#"resolved urls: "http://10.0.0.1:2" != "http://10.0.0.1:1""#),
            ),
            (
                &["http://a.example:1", "http://b.example:1"],
                &["http://10.0.0.2:1", "http://10.0.0.1:1"],
                Ok(()),
            ),
            (
                &["http://10.0.0.1:1"],
                &["http://10.0.0.1:1", "http://b:1"],
                Err(r#"len(["http://10.0.0.1:1"]) != len(["http://10.0.0.1:1" "http://b:1"])"#),
            ),
            (&["https://[fd00:0::0001]:1"], &["https://[fd00::1]:1"], Ok(())),
            (&["https://six.example:1"], &["https://[fd00:0::1]:1"], Ok(())),
            (&["http://[::ffff:10.0.0.1]:1"], &["http://10.0.0.1:1"], Ok(())),
            // Its address is not asked for.
            (
                &["http://localhost:1"],
                &["http://127.0.0.1:1"],
                Err(r#"resolved urls: "http://localhost:1" != "http://127.0.0.1:1""#),
            ),
            (&["unix://a:1"], &["unix://a:1"], Ok(())),
            (&["unix:///a"], &["unixs:///a"], Err(r#"resolved urls: "unix:///a" != "unixs:///a""#)),
            (&["unix:///a"], &["unix:///b"], Err(r#"resolved urls: "unix:///a" != "unix:///b""#)),
        ] {
            let found = same(&urls(one), &urls(other), &names());
            assert_eq!(found, expected.map_err(str::to_owned), "{one:?} {other:?}");
        }
    }

    #[test]
    fn what_is_written_the_same_is_not_looked_up() {
        let names = names();
        let list = urls(&["http://nobody.example:1", "http://a.example:1"]);
        assert_eq!(same(&list, &list, &names), Ok(()));
        assert_eq!(*names.asked.borrow(), Vec::<String>::new());
    }

    #[test]
    fn a_name_that_comes_late_is_waited_for() {
        let names = names();
        assert_eq!(same(&urls(&["http://late.example:1"]), &urls(&["http://10.0.0.9:1"]), &names), Ok(()));
        assert_eq!(names.now.get(), Duration::from_secs(20));
        assert_eq!(names.asked.borrow().len(), 21);
    }

    /// All that is compared shares the time; then nothing is looked up any more.
    #[test]
    fn a_name_that_never_comes_ends_with_the_patience() {
        let names = names();
        let (never, address) = (urls(&["http://never.example:1"]), urls(&["http://10.0.0.1:1"]));
        let refused = same(&never, &address, &names).unwrap_err();
        assert_eq!(
            refused,
            r#"failed to resolve "http://never.example:1" (lookup never.example: no such host)"#
        );
        assert_eq!((names.now.get(), names.asked.take().len()), (PATIENCE, 30));
        let refused = same(&urls(&["http://b.example:1"]), &address, &names).unwrap_err();
        assert_eq!(refused, r#"failed to resolve "http://b.example:1" (context deadline exceeded)"#);
        assert_eq!(*names.asked.borrow(), Vec::<String>::new());
    }

    #[test]
    fn failed_look_ups_are_told_in_gos_words() {
        let told = |text: &str| in_gos_words(&io::Error::other(text));
        assert_eq!(told("failed to lookup address information: Name or service not known"), "no such host");
        assert_eq!(
            told("failed to lookup address information: Temporary failure in name resolution"),
            "Temporary failure in name resolution"
        );
    }
}
