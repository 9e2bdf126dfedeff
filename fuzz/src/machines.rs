//! Machines against oracles, each decision drawn from the input.

use crate::random::{Random, lay};
use crate::world_of_lanes::life::{Weather, life, resumes};
use std::collections::BTreeMap;
use tidings_protocol::peer::{EdgeToOwner, FloorCause, OwnerToEdge};
use tidings_protocol::{ClusterId, Epoch, NodeId, ObjectHash, ShardCount, ShardId, Version};
use tidings_router::Now;
use tidings_router::access::revocations::{Bounds, Target, Whom};
use tidings_router::control::command::{Command, Seen, With};
use tidings_router::control::map::{Map, NodeInfo, Process, Roles};
use tidings_router::owner::keeping::SHARD_PIECES;
use tidings_router::owner::taking::Assignment;
use tidings_router::owner::{Config, Input, Output, Owner, Publish, Published};

/// Lanes, owners and clients of every kind, judged by the promises: the router's own random lives, with decisions from the
/// input.
pub(crate) fn lanes(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    lay(rest);
    match kind % 3 {
        0 => drop(life(1, Weather::Fair)),
        1 => drop(life(1, Weather::Foul)),
        _ => drop(resumes(1)),
    }
}

const LINKS: u32 = 3;
const OBJECTS: u64 = 6;

/// What one link was told, and what it holds.
#[derive(Default)]
struct Listener {
    generation: u32,
    up: bool,
    registered: BTreeMap<ObjectHash, bool>,
    told: BTreeMap<ObjectHash, Version>,
    /// What the last answer to a registration said: a change that waited then may say it once more.
    answered: BTreeMap<ObjectHash, Version>,
    closed: Version,
    unhandled: u32,
}

/// One owner of four shards with three links against a map of what was published.
struct Stage {
    random: Random,
    owner: Owner,
    now: Now,
    links: Vec<Listener>,
    newest: BTreeMap<ObjectHash, Version>,
    last: BTreeMap<ShardId, Version>,
    config: Config,
    shards: ShardCount,
    epoch: u64,
    has_lease: bool,
}

fn object(n: u64) -> ObjectHash {
    // Spread over all shards.
    ObjectHash(n << 61 | n << 20 | 5)
}

/// Publishes, registrations, links that come and go, shards that are assigned again, time: every link hears in order, and
/// `Closed` never speaks too early.
pub(crate) fn owner(data: &[u8]) {
    lay(data);
    let mut random = Random(2);
    let shards = ShardCount::new(4).expect("a power of two");
    let config = Config {
        shards,
        version_table_bytes: 64 << 20,
        revisions: 4,
        idempotency_keys: 4,
        idempotency_window_us: 1_000_000,
        link_window_changes: *random.pick(&[1, 2, 1_000]),
        link_hint_bytes: 100,
        closed_busy_us: 50_000,
        closed_idle_us: 250_000,
    };
    let mut stage = Stage {
        random,
        owner: Owner::new(config),
        now: Now {
            mono_us: 1,
            wall_us: 1_000_000,
        },
        links: (0..LINKS).map(|_| Listener::default()).collect(),
        newest: BTreeMap::new(),
        last: BTreeMap::new(),
        config,
        shards,
        epoch: 1,
        has_lease: true,
    };
    stage.assign();
    for _ in 0..stage.random.range(1, 300) {
        stage.step();
    }
    stage.settle();
}

impl Stage {
    fn tell(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.owner.handle(self.now, input, &mut out);
        self.hear(&out);
        out
    }

    fn assign(&mut self) {
        let all = self.shards.all().collect();
        let epoch = Epoch(self.epoch);
        self.tell(Input::Assign {
            shards: all,
            epoch,
            floor: Version(1),
            cause: FloorCause::Lost,
        });
    }

    fn hear(&mut self, out: &[Output]) {
        for output in out {
            let Output::ToEdge {
                link,
                generation,
                frame,
            } = output
            else {
                continue;
            };
            let listener = &mut self.links[*link as usize];
            assert!(
                listener.up && listener.generation == *generation,
                "said to a link that is not there"
            );
            match frame {
                OwnerToEdge::Own { .. } | OwnerToEdge::Gone { .. } => {}
                OwnerToEdge::Registered { objects } => {
                    for (object, version) in objects {
                        assert_eq!(self.newest.get(object).copied().unwrap_or_default(), *version);
                        let told = listener.told.entry(*object).or_default();
                        *told = (*told).max(*version);
                        listener.answered.insert(*object, *version);
                    }
                }
                OwnerToEdge::Changed { changes } => {
                    listener.unhandled += changes.len() as u32;
                    for change in changes {
                        assert_eq!(
                            listener.registered.get(&change.object),
                            Some(&true),
                            "nobody asked for it"
                        );
                        let told = listener.told.entry(change.object).or_default();
                        let again = listener.answered.remove(&change.object) == Some(change.version);
                        assert!(change.version > *told || again, "told twice, or backwards");
                        assert!(change.version > listener.closed, "below what was closed");
                        *told = change.version;
                    }
                }
                OwnerToEdge::Closed { version } => {
                    assert!(*version > listener.closed, "closed again (R10)");
                    assert!(self.has_lease, "closed without a lease");
                    listener.closed = *version;
                    for (object, held) in &listener.registered {
                        let newest = self.newest.get(object).copied().unwrap_or_default();
                        let told = listener.told.get(object).copied().unwrap_or_default();
                        assert!(
                            !held || newest > *version || told == newest,
                            "closed before all was sent"
                        );
                    }
                }
            }
        }
    }

