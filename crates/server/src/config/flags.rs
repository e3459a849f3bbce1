//! The command line, read as Go's `flag` package reads it.
//!
//! `-name value`, `-name=value`, `--name` for booleans; one dash or two; the first word that is no flag, or `--`,
//! ends the flags. Errors are Go's texts, since scripts and tests match on them.

use thiserror::Error;

use super::quote;
use super::raw::{RawConfig, Source};
use super::settings::{self, SETTINGS};

/// Why the command line can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FlagError {
    /// `-h` or `-help`: the usage is asked for.
    #[error("flag: help requested")]
    Help,
    /// Anything else, in Go's words.
    #[error("{0}")]
    Usage(String),
}

/// Reads flags into `raw` and returns the words that follow them.
///
/// # Errors
/// The first flag that is unknown or whose value does not parse.
pub fn parse(args: &[String], raw: &mut RawConfig) -> Result<Vec<String>, FlagError> {
    let mut rest = args;
    while let Some((arg, after)) = rest.split_first() {
        if arg.len() < 2 || !arg.starts_with('-') {
            break;
        }
        rest = after;
        if arg == "--" {
            break;
        }
        let body = arg.strip_prefix("--").unwrap_or(&arg[1..]);
        if body.starts_with('-') || body.starts_with('=') {
            return Err(FlagError::Usage(format!("bad flag syntax: {arg}")));
        }
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        let Some(position) = settings::find(name) else {
            if matches!(name, "help" | "h") {
                return Err(FlagError::Help);
            }
            return Err(FlagError::Usage(format!("flag provided but not defined: -{name}")));
        };
        let kind = SETTINGS[position].kind;
        let text = match value {
            Some(value) => value,
            None if kind.is_bool() => "true",
            None => match rest.split_first() {
                Some((value, after)) => {
                    rest = after;
                    value
                }
                None => return Err(FlagError::Usage(format!("flag needs an argument: -{name}"))),
            },
        };
        if let Err(why) = raw.set(position, text, Source::Flag) {
            let what = if kind.is_bool() {
                format!("invalid boolean value {} for -{name}: {why}", quote(text))
            } else {
                format!("invalid value {} for flag -{name}: {why}", quote(text))
            };
            return Err(FlagError::Usage(what));
        }
    }
    Ok(rest.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Value;

    fn read(args: &[&str]) -> (Result<Vec<String>, FlagError>, RawConfig) {
        let mut raw = RawConfig::default();
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        (parse(&args, &mut raw), raw)
    }

    fn refusal(args: &[&str]) -> String {
        read(args).0.unwrap_err().to_string()
    }

    #[test]
    fn every_form_of_every_flag_is_read() {
        for setting in SETTINGS.iter().filter(|setting| setting.is_known()) {
            let sample = if setting.kind.is_bool() { "true" } else { setting.default };
            let joined = |dashes: &str| format!("{dashes}{}={sample}", setting.name);
            let mut forms = vec![vec![joined("-")], vec![joined("--")]];
            for dashes in ["-", "--"] {
                let flag = format!("{dashes}{}", setting.name);
                forms.push(if setting.kind.is_bool() { vec![flag] } else { vec![flag, sample.to_owned()] });
            }
            for form in forms {
                let mut raw = RawConfig::default();
                if sample.is_empty() && matches!(setting.kind, crate::config::value::Kind::Choices(_)) {
                    continue;
                }
                assert_eq!(parse(&form, &mut raw), Ok(Vec::new()), "{form:?}");
                assert!(raw.is_set(setting.name), "{form:?}");
            }
        }
    }

    #[test]
    fn the_last_one_counts_and_words_end_the_flags() {
        let (rest, raw) = read(&["--name", "a", "-name=b=c", "x", "--name", "d"]);
        assert_eq!(rest.unwrap(), ["x", "--name", "d"]);
        assert_eq!(raw.text("name"), "b=c");
        assert_eq!(read(&["--", "--name"]).0.unwrap(), ["--name"]);
        assert_eq!(read(&["-", "--name"]).0.unwrap(), ["-", "--name"]);
    }

    #[test]
    fn booleans_do_not_take_the_next_word() {
        let (rest, raw) = read(&["--pre-vote", "false"]);
        assert_eq!(rest.unwrap(), ["false"]);
        assert_eq!(raw.value("pre-vote"), Value::Bool(true));
        assert_eq!(read(&["-pre-vote=F"]).1.value("pre-vote"), Value::Bool(false));
    }

    /// Texts recorded from etcd 3.7.1.
    #[test]
    fn refusals_are_gos() {
        assert_eq!(refusal(&["--nonsense"]), "flag provided but not defined: -nonsense");
        assert_eq!(refusal(&["--discovery=x"]), "flag provided but not defined: -discovery");
        assert_eq!(refusal(&["---x"]), "bad flag syntax: ---x");
        assert_eq!(refusal(&["--=x"]), "bad flag syntax: --=x");
        assert_eq!(refusal(&["--name"]), "flag needs an argument: -name");
        assert_eq!(
            refusal(&["--max-txn-ops", "x"]),
            r#"invalid value "x" for flag -max-txn-ops: parse error"#
        );
        assert_eq!(
            refusal(&["--pre-vote=maybe"]),
            r#"invalid boolean value "maybe" for -pre-vote: parse error"#
        );
        assert_eq!(
            refusal(&["--v2-deprecation", "not-yet"]),
            r#"invalid value "not-yet" for flag -v2-deprecation: invalid value "not-yet""#
        );
        assert_eq!(
            refusal(&["--initial-cluster-state", "old"]),
            r#"invalid value "old" for flag -initial-cluster-state: invalid value"#
        );
        assert_eq!(read(&["-h"]).0, Err(FlagError::Help));
        assert_eq!(read(&["--help=x"]).0, Err(FlagError::Help));
    }

    proptest::proptest! {
        /// Whatever is given, the parser answers; and what it accepted, it accepts again in the other form.
        #[test]
        fn any_words_are_answered(args in proptest::collection::vec("-{0,3}[a-z=-]{0,12}|--name|--pre-vote|\\PC{0,6}", 0..6)) {
            let mut raw = RawConfig::default();
            let _ = parse(&args, &mut raw);
        }

        #[test]
        fn one_dash_or_two_with_or_without_equals_are_the_same(value in "\\PC{0,20}") {
            let forms = [
                vec!["-name".to_owned(), value.clone()],
                vec!["--name".to_owned(), value.clone()],
                vec![format!("-name={value}")],
                vec![format!("--name={value}")],
            ];
            for form in forms {
                let mut raw = RawConfig::default();
                proptest::prop_assert_eq!(parse(&form, &mut raw), Ok(Vec::new()));
                proptest::prop_assert_eq!(raw.text("name"), value.as_str());
            }
        }
    }
}
