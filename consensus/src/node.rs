//! One node's part in the log.

use crate::machine::{Applied, Machine};
use crate::promises::Promises;
use crate::store::{Store, StoreError};
use crate::transport::{self, Clients, Transport};
use crate::types::{Outcome, Proposal, Types, Voter};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::ReadPolicy;
use openraft::{ChangeMembers, Config, Raft, ServerState, SnapshotPolicy};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tidings_protocol::NodeId;
use tidings_router::control::map::Map;
use tokio::sync::watch;

/// How a node's part in the log is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name.
    pub node: NodeId,
    /// The file of the log; `None` keeps it in memory. A node whose log is gone must take another name: it may have
    /// promised a vote.
    pub path: Option<PathBuf>,
    /// A leader gives a sign of life so often.
    pub heartbeat: Duration,
    /// Without a sign of life for so long, drawn evenly between both, a voter stands for election.
    pub election: (Duration, Duration),
    /// A snapshot is taken, and the log before it dropped, after so many entries.
    pub snapshot_entries: u64,
}

impl Settings {
    /// Times that let an election and a renewal fit inside a lease of two seconds.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            path: None,
            heartbeat: Duration::from_millis(100),
            election: (Duration::from_millis(400), Duration::from_millis(800)),
            snapshot_entries: 2_000,
        }
    }
}

/// Who leads, as far as is known here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Office {
    /// The term.
    pub term: u64,
    /// Its leader.
    pub leader: Option<NodeId>,
    /// This node leads, and an entry of this term has been applied.
    pub ours: bool,
}

/// A node's standing in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Who votes.
    pub voters: BTreeSet<NodeId>,
    /// Who only learns.
    pub learners: BTreeSet<NodeId>,
}

/// Why something did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ConsensusError {
    /// The store cannot be used. Nothing runs.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another node leads, if any. Nothing was changed by this call.
    #[error("this node does not lead the cluster's log{}", .leader.map_or_else(String::new, |leader| format!(", {leader} does")))]
    NotLeader {
        /// Who does.
        leader: Option<NodeId>,
    },
    /// It may happen still.
    #[error("the outcome is not known: {0}")]
    Unknown(String),
    /// It did not and will not happen.
    #[error("refused: {0}")]
    Refused(String),
    /// This node's part in the log has ended, e.g. because its disk failed.
    #[error("this node takes no part in the cluster's log any more: {0}")]
    Ended(String),
}

/// See the crate.
#[derive(Clone)]
pub struct Consensus {
    raft: Raft<Types, Machine>,
    applied: watch::Receiver<Applied>,
    office: watch::Receiver<Office>,
    promises: Arc<Promises>,
    node: NodeId,
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

fn config(settings: &Settings) -> Result<Config, ConsensusError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: "tidings".to_owned(),
        heartbeat_interval: millis(settings.heartbeat),
        election_timeout_min: millis(settings.election.0),
        election_timeout_max: millis(settings.election.1),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(settings.snapshot_entries),
        max_in_snapshot_log_to_keep: settings.snapshot_entries / 4,
        enable_pre_vote: Some(true),
        ..Config::default()
    };
    config
        .validate()
        .map_err(|error| ConsensusError::Refused(error.to_string()))
}

impl Consensus {
    /// Starts this node's part. `fresh` is the map of the cluster before anything was agreed, the same on every node.
    ///
    /// A node that was never part of a log waits: until [`Consensus::form`] is called here, or a leader makes it learn.
    ///
    /// # Errors
    /// If the store cannot be used or the settings make no sense.
    pub async fn start(settings: &Settings, fresh: Map, transport: Arc<dyn Transport>) -> Result<Self, ConsensusError> {
        let store = Store::open(settings.path.as_deref())?;
        let (machine, applied) = Machine::new(store.clone(), fresh);
        let config = Arc::new(config(settings)?);
        let promises = Arc::new(Promises::new());
        let clients = Clients {
            transport,
            promises: Arc::clone(&promises),
        };
        let raft = Raft::new(settings.node.0, config, clients, store, machine);
        let raft = raft.await.map_err(|error| ConsensusError::Ended(error.to_string()))?;
        let (office, watched) = watch::channel(Office::default());
        tokio::spawn(watch_office(raft.clone(), settings.node, office));
        Ok(Self {
            raft,
            applied,
            office: watched,
            promises,
            node: settings.node,
        })
    }

