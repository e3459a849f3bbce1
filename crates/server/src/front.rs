//! A network thread's service over a member: joins connections, lane and health.

use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_local;

use crate::LocalFuture;
use crate::config::{Config, Keepalive};
use store::request::Range;
use store::{ReadFailure, ReadMode};
use wire::etcdserverpb::AlarmType;

use crate::gateway::{self, Gateway};
use crate::grpc::{self, GrpcConfig, Slow};
use crate::http::{Alarm, Health, RaftStatus, Versions, Web};
use crate::lane::{Lane, LaneSeed};
use crate::listen::{Closing, Service, Stream, ThreadService};
use crate::metrics::{Encoded, Format, Metrics};

/// While the server is closing, connections that came to life only then are told so within this.
const DRAIN_INTERVAL: Duration = Duration::from_millis(100);

impl From<&Config> for GrpcConfig {
    fn from(config: &Config) -> Self {
        let Keepalive { min_time, interval, timeout } = config.keepalive;
        GrpcConfig {
            limits: config.limits,
            ping_interval_min: min_time,
            keepalive_interval: interval,
            keepalive_timeout: timeout,
            election_timeout: Duration::from_millis(config.election_timeout_ms),
            watch_progress_interval: config.watch_progress_interval,
            slow: Slow::new(config.warning_apply_duration, config.warning_unary_request_duration),
        }
    }
}

/// The service of a member: each network thread takes its own lane.
pub struct Front {
    seeds: Mutex<Vec<Option<LaneSeed>>>,
    /// To each network thread, and where it hears them until it has begun.
    renewals: Vec<mpsc::UnboundedSender<LaneSeed>>,
    renewed: Mutex<Vec<Option<mpsc::UnboundedReceiver<LaneSeed>>>>,
    config: GrpcConfig,
    /// What the gateway may have in progress, where there is one.
    gateway: Option<Arc<Semaphore>>,
}

impl Front {
    /// A service with one lane for each network thread, in their order. `has_gateway`: `--enable-grpc-gateway`.
    pub fn new(seeds: Vec<LaneSeed>, config: GrpcConfig, has_gateway: bool) -> Front {
        let (renewals, renewed) = seeds.iter().map(|_| mpsc::unbounded_channel()).unzip();
        let renewed: Vec<_> = renewed;
        Front {
            seeds: Mutex::new(seeds.into_iter().map(Some).collect()),
            renewals,
            renewed: Mutex::new(renewed.into_iter().map(Some).collect()),
            config,
            gateway: has_gateway.then(|| gateway::permits(config.limits.concurrent_streams_max)),
        }
    }

    /// The member was opened anew: its network threads go on with these, in their order.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn renew(&self, seeds: Vec<LaneSeed>) {
        assert_eq!(self.renewals.len(), seeds.len(), "one seed for each network thread");
        for (thread, seed) in self.renewals.iter().zip(seeds) {
            // A thread that is gone has nobody left to serve.
            let _ = thread.send(seed);
        }
    }
}

impl Service for Front {
    /// # Panics
    /// If there is no seed for the thread, or it was taken before.
    fn on_thread(&self, thread: usize, mut closing: Closing) -> Rc<dyn ThreadService> {
        let mut seeds = self.seeds.lock().expect("nobody panics with it");
        let seed = seeds.get_mut(thread).and_then(Option::take);
        let (parts, completions) = seed.expect("one seed for each network thread")();
        let (lane, driver) = Lane::new(parts, completions);
        let mut renewed = self.renewed.lock().expect("nobody panics with it");
        let renewed = renewed.get_mut(thread).and_then(Option::take);
        spawn_local(driver.renewed_by(renewed.expect("with its seed")));
        let drained = lane.clone();
        spawn_local(async move {
            closing.wait().await;
            loop {
                drained.drain();
                tokio::time::sleep(DRAIN_INTERVAL).await;
            }
        });
        let front = grpc::Front::new(lane.clone(), self.config);
        let gateway = self.gateway.clone().map(|calls| Gateway::new(front.clone(), calls));
        Rc::new(FrontThread { lane, front, gateway })
    }
}

struct FrontThread {
    lane: Lane,
    front: grpc::Front,
    gateway: Option<Gateway>,
}

impl ThreadService for FrontThread {
    fn grpc(self: Rc<Self>, stream: Stream, web: Option<Web>) -> LocalFuture<'static, ()> {
        let client = grpc::Client { address: stream.remote(), certified: stream.certified() };
        Box::pin(grpc::serve_client(stream, client, self.front.clone(), web))
    }

    fn gateway(&self) -> Option<Gateway> {
        self.gateway.clone()
    }
}

impl Health for FrontThread {
    fn alarms(&self) -> Vec<Alarm> {
        let alarms = self.lane.member().reader.alarms();
        let alarms = alarms.iter().map(|alarm| match AlarmType::try_from(alarm.alarm) {
            Ok(AlarmType::Nospace) => Alarm::NoSpace,
            Ok(AlarmType::Corrupt) => Alarm::Corrupt,
            _ => Alarm::Unknown,
        });
        alarms.collect()
    }

    fn has_leader(&self) -> bool {
        self.lane.member().status.leader() != 0
    }

    fn is_learner(&self) -> bool {
        self.lane.member().status.is_learner()
    }

    fn read(&self, linearizable: bool) -> LocalFuture<'_, Result<(), String>> {
        Box::pin(async move {
            if linearizable {
                self.lane.handle().linearizable(None).await.map_err(|status| status.message.to_string())?;
            }
            self.lane.counts().ranges_read.add_alone(1);
            let request = Range { key: &[0], keys_only: true, limit: 1, ..Range::default() };
            match self.lane.member().reader.range(&request, ReadMode::NoWait, &mut Vec::new()) {
                // Keys are in memory; and a disk that has to be waited for is no illness.
                Ok(_) | Err(ReadFailure::WouldBlock | ReadFailure::Long) => Ok(()),
                Err(failure) => Err(failure.to_string()),
            }
        })
    }

    fn metrics(&self, format: Format) -> Option<LocalFuture<'_, Option<Encoded>>> {
        let member = Arc::clone(&self.lane.member());
        Some(Box::pin(Metrics::page_in_turn(member, format)))
    }

    fn health_ended(&self, is_well: bool) {
        let probes = &self.lane.member().metrics.member.probes;
        let counter = if is_well { &probes.successes } else { &probes.failures };
        counter.add(1);
    }

    fn check_ended(&self, probe: &'static str, check: &'static str, is_well: bool) {
        self.lane.member().metrics.member.probes.ended(probe, check, is_well);
    }

    fn raft_status(&self) -> RaftStatus {
        let member = self.lane.member();
        let status = &member.status;
        RaftStatus {
            id: member.member_id,
            term: status.term(),
            leader: status.leader(),
            commit: status.committed(),
            applied: status.applied(),
            is_learner: status.is_learner(),
        }
    }

    fn versions(&self) -> Versions {
        self.lane.member().versions()
    }
}
