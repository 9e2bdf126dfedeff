//! The load generator: publishes in an open loop, listens on every transport, disturbs, and judges what it was told.
//!
//! A scenario says what to do; every run ends with how many pairs of a subscriber and an object were lost. It shares
//! nothing with the server but the protocol's words.

pub mod cli;
mod clock;
mod conductor;
mod crew;
mod faults;
mod fill;
mod http;
mod judge;
mod limits;
mod machine;
mod messages;
mod meter;
mod names;
mod net;
mod plan;
mod population;
mod progress;
mod random;
pub mod scenario;
mod server;
mod target;
mod watching;
mod worker;
mod zipf;
