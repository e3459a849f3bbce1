//! `ETCD_` variables: each sets the flag of the same name, unless that is on the command line too.

use super::quote;
use super::raw::{RawConfig, Source};
use super::settings::SETTINGS;
use crate::log;

/// What variables and command line together do not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// A flag and its variable are both there; even with equal values etcd does not start.
    #[error("{CONFLICT}")]
    Conflict {
        /// The variable.
        variable: String,
    },
    /// A variable's value does not parse.
    #[error("{0}")]
    Invalid(String),
}

/// etcd's text, its bracket included.
const CONFLICT: &str = "conflicting environment variable is shadowed by corresponding command-line flag \
                        (either unset environment variable or disable flag))";

/// Takes over the variables of `environment` (name and value, in the process's order) and logs what it does.
///
/// # Errors
/// See [`EnvError`]. Unknown `ETCD_` variables only get a warning.
pub fn apply(raw: &mut RawConfig, environment: &[(String, String)]) -> Result<(), EnvError> {
    let lookup =
        |name: &str| environment.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.as_str());
    if let Some(value) = lookup("ETCD_VERSION") {
        crate::warn!("cannot set special environment variable", "key" => "ETCD_VERSION", "value" => value);
    }
    let mut positions: Vec<usize> = (0..SETTINGS.len()).filter(|p| SETTINGS[*p].is_known()).collect();
    positions.sort_by_key(|position| SETTINGS[*position].name);

    let mut used = Vec::new();
    let mut shadowed = Vec::new();
    let mut invalid = None;
    for position in positions {
        let setting = &SETTINGS[position];
        let variable = setting.variable();
        if raw.source(position) == Some(Source::Flag) {
            shadowed.push(variable);
            continue;
        }
        // What is done instead of a start is for the command line to say.
        let is_for_start = !matches!(setting.name, "version" | "check-config");
        let Some(value) = lookup(&variable).filter(|_| is_for_start) else {
            continue;
        };
        match raw.set(position, value, Source::Variable) {
            Ok(()) => crate::info!(
                "recognized and used environment variable",
                "variable-name" => variable,
                "variable-value" => if setting.name.ends_with("password") { "<redacted>" } else { value },
            ),
            Err(why) => {
                invalid =
                    Some(EnvError::Invalid(format!("invalid value {} for {variable}: {why}", quote(value))));
            }
        }
        used.push(variable);
    }
    for (name, value) in environment.iter().filter(|(name, _)| name != "ETCD_VERSION") {
        if used.contains(name) {
            continue;
        }
        if shadowed.contains(name) {
            return Err(EnvError::Conflict { variable: name.clone() });
        }
        if name.starts_with("ETCD_") {
            let whole = format!("{name}={}", if name.ends_with("PASSWORD") { "<redacted>" } else { value });
            log::warn!("unrecognized environment variable", "environment-variable" => whole);
        }
    }
    invalid.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Value;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn variables_set_what_the_command_line_left_open() {
        let mut raw = RawConfig::default();
        apply(
            &mut raw,
            &env(&[("ETCD_NAME", "n"), ("ETCD_MAX_TXN_OPS", "7"), ("ETCD_WAL_DIR", ""), ("NAME", "x")]),
        )
        .unwrap();
        assert_eq!(raw.text("name"), "n");
        assert_eq!(raw.uint("max-txn-ops"), 7);
        assert!(!raw.is_set("wal-dir"));
    }

    #[test]
    fn a_flag_and_its_variable_are_a_conflict_even_when_empty() {
        for value in ["", "default"] {
            let mut raw = RawConfig::default();
            crate::config::flags::parse(&["--name=default".to_owned()], &mut raw).unwrap();
            let error = apply(&mut raw, &env(&[("ETCD_NAME", value)])).unwrap_err();
            assert_eq!(error, EnvError::Conflict { variable: "ETCD_NAME".into() });
        }
    }

    #[test]
    fn a_bad_value_names_its_variable() {
        let error = apply(&mut RawConfig::default(), &env(&[("ETCD_MAX_TXN_OPS", "q")])).unwrap_err();
        assert_eq!(error.to_string(), r#"invalid value "q" for ETCD_MAX_TXN_OPS: parse error"#);
    }

    #[test]
    fn unknown_variables_and_the_version_change_nothing() {
        let mut raw = RawConfig::default();
        apply(
            &mut raw,
            &env(&[("ETCD_NONSENSE", "1"), ("ETCD_VERSION", "true"), ("ETCD_ENABLE_V2", "true")]),
        )
        .unwrap();
        assert_eq!(raw.value("version"), Value::Bool(false));
    }
}
