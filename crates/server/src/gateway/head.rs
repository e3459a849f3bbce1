//! What of an HTTP request goes on as gRPC's headers, as grpc-gateway passes it on.

use std::time::Duration;

use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use base64::{DecodeError, Engine as _};
use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use wire::{Code, Status};

/// What the names of headers begin with that are meant for the service.
const METADATA: &str = "grpc-metadata-";

/// Names that gRPC has for itself, and those that HTTP/2 does not carry.
const RESERVED: [&str; 14] = [
    "connection",
    "content-length",
    "content-type",
    "grpc-encoding",
    "grpc-message",
    "grpc-message-type",
    "grpc-status",
    "grpc-timeout",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// What a call is told beside its messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Headers.
    pub headers: HeaderMap,
    /// How long the client waits, from now; zero if it does not any more.
    pub timeout: Option<Duration>,
}

impl Metadata {
    /// Of a request with these headers.
    ///
    /// # Errors
    /// `InvalidArgument` for what does not decode.
    pub fn of(headers: &HeaderMap) -> Result<Metadata, Status> {
        let mut metadata = Metadata::default();
        if let Some(given) = headers.get("grpc-timeout").filter(|given| !given.is_empty()) {
            let text = String::from_utf8_lossy(given.as_bytes());
            let Some(timeout) = timeout(&text) else {
                return Err(Status::new(Code::InvalidArgument, format!("invalid grpc-timeout: {text}")));
            };
            metadata.timeout = timeout;
        }
        for (name, value) in headers {
            if *name == AUTHORIZATION {
                metadata.headers.append(AUTHORIZATION, value.clone());
                continue;
            }
            let Some(bare) = name.as_str().strip_prefix(METADATA) else { continue };
            if RESERVED.contains(&bare) {
                continue;
            }
            // Binary ones are encoded in the same way here and there.
            if bare.ends_with("-bin")
                && let Err(at) = check_base64(value.as_bytes())
            {
                let name = canonical(name.as_str());
                let text = format!("invalid binary header {name}: illegal base64 data at input byte {at}");
                return Err(Status::new(Code::InvalidArgument, text));
            }
            let is_text = value.as_bytes().iter().all(|byte| (b' '..=b'~').contains(byte));
            if let Ok(bare) = HeaderName::try_from(bare)
                && is_text
            {
                metadata.headers.append(bare, value.clone());
            }
        }
        Ok(metadata)
    }

    /// Of a WebSocket, which browsers give no headers to: the token is in the protocol's name or in a cookie.
    pub fn of_socket(headers: &HeaderMap) -> Metadata {
        let protocol = headers.get(SEC_WEBSOCKET_PROTOCOL).filter(|protocol| !protocol.is_empty());
        let by_protocol = protocol.map(|protocol| {
            let text = protocol.to_str().unwrap_or_default();
            // A protocol without a token is one that is no good.
            text.split_once("Bearer,").map_or_else(String::new, |(_, token)| bearer(token.trim_matches(' ')))
        });
        let cookies = headers.get_all(COOKIE).into_iter().filter_map(|cookies| cookies.to_str().ok());
        let by_cookie = cookies.flat_map(|cookies| cookies.split(';')).find_map(|cookie| {
            let cookie = cookie.trim_matches([' ', '\t']);
            let (name, value) = cookie.split_once('=').unwrap_or((cookie, ""));
            (name.trim_matches([' ', '\t']) == "token").then(|| cookie_value(value))?
        });
        let mut metadata = Metadata::default();
        let token = by_cookie.map(bearer).or(by_protocol).and_then(|token| HeaderValue::try_from(token).ok());
        if let Some(token) = token {
            metadata.headers.insert(AUTHORIZATION, token);
        }
        metadata
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// What a cookie says, without quotes; `None` of one that Go passes over.
fn cookie_value(value: &str) -> Option<&str> {
    let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    bare.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')).then_some(bare)
}

/// A number of any length and a unit, `None` if it is none; 0 is no limit, and less is over.
fn timeout(text: &str) -> Option<Option<Duration>> {
    let (digits, unit_ns) = match text.split_at_checked(text.len().checked_sub(1)?)? {
        (digits, "H") => (digits, 3_600_000_000_000),
        (digits, "M") => (digits, 60_000_000_000),
        (digits, "S") => (digits, 1_000_000_000),
        (digits, "m") => (digits, 1_000_000),
        (digits, "u") => (digits, 1_000),
        (digits, "n") => (digits, 1),
        _ => return None,
    };
    let count: i64 = digits.parse().ok()?;
    let nanos = count.saturating_mul(unit_ns);
    Some((nanos != 0).then(|| Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))))
}

