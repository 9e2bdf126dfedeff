//! Who owns an object, who wants it, and what each has yet to hear.
//!
//! Pure state machines: time, input and randomness come in; sends, timers and facts go out. Nothing here knows sockets,
//! tasks, files or clocks. `control`, `owner` and `edge` never import each other: owner and edge meet only through the peer
//! frames of `tidings_protocol::peer`, and what control decides reaches both through their callers.

pub mod access;
pub mod control;
pub mod copies;
pub mod cut_off;
pub mod edge;
pub mod id_set;
pub mod link;
pub mod now;
pub mod owner;
pub mod staggered;

pub use now::{MonoUs, Now};
