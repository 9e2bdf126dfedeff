//! I14. **Resync is rare and true.** In a run without faults nobody is told to fetch anything. Otherwise each resync names a
//! loss that the object's shard suffered; and nobody whose cursor is sound is told that it is not.

use super::Invariant;
use crate::oracle::{Fact, History};
use crate::plan::Mode;

/// See the module.
#[derive(Debug)]
pub(super) struct ResyncTrue;

impl Invariant for ResyncTrue {
    fn name(&self) -> &'static str {
        "I14"
    }

    fn see(&mut self, history: &History, _now: u64, fact: &Fact<'_>) -> Option<String> {
        let Fact::Resynced(client, object, cause, asked) = fact else {
            return None;
        };
        let losses = &history.losses[usize::from(history.objects[*object].shard.0)];
        let names = |losses: &[crate::oracle::Loss]| losses.iter().any(|loss| loss.cause.as_str() == *cause);
        // The answer to a poll names one cause, even if its objects have several.
        let polled = history.clients[*client].polls;
        let true_cause = names(losses) || polled && !losses.is_empty() && history.losses.iter().any(|all| names(all));
        let excused = *cause == "cursor_future" && history.clocks_lied;
        let wrong = history.mode == Mode::Calm || !(true_cause || excused) || !asked;
        wrong.then(|| format!("c{client} is told to fetch object-{object} ({cause}); losses of its shard: {losses:?}"))
    }
}
