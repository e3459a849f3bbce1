//! `etcdctl make-mirror` from one of our members to another.

use std::process::{Child, Command, Stdio};

use blackbox::{Member, binary, everything_since, patience, run};
use client::Watcher;
use wire::etcdserverpb::request_op::Request;
use wire::etcdserverpb::{DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};
use wire::mvccpb::Event;
use wire::mvccpb::event::EventType;

use super::{ctl, text};

/// A mirror that runs until it is dropped, or until something fails.
struct Mirror(Child);

impl Mirror {
    fn start(source: &Member, destination: &Member, args: &[&str]) -> Mirror {
        let mut command = Command::new(binary("etcdctl"));
        command.args(["--endpoints", &source.endpoint(), "make-mirror"]).args(args);
        command.arg(destination.endpoint()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Mirror(command.spawn().expect("etcdctl runs"))
    }

    /// Most memory that it has had, bytes.
    fn memory_max(&self) -> u64 {
        let path = format!("/proc/{}/status", self.0.id());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The exit code and the last words of a mirror that fails.
fn failure(source: &Member, args: &[&str]) -> (Option<i32>, String) {
    let output = source.etcdctl(&[&["make-mirror"], args].concat());
    (output.status.code(), text(&output.stderr))
}

fn put(key: &str, value: &str) -> Request {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    Request::RequestPut(PutRequest { key, value, ..PutRequest::default() })
}

fn delete(key: &str) -> Request {
    Request::RequestDeleteRange(DeleteRangeRequest {
        key: key.to_owned().into(),
        ..DeleteRangeRequest::default()
    })
}

/// Does all of it as one revision.
async fn change(member: &Member, requests: impl IntoIterator<Item = Request>) {
    let success = requests.into_iter().map(|request| RequestOp { request: Some(request) }).collect();
    let request = TxnRequest { success, ..TxnRequest::default() };
    member.client().txn(request, patience()).await.expect("a transaction");
}

/// The next events of a watch, so many or more, by revision.
async fn revisions(watcher: &mut Watcher, count: usize) -> Vec<Vec<String>> {
    let mut events: Vec<Event> = Vec::new();
    while events.len() < count {
        let next = tokio::time::timeout(blackbox::PATIENCE, watcher.next());
        let watched = next.await.expect("it copies").expect("a watch");
        assert!(watched.end.is_none(), "{watched:?}");
        events.extend(watched.response.events);
    }
    let mut grouped: Vec<(i64, Vec<String>)> = Vec::new();
    for event in events {
        let kind = event.r#type();
        let pair = event.kv.expect("a pair");
        let (key, value) = (text(&pair.key), text(&pair.value));
        let shown = if kind == EventType::Put { format!("{key}={value}") } else { format!("{key} deleted") };
        match grouped.last_mut().filter(|(revision, _)| *revision == pair.mod_revision) {
            Some((_, group)) => group.push(shown),
            None => grouped.push((pair.mod_revision, vec![shown])),
        }
    }
    grouped.into_iter().map(|(_, group)| group).collect()
}

fn watch(member: &Member) -> Watcher {
    let mut watcher = member.client().watcher(false);
    watcher.watch(everything_since(1)).expect("a short request");
    watcher
}

#[test]
fn a_mirror_copies_all_pairs_and_then_each_change() {
    let (mut source, destination) = (Member::start(&["--max-txn-ops", "1024"]), Member::start(&[]));
    run(async {
        // More than two pages.
        let names: Vec<String> = (0..2500).map(|n| format!("a/{n:04}")).collect();
        for some in names.chunks(500) {
            change(&source, some.iter().map(|name| put(name, "1"))).await;
        }
        change(&source, [put("b/1", "1"), put("a", "1")]).await;
        ctl(&destination, &["put", "kept", "1"]);
        let mut watcher = watch(&destination);
        let _mirror = Mirror::start(&source, &destination, &["--prefix", "a/", "--dest-prefix", "copy/"]);
        let mut copied = revisions(&mut watcher, 2501).await.concat();
        assert_eq!(copied.remove(0), "kept=1");
        copied.sort_unstable();
        let expected: Vec<String> = names.iter().map(|name| format!("copy/{}=1", &name[2..])).collect();
        assert_eq!(copied, expected);

        change(&source, [put("b/2", "2"), put("a/x", "2"), delete("a/0000"), put("a/0001", "3")]).await;
        change(&source, [put("c", "2")]).await;
        change(&source, [delete("a/x")]).await;
        let changes = revisions(&mut watcher, 4).await;
        assert_eq!(
            changes,
            [&["copy/x=2", "copy/0000 deleted", "copy/0001=3"][..], &["copy/x deleted"]],
            "what was one revision is one here too"
        );

        source.restart();
        change(&source, [put("a/y", "4")]).await;
        assert_eq!(revisions(&mut watcher, 1).await, [["copy/y=4"]], "the watch goes on");
    });
}

#[test]
fn the_prefix_is_kept_left_out_or_put_before() {
    let source = Member::start(&[]);
    ctl(&source, &["put", "m/1", "one"]);
    ctl(&source, &["put", "m/2", "two"]);
    for (args, copied) in [
        (&["--prefix", "m/"][..], ["m/1=one", "m/2=two"]),
        (&["--prefix", "m/", "--no-dest-prefix"], ["1=one", "2=two"]),
        (&["--dest-prefix", "new/"], ["new/m/1=one", "new/m/2=two"]),
        (&[], ["m/1=one", "m/2=two"]),
        (&["--rev", "1"], ["m/1=one", "m/2=two"]),
        // Changes alone; then the prefix is left out, as by etcdctl.
        (&["--prefix", "m/", "--rev", "2"], ["1=one", "2=two"]),
        (&["--prefix", "m/", "--rev", "2", "--dest-prefix", "n/"], ["n/1=one", "n/2=two"]),
    ] {
        let destination = Member::start(&[]);
        let _mirror = Mirror::start(&source, &destination, args);
        let mut found = run(async { revisions(&mut watch(&destination), 2).await.concat() });
        found.sort_unstable();
        assert_eq!(found, copied, "{args:?}");
    }
}

#[test]
fn changes_of_one_revision_are_split_where_they_are_too_many_or_too_long() {
    let source = Member::start(&[]);
    let destination = Member::start(&["--max-request-bytes", "3000"]);
    let mut watcher = watch(&destination);
    let _mirror = Mirror::start(&source, &destination, &["--rev", "2", "--max-txn-ops", "4"]);
    let values = |names: &str, value: &str| -> Vec<Request> {
        names.chars().map(|name| put(&name.to_string(), value)).collect()
    };
    run(async {
        change(&source, values("abcdef", "1")).await;
        let found = revisions(&mut watcher, 6).await;
        assert_eq!(found, [&["a=1", "b=1", "c=1", "d=1"][..], &["e=1", "f=1"]]);
        let long = "v".repeat(1000);
        change(&source, values("abcd", &long)).await;
        let sizes: Vec<usize> = revisions(&mut watcher, 4).await.iter().map(Vec::len).collect();
        assert_eq!(sizes, [2, 2]);
    });
}

#[test]
fn a_mirror_of_long_values_takes_little_memory() {
    const COUNT: usize = 96;
    let (source, destination) = (Member::start(&[]), Member::start(&[]));
    let value = "v".repeat(1 << 20);
    run(async {
        for n in 0..COUNT {
            change(&source, [put(&format!("k{n:02}"), &value)]).await;
        }
    });
    let mirror = Mirror::start(&source, &destination, &[]);
    run(async {
        let mut watcher = watch(&destination);
        let mut copied: Vec<String> = revisions(&mut watcher, COUNT).await.concat();
        copied.sort_unstable();
        let expected: Vec<String> = (0..COUNT).map(|n| format!("k{n:02}={value}")).collect();
        assert!(copied == expected, "all are there");
    });
    let bytes = mirror.memory_max();
    assert!(bytes < 80 << 20, "{} MiB for {COUNT} MiB", bytes >> 20);
}

#[test]
fn a_mirror_that_cannot_go_on_says_why() {
    let source = Member::start(&[]);
    let mut destination = Member::start(&["--bcrypt-cost", "4", "--max-request-bytes", "3000"]);
    destination.announce("invalid authentication was requested");
    let to = destination.endpoint();
    let error = |code, text: &str| (Some(code), format!("Error: {text}\n"));
    assert_eq!(failure(&source, &[]), error(128, "make-mirror takes one destination argument"));
    assert_eq!(failure(&source, &[&to, &to]), error(128, "make-mirror takes one destination argument"));
    let both = "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one";
    assert_eq!(failure(&source, &["--dest-prefix", "x", "--no-dest-prefix", &to]), error(128, both));
    let missing = "open none.crt: no such file or directory";
    assert_eq!(failure(&source, &["--dest-cert", "none.crt", "--dest-key", "x", &to]), error(128, missing));

    for value in ["1", "2", "3"] {
        ctl(&source, &["put", "k", value]);
    }
    ctl(&source, &["compaction", "4"]);
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!(failure(&source, &["--rev", "3", &to]), error(1, compacted));
    ctl(&source, &["put", "long", &"v".repeat(4000)]);
    assert_eq!(failure(&source, &[&to]), error(1, "etcdserver: request is too large"));

    for args in [&["user", "add", "root:root"][..], &["auth", "enable"]] {
        ctl(&destination, args);
    }
    assert_eq!(failure(&source, &["--prefix", "k", &to]), error(1, "etcdserver: user name is empty"));
    let wrong = "etcdserver: authentication failed, invalid user ID or password";
    assert_eq!(failure(&source, &["--dest-user", "root:no", &to]), error(2, wrong));
    let args = ["make-mirror", "--dest-user", "root", &to];
    let asked = source.etcdctl_reading("no\n", &args);
    assert_eq!(text(&asked.stdout), "Destination Password: \n");
    assert_eq!((asked.status.code(), text(&asked.stderr)), error(2, wrong));
    for user in [&["--dest-user", "root:root"][..], &["--dest-user", "root", "--dest-password", "root"]] {
        let args = [user, &["--prefix", "long", &to]].concat();
        assert_eq!(failure(&source, &args), error(1, "etcdserver: request is too large"), "root may");
    }
}
