//! The membership as etcd's v2 store has it: the payload of a raft snapshot, in `.snap` files and between members.
//!
//! etcd has no v2 store any more, but still makes one in memory for each snapshot, files the members into it, and writes
//! it out with Go's JSON: tree, history of its events, counters. Go's etcd up to 3.6 starts from it. We write the same
//! bytes (etcd: `GetMembershipInfoInV2Format`), with the members in ascending order of id; there their order is that of
//! a Go map, so any is right.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;

use super::{Member, Membership, is_version};

/// How many events the history keeps: a ring with so many places, whether used or not.
const EVENTS_MAX: u64 = 1000;

/// The time of what never expires.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Why a v2 store gives no membership.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum V2StoreError {
    /// It is no JSON, or not a v2 store's.
    #[error("no v2 store: {0}")]
    Json(String),
    /// A member or a removed one whose key is no id.
    #[error("the v2 store has a member {0:?}")]
    Id(String),
    /// What is said of a member cannot be read.
    #[error("the v2 store's member {id:x}: {reason}")]
    Member {
        /// The member.
        id: u64,
        /// Why not.
        reason: String,
    },
    /// The cluster's version is none.
    #[error("the v2 store has cluster version {0:?}")]
    Version(String),
}

impl Membership {
    /// The v2 store, as JSON, that Go's etcd makes of this membership for a raft snapshot, byte for byte.
    pub fn to_v2_store(&self) -> Vec<u8> {
        let mut store = Store::default();
        for member in self.members.values() {
            let key = format!("/0/members/{:x}", member.id);
            store.create(&format!("{key}/raftAttributes"), &raft_attributes(member));
            // A member that has said where its clients reach it, that is.
            if !member.client_urls.is_empty() {
                store.set(&format!("{key}/attributes"), &attributes(member));
            }
        }
        for id in &self.removed {
            store.create(&format!("/0/removed_members/{id:x}"), "");
        }
        if !self.cluster_version.is_empty() {
            store.set("/0/version", &self.cluster_version);
        }
        store.to_json().into_bytes()
    }

    /// Reads what [`Membership::to_v2_store`] and Go's etcd, of any version, write. What else such a store holds, like
    /// the keys of v2 clients, is passed over.
    ///
    /// # Errors
    /// Anything that is not as etcd writes it.
    pub fn from_v2_store(json: &[u8]) -> Result<Membership, V2StoreError> {
        let tree: Tree =
            serde_json::from_slice(json).map_err(|error| V2StoreError::Json(error.to_string()))?;
        let Some(cluster) = tree.root.children.cluster else { return Ok(Membership::default()) };
        let mut membership = Membership::default();
        for (key, node) in cluster.children.members.unwrap_or_default().children {
            let id = parse_id(key)?;
            let refuse = |reason: String| V2StoreError::Member { id, reason };
            let json = |text: &str| serde_json::from_str(text).map_err(|error| refuse(error.to_string()));
            let raft: Attributes = json(&node.children.raft_attributes.value)?;
            let attributes: Attributes = match &node.children.attributes {
                Some(attributes) => json(&attributes.value)?,
                None => Attributes::default(),
            };
            let member = Member {
                id,
                name: attributes.name,
                peer_urls: raft.peer_urls.unwrap_or_default(),
                client_urls: attributes.client_urls.unwrap_or_default(),
                is_learner: raft.is_learner,
            };
            membership.members.insert(id, member);
        }
        for key in cluster.children.removed_members.unwrap_or_default().children.into_keys() {
            let id = parse_id(key)?;
            if membership.members.contains_key(&id) {
                return Err(V2StoreError::Member { id, reason: "it is there and removed".into() });
            }
            membership.removed.insert(id);
        }
        membership.cluster_version = cluster.children.version.unwrap_or_default().value;
        if !membership.cluster_version.is_empty() && !is_version(&membership.cluster_version) {
            return Err(V2StoreError::Version(membership.cluster_version));
        }
        Ok(membership)
    }
}

