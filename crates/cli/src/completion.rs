//! `completion`: a script that teaches a shell the commands and flags of a program.
//!
//! The scripts carry the tables with them and ask nobody, so that a completion costs no process. All four work alike:
//! they follow the words from the program's name on to the command that is being typed, passing over flags and their
//! values, and offer what may come next.

use std::fmt::Write as _;

use crate::app::{Failure, Invocation, usage_error};
use crate::command::{App, Command};
use crate::flag::{Flag, HELP, Kind};
use crate::gotext;

/// The shells, as the command names them.
const SHELLS: [&str; 4] = ["bash", "zsh", "fish", "powershell"];

/// Where a command has nothing else to offer, shells offer files.
const NO_WORDS: &[&str] = &[];

/// The command of either program.
pub(crate) const COMMAND: Command = Command::new(
    "completion",
    "completion [bash|zsh|fish|powershell]",
    "Prints a script for the completion of a shell",
    run,
)
.with_long(LONG);

const LONG: &str = "Prints a script for the completion of a shell.

  bash:        source <(PROGRAM completion bash)
               or, for every session, put it into /etc/bash_completion.d/PROGRAM
  zsh:         PROGRAM completion zsh > \"${fpath[1]}/_PROGRAM\"
               with \"autoload -U compinit; compinit\" in ~/.zshrc, and start a new shell
  fish:        PROGRAM completion fish > ~/.config/fish/completions/PROGRAM.fish
  powershell:  PROGRAM completion powershell | Out-String | Invoke-Expression
               or put it into a file that the profile sources";

fn run(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let [shell] = call.args.as_slice() else {
        let text = format!("accepts 1 arg(s), received {}", call.args.len());
        return Err(usage_error(call.app, &call.path, &text));
    };
    let places = Place::all(call.app);
    let script = match shell.as_slice() {
        b"bash" => bash(call.app.name, &places),
        b"zsh" => zsh(call.app.name, &places),
        b"fish" => fish(call.app.name, &places),
        b"powershell" => powershell(call.app.name, &places),
        other => {
            let text =
                format!("invalid argument {} for \"{} completion\"", gotext::quote(other), call.app.name);
            return Err(usage_error(call.app, &call.path, &text));
        }
    };
    Ok(call.world.out.write_all(script.as_bytes())?)
}

/// A place in the tree of commands, and what may follow there.
struct Place {
    /// The names down to it, the program's first.
    path: String,
    /// Names with what they do.
    commands: Vec<(&'static str, &'static str)>,
    flags: Vec<&'static Flag>,
    /// Words that an argument may be.
    words: &'static [&'static str],
}

impl Place {
    /// Every place of a program, the program itself first.
    fn all(app: &'static App) -> Vec<Place> {
        let mut places = Vec::new();
        let flags: Vec<&'static Flag> = app.flags.iter().chain([&HELP]).collect();
        visit(&mut places, app.name.to_owned(), app.commands, &[], &flags, NO_WORDS);
        places[0].commands.push(("help", "Help about any command"));
        places.push(Place {
            path: format!("{} help", app.name),
            commands: app.commands.iter().map(|command| (command.name, command.short)).collect(),
            flags: vec![&HELP],
            words: NO_WORDS,
        });
        places
    }
}

fn visit(
    places: &mut Vec<Place>,
    path: String,
    commands: &'static [Command],
    own: &'static [Flag],
    above: &[&'static Flag],
    words: &'static [&'static str],
) {
    let flags: Vec<&'static Flag> = above.iter().copied().chain(own).collect();
    places.push(Place {
        path: path.clone(),
        commands: commands.iter().map(|command| (command.name, command.short)).collect(),
        flags,
        words,
    });
    for command in commands {
        let path = format!("{path} {}", command.name);
        let inherited: Vec<&'static Flag> = above.iter().copied().chain(command.inherited).collect();
        let words = if command.name == COMMAND.name { &SHELLS[..] } else { NO_WORDS };
        visit(places, path, command.commands, command.flags, &inherited, words);
    }
}

