//! What must hold, whatever happened: every answer and every restart against the model.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use raft::Entry;
use store::request::Range;
use store::{Answer, ReadMode, Reader};
use wire::Status;
use wire::etcdserverpb::{
    AuthStatusResponse, DeleteRangeResponse, InternalRaftRequest, LeaseGrantResponse, PutResponse,
    RangeResponse, TxnResponse,
};
use wire::mvccpb::KeyValue;

use crate::model::{Expected, Model, Tables};
use crate::users::Users;

/// What came of a request, as far as its client knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Submitted, and no answer yet: it may happen, or not, but only once.
    Open,
    /// Answered as done.
    Done,
    /// Refused before the log: it must never happen.
    Refused,
    /// The member died first: it may have happened, or not, but only once.
    Unknown,
}

/// What a request is refused with before it is in any log.
const REFUSALS: [wire::ApiError; 4] = [
    wire::ApiError::NoSpace,
    wire::ApiError::TooManyRequests,
    wire::ApiError::ProposalDropped,
    wire::ApiError::ContextDeadlineExceeded,
];

/// The history of the log, and of what clients were told.
#[derive(Default)]
pub struct Checker {
    /// Every request ever submitted.
    pub requests: BTreeMap<u64, Fate>,
    /// Every entry ever applied: index → term and data. Applied again after a restart, it must be the same.
    log: BTreeMap<u64, (u64, Vec<u8>)>,
    /// Where each request stands in the log.
    places: BTreeMap<u64, u64>,
    /// What each request at an index must answer, and the state behind it.
    expected: BTreeMap<u64, (i64, Result<Expected, wire::ApiError>)>,
    model: Model,
    /// What the model shows after each entry, by index.
    tables: BTreeMap<u64, Tables>,
    /// HashKV by current and compacted revision: it is a function of replicated data alone (rule 11).
    hashes: BTreeMap<(i64, i64), u32>,
    /// The highest index whose result a client has seen.
    seen_index: u64,
    /// For each request, the highest index whose result a client had seen when it was submitted.
    submitted_after: BTreeMap<u64, u64>,
    pub answers: u64,
}

impl Checker {
    /// The applier was handed this entry. Whether it was for the first time.
    pub fn applied(&mut self, entry: &Entry) -> bool {
        let index = entry.index.0;
        let data = entry.data.to_vec();
        if let Some((term, known)) = self.log.get(&index) {
            assert_eq!((entry.term.0, &data), (*term, known), "entry {index} is not what was applied before");
            return false;
        }
        let next = self.log.last_key_value().map_or(1, |(last, _)| last + 1);
        assert_eq!(index, next, "entries are applied without a gap");
        self.log.insert(index, (entry.term.0, data));
        let request = match entry.kind {
            raft::EntryKind::Normal => {
                InternalRaftRequest::decode(entry.data.clone()).expect("a request of ours")
            }
            _ => InternalRaftRequest::default(),
        };
        if let Some(header) = &request.header
            && let Some(fate) = self.requests.get(&header.id)
        {
            assert_ne!(*fate, Fate::Refused, "request {:x} was refused and is applied at {index}", header.id);
            let after = self.submitted_after.get(&header.id).copied().unwrap_or(0);
            assert!(index > after, "request {:x} is at {index}, and {after} was seen before it", header.id);
            let earlier = self.places.insert(header.id, index);
            assert_eq!(earlier, None, "request {:x} is applied twice, at {index} too", header.id);
        }
        let expected = self.model.apply(&request);
        self.expected.insert(index, expected);
        self.tables.insert(index, self.model.tables());
        true
    }

    /// A client submits a request: what anybody has seen by now comes before it.
    pub fn submitted(&mut self, id: u64) {
        self.requests.insert(id, Fate::Open);
        self.submitted_after.insert(id, self.seen_index);
    }

    /// The highest index whose result a client has seen.
    pub fn seen_index(&self) -> u64 {
        self.seen_index
    }

