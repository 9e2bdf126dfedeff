//! Watching, as a pure machine: which objects, what was told of them and handled, where to go on, when to come back and how.
//!
//! | room | knows |
//! | --- | --- |
//! | `ledger` | objects, versions, what waits for the application, cursors |
//! | `talk` | one connection: what was asked on it, by each of the three transports |
//! | `route` | which server and transport come next, after which wait |
//! | `verdict` | what the end of a connection commands |
//! | [`Machine`] | all of it together, and the deadlines |
//!
//! What it keeps:
//! - Nothing is missed: a cursor is used or given out only where everything before it was told or handled; where nobody can
//!   vouch, a change without version says so.
//! - An object's versions only grow, over connections, transports and nodes. Only a change without version whose cause
//!   says that the cluster is another one begins anew.
//! - The cursor that is given out never runs ahead of what the application has handled.
//!
//! It does not know sockets, clocks or entropy: time and a seed come in, what to do goes out as data.

mod ledger;
mod machine;
mod route;
mod talk;
mod terms;
mod verdict;

pub use ledger::{Change, Ticket};
pub use machine::Machine;
pub(crate) use route::Route;
pub use route::{Transport, Waits};
pub use talk::RefusedObject;
pub use terms::{Ended, Input, Output, Settings, Status};
pub(crate) use verdict::printable;
pub use verdict::{Stop, StopReason};
