//! The calls.

use std::time::Duration;

use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Response, Streaming};
use wire::etcdserverpb::alarm_request::AlarmAction;
use wire::etcdserverpb::downgrade_request::DowngradeAction;
use wire::etcdserverpb::{
    AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DefragmentRequest,
    DefragmentResponse, DeleteRangeRequest, DeleteRangeResponse, DowngradeRequest, DowngradeResponse,
    HashKvRequest, HashKvResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest,
    LeaseKeepAliveResponse, LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, MemberAddRequest, MemberAddResponse, MemberListRequest,
    MemberListResponse, MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest,
    MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse, MoveLeaderRequest, MoveLeaderResponse,
    PutRequest, PutResponse, RangeRequest, RangeResponse, SnapshotRequest, SnapshotResponse, StatusRequest,
    StatusResponse, TxnRequest, TxnResponse, WatchRequest, WatchResponse,
};
use wire::url::Url;
use wire::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderRequest, LeaderResponse, ProclaimRequest, ProclaimResponse,
    ResignRequest, ResignResponse,
};
use wire::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use wire::{Code, Status};

use crate::identity::{Credentials, Identity};
use crate::security::Security;
use crate::stream::check_size;
use crate::stubs::cluster_client::ClusterClient;
use crate::stubs::election::election_client::ElectionClient;
use crate::stubs::kv_client::KvClient;
use crate::stubs::lease_client::LeaseClient;
use crate::stubs::lock::lock_client::LockClient;
use crate::stubs::maintenance_client::MaintenanceClient;
use crate::stubs::watch_client::WatchClient;
use crate::{Answers, Channel, Deadline, Duplex, Endpoint, Error, Keepalive, LeaseKeepAlive};

/// What a [`Client`] is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Tried in this order; at least one.
    pub endpoints: Vec<Endpoint>,
    /// Bounds each attempt to connect.
    pub dial_timeout: Duration,
    /// Certificates and whom to trust, for endpoints that are reached with TLS.
    pub tls: tls::Info,
    /// Whether endpoints that say nothing about TLS are reached with it.
    pub tls_by_default: bool,
    /// Who the client says it is, if anybody.
    pub credentials: Option<Credentials>,
    /// How a server that says nothing is found out, if it is to be.
    pub keepalive: Option<Keepalive>,
    /// Longest message that is sent, bytes.
    pub request_bytes_max: u32,
    /// Longest message that is taken, bytes.
    pub answer_bytes_max: u32,
}

impl Config {
    /// etcdctl's defaults.
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        Config {
            endpoints,
            dial_timeout: Duration::from_secs(2),
            tls: tls::Info::default(),
            tls_by_default: false,
            credentials: None,
            // The time as gRPC's Go client raises it.
            keepalive: Some(Keepalive { time: Duration::from_secs(10), timeout: Duration::from_secs(6) }),
            request_bytes_max: 2 << 20,
            answer_bytes_max: i32::MAX as u32,
        }
    }
}

/// A client of one cluster. Connects with the first call; clones share the connection.
///
/// Every call fails with [`Error::DeadlineExceeded`] when its deadline passes while the server works, with
/// [`Error::Unreachable`] when it passes without a connection, and with [`Error::Status`] when the server refuses it or
/// the connection breaks. Dropping a call cancels it; whether a write that was canceled or broken off has happened is then
/// unknown.
///
/// With a user and a password it logs in before the first call. A call that is refused since its token is too old is made
/// again after another login.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    dial_timeout: Duration,
    request_bytes_max: u32,
}

impl Client {
    /// A client that has not connected yet.
    ///
    /// # Errors
    /// [`Error::NoEndpoints`], [`Error::Tls`] when a file is missing or none, and [`Error::Status`] for a token that
    /// cannot be sent.
    pub fn new(config: Config) -> Result<Self, Error> {
        if config.endpoints.is_empty() {
            return Err(Error::NoEndpoints);
        }
        let security = Security::new(&config.endpoints, &config.tls, config.tls_by_default)?;
        let identity = Identity::new(config.credentials, !config.tls.cert_file.is_empty())?;
        let Config { endpoints, dial_timeout, keepalive, answer_bytes_max, .. } = config;
        let channel = Channel::new(endpoints, dial_timeout, security, identity, keepalive, answer_bytes_max);
        Ok(Client { channel, dial_timeout, request_bytes_max: config.request_bytes_max })
    }

