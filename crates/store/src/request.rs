//! Requests of the key-value service, decoded in place.
//!
//! Everything borrows from the bytes that were received or replicated. Transactions are kept flat, children behind
//! their parents, and nothing here recurses: how deep a client nests them decides neither our stack (prost's types
//! would end at 50 levels, etcd takes `--max-txn-ops` of them) nor the cost.

use std::ops::Range as Indices;

use wire::etcdserverpb as pb;

use crate::encoding::{Field, Fields, Form, put_length, varint_len};
use crate::plain;

pub use crate::encoding::DecodeError;

/// A decoded message if there was nothing else in it.
fn plainly<T>(decoded: T, form: Form) -> Result<T, DecodeError> {
    match form {
        Form::Plain => Ok(decoded),
        Form::Odd => Err(DecodeError::NotPlain),
        Form::Refused => Err(DecodeError::Malformed),
    }
}

/// `etcdserverpb.RangeRequest`; field meanings are those of the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the API's own")]
pub struct Range<'a> {
    pub key: &'a [u8],
    pub range_end: &'a [u8],
    pub limit: i64,
    pub revision: i64,
    pub sort_order: i32,
    pub sort_target: i32,
    pub serializable: bool,
    pub keys_only: bool,
    pub count_only: bool,
    pub min_mod_revision: i64,
    pub max_mod_revision: i64,
    pub min_create_revision: i64,
    pub max_create_revision: i64,
}

impl<'a> Range<'a> {
    /// Decodes a `RangeRequest`. Errors: [`DecodeError::Malformed`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        Range::read(bytes, &mut Form::default())
    }

    /// Decodes one from a client. Errors: [`DecodeError::Malformed`], where etcd's decoder refuses it too;
    /// [`DecodeError::NotPlain`].
    #[inline]
    pub fn decode_plain(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut form = Form::default();
        let range = Range::read(bytes, &mut form)?;
        plainly(range, form)
    }

    fn read(bytes: &'a [u8], form: &mut Form) -> Result<Self, DecodeError> {
        let mut range = Range::default();
        let mut fields = Fields::new(bytes);
        while let Some(field) = fields.next()? {
            match field {
                (1, Field::Bytes(b)) => range.key = b,
                (2, Field::Bytes(b)) => range.range_end = b,
                (3, Field::Number(n)) => range.limit = n as i64,
                (4, Field::Number(n)) => range.revision = n as i64,
                (5, Field::Number(n)) => range.sort_order = n as i32,
                (6, Field::Number(n)) => range.sort_target = n as i32,
                (7, Field::Number(n)) => range.serializable = n != 0,
                (8, Field::Number(n)) => range.keys_only = n != 0,
                (9, Field::Number(n)) => range.count_only = n != 0,
                (10, Field::Number(n)) => range.min_mod_revision = n as i64,
                (11, Field::Number(n)) => range.max_mod_revision = n as i64,
                (12, Field::Number(n)) => range.min_create_revision = n as i64,
                (13, Field::Number(n)) => range.max_create_revision = n as i64,
                _ => fields.note_unknown(),
            }
        }
        *form = fields.form().max(*form);
        Ok(range)
    }
}

impl Range<'_> {
    /// Whether the rows are asked for in the order in which the index gives them, or in none.
    pub fn has_default_order(&self) -> bool {
        use pb::range_request::{SortOrder, SortTarget};
        self.sort_order == SortOrder::None as i32
            || (self.sort_target == SortTarget::Key as i32 && self.sort_order == SortOrder::Ascend as i32)
    }

    /// Whether any of the four revision filters is set.
    pub fn has_filters(&self) -> bool {
        self.min_mod_revision != 0
            || self.max_mod_revision != 0
            || self.min_create_revision != 0
            || self.max_create_revision != 0
    }
}

impl<'a> From<&'a pb::RangeRequest> for Range<'a> {
    fn from(r: &'a pb::RangeRequest) -> Self {
        Range {
            key: &r.key,
            range_end: &r.range_end,
            limit: r.limit,
            revision: r.revision,
            sort_order: r.sort_order,
            sort_target: r.sort_target,
            serializable: r.serializable,
            keys_only: r.keys_only,
            count_only: r.count_only,
            min_mod_revision: r.min_mod_revision,
            max_mod_revision: r.max_mod_revision,
            min_create_revision: r.min_create_revision,
            max_create_revision: r.max_create_revision,
        }
    }
}

