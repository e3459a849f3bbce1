//! The service loop of one connection.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Ping, PingPong, Reason, RecvStream};
use http::{Request, StatusCode, Version};
use store::{Answer, ReadFailure, ReadMode, RequestKind};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use wire::{ApiError, Code, Status};

use super::answer::{self, Charge, Held, PREFIX_BYTES, Payload};
use super::calls::{Call, Calls, Keep, State};
use super::counted::Counted;
use super::elsewhere::Elsewhere;
use super::head::{self, Head};
use super::io::{GatherIo, IoControl, PingPolicy, Turn, gather};
use super::kv::{self, Made, Read, Step};
use super::member::OverQuota;
use super::method::{Cold, ForLearner, Hot, Method, Route, Shape, Streaming, Task, route};
use super::service::{Deadline, is_list};
use super::slow::{Asked, Slow};
use super::stream::{self, Arrival, Assembly, send_message, send_service_response, send_status};
use super::task::{self, StreamCall, TaskCall};
use super::turns::{Length, Reads};
use super::{Client, Front, Shared, keep_alive, watch};
use crate::auth::Credentials;
use crate::http::{Web, too_many_requests};
use crate::lane::{Mailbox, Outcome, Slot};
use crate::metrics::{Own, Timed, nanoseconds};

/// A client has this long to send its preface, as with gRPC's Go server.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long the last bytes may take on a connection that is ending.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes that a client may send on one stream before it is told to go on.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// The same for the connection.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Headers of one call.
const HEADER_BYTES_MAX: u32 = 1 << 20;
/// Calls in progress on one connection, whatever the flag allows: it bounds what a client that reads nothing
/// can make us keep.
const STREAMS_MAX: u32 = 1 << 16;
/// The call by which clients get their tokens.
const LOG_IN: &str = "/etcdserverpb.Auth/Authenticate";
/// Calls that a client may open and reset before they are looked at.
const RESETS_PENDING_MAX: usize = 1 << 12;
/// Calls answered before their clients had ended them that are remembered, and for how long: what still comes for
/// one of them is dropped, as gRPC's Go server does. For one that was forgotten it counts as a fault.
const ENDED_EARLY_MAX: usize = 1 << 12;
const ENDED_EARLY_KEPT: Duration = Duration::from_secs(10);
/// Faults of streams in the life of a connection, after which it is cut. Honest clients make a few, and live long.
const FAULTS_MAX: usize = 1 << 16;
/// Pieces of messages, of a few bytes each, that may wait for a stream's task; with more the connection is cut. The
/// codec's own limit is so low that a client which opens a thousand watches at once would reach it.
const SMALL_FRAMES_MAX: usize = 1 << 16;
/// What the codec takes one such piece for.
const SMALL_FRAME_COST: usize = 256;
/// Bytes of messages that have not come whole, or that wait with their calls; above, calls are refused.
const KEPT_BYTES_MAX: usize = 256 << 20;
/// What a list is taken for before it is there.
const LIST_BYTES: usize = 1 << 20;

/// Reads that are gone and still in the row of those that wait, beyond two a call.
const STALLED_SLACK: usize = 64;

type H2<S> = h2::server::Connection<GatherIo<S>, Payload>;

/// Serves one connection until either side ends it.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    io: S,
    client: Client,
    front: Front,
    web: Option<Web>,
) {
    let (codec_io, control) = gather(io);
    let limits = &front.0.config.limits;
    let handshake = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_streams(limits.concurrent_streams_max.min(STREAMS_MAX))
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .max_concurrent_reset_streams(ENDED_EARLY_MAX)
        .reset_stream_duration(ENDED_EARLY_KEPT)
        .max_local_error_reset_streams(Some(FAULTS_MAX))
        .data_frame_budget(SMALL_FRAMES_MAX * SMALL_FRAME_COST)
        .handshake(codec_io);
    let mut handshake = std::pin::pin!(handshake);
    // The codec's flushes do nothing: its settings leave here, also while the client's are not there yet.
    let greeted = poll_fn(|cx| {
        control.begin_turn();
        let greeted = handshake.as_mut().poll(cx);
        match control.flush(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(None),
            _ => greeted.map(Result::ok),
        }
    });
    let Ok(Some(h2)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, greeted).await else { return };

    let mut connection = Connection::new(h2, control, (front, client), web);
    let end = poll_fn(|cx| connection.poll(cx)).await;
    let control = connection.close();
    if end == End::Lost {
        return;
    }
    let farewell = async {
        if poll_fn(|cx| control.flush(cx)).await.is_ok() {
            poll_fn(|cx| control.linger(cx)).await;
        }
    };
    let _ = tokio::time::timeout(LINGER, farewell).await;
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The protocol's way, or ours: what is still to be written, is.
    Orderly,
    /// The socket failed, or the client no longer answers.
    Lost,
}

