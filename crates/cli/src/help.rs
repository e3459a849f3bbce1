//! The help pages, in cobra's layout.

use crate::command::{App, Command, Path};
use crate::completion;
use crate::flag::{Flag, HELP, Kind};

/// The page of a command, or of the program.
pub fn page(app: &App, path: &Path) -> String {
    let about = match path.last() {
        // What says nothing of itself says nothing of its commands either: etcdutl's help is the usage.
        _ if app.about.is_empty() => "",
        None => app.about,
        Some(c) if c.long.is_empty() => c.short,
        Some(c) => c.long,
    };
    let mut out = String::new();
    if !about.is_empty() {
        out = format!("{}\n\n", about.trim_end());
    }
    out += &usage(app, path);
    if !app.trailer.is_empty() {
        out += app.trailer;
        out.push('\n');
    }
    out
}

/// The part of the page that errors show too.
pub fn usage(app: &App, path: &Path) -> String {
    let full_name = [app.name, &path.name()].join(" ").trim_end().to_owned();
    let mut out = String::from("Usage:\n");
    let command = path.last();
    let commands = path.commands(app);
    if let Some(command) = command.filter(|c| c.commands.is_empty()) {
        let parents: String = path.parents().iter().map(|c| format!("{} ", c.name)).collect();
        // Cobra's own command says so.
        let flags = if command.name == completion::COMMAND.name { "" } else { " [flags]" };
        out += &format!("  {} {parents}{}{flags}\n", app.name, command.usage);
    }
    if !commands.is_empty() {
        out += &format!("  {full_name} [command]\n");
        out += &command_list(app, path);
    }
    let own = command.into_iter().flat_map(|c| c.flags.iter().chain(c.inherited));
    let own: Vec<&Flag> = match command {
        Some(_) => own.collect(),
        None if app.flags_hidden => Vec::new(),
        None => app.flags.iter().collect(),
    };
    if command.is_some() || !own.is_empty() {
        let name = command.map_or(app.name, |c| c.name);
        out += &format!("\nFlags:\n{}", flag_list(own, Some(name)));
    }
    let above: Vec<&Flag> = path
        .inherited(app)
        .filter(|f| command.is_some() && !(app.flags_hidden && app.flags.iter().any(|g| g.name == f.name)))
        .collect();
    if !above.is_empty() {
        out += &format!("\nGlobal Flags:\n{}", flag_list(above, None));
    }
    let beyond: Vec<&Command> = commands.iter().filter(|c| c.is_beyond_etcd).collect();
    if !beyond.is_empty() {
        let width = beyond.iter().map(|c| c.name.len()).max().unwrap_or(0).max(11);
        out += "\nCommands that etcd does not have:\n";
        for command in beyond {
            out += &format!("  {:width$} {}\n", command.name, command.short);
        }
    }
    if !commands.is_empty() {
        out += &format!("\nUse \"{full_name} [command] --help\" for more information about a command.\n");
    }
    out
}

fn command_list(app: &App, path: &Path) -> String {
    let top = path.last().is_none();
    let own = path.commands(app).iter().filter(|c| !c.is_beyond_etcd);
    let mut lines: Vec<(&str, &str, &str)> = own.map(|c| (c.group, c.name, c.short)).collect();
    if top {
        lines.push((app.groups.last().copied().unwrap_or(""), "help", "Help about any command"));
    }
    lines.sort_unstable_by_key(|line| line.1);
    let width = lines.iter().map(|line| line.1.len()).max().unwrap_or(0).max(11);
    let headings = if top && !app.groups.is_empty() { app.groups } else { &[""] };
    let mut out = String::new();
    for heading in headings {
        let title = if heading.is_empty() { "Available Commands:" } else { heading };
        out += &format!("\n{title}\n");
        for (_, name, short) in lines.iter().filter(|line| line.0 == *heading) {
            out += &format!("  {name:width$} {short}\n");
        }
    }
    out
}

/// A line a flag, sorted; `help_of` adds the one for `--help`.
pub fn flag_list<'a>(flags: impl IntoIterator<Item = &'a Flag>, help_of: Option<&str>) -> String {
    let mut lines: Vec<(&Flag, String)> = flags.into_iter().map(|f| (f, f.help.to_owned())).collect();
    if let Some(name) = help_of {
        lines.push((&HELP, format!("help for {name}")));
    }
    lines.sort_unstable_by_key(|(flag, _)| flag.name);
    let titles: Vec<String> = lines.iter().map(|(flag, _)| flag_title(flag)).collect();
    let width = titles.iter().map(String::len).max().unwrap_or(0);
    let mut out = String::new();
    for ((flag, help), title) in lines.iter().zip(titles) {
        out += &format!("{title:width$}   {help}{}\n", default_note(flag));
    }
    out
}

fn flag_title(flag: &Flag) -> String {
    let short = flag.short.map_or("    ".to_owned(), |s| format!("-{s}, "));
    let kind = match flag.kind {
        Kind::Bool => "",
        Kind::Text => " string",
        Kind::List => " strings",
        Kind::Int => " int",
        Kind::Uint => " uint",
        Kind::Duration => " duration",
    };
    format!("  {short}--{}{kind}", flag.name)
}

fn default_note(flag: &Flag) -> String {
    match (flag.kind, flag.default) {
        (_, "") => String::new(),
        (Kind::Text, text) => format!(" (default \"{text}\")"),
        (Kind::List, text) => format!(" (default [{text}])"),
        (_, text) => format!(" (default {text})"),
    }
}
