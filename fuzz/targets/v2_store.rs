//! The JSON of etcd's v2 store in a `.snap` file, as a membership.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    store::fuzz_v2_store(data);
});