/// What a task was waited for.
enum Done {
    /// A read off the thread: the body with room in front, the header's revision, and what counts the bytes.
    Made(Slot, Result<(Vec<u8>, i64, Charge), Status>),
    /// A hot call may begin: its token is known here by now, or never will be.
    Known(Slot, Hot, Bytes),
}

struct Connection<S> {
    h2: H2<S>,
    control: IoControl<S>,
    front: Rc<Shared>,
    remote: Option<SocketAddr>,
    /// The name in the client's certificate, where that says who asks.
    certified: Option<Arc<str>>,
    /// Who answers what is none of gRPC.
    web: Option<Web>,
    mailbox: Rc<Mailbox>,
    calls: Calls,
    /// Calls that nothing has looked for the messages of yet.
    fresh: Vec<usize>,
    stalled: VecDeque<Slot>,
    tasks: JoinSet<Option<Done>>,
    held: Held,
    reads: Reads,
    keepalive: Keepalive,
    turn: Turn,
    outcomes: Vec<(Slot, Outcome)>,
    /// The time of this turn, once somebody has asked.
    now: Option<Instant>,
    read_times: ReadTimes,
    draining: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Connection<S> {
    fn new(mut h2: H2<S>, control: IoControl<S>, (front, client): (Front, Client), web: Option<Web>) -> Self {
        let front = front.0;
        let keepalive =
            Keepalive::new(h2.ping_pong(), front.config.keepalive_interval, front.config.keepalive_timeout);
        Connection {
            h2,
            control,
            mailbox: front.lane.mailbox(),
            reads: front.lane.member().reads.connection(),
            front,
            remote: client.address,
            certified: client.certified,
            web,
            calls: Calls::default(),
            fresh: Vec::new(),
            stalled: VecDeque::new(),
            tasks: JoinSet::new(),
            held: Held::default(),
            keepalive,
            turn: Turn::default(),
            outcomes: Vec::new(),
            now: None,
            read_times: ReadTimes::default(),
            draining: false,
        }
    }

    /// Ends all calls; the member is no longer waited for.
    fn close(mut self) -> IoControl<S> {
        for call in self.calls.drain() {
            if let State::Waiting(id, _) = call.state {
                self.front.lane.cancel(id);
            }
        }
        self.control
    }

    /// One turn of the connection.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.control.begin_turn();
        self.mailbox.register(cx);
        self.now = None;
        if self.mailbox.draining() && !std::mem::replace(&mut self.draining, true) {
            self.h2.graceful_shutdown();
        }
        loop {
            let mut answered = self.deliver();
            let closed = self.accept(cx);
            self.control.take_turn(&mut self.turn);
            if std::mem::take(&mut self.turn.trailers) {
                // No client of gRPC sends any, and the codec would keep them as long as their calls. gRPC's Go server
                // takes them for a call that cannot begin, and cuts the connection too.
                self.h2.abrupt_shutdown(Reason::PROTOCOL_ERROR);
                answered = true;
            }
            self.reset_calls();
            let busy = !self.calls.is_empty() || !self.tasks.is_empty();
            let policy = PingPolicy { interval_min: self.front.config.ping_interval_min };
            let kicked = self.control.judge_pings(&self.turn, busy, policy);
            if closed || (kicked && !self.control.mid_frame()) {
                return Poll::Ready(End::Orderly);
            }
            answered |= self.receive(cx);
            if self.control.is_caught_up() {
                self.turn.touched.clear();
                self.turn.resets.clear();
            }
            answered |= self.give_up(cx);
            answered |= self.resume();
            answered |= self.join(cx);
            match self.keepalive.poll(cx, self.turn.read) {
                Alive::Yes => {}
                Alive::Pinged => answered = true,
                Alive::No => return Poll::Ready(End::Lost),
            }
            // What was answered is still in the codec; accepting again writes it.
            if !answered {
                break;
            }
        }
        match self.control.flush(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(End::Lost),
            _ => Poll::Pending,
        }
    }

    fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(Instant::now)
    }

    /// When a call has ended that is answered now.
    fn end(&mut self) -> Instant {
        let slow = self.front.config.slow;
        slow.end(|| self.now())
    }

    /// Takes every call that has arrived, answering none; true when the connection is over.
    fn accept(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            match self.h2.poll_accept(cx) {
                Poll::Pending => return false,
                Poll::Ready(Some(Ok((request, respond)))) => self.open(request, respond),
                Poll::Ready(Some(Err(_)) | None) => return true,
            }
        }
    }

    fn open(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Payload>) {
        if let Some(web) = self.web.as_ref().filter(|_| !head::may_be_grpc(request.headers())) {
            let held = self.held.clone();
            // The headers are looked at until there is an answer, which may take as long as its client likes.
            let answer = self.keep(head::kept_bytes(request.headers())).map(|keep| {
                let answer = web(request, held.clone());
                async move {
                    let answer = answer.await;
                    drop(keep);
                    answer
                }
            });
            return self.spawn(async move {
                let answer = async {
                    match answer {
                        Ok(answer) => answer.await,
                        Err(status) => too_many_requests(&status),
                    }
                };
                stream::send_web_response(answer, respond, held).await;
            });
        }
        let head = match Head::read(&request, self.front.lane.counts()) {
            Ok(head) => head,
            Err(refused) => return send_status(&mut respond, refused.http, &refused.status),
        };
        // A query is part of the name, which then is no name of ours.
        let path = request.uri().path_and_query().map_or("", |path| path.as_str());
        let routed = route(path).and_then(|routed| Head::check_encoding(request.headers()).map(|()| routed));
        let (method, route) = match routed {
            Ok(routed) => routed,
            Err(status) => return send_status(&mut respond, StatusCode::OK, &status),
        };
        let deadline = head.timeout.and_then(|timeout| self.now().checked_add(timeout));
        let (parts, body) = request.into_parts();
        // A hot call's headers are not looked at where it does not matter who asks.
        let credentials = match route {
            Route::Hot(_) if !self.front.lane.member().is_guarded() => Credentials::default(),
            _ => Credentials::of(&parts.headers, self.certified.as_ref()),
        };
        if let Route::Stream(streaming) = route {
            let counted = self.count(method, &head);
            let credentials = credentials.detached();
            // The client may never end its side: nothing is waited for.
            let begun = kv::intercept(&head, &self.front.lane.member(), false);
            let keep = match begun.and_then(|()| self.keep(credentials.bytes())) {
                Ok(keep) => keep,
                Err(status) => {
                    counted.end(status.code);
                    return send_status(&mut respond, StatusCode::OK, &status);
                }
            };
            let held = self.held.clone();
            let call = StreamCall { respond, body, head, deadline, held, credentials, counted };
            return self.stream(streaming, call, keep);
        }
        let state = State::Receiving(route, Assembly::default());
        let mut call = Call::new(respond, body, (method, head), deadline, state);
        call.credentials = credentials;
        self.fresh.push(self.calls.open(call));
    }

    /// A call that begins now, as it is counted.
    fn count(&mut self, method: Method, head: &Head) -> Counted {
        let now = self.now();
        Counted::begin(self.front.lane.counts(), method, head.version, now)
    }

    /// Runs a task that answers its call itself.
    fn spawn(&mut self, task: impl Future<Output = ()> + 'static) {
        self.tasks.spawn_local(async move {
            task.await;
            None
        });
    }

    /// Counts what a call keeps that runs in a task of its own.
    fn keep(&self, bytes: usize) -> Result<Keep, Status> {
        let keep = self.calls.kept().keep(bytes);
        match self.calls.kept().bytes() > KEPT_BYTES_MAX {
            true => Err(ApiError::TooManyRequests.into()),
            false => Ok(keep),
        }
    }

    fn stream(&mut self, streaming: Streaming, call: StreamCall, keep: Keep) {
        let front = Rc::clone(&self.front);
        self.spawn(async move {
            match streaming {
                Streaming::Watch => watch::run(call, front).await,
                Streaming::LeaseKeepAlive => keep_alive::run(call, front).await,
            }
            drop(keep);
        });
    }

    /// Takes what has come of messages: of calls that have just been opened, and of those that frames came for. True
    /// if anything was answered.
    fn receive(&mut self, cx: &mut Context<'_>) -> bool {
        let mut answered = false;
        let mut fresh = std::mem::take(&mut self.fresh);
        for index in fresh.drain(..) {
            answered |= self.advance(index, cx);
        }
        self.fresh = fresh;
        self.read_times.settle(self.front.lane.counts());
        if self.calls.holds_any() {
            let touched = std::mem::take(&mut self.turn.touched);
            for stream in &touched {
                if let Some(index) = self.calls.place(*stream) {
                    answered |= self.advance(index, cx);
                }
            }
            self.turn.touched = touched;
            self.read_times.settle(self.front.lane.counts());
        }
        answered
    }

    /// Takes what has come of one call's message, if that is on its way; true if it was answered.
    fn advance(&mut self, index: usize, cx: &mut Context<'_>) -> bool {
        let Some(Call { state: State::Receiving(_, assembly), head, body, .. }) = self.calls.get_mut(index)
        else {
            return false;
        };
        match assembly.poll(body, cx, self.front.config.limits.message_bytes_max(), head.gzip) {
            Arrival::Partial => match self.calls.hold(index) > KEPT_BYTES_MAX {
                true => self.fail(index, &ApiError::TooManyRequests.into()),
                false => false,
            },
            Arrival::Gone => {
                self.calls.remove(index);
                false
            }
            Arrival::Refused(status) => self.fail(index, &status),
            Arrival::Whole(frame) => {
                self.calls.release(index);
                self.begin(index, frame)
            }
        }
    }

    /// Ends the calls whose clients' deadlines passed before their messages were whole; true if there were any.
    fn give_up(&mut self, cx: &mut Context<'_>) -> bool {
        let mut answered = false;
        while let Some(index) = self.calls.poll_overdue(cx) {
            answered |= self.fail(index, &ApiError::ContextDeadlineExceeded.into());
        }
        answered
    }

    /// Starts a call whose message is whole; true if that already answered it.
    fn begin(&mut self, index: usize, frame: Bytes) -> bool {
        let Some(call) = self.calls.get_mut(index) else { return false };
        let State::Receiving(route, _) = std::mem::replace(&mut call.state, State::Blocking(None)) else {
            return false;
        };
        let frame = match stream::inflated(frame, self.front.config.limits.message_bytes_max()) {
            Ok(frame) => frame,
            Err(status) => return self.fail(index, &status),
        };
        let (method, head) = (call.method, call.head);
        let counted = self.count(method, &head);
        counted.received(frame.len() - PREFIX_BYTES);
        let Some(call) = self.calls.get_mut(index) else { return false };
        call.counted = Some(counted);
        let for_learner = match route {
            Route::Hot(hot) => return self.await_token(index, hot, frame.slice(PREFIX_BYTES..)),
            Route::Cold(_, for_learner) => for_learner,
            Route::Task(_) | Route::Stream(_) => ForLearner::Refused,
        };
        let served = for_learner == ForLearner::Served;
        let begun = kv::intercept(&call.head, &self.front.lane.member(), served);
        call.credentials = call.credentials.detached();
        let bytes = frame.len() + call.credentials.bytes();
        let keep = match begun.and_then(|()| self.keep(bytes)) {
            Ok(keep) => keep,
            Err(status) => return self.fail(index, &status),
        };
        match route {
            Route::Cold(service, _) => self.begin_cold(index, service, frame, keep),
            Route::Task(task) => self.begin_task(index, task, frame.slice(PREFIX_BYTES..), keep),
            Route::Hot(_) | Route::Stream(_) => {}
        }
        false
    }

    fn begin_task(&mut self, index: usize, task: Task, message: Bytes, keep: Keep) {
        let Call { respond, body, head, deadline, credentials, counted, .. } = self.calls.remove(index);
        let Some(counted) = counted else { return };
        let (needs_leader, elsewhere) = (head.leader_required, self.elsewhere());
        let call = TaskCall { respond, body, needs_leader, deadline, elsewhere, credentials, counted };
        let (slow, remote, begun) = (self.front.config.slow, self.remote, self.now());
        let run = task::run(task, kv::detached(message), call, Rc::clone(&self.front));
        self.spawn(async move {
            run.await;
            drop(keep);
            if let Some(path) = task.unary_path() {
                slow.judge_other(path, begun, remote);
            }
        });
    }

    /// Begins a hot call, once its token may be known: that is given out at an index which this member may not have applied
    /// yet.
    fn await_token(&mut self, index: usize, hot: Hot, message: Bytes) -> bool {
        let Some(call) = self.calls.get_mut(index) else { return false };
        let lane = &self.front.lane;
        if lane.awaited_index(&call.credentials) <= lane.member().status.applied() {
            return self.begin_hot(index, hot, message);
        }
        let slot = Slot { index, stream: call.stream };
        let (lane, credentials, deadline) = (lane.clone(), call.credentials.clone(), call.deadline);
        let bytes = message.len();
        let wait = self.tasks.spawn_local(async move {
            lane.token_known(&credentials, deadline).await;
            Some(Done::Known(slot, hot, message))
        });
        call.state = State::Blocking(Some(wait));
        self.calls.keep(index, bytes);
        false
    }

    fn begin_hot(&mut self, index: usize, hot: Hot, message: Bytes) -> bool {
        let now = self.now();
        let lane = &self.front.lane;
        let Some(call) = self.calls.get_mut(index) else { return false };
        let slot = Slot { index, stream: call.stream };
        let mut asked = Asked::new(hot, &message, now);
        let member = lane.member();
        let who = || member.who(&call.credentials);
        let step =
            kv::begin(hot, message, (&call.head, who), &member, &self.front.config.limits, || lane.next_id());
        asked.is_read = matches!(step, Ok(Step::Read { .. }));
        call.asked = Some(asked);
        match step {
            Err(status) => self.fail(index, &status),
            Ok(Step::Propose { .. }) if self.held.refuses_writes() => {
                self.fail(index, &ApiError::TooManyRequests.into())
            }
            Ok(Step::Propose { id, data, grows }) => {
                call.state = State::Waiting(id, None);
                lane.propose(id, (data, grows), (&self.mailbox, slot), now, call.deadline);
                false
            }
            Ok(Step::Raise { id, data }) => {
                call.state = State::Refusing(id, OverQuota::ERROR);
                lane.propose(id, (data, false), (&self.mailbox, slot), now, call.deadline);
                false
            }
            Ok(Step::Read { read, linearizable }) => {
                let deadline = call.deadline;
                if self.calls.keep(index, read.message().len()) > KEPT_BYTES_MAX {
                    return self.fail(index, &ApiError::TooManyRequests.into());
                }
                if !linearizable {
                    return self.read(index, read);
                }
                let id = self.front.lane.read((&self.mailbox, slot), now, deadline);
                if let Some(call) = self.calls.get_mut(index) {
                    call.state = State::Waiting(id, Some(read));
                }
                false
            }
        }
    }

    /// The stub is given no headers: it looks at none.
    fn begin_cold(&mut self, index: usize, service: Cold, frame: Bytes, keep: Keep) {
        let call = self.calls.remove(index);
        let Some(counted) = call.counted else { return };
        let path = call.method.path();
        let request = Request::post(&path).version(Version::HTTP_2).extension(call.credentials.clone());
        let mut request = request.body(()).expect("a path of ours makes a URI");
        if let Some(deadline) = call.deadline {
            request.extensions_mut().insert(Deadline(deadline));
        }
        if service == Cold::Lease {
            request.extensions_mut().insert(self.reads.clone());
        }
        let (slow, remote, begun) = (self.front.config.slow, self.remote, self.now());
        let (front, credentials, deadline) = (Rc::clone(&self.front), call.credentials, call.deadline);
        let (held, is_list) = (self.held.clone(), is_list(call.method, &frame[PREFIX_BYTES..]));
        let answer = async move {
            // Whoever logs in may still show the token before, which does not count here.
            if request.uri().path() != LOG_IN {
                front.lane.token_known(&credentials, deadline).await;
            }
            let room = match is_list {
                true => Some(held.reserve(Length::Long, LIST_BYTES).await),
                false => None,
            };
            (front.services().call(service, request, frame).await, room)
        };
        let (held, body, shape) = (self.held.clone(), call.body, call.method.shape());
        self.spawn(async move {
            send_service_response(answer, call.respond, call.deadline, (held, counted)).await;
            drop((body, keep));
            if shape == Shape::Unary {
                slow.judge_other(&path, begun, remote);
            }
        });
    }

    fn elsewhere(&self) -> Elsewhere {
        let reader = self.front.lane.member().reader.clone();
        let counts = self.front.lane.counts().clone();
        Elsewhere { reader, reads: self.reads.clone(), held: self.held.clone(), counts }
    }

    /// Runs a read that may run now; true if that answered it.
    fn read(&mut self, index: usize, read: Read) -> bool {
        let Some(call) = self.calls.get_mut(index) else { return false };
        let (slot, call_deadline) = (Slot { index, stream: call.stream }, call.deadline);
        if self.held.is_full() {
            return match self.set_aside(index, read) {
                Ok((call, read)) => {
                    call.state = State::Stalled(read);
                    self.stalled.push_back(slot);
                    false
                }
                Err(error) => self.fail(index, &error.into()),
            };
        }
        let member = self.front.lane.member();
        if member.is_guarded() {
            let allowed = member.who(&call.credentials).map_err(Status::from);
            let allowed = allowed.and_then(|who| read.check(&who).map(|()| who.asker().revision()));
            match allowed {
                Ok(revision) => call.auth_revision = revision,
                Err(status) => return self.fail(index, &status),
            }
        }
        self.read_times.begin();
        let made = read.run(&member.reader, ReadMode::NoWait);
        let is_over = !matches!(made, Ok(Err(ReadFailure::WouldBlock | ReadFailure::Long)));
        if let (Ok(made), true) = (&made, is_over) {
            kv::count_ranges(made.as_ref().ok(), self.front.lane.counts());
            self.read_times.ended(read.is_range(), made.is_ok());
        }
        if let Err(error) = member.check_unchanged(call.auth_revision)
            && is_over
        {
            return self.fail(index, &error.into());
        }
        match made {
            Ok(Ok(Made { body, revision, .. })) => {
                self.succeed(index, revision, None, |header| Ok((answer::finish(body, header)?, None)))
            }
            Ok(Err(failure @ (ReadFailure::WouldBlock | ReadFailure::Long))) => {
                let length = if failure == ReadFailure::Long { Length::Long } else { Length::Brief };
                let read = match self.set_aside(index, read) {
                    Ok((_, read)) => read,
                    Err(error) => return self.fail(index, &error.into()),
                };
                let made = self.elsewhere().run(read, length, call_deadline);
                let task = self.tasks.spawn_local(async move { Some(Done::Made(slot, made.await)) });
                if let Some(call) = self.calls.get_mut(index) {
                    call.state = State::Blocking(Some(task));
                }
                false
            }
            Ok(Err(failure)) => self.fail(index, &kv::read_status(&failure)),
            Err(status) => self.fail(index, &status),
        }
    }

    /// Lets a read wait for as long as it takes its client to make room for the answer: with what it needs, counted, and
    /// nothing else.
    fn set_aside(&mut self, index: usize, read: Read) -> Result<(&mut Call, Read), ApiError> {
        let read = read.detached();
        let Some(call) = self.calls.get_mut(index) else { return Err(ApiError::Stopped) };
        call.credentials = call.credentials.detached();
        let words = call.asked.as_mut().map_or(0, |asked| asked.waits_with(read.message()));
        let bytes = read.message().len() + words + call.credentials.bytes();
        if self.calls.keep(index, bytes) > KEPT_BYTES_MAX {
            return Err(ApiError::TooManyRequests);
        }
        let call = self.calls.get_mut(index).ok_or(ApiError::Stopped)?;
        Ok((call, read))
    }

    /// Runs the reads that waited for the client to take earlier answers.
    fn resume(&mut self) -> bool {
        let mut answered = false;
        while !self.held.is_full()
            && let Some(slot) = self.stalled.pop_front()
        {
            let Some(call) = self.calls.in_slot(slot) else {
                continue;
            };
            if let State::Stalled(read) = std::mem::replace(&mut call.state, State::Blocking(None)) {
                answered |= self.read(slot.index, read);
            }
        }
        self.read_times.settle(self.front.lane.counts());
        answered
    }

    /// Takes the tasks that have ended, and hands out what was read off the thread; true if there was any: it may have made
    /// room for more.
    fn join(&mut self, cx: &mut Context<'_>) -> bool {
        let mut ended = false;
        while let Poll::Ready(Some(task)) = self.tasks.poll_join_next(cx) {
            ended = true;
            let (slot, result) = match task {
                Ok(Some(Done::Made(slot, result))) => (slot, result),
                Ok(Some(Done::Known(slot, hot, message))) => {
                    if self.calls.in_slot(slot).is_some() {
                        self.calls.keep(slot.index, 0);
                        self.begin_hot(slot.index, hot, message);
                    }
                    continue;
                }
                Ok(None) | Err(_) => continue,
            };
            // One that the client has reset meanwhile, or another in its place.
            let Some(call) = self.calls.in_slot(slot) else { continue };
            let result = match self.front.lane.member().check_unchanged(call.auth_revision) {
                Ok(()) => result,
                Err(error) => Err(error.into()),
            };
            match result {
                Ok((body, revision, charge)) => self.succeed(slot.index, revision, Some(charge), |header| {
                    Ok((answer::finish(body, header)?, None))
                }),
                Err(status) => self.fail(slot.index, &status),
            };
        }
        self.read_times.settle(self.front.lane.counts());
        ended
    }

    /// Hands out what the member has answered; true if there was anything.
    fn deliver(&mut self) -> bool {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        self.mailbox.take(&mut outcomes);
        let mut answered = false;
        for (slot, outcome) in outcomes.drain(..) {
            let Some(call) = self.calls.in_slot(slot) else {
                continue;
            };
            if let State::Refusing(_, error) = call.state {
                answered |= self.fail(slot.index, &error.into());
                continue;
            }
            answered |= match outcome {
                Outcome::Applied(Answer { revision, body }) => {
                    self.succeed(slot.index, revision, None, |header| answer::wrap(body, header))
                }
                Outcome::Failed(status) => self.fail(slot.index, &status),
                Outcome::Readable => match std::mem::replace(&mut call.state, State::Blocking(None)) {
                    State::Waiting(_, Some(read)) => self.read(slot.index, read),
                    _ => false,
                },
            };
        }
        self.outcomes = outcomes;
        self.read_times.settle(self.front.lane.counts());
        answered
    }

    fn succeed(
        &mut self,
        index: usize,
        revision: i64,
        charge: Option<Charge>,
        message: impl FnOnce(&wire::etcdserverpb::ResponseHeader) -> Result<(Bytes, Option<Bytes>), Status>,
    ) -> bool {
        let header = self.front.lane.member().header(revision);
        match message(&header) {
            Ok(pieces) => {
                let end = self.end();
                let mut call = self.calls.remove(index);
                if let Some(asked) = &call.asked {
                    self.count_read(asked, end, true);
                    self.front.config.slow.judge(asked, end, self.remote, Ok(&pieces));
                }
                if let Some(mut counted) = call.counted.take() {
                    counted.sent(&pieces.0);
                    pieces.1.iter().for_each(|piece| counted.sent(piece));
                    counted.end(Code::Ok);
                }
                send_message(&mut call.respond, &self.front.templates, pieces, (&self.held, charge));
                true
            }
            Err(status) => self.fail(index, &status),
        }
    }

    fn fail(&mut self, index: usize, status: &Status) -> bool {
        let end = self.end();
        let mut call = self.calls.remove(index);
        if let Some(asked) = &call.asked {
            self.count_read(asked, end, false);
            self.front.config.slow.judge(asked, end, self.remote, Err(status));
        }
        if let Some(counted) = call.counted.take() {
            counted.end(status.code);
        }
        send_status(&mut call.respond, StatusCode::OK, status);
        true
    }

    /// Counts a hot call if it was answered from the store.
    fn count_read(&self, asked: &Asked, end: Instant, is_success: bool) {
        let Some((call, took)) = Slow::read_time(asked, end) else { return };
        let timed = if call == Hot::Range { Timed::Kind(RequestKind::Range) } else { Timed::ReadonlyTxn };
        self.front.lane.counts().time_request(timed, is_success, took);
        if self.front.config.slow.is_slow_read(took) {
            self.front.lane.member().metrics.member.slow_applies.add(1);
        }
    }

    /// Forgets the calls that the client has reset.
    fn reset_calls(&mut self) {
        for stream in &self.turn.resets {
            let Some(index) = self.calls.place(*stream) else { continue };
            match self.calls.remove(index).state {
                State::Waiting(id, _) | State::Refusing(id, _) => self.front.lane.cancel(id),
                State::Blocking(Some(read)) => read.abort(),
                State::Blocking(None) | State::Receiving(..) | State::Stalled(_) => {}
            }
        }
        // A client that takes no answers must not make this grow by asking and resetting.
        if self.stalled.len() > 2 * self.calls.len() + STALLED_SLACK {
            self.stalled.retain(|slot| self.calls.in_slot(*slot).is_some());
        }
    }
}