/// The values of a flag that has only a few.
fn choices(flag: &Flag) -> &'static [&'static str] {
    match flag.name {
        "write-out" => &["simple", "fields", "json", "protobuf", "table"],
        "order" => &["ASCEND", "DESCEND"],
        "sort-by" => &["CREATE", "KEY", "MODIFY", "VALUE", "VERSION"],
        "consistency" => &["l", "s"],
        "load" => &["small", "medium", "large", "xLarge"],
        _ => &[],
    }
}

/// As they are typed: `--name`, and `-n` if there is one.
fn forms(flag: &Flag) -> Vec<String> {
    let short = flag.short.map(|short| format!("-{short}"));
    [format!("--{}", flag.name)].into_iter().chain(short).collect()
}

fn takes_value(flag: &Flag) -> bool {
    flag.kind != Kind::Bool
}

fn help_of(flag: &Flag) -> &'static str {
    if flag.name == HELP.name { "help for this command" } else { flag.help }
}

/// The flags that take a value, in all forms.
fn with_value(place: &Place) -> Vec<String> {
    place.flags.iter().filter(|flag| takes_value(flag)).flat_map(|flag| forms(flag)).collect()
}

fn flag_words(place: &Place) -> Vec<String> {
    place.flags.iter().flat_map(|flag| forms(flag)).collect()
}

/// A text between single quotes, for POSIX shells.
fn posix(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn bash(name: &str, places: &[Place]) -> String {
    let mut out = format!(
        "# Completion of {name} for bash.\n\n# What may follow at a place: sets commands, flags, values (the flags that \
         take one) and words.\n_{name}_place() {{\n    case \"$1\" in\n"
    );
    for place in places {
        let commands: Vec<&str> = place.commands.iter().map(|(name, _)| *name).collect();
        let words = [commands.join(" "), flag_words(place).join(" "), with_value(place).join(" ")];
        let [commands, flags, values] = words.map(|words| posix(&words));
        let _ = writeln!(out, "        {})", posix(&place.path));
        let _ = writeln!(out, "            commands={commands}");
        let _ = writeln!(out, "            flags={flags}");
        let _ = writeln!(out, "            values={values}");
        let _ = writeln!(out, "            words={} ;;", posix(&place.words.join(" ")));
    }
    out += "    esac\n}\n\n# The values of a flag that has only a few.\n";
    let _ = writeln!(out, "_{name}_choices() {{\n    case \"$1\" in");
    for (forms, choices) in chosen(places) {
        let _ = writeln!(out, "        {}) echo {} ;;", forms.join("|"), posix(&choices.join(" ")));
    }
    out += "    esac\n}\n\n";
    out += &BASH.replace("PROGRAM", name);
    out
}

const BASH: &str = r#"_PROGRAM() {
    local commands flags values words place=PROGRAM at word
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}
    _PROGRAM_place "$place"
    for ((at = 1; at < COMP_CWORD; at++)); do
        word=${COMP_WORDS[at]}
        if [[ $word == -* ]]; then
            # A value may stand behind a "=", which is a word of its own here.
            if [[ ${COMP_WORDS[at+1]} == "=" ]]; then
                ((at += 2))
            elif [[ " $values " == *" $word "* ]]; then
                ((at += 1))
            fi
        elif [[ " $commands " == *" $word "* ]]; then
            place="$place $word"
            _PROGRAM_place "$place"
        fi
    done
    if [[ $current == "=" ]]; then
        current=""
    elif [[ $previous == "=" ]] && ((COMP_CWORD > 1)); then
        previous=${COMP_WORDS[COMP_CWORD-2]}
    fi
    if [[ " $values " == *" $previous "* ]]; then
        # Without choices the shell offers files.
        COMPREPLY=($(compgen -W "$(_PROGRAM_choices "$previous")" -- "$current"))
    elif [[ $current == -* ]]; then
        COMPREPLY=($(compgen -W "$flags" -- "$current"))
    else
        COMPREPLY=($(compgen -W "$commands $words" -- "$current"))
    fi
}

complete -o default -F _PROGRAM PROGRAM
"#;

/// The flags with few values, each once.
fn chosen(places: &[Place]) -> Vec<(Vec<String>, &'static [&'static str])> {
    let mut found: Vec<(Vec<String>, &'static [&'static str])> = Vec::new();
    for flag in places.iter().flat_map(|place| &place.flags).filter(|flag| !choices(flag).is_empty()) {
        if !found.iter().any(|(forms, _)| forms[0] == format!("--{}", flag.name)) {
            found.push((forms(flag), choices(flag)));
        }
    }
    found
}

