//! The bytes between nodes: every frame as one MessagePack value, structures as arrays whose order is the schema. A version
//! of the wire only ever appends fields; which version is spoken is agreed in the first words of a connection
//! ([`Hello`]).
//!
//! A peer is authenticated before any of this is read. It may still be broken, or of a later version: whatever bytes come,
//! the answer is a frame or a [`FrameError`], bounded in time and memory by the length of what came.

use crate::hint::{Hint, SharedHint};
use crate::id::{ClusterId, NodeId, ObjectHash};
use crate::limits::{MAX_DATA_BYTES, MAX_KIND_BYTES, REVISION_LIMIT};
use crate::peer::{EdgeToOwner, OwnerToEdge};
use crate::subject::{SubjectOrder, SubjectTally};
use crate::version::{Epoch, Version};
use serde::{Deserialize, Serialize};

/// The oldest and the newest version of this wire that is spoken here.
pub const VERSIONS: (u16, u16) = (1, 1);

/// The longest frame, in bytes. Senders cut what is longer: every list of a frame may be sent in parts.
pub const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;

/// The most entries of one list in a frame.
pub const MAX_ENTRIES: usize = 65_536;

/// The longest question of an operator, in bytes.
pub const MAX_TARGET_BYTES: usize = 8 * 1024;

/// The longest answer to one, in bytes.
pub const MAX_TOLD_BYTES: usize = 2 * 1024 * 1024;

/// The most owners, which is threads, of one node.
pub const MAX_OWNERS_OF_NODE: u16 = 1024;

/// The first words of both ends of a connection, before it is sealed. They are bound into the handshake, so that nobody on
/// the way can change them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Of this cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// This life of it.
    pub incarnation: u64,
    /// The oldest version spoken.
    pub oldest: u16,
    /// The newest version spoken.
    pub newest: u16,
    /// What the connection is for.
    pub class: Class,
}

/// What a connection is for. Each class has connections of its own, so that nothing large delays what is urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// Agreement: the replicated log, renewals.
    Control = 1,
    /// Links between edges and owners, and publishes.
    Links = 2,
    /// Snapshots.
    Bulk = 3,
    /// Copies of shards, from their owners to those who hold them.
    Copies = 4,
}

/// What every hello begins with.
const MAGIC: &[u8; 8] = b"tidings\x01";

impl Hello {
    /// Its length in bytes, the same in every version.
    pub const BYTES: usize = 8 + 8 + 8 + 8 + 2 + 2 + 1;

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.cluster.0.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.node.0.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.incarnation.to_be_bytes());
        bytes[32..34].copy_from_slice(&self.oldest.to_be_bytes());
        bytes[34..36].copy_from_slice(&self.newest.to_be_bytes());
        bytes[36] = self.class as u8;
        bytes
    }

    /// Reads one.
    ///
    /// # Errors
    /// If whoever speaks there speaks something else.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, FrameError> {
        let number = |at: usize| {
            let part = bytes[at..at + 8].iter();
            part.fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let short = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let class = match bytes[36] {
            1 => Class::Control,
            2 => Class::Links,
            3 => Class::Bulk,
            4 => Class::Copies,
            _ => return Err(FrameError::NotTidings),
        };
        if &bytes[..8] != MAGIC {
            return Err(FrameError::NotTidings);
        }
        Ok(Self {
            cluster: ClusterId(number(8)),
            node: NodeId(number(16)),
            incarnation: number(24),
            oldest: short(32),
            newest: short(34),
            class,
        })
    }

    /// The newest version that both speak, if there is one.
    #[must_use]
    pub fn common(&self, other: &Self) -> Option<u16> {
        let version = self.newest.min(other.newest);
        (version >= self.oldest.max(other.oldest)).then_some(version)
    }
}

/// One link between two nodes: a lane here and an owner there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LinkName {
    /// Which lane of the edge's node.
    pub lane: u16,
    /// Which owner of the owner's node.
    pub owner: u16,
}

