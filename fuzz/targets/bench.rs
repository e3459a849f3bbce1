//! The load generator's HTTP/2 and HPACK, before a server that sends any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bench::fuzz::fuzz_answers(data));
