//! Our own tools against our server: the commands of the README.

#[path = "tools/check.rs"]
mod check;
#[path = "tools/mirror.rs"]
mod mirror;

use blackbox::{Member, patience, run};
use client::{Client, Config, Credentials};
use wire::etcdserverpb::{RangeRequest, WatchCreateRequest};

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

/// The exit code of a command that fails, and what it prints to standard error.
fn ctl_fails(member: &Member, args: &[&str]) -> (Option<i32>, String) {
    let output = member.etcdctl(args);
    assert_eq!(text(&output.stdout), "", "etcdctl {args:?}");
    (output.status.code(), text(&output.stderr))
}

#[test]
fn history_can_be_read_until_it_is_compacted() {
    let mut member = Member::start(&[]);
    for value in ["1", "2", "3"] {
        ctl(&member, &["put", "k", value]);
    }
    assert_eq!(ctl(&member, &["put", "k", "4", "--prev-kv"]), "OK\nk\n3\n");
    assert_eq!(ctl(&member, &["get", "k", "--rev", "2"]), "k\n1\n");
    let hash = ctl(&member, &["endpoint", "hashkv"]);
    assert!(hash.ends_with(", 5\n"), "{hash}");

    assert_eq!(ctl(&member, &["compaction", "3"]), "compacted revision 3\n");
    let compacted = (Some(1), "Error: etcdserver: mvcc: required revision has been compacted\n".to_owned());
    for args in
        [&["get", "k", "--rev", "2"][..], &["get", "k", "--rev", "2", "--stream"], &["compaction", "3"]]
    {
        assert_eq!(ctl_fails(&member, args), compacted, "{args:?}");
    }
    let future = (Some(1), "Error: etcdserver: mvcc: required revision is a future revision\n".to_owned());
    assert_eq!(ctl_fails(&member, &["compact", "6"]), future);
    assert_eq!(ctl(&member, &["get", "k", "--rev", "3"]), "k\n2\n");
    assert_eq!(ctl(&member, &["compaction", "4", "--physical"]), "compacted revision 4\n");

    let one = ctl(&member, &["endpoint", "hashkv", "--rev", "5"]);
    assert_ne!(one, hash, "what is compacted is no part of the hash");
    assert_eq!(ctl(&member, &["endpoint", "hashkv", "--rev", "5", "--cluster"]), one);
    member.restart();
    assert_eq!(ctl_fails(&member, &["get", "k", "--rev", "3"]), compacted);
    assert_eq!(ctl(&member, &["endpoint", "hashkv", "--rev", "5"]), one);
}

#[test]
fn keys_stay_with_their_lease_until_it_is_revoked() {
    let mut member = Member::start(&[]);
    let granted = ctl(&member, &["lease", "grant", "1000"]);
    let id = granted.split(' ').nth(1).expect("an id").to_owned();
    assert_eq!(granted, format!("lease {id} granted with TTL(1000s)\n"));
    for key in ["a", "b"] {
        ctl(&member, &["put", key, "1", "--lease", &id]);
    }
    // A put without the lease detaches, unless it says otherwise.
    ctl(&member, &["put", "a", "2", "--ignore-lease"]);
    ctl(&member, &["put", "b", "2"]);
    let input = format!("\nput c 1 --lease={id}\n\n\n");
    assert_eq!(text(&member.etcdctl_reading(&input, &["txn"]).stdout), "SUCCESS\n\nOK\n");

    member.restart();
    assert_eq!(ctl(&member, &["lease", "list"]), format!("found 1 leases\n{id}\n"));
    let left = ctl(&member, &["lease", "timetolive", &id, "--keys", "-w", "fields"]);
    let mut keys: Vec<&str> = left.lines().filter_map(|line| line.strip_prefix("\"Key\" : ")).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["\"a\"", "\"c\""]);
    assert!(left.contains("\"GrantedTTL\" : 1000\n"), "{left}");

    assert_eq!(ctl(&member, &["lease", "revoke", &id]), format!("lease {id} revoked\n"));
    assert_eq!(ctl(&member, &["get", "", "--prefix"]), "b\n2\n");
    assert_eq!(ctl(&member, &["lease", "timetolive", &id]), format!("lease {id} already expired\n"));
    assert_eq!(ctl(&member, &["lease", "list"]), "found 0 leases\n");
    let gone = "Error: failed to revoke lease (etcdserver: requested lease not found)\n".to_owned();
    assert_eq!(ctl_fails(&member, &["lease", "revoke", &id]), (Some(1), gone));
    let refused = (Some(1), "Error: etcdserver: requested lease not found\n".to_owned());
    assert_eq!(ctl_fails(&member, &["put", "a", "1", "--lease", &id]), refused);
}

