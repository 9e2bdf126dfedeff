//! The leader's office: runs the coordinator where this node leads the log.
//!
//! It decides nothing by itself: what should change is the coordinator's word. Who votes, and who is forgotten, is the business of
//! [`super::tending`].

use super::Settings;
use super::plane::{Part, Plane};
use crate::clock;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tidings_consensus::{Consensus, ConsensusError, Proposal};
use tidings_protocol::{Epoch, NodeId};
use tidings_router::MonoUs;
use tidings_router::control::command::Command;
use tidings_router::control::coordinator::{Config, Coordinator, Input, Output, Verdict};
use tidings_router::control::lease::{Grant, Renewal};
use tidings_router::control::map::{Map, Process};
use tokio::sync::{mpsc, oneshot};

/// While it is not known what became of a proposal, that is found out so often.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// A new cluster's shards are first given out when all who formed it are there, or after so long.
const FIRST_PLACEMENT_US: u64 = 10_000_000;
/// Until then it is looked so often whether they are.
const GATHERING_US: u64 = 100_000;

/// What the office is asked for.
#[derive(Debug)]
pub(super) enum OfficeAsk {
    /// A lease.
    Renew(Renewal, oneshot::Sender<Grant>),
}

/// What came of what the coordinator wanted done.
enum Done {
    Confirmed(u64, bool),
    Settled(u64),
}

/// The log's times, in proportion to the lease: an election and a renewal fit inside it.
pub(super) fn consensus_settings(node: NodeId, path: Option<PathBuf>, lease: Duration) -> tidings_consensus::Settings {
    tidings_consensus::Settings {
        path,
        heartbeat: lease / 25,
        // A voter waits for twice the longer one at most: once because it follows a leader, once before it stands.
        election: (lease / 10, lease / 5),
        ..tidings_consensus::Settings::new(node)
    }
}

/// The coordinator's times likewise.
fn coordinator_config(settings: &Settings) -> Config {
    let lease_us = u64::try_from(settings.lease.as_micros()).unwrap_or(u64::MAX / 4);
    Config {
        lease_us,
        settle_us: lease_us / 2,
        disk_patience_us: lease_us,
        review_us: lease_us / 20,
        moves: settings.moves,
        fills: settings.fills,
        ..Config::default()
    }
}

/// See the module.
struct Office {
    plane: Arc<Plane>,
    part: Part,
    coordinator: Coordinator,
    /// The term of the present office.
    term: Option<u64>,
    since_us: MonoUs,
    /// The map is not looked at before.
    not_before_us: MonoUs,
    told_of_copies: bool,
    /// Who waits for a lease.
    asking: BTreeMap<Process, oneshot::Sender<Grant>>,
    done: mpsc::UnboundedSender<Done>,
    out: Vec<Output>,
}

/// Runs for as long as this node is part of the cluster.
pub(super) async fn run(plane: Arc<Plane>, part: Part, mut asks: mpsc::Receiver<OfficeAsk>) {
    let (mut watched, mut roll) = (part.consensus.office(), plane.roll.clone());
    let (done, mut came) = mpsc::unbounded_channel();
    let mut office = Office {
        coordinator: Coordinator::new(coordinator_config(&plane.settings)),
        plane,
        part,
        term: None,
        since_us: 0,
        not_before_us: 0,
        told_of_copies: false,
        asking: BTreeMap::new(),
        done,
        out: Vec::new(),
    };
    office.look_around();
    loop {
        office.take_office();
        office.perform();
        let due = office.coordinator.next_deadline();
        let due = due.map(|due| due.max(office.not_before_us));
        let deadline = tokio::time::sleep_until(clock::instant(due.unwrap_or(MonoUs::MAX / 4)));
        tokio::select! {
            changed = watched.changed() => if changed.is_err() {
                let why = "the cluster's log cannot be kept any more (is the disk full, or failing?)";
                return office.plane.fail(why.to_owned());
            },
            Some(done) = came.recv() => match done {
                Done::Confirmed(token, true) => office.handle(Input::Confirmed { token }),
                Done::Confirmed(token, false) => office.handle(Input::Unconfirmed { token }),
                Done::Settled(proposal) => office.handle(Input::Settled { proposal }),
            },
            ask = asks.recv() => match ask {
                Some(OfficeAsk::Renew(renewal, reply)) => office.renew(renewal, reply),
                None => return,
            },
            changed = roll.changed() => {
                if changed.is_err() {
                    return;
                }
                office.look_around();
            }
            () = deadline, if due.is_some() => office.review(),
        }
    }
}

impl Office {
    fn map(&self) -> Arc<Map> {
        Arc::clone(&self.part.consensus.applied().borrow().map)
    }

    fn handle(&mut self, input: Input) {
        let map = self.map();
        self.coordinator.handle(clock::now(), &map, input, &mut self.out);
    }

    /// Tells the coordinator whether this node leads.
    fn take_office(&mut self) {
        let now = *self.part.consensus.office().borrow();
        let term = now.ours.then_some(now.term);
        if term == self.term {
            return;
        }
        self.term = term;
        self.asking.clear();
        match term {
            Some(term) => {
                tracing::info!(term, "this node leads the cluster's log");
                self.since_us = clock::mono_us();
                self.handle(Input::Elected { term });
            }
            None => {
                tracing::info!("this node does not lead the cluster's log any more");
                self.handle(Input::Deposed);
            }
        }
    }

