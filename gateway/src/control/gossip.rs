//! Gossip's shell: the socket, the clock, the names of `cluster.join`, and who is there as one watched [`Roll`].
//!
//! What waits at the socket is handed in before deadlines are looked at: it may say that a suspect lives. It does not
//! decide anything.

use super::Plane;
use super::seeds::{self, Names};
use crate::clock;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tidings_membership::{Event, Input, KeyRing, Membership, Metadata, Output, Peer, Refusal};
use tidings_protocol::NodeId;
use tidings_router::MonoUs;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};

/// Datagrams handed in before deadlines are looked at.
const AT_ONCE: usize = 256;
/// Room for the largest datagram that UDP carries.
const DATAGRAM_BYTES: usize = 65_536;

/// Who is there, as gossip has it here.
#[derive(Clone, Debug, Default)]
pub(super) struct Roll {
    /// Held alive.
    pub(super) alive: BTreeMap<NodeId, Peer>,
    /// Held dead or gone: which start, and since when.
    pub(super) dead: BTreeMap<NodeId, (u64, MonoUs)>,
}

/// What others want of gossip.
#[derive(Debug)]
pub(super) enum Wish {
    /// Say this of ourselves from now on.
    Tell(Metadata),
    /// Seal and open with these from now on.
    Keys(KeyRing),
    /// Members may be found here.
    Seeds(Vec<SocketAddr>),
    /// Say good-bye; answered when that is sent.
    Leave(oneshot::Sender<()>),
}

/// See the module.
pub(super) struct Gossip {
    pub(super) machine: Membership,
    pub(super) socket: UdpSocket,
    pub(super) roll: watch::Sender<Arc<Roll>>,
    pub(super) wishes: mpsc::UnboundedReceiver<Wish>,
    pub(super) plane: Arc<Plane>,
    dead: BTreeMap<NodeId, (u64, MonoUs)>,
}

impl Gossip {
    /// Ready to run.
    pub(super) fn new(
        machine: Membership,
        socket: UdpSocket,
        roll: watch::Sender<Arc<Roll>>,
        wishes: mpsc::UnboundedReceiver<Wish>,
        plane: Arc<Plane>,
    ) -> Self {
        Self {
            machine,
            socket,
            roll,
            wishes,
            plane,
            dead: BTreeMap::new(),
        }
    }

    /// Gossips until good-bye is said.
    pub(super) async fn run(mut self) {
        let mut buffer = vec![0; DATAGRAM_BYTES];
        let mut out = Vec::new();
        loop {
            let waits = self.hear(&mut buffer, &mut out);
            if self.machine.next_deadline().is_some_and(|due| due <= clock::mono_us()) {
                self.machine.handle_deadline(clock::mono_us(), &mut out);
            }
            self.perform(&mut out).await;
            if waits {
                // More waits at the socket; others have their turn first.
                tokio::task::yield_now().await;
                continue;
            }
            let due = self.machine.next_deadline();
            let deadline = tokio::time::sleep_until(clock::instant(due.unwrap_or(MonoUs::MAX / 4)));
            tokio::select! {
                readable = self.socket.readable() => {
                    if let Err(error) = readable {
                        tracing::warn!(%error, "the socket of gossip failed");
                    }
                }
                () = deadline, if due.is_some() => {}
                wish = self.wishes.recv() => match wish {
                    Some(Wish::Leave(done)) => {
                        self.machine.handle(clock::mono_us(), Input::Leave, &mut out);
                        self.perform(&mut out).await;
                        _ = done.send(());
                        return;
                    }
                    Some(Wish::Tell(metadata)) => {
                        self.machine.handle(clock::mono_us(), Input::Metadata(metadata), &mut out);
                    }
                    Some(Wish::Keys(keys)) => self.machine.handle(clock::mono_us(), Input::Keys(keys), &mut out),
                    Some(Wish::Seeds(seeds)) => self.machine.handle(clock::mono_us(), Input::Seeds(seeds), &mut out),
                    None => return,
                },
            }
        }
    }