/// One change on its way to its owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardedChange {
    /// The object.
    pub object: ObjectHash,
    /// Kind and data.
    #[serde(with = "hint")]
    pub hint: Option<SharedHint>,
    /// The publisher's revision, with the 128-bit key of the object under which it is kept, in halves.
    pub revision: Option<((u64, u64), u64)>,
    /// The 128-bit key of an idempotent change, in halves.
    pub idempotency: Option<(u64, u64)>,
}

/// How far a change must have got before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AckLevel {
    /// In the owner's log file.
    #[serde(rename = "a")]
    Accepted,
    /// In every in-sync copy's log file.
    #[serde(rename = "r")]
    Replicated,
    /// Synced to disk by all of them.
    #[serde(rename = "d")]
    Durable,
}

/// What became of one forwarded change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForwardedResult {
    /// It got this version.
    #[serde(rename = "a")]
    Accepted(Version),
    /// It had happened already.
    #[serde(rename = "d")]
    Duplicate(Version),
    /// Not the owner here. Nothing was changed. The map of this revision, or a newer one, says who is.
    #[serde(rename = "n")]
    NotOwner {
        /// The revision of the map that the refusal rests on.
        revision: u64,
    },
    /// The owner may give no version now: it may soon. Nothing was changed.
    #[serde(rename = "u")]
    Unavailable,
    /// The owner has more work than it can queue. Nothing was changed.
    #[serde(rename = "o")]
    Overloaded,
    /// The owner's disk fails. Nothing was changed.
    #[serde(rename = "s")]
    NoStorage,
    /// The owner has no disk, and the change was to be durable. Nothing was changed.
    #[serde(rename = "k")]
    NoDisk,
    /// It may have been applied.
    #[serde(rename = "?")]
    Unknown,
}

/// What an owner knows of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its newest version, `Version::ZERO` where none is known.
    pub version: Version,
    /// Of its shard.
    pub epoch: Epoch,
    /// Below which the owner cannot vouch for the shard.
    pub floor: Version,
    /// How many lanes, of all nodes, want to hear of it.
    pub watchers: u32,
    /// Whether the lane that was asked about does.
    pub interested: bool,
}

/// What an operator does with what a question names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    /// Reads it.
    #[serde(rename = "g")]
    Get,
    /// Ends it.
    #[serde(rename = "d")]
    Delete,
}

/// One frame of class [`Class::Links`]. The node that dials holds the edges of the connection's links, the one that is
/// dialled their owners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// The first word of the owners' node: it serves whoever dialled, and has so many owners, numbered from zero.
    #[serde(rename = "w")]
    Welcome {
        /// From 1 to [`MAX_OWNERS_OF_NODE`].
        owners: u16,
    },
    /// From the edge's node: the link begins. What came of it before is void.
    #[serde(rename = "l+")]
    LinkUp {
        /// Which.
        link: LinkName,
        /// Which life of it, higher each time.
        generation: u32,
    },
    /// From either: the link ended.
    #[serde(rename = "l-")]
    LinkDown {
        /// Which.
        link: LinkName,
        /// Which life of it.
        generation: u32,
    },
    /// From the edge.
    #[serde(rename = "e")]
    FromEdge {
        /// On this link.
        link: LinkName,
        /// In this life of it.
        generation: u32,
        /// This.
        frame: EdgeToOwner,
    },
    /// From the owner.
    #[serde(rename = "o")]
    FromOwner {
        /// On this link.
        link: LinkName,
        /// In this life of it.
        generation: u32,
        /// This.
        frame: OwnerToEdge,
    },
    /// Changes for the owners of the node, which succeed or fail each by itself. They are never handed on to another node.
    #[serde(rename = "p")]
    Publish {
        /// Comes back with the results.
        request: u64,
        /// When to acknowledge.
        ack: AckLevel,
        /// How long the publisher waits still, in milliseconds.
        within_ms: u32,
        /// In this order as far as they are of one shard.
        changes: Vec<ForwardedChange>,
    },
    /// The answer to [`Frame::Publish`].
    #[serde(rename = "q")]
    Published {
        /// The request.
        request: u64,
        /// In the order of the changes.
        results: Vec<ForwardedResult>,
    },
    /// What is known of an object?
    #[serde(rename = "i")]
    Inspect {
        /// Comes back with the answer.
        request: u64,
        /// The object.
        object: ObjectHash,
        /// Of the node that asks: whether this lane of it is interested, is part of the answer.
        lane: Option<u16>,
    },
    /// The answer to [`Frame::Inspect`].
    #[serde(rename = "j")]
    Inspected {
        /// The request.
        request: u64,
        /// `None` if the shard is not owned there.
        known: Option<Known>,
    },
    /// From either end: to be done with the connections that a subject has on the node.
    #[serde(rename = "s")]
    Order {
        /// Comes back with the answer.
        request: u64,
        /// What.
        order: SubjectOrder,
    },
    /// The answer to [`Frame::Order`].
    #[serde(rename = "t")]
    Ordered {
        /// The request.
        request: u64,
        /// What was done. `None`: nothing, because the node does not take orders of this one, or has too many of them.
        tally: Option<SubjectTally>,
    },
    /// From either: an operator's question about the node itself. It was asked at another node, which judged who asks.
    #[serde(rename = "a")]
    Ask {
        /// Comes back with the answer; of the node that asks.
        request: u64,
        /// How long it waits, in milliseconds.
        within_ms: u32,
        /// To read or to end.
        verb: Verb,
        /// Path and query, at most [`MAX_TARGET_BYTES`].
        target: String,
    },
    /// The answer to [`Frame::Ask`].
    #[serde(rename = "u")]
    Told {
        /// The request.
        request: u64,
        /// As of HTTP.
        status: u16,
        /// JSON, at most [`MAX_TOLD_BYTES`]; empty where there is nothing to say.
        body: String,
    },
}

