//! The log: one line an event, on stderr or where `--log-outputs` says, in etcd's shape.
//!
//! A line is a JSON object with `level`, `ts`, `caller`, `msg` and then the event's own fields in the order given,
//! or, with `--log-format=console`, the same separated by tabs. Tools that read etcd's log match on these names and
//! on the texts, so they are part of the interface. Each line leaves in one write, so that lines of different
//! threads never mix. There is one log a process: level, format and outputs are set once, after the flags are read.

pub mod outputs;

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use jiff::ZonedDateTime;

use crate::config::Url;
use crate::config::duration;

use outputs::{Output, OutputError, Target};

pub use crate::{debug, error, fatal, info, warn};

/// How serious an event is; zap's levels, which are etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are zap's own")]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
    Dpanic,
    Panic,
    Fatal,
}

impl Level {
    const ALL: [Level; 7] =
        [Level::Debug, Level::Info, Level::Warn, Level::Error, Level::Dpanic, Level::Panic, Level::Fatal];

    /// The name in the log and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Dpanic => "dpanic",
            Level::Panic => "panic",
            Level::Fatal => "fatal",
        }
    }

    /// The level with this name, in letters of either case as zap reads it; the empty name is `info`.
    pub fn from_name(name: &str) -> Option<Level> {
        if name.is_empty() {
            return Some(Level::Info);
        }
        Level::ALL.into_iter().find(|level| level.name().eq_ignore_ascii_case(name))
    }

    /// The escape sequence of its colour in zap's development console.
    fn colour(self) -> &'static str {
        match self {
            Level::Debug => "\x1b[35m",
            Level::Info => "\x1b[34m",
            Level::Warn => "\x1b[33m",
            _ => "\x1b[31m",
        }
    }
}

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Format {
    /// One JSON object.
    Json,
    /// Tabs between time, level, caller, text and the fields as JSON; the level coloured on a terminal.
    Console,
}

impl Format {
    /// The format with this name of `--log-format`; the empty name is JSON.
    pub fn from_name(name: &str) -> Option<Format> {
        match name {
            "" | "json" => Some(Format::Json),
            "console" => Some(Format::Console),
            _ => None,
        }
    }
}

/// Unit tests look at what is written, not at what is logged on the way.
static LEVEL: AtomicU8 = AtomicU8::new(if cfg!(test) { Level::Fatal } else { Level::Info } as u8);
static FORMAT: AtomicU8 = AtomicU8::new(Format::Json as u8);

/// Sets level and format of the process's log; until then it is `info` and JSON.
pub fn set(level: Level, format: Format) {
    LEVEL.store(level as u8, Ordering::Relaxed);
    FORMAT.store(format as u8, Ordering::Relaxed);
}

/// Where lines go; stderr until it is known.
static OUTPUTS: OnceLock<Vec<Output>> = OnceLock::new();

/// Opens what the log goes to from now on. Works once a process.
///
/// # Errors
/// When a file or the journal can't be opened; then all goes on to stderr.
pub fn open(targets: &[Target]) -> Result<(), OutputError> {
    let opened = targets.iter().map(Output::open).collect::<Result<Vec<_>, _>>()?;
    // A second time would be another process's settings.
    let _ = OUTPUTS.set(opened);
    Ok(())
}

/// Whether events of this level are written.
pub fn enabled(level: Level) -> bool {
    level as u8 >= LEVEL.load(Ordering::Relaxed)
}

/// A value that an event can carry; it writes itself as JSON.
pub trait Value {
    /// Appends the value as JSON. `spaced` asks for a space after commas and colons, as the console format has it.
    fn write(&self, out: &mut String, spaced: bool);
}

/// Writes one event, whatever the level set. Use the macros, which look at the level first and fill in the caller.
#[expect(clippy::disallowed_methods, reason = "a log is for people")]
pub fn write(level: Level, file: &str, line: u32, message: &str, fields: &[(&str, &dyn Value)]) {
    let record = Record { level, file, line, message, fields };
    let console = FORMAT.load(Ordering::Relaxed) == Format::Console as u8;
    let mut text = if console {
        record.console(&ZonedDateTime::now(), colours())
    } else {
        record.json(&ZonedDateTime::now())
    };
    text.push('\n');
    match OUTPUTS.get() {
        Some(outputs) => outputs.iter().for_each(|output| output.write(level, caller(file), &text)),
        None => Output::Stderr.write(level, caller(file), &text),
    }
}

