//! The page `/metrics` in Prometheus' text format, so far what a store's space is watched by.
//!
//! A metric is a line in [`page`]: name, help, kind, value. Names that etcd has are etcd's, and mean what they mean there;
//! the others begin with `quorate_`.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::grpc::MemberView;

/// What the page is served as.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// May rise and fall.
    Gauge,
    /// Only rises, as long as the process runs.
    Counter,
}

/// A page that is being written.
#[derive(Debug, Default)]
struct Page(String);

impl Page {
    fn add(&mut self, kind: Kind, name: &str, help: &str, value: f64) {
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        // Writing to a string never fails.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {}", number(value));
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
    let status = &member.status;
    let is = |yes: bool| f64::from(u8::from(yes));
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
    page.0
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
        assert_eq!(page.0, "# HELP a_total How many.\n# TYPE a_total counter\na_total 3\n");
    }
}