/// `etcdserverpb.PutRequest`; field meanings are those of the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the API's own")]
pub struct Put<'a> {
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub lease: i64,
    pub prev_kv: bool,
    pub ignore_value: bool,
    pub ignore_lease: bool,
}

impl<'a> Put<'a> {
    /// Decodes a `PutRequest`. Errors: [`DecodeError::Malformed`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        Put::read(bytes, &mut Form::default())
    }

    /// Decodes one from a client. Errors: [`DecodeError::Malformed`], where etcd's decoder refuses it too;
    /// [`DecodeError::NotPlain`].
    #[inline]
    pub fn decode_plain(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut form = Form::default();
        let put = Put::read(bytes, &mut form)?;
        plainly(put, form)
    }

    fn read(bytes: &'a [u8], form: &mut Form) -> Result<Self, DecodeError> {
        let mut put = Put::default();
        let mut fields = Fields::new(bytes);
        while let Some(field) = fields.next()? {
            match field {
                (1, Field::Bytes(b)) => put.key = b,
                (2, Field::Bytes(b)) => put.value = b,
                (3, Field::Number(n)) => put.lease = n as i64,
                (4, Field::Number(n)) => put.prev_kv = n != 0,
                (5, Field::Number(n)) => put.ignore_value = n != 0,
                (6, Field::Number(n)) => put.ignore_lease = n != 0,
                _ => fields.note_unknown(),
            }
        }
        *form = fields.form().max(*form);
        Ok(put)
    }
}

impl<'a> From<&'a pb::PutRequest> for Put<'a> {
    fn from(r: &'a pb::PutRequest) -> Self {
        Put {
            key: &r.key,
            value: &r.value,
            lease: r.lease,
            prev_kv: r.prev_kv,
            ignore_value: r.ignore_value,
            ignore_lease: r.ignore_lease,
        }
    }
}

/// `etcdserverpb.DeleteRangeRequest`; field meanings are those of the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the API's own")]
pub struct DeleteRange<'a> {
    pub key: &'a [u8],
    pub range_end: &'a [u8],
    pub prev_kv: bool,
}

impl<'a> DeleteRange<'a> {
    /// Decodes a `DeleteRangeRequest`. Errors: [`DecodeError::Malformed`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        DeleteRange::read(bytes, &mut Form::default())
    }

    /// Decodes one from a client. Errors: [`DecodeError::Malformed`], where etcd's decoder refuses it too;
    /// [`DecodeError::NotPlain`].
    #[inline]
    pub fn decode_plain(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut form = Form::default();
        let delete = DeleteRange::read(bytes, &mut form)?;
        plainly(delete, form)
    }

    fn read(bytes: &'a [u8], form: &mut Form) -> Result<Self, DecodeError> {
        let mut delete = DeleteRange::default();
        let mut fields = Fields::new(bytes);
        while let Some(field) = fields.next()? {
            match field {
                (1, Field::Bytes(b)) => delete.key = b,
                (2, Field::Bytes(b)) => delete.range_end = b,
                (3, Field::Number(n)) => delete.prev_kv = n != 0,
                _ => fields.note_unknown(),
            }
        }
        *form = fields.form().max(*form);
        Ok(delete)
    }
}

impl<'a> From<&'a pb::DeleteRangeRequest> for DeleteRange<'a> {
    fn from(r: &'a pb::DeleteRangeRequest) -> Self {
        DeleteRange { key: &r.key, range_end: &r.range_end, prev_kv: r.prev_kv }
    }
}

/// What a compare compares with: `Compare.target_union`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the API's own")]
pub enum Operand<'a> {
    #[default]
    None,
    Version(i64),
    CreateRevision(i64),
    ModRevision(i64),
    Value(&'a [u8]),
    Lease(i64),
}

