//! What the headers of a call say.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, Method, Request, StatusCode};
use wire::{ApiError, Code, Status};

use crate::metrics::{ClientVersion, Own};

/// The part of a call's headers that every call is judged by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// How long the client waits, from now.
    pub timeout: Option<Duration>,
    /// `hasleader: true`: the call is refused without a leader.
    pub leader_required: bool,
    /// The version in `client-api-version`; `None` if that is no text.
    pub version: Option<ClientVersion>,
    /// Messages may be compressed with gzip.
    pub gzip: bool,
}

/// How messages are compressed.
pub const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

const GRPC: &[u8] = b"application/grpc";

/// A call refused by its headers alone, with the HTTP status that gRPC gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The HTTP status.
    pub http: StatusCode,
    /// gRPC's.
    pub status: Status,
}

impl Refused {
    fn new(http: StatusCode, code: Code, text: String) -> Self {
        Refused { http, status: Status::new(code, text) }
    }
}

impl Head {
    /// Reads the headers of a call, in the order in which gRPC's Go server judges them. `counts`: what knows versions.
    pub fn read<B>(request: &Request<B>, counts: &Own) -> Result<Head, Refused> {
        let headers = request.headers();
        let content_types = headers.get_all(CONTENT_TYPE);
        // One of several is enough.
        if !content_types.iter().any(|value| is_grpc(value.as_bytes())) {
            let content_type = content_types.iter().next_back().map_or(&b""[..], |value| value.as_bytes());
            return Err(Refused::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Code::InvalidArgument,
                format!("invalid gRPC request content-type {:?}", String::from_utf8_lossy(content_type)),
            ));
        }
        let timeout = match headers.get("grpc-timeout") {
            None => None,
            Some(value) => Some(timeout(value.as_bytes()).map_err(|why| {
                Refused::new(
                    StatusCode::BAD_REQUEST,
                    Code::Internal,
                    format!("malformed grpc-timeout: {why}"),
                )
            })?),
        };
        if request.method() != Method::POST {
            return Err(Refused::new(
                StatusCode::METHOD_NOT_ALLOWED,
                Code::Internal,
                format!(
                    "Received a HEADERS frame with :method {:?} which should be POST",
                    request.method().as_str()
                ),
            ));
        }
        if timeout == Some(Duration::ZERO) {
            return Err(Refused { http: StatusCode::OK, status: ApiError::ContextDeadlineExceeded.into() });
        }
        Ok(Head {
            timeout,
            leader_required: headers.get("hasleader").is_some_and(|value| value == "true"),
            version: counts.client_version(headers.get("client-api-version")),
            gzip: headers.get(GRPC_ENCODING).is_some_and(|value| value == "gzip"),
        })
    }

    /// gRPC's answer to a compression that is not installed. gzip is, in etcd by one of its libraries.
    pub fn check_encoding(headers: &HeaderMap) -> Result<(), Status> {
        match headers.get(GRPC_ENCODING) {
            None => Ok(()),
            Some(value) if value.is_empty() || value == "identity" || value == "gzip" => Ok(()),
            Some(value) => Err(Status::new(
                Code::Unimplemented,
                format!(
                    "grpc: Decompressor is not installed for grpc-encoding {:?}",
                    String::from_utf8_lossy(value.as_bytes())
                ),
            )),
        }
    }
}

/// What a field takes beside its name and value.
const FIELD_BYTES: usize = 128;

/// Bytes of memory that headers take, about.
pub fn kept_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| FIELD_BYTES + name.as_str().len() + value.len()).sum()
}

/// Whether a request that came by TLS goes to gRPC: etcd looks for the word anywhere in the first value.
pub fn may_be_grpc(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    value.windows(GRPC.len()).any(|part| part == GRPC)
}

/// `application/grpc` in these letters, alone or with a subtype.
fn is_grpc(content_type: &[u8]) -> bool {
    content_type.strip_prefix(GRPC).is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Up to eight digits and a unit.
fn timeout(value: &[u8]) -> Result<Duration, String> {
    let shown = || String::from_utf8_lossy(value).into_owned();
    let Some((&unit, digits)) = value.split_last().filter(|(_, digits)| !digits.is_empty()) else {
        return Err(format!("transport: timeout string is too short: {:?}", shown()));
    };
    if digits.len() > 8 {
        return Err(format!("transport: timeout string is too long: {:?}", shown()));
    }
    let per_unit = match unit {
        b'H' => Duration::from_secs(3600),
        b'M' => Duration::from_secs(60),
        b'S' => Duration::from_secs(1),
        b'm' => Duration::from_millis(1),
        b'u' => Duration::from_micros(1),
        b'n' => Duration::from_nanos(1),
        _ => return Err(format!("transport: timeout unit is not recognized: {:?}", shown())),
    };
    let mut count = 0u32;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(format!(
                "strconv.ParseUint: parsing {:?}: invalid syntax",
                String::from_utf8_lossy(digits)
            ));
        }
        count = count * 10 + u32::from(digit - b'0');
    }
    Ok(per_unit.saturating_mul(count))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::metrics::Metrics;

    fn read(headers: &[(&'static str, &[u8])]) -> Result<Head, Refused> {
        let mut request = Request::builder().method(Method::POST);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Head::read(&request.body(()).unwrap(), &Arc::new(Metrics::default()).lane(0))
    }

    #[test]
    fn timeouts() {
        for (text, want) in [
            ("1H", Ok(3_600_000)),
            ("2M", Ok(120_000)),
            ("3S", Ok(3000)),
            ("99999999m", Ok(99_999_999)),
            ("5000u", Ok(5)),
            ("7000000n", Ok(7)),
            ("99999999H", Ok(99_999_999 * 3_600_000)),
            ("S", Err("transport: timeout string is too short: \"S\"")),
            ("", Err("transport: timeout string is too short: \"\"")),
            ("123456789S", Err("transport: timeout string is too long: \"123456789S\"")),
            ("1x", Err("transport: timeout unit is not recognized: \"1x\"")),
            ("-1S", Err("strconv.ParseUint: parsing \"-1\": invalid syntax")),
        ] {
            let want: Result<u64, &str> = want;
            assert_eq!(
                timeout(text.as_bytes()),
                want.map(Duration::from_millis).map_err(str::to_owned),
                "{text}"
            );
        }
    }

    #[test]
    fn a_call_without_the_content_type_is_no_call() {
        for bad in
            [&b""[..], b"text/plain", b"application/grpcx", b"application/grpc-web", b"Application/GRPC"]
        {
            assert_eq!(read(&[("content-type", bad)]).unwrap_err().http, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        assert_eq!(read(&[]).unwrap_err().status.message, "invalid gRPC request content-type \"\"");
        for good in [&b"application/grpc"[..], b"application/grpc+proto", b"application/grpc;x=y"] {
            read(&[("content-type", good)]).unwrap();
            read(&[("content-type", b"text/plain"), ("content-type", good)]).unwrap();
        }
    }

    #[test]
    fn metadata() {
        let grpc = ("content-type", &b"application/grpc"[..]);
        let head = read(&[grpc, ("hasleader", b"true"), ("client-api-version", b"\xff")]).unwrap();
        assert!(head.leader_required && head.version.is_none());
        let head =
            read(&[grpc, ("hasleader", b"maybe"), ("client-api-version", "\u{e9}".as_bytes())]).unwrap();
        assert!(!head.leader_required && head.version.is_some());
        let zero = read(&[grpc, ("grpc-timeout", b"0m")]).unwrap_err();
        assert_eq!(zero.status, ApiError::ContextDeadlineExceeded.into());
    }
}