fn zsh(name: &str, places: &[Place]) -> String {
    let mut out = format!(
        "#compdef {name}\n\n# Completion of {name} for zsh.\n\n# What may follow at a place: sets commands, flags, values \
         (the flags that take one) and words.\n_{name}_place() {{\n    case \"$1\" in\n"
    );
    // In a description list a colon ends the name.
    let described = |name: &str, help: &str| posix(&format!("{}:{help}", name.replace(':', "\\:")));
    for place in places {
        let commands: Vec<String> =
            place.commands.iter().map(|(name, short)| described(name, short)).collect();
        let flags: Vec<String> = place
            .flags
            .iter()
            .flat_map(|flag| forms(flag).into_iter().map(|form| described(&form, help_of(flag))))
            .collect();
        let _ = writeln!(out, "        {})", posix(&place.path));
        let _ = writeln!(out, "            commands=({})", commands.join(" "));
        let _ = writeln!(out, "            flags=({})", flags.join(" "));
        let _ = writeln!(out, "            values=({})", with_value(place).join(" "));
        let _ = writeln!(out, "            words=({}) ;;", place.words.join(" "));
    }
    out += "    esac\n}\n\n# The values of a flag that has only a few.\n";
    let _ = writeln!(out, "_{name}_choices() {{\n    case \"$1\" in");
    for (forms, choices) in chosen(places) {
        let _ = writeln!(out, "        {}) choices=({}) ;;", forms.join("|"), choices.join(" "));
    }
    out += "    esac\n}\n\n";
    out += &ZSH.replace("PROGRAM", name);
    out
}

