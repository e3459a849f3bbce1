//! Sessions, locks and elections on keys, leases and watches, key for key as etcd's Go package `concurrency`, so that
//! programs that use either share them. (The Lock and Election services are methods of [`Client`].)

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use wire::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use wire::etcdserverpb::range_request::{SortOrder, SortTarget};
use wire::etcdserverpb::request_op::Request;
use wire::etcdserverpb::response_op::Response;
use wire::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RangeResponse, RequestOp,
    ResponseHeader, ResponseOp, TxnRequest, TxnResponse, WatchCreateRequest,
};
use wire::mvccpb::event::EventType;
use wire::mvccpb::{Event, KeyValue};

use crate::channel::TaskGuard;
use crate::{Client, Deadline, Error, Watcher, prefix_range};

/// The time to live of a session that asks for none, seconds.
const TTL_S: i64 = 60;

/// A lease that is kept alive in the background until this is dropped. It is not revoked then: [`Session::close`]
/// does that.
pub struct Session {
    client: Client,
    lease: i64,
    ttl_s: i64,
    /// Its sender is gone when the lease is not kept alive any more.
    kept: watch::Receiver<()>,
    keeper: TaskGuard,
}

impl Session {
    /// A session with a lease of this time to live in seconds, 60 if it is not above zero.
    ///
    /// # Errors
    /// As LeaseGrant.
    pub async fn new(client: &Client, ttl_s: i64) -> Result<Session, Error> {
        let ttl_s = if ttl_s > 0 { ttl_s } else { TTL_S };
        let request = LeaseGrantRequest { ttl: ttl_s, id: 0 };
        let lease = client.grant(request, Deadline::NEVER).await?.id;
        let mut lease_kept = client.keep_alive(lease);
        let (alive, kept) = watch::channel(());
        let keeper = tokio::spawn(async move {
            while lease_kept.next().await.is_some() {}
            drop(alive);
        });
        Ok(Session { client: client.clone(), lease, ttl_s, kept, keeper: TaskGuard(keeper.abort_handle()) })
    }

    /// The id of the lease.
    pub fn lease(&self) -> i64 {
        self.lease
    }

    /// Waits until the lease is over, or may be. Cancel safe.
    pub async fn done(&self) {
        // Nothing is ever sent.
        let _ = self.kept.clone().changed().await;
    }

    /// Ends the session and revokes its lease.
    ///
    /// # Errors
    /// As LeaseRevoke; its deadline is the time to live, after which the lease is over anyway.
    pub async fn close(self) -> Result<(), Error> {
        drop(self.keeper);
        let ttl = Duration::from_secs(self.ttl_s.unsigned_abs());
        self.client.revoke(self.lease, Deadline::after(ttl)).await.map(|_| ())
    }

    /// The key of this session below a prefix.
    fn key(&self, prefix: &[u8]) -> Bytes {
        [prefix, format!("{:x}", self.lease).as_bytes()].concat().into()
    }
}

/// A lock that the oldest of the keys below a prefix holds.
pub struct Mutex<'a> {
    session: &'a Session,
    prefix: Bytes,
    /// This one's key and the revision of its creation, once it is in the queue.
    place: Option<(Bytes, i64)>,
    header: ResponseHeader,
}

impl<'a> Mutex<'a> {
    /// The lock of this name.
    pub fn new(session: &'a Session, name: &[u8]) -> Self {
        Mutex { session, prefix: below(name), place: None, header: ResponseHeader::default() }
    }

