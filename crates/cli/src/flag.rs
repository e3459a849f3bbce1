//! Flags after the rules of Go's pflag: where they may stand, what they accept, what it says when they are wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::gotext;

/// A flag as a table lists it.
#[derive(Debug, PartialEq, Eq)]
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    /// The one-letter form.
    pub short: Option<char>,
    /// What it accepts.
    pub kind: Kind,
    /// In the form in which it would be given; `""` is the kind's zero.
    pub default: &'static str,
    /// One line for the help.
    pub help: &'static str,
}

/// What a flag accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, which is true; or `=` and one of Go's words for true and false.
    Bool,
    /// Any text.
    Text,
    /// Texts with commas between; given again, it adds to the list.
    List,
    /// A number of 64 bits with a sign, also in hex.
    Int,
    /// A number without a sign.
    Uint,
    /// A number with a unit, as `1m30s`.
    Duration,
}

impl Flag {
    /// A flag without a short form whose default is the zero of its kind.
    pub const fn new(name: &'static str, kind: Kind, help: &'static str) -> Flag {
        Flag { name, short: None, kind, default: "", help }
    }

    /// The same with a default.
    pub const fn default(mut self, default: &'static str) -> Flag {
        self.default = default;
        self
    }

    /// The same with a short form.
    pub const fn short(mut self, short: char) -> Flag {
        self.short = Some(short);
        self
    }

    /// As messages name it: `-w, --write-out`.
    fn title(&self) -> String {
        match self.short {
            Some(short) => format!("-{short}, --{}", self.name),
            None => format!("--{}", self.name),
        }
    }
}

/// The value of a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Bool(bool),
    Text(String),
    List(Vec<String>),
    Int(i64),
    Uint(u64),
    /// Nanoseconds.
    Duration(i64),
}

impl Value {
    fn parse(kind: Kind, text: &str) -> Result<Value, String> {
        Ok(match kind {
            Kind::Bool => Value::Bool(parse_bool(text)?),
            Kind::Text => Value::Text(text.to_owned()),
            Kind::List if text.is_empty() => Value::List(Vec::new()),
            Kind::List => Value::List(text.split(',').map(str::to_owned).collect()),
            Kind::Int => Value::Int(parse_int(text)?),
            Kind::Uint => Value::Uint(text.parse().map_err(|e| gotext::number_error("ParseUint", text, &e))?),
            Kind::Duration => Value::Duration(gotext::parse_duration(text)?),
        })
    }

    fn default_of(flag: &Flag) -> Value {
        let zero = match flag.kind {
            Kind::Bool => "false",
            Kind::Text | Kind::List => "",
            Kind::Int | Kind::Uint | Kind::Duration => "0",
        };
        let text = if flag.default.is_empty() { zero } else { flag.default };
        Value::parse(flag.kind, text).expect("defaults of the flag tables are valid: a test reads them all")
    }
}

fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {}: invalid syntax", gotext::quote(text.as_bytes()))),
    }
}

fn parse_int(text: &str) -> Result<i64, String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    let result = match digits.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => i64::from_str_radix(&format!("{sign}{}", &digits[2..]), 16),
        Some("0o") => i64::from_str_radix(&format!("{sign}{}", &digits[2..]), 8),
        Some("0b") => i64::from_str_radix(&format!("{sign}{}", &digits[2..]), 2),
        _ if digits.len() > 1 && digits.starts_with('0') => i64::from_str_radix(text, 8),
        _ => text.parse(),
    };
    result.map_err(|e| gotext::number_error("ParseInt", text, &e))
}

#[derive(Clone, Debug)]
struct Setting {
    flag: &'static Flag,
    value: Value,
    changed: bool,
}

/// The flags that a command knows, with their values.
///
/// The getters panic for a flag that is not in the set or has another kind: that is a mistake in a command.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    settings: BTreeMap<&'static str, Setting>,
    /// How many positional arguments stood before a `--`, if there was one.
    dash: Option<usize>,
}

/// Every command has it.
pub const HELP: Flag = Flag::new("help", Kind::Bool, "").short('h');

impl Flags {
    /// These flags at their defaults, and `--help`.
    pub fn new(flags: impl IntoIterator<Item = &'static Flag>) -> Self {
        let mut set = Flags::default();
        for flag in flags.into_iter().chain([&HELP]) {
            set.settings.insert(flag.name, Setting { flag, value: Value::default_of(flag), changed: false });
        }
        set
    }

