//! What is too long for CI: `cargo xtask soak [NAME...] [--minutes N] [--seeds N] [--debug] [--go-etcd PATH]`.
//!
//! Each job is a plain command, printed before it runs: a failure is run again by copying that line, and where a
//! seed or an input failed, the job's own output ends with the narrower one. What ran is appended to
//! `docs/internals/soak.md`, failures too; a job that its machine cannot run says so and is not.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: cargo xtask soak [NAME...] [--minutes N] [--seeds N] [--debug] [--go-etcd PATH]

  sim         the simulator, 100,000 seeds in as many processes as there are processors
  sim-cluster the simulator of clusters, 100,000 seeds in as many threads as there are processors
  raft        consensus under faults, 50,000 seeds of 3,000 steps
  revlog      power cuts and kills of the revision log, 2,000 seeds
  wal         power cuts of the write-ahead log at every operation
  flips       a member's directory, every bit of every byte flipped
  kill9       kill -9 of the real binary, 200 rounds
  clusters    clusters of 4, 5, 6 and 7 members as processes, killed, stopped and parted; a gigabyte as a snapshot
  overwrite   everything overwritten and compacted all the time for N minutes (5), and what that takes of the disk
  mixed       random requests to ours and to a real etcd 3.7, which --go-etcd names, 1,000 sequences
  fuzz        every fuzz target, N minutes each (5); fuzz:TARGET runs one
  sanitizer   the tests around our unsafe code, with AddressSanitizer

--seeds sets the number of seeds, rounds or sequences of the jobs that have one. Without --go-etcd, and without a name, mixed
is left out. With --debug, kill9, clusters and overwrite run the binaries
as the tests do, not the release ones.";

/// Where results are kept, from the root.
const RESULTS: &str = "docs/internals/soak.md";

const TARGET: &str = "x86_64-unknown-linux-gnu";

struct Options {
    names: Vec<String>,
    minutes: u64,
    seeds: Option<u64>,
    debug: bool,
    go_etcd: Option<PathBuf>,
}

/// One row of the results.
struct Done {
    what: String,
    how_much: String,
    failed: Option<String>,
}

