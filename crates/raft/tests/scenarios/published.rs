//! What a script expects, as far as it is compared: the state that a member hands out, entries that it writes and applies,
//! its log, and the roles and progress of all.

use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// `Lead:1 State:StateLeader`
    Leads { lead: u64, state: String },
    /// `HardState Term:1 Vote:1 Commit:11`
    Hard { term: u64, vote: u64, commit: u64 },
    /// A line below `Entries:`.
    Entry(Line),
    /// A line below `CommittedEntries:`.
    Committed(Line),
    /// `Snapshot Index:11 Term:1 ...`
    Snapshot { index: u64, term: u64 },
}

/// `1/12 EntryNormal "data"`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub term: u64,
    pub index: u64,
    /// Kind and payload, as printed.
    pub text: String,
}

impl Line {
    pub fn parse(line: &str) -> Option<Self> {
        let (place, text) = line.split_once(' ')?;
        let (term, index) = place.split_once('/')?;
        Some(Self { term: term.parse().ok()?, index: index.parse().ok()?, text: text.to_owned() })
    }
}

fn number(line: &str, key: &str) -> Option<u64> {
    let rest = &line[line.find(key)? + key.len()..];
    rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
}

/// What each member hands out in these lines: all its rounds, in order. `alone` is the member that a command without
/// headings is about.
pub fn rounds(lines: &[String], alone: Option<u64>) -> BTreeMap<u64, Vec<Fact>> {
    let mut all: BTreeMap<u64, Vec<Fact>> = BTreeMap::new();
    let mut member = alone;
    let mut section = "";
    for line in lines {
        let text = line.trim_start();
        if let Some(heading) = line.strip_prefix("> ") {
            let (id, what) = heading.split_once(' ').expect("a member and what it does");
            member = (what == "handling Ready").then(|| id.parse().expect("a member"));
            section = "";
            continue;
        }
        let Some(member) = member else { continue };
        let facts = all.entry(member).or_default();
        if text.starts_with("Lead:") {
            let state = text.split("State:").nth(1).expect("a state").to_owned();
            facts.push(Fact::Leads { lead: number(text, "Lead:").expect("a leader"), state });
        } else if text.starts_with("HardState ") {
            let (vote, commit) = (number(text, "Vote:").unwrap_or(0), number(text, "Commit:").unwrap_or(0));
            facts.push(Fact::Hard { term: number(text, "Term:").unwrap_or(0), vote, commit });
        } else if text.starts_with("Snapshot Index:") {
            let (index, term) = (number(text, "Index:").unwrap_or(0), number(text, "Term:").unwrap_or(0));
            facts.push(Fact::Snapshot { index, term });
        } else if text.ends_with("ntries:") || text == "Messages:" {
            section = if text == "Entries:" || text == "CommittedEntries:" { text } else { "" };
        } else if let (false, Some(line)) = (section.is_empty(), Line::parse(text)) {
            facts.push(if section == "Entries:" { Fact::Entry(line) } else { Fact::Committed(line) });
        }
    }
    all.retain(|_, facts| !facts.is_empty());
    all
}

/// `1: StateLeader (Voter) Term:1 Lead:1`: member, state, whether it votes, term, leader.
pub fn role(line: &str) -> Option<(u64, String, bool, u64, u64)> {
    let (id, rest) = line.split_once(": ")?;
    let (state, rest) = rest.split_once(' ')?;
    let votes = rest.starts_with("(Voter)");
    Some((id.parse().ok()?, state.to_owned(), votes, number(rest, "Term:")?, number(rest, "Lead:")?))
}

/// `2: StateReplicate match=11 next=12 ...`: member, state, what it has.
pub fn progress(line: &str) -> Option<(u64, String, u64)> {
    let (id, rest) = line.split_once(": ")?;
    let (state, rest) = rest.split_once(' ')?;
    Some((id.parse().ok()?, state.to_owned(), number(rest, "match=")?))
}

/// These lines with one kind of compared things made wrong, each kind in turn.
pub fn distortions(lines: &[String]) -> Vec<Vec<String>> {
    let kinds: [fn(&str, bool) -> Option<String>; 6] = [
        |line, _| {
            let has_term = line.trim_start().starts_with("HardState ") || role(line).is_some();
            has_term.then(|| line.replace("Term:", "Term:9"))
        },
        |line, _| line.trim_start().starts_with("HardState ").then(|| line.replace("Commit:", "Commit:9")),
        |line, _| {
            let has_state = line.trim_start().starts_with("Lead:") || role(line).is_some();
            let other = if line.contains("StateFollower") { "StateLeader" } else { "StateFollower" };
            let at = line.rfind("State").filter(|_| has_state)?;
            let rest = line[at..].find(' ').map_or("", |end| &line[at + end..]);
            Some(format!("{}{other}{rest}", &line[..at]))
        },
        |line, _| progress(line).map(|_| line.replace("match=", "match=9")),
        |line, listed| {
            (listed && Line::parse(line.trim_start()).is_some()).then(|| line.replacen('/', "/9", 1))
        },
        |line, listed| (listed && Line::parse(line.trim_start()).is_some()).then(|| format!("{line}?")),
    ];
    let mut all = Vec::new();
    for distort in kinds {
        // A log alone has no heading.
        let mut listed = true;
        let mut distorted = Vec::new();
        for line in lines {
            let text = line.trim_start();
            if text.starts_with("> ") || text.ends_with(':') {
                listed = text == "Entries:" || text == "CommittedEntries:";
            }
            distorted.push(distort(line, listed).unwrap_or_else(|| line.clone()));
        }
        if distorted != lines {
            all.push(distorted);
        }
    }
    all
}
