//! A script: commands with arguments, perhaps input, and what is expected of them below `----`.

#[derive(Clone)]
pub struct Script {
    pub steps: Vec<Step>,
}

#[derive(Clone)]
pub struct Step {
    /// Of the command, from 1.
    pub line: usize,
    pub command: String,
    pub args: Vec<Arg>,
    pub input: String,
    pub expected: Vec<String>,
}

/// `word`, `key=value` or `key=(a,b,c)`.
#[derive(Clone)]
pub struct Arg {
    pub key: String,
    pub values: Vec<String>,
}

impl Script {
    pub fn parse(text: &str) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        let mut steps = Vec::new();
        let mut at = 0;
        while at < lines.len() {
            if lines[at].trim().is_empty() || lines[at].starts_with('#') {
                at += 1;
                continue;
            }
            let line = at + 1;
            let (command, args) = parse_command(lines[at]);
            at += 1;
            let input_ends =
                at + lines[at..].iter().position(|line| *line == "----").expect("---- follows a command");
            let input = lines[at..input_ends].join("\n");
            at = input_ends + 1;
            let length = lines[at..].iter().position(|line| line.is_empty()).unwrap_or(lines.len() - at);
            let expected = lines[at..at + length].iter().map(|line| (*line).to_owned()).collect();
            at += length;
            steps.push(Step { line, command, args, input, expected });
        }
        Self { steps }
    }

    /// Whether it makes changes of membership in two steps, which are not built (design rule 16).
    pub fn is_joint(&self) -> bool {
        self.steps.iter().filter(|step| step.command == "propose-conf-change").any(|step| {
            let asked = step.value("transition").is_some_and(|transition| transition != "auto");
            asked || step.input.split_whitespace().count() != 1
        })
    }
}

fn parse_command(line: &str) -> (String, Vec<Arg>) {
    let mut words = line.split_whitespace();
    let command = words.next().expect("a command").to_owned();
    let args = words.map(|word| {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let inner = value.trim_start_matches('(').trim_end_matches(')');
        let values = inner.split(',').filter(|value| !value.is_empty()).map(str::to_owned).collect();
        Arg { key: key.to_owned(), values }
    });
    let args = args.collect();
    (command, args)
}

impl Step {
    /// The arguments that are numbers: members.
    pub fn ids(&self) -> Vec<u64> {
        let words = self.args.iter().filter(|arg| arg.values.is_empty());
        words.filter_map(|arg| arg.key.parse().ok()).collect()
    }

    pub fn value(&self, key: &str) -> Option<&str> {
        self.values(key).first().map(String::as_str)
    }

    pub fn values(&self, key: &str) -> &[String] {
        self.args.iter().find(|arg| arg.key == key).map_or(&[], |arg| &arg.values)
    }
}
