//! What happened to the objects of some shards, and which edges care.
//!
//! An owner gives each change of its shards a version, remembers the newest of each object, and tells the links that
//! registered interest. It keeps no history and no IDs: an edge that asks is told the newest version, and the floor
//! below which the owner cannot vouch for it.
//!
//! Each input is one step: what it changes and what it says about that cannot be torn apart (rule R8). What is said to
//! one link is said in one order. Input from an edge is never an error: what makes no sense is ignored and counted.
//!
//! It does not know edges other than by their links, sockets, disks, leases or who decided that it owns a shard.

mod closing;
mod eviction;
pub mod interest;
pub mod keeping;
pub mod marks;
mod publish;
mod seats;
mod sweep;
pub mod taking;
pub mod version_table;

use crate::link::Limits;
use crate::now::{MonoUs, Now};
use interest::Interest;
use marks::{Answers, Revisions};
use seats::Seats;
use sweep::Sweeps;
use tidings_protocol::hint::SharedHint;
use tidings_protocol::peer::{EdgeToOwner, FloorCause, Owned, OwnerToEdge};
use tidings_protocol::{Epoch, ObjectHash, ShardCount, ShardId, Version};
use version_table::VersionTable;

/// One change as the gateway hands it to the owner of its shard. Kept small: a firehose passes millions a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The object.
    pub object: ObjectHash,
    /// What only few changes have.
    pub extra: Option<Box<PublishExtra>>,
}

/// What only few changes have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishExtra {
    /// Kind and data.
    pub hint: Option<SharedHint>,
    /// The publisher's own revision, with the 128-bit key of the object under which it is kept.
    pub revision: Option<(u128, u64)>,
    /// 128-bit key made of the request's `Idempotency-Key`, the change's place in the request and its object.
    pub idempotency: Option<u128>,
}

/// What became of one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It got this version.
    Accepted(Version),
    /// It had happened already. Under a known idempotency key: the version it got then. With a revision at or below the
    /// last: the object's version now, [`Version::ZERO`] if that was evicted.
    Duplicate(Version),
    /// The shard is not owned here. Nothing was changed.
    NotOwner(ShardId),
    /// The shard is owned here, but no version may be given now: the lease is over, or the ceiling is reached. Nothing was
    /// changed, and nothing is known either: another owner may know whether this had happened already.
    Paused(ShardId),
}

/// Bounds and intervals of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How many shards the cluster was created with.
    pub shards: ShardCount,
    /// Bytes for the versions of all shards, about 22 an object. Beyond it the oldest are dropped. At least some
    /// megabytes: each shard in use takes a few kilobytes.
    pub version_table_bytes: usize,
    /// Objects whose revisions are remembered, about 55 bytes each.
    pub revisions: usize,
    /// Idempotency keys remembered, about 55 bytes each.
    pub idempotency_keys: usize,
    /// For how long an idempotency key is remembered, in microseconds.
    pub idempotency_window_us: u64,
    /// Changes on one link that may be sent and not yet handled; beyond it they wait and coalesce.
    pub link_window_changes: u32,
    /// Bytes of hints that may wait on one link. Beyond it changes wait without theirs.
    pub link_hint_bytes: usize,
    /// From one `Closed` to the next on a link with traffic, in microseconds. Less makes cursors fresher, and traffic.
    pub closed_busy_us: u64,
    /// From one `Closed` to the next on a silent link, in microseconds.
    pub closed_idle_us: u64,
}

/// Names a link. Small numbers that are given out again are fine: a link's generation tells its lives apart.
pub type LinkId = u32;

/// What happens to an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// It owns these shards from now on. A shard new to it starts empty; of one it owns already, the floor and a higher
    /// epoch are taken over. Shards owned since a higher epoch are left alone.
    Assign {
        /// The shards.
        shards: Vec<ShardId>,
        /// Since this epoch.
        epoch: Epoch,
        /// Below this version it cannot vouch for them; no version it gives is below it.
        floor: Version,
        /// Why the floor is where it is.
        cause: FloorCause,
    },
    /// It owns these shards no more and forgets them.
    Release {
        /// The shards.
        shards: Vec<ShardId>,
    },
    /// A link came up. If an older generation of it is still up, that one is down now.
    LinkUp {
        /// Which link.
        link: LinkId,
        /// Which life of it.
        generation: u32,
    },
    /// A link is down, and what was registered on it is void.
    LinkDown {
        /// Which link.
        link: LinkId,
        /// Which life of it.
        generation: u32,
    },
    /// An edge said something.
    FromEdge {
        /// On this link.
        link: LinkId,
        /// In this life of it.
        generation: u32,
        /// This.
        frame: EdgeToOwner,
    },
    /// Changes happened.
    Publish {
        /// Comes back with the results.
        request: u64,
        /// The changes, which succeed or fail each by itself, in this order.
        changes: Vec<Publish>,
    },
}

