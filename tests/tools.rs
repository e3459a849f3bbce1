//! Our own tools against our server: the commands of the README.

use blackbox::Member;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ctl(member: &Member, args: &[&str]) -> String {
    let output = member.etcdctl(args);
    assert!(output.status.success(), "etcdctl {args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn the_quick_start_works() {
    let mut member = Member::start(&[]);
    assert_eq!(ctl(&member, &["put", "name", "john"]), "OK\n");
    assert_eq!(ctl(&member, &["get", "name"]), "name\njohn\n");
    for (key, value) in [("/registry/a", "1"), ("/registry/b", "2")] {
        ctl(&member, &["put", key, value]);
    }
    assert_eq!(ctl(&member, &["get", "/", "--prefix", "--keys-only"]), "/registry/a\n\n/registry/b\n\n");
    member.restart();
    assert_eq!(ctl(&member, &["get", "name", "--print-value-only"]), "john\n");
    assert_eq!(ctl(&member, &["del", "/registry", "--prefix"]), "2\n");
    assert!(ctl(&member, &["endpoint", "health"]).contains("is healthy"));
    let status = ctl(&member, &["endpoint", "status", "-w", "json"]);
    assert!(
        status.contains("\"version\":\"3.7.1\"") && status.contains("\"storageVersion\":\"3.7.0\""),
        "{status}"
    );
    assert!(ctl(&member, &["version"]).contains("API version: 3.7"));
}

#[test]
fn a_transaction_of_etcdctl_takes_the_branch_that_holds() {
    let member = Member::start(&[]);
    let input = "create(\"lock\") = \"0\"\n\nput lock me\n\nget lock\n\n";
    for expected in ["SUCCESS\n\nOK\n", "FAILURE\n\nlock\nme\n"] {
        let output = member.etcdctl_reading(input, &["txn"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), expected);
    }
}

#[test]
fn without_a_server_the_refused_connection_is_named() {
    // Nobody has served on its ports yet.
    let member = Member::new(&[]);
    let address = member.endpoint().trim_start_matches("http://").to_owned();
    let cause = format!(
        r#"connection error: desc = \"transport: Error while dialing: dial tcp {address}: connect: connection refused\""}}"#
    );
    for (args, last) in [
        (&["get", "k"][..], "Error: context deadline exceeded\n".to_owned()),
        (&["put", "k", "v"], "Error: context deadline exceeded\n".to_owned()),
        (&["del", "k"], "Error: context deadline exceeded\n".to_owned()),
        (
            &["endpoint", "status"],
            format!("Failed to get the status of endpoint http://{address} (context deadline exceeded)\n"),
        ),
        (&["endpoint", "hashkv"], "Error: context deadline exceeded\n".to_owned()),
        (&["endpoint", "health"], "Error: unhealthy cluster\n".to_owned()),
    ] {
        let output = member.etcdctl(&[args, &["--command-timeout", "500ms"]].concat());
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""), "{args:?}");
        let printed = text(&output.stderr);
        let (line, _) = printed.split_once('\n').expect("two lines");
        assert!(line.starts_with(r#"{"level":"warn","#) && line.ends_with(&cause), "{args:?}: {line}");
        assert!(printed.ends_with(&last), "{args:?}: {printed}");
    }
}

#[test]
fn an_endpoint_that_cannot_be_read_stops_no_other() {
    let member = Member::start(&[]);
    // The member's own comes first; the others are nothing, and no port.
    let others = ["--endpoints", ",127.0.0.1"];
    assert_eq!(ctl(&member, &[&["put", "k", "v"][..], &others].concat()), "OK\n");
    for (args, failed) in [
        (["endpoint", "status"], "Failed to get the status of endpoint 127.0.0.1 ("),
        (["endpoint", "hashkv"], "Failed to get the hash of endpoint 127.0.0.1 ("),
        (["endpoint", "health"], "127.0.0.1 is unhealthy: failed to commit proposal: "),
    ] {
        let output = member.etcdctl(&[&args[..], &others].concat());
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(out.starts_with(&member.endpoint()) && out.lines().count() == 1, "{args:?}: {out}");
        assert!(
            err.contains(failed) && err.contains("missing or invalid port in address"),
            "{args:?}: {err}"
        );
    }
}

#[test]
fn what_is_not_there_yet_is_refused_by_name() {
    let member = Member::start(&[]);
    for args in
        [&["watch", "k"][..], &["lease", "grant", "10"], &["member", "add", "x"], &["snapshot", "save", "f"]]
    {
        let output = member.etcdctl(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(text(&output.stderr).contains("not yet supported"), "{args:?}: {}", text(&output.stderr));
    }
}
