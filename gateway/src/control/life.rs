//! This node's life in the cluster: it makes itself known, renews its lease, and shows what it may do as a [`View`].
//!
//! A grant and the map that it was given with are shown together, or the map first (`docs/architecture.md`, *Leases*). It
//! does not know owners.

use super::plane::{Part, Plane};
use super::words::{Answer, Request};
use super::{Peer, View};
use crate::clock;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tidings_protocol::{Epoch, NodeId, ShardId, Version};
use tidings_router::control::command::{Command, Refusal};
use tidings_router::control::lease::{Grant, Lease};
use tidings_router::control::map::{Map, NodeInfo, Process, Roles};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

/// It is looked so often whether this node is registered as it is.
const REGISTER_EVERY: Duration = Duration::from_millis(250);
/// A proposal to be registered waits at most so long for a leader.
const PATIENCE: Duration = Duration::from_secs(5);
/// A member of the cluster that nobody leads for so long may have been forgotten: it asks to join again.
const FORGOTTEN: Duration = Duration::from_secs(3);
/// Without a leader a lease is asked for again after so long.
const NO_LEADER: Duration = Duration::from_millis(50);

/// What owners tell.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) highest: Arc<AtomicU64>,
    pub(super) on_disk: watch::Receiver<Vec<(ShardId, Epoch)>>,
}

/// What this node says of itself.
pub(super) fn info(plane: &Plane) -> NodeInfo {
    let settings = &plane.settings;
    NodeInfo {
        roles: Roles {
            owner: settings.owner,
            edge: settings.edge,
        },
        zone: settings.zone.clone(),
        peer_address: plane.address.to_string(),
        client_address: settings.client_url.clone(),
    }
}

/// What is known before anything was granted.
pub(super) fn first_view(plane: &Plane, part: &Part) -> View {
    let lease = Lease::new(plane.me, 0);
    let map = Arc::clone(&part.consensus.applied().borrow().map);
    view(plane, part, &map, &lease, &BTreeMap::new())
}

/// `before` are the peers that were shown last: who is gone keeps the name it had.
fn view(plane: &Plane, part: &Part, map: &Arc<Map>, lease: &Lease, before: &BTreeMap<NodeId, Peer>) -> View {
    let over = plane.over.borrow().is_some();
    View {
        me: plane.me,
        map: Arc::clone(map),
        until_us: if over { 0 } else { lease.until_us() },
        ceiling: lease.ceiling(),
        confirmed: lease.until_us() > 0,
        peers: Arc::new(peers(plane, map, before)),
        leader: part.consensus.office().borrow().leader,
        voters: part.consensus.standing().voters,
    }
}

fn peers(plane: &Plane, map: &Map, before: &BTreeMap<NodeId, Peer>) -> BTreeMap<NodeId, Peer> {
    let roll = Arc::clone(&plane.roll.borrow());
    let others = map.nodes().filter(|(node, _)| *node != plane.me.node);
    let peers = others.filter_map(|(node, known)| {
        let gossip = roll
            .alive
            .get(&node)
            .filter(|peer| peer.incarnation.0 == known.incarnation);
        let told = gossip.and_then(|peer| peer.metadata.node_addr);
        let address: SocketAddr = told.or_else(|| known.info.peer_address.parse().ok())?;
        let peer = Peer {
            process: Process {
                node,
                incarnation: known.incarnation,
            },
            name: gossip.map_or_else(
                || before.get(&node).map_or_else(String::new, |peer| peer.name.clone()),
                |peer| peer.metadata.name.as_str().to_owned(),
            ),
            address,
            client_url: known.info.client_address.clone(),
            alive: gossip.is_some(),
        };
        Some((node, peer))
    });
    peers.collect()
}

/// See the module.
struct Life {
    plane: Arc<Plane>,
    part: Part,
    told: Told,
    lease: Lease,
    grants: mpsc::UnboundedSender<Option<Grant>>,
    shown: watch::Sender<Arc<View>>,
    term: u64,
    /// The revision of the last map under which a lease was asked for ahead of time.
    hurried: u64,
}

