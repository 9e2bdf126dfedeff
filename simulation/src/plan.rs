//! What one run is made of, drawn from its seed: how large the cluster is, how it is configured, what goes wrong.

use crate::random::Random;
use crate::sabotage::Sabotage;
use tidings_protocol::{ClusterId, HashKey, ShardCount};
use tidings_router::copies::sender;
use tidings_router::{edge, owner};

/// The cluster that all cursors of a run belong to.
pub const CLUSTER: ClusterId = ClusterId(0x7469_6469_6e67_7331);

/// What is shown by a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing goes wrong: nobody may be told to resync, and nobody may wait.
    Calm,
    /// Things go wrong to the end: nothing false may be said.
    Safety,
    /// Things go wrong, then all faults stop: everything must become whole by itself.
    Healing,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed it was drawn from.
    pub seed: u64,
    /// What is shown.
    pub mode: Mode,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// So many of them have a vote: the first ones.
    pub voters: usize,
    /// The last node starts only then.
    pub late_us: Option<u64>,
    /// How far the ceiling is kept ahead of the clock.
    pub ceiling_ahead_us: u64,
    /// Owners and lanes of each node.
    pub threads: usize,
    /// Shards of the cluster.
    pub shards: ShardCount,
    /// For how long faults come, in microseconds.
    pub stormy_us: u64,
    /// Nodes keep what they know on disks.
    pub disks: bool,
    /// Frames of links are written into bytes and read again on their way.
    pub bytes: bool,
    /// From one node to another, in microseconds.
    pub road_us: (u64, u64),
    /// Mean time between two faults, in microseconds.
    pub fault_every_us: u64,
    /// Which kinds of faults come in this run, as bits.
    pub fault_kinds: u64,
    /// Clients that keep the rules, and those that do not.
    pub clients: usize,
    /// Clients that break the rules.
    pub rogues: usize,
    /// Objects that change.
    pub objects: usize,
    /// All clients poll.
    pub polls_only: bool,
    /// Those who publish.
    pub publishers: usize,
    /// Mean time between two publishes of one publisher, in microseconds.
    pub publish_every_us: u64,
    /// How often in a hundred writes a reader stops reading for a while.
    pub stalls: u64,
    /// Copies of each shard, its owner's among them.
    pub copies: u8,
    /// Nothing goes wrong before all copies are whole again: then nothing acknowledged may be lost, and nobody need fetch.
    pub one_at_a_time: bool,
    /// Instead of faults and troubles that come by chance: those aimed at owners and copies, see `faults/aimed.rs`.
    pub aimed: bool,
    /// For how long a publisher waits for the node it called.
    pub patience_us: u64,
    /// A rule that the shells do not keep.
    pub sabotage: Option<Sabotage>,
    /// The senders' configuration.
    pub sender: sender::Config,
    /// The owners' configuration.
    pub owner: owner::Config,
    /// The lanes' configuration.
    pub lane: edge::Config,
}

