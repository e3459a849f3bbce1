//! `grpc.health.v1.Health`: only the empty service name is registered, as in etcd.

use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll};

use tonic::codegen::tokio_stream::Stream;
use tonic::{Request, Response, Status};
use wire::ApiError;
use wire::health::health_check_response::ServingStatus;
use wire::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};

use super::service::to_tonic;
use crate::stubs::health::health_server::Health;

/// Says that the server serves.
pub struct HealthService;

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}

/// One status, and then no end: nothing changes it while the server runs.
pub struct HealthWatch(Option<HealthCheckResponse>);

impl Stream for HealthWatch {
    type Item = Result<HealthCheckResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.take().map_or(Poll::Pending, |first| Poll::Ready(Some(Ok(first))))
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !request.get_ref().service.is_empty() {
            return Err(to_tonic(ApiError::UnknownHealthService.into()));
        }
        Ok(Response::new(answer(ServingStatus::Serving)))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let statuses = HashMap::from([(String::new(), answer(ServingStatus::Serving))]);
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream = HealthWatch;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthWatch>, Status> {
        let status = match request.get_ref().service.as_str() {
            "" => ServingStatus::Serving,
            _ => ServingStatus::ServiceUnknown,
        };
        Ok(Response::new(HealthWatch(Some(answer(status)))))
    }
}
