//! Messages as the gateway knows them: fields with their names and kinds, in the order of the proto files.

/// A call.
#[derive(Debug)]
pub struct Method {
    /// Its path in gRPC.
    pub path: &'static str,
    /// What the client sends.
    pub request: &'static Message,
    /// What it gets.
    pub response: &'static Message,
    /// It sends any number of messages.
    pub client_streams: bool,
    /// It gets any number.
    pub server_streams: bool,
}

/// A message.
#[derive(Debug)]
pub struct Message {
    /// In the order in which they are written; at most 64.
    pub fields: &'static [Field],
    /// The full names of the groups of which one field may be set.
    pub oneofs: &'static [&'static str],
}

/// A field.
#[derive(Debug)]
pub struct Field {
    /// protobuf's number.
    pub number: u32,
    /// The name in the proto file, which is the one that is written.
    pub name: &'static str,
    /// The name in lower camel case, which is read as well.
    pub json: &'static str,
    /// What is in it.
    pub kind: Kind,
    /// It is a list.
    pub repeated: bool,
    /// Which group of the message's it belongs to.
    pub oneof: Option<u8>,
}

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `bool`
    Bool,
    /// `int32`
    Int32,
    /// `int64`
    Int64,
    /// `uint32`
    Uint32,
    /// `uint64`
    Uint64,
    /// `string`
    String,
    /// `bytes`
    Bytes,
    /// An enum.
    Enum(&'static Enum),
    /// A message.
    Message(&'static Message),
}

/// An enum.
#[derive(Debug)]
pub struct Enum {
    /// Names and numbers.
    pub values: &'static [(&'static str, i32)],
}

impl Kind {
    /// protobuf's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Bool => "bool",
            Kind::Int32 => "int32",
            Kind::Int64 => "int64",
            Kind::Uint32 => "uint32",
            Kind::Uint64 => "uint64",
            Kind::String => "string",
            Kind::Bytes => "bytes",
            Kind::Enum(_) => "enum",
            Kind::Message(_) => "message",
        }
    }

    /// Whether lists of it are one piece in protobuf.
    pub fn is_packed(self) -> bool {
        !matches!(self, Kind::String | Kind::Bytes | Kind::Message(_))
    }
}

impl Message {
    /// The field of this name, by its place.
    pub fn field(&self, name: &str) -> Option<usize> {
        let by_json = self.fields.iter().position(|field| field.json == name);
        by_json.or_else(|| self.fields.iter().position(|field| field.name == name))
    }
}

/// The tables, generated.
#[allow(missing_docs, reason = "generated")]
#[rustfmt::skip]
pub mod tables {
    use super::{Enum, Field, Kind, Message, Method};

    include!("../gen/gateway.rs");
}
