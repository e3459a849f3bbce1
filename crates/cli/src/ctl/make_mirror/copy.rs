//! What a mirror copies: all pairs at one revision, then every change after it.
//!
//! In memory is one page of the pairs, which has [`PAGE_BYTES_MAX`] bytes at most unless one pair alone is longer, or
//! one answer of the watch. What is not copied yet stays with the source.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use client::{Client, Deadline, Error, Watched, prefix_range};
use tokio::task::JoinSet;
use wire::etcdserverpb::request_op::Request;
use wire::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest, WatchCreateRequest,
};
use wire::mvccpb::event::EventType;
use wire::mvccpb::{Event, KeyValue};
use wire::{ApiError, Code, Status};

/// Longest answer that is taken for more than one pair, bytes.
pub(super) const PAGE_BYTES_MAX: u32 = 16 << 20;

/// Most pairs that are asked for at once.
const PAGE_KEYS_MAX: i64 = 1000;

/// Puts at the destination that are on their way at the same time: their keys differ, so their order is nobody's.
const PUTS_AT_ONCE: usize = 32;

/// How often a read is made again, and the pause before; etcd's client.
const READS_AGAIN_MAX: u32 = 100;
const READ_PAUSE: Duration = Duration::from_millis(25);

/// A key that a reader of everything may read, to learn the revision.
const ANY_KEY: &[u8] = b"foo";

/// A source, a destination, and what is to be copied.
pub(super) struct Mirror {
    source: Client,
    /// The same source, for pages: it takes no answer above [`PAGE_BYTES_MAX`].
    pages: Client,
    destination: Client,
    prefix: Vec<u8>,
    /// What stands in its place at the destination.
    destination_prefix: Vec<u8>,
    /// Most changes in one transaction; 0 for any number.
    operations_max: u64,
    copied: Cell<u64>,
}

impl Mirror {
    /// `prefixes`: at the source and at the destination.
    pub(super) fn new(
        source: Client,
        pages: Client,
        destination: Client,
        prefixes: (Vec<u8>, Vec<u8>),
        operations_max: u64,
    ) -> Mirror {
        let (prefix, destination_prefix) = prefixes;
        let copied = Cell::new(0);
        Mirror { source, pages, destination, prefix, destination_prefix, operations_max, copied }
    }

    /// Pairs and changes that were copied so far.
    pub(super) fn copied(&self) -> u64 {
        self.copied.get()
    }

    /// Copies the changes from this revision on, or else all pairs and the changes after them; ends when something
    /// fails.
    pub(super) async fn run(&self, first_change: Option<i64>) -> Error {
        let first_change = match first_change {
            Some(revision) => revision,
            None => match self.copy_pairs().await {
                Ok(revision) => revision + 1,
                Err(error) => return error,
            },
        };
        match self.follow(first_change).await {
            Ok(()) => Error::WatchLost,
            Err(error) => error,
        }
    }

    /// Copies all pairs as they are now; says at which revision that was.
    async fn copy_pairs(&self) -> Result<i64, Error> {
        let key = if self.prefix.is_empty() { ANY_KEY } else { &self.prefix };
        let request = RangeRequest { key: Bytes::copy_from_slice(key), ..RangeRequest::default() };
        let answer = read(&self.source, request).await?;
        let revision = answer.header.map_or(0, |header| header.revision);

        let (key, range_end) = prefix_range(&self.prefix);
        let mut next =
            RangeRequest { key, range_end, revision, limit: PAGE_KEYS_MAX, ..RangeRequest::default() };
        loop {
            let page = self.page(&mut next).await?;
            let Some(last) = page.kvs.last() else { return Ok(revision) };
            next.key = [&last.key[..], b"\0"].concat().into();
            self.put(page.kvs).await?;
            if !page.more {
                return Ok(revision);
            }
        }
    }

    /// The next page. Its limit is halved while the page is too long, and doubled again after a short one.
    async fn page(&self, request: &mut RangeRequest) -> Result<RangeResponse, Error> {
        loop {
            // One pair may be as long as the user lets it be.
            let client = if request.limit > 1 { &self.pages } else { &self.source };
            match read(client, request.clone()).await {
                Err(error) if request.limit > 1 && is_too_large(&error) => request.limit /= 2,
                Err(error) => return Err(error),
                Ok(page) => {
                    let bytes: usize = page.kvs.iter().map(|pair| pair.key.len() + pair.value.len()).sum();
                    if bytes < PAGE_BYTES_MAX as usize / 4 {
                        request.limit = (request.limit * 2).min(PAGE_KEYS_MAX);
                    }
                    return Ok(page);
                }
            }
        }
    }

