//! The other members, as calls about the cluster need them: how they are connected, what is asked of them, who leads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use node::{Leadership, Situation};
use raft::{NodeId, Time};
use tokio::sync::watch;

use super::member::MemberView;
use crate::clock::Clock;
use crate::config::Url;
use crate::peer::{Handle, PeerStats, Question, Reply};

/// Bytes of messages that may wait where there is no peer thread.
const NONE_BYTES: usize = 0;

/// The other members of a cluster, from any thread.
pub struct Others {
    peers: Handle,
    transfer: Box<dyn Fn(u64) + Send + Sync>,
    leadership: watch::Receiver<Leadership>,
    clock: Clock,
    election_timeout_ms: u64,
    strict: bool,
}

impl Others {
    /// `transfer` tells the raft thread who is to lead, `leadership` is what that thread tells of each change; `clock` is
    /// that of the member's threads. `strict`: `--strict-reconfig-check`.
    pub fn new(
        peers: Handle,
        transfer: impl Fn(u64) + Send + Sync + 'static,
        leadership: watch::Receiver<Leadership>,
        (clock, election_timeout_ms): (Clock, u64),
        strict: bool,
    ) -> Self {
        Others { peers, transfer: Box::new(transfer), leadership, clock, election_timeout_ms, strict }
    }

    /// Of a member that is alone, and is never told anything.
    pub fn none(clock: Clock) -> Self {
        let leadership = watch::channel(Leadership::default()).1;
        Others::new(Handle::new(NONE_BYTES), drop, leadership, (clock, 1_000), true)
    }

    /// Asks something of the cluster as this member sees it now: whether a change of membership may be proposed.
    pub fn situation<T>(&self, member: &MemberView, question: impl FnOnce(&Situation<'_>) -> T) -> T {
        question(&Situation {
            membership: &member.reader.membership(),
            own: member.member_id,
            strict: self.strict,
            now: self.clock.now(),
            connected_since: &self.connections(),
        })
    }

    /// Tells since when a member is connected without a break; `None` if it is not.
    pub fn connections(&self) -> impl Fn(u64) -> Option<Time> + use<> {
        let (stats, clock) = (self.peers.stats(), self.clock);
        move |id| {
            let since = stats.get(&NodeId(id))?.active_since()?;
            Some(clock.time(since.into_std()))
        }
    }

    /// What is counted of each of those with whom this member has had to do.
    pub fn stats(&self) -> BTreeMap<NodeId, Arc<PeerStats>> {
        self.peers.all_stats().all()
    }

    /// The time, by the member's clock.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// `--election-timeout`.
    pub fn election_timeout_ms(&self) -> u64 {
        self.election_timeout_ms
    }

    /// Who leads, as the raft thread tells of it.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Lets a member lead, and returns when it does. It may never come to that: the caller gives up, by dropping the future.
    pub async fn transfer_leader(&self, to: u64) {
        (self.transfer)(to);
        let mut leadership = self.leadership.clone();
        if leadership.wait_for(|leadership| leadership.leader == to).await.is_err() {
            // The raft thread is gone, and the process about to end.
            std::future::pending::<()>().await;
        }
    }

    /// Whether this member is gone, so that nobody can be asked by it.
    pub fn is_stopped(&self) -> bool {
        self.peers.is_stopped()
    }

    /// Asks another member at one of its peer URLs, within `timeout`; dropping the future gives up.
    ///
    /// # Errors
    /// Why there is no answer; whether the question arrived is not known then.
    pub fn ask(
        &self,
        url: Url,
        question: Question,
        timeout: Duration,
    ) -> impl Future<Output = Result<Reply, String>> + Send + use<> {
        self.peers.ask(url, question, timeout)
    }
}