/// `etcdserverpb.Compare`; field meanings are those of the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the API's own")]
pub struct Compare<'a> {
    pub result: i32,
    pub target: i32,
    pub key: &'a [u8],
    pub range_end: &'a [u8],
    pub operand: Operand<'a>,
}

impl<'a> Compare<'a> {
    fn read(bytes: &'a [u8], form: &mut Form) -> Result<Self, DecodeError> {
        let mut compare = Compare::default();
        let mut fields = Fields::new(bytes);
        while let Some(field) = fields.next()? {
            match field {
                (1, Field::Number(n)) => compare.result = n as i32,
                (2, Field::Number(n)) => compare.target = n as i32,
                (3, Field::Bytes(b)) => compare.key = b,
                (4, Field::Number(n)) => compare.operand = Operand::Version(n as i64),
                (5, Field::Number(n)) => compare.operand = Operand::CreateRevision(n as i64),
                (6, Field::Number(n)) => compare.operand = Operand::ModRevision(n as i64),
                (7, Field::Bytes(b)) => compare.operand = Operand::Value(b),
                (8, Field::Number(n)) => compare.operand = Operand::Lease(n as i64),
                (64, Field::Bytes(b)) => compare.range_end = b,
                _ => fields.note_unknown(),
            }
        }
        *form = fields.form().max(*form);
        Ok(compare)
    }
}

/// One operation of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// An op with nothing set; admission refuses it.
    Empty,
    /// A read.
    Range(Range<'a>),
    /// A write.
    Put(Put<'a>),
    /// A delete.
    DeleteRange(DeleteRange<'a>),
    /// A transaction within: its place in [`Txn::nodes`].
    Txn(usize),
}

/// A transaction, the outer one or one within, by the places of its parts in [`Txn`]'s lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnNode {
    /// Its compares in [`Txn::compares`].
    pub compares: Indices<usize>,
    /// Its then-ops in [`Txn::ops`].
    pub success: Indices<usize>,
    /// Its else-ops in [`Txn::ops`].
    pub failure: Indices<usize>,
}

/// `etcdserverpb.TxnRequest` with all transactions in it, flat: a child's place is always above its parent's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn<'a> {
    /// The outer transaction, at 0, and all those within.
    pub nodes: Vec<TxnNode>,
    /// All compares.
    pub compares: Vec<Compare<'a>>,
    /// All ops.
    pub ops: Vec<Op<'a>>,
}

