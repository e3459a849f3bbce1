//! Real clients against our server: Debian's etcdctl 3.4, and etcd's Go client in a program of `tests/go`. What is
//! not on the machine is skipped, and says so.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::server::{Server, build, output, scratch};

/// Where Debian's package has it; our own would be found in the path first.
const ETCDCTL: &str = "/usr/bin/etcdctl";

pub(crate) fn run(args: &[&str]) -> Result<()> {
    match args {
        [] => {}
        ["--install"] => install(),
        _ => bail!("clients knows only --install"),
    }
    let binaries = build()?;
    if Path::new(ETCDCTL).exists() {
        let server = Server::start(&binaries.join("etcd"), &scratch("clients-etcdctl")?)?;
        etcdctl(&server)?;
        println!("ok: Debian's etcdctl");
    } else {
        println!("skipped: no etcdctl of Debian's package etcd-client");
    }
    if Command::new("go").arg("version").output().is_ok() {
        let mut server = Server::start(&binaries.join("etcd"), &scratch("clients-go")?)?;
        go(&mut server)?;
        println!("ok: Go's clientv3");
    } else {
        println!("skipped: no Go");
    }
    Ok(())
}

/// Runs the program of `tests/go`. When it asks for it, the server is killed and started again under it.
fn go(server: &mut Server) -> Result<()> {
    let mut program = Command::new("go")
        .args(["run", ".", &server.endpoint])
        .current_dir(crate::root().join("tests/go"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("run go")?;
    let mut input = program.stdin.take().context("its standard input")?;
    let output = BufReader::new(program.stdout.take().context("its standard output")?);
    for line in output.lines() {
        let line = line?;
        println!("{line}");
        if line == "restart the server" {
            server.restart()?;
            writeln!(input, "done")?;
        }
    }
    if !program.wait()?.success() {
        bail!("the Go program failed");
    }
    Ok(())
}

/// Installs the Debian package where that can be done; where it can't, its checks are skipped.
fn install() {
    if Path::new(ETCDCTL).exists() || Command::new("apt-get").arg("--version").output().is_err() {
        return;
    }
    for step in [&["update", "-qq"][..], &["install", "-y", "-qq", "etcd-client"]] {
        let done = Command::new("apt-get").args(step).env("DEBIAN_FRONTEND", "noninteractive").output();
        if !done.is_ok_and(|done| done.status.success()) {
            return;
        }
    }
}

fn etcdctl(server: &Server) -> Result<()> {
    // With its scheme: `endpoint status` of 3.4 then sends the whole URL as the authority.
    let endpoint = &server.endpoint;
    let ctl = |args: &[&str], input: &str| -> Result<String> {
        let mut command = Command::new("sh");
        // The words are ours; the shell is here for its pipe.
        command.args(["-c", "printf '%s' \"$INPUT\" | \"$CTL\" --endpoints \"$EP\" \"$@\"", "sh"]).args(args);
        command.env("ETCDCTL_API", "3").env("CTL", ETCDCTL).env("EP", endpoint).env("INPUT", input);
        output(&mut command)
    };
    let check = |args: &[&str], input: &str, expected: &str| -> Result<()> {
        let printed = ctl(args, input)?;
        if printed != expected {
            bail!("etcdctl {args:?} printed {printed:?}, not {expected:?}");
        }
        Ok(())
    };
    check(&["put", "name", "john"], "", "OK\n")?;
    check(&["get", "name"], "", "name\njohn\n")?;
    check(&["put", "/a", "1"], "", "OK\n")?;
    check(&["put", "/b", "2", "--prev-kv"], "", "OK\n\n\n")
        .or_else(|_| check(&["put", "/b", "2", "--prev-kv"], "", "OK\n/b\n2\n"))?;
    check(&["get", "/", "--prefix", "--keys-only"], "", "/a\n\n/b\n\n")?;
    check(&["get", "/", "--prefix", "--order", "DESCEND", "--limit", "1", "--print-value-only"], "", "2\n")?;
    check(&["get", "name", "--rev", "2"], "", "name\njohn\n")?;
    check(&["txn"], "mod(\"name\") > \"0\"\n\nput name jane\n\nget name\n\n", "SUCCESS\n\nOK\n")?;
    check(&["get", "name", "--consistency", "s", "--print-value-only"], "", "jane\n")?;
    check(&["del", "/", "--prefix"], "", "2\n")?;
    check(&["get", "/", "--prefix", "--count-only", "-w", "simple"], "", "")
        .or_else(|_| check(&["get", "/", "--prefix"], "", ""))?;
    check(&["compaction", "3", "--physical"], "", "compacted revision 3\n")?;
    let granted = ctl(&["lease", "grant", "1000"], "")?;
    let lease = granted.split(' ').nth(1).unwrap_or_default();
    check(&["put", "leased", "1", "--lease", lease], "", "OK\n")?;
    if !ctl(&["lease", "timetolive", lease, "--keys"], "")?.ends_with("attached keys([leased])\n") {
        bail!("etcdctl does not find the key of its lease");
    }
    check(&["lease", "list"], "", &format!("found 1 leases\n{lease}\n"))?;
    check(&["lease", "revoke", lease], "", &format!("lease {lease} revoked\n"))?;
    check(&["get", "leased"], "", "")?;
    for args in [&["endpoint", "status", "-w", "json"][..], &["endpoint", "hashkv"], &["member", "list"]] {
        if ctl(args, "")?.trim().is_empty() {
            bail!("etcdctl {args:?} printed nothing");
        }
    }
    // 3.4 sends the socket's path as the authority.
    let unix = ["--endpoints", &server.unix_endpoint, "get", "name", "--print-value-only"];
    let over_unix = output(Command::new(ETCDCTL).env("ETCDCTL_API", "3").args(unix))?;
    if over_unix != "jane\n" {
        bail!("over the unix socket, etcdctl printed {over_unix:?}");
    }
    let health = output(Command::new(ETCDCTL).env("ETCDCTL_API", "3").args([
        "--endpoints",
        endpoint,
        "endpoint",
        "health",
        "-w",
        "json",
    ]))?;
    if !health.contains("\"health\":true") {
        bail!("endpoint health says {health}");
    }
    Ok(())
}
