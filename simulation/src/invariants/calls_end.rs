//! I23. **Calls end.** Every call of a publisher is answered yes, no or unknown within five seconds; none hangs.

use super::Invariant;
use crate::oracle::{Fact, History};

const BOUND_US: u64 = 5_000_000;

/// See the module.
#[derive(Debug)]
pub(super) struct CallsEnd;

impl Invariant for CallsEnd {
    fn name(&self) -> &'static str {
        "I23"
    }

    fn see(&mut self, _history: &History, now: u64, fact: &Fact<'_>) -> Option<String> {
        let Fact::CallEnded(called) = fact else { return None };
        (now - called > BOUND_US).then(|| format!("a call took {} us", now - called))
    }
}
