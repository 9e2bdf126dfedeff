//! The rules as small models, checked exhaustively.

pub mod bounds;
pub mod catalogue;
pub mod copies;
pub mod disk;
pub mod fifo;
pub mod front;
pub mod removals;
pub mod rule;
pub mod scripted;
pub mod search;
pub mod whole;
