//! What one network thread counts: calls, requests, reads and watches. Each thread has numbers of its own, which it alone
//! changes; the page adds them up.

use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use store::RequestKind;

use super::Metrics;
use super::cells::{CallDurations, Counter, Durations, MS, US, nanoseconds};
use crate::grpc::method::Method;

/// gRPC's codes.
pub const CODES: usize = 17;
/// Versions that clients say they have, which are counted apart. A version is what a client likes it to be, so their number
/// is bounded, and their length.
pub(super) const VERSIONS_MAX: usize = 64;
const VERSION_BYTES_MAX: usize = 64;
/// The number of what has no version, and of all that are too many.
const UNKNOWN: ClientVersion = ClientVersion(0);
const OTHER: ClientVersion = ClientVersion(VERSIONS_MAX as u8 - 1);

/// One method's calls.
#[derive(Debug, Default)]
pub struct MethodCounts {
    /// Calls that have begun.
    pub started: Counter,
    /// Messages of clients.
    pub received: Counter,
    /// Messages for clients.
    pub sent: Counter,
    /// Calls that have ended, by their codes.
    pub handled: [Counter; CODES],
}

/// A kind of request whose duration is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timed {
    /// A transaction that only reads.
    ReadonlyTxn,
    /// Any other.
    Kind(RequestKind),
}

impl Timed {
    const COUNT: usize = RequestKind::ALL.len() + 1;

    fn number(self) -> usize {
        match self {
            Timed::Kind(kind) => kind.number(),
            Timed::ReadonlyTxn => RequestKind::ALL.len(),
        }
    }

    /// All of them, with their names.
    pub fn all() -> impl Iterator<Item = (Timed, &'static str)> {
        let kinds = RequestKind::ALL.iter().map(|kind| (Timed::Kind(*kind), kind.name()));
        kinds.chain([(Timed::ReadonlyTxn, "ReadonlyTxn")])
    }
}

/// How long requests took, without success and with it.
pub type Outcomes<const FIRST_NS: u64, const N: usize> = [Durations<FIRST_NS, N>; 2];

/// The numbers of one thread.
#[derive(Debug)]
pub struct LaneCounts {
    methods: [MethodCounts; Method::COUNT],
    /// Unless nobody wants to know.
    handling: Option<Box<[CallDurations]>>,
    /// Calls by the versions of their clients: with one answer, and streams.
    clients: [[Counter; VERSIONS_MAX]; 2],
    requests: [Outcomes<MS, 14>; Timed::COUNT],
    /// Reads of one range, without success and with it.
    pub ranges: Outcomes<{ 100 * US }, 20>,
    /// Bytes of messages for clients.
    pub sent_bytes: Counter,
    /// Bytes of messages of clients.
    pub received_bytes: Counter,
    /// Ranges read, those in transactions that only read too.
    pub ranges_read: Counter,
    /// Transactions that only read, with more than one range.
    pub txns_read: Counter,
    /// Gauge: proposals without an answer yet.
    pub proposals_pending: Counter,
    /// Proposals that were not taken, or had no answer in time.
    pub proposals_failed: Counter,
    /// Rounds of reads without an answer in time.
    pub slow_read_indexes: Counter,
    /// Rounds of reads that failed.
    pub failed_read_indexes: Counter,
    /// Streams of watches and of renewals on which a message could not be understood.
    pub stream_failures: [Counter; 2],
    /// What is sent to watches.
    pub watches: WatchCounts,
}

/// The watches of one thread.
#[derive(Debug, Default)]
pub struct WatchCounts {
    /// Gauge: streams.
    pub streams: Counter,
    /// Gauge: watches.
    pub watches: Counter,
    /// Gauge: watches that are behind.
    pub behind: Counter,
    /// Events that streams have taken.
    pub events: Counter,
    /// Gauge: events that wait to be taken.
    pub events_waiting: Counter,
    /// How long it took to send what had events.
    pub event_sends: Durations<MS, 14>,
    /// The same, divided by the number of events.
    pub event_shares: Durations<MS, 14>,
    /// How long it took to send what had none.
    pub control_sends: Durations<MS, 14>,
    /// How long it took to tell a stream's watches of progress.
    pub progress_turns: Durations<MS, 14>,
}

impl LaneCounts {
    pub(super) fn new(is_extensive: bool) -> LaneCounts {
        let handling = || (0..Method::COUNT).map(|_| CallDurations::default()).collect();
        LaneCounts {
            methods: std::array::from_fn(|_| MethodCounts::default()),
            handling: is_extensive.then(handling),
            clients: std::array::from_fn(|_| std::array::from_fn(|_| Counter::default())),
            requests: std::array::from_fn(|_| Outcomes::default()),
            ranges: Outcomes::default(),
            sent_bytes: Counter::default(),
            received_bytes: Counter::default(),
            ranges_read: Counter::default(),
            txns_read: Counter::default(),
            proposals_pending: Counter::default(),
            proposals_failed: Counter::default(),
            slow_read_indexes: Counter::default(),
            failed_read_indexes: Counter::default(),
            stream_failures: std::array::from_fn(|_| Counter::default()),
            watches: WatchCounts::default(),
        }
    }

    /// A method's calls.
    #[inline]
    pub fn method(&self, method: Method) -> &MethodCounts {
        &self.methods[method.number()]
    }

    /// How long a method's calls took, where that is measured.
    pub fn handling(&self, method: Method) -> Option<&CallDurations> {
        self.handling.as_ref().map(|handling| &handling[method.number()])
    }

