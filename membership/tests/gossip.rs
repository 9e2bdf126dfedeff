//! Whole clusters on virtual time: what members see of one another, whatever the network does.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

#[path = "gossip/world.rs"]
mod world;

#[path = "gossip/crowd.rs"]
mod crowd;
#[path = "gossip/faults.rs"]
mod faults;
#[path = "gossip/hostile.rs"]
mod hostile;
#[path = "gossip/joining.rs"]
mod joining;
#[path = "gossip/life.rs"]
mod life;
