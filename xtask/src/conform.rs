//! Runs packages of the contract suite against our binaries.
//!
//! `xtask/conform.tsv` lists what is passed today, a line a test: package, test. Without `-run`, just that runs. A test
//! may be a regular expression, and be followed by one of its subtests after a slash.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Packages that are also run against clusters of several members.
const SEVERAL: &[&str] = &["auth", "cluster", "ctl", "kv", "lease", "maintenance", "watch"];

struct Options {
    suite: PathBuf,
    profile: String,
    run: Option<String>,
    packages: Vec<String>,
}

pub(crate) fn run(args: &[&str]) -> Result<()> {
    let options = parse(args)?;
    if !options.suite.join("go.mod").exists() {
        bail!("{} holds no contract suite", options.suite.display());
    }
    build(&options.profile)?;
    let folder = if options.profile == "dev" { "debug" } else { &options.profile };
    let binaries = crate::root().join("target").join(folder);
    let mut failed = Vec::new();
    for package in &options.packages {
        let tests = match &options.run {
            Some(regex) => regex.clone(),
            None => passed(package)?,
        };
        let mut go = Command::new("go");
        go.args(["test", "-count=1", &format!("./{package}"), "-run", &tests]);
        if !SEVERAL.contains(&package.as_str()) {
            go.env("CONFORM_SOLO", "1");
        }
        let status = go
            .current_dir(&options.suite)
            .env("ETCD", binaries.join("etcd"))
            .env("ETCDCTL", binaries.join("etcdctl"))
            .env("ETCDUTL", binaries.join("etcdutl"))
            .env("CONFORM_BEYOND", "1")
            .status()
            .context("run go test")?;
        if !status.success() {
            failed.push(package.clone());
        }
    }
    if !failed.is_empty() {
        bail!("not passed: {}", failed.join(", "));
    }
    Ok(())
}

fn parse(args: &[&str]) -> Result<Options> {
    let mut options =
        Options { suite: PathBuf::new(), profile: "release".into(), run: None, packages: Vec::new() };
    let mut rest = args.iter();
    while let Some(word) = rest.next() {
        let mut value =
            || rest.next().map(|v| (*v).to_owned()).with_context(|| format!("{word} needs a value"));
        match *word {
            "--suite" => {
                let given = PathBuf::from(value()?);
                options.suite =
                    fs::canonicalize(&given).with_context(|| format!("find {}", given.display()))?;
            }
            "--profile" => options.profile = value()?,
            "-run" | "--run" => options.run = Some(value()?),
            package if !package.starts_with('-') => options.packages.push(package.to_owned()),
            other => bail!("conform does not know {other}"),
        }
    }
    if options.suite.as_os_str().is_empty() || options.packages.is_empty() {
        bail!("usage: cargo xtask conform --suite DIR [--profile NAME] [-run REGEX] PACKAGE...");
    }
    Ok(options)
}

fn build(profile: &str) -> Result<()> {
    let status = Command::new(env!("CARGO"))
        .args(["build", "--profile", profile, "-p", "quorate-server", "-p", "quorate-cli"])
        .current_dir(crate::root())
        .status()
        .context("run cargo build")?;
    if !status.success() {
        bail!("the binaries do not build");
    }
    Ok(())
}

/// The regular expression of the tests of a package that are passed today.
fn passed(package: &str) -> Result<String> {
    let path = crate::root().join("xtask/conform.tsv");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let tests: Vec<String> = text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once('\t'))
        .filter(|(name, _)| *name == package)
        .map(|(_, test)| whole_names(test.trim()))
        .collect();
    if tests.is_empty() {
        bail!("xtask/conform.tsv lists no test of package {package}");
    }
    Ok(tests.join("|"))
}

/// Go matches the names of a test and of its subtests one by one, and finds a part of a name too.
fn whole_names(test: &str) -> String {
    test.split('/').map(|name| format!("^({name})$")).collect::<Vec<_>>().join("/")
}
