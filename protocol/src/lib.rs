//! The nouns of Tidings and its two wires: between client and edge, and between edge and owner.
//!
//! Everything here is a value or a pure function. It does not know sockets, clocks, files or randomness.

pub mod client;
pub mod close;
pub mod codec;
pub mod copy;
pub mod cursor;
pub mod error;
pub mod hint;
pub mod id;
pub mod limits;
pub mod mesh;
pub mod peer;
pub mod subject;
pub mod version;

pub use cursor::Cursor;
pub use error::{Code, Problem};
pub use hint::Hint;
pub use id::{ClusterId, HashKey, IdError, NodeId, ObjectHash, ShardCount, ShardId};
pub use version::{Epoch, Version};
