//! Transactions: compare, choose, check, then run.
//!
//! All compares see the state before the transaction, those of transactions within too, and fix the path. The
//! path is then checked as a whole, and a check that fails leaves everything as it was; nothing that runs after it
//! can fail but by a read of the disk. Nothing here recurses (see `request`).

use wire::ApiError;

use super::compare::holds;
use super::index::Span;
use super::put::check_put;
use super::range::Effort;
use super::span_set::SpanSet;
use super::{ReadFailure, View, Write, range};
use crate::encoding::{put_length, put_number, put_varint, varint_len};
use crate::request::{DeleteRange, Op, Put, Range, Txn};

/// `TxnResponse`'s and `ResponseHeader`'s field numbers.
const SUCCEEDED: u32 = 2;
const RESPONSES: u32 = 3;
const HEADER_REVISION: u32 = 3;

/// Runs a transaction that only reads. Appends all fields of the `TxnResponse` but its header to `body`; how many ranges
/// that were, those of compares too.
///
/// The caller has made sure that it only reads ([`Txn::is_read_only`]); panics otherwise.
pub(crate) fn run_read(view: &View<'_>, txn: &Txn<'_>, body: &mut Vec<u8>) -> Result<u64, ReadFailure> {
    let path = Path::choose(view, txn)?;
    path.check(view, txn)?;
    let mut reads = Reads { view: *view, ranges: path.compares };
    run(&mut reads, txn, &path, Some(body))?;
    Ok(reads.ranges)
}

/// Runs a transaction that may write. Appends all fields of the `TxnResponse` but its header to `body`; without
/// one only what changes the state is done.
///
/// An [`ReadFailure::Api`] changed nothing.
pub(crate) fn run_write(
    write: &mut Write<'_>,
    txn: &Txn<'_>,
    body: Option<&mut Vec<u8>>,
) -> Result<(), ReadFailure> {
    let path = Path::choose(&write.view(), txn)?;
    path.check(&write.view(), txn)?;
    write.compares = path.compares;
    run(write, txn, &path, body)
}

/// Which way a transaction takes.
struct Path {
    /// The branch of each transaction in it, by its place in [`Txn::nodes`]. Those that are not reached have none.
    branches: Vec<Option<bool>>,
    /// How many compares were looked at.
    compares: u64,
}

impl Path {
    fn choose(view: &View<'_>, txn: &Txn<'_>) -> Result<Path, ReadFailure> {
        let mut path = Path { branches: vec![None; txn.nodes.len()], compares: 0 };
        path.branches[0] = Some(true);
        // Children stand behind their parents, so one pass reaches all that are on the path.
        for (place, node) in txn.nodes.iter().enumerate() {
            if path.branches[place].is_none() {
                continue;
            }
            let mut succeeded = true;
            for compare in &txn.compares[node.compares.clone()] {
                path.compares += 1;
                if !holds(view, compare)? {
                    succeeded = false;
                    break;
                }
            }
            path.branches[place] = Some(succeeded);
            for op in &txn.ops[path.branch(txn, place)] {
                if let Op::Txn(child) = op {
                    path.branches[*child] = Some(true);
                }
            }
        }
        Ok(path)
    }

    fn succeeded(&self, place: usize) -> bool {
        self.branches[place].expect("a transaction off the path is never run")
    }

    /// The ops that run, in [`Txn::ops`].
    fn branch(&self, txn: &Txn<'_>, place: usize) -> std::ops::Range<usize> {
        let node = &txn.nodes[place];
        if self.succeeded(place) { node.success.clone() } else { node.failure.clone() }
    }

    /// Every op on the path in the order in which it runs; transactions come right before their ops.
    fn walk<'t, 'a>(
        &self,
        txn: &'t Txn<'a>,
        mut visit: impl FnMut(&'t Op<'a>) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        let mut open = vec![self.branch(txn, 0)];
        while let Some(ops) = open.last_mut() {
            let Some(op) = ops.next() else {
                open.pop();
                continue;
            };
            visit(&txn.ops[op])?;
            if let Op::Txn(child) = txn.ops[op] {
                open.push(self.branch(txn, child));
            }
        }
        Ok(())
    }

