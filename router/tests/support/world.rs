//! A small deterministic world: real owners and real lanes, roads between them that take their time, and clocks that
//! the test pushes. It knows no clients: what the lanes write and answer is handed out for whoever holds the other end.

use crate::random::Random;
use std::collections::{BTreeMap, VecDeque};
use tidings_protocol::codec::PollAnswer;
use tidings_protocol::hint::SharedHint;
use tidings_protocol::peer::{EdgeToOwner, FloorCause, OwnerToEdge};
use tidings_protocol::{ClusterId, Epoch, HashKey, Hint, ObjectHash, ShardCount, ShardId, Version};
use tidings_router::edge::{self, Lane, SubscriberKey};
use tidings_router::owner::{self, Input, Owner, Publish, PublishExtra, Published};

/// The highest ceiling: none.
pub const NO_CEILING: Version = Version(Version::LIMIT - 1);
use tidings_router::{MonoUs, Now};

pub const CLUSTER: ClusterId = ClusterId(7);
/// Versions count from here: 2026, so that the clock may jump back without reaching zero.
pub const DAWN_US: u64 = 1_790_000_000_000_000;

/// What a world is made of.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub shards: u16,
    pub owners: usize,
    pub lanes: usize,
    pub version_table_bytes: usize,
    pub batch_bytes: usize,
    pub hint_bytes: usize,
    pub delay_us: (u64, u64),
    pub objects_per_subscriber: usize,
    pub at_least_us: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            shards: 4,
            owners: 2,
            lanes: 2,
            version_table_bytes: 64 << 20,
            batch_bytes: 64 << 10,
            hint_bytes: 1 << 20,
            delay_us: (1_000, 1_000),
            objects_per_subscriber: 1000,
            at_least_us: 2_000_000,
        }
    }
}

/// What a lane hands to the other end.
#[derive(Debug)]
pub enum Event {
    Written {
        lane: usize,
        who: SubscriberKey,
        bytes: bytes::Bytes,
        last: bool,
    },
    Answered {
        lane: usize,
        who: SubscriberKey,
        answer: Box<PollAnswer>,
    },
    Superseded {
        lane: usize,
        who: SubscriberKey,
    },
    Cut {
        lane: usize,
        who: SubscriberKey,
    },
}

/// One change that an owner acknowledged.
#[derive(Clone, Debug)]
pub struct Change {
    pub version: Version,
    /// When, counted in steps of the world.
    pub step: u64,
    pub hint: Option<SharedHint>,
}

/// Both directions between one lane and one owner, each first in, first out.
#[derive(Debug, Default)]
pub struct Road {
    generation: u32,
    /// As the owner sees it, and as the lane does.
    up: (bool, bool),
    to_lane: VecDeque<(MonoUs, u32, OwnerToEdge)>,
    to_owner: VecDeque<(MonoUs, u32, EdgeToOwner)>,
    /// When the lane hears that the link broke, and when the link comes up again.
    lane_hears_us: Option<MonoUs>,
    up_again_us: Option<MonoUs>,
}

pub struct World {
    pub now: Now,
    pub step: u64,
    pub shape: Shape,
    pub key: HashKey,
    pub shards: ShardCount,
    pub owners: Vec<Owner>,
    pub lanes: Vec<Lane>,
    /// Who owns each shard, if anybody does, and the last epoch.
    pub map: Vec<(Option<usize>, u64)>,
    pub history: BTreeMap<String, Vec<Change>>,
    /// Higher than every version that was given or closed: where the next floor may be.
    pub highest: u64,
    /// Tables that were lost so far.
    pub lost: u64,
    pub refused: u64,
    pub random: Random,
    pub events: VecDeque<Event>,
    pub roads: Vec<Vec<Road>>,
    /// Owners that do not know yet that a shard is another's.
    pub replaced: Vec<(usize, u16)>,
    /// When owners without a lease get one again.
    pub leases_us: Vec<Option<MonoUs>>,
    request: u64,
}

pub fn owner_config(shape: &Shape) -> owner::Config {
    owner::Config {
        shards: ShardCount::new(shape.shards).expect("a power of two"),
        version_table_bytes: shape.version_table_bytes,
        revisions: 100,
        idempotency_keys: 100,
        idempotency_window_us: 1_000_000,
        link_window_changes: 16,
        link_hint_bytes: 1 << 20,
        closed_busy_us: 50_000,
        closed_idle_us: 1_000_000,
    }
}

