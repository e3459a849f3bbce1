//! etcd's database file: the page format of the Go library bbolt, to read and to write whole.
//!
//! It is how a store leaves and enters this program: the `snap/db` of a data directory that Go's etcd wrote, snapshots
//! that are saved, restored and sent between members. Nothing is ever changed in place here. [`Reader`] verifies what it
//! reads and trusts no length, count or page number in it; [`Planner`] and [`Writer`] write a file front to back in
//! bounded memory, its length known before its first byte (rule 17 of ARCHITECTURE.md). [`schema`] says what etcd keeps
//! in it.
//!
//! A file is a row of pages of one size. All numbers are little-endian. A page is a header, elements of 16 bytes, and
//! the data of the elements; if that is longer than a page it goes on through the next ones, its *overflow*, which have
//! no header.
//!
//! | page | bytes | what |
//! |---|---|---|
//! | all | 0..8 | the page's number, from 0 |
//! | | 8..10 | flags: 1 branch, 2 leaf, 4 meta, 16 freelist |
//! | | 10..12 | how many elements |
//! | | 12..16 | how many pages of overflow |
//! | meta (0, 1) | 16..24 | magic 0xed0cdaed, version 2 |
//! | | 24..32 | page size; flags (0) |
//! | | 32..48 | root bucket: its first page, its sequence |
//! | | 48..56 | the freelist's page, or all ones: not stored |
//! | | 56..64 | pages in use; all numbers of pages are less |
//! | | 64..72 | number of the transaction; the greater of both pages counts |
//! | | 72..80 | FNV-1a (64 bits) of 16..72 |
//! | leaf element | 0..4 | flags: 1, the value is a bucket |
//! | | 4..8 | where the key is, from the element on; the value follows it |
//! | | 8..16 | length of the key, length of the value |
//! | branch element | 0..4 | where the key is, from the element on |
//! | | 4..8 | length of the key |
//! | | 8..16 | the child page, whose keys are not less than this key |
//! | freelist | 16.. | numbers of free pages, ascending, 8 bytes each; if the count is 65,535, the first is the true count |
//! | bucket (a value) | 0..8 | its first page; 0: it is inline |
//! | | 8..16 | its sequence |
//! | | 16.. | inline: a leaf page numbered 0, as long as its elements need |
//!
//! Meta pages have a checksum, other pages have none: a byte that changes inside a key or a value may not show here.
//! `docs/internals/boltfile.md` says exactly what shows; the SHA-256 of a snapshot and HashKV catch the rest.

mod check;
mod cursor;
mod error;
mod format;
mod fuzz;
mod layout;
mod page;
mod plan;
mod reader;
pub mod schema;
mod writer;

pub use check::Summary;
pub use cursor::{Cursor, Item};
pub use error::Error;
#[doc(hidden)]
pub use fuzz::{fuzz_boltfile, fuzz_boltfile_pairs};
pub use plan::{DEFAULT_PAGE_SIZE, Plan, Planner};
pub use reader::{Bucket, Reader};
pub use writer::Writer;