impl Plan {
    /// Draws a plan. `mode` overrides what the seed says.
    #[must_use]
    pub fn draw(seed: u64, mode: Option<Mode>) -> Self {
        let mut random = Random::new(seed, 1);
        let drawn = match random.below(10) {
            0 => Mode::Calm,
            1..=2 => Mode::Safety,
            _ => Mode::Healing,
        };
        let mode = mode.unwrap_or(drawn);
        let nodes = *random.pick(&[1, 2, 3, 3, 3, 4, 5]);
        let threads = *random.pick(&[1, 1, 2]);
        let shards = ShardCount::new(1 << random.range(0, 4)).unwrap_or(ShardCount::DEFAULT);
        let tight = mode != Mode::Calm && random.percent(15);
        let mut owner = owner_config(&mut random, shards, tight);
        let lane = lane_config(&mut random, shards, nodes * threads, &owner);
        let mut control = Random::new(seed, 8);
        let voters = if nodes > 3 && control.percent(60) { 3 } else { nodes };
        owner.idempotency_keys = *control.pick(&[40, 400, 4_000]);
        let mut copying = Random::new(seed, 9);
        let copies = *copying.pick(&[1, 2, 2, 2, 3]);
        let copies = if nodes > 1 { copies } else { 1 };
        // Of two voters none may fail: seeds 649 and 2090 lose acknowledged changes, and say so (`docs/testing.md`).
        let one_at_a_time = copies > 1 && mode == Mode::Healing && copying.percent(25);
        let sender = sender_config(&mut copying, shards);
        let late_us = (voters < nodes || mode != Mode::Calm && nodes > 2) && control.percent(40);
        Self {
            seed,
            mode,
            nodes,
            voters,
            late_us: late_us.then(|| control.range(500_000, 9_000_000)),
            ceiling_ahead_us: *control.pick(&[2_000_000, 5_000_000]),
            threads,
            shards,
            stormy_us: random.range(8_000_000, 30_000_000),
            disks: random.percent(65),
            bytes: Random::new(seed, 7).percent(50),
            road_us: *random.pick(&[(50, 500), (200, 3_000), (1_000, 40_000), (100, 200_000)]),
            fault_every_us: *random.pick(&[400_000, 1_000_000, 2_500_000, 6_000_000]),
            fault_kinds: if random.percent(40) {
                u64::MAX
            } else {
                random.word() | random.word()
            },
            clients: random.range(1, 8) as usize,
            rogues: usize::from(random.percent(35)),
            objects: if tight || random.percent(10) {
                random.range(60, 400) as usize
            } else {
                random.range(2, 24) as usize
            },
            polls_only: false,
            publishers: random.range(1, 4) as usize,
            publish_every_us: *random.pick(&[5_000, 30_000, 150_000, 800_000]),
            stalls: *random.pick(&[0, 2, 10]),
            copies,
            one_at_a_time,
            aimed: false,
            patience_us: 4_800_000,
            sabotage: None,
            sender,
            owner,
            lane,
        }
    }

    /// The same seed in a narrower world: one node whose disk is slow and whose process is killed again and again, and
    /// clients who poll for answers so small that most are cut.
    #[must_use]
    pub fn cut_polls(self) -> Self {
        let lane = edge::Config {
            owners: 1,
            batch_bytes: 150,
            subscriptions: 100_000,
            ..self.lane
        };
        Self {
            mode: Mode::Safety,
            nodes: 1,
            voters: 1,
            copies: 1,
            one_at_a_time: false,
            late_us: None,
            threads: 1,
            disks: true,
            fault_kinds: crate::faults::KILLS_AND_SLOW_DISKS,
            fault_every_us: 500_000,
            objects: 20,
            clients: 12,
            polls_only: true,
            publishers: 12,
            publish_every_us: 20_000,
            lane,
            ..self
        }
    }

    /// The same seed in a denser world: shards that change hands every second or two, owners that die just after they
    /// acknowledged, copies that die while they are filled, connections for copies that hang, owners taken for dead that are not,
    /// and publishers who hardly wait before they try again. What chance does is left out.
    #[must_use]
    pub fn failovers(self) -> Self {
        let mut random = Random::new(self.seed, 11);
        let nodes = *random.pick(&[3, 4, 5]);
        let tight = random.percent(30);
        let shards = ShardCount::new(*random.pick(&[1, 2, 4])).unwrap_or(ShardCount::DEFAULT);
        let threads = *random.pick(&[1, 1, 2]);
        Self {
            mode: Mode::Healing,
            nodes,
            voters: nodes,
            late_us: None,
            threads,
            shards,
            copies: *random.pick(&[2, 2, 3]),
            one_at_a_time: false,
            aimed: true,
            patience_us: *random.pick(&[300_000, 1_000_000]),
            stormy_us: 25_000_000,
            disks: true,
            road_us: *random.pick(&[(50, 500), (200, 3_000)]),
            clients: 6,
            rogues: 0,
            objects: if tight { 200 } else { *random.pick(&[3, 8, 60]) },
            publishers: 6,
            publish_every_us: *random.pick(&[8_000, 30_000]),
            stalls: 0,
            sender: sender::Config {
                shards,
                window_bytes: *random.pick(&[300, 1 << 18]),
                silence_us: *random.pick(&[1_500_000, 6_000_000]),
                ..self.sender
            },
            owner: owner::Config {
                shards,
                version_table_bytes: if tight {
                    random.range(2_000, 8_000) as usize
                } else {
                    64 << 20
                },
                idempotency_keys: 4_000,
                ..self.owner
            },
            lane: edge::Config {
                shards,
                owners: nodes * threads,
                ..self.lane
            },
            ..self
        }
    }

