//! The tree of commands, and how a command line finds its command, after the rules of Go's cobra.

use crate::app::{Failure, Invocation};
use crate::flag::{Flag, Flags, Kind};

/// A program: its commands and what all of them share.
pub struct App {
    /// Of the binary.
    pub name: &'static str,
    /// One line for the help; may be empty.
    pub about: &'static str,
    /// Headings under which the help sorts the commands; none for a plain list.
    pub groups: &'static [&'static str],
    /// The commands, `help` not among them.
    pub commands: &'static [Command],
    /// Flags that every command takes.
    pub flags: &'static [Flag],
    /// Whether the help of commands leaves these flags out (a command of its own lists them).
    pub flags_hidden: bool,
    /// Last line of every help; may be empty.
    pub trailer: &'static str,
    /// Whether errors of the command line are printed a second time at the end, as etcdutl does.
    pub errors_twice: bool,
}

/// A command, or a group of commands.
pub struct Command {
    /// The word that calls it.
    pub name: &'static str,
    /// The usage line after the names of its parents.
    pub usage: &'static str,
    /// One line for the list of commands.
    pub short: &'static str,
    /// The help's text; `short` if empty.
    pub long: &'static str,
    /// The heading it stands under; `""` below the top.
    pub group: &'static str,
    /// Its own flags.
    pub flags: &'static [Flag],
    /// Flags of a group that its commands inherit.
    pub inherited: &'static [Flag],
    /// Commands of a group.
    pub commands: &'static [Command],
    /// What it does; a group does nothing.
    pub run: Option<Run>,
    /// Whether etcd's program has no such command: the help lists it apart.
    pub is_beyond_etcd: bool,
}

/// The body of a command.
pub type Run = fn(&mut Invocation<'_>) -> Result<(), Failure>;

impl Command {
    /// A command without flags.
    pub const fn new(name: &'static str, usage: &'static str, short: &'static str, run: Run) -> Command {
        Command {
            name,
            usage,
            short,
            long: "",
            group: "",
            flags: &[],
            inherited: &[],
            commands: &[],
            run: Some(run),
            is_beyond_etcd: false,
        }
    }

    /// A group of commands.
    pub const fn group_of(
        name: &'static str,
        usage: &'static str,
        short: &'static str,
        long: &'static str,
        commands: &'static [Command],
    ) -> Command {
        Command {
            name,
            usage,
            short,
            long,
            group: "",
            flags: &[],
            inherited: &[],
            commands,
            run: None,
            is_beyond_etcd: false,
        }
    }

    /// The same, marked as a command that etcd's program does not have.
    pub const fn beyond_etcd(mut self) -> Command {
        self.is_beyond_etcd = true;
        self
    }

    /// The same with flags.
    pub const fn with_flags(mut self, flags: &'static [Flag]) -> Command {
        self.flags = flags;
        self
    }

    /// The same with flags that its commands inherit.
    pub const fn with_inherited(mut self, flags: &'static [Flag]) -> Command {
        self.inherited = flags;
        self
    }

    /// The same with a longer text.
    pub const fn with_long(mut self, long: &'static str) -> Command {
        self.long = long;
        self
    }

    /// The same under a heading.
    pub const fn under(mut self, group: &'static str) -> Command {
        self.group = group;
        self
    }
}

/// The commands from the top down to the one that was called; empty is the program itself.
#[derive(Clone, Default)]
pub struct Path(Vec<&'static Command>);

/// `help` has a page too; what it does is not a command's business.
static HELP: Command = Command::group_of(
    "help",
    "help [command]",
    "Help about any command",
    "Prints the help of the command that is named, or of the program.",
    &[],
);

impl Path {
    /// Where the help's own page is.
    pub fn help() -> Path {
        Path(vec![&HELP])
    }

    /// The command at its end.
    pub fn last(&self) -> Option<&'static Command> {
        self.0.last().copied()
    }

    /// The commands above it.
    pub fn parents(&self) -> &[&'static Command] {
        self.0.split_last().map_or(&[], |(_, parents)| parents)
    }

    /// The names, as in `endpoint status`.
    pub fn name(&self) -> String {
        self.0.iter().map(|c| c.name).collect::<Vec<_>>().join(" ")
    }

    /// The commands below.
    pub fn commands(&self, app: &App) -> &'static [Command] {
        self.last().map_or(app.commands, |c| c.commands)
    }

    /// The flags of parents and program: those that have variables.
    pub fn inherited(&self, app: &App) -> impl Iterator<Item = &'static Flag> {
        app.flags.iter().chain(self.parents().iter().flat_map(|c| c.inherited))
    }

    /// Every flag that may be given, at its default.
    pub fn flags(&self, app: &App) -> Flags {
        let own = self.0.last().into_iter().flat_map(|c| c.flags.iter().chain(c.inherited));
        Flags::new(self.inherited(app).chain(own))
    }
}