/// gRPC's header for a timeout: eight digits at most.
pub fn grpc_timeout(timeout: Duration) -> HeaderValue {
    let nanos = timeout.as_nanos();
    let units = [(1, 'n'), (1_000, 'u'), (1_000_000, 'm'), (1_000_000_000, 'S'), (60_000_000_000, 'M')];
    let fits = units.into_iter().map(|(unit, name)| (nanos.div_ceil(unit), name));
    let hours = (nanos.div_ceil(3_600_000_000_000).min(99_999_999), 'H');
    let (count, name) = fits.into_iter().find(|(count, _)| *count < 100_000_000).unwrap_or(hours);
    HeaderValue::try_from(format!("{count}{name}")).unwrap_or(HeaderValue::from_static("1S"))
}

/// Where it is none.
fn check_base64(value: &[u8]) -> Result<(), usize> {
    let engine = if value.len().is_multiple_of(4) { &STANDARD } else { &STANDARD_NO_PAD };
    match engine.decode(value) {
        Ok(_) => Ok(()),
        Err(DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _)) => Err(at),
        Err(_) => Err(value.len()),
    }
}

/// A header's name as Go writes it.
fn canonical(name: &str) -> String {
    let mut is_first = true;
    let letter = |letter: char| {
        let written = if is_first { letter.to_ascii_uppercase() } else { letter };
        is_first = letter == '-';
        written
    };
    name.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(&str, &str)]) -> HeaderMap {
        let pairs = headers.iter().map(|(name, value)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        });
        pairs.collect()
    }

    #[test]
    fn what_goes_on() {
        let given = map(&[
            ("authorization", "a.1"),
            ("cookie", "token=b"),
            ("grpc-metadata-hasleader", "true"),
            ("grpc-metadata-token", "c"),
            ("grpc-metadata-grpc-timeout", "1S"),
            ("grpc-metadata-connection", "close"),
            ("grpc-metadata-name", "\u{e9}"),
            ("grpc-metadata-some-bin", "AAA="),
            ("accept", "*/*"),
            ("token", "d"),
        ]);
        let metadata = Metadata::of(&given).unwrap();
        let want =
            map(&[("authorization", "a.1"), ("hasleader", "true"), ("token", "c"), ("some-bin", "AAA=")]);
        assert_eq!(metadata, Metadata { headers: want, timeout: None });
        let refused = Metadata::of(&map(&[("grpc-metadata-x-bin", "!")])).unwrap_err();
        let text = "invalid binary header Grpc-Metadata-X-Bin: illegal base64 data at input byte 0";
        assert_eq!(refused.message, text);
    }

    #[test]
    fn timeouts() {
        let of = |text: &str| Metadata::of(&map(&[("grpc-timeout", text)])).map(|metadata| metadata.timeout);
        assert_eq!(of("2S"), Ok(Some(Duration::from_secs(2))));
        assert_eq!(of("1234567890n"), Ok(Some(Duration::from_nanos(1_234_567_890))));
        assert_eq!(of("99999999999999H"), Ok(Some(Duration::from_nanos(i64::MAX as u64))));
        assert_eq!(of("-1S"), Ok(Some(Duration::ZERO)));
        assert_eq!(of("0S"), Ok(None));
        assert_eq!(of(""), Ok(None));
        for bad in ["S", "1", "1x", "1.5S", "\u{e9}"] {
            assert_eq!(of(bad).unwrap_err().message, format!("invalid grpc-timeout: {bad}"));
        }
        for (timeout, header) in [
            (Duration::from_nanos(1), "1n"),
            (Duration::from_secs(2), "2000000u"),
            (Duration::from_secs(200), "200000m"),
            (Duration::from_secs(u64::MAX), "99999999H"),
        ] {
            assert_eq!(grpc_timeout(timeout), header);
        }
    }

    #[test]
    fn a_sockets_token() {
        let of = |headers: &[(&str, &str)]| {
            let metadata = Metadata::of_socket(&map(headers));
            metadata.headers.get(AUTHORIZATION).map(|token| token.to_str().unwrap().to_owned())
        };
        assert_eq!(of(&[("sec-websocket-protocol", "Bearer, a.1")]).as_deref(), Some("Bearer a.1"));
        assert_eq!(of(&[("sec-websocket-protocol", "Bearer,a.1 ")]).as_deref(), Some("Bearer a.1"));
        assert_eq!(of(&[("sec-websocket-protocol", "chat")]).as_deref(), Some(""), "as by etcd's proxy");
        assert_eq!(of(&[("sec-websocket-protocol", "")]), None);
        let both = [("sec-websocket-protocol", "Bearer, a.1"), ("cookie", "x=y; token=b.2")];
        assert_eq!(of(&both).as_deref(), Some("Bearer b.2"));
        for (cookies, token) in [
            (&["x=y", "token=b.2"][..], Some("Bearer b.2")),
            (&["token=\"b.2\"; x=y"], Some("Bearer b.2")),
            (&["token=b\\2; token =b.3"], Some("Bearer b.3")),
            (&["tokens=b.2", "x=token"], None),
        ] {
            let cookies: Vec<_> = cookies.iter().map(|cookie| ("cookie", *cookie)).collect();
            assert_eq!(of(&cookies).as_deref(), token, "{cookies:?}");
        }
        assert_eq!(of(&[("authorization", "a.1")]), None);
    }
}
