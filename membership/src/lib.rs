//! Who is alive: SWIM, wrapped.
//!
//! [`Membership`] is one machine: datagrams, addresses and deadlines go in; datagrams and one clear stream of events come
//! out. The failure detector is the library `foca`; around it stand what it leaves to its user: sealing, joining, metadata,
//! limits, conflicts, and a few direct words between members that make its verdicts quicker to correct
//! (docs/decisions/0011-gossip.md).
//!
//! Gossip only ever suggests: a member that is down here may be alive elsewhere. What follows from it is decided by others.
//!
//! It does not know sockets, clocks, names or entropy: time, addresses and one seed come in as values.

pub mod config;
pub mod event;
pub mod identity;
mod membership;
pub mod metadata;
mod note;
mod roster;
pub mod seal;
mod timers;

pub use config::{Config, ConfigError};
pub use event::{Conflict, Counters, Event, Input, MonoUs, Output, Peer};
pub use identity::{Identity, Incarnation};
pub use membership::{Membership, Setup};
pub use metadata::{Metadata, Roles, Text, TextError};
pub use seal::{Key, KeyRing, Refusal, Seed};
