//! The shell of the data plane between nodes: links from lanes here to owners elsewhere and back, and forwarded publishes.
//!
//! It runs on a thread of its own, with one connection of class `Links` to every node that owns shards (dialled here) and one
//! from every node that has lanes (dialled there). It moves frames and knows who is at the other end; what they mean is known
//! to lanes and owners.

use crate::mesh::session::Outbox;
use tidings_protocol::mesh::{Frame, LinkName, encode};
use tidings_protocol::peer::{EdgeToOwner, OwnerToEdge};

/// A lane of another node, as an owner here speaks to it.
#[derive(Clone, Debug)]
pub struct RemoteLane {
    outbox: Outbox,
    link: LinkName,
}

impl RemoteLane {
    /// One that is reached by this connection.
    #[must_use]
    pub fn new(outbox: Outbox, link: LinkName) -> Self {
        Self { outbox, link }
    }

    /// Sends a frame. If the connection is at its end, or too much waits on it, the link ends and the owner is told.
    pub fn send(&self, generation: u32, frame: OwnerToEdge) {
        let frame = Frame::FromOwner {
            link: self.link,
            generation,
            frame,
        };
        let mut bytes = Vec::new();
        match encode(&frame, &mut bytes) {
            // A connection that is over tells so itself.
            Ok(()) => _ = self.outbox.push(bytes),
            Err(error) => {
                tracing::error!(%error, "a frame for another node is too long: the connection is cut");
                self.outbox.dismiss();
            }
        }
    }
}

/// The way to other nodes from any thread.
#[derive(Clone, Debug)]
pub struct Handle {}

impl Handle {
    /// Frames of a lane here for an owner elsewhere. `owner` counts on from the owners of this node.
    pub fn from_lane(&self, _lane: usize, _owner: usize, _generation: u32, _frames: Vec<EdgeToOwner>) {}
}
