//! Calls that run in a task of their own beside the connection's: those that wait for something else than one answer of
//! the member, or that answer with a stream of messages.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use node::RequestId;
use prost::Message as _;
use store::request::Range;
use store::{RangeStream, ReadFailure, ReadMode, StreamChunk, admission};
use tokio::time::Instant;
use wire::etcdserverpb as pb;
use wire::{ApiError, Status};

use super::answer::{self, Charge, Held, Payload};
use super::counted::Counted;
use super::election::Observer;
use super::elsewhere::{BRIEF_BYTES, Elsewhere};
use super::head::Head;
use super::kv::{read_status, undecodable};
use super::method::Task;
use super::queue::Place;
use super::stream::Outgoing;
use super::turns::Length;
use super::{Shared, election, lock};
use crate::auth::{Credentials, Who};
use crate::lane::Lane;

/// One call whose message is whole.
pub struct TaskCall {
    /// Where the answer goes.
    pub respond: SendResponse<Payload>,
    /// The client's side of the stream; kept until the call ends, lest the stream be reset.
    pub body: RecvStream,
    /// Whether it is only served where a leader is known.
    pub needs_leader: bool,
    /// When the client gives up.
    pub deadline: Option<Instant>,
    /// Where reads run that take long; counts the bytes of answers.
    pub elsewhere: Elsewhere,
    /// What says who asks.
    pub credentials: Credentials,
    /// How it is counted.
    pub counted: Counted,
}

/// One call whose headers have come.
pub struct StreamCall {
    /// Where the answers go.
    pub respond: SendResponse<Payload>,
    /// Where the messages come from.
    pub body: RecvStream,
    /// What its headers said.
    pub head: Head,
    /// When the client gives up.
    pub deadline: Option<Instant>,
    /// Counts the bytes of answers.
    pub held: Held,
    /// What says who asks.
    pub credentials: Credentials,
    /// How it is counted.
    pub counted: Counted,
}

/// Looks at a member without a leader, one election timeout apart, after which streams that ask for one end (etcd:
/// interceptor.go).
const NO_LEADER_LOOKS: u32 = 3;

/// What ends a call that has no end of its own: that of the thread, and, if it needs a leader, that the member has had
/// none for long.
pub(super) fn cut(front: &Shared, needs_leader: bool) -> impl Future<Output = ApiError> + use<> {
    let lane = front.lane.clone();
    let drained = front.lane.drained();
    let election_timeout = front.config.election_timeout;
    async move {
        tokio::select! {
            () = drained => ApiError::Stopped,
            () = leader_lost(&lane, election_timeout), if needs_leader => ApiError::NoLeader,
        }
    }
}

async fn leader_lost(lane: &Lane, election_timeout: Duration) {
    let mut missing = 0;
    while missing < NO_LEADER_LOOKS {
        tokio::time::sleep(election_timeout).await;
        missing = if lane.member().status.leader() == 0 { missing + 1 } else { 0 };
    }
}

/// Runs a call to its end.
pub(super) async fn run(task: Task, message: Bytes, call: TaskCall, front: Rc<Shared>) {
    let TaskCall { respond, body, needs_leader, deadline, elsewhere, credentials, counted } = call;
    let mut out = Outgoing::new(respond, deadline, elsewhere.held.clone(), counted);
    let out = &mut out;
    if out.wait(front.lane.token_known(&credentials, deadline)).await.is_none() {
        return;
    }
    let by = By { front: Rc::clone(&front), credentials };
    let on = (&front, &elsewhere.held);
    let ended = match task {
        Task::Compact => compact(&message, out, deadline, &by).await,
        Task::RangeStream => range_stream(&message, out, (deadline, &elsewhere), &by).await,
        Task::Lock => answer(out, on, None, lock::lock(&message, &by)).await,
        Task::Unlock => answer(out, on, None, lock::unlock(&message, &by)).await,
        Task::Campaign => answer(out, on, None, election::campaign(&message, &by)).await,
        Task::Proclaim => answer(out, on, None, election::proclaim(&message, &by)).await,
        // Of all answers this one has a value in it.
        Task::Leader => match out.wait(elsewhere.held.reserve(Length::Brief, BRIEF_BYTES)).await {
            Some(room) => answer(out, on, Some(room), election::leader(&message, &by)).await,
            None => None,
        },
        Task::Resign => answer(out, on, None, election::resign(&message, &by)).await,
        Task::Observe => observe(&message, out, needs_leader, &by).await,
    };
    // A client that is gone is told nothing.
    if let Some(result) = ended {
        out.finish(result);
    }
    drop(body);
}

/// The thread's front end, on behalf of one caller.
#[derive(Clone)]
pub(super) struct By {
    /// The front end.
    pub(super) front: Rc<Shared>,
    /// What says who asks.
    pub(super) credentials: Credentials,
}

impl By {
    /// Who asks, as of now.
    pub(super) fn who(&self) -> Result<Who, Status> {
        Ok(self.front.lane.member().who(&self.credentials)?)
    }
}

/// How a call ends: with a status, or not at all since its client is gone.
type Ended = Option<Result<(), Status>>;

/// Ends the call where something fails.
macro_rules! attempt {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return Some(Err(error)),
        }
    };
}

/// An answer, and what its caller has by it.
pub(super) struct Answered<T> {
    message: Vec<u8>,
    has: Option<T>,
}

impl<T> Answered<T> {
    /// `has`: dropped if the answer does not reach the client.
    pub(super) fn new(response: &impl prost::Message, has: Option<T>) -> Self {
        let mut message = Vec::new();
        answer::push(response, &mut message);
        Answered { message, has }
    }
}