    async fn put(&self, pairs: Vec<KeyValue>) -> Result<(), Error> {
        let mut puts = JoinSet::new();
        for pair in pairs {
            if puts.len() == PUTS_AT_ONCE {
                self.one_is_put(&mut puts).await?;
            }
            let (key, value) = (self.renamed(&pair.key), pair.value);
            let client = self.destination.clone();
            puts.spawn(async move {
                let request = PutRequest { key, value, ..PutRequest::default() };
                client.put(request, Deadline::NEVER).await.map(drop)
            });
        }
        while !puts.is_empty() {
            self.one_is_put(&mut puts).await?;
        }
        Ok(())
    }

    async fn one_is_put(&self, puts: &mut JoinSet<Result<(), Error>>) -> Result<(), Error> {
        match puts.join_next().await {
            Some(Ok(result)) => result?,
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            None => return Ok(()),
        }
        self.copied.update(|copied| copied + 1);
        Ok(())
    }

    /// Copies changes until the watch ends.
    async fn follow(&self, first_change: i64) -> Result<(), Error> {
        let (key, range_end) = prefix_range(&self.prefix);
        let request = WatchCreateRequest {
            key,
            range_end,
            start_revision: first_change,
            ..WatchCreateRequest::default()
        };
        let mut watcher = self.source.watcher(false);
        watcher.watch(request)?;
        while let Some(Watched { response, end, .. }) = watcher.next().await {
            self.change(response.events).await?;
            if let Some(error) = end {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Makes changes at the destination: those of one revision together, unless they are too many.
    async fn change(&self, events: Vec<Event>) -> Result<(), Error> {
        let mut operations: Vec<RequestOp> = Vec::new();
        let mut revision = 0;
        for event in events {
            let kind = event.r#type();
            let Some(pair) = event.kv else { continue };
            let is_full = self.operations_max > 0 && operations.len() as u64 >= self.operations_max;
            if !operations.is_empty() && (is_full || pair.mod_revision != revision) {
                self.commit(std::mem::take(&mut operations)).await?;
            }
            revision = pair.mod_revision;
            operations.push(self.operation(kind, pair));
        }
        if operations.is_empty() { Ok(()) } else { self.commit(operations).await }
    }

    fn operation(&self, kind: EventType, pair: KeyValue) -> RequestOp {
        let key = self.renamed(&pair.key);
        let request = match kind {
            EventType::Put => {
                Request::RequestPut(PutRequest { key, value: pair.value, ..PutRequest::default() })
            }
            EventType::Delete => {
                Request::RequestDeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() })
            }
        };
        RequestOp { request: Some(request) }
    }

    /// Does all of it in one transaction, or in several where the destination does not take that much in one.
    async fn commit(&self, operations: Vec<RequestOp>) -> Result<(), Error> {
        let mut waiting = vec![operations];
        while let Some(mut operations) = waiting.pop() {
            let count = operations.len();
            let request = TxnRequest { success: operations.clone(), ..TxnRequest::default() };
            match self.destination.txn(request, Deadline::NEVER).await {
                Ok(_) => self.copied.update(|copied| copied + count as u64),
                Err(error) if count > 1 && is_too_large(&error) => {
                    let rest = operations.split_off(count / 2);
                    waiting.extend([rest, operations]);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A key's name at the destination.
    fn renamed(&self, key: &[u8]) -> Bytes {
        let rest = key.strip_prefix(&self.prefix[..]).unwrap_or(key);
        [&self.destination_prefix[..], rest].concat().into()
    }
}

/// A read, made again where the connection breaks, as etcd's client does. A write is not: the one before could still come,
/// and come last.
async fn read(client: &Client, request: RangeRequest) -> Result<RangeResponse, Error> {
    for _ in 0..READS_AGAIN_MAX {
        match client.range(request.clone(), Deadline::NEVER).await {
            Err(error) if error.code() == Some(Code::Unavailable) => tokio::time::sleep(READ_PAUSE).await,
            result => return result,
        }
    }
    client.range(request, Deadline::NEVER).await
}

/// Whether a message was refused, here or there, for its length.
fn is_too_large(error: &Error) -> bool {
    let of_grpc = |status: &Status| {
        status.code == Code::ResourceExhausted && status.message.contains("message larger than max")
    };
    error.is(ApiError::RequestTooLarge) || matches!(error, Error::Status(status) if of_grpc(status))
}
