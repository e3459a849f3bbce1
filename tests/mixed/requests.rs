//! Requests of clients, random ones among them, and what is compared of their answers.

use blackbox::{Random, patience};
use client::{Client, Error};
use prost::Message;
use wire::etcdserverpb::range_request::SortTarget;
use wire::etcdserverpb::watch_request::RequestUnion;
use wire::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RangeResponse,
    ResponseHeader, TxnRequest, WatchCreateRequest, WatchRequest,
};
use wire::mvccpb::KeyValue;

use crate::users::Auth;

const LEASES: u64 = 4;
const TTL_S: i64 = 10_000;

/// What comes of a call of a client, where that is an answer with a header.
macro_rules! answer {
    ($call:expr) => {{
        let mut answer = $call.await?;
        Answer::new(answer.header.take(), answer)
    }};
}
pub(crate) use answer;

/// A request of a client.
#[derive(Clone, Debug)]
pub enum Request {
    Range(RangeRequest),
    RangeStream(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    Grant(LeaseGrantRequest),
    Revoke(i64),
    TimeToLive(i64),
    KeepAlive(i64),
    Leases,
    HashKv(i64),
    Alarms,
    Defragment,
    /// Of which only the first answer is looked at.
    Watch(WatchCreateRequest),
    Auth(Auth),
}

impl Request {
    /// One of keys, leases or the store; `revision`: about the newest one.
    pub fn random(random: &mut Random, revision: i64) -> Self {
        let lease = |random: &mut Random| 1 + random.below(LEASES) as i64;
        match random.below(24) {
            0..8 => {
                let lease = if random.one_in(5) { lease(random) } else { 0 };
                let put = random.put();
                let (ignore_value, ignore_lease) = (random.one_in(12), random.one_in(12));
                let value = if ignore_value && !random.one_in(3) { "".into() } else { put.value };
                Request::Put(PutRequest { lease, value, ignore_value, ignore_lease, ..put })
            }
            8..10 => Request::Delete(random.delete()),
            10..14 => Request::Txn(random.txn(0)),
            14..18 => Request::Range(random.range(revision)),
            18 => Request::RangeStream(random.range(revision)),
            19 => Request::Grant(LeaseGrantRequest { id: lease(random), ttl: TTL_S }),
            20 => Request::Revoke(lease(random)),
            21 if random.one_in(4) => {
                let revision = random.below(revision as u64 + 2) as i64;
                Request::Compact(CompactionRequest { revision, physical: true })
            }
            21 => Request::Leases,
            22 => Request::HashKv(random.below(revision as u64 + 2) as i64),
            _ => Request::TimeToLive(lease(random)),
        }
    }

    /// What is compared of what comes of it.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn outcome(&self, client: &Client) -> Result<Answer, String> {
        self.send(client).await.map_err(|error| {
            assert!(matches!(error, Error::Status(_)), "{error}: {self:?}");
            format!("{:?}: {error}", error.code())
        })
    }

    /// Sends it as this client's user.
    async fn send(&self, client: &Client) -> Result<Answer, Error> {
        let at = patience();
        Ok(match self.clone() {
            Request::Range(request) => Answer::of_range(&request, client.range(request.clone(), at).await?),
            Request::RangeStream(request) => {
                Answer::of_range(&request, client.range_stream(request.clone(), at).await?)
            }
            Request::Put(request) => answer!(client.put(request, at)),
            Request::Delete(request) => answer!(client.delete_range(request, at)),
            Request::Txn(request) => answer!(client.txn(request, at)),
            Request::Compact(request) => answer!(client.compact(request, at)),
            Request::Grant(request) => answer!(client.grant(request, at)),
            Request::Revoke(id) => answer!(client.revoke(id, at)),
            Request::TimeToLive(id) => {
                let mut answer = client.time_to_live(id, true, at).await?;
                // Both clocks run.
                answer.ttl = if answer.ttl > TTL_S - 1_000 { TTL_S } else { answer.ttl };
                answer.keys.sort();
                Answer::new(answer.header.take(), answer)
            }
            Request::Leases => {
                let mut answer = client.leases(at).await?;
                answer.leases.sort_by_key(|lease| lease.id);
                Answer::new(answer.header.take(), answer)
            }
            Request::HashKv(revision) => answer!(client.hash_kv(revision, at)),
            Request::KeepAlive(id) => answer!(client.keep_alive_once(id, at)),
            Request::Alarms => answer!(client.alarms(at)),
            Request::Defragment => answer!(client.defragment(at)),
            Request::Watch(request) => first_of_watch(request, client).await?,
            Request::Auth(request) => request.send(client).await?,
        })
    }
}

/// What is compared of an answer: all of it, but who has given it in which term.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// Of its header; -1 without one.
    pub revision: i64,
    /// Of all else.
    pub text: String,
}

impl Answer {
    pub fn new(header: Option<ResponseHeader>, answer: impl Message + std::fmt::Debug) -> Self {
        Answer { revision: header.map_or(-1, |header| header.revision), text: format!("{answer:?}") }
    }

    /// Pairs that are equal by what they are sorted by come in any order; those that a limit has cut off there, too.
    fn of_range(request: &RangeRequest, mut answer: RangeResponse) -> Self {
        let header = answer.header.take();
        let target = SortTarget::try_from(request.sort_target).unwrap_or(SortTarget::Key);
        if target == SortTarget::Key {
            return Answer::new(header, answer);
        }
        let by = |kv: &KeyValue| match target {
            SortTarget::Key => kv.key.to_vec(),
            SortTarget::Version => kv.version.to_be_bytes().to_vec(),
            SortTarget::Create => kv.create_revision.to_be_bytes().to_vec(),
            SortTarget::Mod => kv.mod_revision.to_be_bytes().to_vec(),
            // It is there when the pairs are sorted, and then dropped.
            SortTarget::Value if request.keys_only => Vec::new(),
            SortTarget::Value => kv.value.to_vec(),
        };
        let order: Vec<Vec<u8>> = answer.kvs.iter().map(by).collect();
        let is_whole = request.limit == 0 || !answer.more;
        let mut kvs = std::mem::take(&mut answer.kvs);
        kvs.sort_by(|one, other| one.key.cmp(&other.key));
        let pairs = if is_whole { format!("{kvs:?}") } else { "cut".to_owned() };
        let order = if is_whole || !request.keys_only { format!("{order:?}") } else { "unknown".to_owned() };
        let mut compared = Answer::new(header, answer);
        compared.text += &format!(" in the order of {order}: {pairs}");
        compared
    }
}

/// Whether a watch is made, and why not.
async fn first_of_watch(request: WatchCreateRequest, client: &Client) -> Result<Answer, Error> {
    let mut stream = client.watch_stream(false);
    stream.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(request)) }).await?;
    let mut answer = stream.next().await?.expect("an answer");
    Ok(Answer::new(answer.header.take(), answer))
}

impl From<Auth> for Request {
    fn from(request: Auth) -> Self {
        Request::Auth(request)
    }
}
