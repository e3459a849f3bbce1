//! Command lines that need no server: what is written, and how they end.

use std::io::{self, BufWriter, Write};

use quorate_cli::app::{self, Failure, World};
use quorate_cli::command::App;
use quorate_cli::{ctl, utl};

struct Ended {
    out: String,
    err: String,
    result: Result<(), Failure>,
}

impl Ended {
    fn code(&self) -> u8 {
        self.result.as_ref().err().map_or(0, |failure| failure.code)
    }

    fn message(&self) -> &str {
        self.result.as_ref().err().map_or("", |failure| &failure.message)
    }
}

fn run(app: &'static App, line: &[&str], variables: &[(&str, &str)]) -> Ended {
    run_with(app, line, variables, "")
}

fn run_with(app: &'static App, line: &[&str], variables: &[(&str, &str)], input: &str) -> Ended {
    let args: Vec<Vec<u8>> = line.iter().map(|word| word.as_bytes().to_vec()).collect();
    let variables = variables.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let input = Box::new(std::io::Cursor::new(input.as_bytes().to_vec()));
    let world = World { input, variables, ..World::apart(&mut out, &mut err) };
    let result = app::run(app, &args, world);
    Ended { out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap(), result }
}

#[test]
fn versions() {
    assert_eq!(run(&ctl::APP, &["version"], &[]).out, "etcdctl version: 3.7.1\nAPI version: 3.7\n");
    assert_eq!(run(&ctl::APP, &["vers", "x"], &[]).out, "etcdctl version: 3.7.1\nAPI version: 3.7\n");
    assert_eq!(run(&utl::APP, &["version"], &[]).out, "etcdutl version: 3.7.1\nAPI version: 3.7\n");
}

const BAD_LEASE: &str =
    "bad lease ID arg (strconv.ParseInt: parsing \"xyz\": invalid syntax), expecting ID in Hex";

const BAD_MEMBER: &str =
    "bad member ID arg (strconv.ParseUint: parsing \"xyz\": invalid syntax), expecting ID in Hex";