/// Reads `json` as a v2 store; what is read is written, read and written again, and must be the same. Answers whether it
/// is one. For tests and fuzzers.
///
/// # Panics
/// If it is not the same: that is the failure that a fuzzer looks for.
#[doc(hidden)]
pub fn fuzz_v2_store(json: &[u8]) -> bool {
    let Ok(membership) = Membership::from_v2_store(json) else { return false };
    let written = membership.to_v2_store();
    let again = Membership::from_v2_store(&written).expect("what was written is read");
    again.check();
    assert_eq!(again.to_v2_store(), written, "written and read again");
    true
}

fn parse_id(key: String) -> Result<u64, V2StoreError> {
    let id = u64::from_str_radix(&key, 16).ok().filter(|id| format!("{id:x}") == key);
    id.ok_or(V2StoreError::Id(key))
}

fn raft_attributes(member: &Member) -> String {
    let mut json = String::from("{\"peerURLs\":");
    push_list(&mut json, &member.peer_urls);
    if member.is_learner {
        json.push_str(",\"isLearner\":true");
    }
    json.push('}');
    json
}

fn attributes(member: &Member) -> String {
    let mut json = String::from("{");
    if !member.name.is_empty() {
        json.push_str("\"name\":");
        push_text(&mut json, &member.name);
        json.push(',');
    }
    json.push_str("\"clientURLs\":");
    push_list(&mut json, &member.client_urls);
    json.push('}');
    json
}

/// etcd's v2 store, as far as members are filed into it.
#[derive(Default)]
struct Store {
    /// What lies at `/0`; etcd makes it, and `/1` beside it, with the store.
    root: BTreeMap<String, Node>,
    events: Vec<Event>,
    index: u64,
    creates: u64,
    sets: u64,
}

struct Node {
    path: String,
    index: u64,
    kind: NodeKind,
}

enum NodeKind {
    Value(String),
    Folder(BTreeMap<String, Node>),
}

struct Event {
    action: &'static str,
    key: String,
    value: String,
    index: u64,
}

impl Store {
    fn create(&mut self, key: &str, value: &str) {
        self.creates += 1;
        self.add("create", key, value);
    }

    fn set(&mut self, key: &str, value: &str) {
        self.sets += 1;
        self.add("set", key, value);
    }

    /// Files a value under a new key; the folders above it that are missing come with the same index.
    fn add(&mut self, action: &'static str, key: &str, value: &str) {
        self.index += 1;
        let index = self.index;
        self.events.push(Event { action, key: key.to_owned(), value: value.to_owned(), index });
        let mut folder = &mut self.root;
        let mut path = String::from("/0");
        let mut names = key.trim_start_matches("/0/").split('/').peekable();
        while let Some(name) = names.next() {
            path = format!("{path}/{name}");
            let kind = match names.peek() {
                Some(_) => NodeKind::Folder(BTreeMap::new()),
                None => NodeKind::Value(value.to_owned()),
            };
            let new = Node { path: path.clone(), index, kind };
            match &mut folder.entry(name.to_owned()).or_insert(new).kind {
                NodeKind::Folder(children) => folder = children,
                NodeKind::Value(_) => return,
            }
        }
    }

    fn to_json(&self) -> String {
        let mut out = String::with_capacity(8192);
        out.push_str("{\"Root\":");
        open_folder(&mut out, "/", 0);
        out.push_str("\"0\":");
        open_folder(&mut out, "/0", 0);
        push_nodes(&mut out, &self.root);
        out.push_str("}},\"1\":");
        open_folder(&mut out, "/1", 0);
        out.push_str("}}}},");
        self.push_history(&mut out);
        let Store { index, creates, sets, .. } = self;
        // The one failed read is etcd's own look whether the new store is empty.
        let _ = write!(
            out,
            "\"CurrentIndex\":{index},\"Stats\":{{\"getsSuccess\":0,\"getsFail\":1,\"setsSuccess\":{sets},\"setsFail\":0,\
             \"deleteSuccess\":0,\"deleteFail\":0,\"updateSuccess\":0,\"updateFail\":0,\"createSuccess\":{creates},\
             \"createFail\":0,\"compareAndSwapSuccess\":0,\"compareAndSwapFail\":0,\"compareAndDeleteSuccess\":0,\
             \"compareAndDeleteFail\":0,\"expireCount\":0,\"watchers\":0}},\"CurrentVersion\":2}}"
        );
        out
    }

