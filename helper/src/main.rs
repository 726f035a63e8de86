//! Placeholder entry until the start stub lands.
fn main() {}
