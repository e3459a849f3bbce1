//! etcd's protocol between members.

pub mod codec;