    fn step(&mut self) {
        let link = self.random.below(LINKS.into()) as usize;
        let target = object(self.random.below(OBJECTS));
        match self.random.below(11) {
            0..=2 => self.publish(target),
            3 => self.register(link, target),
            4 => self.unregister(link, target),
            5 => self.handled(link),
            6 => self.turn(link),
            7 => {
                self.epoch += 1;
                self.assign();
            }
            8 => self.take_over(self.shards.shard(target)),
            9 => {
                let has_lease = self.random.below(2) == 0;
                self.lease(has_lease);
            }
            _ => self.wait(),
        }
    }

    fn lease(&mut self, has: bool) {
        self.has_lease = has;
        self.owner.set_lease(if has { u64::MAX } else { self.now.mono_us });
    }

    /// A shard begins a new epoch with all that was known of it, by way of a shelf, perhaps far above the clock.
    fn take_over(&mut self, shard: ShardId) {
        self.epoch += 1;
        let epoch = Epoch(self.epoch);
        let (floor, cause) = (Version(1), FloorCause::Lost);
        let mut shelf = Owner::new(self.config);
        let input = Input::Assign {
            shards: vec![shard],
            epoch,
            floor,
            cause,
        };
        shelf.handle(self.now, input, &mut Vec::new());
        for (object, version) in (0..SHARD_PIECES).flat_map(|piece| self.owner.kept_versions(shard, piece)) {
            assert!(shelf.restore(object, version));
        }
        let begins = Version(self.owner.highest().0 + 1 + *self.random.pick(&[0, 10, 5_000_000]));
        let assignment = Assignment {
            shard,
            epoch,
            begins,
            floor,
            cause,
        };
        let (table, mut out) = (shelf.take_table(shard), Vec::new());
        assert!(self.owner.take_over(self.now, assignment, table, &mut out));
        let last = self.last.entry(shard).or_default();
        *last = (*last).max(begins.before());
        self.hear(&out);
    }

    fn publish(&mut self, target: ObjectHash) {
        let changes = vec![Publish {
            object: target,
            extra: None,
        }];
        // Noted before the frames are looked at: they come first.
        let mut out = Vec::new();
        let input = Input::Publish { request: 1, changes };
        self.owner.handle(self.now, input, &mut out);
        let results = out.iter().find_map(|output| match output {
            Output::Published { results, .. } => Some(results.clone()),
            Output::ToEdge { .. } => None,
        });
        let [Published::Accepted(version)] = results.as_deref().expect("an answer") else {
            let paused = Published::Paused(self.shards.shard(target));
            assert!(
                !self.has_lease && results == Some(vec![paused]) && out.len() == 1,
                "{out:?}"
            );
            return;
        };
        assert!(self.has_lease, "it had no right to");
        let last = self.last.entry(self.shards.shard(target)).or_default();
        assert!(*version > *last, "versions rise");
        *last = *version;
        self.newest.insert(target, *version);
        self.hear(&out);
    }

    fn say(&mut self, link: usize, frame: EdgeToOwner) {
        let generation = self.links[link].generation;
        self.tell(Input::FromEdge {
            link: link as u32,
            generation,
            frame,
        });
    }

    fn register(&mut self, link: usize, target: ObjectHash) {
        if self.links[link].up {
            self.links[link].registered.insert(target, true);
            self.say(link, EdgeToOwner::Register { objects: vec![target] });
        }
    }

    fn unregister(&mut self, link: usize, target: ObjectHash) {
        if self.links[link].up {
            self.links[link].registered.insert(target, false);
            self.say(link, EdgeToOwner::Unregister { objects: vec![target] });
        }
    }

    fn handled(&mut self, link: usize) {
        let changes = std::mem::take(&mut self.links[link].unhandled);
        if self.links[link].up && changes > 0 {
            self.say(link, EdgeToOwner::Handled { changes });
        }
    }

    fn turn(&mut self, link: usize) {
        let listener = &mut self.links[link];
        let (number, generation) = (link as u32, listener.generation);
        if listener.up {
            listener.up = false;
            let link = number;
            self.tell(Input::LinkDown { link, generation });
        } else {
            *listener = Listener {
                generation: generation + 1,
                up: true,
                ..Listener::default()
            };
            let (link, generation) = (number, generation + 1);
            self.tell(Input::LinkUp { link, generation });
        }
    }

