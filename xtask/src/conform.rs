//! Runs packages of the contract suite against our binaries.
//!
//! `xtask/conform.tsv` lists what is passed today, a line a test: package, test. Without `-run`, just that runs. A test
//! may be a regular expression, and be followed by one of its subtests after a slash.
//!
//! `--jobs N` runs so many packages at once, which mostly wait; then each prints what it has to say at its end.

use std::collections::VecDeque;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard};
use std::thread;

use anyhow::{Context, Result, bail};

/// Packages that are also run against clusters of several members.
const SEVERAL: &[&str] = &["auth", "cluster", "ctl", "kv", "lease", "maintenance", "watch"];

struct Options {
    suite: PathBuf,
    profile: String,
    run: Option<String>,
    jobs: usize,
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
    let waiting = Mutex::new(options.packages.iter().collect::<VecDeque<_>>());
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let work = || {
            loop {
                let package = lock(&waiting).pop_front();
                let Some(package) = package else { return Ok(()) };
                if !test(&options, &binaries, package)? {
                    lock(&failed).push(package.clone());
                }
            }
        };
        let jobs: Vec<_> = (0..options.jobs).map(|_| scope.spawn(work)).collect();
        jobs.into_iter().try_for_each(|job| job.join().expect("it ends with what went wrong"))
    })?;
    let failed = lock(&failed);
    if !failed.is_empty() {
        bail!("not passed: {}", failed.join(", "));
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with it")
}

/// Whether the tests of a package pass.
fn test(options: &Options, binaries: &Path, package: &str) -> Result<bool> {
    let tests = match &options.run {
        Some(regex) => regex.clone(),
        None => passed(package)?,
    };
    let mut go = Command::new("go");
    go.args(["test", "-count=1", &format!("./{package}"), "-run", &tests])
        .current_dir(&options.suite)
        .env("ETCD", binaries.join("etcd"))
        .env("ETCDCTL", binaries.join("etcdctl"))
        .env("ETCDUTL", binaries.join("etcdutl"))
        .env("CONFORM_BEYOND", "1");
    if !SEVERAL.contains(&package) {
        go.env("CONFORM_SOLO", "1");
    }
    if options.jobs == 1 {
        return Ok(go.status().context("run go test")?.success());
    }
    let output = go.output().context("run go test")?;
    let mut out = std::io::stdout().lock();
    out.write_all(&output.stdout)?;
    out.write_all(&output.stderr)?;
    Ok(output.status.success())
}

fn parse(args: &[&str]) -> Result<Options> {
    let mut options = Options {
        suite: PathBuf::new(),
        profile: "release".into(),
        run: None,
        jobs: 1,
        packages: Vec::new(),
    };
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
            "--jobs" => options.jobs = value()?.parse::<usize>().context("--jobs")?.max(1),
            package if !package.starts_with('-') => options.packages.push(package.to_owned()),
            other => bail!("conform does not know {other}"),
        }
    }
    if options.suite.as_os_str().is_empty() || options.packages.is_empty() {
        bail!("usage: cargo xtask conform --suite DIR [--profile NAME] [--jobs N] [-run REGEX] PACKAGE...");
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
