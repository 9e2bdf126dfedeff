//! I25. **No livelock.** Once faults have stopped, leaders do not change any more after the first ten seconds.

use super::Invariant;
use crate::oracle::{Fact, History};
use crate::world::World;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Elections {
    last: u64,
}

impl Invariant for Elections {
    fn name(&self) -> &'static str {
        "I25"
    }

    fn see(&mut self, _history: &History, now: u64, fact: &Fact<'_>) -> Option<String> {
        if let Fact::Elected = fact {
            self.last = now;
        }
        None
    }

    fn look(&mut self, _history: &History, world: &World) -> Option<String> {
        let calm_since = world.healed_at? + 10_000_000;
        (self.last > calm_since).then(|| format!("a leader was elected at {} us, long after all was well", self.last))
    }
}
