//! The scenarios in `transcripts/`: commands above `---`, what happened below. Written anew with
//! `UPDATE_GOLDENFILES=1 cargo test -p quorate-raft --test transcripts`; commit a difference only when it is understood.
//!
//! A line `1 -> 2` is a message that arrives, `1 -x 2` one that is lost; `1       ...` is what happens on member 1.
//! `after #3 to 2: ...` is a message that waits for the disk to have write #3. Entries are `index@term=payload`.
//!
//! Commands: `cluster COUNT [limits=tiny] [start=no] [prevote=yes]`, `bootstrap` (one member with a new cluster's first
//! log), `join ID` (a member that knows nothing),
//! `settle` (disks, state machines and network run dry, time stands still), `advance MS [heartbeats=shown]` (the same,
//! with time), `sleep MS` (time passes and nobody notices: leaders are not heard any more),
//! `tick ID` (time passes to the member's deadline), `campaign ID`, `hurry ID`, `propose ID WORD[_LENGTH]...`, `conf ID VOTERS...`,
//! `change ID add|learner|remove|strip ID`, `transfer ID ID` (the first is asked to let the second lead), `forget-leader ID`,
//! `unreachable ID ID` (the first could not reach the second), `clock ID PERCENT` (how fast it runs),
//! `snapshots ID stop|go`, `make-snapshot ID`, `report-snapshot ID` (while stopped, one at a time),
//! `read ID CONTEXT...`, `disk ID stop|go`, `state-machine ID stop|go`, `write ID [COUNT]` (the disk finishes what it has, or COUNT of it),
//! `apply ID [COUNT]`, `persisted ID seq= term= last=INDEX@TERM`, `deliver [from=] [to=] [count=]`, `lose [from=] [to=]`
//! (what is under way), `repeat [from=] [to=]` (puts a copy behind everything), `cut ID ID` (both ways),
//! `cut from= to=`, `isolate ID`, `heal`, `crash ID [applied=] [kept=]` (of what its disk had not finished, so many records are
//! there), `restart ID [offset=]`, `status`, `disks`, `members`, `followers ID`, `deadline ID`.

mod cluster;

use std::error::Error;

use cluster::journal::Journal;
use cluster::{Cluster, Disk, Member, node};
use goldenscript::{Command, Context};
use raft::*;

struct Runner {
    cluster: Cluster,
    settings: Config,
}

type Answer = Result<(), Box<dyn Error>>;

fn parse_position(text: &str) -> Result<Position, Box<dyn Error>> {
    let (index, term) = text.split_once('@').ok_or("not INDEX@TERM")?;
    Ok((Index(index.parse()?), Term(term.parse()?)))
}

/// `large_700` is the word with dots to 700 bytes.
fn payload(word: &str) -> Result<String, Box<dyn Error>> {
    let Some((word, length)) = word.split_once('_') else { return Ok(word.to_owned()) };
    Ok(format!("{word:.<width$}", width = length.parse::<usize>()?))
}

impl Runner {
    fn say(&mut self, line: String) {
        self.cluster.say(|| line);
    }

    fn places(&self, from: Option<u64>, to: Option<u64>) -> Vec<usize> {
        let matches = |message: &Message| {
            from.is_none_or(|from| message.from == node(from)) && to.is_none_or(|to| message.to == node(to))
        };
        let network = self.cluster.network.iter().enumerate();
        network.filter(|(_, message)| matches(message)).map(|(place, _)| place).collect()
    }

    fn begin(&mut self, count: u64, (tiny, pre_vote): (bool, bool), start: bool) {
        let limits = if tiny { Limits::tiny() } else { Limits::default() };
        self.settings = Config { pre_vote, ..Cluster::settings(limits) };
        self.cluster = Cluster::new(count, 1, &self.settings);
        self.cluster.trace = Some(String::new());
        if start {
            self.cluster.ids().into_iter().for_each(|id| self.cluster.start(id, Index::ZERO));
        }
    }