fn colours() -> bool {
    static COLOURS: OnceLock<bool> = OnceLock::new();
    *COLOURS.get_or_init(|| std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
}

struct Record<'a> {
    level: Level,
    file: &'a str,
    line: u32,
    message: &'a str,
    fields: &'a [(&'a str, &'a dyn Value)],
}

impl Record<'_> {
    fn json(&self, now: &ZonedDateTime) -> String {
        let mut out = String::with_capacity(256);
        let _ = write!(out, r#"{{"level":"{}","ts":"{}","caller":""#, self.level.name(), time(now));
        escape(&mut out, caller(self.file));
        let _ = write!(out, r#":{}","msg":"#, self.line);
        self.message.write(&mut out, false);
        for (key, value) in self.fields {
            out.push(',');
            key.write(&mut out, false);
            out.push(':');
            value.write(&mut out, false);
        }
        out.push('}');
        out
    }

    fn console(&self, now: &ZonedDateTime, colours: bool) -> String {
        let mut out = String::with_capacity(256);
        let (on, off) = if colours { (self.level.colour(), "\x1b[0m") } else { ("", "") };
        let level = self.level.name();
        let _ = write!(out, "{}\t{on}{level}{off}\t{}:{}\t", time(now), caller(self.file), self.line);
        out.push_str(self.message);
        for (position, (key, value)) in self.fields.iter().enumerate() {
            out.push_str(if position == 0 { "\t{" } else { ", " });
            key.write(&mut out, true);
            out.push_str(": ");
            value.write(&mut out, true);
        }
        if !self.fields.is_empty() {
            out.push('}');
        }
        out
    }
}

/// Microseconds, and `Z` for UTC or the local offset without a colon: etcd's layout.
pub(crate) fn time(now: &ZonedDateTime) -> String {
    let utc = now.offset().seconds() == 0;
    now.strftime(if utc { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%S.%6f%z" }).to_string()
}

/// The last folder and the file name, as zap shortens them.
fn caller(file: &str) -> &str {
    let start = file.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
    &file[start..]
}

/// Appends the text with what JSON needs escaped; the same characters as zap escapes.
fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
}

/// A number of bytes as etcd's log has it beside the number itself: `2.1 GB`, by powers of ten.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let power = (bytes.max(1).ilog10() / 3) as usize;
    let scaled = bytes as f64 / 1000f64.powi(power as i32);
    // Rounded first, so that it says at once how many digits there are.
    let tenths = (scaled * 10.0 + 0.5).floor() / 10.0;
    match power {
        0 => format!("{bytes} B"),
        _ if tenths < 10.0 => format!("{tenths:.1} {}", UNITS[power]),
        _ => format!("{tenths:.0} {}", UNITS[power]),
    }
}

/// Any value by its `Display` form, as a JSON string.
pub struct Text<T>(pub T);

impl<T: fmt::Display> Value for Text<T> {
    fn write(&self, out: &mut String, spaced: bool) {
        // Not `{:#}`, which of an `anyhow::Error` is the whole chain: our errors name their cause themselves.
        self.0.to_string().as_str().write(out, spaced);
    }
}

impl Value for str {
    fn write(&self, out: &mut String, _spaced: bool) {
        out.push('"');
        escape(out, self);
        out.push('"');
    }
}

impl Value for String {
    fn write(&self, out: &mut String, spaced: bool) {
        self.as_str().write(out, spaced);
    }
}

impl Value for Cow<'_, str> {
    fn write(&self, out: &mut String, spaced: bool) {
        (**self).write(out, spaced);
    }
}

impl<T: Value + ?Sized> Value for &T {
    fn write(&self, out: &mut String, spaced: bool) {
        (**self).write(out, spaced);
    }
}

impl Value for bool {
    fn write(&self, out: &mut String, _spaced: bool) {
        out.push_str(if *self { "true" } else { "false" });
    }
}

/// As Go prints it: `1m0s`, `100ms`.
impl Value for Duration {
    fn write(&self, out: &mut String, spaced: bool) {
        duration::format(i64::try_from(self.as_nanos()).unwrap_or(i64::MAX)).write(out, spaced);
    }
}

impl Value for Url {
    fn write(&self, out: &mut String, spaced: bool) {
        self.as_str().write(out, spaced);
    }
}

impl<T: Value> Value for [T] {
    fn write(&self, out: &mut String, spaced: bool) {
        out.push('[');
        for (position, value) in self.iter().enumerate() {
            if position > 0 {
                out.push_str(if spaced { ", " } else { "," });
            }
            value.write(out, spaced);
        }
        out.push(']');
    }
}