    /// Reads a command line: sets what it names and gives back the other arguments. Flags may stand anywhere before
    /// a `--`.
    ///
    /// # Errors
    /// pflag's text.
    pub fn parse(&mut self, args: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, String> {
        let mut positional = Vec::new();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if arg == b"--" {
                self.dash = Some(positional.len());
                positional.extend(args.by_ref().cloned());
            } else if let Some(long) = arg.strip_prefix(b"--") {
                self.parse_long(&text_of(long), &mut args)?;
            } else if arg.len() > 1 && arg[0] == b'-' {
                self.parse_short(&text_of(&arg[1..]), &mut args)?;
            } else {
                positional.push(arg.clone());
            }
        }
        Ok(positional)
    }

    fn parse_long<'a>(
        &mut self,
        text: &str,
        rest: &mut impl Iterator<Item = &'a Vec<u8>>,
    ) -> Result<(), String> {
        if text.starts_with(['-', '=']) {
            return Err(format!("bad flag syntax: --{text}"));
        }
        let (name, given) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        let Some(setting) = self.settings.get(name) else {
            return Err(format!("unknown flag: --{name}"));
        };
        let flag = setting.flag;
        let value = match given {
            Some(value) => value,
            None if flag.kind == Kind::Bool => "true".to_owned(),
            None => text_of(rest.next().ok_or_else(|| format!("flag needs an argument: --{name}"))?),
        };
        self.set(flag.name, &value)
    }

    /// `-w json`, `-wjson`, `-w=json`, and several of them behind one dash.
    fn parse_short<'a>(
        &mut self,
        all: &str,
        rest: &mut impl Iterator<Item = &'a Vec<u8>>,
    ) -> Result<(), String> {
        let mut shorts = all;
        while let Some(short) = shorts.chars().next() {
            let after = &shorts[short.len_utf8()..];
            let Some(setting) = self.settings.values().find(|s| s.flag.short == Some(short)) else {
                return Err(format!("unknown shorthand flag: '{short}' in -{shorts}"));
            };
            let flag = setting.flag;
            if let Some(value) = after.strip_prefix('=').filter(|v| !v.is_empty()) {
                return self.set(flag.name, value);
            }
            if flag.kind == Kind::Bool {
                self.set(flag.name, "true")?;
                shorts = after;
                continue;
            }
            if !after.is_empty() {
                return self.set(flag.name, after);
            }
            let value =
                rest.next().ok_or_else(|| format!("flag needs an argument: '{short}' in -{shorts}"))?;
            return self.set(flag.name, &text_of(value));
        }
        Ok(())
    }

    /// Sets a flag by its name.
    ///
    /// # Errors
    /// pflag's text; the flag keeps its value.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let setting = self.setting_mut(name);
        let value = Value::parse(setting.flag.kind, text).map_err(|reason| {
            let (text, title) = (gotext::quote(text.as_bytes()), setting.flag.title());
            format!("invalid argument {text} for \"{title}\" flag: {reason}")
        })?;
        match (&mut setting.value, value) {
            (Value::List(list), Value::List(more)) if setting.changed => list.extend(more),
            (slot, value) => *slot = value,
        }
        setting.changed = true;
        Ok(())
    }

    /// How many of the positional arguments stood before a `--`, if there was one.
    pub fn dash(&self) -> Option<usize> {
        self.dash
    }

    /// Whether the command line or a variable has set it.
    pub fn changed(&self, name: &str) -> bool {
        self.setting(name).changed
    }

    /// The value of a [`Kind::Bool`].
    pub fn bool(&self, name: &str) -> bool {
        match self.setting(name).value {
            Value::Bool(value) => value,
            ref other => panic!("flag {name} is {other:?}"),
        }
    }

    /// The value of a [`Kind::Text`].
    pub fn text(&self, name: &str) -> &str {
        match &self.setting(name).value {
            Value::Text(value) => value,
            other => panic!("flag {name} is {other:?}"),
        }
    }

    /// The value of a [`Kind::List`].
    pub fn list(&self, name: &str) -> &[String] {
        match &self.setting(name).value {
            Value::List(value) => value,
            other => panic!("flag {name} is {other:?}"),
        }
    }

    /// The value of a [`Kind::Int`].
    pub fn int(&self, name: &str) -> i64 {
        match self.setting(name).value {
            Value::Int(value) => value,
            ref other => panic!("flag {name} is {other:?}"),
        }
    }

    /// The value of a [`Kind::Uint`].
    pub fn uint(&self, name: &str) -> u64 {
        match self.setting(name).value {
            Value::Uint(value) => value,
            ref other => panic!("flag {name} is {other:?}"),
        }
    }

    /// The value of a [`Kind::Duration`]; what is below zero is zero.
    pub fn duration(&self, name: &str) -> Duration {
        match self.setting(name).value {
            Value::Duration(nanos) => Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)),
            ref other => panic!("flag {name} is {other:?}"),
        }
    }

    /// The value as Go prints it.
    pub fn shown(&self, name: &str) -> String {
        match &self.setting(name).value {
            Value::Bool(value) => value.to_string(),
            Value::Text(value) => value.clone(),
            Value::List(value) => format!("[{}]", value.join(",")),
            Value::Int(value) => value.to_string(),
            Value::Uint(value) => value.to_string(),
            Value::Duration(nanos) => gotext::duration(*nanos),
        }
    }

    fn setting(&self, name: &str) -> &Setting {
        self.settings.get(name).unwrap_or_else(|| panic!("no flag {name} here"))
    }

    fn setting_mut(&mut self, name: &str) -> &mut Setting {
        self.settings.get_mut(name).unwrap_or_else(|| panic!("no flag {name} here"))
    }
}

