//! Texts as Go writes and reads them: quoted strings, durations, sizes.

use std::fmt::Write as _;

/// `%q`: in double quotes, with Go's escapes; bytes that are no UTF-8 become `\xNN`.
pub fn quote(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            quote_char(&mut out, c);
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

fn quote_char(out: &mut String, c: char) {
    match c {
        '"' | '\\' => out.extend(['\\', c]),
        ' '..='~' => out.push(c),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        _ if is_print(c) => out.push(c),
        _ => {
            let code = u32::from(c);
            let _ = match code {
                0..0x80 => write!(out, "\\x{code:02x}"),
                0x80..0x10000 => write!(out, "\\u{code:04x}"),
                _ => write!(out, "\\U{code:08x}"),
            };
        }
    }
}

/// Rust escapes what it cannot print when it debugs a string, and marks at its beginning: hence the letter.
fn is_print(c: char) -> bool {
    let mut text = String::from("a");
    text.push(c);
    c == '\'' || text.escape_debug().count() == 2
}

/// Reads a string in quotes at the beginning of `text` as Go's `%q` scans it: its bytes, and what follows. Double
/// quotes have Go's escapes, back quotes none. Bytes that are no UTF-8 stay as they are.
pub fn unquote_prefix(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    if let Some(raw) = text.strip_prefix(b"`") {
        let end = raw.iter().position(|byte| *byte == b'`')?;
        return Some((raw[..end].to_vec(), &raw[end + 1..]));
    }
    let mut rest = text.strip_prefix(b"\"")?;
    let mut out = Vec::new();
    loop {
        let (first, after) = rest.split_first()?;
        rest = after;
        match first {
            b'"' => return Some((out, rest)),
            b'\n' => return None,
            b'\\' => rest = unescape(rest, &mut out)?,
            byte => out.push(*byte),
        }
    }
}

fn unescape<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let kind = *text.first()?;
    let simple = match kind {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'\\' | b'"' => kind,
        b'0'..=b'7' => {
            let value = number_of(text.get(..3)?, 8)?;
            out.push(u8::try_from(value).ok()?);
            return Some(&text[3..]);
        }
        b'x' | b'u' | b'U' => {
            let len = match kind {
                b'x' => 2,
                b'u' => 4,
                _ => 8,
            };
            let value = number_of(text.get(1..=len)?, 16)?;
            if kind == b'x' {
                out.push(value as u8);
            } else {
                out.extend_from_slice(char::from_u32(value)?.encode_utf8(&mut [0; 4]).as_bytes());
            }
            return Some(&text[1 + len..]);
        }
        _ => return None,
    };
    out.push(simple);
    Some(&text[1..])
}

/// Digits and nothing else: Rust's own parser also takes a plus sign.
fn number_of(digits: &[u8], radix: u32) -> Option<u32> {
    digits.iter().try_fold(0_u32, |value, digit| {
        let digit = char::from(*digit).to_digit(radix)?;
        value.checked_mul(radix)?.checked_add(digit)
    })
}

/// An error of the system as Go prints it: `no such file or directory`.
pub fn os_error(error: &std::io::Error) -> String {
    if error.raw_os_error().is_none() {
        // Not from the system itself, but from one who stands for it.
        match error.kind() {
            std::io::ErrorKind::NotFound => return "no such file or directory".to_owned(),
            std::io::ErrorKind::StorageFull => return "no space left on device".to_owned(),
            _ => {}
        }
    }
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    first.to_lowercase() + rest
}

/// A duration in nanoseconds as Go prints it: `1.5s`, `250ms`, `1m0s`.
pub fn duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    let fraction = |unit: u64, name: &str| {
        let mut text = format!("{sign}{}", n / unit);
        if !n.is_multiple_of(unit) {
            let width = unit.ilog10() as usize;
            let digits = format!("{:0width$}", n % unit);
            let _ = write!(text, ".{}", digits.trim_end_matches('0'));
        }
        text + name
    };
    match n {
        0 => "0s".to_owned(),
        1..1_000 => fraction(1, "ns"),
        1_000..1_000_000 => fraction(1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(1_000_000, "ms"),
        1_000_000_000..60_000_000_000 => fraction(1_000_000_000, "s"),
        _ => {
            let (minutes, rest) = (n / 60_000_000_000, n % 60_000_000_000);
            let seconds = match rest {
                0..1_000_000_000 if rest > 0 => {
                    format!("0.{}s", format!("{rest:09}").trim_end_matches('0'))
                }
                _ => duration(rest as i64),
            };
            match minutes / 60 {
                0 => format!("{sign}{minutes}m{seconds}"),
                hours => format!("{sign}{hours}h{}m{seconds}", minutes % 60),
            }
        }
    }
}