    fn renew(&mut self, renewal: Renewal, reply: oneshot::Sender<Grant>) {
        // Of one process the newest question counts; an older one is answered by the end of its channel.
        self.asking.insert(renewal.from, reply);
        self.handle(Input::Renew(renewal));
    }

    /// Tells the coordinator whom gossip holds alive and dead.
    fn look_around(&mut self) {
        let roll = Arc::clone(&self.plane.roll.borrow());
        let alive = roll
            .alive
            .values()
            .map(|peer| (peer.node, peer.incarnation.0, Verdict::Alive));
        let dead = roll
            .dead
            .iter()
            .map(|(node, (start, _))| (*node, *start, Verdict::Dead));
        for (node, incarnation, verdict) in alive.chain(dead) {
            let process = Process { node, incarnation };
            self.handle(Input::Heard { process, verdict });
        }
    }

    fn review(&mut self) {
        let map = self.map();
        let now = clock::now();
        if is_untouched(&map) {
            self.set_copies(&map);
            if self.is_gathering(&map, now.mono_us) {
                // The ceiling is not needed before anything is owned.
                self.not_before_us = now.mono_us + GATHERING_US;
                return;
            }
        } else if map.copies() != self.plane.settings.copies && !std::mem::replace(&mut self.told_of_copies, true) {
            tracing::warn!(
                configured = self.plane.settings.copies,
                agreed = map.copies(),
                "cluster.copies is not what the cluster agreed on, which counts: `tidings cluster copies` changes it"
            );
        }
        self.coordinator.handle_deadline(now, &map, &mut self.out);
    }

    /// In a cluster that was just formed as many copies are wanted as its first leader is configured for.
    fn set_copies(&self, map: &Map) {
        let copies = self.plane.settings.copies;
        if map.copies() == copies {
            return;
        }
        let (consensus, term) = (self.part.consensus.clone(), self.term);
        tokio::spawn(async move {
            let commands = vec![Command::SetCopies { copies }];
            // If it is lost it is asked for again at the next look.
            _ = consensus.propose(Proposal { term, commands }).await;
        });
    }

    /// Whether some of those who formed the cluster are not ready to be given something yet: shares are even only among those
    /// that are.
    fn is_gathering(&self, map: &Map, now_us: MonoUs) -> bool {
        if now_us > self.since_us + FIRST_PLACEMENT_US {
            return false;
        }
        let voters = self.part.consensus.standing().voters;
        let is_ready = |voter: &NodeId| {
            let known = map.node(*voter);
            known.is_some_and(|node| !node.info.roles.owner || self.coordinator.hears(now_us, map, *voter))
        };
        !voters.iter().all(is_ready)
    }

    fn perform(&mut self) {
        for output in std::mem::take(&mut self.out) {
            match output {
                Output::Grant { to, grant } => {
                    if let Some(reply) = self.asking.remove(&to) {
                        // Whoever asked may not wait any more.
                        _ = reply.send(grant);
                    }
                }
                Output::Confirm { term, token } => {
                    let (consensus, done) = (self.part.consensus.clone(), self.done.clone());
                    let within = self.plane.settings.lease / 2;
                    tokio::spawn(async move {
                        let fine = consensus.confirm(within).await.is_ok();
                        let office = *consensus.office().borrow();
                        // Confirmed for another term of office is not confirmed for this one.
                        _ = done.send(Done::Confirmed(token, fine && office.ours && office.term == term));
                    });
                }
                Output::Propose {
                    term,
                    proposal,
                    commands,
                } => self.propose(term, proposal, commands),
            }
        }
    }

    fn propose(&self, term: u64, proposal: u64, commands: Vec<Command>) {
        let (consensus, done) = (self.part.consensus.clone(), self.done.clone());
        let within = self.plane.settings.lease;
        tokio::spawn(async move {
            let settled = settle(&consensus, term, proposal, commands, within).await;
            if settled {
                _ = done.send(Done::Settled(proposal));
            }
        });
    }
}

/// Whether nothing was ever given out.
fn is_untouched(map: &Map) -> bool {
    map.shards().all(|(_, shard)| shard.epoch == Epoch(0))
}

/// Proposes, and waits until it is known what became of that. `false`: the term is over, which settles it too.
async fn settle(consensus: &Consensus, term: u64, proposal: u64, commands: Vec<Command>, within: Duration) -> bool {
    let mut commands = commands;
    for turn in 0_u64.. {
        let proposed = consensus.propose(Proposal {
            term: Some(term),
            commands: std::mem::take(&mut commands),
        });
        match tokio::time::timeout(within, proposed).await {
            Ok(Ok(outcome)) => {
                for (place, refusal) in &outcome.refused {
                    tracing::debug!(proposal, place, %refusal, "a command changed nothing");
                }
                return true;
            }
            // Surely not in the log, but that says nothing of an earlier turn.
            Ok(Err(ConsensusError::NotLeader { .. })) if turn == 0 => return true,
            Ok(Err(error)) => tracing::debug!(proposal, turn, %error, "what became of a proposal is not known"),
            Err(_) => tracing::debug!(proposal, turn, "what became of a proposal is not known in time"),
        }
        let office = *consensus.office().borrow();
        if !office.ours || office.term != term {
            return false;
        }
        // It may be applied yet. Once an entry behind it, with nothing in it, is applied, it was before or never will be.
        tokio::time::sleep(ASK_AGAIN).await;
    }
    false
}
