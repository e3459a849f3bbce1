//! Exactly what the user said: each setting's value and where it came from, before anything is checked together.

use std::collections::BTreeMap;

use super::Url;
use super::notes::note;
use super::settings::{SETTINGS, Status, find};
use super::value::Value;

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Flag,
    /// An `ETCD_` variable.
    Variable,
    /// The configuration file.
    File,
}

/// The settings as given; what was not given has its default.
#[derive(Clone, Debug)]
pub struct RawConfig {
    /// In the order of [`SETTINGS`].
    given: Vec<Option<(Value, Source)>>,
    /// What only a configuration file can say, by its key.
    of_file: BTreeMap<&'static str, Value>,
    is_of_file: bool,
    /// Keys of it that have no flag and belong to a later version.
    refused_keys: Vec<String>,
}

impl Default for RawConfig {
    fn default() -> Self {
        RawConfig {
            given: vec![None; SETTINGS.len()],
            of_file: BTreeMap::new(),
            is_of_file: false,
            refused_keys: Vec::new(),
        }
    }
}

impl RawConfig {
    /// Sets the setting at this place in [`SETTINGS`]; a later call wins. An empty text leaves URLs as they are.
    ///
    /// # Errors
    /// Go's text, if the value does not parse.
    pub fn set(&mut self, position: usize, text: &str, source: Source) -> Result<(), String> {
        let mut value = SETTINGS[position].kind.parse(text)?;
        if let (Value::Urls(urls), Some((given, _))) = (&value, &self.given[position])
            && urls.is_empty()
        {
            value = given.clone();
        }
        self.given[position] = Some((value, source));
        Ok(())
    }

    /// Sets the setting at this place in [`SETTINGS`] to a value of its kind; a later call wins.
    pub fn put(&mut self, position: usize, value: Value, source: Source) {
        self.given[position] = Some((value, source));
    }

    /// No settings yet, from a configuration file.
    pub fn for_file() -> RawConfig {
        RawConfig { is_of_file: true, ..RawConfig::default() }
    }

    /// Whether these are the settings of a configuration file.
    pub fn is_of_file(&self) -> bool {
        self.is_of_file
    }

    /// What a configuration file says under a key that has no flag.
    pub fn of_file(&self, key: &str) -> Option<&Value> {
        self.of_file.get(key)
    }

    /// Keeps the value of such a key.
    pub fn put_of_file(&mut self, key: &'static str, value: Value) {
        self.of_file.insert(key, value);
    }

    /// Whether the user gave this setting, be it with its default value.
    pub fn is_set(&self, name: &str) -> bool {
        find(name).is_some_and(|position| self.given[position].is_some())
    }

    /// Where the setting at this place came from, if it was given.
    pub fn source(&self, position: usize) -> Option<Source> {
        self.given[position].as_ref().map(|(_, source)| *source)
    }

    /// The value, or the default.
    ///
    /// # Panics
    /// If there is no such setting.
    pub fn value(&self, name: &str) -> Value {
        let position = find(name).unwrap_or_else(|| panic!("no setting {name}"));
        match &self.given[position] {
            Some((value, _)) => value.clone(),
            None => default(position),
        }
    }

    /// The value of a text setting.
    ///
    /// # Panics
    /// If the setting is of another kind.
    pub fn text(&self, name: &str) -> String {
        match self.value(name) {
            Value::Text(text) => text,
            other => panic!("{name} is {other:?}"),
        }
    }

    /// The value of a numeric setting.
    ///
    /// # Panics
    /// If the setting is of another kind.
    pub fn uint(&self, name: &str) -> u64 {
        match self.value(name) {
            Value::Uint(n) => n,
            other => panic!("{name} is {other:?}"),
        }
    }

    /// The value of a boolean setting.
    ///
    /// # Panics
    /// If the setting is of another kind.
    pub fn bool(&self, name: &str) -> bool {
        match self.value(name) {
            Value::Bool(on) => on,
            other => panic!("{name} is {other:?}"),
        }
    }

    /// The value of a duration, in nanoseconds.
    ///
    /// # Panics
    /// If the setting is of another kind.
    pub fn int(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Int(number) => number,
            other => panic!("{name} is {other:?}"),
        }
    }

    /// The value of a setting of a duration, nanoseconds.
    ///
    /// # Panics
    /// If the setting is of another kind.
    pub fn nanos(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Duration(nanos) => nanos,
            other => panic!("{name} is {other:?}"),
        }
    }

    /// The value of a setting of several words.
    ///
    /// # Panics
    /// If the setting is of another kind.
    pub fn list(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Value::List(list) => list,
            other => panic!("{name} is {other:?}"),
        }
    }

    /// The value of a setting of URLs. An empty text leaves the default in place, as in etcd.
    ///
    /// # Panics
    /// If the setting is of another kind.
    pub fn urls(&self, name: &str) -> Vec<Url> {
        let position = find(name).unwrap_or_else(|| panic!("no setting {name}"));
        match (self.value(name), default(position)) {
            (Value::Urls(urls), Value::Urls(fallback)) => {
                if urls.is_empty() {
                    fallback
                } else {
                    urls
                }
            }
            (other, _) => panic!("{name} is {other:?}"),
        }
    }

    /// Notes that a configuration file has this key, which belongs to a later version.
    pub fn refuse_key(&mut self, key: String) {
        self.refused_keys.push(key);
    }

    /// All that belongs to a later version, with the reason: flags that were given another value than the default, and keys.
    pub fn unsupported(&self) -> Vec<(String, &'static str)> {
        let flags = self.changed(Status::Later).map(|name| (format!("--{name}"), note(name)));
        let keys = self.refused_keys.iter().map(|key| (key.clone(), note(key)));
        flags.chain(keys).collect()
    }

    /// The flags that have no effect here, and were given another value than the default.
    pub fn inert(&self) -> Vec<&'static str> {
        self.changed(Status::Inert).collect()
    }

    fn changed(&self, status: Status) -> impl Iterator<Item = &'static str> {
        (0..SETTINGS.len())
            .filter(move |position| SETTINGS[*position].status == status)
            .filter(
                |position| matches!(&self.given[*position], Some((value, _)) if *value != default(*position)),
            )
            .map(|position| SETTINGS[position].name)
    }
}

fn default(position: usize) -> Value {
    SETTINGS[position].kind.parse(SETTINGS[position].default).expect("a test parses every default")
}
