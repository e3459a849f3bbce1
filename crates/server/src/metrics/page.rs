//! A page of metrics, as text and as Prometheus' messages.

use std::borrow::Cow;
use std::fmt::Write as _;

use prost::Message as _;

use super::cells::Reading;
use super::families::{FAMILIES, Family, Id, Kind};
use super::messages::{Bucket, HistogramMessage, LabelPair, Metric, MetricFamily, Number};

/// The value of a label.
pub(super) type Label = Cow<'static, str>;

/// One sample: a number, or a histogram.
#[derive(Debug)]
enum Value {
    Number(f64),
    Histogram(Reading),
}

/// A page that is being written: the samples of each family, in the order of [`FAMILIES`]. A family without samples is not
/// on the page, as in Go's library.
#[derive(Debug)]
pub struct Page(Vec<Vec<(Vec<Label>, Value)>>);

impl Default for Page {
    fn default() -> Self {
        Page(FAMILIES.iter().map(|_| Vec::new()).collect())
    }
}

impl Page {
    /// A number without labels.
    pub(super) fn number(&mut self, id: Id, value: f64) {
        self.sample(id, [], value);
    }

    /// A number with labels, in the order of the family's.
    pub(super) fn sample<const N: usize>(&mut self, id: Id, labels: [Label; N], value: f64) {
        debug_assert_eq!(N, id.family().labels.len(), "{}", id.family().name);
        self.0[id as usize].push((labels.into(), Value::Number(value)));
    }

    /// A histogram with labels.
    pub(super) fn histogram<const N: usize>(&mut self, id: Id, labels: [Label; N], reading: Reading) {
        debug_assert_eq!(N, id.family().labels.len(), "{}", id.family().name);
        self.0[id as usize].push((labels.into(), Value::Histogram(reading)));
    }

    /// The families that have samples, in the order of their names, and these in the order of their labels' values.
    fn families(mut self) -> impl Iterator<Item = (&'static Family, Vec<(Vec<Label>, Value)>)> {
        self.0.iter_mut().for_each(|samples| samples.sort_by(|(a, _), (b, _)| a.cmp(b)));
        FAMILIES.iter().zip(self.0).filter(|(_, samples)| !samples.is_empty())
    }

    /// The page in the text format.
    pub fn text(self) -> String {
        let mut text = String::new();
        for (family, samples) in self.families() {
            let Family { name, kind, help, .. } = family;
            // Writing to a string never fails.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
            for (values, value) in samples {
                match value {
                    Value::Number(value) => line(&mut text, (name, ""), family.labels, &values, None, value),
                    Value::Histogram(reading) => histogram(&mut text, family, &values, &reading),
                }
            }
        }
        text
    }

    /// The page as `io.prometheus.client.MetricFamily` messages, each behind its length.
    pub fn messages(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (family, samples) in self.families() {
            let metric = samples.into_iter().map(|(values, value)| metric(family, values, value)).collect();
            let message = MetricFamily {
                name: Some(family.name.to_owned()),
                help: Some(family.help.to_owned()),
                kind: Some(match family.kind {
                    Kind::Counter => 0,
                    Kind::Gauge => 1,
                    Kind::Histogram => 4,
                }),
                metric,
            };
            bytes.reserve(message.encoded_len() + 10);
            message.encode_length_delimited(&mut bytes).expect("there is room");
        }
        bytes
    }
}

/// One line: `name{labels} value`. `bound`: that of a bucket.
fn line(
    text: &mut String,
    (name, suffix): (&str, &str),
    labels: &[&str],
    values: &[Label],
    bound: Option<&str>,
    value: f64,
) {
    text.push_str(name);
    text.push_str(suffix);
    let values = values.iter().map(|value| &**value);
    let pairs = labels.iter().copied().zip(values).chain(bound.map(|bound| ("le", bound)));
    let mut opens = '{';
    for (label, value) in pairs {
        text.push(opens);
        opens = ',';
        text.push_str(label);
        text.push_str("=\"");
        escape(value, text);
        text.push('"');
    }
    if opens == ',' {
        text.push('}');
    }
    text.push(' ');
    text.push_str(&number(value));
    text.push('\n');
}

fn histogram(text: &mut String, family: &Family, values: &[Label], reading: &Reading) {
    let (name, labels) = (family.name, family.labels);
    for (bound, count) in &reading.buckets {
        line(text, (name, "_bucket"), labels, values, Some(&number(*bound)), *count as f64);
    }
    line(text, (name, "_bucket"), labels, values, Some("+Inf"), reading.count as f64);
    line(text, (name, "_sum"), labels, values, None, reading.sum);
    line(text, (name, "_count"), labels, values, None, reading.count as f64);
}

