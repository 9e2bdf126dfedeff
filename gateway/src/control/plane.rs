//! What the tasks of one control plane share, and how questions of other nodes are answered.

use super::forming::{Forming, Heed, Input, Output};
use super::gossip::{Roll, Wish};
use super::lines::Lines;
use super::metrics::ControlMetrics;
use super::notices::Notices;
use super::office::{OfficeAsk, consensus_settings};
use super::roles;
use super::seat::Seat;
use super::words::{Answer, Founding, Request};
use super::{ControlError, ProposeError, Settings};
use crate::clock;
use crate::mesh::{Keys, Peer};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidings_consensus::{Consensus, ConsensusError, Outcome, Proposal, Transport, Urgency, Voter};
use tidings_protocol::mesh::Class;
use tidings_protocol::{ClusterId, NodeId, ShardCount};
use tidings_router::control::command::Command;
use tidings_router::control::map::{Map, Process};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

/// Answers between nodes that form or join take at most so long.
const PATIENCE: Duration = Duration::from_secs(5);
/// Who leads may be known after so long.
const SOON: Duration = Duration::from_millis(50);
/// Copies of a shard before anything was agreed, the same on every node: the first leader says how many there should be.
const COPIES: u8 = 1;

/// This node's part in the cluster's log.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) founding: Founding,
    pub(super) consensus: Consensus,
}

/// Who this node is, in memory and on disk.
pub(super) struct Desk {
    pub(super) forming: Forming,
    pub(super) seat: Seat,
}

/// See the module.
pub(super) struct Plane {
    pub(super) settings: Settings,
    pub(super) me: Process,
    pub(super) address: SocketAddr,
    pub(super) keys: Keys,
    pub(super) lines: Lines,
    pub(super) desk: Mutex<Desk>,
    pub(super) part: watch::Sender<Option<Part>>,
    pub(super) roll: watch::Receiver<Arc<Roll>>,
    pub(super) wishes: mpsc::UnboundedSender<Wish>,
    pub(super) office: mpsc::Sender<OfficeAsk>,
    pub(super) metrics: Arc<ControlMetrics>,
    pub(super) notices: Arc<Notices>,
    pub(super) over: watch::Sender<Option<String>>,
    /// It is about to end in order: what ends now did not fail.
    pub(super) ends: AtomicBool,
}

impl Plane {
    /// The control plane cannot go on. The first reason counts.
    pub(super) fn fail(&self, why: String) {
        if self.ends.load(Ordering::Relaxed) {
            return;
        }
        self.over.send_if_modified(|over| {
            let first = over.is_none();
            if first {
                tracing::error!(why, "the control plane stops");
                *over = Some(why);
            }
            first
        });
    }

    /// Whether this node is part of a cluster.
    pub(super) fn is_bound(&self) -> bool {
        self.part.borrow().is_some()
    }

    /// Its part.
    pub(super) fn part(&self) -> Option<Part> {
        self.part.borrow().clone()
    }

    fn part_of(&self, cluster: u64) -> Option<Part> {
        self.part().filter(|part| part.founding.cluster == cluster)
    }

    /// One step of forming, and what follows from it.
    pub(super) async fn step(self: &Arc<Self>, input: Input) {
        let mut out = Vec::new();
        {
            let mut desk = self.desk.lock().await;
            desk.forming.handle(clock::mono_us(), input, &mut out);
            if self.settle(&mut desk).await.is_err() {
                return;
            }
        }
        for output in out {
            tokio::spawn(Arc::clone(self).perform(output));
        }
    }

    /// Puts on disk what was decided, and begins the log of a cluster that this node has become part of. Nothing may be
    /// said of the decision before.
    pub(super) async fn settle(&self, desk: &mut Desk) -> Result<(), ()> {
        let settled = self.try_to_settle(desk).await;
        settled.map_err(|error| self.fail(error.to_string()))
    }

    async fn try_to_settle(&self, desk: &mut Desk) -> Result<(), ControlError> {
        let kept = desk.forming.kept();
        desk.seat.keep(kept).map_err(|error| ControlError::Seat(error.into()))?;
        let Some(founding) = kept.founding().filter(|_| !self.is_bound()) else {
            return Ok(());
        };
        let begins = kept.begins().cloned();
        let shards = ShardCount::new(founding.shards).unwrap_or(ShardCount::DEFAULT);
        let fresh = Map::new(ClusterId(founding.cluster), shards, COPIES);
        let settings = consensus_settings(self.me.node, desk.seat.log(), self.settings.lease);
        let wire = Wire {
            lines: self.lines.clone(),
            cluster: founding.cluster,
        };
        let consensus = Consensus::start(&settings, fresh, Arc::new(wire)).await?;
        desk.forming.has_log();
        desk.seat
            .keep(desk.forming.kept())
            .map_err(|error| ControlError::Seat(error.into()))?;
        if let Some(proposal) = begins
            && !consensus.is_formed().await?
        {
            let voters = proposal.voters.into_iter();
            let voters = voters.map(|(node, address)| (node, Voter { address })).collect();
            consensus.form(voters).await?;
        }
        tracing::info!(cluster = format!("{:016x}", founding.cluster), node = %self.me.node, "part of a cluster");
        self.part.send_replace(Some(Part { founding, consensus }));
        Ok(())
    }

