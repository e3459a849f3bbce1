//! quorate-server
fn main() {}
