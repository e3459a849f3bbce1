//! `etcdctl check` against our server, with smaller loads than its own.

use std::time::Duration;

use blackbox::Member;
use quorate_cli::app::{self, Failure, World};
use quorate_cli::command::{App, Command, Run};
use quorate_cli::ctl;
use quorate_cli::ctl::check::datascale::{self, DatascaleLoad};
use quorate_cli::ctl::check::perf::{self, PerfLoad};

use super::{ctl_fails, text};

/// Runs a command of `check` with a body of its own; what it prints, and how it ends.
fn check(member: &Member, name: &str, run: Run, args: &[&str]) -> (String, String, Result<(), Failure>) {
    let find = |commands: &'static [Command], name: &str| {
        commands.iter().find(|command| command.name == name).expect("a command")
    };
    let original = find(find(ctl::APP.commands, "check").commands, name);
    let command = Command::new(original.name, original.usage, original.short, run);
    let commands = Box::leak(Box::new([command.with_flags(original.flags)]));
    let app = Box::leak(Box::new(App { commands, groups: &[], ..ctl::APP }));
    let endpoint = member.endpoint();
    let words = [&[name, "--endpoints", &endpoint][..], args].concat();
    let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let world = World::apart(&mut out, &mut err);
    let result = app::run(app, &words, world);
    (text(&out), text(&err), result)
}

/// How fast a machine is says nothing about what is right: what is judged may fail, but is to be said.
#[test]
fn the_speed_of_a_cluster_is_judged() {
    let member = Member::start(&[]);
    let run: Run =
        |call| perf::measure(call, &PerfLoad { per_s: 50, clients: 4, duration: Duration::from_secs(2) });
    let (out, err, result) = check(&member, "perf", run, &["--auto-compact", "--auto-defrag"]);
    assert_eq!(err, "");
    let lines: Vec<&str> = out.lines().collect();
    let endpoint = member.endpoint();
    let revision = lines[0].strip_prefix("Compacting with revision ").expect("a line");
    assert_eq!(lines[1], format!("Compacted with revision {revision}"));
    assert_eq!(lines[2..4], [format!("Defragmenting {endpoint:?}"), format!("Defragmented {endpoint:?}")]);
    for (line, passed, failed) in [
        (4, "PASS: Throughput is ", "FAIL: Throughput too low: "),
        (5, "PASS: Slowest request took ", "Slowest request took too long: "),
        (6, "PASS: Stddev is ", "Stddev too high: "),
    ] {
        assert!(lines[line].starts_with(passed) || lines[line].starts_with(failed), "{out}");
    }
    let is_passed = lines[4..7].iter().all(|line| line.starts_with("PASS"));
    let expected = if is_passed { ("PASS", Ok(())) } else { ("FAIL", Err(Failure::silent(1))) };
    assert_eq!((lines[7..].join("\n").as_str(), result), expected);
    // What was put is gone again; the last revision is that of the deletion.
    assert_eq!(super::ctl(&member, &["get", "", "--prefix"]), "");
    let status = super::ctl(&member, &["endpoint", "status", "-w", "json"]);
    assert!(status.contains(&format!("\"revision\":{revision},")), "{status}");
    assert!(revision.parse::<u64>().expect("a number") > 10, "{out}");
}

#[test]
fn the_memory_for_keys_is_told() {
    let member = Member::start(&[]);
    let run: Run = |call| datascale::measure(call, &DatascaleLoad { pairs: 500, clients: 4 });
    let (out, err, result) = check(&member, "datascale", run, &["--auto-compact"]);
    assert_eq!((result, err.as_str()), (Ok(()), ""), "{out}");
    let lines: Vec<&str> = out.lines().collect();
    let begun = "Start data scale check for work load [500 key-value pairs, 1024 bytes per key-value, 4 concurrent clients].";
    assert_eq!(lines[..3], [begun, "Compacting with revision 502", "Compacted with revision 502"]);
    assert!(lines[3].starts_with("PASS: Approximate system memory used : ") && lines[3].ends_with(" MB."));
    assert_eq!(super::ctl(&member, &["get", "", "--prefix"]), "");
}

#[test]
fn a_prefix_in_use_is_left_alone() {
    let member = Member::start(&[]);
    super::ctl(&member, &["put", "p/1", "1"]);
    for (command, delete) in [("perf", "'etcdctl del --prefix p/'"), ("datascale", "etcdctl del --prefix p/")]
    {
        let said = format!("Error: prefix \"p/\" has keys. Delete with {delete} first\n");
        assert_eq!(ctl_fails(&member, &["check", command, "--prefix", "p/"]), (Some(3), said));
        let said = "Error: unknown load option huge\n".to_owned();
        assert_eq!(ctl_fails(&member, &["check", command, "--load", "huge"]), (Some(4), said));
    }
    assert_eq!(super::ctl(&member, &["get", "", "--prefix"]), "p/1\n1\n");
}