    fn perform(self: Arc<Self>, output: Output) -> BoxFuture<'static, ()> {
        async move {
            match output {
                Output::Ask {
                    to,
                    address,
                    cluster,
                    request,
                } => {
                    let answer = self.lines.ask((to, &address), Class::Control, request, PATIENCE).await;
                    let answer = answer.ok();
                    self.step(Input::Answered {
                        from: to,
                        cluster,
                        answer,
                    })
                    .await;
                }
                Output::Join { to, address } => self.join(to, address).await,
                Output::Failed { why } => tracing::warn!(why, "a proposal to form a cluster came to nothing"),
            }
        }
        .boxed()
    }

    /// Asks a member, and the leader that it names, to let this node join.
    pub(super) async fn join(&self, to: NodeId, address: String) {
        let (mut to, mut address) = (to, address);
        for _ in 0..3 {
            if to.is_edge() {
                // Its word is worth nothing in this.
                return;
            }
            let only = {
                let desk = self.desk.lock().await;
                desk.forming.kept().bound().or(desk.forming.only())
            };
            let request = Request::Join {
                process: self.me,
                address: self.address.to_string(),
                cluster: only,
            };
            match self.lines.ask((to, &address), Class::Control, request, PATIENCE).await {
                Ok(Answer::Joined(founding)) => {
                    let mut desk = self.desk.lock().await;
                    if desk.forming.joined(founding) {
                        _ = self.settle(&mut desk).await;
                    }
                    return;
                }
                Ok(Answer::NotLeader {
                    leader: Some((leader, there)),
                }) => (to, address) = (leader, there),
                Ok(Answer::Refused(why)) => {
                    if self.notices.is_news(&format!("join {to} {why}")) {
                        tracing::warn!(node = %to, why, "this node may not join");
                    }
                    return;
                }
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// An edge asked for what only nodes that own or vote may.
    pub(super) fn claims_too_much(&self, node: NodeId, what: &str) {
        self.metrics.refused_roles.inc();
        if self.notices.is_news(&format!("role {node} {what}")) {
            tracing::error!(%node, "an edge claims {what}: refused. Who has its secret?");
        }
    }

    /// Answers another node.
    pub(super) async fn answer(self: Arc<Self>, peer: Peer, request: Request) -> Answer {
        if let Some(what) = roles::too_much(peer.node, &request) {
            self.claims_too_much(peer.node, what);
            return Answer::Refused(format!("it is an edge, which may not ask {what}"));
        }
        match request {
            Request::Raft { cluster, bytes } => match self.heed(cluster).await {
                Some(part) => Answer::Raft(part.consensus.answer(&bytes).await),
                None => self.foreign(peer, cluster),
            },
            Request::Promise(proposal) if proposal.proposer != peer.node => {
                Answer::Refused("only its proposer may ask for promises".to_owned())
            }
            Request::Promise(proposal) => {
                let mut desk = self.desk.lock().await;
                let answer = desk.forming.promise(clock::mono_us(), &proposal);
                self.kept(&mut desk, answer).await
            }
            Request::Fate { cluster } => Answer::Fate(self.desk.lock().await.forming.fate(cluster)),
            Request::Renounce { cluster } => {
                let mut desk = self.desk.lock().await;
                let answer = desk.forming.asked_to_renounce(cluster);
                self.kept(&mut desk, answer).await
            }
            Request::Join {
                process,
                address,
                cluster,
            } => self.let_in(peer, process, address, cluster).await,
            Request::Renew { cluster, renewal } => {
                let known = self.part_of(cluster);
                let Some(part) = known else {
                    return self.foreign(peer, cluster);
                };
                if renewal.from != process_of(peer) {
                    return Answer::Refused("it asks for another process".to_owned());
                }
                if !part.consensus.office().borrow().ours {
                    return self.not_leader(&part);
                }
                let (reply, grant) = oneshot::channel();
                if self.office.try_send(OfficeAsk::Renew(renewal, reply)).is_err() {
                    return Answer::Refused("too many renewals at one time".to_owned());
                }
                match grant.await {
                    Ok(grant) => Answer::Granted(grant),
                    Err(_) => Answer::Refused("not renewed".to_owned()),
                }
            }
            Request::Propose { cluster, commands } => match self.part_of(cluster) {
                Some(part) => self.propose_here(&part, commands).await,
                None => self.foreign(peer, cluster),
            },
            Request::WentBack { cluster, entries } => match self.part_of(cluster) {
                Some(part) => self.went_back(peer, &part, entries).await,
                None => self.foreign(peer, cluster),
            },
            Request::Voters { cluster, voters } => match self.part_of(cluster) {
                Some(part) => self.set_voters_here(&part, voters).await,
                None => self.foreign(peer, cluster),
            },
        }
    }

    /// The leader says that this node's log lost what it had acknowledged. Then this node may have forgotten a vote too, and
    /// must not go on under its name: it ends, and its next start is another node.
    async fn went_back(&self, peer: Peer, part: &Part, entries: u64) -> Answer {
        let leads = part.consensus.office().borrow().leader;
        if leads.is_some_and(|leader| leader != peer.node) || part.consensus.entries() >= entries {
            return Answer::Refused("its log did not go back".to_owned());
        }
        if let Err(error) = self.desk.lock().await.seat.mark(entries) {
            return Answer::Refused(format!("its disk fails: {error}"));
        }
        self.fail(format!(
            "the cluster's log in the data directory has {} entries, and this node had acknowledged {entries}: it was put back from a \
             copy. Started again, this node joins its cluster under another name",
            part.consensus.entries()
        ));
        Answer::Done
    }

    async fn kept(&self, desk: &mut Desk, answer: Answer) -> Answer {
        match self.settle(desk).await {
            Ok(()) => answer,
            Err(()) => Answer::Refused("its disk fails".to_owned()),
        }
    }

    /// A node of another cluster with the same name and secret showed itself.
    pub(super) fn strange(&self, node: NodeId, cluster: u64) {
        self.metrics.refused_peers.inc();
        if self.notices.is_news(&format!("foreign {node} {cluster:016x}")) {
            tracing::error!(
                %node,
                cluster = format!("{cluster:016x}"),
                "a node with our cluster's name and secret is of another cluster: one of the two must start anew, with empty \
                 data directories"
            );
        }
    }

    fn foreign(&self, peer: Peer, cluster: u64) -> Answer {
        let ours = self.part().map(|part| part.founding.cluster);
        if ours.is_some_and(|ours| ours != cluster) {
            self.strange(peer.node, cluster);
        }
        Answer::Refused(ours.map_or_else(
            || "it is part of no cluster yet".to_owned(),
            |ours| format!("it is part of cluster {ours:016x}"),
        ))
    }

    /// A word of a log: whether this node has a part in it, which it may get by this word.
    async fn heed(&self, cluster: u64) -> Option<Part> {
        if let Some(part) = self.part_of(cluster) {
            return Some(part);
        }
        let mut desk = self.desk.lock().await;
        if desk.forming.heed(cluster) == Heed::Foreign {
            return None;
        }
        self.settle(&mut desk).await.ok()?;
        self.part_of(cluster)
    }

    fn not_leader(&self, part: &Part) -> Answer {
        let leader = part.consensus.office().borrow().leader;
        let leader = leader.filter(|leader| *leader != self.me.node);
        let leader = leader.and_then(|leader| Some((leader, self.address_of(part, leader)?)));
        Answer::NotLeader { leader }
    }

    /// Where a node is reached: as gossip has it, else as the map does.
    pub(super) fn address_of(&self, part: &Part, node: NodeId) -> Option<String> {
        let known = self.lines.address(node);
        let registered = || {
            let applied = part.consensus.applied();
            let map = Arc::clone(&applied.borrow().map);
            Some(map.node(node)?.info.peer_address.clone())
        };
        known.or_else(registered)
    }

    async fn let_in(&self, peer: Peer, process: Process, address: String, only: Option<u64>) -> Answer {
        let Some(part) = self.part() else {
            return Answer::Refused("it is part of no cluster yet".to_owned());
        };
        if process != process_of(peer) {
            return Answer::Refused("it asks for another process".to_owned());
        }
        if let Some(only) = only.filter(|only| *only != part.founding.cluster) {
            return self.foreign(peer, only);
        }
        if !part.consensus.office().borrow().ours {
            return self.not_leader(&part);
        }
        let standing = part.consensus.standing();
        if !standing.voters.contains(&process.node) && !standing.learners.contains(&process.node) {
            match part.consensus.add_learner(process.node, Voter { address }).await {
                Ok(()) => tracing::info!(node = %process.node, "a node joined"),
                Err(ConsensusError::NotLeader { .. }) => return self.not_leader(&part),
                Err(error) => return Answer::Unknown(error.to_string()),
            }
        }
        Answer::Joined(part.founding)
    }

    async fn propose_here(&self, part: &Part, commands: Vec<Command>) -> Answer {
        match part.consensus.propose(Proposal { term: None, commands }).await {
            Ok(outcome) => Answer::Outcome(outcome),
            Err(ConsensusError::NotLeader { .. }) => self.not_leader(part),
            Err(error) => Answer::Unknown(error.to_string()),
        }
    }

    async fn set_voters_here(&self, part: &Part, voters: BTreeSet<NodeId>) -> Answer {
        if let Some(edge) = voters.iter().find(|voter| voter.is_edge()) {
            return Answer::Refused(format!("node {edge} is an edge and does not vote"));
        }
        match part.consensus.set_voters(voters, true).await {
            Ok(()) => Answer::Done,
            Err(ConsensusError::NotLeader { .. }) => self.not_leader(part),
            Err(ConsensusError::Refused(why)) => Answer::Refused(why),
            Err(error) => Answer::Unknown(error.to_string()),
        }
    }

    /// Asks whoever leads, until somebody does.
    ///
    /// # Errors
    /// If nobody led in time, or the leader said no, or nobody knows.
    pub(super) async fn ask_leader(
        self: &Arc<Self>,
        request: impl Fn(u64) -> Request,
        within: Duration,
    ) -> Result<Answer, ProposeError> {
        let deadline = Instant::now() + within;
        let mut last = "the cluster has no leader now".to_owned();
        while Instant::now() < deadline {
            let Some(part) = self.part() else {
                return Err(ProposeError::NoLeader("this node is part of no cluster yet".to_owned()));
            };
            let office = *part.consensus.office().borrow();
            let request = request(part.founding.cluster);
            let answer = match office.leader {
                Some(leader) if leader == self.me.node => {
                    let us = Peer {
                        node: self.me.node,
                        incarnation: self.me.incarnation,
                        version: tidings_protocol::mesh::VERSIONS.1,
                        class: Class::Control,
                    };
                    Some(Ok(Arc::clone(self).answer(us, request).await))
                }
                Some(leader) => match self.address_of(&part, leader) {
                    Some(address) => {
                        let left = deadline.saturating_duration_since(Instant::now());
                        Some(self.lines.ask((leader, &address), Class::Control, request, left).await)
                    }
                    None => None,
                },
                None => None,
            };
            match answer {
                None | Some(Ok(Answer::NotLeader { .. })) => sleep(SOON).await,
                Some(Ok(Answer::Refused(why))) => return Err(ProposeError::Refused(why)),
                Some(Ok(Answer::Unknown(why))) => return Err(ProposeError::Unknown(why)),
                Some(Ok(answer)) => return Ok(answer),
                // Sent or not: nobody knows, unless it was never dialled.
                Some(Err(why)) if why.contains("cannot be reached") => {
                    last = why;
                    sleep(SOON).await;
                }
                Some(Err(why)) => return Err(ProposeError::Unknown(why)),
            }
        }
        Err(ProposeError::NoLeader(last))
    }

    /// Puts commands into the log, wherever it is led.
    ///
    /// # Errors
    /// As [`Self::ask_leader`] does.
    pub(super) async fn propose(
        self: &Arc<Self>,
        commands: &[Command],
        within: Duration,
    ) -> Result<Outcome, ProposeError> {
        let request = |cluster| Request::Propose {
            cluster,
            commands: commands.to_vec(),
        };
        match self.ask_leader(request, within).await? {
            Answer::Outcome(outcome) => Ok(outcome),
            other => Err(ProposeError::Unknown(format!("answered {other:?}"))),
        }
    }
}

fn process_of(peer: Peer) -> Process {
    Process {
        node: peer.node,
        incarnation: peer.incarnation,
    }
}

/// Carries the log's words to other nodes.
struct Wire {
    lines: Lines,
    cluster: u64,
}

impl Transport for Wire {
    fn call(
        &self,
        to: u64,
        address: &str,
        urgency: Urgency,
        request: Vec<u8>,
        within: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        let (lines, cluster, address) = (self.lines.clone(), self.cluster, address.to_owned());
        let class = match urgency {
            Urgency::Heartbeat | Urgency::Log => Class::Control,
            Urgency::Bulk => Class::Bulk,
        };
        async move {
            let request = Request::Raft {
                cluster,
                bytes: request,
            };
            match lines.ask((NodeId(to), &address), class, request, within).await? {
                Answer::Raft(bytes) => Ok(bytes),
                Answer::Refused(why) => Err(format!("node {} refused: {why}", NodeId(to))),
                other => Err(format!("node {} answered {other:?}", NodeId(to))),
            }
        }
        .boxed()
    }
}
