//! `txn`: compares, and requests for either outcome, from standard input.
//!
//! Three blocks of lines, each closed by an empty one. A compare is `target("key") op "value"`; a request is a
//! command line of `put`, `get` or `del`.

use std::io::{BufRead, BufReader, Read, Write};

use bytes::Bytes;
use client::Deadline;
use wire::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use wire::etcdserverpb::request_op::Request;
use wire::etcdserverpb::{Compare, RequestOp, TxnRequest};

use super::session::{Session, call_failed};
use super::words::{split_word, words};
use super::{del, get, put};
use crate::app::{Failure, Invocation, exit};
use crate::command::{self, App, Called, Command};
use crate::flag::{Flag, Kind};
use crate::gotext;

pub(super) const COMMAND: Command =
    Command::new("txn", "txn [options]", "Makes several requests as one transaction", run)
        .with_long(LONG)
        .with_flags(&[
            Flag::new("interactive", Kind::Bool, "print a line before each block that is read").short('i')
        ]);

const LONG: &str = r#"Reads a transaction from standard input: a block of compares, a block of requests to make if all of
them hold, a block of requests to make otherwise. An empty line closes each block.

A compare is mod, create, version or value of a key, then =, !=, < or >, then a value in quotes.
A request is put, get or del with their arguments and options.

  mod("key1") > "0"

  put key1 "there was one"

  put key1 "there was none"
  put key2 "another key"
"#;

fn run(call: &mut Invocation<'_>) -> Result<(), Failure> {
    if !call.args.is_empty() {
        return Err(Failure::new(exit::BAD_ARGS, "txn command does not accept argument"));
    }
    let session = Session::open(call)?;
    let client = session.client()?;
    let prompt = call.flags.bool("interactive");
    let world = &mut call.world;
    let request = read(
        &mut BufReader::new(&mut world.input),
        |block| {
            if prompt {
                writeln!(world.out, "{block}:")?;
                world.out.flush()?;
            }
            Ok(())
        },
        world.err,
    )?;
    let answer = session.wait(client.txn(request, Deadline::NEVER)).map_err(call_failed)?;
    session.printer.txn(call.world.out, &answer)
}

/// Reads a transaction; `prompt` is told the name of each block before it is read.
///
/// # Errors
/// [`exit::INVALID_INPUT`] for a line that is none and at the end of input, [`exit::BAD_ARGS`] and
/// [`exit::BAD_FEATURE`] for requests, as their commands.
fn read<R: Read>(
    input: &mut BufReader<R>,
    mut prompt: impl FnMut(&str) -> Result<(), Failure>,
    err: &mut dyn Write,
) -> Result<TxnRequest, Failure> {
    let mut txn = TxnRequest::default();
    prompt("compares")?;
    while let Some(line) = read_line(input)? {
        txn.compare.push(compare(&line)?);
    }
    prompt("success requests (get, put, del)")?;
    while let Some(line) = read_line(input)? {
        txn.success.push(request(&line, input.get_mut(), err)?);
    }
    prompt("failure requests (get, put, del)")?;
    while let Some(line) = read_line(input)? {
        txn.failure.push(request(&line, input.get_mut(), err)?);
    }
    Ok(txn)
}

/// The next line without surrounding space; nothing at the end of a block. A last line without its end is not one.
fn read_line(input: &mut impl BufRead) -> Result<Option<Vec<u8>>, Failure> {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line).map_err(|error| invalid(error.to_string()))?;
    if line.last() != Some(&b'\n') {
        return Err(invalid("EOF".to_owned()));
    }
    let line = match str::from_utf8(&line) {
        Ok(text) => text.trim().as_bytes(),
        Err(_) => line.trim_ascii(),
    };
    Ok((!line.is_empty()).then(|| line.to_owned()))
}

fn invalid(text: String) -> Failure {
    Failure::new(exit::INVALID_INPUT, text)
}

