//! The member as its peers' connections see it. Lives on the peer thread, which has a lane of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use node::SnapshotReceiver;
use node::corruption::Hashed;
use node::lease::Remaining;
use raft::{Body, Index, Message, NodeId, Term};
use store::ReadFailure;
use wire::{ApiError, Status};

use super::mailbox::Sender;
use super::snapshots;
use super::threads::RaftMail;
use crate::LocalFuture;
use crate::auth::Credentials;
use crate::grpc::{MemberView, cluster, keep_alive};
use crate::http::Versions;
use crate::lane::Lane;
use crate::peer::{Hash, HashError, Host, IncomingSnapshot, LeaseError, LeaseTimes, PromoteError, size};
use crate::process::Events;

/// Bytes of messages that may wait for the raft thread: twice what a leader has under way to one follower.
const INBOX_BYTES_MAX: usize = 64 << 20;
/// And how many.
const INBOX_MESSAGES_MAX: usize = 16 << 10;

/// Counts the messages of peers that wait for the raft thread.
#[derive(Clone, Default)]
pub(super) struct Inbox(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    bytes: AtomicUsize,
    messages: AtomicUsize,
}

impl Inbox {
    /// Whether there is room for a message of this size, which counts then. Called by the peer thread alone.
    fn admit(&self, bytes: usize) -> bool {
        let waiting = &self.0;
        let (before, count) =
            (waiting.bytes.load(Ordering::Relaxed), waiting.messages.load(Ordering::Relaxed));
        if before > 0 && before + bytes > INBOX_BYTES_MAX || count >= INBOX_MESSAGES_MAX {
            return false;
        }
        self.count(bytes);
        true
    }

    fn count(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.0.messages.fetch_add(1, Ordering::Relaxed);
    }

    /// The raft thread has taken these.
    pub(super) fn taken(&self, messages: &[Message]) {
        let bytes = messages.iter().map(size).sum();
        self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.0.messages.fetch_sub(messages.len(), Ordering::Relaxed);
    }
}

/// What answers peers.
pub(super) struct MemberHost {
    pub raft: Sender<RaftMail>,
    pub inbox: Inbox,
    pub lane: Lane,
    pub receiver: SnapshotReceiver,
    pub events: Events,
}

impl MemberHost {
    fn view(&self) -> Arc<MemberView> {
        Arc::clone(&self.lane.member())
    }
}

impl Host for MemberHost {
    fn receive(&self, messages: Vec<Message>) -> usize {
        let count = messages.len();
        let admitted = |message: &Message| match message.body {
            // All that it stands for is on disk, and no other is received until consensus has heard of it.
            Body::Snapshot { .. } => {
                self.inbox.count(size(message));
                true
            }
            _ => self.inbox.admit(size(message)),
        };
        let messages: Vec<Message> = messages.into_iter().filter(admitted).collect();
        let dropped = count - messages.len();
        if !messages.is_empty() {
            self.raft.send(RaftMail::Messages(messages));
        }
        dropped
    }

    fn unreachable(&self, id: NodeId) {
        self.raft.send(RaftMail::Unreachable(id));
    }

    fn snapshot_reported(&self, to: NodeId, sent: (Term, Index), ok: bool) {
        self.raft.send(RaftMail::SnapshotReported(to, sent, ok));
    }

    fn removed(&self) {
        self.events.removed();
    }

    fn is_removed(&self, id: NodeId) -> bool {
        self.view().reader.membership().is_removed(id.0)
    }

    fn versions(&self) -> Versions {
        self.view().versions()
    }

    fn members(&self) -> Vec<store::Member> {
        self.view().reader.membership().members().cloned().collect()
    }

