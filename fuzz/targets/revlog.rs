//! The revision log from any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| disk::revlog::fuzz_revlog(data));
