//! A run of a program: from the words of the command line to how it ended.

use std::io::{self, Read, Write};

use crate::command::{self, App, Called, Path};
use crate::flag::Flags;
use crate::{gotext, help};

/// The streams and variables of a process.
pub struct World<'a> {
    /// Standard input; owned, since what reads it beside other work is a thread.
    pub input: Box<dyn Read + Send>,
    /// Whether a person types it.
    pub input_is_terminal: bool,
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub err: &'a mut dyn Write,
    /// Whether a person reads it.
    pub err_is_terminal: bool,
    /// The environment, in its order.
    pub variables: Vec<(String, String)>,
}

impl<'a> World<'a> {
    /// Without input, people and variables: what is written goes to `out` and `err`.
    pub fn apart(out: &'a mut dyn Write, err: &'a mut dyn Write) -> Self {
        World {
            input: Box::new(std::io::empty()),
            input_is_terminal: false,
            out,
            err,
            err_is_terminal: false,
            variables: Vec::new(),
        }
    }
}

/// A command that has been called.
pub struct Invocation<'a> {
    /// The program.
    pub app: &'static App,
    /// Which command it is.
    pub path: Path,
    /// Its flags, parents' and program's included.
    pub flags: Flags,
    /// The other words.
    pub args: Vec<Vec<u8>>,
    /// Where it reads and writes.
    pub world: World<'a>,
}

/// The exit codes of etcd's tools.
pub mod exit {
    /// An error of a call, or of the command line.
    pub const ERROR: u8 = 1;
    /// The client could not be made.
    pub const BAD_CONNECTION: u8 = 2;
    /// Input that cannot be read, of txn and watch.
    pub const INVALID_INPUT: u8 = 3;
    /// A known flag with a value that is not supported.
    pub const BAD_FEATURE: u8 = 4;
    /// A watch that the server has ended.
    pub const INTERRUPTED: u8 = 5;
    /// Nobody reads standard output any more: what a shell says of etcd's tools, which SIGPIPE ends then.
    pub const NO_READER: u8 = 141;
    /// Wrong arguments.
    pub const BAD_ARGS: u8 = 128;
}

/// A run that did not succeed: what `main` still has to print to standard error, and its exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// With its line ends; may be empty.
    pub message: String,
}

impl Failure {
    /// With a line `Error: …`.
    pub fn new(code: u8, text: impl std::fmt::Display) -> Self {
        Failure { code, message: format!("Error: {text}\n") }
    }

    /// With nothing left to say.
    pub fn silent(code: u8) -> Self {
        Failure { code, message: String::new() }
    }

    /// An option or command that this version lacks.
    pub fn not_yet(what: &str) -> Self {
        Failure::new(exit::ERROR, format!("{what} is not yet supported"))
    }
}

/// Standard output that could not be written. A reader that went away (`etcdctl get … | head`) is told nothing, but
/// it is no success: what the command was to do may not be done.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::silent(exit::NO_READER),
            _ => Failure::new(exit::ERROR, format!("write: {error}")),
        }
    }
}

/// Standard error as commands write to it: that nobody reads it keeps none from its work.
struct Unminded<'a>(&'a mut dyn Write);

impl Write for Unminded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Ok(0) | Err(_) => Ok(bytes.len()),
            Ok(written) => Ok(written),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

/// Runs a command line, without the name of the program. What cannot be written to standard error is lost, and nothing
/// else.
///
/// # Errors
/// How the run failed; it has written everything but that.
pub fn run(app: &'static App, line: &[Vec<u8>], world: World<'_>) -> Result<(), Failure> {
    let World { input, input_is_terminal, out, err, err_is_terminal, variables } = world;
    let err = &mut Unminded(err);
    let world = World { input, input_is_terminal, out, err, err_is_terminal, variables };
    match command::find(app, line) {
        Called::Unknown(word) => Err(unknown(app, &word)),
        Called::Help(words) => run_help(app, &words, world),
        Called::Command(path, rest) => {
            let mut flags = path.flags(app);
            let args = flags.parse(&rest).map_err(|text| usage_error(app, &path, &text))?;
            let run = path.last().and_then(|c| c.run).filter(|_| !flags.bool("help"));
            let Some(run) = run else {
                world.out.write_all(help::page(app, &path).as_bytes())?;
                return Ok(world.out.flush()?);
            };
            let mut invocation = Invocation { app, path, flags, args, world };
            let result = run(&mut invocation);
            // Why the work failed says more than that nobody reads what was written before.
            let flushed = invocation.world.out.flush();
            result?;
            Ok(flushed?)
        }
    }
}

fn run_help(app: &'static App, words: &[Vec<u8>], world: World<'_>) -> Result<(), Failure> {
    let path = Path::help();
    let mut flags = path.flags(app);
    let topic = flags.parse(words).map_err(|text| usage_error(app, &path, &text))?;
    if flags.bool("help") {
        world.out.write_all(help::page(app, &path).as_bytes())?;
        return Ok(world.out.flush()?);
    }
    match command::find(app, &topic) {
        Called::Command(path, rest) if rest.is_empty() || path.last().is_some() => {
            world.out.write_all(help::page(app, &path).as_bytes())?;
        }
        Called::Help(_) => {
            world.out.write_all(help::page(app, &Path::help()).as_bytes())?;
        }
        _ => {
            let words: Vec<_> = topic.iter().map(|w| format!("`{}`", String::from_utf8_lossy(w))).collect();
            writeln!(world.err, "Unknown help topic [{}]", words.join(" "))?;
            world.err.write_all(help::usage(app, &Path::default()).as_bytes())?;
        }
    }
    Ok(world.out.flush()?)
}

fn unknown(app: &App, word: &str) -> Failure {
    let (word, name) = (gotext::quote(word.as_bytes()), app.name);
    let mut text = format!("unknown command {word} for \"{name}\"");
    let close = command::suggestions(app, word.trim_matches('"'));
    if !close.is_empty() {
        text += "\n\nDid you mean this?\n";
        text.extend(close.iter().map(|name| format!("\t{name}\n")));
    }
    let again = if app.errors_twice { format!("Error: {text}\n") } else { String::new() };
    let message = format!("Error: {text}\nRun '{name} --help' for usage.\n{again}");
    Failure { code: exit::ERROR, message }
}

pub(crate) fn usage_error(app: &App, path: &Path, text: &str) -> Failure {
    let again = if app.errors_twice { format!("Error: {text}\n") } else { String::new() };
    let message = format!("Error: {text}\n{}\n{again}", help::usage(app, path));
    Failure { code: exit::ERROR, message }
}

/// The body of `version`, the same in both programs: the version of etcd whose tool it stands for.
pub(crate) fn print_version(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let etcd = wire::version::ETCD;
    let api = etcd.rsplit_once('.').map_or(etcd, |(minor, _)| minor);
    writeln!(call.world.out, "{} version: {etcd}\nAPI version: {api}", call.app.name)?;
    Ok(())
}
