//! A load generator over real sockets, for Quorate and etcd alike.
//!
//! It calls Put, Range and Txn over gRPC as a client does, in a closed loop (so many calls in flight) or an open one
//! (so many calls a second, latencies counted from the moment each call was meant for), and tells what a call cost
//! the server and itself. `compare` starts servers and measures them in turn; it also measures what is no call of one
//! kind: compactions, large ranges, watches and leases.
//!
//! It never knows anything of a server's inside: whatever takes etcd's flags and speaks etcd's API can be measured.
//! Only addresses of this machine are loaded. Every run is bounded in time or count and ends by itself.
//!
//! A run goes `args` → `measure` (or `compare`, which starts `servers`) → `run`, which moves bytes between sockets and
//! `http2` as `schedule` says, with requests from `workload` → `report`. The scenarios of `compare` that need streams
//! are in `cells`, on `station`.
#![forbid(unsafe_code)]

pub mod args;
mod cells;
pub mod compare;
pub mod fuzz;
pub mod hpack;
pub mod http2;
pub mod measure;
pub mod process;
pub mod protobuf;
pub mod report;
pub mod run;
pub mod schedule;
pub mod servers;
pub mod station;
pub mod workload;
