//! Any pairs as a database file, and back.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| disk::boltfile::fuzz_boltfile_pairs(data));
