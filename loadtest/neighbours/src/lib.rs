//! Other systems under the same load, so that a comparison is one run with one command.
//!
//! [`run`] starts a server of its own on loopback, connects subscribers over the system's plain protocol, publishes at an
//! even rate whatever the answers (open loop), counts latency from when each message was due, cuts some subscribers off
//! for a while, and says what arrived, what never did, and what the server used. The generator is the same for every
//! system: one thread for all subscribers, two for the publisher.
//!
//! None of these systems tries to do what Tidings does, and each does things that Tidings does not. What each leaves
//! open is part of its record ([`System::caveats`]).

pub mod load;
mod machine;
mod publisher;
mod run;
pub mod server;
pub mod session;
mod swarm;
pub mod system;
mod tally;

pub use load::Load;
pub use run::{Failure, run};
pub use system::System;
