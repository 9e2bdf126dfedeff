//! What the log holds, and the types by which the library is told so.

use serde::{Deserialize, Serialize};
use std::fmt;
use tidings_router::control::command::{Command, Refusal};

/// One entry of the log: commands that are applied in this order, each all or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// If set, it counts only in a log position of this term: others may have decided since.
    pub term: Option<u64>,
    /// The commands.
    pub commands: Vec<Command>,
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands", self.commands.len())?;
        self.term.map_or(Ok(()), |term| write!(f, " of term {term}"))
    }
}

/// What became of a proposal that reached the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// It was decided in another term than the log had reached: nothing was applied.
    pub outdated: bool,
    /// Those that changed nothing, by their place in the proposal, and why.
    pub refused: Vec<(u32, Refusal)>,
}

/// Where a node of the log is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voter {
    /// `host:port` for other nodes.
    pub address: String,
}

impl fmt::Display for Voter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

openraft::declare_raft_types!(
    /// One leader per term, so that a term names an office.
    pub(crate) Types:
        D = Proposal,
        R = Outcome,
        NodeId = u64,
        Node = Voter,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
);

pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<Types>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;
/// A snapshot is the map's bytes: under a megabyte for a thousand nodes, so it travels in one piece.
pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<Types, Vec<u8>>;
