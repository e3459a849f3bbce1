//! etcdutl
fn main() {}
