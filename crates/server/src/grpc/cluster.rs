//! `etcdserverpb.Cluster`: MemberList, so far.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use wire::etcdserverpb as pb;

use super::member::MemberView;
use super::service::{client_deadline, not_yet, to_tonic};
use crate::lane::LaneHandle;
use crate::stubs::etcdserverpb::cluster_server::Cluster;

/// Answers from the membership that this member has applied.
pub struct ClusterService {
    member: Arc<MemberView>,
    lane: LaneHandle,
}

impl ClusterService {
    /// `lane` confirms the reads that have to be linearizable.
    pub fn new(member: Arc<MemberView>, lane: LaneHandle) -> Self {
        ClusterService { member, lane }
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        if request.get_ref().linearizable {
            self.lane.linearizable(client_deadline(&request)).await.map_err(to_tonic)?;
        }
        // Member calls leave the header's revision at 0.
        let header = Some(self.member.header(0));
        let membership = self.member.reader.membership();
        let members = membership.members().map(|member| pb::Member {
            id: member.id,
            name: member.name.clone(),
            peer_ur_ls: member.peer_urls.clone(),
            client_ur_ls: member.client_urls.clone(),
            is_learner: member.is_learner,
        });
        Ok(Response::new(pb::MemberListResponse { header, members: members.collect() }))
    }

    async fn member_add(
        &self,
        _: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        not_yet("Cluster.MemberAdd")
    }

    async fn member_remove(
        &self,
        _: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        not_yet("Cluster.MemberRemove")
    }

    async fn member_update(
        &self,
        _: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        not_yet("Cluster.MemberUpdate")
    }

    async fn member_promote(
        &self,
        _: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        not_yet("Cluster.MemberPromote")
    }
}
