//! The calls of one connection, found by their place or by their stream.
//!
//! What a client can make happen often costs little however many calls it has open: a frame for one of them, a reset,
//! or a deadline does not look at the others.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;

use h2::RecvStream;
use h2::server::SendResponse;
use node::RequestId;
use slab::Slab;
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep};
use wire::ApiError;

use super::answer::Payload;
use super::counted::Counted;
use super::head::Head;
use super::kv::Read;
use super::method::{Method, Route};
use super::slow::Asked;
use super::stream::Assembly;
use crate::auth::Credentials;
use crate::lane::Slot;

/// Entries of `Calls::order` that are tolerated beyond two a call.
const ORDER_SLACK: usize = 64;

/// Bytes of what clients have sent that the calls of one connection keep, in part or whole: messages, and what says who
/// asks. Not those of a proposal: it is handed over.
#[derive(Clone, Debug, Default)]
pub struct Kept(Rc<Cell<usize>>);

impl Kept {
    /// How many there are.
    pub fn bytes(&self) -> usize {
        self.0.get()
    }

    /// Counts some until what comes back is dropped.
    pub fn keep(&self, bytes: usize) -> Keep {
        self.add(bytes);
        Keep { kept: self.clone(), bytes }
    }

    fn add(&self, bytes: usize) {
        self.0.set(self.0.get() + bytes);
    }