#[test]
fn wrong_arguments_end_as_in_etcdctl() {
    let bad_range = "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";
    for (line, code, text) in [
        (&["get"][..], 128, "get command needs one argument as key and an optional argument as range_end"),
        (&["get", "a", "c", "--prefix"], 128, bad_range),
        (
            &["get", "a", "--prefix", "--from-key"],
            128,
            "`--prefix` and `--from-key` cannot be set at the same time, choose one",
        ),
        (&["get", "a", "--order", "SIDEWAYS"], 4, "bad sort order SIDEWAYS"),
        (&["get", "a", "--sort-by", "NONSENSE"], 4, "bad sort target NONSENSE"),
        (&["get", "a", "--consistency", "x"], 4, "unknown consistency flag \"x\""),
        (&["get", "a", "--min-mod-rev", "5", "--max-mod-rev", "4"], 4, "getMinModRev(=5) > getMaxModRev(=4)"),
        (&["get", "a", "-w", "xml"], 4, "unsupported output format"),
        (&["get", "a", "--endpoints", ""], 2, "etcdclient: no available endpoints"),
        (
            &["get", "a", "--endpoints", "localhost,"],
            2,
            "parse \"localhost\": missing or invalid port in address",
        ),
        (&["get", "a", "--cert", ""], 128, "empty string is passed to --cert option"),
        (&["put"], 128, "put command needs 1 argument and input from stdin or 2 arguments"),
        (&["put", "a"], 128, "put command needs 1 argument and input from stdin or 2 arguments"),
        (
            &["put", "a", "1", "--lease=xyz"],
            128,
            "bad lease ID (strconv.ParseInt: parsing \"xyz\": invalid syntax), expecting ID in Hex",
        ),
        (
            &["put", "a", "x", "--ignore-value"],
            128,
            "put command needs only 1 argument when 'ignore-value' is set",
        ),
        (
            &["del", "a", "b", "c"],
            128,
            "del command needs one argument as key and an optional argument as range_end",
        ),
        (&["txn", "a"], 128, "txn command does not accept argument"),
        (&["txn"], 3, "EOF"),
        (&["compaction"], 128, "compaction command needs 1 argument"),
        (&["compaction", "1", "2"], 128, "compaction command needs 1 argument"),
        (&["compact", "x"], 1, "strconv.ParseInt: parsing \"x\": invalid syntax"),
        (&["compaction", "7", "-w", "xml"], 4, "unsupported output format"),
        (&["lease", "grant"], 128, "lease grant command needs TTL argument"),
        (&["member", "add", "--peer-urls=http://a:1"], 128, "member name not provided"),
        (&["member", "add", "m9"], 128, "member peer urls not provided"),
        (&["member", "add", "m9", "m8", "--peer-urls=http://a:1"], 128, "too many arguments"),
        (
            &["member", "add", "m9", "HTTP://a:1", "m8", "https://b:1"],
            128,
            "too many arguments, did you mean --peer-urls=HTTP://a:1, did you mean --peer-urls=https://b:1",
        ),
        (
            &["member", "add", "m9", "--peer-urls=nonsense"],
            1,
            "URL scheme must be http, https, unix, or unixs: nonsense",
        ),
        (
            &["member", "update", "1", "--peer-urls=http://a:1,http://b"],
            1,
            "URL address does not have the form \"host:port\": http://b",
        ),
        (&["member", "remove"], 128, "member ID is not provided"),
        (&["member", "remove", "xyz"], 128, BAD_MEMBER),
        (&["member", "update", "1"], 128, "member peer urls not provided"),
        (&["member", "promote", "1", "2"], 128, "member ID is not provided"),
        (&["member", "list", "--consistency", "x"], 4, "unknown consistency flag \"l\""),
        (&["move-leader"], 128, "move-leader command needs 1 argument"),
        (&["move-leader", "xyz"], 128, "strconv.ParseUint: parsing \"xyz\": invalid syntax"),
        (&["downgrade", "validate"], 128, "TARGET_VERSION not provided"),
        (&["downgrade", "enable", ""], 128, "target version not provided"),
        (&["downgrade", "enable", "3.6", "x"], 128, "too many arguments"),
        (
            &["lease", "grant", "9223372036854775808"],
            128,
            "bad TTL (strconv.ParseInt: parsing \"9223372036854775808\": value out of range)",
        ),
        (&["lease", "revoke", "1", "2"], 128, "lease revoke command needs 1 argument"),
        (&["lease", "revoke", "xyz", "-w", "xml"], 128, BAD_LEASE),
        (&["lease", "timetolive"], 128, "lease timetolive command needs lease ID as argument"),
        (&["lease", "timetolive", "xyz"], 128, BAD_LEASE),
        // Here the settings are read first.
        (&["lease", "timetolive", "xyz", "-w", "xml"], 4, "unsupported output format"),
        (&["lease", "list", "-w", "xml"], 4, "unsupported output format"),
    ] {
        let ended = run(&ctl::APP, line, &[]);
        assert_eq!((ended.code(), ended.message()), (code, &*format!("Error: {text}\n")), "{line:?}");
        assert_eq!(ended.out, "", "{line:?}");
    }
}

#[test]
fn wrong_arguments_of_users_and_roles_end_as_in_etcdctl() {
    let grant = "role grant command requires role name, permission type, and key [endkey] as its argument";
    let revoke = "role revoke-permission command requires role name and key [endkey] as its argument";
    let exclusive = "--from-key and --prefix flags are mutually exclusive";
    let with_prefix = "unexpected endkey argument with --prefix flag";
    let with_from_key = "unexpected endkey argument with --from-key flag";
    for (line, text) in [
        (&["auth", "enable", "x"][..], "auth enable command does not accept any arguments"),
        (&["auth", "disable", "x"], "auth disable command does not accept any arguments"),
        (&["auth", "status", "x"], "auth status command does not accept any arguments"),
        (&["user", "add"], "user add command requires user name as its argument"),
        (&["user", "add", "a", "b"], "user add command requires user name as its argument"),
        (&["user", "add", ":pw"], "empty user name is not allowed"),
        (&["user", "add", ":"], "empty user name is not allowed"),
        (&["user", "delete"], "user delete command requires user name as its argument"),
        (&["user", "get", "a", "b"], "user get command requires user name as its argument"),
        (&["user", "list", "a"], "user list command requires no arguments"),
        (&["user", "passwd"], "user passwd command requires user name as its argument"),
        (&["user", "grant-role", "a"], "user grant command requires user name and role name as its argument"),
        (
            &["user", "revoke-role", "a", "b", "c"],
            "user revoke-role requires user name and role name as its argument",
        ),
        (&["role", "add"], "role add command requires role name as its argument"),
        (&["role", "delete"], "role delete command requires role name as its argument"),
        (&["role", "get"], "role get command requires role name as its argument"),
        (&["role", "list", "a"], "role list command requires no arguments"),
        (&["role", "grant-permission", "r", "read"], grant),
        (&["role", "grant-permission", "r", "fly", "k"], "invalid permission type: fly"),
        (
            &["role", "grant-permission", "r", "READWRITES", "", "--prefix"],
            "invalid permission type: READWRITES",
        ),
        (&["role", "grant-permission", "r", "read", "k", "l", "--prefix", "--from-key"], with_prefix),
        (&["role", "grant-permission", "r", "read", "k", "l", "--from-key"], with_from_key),
        (&["role", "grant-permission", "r", "read", "k", "--prefix", "--from-key"], exclusive),
        (&["role", "grant-permission", "r", "read", "", "x", "--prefix", "--from-key"], exclusive),
        (&["role", "revoke-permission", "r"], revoke),
        (&["role", "revoke-permission", "r", "k", "l", "--prefix"], with_prefix),
    ] {
        let ended = run(&ctl::APP, line, &[]);
        assert_eq!((ended.code(), ended.message()), (128, &*format!("Error: {text}\n")), "{line:?}");
        assert_eq!(ended.out, "", "{line:?}");
    }
}