    /// Takes the lock; waits for it. When it is dropped the place in the queue remains: [`Mutex::unlock`] gives it up.
    ///
    /// # Errors
    /// As the calls that it takes; [`Error::SessionExpired`] if the key is gone when its turn has come.
    pub async fn lock(&mut self) -> Result<(), Error> {
        let client = &self.session.client;
        let key = self.session.key(&self.prefix);
        let get = || range(RangeRequest { key: key.clone(), ..RangeRequest::default() });
        let owner = || range(by_creation(&self.prefix, SortOrder::Ascend));
        let answer = client
            .txn(
                TxnRequest {
                    compare: vec![created_at(&key, 0)],
                    success: vec![put(&key, Bytes::new(), self.session.lease), owner()],
                    failure: vec![get(), owner()],
                },
                Deadline::NEVER,
            )
            .await?;
        let revision = creation(&answer);
        self.place = Some((key.clone(), revision));
        let owner = answer.responses.into_iter().nth(1).and_then(first_pair);
        if owner.is_none_or(|owner| owner.create_revision == revision) {
            self.header = answer.header.unwrap_or_default();
            return Ok(());
        }
        let waited = async {
            wait_deletes(client, &self.prefix, revision - 1).await?;
            client.range(RangeRequest { key, ..RangeRequest::default() }, Deadline::NEVER).await
        };
        match waited.await {
            Ok(own) if own.kvs.is_empty() => Err(Error::SessionExpired),
            Ok(own) => {
                self.header = own.header.unwrap_or_default();
                Ok(())
            }
            Err(error) => {
                // Why it failed is the error; the key goes with the lease at the latest.
                let _ = self.unlock().await;
                Err(error)
            }
        }
    }

    /// Gives the lock up, or the place in the queue.
    ///
    /// # Errors
    /// As DeleteRange; [`Error::NotLocked`].
    pub async fn unlock(&mut self) -> Result<(), Error> {
        let Some((key, _)) = &self.place else { return Err(Error::NotLocked) };
        let request = DeleteRangeRequest { key: key.clone(), ..DeleteRangeRequest::default() };
        self.session.client.delete_range(request, Deadline::NEVER).await?;
        self.place = None;
        Ok(())
    }

    /// The key that holds the lock, or waits for it.
    pub fn key(&self) -> Option<&Bytes> {
        self.place.as_ref().map(|(key, _)| key)
    }

    /// The header of the answer with which the lock was taken.
    pub fn header(&self) -> &ResponseHeader {
        &self.header
    }
}

/// An election whose leader is the oldest of the keys below a prefix.
pub struct Election<'a> {
    session: &'a Session,
    prefix: Bytes,
    /// This one's key and the revision of its creation, once it is a candidate.
    place: Option<(Bytes, i64)>,
}

impl<'a> Election<'a> {
    /// The election of this name.
    pub fn new(session: &'a Session, name: &[u8]) -> Self {
        Election { session, prefix: below(name), place: None }
    }

    /// Becomes a candidate with this value and waits to be elected. When it is dropped the candidacy remains:
    /// [`Election::resign`] gives it up.
    ///
    /// # Errors
    /// As the calls that it takes.
    pub async fn campaign(&mut self, value: Bytes) -> Result<(), Error> {
        let client = &self.session.client;
        let key = self.session.key(&self.prefix);
        let answer = client
            .txn(
                TxnRequest {
                    compare: vec![created_at(&key, 0)],
                    success: vec![put(&key, value.clone(), self.session.lease)],
                    failure: vec![range(RangeRequest { key: key.clone(), ..RangeRequest::default() })],
                },
                Deadline::NEVER,
            )
            .await?;
        let revision = creation(&answer);
        self.place = Some((key, revision));
        let own = answer.responses.into_iter().next().and_then(first_pair);
        if own.is_some_and(|own| own.value != value)
            && let Err(error) = self.proclaim(value).await
        {
            // Why it failed is the error.
            let _ = self.resign().await;
            return Err(error);
        }
        wait_deletes(client, &self.prefix, revision - 1).await
    }

    /// Gives the leader, or candidate, another value.
    ///
    /// # Errors
    /// As Txn; [`Error::NotElected`].
    pub async fn proclaim(&mut self, value: Bytes) -> Result<(), Error> {
        let Some((key, revision)) = &self.place else { return Err(Error::NotElected) };
        let txn = TxnRequest {
            compare: vec![created_at(key, *revision)],
            success: vec![put(key, value, self.session.lease)],
            failure: Vec::new(),
        };
        if !self.session.client.txn(txn, Deadline::NEVER).await?.succeeded {
            self.place = None;
            return Err(Error::NotElected);
        }
        Ok(())
    }

