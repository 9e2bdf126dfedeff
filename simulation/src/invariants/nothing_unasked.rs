//! I15, as far as there is no authorisation yet. **Nothing unasked.** A client hears of an object only after the answer to
//! its subscription, and no more after `unsubscribed`.

use super::Invariant;
use crate::oracle::{Fact, History};

/// See the module.
#[derive(Debug)]
pub(super) struct NothingUnasked;

impl Invariant for NothingUnasked {
    fn name(&self) -> &'static str {
        "I15"
    }

    fn see(&mut self, _history: &History, _now: u64, fact: &Fact<'_>) -> Option<String> {
        let Fact::Told(told) = fact else { return None };
        (!told.asked).then(|| {
            format!(
                "c{} hears of object-{}@{}, which it does not watch",
                told.client, told.object, told.version
            )
        })
    }
}