fn compare(line: &[u8]) -> Result<Compare, Failure> {
    let shown = String::from_utf8_lossy(line);
    let malformed = |more: &str| invalid(format!("malformed comparison: {shown}{more}"));
    let open = line.iter().position(|byte| *byte == b'(').ok_or_else(|| malformed(""))?;
    let target = String::from_utf8_lossy(&line[..open]);
    let parts = compare_parts(&line[open + 1..]);
    let op = String::from_utf8_lossy(parts.op);
    let Parts { key, value: Some(value), .. } = parts else {
        let key = gotext::quote(&parts.key);
        return Err(malformed(&format!("; got {target}({key}) {op} \"\"")));
    };
    let number = || -> Result<i64, Failure> {
        let text = str::from_utf8(&value).ok();
        text.and_then(|t| t.parse().ok())
            .ok_or_else(|| invalid(format!("invalid txn compare request: {shown}")))
    };
    let (target, union) = match &*target {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number()?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(value.into())),
        // etcdctl dies of it.
        "lease" => return Err(malformed(" (leases cannot be compared)")),
        other => return Err(malformed(&format!(" (unknown target {other})"))),
    };
    let result = match &*op {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        // etcdctl dies of it.
        other => return Err(malformed(&format!(" (unknown operator {other})"))),
    };
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        range_end: Bytes::new(),
        target_union: Some(union),
    })
}

/// What is found of `"key") op "value"`; what follows the value is not looked at.
#[derive(Default)]
struct Parts<'a> {
    key: Vec<u8>,
    op: &'a [u8],
    /// Nothing if any of the three is missing.
    value: Option<Vec<u8>>,
}

fn compare_parts(text: &[u8]) -> Parts<'_> {
    let mut parts = Parts::default();
    let Some((key, rest)) = gotext::unquote_prefix(text.trim_ascii_start()) else {
        return parts;
    };
    parts.key = key;
    let Some(rest) = rest.strip_prefix(b")").filter(|rest| rest.first().is_some_and(u8::is_ascii_whitespace))
    else {
        return parts;
    };
    let (op, rest) = split_word(rest.trim_ascii_start());
    parts.op = op;
    parts.value = gotext::unquote_prefix(rest.trim_ascii_start()).map(|(value, _)| value);
    parts
}

/// What a line of a block of requests may call; names may be shortened, as on the command line.
static REQUESTS: App = App {
    name: "",
    about: "",
    groups: &[],
    commands: &[put::COMMAND, get::COMMAND, del::COMMAND],
    flags: &[],
    flags_hidden: false,
    trailer: "",
    errors_twice: false,
};

