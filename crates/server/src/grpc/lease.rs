//! `etcdserverpb.Lease`, but for the renewals.

use std::sync::Arc;

use prost::Message as _;
use store::admission;
use tonic::{Request, Response, Status};
use wire::etcdserverpb as pb;

use super::member::MemberView;
use super::service::{client_deadline, not_yet, to_tonic};
use crate::lane::LaneHandle;
use crate::stubs::etcdserverpb::lease_server::Lease;

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
}

#[tonic::async_trait]
impl Lease for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let deadline = client_deadline(&request);
        let mut grant = request.into_inner();
        let reader = self.member.reader.clone();
        let encode = move |id: node::RequestId, next: &mut dyn FnMut() -> node::RequestId| {
            // An id of ours is positive, and free as far as this member knows; apply has the last word.
            while grant.id == 0 {
                let chosen = (next().0 & i64::MAX as u64) as i64;
                if reader.lease(chosen).is_none() {
                    grant.id = chosen;
                }
            }
            (admission::encode_lease_grant(id.0, &grant.encode_to_vec()), true)
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
        let encode = move |id: node::RequestId, _: &mut dyn FnMut() -> node::RequestId| {
            (admission::encode_lease_revoke(id.0, &encoded), false)
        };
        let answer = self.lane.propose(deadline, encode).await.map_err(to_tonic)?;
        Ok(Response::new(pb::LeaseRevokeResponse { header: Some(self.member.header(answer.revision)) }))
    }

    type LeaseKeepAliveStream = tonic::codegen::BoxStream<pb::LeaseKeepAliveResponse>;

    async fn lease_keep_alive(
        &self,
        _: Request<tonic::Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        not_yet("Lease.LeaseKeepAlive")
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        // What was granted before this must be seen.
        self.lane.linearizable(client_deadline(&request)).await.map_err(to_tonic)?;
        let pb::LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let reader = &self.member.reader;
        let Some(times) = reader.lease(id) else {
            let response =
                pb::LeaseTimeToLiveResponse { header: self.header(), id, ttl: -1, ..Default::default() };
            return Ok(Response::new(response));
        };
        let keys = if keys { reader.lease_keys(id) } else { Vec::new() };
        Ok(Response::new(pb::LeaseTimeToLiveResponse {
            header: self.header(),
            id,
            // No time passes yet for a lease.
            ttl: if times.remaining_ttl_s > 0 { times.remaining_ttl_s } else { times.granted_ttl_s },
            granted_ttl: times.granted_ttl_s,
            keys: keys.into_iter().map(Into::into).collect(),
        }))
    }

    async fn lease_leases(
        &self,
        _: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let leases = self.member.reader.leases();
        let leases = leases.into_iter().map(|(id, _)| pb::LeaseStatus { id }).collect();
        Ok(Response::new(pb::LeaseLeasesResponse { header: self.header(), leases }))
    }
}
