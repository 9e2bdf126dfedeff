//! I7 and P5. **Fencing.** After the first acknowledgement of an epoch of a shard, no publish called later is acknowledged
//! with an older one.

use super::Invariant;
use crate::oracle::{Fact, History};
use crate::plan::Plan;
use tidings_protocol::Epoch;

/// See the module.
#[derive(Debug)]
pub(super) struct Fencing {
    /// By shard: when an epoch was acknowledged first.
    first: Vec<Vec<(u64, Epoch)>>,
}

impl Fencing {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            first: vec![Vec::new(); plan.shards.get().into()],
        }
    }
}

impl Invariant for Fencing {
    fn name(&self) -> &'static str {
        "I7"
    }

    fn see(&mut self, _history: &History, now: u64, fact: &Fact<'_>) -> Option<String> {
        // A duplicate names the epoch in which it happened.
        let Fact::Acked(ack) = fact else { return None };
        if ack.duplicate {
            return None;
        }
        let first = &mut self.first[usize::from(ack.shard.0)];
        let before = first.partition_point(|(at, _)| *at < ack.first_called);
        let known = before.checked_sub(1).map(|last| first[last].1);
        if first.last().is_none_or(|(_, epoch)| *epoch < ack.epoch) {
            first.push((now, ack.epoch));
        }
        let newer = known.filter(|known| *known > ack.epoch)?;
        Some(format!(
            "p{} is acknowledged in epoch {} of shard {}, called after an acknowledgement of epoch {newer}",
            ack.publish, ack.epoch, ack.shard
        ))
    }
}
