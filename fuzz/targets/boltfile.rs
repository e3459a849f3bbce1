//! etcd's database file from any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    disk::boltfile::fuzz_boltfile(data);
});