    fn check(&self, view: &View<'_>, txn: &Txn<'_>) -> Result<(), ApiError> {
        self.walk(txn, |op| match op {
            Op::Range(range) => check_range(view, range),
            Op::Put(put) => check_put(view, put),
            Op::DeleteRange(_) | Op::Txn(_) | Op::Empty => Ok(()),
        })?;
        self.check_kept_pairs(txn)
    }

    /// Refuses a put that keeps the value or lease of a pair that the same transaction has deleted by then. etcd's
    /// check looks only at the state before, so it ends its process here (behaviours.md, "Txn").
    fn check_kept_pairs(&self, txn: &Txn<'_>) -> Result<(), ApiError> {
        let keeps = |put: &Put<'_>| put.ignore_value || put.ignore_lease;
        if !txn.ops.iter().any(|op| matches!(op, Op::Put(put) if keeps(put))) {
            return Ok(());
        }
        let mut deleted = SpanSet::default();
        self.walk(txn, |op| {
            match op {
                Op::DeleteRange(delete) => deleted.insert(Span::of(delete.key, delete.range_end)),
                // No put of the key can stand in between: two of one key were refused before (`admission`).
                Op::Put(put) if keeps(put) && deleted.contains(put.key) => return Err(ApiError::KeyNotFound),
                Op::Put(_) | Op::Range(_) | Op::Txn(_) | Op::Empty => {}
            }
            Ok(())
        })
    }
}

fn check_range(view: &View<'_>, range: &Range<'_>) -> Result<(), ApiError> {
    // Unlike in a plain range a negative revision is looked at as it is.
    match range.revision {
        0 => Ok(()),
        revision if revision > view.current => Err(ApiError::FutureRev),
        revision if revision < view.compacted => Err(ApiError::Compacted),
        _ => Ok(()),
    }
}

/// What runs the ops: a pinned view, or the entry being applied.
trait Runs {
    /// The revision of this moment.
    fn current(&self) -> i64;
    /// A range is read, or would be if somebody waited for it.
    fn count_range(&mut self);
    fn range(&mut self, range: &Range<'_>, body: &mut Vec<u8>) -> Result<(), ReadFailure>;
    fn put(&mut self, put: &Put<'_>, body: Option<&mut Vec<u8>>) -> Result<(), ReadFailure>;
    fn delete_range(
        &mut self,
        delete: &DeleteRange<'_>,
        body: Option<&mut Vec<u8>>,
    ) -> Result<(), ReadFailure>;
}

struct Reads<'a> {
    view: View<'a>,
    ranges: u64,
}

impl Runs for Reads<'_> {
    fn current(&self) -> i64 {
        self.view.current
    }

    fn count_range(&mut self) {
        self.ranges += 1;
    }

    fn range(&mut self, request: &Range<'_>, body: &mut Vec<u8>) -> Result<(), ReadFailure> {
        // Each range by itself may be short, all together not.
        Effort::new(&self.view).bytes(body.len())?;
        range(&self.view, request, body)
    }

    fn put(&mut self, _: &Put<'_>, _: Option<&mut Vec<u8>>) -> Result<(), ReadFailure> {
        panic!("a put in a transaction that only reads")
    }

    fn delete_range(&mut self, _: &DeleteRange<'_>, _: Option<&mut Vec<u8>>) -> Result<(), ReadFailure> {
        panic!("a delete in a transaction that only reads")
    }
}

