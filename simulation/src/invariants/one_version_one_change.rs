//! I4. **One version, one change; one key, one version.** No version of an object names two publishes, and a repeated publish
//! under its idempotency key is answered with the same version, while the shard has lost nothing, not more keys were used since
//! than an owner remembers for certain, and no wall clock jumped (by which a window that outlives a process is counted).

use super::Invariant;
use crate::oracle::{Acked, Fact, History};
use crate::plan::Plan;
use std::collections::BTreeMap;
use tidings_protocol::{ShardId, Version};

/// What is known of a publish with a key.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// The version it was acknowledged with.
    version: Version,
    /// So many keys its owner had used when that was given.
    used: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct OneVersionOneChange {
    threads: usize,
    /// An owner remembers so many for certain: the younger half of its limit.
    remembered: u64,
    /// By thread: keys that some owner was given or took over. At least as many as any one of them.
    used: Vec<u64>,
    /// By publish and version: how many keys had been used when it was given.
    given: BTreeMap<(usize, Version), u64>,
    /// By publish.
    keys: BTreeMap<usize, Known>,
}

impl OneVersionOneChange {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            threads: plan.threads,
            remembered: plan.owner.idempotency_keys as u64 / 2,
            used: vec![0; plan.threads],
            given: BTreeMap::new(),
            keys: BTreeMap::new(),
        }
    }

    fn applied(&mut self, history: &History, publish: usize, shard: ShardId, version: Version) -> Option<String> {
        if history.publishes[publish].key.is_some() {
            let used = &mut self.used[usize::from(shard.0) % self.threads];
            *used += 1;
            self.given.insert((publish, version), *used);
        }
        let object = history.publishes[publish].object;
        let other = history.objects[object].applied.get(&version)?;
        Some(format!(
            "{version} of object-{object} names p{} and p{publish}",
            other.publish
        ))
    }

    fn acked(&mut self, history: &History, ack: &Acked) -> Option<String> {
        let publication = &history.publishes[ack.publish];
        publication.key?;
        let given = self.given.get(&(ack.publish, ack.version)).copied();
        let now = Known {
            version: ack.version,
            used: given.unwrap_or_default(),
        };
        let first = *self.keys.entry(ack.publish).or_insert(now);
        if first.version == ack.version {
            return None;
        }
        let lost = history.lost_above(ack.object, first.version).is_some();
        let forgotten = given.is_some_and(|given| given.saturating_sub(first.used) > self.remembered);
        if forgotten {
            self.keys.insert(ack.publish, now);
        }
        let excused = lost || forgotten || publication.revision.is_some() || history.clocks_lied;
        (!excused).then(|| {
            format!(
                "the key of p{} is answered with {} and with {}",
                ack.publish, first.version, ack.version
            )
        })
    }
}

impl Invariant for OneVersionOneChange {
    fn name(&self) -> &'static str {
        "I4"
    }

    fn see(&mut self, history: &History, _now: u64, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Applied(publish, shard, _, version, _) => self.applied(history, *publish, *shard, *version),
            Fact::KeysMoved(thread, keys) => {
                self.used[*thread] += *keys as u64;
                None
            }
            Fact::Acked(ack) if !ack.duplicate && ack.given_to != ack.publish => Some(format!(
                "p{} is acknowledged with {}, which is p{}",
                ack.publish, ack.version, ack.given_to
            )),
            Fact::Acked(ack) => self.acked(history, ack),
            _ => None,
        }
    }
}