/// What an owner wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this frame. Frames for one link stay in their order.
    ToEdge {
        /// On this link.
        link: LinkId,
        /// In this life of it.
        generation: u32,
        /// This.
        frame: OwnerToEdge,
    },
    /// Answer the publisher. All frames that tell of its changes, as far as windows were open, came before.
    Published {
        /// The request.
        request: u64,
        /// What became of each change, in the order of the request.
        results: Vec<Published>,
    },
}

/// What an owner holds and has done. Counters count from its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Shards owned.
    pub shards: usize,
    /// Objects whose version is known.
    pub objects: usize,
    /// Bytes of the version tables.
    pub bytes: usize,
    /// Links up.
    pub links: usize,
    /// Interests of links that are up.
    pub interests: usize,
    /// Bytes of the interest tables.
    pub interest_bytes: usize,
    /// Revisions remembered.
    pub revisions: usize,
    /// Idempotency keys remembered.
    pub idempotency_keys: usize,
    /// Bytes of both.
    pub mark_bytes: usize,
    /// Changes that wait on some link.
    pub pending: usize,
    /// Counter: versions dropped for want of memory.
    pub evicted: u64,
    /// Counter: waiting changes replaced by newer ones.
    pub coalesced: u64,
    /// Counter: hints dropped from waiting changes for want of room.
    pub hints_dropped: u64,
    /// Counter: changes recognised as repeated.
    pub duplicates: u64,
    /// Counter: inputs, or parts of them, that made no sense: of an unknown link or an older generation, for a shard not
    /// owned, with an older epoch, claiming more than was sent.
    pub ignored: u64,
}

#[derive(Debug)]
struct Counters {
    evicted: u64,
    coalesced: u64,
    hints_dropped: u64,
    duplicates: u64,
    ignored: u64,
}

/// One shard as its owner knows it.
#[derive(Debug)]
struct Shard {
    epoch: Epoch,
    floor: Version,
    cause: FloorCause,
    /// No version up to this one will be given again.
    last: Version,
    versions: VersionTable,
    interest: Interest,
    /// It is being handed over: nothing is given out any more.
    paused: bool,
}

impl Shard {
    /// Raises the floor, and with it the next version.
    fn raise_floor(&mut self, floor: Version, cause: FloorCause) {
        if floor > self.floor {
            self.floor = floor;
            self.cause = cause;
            self.last = self.last.max(floor.before());
        }
    }

    fn owned(&self, shard: ShardId) -> Owned {
        Owned {
            shard,
            epoch: self.epoch,
            floor: self.floor,
            cause: self.cause,
        }
    }
}

/// The machine. See the module.
#[derive(Debug)]
pub struct Owner {
    config: Config,
    shards: Vec<Option<Shard>>,
    seats: Seats,
    /// The last version that was closed. Counts as the last version of every shard (rule R8).
    closed: Version,
    /// The highest version given.
    highest: Version,
    /// No version above this one is given or closed.
    ceiling: Version,
    /// From then on no version is given or closed.
    lease_until_us: MonoUs,
    /// No version could be closed when it was due: none can until lease or ceiling are others.
    silenced: bool,
    /// Bytes of all version tables.
    bytes: usize,
    revisions: Revisions,
    answers: Answers,
    sweeps: Sweeps,
    /// When the sweeps go on.
    sweep_us: MonoUs,
    counters: Counters,
}