/// Where nobody listens.
const NOWHERE: &[&str] =
    &["--endpoints", "127.0.0.1:1", "--dial-timeout", "10ms", "--command-timeout", "10ms"];

#[test]
fn passwords_are_asked_for() {
    let (of_alice, again) = ("Password of alice: \n", "Type password of alice again for confirmation: \n");
    let both = of_alice.to_owned() + again;
    let lost = "context deadline exceeded";
    for (line, input, out, code, text) in [
        (&["user", "add", "alice"][..], "", of_alice, 128, "empty password"),
        (&["user", "add", "alice"], "  \n", of_alice, 128, "empty password"),
        (&["user", "add", "alice"], "a\nb\n", &both, 128, "given passwords are different"),
        (&["user", "passwd", "alice"], "a\n", &both, 128, "given passwords are different"),
        (
            &["--user", "bob", "user", "add", "alice"],
            "a\n a\r\npw\n",
            &format!("{both}Password: \n"),
            2,
            lost,
        ),
        (&["--user", "bob", "get", "k"], "pw\n", "Password: \n", 2, lost),
        (&["--user", "bob", "get", "k", "-w", "xml"], "pw\n", "Password: \n", 4, "unsupported output format"),
        // No login without a password, nor without a user.
        (&["--user", "bob", "get", "k"], "\n", "Password: \n", 1, lost),
        (&["--user", "bob:", "get", "k"], "", "", 1, lost),
        (&["--user", ":pw", "get", "k"], "", "", 1, lost),
        (&["--password", "pw", "get", "k"], "", "", 1, lost),
        // Nothing is asked for where the password, or a token, is known.
        (&["--user", "bob:pw", "get", "k"], "", "", 2, lost),
        (&["--user", "bob", "--password", "pw", "get", "k"], "", "", 2, lost),
        (&["--user", "bob", "--auth-jwt-token", "t", "get", "k"], "", "", 1, lost),
        (&["--user", "bob:pw", "snapshot", "save", "x"], "", "", 5, lost),
        (&["--user", "bob:pw", "endpoint", "status"], "", "", 2, lost),
        (&["--user", "bob:pw", "endpoint", "status", "--cluster"], "", "", 1, lost),
        (&["--user", "bob:pw", "move-leader", "1"], "", "", 2, lost),
        (&["--user", "bob:pw", "watch", "-i"], "", "", 2, lost),
    ] {
        let line = [NOWHERE, line].concat();
        let ended = run_with(&ctl::APP, &line, &[], input);
        let said = ended.message().lines().last().unwrap_or_default();
        assert_eq!((ended.code(), said), (code, &*format!("Error: {text}")), "{line:?}");
        assert_eq!(ended.out, out, "{line:?}");
    }
    let variables = [("ETCDCTL_USER", "bob"), ("ETCDCTL_PASSWORD", "pw")];
    let ended = run(&ctl::APP, &[NOWHERE, &["get", "k"]].concat(), &variables);
    assert_eq!((ended.code(), &*ended.out), (2, ""));
}

