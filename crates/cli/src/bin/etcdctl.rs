//! etcdctl
fn main() {}
