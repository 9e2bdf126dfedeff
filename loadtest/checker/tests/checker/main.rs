//! The check against a small honest cluster in virtual time, and against histories of it with one lie in each.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod caught;
mod honest;
mod lies;
mod witness;
mod world;