    /// The channel, for calls that have no method here.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// KV.Range.
    pub async fn range(&self, request: RangeRequest, deadline: Deadline) -> Result<RangeResponse, Error> {
        self.call(request, deadline, |r| async move { self.kv().range(r).await }).await
    }

    /// KV.RangeStream, its chunks put together into one answer.
    pub async fn range_stream(
        &self,
        request: RangeRequest,
        deadline: Deadline,
    ) -> Result<RangeResponse, Error> {
        let call = |r| async move {
            let mut chunks = self.kv().range_stream(r).await?.into_inner();
            let mut whole = RangeResponse::default();
            while let Some(chunk) = chunks.message().await? {
                if let Some(chunk) = chunk.range_response {
                    append_chunk(&mut whole, chunk);
                }
            }
            Ok(tonic::Response::new(whole))
        };
        self.call(request, deadline, call).await
    }

    /// KV.Put.
    pub async fn put(&self, request: PutRequest, deadline: Deadline) -> Result<PutResponse, Error> {
        self.call(request, deadline, |r| async move { self.kv().put(r).await }).await
    }

    /// KV.DeleteRange.
    pub async fn delete_range(
        &self,
        request: DeleteRangeRequest,
        deadline: Deadline,
    ) -> Result<DeleteRangeResponse, Error> {
        self.call(request, deadline, |r| async move { self.kv().delete_range(r).await }).await
    }

    /// KV.Txn.
    pub async fn txn(&self, request: TxnRequest, deadline: Deadline) -> Result<TxnResponse, Error> {
        self.call(request, deadline, |r| async move { self.kv().txn(r).await }).await
    }

    /// KV.Compact.
    pub async fn compact(
        &self,
        request: CompactionRequest,
        deadline: Deadline,
    ) -> Result<CompactionResponse, Error> {
        self.call(request, deadline, |r| async move { self.kv().compact(r).await }).await
    }

    /// Lease.LeaseGrant.
    pub async fn grant(
        &self,
        request: LeaseGrantRequest,
        deadline: Deadline,
    ) -> Result<LeaseGrantResponse, Error> {
        self.call(request, deadline, |r| async move { self.lease().lease_grant(r).await }).await
    }

    /// Lease.LeaseRevoke.
    pub async fn revoke(&self, id: i64, deadline: Deadline) -> Result<LeaseRevokeResponse, Error> {
        let request = LeaseRevokeRequest { id };
        self.call(request, deadline, |r| async move { self.lease().lease_revoke(r).await }).await
    }

    /// Lease.LeaseTimeToLive; with the keys, if asked for.
    pub async fn time_to_live(
        &self,
        id: i64,
        keys: bool,
        deadline: Deadline,
    ) -> Result<LeaseTimeToLiveResponse, Error> {
        let request = LeaseTimeToLiveRequest { id, keys };
        self.call(request, deadline, |r| async move { self.lease().lease_time_to_live(r).await }).await
    }

    /// Lease.LeaseLeases of the member that is connected.
    pub async fn leases(&self, deadline: Deadline) -> Result<LeaseLeasesResponse, Error> {
        let request = LeaseLeasesRequest::default();
        self.call(request, deadline, |r| async move { self.lease().lease_leases(r).await }).await
    }

    /// Maintenance.Status of the member that is connected.
    pub async fn status(&self, deadline: Deadline) -> Result<StatusResponse, Error> {
        let request = StatusRequest::default();
        self.call(request, deadline, |r| async move { self.maintenance().status(r).await }).await
    }

    /// Maintenance.Defragment.
    pub async fn defragment(&self, deadline: Deadline) -> Result<DefragmentResponse, Error> {
        self.call(DefragmentRequest {}, deadline, |r| async move { self.maintenance().defragment(r).await })
            .await
    }

    /// Maintenance.HashKV of the member that is connected, up to `revision`; 0 is the newest.
    pub async fn hash_kv(&self, revision: i64, deadline: Deadline) -> Result<HashKvResponse, Error> {
        let request = HashKvRequest { revision };
        self.call(request, deadline, |r| async move { self.maintenance().hash_kv(r).await }).await
    }

