//! What an applied request answers its caller.

/// The result of an applied request or of a read, ready to be sent: everything of the response message but its
/// header, already encoded.
///
/// Protobuf messages concatenate, so a response is the encoded header field followed by `body`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// What the header's `revision` says; 0 leaves it out (member calls).
    pub revision: i64,
    /// All fields of the response but `header`, encoded.
    pub body: Vec<u8>,
}
