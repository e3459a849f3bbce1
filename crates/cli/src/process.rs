//! The one place that knows the process: arguments, variables, streams, exit code.

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use crate::app::{self, Failure, World};
use crate::command::App;

/// Runs the program that this process is. For `main` alone.
pub fn run(app: &'static App) -> ExitCode {
    let line: Vec<Vec<u8>> = std::env::args_os().skip(1).map(OsStringExt::into_vec).collect();
    let variables = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect();
    let mut out = BufWriter::new(io::stdout().lock());
    let (input, input_is_terminal) = (Box::new(io::stdin()), io::stdin().is_terminal());
    let err_is_terminal = io::stderr().is_terminal();
    let err = &mut io::stderr();
    let world = World { input, input_is_terminal, out: &mut out, err, err_is_terminal, variables };
    let result = app::run(app, &line, world).and_then(|()| Ok(out.flush()?));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, message }) => {
            // Nobody is left to tell when standard error is closed.
            let _ = io::stderr().write_all(message.as_bytes());
            ExitCode::from(code)
        }
    }
}
