//! Which keys a request means, and how far a walk over them has come.
//!
//! A walk goes on by key, so the tree may change between two of its steps.

/// The keys that a request means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span<'a> {
    pub from: &'a [u8],
    pub to: End<'a>,
}

/// Where a [`Span`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End<'a> {
    /// The one key.
    One,
    /// Every key at or after `from`.
    Open,
    /// Keys below this one.
    Before(&'a [u8]),
}

impl<'a> Span<'a> {
    /// By the API's `range_end`: empty means one key, `\0` no end.
    pub(crate) fn of(key: &'a [u8], range_end: &'a [u8]) -> Self {
        let to = match range_end {
            [] => End::One,
            [0] => End::Open,
            end => End::Before(end),
        };
        Span { from: key, to }
    }

    /// As [`Span::of`], but with `\0` an end like any other.
    pub(crate) fn literal(key: &'a [u8], range_end: &'a [u8]) -> Self {
        let to = if range_end.is_empty() { End::One } else { End::Before(range_end) };
        Span { from: key, to }
    }
}

/// How far a walk over a span has come.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    pub(super) span: Span<'a>,
    pub(super) place: Place,
    /// For keys that have to be put together. Kept, as the other, so that no step of a walk allocates but the first.
    pub(super) scratch: Vec<u8>,
    pub(super) spare: Vec<u8>,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(span: Span<'a>) -> Self {
        Cursor { span, place: Place::default(), scratch: Vec::new(), spare: Vec::new() }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.place.state == State::Done
    }
}

/// How far a walk over all keys that drops what is dead has come; see `IndexOf::drop_below`.
#[derive(Debug, Default)]
pub(crate) struct DropCursor {
    pub(super) place: Place,
}

impl DropCursor {
    pub(crate) fn is_done(&self) -> bool {
        self.place.state == State::Done
    }
}

/// Where a walk goes on.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) state: State,
    /// The first key that was not looked at, if the walk is `Under` way.
    pub(super) next: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Start,
    Under,
    Done,
}

impl Place {
    /// The walk stops before this key.
    pub(super) fn stop(&mut self, key: &[u8]) {
        self.next.clear();
        self.next.extend_from_slice(key);
        self.state = State::Under;
    }
}
