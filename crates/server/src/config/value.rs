//! The kinds of values that flags take, each read exactly as Go and etcd read it.

use super::gates::GATES;
use super::{Url, duration, quote};

/// What a setting's value is; decides how its text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A boolean: may stand alone, or as `-x=false`.
    Bool,
    /// A number from 0 to 2⁶⁴−1.
    Uint,
    /// A number from 0 to 2³²−1.
    Uint32,
    /// A number that may be negative.
    Int,
    /// A duration with a unit, such as `5s`.
    Duration,
    /// URLs separated by commas.
    Urls,
    /// URLs separated by commas, or `*`.
    Origins,
    /// Texts separated by commas.
    List,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// Some of these texts, separated by commas.
    Choices(&'static [&'static str]),
    /// `Name=bool` pairs separated by commas.
    Gates,
    /// Accepted like a boolean with any value, without any effect.
    Ignored,
}

/// A value that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is what its kind says")]
pub enum Value {
    Text(String),
    Bool(bool),
    Uint(u64),
    Int(i64),
    /// Nanoseconds.
    Duration(i64),
    Urls(Vec<Url>),
    List(Vec<String>),
    Ignored,
}

impl Kind {
    /// Reads a value.
    ///
    /// # Errors
    /// Go's text for what is wrong with it.
    pub fn parse(self, text: &str) -> Result<Value, String> {
        match self {
            Kind::Text => Ok(Value::Text(text.to_owned())),
            Kind::Bool => bool(text).map(Value::Bool).ok_or_else(|| "parse error".to_owned()),
            Kind::Uint => uint(text).map(Value::Uint).map_err(|wrong| wrong.flag_text().to_owned()),
            Kind::Uint32 => match uint(text).and_then(|n| u32::try_from(n).map_err(|_| Wrong::Range)) {
                Ok(n) => Ok(Value::Uint(n.into())),
                Err(wrong) => {
                    let what = if wrong == Wrong::Range { "value out of range" } else { "invalid syntax" };
                    Err(format!("strconv.ParseUint: parsing {}: {what}", quote(text)))
                }
            },
            Kind::Int => int(text).map(Value::Int).map_err(|wrong| wrong.flag_text().to_owned()),
            Kind::Duration => {
                duration::parse(text).map(Value::Duration).ok_or_else(|| "parse error".to_owned())
            }
            Kind::Urls if text.is_empty() => Ok(Value::Urls(Vec::new())),
            Kind::Urls => Url::parse_list(text).map(Value::Urls),
            Kind::Origins if text == "*" => Ok(Value::List(vec![text.to_owned()])),
            Kind::Origins => {
                Url::parse_list(text).map(|urls| Value::List(urls.iter().map(Url::to_string).collect()))
            }
            Kind::List => Ok(Value::List(text.split(',').map(str::to_owned).collect())),
            Kind::Choice(choices) if choices.contains(&text) => Ok(Value::Text(text.to_owned())),
            Kind::Choice(_) => Err("invalid value".to_owned()),
            Kind::Choices(choices) => match text.split(',').find(|part| !choices.contains(part)) {
                Some(part) => Err(format!("invalid value {}", quote(part))),
                None => Ok(Value::List(text.split(',').map(str::to_owned).collect())),
            },
            Kind::Gates => gates(text).map(Value::List),
            Kind::Ignored => Ok(Value::Ignored),
        }
    }

    /// Whether the flag may stand without a value.
    pub fn is_bool(self) -> bool {
        matches!(self, Kind::Bool | Kind::Ignored)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Syntax,
    Range,
}

impl Wrong {
    fn flag_text(self) -> &'static str {
        match self {
            Wrong::Syntax => "parse error",
            Wrong::Range => "value out of range",
        }
    }
}

/// Go's `strconv.ParseBool`.
fn bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Go's `strconv.ParseUint` with base 0: prefixes `0x`, `0o`, `0b`, `0`, and underscores between digits.
fn uint(text: &str) -> Result<u64, Wrong> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits, prefixed) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..], true),
        [b'0', b'o', ..] => (8, &lower[2..], true),
        [b'0', b'b', ..] => (2, &lower[2..], true),
        [b'0', _, ..] => (8, &lower[1..], true),
        _ => (10, &lower[..], false),
    };
    let stripped = match prefixed {
        true => digits.strip_prefix('_').unwrap_or(digits),
        false => digits,
    };
    let plain = stripped.replace('_', "");
    let misplaced = stripped.starts_with('_') || stripped.ends_with('_') || stripped.contains("__");
    if plain.is_empty() || misplaced || !plain.chars().all(|c| c.is_digit(radix)) {
        return Err(Wrong::Syntax);
    }
    u64::from_str_radix(&plain, radix).map_err(|_| Wrong::Range)
}

fn int(text: &str) -> Result<i64, Wrong> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let n = i128::from(uint(digits)?);
    i64::try_from(if negative { -n } else { n }).map_err(|_| Wrong::Range)
}

fn gates(text: &str) -> Result<Vec<String>, String> {
    let mut set = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let name = part.split('=').next().unwrap_or_default().trim();
        let Some((_, value)) = part.split_once('=') else {
            return Err(format!("missing bool value for {name}"));
        };
        let value = value.trim();
        let Some(on) = bool(value) else {
            let parse = format!("strconv.ParseBool: parsing {}: invalid syntax", quote(value));
            return Err(format!("invalid value of {name}={value}, err: {parse}"));
        };
        if !GATES.iter().any(|gate| gate.name == name) {
            return Err(format!("unrecognized feature gate: {name}"));
        }
        set.push(format!("{name}={on}"));
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_gos() {
        for (text, n) in [
            ("0", 0),
            ("100", 100),
            ("0x1F", 31),
            ("0b101", 5),
            ("0o17", 15),
            ("017", 15),
            ("1_000", 1000),
            ("0x_f", 15),
        ] {
            assert_eq!(Kind::Uint.parse(text), Ok(Value::Uint(n)), "{text}");
        }
        for text in ["", "x", "-1", "+1", "08", "1__0", "_1", "1_", "0x", "1.5", " 1", "1e3"] {
            assert_eq!(Kind::Uint.parse(text), Err("parse error".into()), "{text}");
        }
        assert_eq!(Kind::Uint.parse("18446744073709551616"), Err("value out of range".into()));
        assert_eq!(Kind::Int.parse("-9223372036854775808"), Ok(Value::Int(i64::MIN)));
        assert_eq!(Kind::Int.parse("9223372036854775808"), Err("value out of range".into()));
        assert_eq!(
            Kind::Uint32.parse("5000000000"),
            Err(r#"strconv.ParseUint: parsing "5000000000": value out of range"#.into())
        );
    }

    #[test]
    fn gates_are_checked_one_by_one() {
        assert_eq!(
            Kind::Gates.parse(" CompactHashCheck = T ,,AllAlpha=0"),
            Ok(Value::List(vec!["CompactHashCheck=true".into(), "AllAlpha=false".into()]))
        );
        assert_eq!(Kind::Gates.parse("Nonsense=true"), Err("unrecognized feature gate: Nonsense".into()));
        assert_eq!(Kind::Gates.parse("AllBeta"), Err("missing bool value for AllBeta".into()));
        assert_eq!(
            Kind::Gates.parse("AllBeta=x"),
            Err(r#"invalid value of AllBeta=x, err: strconv.ParseBool: parsing "x": invalid syntax"#.into())
        );
    }
}