    fn wait(&mut self) {
        let us = self.random.below(300_000);
        self.now.mono_us += us;
        // The wall may go back.
        self.now.wall_us = self
            .now
            .wall_us
            .saturating_add(us)
            .saturating_sub(self.random.below(100_000));
        let mut out = Vec::new();
        self.owner.handle_deadline(self.now, &mut out);
        self.hear(&out);
    }

    /// In the end every link that listens knows the newest of what it holds.
    fn settle(&mut self) {
        self.lease(true);
        for _ in 0..50 {
            (0..LINKS as usize).for_each(|link| self.handled(link));
            self.now.mono_us += 300_000;
            self.now.wall_us += 300_000;
            let mut out = Vec::new();
            self.owner.handle_deadline(self.now, &mut out);
            self.hear(&out);
        }
        for listener in self.links.iter().filter(|listener| listener.up) {
            for object in listener
                .registered
                .iter()
                .filter(|(_, held)| **held)
                .map(|(object, _)| object)
            {
                let newest = self.newest.get(object).copied().unwrap_or_default();
                assert_eq!(listener.told.get(object).copied().unwrap_or_default(), newest);
            }
        }
    }
}

/// Any commands in any order: the map stays whole, what must only rise does, and what is refused changes nothing.
pub(crate) fn control_map(data: &[u8]) {
    lay(data);
    let mut random = Random(3);
    let mut map = Map::new(ClusterId(1), ShardCount::new(2).expect("a power of two"), 2);
    for _ in 0..random.range(1, 200) {
        let command = command(&mut random, &map);
        let before = map.clone();
        let applied = map.apply(&command);
        if let Err(why) = map.check() {
            panic!("{why} after {command:?}");
        }
        if applied.is_err() {
            assert_eq!(map, before, "{command:?}");
            continue;
        }
        assert!(map.ceiling() >= before.ceiling() && map.revision() >= before.revision());
        for ((id, shard), (_, old)) in map.shards().zip(before.shards()) {
            assert!(
                shard.epoch >= old.epoch && shard.floor >= old.floor,
                "{id} after {command:?}"
            );
            if shard.epoch > old.epoch {
                assert!(
                    shard.begins > before.ceiling(),
                    "{id} begins below the ceiling after {command:?}"
                );
            } else {
                assert_eq!(shard.owner, old.owner, "{id} has another owner in the same epoch");
            }
        }
    }
}

fn command(random: &mut Random, map: &Map) -> Command {
    let some = |random: &mut Random| Process {
        node: NodeId(random.below(4)),
        incarnation: random.below(3),
    };
    let shard = ShardId(random.below(3) as u16);
    let mut seen = Seen::of(map, shard).unwrap_or(Seen {
        shard,
        epoch: Epoch(0),
        in_sync: Vec::new(),
        turn: 0,
    });
    if random.percent(5) {
        seen.epoch = Epoch(random.below(4));
    }
    let one = some(random);
    match random.below(14) {
        0..=2 => Command::Register {
            process: one,
            info: NodeInfo {
                roles: Roles {
                    owner: random.percent(90),
                    edge: true,
                },
                zone: String::new(),
                peer_address: String::new(),
                client_address: String::new(),
            },
        },
        3 => Command::RaiseCeiling {
            to: Version(random.below(70_000)),
        },
        4 => Command::Drain {
            node: one.node,
            draining: random.percent(50),
        },
        5 => Command::Forget { node: one.node },
        6 => Command::SetCopies {
            copies: random.below(5) as u8,
        },
        7 | 8 => Command::Assign {
            seen,
            to: one,
            with: *random.pick(&[With::Fresh, With::Copy, With::Disk, With::Nothing(FloorCause::Lost)]),
        },
        9 => Command::Fill { seen, member: one },
        10 => Command::Join { seen, member: one },
        11 => Command::Remove { seen, member: one },
        12 => Command::Release {
            seen,
            from: one,
            to: some(random),
        },
        _ => match random.below(4) {
            0 => Command::Pin {
                shard,
                to: random.percent(70).then_some(one.node),
            },
            1 => {
                let now_s = random.below(100);
                let whom = match random.below(3) {
                    0 => Whom::Everybody,
                    1 => Whom::Subject(format!("s{}", random.below(4)).into()),
                    _ => Whom::Token(format!("t{}", random.below(4)).into()),
                };
                Command::Revoke {
                    target: Target { issuer: None, whom },
                    bounds: Bounds {
                        issued_to_s: now_s,
                        until_s: now_s + 20,
                    },
                    now_s,
                }
            }
            2 => Command::Move {
                seen,
                to: random.percent(70).then_some(one),
            },
            _ => Command::RaiseFloor {
                shard,
                epoch: seen.epoch,
                by: one,
                floor: Version(random.below(70_000)),
                cause: FloorCause::Evicted,
            },
        },
    }
}