    /// Maintenance.Snapshot of the member that is connected: its store as a database file, in pieces, and last its
    /// SHA-256. It takes as long as it takes, but for the connection: that has the time that one attempt gets.
    ///
    /// # Panics
    /// Outside of a tokio runtime, as the other streams.
    pub fn snapshot(&self) -> Answers<SnapshotResponse> {
        let client = self.clone();
        Answers::open(async move {
            let call = client.open(SnapshotRequest {}, |r| async { client.maintenance().snapshot(r).await });
            tokio::pin!(call);
            loop {
                tokio::select! {
                    answer = &mut call => return answer,
                    () = tokio::time::sleep(client.dial_timeout) => {
                        if let Some(error) = client.channel.failure() {
                            return Err(tonic::Status::unavailable(error.to_string()).into());
                        }
                    }
                }
            }
        })
    }

    /// Maintenance.Alarm GET: the alarms of all members.
    pub async fn alarms(&self, deadline: Deadline) -> Result<AlarmResponse, Error> {
        let request = AlarmRequest { action: AlarmAction::Get.into(), ..AlarmRequest::default() };
        self.call(request, deadline, |r| async move { self.maintenance().alarm(r).await }).await
    }

    /// Maintenance.Alarm: turns one on or off, of whatever member.
    pub async fn alarm(&self, request: AlarmRequest, deadline: Deadline) -> Result<AlarmResponse, Error> {
        self.call(request, deadline, |r| async move { self.maintenance().alarm(r).await }).await
    }

    /// Maintenance.MoveLeader, of the member that is connected, to this one.
    pub async fn move_leader(&self, target: u64, deadline: Deadline) -> Result<MoveLeaderResponse, Error> {
        let request = MoveLeaderRequest { target_id: target };
        self.call(request, deadline, |r| async move { self.maintenance().move_leader(r).await }).await
    }

    /// Maintenance.Downgrade, to a version as `3.6`; to cancel, the version is empty.
    pub async fn downgrade(
        &self,
        action: DowngradeAction,
        version: String,
        deadline: Deadline,
    ) -> Result<DowngradeResponse, Error> {
        let request = DowngradeRequest { action: action.into(), version };
        self.call(request, deadline, |r| async move { self.maintenance().downgrade(r).await }).await
    }

    /// Cluster.MemberAdd.
    ///
    /// # Errors
    /// [`Error::PeerUrl`] for a URL that no member can have; nothing is sent then.
    pub async fn member_add(
        &self,
        request: MemberAddRequest,
        deadline: Deadline,
    ) -> Result<MemberAddResponse, Error> {
        check_peer_urls(&request.peer_ur_ls)?;
        self.call(request, deadline, |r| async move { self.cluster().member_add(r).await }).await
    }

    /// Cluster.MemberRemove.
    pub async fn member_remove(&self, id: u64, deadline: Deadline) -> Result<MemberRemoveResponse, Error> {
        let request = MemberRemoveRequest { id };
        self.call(request, deadline, |r| async move { self.cluster().member_remove(r).await }).await
    }

    /// Cluster.MemberUpdate: other peer URLs.
    ///
    /// # Errors
    /// [`Error::PeerUrl`] for a URL that no member can have; nothing is sent then.
    pub async fn member_update(
        &self,
        request: MemberUpdateRequest,
        deadline: Deadline,
    ) -> Result<MemberUpdateResponse, Error> {
        check_peer_urls(&request.peer_ur_ls)?;
        self.call(request, deadline, |r| async move { self.cluster().member_update(r).await }).await
    }

    /// Cluster.MemberPromote: a learner gets a vote.
    pub async fn member_promote(&self, id: u64, deadline: Deadline) -> Result<MemberPromoteResponse, Error> {
        let request = MemberPromoteRequest { id };
        self.call(request, deadline, |r| async move { self.cluster().member_promote(r).await }).await
    }

    /// Cluster.MemberList, linearizable.
    pub async fn members(&self, deadline: Deadline) -> Result<MemberListResponse, Error> {
        self.member_list(true, deadline).await
    }

    /// Cluster.MemberList, of the cluster, or else as the member that is connected knows it.
    pub async fn member_list(
        &self,
        linearizable: bool,
        deadline: Deadline,
    ) -> Result<MemberListResponse, Error> {
        let request = MemberListRequest { linearizable };
        self.call(request, deadline, |r| async move { self.cluster().member_list(r).await }).await
    }

