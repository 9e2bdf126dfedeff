//! What control planes of two nodes say to each other: questions and answers, as MessagePack, numbered.
//!
//! Who asks dialled; who was dialled answers. The bytes are bounded by the connection that brings them, what is in them is
//! bounded here. It does not know who may ask what.

use crate::storage;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tidings_consensus::Outcome;
use tidings_protocol::{Epoch, NodeId, ShardCount, ShardId, Version};
use tidings_router::control::command::Command;
use tidings_router::control::lease::{Grant, Renewal};
use tidings_router::control::map::Process;

/// The most commands of one proposal from another node.
const MOST_COMMANDS: usize = 512;
/// The most voters that may form a cluster.
pub(super) const MOST_VOTERS: usize = 7;
/// The longest address.
const ADDRESS_BYTES: usize = 300;

/// What makes a cluster this one: drawn when it was formed, the same on all its nodes for good.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Founding {
    /// Its name for good.
    pub(super) cluster: u64,
    key: [u8; 16],
    /// Into how many shards the hash space is cut.
    pub(super) shards: u16,
    since: u64,
}

impl std::fmt::Debug for Founding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Founding({:016x})", self.cluster)
    }
}

impl From<storage::Identity> for Founding {
    fn from(identity: storage::Identity) -> Self {
        Self {
            cluster: identity.cluster,
            key: identity.key,
            shards: identity.shards,
            since: identity.since.0,
        }
    }
}

impl From<Founding> for storage::Identity {
    fn from(founding: Founding) -> Self {
        Self {
            cluster: founding.cluster,
            key: founding.key,
            shards: founding.shards,
            since: Version(founding.since),
        }
    }
}

impl Founding {
    /// One with this name, and nothing else to it.
    #[cfg(test)]
    pub(super) fn named(cluster: u64) -> Self {
        Self {
            cluster,
            key: [3; 16],
            shards: 64,
            since: 5,
        }
    }

    fn check(&self) -> Result<(), String> {
        require(ShardCount::new(self.shards).is_some(), "a number of shards")?;
        require(self.since < Version::LIMIT, "a version")
    }
}

/// "Let us form a cluster of this founding."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proposal {
    /// What it shall be.
    pub(super) founding: Founding,
    /// Who proposes.
    pub(super) proposer: NodeId,
    /// Who shall vote, and where they are reached.
    pub(super) voters: BTreeMap<NodeId, String>,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// Of one replicated log to its part here.
    Raft {
        /// Of this cluster.
        cluster: u64,
        /// What the library says.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// "Promise to form this, and nothing else."
    Promise(Proposal),
    /// "What became of your proposal?"
    Fate {
        /// The one of this cluster.
        cluster: u64,
    },
    /// "Never take part in that cluster, unless you do already."
    Renounce {
        /// Which.
        cluster: u64,
    },
    /// "Let me learn what you agree on."
    Join {
        /// Who asks.
        process: Process,
        /// Where it is reached.
        address: String,
        /// The only cluster that it may be part of, if there is one.
        cluster: Option<u64>,
    },
    /// "May I go on?"
    Renew {
        /// In this cluster.
        cluster: u64,
        /// The question itself.
        renewal: Renewal,
    },
    /// "Put this into the log."
    Propose {
        /// Of this cluster.
        cluster: u64,
        /// All or nothing each, in this order.
        commands: Vec<Command>,
    },
    /// "Let these vote, and only these."
    Voters {
        /// In this cluster.
        cluster: u64,
        /// Who.
        voters: BTreeSet<NodeId>,
    },
    /// "Your log is older than what you acknowledged to me."
    WentBack {
        /// Of this cluster.
        cluster: u64,
        /// So many entries were acknowledged.
        entries: u64,
    },
}

/// What became of a proposal to form a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Fate {
    /// Promises are collected.
    Open,
    /// The cluster is there.
    Formed,
    /// It is given up for good, or never was.
    Dropped,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// To [`Request::Raft`].
    Raft(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The promise is on disk.
    Promised,
    /// To [`Request::Fate`].
    Fate(Fate),
    /// That is on disk.
    Renounced,
    /// This node is part of that cluster.
    Bound {
        /// Which.
        cluster: u64,
    },
    /// To [`Request::Join`]: it is done.
    Joined(Founding),
    /// To [`Request::Renew`].
    Granted(Grant),
    /// To [`Request::Propose`].
    Outcome(Outcome),
    /// To [`Request::Voters`].
    Done,
    /// Ask this one.
    NotLeader {
        /// Who leads, and where it is reached, as far as known.
        leader: Option<(NodeId, String)>,
    },
    /// No, and asking again does not help by itself.
    Refused(String),
    /// It may have been done.
    Unknown(String),
}

/// What travels.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Frame {
    /// From who dialled.
    Ask(u64, Request),
    /// From who was dialled, with the question's number.
    Answer(u64, Answer),
}

fn require(so: bool, what: &str) -> Result<(), String> {
    if so {
        Ok(())
    } else {
        Err(format!("an impossible {what}"))
    }
}

