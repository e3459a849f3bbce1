//! Repository tasks: `cargo xtask gen`, `tidy`, `conform`, `soak`.
fn main() {}
