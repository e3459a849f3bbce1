//! A port's first bytes, and HTTP/1.
#![no_main]

#[path = "../../crates/server/tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    support::fuzz::fuzz_port(data);
});
