//! Black-box tests of the binaries; see docs/internals/testing.md.