fn check_address(address: &str) -> Result<(), String> {
    let plain = address.len() <= ADDRESS_BYTES && !address.chars().any(char::is_control);
    require(plain, "an address")
}

impl Request {
    fn check(&self) -> Result<(), String> {
        match self {
            Self::Raft { .. } | Self::Fate { .. } | Self::Renounce { .. } | Self::WentBack { .. } => Ok(()),
            Self::Promise(proposal) => {
                proposal.founding.check()?;
                let named = proposal.voters.contains_key(&proposal.proposer);
                require(named && proposal.voters.len() <= MOST_VOTERS, "set of voters")?;
                proposal.voters.values().try_for_each(|address| check_address(address))
            }
            Self::Join { address, .. } => check_address(address),
            Self::Renew { renewal, .. } => {
                let shards: &[(ShardId, Epoch)] = &renewal.on_disk;
                let few = shards.len() <= usize::from(u16::MAX);
                require(few && renewal.highest.0 < Version::LIMIT, "renewal")
            }
            Self::Propose { commands, .. } => {
                require(commands.len() <= MOST_COMMANDS, "number of commands")?;
                commands.iter().try_for_each(check_command)
            }
            Self::Voters { voters, .. } => require((1..=MOST_VOTERS).contains(&voters.len()), "number of voters"),
        }
    }
}

/// What a node says of itself is kept by all: it must be short.
fn check_command(command: &Command) -> Result<(), String> {
    let Command::Register { info, .. } = command else {
        return Ok(());
    };
    let texts = [&info.zone, &info.peer_address, &info.client_address];
    texts.into_iter().try_for_each(|text| check_address(text))
}

/// The bytes of a frame.
///
/// # Errors
/// If it has none: never, for the types that there are.
pub(super) fn encode(frame: &Frame) -> Result<Vec<u8>, String> {
    rmp_serde::to_vec(frame).map_err(|error| error.to_string())
}

/// Reads the one frame that `bytes` are.
///
/// # Errors
/// Says what is wrong: the connection that it came by is to be cut.
pub(super) fn decode(bytes: &[u8]) -> Result<Frame, String> {
    let mut reader = rmp_serde::Deserializer::new(std::io::Cursor::new(bytes));
    let frame = Frame::deserialize(&mut reader).map_err(|error| error.to_string())?;
    require(reader.position() == bytes.len() as u64, "end")?;
    match &frame {
        Frame::Ask(_, request) => request.check()?,
        Frame::Answer(_, Answer::Joined(founding)) => founding.check()?,
        Frame::Answer(..) => {}
    }
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn founding() -> Founding {
        Founding::named(7)
    }

    fn proposal() -> Proposal {
        let voters = [(NodeId(1), "a:1".to_owned()), (NodeId(2), "b:1".to_owned())];
        Proposal {
            founding: founding(),
            proposer: NodeId(1),
            voters: voters.into(),
        }
    }

    #[test]
    fn what_is_said_is_what_is_heard() {
        let process = Process {
            node: NodeId(u64::MAX),
            incarnation: 9,
        };
        let renewal = Renewal {
            from: process,
            number: 3,
            highest: Version(7),
            on_disk: vec![(ShardId(4), Epoch(2))],
        };
        for frame in [
            Frame::Ask(1, Request::Promise(proposal())),
            Frame::Ask(2, Request::Renew { cluster: 7, renewal }),
            Frame::Ask(
                3,
                Request::Raft {
                    cluster: 7,
                    bytes: vec![200; 1000],
                },
            ),
            Frame::Answer(u64::MAX, Answer::Joined(founding())),
            Frame::Answer(4, Answer::NotLeader { leader: None }),
        ] {
            let bytes = encode(&frame).unwrap();
            assert_eq!(decode(&bytes), Ok(frame));
            assert!(decode(&bytes[..bytes.len() - 1]).is_err(), "cut short");
            assert!(decode(&[bytes, vec![0]].concat()).is_err(), "with something behind");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut odd = proposal();
        odd.founding.shards = 3;
        let mut strange = proposal();
        strange.proposer = NodeId(9);
        let mut many = proposal();
        many.voters.extend((10..20).map(|node| (NodeId(node), String::new())));
        for proposal in [odd, strange, many] {
            let bytes = encode(&Frame::Ask(1, Request::Promise(proposal))).unwrap();
            assert!(decode(&bytes).is_err());
        }
    }

    #[test]
    fn bytes_of_a_log_travel_as_bytes() {
        let bytes = vec![255; 10_000];
        let frame = encode(&Frame::Ask(1, Request::Raft { cluster: 1, bytes })).unwrap();
        assert!(frame.len() < 10_100, "{}", frame.len());
    }

    proptest! {
        #[test]
        fn random_bytes_are_refused_or_read_and_never_more(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(frame) = decode(&bytes) {
                prop_assert!(encode(&frame).is_ok());
            }
        }
    }
}