/// Why bytes are no frame. **Nothing was done because of them**; the connection they came by is to be cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not this protocol at all.
    #[error("the other end does not speak the protocol of Tidings nodes")]
    NotTidings,
    /// Longer than [`MAX_FRAME_BYTES`].
    #[error("a frame between nodes has at most {MAX_FRAME_BYTES} bytes, this one has {bytes}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not a frame of this version.
    #[error("not a frame between nodes: {0}")]
    Malformed(String),
    /// A value is out of its range.
    #[error("a frame between nodes with an impossible {0}")]
    Impossible(&'static str),
}

/// Appends the frame's bytes.
///
/// # Errors
/// [`FrameError::TooLong`] if the frame was not cut as it should have been; `out` is as before.
pub fn encode(frame: &Frame, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let before = out.len();
    let written = rmp_serde::encode::write(out, frame);
    let bytes = out.len() - before;
    match written {
        Ok(()) if bytes <= MAX_FRAME_BYTES => Ok(()),
        Ok(()) => {
            out.truncate(before);
            Err(FrameError::TooLong { bytes })
        }
        Err(error) => {
            out.truncate(before);
            Err(FrameError::Malformed(error.to_string()))
        }
    }
}

/// Reads the one frame that `bytes` are.
///
/// # Errors
/// Says what is wrong.
pub fn decode(bytes: &[u8]) -> Result<Frame, FrameError> {
    if bytes.len() > MAX_FRAME_BYTES {
        return Err(FrameError::TooLong { bytes: bytes.len() });
    }
    let mut reader = rmp_serde::Deserializer::new(std::io::Cursor::new(bytes));
    let frame = Frame::deserialize(&mut reader).map_err(|error| FrameError::Malformed(error.to_string()))?;
    if reader.position() != bytes.len() as u64 {
        return Err(FrameError::Malformed("bytes are left behind the frame".to_owned()));
    }
    check(&frame)?;
    Ok(frame)
}