    /// Lock.Lock: waits for the lock. Dropping it frees the place in the queue.
    pub async fn lock(&self, request: LockRequest, deadline: Deadline) -> Result<LockResponse, Error> {
        self.call(request, deadline, |r| async move { self.lock_service().lock(r).await }).await
    }

    /// Lock.Unlock.
    pub async fn unlock(&self, request: UnlockRequest, deadline: Deadline) -> Result<UnlockResponse, Error> {
        self.call(request, deadline, |r| async move { self.lock_service().unlock(r).await }).await
    }

    /// Election.Campaign: waits to be elected. Dropping it ends the candidacy.
    pub async fn campaign(
        &self,
        request: CampaignRequest,
        deadline: Deadline,
    ) -> Result<CampaignResponse, Error> {
        self.call(request, deadline, |r| async move { self.election().campaign(r).await }).await
    }

    /// Election.Proclaim.
    pub async fn proclaim(
        &self,
        request: ProclaimRequest,
        deadline: Deadline,
    ) -> Result<ProclaimResponse, Error> {
        self.call(request, deadline, |r| async move { self.election().proclaim(r).await }).await
    }

    /// Election.Leader.
    pub async fn leader(&self, request: LeaderRequest, deadline: Deadline) -> Result<LeaderResponse, Error> {
        self.call(request, deadline, |r| async move { self.election().leader(r).await }).await
    }

    /// Election.Resign.
    pub async fn resign(&self, request: ResignRequest, deadline: Deadline) -> Result<ResignResponse, Error> {
        self.call(request, deadline, |r| async move { self.election().resign(r).await }).await
    }

    // The streams have no deadline. They begin by themselves, also while nobody awaits an answer.

    /// Election.Observe: the leaders, one after the other.
    ///
    /// # Panics
    /// Outside of a tokio runtime, as the other streams.
    pub fn observe(&self, request: LeaderRequest) -> Answers<LeaderResponse> {
        let client = self.clone();
        Answers::open(
            async move { client.open(request, |r| async { client.election().observe(r).await }).await },
        )
    }

    /// Watch.Watch as it is; [`Client::watcher`] is what keeps watches going.
    pub fn watch_stream(&self, require_leader: bool) -> Duplex<WatchRequest, WatchResponse> {
        let client = self.clone();
        Duplex::open(self.request_bytes_max, |requests| {
            let mut request = with_version(tonic::Request::new(requests));
            if require_leader {
                request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
            }
            async move {
                client.log_in_for_stream().await?;
                Ok(client.watch_service().watch(request).await?)
            }
        })
    }

    /// Lease.LeaseKeepAlive as it is; [`Client::keep_alive`] is what keeps a lease going.
    pub fn keep_alive_stream(&self) -> Duplex<LeaseKeepAliveRequest, LeaseKeepAliveResponse> {
        let client = self.clone();
        Duplex::open(self.request_bytes_max, |requests| {
            let request = with_version(tonic::Request::new(requests));
            async move {
                client.log_in_for_stream().await?;
                Ok(client.lease().lease_keep_alive(request).await?)
            }
        })
    }

    /// Keeps a lease alive.
    pub fn keep_alive(&self, id: i64) -> LeaseKeepAlive {
        LeaseKeepAlive::new(self.clone(), id, self.dial_timeout)
    }

    pub(crate) fn request_bytes_max(&self) -> u32 {
        self.request_bytes_max
    }

