//! Calls as they are counted, each from its beginning to its end.

use tokio::time::Instant;
use wire::Code;

use super::answer::PREFIX_BYTES;
use super::method::{Method, Shape};
use crate::metrics::{ClientVersion, Own};

/// A call that has begun. One that is dropped before its end was canceled by its client.
pub struct Counted {
    counts: Own,
    method: Method,
    /// Where it is measured how long it takes.
    begun: Option<Instant>,
    /// Of the message being sent, the bytes that have not come yet.
    left: usize,
    has_sent: bool,
    has_ended: bool,
}

impl Counted {
    /// A call begins. `version`: of its client, unless that is no text.
    pub fn begin(counts: &Own, method: Method, version: Option<ClientVersion>, now: Instant) -> Counted {
        counts.method(method).started.add_alone(1);
        if let Some(version) = version {
            counts.count_client(method.shape() != Shape::Unary, version);
        }
        let begun = counts.handling(method).map(|_| now);
        Counted { counts: counts.clone(), method, begun, left: 0, has_sent: false, has_ended: false }
    }

    /// Counts what its client sends from now on elsewhere.
    pub fn receiver(&self) -> Receiver {
        Receiver { counts: self.counts.clone(), method: self.method }
    }

    /// Its client has sent a message of so many bytes, without the prefix.
    pub fn received(&self, bytes: usize) {
        count_received(&self.counts, self.method, bytes);
    }

    /// A piece of its messages is sent. A prefix is never parted.
    pub fn sent(&mut self, mut piece: &[u8]) {
        loop {
            let taken = self.left.min(piece.len());
            self.left -= taken;
            piece = &piece[taken..];
            let Some((&[_, l0, l1, l2, l3], rest)) = piece.split_first_chunk::<PREFIX_BYTES>() else {
                return;
            };
            self.left = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
            piece = rest;
            self.has_sent = true;
            self.counts.method(self.method).sent.add_alone(1);
            self.counts.sent_bytes.add_alone(self.left as u64);
        }
    }

    /// It has come to its end.
    pub fn end(mut self, code: Code) {
        self.count_end(code);
    }

    fn count_end(&mut self, code: Code) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        let method = self.counts.method(self.method);
        if let Some(handled) = method.handled.get(usize::from(code.number())) {
            handled.add_alone(1);
        }
        // As in etcd's library what a handler comes to counts as its message, also where that is an error.
        if !self.has_sent && self.method.shape() == Shape::Unary {
            method.sent.add_alone(1);
        }
        if let (Some(begun), Some(handling)) = (self.begun, self.counts.handling(self.method)) {
            handling.observe_alone(begun.elapsed());
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.count_end(Code::Canceled);
    }
}

/// Counts what a client sends.
pub struct Receiver {
    counts: Own,
    method: Method,
}

impl Receiver {
    /// A message of so many bytes, without the prefix.
    pub fn received(&self, bytes: usize) {
        count_received(&self.counts, self.method, bytes);
    }
}

fn count_received(counts: &Own, method: Method, bytes: usize) {
    counts.method(method).received.add_alone(1);
    counts.received_bytes.add_alone(bytes as u64);
}
