//! The shell of the control plane: who is there, what was agreed, and what this node may do because of it.
//!
//! It runs on a thread of its own: gossip, the replicated log, the coordinator where this node leads, the lease where it owns
//! shards. What comes of it is one watched [`View`]; whoever acts on it acts on a map and a permission that belong
//! together. It does not know owners, lanes or publishes.
//!
//! [`start`] takes the node's seat (its name, and a new life of it), [`Starting::formed`] waits until it is part of a
//! cluster. Rooms: `forming` and `voters` decide (pure), `seat` keeps, `gossip`, `lines` and `listener` have the sockets,
//! `plane` answers other nodes, `office` and `tending` lead, `life` renews and shows. `orders` judges (pure) what operators
//! want.

mod forming;
mod gossip;
mod keys;
mod life;
mod lines;
mod listener;
mod metrics;
mod notices;
mod office;
pub mod orders;
mod plane;
mod roles;
mod seat;
mod seeds;
mod settings;
mod tending;
mod thread;
mod voters;
mod words;

#[cfg(test)]
mod tests;

pub use keys::for_edges;
pub use metrics::ControlMetrics;
pub use seat::{SeatError, is_of_a_cluster};
pub use seeds::Names;
pub use settings::Settings;
pub use thread::{Formed, Running, Starting, start};

use plane::Plane;

use crate::config::Config;
use crate::mesh::Keys;
use gossip::{Roll, Wish};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidings_consensus::ConsensusError;
use tidings_protocol::{Epoch, NodeId, ShardId, Version};
use tidings_router::MonoUs;
use tidings_router::control::command::{Command, Refusal};
use tidings_router::control::map::{Map, Process};
use tokio::sync::{mpsc, oneshot, watch};

/// Another node as it is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its present life.
    pub process: Process,
    /// What people call it; empty if nobody said.
    pub name: String,
    /// Where other nodes reach it.
    pub address: SocketAddr,
    /// Where clients reach it: the base of a URL; empty if nowhere.
    pub client_url: String,
    /// Whether gossip holds it alive.
    pub alive: bool,
}

/// What a node knows at one moment: a map, and what it may do under that map.
#[derive(Clone, Debug)]
pub struct View {
    /// This life of this node.
    pub me: Process,
    /// What was agreed, as far as it was applied here.
    pub map: Arc<Map>,
    /// Until when versions may be given and closed here, on the clock of [`crate::clock::now`]; zero before the first grant.
    pub until_us: MonoUs,
    /// No version above may be given or closed here.
    pub ceiling: Version,
    /// A quorum confirmed, in this life of the node, a map at most as new as `map`: before, shards must not be taken (the
    /// map may be of the time before a crash). Never on a node that owns no shards: it asks for no lease.
    pub confirmed: bool,
    /// The other nodes that the map knows.
    pub peers: Arc<BTreeMap<NodeId, Peer>>,
    /// Who leads the log, as far as known.
    pub leader: Option<NodeId>,
    /// Who votes.
    pub voters: BTreeSet<NodeId>,
}

impl View {
    /// Whether the cluster agreed that this life of this node gives up what it holds.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.map.is_current(self.me) && self.map.node(self.me.node).is_some_and(|node| node.draining)
    }
}

/// Why a control plane did not start, or ended. **Nothing is left running.**
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The configuration makes no sense.
    #[error("{key} {reason}")]
    Config {
        /// The key.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The port for other nodes cannot be opened.
    #[error("cannot listen for other nodes on {address} (server.node_listen): {cause}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// Nobody can say who this node is.
    #[error(transparent)]
    Seat(#[from] SeatError),
    /// The cluster's log cannot be used.
    #[error(transparent)]
    Consensus(#[from] ConsensusError),
    /// The system gives no thread, runtime or randomness.
    #[error("cannot start the control plane: {0}")]
    System(String),
    /// It was stopped before it was part of a cluster.
    #[error("stopped before this node was part of a cluster")]
    Stopped,
    /// It ended by itself.
    #[error("the control plane ended: {0}")]
    Over(String),
}

/// Why a command was not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nobody led the cluster's log, or the leader was not reached. **Nothing was changed.**
    #[error("nobody can be asked: {0}")]
    NoLeader(String),
    /// The map is not as the command takes for granted. **Nothing was changed.**
    #[error("the command changed nothing: {0}")]
    Changed(#[from] Refusal),
    /// The leader said no. **Nothing was changed.**
    #[error("refused: {0}")]
    Refused(String),
    /// **It may have been applied**, or be yet.
    #[error("the outcome is not known: {0}")]
    Unknown(String),
}

/// What gossip holds of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answers.
    Alive,
    /// It does not, or said good-bye.
    Dead,
}

/// A node as gossip shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which start of it.
    pub incarnation: u64,
    /// What gossip holds of it.
    pub verdict: Verdict,
    /// Where other nodes reach it, if it says so.
    pub address: Option<SocketAddr>,
    /// The cluster that it is part of, if it is.
    pub formed: Option<u64>,
    /// What people call it; empty if it does not say.
    pub name: String,
    /// Where clients reach it; empty likewise.
    pub client_url: String,
    /// It would vote.
    pub willing: bool,
    /// The release it runs; empty if it does not say.
    pub release: String,
}

