//! Effects and messages as lines of a transcript.

use raft::*;

use super::Cluster;

fn position((index, term): Position) -> String {
    format!("{index}@{term}")
}

fn payload(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data).into_owned();
    match text.len() {
        0 => "-".into(),
        21.. => format!("({}..({} bytes))", &text[..5], text.len()),
        _ if text.contains(' ') => format!("({text})"),
        _ => text,
    }
}

fn list(entries: &[Entry]) -> String {
    let one = |entry: &Entry| format!("{}={}", position((entry.index, entry.term)), payload(&entry.data));
    entries.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn body(body: &Body) -> String {
    match body {
        Body::Propose { entries } => {
            let all: Vec<_> = entries.iter().map(|(_, data)| payload(data)).collect();
            format!("Propose {}", all.join(" "))
        }
        Body::Append { prev, entries, commit } if entries.is_empty() => {
            format!("Append after {} nothing, commit {commit}", position(*prev))
        }
        Body::Append { prev, entries, commit } => {
            format!("Append after {} {}, commit {commit}", position(*prev), list(entries))
        }
        Body::AppendResponse { index, reject: None } => format!("AppendResponse has {index}"),
        Body::AppendResponse { index, reject: Some(hint) } => {
            format!("AppendResponse not {index}, try {}", position(*hint))
        }
        Body::Vote { last, transfer } => {
            let why = if *transfer { ", at the leader's wish" } else { "" };
            format!("Vote last {}{why}", position(*last))
        }
        Body::PreVote { last } => format!("PreVote last {}", position(*last)),
        Body::PreVoteResponse { reject } => format!("PreVoteResponse {}", if *reject { "no" } else { "yes" }),
        Body::Snapshot { snapshot } => format!("Snapshot {}", self::snapshot(snapshot)),
        Body::VoteResponse { reject } => format!("VoteResponse {}", if *reject { "no" } else { "yes" }),
        Body::Heartbeat { commit, context } => format!("Heartbeat commit {commit}{}", round(*context)),
        Body::HeartbeatResponse { context } => format!("HeartbeatResponse{}", round(*context)),
        Body::ReadIndex { context } => format!("ReadIndex {context}"),
        Body::ReadIndexResponse { index, context } => format!("ReadIndexResponse {context} at {index}"),
        Body::TransferLeader => "TransferLeader".to_owned(),
        Body::TimeoutNow => "TimeoutNow".to_owned(),
    }
}

fn snapshot(Snapshot { index, term, conf, .. }: &Snapshot) -> String {
    format!("{}, members {}", position((*index, *term)), members(conf))
}

fn members(conf: &ConfState) -> String {
    let list = |ids: &[NodeId]| ids.iter().map(NodeId::to_string).collect::<Vec<_>>().join(" ");
    let learners =
        if conf.learners.is_empty() { String::new() } else { format!(" / {}", list(&conf.learners)) };
    format!("{}{learners}", list(&conf.voters))
}

fn round(context: Option<u64>) -> String {
    context.map_or(String::new(), |context| format!(", reads to {context}"))
}

pub fn message(message: &Message, arrow: &str) -> String {
    let Message { from, to, term, .. } = message;
    let term = if term.0 == 0 { String::new() } else { format!(" (term {term})") };
    format!("{from} {arrow} {to}  {}{term}", body(&message.body))
}

impl Cluster {
    pub fn say_effect(&mut self, id: NodeId, effect: &Effect) {
        let text = match effect {
            Effect::Persist { seq, hard_state, entries, .. } => {
                let state = hard_state.map_or(String::new(), |state| {
                    let vote = state.vote.map_or("-".into(), |vote| vote.to_string());
                    format!(" term {} vote {vote} commit {}", state.term, state.commit)
                });
                let entries = if entries.is_empty() { String::new() } else { format!(" {}", list(entries)) };
                format!("write #{seq}:{entries}{state}")
            }
            Effect::Restore { seq, hard_state, snapshot, .. } => {
                let HardState { term, vote, .. } = hard_state;
                let vote = vote.map_or("-".into(), |vote| vote.to_string());
                format!("write #{seq}: snapshot {}, term {term} vote {vote}", self::snapshot(snapshot))
            }
            Effect::SnapshotWanted { to } => format!("a snapshot for {to} is wanted"),
            Effect::ForwardRefused { from, count, reason } => {
                format!("{count} proposals of {from} refused: {reason:?}")
            }
            Effect::Send { message, after: Some(seq) } => {
                format!("after #{seq} to {}: {}", message.to, body(&message.body))
            }
            Effect::Send { .. } => return,
            Effect::Apply { entries } => format!("apply {}", list(entries)),
            Effect::ReadReady { context, index } => format!("read {context} ready at {index}"),
            Effect::ReadRefused { context, reason } => format!("read {context} refused: {reason:?}"),
            Effect::ProposalRefused { token, reason } => format!("proposal {token} refused: {reason:?}"),
            Effect::Leadership { term, leader, role } => match (role, leader) {
                (Role::Leader, _) => format!("leads in term {term}"),
                (Role::Candidate, _) => format!("stands for election in term {term}"),
                (Role::PreCandidate, _) => format!("would stand for election, in term {term}"),
                (Role::Follower, Some(leader)) => format!("follows {leader} in term {term}"),
                (Role::Follower, None) => format!("follows nobody in term {term}"),
            },
        };
        self.say(|| format!("{id}       {text}"));
    }

    pub fn show_status(&self, id: NodeId) -> String {
        let Some(raft) = &self.members[&id].raft else { return format!("{id}       down") };
        let status = raft.status();
        format!(
            "{id}       {:?} term {} last {} commit {} applied {} durable {} in memory {}.. rejected {}{}",
            status.role,
            status.term,
            position(status.last),
            status.commit,
            status.applied,
            status.durable,
            status.first,
            status.rejected_messages,
            if raft.conf().is_voter(id) { "" } else { ", no voter" },
        )
    }

    pub fn show_members(&self, id: NodeId) -> String {
        let conf = self.members[&id].raft.as_ref().map_or("down".to_owned(), |raft| members(raft.conf()));
        format!("{id}       knows {conf}")
    }

    pub fn show_disk(&self, id: NodeId) -> String {
        let disk = &self.members[&id].disk;
        let vote = disk.state.vote.map_or("-".into(), |vote| vote.to_string());
        let HardState { term, commit, .. } = disk.state;
        let start = if disk.log.start.0 == Index::ZERO {
            String::new()
        } else {
            format!("snapshot {}, ", position(disk.log.start))
        };
        format!(
            "{id}       disk: term {term} vote {vote} commit {commit}, {start}{}",
            list(&disk.log.entries)
        )
    }

    pub fn show_followers(&self, id: NodeId) -> String {
        let line = |follower: Follower| {
            let Follower { id, matched, next, state, learner, inflight_messages, snapshot, .. } = follower;
            let mut line = format!("{id}       {state:?} has {matched} next {next}");
            if inflight_messages > 0 {
                line.push_str(&format!(", {inflight_messages} on the way"));
            }
            if let Some(index) = snapshot {
                line.push_str(&format!(", snapshot {index} on the way"));
            }
            line + if learner { ", learner" } else { "" }
        };
        self.raft(id).followers().map(line).collect::<Vec<_>>().join("\n")
    }
}