    /// Has the next call try the next endpoint.
    pub(crate) fn leave(&self) {
        self.channel.leave();
    }

    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.channel.identity()
    }

    // Sizes are checked here and in the channel, with etcd's code and text: tonic's own limits are out of the way.

    fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel()).max_decoding_message_size(usize::MAX)
    }

    fn watch_service(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel()).max_decoding_message_size(usize::MAX)
    }

    fn lock_service(&self) -> LockClient<Channel> {
        LockClient::new(self.channel()).max_decoding_message_size(usize::MAX)
    }

    fn election(&self) -> ElectionClient<Channel> {
        ElectionClient::new(self.channel()).max_decoding_message_size(usize::MAX)
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel()).max_decoding_message_size(usize::MAX)
    }

    fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel()).max_decoding_message_size(usize::MAX)
    }

    fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel()).max_decoding_message_size(usize::MAX)
    }

    /// A call, made again when another token may help.
    pub(crate) async fn call<Q, A, F>(
        &self,
        request: Q,
        deadline: Deadline,
        send: impl Fn(tonic::Request<Q>) -> F,
    ) -> Result<A, Error>
    where
        Q: Message + Clone,
        F: Future<Output = Result<Response<A>, tonic::Status>>,
    {
        let Some(identity) = self.identity() else {
            return self.call_unidentified(request, deadline, send).await;
        };
        check_size(&request, self.request_bytes_max)?;
        let attempt = || {
            let sent = send(timed(request.clone(), deadline));
            async { Ok(sent.await?.into_inner()) }
        };
        // In a place of its own: it would make the future of each call, also of a client that is nobody, twice as large.
        self.bound(deadline, Box::pin(identity.call(self, attempt))).await
    }

    /// A call by one who is nobody, or not yet.
    pub(crate) async fn call_unidentified<Q, A, F>(
        &self,
        request: Q,
        deadline: Deadline,
        send: impl FnOnce(tonic::Request<Q>) -> F,
    ) -> Result<A, Error>
    where
        Q: Message,
        F: Future<Output = Result<Response<A>, tonic::Status>>,
    {
        check_size(&request, self.request_bytes_max)?;
        let sent = send(timed(request, deadline));
        self.bound(deadline, async { Ok(sent.await?.into_inner()) }).await
    }

    /// Opens a stream of answers, again when another token may help.
    async fn open<Q, A, F>(
        &self,
        request: Q,
        send: impl Fn(tonic::Request<Q>) -> F,
    ) -> Result<Response<Streaming<A>>, Error>
    where
        Q: Clone,
        F: Future<Output = Result<Response<Streaming<A>>, tonic::Status>>,
    {
        let attempt = || {
            let sent = send(with_version(tonic::Request::new(request.clone())));
            async { Ok(sent.await?) }
        };
        match self.identity() {
            None => attempt().await,
            Some(identity) => {
                Box::pin(identity.log_in_for_stream(self)).await?;
                Box::pin(identity.call(self, attempt)).await
            }
        }
    }

    async fn log_in_for_stream(&self) -> Result<(), Error> {
        match self.identity() {
            Some(identity) => Box::pin(identity.log_in_for_stream(self)).await,
            None => Ok(()),
        }
    }

    /// Runs calls until their deadline; the error says what came of connecting if it has not come to more.
    pub(crate) async fn bound<T>(
        &self,
        deadline: Deadline,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match deadline.bound(work).await {
            Err(Error::DeadlineExceeded) => Err(self.channel.failure().unwrap_or(Error::DeadlineExceeded)),
            // The server's clock may be the faster one; it is the same deadline.
            Err(Error::Status(Status { code: Code::DeadlineExceeded, .. }))
                if deadline != Deadline::NEVER =>
            {
                Err(Error::DeadlineExceeded)
            }
            other => other,
        }
    }
}

/// A request that tells the server when its call gives up.
fn timed<Q>(request: Q, deadline: Deadline) -> tonic::Request<Q> {
    let mut request = with_version(tonic::Request::new(request));
    if let Some(timeout) = deadline.remaining() {
        request.set_timeout(timeout);
    }
    request
}

fn check_peer_urls(urls: &[String]) -> Result<(), Error> {
    match urls {
        [] => Err(Error::PeerUrl("no valid URLs given".to_owned())),
        urls => urls.iter().try_for_each(|url| Url::parse(url).map(drop)).map_err(Error::PeerUrl),
    }
}

fn with_version<Q>(mut request: tonic::Request<Q>) -> tonic::Request<Q> {
    request.metadata_mut().insert("client-api-version", MetadataValue::from_static("3.7"));
    request
}

/// Pairs and header come first, the rest with the last chunk.
fn append_chunk(whole: &mut RangeResponse, chunk: RangeResponse) {
    if chunk.header.is_some() {
        whole.header = chunk.header;
    }
    whole.kvs.extend(chunk.kvs);
    whole.more |= chunk.more;
    whole.count = whole.count.max(chunk.count);
}