    /// Hands in what waits at the socket. Whether more waits.
    fn hear(&mut self, buffer: &mut [u8], out: &mut Vec<Output>) -> bool {
        for _ in 0..AT_ONCE {
            match self.socket.try_recv_from(buffer) {
                Ok((length, from)) => {
                    let bytes = &buffer[..length];
                    self.machine
                        .handle(clock::mono_us(), Input::Datagram { from, bytes }, out);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // An answer of the network to something sent earlier: nobody is there.
                Err(_) => {}
            }
        }
        true
    }

    async fn perform(&mut self, out: &mut Vec<Output>) {
        let mut changed = false;
        for output in out.drain(..) {
            match output {
                // What cannot be sent is lost, as datagrams are.
                Output::Send { to, datagram } => _ = self.socket.send_to(&datagram, to).await,
                Output::Event(event) => {
                    self.note(event);
                    changed = true;
                }
            }
        }
        let (now, metrics) = (self.machine.counters(), &self.plane.metrics);
        let refused = now.garbage + now.oversized + now.other_cluster + now.unknown_key + now.unsealed + now.malformed;
        let counted = [
            (&metrics.refused_datagrams, refused),
            (&metrics.suspicions, now.suspicions),
            (&metrics.refutations, now.refutations),
            (&metrics.stalls, now.stalls),
            (&metrics.gossip_sent, now.sent_bytes),
            (&metrics.gossip_came, now.received_bytes),
        ];
        for (counter, now) in counted {
            counter.inc_by(now.saturating_sub(counter.get()));
        }
        if changed {
            let alive: BTreeMap<_, _> = self.machine.members().map(|peer| (peer.node, peer)).collect();
            self.dead
                .retain(|node, (start, _)| alive.get(node).is_none_or(|peer| peer.incarnation.0 < *start));
            let dead = self.dead.clone();
            self.roll.send_replace(Arc::new(Roll { alive, dead }));
        }
    }

    /// A node that is part of another cluster is no use here, and one of the two clusters is a mistake. So is an edge that would be
    /// more.
    fn compare(&self, peer: &Peer) {
        let roles = peer.metadata.roles;
        if peer.node.is_edge() && (roles.owner || roles.voter) {
            self.plane.claims_too_much(peer.node, "to own or to vote, in gossip");
        }
        let ours = self.plane.part().map(|part| part.founding.cluster);
        if let (Some(ours), Some(theirs)) = (ours, peer.metadata.formed)
            && theirs.0 != ours
        {
            self.plane.strange(peer.node, theirs.0);
        }
    }

    fn note(&mut self, event: Event) {
        let now_us = clock::mono_us();
        match event {
            Event::Joined(peer) => {
                tracing::info!(node = %peer.node, address = %peer.gossip_addr, "a node is there");
                self.compare(&peer);
            }
            Event::Changed(peer) => self.compare(&peer),
            Event::Connected | Event::Suspected { .. } | Event::Refuted { .. } => {}
            Event::Down { node, incarnation } => {
                tracing::warn!(%node, "a node does not answer any more");
                self.dead.insert(node, (incarnation.0, now_us));
            }
            Event::Left { node, incarnation } => {
                tracing::info!(%node, "a node said good-bye");
                self.dead.insert(node, (incarnation.0, now_us));
            }
            Event::Restarted { peer, .. } => tracing::info!(node = %peer.node, "a node has started again"),
            Event::Alone => tracing::warn!("no other node is in reach"),
            Event::Revived { times } => tracing::warn!(times, "other nodes held this one dead"),
            Event::Superseded { by } => self.plane.fail(format!(
                "another process runs as this node ({}, started later, at {}): was the data directory copied? This one stops",
                by.node, by.addr
            )),
            Event::Conflict(conflict) => tracing::error!(?conflict, "two processes claim what only one can have"),
            Event::Refused { from, why } => tracing::warn!(%from, "{}", stranger(why)),
            Event::Full { node } => tracing::error!(%node, "there are too many nodes: a newcomer was not let in"),
        }
    }
}

/// What is wrong with who was refused.
fn stranger(why: Refusal) -> &'static str {
    match why {
        Refusal::OtherCluster(_) => "gossip of a node of another cluster was dropped (cluster.name differs)",
        Refusal::UnknownKey(_) | Refusal::Unsealed => {
            "gossip of a node with our cluster's name and another secret was dropped, or it was damaged on its way"
        }
        Refusal::Malformed => "gossip that is not understood was dropped: does that node run another release?",
        Refusal::Garbage | Refusal::Oversized => "datagrams that are no gossip were dropped",
    }
}

/// Looks the names of `cluster.join` up, again and again: addresses change.
pub(super) async fn resolve(
    names: Names,
    join: Vec<String>,
    wishes: mpsc::UnboundedSender<Wish>,
    roll: watch::Receiver<Arc<Roll>>,
) {
    let mut known = Vec::new();
    loop {
        let found = seeds::look_up(&names, &join).await;
        if found != known {
            known.clone_from(&found);
            if wishes.send(Wish::Seeds(found)).is_err() {
                return;
            }
        }
        let alone = roll.borrow().alive.is_empty();
        tokio::time::sleep(if alone { seeds::SOON } else { seeds::LATER }).await;
    }
}
