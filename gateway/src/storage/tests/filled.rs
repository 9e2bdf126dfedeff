//! Copies of shards that others own, on the disk of a member: one that is being filled is never offered after a restart; one
//! that was whole is, with exactly what was written of it, wherever the process died and whenever snapshots were taken.

use super::epochs::{Member, Memory, now, open_member, place, reopen};
use super::simulated::{Back, Fault, Simulated};
use super::world::WALL_US;
use crate::owner::draft::of_copy;
use std::collections::BTreeMap;
use tidings_protocol::copy::Entry;
use tidings_protocol::peer::FloorCause;
use tidings_protocol::{Epoch, NodeId, ObjectHash, ShardId, Version};
use tidings_router::control::map::Process;
use tidings_router::copies::receiver::{Arrived, Output};

const ONE: ShardId = ShardId(1);
const TWO: ShardId = ShardId(2);

/// Who owns the shards.
const OWNER: Process = Process {
    node: NodeId(2),
    incarnation: 1,
};

fn begin(shard: ShardId, epoch: u64, replace: bool) -> Entry {
    Entry::Begin {
        shard,
        epoch: Epoch(epoch),
        replace,
        floor: Version::ZERO,
        cause: FloorCause::Lost,
    }
}

/// Objects of the shard, by number, each with a version.
fn versions(shard: ShardId, epoch: u64, of: &[(u64, u64)]) -> Entry {
    let each = of.iter().map(|(number, version)| {
        let object = ObjectHash(u64::from(shard.0) << 62 | number);
        (object, Version(WALL_US + version))
    });
    Entry::Versions {
        shard,
        epoch: Epoch(epoch),
        versions: each.collect(),
    }
}

fn complete(shard: ShardId, epoch: u64) -> Entry {
    Entry::Complete {
        shard,
        epoch: Epoch(epoch),
    }
}

fn end(shard: ShardId, epoch: u64) -> Entry {
    Entry::End {
        shard,
        epoch: Epoch(epoch),
    }
}

/// Batches of one stream: copies are filled, whole, kept in the next epoch, void again, whole again, and ended.
fn batches() -> Vec<Vec<Entry>> {
    vec![
        vec![begin(ONE, 3, true), versions(ONE, 3, &[(1, 10), (2, 11)])],
        vec![versions(ONE, 3, &[(3, 12)])],
        vec![begin(TWO, 1, true), versions(TWO, 1, &[(1, 13)]), complete(TWO, 1)],
        vec![complete(ONE, 3)],
        vec![versions(ONE, 3, &[(1, 14), (4, 15)])],
        vec![begin(ONE, 4, false), versions(ONE, 4, &[(5, 16)])],
        vec![versions(TWO, 1, &[(2, 17)]), versions(ONE, 4, &[(2, 18)])],
        // In the same epoch once more.
        vec![begin(ONE, 4, true), versions(ONE, 4, &[(6, 19)])],
        vec![
            versions(ONE, 4, &[(1, 20)]),
            complete(ONE, 4),
            versions(ONE, 4, &[(7, 21)]),
        ],
        vec![end(TWO, 1)],
        // What is not whole cannot be kept.
        vec![begin(TWO, 2, true), versions(TWO, 2, &[(8, 22)])],
        vec![begin(TWO, 3, false), versions(TWO, 3, &[(9, 23)])],
    ]
}

/// A copy as it must be found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Copy {
    known: Option<(Epoch, bool)>,
    versions: BTreeMap<u64, Version>,
}

type Copies = BTreeMap<ShardId, Copy>;

/// What some batches make of nothing.
fn after(batches: &[Vec<Entry>]) -> Copies {
    let mut copies = Copies::new();
    for entry in batches.iter().flatten() {
        let (shard, epoch) = entry.of();
        let copy = copies.entry(shard).or_default();
        match entry {
            Entry::Begin { replace, .. } => {
                let stays = !replace && copy.known.is_some_and(|(_, whole)| whole);
                if !stays {
                    copy.versions.clear();
                }
                copy.known = Some((epoch, stays));
            }
            Entry::Versions { versions, .. } => {
                let each = versions.iter().map(|(object, version)| (object.0, *version));
                copy.versions.extend(each);
            }
            Entry::Complete { .. } => copy.known = Some((epoch, true)),
            Entry::End { .. } => *copy = Copy::default(),
            Entry::Marks { .. } | Entry::Floor { .. } => panic!("there are none here"),
        }
    }
    copies.retain(|_, copy| copy.known.is_some_and(|(_, whole)| whole));
    copies
}

/// What a member offers.
fn offered(member: &Member) -> Copies {
    let each = member.on_shelves().into_iter().map(|(shard, epoch)| {
        let copy = Copy {
            known: Some((epoch, true)),
            versions: member.kept(shard).0,
        };
        (shard, copy)
    });
    each.collect()
}

