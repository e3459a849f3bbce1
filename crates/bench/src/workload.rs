//! What is asked: requests encoded once, with the key's bytes replaced for each call.

use bytes::Bytes;
use wire::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, compare, request_op::Request,
};

use crate::http2::Inspect;
use crate::protobuf::{framed, number_field};

/// One kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One key, one value.
    Put,
    /// One key; linearizable unless asked otherwise.
    Range,
    /// One compare, always true, and one put.
    Txn,
    /// One lease, whose id is given.
    LeaseGrant,
}

impl Kind {
    /// The gRPC path.
    pub fn path(self) -> &'static str {
        match self {
            Kind::Put => "/etcdserverpb.KV/Put",
            Kind::Range => "/etcdserverpb.KV/Range",
            Kind::Txn => "/etcdserverpb.KV/Txn",
            Kind::LeaseGrant => "/etcdserverpb.Lease/LeaseGrant",
        }
    }

    /// Whether an answer holds what was asked for: a key was found, the comparison held.
    pub fn inspect(self) -> Inspect {
        match self {
            Kind::Put => |_| true,
            // RangeResponse.count, TxnResponse.succeeded, LeaseGrantResponse.ID.
            Kind::Range => |message| number_field(message, 4) > 0,
            Kind::Txn | Kind::LeaseGrant => |message| number_field(message, 2) > 0,
        }
    }
}

/// Which key comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From the first to the last, and again.
    Sequential,
    /// Uniform, from this seed.
    Random(u64),
}

/// Sizes and order of a workload's keys and values.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Bytes a key, `KEY_BYTES_MIN` or more; keys are decimal numbers with leading zeros.
    pub key_bytes: usize,
    /// Bytes a value.
    pub value_bytes: usize,
    /// How many different keys there are.
    pub keys: u64,
    /// Which comes next.
    pub order: Order,
    /// Serializable instead of linearizable ranges.
    pub serializable: bool,
}

/// Shortest key: shorter ones can't be told from the rest of an encoded request.
pub const KEY_BYTES_MIN: usize = 4;

impl Shape {
    /// # Errors
    /// When a key of this size can't name that many keys, or a message would not fit a fresh stream's window.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.keys > 0, "--keys must not be zero");
        anyhow::ensure!(self.key_bytes >= KEY_BYTES_MIN, "--key-bytes must be {KEY_BYTES_MIN} or more");
        let names = u32::try_from(self.key_bytes).ok().and_then(|digits| 10u64.checked_pow(digits));
        anyhow::ensure!(
            names.is_none_or(|names| self.keys <= names),
            "--keys {} can't be named in --key-bytes {}",
            self.keys,
            self.key_bytes
        );
        let bytes = 2 * self.key_bytes + self.value_bytes;
        anyhow::ensure!(bytes <= 60_000, "keys and values of a request must fit 60000 bytes, not {bytes}");
        Ok(())
    }
}

/// One request after another.
pub trait Requests {
    /// Bytes of the longest message, gRPC's prefix included.
    fn message_bytes(&self) -> usize;

    /// The next request's message, gRPC's prefix included.
    fn next_message(&mut self) -> &[u8];
}

/// Makes one request after another without allocating.
#[derive(Debug)]
pub struct Workload {
    kind: Kind,
    /// gRPC's prefix and the encoded message.
    message: Vec<u8>,
    key_offsets: Vec<usize>,
    shape: Shape,
    issued: u64,
    random: u64,
}

impl Workload {
    /// A workload that issues calls of `kind` only.
    ///
    /// # Panics
    /// When `shape` does not pass its check.
    pub fn new(kind: Kind, shape: Shape) -> Workload {
        shape.check().expect("a checked shape");
        // Bytes that occur nowhere else in the request: values are text, numbers small or round.
        let sentinel = vec![0xff; shape.key_bytes];
        let message = request(kind, &shape, Bytes::from(sentinel.clone()));
        let mut key_offsets = Vec::new();
        let mut at = 0;
        while at + sentinel.len() <= message.len() {
            if message[at..].starts_with(&sentinel) {
                key_offsets.push(at);
                at += sentinel.len();
            } else {
                at += 1;
            }
        }
        assert_eq!(key_offsets.len(), if kind == Kind::Txn { 2 } else { 1 }, "places of the key");
        let random = match shape.order {
            Order::Random(seed) => seed,
            Order::Sequential => 0,
        };
        Workload { kind, message, key_offsets, shape, issued: 0, random }
    }

    /// What it issues.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl Requests for Workload {
    fn message_bytes(&self) -> usize {
        self.message.len()
    }

