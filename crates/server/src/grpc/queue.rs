//! What locks and elections are made of: keys below a name, one for each lease, in a queue by their creation. Key for
//! key as etcd's Go package `concurrency`, so that its users and those of the services stand in the same queues.
//!
//! Everything is asked of this thread's lane, with proposals, reads of the local store and watches, as any client asks.
//! Who waits watches the place before its own and nothing else, so an end wakes one call however many wait.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use store::request::Txn;
use store::{ReadFailure, ReadMode, admission};
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::Instant;
use wire::etcdserverpb as pb;
use wire::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use wire::etcdserverpb::range_request::{SortOrder, SortTarget};
use wire::etcdserverpb::request_op::Request;
use wire::etcdserverpb::response_op::Response;
use wire::etcdserverpb::watch_create_request::FilterType;
use wire::mvccpb::KeyValue;
use wire::{ApiError, Code, Status};

use super::Shared;
use super::answer::{self, Held, PREFIX_BYTES};
use super::elsewhere::Elsewhere;
use super::kv::{Read, count_ranges, read_status, undecodable};
use super::lease::encode_grant;
use super::member::OverQuota;
use super::task::By;
use super::turns::Length;
use crate::lane::WatchStream;

/// The time to live of a lease that is granted to a caller without one, seconds (etcd: session.go).
const SESSION_TTL_S: i64 = 60;

/// What is said to a caller who may not do something, or whose token is too old for it; the latter may pass.
const REFUSALS: [ApiError; 4] =
    [ApiError::PermissionDenied, ApiError::InvalidAuthToken, ApiError::UserEmpty, ApiError::AuthOldRevision];
/// After how many of these a place is left to its lease.
const REFUSALS_MAX: u32 = 5;

/// How soon it is tried again what a member without a leader did not take.
const RETRY: Duration = Duration::from_millis(200);

/// The queue of one name.
#[derive(Clone)]
pub(super) struct Queue {
    by: By,
    /// The name and a slash.
    prefix: Bytes,
}

/// One lease's place in a queue, for the call that holds it.
///
/// Where the call ends and its client was told nothing, the place is given up if the call was waiting, or if its lease
/// is its own, which nobody else knows. Else it stays until the lease ends, as in etcd: the client may have asked again
/// with the same lease, and that call may have found the place and been told that it is the first one.
pub(super) struct Place {
    by: By,
    /// Its key.
    pub(super) key: Bytes,
    /// The revision at which it was taken.
    pub(super) created: i64,
    /// The one before it when it was taken, and the header that this was read with.
    before: Option<(pb::ResponseHeader, KeyValue)>,
    gives_up: bool,
    /// Its lease was granted for this call.
    is_own_lease: bool,
}

/// A place and what was found there.
pub(super) struct Entered {
    /// The place.
    pub(super) place: Place,
    /// Of the transaction that took it.
    pub(super) header: pb::ResponseHeader,
    /// The value, if the lease had the place before.
    pub(super) found: Option<Bytes>,
}

/// How a place came to be the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It was, as soon as it was taken.
    AtOnce,
    /// It has waited, and is still there as of this header.
    Waited(pb::ResponseHeader),
    /// It has waited, and is gone: its lease has ended.
    Lost,
}

impl Place {
    /// The caller has been told that the place is its own.
    pub(super) fn keep(mut self) {
        self.gives_up = false;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.gives_up {
            let (by, key) = (self.by.clone(), std::mem::take(&mut self.key));
            spawn_local(give_up(by, key, self.created));
        }
    }
}