/// `input` is where a put without a value reads it: past what the reader of lines has taken, as in etcdctl, so
/// usually at the end, which is an error.
fn request(line: &[u8], input: &mut dyn Read, err: &mut dyn Write) -> Result<RequestOp, Failure> {
    let invalid_as = |what: &str| invalid(format!("invalid txn {what}: {}", String::from_utf8_lossy(line)));
    let words = words(line)?;
    if words.len() < 2 {
        return Err(invalid_as("compare request"));
    }
    let Called::Command(path, rest) = command::find(&REQUESTS, &words) else {
        return Err(invalid_as("request"));
    };
    let mut flags = path.flags(&REQUESTS);
    let args = match flags.parse(&rest) {
        Ok(args) if !flags.bool("help") => args,
        _ => return Err(invalid_as("request")),
    };
    let request = match path.last().map(|command| command.name) {
        Some("put") => Request::RequestPut(put::request(&flags, &args, input)?),
        Some("get") => Request::RequestRange(get::request(&flags, &args)?),
        Some("del") => {
            let request = del::request(&flags, &args)?;
            del::warn_of_interval(&flags, &args, err, del::REGRET)?;
            Request::RequestDeleteRange(request)
        }
        _ => return Err(invalid_as("request")),
    };
    Ok(RequestOp { request: Some(request) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_bytes(text: &[u8]) -> Result<TxnRequest, Failure> {
        read(&mut BufReader::new(text), |_| Ok(()), &mut Vec::new())
    }

    fn read_text(text: &str) -> Result<TxnRequest, Failure> {
        read_bytes(text.as_bytes())
    }

    #[test]
    fn a_transaction_of_every_kind_of_line() {
        let text = "mod(\"a\") > \"0\"\n  val(\"b\") = \"x y\" trailing\n\nput a \"two words\"\nget 'b c' --prefix\n\n\
                    del d --prev-kv\n\n";
        let txn = read_text(text).unwrap();
        assert_eq!(txn.compare.len(), 2);
        assert_eq!(txn.compare[0].target_union, Some(TargetUnion::ModRevision(0)));
        assert_eq!(txn.compare[0].result(), CompareResult::Greater);
        assert_eq!(txn.compare[1].target_union, Some(TargetUnion::Value("x y".into())));
        let [
            RequestOp { request: Some(Request::RequestPut(put)) },
            RequestOp { request: Some(Request::RequestRange(get)) },
        ] = txn.success.as_slice()
        else {
            panic!("{:?}", txn.success);
        };
        assert_eq!((&put.key[..], &put.value[..]), (&b"a"[..], &b"two words"[..]));
        assert_eq!((&get.key[..], &get.range_end[..]), (&b"b c"[..], &b"b d"[..]));
        assert!(matches!(
            &txn.failure[0].request,
            Some(Request::RequestDeleteRange(del)) if del.prev_kv && del.key == "d"
        ));
    }

    /// The key and value that a line of requests puts.
    fn put_of(line: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let txn = read_bytes(&[b"\n", line, b"\n\n\n"].concat()).unwrap();
        match &txn.success[0].request {
            Some(Request::RequestPut(put)) => (put.key.to_vec(), put.value.to_vec()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn words_are_cut_as_etcdctl_cuts_them() {
        for (line, key, value) in [
            (&b"put a 1"[..], &b"a"[..], &b"1"[..]),
            (b"p a 1", b"a", b"1"),
            (b"put \"a b\"'c d' ", b"a b", b"c d"),
            (b"put a \"1", b"a", b"1"),
            (b"put a '1", b"a", b"1"),
            (b"put a x\"y\"", b"a", b"x\"y\""),
            (b"put a `\\n`", b"a", b"`\\n`"),
            ("put a x\u{a0}y".as_bytes(), b"a", "x\u{a0}y".as_bytes()),
            (b"put \xff \"\xfe\\x00\"", b"\xff", b"\xfe\0"),
            (b"put a \"\"", b"a", b""),
        ] {
            assert_eq!(put_of(line), (key.to_vec(), value.to_vec()), "{}", line.escape_ascii());
        }
        let txn = read_bytes(b"val(\"\xff\") = \"\xfe\"\n\n\n\n").unwrap();
        assert_eq!(txn.compare[0].key, &b"\xff"[..]);
        assert_eq!(txn.compare[0].target_union, Some(TargetUnion::Value(b"\xfe"[..].into())));
    }

    #[test]
    fn what_cannot_be_read() {
        for (text, message) in [
            ("nonsense\n\n\n\n", "malformed comparison: nonsense"),
            ("val(\"a\")=\"1\"\n\n", "malformed comparison: val(\"a\")=\"1\"; got val(\"a\")  \"\""),
            ("val(\"a\") > 0\n\n", "malformed comparison: val(\"a\") > 0; got val(\"a\") > \"\""),
            ("val(a) > \"0\"\n\n", "malformed comparison: val(a) > \"0\"; got val(\"\")  \"\""),
            ("size(\"a\") = \"1\"\n\n", "malformed comparison: size(\"a\") = \"1\" (unknown target size)"),
            ("val(\"a\") ~ \"1\"\n\n", "malformed comparison: val(\"a\") ~ \"1\" (unknown operator ~)"),
            ("version(\"a\") = \"x\"\n\n", "invalid txn compare request: version(\"a\") = \"x\""),
            ("\njump a\n\n\n", "invalid txn request: jump a"),
            ("\nget\n\n\n", "invalid txn compare request: get"),
            ("\n\"\n\n\n", "invalid txn compare request: \""),
            ("\nhelp get\n\n\n", "invalid txn request: help get"),
            ("\nget a -h\n\n\n", "invalid txn request: get a -h"),
            ("\nput a \"\\q\"\n\n\n", "invalid syntax"),
            ("\nget a --nonsense\n\n\n", "invalid txn request: get a --nonsense"),
            ("val(\"a\") = \"1\"", "EOF"),
            ("\n\n", "EOF"),
        ] {
            let expected = Failure::new(exit::INVALID_INPUT, message);
            assert_eq!(read_text(text).unwrap_err(), expected, "{text:?}");
        }
        assert_eq!(read_text("\nput a\n\n\n").unwrap_err().code, exit::BAD_ARGS);
    }
}
