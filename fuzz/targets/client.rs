//! The client, before a server that sends any bytes.
#![no_main]

#[path = "../../crates/client/tests/fuzz/mod.rs"]
mod fuzz;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz::fuzz_answer(data);
});