pub fn lane_config(shape: &Shape) -> edge::Config {
    edge::Config {
        cluster: CLUSTER,
        key: HashKey::new([3; 16]),
        shards: ShardCount::new(shape.shards).expect("a power of two"),
        owners: shape.owners,
        objects_per_subscriber: shape.objects_per_subscriber,
        subscriptions: 1_000_000,
        batch_bytes: shape.batch_bytes,
        hint_bytes: shape.hint_bytes,
        cursor_us: 100_000,
        ping_us: 3_000_000,
        comment_us: 2_000_000,
        pong_us: 2_000_000,
        stuck_us: 10_000_000,
        linger_us: 1_000_000,
        lingering_objects: 20,
        session_us: 4_000_000,
        idle_sessions: 50,
        at_least_us: shape.at_least_us,
        handled_every: 4,
    }
}

impl World {
    /// Shards are dealt out in turn, without a floor; all links are up.
    pub fn new(shape: Shape, seed: u64) -> Self {
        let config = lane_config(&shape);
        let mut world = Self {
            now: Now {
                mono_us: 5_000_000,
                wall_us: DAWN_US,
            },
            step: 0,
            shape,
            key: config.key,
            shards: config.shards,
            owners: (0..shape.owners).map(|_| Owner::new(owner_config(&shape))).collect(),
            lanes: (0..shape.lanes).map(|_| Lane::new(config.clone())).collect(),
            map: vec![(None, 0); shape.shards.into()],
            history: BTreeMap::new(),
            highest: DAWN_US,
            lost: 0,
            refused: 0,
            random: Random(seed),
            events: VecDeque::new(),
            roads: (0..shape.lanes)
                .map(|_| (0..shape.owners).map(|_| Road::default()).collect())
                .collect(),
            replaced: Vec::new(),
            leases_us: vec![None; shape.owners],
            request: 0,
        };
        for shard in 0..shape.shards {
            world.assign(shard, usize::from(shard) % shape.owners, Version::ZERO);
        }
        for lane in 0..shape.lanes {
            for owner in 0..shape.owners {
                world.link_up(lane, owner);
            }
        }
        world
    }

    pub fn hash(&self, object: &str) -> ObjectHash {
        self.key.object(object)
    }

    pub fn shard(&self, object: &str) -> ShardId {
        self.shards.shard(self.hash(object))
    }

    /// Calls an owner and sends what it says.
    pub fn owner(
        &mut self,
        owner: usize,
        step: impl FnOnce(&mut Owner, Now, &mut Vec<owner::Output>),
    ) -> Vec<Published> {
        let mut out = Vec::new();
        step(&mut self.owners[owner], self.now, &mut out);
        let mut published = Vec::new();
        for output in out {
            match output {
                owner::Output::Published { results, .. } => published = results,
                owner::Output::ToEdge {
                    link,
                    generation,
                    frame,
                } => {
                    if let OwnerToEdge::Closed { version } = frame {
                        self.highest = self.highest.max(version.0);
                    }
                    let delay_us = self.delay_us();
                    let road = &mut self.roads[link as usize][owner];
                    let last_us = road.to_lane.back().map_or(0, |(at, ..)| *at);
                    road.to_lane
                        .push_back((last_us.max(self.now.mono_us + delay_us), generation, frame));
                }
            }
        }
        published
    }

    /// Calls a lane and passes on what it wants done; then takes its writes.
    pub fn lane<T>(&mut self, lane: usize, step: impl FnOnce(&mut Lane, Now, &mut Vec<edge::Output>) -> T) -> T {
        self.step += 1;
        let mut out = Vec::new();
        let value = step(&mut self.lanes[lane], self.now, &mut out);
        self.take(lane, out);
        value
    }

    /// Takes the next write of a lane, if it has one. Its sink may say that it is blocked before the next is taken.
    pub fn write(&mut self, lane: usize) -> bool {
        let mut out = Vec::new();
        let write = self.lanes[lane].next_write(self.now, &mut out);
        self.take(lane, out);
        let some = write.is_some();
        if let Some(write) = write {
            self.events.push_back(Event::Written {
                lane,
                who: write.who,
                bytes: write.bytes,
                last: write.last,
            });
        }
        some
    }

    fn take(&mut self, lane: usize, out: Vec<edge::Output>) {
        for output in out {
            match output {
                edge::Output::ToOwner {
                    owner,
                    generation,
                    frame,
                } => {
                    let delay_us = self.delay_us();
                    let road = &mut self.roads[lane][owner];
                    let last_us = road.to_owner.back().map_or(0, |(at, ..)| *at);
                    road.to_owner
                        .push_back((last_us.max(self.now.mono_us + delay_us), generation, frame));
                }
                edge::Output::Answer { who, answer } => self.events.push_back(Event::Answered { lane, who, answer }),
                edge::Output::Superseded { who } => self.events.push_back(Event::Superseded { lane, who }),
                edge::Output::Cut { who, .. } => self.events.push_back(Event::Cut { lane, who }),
                edge::Output::MayRequest { .. } => {}
            }
        }
    }

