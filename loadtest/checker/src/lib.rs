//! Judges a recorded history of a run from outside.
//!
//! It knows the public surface, the form of cursors, and what was promised. It does not know how the server works, nor
//! how the history came to be: a load generator, a simulation and a person may write one ([`history`]).

mod changes;
mod check;
mod claims;
pub mod coverage;
mod faults;
pub mod generate;
pub mod history;
mod listening;
mod objects;
mod order;
mod publishes;
pub mod report;
pub mod rules;
mod sightings;
pub mod verdict;

pub use check::check;
pub use report::Report;
pub use rules::Rules;
pub use verdict::{Invariant, Verdict};
