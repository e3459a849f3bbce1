//! What the program prints on its standard streams beside the log.
//!
//! Who read there may be gone (`etcd --help | head`). What the exit code tells stays true without a reader, so that is no
//! failure.

use std::fmt::Display;
use std::io::{self, Write as _};

/// Prints on stdout.
pub(crate) fn out(text: impl Display) {
    let mut stdout = io::stdout().lock();
    let _ = write!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// Prints on stderr.
pub(crate) fn err(text: impl Display) {
    let _ = write!(io::stderr().lock(), "{text}");
}