impl Runs for Write<'_> {
    fn current(&self) -> i64 {
        Write::current(self)
    }

    fn count_range(&mut self) {
        self.ops.ranges += 1;
    }

    fn range(&mut self, request: &Range<'_>, body: &mut Vec<u8>) -> Result<(), ReadFailure> {
        range(&self.view(), request, body)
    }

    fn put(&mut self, put: &Put<'_>, body: Option<&mut Vec<u8>>) -> Result<(), ReadFailure> {
        Write::put(self, put, body)
    }

    fn delete_range(
        &mut self,
        delete: &DeleteRange<'_>,
        body: Option<&mut Vec<u8>>,
    ) -> Result<(), ReadFailure> {
        Write::delete_range(self, delete, body)
    }
}

/// A transaction that is being run.
struct Frame {
    ops: std::ops::Range<usize>,
    /// Where its response begins in the body.
    start: usize,
}

fn run(
    runs: &mut dyn Runs,
    txn: &Txn<'_>,
    path: &Path,
    mut body: Option<&mut Vec<u8>>,
) -> Result<(), ReadFailure> {
    if let Some(body) = body.as_deref_mut() {
        put_number(body, SUCCEEDED, i64::from(path.succeeded(0)));
    }
    let mut frames = vec![Frame { ops: path.branch(txn, 0), start: 0 }];
    while let Some(frame) = frames.last_mut() {
        let Some(op) = frame.ops.next() else {
            let start = frame.start;
            frames.pop();
            if let (Some(body), false) = (body.as_deref_mut(), frames.is_empty()) {
                close(body, start, 4);
            }
            continue;
        };
        let op = &txn.ops[op];
        if let Op::Txn(child) = *op {
            let start = body.as_deref().map_or(0, Vec::len);
            if let Some(body) = body.as_deref_mut() {
                // The header of a transaction within is there, but empty.
                put_length(body, 1, 0);
                put_number(body, SUCCEEDED, i64::from(path.succeeded(child)));
            }
            frames.push(Frame { ops: path.branch(txn, child), start });
        } else {
            run_op(runs, op, body.as_deref_mut())?;
        }
    }
    Ok(())
}

/// Runs an op that is no transaction, and appends its `ResponseOp`.
fn run_op(runs: &mut dyn Runs, op: &Op<'_>, body: Option<&mut Vec<u8>>) -> Result<(), ReadFailure> {
    if let Op::Range(_) = op {
        runs.count_range();
    }
    let Some(body) = body else {
        return match op {
            Op::Put(put) => runs.put(put, None),
            Op::DeleteRange(delete) => runs.delete_range(delete, None),
            // Nobody waits for what a range would say.
            Op::Range(_) | Op::Empty | Op::Txn(_) => Ok(()),
        };
    };
    let start = body.len();
    let field = match op {
        Op::Range(range) => {
            put_header(body, runs.current());
            runs.range(range, body)?;
            1
        }
        Op::Put(put) => {
            runs.put(put, Some(body))?;
            put_header(body, runs.current());
            2
        }
        Op::DeleteRange(delete) => {
            runs.delete_range(delete, Some(body))?;
            put_header(body, runs.current());
            3
        }
        Op::Empty | Op::Txn(_) => {
            put_length(body, RESPONSES, 0);
            return Ok(());
        }
    };
    close(body, start, field);
    Ok(())
}

/// Appends a response header that has only a revision. Fields may come in any order, so it also stands behind what
/// had to be done to know it.
fn put_header(body: &mut Vec<u8>, revision: i64) {
    put_length(body, 1, 1 + varint_len(revision as u64));
    put_number(body, HEADER_REVISION, revision);
}

/// Puts what was appended since `start`, a response, into a `ResponseOp` in the list of responses.
fn close(body: &mut Vec<u8>, start: usize, field: u32) {
    let length = body.len() - start;
    let op_length = 1 + varint_len(length as u64) + length;
    let frame_length = 1 + varint_len(op_length as u64) + op_length - length;
    let end = body.len();
    // The frame is written behind the response, then both change places.
    put_length(body, RESPONSES, op_length);
    put_varint(body, u64::from(field) << 3 | 2);
    put_varint(body, length as u64);
    assert_eq!(body.len(), end + frame_length);
    body[start..].rotate_right(frame_length);
}