/// The ranges that a thread has read one after the other: each counts with its share of the time.
#[derive(Default)]
struct ReadTimes {
    begun: Option<Instant>,
    /// Those that failed, and those that did not.
    ended: [u32; 2],
}

impl ReadTimes {
    fn begin(&mut self) {
        self.begun.get_or_insert_with(Instant::now);
    }

    /// A read has come to its end.
    fn ended(&mut self, is_range: bool, is_success: bool) {
        self.ended[usize::from(is_success)] += u32::from(is_range);
    }

    /// Nothing more is read just now.
    fn settle(&mut self, counts: &Own) {
        let Some(begun) = self.begun.take() else { return };
        let ended = std::mem::take(&mut self.ended);
        let Some(share) = begun.elapsed().checked_div(ended[0] + ended[1]) else { return };
        for (ranges, times) in counts.ranges.iter().zip(ended).filter(|(_, times)| *times > 0) {
            ranges.observe_alone(nanoseconds(share), u64::from(times));
        }
    }
}

/// The server's own pings.
struct Keepalive {
    ping_pong: Option<PingPong>,
    interval: Duration,
    timeout: Duration,
    last_read: Instant,
    pinged: bool,
    timer: Pin<Box<Sleep>>,
}

enum Alive {
    Yes,
    /// It was just asked.
    Pinged,
    No,
}

