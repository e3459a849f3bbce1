//! `etcdserverpb.Maintenance`: Status, Alarm, Defragment, Snapshot, hashes, leadership and downgrades.

use std::sync::Arc;

use node::RequestId;
use prost::Message as _;
use store::{ReadFailure, Reader, admission};
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use wire::etcdserverpb::alarm_request::AlarmAction;
use wire::{ApiError, etcdserverpb as pb};

use super::downgrade::{self, By};
use super::kv::read_status;
use super::member::MemberView;
use super::service::{admin, client_deadline, to_tonic, who};
use super::snapshot::{self, Pieces};
use crate::lane::LaneHandle;
use crate::log;
use crate::stubs::etcdserverpb::maintenance_server::Maintenance;

/// Answers about this member.
pub struct MaintenanceService {
    member: Arc<MemberView>,
    lane: LaneHandle,
}

impl MaintenanceService {
    /// About `member`; `lane` proposes, and confirms reads.
    pub fn new(member: Arc<MemberView>, lane: LaneHandle) -> Self {
        MaintenanceService { member, lane }
    }

    /// Runs a hash where it may take its time, when its turn comes.
    async fn hashed<T: Send + 'static>(
        &self,
        hash: impl FnOnce(&Reader) -> Result<T, ReadFailure> + Send + 'static,
    ) -> Result<T, Status> {
        let result = self.member.hashes.run(&self.member.reader, hash).await;
        let result = result.ok_or_else(|| to_tonic(ApiError::Stopped.into()))?;
        result.map_err(|failure| to_tonic(read_status(&failure)))
    }

    /// Whether anybody asks, where users count.
    fn check_known<T>(&self, request: &Request<T>) -> Result<(), Status> {
        who(&self.member, request)?.check_known().map_err(|error| to_tonic(error.into()))
    }

    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(self.member.header(self.member.reader.revision()))
    }
}