    fn delay_us(&mut self) -> u64 {
        let (least, most) = self.shape.delay_us;
        self.random.range(least, most)
    }

    /// Publishes at the owner of the object's shard; `None` if it has none.
    pub fn publish(&mut self, object: &str, hint: Option<Hint>) -> Option<Version> {
        self.step += 1;
        let shard = usize::from(self.shard(object).0);
        let owner = self.map[shard].0?;
        self.request += 1;
        let (request, hash) = (self.request, self.hash(object));
        let hint = hint.map(SharedHint::new);
        let extra = hint.clone().map(|hint| {
            Box::new(PublishExtra {
                hint: Some(hint),
                ..PublishExtra::default()
            })
        });
        let changes = vec![Publish { object: hash, extra }];
        let results = self.owner(owner, |owner, now, out| {
            owner.handle(now, Input::Publish { request, changes }, out)
        });
        let version = match results.first().copied() {
            Some(Published::Accepted(version)) => version,
            // Its lease is over, or the ceiling does not reach where the epoch begins yet.
            Some(Published::Paused(_)) => {
                self.refused += 1;
                return None;
            }
            other => panic!("the owner refused: {other:?}"),
        };
        self.highest = self.highest.max(version.0);
        self.history.entry(object.into()).or_default().push(Change {
            version,
            step: self.step,
            hint,
        });
        Some(version)
    }

    /// A shard gets an owner in a new epoch, with an empty table.
    pub fn assign(&mut self, shard: u16, owner: usize, floor: Version) {
        self.tell_replaced();
        self.step += 1;
        let entry = &mut self.map[usize::from(shard)];
        *entry = (Some(owner), entry.1 + 1);
        let epoch = Epoch(entry.1);
        if floor > Version::ZERO {
            self.lost += 1;
            self.highest = self.highest.max(floor.0);
        }
        let input = Input::Assign {
            shards: vec![ShardId(shard)],
            epoch,
            floor,
            cause: FloorCause::Lost,
        };
        self.owner(owner, |owner, now, out| owner.handle(now, input, out));
    }

    pub fn release(&mut self, shard: u16) {
        self.tell_replaced();
        self.step += 1;
        if let Some(owner) = self.map[usize::from(shard)].0.take() {
            let input = Input::Release {
                shards: vec![ShardId(shard)],
            };
            self.owner(owner, |owner, now, out| owner.handle(now, input, out));
        }
    }

    /// Owners that were replaced hear of it.
    pub fn tell_replaced(&mut self) {
        for (owner, shard) in std::mem::take(&mut self.replaced) {
            self.step += 1;
            let shards = vec![ShardId(shard)];
            self.owner(owner, |owner, now, out| {
                owner.handle(now, Input::Release { shards }, out);
                owner.set_ceiling(NO_CEILING);
            });
        }
    }

    /// Leases that are due.
    pub fn give_leases(&mut self, now_us: MonoUs) {
        for (owner, at_us) in self.owners.iter_mut().zip(&mut self.leases_us) {
            if at_us.is_some_and(|at_us| at_us <= now_us) {
                *at_us = None;
                owner.set_lease(MonoUs::MAX);
            }
        }
    }

    /// A floor above everything that any owner gave or closed.
    pub fn next_floor(&mut self, ahead_us: u64) -> Version {
        Version(self.highest.max(self.now.wall_us) + 1 + ahead_us)
    }

    /// An owner dies with its tables and comes back with none; its links break. Its shards have no owner.
    pub fn crash(&mut self, owner: usize) {
        self.tell_replaced();
        for lane in 0..self.shape.lanes {
            self.cut(lane, owner, 50_000, 200_000);
        }
        self.owners[owner] = Owner::new(owner_config(&self.shape));
        self.leases_us[owner] = None;
        for entry in &mut self.map {
            if entry.0 == Some(owner) {
                entry.0 = None;
            }
        }
    }

    /// A link breaks. The owner notices at once; the lane later, and may read what was under way until then. It comes up
    /// again by itself.
    pub fn cut(&mut self, lane: usize, owner: usize, lane_hears_us: u64, up_again_us: u64) {
        let road = &mut self.roads[lane][owner];
        if !road.up.0 {
            return;
        }
        road.up.0 = false;
        road.to_owner.clear();
        road.lane_hears_us = Some(self.now.mono_us + lane_hears_us);
        road.up_again_us = Some(self.now.mono_us + up_again_us.max(lane_hears_us));
        let generation = road.generation;
        let input = Input::LinkDown {
            link: lane as u32,
            generation,
        };
        self.owner(owner, |owner, now, out| owner.handle(now, input, out));
    }

