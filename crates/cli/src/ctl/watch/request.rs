//! What a command line of `watch` asks for.

use bytes::Bytes;
use client::prefix_range;
use wire::etcdserverpb::WatchCreateRequest;

use crate::app::{Failure, exit};
use crate::flag::Flags;
use crate::gotext;

const TOO_FEW: &str = "bad number of arguments";
const CONFLICT: &str = "bad number of arguments (found conflicting environment key)";
const NO_COMMAND: &str = "bad number of arguments (found separator --, but no commands)";

/// The key and range end that are given by variables; empty if they are not.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables {
    pub key: String,
    pub range_end: String,
}

impl Variables {
    /// # Errors
    /// [`exit::BAD_ARGS`] for a range end without a key.
    pub(super) fn read(variables: &[(String, String)]) -> Result<Variables, Failure> {
        let value = |name: &str| {
            variables
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
                .unwrap_or_default()
        };
        let read = Variables { key: value("ETCDCTL_WATCH_KEY"), range_end: value("ETCDCTL_WATCH_RANGE_END") };
        if read.key.is_empty() && !read.range_end.is_empty() {
            let end = gotext::quote(read.range_end.as_bytes());
            let text = format!("ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={end}");
            return Err(Failure::new(exit::BAD_ARGS, text));
        }
        Ok(read)
    }
}

/// The words of a command line of `watch`, sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// The key, perhaps a range end, and what is too much.
    pub keys: Vec<Vec<u8>>,
    /// What is to be run for each event; empty for nothing.
    pub command: Vec<Vec<u8>>,
}

impl Asked {
    /// Reads a line of the interactive mode, without its first word.
    ///
    /// # Errors
    /// [`exit::BAD_ARGS`], as etcdctl.
    pub(super) fn parse(
        flags: &mut Flags,
        words: &[Vec<u8>],
        variables: &Variables,
    ) -> Result<Asked, Failure> {
        let bad = |text: &str| Err(Failure::new(exit::BAD_ARGS, text));
        // Before the flags are looked at, as in etcdctl.
        if words.iter().position(|word| word == b"--").is_some_and(|dash| dash + 1 == words.len()) {
            return bad(NO_COMMAND);
        }
        let args = match flags.parse(words) {
            Ok(args) => args,
            Err(text) => return bad(&text),
        };
        if flags.bool("help") {
            return bad("pflag: help requested");
        }
        Asked::read(flags, &args, variables, true)
    }

    /// Sorts the positional arguments; `flags` knows where a `--` stood.
    ///
    /// # Errors
    /// [`exit::BAD_ARGS`], as etcdctl.
    pub(super) fn read(
        flags: &Flags,
        args: &[Vec<u8>],
        variables: &Variables,
        interactive: bool,
    ) -> Result<Asked, Failure> {
        let bad = |text: &str| Err(Failure::new(exit::BAD_ARGS, text));
        let dash = flags.dash();
        let (given, command) = args.split_at(dash.unwrap_or(args.len()));
        if dash.is_some() && command.is_empty() {
            return bad(NO_COMMAND);
        }
        let has_command = interactive && dash.is_some();
        if variables.key.is_empty() {
            if interactive && dash.is_none() && given.is_empty() {
                return bad(TOO_FEW);
            }
        } else if !has_command && !given.is_empty() {
            return bad(CONFLICT);
        }
        let variables = [&variables.key, &variables.range_end].into_iter().filter(|value| !value.is_empty());
        let keys = variables.map(|value| value.clone().into_bytes()).chain(given.iter().cloned()).collect();
        Ok(Asked { keys, command: command.to_vec() })
    }