/// Reads a duration, in nanoseconds.
///
/// # Errors
/// Go's text.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text.as_bytes()));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        total += number
            * match unit {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                "" => return Err(format!("time: missing unit in duration {}", quote(text.as_bytes()))),
                _ => {
                    let (unit, text) = (quote(unit.as_bytes()), quote(text.as_bytes()));
                    return Err(format!("time: unknown unit {unit} in duration {text}"));
                }
            };
        rest = after;
    }
    if total > i64::MAX as f64 {
        return Err(invalid());
    }
    Ok(if negative { -(total as i64) } else { total as i64 })
}

/// A size in bytes for people, in powers of 1000: `20 kB`, `2.1 GB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let power = bytes.ilog(1000);
    let value = (bytes as f64 / 1000_f64.powi(power as i32) * 10.0 + 0.5).floor() / 10.0;
    let unit = UNITS[power as usize];
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// Reads a whole number as Go's `strconv.ParseInt` does: digits of this radix after a sign or none, nothing else.
///
/// # Errors
/// Go's text.
pub fn parse_int(text: &[u8], radix: u32) -> Result<i64, String> {
    let error = |reason: &str| Err(format!("strconv.ParseInt: parsing {}: {reason}", quote(text)));
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    let value = match parse_digits(digits, radix) {
        Ok(value) => value,
        Err(reason) => return error(reason),
    };
    let signed = if negative { 0_i64.checked_sub_unsigned(value) } else { value.try_into().ok() };
    signed.map_or_else(|| error(OUT_OF_RANGE), Ok)
}

/// `strconv.ParseUint` of 64 bits: no sign.
///
/// # Errors
/// Go's text.
pub fn parse_uint(text: &[u8], radix: u32) -> Result<u64, String> {
    parse_digits(text, radix)
        .map_err(|reason| format!("strconv.ParseUint: parsing {}: {reason}", quote(text)))
}

const OUT_OF_RANGE: &str = "value out of range";

fn parse_digits(digits: &[u8], radix: u32) -> Result<u64, &'static str> {
    if digits.is_empty() {
        return Err("invalid syntax");
    }
    let mut value = 0_u64;
    for digit in digits {
        // What comes first is told: a byte that is no digit, or the digit that is too much for 64 bits.
        let digit = char::from(*digit).to_digit(radix).ok_or("invalid syntax")?;
        let next = value.checked_mul(radix.into()).and_then(|v| v.checked_add(digit.into()));
        value = next.ok_or(OUT_OF_RANGE)?;
    }
    Ok(value)
}

/// `%016x` of a number with a sign, which counts as a place.
pub fn hex16(value: i64) -> String {
    let (sign, width) = if value < 0 { ("-", 15) } else { ("", 16) };
    format!("{sign}{:0width$x}", value.unsigned_abs())
}

