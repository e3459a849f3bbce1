//! Watches that outlive connections.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use wire::etcdserverpb::watch_request::RequestUnion;
use wire::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use wire::{ApiError, Code, Status};

use crate::identity::Identity;
use crate::stream::check_size;
use crate::{Client, Duplex, Error};

/// The first and the longest pause before a stream that failed is opened again.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// The id of answers that are no watch's: a watch that was not made, or the progress of all.
const NO_WATCH: i64 = -1;

/// Several watches on one stream, and what they say in one sequence.
///
/// Nothing moves unless [`Watcher::next`] is awaited, and nothing is kept but the answer that it is about to give (a
/// progress that concerns all watches: one for each): who does not take answers makes the server wait, by the stream's
/// window of 1 MiB. So a watch whose answers take long to work off holds up the others; watches that shall not wait for
/// each other want a `Watcher` each.
///
/// When the stream breaks, every watch is made anew, at the next endpoint, from the revision after the last that it has
/// seen; likewise, at the same endpoint, when a watch is refused since the stream's token is too old. Dropping it resets
/// the stream.
pub struct Watcher {
    client: Client,
    require_leader: bool,
    stream: Option<Duplex<WatchRequest, WatchResponse>>,
    watches: BTreeMap<WatchKey, Watch>,
    /// By the ids that the server gave on this stream.
    by_id: BTreeMap<i64, WatchKey>,
    /// Those that the stream was asked for and that are not answered; answers come in the order of the requests.
    asked: VecDeque<WatchKey>,
    /// Requests for the stream: at most one a watch, a cancel each, and one for progress.
    outbox: VecDeque<WatchRequest>,
    /// What is to be given out.
    ready: VecDeque<Watched>,
    keys_given: u64,
    /// A watch was refused for the token of its stream, and another stream opened. Until one is made.
    is_renewed: bool,
    /// Before another stream is opened.
    pause: Duration,
    paused_until: Option<Instant>,
}

/// Names a watch within its [`Watcher`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchKey(u64);

struct Watch {
    /// What it takes to make it anew: its start revision is the next one that it has not seen.
    request: WatchCreateRequest,
    id: Option<i64>,
    /// Whether it has been said that it was made.
    announced: bool,
    /// The beginning of an answer whose other fragments are still to come.
    begun: Option<WatchResponse>,
}

/// What a watch says: that it was made (`created`), events, or how far it is (neither). As the server sent it, but that
/// fragments are put together.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Whose it is.
    pub watch: WatchKey,
    /// The server's answer; of a watch that was not made, or that ended with its stream, only `canceled` is set.
    pub response: WatchResponse,
    /// Why the watch is over, if it is. [`ApiError::Compacted`] comes with a `compact_revision`.
    pub end: Option<Error>,
}

impl Watched {
    fn end(watch: WatchKey, error: Error) -> Self {
        let response = WatchResponse { canceled: true, ..WatchResponse::default() };
        Watched { watch, response, end: Some(error) }
    }
}

impl Watcher {
    pub(crate) fn new(client: Client, require_leader: bool) -> Self {
        Watcher {
            client,
            require_leader,
            stream: None,
            watches: BTreeMap::new(),
            by_id: BTreeMap::new(),
            asked: VecDeque::new(),
            outbox: VecDeque::new(),
            ready: VecDeque::new(),
            keys_given: 0,
            is_renewed: false,
            pause: PAUSE_FIRST,
            paused_until: None,
        }
    }

    /// Adds a watch. Its id is the server's affair: `watch_id` is ignored.
    ///
    /// # Errors
    /// `ResourceExhausted` for a request above the client's limit.
    pub fn watch(&mut self, request: WatchCreateRequest) -> Result<WatchKey, Error> {
        let request = WatchCreateRequest { watch_id: 0, ..request };
        let create = create(&request);
        check_size(&create, self.client.request_bytes_max())?;
        self.keys_given += 1;
        let key = WatchKey(self.keys_given);
        self.watches.insert(key, Watch { request, id: None, announced: false, begun: None });
        self.asked.push_back(key);
        self.outbox.push_back(create);
        Ok(key)
    }

    /// Ends a watch: nothing more comes from it.
    pub fn cancel(&mut self, key: WatchKey) {
        self.ready.retain(|watched| watched.watch != key);
        if let Some(id) = self.remove(key) {
            self.outbox.push_back(cancel(id));
        }
    }

    /// Asks how far the watches are: each says so when the server says that all are as far. Nothing happens without a
    /// watch. Lost when the stream breaks.
    pub fn request_progress(&mut self) {
        let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
        let progress = WatchRequest { request_union: Some(progress) };
        // One that waits for room stands for both.
        if !self.outbox.contains(&progress) {
            self.outbox.push_back(progress);
        }
    }

    /// What the next watch says; nothing when there are no watches. Waits for a connection, if there is none, for as
    /// long as it takes. Cancel safe.
    pub async fn next(&mut self) -> Option<Watched> {
        loop {
            if let Some(watched) = self.ready.pop_front() {
                return Some(watched);
            }
            if self.watches.is_empty() {
                self.close();
                return None;
            }
            if let Some(until) = self.paused_until {
                sleep_until(until).await;
                self.paused_until = None;
            }
            let client = &self.client;
            let stream = self.stream.get_or_insert_with(|| client.watch_stream(self.require_leader));
            match stream.exchange(&mut self.outbox).await {
                Ok(Some(response)) => {
                    self.pause = PAUSE_FIRST;
                    self.take(response);
                }
                Ok(None) => self.fail(&Error::Status(Status::new(Code::Unknown, "EOF"))),
                Err(error) if error.may_pass() && !error.is(ApiError::NoLeader) => {
                    self.begin_anew();
                    self.client.leave();
                }
                Err(error) => self.fail(&error),
            }
        }
    }

