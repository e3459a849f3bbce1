//! A database of etcd's on its way in, as a file or as a row of pairs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    node::interchange::fuzz_database(data);
});