    fn next_message(&mut self) -> &[u8] {
        let mut number = match self.shape.order {
            Order::Sequential => self.issued % self.shape.keys,
            Order::Random(_) => split_mix(&mut self.random) % self.shape.keys,
        };
        self.issued += 1;
        for place in (0..self.shape.key_bytes).rev() {
            let digit = b'0' + (number % 10) as u8;
            number /= 10;
            for offset in &self.key_offsets {
                self.message[offset + place] = digit;
            }
        }
        &self.message
    }
}

/// A request with gRPC's prefix.
fn request(kind: Kind, shape: &Shape, key: Bytes) -> Vec<u8> {
    let value: Bytes = (b'a'..=b'z').cycle().take(shape.value_bytes).collect();
    let put = PutRequest { key: key.clone(), value, ..PutRequest::default() };
    match kind {
        Kind::Put => framed(&put),
        Kind::Range => {
            framed(&RangeRequest { key, serializable: shape.serializable, ..RangeRequest::default() })
        }
        Kind::Txn => {
            let below_all = compare::TargetUnion::ModRevision(1 << 62);
            let compare = Compare {
                result: compare::CompareResult::Less.into(),
                target: compare::CompareTarget::Mod.into(),
                key,
                target_union: Some(below_all),
                ..Compare::default()
            };
            let success = vec![RequestOp { request: Some(Request::RequestPut(put)) }];
            framed(&TxnRequest { compare: vec![compare], success, ..TxnRequest::default() })
        }
        Kind::LeaseGrant => unreachable!("a grant has no key"),
    }
}

/// SplitMix64: one seed must mean the same keys for years.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn shape(order: Order) -> Shape {
        Shape { key_bytes: 8, value_bytes: 300, keys: 1000, order, serializable: false }
    }

    fn body(message: &[u8]) -> &[u8] {
        let length = u32::from_be_bytes(*message[1..].first_chunk().expect("a prefix"));
        assert_eq!((message[0], length as usize), (0, message.len() - 5));
        &message[5..]
    }

    #[test]
    fn requests_decode_to_what_was_meant() {
        let mut puts = Workload::new(Kind::Put, shape(Order::Sequential));
        puts.next_message();
        let put = PutRequest::decode(body(puts.next_message())).expect("a put");
        assert_eq!((put.key.as_ref(), put.value.len()), (b"00000001".as_slice(), 300));

        let mut txns = Workload::new(Kind::Txn, shape(Order::Random(7)));
        let txn = TxnRequest::decode(body(txns.next_message())).expect("a txn");
        let Some(Request::RequestPut(put)) = &txn.success[0].request else { panic!("not a put: {txn:?}") };
        assert_eq!(txn.compare[0].key, put.key);
        assert!(put.key.iter().all(u8::is_ascii_digit), "{:?}", put.key);

        let mut ranges = Workload::new(Kind::Range, Shape { serializable: true, ..shape(Order::Sequential) });
        let range = RangeRequest::decode(body(ranges.next_message())).expect("a range");
        assert_eq!((range.key.as_ref(), range.serializable), (b"00000000".as_slice(), true));
    }

    #[test]
    fn one_seed_is_one_order_of_keys() {
        let keys = |order| {
            let mut workload = Workload::new(Kind::Range, shape(order));
            (0..50).map(|_| workload.next_message().to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(keys(Order::Random(1)), keys(Order::Random(1)));
        assert_ne!(keys(Order::Random(1)), keys(Order::Random(2)));
    }

    #[test]
    fn answers_are_looked_into() {
        use wire::etcdserverpb::{RangeResponse, ResponseHeader, TxnResponse};
        let header = Some(ResponseHeader { cluster_id: u64::MAX, ..ResponseHeader::default() });
        let found = RangeResponse { header, count: 1, ..RangeResponse::default() };
        let inspect = Kind::Range.inspect();
        assert!(inspect(&found.encode_to_vec()));
        assert!(!inspect(&RangeResponse { count: 0, ..found }.encode_to_vec()));
        assert!(!inspect(&[0x12, 0xff]), "cut short");
        let held = TxnResponse { header, succeeded: true, ..TxnResponse::default() };
        assert!(Kind::Txn.inspect()(&held.encode_to_vec()));
        assert!(!Kind::Txn.inspect()(&TxnResponse { succeeded: false, ..held }.encode_to_vec()));
    }

    #[test]
    fn shapes_that_cannot_be_are_refused() {
        let good = shape(Order::Sequential);
        assert!(good.check().is_ok());
        assert!(Shape { key_bytes: 4, keys: 10_001, ..good.clone() }.check().is_err());
        assert!(Shape { key_bytes: 3, keys: 1, ..good.clone() }.check().is_err());
        assert!(Shape { value_bytes: 60_000, ..good }.check().is_err());
    }
}