fn check(frame: &Frame) -> Result<(), FrameError> {
    match frame {
        Frame::LinkUp { .. } | Frame::LinkDown { .. } | Frame::Inspect { .. } | Frame::Ordered { .. } => Ok(()),
        Frame::Order { order, .. } => order.fault().map_or(Ok(()), |what| Err(FrameError::Impossible(what))),
        Frame::Welcome { owners } => possible((1..=MAX_OWNERS_OF_NODE).contains(owners), "number of owners"),
        Frame::Inspected { known, .. } => known.iter().try_for_each(|known| {
            check_version(known.version)?;
            check_version(known.floor)
        }),
        Frame::Ask { target, .. } => possible(target.len() <= MAX_TARGET_BYTES, "length of a question"),
        Frame::Told { status, body, .. } => {
            possible((200..600).contains(status), "status")?;
            possible(body.len() <= MAX_TOLD_BYTES, "length of an answer")
        }
        Frame::FromEdge { frame, .. } => match frame {
            EdgeToOwner::Register { objects } | EdgeToOwner::Unregister { objects } => count(objects.len()),
            EdgeToOwner::Handled { .. } => Ok(()),
        },
        Frame::FromOwner { frame, .. } => check_owner(frame),
        Frame::Publish { changes, .. } => {
            count(changes.len())?;
            changes.iter().try_for_each(|change| {
                check_hint(change.hint.as_deref())?;
                let fits = change.revision.is_none_or(|(_, revision)| revision < REVISION_LIMIT);
                possible(fits, "revision")
            })
        }
        Frame::Published { results, .. } => {
            count(results.len())?;
            results.iter().try_for_each(|result| match result {
                ForwardedResult::Accepted(version) | ForwardedResult::Duplicate(version) => check_version(*version),
                ForwardedResult::NotOwner { .. }
                | ForwardedResult::Unavailable
                | ForwardedResult::Overloaded
                | ForwardedResult::NoStorage
                | ForwardedResult::NoDisk
                | ForwardedResult::Unknown => Ok(()),
            })
        }
    }
}

fn check_owner(frame: &OwnerToEdge) -> Result<(), FrameError> {
    match frame {
        OwnerToEdge::Own { shards } => {
            count(shards.len())?;
            shards.iter().try_for_each(|owned| check_version(owned.floor))
        }
        OwnerToEdge::Gone { shards } => count(shards.len()),
        OwnerToEdge::Registered { objects } => {
            count(objects.len())?;
            objects.iter().try_for_each(|(_, version)| check_version(*version))
        }
        OwnerToEdge::Changed { changes } => {
            count(changes.len())?;
            changes.iter().try_for_each(|change| {
                check_version(change.version)?;
                check_hint(change.hint.as_deref())
            })
        }
        OwnerToEdge::Closed { version } => check_version(*version),
    }
}

fn possible(so: bool, what: &'static str) -> Result<(), FrameError> {
    if so { Ok(()) } else { Err(FrameError::Impossible(what)) }
}

fn count(entries: usize) -> Result<(), FrameError> {
    possible(entries <= MAX_ENTRIES, "number of entries")
}

fn check_version(version: Version) -> Result<(), FrameError> {
    possible(version.0 < Version::LIMIT, "version")
}

fn check_hint(hint: Option<&Hint>) -> Result<(), FrameError> {
    let Some(hint) = hint else { return Ok(()) };
    let kind = hint.kind.as_ref().is_none_or(|kind| kind.len() <= MAX_KIND_BYTES);
    possible(kind, "kind")?;
    let data = hint.data.as_ref().is_none_or(|data| data.len() <= MAX_DATA_BYTES);
    possible(data, "data")
}

/// A hint as an optional pair of texts.
pub(crate) mod hint {
    use super::{Hint, SharedHint};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::sync::Arc;

    type Pair<T> = Option<(Option<T>, Option<T>)>;

    pub(crate) fn serialize<S: Serializer>(hint: &Option<SharedHint>, to: S) -> Result<S::Ok, S::Error> {
        let pair: Pair<&str> = hint.as_deref().map(|hint| (hint.kind.as_deref(), hint.data.as_deref()));
        pair.serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SharedHint>, D::Error> {
        let pair: Pair<Box<str>> = Pair::deserialize(from)?;
        Ok(pair.map(|(kind, data)| Arc::new(Hint { kind, data })))
    }
}

impl std::fmt::Display for LinkName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "lane {} to owner {}", self.lane, self.owner)
    }
}
