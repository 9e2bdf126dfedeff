//! An owner and the clocks, which a test pushes.

use tidings_protocol::peer::{EdgeToOwner, FloorCause, OwnerToEdge};
use tidings_protocol::{Epoch, ObjectHash, ShardCount, ShardId, Version};
use tidings_router::Now;
use tidings_router::owner::{Config, Input, LinkId, Output, Owner, Publish, Published};

pub const START_US: u64 = 1_795_000_000_000_000;

pub fn config() -> Config {
    Config {
        shards: ShardCount::new(4).unwrap(),
        version_table_bytes: 64 << 20,
        revisions: 1_000,
        idempotency_keys: 1_000,
        idempotency_window_us: 300_000_000,
        link_window_changes: 4_096,
        link_hint_bytes: 1 << 20,
        closed_busy_us: 50_000,
        closed_idle_us: 1_000_000,
    }
}

/// An owner and the clocks, which a test pushes.
pub struct Lab {
    pub owner: Owner,
    pub now: Now,
}

impl Lab {
    /// All shards are owned since epoch 1.
    pub fn new(config: Config) -> Self {
        let mut lab = Self {
            owner: Owner::new(config),
            now: Now {
                mono_us: 5_000_000,
                wall_us: START_US,
            },
        };
        lab.assign(&[0, 1, 2, 3], 1, START_US);
        lab
    }

    pub fn give(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.owner.handle(self.now, input, &mut out);
        out
    }

    pub fn assign(&mut self, shards: &[u16], epoch: u64, floor: u64) -> Vec<Output> {
        let shards = shards.iter().copied().map(ShardId).collect();
        let (epoch, floor) = (Epoch(epoch), Version(floor));
        self.give(Input::Assign {
            shards,
            epoch,
            floor,
            cause: FloorCause::Lost,
        })
    }

    pub fn up(&mut self, link: LinkId) -> Vec<OwnerToEdge> {
        frames(self.give(Input::LinkUp { link, generation: 1 }))
    }

    pub fn say(&mut self, link: LinkId, frame: EdgeToOwner) -> Vec<OwnerToEdge> {
        frames(self.give(Input::FromEdge {
            link,
            generation: 1,
            frame,
        }))
    }

    pub fn register(&mut self, link: LinkId, objects: &[u64]) -> Vec<OwnerToEdge> {
        self.say(
            link,
            EdgeToOwner::Register {
                objects: objects.iter().copied().map(object).collect(),
            },
        )
    }

    pub fn publish(&mut self, objects: &[u64]) -> Vec<Output> {
        let changes = objects
            .iter()
            .map(|number| Publish {
                object: object(*number),
                extra: None,
            })
            .collect();
        self.give(Input::Publish { request: 9, changes })
    }

    pub fn after(&mut self, us: u64) -> Vec<OwnerToEdge> {
        self.now.mono_us += us;
        self.now.wall_us = self.now.wall_us.saturating_add(us);
        let mut out = Vec::new();
        self.owner.handle_deadline(self.now, &mut out);
        frames(out)
    }
}

pub fn object(number: u64) -> ObjectHash {
    ObjectHash(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

pub fn frames(out: Vec<Output>) -> Vec<OwnerToEdge> {
    let frame = |output| match output {
        Output::ToEdge { frame, .. } => Some(frame),
        Output::Published { .. } => None,
    };
    out.into_iter().filter_map(frame).collect()
}

pub fn results(out: &[Output]) -> &[Published] {
    match out.last() {
        Some(Output::Published { results, .. }) => results,
        _ => panic!("the answer is not last"),
    }
}

pub fn closed(frames: &[OwnerToEdge]) -> Vec<Version> {
    let version = |frame: &OwnerToEdge| match frame {
        OwnerToEdge::Closed { version } => Some(*version),
        _ => None,
    };
    frames.iter().filter_map(version).collect()
}