/// The control plane for people.
#[derive(Clone, Debug)]
pub struct Status {
    /// What is known.
    pub view: Arc<View>,
    /// The term of office of the log.
    pub term: u64,
    /// Who follows the log without a vote.
    pub learners: BTreeSet<NodeId>,
    /// The other nodes that gossip shows.
    pub members: BTreeMap<NodeId, Member>,
    /// Microseconds for which versions may still be given here; zero without a lease.
    pub lease_left_us: u64,
}

/// What the thread is asked for.
#[derive(Debug)]
enum Ask {
    Propose(Vec<Command>, oneshot::Sender<Result<(), ProposeError>>),
    Voters(BTreeSet<NodeId>, oneshot::Sender<Result<(), ProposeError>>),
}

/// The way to the control plane from any thread.
#[derive(Clone, Debug)]
pub struct Handle {
    view: watch::Receiver<Arc<View>>,
    highest: Arc<AtomicU64>,
    on_disk: Arc<watch::Sender<Vec<(ShardId, Epoch)>>>,
    asks: mpsc::Sender<Ask>,
    roll: watch::Receiver<Arc<Roll>>,
    standing: watch::Receiver<(u64, BTreeSet<NodeId>)>,
    metrics: Arc<ControlMetrics>,
    over: watch::Receiver<Option<String>>,
    secrets: Option<Arc<Turner>>,
}

/// Where other secrets go.
#[derive(Debug)]
struct Turner {
    keys: Keys,
    wishes: mpsc::UnboundedSender<Wish>,
    edge: bool,
}

/// What was proposed where there is no control plane.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Proposals(mpsc::Receiver<Ask>);

#[cfg(test)]
impl Proposals {
    /// The next proposal that waits, if one does. Whoever made it learns nothing of what becomes of it.
    pub(crate) fn next(&mut self) -> Option<Vec<Command>> {
        loop {
            match self.0.try_recv().ok()? {
                Ask::Propose(commands, _) => return Some(commands),
                Ask::Voters(..) => {}
            }
        }
    }
}

impl Handle {
    /// A handle to views that come from elsewhere, with no control plane behind it: for tests of those who act on views.
    #[must_use]
    pub fn fixed(view: watch::Receiver<Arc<View>>) -> Self {
        Self {
            view,
            highest: Arc::default(),
            on_disk: Arc::new(watch::Sender::new(Vec::new())),
            asks: mpsc::channel(1).0,
            roll: watch::channel(Arc::default()).1,
            standing: watch::channel((0, BTreeSet::new())).1,
            metrics: Arc::default(),
            over: watch::channel(None).1,
            secrets: None,
        }
    }

    /// The same, with what is proposed in it: for tests that play the control plane.
    #[cfg(test)]
    pub(crate) fn observed(view: watch::Receiver<Arc<View>>) -> (Self, Proposals) {
        let (asks, asked) = mpsc::channel(1_024);
        let new = Self {
            asks,
            ..Self::fixed(view)
        };
        (new, Proposals(asked))
    }