impl<'a> Txn<'a> {
    /// Decodes a `TxnRequest`.
    ///
    /// Errors: [`DecodeError::Malformed`]; [`DecodeError::Repeated`] if an op holds one request in pieces, which
    /// [`canonical_txn`] joins.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        Txn::read(bytes, &mut Form::default())
    }

    /// Decodes one from a client. Errors: [`DecodeError::Malformed`], where etcd's decoder refuses it too;
    /// [`DecodeError::NotPlain`] and [`DecodeError::Repeated`], which [`plain()`] mends both.
    pub fn decode_plain(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut form = Form::default();
        let txn = Txn::read(bytes, &mut form)?;
        if txn.is_too_deep() {
            return Err(DecodeError::Malformed);
        }
        plainly(txn, form)
    }

    fn read(bytes: &'a [u8], form: &mut Form) -> Result<Self, DecodeError> {
        let mut txn = Txn::default();
        let mut pending = vec![bytes];
        while let Some(&message) = pending.get(txn.nodes.len()) {
            txn.read_node(message, &mut pending, form)?;
        }
        Ok(txn)
    }

    /// Appends the node of `message`; the messages of transactions within go to the end of `pending`.
    fn read_node(
        &mut self,
        message: &'a [u8],
        pending: &mut Vec<&'a [u8]>,
        form: &mut Form,
    ) -> Result<(), DecodeError> {
        let compares = self.compares.len();
        let success = self.ops.len();
        let mut failures = Vec::new();
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next()? {
            match field {
                (1, Field::Bytes(b)) => self.compares.push(Compare::read(b, form)?),
                (2, Field::Bytes(b)) => self.ops.push(read_op(b, pending, form)?),
                (3, Field::Bytes(b)) => failures.push(read_op(b, pending, form)?),
                _ => fields.note_unknown(),
            }
        }
        *form = fields.form().max(*form);
        let failure = self.ops.len();
        self.ops.append(&mut failures);
        self.nodes.push(TxnNode {
            compares: compares..self.compares.len(),
            success: success..failure,
            failure: failure..self.ops.len(),
        });
        Ok(())
    }

    /// Whether nothing but ranges stands in the outer lists: such a transaction makes no log entry. One that holds
    /// another counts as a write, whatever is in that.
    pub fn is_read_only(&self) -> bool {
        self.outer_ops().all(|op| matches!(op, Op::Range(_)))
    }

    /// Whether it is answered from the local store without asking a quorum: every outer op is a serializable range
    /// (so one without any op is serializable).
    pub fn is_serializable(&self) -> bool {
        self.outer_ops().all(|op| matches!(op, Op::Range(range) if range.serializable))
    }

    /// Whether a put stands anywhere in it, on any branch: then it is refused while there is no space.
    pub fn has_put(&self) -> bool {
        self.ops.iter().any(|op| matches!(op, Op::Put(_)))
    }

    /// Whether etcd's members could not decode it any more where an entry holds it.
    fn is_too_deep(&self) -> bool {
        if self.nodes.len() <= TXN_LEVELS_MAX {
            return false;
        }
        let mut levels = vec![1; self.nodes.len()];
        for (place, node) in self.nodes.iter().enumerate() {
            for op in &self.ops[node.success.start..node.failure.end] {
                if let Op::Txn(child) = op {
                    levels[*child] = levels[place] + 1;
                }
            }
        }
        levels.iter().any(|level| *level > TXN_LEVELS_MAX)
    }

    fn outer_ops(&self) -> impl Iterator<Item = &Op<'a>> {
        let outer = &self.nodes[0];
        self.ops[outer.success.clone()].iter().chain(&self.ops[outer.failure.clone()])
    }
}

/// Transactions one within the other that Go's decoder (protobuf-go) takes as a part of an entry: messages nest 10,000
/// deep there, the entry's own is the first, each transaction and each op is one, and the last op has a request.
const TXN_LEVELS_MAX: usize = 4_999;

fn read_op<'a>(bytes: &'a [u8], pending: &mut Vec<&'a [u8]>, form: &mut Form) -> Result<Op<'a>, DecodeError> {
    let mut fields = Fields::new(bytes);
    let mut request = None;
    while let Some(field) = fields.next()? {
        match field {
            // Of several requests the last counts, but pieces of one and the same are merged.
            (1..=4, Field::Bytes(_)) if request.is_some() => return Err(DecodeError::Repeated),
            (number @ 1..=4, Field::Bytes(b)) => request = Some((number, b)),
            _ => fields.note_unknown(),
        }
    }
    *form = fields.form().max(*form);
    match request {
        None => Ok(Op::Empty),
        Some((1, b)) => Range::read(b, form).map(Op::Range),
        Some((2, b)) => Put::read(b, form).map(Op::Put),
        Some((3, b)) => DeleteRange::read(b, form).map(Op::DeleteRange),
        Some((_, b)) => {
            pending.push(b);
            Ok(Op::Txn(pending.len() - 1))
        }
    }
}

/// Which request a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the API's own")]
pub enum Request {
    Range,
    Put,
    DeleteRange,
    Txn,
}

/// The same message without what nobody knows, and with every part in one piece, so that its `decode_plain` takes it.
/// Only for the rare one for which that said [`DecodeError::NotPlain`] or [`DecodeError::Repeated`].
///
/// Errors: [`DecodeError::Malformed`], where etcd's decoder refuses it too.
pub fn plain(request: Request, bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let shape = match request {
        Request::Range => &plain::RANGE,
        Request::Put => &plain::PUT,
        Request::DeleteRange => &plain::DELETE_RANGE,
        Request::Txn => &plain::TXN,
    };
    let (message, form) = plain::plain(bytes, shape)?;
    match (form, request) {
        (Form::Refused, _) => Err(DecodeError::Malformed),
        (_, Request::Txn) => canonical_txn(&message),
        _ => Ok(message),
    }
}

