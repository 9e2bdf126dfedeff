//! A small model of what Raft will decide: who owns which shard in which epoch, floors, the ceiling, and leases.
//!
//! It stands where the real control machine will stand: it is told of renewals and of time, answers with grants, and asks
//! for changes that a quorum has to agree to. A linearizable log is one applied state that only [`Control::apply`] changes;
//! what the world makes of it are elections, delays, and proposals that are lost or applied late.
//!
//! It does not know roads, clocks of nodes, machines or disks.

use std::collections::BTreeMap;
use std::rc::Rc;
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{Epoch, ShardId, Version};
use tidings_router::{MonoUs, Now};

/// How long a lease holds, counted by its holder from the moment it asked.
pub const LEASE_US: u64 = 2_000_000;
/// When the leader is sure that a lease has run out, counted from the renewal it answered. Clocks may drift 10 %.
const SURELY_OVER_US: u64 = LEASE_US + LEASE_US / 10;
/// A node that renewed within this time may be given shards.
const LIVELY_US: u64 = 1_200_000;
/// How long a shard may be on its way from one owner to the next before it is given up for lost.
const HAND_OVER_US: u64 = 3_000_000;
/// How far the ceiling is raised above the leader's clock, and above the highest version in use.
const AHEAD_US: (u64, u64) = (3_000_000, 1_500_000);
/// It is raised when less than this is left.
const LEFT_US: (u64, u64) = (2_000_000, 750_000);

/// A process: a node may come back, a process never does (rule R2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Which node.
    pub node: usize,
    /// Which life of it.
    pub incarnation: u64,
}

/// What is agreed on about one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who owns it.
    pub owner: Option<Holder>,
    /// Since which epoch.
    pub epoch: Epoch,
    /// Below this nobody can vouch for it (rule R7: never lowered).
    pub floor: Version,
    /// Why.
    pub cause: FloorCause,
    /// The first version of this epoch is not below this one, which is above every ceiling so far.
    pub start: Version,
    /// The epoch whose copy the owner goes on from; `None`: it starts empty (rule R5).
    pub continues: Option<Epoch>,
}

/// Who owns what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// Counts changes.
    pub revision: u64,
    /// By shard.
    pub entries: Vec<Entry>,
}

/// A complete copy of a shard as it was at the end of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyHead {
    /// The shard.
    pub shard: ShardId,
    /// The epoch.
    pub epoch: Epoch,
    /// Its floor.
    pub floor: Version,
    /// Why.
    pub cause: FloorCause,
    /// It is not quite complete, for this reason: the floor must rise.
    pub doubt: Option<FloorCause>,
}

/// A node asks for its lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Who asks.
    pub from: Holder,
    /// When it asked, on its own clock.
    pub sent_us: MonoUs,
    /// The highest version in use there.
    pub in_use: Version,
    /// Copies it could go on from.
    pub copies: Vec<CopyHead>,
    /// Shards it gave away and no longer serves, with their epochs.
    pub released: Vec<(ShardId, Epoch)>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// To be applied before the ceiling is used.
    pub map: Rc<Map>,
    /// No version above this one may be given or closed.
    pub ceiling: Version,
    /// The renewal's `sent_us`, from which [`LEASE_US`] counts.
    pub sent_us: MonoUs,
}

/// What a leader wants agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The ceiling is at least this.
    Ceiling(Version),
    /// A shard gets an owner.
    Assign {
        /// The shard.
        shard: ShardId,
        /// Only if its epoch still is this one (rule R6).
        expect: Epoch,
        /// The new owner.
        to: Holder,
        /// It has this copy.
        copy: Option<CopyHead>,
    },
}

/// What became of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Applied. A shard went to an owner that starts empty, or that goes on from a copy.
    Assigned(ShardId),
    /// Applied.
    Raised,
    /// It was no longer true, or proposed by a leader of the past.
    Void,
}

#[derive(Clone, Debug)]
struct Known {
    incarnation: u64,
    renewed_us: MonoUs,
    in_use: Version,
    copies: Vec<CopyHead>,
    released: BTreeMap<ShardId, (Epoch, MonoUs)>,
}

/// See the module.
#[derive(Debug)]
pub struct Control {
    map: Rc<Map>,
    ceiling: Version,
    term: u64,
    leader: Option<usize>,
    // What follows only the leader knows, and a new one does not.
    elected_us: MonoUs,
    known: Vec<Option<Known>>,
    /// Nodes that gossip holds dead: they are not renewed until their shards are replaced.
    condemned: Vec<Option<MonoUs>>,
    proposed: Vec<Change>,
}

