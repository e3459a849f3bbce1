//! quorate-bench
fn main() {}