    /// One member with the log that a new cluster begins with (design rule 20), of which nothing is applied.
    fn bootstrap(&mut self) {
        self.begin(0, (false, false), false);
        let data = "conf 1".into();
        let entry = Entry { term: Term(1), index: Index(1), kind: EntryKind::ConfChange, data };
        let state = HardState { term: Term(1), vote: None, commit: Index(1) };
        let log = Journal { entries: vec![entry], ..Journal::default() };
        let disk = Disk { state, log, ..Disk::default() };
        self.cluster.add(1, 1, &self.settings, disk, ConfState::default());
        self.cluster.start(node(1), Index::ZERO);
    }

    fn join(&mut self, id: u64) {
        self.cluster.join(id, 1, &self.settings);
    }

    fn member(&mut self, id: NodeId) -> &mut Member {
        self.cluster.members.get_mut(&id).expect("a member of that id")
    }

    fn say_all(&mut self, line: impl Fn(&Cluster, NodeId) -> String) {
        let lines: Vec<_> = self.cluster.ids().iter().map(|id| line(&self.cluster, *id)).collect();
        self.say(lines.join("\n"));
    }

    fn network(&mut self, name: &str, from: Option<u64>, to: Option<u64>, count: usize) {
        for _ in 0..count {
            let places = self.places(from, to);
            let Some(place) = places.first().copied() else { break };
            match name {
                "deliver" => self.cluster.deliver(place),
                "lose" => self.cluster.lose(place),
                _ => {
                    let copies: Vec<_> =
                        places.iter().map(|place| self.cluster.network[*place].clone()).collect();
                    self.cluster.network.extend(copies);
                    break;
                }
            }
        }
    }

    fn cut(&mut self, one: u64, other: u64, both: bool) {
        self.cluster.cuts.insert((node(one), node(other)));
        if both {
            self.cluster.cuts.insert((node(other), node(one)));
        }
    }