    /// What has been agreed, as far as applied here.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<Applied> {
        self.applied.clone()
    }

    /// Who leads.
    #[must_use]
    pub fn office(&self) -> watch::Receiver<Office> {
        self.office.clone()
    }

    /// Followers of this node, while it leads, whose logs went back, with how many entries each had acknowledged: their files
    /// were put back from a copy, or lost what was synced. They get nothing more of this node.
    #[must_use]
    pub fn went_back(&self) -> watch::Receiver<BTreeMap<NodeId, u64>> {
        self.promises.went_back()
    }

    /// How many entries the log has here.
    #[must_use]
    pub fn entries(&self) -> u64 {
        let last = self.raft.metrics().borrow_watched().last_log_index;
        last.map_or(0, |index| index + 1)
    }

    /// Whether this node is, or was before a restart, part of a log.
    ///
    /// # Errors
    /// If its part has ended.
    pub async fn is_formed(&self) -> Result<bool, ConsensusError> {
        let formed = self.raft.is_initialized().await;
        formed.map_err(|error| ConsensusError::Ended(error.to_string()))
    }

    /// Makes a new log with these voters. To be called on one of them, once, by whoever is sure that no other cluster can
    /// come of the same nodes.
    ///
    /// # Errors
    /// [`ConsensusError::Refused`] if this node is part of a log already.
    pub async fn form(&self, voters: BTreeMap<NodeId, Voter>) -> Result<(), ConsensusError> {
        let voters: BTreeMap<u64, Voter> = voters.into_iter().map(|(node, voter)| (node.0, voter)).collect();
        let formed = self.raft.initialize(voters).await;
        formed.map_err(|error| ConsensusError::Refused(error.to_string()))
    }

    /// Answers a request of another node's [`Transport`].
    pub async fn answer(&self, request: &[u8]) -> Vec<u8> {
        transport::answer(&self.raft, request).await
    }

    /// Puts a proposal into the log and waits until it was applied here.
    ///
    /// # Errors
    /// [`ConsensusError::NotLeader`] if this node does not lead: nothing happened. Anything else leaves it open.
    pub async fn propose(&self, proposal: Proposal) -> Result<Outcome, ConsensusError> {
        match self.raft.client_write(proposal).await {
            Ok(written) => Ok(written.data),
            Err(error) => match error.forward_to_leader() {
                // Said before the entry was taken as well as when the leadership was lost after: only the first is sure.
                Some(forward) if forward.leader_id != Some(self.node.0) && !self.office.borrow().ours => {
                    Err(ConsensusError::NotLeader {
                        leader: forward.leader_id.map(NodeId),
                    })
                }
                _ => Err(ConsensusError::Unknown(error.to_string())),
            },
        }
    }

    /// Asks a quorum, from now on, whether this node leads, and waits until everything that was agreed before is applied
    /// here.
    ///
    /// # Errors
    /// If it does not, or the quorum cannot be reached.
    pub async fn confirm(&self, within: Duration) -> Result<(), ConsensusError> {
        let confirmed = tokio::time::timeout(within, self.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await;
        match confirmed {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(ConsensusError::Refused(error.to_string())),
            Err(_) => Err(ConsensusError::Unknown("no quorum in time".to_owned())),
        }
    }

    /// Lets a node learn the log. Does not wait until it has.
    ///
    /// # Errors
    /// If this node does not lead.
    pub async fn add_learner(&self, node: NodeId, voter: Voter) -> Result<(), ConsensusError> {
        self.changed(self.raft.add_learner(node.0, voter, false).await)
    }

    /// Makes these, and only these, the voters. Others that voted go on as learners if `keep` is set, else are forgotten.
    ///
    /// # Errors
    /// If this node does not lead, one of them does not learn yet, or another change is under way.
    pub async fn set_voters(&self, voters: BTreeSet<NodeId>, keep: bool) -> Result<(), ConsensusError> {
        let voters = voters.into_iter().map(|node| node.0).collect();
        self.changed(
            self.raft
                .change_membership(ChangeMembers::ReplaceAllVoters(voters), keep)
                .await,
        )
    }

    /// Forgets learners.
    ///
    /// # Errors
    /// If this node does not lead or another change is under way.
    pub async fn remove_learners(&self, nodes: BTreeSet<NodeId>) -> Result<(), ConsensusError> {
        let nodes = nodes.into_iter().map(|node| node.0).collect();
        self.changed(
            self.raft
                .change_membership(ChangeMembers::RemoveNodes(nodes), true)
                .await,
        )
    }

    fn changed<T>(
        &self,
        changed: Result<T, openraft::errors::RaftError<Types, openraft::errors::ClientWriteError<Types>>>,
    ) -> Result<(), ConsensusError> {
        match changed {
            Ok(_) => Ok(()),
            Err(error) => Err(match error.forward_to_leader() {
                Some(forward) => ConsensusError::NotLeader {
                    leader: forward.leader_id.map(NodeId),
                },
                None => ConsensusError::Refused(error.to_string()),
            }),
        }
    }

    /// Hands the leadership to another voter, if this node leads. Whether it took it shows in [`Consensus::office`].
    ///
    /// # Errors
    /// If this node's part has ended.
    pub async fn hand_over(&self, to: NodeId) -> Result<(), ConsensusError> {
        let triggered = self.raft.trigger().transfer_leader(to.0).await;
        triggered.map_err(|error| ConsensusError::Ended(error.to_string()))
    }

    /// Takes a snapshot now.
    ///
    /// # Errors
    /// If this node's part has ended.
    pub async fn snapshot(&self) -> Result<(), ConsensusError> {
        let triggered = self.raft.trigger().snapshot().await;
        triggered
            .map(drop)
            .map_err(|error| ConsensusError::Ended(error.to_string()))
    }

    /// Who votes and who learns, as far as is known here.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing {
            voters: self.raft.voter_ids().map(NodeId).collect(),
            learners: self.raft.learner_ids().map(NodeId).collect(),
        }
    }

    /// Ends this node's part.
    pub async fn stop(&self) {
        // It fails only if it has ended already.
        _ = self.raft.shutdown().await;
    }
}

/// Turns the library's metrics into [`Office`]. A leader counts as one only when an entry of its own term was applied:
/// before, it may not know what earlier leaders got agreed.
async fn watch_office(raft: Raft<Types, Machine>, node: NodeId, office: watch::Sender<Office>) {
    let mut metrics = raft.metrics();
    loop {
        let now = {
            let seen = metrics.borrow_watched();
            let applied = seen.last_applied.as_ref().map(|id| id.leader_id.term);
            let ours = seen.state == ServerState::Leader
                && seen.current_leader == Some(node.0)
                && applied == Some(seen.current_term);
            Office {
                term: seen.current_term,
                leader: seen.current_leader.map(NodeId),
                ours,
            }
        };
        office.send_if_modified(|known| std::mem::replace(known, now) != now);
        if metrics.changed().await.is_err() {
            let ended = Office {
                ours: false,
                leader: None,
                ..now
            };
            office.send_replace(ended);
            return;
        }
    }
}
