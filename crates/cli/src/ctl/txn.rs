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
use super::{del, get, put};
use crate::app::{Failure, Invocation, exit};
use crate::command::Command;
use crate::flag::{Flag, Flags, Kind};
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
        &mut BufReader::new(&mut *world.input),
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
fn read_line(input: &mut impl BufRead) -> Result<Option<String>, Failure> {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line).map_err(|error| invalid(error.to_string()))?;
    if line.last() != Some(&b'\n') {
        return Err(invalid("EOF".to_owned()));
    }
    let line = String::from_utf8(line).map_err(|_| invalid("input is not UTF-8".to_owned()))?;
    let line = line.trim();
    Ok((!line.is_empty()).then(|| line.to_owned()))
}

fn invalid(text: String) -> Failure {
    Failure::new(exit::INVALID_INPUT, text)
}

fn compare(line: &str) -> Result<Compare, Failure> {
    let malformed = |more: &str| invalid(format!("malformed comparison: {line}{more}"));
    let (target, rest) = line.split_once('(').ok_or_else(|| malformed(""))?;
    let parts = compare_parts(rest);
    let Parts { key, op, value: Some(value) } = parts else {
        let (key, op) = (gotext::quote(&parts.key), parts.op);
        return Err(malformed(&format!("; got {target}({key}) {op} \"\"")));
    };
    let number = || -> Result<i64, Failure> {
        let text = str::from_utf8(&value).ok();
        text.and_then(|t| t.parse().ok())
            .ok_or_else(|| invalid(format!("invalid txn compare request: {line}")))
    };
    let (target, union) = match target {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number()?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(value.into())),
        // etcdctl dies of it.
        "lease" => return Err(malformed(" (leases cannot be compared)")),
        other => return Err(malformed(&format!(" (unknown target {other})"))),
    };
    let result = match op {
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
    op: &'a str,
    /// Nothing if any of the three is missing.
    value: Option<Vec<u8>>,
}

fn compare_parts(text: &str) -> Parts<'_> {
    let mut parts = Parts::default();
    let Some((key, rest)) = gotext::unquote_prefix(text.trim_start()) else {
        return parts;
    };
    parts.key = key;
    let Some(rest) = rest.strip_prefix(')').filter(|rest| rest.starts_with(char::is_whitespace)) else {
        return parts;
    };
    let rest = rest.trim_start();
    let (op, rest) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
    parts.op = op;
    parts.value = gotext::unquote_prefix(rest.trim_start()).map(|(value, _)| value);
    parts
}

/// `input` is where a put without a value reads it: past what the reader of lines has taken, as in etcdctl, so
/// usually at the end, which is an error.
fn request(line: &str, input: &mut dyn Read, err: &mut dyn Write) -> Result<RequestOp, Failure> {
    let args = words(line)?;
    let [name, args @ ..] = args.as_slice() else {
        return Err(invalid(format!("invalid txn request: {line}")));
    };
    if args.is_empty() {
        return Err(invalid(format!("invalid txn compare request: {line}")));
    }
    let parse = |flags: &'static [Flag]| -> Result<(Flags, Vec<Vec<u8>>), Failure> {
        let mut flags = Flags::new(flags);
        match flags.parse(args) {
            Ok(args) if !flags.bool("help") => Ok((flags, args)),
            _ => Err(invalid(format!("invalid txn request: {line}"))),
        }
    };
    let request = match name.as_slice() {
        b"put" => {
            let (flags, args) = parse(put::FLAGS)?;
            Request::RequestPut(put::request(&flags, &args, input)?)
        }
        b"get" => {
            let (flags, args) = parse(get::FLAGS)?;
            Request::RequestRange(get::request(&flags, &args)?)
        }
        b"del" => {
            let (flags, args) = parse(del::FLAGS)?;
            let request = del::request(&flags, &args)?;
            del::warn_of_interval(&flags, &args, err, del::REGRET)?;
            Request::RequestDeleteRange(request)
        }
        _ => return Err(invalid(format!("invalid txn request: {line}"))),
    };
    Ok(RequestOp { request: Some(request) })
}

/// Cuts a line into words: bare ones, 'as they are', and "with Go's escapes".
fn words(line: &str) -> Result<Vec<Vec<u8>>, Failure> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        if first == '\''
            && let Some((word, after)) = rest[1..].split_once('\'')
        {
            words.push(word.as_bytes().to_vec());
            rest = after;
        } else if first == '"' {
            let (word, after) =
                gotext::unquote_prefix(rest).ok_or_else(|| invalid("invalid syntax".to_owned()))?;
            words.push(word);
            rest = after;
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            words.push(rest.as_bytes()[..end].to_vec());
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<TxnRequest, Failure> {
        read(&mut BufReader::new(text.as_bytes()), |_| Ok(()), &mut Vec::new())
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
