//! The `gobo` binary.
fn main() {}