/// Renews and shows for as long as this node is part of the cluster.
pub(super) async fn run(plane: Arc<Plane>, part: Part, told: Told, shown: watch::Sender<Arc<View>>) {
    let every_us = u64::try_from(plane.settings.lease.as_micros() / 4).unwrap_or(u64::MAX);
    let (grants, mut came) = mpsc::unbounded_channel();
    let (mut applied, mut office) = (part.consensus.applied(), part.consensus.office());
    let (mut roll, mut over) = (plane.roll.clone(), plane.over.subscribe());
    let owner = plane.settings.owner;
    let mut life = Life {
        lease: Lease::new(plane.me, every_us),
        plane,
        part,
        told,
        grants,
        shown,
        term: 0,
        hurried: 0,
    };
    loop {
        life.show();
        let due = owner && life.may_ask();
        let deadline = tokio::time::sleep_until(clock::instant(life.lease.next_deadline()));
        tokio::select! {
            Some(grant) = came.recv() => life.granted(grant),
            changed = applied.changed() => if changed.is_err() { return },
            changed = office.changed() => if changed.is_err() { return } else { life.lease.hurry() },
            changed = roll.changed() => if changed.is_err() { return },
            changed = over.changed() => if changed.is_err() { return },
            () = deadline, if due => life.ask(),
        }
    }
}

impl Life {
    /// Whether a lease may be asked for: the map knows this life, and nothing ended it.
    fn may_ask(&self) -> bool {
        let applied = self.part.consensus.applied();
        let known = applied.borrow().map.is_current(self.plane.me);
        known && self.plane.over.borrow().is_none()
    }

    fn ask(&mut self) {
        let highest = Version(self.told.highest.load(Ordering::Relaxed));
        let on_disk = self.told.on_disk.borrow().clone();
        let Some(renewal) = self.lease.ask(clock::now(), highest, &on_disk) else {
            return;
        };
        let (plane, grants) = (Arc::clone(&self.plane), self.grants.clone());
        let within = self.plane.settings.lease;
        tokio::spawn(async move {
            let request = |cluster| Request::Renew {
                cluster,
                renewal: renewal.clone(),
            };
            let answered = tokio::time::timeout(within, plane.ask_leader(request, within)).await;
            let grant = match answered {
                Ok(Ok(Answer::Granted(grant))) => Some(grant),
                Ok(_) | Err(_) => None,
            };
            if grant.is_none() {
                // Nobody to ask, or nobody answered: the next question is due in time by itself.
                sleep(NO_LEADER).await;
            }
            _ = grants.send(grant);
        });
    }

    fn granted(&mut self, grant: Option<Grant>) {
        let Some(grant) = grant else {
            self.plane.metrics.renewals_unanswered.inc();
            return;
        };
        self.plane.metrics.renewals.inc();
        let revision = self.part.consensus.applied().borrow().map.revision();
        self.lease.granted(grant, revision);
    }

    /// A shard that is ours in an epoch above what was granted waits for the next grant: it is asked for at once.
    fn hurry_if_new(&mut self, map: &Map) {
        let (me, ceiling) = (self.plane.me, self.lease.ceiling());
        let waits = || {
            map.shards()
                .any(|(_, shard)| shard.owner == Some(me) && shard.begins > ceiling)
        };
        if map.revision() > self.hurried && waits() {
            self.hurried = map.revision();
            self.lease.hurry();
        }
    }