/// Deletes a key, if it is still the one that was created then. Nobody else may do it before the lease ends, and all
/// behind it wait, so it is tried until the member has taken it; unless the caller is none any more who may.
async fn give_up(by: By, key: Bytes, created: i64) {
    let mut refusals = 0;
    while let Err(status) = txn(&by, delete_created(&key, created)).await {
        refusals += u32::from(REFUSALS.into_iter().any(|error| status == error.into()));
        if status == ApiError::Stopped.into() || refusals >= REFUSALS_MAX {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Deletes a key that was created at this revision.
pub(super) fn delete_created(key: &Bytes, created: i64) -> pb::TxnRequest {
    let delete = pb::DeleteRangeRequest { key: key.clone(), ..Default::default() };
    let delete = pb::RequestOp { request: Some(Request::RequestDeleteRange(delete)) };
    pb::TxnRequest { compare: vec![created_at(key, created)], success: vec![delete], failure: Vec::new() }
}

/// Gives a key that was created at this revision another value.
pub(super) fn put_created(key: &Bytes, created: i64, value: Bytes, lease: i64) -> pb::TxnRequest {
    let success = vec![put(key, value, lease)];
    pb::TxnRequest { compare: vec![created_at(key, created)], success, failure: Vec::new() }
}

fn created_at(key: &Bytes, revision: i64) -> pb::Compare {
    pb::Compare {
        key: key.clone(),
        target: CompareTarget::Create.into(),
        result: CompareResult::Equal.into(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Default::default()
    }
}

fn put(key: &Bytes, value: Bytes, lease: i64) -> pb::RequestOp {
    let put = pb::PutRequest { key: key.clone(), value, lease, ..Default::default() };
    pb::RequestOp { request: Some(Request::RequestPut(put)) }
}

impl Queue {
    /// The queue of this name.
    pub(super) fn of(by: &By, name: &[u8]) -> Queue {
        Queue { by: by.clone(), prefix: [name, b"/"].concat().into() }
    }

    /// Takes a place for a lease, or finds the one that it has.
    pub(super) async fn enter(&self, session: Session, value: Bytes) -> Result<Entered, Status> {
        let (reply, entered) = oneshot::channel();
        let queue = self.clone();
        // In a task of its own, so that it is known how it ended: an answer that nobody takes is dropped, and so is the
        // place in it.
        spawn_local(async move { drop(reply.send(queue.take_place(session, value).await)) });
        entered.await.map_err(|_| Status::from(ApiError::Stopped))?
    }

    async fn take_place(&self, session: Session, value: Bytes) -> Result<Entered, Status> {
        let key = self.key(session.lease);
        let own = pb::RangeRequest { key: key.clone(), ..Default::default() };
        let own = pb::RequestOp { request: Some(Request::RequestRange(own)) };
        let request = pb::TxnRequest {
            compare: vec![created_at(&key, 0)],
            success: vec![put(&key, value, session.lease)],
            failure: vec![own],
        };
        let answer = txn(&self.by, request).await?;
        let header = answer.header.unwrap_or_default();
        let found = answer.responses.into_iter().find_map(|response| match response.response {
            Some(Response::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        });
        let created = found.as_ref().map_or(header.revision, |own| own.create_revision);
        let (by, is_own_lease) = (self.by.clone(), session.is_own);
        let mut place = Place { by, key, created, before: None, gives_up: is_own_lease, is_own_lease };
        place.before = self.before(created).await?;
        // As in etcd, also if another call has taken it: who stops waiting leaves the queue.
        place.gives_up |= place.before.is_some();
        Ok(Entered { place, header, found: found.map(|own| own.value) })
    }

    /// The place before one that was created at this revision, if there is any, and the header that it was read with. What
    /// this member has applied holds all earlier places: it has applied the one that was taken after them.
    async fn before(&self, created: i64) -> Result<Option<(pb::ResponseHeader, KeyValue)>, Status> {
        let earlier = pb::RangeRequest {
            max_create_revision: created - 1,
            // The keys alone are in memory.
            keys_only: true,
            ..self.by_creation(SortOrder::Descend)
        };
        let (header, before) = first(read(&self.by, &earlier).await?);
        Ok(before.map(|before| (header, before)))
    }

    /// The key of a lease, as Go's `%x` has its number.
    fn key(&self, lease: i64) -> Bytes {
        let sign = if lease < 0 { "-" } else { "" };
        [&self.prefix[..], format!("{sign}{:x}", lease.unsigned_abs()).as_bytes()].concat().into()
    }

    /// Waits until a place that was just taken is the first one of its queue.
    pub(super) async fn wait_turn(&self, place: &mut Place) -> Result<Turn, Status> {
        let mut next = place.before.take();
        if next.is_none() {
            return Ok(Turn::AtOnce);
        }
        while let Some((header, before)) = next {
            self.deleted(before.key, header.revision).await?;
            next = self.before(place.created).await?;
        }
        // It may have been lost as long as it waited.
        linearizable(&self.by.front).await?;
        let own = pb::RangeRequest { key: place.key.clone(), keys_only: true, ..Default::default() };
        Ok(match first(read(&self.by, &own).await?) {
            (header, Some(own)) if own.create_revision == place.created => {
                place.gives_up = place.is_own_lease;
                Turn::Waited(header)
            }
            _ => {
                place.gives_up = false;
                Turn::Lost
            }
        })
    }

    /// Waits until a key, which is there at this revision, may be gone.
    async fn deleted(&self, key: Bytes, revision: i64) -> Result<(), Status> {
        let filters = vec![FilterType::Noput.into()];
        let mut watch = Watch::new(
            &self.by,
            pb::WatchCreateRequest { key, start_revision: revision + 1, filters, ..Default::default() },
        )?;
        // A watch that ends since the past is compacted makes the caller look again.
        while !watch.next().await.iter().any(|told| told.canceled || !told.events.is_empty()) {}
        Ok(())
    }

    /// The first place, and the header that it was read with.
    pub(super) async fn leader(&self) -> Result<(pb::ResponseHeader, Option<KeyValue>), Status> {
        linearizable(&self.by.front).await?;
        Ok(first(read(&self.by, &self.by_creation(SortOrder::Ascend)).await?))
    }

    /// Tells of each put of any place after this revision.
    pub(super) fn watch_puts(&self, revision: i64) -> Result<Watch, Status> {
        let (key, range_end) = self.range();
        let filters = vec![FilterType::Nodelete.into()];
        let start_revision = revision + 1;
        let request =
            pb::WatchCreateRequest { key, range_end, start_revision, filters, ..Default::default() };
        Watch::new(&self.by, request)
    }

    fn by_creation(&self, order: SortOrder) -> pb::RangeRequest {
        let (key, range_end) = self.range();
        pb::RangeRequest {
            key,
            range_end,
            limit: 1,
            sort_order: order.into(),
            sort_target: SortTarget::Create.into(),
            ..Default::default()
        }
    }

    /// All keys with the prefix.
    fn range(&self) -> (Bytes, Bytes) {
        let mut end = self.prefix.to_vec();
        // What comes after the slash.
        *end.last_mut().expect("the slash") = b'/' + 1;
        (self.prefix.clone(), end.into())
    }
}

/// A watch of one call.
pub(super) struct Watch(WatchStream);

impl Watch {
    fn new(by: &By, request: pb::WatchCreateRequest) -> Result<Watch, Status> {
        by.who()?.check_range(&request.key, &request.range_end)?;
        let stream = by.front.lane.watch();
        stream.create(&request);
        Ok(Watch(stream))
    }

    /// Tells of each change of a key after this revision.
    pub(super) fn of_key(by: &By, key: Bytes, revision: i64) -> Result<Watch, Status> {
        Watch::new(by, pb::WatchCreateRequest { key, start_revision: revision + 1, ..Default::default() })
    }

    /// What there is to tell, the answer to the creation included.
    pub(super) async fn next(&mut self) -> Vec<pb::WatchResponse> {
        let taken = Bytes::from(poll_fn(|cx| self.0.poll_take(cx)).await.0);
        let mut rest = &taken[..];
        let mut told = Vec::new();
        while let Some((prefix, after)) = rest.split_first_chunk::<PREFIX_BYTES>() {
            let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
            let (message, after) = after.split_at(length);
            told.push(pb::WatchResponse::decode(message).expect("the hub's own"));
            rest = after;
        }
        told
    }
}

/// The lease of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    /// Its id.
    pub(super) lease: i64,
    /// It was granted for this call.
    is_own: bool,
}

/// The lease of a call: the one that it names, or one of its own, which nobody here keeps alive.
pub(super) async fn session(by: &By, lease: i64) -> Result<Session, Status> {
    if lease != 0 {
        return Ok(Session { lease, is_own: false });
    }
    let lane = &by.front.lane;
    check_quota(&by.front, admission::LEASE_GRANT_COST).await?;
    let who = by.who()?;
    who.check_known()?;
    let id = lane.next_id();
    let grant = pb::LeaseGrantRequest { ttl: SESSION_TTL_S, id: 0 };
    let data = encode_grant(&lane.member().reader, who.caller(), grant, id, || lane.next_id());
    let answer = lane.apply(id, data, true).await?;
    let granted = pb::LeaseGrantResponse::decode(&answer.body[..]).map_err(|error| undecodable(&error))?;
    Ok(Session { lease: granted.id, is_own: true })
}

/// Refuses what goes beyond the quota, once the alarm is on that says so.
async fn check_quota(front: &Rc<Shared>, cost: u64) -> Result<(), Status> {
    let Err(OverQuota { raises }) = front.lane.member().check_quota(cost) else { return Ok(()) };
    if let Some(alarm) = raises {
        let id = front.lane.next_id();
        // Whatever comes of it.
        let _ = front.lane.apply(id, admission::encode_alarm(id.0, &alarm), false).await;
    }
    Err(OverQuota::ERROR.into())
}

/// Runs a transaction through the log.
pub(super) async fn txn(by: &By, request: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
    let encoded = request.encode_to_vec();
    let limits = &by.front.config.limits;
    let decoded = Txn::decode(&encoded).map_err(|error| undecodable(&error))?;
    check_quota(&by.front, admission::txn_cost(&decoded)).await?;
    admission::check_txn(&decoded, limits)?;
    let grows = decoded.has_put();
    let lane = &by.front.lane;
    let (who, id) = (by.who()?, lane.next_id());
    let data = admission::encode_txn(id.0, who.caller(), &encoded);
    admission::check_size(&data, limits)?;
    let answer = lane.apply(id, data, grows).await?;
    let made = pb::TxnResponse::decode(&answer.body[..]).map_err(|error| undecodable(&error))?;
    Ok(pb::TxnResponse { header: Some(lane.member().header(answer.revision)), ..made })
}

/// Waits until a read is linearizable. A change of leader ends no call that waits.
async fn linearizable(front: &Rc<Shared>) -> Result<(), Status> {
    let until = Instant::now() + front.lane.request_timeout();
    loop {
        let confirmed = front.lane.linearizable().await;
        let is_passing = confirmed.as_ref().is_err_and(|status| {
            [ApiError::LeaderChanged, ApiError::NoLeader].into_iter().any(|error| *status == error.into())
        });
        if !is_passing || Instant::now() >= until {
            return confirmed;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Reads what this member has applied.
async fn read(by: &By, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
    let member = by.front.lane.member();
    let who = by.who()?;
    who.check_range(&request.key, &request.range_end)?;
    let read = Read::Range(request.encode_to_vec().into());
    let counts = by.front.lane.counts();
    let made = match read.run(&member.reader, ReadMode::NoWait)? {
        Err(failure @ (ReadFailure::WouldBlock | ReadFailure::Long)) => {
            let length = if failure == ReadFailure::Long { Length::Long } else { Length::Brief };
            // Few read here, and little each: they take turns like a connection's.
            let reads = member.reads.connection();
            let (reader, held, counts) = (member.reader.clone(), Held::default(), counts.clone());
            let elsewhere = Elsewhere { reader, reads, held, counts };
            let (body, revision, _) = elsewhere.run(read, length, None).await?;
            Ok((body, revision))
        }
        made => {
            count_ranges(made.as_ref().ok(), counts);
            made.map(|made| (made.body, made.revision))
        }
    };
    member.check_unchanged(who.asker().revision())?;
    let (body, revision) = made.map_err(|failure| read_status(&failure))?;
    let message = answer::finish(body, &member.header(revision))?;
    pb::RangeResponse::decode(&message[PREFIX_BYTES..]).map_err(|error| undecodable(&error))
}

fn first(read: pb::RangeResponse) -> (pb::ResponseHeader, Option<KeyValue>) {
    (read.header.unwrap_or_default(), read.kvs.into_iter().next())
}

/// A failure as the callers of these services see it: in etcd it has gone through a client of the server's own, which
/// keeps the text and drops the code.
pub(super) fn told(status: Status) -> Status {
    match status.code {
        Code::DeadlineExceeded | Code::Canceled => status,
        _ => Status { code: Code::Unknown, ..status },
    }
}