/// Names and values of flags are text; only positional arguments may be any bytes.
fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: [Flag; 6] = [
        Flag::new("prefix", Kind::Bool, ""),
        Flag::new("write-out", Kind::Text, "").short('w').default("simple"),
        Flag::new("endpoints", Kind::List, "").default("127.0.0.1:2379"),
        Flag::new("limit", Kind::Int, ""),
        Flag::new("interactive", Kind::Bool, "").short('i'),
        Flag::new("command-timeout", Kind::Duration, "").default("5s"),
    ];

    fn parse(line: &str) -> Result<(Flags, Vec<String>), String> {
        static TABLE: [Flag; 6] = FLAGS;
        let args: Vec<Vec<u8>> = line.split(' ').map(|a| a.as_bytes().to_vec()).collect();
        let mut flags = Flags::new(&TABLE);
        let positional = flags.parse(&args)?;
        Ok((flags, positional.iter().map(|p| text_of(p)).collect()))
    }

    #[test]
    fn every_form_of_a_value() {
        for line in ["a -w=json", "a -wjson", "-w json a", "--write-out json a", "a --write-out=json"] {
            let (flags, positional) = parse(line).unwrap();
            assert_eq!(
                (flags.text("write-out"), positional.as_slice()),
                ("json", &["a".to_owned()][..]),
                "{line}"
            );
        }
        for (line, value) in [
            ("--prefix", true),
            ("--prefix=true", true),
            ("--prefix=F", false),
            ("--prefix --prefix=0", false),
        ] {
            assert_eq!(parse(line).unwrap().0.bool("prefix"), value, "{line}");
        }
        let (flags, _) = parse("-iwjson").unwrap();
        assert!(flags.bool("interactive") && flags.text("write-out") == "json");
    }

    #[test]
    fn a_flag_that_is_a_switch_takes_no_word_after_it() {
        let (flags, positional) = parse("--prefix false -- --prefix").unwrap();
        assert!(flags.bool("prefix"));
        assert_eq!(positional, ["false", "--prefix"]);
        assert_eq!(flags.dash(), Some(1));
        assert_eq!(parse("--prefix false").unwrap().0.dash(), None);
    }

    #[test]
    fn lists_replace_the_default_and_then_grow() {
        assert_eq!(parse("x").unwrap().0.list("endpoints"), ["127.0.0.1:2379"]);
        assert_eq!(parse("--endpoints a,b --endpoints=c").unwrap().0.list("endpoints"), ["a", "b", "c"]);
        assert!(parse("--endpoints ").unwrap().0.list("endpoints").is_empty());
    }

    #[test]
    fn errors_have_the_words_of_pflag() {
        for (line, text) in [
            ("--nonsense", "unknown flag: --nonsense"),
            ("--=x", "bad flag syntax: --=x"),
            ("-z", "unknown shorthand flag: 'z' in -z"),
            ("-iz", "unknown shorthand flag: 'z' in -z"),
            ("--limit", "flag needs an argument: --limit"),
            ("-w", "flag needs an argument: 'w' in -w"),
            (
                "--limit x",
                "invalid argument \"x\" for \"--limit\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (
                "--prefix=x",
                "invalid argument \"x\" for \"--prefix\" flag: strconv.ParseBool: parsing \"x\": invalid syntax",
            ),
            (
                "--command-timeout=x",
                "invalid argument \"x\" for \"--command-timeout\" flag: time: invalid duration \"x\"",
            ),
        ] {
            assert_eq!(parse(line).unwrap_err(), text, "{line}");
        }
    }

    #[test]
    fn numbers() {
        for (text, value) in
            [("12", 12), ("-3", -3), ("0x10", 16), ("010", 8), ("-0x8000000000000000", i64::MIN)]
        {
            assert_eq!(parse_int(text), Ok(value), "{text}");
        }
        assert!(parse_int("9223372036854775808").unwrap_err().ends_with("value out of range"));
        assert!(parse_int("").unwrap_err().ends_with("invalid syntax"));
    }
}
