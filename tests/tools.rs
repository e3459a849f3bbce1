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
