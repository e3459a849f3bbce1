//! `etcdserverpb.Cluster`: the members, and how they change.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use node::{Change, NewMember, Promotion, added_member_id};
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use wire::{ApiError, etcdserverpb as pb};

use super::forward::{self, Asked};
use super::member::MemberView;
use super::service::{admin, client_deadline, to_tonic, who};
use crate::auth::Credentials;
use crate::config::Url;
use crate::lane::LaneHandle;
use crate::log;
use crate::stubs::etcdserverpb::cluster_server::Cluster;

/// Answers from the membership that this member has applied.
pub struct ClusterService {
    member: Arc<MemberView>,
    lane: LaneHandle,
}

impl ClusterService {
    /// `lane` proposes, and confirms the reads that have to be linearizable.
    pub fn new(member: Arc<MemberView>, lane: LaneHandle) -> Self {
        ClusterService { member, lane }
    }

    // Member calls leave the header's revision at 0.
    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(self.member.header(0))
    }

    fn members(&self) -> Vec<pb::Member> {
        self.member.reader.membership().members().map(pb::Member::from).collect()
    }

    /// Proposes a change that was found to be allowed, and waits until it is applied here.
    async fn change(&self, change: Change, deadline: Option<Instant>) -> Result<(), wire::Status> {
        let (kind, id) = described(&change);
        self.lane.reconfigure(deadline, move |request| (change.encode(request), None)).await?;
        self.tell_applied(kind, id);
        Ok(())
    }

    fn tell_applied(&self, kind: &str, id: u64) {
        log::info!(
            "applied a configuration change through raft",
            "local-member-id" => format!("{:x}", self.member.member_id),
            "raft-conf-change" => kind,
            "raft-conf-change-node-id" => format!("{id:x}"),
        );
    }

    fn tell_rejected(&self, what: &str, requested: &str, error: ApiError) {
        let why = match error {
            ApiError::Unhealthy if what == "add" => {
                "local member has not been connected to majority peers, reconfigure breaks active quorum"
            }
            ApiError::Unhealthy => {
                "local member has not been connected to all peers, reconfigure breaks active quorum"
            }
            _ => "not enough healthy members",
        };
        log::warn!(
            format!("rejecting member {what} request; {why}"),
            "local-member-id" => format!("{:x}", self.member.member_id),
            "requested-member" => requested,
            "error" => error.text(),
        );
    }
}

/// Promotes a learner where this member leads; only a leader knows how far one is.
///
/// # Errors
/// `NotLeader` elsewhere; why it may not be.
pub(crate) async fn promote(
    member: &MemberView,
    lane: &LaneHandle,
    id: u64,
    deadline: Option<Instant>,
) -> Result<(), wire::Status> {
    let may = member.others.situation(member, |situation| situation.may_promote());
    let promotion = Promotion { member: id, may };
    let encode = move |request| (Change::Promote { id }.encode(request), Some(promotion));
    let promoted = lane.reconfigure(deadline, encode).await;
    let counts = &member.metrics.member;
    match &promoted {
        Ok(()) => counts.promotions.add(1),
        // Another one may, and counts it.
        Err(status) if *status == ApiError::NotLeader.into() => {}
        Err(status) => counts.promote_failures.add(&status.message),
    }
    promoted
}

/// etcd's name of a change, and whom it concerns.
fn described(change: &Change) -> (&'static str, u64) {
    match change {
        Change::Add { member } if member.is_learner => ("ConfChangeAddLearnerNode", member.id),
        Change::Add { member } => ("ConfChangeAddNode", member.id),
        Change::Promote { id } => ("ConfChangeAddNode", *id),
        Change::Remove { id } => ("ConfChangeRemoveNode", *id),
        Change::Update { id, .. } => ("ConfChangeUpdateNode", *id),
    }
}

/// Peer URLs, if there are any, and all of them are such.
fn peer_urls(given: &[String]) -> Result<Vec<Url>, Status> {
    match given.iter().map(|url| Url::parse(url)).collect::<Result<Vec<_>, _>>() {
        Ok(urls) if !urls.is_empty() => Ok(urls),
        _ => Err(to_tonic(ApiError::MemberBadUrls.into())),
    }
}

/// Seconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "etcd makes a new member's id of it; an id that is taken is refused"
)]
fn unix_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
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
        who(&self.member, &request)?.check_known().map_err(|error| to_tonic(error.into()))?;
        Ok(Response::new(pb::MemberListResponse { header: self.header(), members: self.members() }))
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let deadline = client_deadline(&request);
        let mut peer_urls = peer_urls(&request.get_ref().peer_ur_ls)?;
        peer_urls.sort();
        let peer_urls: Vec<String> = peer_urls.iter().map(ToString::to_string).collect();
        admin(&self.member, &request)?;
        let is_learner = request.get_ref().is_learner;
        let member = NewMember { id: added_member_id(&peer_urls, unix_s()), peer_urls, is_learner };
        let may = self.member.others.situation(&self.member, |situation| situation.may_add(is_learner));
        if let Err(error) = may {
            self.tell_rejected("add", &member.peer_urls.join(","), error);
            return Err(to_tonic(error.into()));
        }
        let added = pb::Member {
            id: member.id,
            peer_ur_ls: member.peer_urls.clone(),
            is_learner,
            ..pb::Member::default()
        };
        self.change(Change::Add { member }, deadline).await.map_err(to_tonic)?;
        Ok(Response::new(pb::MemberAddResponse {
            header: self.header(),
            member: Some(added),
            members: self.members(),
        }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        admin(&self.member, &request)?;
        let (deadline, id) = (client_deadline(&request), request.get_ref().id);
        let may = self.member.others.situation(&self.member, |situation| situation.may_remove(id));
        if let Err(error) = may {
            self.tell_rejected("remove", &format!("{id:x}"), error);
            return Err(to_tonic(error.into()));
        }
        self.change(Change::Remove { id }, deadline).await.map_err(to_tonic)?;
        Ok(Response::new(pb::MemberRemoveResponse { header: self.header(), members: self.members() }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        admin(&self.member, &request)?;
        let deadline = client_deadline(&request);
        let pb::MemberUpdateRequest { id, peer_ur_ls: peer_urls } = request.into_inner();
        // etcd looks at them only when it has applied them, and ends. They stay as they are written.
        self::peer_urls(&peer_urls)?;
        self.change(Change::Update { id, peer_urls }, deadline).await.map_err(to_tonic)?;
        Ok(Response::new(pb::MemberUpdateResponse { header: self.header(), members: self.members() }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        admin(&self.member, &request)?;
        // The leader asks once more.
        let token = request.extensions().get::<Credentials>().and_then(Credentials::token).map(str::to_owned);
        let (deadline, id) = (client_deadline(&request), request.get_ref().id);
        let until = Instant::now() + self.member.request_timeout;
        let until = deadline.map_or(until, |deadline| deadline.min(until));
        let members = loop {
            match promote(&self.member, &self.lane, id, deadline).await {
                Ok(()) => {
                    self.tell_applied("ConfChangeAddNode", id);
                    break self.members();
                }
                Err(status) if status == ApiError::NotLeader.into() => {}
                Err(status) => return Err(to_tonic(status)),
            }
            match forward::promote(&self.member, (id, token.as_deref()), until).await.map_err(to_tonic)? {
                Asked::There(members) => break members.map_err(|error| to_tonic(error.into()))?,
                Asked::Here if Instant::now() >= until => return Err(to_tonic(ApiError::Timeout.into())),
                Asked::Here => {}
            }
        };
        Ok(Response::new(pb::MemberPromoteResponse { header: self.header(), members }))
    }
}