impl Owner {
    /// An owner of nothing.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let limits = Limits {
            window_changes: config.link_window_changes,
            hint_bytes: config.link_hint_bytes,
            closed_busy_us: config.closed_busy_us,
            closed_idle_us: config.closed_idle_us,
        };
        Self {
            config,
            shards: config.shards.all().map(|_| None).collect(),
            seats: Seats::new(limits),
            closed: Version::ZERO,
            highest: Version::ZERO,
            ceiling: Version(Version::LIMIT - 1),
            lease_until_us: MonoUs::MAX,
            silenced: false,
            bytes: 0,
            revisions: Revisions::new(config.revisions),
            answers: Answers::new(config.idempotency_keys, config.idempotency_window_us),
            sweeps: Sweeps::default(),
            sweep_us: 0,
            counters: Counters {
                evicted: 0,
                coalesced: 0,
                hints_dropped: 0,
                duplicates: 0,
                ignored: 0,
            },
        }
    }

    /// Takes one step.
    pub fn handle(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Assign {
                shards,
                epoch,
                floor,
                cause,
            } => self.assign(&shards, epoch, floor, cause, out),
            Input::Release { shards } => self.release(shards, out),
            Input::LinkUp { link, generation } => self.link_up(now, link, generation, out),
            Input::LinkDown { link, generation } => {
                let known = self.seats.leave(link, generation);
                self.ignore_unless(known);
            }
            Input::FromEdge {
                link,
                generation,
                frame,
            } => self.hear(link, generation, frame, out),
            Input::Publish { request, changes } => self.publish(now, request, changes, out),
        }
    }

    /// When [`Owner::handle_deadline`] wants to be called next. May lie in the past.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonoUs> {
        let sweep = (self.sweeps.evicts() || self.seats.must_sweep()).then_some(self.sweep_us);
        self.closing_due_us().into_iter().chain(sweep).min()
    }

    /// Does what is due.
    pub fn handle_deadline(&mut self, now: Now, out: &mut Vec<Output>) {
        if now.mono_us >= self.sweep_us {
            let evicted = self.sweeps.evicts();
            self.sweep(now.mono_us, sweep::PIECES_A_TICK);
            if evicted && !self.sweeps.evicts() {
                // Tables may have been taken over meanwhile.
                self.evict_if_over_budget(out);
            }
        }
        // What an eviction said counts as traffic: the links may be due only now.
        self.close_due(now, out);
        self.answers.expire(now.mono_us);
    }

    /// The object's newest version known here; `Version::ZERO` if none is.
    #[must_use]
    pub fn version(&self, object: ObjectHash) -> Version {
        self.shard_of(object)
            .map_or(Version::ZERO, |shard| shard.versions.get(object))
    }

    /// Since which epoch the shard is owned, if it is.
    #[must_use]
    pub fn epoch(&self, shard: ShardId) -> Option<Epoch> {
        self.shards.get(usize::from(shard.0))?.as_ref().map(|shard| shard.epoch)
    }

    /// The floor of the shard, if it is owned.
    #[must_use]
    pub fn floor(&self, shard: ShardId) -> Option<Version> {
        self.shards.get(usize::from(shard.0))?.as_ref().map(|shard| shard.floor)
    }

    /// The links that want to hear of the object, in no particular order.
    #[must_use]
    pub fn watchers(&self, object: ObjectHash) -> Vec<LinkId> {
        let seats = self
            .shard_of(object)
            .map_or(&[][..], |shard| shard.interest.seats(object));
        seats
            .iter()
            .filter_map(|seat| self.seats.peer(*seat))
            .map(|peer| peer.link_id)
            .collect()
    }

    /// What it holds and has done. Costs a look at every shard and link.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let owned = || self.shards.iter().flatten();
        Stats {
            shards: owned().count(),
            objects: owned().map(|shard| shard.versions.len()).sum(),
            bytes: self.bytes,
            links: self.seats.peers().count(),
            interests: self.seats.peers().map(|peer| peer.interests).sum(),
            interest_bytes: owned().map(|shard| shard.interest.bytes()).sum(),
            revisions: self.revisions.len(),
            idempotency_keys: self.answers.len(),
            mark_bytes: self.revisions.bytes() + self.answers.bytes(),
            pending: self.seats.peers().map(|peer| peer.sending.pending()).sum(),
            evicted: self.counters.evicted,
            coalesced: self.counters.coalesced,
            hints_dropped: self.counters.hints_dropped,
            duplicates: self.counters.duplicates,
            ignored: self.counters.ignored,
        }
    }

    fn shard_of(&self, object: ObjectHash) -> Option<&Shard> {
        self.shards[usize::from(self.config.shards.shard(object).0)].as_ref()
    }

    fn ignore_unless(&mut self, sense: bool) {
        self.counters.ignored += u64::from(!sense);
    }

    fn assign(&mut self, ids: &[ShardId], epoch: Epoch, floor: Version, cause: FloorCause, out: &mut Vec<Output>) {
        let mut owned = Vec::with_capacity(ids.len());
        for id in ids {
            let slot = self
                .shards
                .get_mut(usize::from(id.0))
                .filter(|_| floor.0 < Version::LIMIT);
            let Some(slot) = slot.filter(|slot| slot.as_ref().is_none_or(|shard| shard.epoch <= epoch)) else {
                self.counters.ignored += 1;
                continue;
            };
            let (bits, highest) = (self.config.shards.bits(), self.highest);
            let shard = slot.get_or_insert_with(|| Shard {
                epoch,
                floor,
                cause,
                // Above all that was ever given or closed here, also if the shard was owned here before.
                last: floor.before().max(highest),
                versions: VersionTable::new(bits),
                interest: Interest::new(bits),
                paused: false,
            });
            shard.epoch = epoch;
            shard.raise_floor(floor, cause);
            owned.push(shard.owned(*id));
        }
        if !owned.is_empty() {
            self.seats.tell_all(&OwnerToEdge::Own { shards: owned }, out);
        }
    }

    fn release(&mut self, mut ids: Vec<ShardId>, out: &mut Vec<Output>) {
        ids.retain(|id| {
            let owned = self.lift(*id).is_some();
            self.ignore_unless(owned);
            owned
        });
        if !ids.is_empty() {
            self.say_gone(ids, out);
        }
    }

    fn say_gone(&mut self, ids: Vec<ShardId>, out: &mut Vec<Output>) {
        let (count, shards) = (self.config.shards, &self.shards);
        for peer in self.seats.peers_mut() {
            peer.sending
                .forget_where(|object| shards[usize::from(count.shard(object).0)].is_none());
        }
        self.seats.tell_all(&OwnerToEdge::Gone { shards: ids }, out);
    }

    /// Takes a shard out, with its interests.
    fn lift(&mut self, id: ShardId) -> Option<Shard> {
        let shard = self.shards.get_mut(usize::from(id.0))?.take()?;
        self.bytes -= shard.versions.bytes();
        let seats = &mut self.seats;
        shard.interest.for_each(|seat| {
            if let Some(peer) = seats.peer_mut(seat) {
                peer.interests -= 1;
            }
        });
        Some(shard)
    }

    fn link_up(&mut self, now: Now, link: LinkId, generation: u32, out: &mut Vec<Output>) {
        let Some(seat) = self.seats.enter(link, generation) else {
            self.counters.ignored += 1;
            return;
        };
        let owned = |(id, shard): (ShardId, &Option<Shard>)| shard.as_ref().map(|shard| shard.owned(id));
        let shards: Vec<Owned> = self.config.shards.all().zip(&self.shards).filter_map(owned).collect();
        if !shards.is_empty() {
            self.seats.tell(seat, OwnerToEdge::Own { shards }, out);
        }
        self.close_due(now, out);
    }

    fn hear(&mut self, link: LinkId, generation: u32, frame: EdgeToOwner, out: &mut Vec<Output>) {
        let Some(seat) = self.seats.find(link, generation) else {
            self.counters.ignored += 1;
            return;
        };
        match frame {
            EdgeToOwner::Register { objects } => self.register(seat, objects, out),
            EdgeToOwner::Unregister { objects } => self.unregister(seat, &objects),
            EdgeToOwner::Handled { changes } => {
                let honest = self
                    .seats
                    .peer_mut(seat)
                    .is_none_or(|peer| peer.sending.handled(changes));
                self.ignore_unless(honest);
                self.seats.flush(seat, out);
            }
        }
    }

    /// Inserts the interest, reads the versions and answers, in one step (rule R8).
    ///
    /// A shard that is not owned was announced to be gone before, on the same link: the edge is about to read that, or
    /// has, and takes nothing it reads behind it for an answer about the shard. Its objects are answered with
    /// `Version::ZERO` only so that the answer has the entries of the request.
    fn register(&mut self, seat: interest::Seat, objects: Vec<ObjectHash>, out: &mut Vec<Output>) {
        let Some(peer) = self.seats.peer_mut(seat) else { return };
        let mut answer = Vec::with_capacity(objects.len());
        for object in objects {
            let version = match &mut self.shards[usize::from(self.config.shards.shard(object).0)] {
                Some(shard) => {
                    peer.interests += usize::from(shard.interest.insert(object, seat));
                    shard.versions.get(object)
                }
                None => {
                    self.counters.ignored += 1;
                    Version::ZERO
                }
            };
            answer.push((object, version));
        }
        self.seats.tell(seat, OwnerToEdge::Registered { objects: answer }, out);
    }

    fn unregister(&mut self, seat: interest::Seat, objects: &[ObjectHash]) {
        let Some(peer) = self.seats.peer_mut(seat) else { return };
        for object in objects {
            // A shard that is gone took its interests with it.
            if let Some(shard) = &mut self.shards[usize::from(self.config.shards.shard(*object).0)] {
                peer.interests -= usize::from(shard.interest.remove(*object, seat));
                peer.sending.forget(*object);
            }
        }
    }
}
