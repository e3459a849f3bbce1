//! Repository tasks: `cargo xtask gen [--check]`, `tidy`, `conform`, `soak`.
//!
//! What must run on any machine lives here and not in shell scripts; CI calls the same commands.

mod bad_values;
mod boltfile;
mod clients;
mod clusters;
mod conform;
mod database;
mod full_disk;
mod gen_json;
mod gen_proto;
mod interop;
mod mixed;
mod peers;
mod raft_scenarios;
mod server;
mod soak;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "usage: cargo xtask COMMAND

  gen [--check]                       compile crates/wire/proto; with --check, fail if the result differs
  tidy                                check the dependency rule and the documents
  clients [--install]                 black-box checks with Debian's etcdctl and a Go program, where they are
  clusters                            clusters of four to seven members, killed, stopped and parted
  interop --etcd PATH [--seed N]      our write-ahead log and snapshot file under a real etcd, and the other way round
  boltfile --bbolt PATH --etcdutl PATH
                                      our database files before the real bbolt and etcdutl
  peers --etcd PATH                   our transport and a real etcd in one cluster
  database --etcd PATH --etcd-3.6 PATH --etcdutl PATH
                                      saved snapshots, and data directories, between ours and the real programs
  bad-values --etcd PATH              record what a real etcd says to bad values of its flags
  mixed --go-etcd PATH [--go-etcd-36 PATH] [--only NAME] [--seconds N] [--sequences N] [--seed N]
                                      clusters of ours and Go's etcd, and the swap there and back
  raft-scenarios --testdata DIR       the scenario scripts of etcd's raft through our consensus
  conform --suite DIR PACKAGE...      run packages of the contract suite against our release binaries
                                      (-run REGEX limits the tests; without it, the list of what passes is used)
  full-disk [DIR]                     a member on a small file system that fills up: that of DIR, or, for root, a tmpfs
  soak [NAME...] [--minutes N] [--seeds N] [--debug] [--go-etcd PATH]
                                      what is too long for CI; without a name, all";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["gen"] => gen_proto::run(false),
        ["gen", "--check"] => gen_proto::run(true),
        ["tidy"] => tidy::run(),
        ["clients", rest @ ..] => clients::run(rest),
        ["clusters", rest @ ..] => clusters::run(rest),
        ["interop", rest @ ..] => interop::run(rest),
        ["mixed", rest @ ..] => mixed::run(rest),
        ["peers", rest @ ..] => peers::run(rest),
        ["boltfile", rest @ ..] => boltfile::run(rest),
        ["full-disk", rest @ ..] => full_disk::run(rest),
        ["database", rest @ ..] => database::run(rest),
        ["bad-values", rest @ ..] => bad_values::run(rest),
        ["raft-scenarios", rest @ ..] => raft_scenarios::run(rest),
        ["conform", rest @ ..] => conform::run(rest),
        ["soak", rest @ ..] => soak::run(rest),
        _ => bail!("{USAGE}"),
    }
}

/// The repository's root folder.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root").to_path_buf()
}