/// Ends a call with what comes of it, unless the thread ends before. `reserved`: what counts the answer, if it has waited
/// for room.
async fn answer(
    out: &mut Outgoing,
    (front, held): (&Rc<Shared>, &Held),
    reserved: Option<Charge>,
    call: impl Future<Output = Result<Answered<Place>, Status>>,
) -> Ended {
    let cut = cut(front, false);
    let answered = tokio::select! {
        biased;
        answered = out.wait(call) => attempt!(answered?),
        error = cut => return Some(Err(error.into())),
    };
    let charge = Charge::of(answered.message.len(), reserved, held);
    out.send_charged(Bytes::from(answered.message), Some(charge)).await?;
    answered.has.into_iter().for_each(Place::keep);
    Some(Ok(()))
}

async fn observe(message: &Bytes, out: &mut Outgoing, needs_leader: bool, by: &By) -> Ended {
    let mut observer = attempt!(Observer::new(message, by));
    let cut = cut(&by.front, needs_leader);
    tokio::pin!(cut);
    loop {
        let messages = tokio::select! {
            biased;
            messages = out.wait(observer.next()) => attempt!(messages?),
            error = &mut cut => return Some(Err(error.into())),
        };
        tokio::select! {
            sent = out.send(Bytes::from(messages)) => sent?,
            // In the middle of a message the stream can only be reset.
            _ = &mut cut => return None,
        }
    }
}

async fn compact(message: &Bytes, out: &mut Outgoing, deadline: Option<Instant>, by: &By) -> Ended {
    let request = attempt!(pb::CompactionRequest::decode(&message[..]).map_err(|error| undecodable(&error)));
    let who = attempt!(by.who());
    attempt!(who.check_admin().map_err(Status::from));
    let lane = &by.front.lane;
    let member = Arc::clone(&lane.member());
    let (lane, encoded, asker) = (lane.handle(), message.clone(), who.asker().clone());
    let encode = move |id: RequestId, _: &mut dyn FnMut() -> RequestId| {
        (admission::encode_compaction(id.0, asker.caller(), &encoded), false)
    };
    let proposed = lane.propose(deadline, encode);
    let result = out.wait(proposed).await?;
    // Whoever asks for the work too waits for it also where it was asked for before, as in etcd.
    let is_known = matches!(&result, Err(status) if status.message == ApiError::Compacted.text());
    if request.physical && (result.is_ok() || is_known) {
        let awaited = if is_known { member.reader.compacted() } else { request.revision };
        let mut finished = member.compaction_finished.clone();
        let ended = out.wait(async { finished.wait_for(|revision| *revision >= awaited).await.map(|_| ()) });
        attempt!(ended.await?.map_err(|_| Status::from(ApiError::Stopped)));
    }
    let answer = attempt!(result);
    let (first, second) = attempt!(answer::wrap(answer.body, &member.header(answer.revision)));
    out.send(first).await?;
    if let Some(second) = second {
        out.send(second).await?;
    }
    Some(Ok(()))
}

async fn range_stream(
    message: &Bytes,
    out: &mut Outgoing,
    (deadline, elsewhere): (Option<Instant>, &Elsewhere),
    by: &By,
) -> Ended {
    let request = attempt!(Range::decode(message).map_err(|error| undecodable(&error)));
    attempt!(admission::check_range_stream(&request));
    let member = Arc::clone(&by.front.lane.member());
    let lane = by.front.lane.handle();
    if !request.serializable {
        attempt!(out.wait(lane.linearizable(deadline)).await?);
    }
    let who = attempt!(by.who());
    attempt!(who.check_range(request.key, request.range_end).map_err(Status::from));
    let mut stream = RangeStream::new(&request, by.front.config.limits.request_bytes_max as usize);
    loop {
        let (made, body, charge);
        (stream, made, body, charge) = attempt!(next_chunk(stream, out, elsewhere).await?);
        attempt!(member.check_unchanged(who.asker().revision()).map_err(Status::from));
        elsewhere.counts.ranges_read.add_alone(1);
        let header = match made {
            StreamChunk::Next => None,
            StreamChunk::Last(revision) => Some(member.header(revision)),
        };
        let (front, body) = attempt!(answer::wrap_chunk(body, header.as_ref()));
        out.send(front).await?;
        out.send_charged(body, Some(charge)).await?;
        if header.is_some() {
            return Some(Ok(()));
        }
    }
}

/// Makes the next chunk once there is room for it: here if that is done at once, else where it may wait. `None` if the
/// client is gone.
async fn next_chunk(
    mut stream: RangeStream,
    out: &mut Outgoing,
    elsewhere: &Elsewhere,
) -> Option<Result<(RangeStream, StreamChunk, Vec<u8>, Charge), Status>> {
    let Elsewhere { reader, reads, held, .. } = elsewhere;
    let mut charge = out.wait(held.reserve(Length::Brief, BRIEF_BYTES)).await?;
    let mut body = Vec::new();
    let mut made = stream.next(reader, ReadMode::NoWait, &mut body);
    while let Err(failure @ (ReadFailure::WouldBlock | ReadFailure::Long)) = made {
        let length = if failure == ReadFailure::Long { Length::Long } else { Length::Brief };
        if length == Length::Long {
            drop(charge);
            charge = out.wait(held.reserve(length, stream.chunk_bytes_max())).await?;
        }
        let (reader, mut moved) = (reader.clone(), stream);
        let work = move |pace| {
            let mut body = Vec::new();
            let made = moved.next(&reader.paced(pace), length.mode(), &mut body);
            (moved, made, body)
        };
        let read = out.wait(reads.run(length, work)).await?;
        (stream, made, body) = attempt!(read.ok_or_else(|| Status::from(ApiError::Stopped)));
    }
    let made = attempt!(made.map_err(|failure| read_status(&failure)));
    charge.settle(body.len());
    Some(Ok((stream, made, body, charge)))
}
