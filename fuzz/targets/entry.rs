//! An entry of the log, as apply takes it.
#![no_main]

#[path = "../../crates/store/tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::fuzz_entry(data));