    fn sub(&self, bytes: usize) {
        self.0.set(self.0.get() - bytes);
    }
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
pub struct Keep {
    kept: Kept,
    bytes: usize,
}

impl Drop for Keep {
    fn drop(&mut self) {
        self.kept.sub(self.bytes);
    }
}

/// One call, from its headers to its answer.
pub struct Call {
    /// Its HTTP/2 stream.
    pub stream: u32,
    /// Where the answer goes.
    pub respond: SendResponse<Payload>,
    /// Where the message comes from.
    pub body: RecvStream,
    /// What its headers said.
    pub head: Head,
    /// Which it is.
    pub method: Method,
    /// How it is counted, once its message is whole.
    pub counted: Option<Counted>,
    /// When its client gives up.
    pub deadline: Option<Instant>,
    /// How far it is.
    pub state: State,
    /// What a hot call asks for, for the log.
    pub asked: Option<Asked>,
    /// What says who asks, of a hot call where that matters.
    pub credentials: Credentials,
    /// The auth revision with which a read was allowed; 0 where it did not matter.
    pub auth_revision: u64,
    /// Bytes of its message that are counted; `None` unless it was held.
    held: Option<usize>,
    /// Bytes that are counted since its message is whole.
    kept: usize,
}

/// How far a call is.
pub enum State {
    /// The message is on its way.
    Receiving(Route, Assembly),
    /// The member was asked.
    Waiting(RequestId, Option<Read>),
    /// The member was asked to raise an alarm; the call is refused when that is over.
    Refusing(RequestId, ApiError),
    /// May run, once the client has taken more of the answers before.
    Stalled(Read),
    /// Runs where it may wait for a disk; what ends it. `None` only while the call changes its state.
    Blocking(Option<AbortHandle>),
}

impl Call {
    /// A call whose message is on its way.
    pub fn new(
        respond: SendResponse<Payload>,
        body: RecvStream,
        (method, head): (Method, Head),
        deadline: Option<Instant>,
        state: State,
    ) -> Call {
        let stream = respond.stream_id().as_u32();
        let credentials = Credentials::default();
        Call {
            stream,
            respond,
            body,
            head,
            method,
            counted: None,
            deadline,
            state,
            asked: None,
            credentials,
            auth_revision: 0,
            held: None,
            kept: 0,
        }
    }
}

/// All calls of a connection that have no answer yet.
#[derive(Default)]
pub struct Calls {
    places: Slab<Call>,
    /// Streams with their places, in the order of the streams, which is that of their opening. Calls that are gone
    /// stay until there are too many.
    order: Vec<(u32, usize)>,
    /// Calls whose messages have not come whole.
    partial: usize,
    /// What all calls keep.
    kept: Kept,
    /// The deadlines of these calls. A member that is asked keeps its own.
    overdue: BTreeSet<(Instant, u32)>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Calls {
    /// Adds a call, whose stream is above all before it; its place.
    pub fn open(&mut self, call: Call) -> usize {
        if self.order.len() >= 2 * self.places.len() + ORDER_SLACK {
            let places = &self.places;
            self.order
                .retain(|(stream, place)| places.get(*place).is_some_and(|call| call.stream == *stream));
        }
        let stream = call.stream;
        debug_assert!(
            self.order.last().is_none_or(|(last, _)| *last < stream),
            "streams are opened in order"
        );
        let place = self.places.insert(call);
        self.order.push((stream, place));
        place
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The call in this place.
    pub fn get_mut(&mut self, place: usize) -> Option<&mut Call> {
        self.places.get_mut(place)
    }

    /// The call of this slot, unless it is gone.
    pub fn in_slot(&mut self, slot: Slot) -> Option<&mut Call> {
        self.places.get_mut(slot.index).filter(|call| call.stream == slot.stream)
    }

    /// The place of a stream's call, unless it is gone.
    pub fn place(&self, stream: u32) -> Option<usize> {
        let at = self.order.binary_search_by_key(&stream, |(stream, _)| *stream).ok()?;
        let place = self.order[at].1;
        self.places.get(place).filter(|call| call.stream == stream).map(|_| place)
    }

    /// Takes a call out.
    ///
    /// # Panics
    /// If there is none in this place.
    pub fn remove(&mut self, place: usize) -> Call {
        self.release(place);
        let call = self.places.remove(place);
        self.kept.sub(call.kept);
        call
    }

    /// Takes all out.
    pub fn drain(&mut self) -> impl Iterator<Item = Call> {
        self.places.drain()
    }

    /// What all calls of the connection keep: those that are here, and those that have tasks of their own.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Counts what has come of a message that is not whole yet, and minds its deadline. Answers the bytes that all calls
    /// keep.
    pub fn hold(&mut self, place: usize) -> usize {
        if let Some(call) = self.places.get_mut(place)
            && let State::Receiving(_, assembly) = &call.state
        {
            if call.held.is_none() {
                // Its headers are not to stay for it, which may take as long as its client likes.
                call.credentials = call.credentials.detached();
            }
            let bytes = assembly.bytes() + call.credentials.bytes();
            match call.held.replace(bytes) {
                Some(before) => self.kept.sub(before),
                None => {
                    self.partial += 1;
                    self.overdue.extend(call.deadline.map(|deadline| (deadline, call.stream)));
                }
            }
            self.kept.add(bytes);
        }
        self.kept.bytes()
    }

    /// Counts so many bytes of a call whose message is whole, instead of those before. Answers the bytes that all calls
    /// keep.
    pub fn keep(&mut self, place: usize, bytes: usize) -> usize {
        if let Some(call) = self.places.get_mut(place) {
            self.kept.sub(std::mem::replace(&mut call.kept, bytes));
            self.kept.add(bytes);
        }
        self.kept.bytes()
    }

    /// Whether any call is held.
    pub fn holds_any(&self) -> bool {
        self.partial > 0
    }

    /// Undoes [`Calls::hold`].
    pub fn release(&mut self, place: usize) {
        if let Some(call) = self.places.get_mut(place)
            && let Some(bytes) = call.held.take()
        {
            self.partial -= 1;
            self.kept.sub(bytes);
            if let Some(deadline) = call.deadline {
                self.overdue.remove(&(deadline, call.stream));
            }
        }
    }

    /// The place of a held call whose deadline has passed; `None` when there is no more, and the task is woken for the
    /// next.
    pub fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Option<usize> {
        loop {
            let &(at, stream) = self.overdue.first()?;
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            // One that has run out for a later deadline tells about this one too.
            if timer.deadline() < at || !timer.is_elapsed() {
                if timer.deadline() != at {
                    timer.as_mut().reset(at);
                }
                if timer.as_mut().poll(cx).is_pending() {
                    return None;
                }
            }
            self.overdue.pop_first();
            if let Some(place) = self.place(stream) {
                return Some(place);
            }
        }
    }
}
