//! Requests of the key-value service, decoded as prost does, admitted, applied and read.
#![no_main]

#[path = "../../crates/store/tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    support::fuzz::fuzz_requests(data);
    support::fuzz::fuzz_admitted(7, data);
    support::fuzz::fuzz_range(data);
});