    /// Whether the shells do not keep this rule.
    #[must_use]
    pub fn breaks(&self, sabotage: Sabotage) -> bool {
        self.sabotage == Some(sabotage)
    }

    /// The node a lane or owner lives on.
    #[must_use]
    pub fn node_of(&self, machine: usize) -> usize {
        machine / self.threads
    }

    /// Lanes (or owners) of the whole cluster.
    #[must_use]
    pub fn machines(&self) -> usize {
        self.nodes * self.threads
    }

    /// One line that says it all.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "seed {}: {:?}, {} nodes x {} threads, {} shards, {}, {} clients and {} rogues, {} objects, {} publishers every \
             {} us, roads {:?} us, faults every {} us for {} ms{}, window {}, tables {} bytes, {} copies",
            self.seed,
            self.mode,
            self.nodes,
            self.threads,
            self.shards.get(),
            if self.disks { "disks" } else { "memory only" },
            self.clients,
            self.rogues,
            self.objects,
            self.publishers,
            self.publish_every_us,
            self.road_us,
            self.fault_every_us,
            self.stormy_us / 1000,
            if self.one_at_a_time { " one at a time" } else { "" },
            self.owner.link_window_changes,
            self.owner.version_table_bytes,
            self.copies,
        )
    }
}

fn sender_config(random: &mut Random, shards: ShardCount) -> sender::Config {
    sender::Config {
        shards,
        window_bytes: *random.pick(&[300, 4_000, 1 << 18]),
        queue_bytes: *random.pick(&[4_000, 1 << 22]),
        silence_us: *random.pick(&[700_000, 1_500_000]),
        again_us: *random.pick(&[100_000, 400_000]),
    }
}

fn owner_config(random: &mut Random, shards: ShardCount, tight: bool) -> owner::Config {
    owner::Config {
        shards,
        version_table_bytes: if tight {
            random.range(2_000, 12_000) as usize
        } else {
            64 << 20
        },
        revisions: 400,
        idempotency_keys: 4_000,
        idempotency_window_us: 120_000_000,
        link_window_changes: *random.pick(&[4, 16, 64, 1024]),
        link_hint_bytes: *random.pick(&[300, 1 << 20]),
        closed_busy_us: 50_000,
        closed_idle_us: 250_000,
    }
}

fn lane_config(random: &mut Random, shards: ShardCount, owners: usize, owner: &owner::Config) -> edge::Config {
    edge::Config {
        cluster: CLUSTER,
        key: HashKey::new(std::array::from_fn(|_| random.word() as u8)),
        shards,
        owners,
        handled_every: (owner.link_window_changes / 4).max(1),
        objects_per_subscriber: 1_000,
        subscriptions: *random.pick(&[200, 1_000_000]),
        batch_bytes: *random.pick(&[200, 1_000, 64 << 10]),
        hint_bytes: *random.pick(&[300, 1 << 20]),
        cursor_us: 100_000,
        ping_us: 3_000_000,
        comment_us: 2_000_000,
        pong_us: 2_000_000,
        stuck_us: 8_000_000,
        linger_us: *random.pick(&[300_000, 3_000_000]),
        lingering_objects: *random.pick(&[5, 1_000]),
        session_us: 4_000_000,
        idle_sessions: *random.pick(&[2, 50]),
        at_least_us: 1_500_000,
    }
}