impl Control {
    /// A new cluster: nobody owns anything, nothing was ever given.
    #[must_use]
    pub fn new(nodes: usize, shards: u16, ceiling: Version) -> Self {
        let entry = Entry {
            owner: None,
            epoch: Epoch(0),
            floor: Version::ZERO,
            cause: FloorCause::Lost,
            start: Version::ZERO,
            continues: None,
        };
        Self {
            map: Rc::new(Map {
                revision: 0,
                entries: vec![entry; shards.into()],
            }),
            ceiling,
            term: 0,
            leader: None,
            elected_us: 0,
            known: vec![None; nodes],
            condemned: vec![None; nodes],
            proposed: Vec::new(),
        }
    }

    /// Who leads.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        self.leader
    }

    /// Counts elections.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }

    /// What is agreed on.
    #[must_use]
    pub fn map(&self) -> &Rc<Map> {
        &self.map
    }

    /// The highest ceiling agreed on.
    #[must_use]
    pub fn ceiling(&self) -> Version {
        self.ceiling
    }

    /// What was proposed and is neither applied nor lost.
    #[must_use]
    pub fn proposed(&self) -> &[Change] {
        &self.proposed
    }

    /// Another leader, which knows nothing but the applied state. Proposals of the last one are void from here on.
    pub fn elect(&mut self, node: usize, mono_us: MonoUs) {
        self.term += 1;
        self.leader = Some(node);
        self.elected_us = mono_us;
        self.known.iter_mut().for_each(|known| *known = None);
        self.condemned.iter_mut().for_each(|condemned| *condemned = None);
        self.proposed.clear();
    }

    /// Gossip holds a node dead. Gossip only ever suggests: its shards are replaced once its lease surely is over.
    pub fn condemn(&mut self, node: usize, mono_us: MonoUs) {
        self.condemned[node].get_or_insert(mono_us);
    }

    /// A node asks for its lease. `None`: it gets none now. To be called only while a quorum confirms the leader.
    pub fn renew(&mut self, mono_us: MonoUs, renewal: &Renewal) -> Option<Grant> {
        let node = renewal.from.node;
        let last = self.known[node].as_ref();
        if last.is_some_and(|last| last.incarnation > renewal.from.incarnation) {
            return None;
        }
        let same = last.filter(|last| last.incarnation == renewal.from.incarnation);
        let released = renewal.released.iter().map(|(shard, epoch)| {
            let since = same
                .and_then(|last| last.released.get(shard))
                .filter(|(e, _)| e == epoch);
            (*shard, (*epoch, since.map_or(mono_us, |(_, since_us)| *since_us)))
        });
        let released = released.collect();
        let condemned = self.condemned[node].is_some();
        let refused = condemned || self.replaces(renewal.from);
        let renewed_us = match same {
            Some(last) if refused => last.renewed_us,
            None if refused => self.elected_us,
            Some(_) | None => mono_us,
        };
        self.known[node] = Some(Known {
            incarnation: renewal.from.incarnation,
            renewed_us,
            in_use: renewal.in_use,
            copies: renewal.copies.clone(),
            released,
        });
        (!refused).then(|| Grant {
            map: Rc::clone(&self.map),
            ceiling: self.ceiling,
            sent_us: renewal.sent_us,
        })
    }

    /// Whether it is proposed to give a shard of this process to another one (rule R6).
    fn replaces(&self, holder: Holder) -> bool {
        self.proposed.iter().any(|change| match change {
            Change::Assign { shard, to, .. } => *to != holder && self.entry(*shard).owner == Some(holder),
            Change::Ceiling(_) => false,
        })
    }

    fn entry(&self, shard: ShardId) -> &Entry {
        &self.map.entries[usize::from(shard.0)]
    }

    /// What the leader proposes now, if anything.
    pub fn consider(&mut self, now: Now) -> Vec<Change> {
        let mut changes = Vec::new();
        changes.extend(self.raise(now));
        let mut load: Vec<usize> = vec![0; self.known.len()];
        for entry in &self.map.entries {
            if let Some(owner) = entry.owner {
                load[owner.node] += 1;
            }
        }
        for index in 0..self.map.entries.len() {
            let shard = ShardId(index as u16);
            let under_way = |change: &Change| matches!(change, Change::Assign { shard: other, .. } if *other == shard);
            if self.proposed.iter().any(under_way) || !self.is_free(shard, now.mono_us) {
                continue;
            }
            if let Some((to, copy)) = self.next_owner(shard, now.mono_us, &load) {
                load[to.node] += 1;
                changes.push(Change::Assign {
                    shard,
                    expect: self.entry(shard).epoch,
                    to,
                    copy,
                });
            }
        }
        self.end_condemnations(now.mono_us);
        self.proposed.extend(&changes);
        changes
    }

    fn raise(&self, now: Now) -> Option<Change> {
        if self.proposed.iter().any(|change| matches!(change, Change::Ceiling(_))) {
            return None;
        }
        let known = self.known.iter().flatten().map(|known| known.in_use);
        let starts = self.map.entries.iter().map(|entry| entry.start);
        let in_use = known.chain(starts).max().unwrap_or_default();
        let over = |ahead: (u64, u64)| (now.wall_us + ahead.0).max(in_use.0 + ahead.1);
        (self.ceiling.0 < over(LEFT_US)).then(|| Change::Ceiling(Version(over(AHEAD_US)).max(self.ceiling)))
    }

    /// Whether nobody can be serving the shard any more.
    fn is_free(&self, shard: ShardId, now_us: MonoUs) -> bool {
        let entry = self.entry(shard);
        let Some(owner) = entry.owner else { return true };
        let Some(known) = &self.known[owner.node] else {
            return now_us.saturating_sub(self.elected_us) > SURELY_OVER_US;
        };
        // A process that has a successor is gone for certain.
        let succeeded = known.incarnation > owner.incarnation;
        let lapsed = now_us.saturating_sub(known.renewed_us.max(self.elected_us)) > SURELY_OVER_US;
        let released = known
            .released
            .get(&shard)
            .is_some_and(|(epoch, since_us)| *epoch == entry.epoch && now_us.saturating_sub(*since_us) > HAND_OVER_US);
        let copied = self.copies(shard, now_us).next().is_some();
        succeeded || lapsed || released || copied
    }

    /// Who offers a copy of the shard's present epoch, other than its owner.
    fn copies(&self, shard: ShardId, now_us: MonoUs) -> impl Iterator<Item = (Holder, CopyHead)> {
        let entry = self.entry(shard);
        self.lively(now_us).filter_map(move |(holder, known)| {
            let copy = known
                .copies
                .iter()
                .find(|c| c.shard == shard && c.epoch == entry.epoch)?;
            (entry.owner != Some(holder)).then_some((holder, *copy))
        })
    }

    fn lively(&self, now_us: MonoUs) -> impl Iterator<Item = (Holder, &Known)> {
        self.known.iter().enumerate().filter_map(move |(node, known)| {
            let known = known.as_ref()?;
            let fresh = now_us.saturating_sub(known.renewed_us) < LIVELY_US && self.condemned[node].is_none();
            let holder = Holder {
                node,
                incarnation: known.incarnation,
            };
            fresh.then_some((holder, known))
        })
    }

    fn next_owner(&self, shard: ShardId, now_us: MonoUs, load: &[usize]) -> Option<(Holder, Option<CopyHead>)> {
        if let Some((holder, copy)) = self.copies(shard, now_us).next() {
            return Some((holder, Some(copy)));
        }
        let least = self.lively(now_us).min_by_key(|(holder, _)| load[holder.node]);
        least.map(|(holder, _)| (holder, None))
    }

    /// Whoever has lost all it had is judged anew.
    fn end_condemnations(&mut self, now_us: MonoUs) {
        for node in 0..self.condemned.len() {
            let owns = self
                .map
                .entries
                .iter()
                .any(|entry| entry.owner.is_some_and(|o| o.node == node));
            let over = |since_us| now_us.saturating_sub(since_us) > 4 * LEASE_US;
            if self.condemned[node].is_some_and(|since_us| !owns || over(since_us)) {
                self.condemned[node] = None;
            }
        }
    }

    /// A quorum agreed to what the leader of `term` proposed, or it was lost.
    pub fn settle(&mut self, term: u64, change: &Change, agreed: bool) -> Outcome {
        if term == self.term {
            self.proposed.retain(|proposed| proposed != change);
        }
        if agreed { self.apply(change) } else { Outcome::Void }
    }

    /// Applies what is agreed on, if its condition holds (rule R6).
    pub fn apply(&mut self, change: &Change) -> Outcome {
        match *change {
            Change::Ceiling(ceiling) => {
                self.ceiling = self.ceiling.max(ceiling);
                Outcome::Raised
            }
            Change::Assign {
                shard,
                expect,
                to,
                copy,
            } => {
                let start = self.ceiling.next();
                let map = Rc::make_mut(&mut self.map);
                let entry = &mut map.entries[usize::from(shard.0)];
                if entry.epoch != expect {
                    return Outcome::Void;
                }
                let (floor, cause) = match copy {
                    // Nothing was ever given before the first epoch, so nothing was lost.
                    None if expect == Epoch(0) => (Version::ZERO, FloorCause::Lost),
                    None => (start, FloorCause::Lost),
                    Some(copy) => match copy.doubt {
                        Some(cause) => (start, cause),
                        None => (copy.floor, copy.cause),
                    },
                };
                if floor > entry.floor {
                    (entry.floor, entry.cause) = (floor, cause);
                }
                entry.owner = Some(to);
                entry.epoch = Epoch(expect.0 + 1);
                entry.start = start;
                entry.continues = copy.map(|copy| copy.epoch);
                map.revision += 1;
                Outcome::Assigned(shard)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(0);

    fn holder(node: usize, incarnation: u64) -> Holder {
        Holder { node, incarnation }
    }

    fn renewal(from: Holder) -> Renewal {
        Renewal {
            from,
            sent_us: 0,
            in_use: Version::ZERO,
            copies: Vec::new(),
            released: Vec::new(),
        }
    }

    fn now(mono_us: u64) -> Now {
        Now {
            mono_us,
            wall_us: 1_000_000 + mono_us,
        }
    }

    /// Proposes and agrees at once.
    fn go_on(control: &mut Control, mono_us: u64) {
        for change in control.consider(now(mono_us)) {
            let term = control.term();
            control.settle(term, &change, true);
        }
    }

    fn owner(control: &Control) -> Option<Holder> {
        control.map().entries[0].owner
    }

    /// Two nodes, one shard, which the first one owns.
    fn begun() -> Control {
        let mut control = Control::new(2, 1, Version(1_000_000));
        control.elect(1, 0);
        control.renew(0, &renewal(holder(0, 1)));
        go_on(&mut control, 1);
        assert_eq!(owner(&control), Some(holder(0, 1)));
        control
    }

    #[test]
    fn a_shard_is_replaced_only_when_its_lease_surely_is_over_and_then_above_the_ceiling() {
        let mut control = begun();
        let ceiling = control.ceiling();
        for mono_us in (0..=SURELY_OVER_US).step_by(100_000) {
            control.renew(mono_us, &renewal(holder(1, 1)));
            go_on(&mut control, mono_us);
            assert_eq!(owner(&control), Some(holder(0, 1)), "at {mono_us}");
        }
        go_on(&mut control, SURELY_OVER_US + 1);
        assert_eq!(owner(&control), Some(holder(1, 1)));
        let entry = control.map().entries[0];
        assert!(entry.start > ceiling && entry.floor == entry.start && entry.continues.is_none());
    }

    #[test]
    fn a_new_leader_counts_leases_from_its_election() {
        let mut control = begun();
        control.elect(0, 10_000_000);
        control.renew(10_000_000 + SURELY_OVER_US, &renewal(holder(1, 1)));
        go_on(&mut control, 10_000_000 + SURELY_OVER_US);
        assert_eq!(owner(&control), Some(holder(0, 1)));
    }

    #[test]
    fn a_successor_on_the_same_node_ends_a_process_at_once_and_goes_on_from_its_disk() {
        let mut control = begun();
        let entry = control.map().entries[0];
        let copy = CopyHead {
            shard: SHARD,
            epoch: entry.epoch,
            floor: entry.floor,
            cause: entry.cause,
            doubt: None,
        };
        control.renew(
            100,
            &Renewal {
                copies: vec![copy],
                ..renewal(holder(0, 2))
            },
        );
        go_on(&mut control, 101);
        let next = control.map().entries[0];
        assert_eq!((next.owner, next.continues), (Some(holder(0, 2)), Some(entry.epoch)));
        assert_eq!(next.floor, entry.floor);
    }

    #[test]
    fn whoever_is_being_replaced_gets_no_lease_and_an_old_process_neither() {
        let mut control = begun();
        let copy = CopyHead {
            shard: SHARD,
            epoch: control.map().entries[0].epoch,
            floor: Version::ZERO,
            cause: FloorCause::Lost,
            doubt: None,
        };
        control.renew(
            100,
            &Renewal {
                copies: vec![copy],
                ..renewal(holder(1, 1))
            },
        );
        assert!(control.renew(101, &renewal(holder(0, 1))).is_some());
        let proposed = control.consider(now(102));
        assert!(control.renew(103, &renewal(holder(0, 1))).is_none(), "{proposed:?}");
        for change in proposed {
            control.settle(1, &change, true);
        }
        assert!(control.renew(104, &renewal(holder(0, 1))).is_some());
        control.renew(105, &renewal(holder(0, 2)));
        assert!(control.renew(106, &renewal(holder(0, 1))).is_none());
    }

    #[test]
    fn a_change_whose_epoch_has_passed_is_void() {
        let mut control = begun();
        let change = Change::Assign {
            shard: SHARD,
            expect: Epoch(0),
            to: holder(1, 1),
            copy: None,
        };
        assert_eq!(control.apply(&change), Outcome::Void);
        assert_eq!(owner(&control), Some(holder(0, 1)));
    }
}
