//! I6. **No travel back.** On one connection the versions of an object never fall, and none comes twice except in answers to
//! polls, each of which is compared with a cursor anew.

use super::Invariant;
use crate::oracle::{Fact, History};

/// See the module.
#[derive(Debug)]
pub(super) struct NoTravelBack;

impl Invariant for NoTravelBack {
    fn name(&self) -> &'static str {
        "I6"
    }

    fn see(&mut self, history: &History, _now: u64, fact: &Fact<'_>) -> Option<String> {
        let Fact::Told(told) = fact else { return None };
        let before = *history.clients[told.client].told_here.get(&told.object)?;
        let falls = told.version < before || told.version == before && !told.polled;
        falls.then(|| {
            format!(
                "c{} hears of object-{}@{} after {before}",
                told.client, told.object, told.version
            )
        })
    }
}
