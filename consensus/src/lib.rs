//! Keeps the [`Map`] of the cluster in a replicated log. The one place that knows the Raft library.
//!
//! [`Consensus`] starts a node's part of it: with a data directory its log, votes and snapshots survive; how requests
//! travel to other nodes comes in as a [`Transport`]. What was agreed comes out as a watched [`Applied`]; who leads as a
//! watched [`Office`]. Proposals name the term they were decided in, and in another they change nothing.
//!
//! A follower that lost what it had acknowledged (its file was put back from a copy) is not answered any more and shows in
//! [`Consensus::went_back`]: the library would take the leader down in a debug build, and try for ever in others.
//!
//! It decides nothing about the map: that is `tidings_router::control`. After Ongaro, *Consensus: Bridging Theory and
//! Practice* (2014), sections 3 (log), 4 (membership), 6.4 (confirming leadership) and 9.6 (pre-vote), as `openraft` has it.

mod machine;
mod node;
mod promises;
mod store;
mod transport;
mod types;

pub use machine::Applied;
pub use node::{Consensus, ConsensusError, Office, Settings, Standing};
pub use store::{StoreError, entries};
pub use transport::{Transport, Urgency};
pub use types::{Outcome, Proposal, Voter};

#[cfg(test)]
mod suite;