#[test]
fn what_is_not_there_yet_is_refused_by_name() {
    for (app, line, what) in [
        (&ctl::APP, &["get", "a", "-d", "example.org"][..], "--discovery-srv"),
        (&ctl::APP, &["make-mirror", "x", "--discovery-srv-name", "x"], "--discovery-srv-name"),
    ] {
        let ended = run(app, line, &[]);
        let expected = format!("Error: {what} is not yet supported\n");
        assert_eq!((ended.code(), ended.message()), (1, expected.as_str()), "{line:?}");
    }
}

#[test]
fn a_directory_that_is_none_or_a_version_that_is_none() {
    let missing = |names: &str| format!("Error: required flag(s) {names} not set\nUsage:\n  etcdutl ");
    let stat = "stat nowhere/member/snap/db: no such file or directory";
    for (line, code, text) in [
        (&["defrag"][..], 1, missing("\"data-dir\"")),
        (&["migrate"], 1, missing("\"data-dir\", \"target-version\"")),
        (&["check"], 1, missing("\"data-dir\"")),
        (&["export-go", "--data-dir", "x"], 1, missing("\"out\"")),
        (
            &["defrag", "--data-dir", "nowhere"],
            1,
            format!("Error: Failed to defragment etcd data[nowhere] ({stat})\n"),
        ),
        (&["migrate", "--data-dir", "nowhere", "--target-version", "3.6"], 1, format!("Error: {stat}\n")),
        (&["export-go", "--data-dir", "nowhere", "--out", "x"], 1, format!("Error: {stat}\n")),
        (
            &["check", "--data-dir", "nowhere"],
            1,
            "Error: stat nowhere/member: no such file or directory\n".to_owned(),
        ),
        (
            &["migrate", "--data-dir", "x", "--target-version", "3.7.1"],
            128,
            "Error: wrong target version format, expected \"X.Y\", got \"3.7.1\"\n".to_owned(),
        ),
        (
            &["migrate", "--data-dir", "x", "--target-version", "3.x"],
            128,
            "Error: failed to parse target version: strconv.ParseInt: parsing \"x\": invalid syntax\n"
                .to_owned(),
        ),
        (
            &["migrate", "--data-dir", "x", "--target-version", "3.4"],
            128,
            "Error: target version \"3.4\" not supported. Minimal \"3.5\"\n".to_owned(),
        ),
        (
            &["export-go", "--data-dir", "x", "--out", "y", "--target-version", "3.5"],
            128,
            "Error: target version \"3.5\" not supported: 3.6 or 3.7\n".to_owned(),
        ),
    ] {
        let ended = run(&utl::APP, line, &[]);
        assert_eq!(ended.code(), code, "{line:?}");
        assert!(ended.message().starts_with(&text), "{line:?}: {}", ended.message());
    }
}

#[test]
fn lines_that_name_nothing() {
    let ended = run(&ctl::APP, &["jump"], &[]);
    let text = "Error: unknown command \"jump\" for \"etcdctl\"\nRun 'etcdctl --help' for usage.\n";
    assert_eq!((ended.code(), ended.message()), (1, text));
    let ended = run(&ctl::APP, &["gett"], &[]);
    let text = "Error: unknown command \"gett\" for \"etcdctl\"\n\nDid you mean this?\n\tget\n\n\
                Run 'etcdctl --help' for usage.\n";
    assert_eq!((ended.code(), ended.message()), (1, text));
    let ended = run(&ctl::APP, &["get", "a", "--nonsense"], &[]);
    assert_eq!(ended.code(), 1);
    assert!(ended.message().starts_with(
        "Error: unknown flag: --nonsense\nUsage:\n  etcdctl get [options] <key> [range_end] [flags]\n\nFlags:\n"
    ));
}