/// Takes a batch; whether it was written.
fn take(member: &mut Member, number: usize, entries: &[Entry]) -> bool {
    let mut fine = true;
    // Each owner has its part of it, as on a node.
    for at in 0..member.holdings.len() {
        let entries = entries.iter().filter(|entry| place(entry.of().0.0) == at);
        let batch = Arrived {
            owner: 0,
            life: 1,
            place: number as u64 + 1,
            sync: number.is_multiple_of(3),
            entries: entries.cloned().collect(),
        };
        let mut out = Vec::new();
        let taken = member.holdings[at].copy(now(), OWNER, batch, &mut out);
        taken.expect("no batch is missing");
        for output in out {
            if let Output::Write {
                entries,
                standings,
                sync,
                ..
            } = output
            {
                let (payload, _) = of_copy(&entries, &standings);
                fine &= member.write(payload, sync);
            }
        }
    }
    fine
}

/// Takes batches until one is not written, with snapshots behind one of them. How many were written.
fn live(disk: &Simulated, snapshot_behind: usize) -> usize {
    let Ok(mut member) = open_member(disk, "boot 1", &Memory::default()) else {
        return 0;
    };
    for (number, entries) in batches().iter().enumerate() {
        if !take(&mut member, number, entries) {
            return number;
        }
        if number == snapshot_behind {
            member.snapshots();
        }
    }
    batches().len()
}

/// All that may be found if so many batches were written: the next one may have reached the disk too.
fn possible(written: usize) -> Vec<Copies> {
    let batches = batches();
    let mut possible = vec![after(&batches[..written])];
    if let Some(next) = batches.get(written) {
        // Of each owner a part: the first may be written without the second.
        for last in 0..2 {
            let part = next.iter().filter(|entry| place(entry.of().0.0) <= last);
            let mut all = batches[..written].to_vec();
            all.push(part.cloned().collect());
            possible.push(after(&all));
        }
    }
    possible
}

#[test]
fn without_a_fault_what_was_whole_is_offered_and_what_was_not_is_not() {
    for snapshot_behind in 0..=batches().len() {
        let disk = Simulated::default();
        assert_eq!(live(&disk, snapshot_behind), batches().len());
        let member = reopen(&disk.back(Back::Process), "boot 1", &Memory::default());
        let found = offered(&member);
        assert_eq!(found, after(&batches()), "snapshots behind batch {snapshot_behind}");
        assert_eq!(found[&ONE].known, Some((Epoch(4), true)));
        assert!(!found.contains_key(&TWO), "it was being filled");
    }
}

#[test]
fn after_a_crash_at_any_operation_only_whole_copies_are_offered() {
    for snapshot_behind in 0..=batches().len() {
        for at in 0.. {
            let disk = Simulated::default();
            disk.set_fault(Some(Fault::Crash { at }));
            let written = live(&disk, snapshot_behind);
            let what = format!("crash at {at}, snapshots behind batch {snapshot_behind}, {written} written");
            let member = reopen(&disk.back(Back::Process), "boot 1", &Memory::default());
            let found = offered(&member);
            assert!(
                possible(written).contains(&found),
                "{what}: {found:?} instead of {:?}",
                possible(written)
            );
            // Without what was not synced a copy is whole or not there.
            for back in [Back::Power, Back::PowerTorn, Back::PowerNames] {
                let member = reopen(&disk.back(back), "boot 2", &Memory::default());
                let found = offered(&member);
                let is_whole = |(shard, copy): (&ShardId, &Copy)| {
                    let may_be = (0..=written).flat_map(possible);
                    may_be.into_iter().any(|copies| copies.get(shard) == Some(copy))
                };
                assert!(found.iter().all(is_whole), "{what}, {back:?}: {found:?}");
            }
            if disk.operations() <= at {
                assert_eq!(written, batches().len());
                break;
            }
        }
    }
}

#[test]
fn a_whole_copy_is_owned_after_a_restart_with_all_it_had_and_one_that_was_not_is_not_trusted() {
    let disk = Simulated::default();
    live(&disk, 4);
    let mut member = reopen(&disk.back(Back::Process), "boot 1", &Memory::default());
    let (before, _) = member.kept(ONE);
    member.take(1, 5, false);
    let (owned, floor) = member.kept(ONE);
    assert_eq!(owned, before, "nothing is lost on the way to its owner");
    assert_eq!(floor, Version::ZERO);
    member.take(2, 4, false);
    let (owned, floor) = member.kept(TWO);
    assert!(owned.is_empty() && floor > Version::ZERO, "{owned:?} above {floor}");
}