impl<T: Value> Value for Vec<T> {
    fn write(&self, out: &mut String, spaced: bool) {
        self.as_slice().write(out, spaced);
    }
}

macro_rules! numbers {
    ($($kind:ty),*) => {$(
        impl Value for $kind {
            fn write(&self, out: &mut String, _spaced: bool) {
                let _ = write!(out, "{self}");
            }
        }
    )*};
}

numbers!(i32, i64, isize, u16, u32, u64, usize);

/// Writes an event of the given level: `event!(Level::Info, "text", "field" => value, …)`.
#[macro_export]
macro_rules! event {
    ($level:expr, $message:expr $(, $key:literal => $value:expr)* $(,)?) => {{
        let level = $level;
        if $crate::log::enabled(level) {
            $crate::log::write(level, file!(), line!(), &$message, &[$(($key, &$value as &dyn $crate::log::Value)),*]);
        }
    }};
}

/// Writes a debug event: `debug!("text", "field" => value, …)`.
#[macro_export]
macro_rules! debug { ($($event:tt)*) => { $crate::event!($crate::log::Level::Debug, $($event)*) } }

/// Writes an event for information: `info!("text", "field" => value, …)`.
#[macro_export]
macro_rules! info { ($($event:tt)*) => { $crate::event!($crate::log::Level::Info, $($event)*) } }

/// Writes a warning: `warn!("text", "field" => value, …)`.
#[macro_export]
macro_rules! warn { ($($event:tt)*) => { $crate::event!($crate::log::Level::Warn, $($event)*) } }

/// Writes an error: `error!("text", "field" => value, …)`.
#[macro_export]
macro_rules! error { ($($event:tt)*) => { $crate::event!($crate::log::Level::Error, $($event)*) } }

/// Writes the event that ends the process: `fatal!("text", "field" => value, …)`. Ending it is the caller's part.
#[macro_export]
macro_rules! fatal { ($($event:tt)*) => { $crate::event!($crate::log::Level::Fatal, $($event)*) } }

#[cfg(test)]
mod tests {
    use super::*;

    fn record<'a>(message: &'a str, fields: &'a [(&'a str, &'a dyn Value)]) -> Record<'a> {
        Record { level: Level::Warn, file: "crates/server/src/config/env.rs", line: 12, message, fields }
    }

    fn at(text: &str) -> ZonedDateTime {
        text.parse().unwrap()
    }

    #[test]
    fn a_line_is_one_json_object_in_etcds_order() {
        let list = vec!["a", "b\"c"];
        let fields: [(&str, &dyn Value); 4] =
            [("list", &list), ("number", &7_u64), ("took", &Duration::from_millis(1500)), ("on", &true)];
        assert_eq!(
            record("line\nbreak \u{1}", &fields).json(&at("2026-11-23T23:19:19.1234567[UTC]")),
            concat!(
                r#"{"level":"warn","ts":"2026-11-23T23:19:19.123456Z","caller":"config/env.rs:12","#,
                r#""msg":"line\nbreak \u0001","list":["a","b\"c"],"number":7,"took":"1.5s","on":true}"#
            )
        );
    }

    #[test]
    fn the_time_is_local_with_its_offset() {
        let line = record("m", &[]).json(&at("2026-07-01T08:00:00+02:00[+02:00]"));
        assert!(line.contains(r#""ts":"2026-07-01T08:00:00.000000+0200""#), "{line}");
    }

    #[test]
    fn console_lines_are_etcds() {
        let list = vec!["a", "b"];
        let fields: [(&str, &dyn Value); 2] = [("list", &list), ("n", &1_u64)];
        let record = record("text", &fields);
        let now = at("2026-11-23T23:19:19.1[UTC]");
        assert_eq!(
            record.console(&now, false),
            "2026-11-23T23:19:19.100000Z\twarn\tconfig/env.rs:12\ttext\t{\"list\": [\"a\", \"b\"], \"n\": 1}"
        );
        assert!(record.console(&now, true).contains("\t\x1b[33mwarn\x1b[0m\t"));
    }

    #[test]
    fn level_names_are_zaps() {
        assert_eq!(Level::from_name("warn"), Some(Level::Warn));
        assert_eq!(Level::from_name("FATAL"), Some(Level::Fatal));
        assert_eq!(Level::from_name("Info"), Some(Level::Info));
        assert_eq!(Level::from_name(""), Some(Level::Info));
        assert_eq!(Level::from_name("loud"), None);
    }
}