/// The same `TxnRequest` with every part in one piece, so that [`Txn::decode`] takes it. Only for the rare message
/// for which that said [`DecodeError::Repeated`].
pub fn canonical_txn(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut pending = vec![vec![bytes]];
    let mut nodes = Vec::new();
    while let Some(pieces) = pending.get_mut(nodes.len()).map(std::mem::take) {
        nodes.push(parts_of(&pieces, &mut pending)?);
    }
    // Transactions within stand behind those that they are in: from the end on all lengths are known.
    let mut lengths = vec![0; nodes.len()];
    for (place, parts) in nodes.iter().enumerate().rev() {
        lengths[place] = parts.iter().map(|part| field_len(part.len(&lengths))).sum();
    }
    let mut out = Vec::with_capacity(lengths[0]);
    let mut open = vec![nodes[0].iter()];
    while let Some(parts) = open.last_mut() {
        let Some(part) = parts.next() else {
            open.pop();
            continue;
        };
        put_length(&mut out, part.list, part.len(&lengths));
        match &part.content {
            Content::Compare(compare) => out.extend_from_slice(compare),
            Content::Empty => {}
            Content::Request(number, pieces) => {
                put_length(&mut out, *number, pieces.iter().map(|piece| piece.len()).sum());
                pieces.iter().for_each(|piece| out.extend_from_slice(piece));
            }
            Content::Txn(child) => {
                put_length(&mut out, TXN_REQUEST, lengths[*child]);
                open.push(nodes[*child].iter());
            }
        }
    }
    Ok(out)
}

/// `RequestOp.request_txn`.
const TXN_REQUEST: u32 = 4;

/// An element of one of a transaction's lists, put together from pieces.
struct Part<'a> {
    /// The list's field number.
    list: u32,
    content: Content<'a>,
}

enum Content<'a> {
    Compare(&'a [u8]),
    /// An op with nothing set.
    Empty,
    /// A request by its number; merging messages means to put their bytes one behind the other.
    Request(u32, Vec<&'a [u8]>),
    /// A transaction within, by its place.
    Txn(usize),
}

impl Part<'_> {
    fn len(&self, lengths: &[usize]) -> usize {
        match &self.content {
            Content::Compare(compare) => compare.len(),
            Content::Empty => 0,
            Content::Request(_, pieces) => field_len(pieces.iter().map(|piece| piece.len()).sum()),
            Content::Txn(child) => field_len(lengths[*child]),
        }
    }
}

/// What a field with so many bytes takes, its number being below 16.
fn field_len(bytes: usize) -> usize {
    1 + varint_len(bytes as u64) + bytes
}

/// The elements of the lists of a transaction that came in `pieces`; the pieces of transactions within go to the end of
/// `pending`.
fn parts_of<'a>(pieces: &[&'a [u8]], pending: &mut Vec<Vec<&'a [u8]>>) -> Result<Vec<Part<'a>>, DecodeError> {
    let mut parts = Vec::new();
    for piece in pieces {
        let mut fields = Fields::new(piece);
        while let Some(field) = fields.next()? {
            let (list, content) = match field {
                (1, Field::Bytes(b)) => (1, Content::Compare(b)),
                (list @ 2..=3, Field::Bytes(b)) => (list, joined(b, pending)?),
                _ => continue,
            };
            parts.push(Part { list, content });
        }
    }
    Ok(parts)
}

/// An op's request: of several the last counts, and its pieces are put together.
fn joined<'a>(op: &'a [u8], pending: &mut Vec<Vec<&'a [u8]>>) -> Result<Content<'a>, DecodeError> {
    let mut fields = Fields::new(op);
    let (mut number, mut pieces) = (0, Vec::new());
    while let Some(field) = fields.next()? {
        if let (next @ 1..=4, Field::Bytes(b)) = field {
            if next != number {
                pieces.clear();
            }
            number = next;
            pieces.push(b);
        }
    }
    Ok(match number {
        0 => Content::Empty,
        TXN_REQUEST => {
            pending.push(pieces);
            Content::Txn(pending.len() - 1)
        }
        number => Content::Request(number, pieces),
    })
}
