//! The Rust client of Tidings.
