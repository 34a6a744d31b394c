//! wigwag
fn main() {}
