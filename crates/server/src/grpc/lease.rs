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
use super::service::{client_deadline, to_tonic};
use super::turns::{Length, Reads};
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

    /// The turns of the connection that a request came on.
    fn reads<T>(&self, request: &Request<T>) -> Reads {
        let known = request.extensions().get::<Reads>().cloned();
        known.unwrap_or_else(|| self.member.reads.connection())
    }
}

/// Encodes the proposal of a grant under `id`, with an id for the lease if it has none.
pub(super) fn encode_grant(
    reader: &Reader,
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
    admission::encode_lease_grant(id.0, Caller::NOBODY, &grant.encode_to_vec())
}

/// Raises the alarm that goes with a request beyond the quota; what its caller is told, whatever came of that.
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
        let grant = request.into_inner();
        let reader = self.member.reader.clone();
        let encode = move |id: RequestId, next: &mut dyn FnMut() -> RequestId| {
            (encode_grant(&reader, grant, id, next), true)
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
        let encoded = request.get_ref().encode_to_vec();
        let encode = move |id: RequestId, _: &mut dyn FnMut() -> RequestId| {
            (admission::encode_lease_revoke(id.0, Caller::NOBODY, &encoded), false)
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
        let pb::LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let member = &self.member;
        let until = Instant::now() + member.request_timeout;
        let until = deadline.map_or(until, |deadline| deadline.min(until));
        if let Asked::There(told) =
            forward::time_to_live(member, (id, keys), until).await.map_err(to_tonic)?
        {
            let gone = || pb::LeaseTimeToLiveResponse { id, ttl: -1, ..Default::default() };
            let header = self.header();
            return Ok(Response::new(pb::LeaseTimeToLiveResponse { header, ..told.unwrap_or_else(gone) }));
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
                let response =
                    pb::LeaseTimeToLiveResponse { header: self.header(), id, ttl: -1, ..Default::default() };
                return Ok(Response::new(response));
            }
        };
        Ok(Response::new(pb::LeaseTimeToLiveResponse {
            header: self.header(),
            id,
            ttl,
            granted_ttl,
            keys: keys.into_iter().map(Into::into).collect(),
        }))
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let leases = self.member.leases.clone();
        let ids = match leases.len() {
            ..=LIST_HERE_MAX => leases.by_remaining(),
            _ => {
                let reads = self.reads(&request);
                let ids = reads.run(Length::Long, move |_| leases.by_remaining()).await;
                ids.ok_or_else(|| to_tonic(ApiError::Stopped.into()))?
            }
        };
        let leases = ids.into_iter().map(|id| pb::LeaseStatus { id }).collect();
        Ok(Response::new(pb::LeaseLeasesResponse { header: self.header(), leases }))
    }
}