pub(crate) fn run(args: &[&str]) -> Result<()> {
    let options = parse(args)?;
    let mut failed = Vec::new();
    for name in &options.names {
        for done in job(name, &options)? {
            record(&done)?;
            if let Some(how) = &done.failed {
                eprintln!("\nsoak: {} failed. Again:\n  {how}", done.what);
                failed.push(done.what);
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn parse(args: &[&str]) -> Result<Options> {
    let mut options = Options { names: Vec::new(), minutes: 5, seeds: None, debug: false, go_etcd: None };
    let mut rest = args.iter();
    while let Some(word) = rest.next() {
        if *word == "--go-etcd" {
            let path = rest.next().context("--go-etcd needs a path")?;
            options.go_etcd = Some(fs::canonicalize(path).with_context(|| format!("find {path}"))?);
            continue;
        }
        let mut number = || -> Result<u64> {
            let value = rest.next().with_context(|| format!("{word} needs a number"))?;
            value.parse().with_context(|| format!("{word} {value}"))
        };
        match *word {
            "--minutes" => options.minutes = number()?,
            "--seeds" => options.seeds = Some(number()?),
            "--debug" => options.debug = true,
            name if !name.starts_with('-') => options.names.push(name.to_owned()),
            _ => bail!("{USAGE}"),
        }
    }
    if options.names.is_empty() {
        let all = [
            "sim",
            "sim-cluster",
            "raft",
            "revlog",
            "wal",
            "flips",
            "kill9",
            "clusters",
            "overwrite",
            "sanitizer",
            "fuzz",
        ];
        options.names = all.map(str::to_owned).to_vec();
        match options.go_etcd {
            Some(_) => options.names.push("mixed".to_owned()),
            None => println!("no --go-etcd: mixed is left out"),
        }
    }
    Ok(options)
}

fn job(name: &str, options: &Options) -> Result<Vec<Done>> {
    let seeds = |usual: u64| options.seeds.unwrap_or(usual);
    let one = |how_much: String, command: Command| -> Result<Vec<Done>> {
        Ok(vec![finish(name, how_much, vec![start(command)?])?])
    };
    match name {
        "sim" => sim(seeds(100_000)),
        "sim-cluster" => {
            let mut command = test("quorate-sim", &["--test", "cluster"], &["keeps_its", "--nocapture"]);
            command.env("QUORATE_SEEDS", seeds(100_000).to_string());
            one(format!("{} seeds", seeds(100_000)), command)
        }
        "raft" => {
            let mut command = test("quorate-raft", &["--test", "random"], &["--nocapture"]);
            command.env("QUORATE_SEEDS", seeds(50_000).to_string());
            one(format!("{} seeds", seeds(50_000)), command)
        }
        "revlog" => {
            let mut command = test("quorate-disk", &["--test", "revlog"], &["crash::"]);
            command.env("REVLOG_SEEDS", format!("0..{}", seeds(2_000)));
            one(format!("{} seeds", seeds(2_000)), command)
        }
        "wal" => one("every operation".into(), test("quorate-disk", &["--test", "wal"], &["crashes::"])),
        "flips" => {
            let mut command = test("quorate-sim", &["--test", "flips"], &["--nocapture"]);
            command.env("QUORATE_FLIPS", "all");
            one("every bit of every byte".into(), command)
        }
        "kill9" => {
            let mut command = black_box("crash", options);
            command.args(["--", "--nocapture", "kill_9"]);
            command.env("QUORATE_KILL_ROUNDS", seeds(200).to_string());
            one(format!("{} rounds", seeds(200)), command)
        }
        "clusters" => {
            let mut command = black_box("disturbed", options);
            command.args(["--", "--ignored", "--nocapture", "--test-threads", "1"]);
            one("all of them".into(), command)
        }
        "overwrite" => {
            let mut command = black_box("disk_space", options);
            command.args(["--", "--ignored", "--nocapture", "overwriting"]);
            command.env("QUORATE_MINUTES", options.minutes.to_string());
            one(format!("{} min", options.minutes), command)
        }
        "mixed" => {
            let etcd = options.go_etcd.as_ref().context("mixed needs --go-etcd PATH, an etcd 3.7")?;
            let mut command = cargo(&["xtask", "mixed", "--only", "differential", "--go-etcd"]);
            command.arg(etcd).args(["--sequences", &seeds(1_000).to_string()]);
            one(format!("{} sequences", seeds(1_000)), command)
        }
        "sanitizer" => sanitizer(),
        "fuzz" => {
            let mut all = Vec::new();
            for target in fuzz_targets()? {
                all.push(fuzz(&target, options.minutes)?);
            }
            Ok(all)
        }
        other => match other.strip_prefix("fuzz:") {
            Some(target) => Ok(vec![fuzz(target, options.minutes)?]),
            None => bail!("soak does not know {other}\n{USAGE}"),
        },
    }
}

/// The seeds in equal parts, a process each; the first builds for all.
fn sim(count: u64) -> Result<Vec<Done>> {
    let processes = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let mut build = test("quorate-sim", &["--test", "seeds", "--no-run"], &[]);
    if !build.status().context("run cargo")?.success() {
        bail!("the simulator does not build");
    }
    let each = count.div_ceil(processes);
    let mut running = Vec::new();
    for process in 0..processes {
        let mut command = test("quorate-sim", &["--test", "seeds"], &["one_member", "--nocapture"]);
        command.env("QUORATE_SEED_FIRST", (1 + process * each).to_string());
        command.env("QUORATE_SEEDS", each.to_string());
        running.push(start(command)?);
    }
    Ok(vec![finish("sim", format!("{} seeds", each * processes), running)?])
}

/// Our two places with unsafe code: `preadv2` in `disk`, and a signal's disposition in `server`.
fn sanitizer() -> Result<Vec<Done>> {
    let mut all = Vec::new();
    for (package, which) in
        [("quorate-disk", ["--test", "file_systems"]), ("quorate-server", ["--test", "process"])]
    {
        let mut command = cargo(&["+nightly", "test", "--target", TARGET, "-p", package]);
        command.args(which);
        command.env("RUSTFLAGS", "-Zsanitizer=address");
        command.env("CARGO_TARGET_DIR", "target/sanitizer");
        // A process that ends by exit leaves what its threads hold; that is no fault of memory.
        command.env("ASAN_OPTIONS", "detect_leaks=0");
        let name = format!("sanitizer, {package}");
        all.push(finish(&name, which.join(" "), vec![start(command)?])?);
    }
    Ok(all)
}

fn fuzz_targets() -> Result<Vec<String>> {
    let mut targets = Vec::new();
    for file in fs::read_dir(crate::root().join("fuzz/targets")).context("list the fuzz targets")? {
        let path = file?.path();
        targets.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    targets.sort();
    Ok(targets)
}

fn fuzz(target: &str, minutes: u64) -> Result<Done> {
    let mut seeds = cargo(&["+nightly", "run", "--quiet", "--example", "seeds"]);
    seeds.current_dir(crate::root().join("fuzz"));
    if !seeds.status().context("run cargo +nightly")?.success() {
        bail!("the seeds do not build");
    }
    // Sanitizing costs half of the inputs, and no code of ours that decodes is unsafe: `sanitizer` has the rest.
    let mut command = cargo(&["+nightly", "fuzz", "run", "--sanitizer", "none", target, "--"]);
    command.arg(format!("-max_total_time={}", 60 * minutes)).args(["-timeout=20", "-rss_limit_mb=2048"]);
    finish(&format!("fuzz {target}"), format!("{minutes} min"), vec![start(command)?])
}

fn cargo(args: &[&str]) -> Command {
    // Not the `cargo` that runs us: `+nightly` is understood by rustup's alone.
    let mut command = Command::new("cargo");
    command.args(args).current_dir(crate::root());
    // What the outer cargo sets would tie the inner one to its toolchain.
    for variable in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(variable);
    }
    command
}

/// A test of the binaries as processes, which it builds itself as it is built: debug or release.
fn black_box(name: &str, options: &Options) -> Command {
    let mut command = cargo(&["test"]);
    if !options.debug {
        command.arg("--release");
    }
    command.args(["-p", "quorate-tests", "--test", name]);
    command
}

fn test(package: &str, which: &[&str], args: &[&str]) -> Command {
    let mut command = cargo(&["test", "--profile", "soak", "-p", package]);
    command.args(which);
    if !args.is_empty() {
        command.arg("--").args(args);
    }
    command
}

/// A command that runs, and the line that runs it again.
struct Running {
    line: String,
    child: Child,
    began: Instant,
}

fn start(mut command: Command) -> Result<Running> {
    let set = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let mut line: Vec<String> =
        set.map(|(name, value)| format!("{}={}", name.display(), value.display())).collect();
    line.push(command.get_program().display().to_string());
    line.extend(command.get_args().map(|argument| argument.display().to_string()));
    let line = line.join(" ");
    println!("\nsoak: {line}");
    let child = command.stdin(Stdio::null()).spawn().with_context(|| line.clone())?;
    Ok(Running { line, child, began: Instant::now() })
}

fn finish(what: &str, how_much: String, running: Vec<Running>) -> Result<Done> {
    let mut failed = None;
    let mut longest = Duration::ZERO;
    for Running { line, mut child, began } in running {
        let status = child.wait().with_context(|| line.clone())?;
        longest = longest.max(began.elapsed());
        if !status.success() {
            failed = failed.or(Some(line));
        }
    }
    let how_much = format!("{how_much}, {} s", longest.as_secs());
    Ok(Done { what: what.to_owned(), how_much, failed })
}

/// Appends a row to the table.
fn record(done: &Done) -> Result<()> {
    let path = crate::root().join(RESULTS);
    let result = match &done.failed {
        None => "passed".to_owned(),
        Some(line) => format!("failed: `{line}`"),
    };
    let row = format!(
        "| {} | {} | {} | {} | {result} |\n",
        output("date", &["-u", "+%F"])?,
        commit()?,
        done.what,
        done.how_much
    );
    append(&path, &row).with_context(|| format!("append to {}", path.display()))
}

fn append(path: &Path, row: &str) -> std::io::Result<()> {
    fs::OpenOptions::new().append(true).open(path)?.write_all(row.as_bytes())
}

/// The commit that was run, with a plus sign if files differ from it (the results themselves aside).
fn commit() -> Result<String> {
    let hash = output("git", &["rev-parse", "--short", "HEAD"])?;
    let changed = output("git", &["status", "--porcelain", "--", ".", &format!(":!{RESULTS}")])?;
    Ok(if changed.is_empty() { hash } else { format!("{hash}+") })
}

fn output(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .current_dir(crate::root())
        .output()
        .with_context(|| program.to_owned())?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
