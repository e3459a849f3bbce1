//! The member's threads. PLACEHOLDER: no consensus and no storage yet; it is ready at once and serves no gRPC.
//!
//! What the process needs of the real one: [`start`], [`Member::service`], [`Member::stop`], and calls of [`Events`].

use std::rc::Rc;
use std::sync::Arc;

use crate::LocalFuture;
use crate::config::Config;
use crate::http::{Alarm, Health, Versions};
use crate::listen::{Closing, Service, Stream, ThreadService};
use crate::process::Events;

/// A member that runs.
pub struct Member;

/// Starts the member: opens its files and starts its threads. It calls `events.ready()` once its attributes are
/// applied, and `events.ended()` if it ends by itself. The folders exist; [`Config::bootstrap`] was checked.
///
/// # Errors
/// Whatever keeps it from starting; the process then ends with 1.
pub fn start(_config: &Config, events: &Events) -> anyhow::Result<Member> {
    events.ready();
    Ok(Member)
}

impl Member {
    /// What the network threads serve: the real one returns a [`crate::front::Front`] over its lanes' parts, one for
    /// each of [`crate::listen::network_threads`].
    pub fn service(&self) -> Arc<dyn Service> {
        Arc::new(Placeholder)
    }

    /// The member's id.
    pub fn id(&self) -> u64 {
        0
    }

    /// Ends its threads once everything begun is on disk. The network threads are gone by then.
    pub fn stop(self) {}
}

struct Placeholder;

impl Service for Placeholder {
    fn on_thread(&self, _thread: usize, _closing: Closing) -> Rc<dyn ThreadService> {
        Rc::new(Placeholder)
    }
}

impl ThreadService for Placeholder {
    fn grpc(self: Rc<Self>, _stream: Stream) -> LocalFuture<'static, ()> {
        Box::pin(async {})
    }
}

impl Health for Placeholder {
    fn alarms(&self) -> Vec<Alarm> {
        Vec::new()
    }

    fn has_leader(&self) -> bool {
        true
    }

    fn read(&self, _linearizable: bool) -> LocalFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn versions(&self) -> Versions {
        Versions::default()
    }
}
