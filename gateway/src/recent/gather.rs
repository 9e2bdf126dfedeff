//! Asks lanes, owners, the process and the control plane once a second how they are.
//!
//! With many subscribers they are counted less often, and always in pieces: looking must not cost what is looked at.

use super::series::{Counters, Gauges, Reading};
use super::timeline::{NodeState, Picture};
use super::{SHORT_MS, Use};
use crate::clock;
use crate::control::{self, Status};
use crate::node::Node;
use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::time::Duration;
use tidings_protocol::Version;
use tidings_router::edge::{LaneStats, Tally};
use tokio::time::MissedTickBehavior;

/// Subscribers that may be counted each second.
const COUNTED_A_SECOND: usize = 20_000;

/// Remembers, as long as the node lives.
pub(crate) async fn record(node: Arc<Node>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(SHORT_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tally = Tally::default();
    let mut count_in = 0;
    let mut last: Option<Picture> = None;
    loop {
        ticks.tick().await;
        if count_in == 0 {
            tally = count(&node).await;
            let subscribers = tally.web_sockets + tally.event_streams + tally.polls + tally.idle_sessions;
            count_in = subscribers / COUNTED_A_SECOND + 1;
        }
        count_in -= 1;
        let Some((reading, uses)) = read(&node, &tally).await else {
            return;
        };
        let now = picture(&node, last.as_ref());
        let mut memory = node.recent.memory();
        memory.short.take(&reading);
        memory.long.take(&reading);
        memory.uses = uses;
        if last.as_ref() != Some(&now) {
            memory.stamp += 1;
            memory.timeline.compare(reading.wall_ms, last.as_ref(), &now);
            last = Some(now);
        }
    }
}

async fn count(node: &Node) -> Tally {
    let mut sum = Tally::default();
    for lane in &node.lanes {
        sum.add(&lane.tally().await.unwrap_or_default());
    }
    sum
}

/// All lanes and owners together.
#[derive(Default)]
struct Sums {
    lanes: LaneStats,
    resyncs: u64,
    /// Of that lane which has most.
    hint_bytes: usize,
    lingering: usize,
    /// Of that lane which has heard least.
    closed: Option<Version>,
    versions: usize,
    version_bytes: usize,
    revisions: usize,
    keys: usize,
    coalesced: u64,
}

impl Sums {
    /// `None` once the node ends.
    async fn of(node: &Node) -> Option<Self> {
        let mut sums = Self::default();
        for lane in &node.lanes {
            let stats = lane.figures().await?;
            sums.lanes.told += stats.told;
            sums.lanes.subscriptions += stats.subscriptions;
            sums.lanes.objects += stats.objects;
            sums.lanes.delays.add(&stats.delays);
            sums.coalesced += stats.coalesced;
            sums.resyncs += stats.resyncs.iter().map(|(_, count)| count).sum::<u64>();
            sums.hint_bytes = sums.hint_bytes.max(stats.hint_bytes);
            sums.lingering = sums.lingering.max(stats.lingering);
            sums.closed = Some(sums.closed.map_or(stats.closed, |closed| closed.min(stats.closed)));
        }
        for owner in &node.owners {
            let stats = owner.report().await?.stats;
            sums.versions += stats.objects;
            sums.version_bytes += stats.bytes;
            sums.revisions += stats.revisions;
            sums.keys += stats.idempotency_keys;
            sums.coalesced += stats.coalesced;
        }
        Some(sums)
    }

    fn uses(&self, node: &Node, sessions: usize) -> Vec<Use> {
        let (limits, owner) = (&node.config.limits, &node.config.owner);
        let open = usize::try_from(node.admission.open()).unwrap_or(usize::MAX);
        [
            ("limits.connections", open, node.admission.most()),
            ("limits.subscriptions", self.lanes.subscriptions, limits.subscriptions),
            ("limits.sessions", sessions, limits.sessions),
            ("limits.lingering_objects", self.lingering, limits.lingering_objects),
            ("limits.hint_bytes", self.hint_bytes, limits.hint_bytes),
            (
                "owner.version_table_bytes",
                self.version_bytes,
                owner.version_table_bytes,
            ),
            ("owner.revisions", self.revisions, owner.revisions),
            ("owner.idempotency_keys", self.keys, owner.idempotency_keys),
        ]
        .map(|(limit, used, most)| Use {
            limit,
            used: used as u64,
            most,
        })
        .into()
    }
}

/// `None` once the node ends.
async fn read(node: &Node, tally: &Tally) -> Option<(Reading, Vec<Use>)> {
    let sums = Sums::of(node).await?;
    let now = clock::now();
    let lag_us = sums.closed.and_then(Version::known);
    let lag_us = lag_us.map(|closed| now.wall_us.saturating_sub(closed.0));
    let counters = Counters {
        published: node.metrics.published.get(),
        told: sums.lanes.told,
        coalesced: sums.coalesced,
        refused: node.metrics.refusals().map(|(_, count)| count).sum::<u64>() + node.metrics.rejected.get(),
        requests: node.metrics.requests.get(),
        resyncs: sums.resyncs,
        cpu_us: cpu_us(),
    };
    let gauges = Gauges {
        open: node.admission.open(),
        web_sockets: tally.web_sockets as u64,
        event_streams: tally.event_streams as u64,
        polls: tally.polls as u64,
        sessions: tally.idle_sessions as u64,
        busy: tally.busy as u64,
        pending: tally.pending as u64,
        subscriptions: sums.lanes.subscriptions as u64,
        watched: sums.lanes.objects as u64,
        versions: sums.versions as u64,
        memory: memory_bytes(),
        lag_ms: lag_us.unwrap_or(0) / 1000,
    };
    let uses = sums.uses(node, tally.idle_sessions);
    let reading = Reading {
        mono_us: now.mono_us,
        wall_ms: now.wall_us / 1000,
        counters,
        gauges,
        delays: sums.lanes.delays,
    };
    Some((reading, uses))
}

/// Processor time of this process.
fn cpu_us() -> u64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    u64::try_from(used.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(used.tv_nsec).unwrap_or(0) / 1_000
}

/// Memory that this process occupies, zero where the system does not say.
fn memory_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

fn picture(node: &Node, earlier: Option<&Picture>) -> Picture {
    match &node.control {
        Some(control) => together(node, control, earlier),
        None => {
            let me = NodeState {
                name: node.name.clone(),
                incarnation: 0,
                alive: true,
                member: true,
                draining: node.is_draining(),
                voter: true,
            };
            Picture {
                me: node.name.clone(),
                nodes: [(tidings_protocol::NodeId(0), me)].into(),
                ..Picture::default()
            }
        }
    }
}

fn together(node: &Node, control: &control::Handle, earlier: Option<&Picture>) -> Picture {
    let Status {
        view, lease_left_us, ..
    } = control.status();
    let nodes = view.map.nodes().map(|(id, agreed)| {
        let peer = view.peers.get(&id);
        let is_me = id == view.me.node;
        let state = NodeState {
            name: match peer {
                _ if is_me => node.name.clone(),
                Some(peer) => peer.name.clone(),
                None => String::new(),
            },
            incarnation: agreed.incarnation,
            alive: is_me || peer.is_some_and(|peer| peer.alive),
            member: true,
            draining: agreed.draining || (is_me && node.is_draining()),
            voter: view.voters.contains(&id),
        };
        (id, state)
    });
    let mut picture = Picture {
        revision: view.map.revision(),
        me: node.name.clone(),
        nodes: nodes.collect(),
        leader: view.leader,
        lease: node.config.roles().owner.then_some(lease_left_us > 0),
        ..Picture::default()
    };
    match earlier.filter(|earlier| earlier.revision == picture.revision) {
        Some(earlier) => picture.keep_shards(earlier),
        None => picture.set_shards(&view.map),
    }
    picture
}