#[test]
fn a_stream_reads_what_a_range_reads() {
    let member = Member::start(&[]);
    // Several chunks of the stream.
    let value = "v".repeat(1 << 20);
    for key in ["big/1", "big/2", "big/3", "big/4", "big/5"] {
        assert!(member.etcdctl_reading(&value, &["put", key]).status.success(), "{key}");
    }
    for options in [&[][..], &["--limit", "3"], &["--keys-only"], &["--rev", "3"], &["--consistency", "s"]] {
        for format in ["simple", "json"] {
            let args = [&["get", "big/", "--prefix", "-w", format][..], options].concat();
            let whole = member.etcdctl(&args).stdout;
            let streamed = member.etcdctl(&[&args[..], &["--stream"]].concat()).stdout;
            assert!(!whole.is_empty() && whole == streamed, "{args:?}");
        }
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
fn a_merge_is_asked_for_and_waited_for_by_nobody() {
    let member = Member::start(&[]);
    ctl(&member, &["put", "name", "john"]);
    let said = ctl(&member, &["defrag"]);
    assert!(said.starts_with("Finished defragmenting etcd member["), "{said}");
    assert_eq!(ctl(&member, &["get", "name", "--print-value-only"]), "john\n");
}

/// A member with the users root, whose password is root, and alice with pw, who may read below /a.
fn member_with_users() -> Member {
    let member = Member::start(&["--bcrypt-cost", "4"]);
    for args in [
        &["user", "add", "root:root"][..],
        &["user", "add", "alice:pw"],
        &["role", "add", "reader"],
        &["role", "grant-permission", "reader", "read", "/a", "--prefix"],
        &["user", "grant-role", "alice", "reader"],
        &["put", "/a/k", "v"],
        &["auth", "enable"],
    ] {
        ctl(&member, args);
    }
    member
}

#[test]
fn etcdctl_says_who_asks() {
    let mut member = member_with_users();
    member.announce("invalid authentication was requested");
    member.announce("invalid auth token");
    let error = |text: &str| format!("Error: {text}\n");
    let empty = error("etcdserver: user name is empty");
    let denied = error("etcdserver: permission denied");
    let wrong = error("etcdserver: authentication failed, invalid user ID or password");
    for (args, code, said) in [
        (&["get", "/a/k"][..], 1, &empty),
        (&["--user", "alice:", "get", "/a/k"], 1, &empty),
        (&["--user", "alice:pw", "get", "/b"], 1, &denied),
        (&["--user", "alice:pw", "put", "/a/k", "w"], 1, &denied),
        (&["--user", "alice:pw", "user", "list"], 1, &denied),
        (&["--user", "alice:wrong", "get", "/a/k"], 2, &wrong),
        (&["--user", "bob:pw", "get", "/a/k"], 2, &wrong),
        (&["--user", "alice:wrong", "lock", "l"], 2, &wrong),
        (&["--auth-jwt-token", "none", "get", "/a/k"], 1, &error("etcdserver: invalid auth token")),
    ] {
        assert_eq!(ctl_fails(&member, args), (Some(code), said.clone()), "{args:?}");
    }
    assert_eq!(ctl(&member, &["--user", "alice:pw", "get", "/a", "--prefix"]), "/a/k\nv\n");
    let asked = member.etcdctl_reading("pw\n", &["--user", "alice", "get", "/a/k"]);
    assert_eq!(text(&asked.stdout), "Password: \n/a/k\nv\n");
    assert!(ctl(&member, &["--user", "alice:pw", "endpoint", "health"]).contains("is healthy"));
    assert_eq!(
        ctl(&member, &["--user", "root:root", "role", "get", "reader"]),
        "Role reader\nKV Read:\n\t[/a, /b) (prefix /a)\nKV Write:\n"
    );
    assert_eq!(ctl(&member, &["--user", "root:root", "auth", "disable"]), "Authentication Disabled\n");
    assert_eq!(ctl(&member, &["get", "/a/k"]), "/a/k\nv\n");
}

/// A password that is set, be it the same, ends the tokens of its user; a restart ends all of them.
#[test]
fn a_client_logs_in_again_when_its_token_is_gone() {
    let mut member = member_with_users();
    member.announce("invalid auth token");
    let endpoint = member.endpoint().parse().expect("an endpoint");
    let credentials = Some(Credentials::Password { user: "alice".to_owned(), password: "pw".to_owned() });
    let client = Client::new(Config { credentials, ..Config::new(vec![endpoint]) }).expect("an endpoint");
    run(async {
        let get = || client.range(RangeRequest { key: "/a/k".into(), ..RangeRequest::default() }, patience());
        assert_eq!(get().await.expect("alice may").kvs.len(), 1);
        let args = ["--user", "root:root", "user", "passwd", "alice", "--interactive=false"];
        assert_eq!(text(&member.etcdctl_reading("pw\n", &args).stdout), "Password updated\n");
        assert_eq!(get().await.expect("alice still may").kvs.len(), 1);

        let mut watcher = client.watcher(false);
        let watch = WatchCreateRequest { key: "/a/k".into(), ..WatchCreateRequest::default() };
        watcher.watch(watch).expect("a short request");
        assert!(watcher.next().await.expect("a watch").response.created);
        member.restart();
        ctl(&member, &["--user", "root:root", "put", "/a/k", "w"]);
        let seen = watcher.next().await.expect("a watch");
        assert!(seen.end.is_none() && seen.response.events.len() == 1, "{seen:?}");
        assert_eq!(get().await.expect("alice still may").kvs.len(), 1);
    });
}
