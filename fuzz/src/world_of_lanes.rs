//! The world of the router's own tests, whose decisions are here drawn from the input.

#[path = "../../router/tests/support/clients.rs"]
pub(crate) mod clients;
#[path = "../../router/tests/support/cluster.rs"]
pub(crate) mod cluster;
#[path = "../../router/tests/support/judge.rs"]
pub(crate) mod judge;
#[path = "../../router/tests/support/life.rs"]
pub(crate) mod life;
#[path = "../../router/tests/support/polls.rs"]
pub(crate) mod polls;
#[path = "../../router/tests/support/wire.rs"]
pub(crate) mod wire;
#[path = "../../router/tests/support/world.rs"]
pub(crate) mod world;