fn escape(value: &str, into: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => into.push_str("\\\\"),
            '"' => into.push_str("\\\""),
            '\n' => into.push_str("\\n"),
            other => into.push(other),
        }
    }
}

fn metric(family: &Family, values: Vec<Label>, value: Value) -> Metric {
    let pair = |(name, value): (&&str, Label)| LabelPair {
        name: Some((*name).to_owned()),
        value: Some(value.into_owned()),
    };
    let label = family.labels.iter().zip(values).map(pair).collect();
    let number = |value| Some(Number { value: Some(value) });
    match value {
        Value::Number(value) if family.kind == Kind::Counter => {
            Metric { label, counter: number(value), ..Metric::default() }
        }
        Value::Number(value) => Metric { label, gauge: number(value), ..Metric::default() },
        Value::Histogram(reading) => {
            let bucket = |(bound, count)| Bucket { count: Some(count), upper_bound: Some(bound) };
            let histogram = HistogramMessage {
                count: Some(reading.count),
                sum: Some(reading.sum),
                bucket: reading.buckets.into_iter().map(bucket).collect(),
            };
            Metric { label, histogram: Some(histogram), ..Metric::default() }
        }
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
    fn a_metric_is_help_kind_and_values_in_the_order_of_labels() {
        let mut page = Page::default();
        page.number(Id::ProcessMaxFds, 3.0);
        for (to, value) in [("2", 0.5), ("1", 1.0)] {
            page.sample(Id::PeerQueued, [to.into()], value);
        }
        assert_eq!(
            page.text(),
            "# HELP process_max_fds Maximum number of open file descriptors.\n# TYPE process_max_fds gauge\n\
             process_max_fds 3\n\
             # HELP quorate_peer_queued_bytes Bytes of messages that wait to be sent to a peer.\n\
             # TYPE quorate_peer_queued_bytes gauge\n\
             quorate_peer_queued_bytes{To=\"1\"} 1\nquorate_peer_queued_bytes{To=\"2\"} 0.5\n",
        );
    }

    #[test]
    fn a_histogram_has_its_buckets_behind_the_labels() {
        let mut page = Page::default();
        let reading = Reading { buckets: vec![(0.5, 1), (1e6, 2)], count: 3, sum: 1.5 };
        page.histogram(Id::RangeTimes, ["a\"\\b\nc".into()], reading);
        let text = page.text();
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                r#"etcd_server_range_duration_seconds_bucket{success="a\"\\b\nc",le="0.5"} 1"#,
                r#"etcd_server_range_duration_seconds_bucket{success="a\"\\b\nc",le="1e+06"} 2"#,
                r#"etcd_server_range_duration_seconds_bucket{success="a\"\\b\nc",le="+Inf"} 3"#,
                r#"etcd_server_range_duration_seconds_sum{success="a\"\\b\nc"} 1.5"#,
                r#"etcd_server_range_duration_seconds_count{success="a\"\\b\nc"} 3"#,
            ]
        );
    }

    #[test]
    fn messages_are_behind_their_lengths() {
        let mut page = Page::default();
        page.number(Id::ProcessMaxFds, 3.0);
        page.number(Id::Puts, 0.0);
        let reading = Reading { buckets: vec![(0.5, 1)], count: 3, sum: 1.5 };
        page.histogram(Id::RangeTimes, ["true".into()], reading);
        let mut bytes = &page.messages()[..];
        let mut next = || MetricFamily::decode_length_delimited(&mut bytes).unwrap();
        let puts = next();
        assert_eq!((puts.name.as_deref(), puts.kind), (Some("etcd_mvcc_put_total"), Some(0)));
        assert_eq!(puts.metric[0].counter, Some(Number { value: Some(0.0) }));
        let ranges = next();
        assert_eq!(ranges.kind, Some(4));
        let [Metric { label, histogram: Some(histogram), .. }] = &ranges.metric[..] else {
            panic!("{ranges:?}")
        };
        assert_eq!(label[0].value.as_deref(), Some("true"));
        assert_eq!((histogram.count, histogram.sum), (Some(3), Some(1.5)));
        assert_eq!(histogram.bucket, [Bucket { count: Some(1), upper_bound: Some(0.5) }]);
        assert_eq!(next().metric[0].gauge, Some(Number { value: Some(3.0) }));
        assert!(bytes.is_empty());
    }
}