    /// Calls of clients of a version, by its number: with one answer, and streams.
    pub(super) fn clients(&self, is_stream: bool, version: usize) -> &Counter {
        &self.clients[usize::from(is_stream)][version]
    }

    /// How long requests took, without success and with it.
    pub fn requests(&self, timed: Timed) -> &Outcomes<MS, 14> {
        &self.requests[timed.number()]
    }
}

/// A version that a client says it has, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientVersion(u8);

/// A thread's own end of its numbers: it alone has one. Cheap to clone.
#[derive(Clone)]
pub struct Own(Rc<Owned>);

struct Owned {
    counts: Arc<LaneCounts>,
    metrics: Arc<Metrics>,
    versions: RefCell<Met>,
}

/// Versions that a thread has met.
#[derive(Debug, Default)]
struct Met {
    known: Vec<(HeaderValue, ClientVersion)>,
    /// Whether they are all that have numbers, and all that will have.
    is_complete: bool,
}

impl Deref for Own {
    type Target = LaneCounts;

    fn deref(&self) -> &LaneCounts {
        &self.0.counts
    }
}

impl Own {
    pub(super) fn new(counts: Arc<LaneCounts>, metrics: Arc<Metrics>) -> Own {
        Own(Rc::new(Owned { counts, metrics, versions: RefCell::default() }))
    }

    /// The number of the version that a call's header `client-api-version` has; `None` if that is no text.
    pub fn client_version(&self, header: Option<&HeaderValue>) -> Option<ClientVersion> {
        let Some(value) = header else { return Some(UNKNOWN) };
        let mut met = self.0.versions.borrow_mut();
        if let Some((_, version)) = met.known.iter().find(|(known, _)| known == value) {
            return Some(*version);
        }
        let text = std::str::from_utf8(value.as_bytes()).ok()?;
        if met.is_complete || text.len() > VERSION_BYTES_MAX {
            return Some(OTHER);
        }
        let version = self.0.metrics.version_number(text);
        if version == OTHER {
            // No number is left, so that nobody has to be asked again.
            *met = Met { known: self.0.metrics.all_versions(), is_complete: true };
        } else {
            met.known.push((value.clone(), version));
        }
        Some(version)
    }

    /// A call of a client of this version has begun.
    #[inline]
    pub fn count_client(&self, is_stream: bool, version: ClientVersion) {
        self.clients(is_stream, usize::from(version.0)).add_alone(1);
    }

    /// A request of the member has come to its end.
    #[inline]
    pub fn time_request(&self, timed: Timed, is_success: bool, took: Duration) {
        self.requests(timed)[usize::from(is_success)].observe_alone(nanoseconds(took), 1);
    }
}

/// The versions of clients, by their numbers.
#[derive(Clone, Debug)]
pub(super) struct Versions(Vec<String>);

impl Default for Versions {
    fn default() -> Self {
        Versions(vec!["unknown".to_owned()])
    }
}

impl Versions {
    /// The number of a version, which is given one if there is any left.
    pub(super) fn number(&mut self, text: &str) -> ClientVersion {
        if let Some(place) = self.0.iter().position(|known| known == text) {
            return ClientVersion(place as u8);
        }
        if self.0.len() >= usize::from(OTHER.0) || text.len() > VERSION_BYTES_MAX {
            return OTHER;
        }
        self.0.push(text.to_owned());
        ClientVersion(self.0.len() as u8 - 1)
    }

    /// All that have a number, as they come in a header.
    pub(super) fn headers(&self) -> Vec<(HeaderValue, ClientVersion)> {
        let header = |(number, text): (usize, &String)| {
            // It came as one.
            Some((HeaderValue::from_bytes(text.as_bytes()).ok()?, ClientVersion(number as u8)))
        };
        self.0.iter().enumerate().filter_map(header).collect()
    }

    /// The names of all numbers that may have been counted.
    pub(super) fn names(&self) -> impl Iterator<Item = (usize, &str)> {
        let known = self.0.iter().map(String::as_str).enumerate();
        known.chain([(usize::from(OTHER.0), "other")])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_knows_all_versions_asks_nobody() {
        let metrics = Arc::new(Metrics::default());
        let (one, other) = (metrics.lane(0), metrics.lane(1));
        let number = |own: &Own, text: &str| own.client_version(Some(&HeaderValue::from_str(text).unwrap()));
        let first = number(&one, "3.7.1");
        for number_of in 0..2 * VERSIONS_MAX {
            number(&one, &number_of.to_string());
        }
        assert_eq!(number(&other, "one more"), Some(OTHER));
        let held = super::super::lock(&metrics.versions);
        assert_eq!([number(&one, "another"), number(&other, "another")], [Some(OTHER); 2]);
        assert_eq!([number(&one, "3.7.1"), number(&other, "3.7.1")], [first; 2]);
        assert_eq!(number(&other, "unknown"), Some(UNKNOWN));
        drop(held);
    }

    #[test]
    fn versions_are_told_apart_until_there_are_too_many() {
        let mut versions = Versions::default();
        assert_eq!(versions.number("unknown"), UNKNOWN);
        let first = versions.number("3.7.1");
        assert_eq!((first, versions.number("3.7.1")), (ClientVersion(1), first));
        assert_eq!(versions.number(&"x".repeat(VERSION_BYTES_MAX + 1)), OTHER);
        for number in 0..2 * VERSIONS_MAX {
            versions.number(&number.to_string());
        }
        assert_eq!(versions.number("one more"), OTHER);
        assert_eq!(versions.names().count(), VERSIONS_MAX);
        assert_eq!(versions.names().last(), Some((VERSIONS_MAX - 1, "other")));
    }
}
