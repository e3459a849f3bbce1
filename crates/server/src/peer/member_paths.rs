//! What goes to the member: its members, promotions, leases, hashes, downgrades.

use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use prost::Message as _;
use store::Member;
use wire::{etcdserverpb as pb, leasepb};

use super::body::PeerBody;
use super::host::{LeaseError, PromoteError};
use super::identity::{self, CLUSTER_ID, Incompatible};
use super::serve::{
    BodyError, REQUEST_BYTES_MAX, at_most, content, error, json_error, not_allowed, read_body,
};
use super::transport::Transport;
use crate::http::json_text;
use crate::log;

/// How long a request about a lease waits for what is committed to be applied.
const APPLY_TIMEOUT: Duration = Duration::from_secs(1);

impl Transport {
    /// `GET /members`.
    pub(super) fn members(&self, head: &Parts) -> Response<PeerBody> {
        if head.method != Method::GET {
            return not_allowed("GET");
        }
        self.of_cluster(content("application/json", members_json(&self.shared.host.members())))
    }

    /// `POST /members/promote/ID`, the id in decimal.
    pub(super) async fn promote(&self, text: &str, head: &Parts) -> Response<PeerBody> {
        if head.method != Method::POST {
            return not_allowed("POST");
        }
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let Some(id) = text.parse().ok().filter(|_| is_plain) else {
            let text = format!("member {text} not found in cluster");
            return self.of_cluster(error(StatusCode::NOT_FOUND, &text));
        };
        let token = identity::text(&head.headers, &AUTHORIZATION).filter(|token| !token.is_empty());
        let promoted = self.shared.host.promote(id, token.map(str::to_owned)).await;
        let response = promoted.map(|members| content("application/json", members_json(&members)));
        self.of_cluster(response.unwrap_or_else(|failure| {
            log::warn!(
                "failed to promote a member",
                "member-id" => format!("{id:x}"),
                "error" => log::Text(&failure),
            );
            let text = failure.to_string();
            match failure {
                PromoteError::NotFound => error(StatusCode::NOT_FOUND, &text),
                PromoteError::NotLearner | PromoteError::NotReady => {
                    error(StatusCode::PRECONDITION_FAILED, &text)
                }
                PromoteError::Other(_) => {
                    json_error(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
                }
            }
        }))
    }

    /// `POST /leases` and `POST /leases/internal`: renewal and time to live, asked of the leader.
    pub(super) async fn leases(&self, path: &str, head: &Parts, body: Incoming) -> Response<PeerBody> {
        if head.method != Method::POST {
            return error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        }
        let stall = self.shared.settings.limits.stall_timeout;
        let bytes = match read_body(body, at_most(REQUEST_BYTES_MAX), stall).await {
            Ok(bytes) => bytes,
            Err(BodyError::TooLarge) => {
                return error(StatusCode::PAYLOAD_TOO_LARGE, "request body too large");
            }
            Err(BodyError::Cut) => return error(StatusCode::BAD_REQUEST, "error reading body"),
        };
        let answer = match path {
            "/leases" => self.renew(bytes).await,
            _ => self.time_to_live(bytes).await,
        };
        answer.map_or_else(|refused| *refused, |bytes| content("application/protobuf", bytes))
    }

    async fn caught_up(&self) -> Result<(), Box<Response<PeerBody>>> {
        let text = "waiting for node to catch up its applied index has timed out";
        let waited = tokio::time::timeout(APPLY_TIMEOUT, self.shared.host.caught_up()).await;
        waited.map_err(|_| Box::new(error(StatusCode::REQUEST_TIMEOUT, text)))
    }

    async fn renew(&self, bytes: Bytes) -> Result<Bytes, Box<Response<PeerBody>>> {
        let request = pb::LeaseKeepAliveRequest::decode(bytes).map_err(|_| unreadable())?;
        self.caught_up().await?;
        let renewed = self.shared.host.renew_lease(request.id).await;
        let ttl = renewed.map_err(|failure| lease_error(&failure, StatusCode::BAD_REQUEST))?;
        let answer = pb::LeaseKeepAliveResponse { header: None, id: request.id, ttl };
        Ok(answer.encode_to_vec().into())
    }

    async fn time_to_live(&self, bytes: Bytes) -> Result<Bytes, Box<Response<PeerBody>>> {
        let request = leasepb::LeaseInternalRequest::decode(bytes).ok();
        let request =
            request.and_then(|request| request.lease_time_to_live_request).ok_or_else(unreadable)?;
        self.caught_up().await?;
        let times = self.shared.host.lease_time_to_live(request.id, request.keys).await;
        let times = times.map_err(|failure| lease_error(&failure, StatusCode::INTERNAL_SERVER_ERROR))?;
        let answer = pb::LeaseTimeToLiveResponse {
            header: Some(pb::ResponseHeader::default()),
            id: request.id,
            ttl: times.ttl_s,
            granted_ttl: times.granted_ttl_s,
            keys: times.keys,
        };
        let answer = leasepb::LeaseInternalResponse { lease_time_to_live_response: Some(answer) };
        Ok(answer.encode_to_vec().into())
    }

    /// `GET /members/hashkv`, the revision as JSON in the body.
    pub(super) async fn hash_kv(&self, head: &Parts, body: Incoming) -> Response<PeerBody> {
        if head.method != Method::GET {
            return not_allowed("GET");
        }
        let cluster = identity::text(&head.headers, &CLUSTER_ID).unwrap_or_default();
        if !cluster.is_empty() && cluster != format!("{:x}", self.shared.settings.identity.cluster_id) {
            return error(StatusCode::PRECONDITION_FAILED, &Incompatible::Cluster.to_string());
        }
        let stall = self.shared.settings.limits.stall_timeout;
        let Ok(bytes) = read_body(body, at_most(REQUEST_BYTES_MAX), stall).await else {
            return error(StatusCode::BAD_REQUEST, "error reading body");
        };
        let Some(revision) = revision(&bytes) else {
            return error(StatusCode::BAD_REQUEST, "error unmarshalling request");
        };
        match self.shared.host.hash_kv(revision).await {
            Err(failure) => {
                log::warn!(
                    "failed to get hashKV",
                    "requested-revision" => revision,
                    "error" => log::Text(&failure),
                );
                error(StatusCode::BAD_REQUEST, &failure.to_string())
            }
            Ok(hash) => {
                let fields = [
                    ("hash", i64::from(hash.hash)),
                    ("compact_revision", hash.compact_revision),
                    ("hash_revision", hash.hash_revision),
                ];
                let mut json = format!(r#"{{"header":{{"revision":{}}}"#, hash.revision);
                for (name, value) in fields.into_iter().filter(|(_, value)| *value != 0) {
                    json.push_str(&format!(r#","{name}":{value}"#));
                }
                json.push('}');
                self.of_cluster(content("application/json", json.into()))
            }
        }
    }

    /// `GET /downgrade/enabled`.
    pub(super) async fn downgrade_enabled(&self, head: &Parts) -> Response<PeerBody> {
        if head.method != Method::GET {
            return not_allowed("GET");
        }
        self.of_cluster(match self.shared.host.downgrade_enabled().await {
            Ok(enabled) => content("text/plain", enabled.to_string().into()),
            Err(text) => error(StatusCode::INTERNAL_SERVER_ERROR, &format!("failed linearized read: {text}")),
        })
    }
}

fn unreadable() -> Box<Response<PeerBody>> {
    Box::new(error(StatusCode::BAD_REQUEST, "error unmarshalling request"))
}

/// What is not there is 404; what is wrong otherwise has the status of its path.
fn lease_error(failure: &LeaseError, otherwise: StatusCode) -> Box<Response<PeerBody>> {
    let status = if *failure == LeaseError::NotFound { StatusCode::NOT_FOUND } else { otherwise };
    Box::new(error(status, &failure.to_string()))
}

/// The revision that is asked for; without one, the newest.
fn revision(bytes: &[u8]) -> Option<i64> {
    let request: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    match request.as_object()?.get("revision") {
        None | Some(serde_json::Value::Null) => Some(0),
        Some(revision) => revision.as_i64(),
    }
}

/// Members as etcd's JSON has them.
fn members_json(members: &[Member]) -> Bytes {
    let texts = |texts: &[String]| texts.iter().map(|text| json_text(text)).collect::<Vec<_>>().join(",");
    let members = members.iter().map(|member| {
        let mut json = format!(r#"{{"id":{},"peerURLs":[{}]"#, member.id, texts(&member.peer_urls));
        if member.is_learner {
            json.push_str(r#","isLearner":true"#);
        }
        if !member.name.is_empty() {
            json.push_str(&format!(r#","name":{}"#, json_text(&member.name)));
        }
        if !member.client_urls.is_empty() {
            json.push_str(&format!(r#","clientURLs":[{}]"#, texts(&member.client_urls)));
        }
        json + "}"
    });
    format!("[{}]\n", members.collect::<Vec<_>>().join(",")).into()
}
