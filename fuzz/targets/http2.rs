//! The front end's connection: a client's HTTP/2 and gRPC.
#![no_main]

#[path = "../../crates/server/tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::fuzz_http2(data));