    /// What is known now.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// Whether the cluster agreed that this node gives up what it holds.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.view.borrow().is_draining()
    }

    /// To be told when it changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// A version was given or closed here: the ceiling has to stay above it.
    pub fn saw(&self, version: Version) {
        self.highest.fetch_max(version.0, Ordering::Relaxed);
    }

    /// The highest version that was said by [`Handle::saw`].
    #[must_use]
    pub fn highest(&self) -> Version {
        Version(self.highest.load(Ordering::Relaxed))
    }

    /// These shards are complete on this node's disk, left there by an earlier process of it, each of its epoch. Named in
    /// each renewal until something else is said: say less when a shard was taken, or dropped from the disk.
    pub fn set_on_disk(&self, shards: Vec<(ShardId, Epoch)>) {
        self.on_disk.send_replace(shards);
    }

    /// What was said last by [`Handle::set_on_disk`].
    #[must_use]
    pub fn on_disk(&self) -> Vec<(ShardId, Epoch)> {
        self.on_disk.borrow().clone()
    }

    async fn ask(
        &self,
        ask: impl FnOnce(oneshot::Sender<Result<(), ProposeError>>) -> Ask,
    ) -> Result<(), ProposeError> {
        let (reply, answer) = oneshot::channel();
        let gone = || ProposeError::NoLeader("the control plane has ended".to_owned());
        self.asks.send(ask(reply)).await.map_err(|_| gone())?;
        let lost = ProposeError::Unknown("the control plane ended meanwhile".to_owned());
        answer.await.unwrap_or(Err(lost))
    }

    /// Has a command applied, wherever the log is led. When this returns, it has been applied by the leader; here it may come
    /// a moment later.
    ///
    /// # Errors
    /// [`ProposeError::Unknown`] leaves it open, all others changed nothing.
    pub async fn propose(&self, command: Command) -> Result<(), ProposeError> {
        self.propose_all(vec![command]).await
    }

    /// The same for several, in this order, as one entry of the log: each is applied or changes nothing by itself.
    ///
    /// # Errors
    /// [`ProposeError::Changed`] if one of them changed nothing; others may have been applied.
    pub async fn propose_all(&self, commands: Vec<Command>) -> Result<(), ProposeError> {
        self.ask(|reply| Ask::Propose(commands, reply)).await
    }

    /// Makes these nodes, and only these, the voters.
    ///
    /// # Errors
    /// If one of them is not there, another change is under way, or as [`Handle::propose`] does.
    pub async fn set_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), ProposeError> {
        self.ask(|reply| Ask::Voters(voters, reply)).await
    }

    /// All of it for people.
    #[must_use]
    pub fn status(&self) -> Status {
        let view = self.view();
        let roll = Arc::clone(&self.roll.borrow());
        let (term, learners) = self.standing.borrow().clone();
        let dead = roll.dead.iter().map(|(node, (incarnation, _))| {
            let member = Member {
                incarnation: *incarnation,
                verdict: Verdict::Dead,
                address: None,
                formed: None,
                name: String::new(),
                client_url: String::new(),
                willing: false,
                release: String::new(),
            };
            (*node, member)
        });
        let alive = roll.alive.values().map(|peer| {
            let member = Member {
                incarnation: peer.incarnation.0,
                verdict: Verdict::Alive,
                address: peer.metadata.node_addr,
                formed: peer.metadata.formed.map(|formed| formed.0),
                name: peer.metadata.name.as_str().to_owned(),
                client_url: peer.metadata.client_url.as_str().to_owned(),
                willing: peer.metadata.roles.voter,
                release: peer.metadata.release.as_str().to_owned(),
            };
            (peer.node, member)
        });
        Status {
            term,
            learners,
            members: dead.chain(alive).collect(),
            lease_left_us: view.until_us.saturating_sub(crate::clock::mono_us()),
            view,
        }
    }

    /// Reads the cluster's secret again, or two of them. When what is handed out runs, the first is used from then on and both are
    /// accepted; connections that are open stay. `None`: there is no secret here.
    ///
    /// # Errors
    /// Says what is wrong with it; **nothing was changed**.
    pub fn prepare_secret(&self, config: &Config) -> Result<Option<impl FnOnce() + Send + use<>>, ControlError> {
        let Some(turner) = self.secrets.clone() else {
            return Ok(None);
        };
        let (key, text) = settings::secret(config)?;
        let wrong = |reason| ControlError::Config { key, reason };
        let secrets = keys::read(&text).map_err(wrong)?;
        let ring = secrets.ring().map_err(wrong)?;
        let (first, second) = secrets.mesh();
        if first.is_of_edge() != turner.edge {
            let reason =
                "is of another kind of node than this one was started as: a node changes its kind by a restart";
            return Err(wrong(reason.to_owned()));
        }
        Ok(Some(move || {
            turner.keys.turn(first, second);
            // Gossip ends with the thread only.
            _ = turner.wishes.send(Wish::Keys(ring));
        }))
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &ControlMetrics {
        &self.metrics
    }

    /// Becomes `Some`, with the reason, when the control plane cannot go on: the process must end then. Versions may not be
    /// given any more from that moment.
    #[must_use]
    pub fn over(&self) -> watch::Receiver<Option<String>> {
        self.over.clone()
    }
}