    /// A client has read everything up to this entry.
    pub fn seen(&mut self, index: u64) {
        self.seen_index = self.seen_index.max(index);
    }

    /// The newest revision anywhere.
    pub fn revision(&self) -> i64 {
        self.model.tables().revision
    }

    /// What a revision has changed: the pairs that it put, and the keys that it deleted, each in order.
    pub fn changes(&self, revision: i64) -> (Vec<KeyValue>, Vec<Bytes>) {
        let at = |revision| {
            self.model.at(revision).unwrap_or_else(|| panic!("no revision {revision} in the model"))
        };
        let (before, after) = (at(revision - 1), at(revision));
        let puts = after.values().filter(|pair| pair.mod_revision == revision).cloned().collect();
        let deleted = before.keys().filter(|key| !after.contains_key(*key)).cloned().collect();
        (puts, deleted)
    }

    /// The last entry that any member has applied.
    pub fn last_index(&self) -> u64 {
        self.log.last_key_value().map_or(0, |(last, _)| *last)
    }

    /// Whether what a member shows, with everything applied up to this entry and nothing more, is what it must be. False if
    /// it could not be read.
    pub fn shows(&mut self, reader: &Reader, applied_index: u64) -> bool {
        let tables = self.tables.get(&applied_index).cloned().unwrap_or_else(|| Model::default().tables());
        assert_eq!(shown(reader), tables, "revisions and leases at entry {applied_index}");
        self.compare(reader)
    }

    /// The leases behind the last entry ever applied, with their TTLs in seconds.
    pub fn leases(&self) -> BTreeMap<i64, i64> {
        self.model.tables().leases
    }

    /// A client got its answer.
    pub fn answered(&mut self, id: u64, result: &Result<Answer, Status>) {
        self.answers += 1;
        let Some(fate) = self.requests.get_mut(&id) else {
            panic!("an answer to {id:x}, which nobody asked")
        };
        assert_eq!(*fate, Fate::Open, "request {id:x} is answered twice");
        let place = self.places.get(&id).copied();
        match (result, place) {
            (Err(status), None) => {
                assert!(
                    REFUSALS.iter().any(|refusal| refusal.text() == status.message),
                    "request {id:x} is refused with {status}"
                );
                *fate = Fate::Refused;
            }
            (result, Some(index)) => {
                *fate = Fate::Done;
                self.seen_index = self.seen_index.max(index);
                let (revision, expected) = &self.expected[&index];
                match (result, expected) {
                    (Ok(answer), Ok(expected)) => {
                        assert_eq!(
                            answer.revision, *revision,
                            "header revision of the answer to entry {index}"
                        );
                        assert_body(&answer.body, expected, index);
                    }
                    (Err(status), Err(error)) => assert_eq!(status.message, error.text()),
                    other => panic!("entry {index}: the member and the model differ: {other:?}"),
                }
            }
            (Ok(_), None) => panic!("request {id:x} is answered and was never applied"),
        }
    }

    /// The member is gone: what was under way is unknown to its clients.
    pub fn died(&mut self) {
        for fate in self.requests.values_mut().filter(|fate| **fate == Fate::Open) {
            *fate = Fate::Unknown;
        }
    }

    /// The member is open again, and has applied up to `applied_index`: what it holds must be the model's state
    /// there, and its log must still hold all that was acknowledged. False if that could not be read.
    pub fn restarted(&mut self, reader: &Reader, applied_index: u64, last_index: u64) -> bool {
        assert!(
            last_index >= self.seen_index,
            "the log ends at {last_index}, and a client has seen the result of {}",
            self.seen_index
        );
        assert!(
            applied_index <= last_index,
            "applied {applied_index} is ahead of the log's end {last_index}"
        );
        self.shows(reader, applied_index)
    }

    /// Whether nothing was ever applied.
    pub fn is_new(&self) -> bool {
        self.log.is_empty()
    }

