//! The stored form of a pair: `mvccpb.KeyValue` exactly as Go marshals it, since HashKV covers its bytes.

use crate::encoding::{DecodeError, Field, Fields, put_bytes, put_number, varint_len};

/// The fields of a stored pair, borrowed from its bytes or about to be encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyValue<'a> {
    pub key: &'a [u8],
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
    pub value: &'a [u8],
    pub lease: i64,
}

impl<'a> KeyValue<'a> {
    /// Appends the encoded pair: fields in ascending order, defaults left out.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, 1, self.key);
        put_number(out, 2, self.create_revision);
        put_number(out, 3, self.mod_revision);
        put_number(out, 4, self.version);
        put_bytes(out, 5, self.value);
        put_number(out, 6, self.lease);
    }

    /// How many bytes [`KeyValue::encode`] appends.
    pub(crate) fn encoded_len(&self) -> usize {
        let bytes = |b: &[u8]| if b.is_empty() { 0 } else { 1 + varint_len(b.len() as u64) + b.len() };
        let number = |n: i64| if n == 0 { 0 } else { 1 + varint_len(n as u64) };
        bytes(self.key)
            + number(self.create_revision)
            + number(self.mod_revision)
            + number(self.version)
            + bytes(self.value)
            + number(self.lease)
    }

    /// Decodes a stored pair.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut pair = KeyValue::default();
        let mut fields = Fields::new(bytes);
        while let Some(field) = fields.next()? {
            match field {
                (1, Field::Bytes(b)) => pair.key = b,
                (2, Field::Number(n)) => pair.create_revision = n as i64,
                (3, Field::Number(n)) => pair.mod_revision = n as i64,
                (4, Field::Number(n)) => pair.version = n as i64,
                (5, Field::Bytes(b)) => pair.value = b,
                (6, Field::Number(n)) => pair.lease = n as i64,
                _ => {}
            }
        }
        Ok(pair)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use wire::mvccpb;

    use super::*;

    proptest! {
        #[test]
        fn is_what_prost_encodes(
            key in prop::collection::vec(any::<u8>(), 0..200),
            value in prop::collection::vec(any::<u8>(), 0..300),
            numbers in (any::<i64>(), 0i64..3, 0i64..100_000, prop_oneof![Just(0i64), any::<i64>()]),
        ) {
            let (create_revision, version, mod_revision, lease) = numbers;
            let ours = KeyValue { key: &key, create_revision, mod_revision, version, value: &value, lease };
            let theirs = mvccpb::KeyValue {
                key: key.clone().into(), create_revision, mod_revision, version, value: value.clone().into(), lease,
            };
            let mut encoded = Vec::new();
            ours.encode(&mut encoded);
            prop_assert_eq!(&encoded, &theirs.encode_to_vec());
            prop_assert_eq!(encoded.len(), ours.encoded_len());
            prop_assert_eq!(KeyValue::decode(&encoded), Ok(ours));
        }
    }
}
