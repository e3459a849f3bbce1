//! Commands that `watch` and `lock` run, found and reported as Go does.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use crate::gotext;

/// Why a command did not succeed, in Go's words.
#[derive(Debug)]
pub(super) enum Unsuccessful {
    /// It could not be started.
    NotStarted(String),
    /// It ended so.
    Ended(ExitStatus),
}

impl Unsuccessful {
    /// The exit code that stands for it; one that a signal ended has -1 in Go.
    pub(super) fn code(&self) -> u8 {
        match self {
            Unsuccessful::NotStarted(_) => crate::app::exit::ERROR,
            Unsuccessful::Ended(status) => status.code().unwrap_or(-1) as u8,
        }
    }
}

impl fmt::Display for Unsuccessful {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self {
            Unsuccessful::NotStarted(reason) => return f.write_str(reason),
            Unsuccessful::Ended(status) => status,
        };
        match (status.code(), status.signal()) {
            (Some(code), _) => write!(f, "exit status {code}")?,
            (None, signal) => write!(f, "signal: {}", signal_name(signal.unwrap_or(0)))?,
        }
        if status.core_dumped() { f.write_str(" (core dumped)") } else { Ok(()) }
    }
}

/// Runs a command with nothing on its standard input, the other streams being this process's, and with these variables
/// beside this process's own. `words` has at least one.
///
/// # Errors
/// When it did not run to an end with exit code 0.
pub(super) async fn run(
    words: &[Vec<u8>],
    variables: Vec<(&'static str, Vec<u8>)>,
) -> Result<(), Unsuccessful> {
    let (name, args) = words.split_first().expect("a command has a name");
    let name = OsStr::from_bytes(name);
    let program = find(name, std::env::var_os("PATH")).map_err(Unsuccessful::NotStarted)?;
    let mut command = std::process::Command::new(&program);
    command.arg0(name).args(args.iter().map(|arg| OsStr::from_bytes(arg))).stdin(Stdio::null());
    command.envs(variables.iter().map(|(name, value)| (name, OsStr::from_bytes(value))));
    let mut child = tokio::process::Command::from(command).spawn().map_err(|error| {
        let reason = gotext::os_error(&error);
        Unsuccessful::NotStarted(format!("fork/exec {}: {reason}", program.display()))
    })?;
    match child.wait().await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Unsuccessful::Ended(status)),
        Err(error) => Err(Unsuccessful::NotStarted(format!("wait: {}", gotext::os_error(&error)))),
    }
}

/// A name without a slash is looked for in `path`.
fn find(name: &OsStr, path: Option<OsString>) -> Result<PathBuf, String> {
    if name.is_empty() {
        return Err("exec: no command".to_owned());
    }
    if name.as_bytes().contains(&b'/') {
        return Ok(PathBuf::from(name));
    }
    let failed = |reason: &str| Err(format!("exec: {}: {reason}", gotext::quote(name.as_bytes())));
    // Without a path there is no folder either, while an empty one is this folder.
    for folder in std::env::split_paths(&path.unwrap_or_default()) {
        let program = folder.join(name);
        if is_executable(&program) {
            return match program.is_absolute() {
                true => Ok(program),
                false => failed("cannot run executable found relative to current directory"),
            };
        }
    }
    failed("executable file not found in $PATH")
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| !found.is_dir() && found.permissions().mode() & 0o111 != 0)
}

/// As Go names the signals of Linux.
fn signal_name(signal: i32) -> String {
    const NAMES: [&str; 16] = [
        "",
        "hangup",
        "interrupt",
        "quit",
        "illegal instruction",
        "trace/breakpoint trap",
        "aborted",
        "bus error",
        "floating point exception",
        "killed",
        "user defined signal 1",
        "segmentation fault",
        "user defined signal 2",
        "broken pipe",
        "alarm clock",
        "terminated",
    ];
    match usize::try_from(signal).ok().and_then(|signal| NAMES.get(signal)) {
        Some(name) if signal > 0 => (*name).to_owned(),
        _ => format!("signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_command_ended_in_gos_words() {
        // As wait(2) encodes it: a code in the second byte, a signal in the first, with 128 a dump of its core.
        for (raw, text, code) in [
            (7 << 8, "exit status 7", 7),
            (9, "signal: killed", 255),
            (15, "signal: terminated", 255),
            (11 | 128, "signal: segmentation fault (core dumped)", 255),
            (34, "signal: signal 34", 255),
        ] {
            let ended = Unsuccessful::Ended(ExitStatus::from_raw(raw));
            assert_eq!((ended.to_string().as_str(), ended.code()), (text, code));
        }
    }

    #[test]
    fn commands_are_looked_for_in_the_path() {
        let found = |name: &str, path: Option<&str>| find(OsStr::new(name), path.map(OsString::from));
        assert_eq!(found("sh", Some("/nothing:/bin")), Ok("/bin/sh".into()));
        assert_eq!(found("./sh", Some("/bin")), Ok("./sh".into()));
        assert_eq!(found("", Some("/bin")).unwrap_err(), "exec: no command");
        for path in [None, Some(""), Some("/nothing"), Some("/")] {
            let text = "exec: \"bin\": executable file not found in $PATH";
            assert_eq!(found("bin", path).unwrap_err(), text, "{path:?}");
        }
        let relative = "exec: \"sh\": cannot run executable found relative to current directory";
        assert_eq!(found("sh", Some("../../../../../../../../../../bin")).unwrap_err(), relative);
    }
}