    /// # Errors
    /// etcdctl's text for keys that mean nothing.
    pub(super) fn request(&self, flags: &Flags) -> Result<WatchCreateRequest, &'static str> {
        let prefix = flags.bool("prefix");
        let (key, range_end) = match self.keys.as_slice() {
            [] => return Err(TOO_FEW),
            [_, _] if prefix => return Err("`range_end` and `--prefix` are mutually exclusive"),
            [key, range_end] => (Bytes::copy_from_slice(key), Bytes::copy_from_slice(range_end)),
            [key, ..] if prefix => prefix_range(key),
            [key, ..] => (Bytes::copy_from_slice(key), Bytes::new()),
        };
        Ok(WatchCreateRequest {
            key,
            range_end,
            start_revision: flags.int("rev"),
            prev_kv: flags.bool("prev-kv"),
            progress_notify: flags.bool("progress-notify"),
            ..WatchCreateRequest::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::FLAGS;
    use super::*;

    fn words(line: &str) -> Vec<Vec<u8>> {
        line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
    }

    fn variables(key: &str, range_end: &str) -> Variables {
        Variables { key: key.to_owned(), range_end: range_end.to_owned() }
    }

    /// Keys and command of a line, or the text of its refusal.
    fn read(line: &str, variables: &Variables, interactive: bool) -> Result<(String, String), String> {
        let mut flags = Flags::new(FLAGS);
        let asked = if interactive {
            Asked::parse(&mut flags, &words(line), variables)
        } else {
            let args = flags.parse(&words(line)).unwrap();
            Asked::read(&flags, &args, variables, false)
        };
        let shown = |words: &[Vec<u8>]| String::from_utf8(words.join(&b' ')).unwrap();
        match asked {
            Ok(asked) => Ok((shown(&asked.keys), shown(&asked.command))),
            Err(failure) => {
                assert_eq!(failure.code, exit::BAD_ARGS);
                Err(failure.message)
            }
        }
    }

    #[test]
    fn keys_and_command_are_told_apart() {
        let none = variables("", "");
        let (key, both) = (variables("k", ""), variables("k", "l"));
        for interactive in [false, true] {
            for (line, variables, keys, command) in [
                ("a", &none, "a", ""),
                ("a b", &none, "a b", ""),
                ("--rev 1 a b --prefix", &none, "a b", ""),
                ("a b c", &none, "a b c", ""),
                ("a -- echo 1", &none, "a", "echo 1"),
                ("a --rev 1 b -- echo -n --rev 2", &none, "a b", "echo -n --rev 2"),
                ("a -- echo -- a", &none, "a", "echo -- a"),
                // etcdctl takes the last word that is the command's name for its beginning.
                ("a -- echo echo", &none, "a", "echo echo"),
                ("-- echo", &none, "", "echo"),
                ("", &key, "k", ""),
                ("--rev 1", &both, "k l", ""),
                ("-- echo k", &key, "k", "echo k"),
                ("--rev 1 -- echo", &both, "k l", "echo"),
            ] {
                let expected = Ok((keys.to_owned(), command.to_owned()));
                assert_eq!(read(line, variables, interactive), expected, "{line:?} {variables:?}");
            }
            for (line, variables, text) in [
                ("a b --", &none, NO_COMMAND),
                ("--", &none, NO_COMMAND),
                ("--", &key, NO_COMMAND),
                ("a", &key, CONFLICT),
                ("a b", &both, CONFLICT),
            ] {
                let expected = Err(format!("Error: {text}\n"));
                assert_eq!(read(line, variables, interactive), expected, "{line:?} {variables:?}");
            }
        }
        // Here the two differ.
        assert_eq!(read("a -- echo", &key, false), Err(format!("Error: {CONFLICT}\n")));
        assert_eq!(read("a -- echo", &key, true), Ok(("k a".to_owned(), "echo".to_owned())));
        assert_eq!(read("--rev 1", &none, false), Ok((String::new(), String::new())));
        assert_eq!(read("--rev 1", &none, true), Err(format!("Error: {TOO_FEW}\n")));
    }

    #[test]
    fn lines_whose_flags_are_wrong() {
        for (line, text) in [
            ("a --nope", "unknown flag: --nope"),
            ("a --help", "pflag: help requested"),
            ("a -h", "pflag: help requested"),
            (
                "a --rev x",
                "invalid argument \"x\" for \"--rev\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            ("a --nope --", NO_COMMAND),
        ] {
            let expected = Err(format!("Error: {text}\n"));
            assert_eq!(read(line, &variables("", ""), true), expected, "{line}");
        }
    }

    #[test]
    fn a_range_end_wants_a_key() {
        let given = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            Variables::read(&pairs).map(|read| (read.key, read.range_end))
        };
        let (key, end) = (("ETCDCTL_WATCH_KEY", "k"), ("ETCDCTL_WATCH_RANGE_END", "a \"b"));
        assert_eq!(given(&[]), Ok(Default::default()));
        assert_eq!(given(&[key, end]), Ok(("k".to_owned(), "a \"b".to_owned())));
        let text = "ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END=\"a \\\"b\"";
        assert_eq!(given(&[end]), Err(Failure::new(exit::BAD_ARGS, text)));
    }

    #[test]
    fn requests() {
        let request = |line: &str| {
            let mut flags = Flags::new(FLAGS);
            let args = flags.parse(&words(line)).unwrap();
            Asked::read(&flags, &args, &Variables::default(), false).unwrap().request(&flags)
        };
        let of = |key: &'static str, range_end: &'static str| WatchCreateRequest {
            key: key.into(),
            range_end: range_end.into(),
            ..WatchCreateRequest::default()
        };
        assert_eq!(request("a"), Ok(of("a", "")));
        assert_eq!(request("a b"), Ok(of("a", "b")));
        assert_eq!(request("a b c"), Ok(of("a", "")));
        assert_eq!(request("a/ --prefix"), Ok(of("a/", "a0")));
        let all =
            WatchCreateRequest { start_revision: -3, prev_kv: true, progress_notify: true, ..of("a", "") };
        assert_eq!(request("--rev -3 a --prev-kv --progress-notify"), Ok(all));
        assert_eq!(request("a b --prefix"), Err("`range_end` and `--prefix` are mutually exclusive"));
        assert_eq!(request("--prefix"), Err(TOO_FEW));
        assert_eq!(request("-- echo"), Err(TOO_FEW));
    }
}
