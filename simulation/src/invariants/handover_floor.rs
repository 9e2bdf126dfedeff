//! I8. **Handover floor.** Every version of an epoch is above every version and every closed version of all earlier epochs
//! of its shard; and no version is given again, or at or below what its owner closed for it.

use super::Invariant;
use crate::oracle::{Fact, History};
use crate::plan::Plan;
use std::collections::BTreeMap;
use tidings_protocol::{Epoch, ShardId, Version};

#[derive(Clone, Copy, Debug)]
struct Span {
    least: Version,
    most: Version,
    closed: Version,
}

/// See the module.
#[derive(Debug)]
pub(super) struct HandoverFloor {
    epochs: Vec<BTreeMap<Epoch, Span>>,
}

impl HandoverFloor {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            epochs: vec![BTreeMap::new(); plan.shards.get().into()],
        }
    }

    fn span(&mut self, shard: ShardId, epoch: Epoch) -> &mut Span {
        self.epochs[usize::from(shard.0)].entry(epoch).or_insert(Span {
            least: Version(u64::MAX),
            most: Version::ZERO,
            closed: Version::ZERO,
        })
    }

    fn given(&mut self, shard: ShardId, epoch: Epoch, version: Version) -> Option<String> {
        let epochs = &self.epochs[usize::from(shard.0)];
        let most = epochs
            .range(..epoch)
            .map(|(_, span)| span.most.max(span.closed))
            .max()
            .unwrap_or_default();
        let least = epochs.range(Epoch(epoch.0 + 1)..).map(|(_, span)| span.least).min();
        let own = *self.span(shard, epoch);
        let span = self.span(shard, epoch);
        span.least = span.least.min(version);
        span.most = span.most.max(version);
        if version <= most {
            return Some(format!(
                "{version} of epoch {epoch} of shard {shard} is not above {most} of an earlier one"
            ));
        }
        if least.is_some_and(|least| version >= least) {
            return Some(format!(
                "{version} of epoch {epoch} of shard {shard} is not below a later one's first"
            ));
        }
        (version <= own.most.max(own.closed))
            .then(|| format!("{version} of epoch {epoch} of shard {shard} was given or closed before"))
    }

    fn closed(&mut self, shard: ShardId, epoch: Epoch, version: Version) -> Option<String> {
        let epochs = &self.epochs[usize::from(shard.0)];
        let least = epochs.range(Epoch(epoch.0 + 1)..).map(|(_, span)| span.least).min();
        let span = self.span(shard, epoch);
        span.closed = span.closed.max(version);
        least
            .is_some_and(|least| version >= least)
            .then(|| format!("epoch {epoch} of shard {shard} closes {version}, which a later epoch began below"))
    }
}

impl Invariant for HandoverFloor {
    fn name(&self) -> &'static str {
        "I8"
    }

    fn see(&mut self, _history: &History, _now: u64, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Applied(_, shard, epoch, version, _) => self.given(*shard, *epoch, *version),
            Fact::Closed(_, shards, version, _) => shards
                .iter()
                .find_map(|(shard, epoch)| self.closed(*shard, *epoch, *version)),
            _ => None,
        }
    }
}
