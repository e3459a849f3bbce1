//! etcd's database file at its boundary: files that etcd and bbolt wrote, round trips, damage, and the real tools.

mod damage;
mod external;
mod flips;
mod fuzz;
mod golden;
mod harness;
mod packed;
mod refusals;
mod round_trip;
mod schema;
