//! A whole cluster of the real machines in one thread on virtual time.

fn main() {}
