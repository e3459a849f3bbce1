//! What `--help`, `--version` and a usage error print.

use std::fmt::Write as _;

use super::settings::{Group, SETTINGS, Status};

/// The commands; on stderr after a usage error and with `--help`.
pub const USAGE: &str = "Usage:

  etcd [flags]
    Run a member.

  etcd --version
    Print the versions of this program.

  etcd -h | --help
    Print this help and all flags.

  etcd --config-file
    Read the settings from a YAML or JSON file instead.

  etcd --check-config
    Say what is wrong with the settings and what a start would do; changes nothing.

  etcd gateway
    Forward TCP connections to members.

  etcd grpc-proxy
    Serve clients as a gRPC proxy. (not yet supported)

";

/// Every flag with its default and meaning, by group; on stdout with `--help`.
pub fn flags() -> String {
    let mut out = String::new();
    for group in Group::ALL.into_iter().filter(|group| *group != Group::Ignored) {
        let mut lines = SETTINGS.iter().filter(|s| s.group == group && s.is_known()).peekable();
        if lines.peek().is_none() {
            continue;
        }
        let _ = write!(out, "\n{}:\n", group.title());
        for setting in lines {
            let default = match setting.name {
                "data-dir" => "${name}.etcd",
                _ => setting.default,
            };
            let mark = if setting.status == Status::Later { " (not yet supported)" } else { "" };
            let _ = write!(out, "  --{} '{default}'{mark}\n    {}\n", setting.name, setting.help);
        }
    }
    out.push_str(
        "\nEach flag can be given by a variable too: ETCD_ and its name in upper case with underscores.\n",
    );
    out
}

/// etcd's lines of `--version`, with our own version on the second and what we are built with on the third: tools
/// take exactly these four.
pub fn version() -> String {
    format!(
        "etcd Version: {}\nGit SHA: {} (Quorate {})\nGo Version: none (Rust)\nGo OS/Arch: {}\n",
        wire::version::ETCD,
        GIT_SHA,
        wire::version::QUORATE,
        platform(),
    )
}

/// The commit that was built, where the build was told.
pub const GIT_SHA: &str = match option_env!("QUORATE_GIT_SHA") {
    Some(sha) => sha,
    None => "not provided",
};

/// The platform by Go's names.
fn platform() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}/{arch}", std::env::consts::OS)
}
