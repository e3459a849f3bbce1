//! `etcdserverpb.Lease`, but for the renewals, which are in [`super::keep_alive`].

use std::sync::Arc;

use node::RequestId;
use node::lease::Remaining;
use prost::Message as _;
use store::{Caller, Reader, admission};
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use wire::{ApiError, etcdserverpb as pb};

use super::forward::{self, Asked};
use super::member::{MemberView, OverQuota};
use super::service::{client_deadline, to_tonic, who};
use super::turns::{Length, Reads};
use crate::auth::{Asker, Who};
use crate::lane::LaneHandle;
use crate::stubs::etcdserverpb::lease_server::Lease;

/// Most leases that are listed on the network thread itself.
const LIST_HERE_MAX: usize = 5_000;
/// Most keys of a lease.
const KEYS_HERE_MAX: usize = 500;

/// Proposes what changes leases, and answers from what this member has applied.
pub struct LeaseService {
    member: Arc<MemberView>,
    lane: LaneHandle,
}

impl LeaseService {
    /// `lane` proposes, and confirms reads.
    pub fn new(member: Arc<MemberView>, lane: LaneHandle) -> Self {
        LeaseService { member, lane }
    }

    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(self.member.header(self.member.reader.revision()))
    }

    /// Who asks, which somebody must where users count.
    fn known<T>(&self, request: &Request<T>) -> Result<Asker, Status> {
        let who = who(&self.member, request)?;
        who.check_known().map_err(|error| to_tonic(error.into()))?;
        Ok(who.asker().clone())
    }

    /// The turns of the connection that a request came on.
    fn reads<T>(&self, request: &Request<T>) -> Reads {
        let known = request.extensions().get::<Reads>().cloned();
        known.unwrap_or_else(|| self.member.reads.connection())
    }
}

/// Encodes the proposal of a grant under `id`, with an id for the lease if it has none.
pub(super) fn encode_grant(
    reader: &Reader,
    caller: Caller<'_>,
    mut grant: pb::LeaseGrantRequest,
    id: RequestId,
    mut next: impl FnMut() -> RequestId,
) -> Vec<u8> {
    // An id of ours is positive, and free as far as this member knows; apply has the last word.
    while grant.id == 0 {
        let chosen = (next().0 & i64::MAX as u64) as i64;
        if reader.lease(chosen).is_none() {
            grant.id = chosen;
        }
    }
    admission::encode_lease_grant(id.0, caller, &grant.encode_to_vec())
}

/// What is to be done with the keys of leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeysFor {
    /// They are told.
    Reading,
    /// They live longer.
    Writing,
}

/// Whether one may do this with the keys of all these leases; who has role root may (etcd: v3_server.go, checkLease…).
/// Looks where it may take its time if there are many keys.
///
/// # Errors
/// `UserEmpty`, `AuthOldRevision`, `PermissionDenied`.
pub(super) async fn check_keys(
    member: &MemberView,
    who: &Who,
    leases: &[i64],
    keys_for: KeysFor,
    reads: &Reads,
) -> Result<(), wire::Status> {
    if !who.auth().is_enabled() {
        return Ok(());
    }
    who.check_known()?;
    if who.check_admin().is_ok() {
        return Ok(());
    }
    let check = move |who: &Who, reader: &Reader, lease: i64| {
        reader.lease_keys(lease).iter().try_for_each(|key| match keys_for {
            KeysFor::Reading => who.check_range(key, &[]),
            KeysFor::Writing => who.check_put(key),
        })
    };
    // A lease costs something even without keys.
    let cost: usize = leases.iter().map(|lease| 1 + member.reader.lease_key_count(*lease)).sum();
    let checked = if cost <= KEYS_HERE_MAX {
        leases.iter().try_for_each(|lease| check(who, &member.reader, *lease))
    } else {
        let (who, reader, leases) = (who.clone(), member.reader.clone(), leases.to_vec());
        let work = move |_| leases.iter().try_for_each(|lease| check(&who, &reader, *lease));
        reads.run(Length::Long, work).await.ok_or(ApiError::Stopped)?
    };
    Ok(checked?)
}

/// Raises the alarm that goes with a request beyond the quota, which is in no user's name; what its caller is told, whatever
/// came of that.
pub(super) async fn refuse(over: OverQuota, lane: &LaneHandle, deadline: Option<Instant>) -> wire::Status {
    if let Some(alarm) = over.raises {
        let _ = lane.propose(deadline, move |id, _| (admission::encode_alarm(id.0, &alarm), false)).await;
    }
    OverQuota::ERROR.into()
}

