//! What only the leader can answer, asked of it over the peer port, whoever it is (etcd: v3_server.go, leasehttp).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tokio::time::Instant;
use wire::{ApiError, Status, etcdserverpb as pb, leasepb};

use super::member::MemberView;
use crate::config::Url;
use crate::lane::Lane;
use crate::peer::{PromoteError, Question, Reply, Told};

/// How soon a leader that has not answered is asked again.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// How often a member looks whether there is a leader, at most; etcd's is an election timeout.
const LEADER_INTERVAL: Duration = Duration::from_millis(50);

/// What became of a question.
pub(crate) enum Asked<T> {
    /// This member leads by now: it is to find out by itself.
    Here,
    /// The leader's answer.
    There(T),
}

/// A member that asks, as long as it is there.
fn while_there(member: &Arc<MemberView>) -> impl Fn() -> Option<Arc<MemberView>> {
    move || (!member.others.is_stopped()).then(|| Arc::clone(member))
}

/// Asks the leader until it answers with something that `read` understands, or this member leads. Never asks by itself
/// twice at once. `member` is the one that asks, which is looked up each time, as it may be opened anew; `None` once it is
/// gone.
///
/// # Errors
/// `NoLeader` and `Timeout`, once `until` has passed; `Stopped` once the member that asks is gone.
async fn ask<T>(
    member: impl Fn() -> Option<Arc<MemberView>>,
    until: Instant,
    question: &Question,
    read: impl Fn(&Reply) -> Option<T>,
) -> Result<Asked<T>, Status> {
    loop {
        let Some(member) = member() else { return Err(ApiError::Stopped.into()) };
        let leader = member.status.leader();
        if leader == member.member_id {
            return Ok(Asked::Here);
        }
        let left = until.saturating_duration_since(Instant::now());
        let Some(urls) = peer_urls(&member, leader) else {
            if left.is_zero() {
                return Err(ApiError::NoLeader.into());
            }
            // One that is gone must not be held on to.
            drop(member);
            tokio::time::sleep(LEADER_INTERVAL).await;
            continue;
        };
        if left.is_zero() {
            return Err(ApiError::Timeout.into());
        }
        for url in urls {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // The peer thread keeps to the time as well, unless it is gone.
            let asked = member.others.ask(url, question.clone(), left);
            let Ok(reply) = tokio::time::timeout(left, asked).await else { continue };
            if let Some(answer) = reply.ok().and_then(|reply| read(&reply)) {
                return Ok(Asked::There(answer));
            }
        }
        drop(member);
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

/// Where a member is reached by its peers; `None` if there is no such member.
fn peer_urls(member: &MemberView, id: u64) -> Option<Vec<Url>> {
    let membership = member.reader.membership();
    let urls = &membership.member(id)?.peer_urls;
    Some(urls.iter().filter_map(|url| Url::parse(url).ok()).collect())
}

/// Renews a lease: its time to live in seconds, 0 if there is none.
///
/// # Errors
/// See [`ask`].
pub(crate) async fn renew(lane: &Lane, id: i64, until: Instant) -> Result<Asked<i64>, Status> {
    let request = pb::LeaseKeepAliveRequest { id }.encode_to_vec();
    let question = Question::post("/leases", Bytes::from(request));
    ask(
        || Some(Arc::clone(&lane.member())),
        until,
        &question,
        |reply| match reply.status {
            200 => Some(pb::LeaseKeepAliveResponse::decode(reply.body.clone()).ok()?.ttl),
            404 => Some(0),
            _ => None,
        },
    )
    .await
}

/// How a lease stands; `None` if there is none.
///
/// # Errors
/// See [`ask`].
pub(crate) async fn time_to_live(
    member: &Arc<MemberView>,
    (id, keys): (i64, bool),
    until: Instant,
) -> Result<Asked<Option<pb::LeaseTimeToLiveResponse>>, Status> {
    let request = pb::LeaseTimeToLiveRequest { id, keys };
    let request = leasepb::LeaseInternalRequest { lease_time_to_live_request: Some(request) }.encode_to_vec();
    let question = Question::post("/leases/internal", Bytes::from(request));
    ask(while_there(member), until, &question, |reply| match reply.status {
        200 => {
            let answer = leasepb::LeaseInternalResponse::decode(reply.body.clone()).ok()?;
            Some(Some(answer.lease_time_to_live_response?))
        }
        404 => Some(None),
        _ => None,
    })
    .await
}

impl From<Told> for pb::Member {
    fn from(told: Told) -> Self {
        pb::Member {
            id: told.id,
            name: told.name,
            peer_ur_ls: told.peer_urls.unwrap_or_default(),
            client_ur_ls: told.client_urls.unwrap_or_default(),
            is_learner: told.is_learner,
        }
    }
}

/// Makes a voter of a learner, with the token of the one who asks: all members, or why not.
///
/// # Errors
/// See [`ask`].
pub(crate) async fn promote(
    member: &Arc<MemberView>,
    (id, token): (u64, Option<&str>),
    until: Instant,
) -> Result<Asked<Result<Vec<pb::Member>, ApiError>>, Status> {
    let question = Question {
        method: http::Method::POST,
        content_type: "",
        token: token.map(str::to_owned),
        ..Question::get(format!("/members/promote/{id}"))
    };
    ask(while_there(member), until, &question, |reply| match reply.status {
        200 => {
            let told: Vec<Told> = serde_json::from_slice(&reply.body).ok()?;
            Some(Ok(told.into_iter().map(pb::Member::from).collect()))
        }
        404 => Some(Err(ApiError::MemberNotFound)),
        // One status for two reasons, and for a member of another cluster.
        412 => {
            let body = String::from_utf8_lossy(&reply.body);
            let is = |failure: PromoteError| body.contains(&failure.to_string());
            if is(PromoteError::NotReady) {
                Some(Err(ApiError::LearnerNotReady))
            } else if is(PromoteError::NotLearner) {
                Some(Err(ApiError::MemberNotLearner))
            } else {
                None
            }
        }
        _ => None,
    })
    .await
}