    fn take(&mut self, response: WatchResponse) {
        if response.created {
            return self.created(response);
        }
        if response.watch_id == NO_WATCH && response.events.is_empty() && !response.canceled {
            for (key, watch) in self.watches.iter_mut().filter(|(_, watch)| watch.id.is_some()) {
                watch.advance(&response);
                self.ready.push_back(Watched { watch: *key, response: response.clone(), end: None });
            }
            return;
        }
        // Others have been canceled here, and the server did not know yet.
        let Some(key) = self.by_id.get(&response.watch_id).copied() else { return };
        let Some(watch) = self.watches.get_mut(&key) else { return };
        let response = match watch.begun.take() {
            Some(mut begun) => {
                begun.events.extend(response.events);
                WatchResponse { events: begun.events, ..response }
            }
            None => response,
        };
        if response.fragment {
            watch.begun = Some(response);
            return;
        }
        watch.advance(&response);
        let end = end_of(&response);
        if end.is_some() {
            self.remove(key);
        }
        self.ready.push_back(Watched { watch: key, response, end });
    }

    /// The answer to the oldest of the requests for a watch.
    fn created(&mut self, response: WatchResponse) {
        let Some(key) = self.asked.pop_front() else { return };
        let refused = response.canceled || response.watch_id == NO_WATCH;
        let Some(watch) = self.watches.get_mut(&key) else {
            // Canceled before it was made.
            if !refused {
                self.outbox.push_back(cancel(response.watch_id));
            }
            return;
        };
        if refused {
            // A stream keeps the token that it was opened with, which may be too old for another watch.
            let is_old = |who: &Identity| who.may_help(&Error::WatchCanceled(response.cancel_reason.clone()));
            if !self.is_renewed && self.client.identity().is_some_and(is_old) {
                self.is_renewed = true;
                return self.begin_anew();
            }
            self.remove(key);
            return self.ready.push_back(Watched::end(key, Error::WatchCanceled(response.cancel_reason)));
        }
        self.is_renewed = false;
        watch.id = Some(response.watch_id);
        self.by_id.insert(response.watch_id, key);
        if watch.request.start_revision == 0 {
            // From now on, whatever happens to the stream: what happens after this is not to be missed.
            watch.advance(&response);
        }
        if !std::mem::replace(&mut watch.announced, true) {
            self.ready.push_back(Watched { watch: key, response, end: None });
        }
    }

    /// The stream is of no more use: another one is asked for all watches, each from where it is.
    fn begin_anew(&mut self) {
        self.close();
        self.paused_until = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        for (key, watch) in &mut self.watches {
            watch.id = None;
            watch.begun = None;
            self.asked.push_back(*key);
            self.outbox.push_back(create(&watch.request));
        }
    }

    /// The stream ended, and all watches with it.
    fn fail(&mut self, error: &Error) {
        self.close();
        for key in std::mem::take(&mut self.watches).into_keys() {
            self.ready.push_back(Watched::end(key, error.clone()));
        }
    }

    /// Forgets the stream and what is meant for it.
    fn close(&mut self) {
        self.stream = None;
        self.by_id.clear();
        self.asked.clear();
        self.outbox.clear();
    }

    /// Forgets a watch; gives back its id if the server has given it one.
    fn remove(&mut self, key: WatchKey) -> Option<i64> {
        let id = self.watches.remove(&key)?.id?;
        self.by_id.remove(&id);
        Some(id)
    }
}

impl Watch {
    /// The watch has seen this. A progress is below the start of a watch that begins in the future.
    fn advance(&mut self, response: &WatchResponse) {
        let last = response.events.last().and_then(|event| event.kv.as_ref());
        let seen = last.map(|kv| kv.mod_revision).or(response.header.map(|header| header.revision));
        let next = seen.unwrap_or(0).saturating_add(1);
        self.request.start_revision = self.request.start_revision.max(next);
    }
}

fn create(request: &WatchCreateRequest) -> WatchRequest {
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(request.clone())) }
}

fn cancel(id: i64) -> WatchRequest {
    WatchRequest { request_union: Some(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: id })) }
}

/// Why a watch is over with this answer, if it is.
fn end_of(response: &WatchResponse) -> Option<Error> {
    let reason = &response.cancel_reason;
    match (response.compact_revision, response.canceled) {
        (0, false) => None,
        (0, true) if reason.is_empty() => Some(Error::Status(ApiError::FutureRev.into())),
        (0, true) => Some(Error::WatchCanceled(reason.clone())),
        _ => Some(Error::Status(ApiError::Compacted.into())),
    }
}

impl Client {
    /// Watches, none to begin with. With `require_leader` they end with [`ApiError::NoLeader`] when the member that
    /// serves them has lost its leader; without, they wait for one.
    pub fn watcher(&self, require_leader: bool) -> Watcher {
        Watcher::new(self.clone(), require_leader)
    }
}
