//! What acknowledgements alone show: I3, I7 and I8.

use crate::changes::{Change, Changes, NEVER};
use crate::coverage::Handover;
use crate::verdict::{Findings, Invariant};
use std::collections::BTreeMap;

/// I3: if publish A of an object returned before publish B was called, B has the higher version.
pub(crate) fn real_time(changes: &Changes, found: &mut Findings) {
    for object in changes.all().chunk_by(|a, b| a.object == b.object) {
        // From the highest version down: has any above returned before this one was called?
        let mut first_return: Option<&Change> = None;
        for change in object.iter().rev() {
            if let Some(above) = first_return.filter(|above| above.ack_us < change.call_us && !change.is_guess) {
                let [a, b] = above.numbers();
                let [c, d] = change.numbers();
                found.violated(Invariant::I3, &[a, b, c, d], || {
                    let (low, high) = (change.version, above.version);
                    format!("version {high} was acknowledged before the publish was called that got {low}")
                });
            }
            if change.ack_us != NEVER && first_return.is_none_or(|above| change.ack_us < above.ack_us) {
                first_return = Some(change);
            }
        }
        // From the lowest up: how many came after another?
        let mut first_us = NEVER;
        for change in object {
            found.checked(Invariant::I3, (first_us < change.call_us).into());
            first_us = first_us.min(change.ack_us);
        }
    }
}

/// What an epoch of a shard acknowledged.
struct Reign {
    first_ack: Change,
    least: Change,
    most: Change,
}

/// I7 and I8, of acknowledgements with shard and epoch. Returns when each new epoch first acknowledged.
pub(crate) fn epochs(changes: &Changes, found: &mut Findings) -> Vec<Handover> {
    let mut reigns: BTreeMap<u16, BTreeMap<u64, Reign>> = BTreeMap::new();
    let traced = || {
        changes
            .all()
            .iter()
            .filter(|change| change.epoch != 0 && change.ack_us != NEVER)
    };
    for change in traced() {
        let reign = reigns.entry(change.shard).or_default().entry(change.epoch);
        let reign = reign.or_insert(Reign {
            first_ack: *change,
            least: *change,
            most: *change,
        });
        if change.ack_us < reign.first_ack.ack_us {
            reign.first_ack = *change;
        }
        if change.version < reign.least.version {
            reign.least = *change;
        }
        if change.version > reign.most.version {
            reign.most = *change;
        }
    }
    let mut handovers = Vec::new();
    let mut by_shard: BTreeMap<u16, Vec<(u64, Change)>> = BTreeMap::new();
    for (shard, reigns) in reigns {
        let reigns: Vec<_> = reigns.into_iter().collect();
        let mut most = reigns[0].1.most;
        for (epoch, reign) in &reigns[1..] {
            handovers.push(Handover {
                at_us: reign.first_ack.ack_us,
            });
            found.checked(Invariant::I8, 1);
            if reign.least.version <= most.version {
                let [a, b] = most.numbers();
                let [c, d] = reign.least.numbers();
                found.violated(Invariant::I8, &[a, b, c, d], || {
                    format!(
                        "shard {shard}: epoch {epoch} gave version {}, an earlier one had given {}",
                        reign.least.version, most.version
                    )
                });
            }
            if reign.most.version > most.version {
                most = reign.most;
            }
        }
        let firsts = reigns.into_iter().map(|(epoch, reign)| (epoch, reign.first_ack));
        by_shard.insert(shard, firsts.collect());
    }
    for change in traced() {
        found.checked(Invariant::I7, 1);
        let above = by_shard[&change.shard]
            .iter()
            .filter(|(epoch, _)| *epoch > change.epoch);
        if let Some((epoch, above)) = above
            .min_by_key(|(_, first)| first.ack_us)
            .filter(|(_, first)| first.ack_us < change.call_us)
        {
            let [a, b] = above.numbers();
            let [c, d] = change.numbers();
            found.violated(Invariant::I7, &[a, b, c, d], || {
                format!(
                    "shard {}: called after epoch {epoch} acknowledged, but acknowledged by epoch {}",
                    change.shard, change.epoch
                )
            });
        }
    }
    handovers.sort_unstable_by_key(|handover| handover.at_us);
    handovers
}
