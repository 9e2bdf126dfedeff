//! Random lives of an owner, against a naive model of what it promises.
//!
//! The model is told everything that goes in and comes out. It knows the promises, not how they are kept: for each link
//! what it wants, what it was told and what it was closed up to; for each object its newest version.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "support/moves.rs"]
mod moves;

use moves::Move;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use tidings_protocol::peer::{Changed, EdgeToOwner, FloorCause, OwnerToEdge};
use tidings_protocol::{Epoch, ObjectHash, ShardCount, ShardId, Version};
use tidings_router::Now;
use tidings_router::owner::{Config, Input, LinkId, Output, Owner, Publish, PublishExtra, Published};

const LINKS: u32 = 3;
const WINDOW: u32 = 4;
const WINDOW_US: u64 = 500_000;
const SHARDS: u16 = 4;

fn config(version_table_bytes: usize) -> Config {
    Config {
        shards: ShardCount::new(SHARDS).unwrap(),
        version_table_bytes,
        revisions: 1_000,
        idempotency_keys: 1_000,
        idempotency_window_us: WINDOW_US,
        link_window_changes: WINDOW,
        link_hint_bytes: 1_000,
        closed_busy_us: 50_000,
        closed_idle_us: 1_000_000,
    }
}

/// Objects are few, so that changes meet; a multiplication spreads them over the shards.
fn object(number: u16) -> ObjectHash {
    ObjectHash(u64::from(number).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn shard(object: ObjectHash) -> ShardId {
    ShardCount::new(SHARDS).unwrap().shard(object)
}

#[derive(Clone, Debug)]
enum Step {
    Assign {
        shards: Vec<u16>,
        epoch_up: i64,
        floor_ahead_us: i64,
    },
    Release {
        shards: Vec<u16>,
    },
    Move(Move),
    Lease {
        for_us: Option<u64>,
    },
    Ceiling {
        ahead_us: Option<i64>,
    },
    Up {
        link: LinkId,
    },
    Down {
        link: LinkId,
        stale: bool,
    },
    Register {
        link: LinkId,
        objects: Vec<u16>,
        stale: bool,
    },
    Unregister {
        link: LinkId,
        objects: Vec<u16>,
        stale: bool,
    },
    Handled {
        link: LinkId,
        changes: u32,
    },
    Publish {
        objects: Vec<(u16, Option<u64>, Option<u8>)>,
    },
    Wait {
        us: u64,
        wall_us: i64,
    },
    Deadline,
}

fn step(objects: u16) -> impl Strategy<Value = Step> {
    let shards = || proptest::collection::vec(0..SHARDS + 1, 1..4);
    let link = || 0..LINKS;
    let some = move || proptest::collection::vec(0..objects, 1..12);
    let stale = || proptest::bool::weighted(0.1);
    let change = (
        0..objects,
        proptest::option::weighted(0.2, 0..5_u64),
        proptest::option::weighted(0.1, 0..4_u8),
    );
    prop_oneof![
        2 => (shards(), -1..2_i64, -5_000_000..5_000_000_i64)
            .prop_map(|(shards, epoch_up, floor_ahead_us)| Step::Assign { shards, epoch_up, floor_ahead_us }),
        1 => shards().prop_map(|shards| Step::Release { shards }),
        2 => moves::moves(objects),
        2 => moves::bounds(),
        2 => link().prop_map(|link| Step::Up { link }),
        1 => (link(), stale()).prop_map(|(link, stale)| Step::Down { link, stale }),
        6 => (link(), some(), stale()).prop_map(|(link, objects, stale)| Step::Register { link, objects, stale }),
        2 => (link(), some(), stale()).prop_map(|(link, objects, stale)| Step::Unregister { link, objects, stale }),
        6 => (link(), 1..=WINDOW + 1).prop_map(|(link, changes)| Step::Handled { link, changes }),
        12 => proptest::collection::vec(change, 1..12).prop_map(|objects| Step::Publish { objects }),
        4 => (0..200_000_u64, -1_000_000..1_000_000_i64).prop_map(|(us, wall_us)| Step::Wait { us, wall_us }),
        6 => Just(Step::Deadline),
    ]
}

#[derive(Default)]
struct LinkModel {
    generation: u32,
    up: bool,
    wants: BTreeSet<ObjectHash>,
    owned: BTreeMap<ShardId, (Epoch, Version)>,
    /// The newest version of each object that was said on this link.
    told: BTreeMap<ObjectHash, Version>,
    closed: Version,
    in_flight: u32,
    /// Answers owed, in order.
    registers: Vec<Vec<ObjectHash>>,
}

struct World {
    owner: Owner,
    now: Now,
    links: BTreeMap<LinkId, LinkModel>,
    /// Epoch and floor.
    shards: BTreeMap<ShardId, (Epoch, Version)>,
    /// Newest version and its place among all changes.
    versions: BTreeMap<ObjectHash, Version>,
    newest_of_shard: BTreeMap<ShardId, Version>,
    revisions: BTreeMap<u128, (u64, Version)>,
    answers: BTreeMap<u128, (Version, u64)>,
    closed: Version,
    epoch: u64,
    /// The newest version of each object in any epoch.
    ever: BTreeMap<ObjectHash, Version>,
    /// The first versions that shards were said to begin with.
    begins: BTreeMap<ShardId, Version>,
    lease_us: u64,
    ceiling: Version,
}

impl World {
    fn new(version_table_bytes: usize) -> Self {
        Self {
            owner: Owner::new(config(version_table_bytes)),
            now: Now {
                mono_us: 0,
                wall_us: 1_795_000_000_000_000,
            },
            links: (0..LINKS).map(|link| (link, LinkModel::default())).collect(),
            shards: BTreeMap::new(),
            versions: BTreeMap::new(),
            newest_of_shard: BTreeMap::new(),
            revisions: BTreeMap::new(),
            answers: BTreeMap::new(),
            closed: Version::ZERO,
            epoch: 0,
            ever: BTreeMap::new(),
            begins: BTreeMap::new(),
            lease_us: u64::MAX,
            ceiling: Version(Version::LIMIT - 1),
        }
    }

    fn play(&mut self, step: Step) {
        let deadline = matches!(step, Step::Deadline);
        match step {
            Step::Move(step) => self.take_over(&step),
            Step::Lease { for_us } => self.bound_lease(for_us),
            Step::Ceiling { ahead_us } => self.bound_ceiling(ahead_us),
            Step::Assign {
                shards,
                epoch_up,
                floor_ahead_us,
            } => self.assign(shards, epoch_up, floor_ahead_us),
            Step::Release { shards } => {
                let shards: Vec<_> = shards.into_iter().map(ShardId).collect();
                for shard_id in &shards {
                    self.begins.remove(shard_id);
                    if self.shards.remove(shard_id).is_some() {
                        self.versions.retain(|o, _| shard(*o) != *shard_id);
                        for link in self.links.values_mut() {
                            link.wants.retain(|o| shard(*o) != *shard_id);
                        }
                    }
                }
                self.give(Input::Release { shards });
            }
            Step::Up { link } => {
                let model = self.links.get_mut(&link).unwrap();
                *model = LinkModel {
                    generation: model.generation + 1,
                    up: true,
                    ..LinkModel::default()
                };
                let generation = model.generation;
                self.give(Input::LinkUp { link, generation });
                let model = &self.links[&link];
                assert_eq!(model.owned, self.shards, "a new link is told of all shards");
                let can = self.has_lease() && self.has_room();
                assert!(model.closed > Version::ZERO || !can, "and closed at once");
            }
            Step::Down { link, stale } => {
                let model = self.links.get_mut(&link).unwrap();
                let generation = model.generation - u32::from(stale && model.generation > 0);
                if generation == model.generation {
                    *model = LinkModel {
                        generation,
                        ..LinkModel::default()
                    };
                }
                self.give(Input::LinkDown { link, generation });
            }
            Step::Register { link, objects, stale } => {
                let objects: Vec<_> = objects.into_iter().map(object).collect();
                let model = self.links.get_mut(&link).unwrap();
                let generation = model.generation.wrapping_sub(u32::from(stale));
                if model.up && !stale {
                    model
                        .wants
                        .extend(objects.iter().filter(|o| self.shards.contains_key(&shard(**o))));
                    model.registers.push(objects.clone());
                }
                self.give(Input::FromEdge {
                    link,
                    generation,
                    frame: EdgeToOwner::Register { objects },
                });
                assert!(
                    self.links[&link].registers.is_empty(),
                    "a registration is answered in the same step"
                );
            }
            Step::Unregister { link, objects, stale } => {
                let objects: Vec<_> = objects.into_iter().map(object).collect();
                let model = self.links.get_mut(&link).unwrap();
                let generation = model.generation.wrapping_sub(u32::from(stale));
                if !stale {
                    model.wants.retain(|o| !objects.contains(o));
                }
                self.give(Input::FromEdge {
                    link,
                    generation,
                    frame: EdgeToOwner::Unregister { objects },
                });
            }
            Step::Handled { link, changes } => {
                let model = self.links.get_mut(&link).unwrap();
                let generation = model.generation;
                model.in_flight = model.in_flight.saturating_sub(changes);
                self.give(Input::FromEdge {
                    link,
                    generation,
                    frame: EdgeToOwner::Handled { changes },
                });
            }
            Step::Publish { objects } => self.publish(&objects),
            Step::Wait { us, wall_us } => {
                self.now.mono_us += us;
                self.now.wall_us = self.now.wall_us.saturating_add(us).saturating_add_signed(wall_us);
            }
            Step::Deadline => {
                self.now.mono_us = self.now.mono_us.max(self.owner.next_deadline().unwrap_or(0));
                let mut out = Vec::new();
                self.owner.handle_deadline(self.now, &mut out);
                self.hear(out);
            }
        }
        self.check();
        self.check_deadline(deadline);
    }

    fn assign(&mut self, shards: Vec<u16>, epoch_up: i64, floor_ahead_us: i64) {
        let epoch = Epoch(self.epoch.saturating_add_signed(epoch_up));
        self.epoch = self.epoch.max(epoch.0);
        let floor = Version(self.now.wall_us.saturating_add_signed(floor_ahead_us));
        let shards: Vec<_> = shards.into_iter().map(ShardId).collect();
        for id in shards.iter().filter(|id| id.0 < SHARDS) {
            let known = self.shards.entry(*id).or_insert((epoch, floor));
            if epoch >= known.0 {
                *known = (epoch, floor.max(known.1));
            }
            self.newest_of_shard.entry(*id).or_default();
        }
        self.give(Input::Assign {
            shards,
            epoch,
            floor,
            cause: FloorCause::Lost,
        });
    }

    fn publish(&mut self, objects: &[(u16, Option<u64>, Option<u8>)]) {
        let extra = |(number, revision, key): &(u16, Option<u64>, Option<u8>)| PublishExtra {
            hint: None,
            revision: revision.map(|revision| (u128::from(*number), revision)),
            idempotency: key.map(|key| u128::from(key) << 32 | u128::from(*number)),
        };
        let changes: Vec<_> = objects
            .iter()
            .map(|change| Publish {
                object: object(change.0),
                extra: Some(Box::new(extra(change))),
            })
            .collect();
        // What must be given: the owner's answers are read before the frames that came ahead of them are judged.
        let mut out = Vec::new();
        self.owner.handle(
            self.now,
            Input::Publish {
                request: 7,
                changes: changes.clone(),
            },
            &mut out,
        );
        let at = out
            .iter()
            .position(|output| matches!(output, Output::Published { .. }))
            .expect("it is answered");
        let Output::Published { request: 7, results } = out.remove(at) else {
            panic!("another request's answer")
        };
        assert_eq!(results.len(), changes.len());
        for output in &out[at..] {
            let is_changed = matches!(
                output,
                Output::ToEdge {
                    frame: OwnerToEdge::Changed { .. },
                    ..
                }
            );
            assert!(!is_changed, "changes are told before the publisher is answered");
        }
        for (change, result) in changes.into_iter().zip(results) {
            self.judge(&change, result);
        }
        self.hear(out);
    }

    fn judge(&mut self, change: &Publish, result: Published) {
        let PublishExtra {
            revision, idempotency, ..
        } = change.extra.as_deref().unwrap();
        let id = shard(change.object);
        if !self.shards.contains_key(&id) {
            return assert_eq!(result, Published::NotOwner(id));
        }
        if self.paused(id, result) {
            return;
        }
        let answered = idempotency.and_then(|key| self.answers.get(&key));
        // A mark counts only where the table or the floor vouches for its change.
        let newest = self.versions.get(&change.object).copied().unwrap_or_default();
        let floor = self.shards[&id].1;
        let counts = |version: Version| version <= newest || version < floor;
        if let Some((version, since_us)) = answered
            && self.now.mono_us - since_us < WINDOW_US
            && counts(*version)
        {
            return assert_eq!(result, Published::Duplicate(*version));
        }
        if let Some((key, revision)) = revision {
            let last = self.revisions.get(key).filter(|(_, version)| counts(*version));
            if last.is_some_and(|(last, _)| revision <= last) {
                let Published::Duplicate(version) = result else {
                    panic!("an old revision was accepted: {result:?}")
                };
                return assert!(version == newest || newest < floor);
            }
        }
        let Published::Accepted(version) = result else {
            panic!("not accepted: {result:?}")
        };
        if let Some((key, revision)) = revision {
            self.revisions.insert(*key, (*revision, version));
        }
        if let Some(key) = idempotency {
            self.answers.insert(*key, (version, self.now.mono_us));
        }
        assert!(version >= self.shards[&id].1, "a version below the floor was given");
        assert!(version > self.closed, "a version was given that was closed before");
        assert!(version > self.newest_of_shard[&id], "versions of a shard increase");
        assert!(version >= self.begins.get(&id).copied().unwrap_or_default() && version <= self.ceiling);
        self.newest_of_shard.insert(id, version);
        self.ever.insert(change.object, version);
        self.versions.insert(change.object, version);
    }

    fn give(&mut self, input: Input) {
        let mut out = Vec::new();
        self.owner.handle(self.now, input, &mut out);
        self.hear(out);
    }

    fn hear(&mut self, out: Vec<Output>) {
        for output in out {
            let Output::ToEdge {
                link,
                generation,
                frame,
            } = output
            else {
                panic!("an answer nobody asked for")
            };
            let model = self.links.get_mut(&link).unwrap();
            assert!(
                model.up && model.generation == generation,
                "said to a link that is down: {frame:?}"
            );
            match frame {
                OwnerToEdge::Own { shards } => {
                    for owned in shards {
                        let known = model.owned.insert(owned.shard, (owned.epoch, owned.floor));
                        assert!(
                            known.is_none_or(|(e, f)| e <= owned.epoch && f <= owned.floor),
                            "a floor fell"
                        );
                        let now = self
                            .shards
                            .get_mut(&owned.shard)
                            .expect("only what is owned is announced");
                        assert!(owned.epoch == now.0 && owned.floor >= now.1);
                        assert!(owned.floor == now.1 || owned.cause == FloorCause::Evicted);
                        now.1 = owned.floor;
                    }
                }
                OwnerToEdge::Gone { shards } => {
                    for id in shards {
                        assert!(model.owned.remove(&id).is_some(), "gone, but never owned");
                        model.told.retain(|o, _| shard(*o) != id);
                    }
                }
                OwnerToEdge::Registered { objects } => {
                    let asked = model.registers.remove(0);
                    assert_eq!(asked, objects.iter().map(|(o, _)| *o).collect::<Vec<_>>());
                    for (o, version) in objects {
                        let Some((_, floor)) = model.owned.get(&shard(o)) else {
                            continue;
                        };
                        let newest = self.versions.get(&o).copied().unwrap_or_default();
                        assert!(
                            version == newest || newest < *floor,
                            "answered {version}, newest is {newest}"
                        );
                        let told = model.told.entry(o).or_default();
                        *told = (*told).max(version);
                    }
                }
                OwnerToEdge::Changed { changes } => model.hear_changes(changes, &self.ever),
                OwnerToEdge::Closed { version } => {
                    assert!(version > model.closed, "closed versions increase");
                    assert!(
                        self.now.mono_us < self.lease_us && version <= self.ceiling,
                        "no right to close"
                    );
                    for (id, newest) in &self.newest_of_shard {
                        let given = self.versions.iter().any(|(o, v)| shard(*o) == *id && v == newest);
                        assert!(!given || version >= *newest, "a change was left out of Closed");
                    }
                    for o in &model.wants {
                        let newest = self.versions.get(o).copied().unwrap_or_default();
                        let told = model.told.get(o).copied().unwrap_or_default();
                        let floor = model.owned[&shard(*o)].1;
                        assert!(
                            told >= newest || newest < floor,
                            "closed over {o:?}: {newest} is new, {told} was told"
                        );
                    }
                    model.closed = version;
                    self.closed = self.closed.max(version);
                }
            }
        }
    }

    /// What holds between any two steps.
    fn check(&mut self) {
        for (id, (epoch, floor)) in &mut self.shards {
            assert_eq!(self.owner.epoch(*id), Some(*epoch));
            let now = self.owner.floor(*id).unwrap();
            // Raised with nobody there to be told.
            assert!(
                now == *floor || now > *floor && self.links.values().all(|model| !model.up),
                "the floor moved"
            );
            *floor = now;
        }
        for (o, newest) in &self.versions {
            let known = self.owner.version(*o);
            let (_, floor) = self.shards[&shard(*o)];
            assert!(
                known == *newest || (known == Version::ZERO && *newest < floor),
                "{o:?} was forgotten: {newest}"
            );
        }
        let mut untold = 0;
        for (id, model) in &self.links {
            assert!(model.in_flight <= WINDOW, "the window was exceeded");
            if model.up {
                assert_eq!(
                    model.owned, self.shards,
                    "each link knows all shards, epochs and floors"
                );
            }
            let behind = |o: &&ObjectHash| {
                let newest = self.versions.get(o).copied().unwrap_or_default();
                let vouched = newest >= self.shards[&shard(**o)].1;
                vouched && newest > model.told.get(o).copied().unwrap_or_default()
            };
            let of_link = model.wants.iter().filter(behind).count();
            assert!(
                of_link == 0 || model.in_flight == WINDOW,
                "changes wait although the window is open"
            );
            untold += of_link;
            for o in self.versions.keys() {
                assert_eq!(
                    self.owner.watchers(*o).contains(id),
                    model.up && model.wants.contains(o)
                );
            }
        }
        let stats = self.owner.stats();
        assert!(stats.pending >= untold, "{untold} changes are neither told nor pending");
        assert!(stats.pending <= stats.interests);
        assert_eq!(
            stats.interests,
            self.links.values().map(|model| model.wants.len()).sum::<usize>()
        );
        assert_eq!(stats.shards, self.shards.len());
    }
}

impl LinkModel {
    fn hear_changes(&mut self, changes: Vec<Changed>, newest: &BTreeMap<ObjectHash, Version>) {
        assert!(!changes.is_empty());
        for Changed { object, version, .. } in changes {
            self.in_flight += 1;
            assert!(self.wants.contains(&object), "told of what it does not want");
            assert!(
                self.owned.contains_key(&shard(object)),
                "told of a shard it was not told of"
            );
            assert!(version <= newest[&object]);
            let told = self.told.entry(object).or_default();
            assert!(
                version <= *told || version > self.closed,
                "{version} is first told after {:?}",
                self.closed
            );
            *told = (*told).max(version);
        }
    }
}

fn live(version_table_bytes: usize, objects: u16, length: usize) -> impl Strategy<Value = (usize, Vec<Step>)> {
    (
        Just(version_table_bytes),
        proptest::collection::vec(step(objects), 1..length),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn an_owner_keeps_its_promises_whatever_happens((bytes, steps) in live(1 << 20, 40, 200)) {
        let mut world = World::new(bytes);
        steps.into_iter().for_each(|step| world.play(step));
        world.settle();
    }

    #[test]
    fn an_owner_short_of_memory_forgets_only_below_its_floors((bytes, steps) in live(6_000, 600, 300)) {
        let mut world = World::new(bytes);
        steps.into_iter().for_each(|step| world.play(step));
        world.settle();
    }
}
