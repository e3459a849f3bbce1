//! A `.snap` file from any bytes, its sum and lengths as they come or set right.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    disk::snap::fuzz_snap(data);
});
