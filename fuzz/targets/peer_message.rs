//! One message between members from any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    server::peer::codec::fuzz::fuzz_peer_message(data);
});
