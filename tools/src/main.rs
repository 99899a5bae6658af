//! helio
fn main() {}
