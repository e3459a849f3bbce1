//! Effects and messages as lines of a transcript.

use raft::*;

use super::Cluster;

fn position((index, term): Position) -> String {
    format!("{index}@{term}")
}

fn list(entries: &[Entry]) -> String {
    let one = |entry: &Entry| {
        let data = String::from_utf8_lossy(&entry.data).into_owned();
        let data = if data.len() > 20 { format!("{}..({} bytes)", &data[..5], data.len()) } else { data };
        let data = if data.is_empty() {
            "-".into()
        } else if data.contains(' ') {
            format!("({data})")
        } else {
            data
        };
        format!("{}={data}", position((entry.index, entry.term)))
    };
    entries.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn body(body: &Body) -> String {
    match body {
        Body::Propose { entries } => {
            let all: Vec<_> = entries.iter().map(|(_, data)| String::from_utf8_lossy(data)).collect();
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
        Body::Vote { last } => format!("Vote last {}", position(*last)),
        Body::VoteResponse { reject } => format!("VoteResponse {}", if *reject { "no" } else { "yes" }),
        Body::Heartbeat { commit, context } => format!("Heartbeat commit {commit}{}", round(*context)),
        Body::HeartbeatResponse { context } => format!("HeartbeatResponse{}", round(*context)),
        Body::ReadIndex { context } => format!("ReadIndex {context}"),
        Body::ReadIndexResponse { index, context } => format!("ReadIndexResponse {context} at {index}"),
    }
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
            "{id}       {:?} term {} last {} commit {} applied {} durable {} in memory {}.. rejected {}",
            status.role,
            status.term,
            position(status.last),
            status.commit,
            status.applied,
            status.durable,
            status.first,
            status.rejected_messages,
        )
    }

    pub fn show_disk(&self, id: NodeId) -> String {
        let disk = &self.members[&id].disk;
        let vote = disk.state.vote.map_or("-".into(), |vote| vote.to_string());
        let HardState { term, commit, .. } = disk.state;
        format!("{id}       disk: term {term} vote {vote} commit {commit}, {}", list(&disk.entries))
    }

    pub fn show_followers(&self, id: NodeId) -> String {
        let line = |follower: Follower| {
            let Follower { id, matched, next, state, .. } = follower;
            format!("{id}       {state:?} has {matched} next {next}")
        };
        self.raft(id).followers().map(line).collect::<Vec<_>>().join("\n")
    }
}