const ZSH: &str = r#"_PROGRAM() {
    local -a commands flags values choices
    local place=PROGRAM word at
    # "words" is zsh's own: the line that is being typed.
    local -a line=("${words[@]}")
    local -a words
    _PROGRAM_place "$place"
    for ((at = 2; at < CURRENT; at++)); do
        word=${line[at]}
        if [[ $word == -* ]]; then
            if (( ${values[(Ie)$word]} )); then
                ((at += 1))
            fi
        elif (( ${commands[(I)$word:*]} )); then
            place="$place $word"
            _PROGRAM_place "$place"
        fi
    done
    local current=${line[CURRENT]} previous=${line[CURRENT-1]}
    if [[ $current == --*=* ]] && (( ${values[(Ie)${current%%=*}]} )); then
        previous=${current%%=*}
        compset -P '*='
    fi
    if (( ${values[(Ie)$previous]} )); then
        _PROGRAM_choices "$previous"
        if (( ${#choices} )); then
            compadd -a choices
        else
            _files
        fi
    elif [[ $current == -* ]]; then
        _describe -o flag flags
    elif (( ${#commands} )); then
        _describe command commands
    elif (( ${#words} )); then
        compadd -a words
    else
        _files
    fi
}

if [[ ${funcstack[1]} == _PROGRAM ]]; then
    _PROGRAM "$@"
else
    compdef _PROGRAM PROGRAM
fi
"#;

fn fish(name: &str, places: &[Place]) -> String {
    let mut out = format!("# Completion of {name} for fish.\n\nset -g __{name}_places");
    for place in places {
        let _ = write!(out, " {}", fish_text(&place.path));
    }
    let _ = write!(out, "\n# The flags that take a value: place and flag.\nset -g __{name}_values");
    for place in places {
        for form in with_value(place) {
            let _ = write!(out, " {}", fish_text(&format!("{}:{form}", place.path)));
        }
    }
    out += "\n\n";
    out += &FISH.replace("PROGRAM", name);
    let _ = writeln!(out, "\ncomplete -c {name} -e");
    for place in places {
        let at = format!("complete -c {name} -n {}", fish_text(&format!("__{name}_at '{}'", place.path)));
        for (command, short) in &place.commands {
            let _ = writeln!(out, "{at} -f -a {command} -d {}", fish_text(short));
        }
        for word in place.words {
            let _ = writeln!(out, "{at} -f -a {word}");
        }
        for flag in &place.flags {
            let mut line = format!("{at} -l {}", flag.name);
            if let Some(short) = flag.short {
                let _ = write!(line, " -s {short}");
            }
            match choices(flag) {
                [] if takes_value(flag) => line += " -r",
                [] => {}
                choices => {
                    let _ = write!(line, " -x -a {}", fish_text(&choices.join(" ")));
                }
            }
            let _ = writeln!(out, "{line} -d {}", fish_text(help_of(flag)));
        }
    }
    out
}

const FISH: &str = r#"# The place that the words before the cursor lead to.
function __PROGRAM_place
    set -l place PROGRAM
    set -l is_value no
    set -l line (commandline -opc)
    for word in $line[2..-1]
        if test $is_value = yes
            set is_value no
            continue
        end
        switch $word
            case '-*'
                if contains -- "$place:$word" $__PROGRAM_values
                    set is_value yes
                end
            case '*'
                if contains -- "$place $word" $__PROGRAM_places
                    set place "$place $word"
                end
        end
    end
    echo $place
end

function __PROGRAM_at
    set -l place (__PROGRAM_place)
    test "$place" = "$argv[1]"
end
"#;

/// A text between single quotes, for fish.
fn fish_text(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

fn powershell(name: &str, places: &[Place]) -> String {
    // Between single quotes, a quote is two.
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let mut out = format!(
        "# Completion of {name} for PowerShell.\n\nRegister-ArgumentCompleter -Native -CommandName '{name}' -ScriptBlock {{\n    \
         param($word, $line, $cursor)\n\n    # What may follow at a place; Values: the flags that take one.\n    $places = @{{\n"
    );
    for place in places {
        let _ = writeln!(out, "        {} = @{{", quoted(&place.path));
        let _ = writeln!(out, "            Commands = [ordered]@{{");
        for (command, short) in &place.commands {
            let _ = writeln!(out, "                {} = {}", quoted(command), quoted(short));
        }
        for word in place.words {
            let _ = writeln!(out, "                {} = {}", quoted(word), quoted(word));
        }
        let _ = writeln!(out, "            }}\n            Flags = [ordered]@{{");
        for flag in &place.flags {
            for form in forms(flag) {
                let help = if help_of(flag).is_empty() { flag.name } else { help_of(flag) };
                let _ = writeln!(out, "                {} = {}", quoted(&form), quoted(help));
            }
        }
        let values: Vec<String> = with_value(place).iter().map(|form| quoted(form)).collect();
        let _ = writeln!(out, "            }}\n            Values = @({})\n        }}", values.join(", "));
    }
    out += "    }\n    $choices = @{\n";
    for (forms, choices) in chosen(places) {
        let choices: Vec<String> = choices.iter().map(|choice| quoted(choice)).collect();
        for form in forms {
            let _ = writeln!(out, "        {} = @({})", quoted(&form), choices.join(", "));
        }
    }
    out += &POWERSHELL.replace("PROGRAM", name);
    out
}

const POWERSHELL: &str = r#"    }

    $place = 'PROGRAM'
    $previous = ''
    $isValue = $false
    foreach ($element in ($line.CommandElements | Select-Object -Skip 1)) {
        if ($element.Extent.EndOffset -ge $cursor -and $word -ne '') { break }
        $text = $element.ToString()
        $previous = $text
        if ($isValue) { $isValue = $false; $previous = ''; continue }
        if ($text.StartsWith('-')) {
            $isValue = $places[$place].Values -ccontains $text
        } elseif ($places.ContainsKey("$place $text")) {
            $place = "$place $text"
        }
    }

    function Offer($text, $help) {
        [System.Management.Automation.CompletionResult]::new($text, $text, 'ParameterValue', $help)
    }
    $known = $places[$place]
    if ($isValue) {
        # Without choices the shell offers files.
        foreach ($choice in $choices[$previous]) {
            if ($choice -and $choice.StartsWith($word)) { Offer $choice $choice }
        }
        return
    }
    $offered = if ($word.StartsWith('-')) { $known.Flags } else { $known.Commands }
    foreach ($name in $offered.Keys) {
        if ($name.StartsWith($word)) { Offer $name $offered[$name] }
    }
}
"#;