    /// Ends the leadership or the candidacy, if there is one.
    ///
    /// # Errors
    /// As Txn.
    pub async fn resign(&mut self) -> Result<(), Error> {
        let Some((key, revision)) = self.place.take() else { return Ok(()) };
        let delete = DeleteRangeRequest { key: key.clone(), ..DeleteRangeRequest::default() };
        let txn = TxnRequest {
            compare: vec![created_at(&key, revision)],
            success: vec![RequestOp { request: Some(Request::RequestDeleteRange(delete)) }],
            failure: Vec::new(),
        };
        self.session.client.txn(txn, Deadline::NEVER).await.map(|_| ())
    }

    /// The leader's key, in an answer to a range.
    ///
    /// # Errors
    /// As Range; [`Error::NobodyElected`].
    pub async fn leader(&self) -> Result<RangeResponse, Error> {
        let request = by_creation(&self.prefix, SortOrder::Ascend);
        let answer = self.session.client.range(request, Deadline::NEVER).await?;
        if answer.kvs.is_empty() { Err(Error::NobodyElected) } else { Ok(answer) }
    }

    /// The leaders and what they proclaim, one after the other.
    pub fn observe(&self) -> Observer {
        Observer {
            client: self.session.client.clone(),
            prefix: self.prefix.clone(),
            state: Observing::Unknown,
            ready: VecDeque::new(),
        }
    }

    /// The key of this candidate.
    pub fn key(&self) -> Option<&Bytes> {
        self.place.as_ref().map(|(key, _)| key)
    }
}

/// Sees each leader of an election and what it proclaims, in their order; not every one that led for a moment, but always
/// the newest.
pub struct Observer {
    client: Client,
    prefix: Bytes,
    state: Observing,
    /// What is to be given out: what one answer of the watch held.
    ready: VecDeque<RangeResponse>,
}

enum Observing {
    /// Whoever leads is to be asked for.
    Unknown,
    /// Nobody leads; the first candidate will.
    Candidates(Watcher),
    /// The leader's key is watched.
    Leader(Watcher),
}

impl Observer {
    /// The next leader, or the next value of the same one, as an answer to a range with its key. Cancel safe.
    ///
    /// # Errors
    /// As the calls that it takes, and why its watch has ended.
    pub async fn next(&mut self) -> Result<RangeResponse, Error> {
        loop {
            if let Some(next) = self.ready.pop_front() {
                return Ok(next);
            }
            let watcher = match &mut self.state {
                Observing::Unknown => {
                    self.ask().await?;
                    continue;
                }
                Observing::Candidates(watcher) | Observing::Leader(watcher) => watcher,
            };
            let watched = watcher.next().await.ok_or(Error::WatchLost)?;
            if let Some(end) = watched.end {
                return Err(end);
            }
            let header = watched.response.header.unwrap_or_default();
            self.see(header, watched.response.events)?;
        }
    }

    async fn ask(&mut self) -> Result<(), Error> {
        let request = by_creation(&self.prefix, SortOrder::Ascend);
        let answer = self.client.range(request, Deadline::NEVER).await?;
        let header = answer.header.unwrap_or_default();
        match answer.kvs.into_iter().next() {
            Some(leader) => self.follow(header, leader),
            None => {
                let (key, range_end) = prefix_range(&self.prefix);
                let start_revision = header.revision;
                let request =
                    WatchCreateRequest { key, range_end, start_revision, ..WatchCreateRequest::default() };
                self.state = Observing::Candidates(watch_of(&self.client, request)?);
                Ok(())
            }
        }
    }