    fn push_history(&self, out: &mut String) {
        let count = self.events.len() as u64;
        // Once the ring is full, each new event takes the place of the oldest.
        let mut places: Vec<Option<&Event>> = vec![None; EVENTS_MAX as usize];
        for (at, event) in self.events.iter().enumerate() {
            places[at % EVENTS_MAX as usize] = Some(event);
        }
        let front = if count > EVENTS_MAX { count % EVENTS_MAX } else { 0 };
        out.push_str("\"WatcherHub\":{\"EventHistory\":{\"Queue\":{\"Events\":[");
        for (at, place) in places.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            match place {
                Some(event) => event.push(out),
                None => out.push_str("null"),
            }
        }
        let _ = write!(
            out,
            "],\"Size\":{},\"Front\":{front},\"Back\":{},\"Capacity\":{EVENTS_MAX}}},\"StartIndex\":{},\"LastIndex\":{count}}}}},",
            count.min(EVENTS_MAX),
            count % EVENTS_MAX,
            if count == 0 { 0 } else { count.saturating_sub(EVENTS_MAX) + 1 },
        );
    }
}

impl Event {
    fn push(&self, out: &mut String) {
        let _ = write!(out, "{{\"action\":\"{}\",\"node\":{{\"key\":", self.action);
        push_text(out, &self.key);
        out.push_str(",\"value\":");
        push_text(out, &self.value);
        let _ = write!(out, ",\"modifiedIndex\":{0},\"createdIndex\":{0}}}}}", self.index);
    }
}

fn push_nodes(out: &mut String, nodes: &BTreeMap<String, Node>) {
    for (at, (name, node)) in nodes.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_text(out, name);
        out.push(':');
        match &node.kind {
            NodeKind::Folder(children) => {
                open_folder(out, &node.path, node.index);
                push_nodes(out, children);
                out.push_str("}}");
            }
            NodeKind::Value(value) => {
                push_node(out, &node.path, node.index, value);
                out.push_str("null}");
            }
        }
    }
}

/// A folder up to its first child.
fn open_folder(out: &mut String, path: &str, index: u64) {
    push_node(out, path, index, "");
    out.push('{');
}

/// A node up to its children.
fn push_node(out: &mut String, path: &str, index: u64, value: &str) {
    out.push_str("{\"Path\":");
    push_text(out, path);
    let _ = write!(
        out,
        ",\"CreatedIndex\":{index},\"ModifiedIndex\":{index},\"ExpireTime\":\"{NEVER}\",\"Value\":"
    );
    push_text(out, value);
    out.push_str(",\"Children\":");
}

/// A list of texts; an empty one is null, as Go's nil is.
fn push_list(out: &mut String, texts: &[String]) {
    if texts.is_empty() {
        return out.push_str("null");
    }
    for (at, text) in texts.iter().enumerate() {
        out.push(if at == 0 { '[' } else { ',' });
        push_text(out, text);
    }
    out.push(']');
}

/// A text in quotes, escaped as Go's encoding/json does it: what HTML or JavaScript could stumble over, too.
fn push_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// The JSON as it is read: what a membership is made of.
#[derive(Deserialize)]
struct Tree {
    #[serde(rename = "Root")]
    root: Folder<RootFolder>,
}

#[derive(Default, Deserialize)]
struct Folder<T> {
    #[serde(rename = "Children")]
    children: T,
}

#[derive(Deserialize)]
struct RootFolder {
    #[serde(rename = "0")]
    cluster: Option<Folder<ClusterFolder>>,
}

#[derive(Deserialize)]
struct ClusterFolder {
    members: Option<Folder<BTreeMap<String, Folder<MemberFolder>>>>,
    removed_members: Option<Folder<BTreeMap<String, serde::de::IgnoredAny>>>,
    version: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberFolder {
    #[serde(rename = "raftAttributes")]
    raft_attributes: Value,
    attributes: Option<Value>,
}

#[derive(Default, Deserialize)]
struct Value {
    #[serde(rename = "Value")]
    value: String,
}

/// What is said of a member, in one value or the other.
#[derive(Default, Deserialize)]
struct Attributes {
    #[serde(rename = "peerURLs")]
    peer_urls: Option<Vec<String>>,
    #[serde(rename = "isLearner", default)]
    is_learner: bool,
    #[serde(default)]
    name: String,
    #[serde(rename = "clientURLs")]
    client_urls: Option<Vec<String>>,
}