impl Keepalive {
    fn new(ping_pong: Option<PingPong>, interval: Duration, timeout: Duration) -> Self {
        let now = Instant::now();
        let timer = Box::pin(tokio::time::sleep_until(now + interval));
        Keepalive { ping_pong, interval, timeout, last_read: now, pinged: false, timer }
    }

    fn poll(&mut self, cx: &mut Context<'_>, read: bool) -> Alive {
        if read {
            self.last_read = Instant::now();
            if std::mem::take(&mut self.pinged)
                && let Some(ping_pong) = &mut self.ping_pong
            {
                // Anything read will do; the answer itself is taken so that the next ping can be sent.
                let _ = ping_pong.poll_pong(cx);
            }
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if self.pinged {
                return Alive::No;
            }
            if now < self.last_read + self.interval {
                self.timer.as_mut().reset(self.last_read + self.interval);
                continue;
            }
            self.timer.as_mut().reset(now + self.timeout);
            self.pinged = true;
            if let Some(ping_pong) = &mut self.ping_pong {
                let _ = ping_pong.poll_pong(cx);
                let _ = ping_pong.send_ping(Ping::opaque());
            }
            let _ = self.timer.as_mut().poll(cx);
            return Alive::Pinged;
        }
        Alive::Yes
    }
}