    /// Shows what is known now, if it is anything new.
    fn show(&mut self) {
        let map = Arc::clone(&self.part.consensus.applied().borrow().map);
        self.lease.applied(map.revision());
        self.hurry_if_new(&map);
        let before = Arc::clone(&self.shown.borrow().peers);
        let now = view(&self.plane, &self.part, &map, &self.lease, &before);
        let metrics = &self.plane.metrics;
        let office = *self.part.consensus.office().borrow();
        if office.leader.is_some() && office.term > self.term {
            self.term = office.term;
            metrics.elections.inc();
        }
        let whole = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        metrics.members.set(whole(self.plane.roll.borrow().alive.len() + 1));
        metrics.voters.set(whole(now.voters.len()));
        metrics.is_leader.set(i64::from(office.ours));
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        metrics.map_revision.set(number(map.revision()));
        metrics.term.set(number(office.term));
        metrics
            .applied
            .set(number(self.part.consensus.applied().borrow().entries));
        self.shown.send_if_modified(|shown| {
            let news = !same(shown, &now);
            if news {
                *shown = Arc::new(now);
            }
            news
        });
    }
}

/// Whether nobody would act otherwise on one than on the other.
fn same(one: &View, other: &View) -> bool {
    let numbers = |view: &View| (view.until_us, view.ceiling, view.confirmed, view.leader);
    let map = Arc::ptr_eq(&one.map, &other.map) || one.map == other.map;
    map && numbers(one) == numbers(other) && one.peers == other.peers && one.voters == other.voters
}

/// Shows the term, and who learns.
pub(super) async fn show_standing(part: Part, standing: watch::Sender<(u64, std::collections::BTreeSet<NodeId>)>) {
    let (mut applied, mut office) = (part.consensus.applied(), part.consensus.office());
    loop {
        let now = (office.borrow().term, part.consensus.standing().learners);
        standing.send_if_modified(|shown| std::mem::replace(shown, now.clone()) != now);
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            changed = office.changed() => if changed.is_err() { return },
        }
    }
}

/// Makes this node known, and known again whenever the map has it otherwise.
pub(super) async fn register(plane: Arc<Plane>, part: Part, mut on_disk: watch::Receiver<Vec<(ShardId, Epoch)>>) {
    if plane.settings.identity.is_some() {
        // The cluster does not wait long for the disk of a node that is back: what is on it is said with the first renewal.
        _ = on_disk.changed().await;
    }
    let me = plane.me;
    let mut silent = Duration::ZERO;
    loop {
        let map = Arc::clone(&part.consensus.applied().borrow().map);
        let info = info(&plane);
        let known = map.node(me.node);
        if known.is_some_and(|node| node.incarnation > me.incarnation) {
            return plane.fail("another process was started as this node: was the data directory copied?".to_owned());
        }
        if part.consensus.office().borrow().leader.is_some() {
            silent = Duration::ZERO;
        } else {
            silent += REGISTER_EVERY;
            if silent >= FORGOTTEN {
                silent = Duration::ZERO;
                ask_again(&plane, &part).await;
            }
        }
        let same = known.is_some_and(|node| node.incarnation == me.incarnation && node.info == info);
        if !same && part.consensus.office().borrow().leader.is_some() {
            let command = Command::Register { process: me, info };
            match plane.propose(&[command], PATIENCE).await {
                Ok(outcome) => match outcome.refused.first() {
                    None | Some((_, Refusal::Same)) => {}
                    Some((_, refusal)) => tracing::warn!(%refusal, "this node is not taken into the map"),
                },
                Err(error) => tracing::debug!(%error, "this node could not be registered yet"),
            }
        }
        sleep(REGISTER_EVERY).await;
    }
}

/// Nobody leads, as far as is known here: it may be that the cluster does not know this node any more. Also one that thinks it
/// votes asks: it may have been replaced while it was away, and a node that is known already loses nothing by asking.
async fn ask_again(plane: &Plane, part: &Part) {
    let roll = Arc::clone(&plane.roll.borrow());
    let member = roll.alive.values().find_map(|peer| {
        let ours = peer
            .metadata
            .formed
            .is_some_and(|formed| formed.0 == part.founding.cluster);
        let address = peer.metadata.node_addr.filter(|_| ours && !peer.node.is_edge())?;
        Some((peer.node, address.to_string()))
    });
    if let Some((node, address)) = member {
        plane.join(node, address).await;
    }
}