/// What a command line calls.
pub enum Called {
    /// A command with the rest of the line; words that name it are gone.
    Command(Path, Vec<Vec<u8>>),
    /// `help`, with the words after it.
    Help(Vec<Vec<u8>>),
    /// The first word names nothing.
    Unknown(String),
}

/// Finds the command that a line calls. A name may be shortened while it stays the only one.
pub fn find(app: &App, line: &[Vec<u8>]) -> Called {
    let mut path = Path::default();
    let mut rest = line.to_vec();
    loop {
        let commands = path.commands(app);
        if commands.is_empty() {
            return Called::Command(path, rest);
        }
        let Some(at) = first_word(&path, app, &rest) else {
            return Called::Command(path, rest);
        };
        let word = String::from_utf8_lossy(&rest[at]).into_owned();
        let top = path.last().is_none();
        let mut names: Vec<&str> = commands.iter().map(|c| c.name).collect();
        if top {
            names.push("help");
        }
        match matching(&names, &word) {
            Some("help") if top => {
                rest.remove(at);
                return Called::Help(rest);
            }
            Some(name) => {
                rest.remove(at);
                let command = commands.iter().find(|c| c.name == name).expect("a name from this list");
                path.0.push(command);
            }
            None if top => return Called::Unknown(word),
            None => return Called::Command(path, rest),
        }
    }
}

/// Where the first word stands that is neither a flag nor a flag's value.
fn first_word(path: &Path, app: &App, line: &[Vec<u8>]) -> Option<usize> {
    let known: Vec<&Flag> = path
        .inherited(app)
        .chain(path.last().into_iter().flat_map(|c| c.inherited))
        .chain([&crate::flag::HELP])
        .collect();
    let switch = |found: Option<&&Flag>| found.is_some_and(|f| f.kind == Kind::Bool);
    let mut at = 0;
    while at < line.len() {
        let arg = String::from_utf8_lossy(&line[at]);
        if arg == "--" {
            return None;
        } else if let Some(name) = arg.strip_prefix("--") {
            let takes_next = !name.contains('=') && !switch(known.iter().find(|f| f.name == name));
            at += usize::from(takes_next);
        } else if let Some(short) = arg.strip_prefix('-') {
            let one = short.chars().count() == 1;
            let takes_next = one && !switch(known.iter().find(|f| f.short == short.chars().next()));
            at += usize::from(takes_next);
        } else if !arg.is_empty() {
            return Some(at);
        }
        at += 1;
    }
    None
}

fn matching<'a>(names: &[&'a str], word: &str) -> Option<&'a str> {
    if let Some(exact) = names.iter().find(|n| **n == word) {
        return Some(exact);
    }
    let mut beginning = names.iter().filter(|n| n.starts_with(word));
    match (beginning.next(), beginning.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}

/// Names that the word may have meant, in the order of the table.
pub fn suggestions(app: &App, word: &str) -> Vec<&'static str> {
    let word = word.to_lowercase();
    let close = |name: &str| name.starts_with(&word) || edits(&word, name) <= 2;
    app.commands.iter().map(|c| c.name).filter(|n| close(n)).collect()
}

/// Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::APP;

    fn found(line: &str) -> String {
        let args: Vec<Vec<u8>> = line.split(' ').map(|a| a.as_bytes().to_vec()).collect();
        let words = |rest: &[Vec<u8>]| {
            rest.iter().map(|w| String::from_utf8_lossy(w).into_owned()).collect::<Vec<_>>().join(" ")
        };
        match find(&APP, &args) {
            Called::Command(path, rest) => format!("[{}] {}", path.name(), words(&rest)),
            Called::Help(rest) => format!("help: {}", words(&rest)),
            Called::Unknown(word) => format!("unknown {word}"),
        }
    }

    #[test]
    fn commands_are_found_among_flags() {
        for (line, expected) in [
            ("get a", "[get] a"),
            ("-w json get a", "[get] -w json a"),
            ("--endpoints x:1 --hex get a -w json", "[get] --endpoints x:1 --hex a -w json"),
            ("--endpoints=x:1 endpoint --cluster status", "[endpoint status] --endpoints=x:1 --cluster"),
            ("vers", "[version] "),
            ("mem li", "[member list] "),
            ("endpoint hash", "[endpoint hashkv] "),
            ("member jump", "[member] jump"),
            ("e", "unknown e"),
            ("jump a", "unknown jump"),
            ("help put", "help: put"),
            ("h put", "help: put"),
            ("-- get", "[] -- get"),
        ] {
            assert_eq!(found(line), expected, "{line}");
        }
    }

    #[test]
    fn words_that_are_nearly_right() {
        assert_eq!(suggestions(&APP, "gett"), ["get"]);
        assert_eq!(suggestions(&APP, "SE"), ["get", "del", "user"]);
        assert!(suggestions(&APP, "jump").is_empty());
    }
}
