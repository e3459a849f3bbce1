//! gRPC's statuses as HTTP's, as grpc-gateway has them.

use http::StatusCode;
use wire::{Code, Status};

use super::json::write::{Texts, text};

/// The status of an answer.
pub fn http(code: Code) -> StatusCode {
    let number = match code {
        Code::Ok => 200,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::ResourceExhausted => 429,
        Code::Canceled => 499,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
    };
    StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// An error as JSON.
pub fn json(status: &Status, texts: Texts) -> Vec<u8> {
    let mut out = format!("{{\"code\":{}", status.code.number()).into_bytes();
    if !status.message.is_empty() {
        out.extend_from_slice(b",\"message\":");
        text(&status.message, texts, &mut out);
    }
    out.push(b'}');
    out
}

/// A status text as it stood before it was percent-encoded.
pub fn percent_decode(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        let digits = behind.get(..2).filter(|_| byte == b'%');
        let decoded = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match decoded {
            Some(decoded) => {
                out.push(decoded);
                rest = &behind[2..];
            }
            None => {
                out.push(byte);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_objects() {
        let status = Status::new(Code::Unknown, "\"leader\" field must be provided \u{e9}\u{1}<");
        let plain = String::from_utf8(json(&status, Texts::Plain)).unwrap();
        assert_eq!(
            plain,
            "{\"code\":2,\"message\":\"\\\"leader\\\" field must be provided \u{e9}\\u0001<\"}"
        );
        let escaped = String::from_utf8(json(&status, Texts::ForHtml)).unwrap();
        assert!(escaped.ends_with("\\u003c\"}"), "{escaped}");
        assert_eq!(json(&Status::new(Code::NotFound, ""), Texts::Plain), b"{\"code\":5}");
        assert_eq!(http(Code::Canceled).as_u16(), 499);
        assert_eq!(percent_decode(b"100%25 caf%C3%A9%0A%zz%"), "100% caf\u{e9}\n%zz%");
    }
}