    fn run_command(&mut self, command: &Command) -> Answer {
        let mut args = command.consume_args();
        let mut number = |key: &str| args.take_key(key).map(str::parse::<u64>).transpose();
        let (from, to, count) = (number("from")?, number("to")?, number("count")?);
        let (applied, offset, kept) = (number("applied")?, number("offset")?, number("kept")?);
        let (seq, term) = (number("seq")?, number("term")?);
        let last = args.take_key("last").map(parse_position).transpose()?;
        let tiny = args.take_key("limits") == Some("tiny");
        let shown = args.take_key("heartbeats") == Some("shown");
        let start = args.take_key("start") != Some("no");
        let pre_vote = args.take_key("prevote") == Some("yes");
        let words: Vec<&str> = std::iter::from_fn(|| args.next_pos()).collect();
        args.reject_next()?;
        let first = || words.first().ok_or("whom?")?.parse::<u64>().map_err(Box::<dyn Error>::from);
        let id = || first().map(node);
        let second = |default: u64| words.get(1).map_or(Ok(default), |word| word.parse::<u64>());
        match command.name.as_str() {
            "cluster" => self.begin(first()?, (tiny, pre_vote), start),
            "bootstrap" => self.bootstrap(),
            "join" => self.join(first()?),
            "settle" => self.cluster.settle(),
            "advance" => {
                self.cluster.hide_heartbeats = !shown;
                self.cluster.advance(first()?);
                self.cluster.hide_heartbeats = false;
            }
            "sleep" => self.cluster.now = self.cluster.now.plus_ms(first()?),
            "tick" => {
                let id = id()?;
                self.cluster.now = self.cluster.now.max(self.cluster.raft(id).deadline());
                self.cluster.step(id, Event::Tick);
            }
            "campaign" => self.cluster.step(id()?, Event::Campaign),
            "hurry" => self.cluster.step(id()?, Event::Hurry),
            "propose" => {
                let payloads: Result<Vec<String>, _> = words[1..].iter().map(|word| payload(word)).collect();
                let payloads = payloads?;
                self.cluster.propose(id()?, &payloads);
            }
            "transfer" => {
                let to = node(second(0)?);
                self.cluster.step(id()?, Event::TransferLeader { to });
            }
            "forget-leader" => self.cluster.step(id()?, Event::ForgetLeader),
            "unreachable" => {
                let unreachable = Event::Unreachable { id: node(second(0)?) };
                self.cluster.step(id()?, unreachable);
            }
            "clock" => self.member(id()?).clock = second(100)?,
            "snapshots" => self.member(id()?).snapshots_run = words[1] == "go",
            "make-snapshot" => drop(self.cluster.make_snapshot(id()?)),
            "report-snapshot" => drop(self.cluster.report_snapshot(id()?)),
            "change" => self.cluster.propose(id()?, &[words[1..].join(" ")]),
            "conf" => self.cluster.propose(id()?, &[format!("conf {}", words[1..].join(" "))]),
            "read" => {
                for context in &words[1..] {
                    self.cluster.read(id()?, context.parse()?);
                }
            }
            "disk" => self.member(id()?).disk_runs = words[1] == "go",
            "state-machine" => self.member(id()?).apply_runs = words[1] == "go",
            "write" => {
                let id = id()?;
                let pending = self.cluster.members[&id].writes.len() as u64;
                (0..second(pending)?).take_while(|_| self.cluster.finish_write(id)).for_each(drop);
            }
            "apply" => {
                let id = id()?;
                let pending = self.cluster.members[&id].applying.len() as u64;
                (0..second(pending)?).take_while(|_| self.cluster.finish_apply(id)).for_each(drop);
            }
            "persisted" => {
                let seq = PersistSeq(seq.ok_or("seq=?")?);
                let (term, last) = (Term(term.ok_or("term=?")?), last.ok_or("last=?")?);
                self.cluster.step(id()?, Event::Persisted { seq, term, last });
            }
            name @ ("deliver" | "lose" | "repeat") => {
                self.network(name, from, to, count.map_or(usize::MAX, |count| count as usize));
            }
            "cut" => match (from, to) {
                (Some(from), Some(to)) => self.cut(from, to, false),
                _ => self.cut(first()?, second(0)?, true),
            },
            "isolate" => {
                for other in self.cluster.ids() {
                    self.cut(first()?, other.0, true);
                }
            }
            "heal" => self.cluster.cuts.clear(),
            "crash" => {
                let (applied, kept) = (applied.map(|count| count as usize), kept.unwrap_or(0) as usize);
                self.cluster.crash(id()?, applied, kept);
            }
            "restart" => self.cluster.start(id()?, Index(offset.unwrap_or(0))),
            "status" => self.say_all(Cluster::show_status),
            "disks" => self.say_all(Cluster::show_disk),
            "members" => self.say_all(Cluster::show_members),
            "followers" => {
                let lines = self.cluster.show_followers(id()?);
                self.say(lines);
            }
            "deadline" => {
                let deadline = self.cluster.raft(id()?).deadline();
                let text = if deadline == Time::NEVER {
                    "never".to_owned()
                } else {
                    format!("in {} ms", (deadline.0 - self.cluster.now.0) / 1000)
                };
                self.say(format!("{}       tick {text}", words[0]));
            }
            name => return Err(format!("unknown command {name}").into()),
        }
        Ok(())
    }
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        if let Some(trace) = &mut self.cluster.trace {
            trace.clear();
        }
        self.run_command(command)?;
        Ok(self.cluster.trace.clone().unwrap_or_default())
    }
}

#[test]
fn scenarios() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts");
    let mut paths: Vec<_> = std::path::Path::new(folder)
        .read_dir()
        .expect("the folder of transcripts")
        .map(|file| file.expect("a transcript").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no transcripts in {folder}");
    let mut failed = Vec::new();
    for path in paths {
        let run = std::panic::catch_unwind(|| {
            let settings = Cluster::settings(Limits::default());
            let mut runner = Runner { cluster: Cluster::new(0, 1, &settings), settings };
            goldenscript::run(&mut runner, &path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        });
        if run.is_err() {
            failed.push(path);
        }
    }
    assert!(failed.is_empty(), "transcripts differ: {failed:#?}");
}
