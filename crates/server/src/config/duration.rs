//! Durations as Go writes and reads them: `1h15m30.9s`, `100ms`, `0`.

use std::fmt::Write as _;

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000), // U+00B5, the micro sign
    ("μs", 1_000), // U+03BC, the Greek letter
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration, in nanoseconds; `None` if Go would not take it.
pub fn parse(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let mut part = whole.checked_mul(*unit).filter(|part| *part <= 1 << 63)?;
        // Digits beyond the nineteenth are far below a nanosecond.
        let fraction = &fraction[..fraction.len().min(18)];
        if !fraction.is_empty() {
            let value: u64 = fraction.parse().ok()?;
            part += (u128::from(value) * u128::from(*unit) / 10_u128.pow(fraction.len() as u32)) as u64;
        }
        total = total.checked_add(part).filter(|total| *total <= 1 << 63)?;
        rest = after;
    }
    if negative { Some((total as i64).wrapping_neg()) } else { i64::try_from(total).ok() }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Writes a duration, given in nanoseconds, as Go prints it.
pub fn format(nanos: i64) -> String {
    let mut out = String::new();
    if nanos < 0 {
        out.push('-');
    }
    let n = nanos.unsigned_abs();
    match n {
        0 => out.push_str("0s"),
        1..1_000 => {
            let _ = write!(out, "{n}ns");
        }
        1_000..1_000_000 => decimal(&mut out, n, 1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(&mut out, n, 1_000_000, "ms"),
        _ => {
            let seconds = n / 1_000_000_000;
            let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
            if hours > 0 {
                let _ = write!(out, "{hours}h");
            }
            if seconds >= 60 {
                let _ = write!(out, "{minutes}m");
            }
            decimal(&mut out, n - (hours * 60 + minutes) * 60_000_000_000, 1_000_000_000, "s");
        }
    }
    out
}

fn decimal(out: &mut String, n: u64, unit: u64, name: &str) {
    let _ = write!(out, "{}", n / unit);
    let fraction = n % unit;
    if fraction > 0 {
        let width = unit.ilog10() as usize;
        let digits = format!("{fraction:0width$}");
        let _ = write!(out, ".{}", digits.trim_end_matches('0'));
    }
    out.push_str(name);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_as_go_does() {
        for (text, nanos, printed) in [
            ("0", 0, "0s"),
            ("5s", 5_000_000_000, "5s"),
            ("2h", 7_200_000_000_000, "2h0m0s"),
            ("1m", 60_000_000_000, "1m0s"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            (".5s", 500_000_000, "500ms"),
            ("1h15m30.918273645s", 4_530_918_273_645, "1h15m30.918273645s"),
            ("-1.5ms", -1_500_000, "-1.5ms"),
            ("1500µs", 1_500_000, "1.5ms"),
            ("+7ns", 7, "7ns"),
            ("9223372036854775807ns", i64::MAX, "2562047h47m16.854775807s"),
            ("-9223372036854775808ns", i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(parse(text), Some(nanos), "{text}");
            assert_eq!(format(nanos), printed, "{text}");
        }
        for text in ["", "5", "-", "s", ".s", "5x", "5 s", "1e3s", "9223372036854775808ns", "3000000h", "5s5"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
