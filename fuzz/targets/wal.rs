//! The write-ahead log from any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| disk::wal::fuzz::fuzz_wal(data));
