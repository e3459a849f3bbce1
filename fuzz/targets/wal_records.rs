//! The write-ahead log from any records, framing and sums being right.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    disk::wal::fuzz::fuzz_wal_records(data);
});
