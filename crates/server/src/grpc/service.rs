//! The calls off the hot path: generated stubs on streams that the service loop has accepted.

use bytes::Bytes;
use http::request::Parts;
use http_body_util::Full;
use tonic::codegen::Service;
use wire::Status;

use super::cluster::ClusterService;
use super::health::HealthService;
use super::lease::LeaseService;
use super::maintenance::MaintenanceService;
use super::member::MemberView;
use super::method::Cold;
use crate::lane::LaneHandle;
use crate::stubs::etcdserverpb::cluster_server::ClusterServer;
use crate::stubs::etcdserverpb::lease_server::LeaseServer;
use crate::stubs::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::stubs::health::health_server::HealthServer;

/// All services that answer through their stubs.
#[derive(Clone)]
pub struct Services {
    cluster: ClusterServer<ClusterService>,
    lease: LeaseServer<LeaseService>,
    maintenance: MaintenanceServer<MaintenanceService>,
    health: HealthServer<HealthService>,
}

impl Services {
    /// The services of one network thread.
    pub fn new(member: &std::sync::Arc<MemberView>, lane: LaneHandle) -> Self {
        // The size of a message was judged before it came here; the stubs' own limit is out of the way.
        Services {
            cluster: ClusterServer::new(ClusterService::new(member.clone(), lane.clone()))
                .max_decoding_message_size(usize::MAX),
            lease: LeaseServer::new(LeaseService::new(member.clone(), lane.clone()))
                .max_decoding_message_size(usize::MAX),
            maintenance: MaintenanceServer::new(MaintenanceService::new(member.clone(), lane))
                .max_decoding_message_size(usize::MAX),
            health: HealthServer::new(HealthService).max_decoding_message_size(usize::MAX),
        }
    }

    /// Answers a call whose message, with its prefix, is whole.
    pub async fn call(
        mut self,
        service: Cold,
        head: Parts,
        message: Bytes,
    ) -> http::Response<tonic::body::Body> {
        let request = http::Request::from_parts(head, Full::new(message));
        let Ok(response) = match service {
            Cold::Cluster => self.cluster.call(request).await,
            Cold::Lease => self.lease.call(request).await,
            Cold::Maintenance => self.maintenance.call(request).await,
            Cold::Health => self.health.call(request).await,
        };
        response
    }
}

/// One of our statuses as the stubs take it.
pub fn to_tonic(status: Status) -> tonic::Status {
    tonic::Status::new(tonic::Code::from_i32(i32::from(status.code.number())), status.message)
}

/// The answer of a call that this version does not have.
pub fn not_yet<T>(what: &str) -> Result<T, tonic::Status> {
    Err(to_tonic(Status::not_yet(what)))
}

/// When the client stops waiting, by its own word.
pub fn client_deadline<T>(request: &tonic::Request<T>) -> Option<tokio::time::Instant> {
    request.extensions().get::<Deadline>().map(|deadline| deadline.0)
}

/// The client's deadline, in the extensions of a request.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(pub tokio::time::Instant);
