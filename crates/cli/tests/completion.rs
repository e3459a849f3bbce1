//! The completion scripts, each run by its shell where there is one: bash is everywhere, zsh and fish are not.

use std::process::{Command, Stdio};

use quorate_cli::app::{self, World};
use quorate_cli::command::App;
use quorate_cli::{ctl, utl};

fn script(app: &'static App, shell: &str) -> String {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let world = World::apart(&mut out, &mut err);
    app::run(app, &[b"completion".to_vec(), shell.as_bytes().to_vec()], world).expect("a script");
    String::from_utf8(out).expect("text")
}

/// What a program of a shell prints; `None` if there is no such shell.
fn run(shell: &str, program: &str) -> Option<String> {
    let mut command = Command::new(shell);
    command.arg("-c").arg(program).stdin(Stdio::null());
    let output = command.output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{shell}: {said}");
    Some(String::from_utf8(output.stdout).expect("text"))
}

/// What bash offers for the last of these words.
fn bash(app: &'static App, words: &[&str]) -> Vec<String> {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let (name, last) = (app.name, words.len() - 1);
    let program = format!(
        "{}\nCOMP_WORDS=({}); COMP_CWORD={last}; _{name}; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script(app, "bash"),
        quoted.join(" ")
    );
    let said = run("bash", &program).expect("bash is there");
    let mut offered: Vec<String> = said.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    offered.sort();
    offered
}

#[test]
fn bash_offers_commands_flags_and_values() {
    let utl = |words: &[&str]| bash(&utl::APP, &[&["etcdutl"], words].concat());
    assert_eq!(utl(&["sn"]), ["snapshot"]);
    assert_eq!(utl(&["snapshot", ""]), ["restore", "status"]);
    assert_eq!(utl(&["-w", "json", "snapshot", "st"]), ["status"]);
    assert_eq!(utl(&["--write-out", "=", "json", "snapshot", "st"]), ["status"]);
    assert_eq!(utl(&["snapshot", "restore", "--bu"]), ["--bump-revision"]);
    assert_eq!(utl(&["snapshot", "status", "-w", "p"]), ["protobuf"]);
    assert_eq!(utl(&["--write-out", "=", "ta"]), ["table"]);
    assert_eq!(utl(&["snapshot", "restore", "--data-dir", "zz"]), [""; 0], "files, which the shell offers");
    assert_eq!(utl(&["completion", "z"]), ["zsh"]);
    assert_eq!(utl(&["help", "mig"]), ["migrate"]);
    assert_eq!(utl(&["check", "--wal"]), ["--wal-dir"]);
    let ctl = |words: &[&str]| bash(&ctl::APP, &[&["etcdctl"], words].concat());
    assert_eq!(ctl(&["--endpoints", "get", "lease", "k"]), ["keep-alive"]);
    assert_eq!(ctl(&["get", "--prefix", "--sort-by", "M"]), ["MODIFY"]);
    assert_eq!(ctl(&["get", "--command-t"]), ["--command-timeout"]);
}

#[test]
fn every_script_is_one_for_its_shell() {
    for app in [&utl::APP, &ctl::APP] {
        for shell in ["bash", "zsh", "fish"] {
            let file =
                std::env::temp_dir().join(format!("quorate-{}-{}.{shell}", app.name, std::process::id()));
            std::fs::write(&file, script(app, shell)).expect("a file");
            let checked = Command::new(shell).arg("-n").arg(&file).output();
            std::fs::remove_file(&file).expect("a file");
            let Ok(output) = checked else {
                assert_ne!(shell, "bash", "bash is there");
                continue;
            };
            assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
        }
        assert!(script(app, "zsh").starts_with(&format!("#compdef {}\n", app.name)));
        let powershell = script(app, "powershell");
        let count = |of: char| powershell.chars().filter(|c| *c == of).count();
        assert_eq!(count('{'), count('}'), "braces");
        assert_eq!(powershell.matches('\'').count() % 2, 0, "quotes");
    }
}

#[test]
fn fish_offers_commands_flags_and_values() {
    let fish = |line: &str| {
        let program = format!("{}\ncomplete -C '{line}'", script(&utl::APP, "fish"));
        let said = run("fish", &program)?;
        let word = |line: &str| line.split('\t').next().unwrap_or_default().to_owned();
        Some(said.lines().map(word).collect::<Vec<_>>())
    };
    for (line, offered) in [
        ("etcdutl sn", "snapshot"),
        ("etcdutl -w json snapshot r", "restore"),
        ("etcdutl snapshot restore --bu", "--bump-revision"),
        ("etcdutl hashkv -w ta", "table"),
        ("etcdutl completion z", "zsh"),
    ] {
        if let Some(found) = fish(line) {
            assert_eq!(found, [offered], "{line}");
        }
    }
}

/// What the functions of zsh's completion system are handed: they filter by what is typed.
#[test]
fn zsh_offers_commands_flags_and_values() {
    const STUBS: &str = "compdef() {}
        compset() {}
        _files() { print files }
        _describe() { local list=${@[-1]}; print -l -- ${(P)list%%:*} }
        compadd() { local list=${@[-1]}; print -l -- ${(P)list} }";
    let zsh = |line: &[&str]| {
        let words: Vec<String> = line.iter().map(|word| format!("'{word}'")).collect();
        let program = format!(
            "{STUBS}\n{}\nwords=(etcdutl {}); CURRENT={}; _etcdutl",
            script(&utl::APP, "zsh"),
            words.join(" "),
            line.len() + 1
        );
        let said = run("zsh", &program)?;
        Some(said.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    for (line, offered) in [
        (&["snapshot", ""][..], &["restore", "status"][..]),
        (&["-w", "json", "snapshot", ""], &["restore", "status"]),
        (&["-w", "p"], &["simple", "fields", "json", "protobuf", "table"]),
        (&["--write-out=p"], &["simple", "fields", "json", "protobuf", "table"]),
        (&["snapshot", "status", "--"], &["--timeout", "--write-out", "-w", "--help", "-h"]),
        (&["snapshot", "status", ""], &["files"]),
        (&["snapshot", "restore", "--data-dir", ""], &["files"]),
        (&["completion", ""], &["bash", "zsh", "fish", "powershell"]),
    ] {
        if let Some(found) = zsh(line) {
            assert_eq!(found, offered, "{line:?}");
        }
    }
}

#[test]
fn a_shell_that_is_none_is_refused_as_by_cobra() {
    for (line, text) in [
        (&["completion"][..], "accepts 1 arg(s), received 0"),
        (&["completion", "bash", "zsh"], "accepts 1 arg(s), received 2"),
        (&["completion", "csh"], "invalid argument \"csh\" for \"etcdutl completion\""),
    ] {
        let args: Vec<Vec<u8>> = line.iter().map(|word| word.as_bytes().to_vec()).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let world = World::apart(&mut out, &mut err);
        let failure = app::run(&utl::APP, &args, world).expect_err("refused");
        assert_eq!(failure.code, 1);
        let usage = "Usage:\n  etcdutl completion [bash|zsh|fish|powershell]\n";
        assert!(failure.message.starts_with(&format!("Error: {text}\n{usage}")), "{}", failure.message);
        assert!(failure.message.ends_with(&format!("\nError: {text}\n")), "{}", failure.message);
    }
}
