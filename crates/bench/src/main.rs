//! The `bench` command: `bench put|range|txn` against a server that is there, `bench compare` between servers that it
//! starts itself. Exits with 1 when calls failed, with 2 when the command line makes no sense.

use std::process::ExitCode;

use anyhow::Context;
use bench::args::Invocation;
use bench::compare::{Comparison, compare};
use bench::measure::{fill, measure};
use bench::process::Observed;
use bench::servers::kill_on_signal;

fn main() -> ExitCode {
    let invocation = match Invocation::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(error) => match error.downcast_ref::<clap::Error>() {
            Some(usage) => usage.exit(),
            None => {
                eprintln!("bench: {error:#}");
                return ExitCode::from(2);
            }
        },
    };
    match run(invocation) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every call succeeded.
fn run(invocation: Invocation) -> anyhow::Result<bool> {
    match invocation {
        Invocation::Measure { measurement, target, fill: fill_first, server_pid, json } => {
            let server = server_pid.map(Observed::new).transpose()?;
            if fill_first {
                fill(&measurement.shape, &target)?;
            }
            let figures = measure(&measurement, &target, server)?;
            if json {
                println!("{}", serde_json::to_string_pretty(&figures)?);
            } else {
                print!("{figures}");
            }
            Ok(figures.failed() == 0)
        }
        Invocation::Compare { comparison, json } => run_comparison(comparison, json),
    }
}

fn run_comparison(comparison: Comparison, json: bool) -> anyhow::Result<bool> {
    // Made by us or not, what is in it is ours: one directory below the given one for each run.
    let parent = comparison.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = parent.join(format!("quorate-bench-{}", std::process::id()));
    std::fs::create_dir_all(&parent).with_context(|| format!("create {}", parent.display()))?;
    std::fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
    kill_on_signal(Some(dir.clone()))?;
    // On standard error, so that the report can be piped.
    let results = compare(&comparison, &dir, &mut |step| eprintln!("{step}"));
    if let Err(error) = &results {
        // The servers' output is there.
        return Err(anyhow::anyhow!("{error:#} (kept {})", dir.display()));
    }
    let results = results?;
    std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    print!("{}", if json { results.json() + "\n" } else { results.table() });
    Ok(results.errors.is_empty())
}
