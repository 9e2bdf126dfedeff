//! A whole cluster of the real machines in one thread on virtual time.
//!
//! Nodes, edges, clients, publishers, disks that lose what was not synced, roads that delay and are cut one way, clocks that
//! jump and drift, processes that are killed, paused and started again, a control group that elects and forgets; all of it
//! drawn from one seed, judged from outside, and the same to the byte when it is run again.

pub mod agreement;
pub mod clients;
pub mod clock;
pub mod coverage;
pub mod disk;
pub mod faults;
pub mod invariants;
pub mod network;
pub mod node;
pub mod oracle;
pub mod plan;
pub mod random;
pub mod run;
pub mod sabotage;
pub mod trace;
pub mod voters;
pub mod wire;
pub mod workload;
pub mod world;