/// An alarm in protobuf's text format, as Status has it.
fn alarm_text(alarm: pb::AlarmMember) -> String {
    let member = match alarm.member_id {
        0 => String::new(),
        id => format!("memberID:{id} "),
    };
    match pb::AlarmType::try_from(alarm.alarm) {
        Ok(kind) => format!("{member}alarm:{}", kind.as_str_name()),
        Err(_) => format!("{member}alarm:{}", alarm.alarm),
    }
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        let deadline = client_deadline(&request);
        match AlarmAction::try_from(request.get_ref().action) {
            Ok(AlarmAction::Get) => self.check_known(&request)?,
            _ => drop(admin(&self.member, &request)?),
        }
        let request = request.into_inner();
        let alarms = match AlarmAction::try_from(request.action) {
            // What was acknowledged before this must be seen; unlike etcd's, it makes no entry.
            Ok(AlarmAction::Get) => {
                let no_leader = self.member.status.leader() == 0;
                self.lane.linearizable(deadline).await.map_err(|status| {
                    // It ends as that entry would, which no leader can take.
                    let is_left = no_leader && status == ApiError::Timeout.into();
                    to_tonic(if is_left { ApiError::ContextDeadlineExceeded.into() } else { status })
                })?;
                self.member.reader.alarms().of(request.alarm).collect()
            }
            Ok(AlarmAction::Activate | AlarmAction::Deactivate) => {
                let encode = move |id: RequestId, _: &mut dyn FnMut() -> RequestId| {
                    (admission::encode_alarm(id.0, &request), false)
                };
                let answer = self.lane.propose(deadline, encode).await.map_err(to_tonic)?;
                let answer = pb::AlarmResponse::decode(&answer.body[..]);
                answer.map_err(|error| Status::internal(error.to_string()))?.alarms
            }
            // In the log it would end a Go member.
            Err(unknown) => {
                return Err(Status::invalid_argument(format!("etcdserver: alarm action: {unknown}")));
            }
        };
        Ok(Response::new(pb::AlarmResponse { header: self.header(), alarms }))
    }

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        self.check_known(&request)?;
        let status = &self.member.status;
        let (leader, membership) = (status.leader(), self.member.reader.membership());
        // Nothing in it is unused: what compactions drop does not count, and its space comes back by itself (rule 18).
        let db_size = self.member.reader.size_bytes() as i64;
        let no_leader = (leader == 0).then(|| ApiError::NoLeader.text().to_owned());
        let errors =
            no_leader.into_iter().chain(self.member.reader.alarms().iter().map(alarm_text)).collect();
        Ok(Response::new(pb::StatusResponse {
            header: self.header(),
            version: wire::version::ETCD.to_owned(),
            leader,
            raft_index: status.committed(),
            raft_applied_index: status.applied(),
            raft_term: status.term(),
            db_size,
            db_size_in_use: db_size,
            is_learner: status.is_learner(),
            db_size_quota: self.member.quota_bytes,
            storage_version: self.member.versions().storage.unwrap_or_default(),
            downgrade_info: Some(downgrade::info(&membership)),
            errors,
        }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        admin(&self.member, &request)?;
        let revision = request.get_ref().revision;
        let begun = Instant::now();
        let hashed = self.hashed(move |reader| reader.hash_kv(revision)).await;
        self.member.metrics.member.revision_hashes.observe_time(begun.elapsed());
        let (hash, current) = hashed?;
        Ok(Response::new(pb::HashKvResponse {
            header: Some(self.member.header(current)),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.hash_revision,
        }))
    }

    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        admin(&self.member, &request)?;
        // Space comes back by itself; this only asks for what is otherwise not worth the trouble yet.
        (self.member.defragment)();
        // As in etcd, without a header.
        Ok(Response::new(pb::DefragmentResponse { header: None }))
    }

    async fn hash(&self, request: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        admin(&self.member, &request)?;
        let begun = Instant::now();
        let hashed = self.hashed(|reader| reader.hash()).await;
        self.member.metrics.member.hashes.observe_time(begun.elapsed());
        let (hash, current) = hashed?;
        Ok(Response::new(pb::HashResponse { header: Some(self.member.header(current)), hash }))
    }

    type SnapshotStream = Pieces;

    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        admin(&self.member, &request)?;
        // The turn first: who waits for one holds nothing up.
        let turn = self.member.snapshots.wait().await.ok_or_else(snapshot::stopped)?;
        let cut = self.member.cuts.take().await.ok_or_else(snapshot::stopped)?;
        Ok(Response::new(Pieces::begin(cut, turn, Arc::clone(&self.member.metrics))))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        admin(&self.member, &request)?;
        let (member, target) = (&self.member, request.get_ref().target_id);
        let until = Instant::now() + member.request_timeout;
        let until = client_deadline(&request).map_or(until, |deadline| deadline.min(until));
        if member.status.leader() != member.member_id {
            return Err(to_tonic(ApiError::NotLeader.into()));
        }
        let may = member.others.situation(member, |situation| situation.may_lead(target));
        may.map_err(|error| to_tonic(error.into()))?;
        let moved = tokio::time::timeout_at(until, member.others.transfer_leader(target)).await;
        moved.map_err(|_| to_tonic(ApiError::TimeoutLeaderTransfer.into()))?;
        log::info!(
            "leadership transfer finished",
            "local-member-id" => format!("{:x}", member.member_id),
            "new-leader-member-id" => format!("{target:x}"),
        );
        // As in etcd, without a header.
        Ok(Response::new(pb::MoveLeaderResponse { header: None }))
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        let (who, deadline) = (admin(&self.member, &request)?, client_deadline(&request));
        let by = By { member: &self.member, lane: &self.lane, asker: who.asker() };
        let version = downgrade::run(by, request.get_ref(), deadline).await;
        let version = version.map_err(to_tonic)?;
        Ok(Response::new(pb::DowngradeResponse { header: self.header(), version }))
    }
}