#[tonic::async_trait]
impl Lease for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let deadline = client_deadline(&request);
        if let Err(over) = self.member.check_quota(admission::LEASE_GRANT_COST) {
            return Err(to_tonic(refuse(over, &self.lane, deadline).await));
        }
        let asker = self.known(&request)?;
        let grant = request.into_inner();
        let reader = self.member.reader.clone();
        let encode = move |id: RequestId, next: &mut dyn FnMut() -> RequestId| {
            (encode_grant(&reader, asker.caller(), grant, id, next), true)
        };
        let answer = self.lane.propose(deadline, encode).await.map_err(to_tonic)?;
        let granted = pb::LeaseGrantResponse::decode(&answer.body[..])
            .map_err(|error| Status::internal(error.to_string()))?;
        let header = Some(self.member.header(answer.revision));
        Ok(Response::new(pb::LeaseGrantResponse { header, ..granted }))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let deadline = client_deadline(&request);
        let (asker, encoded) = (self.known(&request)?, request.get_ref().encode_to_vec());
        let encode = move |id: RequestId, _: &mut dyn FnMut() -> RequestId| {
            (admission::encode_lease_revoke(id.0, asker.caller(), &encoded), false)
        };
        let answer = self.lane.propose(deadline, encode).await.map_err(to_tonic)?;
        Ok(Response::new(pb::LeaseRevokeResponse { header: Some(self.member.header(answer.revision)) }))
    }

    type LeaseKeepAliveStream = tonic::codegen::BoxStream<pb::LeaseKeepAliveResponse>;

    async fn lease_keep_alive(
        &self,
        _: Request<tonic::Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        // The service loop answers it.
        Err(to_tonic(wire::Status::unknown_method("LeaseKeepAlive", "etcdserverpb.Lease")))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let (deadline, reads) = (client_deadline(&request), self.reads(&request));
        let who = who(&self.member, &request)?;
        who.check_known().map_err(|error| to_tonic(error.into()))?;
        let pb::LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let member = &self.member;
        if keys {
            check_keys(member, &who, &[id], KeysFor::Reading, &reads).await.map_err(to_tonic)?;
        }
        let response = self.time_to_live((id, keys), deadline, reads).await?;
        if keys {
            check_revision(member, &who).map_err(to_tonic)?;
        }
        Ok(Response::new(response))
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let (leases, reads) = (self.member.leases.clone(), self.reads(&request));
        let ids = match leases.len() {
            ..=LIST_HERE_MAX => leases.by_remaining(),
            _ => {
                let ids = reads.run(Length::Long, move |_| leases.by_remaining()).await;
                ids.ok_or_else(|| to_tonic(ApiError::Stopped.into()))?
            }
        };
        let who = who(&self.member, &request)?;
        check_keys(&self.member, &who, &ids, KeysFor::Reading, &reads).await.map_err(to_tonic)?;
        check_revision(&self.member, &who).map_err(to_tonic)?;
        let leases = ids.into_iter().map(|id| pb::LeaseStatus { id }).collect();
        Ok(Response::new(pb::LeaseLeasesResponse { header: self.header(), leases }))
    }
}

/// Whether what was allowed to users is still so.
pub(super) fn check_revision(member: &MemberView, who: &Who) -> Result<(), wire::Status> {
    let is_changed = who.auth().is_enabled() && who.auth().revision() != member.reader.auth().revision();
    if is_changed { Err(ApiError::AuthOldRevision.into()) } else { Ok(()) }
}

impl LeaseService {
    /// What is left of a lease, as the leader has it.
    async fn time_to_live(
        &self,
        (id, keys): (i64, bool),
        deadline: Option<Instant>,
        reads: Reads,
    ) -> Result<pb::LeaseTimeToLiveResponse, Status> {
        let member = &self.member;
        let until = Instant::now() + member.request_timeout;
        let until = deadline.map_or(until, |deadline| deadline.min(until));
        if let Asked::There(told) =
            forward::time_to_live(member, (id, keys), until).await.map_err(to_tonic)?
        {
            let gone = || pb::LeaseTimeToLiveResponse { id, ttl: -1, ..Default::default() };
            let header = self.header();
            return Ok(pb::LeaseTimeToLiveResponse { header, ..told.unwrap_or_else(gone) });
        }
        // What was granted before this must be seen.
        self.lane.linearizable(deadline).await.map_err(to_tonic)?;
        let keys = match keys.then(|| member.reader.lease_key_count(id)) {
            None => Vec::new(),
            Some(..=KEYS_HERE_MAX) => member.reader.lease_keys(id),
            Some(_) => {
                let reader = member.reader.clone();
                let keys = reads.run(Length::Long, move |_| reader.lease_keys(id)).await;
                keys.ok_or_else(|| to_tonic(ApiError::Stopped.into()))?
            }
        };
        let (ttl, granted_ttl) = match member.leases.remaining(id) {
            // What was revoked since the keys were looked for has none.
            Remaining::Left { ttl_s, granted_ttl_s } if member.reader.lease(id).is_some() => {
                (ttl_s, granted_ttl_s)
            }
            // It led when it was asked.
            Remaining::NotPrimary => return Err(to_tonic(ApiError::LeaderChanged.into())),
            Remaining::Left { .. } | Remaining::NotFound => {
                let header = self.header();
                return Ok(pb::LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() });
            }
        };
        Ok(pb::LeaseTimeToLiveResponse {
            header: self.header(),
            id,
            ttl,
            granted_ttl,
            keys: keys.into_iter().map(Into::into).collect(),
        })
    }
}