    fn receive_snapshot(&self, snapshot: IncomingSnapshot) -> LocalFuture<'_, Result<(), String>> {
        let (receiver, events) = (self.receiver.clone(), self.events.clone());
        let metrics = self.view().metrics.clone();
        Box::pin(async move {
            let log_id = getrandom::u64().map_err(|error| error.to_string())?;
            let work = move || snapshots::receive(&receiver, snapshot, log_id, (&events, &metrics));
            tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
        })
    }

    fn promote(
        &self,
        id: u64,
        token: Option<String>,
    ) -> LocalFuture<'_, Result<Vec<store::Member>, PromoteError>> {
        Box::pin(async move {
            let credentials = token.as_deref().map(Credentials::of_token).unwrap_or_default();
            self.lane.token_known(&credentials, None).await;
            let may = self.view().who(&credentials).and_then(|who| who.check_admin());
            may.map_err(|error| PromoteError::Other(error.text().to_owned()))?;
            let promoted = cluster::promote(&self.view(), &self.lane.handle(), id, None).await;
            promoted.map_err(|status| promote_error(&status))?;
            Ok(self.members())
        })
    }

    fn caught_up(&self) -> LocalFuture<'_, ()> {
        Box::pin(self.lane.applied(self.view().status.committed()))
    }

    fn renew_lease(&self, id: i64) -> LocalFuture<'_, Result<i64, LeaseError>> {
        Box::pin(async move {
            match keep_alive::renew_here(&self.lane, id).await {
                Ok(0) => Err(LeaseError::NotFound),
                Ok(ttl_s) => Ok(ttl_s),
                Err(status) => Err(lease_error(&status)),
            }
        })
    }

    fn lease_time_to_live(&self, id: i64, keys: bool) -> LocalFuture<'_, Result<LeaseTimes, LeaseError>> {
        Box::pin(async move {
            self.lane.linearizable().await.map_err(|status| lease_error(&status))?;
            let view = self.view();
            let Remaining::Left { ttl_s, granted_ttl_s } = (match view.leases.remaining(id) {
                Remaining::NotPrimary => return Err(LeaseError::NotPrimary),
                other => other,
            }) else {
                return Err(LeaseError::NotFound);
            };
            let keys = match keys {
                true => {
                    let reader = view.reader.clone();
                    let keys = tokio::task::spawn_blocking(move || reader.lease_keys(id)).await;
                    keys.map_err(|error| LeaseError::Other(error.to_string()))?
                }
                false => Vec::new(),
            };
            Ok(LeaseTimes { ttl_s, granted_ttl_s, keys: keys.into_iter().map(Into::into).collect() })
        })
    }

    fn hash_kv(&self, revision: i64) -> LocalFuture<'_, Result<Hash, HashError>> {
        Box::pin(async move {
            let view = self.view();
            let hashed = view.hashes.compared(&view.reader, revision).await;
            let hashed = hashed.ok_or_else(|| HashError::Other(ApiError::Stopped.text().to_owned()))?;
            let Hashed { hash, revision } = hashed.map_err(|failure| match failure {
                ReadFailure::Api(ApiError::Compacted) => HashError::Compacted,
                ReadFailure::Api(ApiError::FutureRev) => HashError::Future,
                other => HashError::Other(other.to_string()),
            })?;
            Ok(Hash {
                hash: hash.hash,
                hash_revision: hash.hash_revision,
                compact_revision: hash.compact_revision,
                revision,
            })
        })
    }

    fn downgrade_enabled(&self) -> LocalFuture<'_, Result<bool, String>> {
        Box::pin(async move {
            self.lane.linearizable().await.map_err(|status| status.message.to_string())?;
            Ok(self.view().reader.membership().downgrade_target().is_some())
        })
    }
}

fn promote_error(status: &Status) -> PromoteError {
    let is = |error: ApiError| *status == error.into();
    if is(ApiError::MemberNotFound) {
        PromoteError::NotFound
    } else if is(ApiError::MemberNotLearner) {
        PromoteError::NotLearner
    } else if is(ApiError::LearnerNotReady) {
        PromoteError::NotReady
    } else {
        PromoteError::Other(status.message.to_string())
    }
}

fn lease_error(status: &Status) -> LeaseError {
    match *status == ApiError::NotPrimaryLessor.into() {
        true => LeaseError::NotPrimary,
        false => LeaseError::Other(status.message.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft::EntryKind;

    use super::*;

    fn proposal(bytes: usize) -> Message {
        let entries = vec![(EntryKind::Normal, Bytes::from(vec![0; bytes]))];
        Message { from: NodeId(1), to: NodeId(2), term: Term(0), body: Body::Propose { entries } }
    }

    #[test]
    fn what_waits_for_the_raft_thread_is_bounded_in_bytes_and_number() {
        let inbox = Inbox::default();
        let half = proposal(INBOX_BYTES_MAX / 2 - 1000);
        assert!(inbox.admit(size(&half)) && inbox.admit(size(&half)));
        assert!(!inbox.admit(size(&half)), "a third half");
        inbox.taken(std::slice::from_ref(&half));
        assert!(inbox.admit(size(&half)), "the raft thread has taken one");
        inbox.taken(&[half.clone(), half]);
        // One of any size has room when nothing waits; then there is none.
        let large = proposal(2 * INBOX_BYTES_MAX);
        assert!(inbox.admit(size(&large)));
        assert!(!inbox.admit(1));
        inbox.taken(&[large]);
        let small = proposal(1);
        let admitted = (0..2 * INBOX_MESSAGES_MAX).filter(|_| inbox.admit(size(&small))).count();
        assert_eq!(admitted, INBOX_MESSAGES_MAX);
        inbox.taken(std::slice::from_ref(&small));
        assert!(inbox.admit(size(&small)) && !inbox.admit(size(&small)));
    }
}
