//! etcdctl.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    quorate_cli::process::run(&quorate_cli::ctl::APP)
}
