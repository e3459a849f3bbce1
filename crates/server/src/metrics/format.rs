//! In which form the page is served: by what the request accepts, as Prometheus' Go library chooses (etcd: promhttp).

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT, ACCEPT_ENCODING};
use http::{HeaderMap, HeaderName};

use super::page::Page;

/// What a name that is no plain name is served as. There is none here, but a request may ask for it, and is told.
const ESCAPINGS: [&str; 4] = ["allow-utf-8", "underscores", "dots", "values"];
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const MESSAGES: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// A form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    has_messages: bool,
    escaping: &'static str,
    is_compressed: bool,
}

/// A page in a form.
#[derive(Debug)]
pub struct Encoded {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Their `Content-Type`.
    pub content_type: String,
    /// Whether they are compressed with gzip.
    pub is_compressed: bool,
}

impl Format {
    /// What a request with these headers gets: text, unless it would rather have messages.
    pub fn of(headers: &HeaderMap) -> Format {
        let mut format = Format { has_messages: false, escaping: "underscores", is_compressed: false };
        // gzip is taken as soon as it is as good as anything else.
        let weight = |offer: &str| {
            let accepted = ranges(headers, ACCEPT_ENCODING);
            let of_it = accepted.iter().filter(|range| [offer, "*"].contains(&&*range.value));
            of_it.map(|range| range.weight).fold(-1.0, f32::max)
        };
        format.is_compressed = weight("gzip") > weight("identity").max(0.0);
        for range in sorted(ranges(headers, ACCEPT)) {
            if let Some(escaping) = ESCAPINGS.iter().find(|name| range.is("escaping", name)) {
                format.escaping = escaping;
            }
            let is_family = range.is("proto", "io.prometheus.client.MetricFamily");
            if range.value == "application/vnd.google.protobuf"
                && is_family
                && range.is("encoding", "delimited")
            {
                format.has_messages = true;
                break;
            }
            let is_plain = range.value == "text/plain"
                && range.parameter("version").is_none_or(|version| version == "0.0.4");
            if is_plain {
                break;
            }
        }
        format
    }

    pub(super) fn encode(self, page: Page) -> Encoded {
        let (bytes, kind) = match self.has_messages {
            true => (page.messages(), MESSAGES),
            false => (page.text().into_bytes(), TEXT),
        };
        let content_type = format!("{kind}; escaping={}", self.escaping);
        if !self.is_compressed {
            return Encoded { bytes, content_type, is_compressed: false };
        }
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        // Writing to memory never fails.
        let compressed = gzip.write_all(&bytes).and_then(|()| gzip.finish());
        match compressed {
            Ok(bytes) => Encoded { bytes, content_type, is_compressed: true },
            Err(_) => Encoded { bytes, content_type, is_compressed: false },
        }
    }
}

/// One of the things that a header accepts.
#[derive(Debug, PartialEq)]
struct Range {
    value: String,
    weight: f32,
    parameters: Vec<(String, String)>,
}

impl Range {
    fn parameter(&self, name: &str) -> Option<&str> {
        let (_, value) = self.parameters.iter().find(|(known, _)| known == name)?;
        Some(value)
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.parameter(name) == Some(value)
    }
}

fn ranges(headers: &HeaderMap, name: HeaderName) -> Vec<Range> {
    let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let ranges = texts.flat_map(|text| text.split(',')).filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let value = parts.next().filter(|value| !value.is_empty())?.to_ascii_lowercase();
        let mut range = Range { value, weight: 1.0, parameters: Vec::new() };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim() {
                "q" => range.weight = value.parse().unwrap_or(1.0),
                name => range.parameters.push((name.to_owned(), value.to_owned())),
            }
        }
        Some(range)
    });
    ranges.collect()
}

/// The best first, and of equals the first.
fn sorted(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    ranges
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(accept: &str, encoding: &str) -> (bool, &'static str, bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in [(ACCEPT, accept), (ACCEPT_ENCODING, encoding)] {
            if !value.is_empty() {
                headers.insert(name, HeaderValue::from_str(value).unwrap());
            }
        }
        let Format { has_messages, escaping, is_compressed } = Format::of(&headers);
        (has_messages, escaping, is_compressed)
    }

    const PROTO: &str =
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

    #[test]
    fn text_unless_messages_are_liked_better() {
        assert_eq!(of("", ""), (false, "underscores", false));
        assert_eq!(of("*/*", "gzip"), (false, "underscores", true));
        assert_eq!(of(PROTO, ""), (true, "underscores", false));
        assert_eq!(
            of(&format!("{PROTO};q=0.5,text/plain;version=0.0.4;q=0.6"), ""),
            (false, "underscores", false)
        );
        assert_eq!(
            of(&format!("text/plain;version=1.0.0;q=0.9,{PROTO};q=0.6"), ""),
            (true, "underscores", false)
        );
        // As Prometheus 3 asks.
        let asked = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                     text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(of(asked, "gzip"), (false, "allow-utf-8", true));
        assert_eq!(of("application/openmetrics-text", ""), (false, "underscores", false));
        assert_eq!(of("text/plain;escaping=nonsense", ""), (false, "underscores", false));
    }

    #[test]
    fn compressed_where_that_is_liked_best() {
        for (encoding, is_compressed) in [
            ("gzip", true),
            ("*", false),
            ("deflate, gzip;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip;q=0.3, identity", false),
            ("identity", false),
            ("zstd", false),
        ] {
            assert_eq!(of("", encoding).2, is_compressed, "{encoding}");
        }
    }
}
