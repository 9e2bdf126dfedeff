//! I22 and I29. **Served again.** In calm, and from twelve seconds after faults have stopped on, every publish is accepted.

use super::Invariant;
use crate::oracle::{Fact, History};
use crate::world::World;

const WITHIN_US: u64 = 12_000_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ServedAgain {
    last: Option<(usize, u64)>,
}

impl Invariant for ServedAgain {
    fn name(&self) -> &'static str {
        "I22"
    }

    fn see(&mut self, _history: &History, _now: u64, fact: &Fact<'_>) -> Option<String> {
        if let Fact::Unserved(publish, called) = fact {
            self.last = Some((*publish, *called));
        }
        None
    }

    fn look(&mut self, _history: &History, world: &World) -> Option<String> {
        let (publish, called) = self.last?;
        (called > world.healed_at? + WITHIN_US)
            .then(|| format!("p{publish}, called at {called} us, was refused or left unknown long after all was well"))
    }
}
