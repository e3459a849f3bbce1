//! quorate-store