    fn link_up(&mut self, lane: usize, owner: usize) {
        let road = &mut self.roads[lane][owner];
        road.generation += 1;
        road.up = (true, true);
        let generation = road.generation;
        self.lane(lane, |lane, now, out| lane.owner_up(now, owner, generation, out));
        let input = Input::LinkUp {
            link: lane as u32,
            generation,
        };
        self.owner(owner, |owner, now, out| owner.handle(now, input, out));
    }

    /// When the next thing happens by itself.
    fn next_us(&self) -> Option<MonoUs> {
        let roads = self.roads.iter().flatten().flat_map(|road| {
            let to_lane = road.to_lane.front().map(|(at, ..)| *at);
            let to_owner = road.to_owner.front().map(|(at, ..)| *at);
            [to_lane, to_owner, road.lane_hears_us, road.up_again_us]
        });
        let owners = self.owners.iter().map(Owner::next_deadline);
        let lanes = self.lanes.iter().map(Lane::next_deadline);
        let leases = self.leases_us.iter().copied();
        roads.chain(owners).chain(lanes).chain(leases).flatten().min()
    }

    /// Whether nothing is under way between lanes and owners but closed versions.
    pub fn quiet(&self) -> bool {
        self.owners.iter().all(|owner| owner.stats().pending == 0)
            && self.map.iter().all(|(owner, _)| owner.is_some())
            && self.roads.iter().flatten().all(|road| {
                let closed = |(_, _, frame): &(MonoUs, u32, OwnerToEdge)| matches!(frame, OwnerToEdge::Closed { .. });
                road.up == (true, true) && road.to_owner.is_empty() && road.to_lane.iter().all(closed)
            })
    }

    /// Goes on to the next thing that happens, but not past `until_us`; `false` if there is none until then.
    pub fn advance(&mut self, until_us: MonoUs) -> bool {
        let Some(at_us) = self
            .next_us()
            .map(|at| at.max(self.now.mono_us))
            .filter(|at| *at <= until_us)
        else {
            self.set_clock(until_us);
            return false;
        };
        self.set_clock(at_us);
        for lane in 0..self.shape.lanes {
            for owner in 0..self.shape.owners {
                self.drive(lane, owner);
            }
        }
        self.give_leases(at_us);
        for owner in 0..self.shape.owners {
            if self.owners[owner].next_deadline().is_some_and(|due| due <= at_us) {
                self.owner(owner, |owner, now, out| owner.handle_deadline(now, out));
            }
        }
        for lane in 0..self.shape.lanes {
            if self.lanes[lane].next_deadline().is_some_and(|due| due <= at_us) {
                self.lane(lane, |lane, now, out| lane.handle_deadline(now, out));
            }
        }
        true
    }

    fn set_clock(&mut self, mono_us: MonoUs) {
        self.now.wall_us += mono_us - self.now.mono_us;
        self.now.mono_us = mono_us;
    }

    /// What is due on one road.
    fn drive(&mut self, lane: usize, owner: usize) {
        let now_us = self.now.mono_us;
        let due = |at: Option<MonoUs>| at.is_some_and(|at| at <= now_us);
        while due(self.roads[lane][owner].to_lane.front().map(|(at, ..)| *at)) {
            let Some((_, generation, frame)) = self.roads[lane][owner].to_lane.pop_front() else {
                break;
            };
            self.lane(lane, |lane, now, out| {
                lane.owner_frames(now, owner, generation, vec![frame], out)
            });
        }
        while due(self.roads[lane][owner].to_owner.front().map(|(at, ..)| *at)) {
            let Some((_, generation, frame)) = self.roads[lane][owner].to_owner.pop_front() else {
                break;
            };
            let input = Input::FromEdge {
                link: lane as u32,
                generation,
                frame,
            };
            self.step += 1;
            self.owner(owner, |owner, now, out| owner.handle(now, input, out));
        }
        if due(self.roads[lane][owner].lane_hears_us) {
            self.roads[lane][owner].lane_hears_us = None;
            self.roads[lane][owner].up.1 = false;
            let generation = self.roads[lane][owner].generation;
            self.lane(lane, |lane, now, out| lane.owner_down(now, owner, generation, out));
        }
        if due(self.roads[lane][owner].up_again_us) {
            self.roads[lane][owner].up_again_us = None;
            self.link_up(lane, owner);
        }
    }
}
