//! I9 and I14 of single faults. **One loss costs nothing.** Where each fault touches one node and comes when all copies are whole
//! again, nothing acknowledged is lost: no floor rises but for want of memory, and nobody is told to fetch anything.

use super::Invariant;
use crate::oracle::{Fact, History};
use crate::plan::Plan;
use tidings_protocol::peer::FloorCause;

/// See the module.
#[derive(Debug)]
pub(super) struct OneLoss {
    applies: bool,
}

impl OneLoss {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            applies: plan.one_at_a_time,
        }
    }
}

impl Invariant for OneLoss {
    fn name(&self) -> &'static str {
        "I14"
    }

    fn look(&mut self, history: &History, _world: &crate::world::World) -> Option<String> {
        let lost = |loss: &&crate::oracle::Loss| loss.cause != FloorCause::Evicted;
        let mut losses = history.losses.iter().enumerate();
        let (shard, loss) = losses.find_map(|(shard, losses)| Some((shard, losses.iter().find(lost)?)))?;
        self.applies
            .then(|| format!("shard {shard} lost what was below {loss:?}, though one thing went wrong at a time"))
    }

    fn see(&mut self, _history: &History, _now: u64, fact: &Fact<'_>) -> Option<String> {
        match fact {
            Fact::Resynced(client, object, cause, _)
                if self.applies && matches!(*cause, "versions_lost" | "power_lost") =>
            {
                Some(format!(
                    "c{client} is told to fetch object-{object} ({cause}), though one thing went wrong at a time"
                ))
            }
            _ => None,
        }
    }
}