    /// A linearizable read that was asked for when clients had seen `seen_before` is served now. False if it failed.
    pub fn read(&mut self, reader: &Reader, seen_before: i64) -> bool {
        assert!(
            reader.revision() >= seen_before,
            "a read at {} after an answer of {seen_before}",
            reader.revision()
        );
        self.compare(reader)
    }

    /// The highest revision that a client has seen.
    pub fn seen_revision(&self) -> i64 {
        self.tables.get(&self.seen_index).map_or(1, |tables| tables.revision)
    }

    /// Everything that the member holds, at the newest and at older revisions, against the model; and its hash against
    /// that of earlier runs. False if it could not be read.
    pub fn compare(&mut self, reader: &Reader) -> bool {
        let Tables { revision: newest, compacted, leases, users: _ } = shown(reader);
        for revision in [newest, (newest + 1) / 2, compacted, compacted - 1] {
            if revision < 1 {
                continue;
            }
            let request = Range { key: b"\0", range_end: b"\0", revision, ..Default::default() };
            let mut body = Vec::new();
            let read = reader.range(&request, ReadMode::MayBlock, &mut body);
            if revision < compacted {
                assert_eq!(read, Err(wire::ApiError::Compacted.into()), "revision {revision} is compacted");
                continue;
            }
            let Ok(header) = read else { return false };
            assert_eq!(header, newest, "a header shows the newest revision");
            let answer = RangeResponse::decode(body.as_slice()).expect("an encoded answer");
            let pairs =
                self.model.at(revision).unwrap_or_else(|| panic!("no revision {revision} in the model"));
            let expected: Vec<_> = pairs.values().cloned().collect();
            assert_eq!(answer.kvs, expected, "all pairs at revision {revision}");
            assert_eq!(answer.count, expected.len() as i64);
        }
        let pairs = self.model.at(newest).unwrap_or_else(|| panic!("no revision {newest} in the model"));
        for id in leases.keys() {
            let attached: Vec<Vec<u8>> =
                pairs.values().filter(|pair| pair.lease == *id).map(|pair| pair.key.to_vec()).collect();
            assert_eq!(reader.lease_keys(*id), attached, "keys of lease {id}");
        }
        let Ok((hash, _)) = reader.hash_kv(0) else { return false };
        let known = *self.hashes.entry((newest, compacted)).or_insert(hash.hash);
        assert_eq!(hash.hash, known, "HashKV at {newest}, compacted {compacted}");
        true
    }
}

/// What a reader shows beside the pairs.
fn shown(reader: &Reader) -> Tables {
    Tables {
        revision: reader.revision(),
        compacted: reader.compacted(),
        leases: reader.leases().into_iter().map(|(id, times)| (id, times.granted_ttl_s)).collect(),
        users: Users::shown(&reader.auth()),
    }
}

fn assert_body(body: &[u8], expected: &Expected, index: u64) {
    match expected {
        Expected::Put(expected) => assert_eq!(&decode::<PutResponse>(body), expected, "entry {index}"),
        Expected::Delete(expected) => {
            assert_eq!(&decode::<DeleteRangeResponse>(body), expected, "entry {index}")
        }
        Expected::Txn(expected) => assert_eq!(&decode::<TxnResponse>(body), expected, "entry {index}"),
        Expected::Grant(expected) => {
            assert_eq!(&decode::<LeaseGrantResponse>(body), expected, "entry {index}")
        }
        Expected::AuthStatus(enabled, auth_revision) => {
            let (enabled, auth_revision) = (*enabled, *auth_revision);
            let expected = AuthStatusResponse { header: None, enabled, auth_revision };
            assert_eq!(decode::<AuthStatusResponse>(body), expected, "entry {index}")
        }
        Expected::Header => assert!(body.is_empty(), "entry {index}"),
        Expected::None => panic!("entry {index} is nobody's request and was answered"),
    }
}

fn decode<M: Message + Default>(body: &[u8]) -> M {
    M::decode(body).expect("an encoded answer")
}