#[test]
fn variables_give_flags_and_never_twice() {
    let no_endpoint = "Error: etcdclient: no available endpoints\n";
    let ended = run(&ctl::APP, &["get", "a", "--endpoints="], &[("ETCDCTL_API", "3")]);
    assert_eq!(ended.message(), no_endpoint);
    assert!(ended.err.starts_with("{\"level\":\"warn\",\"ts\":\""), "{}", ended.err);
    assert!(ended.err.ends_with(
        "\"msg\":\"unrecognized environment variable\",\"environment-variable\":\"ETCDCTL_API=3\"}\n"
    ));

    let ended = run(&ctl::APP, &["get", "a"], &[("ETCDCTL_WRITE_OUT", "xml")]);
    assert_eq!((ended.code(), ended.message()), (4, "Error: unsupported output format\n"));
    let ended = run(&ctl::APP, &["get", "a", "-w", "json"], &[("ETCDCTL_WRITE_OUT", "json")]);
    assert_eq!(ended.code(), 1);
    assert!(ended.message().contains("\"environment-variable\":\"ETCDCTL_WRITE_OUT\""));

    let bad = [("ETCDCTL_COMMAND_TIMEOUT", "x"), ("ETCDCTL_HEX", "1")];
    let ended = run(&ctl::APP, &["get", "a", "--endpoints=", "--debug"], &bad);
    assert_eq!(ended.message(), no_endpoint);
    for line in
        ["ETCDCTL_COMMAND_TIMEOUT=5s", "ETCDCTL_HEX=true", "ETCDCTL_ENDPOINTS=[]", "ETCDCTL_DEBUG=true"]
    {
        assert!(ended.err.lines().any(|l| l == line), "{line} in {}", ended.err);
    }
}

/// Every default in the tables can be read, and every command has a page.
#[test]
fn the_tables_are_whole() {
    for app in [&ctl::APP, &utl::APP] {
        for command in app.commands {
            let page = run(app, &[command.name, "--help"], &[]);
            assert_eq!(page.code(), 0);
            assert!(page.out.contains(&format!("help for {}\n", command.name)), "{}", page.out);
            for inner in command.commands {
                let page = run(app, &[command.name, inner.name, "-h"], &[]);
                let usage = format!("Usage:\n  {} {} {}", app.name, command.name, inner.name);
                assert!(page.out.contains(&usage), "{}", page.out);
            }
        }
    }
}

#[test]
fn flags_before_help_are_no_topics() {
    let plain = run(&ctl::APP, &["help", "get"], &[]);
    assert!(plain.out.contains("etcdctl get "), "{}", plain.out);
    for line in [
        &["--endpoints", "localhost:1", "help", "get"][..],
        &["help", "--endpoints", "localhost:1", "get"],
        &["help", "-w", "json", "get", "--hex"],
    ] {
        let ended = run(&ctl::APP, line, &[]);
        assert_eq!((ended.out, ended.err), (plain.out.clone(), String::new()), "{line:?}");
    }
    let program = run(&ctl::APP, &["--endpoints", "localhost:1", "help"], &[]);
    assert_eq!(program.out, run(&ctl::APP, &["help"], &[]).out);
    let unknown = run(&ctl::APP, &["help", "--nonsense"], &[]);
    assert!(unknown.message().starts_with("Error: unknown flag: --nonsense\n"), "{}", unknown.message());
}

/// A stream whose reader went away.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

fn ended_with(line: &[&str], out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failure> {
    let args: Vec<Vec<u8>> = line.iter().map(|word| word.as_bytes().to_vec()).collect();
    let variables = vec![("ETCDCTL_API".to_owned(), "3".to_owned())];
    app::run(&ctl::APP, &args, World { variables, ..World::apart(out, err) })
}

/// Both write to standard error before they ask a server, and end as without it.
#[test]
fn a_closed_standard_error_keeps_no_command_from_its_work() {
    let file = concat!(env!("CARGO_TARGET_TMPDIR"), "/closed-standard-error.db");
    for line in [&["put", "a", "b"][..], &["snapshot", "save", file]] {
        let line = [NOWHERE, line].concat();
        let open = ended_with(&line, &mut Vec::new(), &mut Vec::new()).unwrap_err();
        let closed = ended_with(&line, &mut Vec::new(), &mut Closed).unwrap_err();
        assert_eq!(closed.code, open.code, "{line:?}");
        assert!(closed.message.contains("Error: ") && closed.code != 0, "{closed:?}");
    }
}

#[test]
fn a_closed_standard_output_is_no_success() {
    let failure = ended_with(&["version"], &mut Closed, &mut Vec::new()).unwrap_err();
    assert_eq!(failure, Failure::silent(141));
    // What went wrong before is told all the same.
    let line = [NOWHERE, &["endpoint", "health", "-w", "json"]].concat();
    let failure = ended_with(&line, &mut BufWriter::new(Closed), &mut Vec::new()).unwrap_err();
    assert_eq!(failure, Failure::new(1, "unhealthy cluster"));
}
