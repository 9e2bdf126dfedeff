//! Every frame between an edge and an owner. Inside one process they travel as values, between nodes as MessagePack.
//!
//! [`crate::mesh`] has the bytes. One link joins one edge (a lane of it) with one owner, both ways FIFO. A link has a generation: what belongs to an
//! older one is ignored (rule R9).

use crate::hint::SharedHint;
use crate::id::{ObjectHash, ShardId};
use crate::version::{Epoch, Version};
use serde::{Deserialize, Serialize};

/// What an edge says to an owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EdgeToOwner {
    /// "Tell me of these objects from now on." Answered by one [`OwnerToEdge::Registered`] with as many entries in the
    /// same order; answers come in the order of the requests.
    #[serde(rename = "r")]
    Register {
        /// The objects, all of shards that the owner said it owns on this link.
        objects: Vec<ObjectHash>,
    },
    /// "No longer tell me of these." Not answered.
    #[serde(rename = "u")]
    Unregister {
        /// The objects.
        objects: Vec<ObjectHash>,
    },
    /// "I have handled this many changes since my last word": opens the link's window again.
    #[serde(rename = "h")]
    Handled {
        /// Changes of [`OwnerToEdge::Changed`].
        changes: u32,
    },
}

/// One object's newest version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The object.
    pub object: ObjectHash,
    /// Its newest version.
    pub version: Version,
    /// What the publisher said about it, if it is at hand.
    #[serde(with = "crate::mesh::hint")]
    pub hint: Option<SharedHint>,
}

/// An owned shard as the owner announces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// The shard.
    pub shard: ShardId,
    /// Since which epoch.
    pub epoch: Epoch,
    /// Below this version the owner cannot vouch for the shard.
    pub floor: Version,
    /// Why the floor is where it is.
    pub cause: FloorCause,
}

/// Why a floor was raised: the cause that clients are told with `resync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FloorCause {
    /// The shard's versions were lost with the owner that held them.
    Lost,
    /// The oldest versions were dropped to keep the table inside its memory budget.
    Evicted,
    /// The machine went down with acknowledged changes that were not synced to its disk.
    PowerLost,
    /// Part of what was on disk was damaged.
    Damaged,
}

impl FloorCause {
    /// The stable word that clients see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "versions_lost",
            Self::Evicted => "versions_evicted",
            Self::PowerLost => "power_lost",
            Self::Damaged => "storage_damaged",
        }
    }
}

/// What an owner says to an edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnerToEdge {
    /// "I own these, since this epoch, and vouch for them from this floor up." Also sent when a floor rises.
    #[serde(rename = "o")]
    Own {
        /// The shards.
        shards: Vec<Owned>,
    },
    /// "I no longer own these." What the edge registered there must be registered again with the next owner.
    #[serde(rename = "g")]
    Gone {
        /// The shards.
        shards: Vec<ShardId>,
    },
    /// The answer to one [`EdgeToOwner::Register`]: the current version of each object, `Version::ZERO` where none is
    /// known. The floor of each object's shard went before it on this link in `Own` (rule R1).
    #[serde(rename = "r")]
    Registered {
        /// Object and version, in the order of the request.
        objects: Vec<(ObjectHash, Version)>,
    },
    /// Objects that changed, in the order of their versions per shard unless coalesced.
    #[serde(rename = "c")]
    Changed {
        /// At least one.
        changes: Vec<Changed>,
    },
    /// "Every change up to here, of every shard I said I own on this link and not since said is gone, has been sent."
    /// Strictly higher each time (rule R10).
    #[serde(rename = "t")]
    Closed {
        /// The closed version.
        version: Version,
    },
}
