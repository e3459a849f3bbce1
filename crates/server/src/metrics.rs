//! The page `/metrics` in Prometheus' text format, so far what a store's space and a cluster's connections are watched by.
//!
//! A metric is a line in [`page`], or in `peers.rs`: kind, name, help, value. Names that etcd has are etcd's, and mean what they mean there;
//! the others begin with `quorate_`.

mod peers;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::grpc::MemberView;
use crate::peer::Durations;

/// What the page is served as.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// May rise and fall.
    Gauge,
    /// Only rises, as long as the process runs.
    Counter,
    /// How many were no greater than each of some bounds.
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        }
    }
}

/// A page that is being written: the lines of each metric by its name.
#[derive(Debug, Default)]
struct Page(BTreeMap<&'static str, String>);

impl Page {
    fn add(&mut self, kind: Kind, name: &'static str, help: &str, value: f64) {
        self.sample((kind, name, help), "", "", value);
    }

    /// One sample of a metric that has several. `labels` is as it is written, without the braces. A metric without any
    /// sample is not on the page, as in Go's library.
    fn sample(
        &mut self,
        (kind, name, help): (Kind, &'static str, &str),
        suffix: &str,
        labels: &str,
        value: f64,
    ) {
        let lines = self.0.entry(name).or_default();
        // Writing to a string never fails.
        if lines.is_empty() {
            let _ = writeln!(lines, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
        }
        let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
        let _ = writeln!(lines, "{name}{suffix}{open}{labels}{close} {}", number(value));
    }

    /// A histogram of durations, if there were any.
    fn durations<const FIRST_US: u64, const N: usize>(
        &mut self,
        name: &'static str,
        help: &str,
        label: &str,
        durations: &Durations<FIRST_US, N>,
    ) {
        let count = durations.count();
        if count == 0 {
            return;
        }
        let what = (Kind::Histogram, name, help);
        for (bound, sum) in durations.buckets() {
            let labels = format!("{label},le=\"{}\"", number(bound));
            self.sample(what, "_bucket", &labels, sum as f64);
        }
        self.sample(what, "_bucket", &format!("{label},le=\"+Inf\""), count as f64);
        self.sample(what, "_sum", label, durations.sum_s());
        self.sample(what, "_count", label, count as f64);
    }

    /// The whole page.
    fn text(self) -> String {
        self.0.into_values().collect()
    }
}

/// A number as Go's client library writes it: the shortest digits, with an exponent from a million on and below 0.0001.
fn number(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 || (1e-4..1e6).contains(&magnitude) || !value.is_finite() {
        return match value {
            f64::INFINITY => "+Inf".into(),
            f64::NEG_INFINITY => "-Inf".into(),
            value => value.to_string(),
        };
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').expect("an exponent was asked for");
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

/// The page of a member, in the order of names.
pub fn page(member: &MemberView) -> String {
    use Kind::{Counter, Gauge};
    let mut page = Page::default();
    let size = member.reader.size_bytes() as f64;
    let space = (member.space)();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    let counters = &member.merges;
    let auth_revision = member.reader.auth().revision() as f64;
    let status = &member.status;
    let is = |yes: bool| f64::from(u8::from(yes));
    page.add(Gauge, "etcd_debugging_auth_revision", "The current revision of auth store.", auth_revision);
    page.add(
        Gauge,
        "etcd_mvcc_db_total_size_in_bytes",
        "Size of the data in bytes: the length of a snapshot taken now.",
        size,
    );
    page.add(
        Gauge,
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "The same: what compactions drop does not count.",
        size,
    );
    page.add(
        Gauge,
        "etcd_server_has_leader",
        "Whether or not a leader exists. 1 is existence, 0 is not.",
        is(status.leader() != 0),
    );
    page.add(
        Gauge,
        "etcd_server_is_leader",
        "Whether or not this member is a leader. 1 if is, 0 otherwise.",
        is(status.leader() == member.member_id),
    );
    page.add(
        Gauge,
        "etcd_server_quota_backend_bytes",
        "Current backend storage quota size in bytes.",
        member.quota_bytes as f64,
    );
    let checks = &member.hashes.counters;
    page.add(
        Counter,
        "quorate_compaction_hashes_given_up_total",
        "Hashes of compactions that were given up, since the next compaction came before they were made.",
        count(&checks.hashes_given_up),
    );
    page.add(
        Counter,
        "quorate_corruption_checks_given_up_total",
        "Comparisons with other members' data that did not come to their end within their interval.",
        count(&checks.checks_given_up),
    );
    page.add(
        Counter,
        "quorate_corruption_checks_total",
        "Comparisons with other members' data that came to their end, made while this member led.",
        count(&checks.checks),
    );
    page.add(
        Gauge,
        "quorate_revlog_bytes",
        "Bytes of the revision log's files, without what is allocated ahead.",
        space.bytes as f64,
    );
    page.add(
        Gauge,
        "quorate_revlog_dead_bytes",
        "Bytes of records in the revision log that compactions have dropped.",
        space.dead_bytes as f64,
    );
    page.add(
        Gauge,
        "quorate_revlog_live_bytes",
        "Bytes of records in the revision log that are wanted.",
        space.record_bytes.saturating_sub(space.dead_bytes) as f64,
    );
    page.add(
        Counter,
        "quorate_revlog_merged_bytes_total",
        "Bytes of the segments that merges have made.",
        count(&counters.merged_bytes),
    );
    page.add(
        Counter,
        "quorate_revlog_merge_source_bytes_total",
        "Bytes of the segments that were merged away.",
        count(&counters.source_bytes),
    );
    page.add(
        Counter,
        "quorate_revlog_merges_given_up_total",
        "Merges that were given up for want of room.",
        count(&counters.given_up),
    );
    page.add(
        Counter,
        "quorate_revlog_merges_total",
        "Merges that came to their end.",
        count(&counters.merges),
    );
    peers::add(&mut page, member);
    page.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_go_writes_them() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (-1.0, "-1"),
            (0.25, "0.25"),
            (999_999.0, "999999"),
            (1_000_000.0, "1e+06"),
            (1_048_576.0, "1.048576e+06"),
            (2_147_483_648.0, "2.147483648e+09"),
            (0.0001, "0.0001"),
            (0.000_01, "1e-05"),
            (1e100, "1e+100"),
            (f64::INFINITY, "+Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_metric_is_help_kind_and_value() {
        let mut page = Page::default();
        page.add(Kind::Counter, "a_total", "How many.", 3.0);
        assert_eq!(page.text(), "# HELP a_total How many.\n# TYPE a_total counter\na_total 3\n");
    }

    #[test]
    fn samples_of_one_metric_follow_each_other() {
        let mut page = Page::default();
        for (to, value) in [("1", 1.0), ("2", 0.5)] {
            page.sample((Kind::Gauge, "b", "To whom."), "", &format!("To=\"{to}\""), value);
            page.add(Kind::Gauge, "a", "One.", value);
        }
        assert_eq!(
            page.text(),
            "# HELP a One.\n# TYPE a gauge\na 1\na 0.5\n\
             # HELP b To whom.\n# TYPE b gauge\nb{To=\"1\"} 1\nb{To=\"2\"} 0.5\n",
        );
    }
}
