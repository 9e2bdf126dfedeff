//! The shell of a lane: the sockets of one core's share of the subscribers, and the machine that decides what they are told.

use tidings_protocol::peer::OwnerToEdge;
use tokio::sync::mpsc;

/// What reaches a lane from outside its thread.
#[derive(Debug)]
pub enum LaneCommand {
    /// Frames of the owner on thread `owner`, in order.
    FromOwner {
        /// Index of the owner's thread.
        owner: usize,
        /// Generation of the link they belong to.
        generation: u32,
        /// The frames.
        frames: Vec<OwnerToEdge>,
    },
}

/// A way to reach the lane of one thread from any thread.
#[derive(Clone, Debug)]
pub struct LaneHandle {
    pub(crate) commands: mpsc::UnboundedSender<LaneCommand>,
}