    fn see(&mut self, header: ResponseHeader, events: Vec<Event>) -> Result<(), Error> {
        let puts = events.into_iter().map(|event| match event.r#type() {
            EventType::Put => event.kv,
            EventType::Delete => None,
        });
        if let Observing::Candidates(_) = self.state {
            return match puts.flatten().next() {
                Some(leader) => {
                    self.follow(ResponseHeader { revision: leader.mod_revision, ..header }, leader)
                }
                None => Ok(()),
            };
        }
        for put in puts {
            let Some(leader) = put else {
                self.state = Observing::Unknown;
                break;
            };
            self.ready.push_back(said(header, leader));
        }
        Ok(())
    }

    /// Gives out a leader as it was at the header's revision, and watches what comes after.
    fn follow(&mut self, header: ResponseHeader, leader: KeyValue) -> Result<(), Error> {
        let key = leader.key.clone();
        let start_revision = header.revision + 1;
        let request = WatchCreateRequest { key, start_revision, ..WatchCreateRequest::default() };
        self.state = Observing::Leader(watch_of(&self.client, request)?);
        self.ready.push_back(said(header, leader));
        Ok(())
    }
}

fn said(header: ResponseHeader, leader: KeyValue) -> RangeResponse {
    RangeResponse { header: Some(header), kvs: vec![leader], ..RangeResponse::default() }
}

/// Waits until every key below the prefix that was created up to this revision is deleted: watches the newest of them,
/// and then the newest of those that are left.
async fn wait_deletes(client: &Client, prefix: &[u8], created_max: i64) -> Result<(), Error> {
    loop {
        let request =
            RangeRequest { max_create_revision: created_max, ..by_creation(prefix, SortOrder::Descend) };
        let answer = client.range(request, Deadline::NEVER).await?;
        let Some(newest) = answer.kvs.into_iter().next() else { return Ok(()) };
        let start_revision = answer.header.unwrap_or_default().revision;
        let request = WatchCreateRequest { key: newest.key, start_revision, ..WatchCreateRequest::default() };
        let mut watcher = watch_of(client, request)?;
        loop {
            let watched = watcher.next().await.ok_or(Error::WatchLost)?;
            if watched.response.events.iter().any(|event| event.r#type() == EventType::Delete) {
                break;
            }
            if let Some(end) = watched.end {
                return Err(end);
            }
        }
    }
}

fn watch_of(client: &Client, request: WatchCreateRequest) -> Result<Watcher, Error> {
    let mut watcher = client.watcher(false);
    watcher.watch(request)?;
    Ok(watcher)
}

/// Below the prefix that a name stands for.
fn below(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// The first key below a prefix in the order of creation, from either end.
fn by_creation(prefix: &[u8], order: SortOrder) -> RangeRequest {
    let (key, range_end) = prefix_range(prefix);
    RangeRequest {
        key,
        range_end,
        limit: 1,
        sort_order: order.into(),
        sort_target: SortTarget::Create.into(),
        ..RangeRequest::default()
    }
}

fn created_at(key: &Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
    }
}

fn put(key: &Bytes, value: Bytes, lease: i64) -> RequestOp {
    let put = PutRequest { key: key.clone(), value, lease, ..PutRequest::default() };
    RequestOp { request: Some(Request::RequestPut(put)) }
}

fn range(request: RangeRequest) -> RequestOp {
    RequestOp { request: Some(Request::RequestRange(request)) }
}

/// When a key was created that a transaction has put, or else has read first.
fn creation(answer: &TxnResponse) -> i64 {
    let header = answer.header.unwrap_or_default();
    let found = answer.responses.first().and_then(|op| match &op.response {
        Some(Response::ResponseRange(range)) => range.kvs.first(),
        _ => None,
    });
    found.filter(|_| !answer.succeeded).map_or(header.revision, |kv| kv.create_revision)
}

fn first_pair(op: ResponseOp) -> Option<KeyValue> {
    match op.response {
        Some(Response::ResponseRange(range)) => range.kvs.into_iter().next(),
        _ => None,
    }
}
