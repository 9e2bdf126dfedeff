//! A lane of another node, as an owner here speaks to it.

use super::counts::Counts;
use super::cut;
use super::ways::put;
use crate::mesh::session::Outbox;
use std::sync::Arc;
use tidings_protocol::mesh::{Frame, LinkName};
use tidings_protocol::peer::OwnerToEdge;

/// See the module.
#[derive(Clone, Debug)]
pub struct RemoteLane {
    outbox: Outbox,
    counts: Arc<Counts>,
    link: LinkName,
    /// The generation that the other node gave the link. It is not the one under which the owner here knows it.
    generation: u32,
}

impl RemoteLane {
    pub(super) fn new(outbox: Outbox, counts: Arc<Counts>, link: LinkName, generation: u32) -> Self {
        Self {
            outbox,
            counts,
            link,
            generation,
        }
    }

    /// Sends a frame, in parts if it is long. If the connection is at its end, or too much waits on it, all of its links
    /// end and the owner is told.
    pub fn send(&self, frame: OwnerToEdge) {
        cut::from_owner(frame, |frame| {
            let frame = Frame::FromOwner {
                link: self.link,
                generation: self.generation,
                frame,
            };
            // A connection that is over tells so itself.
            _ = put(&self.outbox, &self.counts, &frame);
        });
    }
}
