//! The calls off the hot path: generated stubs on streams that the service loop has accepted.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use prost::Message as _;
use tonic::codegen::Service;
use wire::{RequestLimits, Status, etcdserverpb as pb};

use super::auth::AuthService;
use super::cluster::ClusterService;
use super::health::HealthService;
use super::lease::LeaseService;
use super::maintenance::MaintenanceService;
use super::member::MemberView;
use super::method::{Cold, Method};
use crate::auth::{Credentials, Who};
use crate::lane::LaneHandle;
use crate::stubs::etcdserverpb::auth_server::AuthServer;
use crate::stubs::etcdserverpb::cluster_server::ClusterServer;
use crate::stubs::etcdserverpb::lease_server::LeaseServer;
use crate::stubs::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::stubs::health::health_server::HealthServer;

/// All services that answer through their stubs, for one call.
pub struct Services {
    member: Arc<MemberView>,
    lane: LaneHandle,
    limits: RequestLimits,
}

impl Services {
    /// The services of a member that is there now.
    pub fn new(member: Arc<MemberView>, lane: LaneHandle, limits: RequestLimits) -> Self {
        Services { member, lane, limits }
    }

    /// Answers a call whose message, with its prefix, is whole.
    pub async fn call(
        self,
        service: Cold,
        request: Request<()>,
        message: Bytes,
    ) -> http::Response<tonic::body::Body> {
        let Services { member, lane, limits } = self;
        let request = request.map(|()| Full::new(message));
        // The size of a message was judged before it came here; the stubs' own limit is out of the way.
        let Ok(response) = match service {
            Cold::Auth => {
                let service = AuthServer::new(AuthService::new(member, lane, limits));
                service.max_decoding_message_size(usize::MAX).call(request).await
            }
            Cold::Cluster => {
                let service = ClusterServer::new(ClusterService::new(member, lane));
                service.max_decoding_message_size(usize::MAX).call(request).await
            }
            Cold::Lease => {
                let service = LeaseServer::new(LeaseService::new(member, lane));
                service.max_decoding_message_size(usize::MAX).call(request).await
            }
            Cold::Maintenance => {
                let service = MaintenanceServer::new(MaintenanceService::new(member, lane));
                service.max_decoding_message_size(usize::MAX).call(request).await
            }
            Cold::Health => {
                let service = HealthServer::new(HealthService);
                service.max_decoding_message_size(usize::MAX).call(request).await
            }
        };
        response
    }
}

/// Whether the answer to this message grows with what is stored: it is made only once there is room for it.
pub fn is_list(method: Method, message: &[u8]) -> bool {
    match method.names() {
        ("etcdserverpb.Lease", "LeaseTimeToLive") => {
            pb::LeaseTimeToLiveRequest::decode(message).is_ok_and(|request| request.keys)
        }
        ("etcdserverpb.Lease", "LeaseLeases")
        | ("etcdserverpb.Auth", "UserGet" | "UserList" | "RoleGet" | "RoleList") => true,
        _ => false,
    }
}

/// One of our statuses as the stubs take it.
pub fn to_tonic(status: Status) -> tonic::Status {
    tonic::Status::new(tonic::Code::from_i32(i32::from(status.code.number())), status.message)
}

/// Who asks.
pub fn who<T>(member: &MemberView, request: &tonic::Request<T>) -> Result<Who, tonic::Status> {
    let known = request.extensions().get::<Credentials>();
    member.who(known.unwrap_or(&Credentials::default())).map_err(|error| to_tonic(error.into()))
}

/// Who asks, with role root where users count.
pub fn admin<T>(member: &MemberView, request: &tonic::Request<T>) -> Result<Who, tonic::Status> {
    let who = who(member, request)?;
    who.check_admin().map_err(|error| to_tonic(error.into()))?;
    Ok(who)
}

/// When the client stops waiting, by its own word.
pub fn client_deadline<T>(request: &tonic::Request<T>) -> Option<tokio::time::Instant> {
    request.extensions().get::<Deadline>().map(|deadline| deadline.0)
}

/// The client's deadline, in the extensions of a request.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(pub tokio::time::Instant);
