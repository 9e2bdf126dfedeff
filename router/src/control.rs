//! What the cluster agrees on, and who may act on it.
//!
//! Three machines that never share state:
//! - [`map::Map`] is replicated: every node applies the same [`command::Command`]s in the same order and so holds the same
//!   map of nodes, shards, owners, copies, epochs and floors, and the same ceiling.
//! - [`coordinator::Coordinator`] runs where the replicated log has its leader. It answers renewals, sees who is gone, and
//!   proposes commands. It decides nothing by itself: a proposal counts when it was applied, on the condition it names.
//! - [`lease::Lease`] runs on every owner. It says whether the owner may give versions now, and up to which.
//!
//! None of them knows the library that replicates the log, links, sockets or disks. Rules R2, R5, R6 and R7 of
//! `docs/architecture.md` are held here; that versions of a new epoch are above all of older ones follows from the ceiling:
//! whoever gives or closes versions does so at or below a ceiling that was in the map when a new epoch began above it.

pub mod command;
pub mod coordinator;
pub mod lease;
pub mod map;
pub mod placement;
mod review;