/// The error of `strconv`'s functions.
pub fn number_error(function: &str, text: &str, error: &std::num::ParseIntError) -> String {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    let reason = match error.kind() {
        PosOverflow | NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    format!("strconv.{function}: parsing {}: {reason}", quote(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_like_go() {
        assert_eq!(quote(b"b-2"), r#""b-2""#);
        assert_eq!(
            quote("é'\"\\\n\t\x01\u{a0}\u{301}\u{1f600}".as_bytes()),
            "\"é'\\\"\\\\\\n\\t\\x01\\u00a0\u{301}😀\""
        );
        assert_eq!(quote(b"\xff\x00\x7f"), r#""\xff\x00\x7f""#);
    }

    #[test]
    fn unquotes_what_it_quoted() {
        let bytes: Vec<u8> = (0..=255).collect();
        let text = quote(&bytes) + " rest";
        assert_eq!(unquote_prefix(text.as_bytes()), Some((bytes, &b" rest"[..])));
        assert_eq!(unquote_prefix(br#""\u00e9\101""#), Some(("éA".into(), &b""[..])));
        assert_eq!(unquote_prefix(b"`a\\\r\xff` x"), Some((b"a\\\r\xff".to_vec(), &b" x"[..])));
        assert_eq!(unquote_prefix(b"\"\xff\xe2\"x"), Some((b"\xff\xe2".to_vec(), &b"x"[..])));
        for bad in
            ["a", "\"a", r#""\q""#, r#""\x4""#, r#""\x+1""#, r#""\400""#, r#""\ud800""#, r#""\"#, "\"\\é\""]
        {
            assert_eq!(unquote_prefix(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn durations() {
        for (nanos, text) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (6_390_041, "6.390041ms"),
            (1_000_871_039, "1.000871039s"),
            (60_000_000_000, "1m0s"),
            (60_500_000_000, "1m0.5s"),
            (3_600_000_000_000, "1h0m0s"),
            (-2_000_000_000, "-2s"),
        ] {
            assert_eq!(duration(nanos), text);
            assert_eq!(parse_duration(text), Ok(nanos));
        }
        assert_eq!(parse_duration("x").unwrap_err(), "time: invalid duration \"x\"");
        assert_eq!(parse_duration("5").unwrap_err(), "time: missing unit in duration \"5\"");
        assert_eq!(parse_duration("5y").unwrap_err(), "time: unknown unit \"y\" in duration \"5y\"");
    }

    #[test]
    fn whole_numbers() {
        for (text, radix, value) in [
            ("0", 10, 0),
            ("+7", 10, 7),
            ("-007", 10, -7),
            ("9223372036854775807", 10, i64::MAX),
            ("-9223372036854775808", 10, i64::MIN),
            ("4ee7a229ebE29152", 16, 0x4ee7a229ebe29152),
            ("-8000000000000000", 16, i64::MIN),
        ] {
            assert_eq!(parse_int(text.as_bytes(), radix), Ok(value), "{text}");
        }
        let (syntax, range) = ("invalid syntax", "value out of range");
        for (text, radix, reason) in [
            (&b""[..], 10, syntax),
            (b"-", 10, syntax),
            (b"+-5", 10, syntax),
            (b"0x10", 16, syntax),
            (b"1_0", 10, syntax),
            (b" 1", 10, syntax),
            (b"f", 10, syntax),
            (b"\xff", 16, syntax),
            (b"9223372036854775808", 10, range),
            (b"9223372036854775808x", 10, syntax),
            (b"99999999999999999999x", 10, range),
            (b"ffffffffffffffff", 16, range),
            (b"-8000000000000001", 16, range),
        ] {
            let expected = format!("strconv.ParseInt: parsing {}: {reason}", quote(text));
            assert_eq!(parse_int(text, radix), Err(expected));
        }
    }

    #[test]
    fn unsigned_numbers() {
        assert_eq!(parse_uint(b"ffffffffffffffff", 16), Ok(u64::MAX));
        let (syntax, range) = ("invalid syntax", "value out of range");
        for (text, reason) in [
            (&b""[..], syntax),
            (b"-5", syntax),
            (b"+5", syntax),
            (b"xyz", syntax),
            (b"10000000000000000", range),
        ] {
            let expected = format!("strconv.ParseUint: parsing {}: {reason}", quote(text));
            assert_eq!(parse_uint(text, 16), Err(expected));
        }
    }

    #[test]
    fn ids_in_hex() {
        for (value, text) in [
            (0, "0000000000000000"),
            (0x1234, "0000000000001234"),
            (i64::MAX, "7fffffffffffffff"),
            (-5, "-000000000000005"),
            (i64::MIN, "-8000000000000000"),
        ] {
            assert_eq!(hex16(value), text);
        }
    }

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0 B"),
            (9, "9 B"),
            (82, "82 B"),
            (999, "999 B"),
            (20480, "20 kB"),
            (1_234_567, "1.2 MB"),
            (2_147_483_648, "2.1 GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
