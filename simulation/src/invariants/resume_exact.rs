//! I11. **A resume is exact.** What a client is told by the answer to a poll is above what its cursor claimed. (That nothing
//! is left out is I2.) On streams a change that is under way to the edge may be told again, because live changes are never
//! filtered by a cursor.

use super::Invariant;
use crate::oracle::{Fact, History};

/// See the module.
#[derive(Debug)]
pub(super) struct ResumeExact;

impl Invariant for ResumeExact {
    fn name(&self) -> &'static str {
        "I11"
    }

    fn see(&mut self, history: &History, _now: u64, fact: &Fact<'_>) -> Option<String> {
        let Fact::Told(told) = fact else { return None };
        let knowledge = &history.clients[told.client];
        // In calm everything under way is milliseconds old, and a session's edge has heard all that its cursor claims.
        let cursor = knowledge
            .cursor
            .as_ref()
            .filter(|_| told.polled && history.mode == crate::plan::Mode::Calm)?;
        let claim = history.claim(cursor, told.object);
        let here = knowledge.told_here.contains_key(&told.object);
        (here && told.version <= claim).then(|| {
            format!(
                "c{} is told of object-{}@{} though its cursor claims {claim}",
                told.client, told.object, told.version
            )
        })
    }
}
